"""Post-training over seeds: the whole lineage base → sage of config/toy.py, every stage measured on held-out tasks, and ablations.

Each seed is a lineage of its own (weights, data, tasks and draws differ; the held-out tasks are the same for all). Resumable: what is
finished is kept, what was stopped goes on. The ablations start from the same base run and get as many optimiser steps:

    without negatives     stage amplify without hard negatives and corrections
    without reflection    the steps of stage reflect spent on more teacher trajectories instead (equal tokens)

    python bench/posttraining.py                 3 seeds; prints and records docs/results/posttraining.json
    python bench/posttraining.py --seeds 1 --ablations
    python bench/posttraining.py --seeds 1 --last safe         without reinforcement, which takes longest
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import checkpoint
import config as settings
import results
from stage import STAGES

PAPER = {  # what the paper reports at 32B for the figure of the same meaning
    ("base", "recovery/seen"): "35", ("sage", "recovery/seen"): "76", ("base", "invented/per call"): "14.5", ("sage", "invented/per call"): "2.4",
}
GOALS = {"success/api greedy": "≥ 85", "success/sql greedy": "≥ 80", "success/shell greedy": "≥ 80", "invented/per call": "≤ 2.4", "recovery/seen": "≥ 76",
         "recovery/new kind": "≥ 76", "safety/unsafe handled": "≥ 95", "safety/over-refusal": "≤ 5"}


def call(script: str, *words: str) -> None:
    subprocess.run([sys.executable, str(ROOT / script), "config/toy.py", *words], check=True)


def lineage(seed: int, lineages: Path, ablations: bool, last: str) -> Path:
    """Train a seed's stages, or what is left of them."""
    base = lineages / f"seed{seed}" / "base"
    seeds = [f"--{section}.seed={seed}" for section in ("train", "distill", "dpo", "ppo")]
    out = ["--out", str(base), *seeds]
    c = settings.read("config/toy.py")
    if not checkpoint.checkpoints(base) or checkpoint.read_meta(checkpoint.latest(base))[0]["step"] < c.train.steps:
        call("train.py", *out, "--train.minutes", "0", "--train.sample-every", "0", *(["--resume"] if checkpoint.checkpoints(base) else []))
    call("distill.py", *out, "--resume")
    call("rl.py", *out, "--resume", *(["--stage", "dpo"] if last == "safe" else []))
    if ablations:
        call("distill.py", *out, "--resume", "--stage", "amplify", "--distill.name", "without-negatives", "--distill.correction", "0")
        call("distill.py", *out, "--resume", "--stage", "amplify", "--distill.name", "without-reflection", "--distill.start", str(base.parent / "amplified"),
             "--distill.steps", str(c.distill.reflect_steps))
    return base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--last", choices=("safe", "sage"), default="sage")
    parser.add_argument("--folder", default="out/lineages")
    given = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = {}  # stage -> figure -> a value a seed
    for seed in range(1, given.seeds + 1):
        base = lineage(seed, ROOT / given.folder, given.ablations, given.last)
        extra = ["without-negatives", "without-reflection"] if given.ablations else []
        runs = [base.parent / stage for stage in [*STAGES[:STAGES.index(given.last) + 1], *extra]]
        call("eval.py", "--out", str(base), "--eval.runs", ",".join(map(str, runs)))
        for run in runs:
            for name, value in json.loads((checkpoint.latest(run) / "eval.json").read_text())["figures"].items():
                figures.setdefault(run.name, {}).setdefault(name, []).append(value)
    tasks = settings.read("config/toy.py").eval.tasks
    for stage, values in figures.items():
        for name, seen in values.items():
            deviation = f"± {100 * statistics.stdev(seen):.1f} std" if len(seen) > 1 else ""
            results.record("posttraining", f"{stage}/{name}", round(100 * statistics.mean(seen), 1), spread=deviation, n=tasks, seeds=len(seen), unit="%",
                           goal=GOALS.get(name, "") if stage == "sage" else "", paper=PAPER.get((stage, name), ""))
    print("recorded docs/results/posttraining.json; python results.py puts it into the tables")


if __name__ == "__main__":
    main()
