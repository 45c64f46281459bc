"""Needle test: does a model trained with landmark attention still find a fact that left its window?
(§2.3)

    python bench/retrieval.py                 all runs (KINDS × 3 seeds), then the table;
                                              goes on where it was stopped
    python bench/retrieval.py landmark 0      one run
    python bench/retrieval.py report          records what the finished runs found

A row is noise with a landmark token LAND at every 16th place; between two landmarks stand one fact
(MARK key value) and four questions (ASK key, to be answered by that key's value), each about a fact
up to 16 windows back. Only answers are counted. With a window of 128 a fact beyond it can be
answered only if the landmark behind it took it up in a lower layer. "Window only" keeps token 0 and
drops every other landmark. The kinds differ in the mask and in nothing else: same rows, same first
weights, same steps.

Two things must meet before a landmark is of use, and neither earns anything without the other: it
has to hold the fact's key and value, and a question has to look for them there. What makes them
meet (docs/LOG.md, 2026-11-24, has what does not):
- landmarks recite: the model's output at each landmark must name the key and the value of the fact
  between it and the landmark before. This is part of the loss for four fifths of the run; the last
  fifth is questions alone. "landmark unrecited" does without.
- most training rows ask about all their facts alike, so that a third of the questions reach out of
  the window instead of a fifth; all measured
  rows, and the other training rows, ask evenly on a logarithmic scale.
- Muon's rate is 0.01, rotary wavelengths are Qwen's (base 1e6), keys lean on the token before, and
  rows are short (4 windows) until the end.
"""

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import support.openmp  # before torch

import torch
import torch.nn.functional as F
from torch import Tensor

from support import result_tables as results
from config import Model, UserError
from model import SAGE
from fast.muon import Muon

WINDOW, STRIDE, QUESTIONS = 128, 16, 4
ROW = 17 * WINDOW  # the last answer can lie 16 windows back
MARK, ASK, LAND, KEYS, VALUES, NOISE = (
    0,
    1,
    2,
    3,
    163,
    195,
)  # first token of each kind: 160 keys, 32 values, 29 words of noise
VOCABULARY = 224
LAYERS = 3
PHASES = ((1200, 2, 4 * WINDOW), (150, 1, ROW))  # steps, rows per step, tokens per row
STEPS = sum(steps for steps, _, _ in PHASES)
EVEN = 0.7  # share of training rows that ask about all facts alike
RECITE = 0.8  # share of the run in which landmarks recite
SEEDS, KINDS = (0, 1, 2), ("dense", "landmark", "window only", "landmark unrecited")
BUCKETS = (0, 1, 2, 4, 8, 16)  # distances in windows
VERSION = 2  # of this task; 1 drew distances that favoured a row's first fact
OUT = ROOT / "out" / "retrieval"


@dataclass
class Rows:
    """Each (count, length); −1 where nothing is asked, or to recite."""

    tokens: Tensor
    answers: Tensor  # the value that answers the question ending here
    distances: Tensor  # from there back to that value, in tokens
    keys: Tensor  # of the fact that the landmark here can take up
    values: Tensor


