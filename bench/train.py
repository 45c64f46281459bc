"""Speed of a training step, beside the usual kind in the same run.

The peer: transformers' Qwen2 of the same shape, eager, float32, torch's fused attention, AdamW
parameter by parameter: what a first training script does. Ours: the step of train.py with AdamW (so
that both do the same arithmetic) and with Muon, without the weak labels of the gate and the decay
groups, which cost nothing to speak of. Steps of both alternate, so that a drift of the machine's
speed hits both; medians and ratios are what to read.

    python bench/train.py            prints and records docs/results/trunk.json
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import transformers

from support import settings
from support import result_tables as results
from support import machine
from losses import cross_entropy
from model import SAGE, flops_per_token
from fast.compiling import compile_training
from fast.muon import Muon
from support.pretrained import config_shape

BATCH, SEQUENCE, ROUNDS, STEPS = 16, 256, 7, 4


def peer(shape):
    """One optimiser step of the usual kind, as a function."""
    config = transformers.Qwen2Config(**config_shape(shape))
    model = transformers.Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)

    def step(tokens):
        model(tokens[:, :-1], labels=tokens[:, :-1]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(shape, dtype, compiled: bool, muon: bool):
    """One optimiser step as train.py takes it, for its main loss."""
    model = SAGE(shape)
    matrices = (
        [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")]
        if muon
        else []
    )
    optimizers = [
        torch.optim.AdamW(
            [p for p in model.parameters() if not any(p is m for m in matrices)],
            lr=1e-3,
            fused=True,
        )
    ]
    optimizers += [Muon(matrices, dtype=dtype)] if muon else []
    loss = lambda tokens: cross_entropy(
        model.hidden(tokens[:, :-1]), model.embedding.text.weight, tokens[:, 1:]
    )
    loss = compile_training(loss) if compiled else loss

    def step(tokens):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(tokens)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    shape = settings.from_file("config/toy.py").model
    dtype = machine.pick_dtype("auto", "cpu")
    compiled = machine.can_compile("cpu")
    name = str(dtype).removeprefix("torch.")
    runners = {
        "transformers' Qwen2, eager float32, AdamW one by one": (peer(shape), "highest"),
        f"train.py's step, eager {name}, fused AdamW": (ours(shape, dtype, False, False), "medium"),
    }
    if compiled:
        runners[f"train.py's step, compiled {name}, fused AdamW"] = (
            ours(shape, dtype, True, False),
            "medium",
        )
        runners[f"train.py's step, compiled {name}, Muon"] = (
            ours(shape, dtype, True, True),
            "medium",
        )
    tokens = torch.randint(0, shape.vocab_size, (BATCH, SEQUENCE + 1))
    times = {runner: [] for runner in runners}
    peaks = []
    for round_ in range(ROUNDS + 1):  # the first warms up and compiles
        for runner, (step, precision) in runners.items():
            torch.set_float32_matmul_precision(precision)
            start = time.perf_counter()
            for _ in range(STEPS):
                step(tokens)
            if round_:
                times[runner].append((time.perf_counter() - start) / STEPS)
        peaks.append(machine.matmul_peak("cpu", dtype, seconds=0.3))
    peak = statistics.median(peaks[1:])
    base = times[next(iter(times))]
    print(
        f"{BATCH} × {SEQUENCE} tokens, {shape.layers} layers × {shape.width}, "
        f"{torch.get_num_threads()} threads; matrix peak in {name} {peak / 1e9:.0f} GFLOP/s"
    )
    for runner, seconds in times.items():
        rate = BATCH * SEQUENCE / statistics.median(seconds)
        ratios = [b / s for b, s in zip(base, seconds)]
        share = rate * flops_per_token(shape, SEQUENCE) / peak
        print(
            f"{runner:55} {statistics.median(seconds) * 1e3:7.0f} ms {rate:9,.0f} tok/s  "
            f"{statistics.median(ratios):5.2f} × the peer  {share:5.0%} of peak"
        )
        spread = f"min {min(ratios):.2f} max {max(ratios):.2f}"
        goals = {"compiled " + name + ", fused": ("≥ 3 (with bf16 units)", "≥ 45%")}
        goal = next((g for key, g in goals.items() if key in runner), ("", ""))
        results.record(
            "trunk",
            f"training speed/{runner}: tokens/s",
            round(rate),
            n=ROUNDS,
            unit="tokens/s",
            spread=f"median of {ROUNDS} rounds of {STEPS} steps",
        )
        results.record(
            "trunk",
            f"training speed/{runner}: times the peer's speed",
            round(statistics.median(ratios), 2),
            n=ROUNDS,
            unit="×",
            spread=spread,
            goal=goal[0],
        )
        results.record(
            "trunk",
            f"training speed/{runner}: share of the {name} matrix peak",
            round(100 * share, 1),
            n=ROUNDS,
            unit="%",
            goal=goal[1],
        )


if __name__ == "__main__":
    main()
