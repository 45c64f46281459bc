"""The first validation task that the agent fails in mode fast and solves in mode reason, taking
another draft than its first on the way: a rule for choosing the trace to be shown.

    python bench/first_trace.py out/smol/thinking --world library --names english
    python sample.py --think --model out/smol/thinking --world library --names english --task N
        --thinking.mode reason --html trace.html             the page of the task it names

Plays the tasks in order, each alone, as sample.py does. Prints how many there were of each kind
until then, so that a lucky find can be told from a common one.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch

from config import Eval, Sample, Think
from fast.thinking import think
from support import checkpoint, settings
from think import Thinking
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks


def mended(thinking: Thinking) -> bool:
    """Whether a step took another draft than the first that was written."""
    return any(step.chosen is not step.candidates[0] for step in thinking.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run's folder with heads")
    parser.add_argument("--world", default="library")
    parser.add_argument("--names", default="english", choices=["english", "invented"])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--most", type=int, default=60, help="tasks to try")
    a = parser.parse_args()

    dtype = getattr(torch, a.dtype)
    model, config, _ = checkpoint.load_run(a.run, dtype)
    heads = checkpoint.load_heads(a.run, model.config, dtype=dtype)
    tokenizer = checkpoint.tokenizer_of(a.run, config.data.tokenizer)
    difficulty = Difficulty(
        style=tokenizer.style, fault_rate=Sample.fault_rate, names=a.names, split="validation"
    )
    tasks = Tasks("validation", Eval.seed, [a.world], difficulty)

    def play(index: int, mode: str) -> Thinking:
        (thinking,) = think(
            model, heads, tokenizer, [tasks[index]], Think(mode=mode), seed=Sample.seed
        )
        return thinking

    before = Counter()
    for index in range(a.most):
        if play(index, "fast").rollout.verified:
            outcome = "solved fast"
        elif not (slow := play(index, "reason")).rollout.verified:
            outcome = "failed in both modes"
        elif not mended(slow):
            outcome = "solved without another draft"
        else:
            print(f"task {index}, the one to show: {tasks[index].request}")
            break
        print(f"task {index}: {outcome}", flush=True)
        before[outcome] += 1
    else:
        print(f"none of {a.most}")
    print("before it: " + ", ".join(f"{count} {outcome}" for outcome, count in before.items()))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    settings.run_script(main)
