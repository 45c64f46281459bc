"""Needle test: does a model trained with landmark attention still find a fact that left its window? (§2.3)

    python bench/retrieval.py                 nine runs (dense, landmark, window only × 3 seeds), then the table; goes on where it was stopped
    python bench/retrieval.py landmark 0      one run
    python bench/retrieval.py report          records what the finished runs found

A row is noise in which every 16 tokens hold a fact (MARK key value) and four questions (ASK key, to be answered by that key's value), each
about a fact whose distance is drawn evenly on a logarithmic scale, up to 16 windows back. Only answers are learnt and counted. With a window
of 128 and a landmark every 16 tokens, a fact beyond the window can be answered only if a landmark near it took it up in a lower layer.
"Window only" keeps token 0 and drops every other landmark. The three differ in the mask and in nothing else: same rows, same first weights.

A trap of this task: a question drawn to lie farther back than the row has facts falls to the row's first fact, so that first fact answers a fifth to
two fifths of all far questions. Whoever says its value without looking at the key is right that often; `report` prints that rule beside the models.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
import torch.nn.functional as F
from torch import Tensor

import results
from config import Model, UserError
from model import SAGE
from muon import Muon

WINDOW, STRIDE = 128, 16
ROW = 17 * WINDOW                                    # the last answer can lie 16 windows back
BLOCKS = ROW // STRIDE
MARK, ASK, KEYS, VALUES, NOISE = 0, 1, 2, 162, 194     # first token of each kind: 160 keys, 32 values, 30 words of noise
VOCABULARY = 224
LAYERS, STEPS, BATCH = 2, 1000, 1                     # two layers: the least that can put a fact into a landmark and read it there
SEEDS, KINDS = (0, 1, 2), ("dense", "landmark", "window only")
BUCKETS = (0, 1, 2, 4, 8, 16)                        # distances in windows
OUT = ROOT / "out" / "retrieval"


def rows(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (count, ROW), answers (count, ROW) with -1 where nothing is asked, and the distance of each answer's fact in tokens."""
    tokens = torch.randint(NOISE, VOCABULARY, (count, ROW), generator=generator)
    answers, distances = torch.full((count, ROW), -1), torch.zeros(count, ROW, dtype=torch.int64)
    order = torch.rand(count, BLOCKS, 5, generator=generator).argsort(-1).tolist()    # of one fact and four questions
    draws = torch.rand(count, BLOCKS, 4, generator=generator).tolist()
    for row in range(count):
        keys = torch.randperm(VALUES - KEYS, generator=generator).tolist()
        values = torch.randint(VALUES, NOISE, (BLOCKS,), generator=generator).tolist()
        places: list[int] = []
        for block in range(BLOCKS):
            at = block * STRIDE + 1                                                    # the landmark itself is noise
            for event in order[row][block]:
                if event == 4:
                    tokens[row, at: at + 3] = torch.tensor([MARK, KEYS + keys[block], values[block]])
                    places.append(at)
                    at += 3
                elif places:
                    wanted = 2 ** (4 + 7 * draws[row][block][event])                   # 16 … 2048 tokens back
                    fact = min(max(len(places) - 1 - round(wanted / STRIDE), 0), len(places) - 1)
                    tokens[row, at], tokens[row, at + 1] = ASK, KEYS + keys[fact]
                    answers[row, at + 1], distances[row, at + 1] = values[fact], at - places[fact]
                    at += 2
    return tokens, answers, distances


def shape(kind: str) -> Model:
    """The toy; keys lean on the token before, so that a value is found by its key in one layer."""
    window, stride = {"dense": (ROW, STRIDE), "landmark": (WINDOW, STRIDE), "window only": (WINDOW, ROW)}[kind]
    return Model(vocab_size=VOCABULARY, width=64, layers=LAYERS, heads=2, kv_heads=2, head_dim=32, feed_forward=128, context=ROW, window=window,
                 landmark_stride=stride, embedding="plain", previous_token=True)


def measure(model: SAGE) -> tuple[list[float], list[int]]:
    """Share of right answers and number asked, by distance, on rows that no run has trained on."""
    generator = torch.Generator().manual_seed(99)
    right, asked = torch.zeros(len(BUCKETS) - 1), torch.zeros(len(BUCKETS) - 1)
    for _ in range(8):
        tokens, answers, distances = rows(generator, 1)
        with torch.inference_mode():
            guesses = model(tokens).argmax(-1)
        for i, (near, far) in enumerate(zip(BUCKETS, BUCKETS[1:])):
            inside = (answers >= 0) & (distances > near * WINDOW) & (distances <= far * WINDOW)
            right[i] += (guesses == answers)[inside].sum()
            asked[i] += inside.sum()
    return (right / asked).tolist(), asked.int().tolist()


