"""What a second thought costs: a step in Reasoning Mode beside the same step written fast, in
seconds and in forward FLOPs.

Held-out API tasks, one at a time, each variant in turn on each task, several rounds; the first step
of every episode, which all variants begin from the same prompt. A variant's seconds are the least
of its rounds (other load only adds), its ratio to the fast step is taken task by task. The
candidates share their prefix's cache and equal ones are looked ahead from only once, so how sure
the model is enters the figures.

    python bench/think.py              out/toy/thinking; recorded in docs/results/reasoning.json
    python bench/think.py --learnt     without a run: weights that learn these tasks in a minute
    python bench/think.py --learnt --learn 5 --tasks 1 --rounds 1 --n 2 --room 30    in seconds
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch

from config import Eval, Think
from fast.thinking import think
from mch import ThinkingHeads
from model import SAGE
from support import checkpoint, result_tables, settings
from support import tokenizer as tokenizers
from support.pretrained import load_pretrained
from support.tokenizer import Tokenizer
from worlds.base import Task
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks

VARIANTS = {
    "fast": dict(mode="fast"),
    "candidates alone": dict(mode="reason", counterfactuals="", lam=0.0, resamples=0),
    "and inverse consistency": dict(mode="reason", counterfactuals="", resamples=0),
    "and look-ahead": dict(mode="reason", resamples=0),
    # nothing is ever good enough: the dearest case
    "and one critique": dict(mode="reason", resamples=1, theta=1.0, critique=True),
}


def load_run(folder: str) -> tuple[SAGE, ThinkingHeads, Tokenizer]:
    """A run of heads.py."""
    run = settings.absolute(folder)
    model, config, _ = checkpoint.load_run(run)
    heads = checkpoint.load_heads(run, model.config)
    return model, heads, checkpoint.tokenizer_of(run, config.data.tokenizer)


def learn(tasks: list[Task], steps: int) -> tuple[SAGE, ThinkingHeads, Tokenizer]:
    """Weights that have learnt the tasks by heart, with untrained heads, which cost as much."""
    from by_heart import learnt_by_heart  # here, not above: it needs transformers

    tokenizer = tokenizers.toy()
    with tempfile.TemporaryDirectory() as folder:
        learnt_by_heart(tasks, tokenizer, steps).save_pretrained(folder)
        model = load_pretrained(folder)
    return model, ThinkingHeads(model.config), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="out/toy/thinking")
    parser.add_argument("--learnt", action="store_true", help="instead of a run; records nothing")
    parser.add_argument("--learn", type=int, default=250, help="with --learnt: training steps")
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--room", type=int, default=Think.room, help="tokens per episode")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    drawn = Tasks("validation", Eval.seed, ["api"], Difficulty())
    tasks = [drawn[index] for index in range(a.tasks)]
    model, heads, tokenizer = learn(tasks, a.learn) if a.learnt else load_run(a.run)

    seconds = {name: [float("inf")] * a.tasks for name in VARIANTS}
    flops = {name: [0.0] * a.tasks for name in VARIANTS}
    candidates = {name: [0] * a.tasks for name in VARIANTS}
    for _ in range(a.rounds):
        for index, task in enumerate(tasks):
            for name, changes in VARIANTS.items():
                variant = Think(n=a.n, room=a.room, **changes)
                (thinking,) = think(model, heads, tokenizer, [task], variant, seed=index)
                first = thinking.steps[0]
                seconds[name][index] = min(seconds[name][index], first.cost.seconds)
                flops[name][index] = first.cost.flops
                candidates[name][index] = len(first.candidates)

    threads = torch.get_num_threads()
    print(f"{a.tasks} first steps, n = {a.n}, {threads} threads, {a.rounds} rounds taken in turns")
    for name in VARIANTS:
        ratios = [mine / fast for mine, fast in zip(seconds[name], seconds["fast"])]
        work = [mine / fast for mine, fast in zip(flops[name], flops["fast"])]
        ratio, times_flops = statistics.median(ratios), statistics.median(work)
        spread = f"min {min(ratios):.2f} max {max(ratios):.2f}"
        different = statistics.mean(candidates[name])
        print(
            f"  {name:26} {1000 * statistics.median(seconds[name]):7.0f} ms  "
            f"{ratio:5.2f} × the fast step ({spread})   {times_flops:6.1f} × its FLOPs   "
            f"{different:4.1f} different candidates"
        )
        if name != "fast" and not a.dry and not a.learnt:
            result_tables.record(
                "reasoning",
                f"step/{name}",
                round(ratio, 2),
                unit="× a fast step's seconds",
                n=a.tasks,
                spread=spread,
                goal="≤ 3" if name == "and look-ahead" else "",
                note=f"{times_flops:.1f} × its FLOPs; n = {a.n}, "
                f"{different:.1f} different candidates, {threads} threads",
            )


if __name__ == "__main__":
    main()
