"""What a second thought costs: a step in Reasoning Mode beside the same step written fast, in
seconds and in forward FLOPs.

Held-out API tasks, one at a time, each variant in turn on each task, several rounds; the first step
of every episode, which all variants begin from the same prompt. A variant's seconds are the least
of its rounds (other load only adds), its ratio to the fast step is taken task by task. The
candidates share their prefix's cache and equal ones are looked ahead from only once, so how sure
the model is enters the figures.

    python bench/think.py                                   out/toy/thinking; prints and records docs/results/reasoning.json
    python bench/think.py --tasks 3 --rounds 1 --dry        tries it out, records nothing
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch

from support import checkpoint
from support import settings
from support import result_tables as results
from config import Think
from fast.thinking import think
from worlds.base import Difficulty, Tasks

VARIANTS = {
    "fast": dict(mode="fast"),
    "candidates alone": dict(mode="reason", counterfactuals="", lam=0.0, resamples=0),
    "and inverse consistency": dict(mode="reason", counterfactuals="", resamples=0),
    "and look-ahead": dict(mode="reason", resamples=0),
    "and one critique": dict(
        mode="reason", resamples=1, theta=1.0, critique=True
    ),  # nothing is ever good enough: the dearest case
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="out/toy/thinking")
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    run = settings.absolute(a.run)
    model, config, _ = checkpoint.load_run(run)
    heads = checkpoint.load_heads(run, model.config)
    tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)
    drawn = Tasks("validation", config.eval.seed, ["api"], Difficulty())
    tasks = [drawn[index] for index in range(a.tasks)]
    seconds = {name: [float("inf")] * a.tasks for name in VARIANTS}
    flops, candidates = {name: [0.0] * a.tasks for name in VARIANTS}, {name: 0 for name in VARIANTS}
    for _ in range(a.rounds):
        for index, task in enumerate(tasks):
            for name, changes in VARIANTS.items():
                first = think(model, heads, tokenizer, [task], Think(n=a.n, **changes), seed=index)[
                    0
                ].steps[0]
                seconds[name][index] = min(seconds[name][index], first.cost.seconds)
                flops[name][index] = first.cost.flops
                candidates[name] += len(first.candidates) / a.tasks / a.rounds
    print(
        f"{a.tasks} first steps, n = {a.n}, {torch.get_num_threads()} threads, {a.rounds} rounds taken in turns"
    )
    for name in VARIANTS:
        ratios = [mine / fast for mine, fast in zip(seconds[name], seconds["fast"])]
        work = [mine / fast for mine, fast in zip(flops[name], flops["fast"])]
        print(
            f"  {name:26} {1000 * statistics.median(seconds[name]):7.0f} ms  {statistics.median(ratios):5.2f} × the fast step (min {min(ratios):.2f} max {max(ratios):.2f})   "
            f"{statistics.median(work):6.1f} × its FLOPs   {candidates[name]:4.1f} different candidates"
        )
        if name != "fast" and not a.dry:
            results.record(
                "reasoning",
                f"step/{name}",
                round(statistics.median(ratios), 2),
                unit="× a fast step's seconds",
                n=a.tasks,
                spread=f"min {min(ratios):.2f} max {max(ratios):.2f}",
                goal="≤ 3" if name == "and look-ahead" else "",
                note=f"{statistics.median(work):.1f} × its FLOPs; n = {a.n}, {candidates[name]:.1f} different candidates, {torch.get_num_threads()} threads",
            )


if __name__ == "__main__":
    main()
