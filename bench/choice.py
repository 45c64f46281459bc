"""Does a model know which tool of its prompt is meant? Before it acts, by likelihoods alone.

    python bench/choice.py instruct=smollm2 out/smol/distilled
        runs' folders or published weights, under the name before "=", or their own
    python bench/choice.py out/smol/distilled --split train --tasks 40 --dry

Tasks of the library world that need one call. Of the three tools in a prompt a second is from the
right one's module, where there is one; chance is 33%. Per stage, the share of tasks in which the
right tool has the highest
  plan      log P("1. NAME:" | prompt), as an agent begins its plan: it reads tools and request, and
            chooses
  inverse   log P(request | the tool's name and description alone): the direction of the paper's
            inverse consistency (equation 13), untrained

Records docs/results/smol.json, "stage/choice by …", with Wilson's 95% intervals.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch

from agent import prompt_of
from support import machine, result_tables, settings
from support.intervals import wilson
from support.measured import Stage, open_stage
from worlds.base import Task
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks

PURPOSES = {"train": "show", "validation": "validation", "test": "test"}  # split → of its tasks
INVERSE = "A function {name} gives: {description}.\nSomebody who needs it asks: "


@torch.no_grad()
def log_probabilities(stage: Stage, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
    """log P(tokens | prefix) of pairs (prefix, tokens), in nats, summed over the tokens."""
    longest = max(len(prefix) + len(tokens) for prefix, tokens in pairs)
    device = next(stage.model.parameters()).device
    rows = torch.zeros(len(pairs), longest, dtype=torch.long, device=device)
    for row, (prefix, tokens) in zip(rows, pairs):
        row[: len(prefix) + len(tokens)] = torch.tensor(prefix + tokens)
    hidden = stage.model.hidden(rows[:, :-1])  # (pairs, T, D)
    found = []
    for states, (prefix, tokens) in zip(hidden, pairs):
        predicting = states[len(prefix) - 1 : len(prefix) + len(tokens) - 1]
        log_probs = stage.model.logits(predicting).float().log_softmax(-1)  # (tokens, V)
        chosen = log_probs.gather(1, torch.tensor(tokens, device=device)[:, None])
        found.append(chosen.sum().item())
    return found


def choices(stage: Stage, task: Task) -> dict[str, bool]:
    """Whether the right tool of a task is the likeliest, by either direction."""
    encode = stage.tokenizer.encode
    functions = [tool["function"] for tool in task.tools]
    prompt = prompt_of(task, stage.tokenizer)
    request = encode(task.request)
    plans = [(prompt, encode(f"1. {function['name']}:")) for function in functions]
    inverse = [(encode(INVERSE.format(**function)), request) for function in functions]
    right = [function["name"] for function in functions].index(task.solution[0].call["name"])
    found = {}
    for name, pairs in {"plan": plans, "inverse": inverse}.items():
        scores = log_probabilities(stage, pairs)
        found[name] = max(range(len(scores)), key=scores.__getitem__) == right
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", help="MODEL or NAME=MODEL")
    parser.add_argument("--split", choices=tuple(PURPOSES), default="test")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="auto", help="of the weights: auto, float32, bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    device = machine.pick_device(a.device)
    dtype = machine.pick_dtype(a.dtype, device)
    torch.set_float32_matmul_precision("medium")
    for argument in a.stages:
        stage = open_stage(argument, dtype, device)
        difficulty = Difficulty(style=stage.tokenizer.style, names="english", special=0.0, chain=1)
        tasks = Tasks(PURPOSES[a.split], a.seed, ["library"], difficulty)
        found = [choices(stage, tasks[number]) for number in range(a.tasks)]
        for name in ("plan", "inverse"):
            right = sum(row[name] for row in found)
            low, high = wilson(right, len(found))
            share, spread = 100 * right / len(found), f"({100 * low:.1f} to {100 * high:.1f})"
            print(f"{stage.name:16} {a.split:10} {name:8} {share:.3g}% {spread}", flush=True)
            if not a.dry:
                result_tables.record(
                    "smol",
                    f"{stage.name}/choice by {name}, {a.split} tools",
                    float(f"{share:.4g}"),
                    spread=spread,
                    n=len(found),
                    unit="%",
                    note=f"seed {a.seed}, {str(dtype).removeprefix('torch.')}",
                )


if __name__ == "__main__":
    settings.run_script(main)