def first_fact() -> tuple[list[float], list[int]]:
    """What measure() would find for one who always says the value of the row's first fact, whatever key is asked."""
    generator = torch.Generator().manual_seed(99)
    right, asked = torch.zeros(len(BUCKETS) - 1), torch.zeros(len(BUCKETS) - 1)
    for _ in range(8):
        tokens, answers, distances = rows(generator, 1)
        value = tokens[0, (tokens[0] == MARK).nonzero()[0, 0] + 2]
        for i, (near, far) in enumerate(zip(BUCKETS, BUCKETS[1:])):
            inside = (answers >= 0) & (distances > near * WINDOW) & (distances <= far * WINDOW)
            right[i] += (answers == value)[inside].sum()
            asked[i] += inside.sum()
    return (right / asked).tolist(), asked.int().tolist()


def run(kind: str, seed: int) -> None:
    """Train one model, measure it, write out/retrieval/<kind>-<seed>.json; some four minutes of one free core."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = SAGE(shape(kind), seed=seed)
    for block in model.blocks:
        block.attention.smear.data.fill_(0.5)                                          # half a key is the token before it from the start: copying comes sooner
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")]
    rest = [p for p in model.parameters() if not any(p is q for q in matrices)]
    optimizers = [torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0), Muon(matrices, lr=0.02, weight_decay=0.0, dtype=torch.float32)]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    generator = torch.Generator().manual_seed(1000 + seed)                             # the rows depend on the seed alone, not on the kind
    started = time.time()
    for step in range(STEPS):
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * min(1, (step + 1) / 20, (STEPS - step) / (0.4 * STEPS))
        tokens, answers, _ = rows(generator, BATCH)
        asked = answers >= 0
        loss = F.cross_entropy(model.logits(model.hidden(tokens)[asked]), answers[asked])
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 50 == 0 or step == STEPS - 1:
            print(f"{kind} {seed}  step {step:5}/{STEPS}  loss {loss.item():.3f}  {(time.time() - started) / (step + 1):.2f} s/step", flush=True)
    accuracy, counts = measure(model)
    print(f"{kind} {seed}  right by distance: " + "  ".join(f"≤{far}W {share:.3f}" for far, share in zip(BUCKETS[1:], accuracy)), flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    aside = OUT / f"{kind.replace(' ', '-')}-{seed}.tmp"
    aside.write_text(json.dumps(dict(kind=kind, seed=seed, steps=STEPS, accuracy=accuracy, asked=counts, loss=loss.item())))
    os.replace(aside, aside.with_suffix(".json"))


def finished(kind: str, seed: int) -> dict | None:
    path = OUT / f"{kind.replace(' ', '-')}-{seed}.json"
    record = json.loads(path.read_text()) if path.exists() else None
    return record if record and record["steps"] == STEPS else None                     # a run of another length is no part of this table


def report() -> None:
    """Accuracy by distance, mean and standard deviation over seeds, into docs/results/attention.json; beside it the rule that reads no key."""
    for kind in KINDS:
        runs = [record for seed in SEEDS if (record := finished(kind, seed))]
        if not runs:
            print(f"{kind}: no finished run")
            continue
        for i, (near, far) in enumerate(zip(BUCKETS, BUCKETS[1:])):
            shares = [record["accuracy"][i] for record in runs]
            spread = f"± {statistics.stdev(shares):.3f} std" if len(shares) > 1 else ""
            results.record("attention", f"retrieval/{kind}, {near}–{far} windows back", round(statistics.mean(shares), 3), spread=spread, n=runs[0]["asked"][i],
                           seeds=len(runs), note="each seed: " + ", ".join(f"{share:.2f}" for share in shares), command="python bench/retrieval.py")
            print(f"{kind:12} {near:2}–{far:2} windows back  {statistics.mean(shares):.3f} {spread}")
    for near, far, share, asked in zip(BUCKETS, BUCKETS[1:], *first_fact()):
        results.record("attention", f"retrieval/no model: always the first fact's value, {near}–{far} windows back", round(share, 3), n=asked,
                       note="any value at random: 0.03", command="python bench/retrieval.py")
        print(f"first fact   {near:2}–{far:2} windows back  {share:.3f}")


def main() -> None:
    words = sys.argv[1:]
    if words == ["report"]:
        return report()
    if words and (len(words) != 2 or words[0] not in KINDS or not words[1].isdigit()):
        raise UserError(f"found {' '.join(words)!r}; wanted nothing, 'report', or one of {', '.join(KINDS)} and a seed")
    for seed, kind in [(int(words[1]), words[0])] if words else [(seed, kind) for seed in SEEDS for kind in KINDS]:
        if not finished(kind, seed):
            run(kind, seed)
    report()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
