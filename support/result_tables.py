"""Measured figures: one JSON file a subject in docs/results/, and the Markdown tables generated
from them.

Every number this project quotes is a record here, written by the command that measured it. The
tables in README.md and
docs/*.md stand between markers and are generated, so prose cannot drift from measurement:

    <!-- results trunk: learning/ -->      every record of docs/results/trunk.json whose name begins with "learning/"
    <!-- /results -->

    <!-- results posttraining: base | sage -->    the records "base/…" and "sage/…" side by side, a column each
    <!-- /results -->

`python -m support.result_tables` rewrites the tables; `python -m support.result_tables --check`
exits 1 when one differs (a test runs it).
"""

import fcntl
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
# Figures that a fault touches say so in every table until they are measured again: a date, and what
# is older than it.
HONEST_SINCE = "2026-11-27"
TOUCHED = {
    "posttraining": (
        "base/",
        "distilled/",
        "amplified/",  # and varied: the two stages that stage distill was made of
        "varied/",
        "reflected/",
        "safe/",
        "sage/",
        "without-",
        "grpo/",
    ),
    "reasoning": ("",),
    "worlds": ("expert/", "chance/", "negatives/"),
}
WHY = (
    f"**Superseded**, to be measured again: before {HONEST_SINCE} training saw some of the test's names and all of its wordings but the API world's, "
    "stage ppo replayed the tasks that it was rewarded on, and recipes were chosen on the tasks that are reported (docs/LOG.md)."
)
MARKER = re.compile(r"(<!-- results (\w+): ([^\n]+?) -->\n).*?(<!-- /results -->)", re.DOTALL)


def machine() -> str:
    """The machine in words: processor, cores in use, GPU if there is one, torch version."""
    import torch  # here, not above: regenerating tables should not need two seconds of import

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"model name\s*:\s*(.+)", info.read_text())
        cpu = names[0].strip() if names else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores{gpu}, torch {torch.__version__}"


def commit() -> str:
    """The checked-out commit, with "+" where tracked source files differ from it ("unknown" outside
    a git checkout).
    """

    def git(*words: str) -> str:
        try:
            return subprocess.run(
                ["git", "-C", ROOT, *words], capture_output=True, text=True
            ).stdout.strip()
        except OSError:  # no git on this machine
            return ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if changed else "")


def record(
    subject: str,
    name: str,
    value: float,
    *,
    spread: str = "",
    n: int | None = None,
    seeds: int | None = None,
    unit: str = "",
    goal: str = "",
    paper: str = "",
    note: str = "",
    command: str | None = None,
) -> dict:
    """Write one measured figure to docs/results/<subject>.json, replacing an earlier record of the
    same name.

    `name` is "group/what was measured"; `spread` says how the value scatters ("± 0.01 std", "min
    2.9 max 3.3"); `n` is the number of tasks or repetitions, `seeds` the number of independent
    runs; `goal` and `paper` stand beside the value in the table. Command, commit, machine and date
    are filled in. Returns the record.
    """
    words = [Path(sys.argv[0]).resolve(), *sys.argv[1:]]
    relative = words[0].relative_to(ROOT) if words[0].is_relative_to(ROOT) else words[0].name
    entry = dict(
        name=name,
        value=value,
        spread=spread,
        n=n,
        seeds=seeds,
        unit=unit,
        goal=goal,
        paper=paper,
        note=note,
        command=command or shlex.join(["python", str(relative), *map(str, words[1:])]),
        commit=commit(),
        machine=machine(),
        date=date.today().isoformat(),
    )
    path = FOLDER / f"{subject}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two benches may write at once
        records = json.loads(path.read_text()) if path.exists() else []
        names = [other["name"] for other in records]
        if name in names:
            records[names.index(name)] = entry
        else:
            records.append(entry)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
        aside.replace(path)
    finally:
        os.close(folder)
    return entry


