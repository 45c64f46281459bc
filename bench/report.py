"""The paper's evaluation of a model's stages, on one page: benchmarks beside the paper's figures,
orderings judged question by question, what answers cost, case studies played.

    make report                                              SmolLM2 and the stages in out/smol
    python bench/report.py instruct=smollm2 out/smol/distilled --tasks gsm8k,bfcl --limit 50
    python bench/report.py out/smol/sage --cases ""          no case studies

Stages are runs' folders or published weights, under the name before "=", or their own; the earlier
stage first. Each is measured in mode fast, and in mode think as well where it has trained heads.
Writes --folder: README.md, report.json, benchmarks.png; every answer is kept below it, and what was
stopped goes on there. An ordering "holds" where the 95% interval of the difference (bootstrap over
the questions, both stages answering the same) lies above zero, "fails" where it lies below, and is
"not shown" otherwise. Training seeds are not varied: one set of weights per stage.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import support.openmp  # before torch

import benchmarks
from config import UserError
from support import checkpoint, provenance, result_tables, settings
from support.intervals import paired_difference
from support.measured import named_stages
from worlds.extras.cases import CASES

# What the paper reports of SAGE-32B at each benchmark, in percent: table 1 (Std, Think), and §6.4's
# "w/o IR head" and "full". MATH is its figure for what is MATH-500 here.
PAPER = {
    "mmlu": (89.67, 90.20),
    "mmlu_pro": (75.60, 79.27),
    "gsm8k": (97.04, 96.74),
    "math500": (78.87, 91.78),
    "mmmlu": (78.28, 77.24),
    "mgsm": (90.95, 90.54),
    "agentbench:os": (51.5, 64.2),
    "agentbench:db": (72.1, 78.0),
}
CASES_VERSION = 1  # raised where a case or its judge changes, so that no older play passes for one
TASKS = "gsm8k,math500,mgsm,bfcl,agentbench:db,agentbench:os,world:library,world:sql,world:shell"


@dataclass
class Measured:
    """A stage in one mode: a benchmark's figures (support/answer_table.py), its rows by question,
    and where they were measured.
    """

    stage: str
    mode: str
    figures: dict[str, dict]
    rows: dict[str, dict[int, dict]]
    origins: dict[str, list[str]]  # commit, machine and day, one or several

    @property
    def name(self) -> str:
        return self.stage if self.mode == "fast" else f"{self.stage}, {self.mode}"


@dataclass
class Ordering:
    """One benchmark's difference between two columns, in percentage points."""

    task: str
    before: str
    after: str
    difference: float
    low: float
    high: float
    n: int  # questions that both answered

    @property
    def verdict(self) -> str:
        return "holds" if self.low > 0 else "fails" if self.high < 0 else "not shown"


# --------------------------------------------------------------------------------------------------
# Measuring.


def measure(name: str, model: str, mode: str, a: argparse.Namespace) -> Measured:
    """A stage's answers in one mode; what is in the folder is not asked again."""
    print(f"\n{name}, {mode}", flush=True)
    words = ["--model", model, "--tasks", a.tasks, "--limit", str(a.limit), "--mode", mode]
    words += ["--seed", str(a.seed), "--folder", str(Path(a.folder) / "answers")]
    words += ["--votes", str(a.votes), "--batch", str(a.batch)]
    results = benchmarks.main(words)
    figures = {task: result["figures"] for task, result in results.items()}
    rows = {task: {r["number"]: r for r in result["rows"]} for task, result in results.items()}
    origins = {task: result["measured"] for task, result in results.items()}
    return Measured(name, mode, figures, rows, origins)


def played_cases(stages: dict[str, str], wanted: list[str], folder: Path) -> dict:
    """What each stage did in each case, by case and stage; kept in folder/cases.json, and played
    again where the stage's weights or CASES_VERSION are others, or where it could not be played.
    """
    file = folder / "cases.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    for case in wanted:
        for name, model in stages.items():
            made_from = [CASES_VERSION, checkpoint.weights_identity(Path(model))]
            known = kept.get(f"{case}/{name}", dict(said=[""]))
            if known.get("made_from") != made_from or known["said"][0].startswith("not played"):
                said = play_case(model, case)
                known = dict(made_from=made_from, said=said, measured=result_tables.origin())
                kept[f"{case}/{name}"] = known
                folder.mkdir(parents=True, exist_ok=True)
                provenance.replace(file, json.dumps(kept, indent=1, ensure_ascii=False))
            print(f"{case}, {name}: {'; '.join(known['said'])}", flush=True)
    return {(case, name): kept[f"{case}/{name}"] for case in wanted for name in stages}


