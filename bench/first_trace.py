"""The README's picture, chosen by rule: the first validation task, by number, that the agent fails
when it answers fast and solves when it may think twice, with a doubted step in which it commits to
another draft than the fast one.

    python bench/first_trace.py --run out/smol/thinking --world library --html trace.html
    chromium --headless --screenshot=docs/trace.png --window-size=1200,1500 trace.html

Also prints how the tasks up to there went, fast and hybrid: what the picture does not show.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import tyro

from config import Eval, Think, UserError
from fast.thinking import think
from support import checkpoint, machine, provenance, settings
from support.trace_data import trace_of
from support.trace_page import page_of
from think import Thinking
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks


@dataclass
class FirstTrace:
    """Which agent plays which tasks, and where the page goes."""

    run: str = "out/smol/thinking"
    world: str = "library"
    names: Literal["invented", "english"] = "english"
    most: int = 100  # tasks to look through
    together: int = 8  # tasks played at a time
    html: str = "trace.html"
    dtype: str = "auto"
    thinking: Think = field(default_factory=Think)  # its mode is hybrid


def mended(thinking: Thinking) -> bool:
    """Whether a step was reasoned about and another draft taken than the fast one."""
    return any(
        step.reasoned and step.chosen is not step.candidates[0] for step in thinking.steps
    )


def main(s: FirstTrace) -> None:
    device = machine.pick_device("auto")
    dtype = machine.pick_dtype(s.dtype, device)
    torch.set_float32_matmul_precision("medium")
    run = settings.absolute(s.run)
    model, config, _ = checkpoint.load_run(run, dtype, device)
    heads = checkpoint.load_heads(run, model.config, device)
    tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)
    tasks = Tasks(
        "validation", Eval.seed, [s.world], Difficulty(style=tokenizer.style, names=s.names)
    )

    counts = dict(tasks=0, fast=0, hybrid=0, doubted=0, mended=0, spoilt=0)
    for first in range(0, s.most, s.together):
        some = [tasks[number] for number in range(first, first + s.together)]
        played = {}
        for mode in ("fast", "hybrid"):
            s.thinking.mode = mode
            played[mode] = think(model, heads, tokenizer, some, s.thinking)
        for number, (fast, hybrid) in enumerate(zip(*played.values(), strict=True), first):
            solved_fast, solved = fast.rollout.verified, hybrid.rollout.verified
            counts["tasks"] += 1
            counts["fast"] += solved_fast
            counts["hybrid"] += solved
            counts["doubted"] += any(step.reasoned for step in hybrid.steps)
            counts["mended"] += solved and not solved_fast
            counts["spoilt"] += solved_fast and not solved
            if solved and not solved_fast and mended(hybrid):
                print(f"task {number}; " + ", ".join(f"{k} {v}" for k, v in counts.items()))
                trace = trace_of(hybrid, model, heads, tokenizer, s.thinking)
                provenance.replace(Path(s.html), page_of(trace))
                print(f"written: {s.html}")
                return
        print(", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
    raise UserError(f"none of {s.most} tasks was mended by a second thought: {counts}")


if __name__ == "__main__":
    settings.run_script(lambda: main(tyro.cli(FirstTrace)))
