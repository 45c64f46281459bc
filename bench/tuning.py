r"""What of a pretrained model should learn, where seconds are few? All weights, the upper blocks
only, or low-rank updates of matrices (LoRA, Hu et al. 2021), each for the same time.

    python bench/tuning.py --start smollm2 --minutes 5 --worlds library

Each variant begins with the same weights and sees the same rows of the expert's episodes in the
same order, as many as it gets through. Printed: the cross-entropy of the model's own words in
episodes of validation tasks, by minutes, and the share of these tasks that are solved greedily at
the end. Timed: the steps alone, not the evaluation.
"""

import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import tyro
from torch import Tensor, nn

from agent import episode_rates, rollouts
from config import Distill
from weighted_examples import drawn_trajectories, teacher_example, trajectory_examples
from losses import cross_entropy
from support import checkpoint, machine, settings
from support.packing import PackedLoader
from support.settings import absolute_model, validate
from support.training_run import freeze_below, open_model
from worlds.difficulty import Difficulty
from worlds.expert import trajectory
from worlds.tasks import Tasks

# What learns, and AdamW's rate for it, a guess; --rates tries others.
RATES = {
    "all": 1e-4,
    "upper half": 3e-4,
    "upper third": 3e-4,
    "low rank 16": 1e-3,
    "low rank 32, upper half": 1e-3,
}


@dataclass
class Settings:
    """How long each variant trains, from what, on what."""

    start: str = "smollm2"  # a folder, a GGUF file or a published name
    minutes: float = 5.0  # of training for each variant
    worlds: str = "library"
    tasks: int = 60  # validation tasks
    batch: int = 2
    sequence: int = 1536
    requests: int = 4  # of one conversation
    renamed: float = 0.8  # share of the tasks whose tools have other names
    trajectories: int = 2000
    rates: Annotated[tuple[float, ...], "factors of each variant's rate"] = (1.0,)
    variants: tuple[str, ...] = tuple(RATES)
    seed: int = 1
    out: str = ""  # also append a record per variant to this file


class LowRank(nn.Module):
    """W x + B A x, with W frozen, A (r, in) drawn small and B (out, r) zero at first."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (x @ self.a.T.to(x.dtype)) @ self.b.T.to(x.dtype)


def choose(model: nn.Module, variant: str) -> None:
    """Freeze what the variant does not train."""
    layers = model.config.layers
    if variant == "upper half":
        freeze_below(model, layers // 2)
    elif variant == "upper third":
        freeze_below(model, layers // 3)
    elif variant.startswith("low rank"):
        rank = int(variant.split()[2].rstrip(","))
        model.requires_grad_(False)
        for block in model.blocks[layers // 2 if variant.endswith("upper half") else 0 :]:
            for part in (block.attention, block.feed_forward):
                for name, child in list(part.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(part, name, LowRank(child, rank))


@torch.no_grad()
def held_out_loss(model, batches, autocast) -> float:
    """Mean cross-entropy of the model's own words, in nats per token."""
    total = count = 0.0
    for tokens, targets, weights, documents in batches:
        with autocast:
            hidden = model.hidden(tokens, documents)
            loss = cross_entropy(hidden, model.unembedding, targets, weights=weights)
        total += loss.item() * weights.sum().item()
        count += weights.sum().item()
    return total / count


def main(s: Settings) -> None:
    machine.set_arithmetic("cpu")
    machine.keep_freed_memory()
    dtype = machine.pick_dtype("auto", "cpu")
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    start = absolute_model(s.start)
    tokenizer = checkpoint.tokenizer_of(start, start)
    style = tokenizer.style

    c = Distill(
        worlds=s.worlds,
        trajectories=s.trajectories,
        prompt_weight=0.0,
        sequence=s.sequence,
        requests=s.requests,
        renamed=s.renamed,
        batch=s.batch,
        seed=s.seed,
        names="english",
        babble=0.0,
    )
    validate(c, "distill.")
    began = time.perf_counter()
    trajectories = drawn_trajectories(c, style)
    examples = trajectory_examples(trajectories, c, tokenizer, style)
    random.Random(c.seed).shuffle(examples)
    difficulty = Difficulty(style=style, names="english")
    drawn = Tasks("validation", s.seed, [s.worlds], difficulty)
    tasks = [drawn[index] for index in range(s.tasks)]
    rows = [trajectory(*drawn.arguments(i), negatives=False) for i in range(s.tasks)]
    held_out = [teacher_example(row.messages, row.tools, tokenizer, style, 0.0) for row in rows]
    print(
        f"{len(examples)} examples of {sum(len(t) for t, _ in examples) / len(examples):.0f} "
        f"tokens, {len(held_out)} held out, drawn in {time.perf_counter() - began:.0f} s",
        flush=True,
    )

    for variant in s.variants:
        for factor in s.rates:
            torch.manual_seed(s.seed)
            model = open_model(start).train()
            choose(model, variant)
            learning = [p for p in model.parameters() if p.requires_grad]
            rate = RATES[variant] * factor
            optimizer = torch.optim.AdamW(
                learning, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            )
            loader = PackedLoader(examples, s.sequence, s.batch, s.seed, model.config)
            quiz = PackedLoader(held_out, s.sequence, 1, 0, model.config)
            batches = [quiz.next() for _ in range(len(quiz.order))]

            curve = [(0.0, held_out_loss(model, batches, autocast))]
            spent, steps, due = 0.0, 0, 1.0
            while spent < s.minutes * 60:
                began = time.perf_counter()
                share = spent / (s.minutes * 60)
                falling = min(1.0, (1 - share) / 0.3)
                rising = min(1.0, (steps + 1) / 10)
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(rising, falling)
                tokens, targets, weights, documents = loader.next()
                with autocast:
                    hidden = model.hidden(tokens, documents)
                    loss = cross_entropy(hidden, model.unembedding, targets, weights=weights)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learning, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                steps += 1
                spent += time.perf_counter() - began
                if spent >= due * 60:
                    curve.append((spent / 60, held_out_loss(model, batches, autocast)))
                    due += 1
            curve.append((spent / 60, held_out_loss(model, batches, autocast)))
            done = rollouts(model, tokenizer, tasks, 0.0, seed=s.seed, batch=32)
            rates = episode_rates(done)
            record = dict(
                variant=variant,
                rate=rate,
                steps=steps,
                tokens_per_second=steps * s.batch * s.sequence / spent,
                learning=sum(p.numel() for p in learning),
                curve=curve,
                success=rates["success"],
                invented_per_call=rates["invented_per_call"],
                settings=vars(s),
            )
            print(
                f"{variant:12} rate {rate:.0e}: {steps} steps, "
                f"{record['tokens_per_second']:.0f} tokens/s, loss "
                + " ".join(f"{loss:.3f}" for _, loss in curve)
                + f", success {rates['success']:.0%} of {s.tasks}, "
                f"invented {rates['invented_per_call']:.1%} per call",
                flush=True,
            )
            if s.out:
                with open(s.out, "a") as file:
                    file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    settings.run_script(lambda: main(tyro.cli(Settings)))