def play_case(model: str, case: str) -> list[str]:
    """What sample.py says of the stage's episodes of a case, one judgement each; or why none was
    played.
    """
    command = [sys.executable, str(ROOT / "sample.py"), "--case", case, "--model", model]
    done = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if any(map(str.isalpha, line))]
        return [f"not played: {said[-1].strip(' │') if said else 'no reason was given'}"]
    lines = done.stdout.split("\n")  # a model may write characters at which splitlines cuts, too
    traces = [json.loads(line) for line in lines if line.startswith("{")]
    judgements = [trace["judgement"] for trace in traces]
    return [f"{judged['outcome']}: {judged['seen']}" for judged in judgements]


# --------------------------------------------------------------------------------------------------
# Judging.


def compare(task: str, before: Measured, after: Measured) -> Ordering | None:
    """The ordering of two columns at a task, question by question; None without common ones."""
    first, second = before.rows.get(task, {}), after.rows.get(task, {})
    common = sorted(
        number
        for number in first.keys() & second.keys()
        if first[number]["question"] == second[number]["question"]
    )
    if not common:
        return None
    pairs = [[(float(rows[n]["right"]), 1.0) for n in common] for rows in (first, second)]
    low, high = paired_difference([pairs[0]], [pairs[1]])  # one training seed each
    shares = [sum(right for right, _ in side) / len(common) for side in pairs]
    ends = (100 * (shares[1] - shares[0]), 100 * low, 100 * high)
    return Ordering(task, before.name, after.name, *ends, len(common))


def orderings(columns: list[Measured]) -> Iterator[Ordering]:
    """Each stage after the one before it, the last after the first, and in each stage think after
    fast.
    """
    fast = [column for column in columns if column.mode == "fast"]
    pairs = list(zip(fast, fast[1:]))
    if len(fast) > 2:
        pairs.append((fast[0], fast[-1]))
    for column in columns:
        if column.mode != "fast":
            pairs.append((next(f for f in fast if f.stage == column.stage), column))
    for before, after in pairs:
        for task in before.rows:
            ordering = compare(task, before, after)
            if ordering:
                yield ordering


# --------------------------------------------------------------------------------------------------
# The page.


def table(head: list[str], rows: list[list[str]]) -> str:
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def paper_of(task: str, mode: str) -> str:
    figures = PAPER.get(task)  # of the whole benchmark, not of one language or subject
    if not figures:
        return "–"
    std, think = figures
    return str(think if mode == "think" else std)


def cells_of(columns: list[Measured], task: str, text: Callable[[dict], str]) -> list[str]:
    """A task's cell in each column."""
    return [text(column.figures[task]) for column in columns]


def share_of(f: dict) -> str:
    return f"{f['right']:.1f} ± {f['standard_error']:.1f} ({f['questions']})"


def cost_of(f: dict) -> str:
    return f"{f['written']:.0f}, {f['gflops']:.3g}"


def benchmark_table(columns: list[Measured]) -> str:
    """Percent right ± standard error, of n questions; the paper's figure of SAGE-32B behind it."""
    rows = []
    for task in columns[0].figures:
        paper = [paper_of(task, mode) for mode in ("fast", "think")]
        rows.append([task, *cells_of(columns, task, share_of), *paper])
    head = ["benchmark", *(column.name for column in columns), "paper, Std", "paper, Think"]
    return table(head, rows)


def cost_table(columns: list[Measured]) -> str:
    """Tokens written and FLOPs counted, per question."""
    rows = [[task, *cells_of(columns, task, cost_of)] for task in columns[0].figures]
    return table(["benchmark", *(column.name for column in columns)], rows)


def ordering_table(found: list[Ordering]) -> str:
    rows = []
    for o in found:
        interval = f"{o.low:+.1f} to {o.high:+.1f}"
        row = [o.task, f"{o.before} → {o.after}", f"{o.difference:+.1f}", interval, str(o.n)]
        rows.append([*row, o.verdict])
    head = ["benchmark", "from → to", "points", "95%", "questions", "ordering holds?"]
    return table(head, rows)