def rows(generator: torch.Generator, count: int, length: int, even: float = 0.0) -> Rows:
    """Fresh rows; a share `even` of them asks about all facts so far alike, the others evenly in
    the logarithm of how many facts back.
    """
    blocks = length // STRIDE - 1
    tokens = torch.randint(NOISE, VOCABULARY, (count, length), generator=generator).tolist()
    key = (
        KEYS + torch.rand(count, VALUES - KEYS, generator=generator).argsort(-1)
    ).tolist()  # no key twice in a row
    value = torch.randint(VALUES, NOISE, (count, blocks), generator=generator).tolist()
    place = torch.randint(
        1, STRIDE - 2, (count, blocks), generator=generator
    ).tolist()  # of MARK in its block
    draws = torch.rand(count, blocks, QUESTIONS, generator=generator).tolist()
    order = torch.rand(count, blocks, STRIDE // 2, generator=generator).argsort(-1).tolist()
    flat = (torch.rand(count, generator=generator) < even).tolist()
    answers, distances, keys, values = (
        [[missing] * length for _ in range(count)] for missing in (-1, 0, -1, -1)
    )
    for row in range(count):
        tokens[row][::STRIDE] = [LAND] * (length // STRIDE)
        ends: list[int] = []  # where each fact's value stands
        for block in range(blocks):
            start, mark = block * STRIDE, block * STRIDE + place[row][block]
            tokens[row][mark : mark + 3] = MARK, key[row][block], value[row][block]
            keys[row][start + STRIDE], values[row][start + STRIDE] = (
                key[row][block],
                value[row][block],
            )
            free = [
                *range(start + 1, mark - 1, 2),
                *range(mark + 3, start + STRIDE - 1, 2),
            ]  # pairs of places, five at least
            for at, draw in zip(
                sorted([free[i] for i in order[row][block] if i < len(free)][:QUESTIONS]),
                draws[row][block],
            ):
                if at > mark and len(ends) == block:
                    ends.append(mark + 2)
                if ends:
                    back = min(
                        len(ends),
                        1 + int(len(ends) * draw) if flat[row] else int((len(ends) + 1) ** draw),
                    )  # 1 is the newest
                    fact = len(ends) - back
                    tokens[row][at : at + 2] = ASK, key[row][fact]
                    answers[row][at + 1], distances[row][at + 1] = (
                        value[row][fact],
                        at + 1 - ends[fact],
                    )
            if len(ends) == block:
                ends.append(mark + 2)
    return Rows(*map(torch.tensor, (tokens, answers, distances, keys, values)))


def shape(kind: str) -> Model:
    window, stride = {"dense": (ROW, STRIDE), "window only": (WINDOW, ROW)}.get(
        kind, (WINDOW, STRIDE)
    )
    return Model(
        vocab_size=VOCABULARY,
        width=64,
        layers=LAYERS,
        heads=2,
        kv_heads=2,
        head_dim=32,
        feed_forward=128,
        context=ROW,
        window=window,
        landmark_stride=stride,
        embedding="plain",
        previous_token=True,
        rope_theta=1e6,
    )


def measure(model: SAGE, length: int = ROW, count: int = 16) -> tuple[list[float], list[int]]:
    """Share of right answers and number asked, by distance, on rows that no run has trained on."""
    generator = torch.Generator().manual_seed(99)
    right, asked = torch.zeros(len(BUCKETS) - 1), torch.zeros(len(BUCKETS) - 1)
    for _ in range(count):
        row = rows(generator, 1, length)
        with torch.inference_mode():
            guesses = model(row.tokens).argmax(-1)
        for i, (near, far) in enumerate(zip(BUCKETS, BUCKETS[1:])):
            inside = (
                (row.answers >= 0)
                & (row.distances > near * WINDOW)
                & (row.distances <= far * WINDOW)
            )
            right[i] += (guesses == row.answers)[inside].sum()
            asked[i] += inside.sum()
    return (right / asked).tolist(), asked.int().tolist()


def told(accuracy: list[float]) -> str:
    return "  ".join(
        f"≤{far}W {share:.3f}" for far, share in zip(BUCKETS[1:], accuracy) if share == share
    )  # NaN: none asked


def run(kind: str, seed: int) -> None:
    """Train one model, measure it, write out/retrieval/<kind>-<seed>.json; some three minutes of
    one free core.
    """
    torch.set_num_threads(1)
    model = SAGE(shape(kind), seed=seed)
    for block in model.blocks:
        block.attention.smear.data.fill_(
            0.5
        )  # half a key is the token before it from the start: copying comes sooner
    matrices = [
        p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")
    ]
    rest = [p for p in model.parameters() if not any(p is q for q in matrices)]
    optimizers = [
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
        Muon(matrices, lr=0.01, weight_decay=0.0, dtype=torch.float32),
    ]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    generator = torch.Generator().manual_seed(
        1000 + seed
    )  # the rows depend on the seed alone, not on the kind
    started = time.time()
    for step, (count, length) in enumerate(
        (count, length) for steps, count, length in PHASES for _ in range(steps)
    ):
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * min(
                1, (step + 1) / 20, (STEPS - step) / (0.4 * STEPS)
            )
        row = rows(generator, count, length, EVEN)
        asked, landmark = row.answers >= 0, row.keys >= 0
        hidden = model.hidden(row.tokens)
        answering = F.cross_entropy(model.logits(hidden[asked]), row.answers[asked])
        logits = model.logits(hidden[landmark])
        reciting = F.cross_entropy(
            logits[:, KEYS:VALUES], row.keys[landmark] - KEYS
        ) + F.cross_entropy(logits[:, VALUES:NOISE], row.values[landmark] - VALUES)
        loss = (
            answering + reciting
            if kind != "landmark unrecited" and step < RECITE * STEPS
            else answering
        )
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 150 == 0 or step == STEPS - 1:
            seconds = (time.time() - started) / (step + 1)
            print(
                f"{kind} {seed}  step {step:5}/{STEPS}  loss of answers {answering.item():.3f}  "
                f"of reciting {reciting.item():.3f}  "
                f"right by distance {told(measure(model, 4 * WINDOW, 4)[0])}  {seconds:.2f} s/step",
                flush=True,
            )
    accuracy, counts = measure(model)
    print(f"{kind} {seed}  right by distance: {told(accuracy)}", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    aside = path(kind, seed).with_suffix(".tmp")
    aside.write_text(
        json.dumps(
            dict(
                version=VERSION,
                kind=kind,
                seed=seed,
                steps=STEPS,
                accuracy=accuracy,
                asked=counts,
                loss=answering.item(),
            )
        )
    )
    os.replace(aside, path(kind, seed))


def path(kind: str, seed: int) -> Path:
    return OUT / f"{kind.replace(' ', '-')}-{seed}.json"


def finished(kind: str, seed: int) -> dict | None:
    """The record of a run, unless it is of another version or length: no part of this table."""
    record = json.loads(path(kind, seed).read_text()) if path(kind, seed).exists() else {}
    return record if (record.get("version"), record.get("steps")) == (VERSION, STEPS) else None


def report() -> None:
    """Accuracy by distance, mean and standard deviation over seeds, into
    docs/results/attention.json.
    """
    for kind in KINDS:
        runs = [record for seed in SEEDS if (record := finished(kind, seed))]
        if not runs:
            print(f"{kind}: no finished run")
            continue
        for i, (near, far) in enumerate(zip(BUCKETS, BUCKETS[1:])):
            shares = [record["accuracy"][i] for record in runs]
            spread = f"± {statistics.stdev(shares):.3f} std" if len(shares) > 1 else ""
            results.record(
                "attention",
                f"retrieval/{kind}, {near}–{far} windows back",
                round(statistics.mean(shares), 3),
                spread=spread,
                n=runs[0]["asked"][i],
                seeds=len(runs),
                note="each seed: " + ", ".join(f"{share:.2f}" for share in shares),
                command="python bench/retrieval.py",
            )
        means = [
            statistics.mean(record["accuracy"][i] for record in runs)
            for i in range(len(BUCKETS) - 1)
        ]
        print(f"{kind:20} {told(means)}  ({len(runs)} seeds)")


def main() -> None:
    words = sys.argv[1:]
    if words == ["report"]:
        return report()
    if words and (len(words) != 2 or words[0] not in KINDS or not words[1].isdigit()):
        raise UserError(
            f"found {' '.join(words)!r}; wanted nothing, 'report', or one of {KINDS} and a seed"
        )
    for seed, kind in (
        [(int(words[1]), words[0])] if words else [(seed, kind) for seed in SEEDS for kind in KINDS]
    ):
        if not finished(kind, seed):
            run(kind, seed)
    report()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