def shown(value: float) -> str:
    """Four digits; large numbers whole, with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(subject: str, prefix: str) -> str:
    """The Markdown table of one subject's records under `prefix`; columns that no record fills are
    left out.
    """
    path = FOLDER / f"{subject}.json"
    records = (
        [r for r in json.loads(path.read_text()) if r["name"].startswith(prefix)]
        if path.exists()
        else []
    )
    if not records:
        raise SystemExit(
            f"docs/results/{subject}.json has no record under {prefix!r}; run the command that measures it"
        )
    columns = {
        "what": lambda r: r["name"].removeprefix(prefix),
        "measured": lambda r: f"{shown(r['value'])} {r['unit']}".strip(),
        "spread": lambda r: r["spread"],
        "n": lambda r: "" if r["n"] is None else str(r["n"]),
        "seeds": lambda r: "" if r["seeds"] is None else str(r["seeds"]),
        "goal": lambda r: r["goal"],
        "paper": lambda r: r["paper"],
        "note": lambda r: r["note"],
    }
    return written(subject, columns, records, records)


def side_by_side(subject: str, stages: list[str]) -> str:
    """The Markdown table of records "stage/figure": a row for each figure, a column for each stage;
    goal and paper from the last stage that has them.
    """
    path = FOLDER / f"{subject}.json"
    records = (
        [r for r in json.loads(path.read_text()) if r["name"].partition("/")[0] in stages]
        if path.exists()
        else []
    )
    if not records:
        raise SystemExit(
            f"docs/results/{subject}.json has no record of {', '.join(stages)}; run the command that measures it"
        )
    found = {tuple(r["name"].split("/", 1)): r for r in records}
    names = list(dict.fromkeys(name for _, name in found))
    cell = lambda stage: (
        lambda name: (
            f"{shown(found[stage, name]['value'])} {found[stage, name]['spread'].removesuffix(' std')}".strip()
            if (stage, name) in found
            else ""
        )
    )
    last = lambda key: (
        lambda name: next(
            (
                found[stage, name][key]
                for stage in reversed(stages)
                if (stage, name) in found and found[stage, name][key]
            ),
            "",
        )
    )
    columns = {
        "": lambda name: (
            f"{name}, {next(r['unit'] for (_, other), r in found.items() if other == name)}"
        ),
        **{stage: cell(stage) for stage in stages},
        "goal": last("goal"),
        "paper": last("paper"),
    }
    return written(subject, columns, names, records)


def written(subject: str, columns: dict, items: list, records: list[dict]) -> str:
    """A Markdown table of `items` without the columns that none of them fills, and what measured
    its records.
    """
    columns = {head: cell for head, cell in columns.items() if any(cell(item) for item in items)}
    rows = [list(columns), ["---"] * len(columns)] + [
        [cell(item) for cell in columns.values()] for item in items
    ]
    commands = sorted({r["command"] for r in records})
    made = sorted({f"{r['machine']}" for r in records})
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    over = ""
    if items is not records:  # a figure a cell leaves no column for these
        counts, seeds = ({r[key] for r in records if r[key]} for key in ("n", "seeds"))
        to = lambda numbers: (
            f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
        )
        over = (
            f" (mean ± std over {to(seeds)} runs; at least {min(counts)} episodes, or calls, behind a run's figure)"
            if counts and seeds
            else ""
        )
    old = [
        r
        for r in records
        if r["date"] < HONEST_SINCE and r["name"].startswith(TOUCHED.get(subject, ()))
    ]
    warning = [WHY, ""] if old else []
    return "\n".join(
        [
            *warning,
            *lines,
            "",
            "Measured by "
            + ", ".join(f"`{c}`" for c in commands)
            + " on "
            + "; ".join(made)
            + over
            + ".",
            "",
        ]
    )


def main() -> None:
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        fresh = MARKER.sub(
            lambda m: (
                m[1]
                + (
                    side_by_side(m[2], [part.strip() for part in m[3].split("|")])
                    if "|" in m[3]
                    else table(m[2], m[3])
                )
                + m[4]
            ),
            text,
        )
        if fresh != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(fresh)
    if "--check" in sys.argv and stale:
        raise SystemExit(
            f"tables differ from docs/results: {', '.join(stale)}; run python -m support.result_tables"
        )
    print("rewrote " + ", ".join(stale) if stale else "every table agrees with docs/results")


if __name__ == "__main__":
    main()
