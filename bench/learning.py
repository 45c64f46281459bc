"""What the toy learns, over three seeds, beside a GPT-style baseline of equal parameters and equal
wall time; and what its gate tells apart.

The machine's speed drifts, so equal time is not taken from a clock during training: the seconds of
a step of both are measured first, and the baseline gets the number of steps that fills the toy's
time. Then all runs have fixed steps. AUROC of the gate: over all held-out tokens of Python sources,
inside against outside docstrings and comments. Resumable: finished runs are kept.

    python bench/learning.py             about 6 × 6 minutes; prints, records
                                         docs/results/trunk.json
    python bench/learning.py --seeds 2   fewer seeds, for less time
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import support.openmp  # before torch

import numpy as np
import torch

from support import checkpoint
from support import settings
from support.token_files import token_files
from support import result_tables as results
from support import machine
from support.log import read_log
from support import tokenizer, tokenizer_folder

FOLDER = ROOT / "out" / "learning"


def train(config: str, out: Path, seed: int, steps: int, *more: str) -> float:
    """Train to the end (or find it trained); its held-out bits per byte."""
    if not (out / f"checkpoint-{steps:07}").exists():
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            config,
            "--out",
            str(out),
            "--train.seed",
            str(seed),
            "--train.steps",
            str(steps),
            "--train.minutes",
            "0",
            "--train.sample-every",
            "0",
            "--train.eval-every",
            "1000000",
            *more,
        ]
        if checkpoint.checkpoints(out):
            command.append("--resume")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(r["bits_per_byte"] for r in reversed(read_log(out)) if "bits_per_byte" in r)


def milliseconds(config: str, out: Path) -> float:
    """A training step's time: the least of a short run's intervals, since other load on the machine
    only adds.
    """
    shutil.rmtree(out, ignore_errors=True)
    train(
        config,
        out,
        0,
        61,
        "--train.log-every",
        "5",
        "--train.compile",
        "on" if machine.can_compile("cpu") else "off",
    )
    return min(r["ms"] for r in read_log(out)[1:] if "ms" in r)


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative
    (Mann-Whitney), ties counting half.
    """
    order = np.argsort(score, kind="stable")
    values, first, count = np.unique(score[order], return_index=True, return_counts=True)
    ranks = np.empty(len(score))
    ranks[order] = np.repeat(first + (count + 1) / 2, count)
    return (ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / (
        positive.sum() * (~positive).sum()
    )


@torch.no_grad()
def gate_separation(out: Path) -> float:
    """AUROC of a run's gate over held-out sources: prose (docstrings, comments) against code."""
    model, config, _ = checkpoint.load_run(out)
    _, held_out = token_files(config.data, tokenizer_folder.load_tokenizer(config.data.tokenizer))
    tokens = torch.from_numpy(held_out.tokens.astype(np.int64))[None]
    starts = np.flatnonzero(held_out.tokens == tokenizer.toy().end_of_text)
    sources = np.zeros(len(held_out.tokens), bool)
    for start, end in zip(starts, [*starts[1:], len(held_out.tokens)]):
        sources[start + 1 : end] = held_out.kinds[
            start + 1 : end
        ].any()  # pages of pure prose have no code to be told from
    gates = model.embedding.prose_logits(tokens)[0].numpy()
    return auroc(gates[sources], held_out.kinds[sources] == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(1, parser.parse_args().seeds + 1)
    steps = settings.from_file("config/toy.py").train.steps
    stored = (
        FOLDER / "ratio.json"
    )  # a resumed bench must not change its mind about the baseline's steps
    if not stored.exists():
        times = {
            name: min(milliseconds(f"config/{name}.py", FOLDER / f"time_{name}") for _ in range(2))
            for name in ("toy", "gpt")
        }
        stored.write_text(json.dumps(times["toy"] / times["gpt"]))
    ratio = json.loads(stored.read_text())
    baseline_steps = round(steps * ratio)
    print(
        f"a step of the toy takes {ratio:.3f} × the baseline's time: "
        f"{steps} steps against {baseline_steps}"
    )
    losses = {"toy": [], "baseline": []}
    for seed in seeds:
        losses["toy"].append(train("config/toy.py", FOLDER / f"toy_{seed}", seed, steps))
        losses["baseline"].append(
            train("config/gpt.py", FOLDER / f"gpt_{seed}", seed, baseline_steps)
        )
        print(
            f"seed {seed}: toy {losses['toy'][-1]:.4f}, "
            f"baseline {losses['baseline'][-1]:.4f} bits per byte",
            flush=True,
        )
    separations = [gate_separation(FOLDER / f"toy_{seed}") for seed in seeds]
    counts = {
        name: sum(p.numel() for p in checkpoint.load_run(FOLDER / folder)[0].parameters())
        for name, folder in (("toy", "toy_1"), ("baseline", "gpt_1"))
    }
    toy = settings.from_file("config/toy.py")
    tokens = toy.train.batch * toy.data.sequence / 1e6
    for name, label, count in (
        ("toy", "SAGE toy", steps),
        ("baseline", "GPT-style baseline, equal time", baseline_steps),
    ):
        results.record(
            "trunk",
            f"learning/{label}",
            round(statistics.mean(losses[name]), 4),
            spread=f"± {statistics.stdev(losses[name]):.4f} std",
            seeds=len(seeds),
            n=len(seeds),
            unit="bits per byte, held out",
            note=f"{counts[name]:,} parameters, {count} steps, {count * tokens:.1f}M tokens",
        )
    results.record(
        "trunk",
        "learning/gate: AUROC of prose against code",
        round(statistics.mean(separations), 4),
        spread=f"± {statistics.stdev(separations):.4f} std",
        seeds=len(seeds),
        unit="",
        note="held-out sources; ½ is chance; the gate sees four tokens",
    )
    print(
        {name: [round(x, 4) for x in values] for name, values in losses.items()},
        "gate AUROC",
        [round(x, 4) for x in separations],
    )


if __name__ == "__main__":
    main()