def draw(columns: list[Measured], file: Path) -> None:
    """Bars of every benchmark, one per column, with standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(columns[0].figures)
    figure, axes = plt.subplots(figsize=(max(6, 1.2 * len(tasks)), 4), layout="constrained")
    width = 0.8 / len(columns)
    for place, column in enumerate(columns):
        heights = [column.figures[task]["right"] for task in tasks]
        errors = [column.figures[task]["standard_error"] for task in tasks]
        left = [x + (place - (len(columns) - 1) / 2) * width for x in range(len(tasks))]
        axes.bar(left, heights, width * 0.9, yerr=errors, capsize=2, label=column.name)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set_ylabel("right, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(4, len(columns)), frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def origin_table(columns: list[Measured], cases: dict) -> str:
    """Which commit, machine and day each figure is from."""
    places: dict[str, list[str]] = {}
    for column in columns:
        for task, origins in column.origins.items():
            for origin in origins:
                places.setdefault(origin, []).append(f"{task} ({column.name})")
    for (case, stage), known in cases.items():
        places.setdefault(known["measured"], []).append(f"case {case} ({stage})")
    return table(["measured at", "what"], [[k, "; ".join(v)] for k, v in places.items()])


def page(a: argparse.Namespace, columns: list[Measured], found: list[Ordering], cases: dict) -> str:
    """The report as Markdown."""
    command = shlex.join(["python", "bench/report.py", *sys.argv[1:]])
    parts = [
        "# Report",
        f"`{command}`, written at {result_tables.origin()}; seed {a.seed} chooses questions and "
        "samples. What was measured before was kept: the last table says where each figure is "
        "from. Rows of every answer, with prompts' settings and hashes of weights and files, are "
        "in answers/.",
        "The paper's figures are of SAGE-32B, whose weights were never released: what can be "
        "compared is whether its orderings come out, not its heights.",
        "## Benchmarks\n\nPercent right ± standard error (questions).",
        benchmark_table(columns),
        "![The same as bars](benchmarks.png)",
        "## Does each stage, and thinking, improve on what was before?",
        ordering_table(found) if found else "One stage in one mode: nothing to compare.",
        "## What answers cost\n\nTokens written, and GFLOP counted, per question.",
        cost_table(columns),
    ]
    if cases:
        parts.append("## Case studies\n\nWhat each model did, judged by rule (`sample.py --case`).")
        rows = [[case, stage, "; ".join(known["said"])] for (case, stage), known in cases.items()]
        parts.append(table(["case", "stage", "what happened"], rows))
    parts += ["## Where each figure is from", origin_table(columns, cases)]
    return "\n\n".join(parts) + "\n"


# --------------------------------------------------------------------------------------------------


def default_stages() -> list[str]:
    """SmolLM2 as published, and the trained stages of config/smol.py; where there are none, the
    adapter that comes with the project.
    """
    lineage = ROOT / "out" / "smol"
    runs = [lineage / stage for stage in checkpoint.COMMANDS if stage != "base"]
    trained = [str(run) for run in runs if checkpoint.checkpoints(run)]
    adapter = ROOT / "adapters" / "smollm2-agent"
    return ["instruct=smollm2", *(trained or [f"agent={adapter}"])]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", help="MODEL or NAME=MODEL; none: SmolLM2's lineage")
    parser.add_argument("--tasks", default=TASKS, help="as eval.py takes them")
    parser.add_argument("--limit", type=int, default=100, help="questions of each")
    parser.add_argument("--cases", default=",".join(CASES), help="case studies, with commas")
    parser.add_argument("--votes", type=int, default=32, help="samples per question of mode think")
    parser.add_argument("--batch", type=int, default=16, help="answers written together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="report")
    a = parser.parse_args(arguments)
    stages = named_stages(a.stages or default_stages())
    wanted = [case for case in a.cases.split(",") if case]
    unknown = sorted({*wanted} - {*CASES})
    if unknown:
        raise UserError(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")

    columns = []
    for name, model in stages.items():
        columns.append(measure(name, model, "fast", a))
        if Path(model).is_dir() and checkpoint.has_heads(model):
            columns.append(measure(name, model, "think", a))
    found = list(orderings(columns))
    folder = Path(a.folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = played_cases(stages, wanted, folder)
    content = dict(
        command=sys.argv[1:],
        written=result_tables.origin(),
        settings=vars(a),
        figures={column.name: column.figures for column in columns},
        measured={column.name: column.origins for column in columns},
        orderings=[vars(o) | dict(verdict=o.verdict) for o in found],
        cases={f"{case}/{name}": known for (case, name), known in cases.items()},
    )
    provenance.replace(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False))
    draw(columns, folder / "benchmarks.png")
    provenance.replace(folder / "README.md", page(a, columns, found, cases))
    print(f"\nwritten: {folder / 'README.md'}")


if __name__ == "__main__":
    settings.run_script(main)
