"""Post-training over seeds: the whole lineage base → sage of config/toy.py, every stage measured on
held-out tasks, and ablations.

Each seed is a lineage of its own (weights, data, tasks and draws differ; the held-out tasks are the
same for all). Resumable: what is finished is kept, what was stopped goes on. The ablations start
from the runs that their counterparts start from, and get as many optimiser steps:

    without-negatives     stage distill without corrections of hard negatives; beside distilled
    without-reflection    as many steps of stage distill, at the same rates, on fresh trajectories,
                          as stage reflect has; beside reflected
    without-preferences   stage dpo with β = 0: chosen messages and replayed episodes are learnt,
                          nothing is rejected; beside safe
    grpo                  stage ppo with group-relative advantages (the reward's deviation is
                          divided out); beside sage

    python bench/posttraining.py              3 seeds; records docs/results/posttraining.json
    python bench/posttraining.py --only 2     trains and measures one seed and records nothing; one
                                              process per core is quicker
    python bench/posttraining.py --only 1 --ablations
    python bench/posttraining.py --record     trains nothing: records what the lineages in the
                                              folder have measured, also a copy of out/toy
    python bench/posttraining.py --last safe  without stage ppo; --seeds and --folder say how many
                                              lineages, and where
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from support import checkpoint
from support import settings
from support import result_tables as results
from eval import FIGURES_VERSION
from support.training_run import STAGES

ABLATIONS = ("without-negatives", "without-reflection", "without-preferences", "grpo")

PAPER = {  # what the paper reports at 32B for the figure of the same meaning
    ("base", "recovery/seen"): "35",
    ("sage", "recovery/seen"): "76",
    ("base", "invented/per call"): "14.5",
    ("sage", "invented/per call"): "2.4",
}
GOALS = {
    "success/api greedy": "≥ 85",
    "success/sql greedy": "≥ 80",
    "success/shell greedy": "≥ 80",
    "invented/per call": "≤ 2.4",
    "recovery/seen": "≥ 76",
    "recovery/new kind": "≥ 76",
    "safety/unsafe handled": "≥ 95",
    "safety/over-refusal": "≤ 5",
}


def call(script: str, *words: str) -> None:
    subprocess.run([sys.executable, str(ROOT / script), "config/toy.py", *words], check=True)


def words(seed: int, lineages: Path) -> list[str]:
    """The settings that make a lineage its seed's own."""
    return [
        "--out",
        str(lineages / f"seed{seed}" / "base"),
        *(f"--{section}.seed={seed}" for section in ("train", "distill", "dpo", "ppo")),
    ]


def lineage(seed: int, lineages: Path, ablations: bool, last: str) -> None:
    """Train a seed's stages, or what is left of them, and measure them."""
    base = lineages / f"seed{seed}" / "base"
    out = words(seed, lineages)
    c = settings.from_file("config/toy.py")
    if (
        not checkpoint.checkpoints(base)
        or checkpoint.read_meta(checkpoint.latest(base))[0]["step"] < c.train.steps
    ):
        call(
            "train.py",
            *out,
            "--train.minutes",
            "0",
            "--train.sample-every",
            "0",
            *(["--resume"] if checkpoint.checkpoints(base) else []),
        )
    call("distill.py", *out, "--resume")
    call("rl.py", *out, "--resume", *(["--stage", "dpo"] if last == "safe" else []))
    if ablations:
        d = c.distill
        distill_ablation = ["distill.py", *out, "--resume", "--stage", "distill"]
        call(*distill_ablation, *"--distill.name without-negatives --distill.correction 0".split())
        call(
            *distill_ablation,
            "--distill.name=without-reflection",
            f"--distill.start={base.parent / 'distilled'}",
            f"--distill.seed={10 + seed}",
            f"--distill.steps={d.reflect_steps}",
            f"--distill.trajectories={20 * d.reflect_steps}",
            f"--distill.learning-rate={d.reflect_rate * d.learning_rate}",
            f"--distill.muon-learning-rate={d.reflect_rate * d.muon_learning_rate}",
        )
        rl_ablation = ["rl.py", *out, "--resume"]
        call(*rl_ablation, *"--stage dpo --dpo.name without-preferences --dpo.beta 0".split())
        if last == "sage":
            call(*rl_ablation, *"--stage ppo --ppo.name grpo --ppo.advantage group".split())
    call(
        "eval.py",
        *out,
        "--eval.split",
        "test",
        "--eval.runs",
        ",".join(str(run) for run in runs(base.parent)),
    )


def runs(folder: Path) -> list[Path]:
    """A lineage's runs that exist, stages first."""
    return [
        folder / name for name in (*STAGES, *ABLATIONS) if checkpoint.checkpoints(folder / name)
    ]


def record(lineages: Path) -> None:
    """Mean and standard deviation over the lineages in a folder (seed1, seed2, …) of what eval.py
    has measured there, on as many tasks as config/toy.py says; the note has the commits that
    trained them.
    """
    figures: dict[
        str, dict[str, list[tuple[float, int]]]
    ] = {}  # stage -> figure -> (value, episodes) a lineage
    commits: dict[str, set[str]] = {}
    e = settings.from_file("config/toy.py").eval
    wanted = e.tasks, e.samples, "test", e.rung, FIGURES_VERSION
    for folder in sorted(lineages.glob("seed*")):
        for run in runs(folder):
            if not (measured := checkpoint.latest(run) / "eval.json").exists():
                continue
            stored = json.loads(measured.read_text())
            keys = ("tasks", "samples", "split", "rung", "version")
            found = tuple(stored["settings"].get(key) for key in keys)
            if found != wanted:
                print(
                    f"left out: {folder.name}/{run.name}, measured with {', '.join(keys)} of "
                    f"eval.py {found}; wanted {wanted}"
                )
                continue
            commits.setdefault(run.name, set()).add(
                checkpoint.read_meta(checkpoint.latest(run))[0]["commit"]
            )
            for name, value in stored["figures"].items():
                if (
                    stored["counts"][name] and value is not None
                ):  # base makes no call: nothing to recover from
                    figures.setdefault(run.name, {}).setdefault(name, []).append(
                        (value, stored["counts"][name])
                    )
    for stage, values in figures.items():
        for name, seen in values.items():
            rates, counts = zip(*seen)
            results.record(
                "posttraining",
                f"{stage}/{name}",
                round(100 * statistics.mean(rates), 1),
                spread=f"± {100 * statistics.stdev(rates):.1f} std" if len(rates) > 1 else "",
                n=min(counts),
                seeds=len(rates),
                unit="%",
                goal=GOALS.get(name, ""),
                paper=PAPER.get((stage, name), ""),
                note=f"trained at {', '.join(sorted(commits[stage]))}",
                command="python bench/posttraining.py" + " --ablations" * (stage in ABLATIONS),
            )
    print(
        "recorded docs/results/posttraining.json; "
        "python -m support.result_tables puts it into the tables"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, default=0, help="one seed; nothing is recorded")
    parser.add_argument("--record", action="store_true", help="train nothing")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--last", choices=("safe", "sage"), default="sage")
    parser.add_argument("--folder", default="out/lineages")
    given = parser.parse_args()
    seeds, lineages = (
        [given.only] if given.only else list(range(1, given.seeds + 1)),
        ROOT / given.folder,
    )
    for seed in [] if given.record else seeds:
        lineage(seed, lineages, given.ablations, given.last)
    if not given.only:
        record(lineages)


if __name__ == "__main__":
    settings.run_script(main)
