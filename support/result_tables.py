"""Measured figures: one JSON file per subject in docs/results/, and the Markdown tables generated
from them.

Every number this project quotes is a record here, written by the command that measured it. The
tables in README.md and docs/*.md stand between markers and are generated, so prose cannot drift
from measurement:

    <!-- results trunk: learning/ -->
    <!-- /results -->
every record of docs/results/trunk.json whose name begins with "learning/", and

    <!-- results toy: distilled | sage -->
    <!-- /results -->
the records "distilled/…" and "sage/…" side by side, one column each. With "?" behind the subject
(`results smol?: speed/`) there is no table as long as there is no record; else that is an error.

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
from functools import cache
from pathlib import Path

from support.settings import ROOT

FOLDER = ROOT / "docs" / "results"
MARKER = re.compile(
    r"(<!-- results (\w+)(\??): ([^\n]+?) -->\n)"  # subject, whether it may be absent, selection
    r".*?(<!-- /results -->)",
    re.DOTALL,
)


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


@cache
def origin() -> str:
    """Commit, machine and day of what this process measures, in words."""
    return f"{commit()}, {machine()}, {date.today()}"


@cache
def commit() -> str:
    """The commit that was checked out when this process first asked, with "+" where tracked source
    files differ from it ("unknown" outside a git checkout).
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
    store(subject, entry)
    return entry


def store(subject: str, entry: dict) -> None:
    """Put a whole record in docs/results/<subject>.json, in place of one of the same name."""
    path = FOLDER / f"{subject}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two benches may write at once
        records = json.loads(path.read_text()) if path.exists() else []
        names = [other["name"] for other in records]
        if entry["name"] in names:
            records[names.index(entry["name"])] = entry
        else:
            records.append(entry)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
        aside.replace(path)
    finally:
        os.close(folder)


def four_digits(value: float) -> str:
    """Four digits; large numbers whole, with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def records_of(subject: str, groups: list[str]) -> list[dict]:
    """A subject's records whose names begin with one of `groups`."""
    path = FOLDER / f"{subject}.json"
    every = json.loads(path.read_text()) if path.exists() else []
    return [record for record in every if record["name"].startswith(tuple(groups))]


def list_table(subject: str, prefix: str) -> str:
    """The Markdown table of one subject's records under `prefix`, a row for each."""
    records = records_of(subject, [prefix])
    rows = [
        {
            "what": record["name"].removeprefix(prefix),
            "measured": f"{four_digits(record['value'])} {record['unit']}".strip(),
            "spread": record["spread"],
            "n": "" if record["n"] is None else str(record["n"]),
            "seeds": "" if record["seeds"] is None else str(record["seeds"]),
            "goal": record["goal"],
            "paper": record["paper"],
            "note": record["note"],
        }
        for record in records
    ]
    return markdown_table(rows, records)


def side_by_side(subject: str, stages: list[str]) -> str:
    """The Markdown table of records "stage/figure": a row for each figure, a column for each stage;
    goal and paper from the last stage that has them, n where no seeds stand behind a figure.
    """
    records = records_of(subject, [f"{stage}/" for stage in stages])
    figures: dict[str, dict[str, dict]] = {}  # figure → stage → record
    for record in records:
        stage, figure = record["name"].split("/", 1)
        figures.setdefault(figure, {})[stage] = record
    rows = []
    for figure, of_stage in figures.items():
        row = {"": f"{figure}, {next(iter(of_stage.values()))['unit']}"}
        for stage in stages:
            row[stage] = ""
            if stage in of_stage:
                record = of_stage[stage]
                spread = record["spread"].removesuffix(" std")
                row[stage] = f"{four_digits(record['value'])} {spread}".strip()
        counts = sorted({r["n"] for r in of_stage.values() if r["n"] and not r["seeds"]})
        row["n"] = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]])))
        for key in ("goal", "paper"):
            said = [of_stage[stage][key] for stage in stages if stage in of_stage]
            row[key] = next((words for words in reversed(said) if words), "")
        rows.append(row)
    return markdown_table(rows, records, counts=_counts(records))


def _counts(records: list[dict]) -> str:
    """How many runs and episodes stand behind a table that has no column for them."""
    seeds = {record["seeds"] for record in records if record["seeds"]}
    counts = {record["n"] for record in records if record["n"]}
    if not (seeds and counts):
        return ""
    runs = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    return (
        f" (mean ± std over {runs} runs; at least {min(counts)} episodes, or calls, behind a "
        "run's figure)"
    )


def markdown_table(rows: list[dict], records: list[dict], counts: str = "") -> str:
    """Rows (heading → cell) without the columns that none of them fills, and what measured them."""
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    cells = [heads, ["---"] * len(heads), *([row[head] for head in heads] for row in rows)]
    commands = sorted({record["command"] for record in records})
    machines = sorted({record["machine"] for record in records})
    return "\n".join(
        [
            *("| " + " | ".join(row) + " |" for row in cells),
            "",
            f"Measured by {', '.join(f'`{command}`' for command in commands)} "
            f"on {'; '.join(machines)}{counts}.",
            "",
        ]
    )


def fresh_table(marker: re.Match) -> str:
    """A marked stretch of a page with its table as the records are now. Ends the program where
    there is no record and the marker does not allow for that.
    """
    opening, subject, optional, selection, closing = marker.groups()
    stages = [part.strip() for part in selection.split("|")] if "|" in selection else []
    groups = [f"{stage}/" for stage in stages] or [selection]
    if records_of(subject, groups):
        table = side_by_side(subject, stages) if stages else list_table(subject, selection)
    elif optional:
        table = ""
    else:
        raise SystemExit(
            f"docs/results/{subject}.json has no record under {', '.join(groups)}; "
            "run the command that measures it"
        )
    return opening + table + closing


def main() -> None:
    check_only = "--check" in sys.argv
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        fresh = MARKER.sub(fresh_table, text)
        if fresh != text:
            stale.append(page.name)
            if not check_only:
                page.write_text(fresh)
    if check_only and stale:
        raise SystemExit(
            f"tables differ from docs/results: {', '.join(stale)}; "
            "run python -m support.result_tables"
        )
    print("rewrote " + ", ".join(stale) if stale else "every table agrees with docs/results")


if __name__ == "__main__":
    main()
