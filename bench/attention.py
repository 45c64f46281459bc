"""Landmark attention's speed and memory on a CPU, beside what else could compute it, each backend
by its name. A GPU's figures are bench/gpu.py's.

    python bench/attention.py             all that this machine can measure, then the picture;
                                          about four minutes on two CPU cores
    python bench/attention.py memory      peak memory from 4k to 128k tokens, and the cache's size
    python bench/attention.py long        a small model reads 128k tokens and decodes
    python bench/attention.py cpu         forward and backward, 2k to 32k tokens
    python bench/attention.py picture     docs/attention.png from the recorded figures
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import support.openmp  # before torch

import torch
import torch.nn.functional as F
from torch import Tensor

from support import result_tables as results
from attention import LandmarkCache, definition, landmark_attention, mask
from config import Model

WINDOW, STRIDE = 4096, 64


def tensors(T: int, H: int, K: int, d: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(T)
    return [
        torch.randn(1, heads, T, d, generator=generator, requires_grad=True) for heads in (H, K, K)
    ]


def seconds(call: Callable[[], object], repeats: int = 5) -> list[float]:
    """Times of `call` after one warm-up, sorted; fewer when one takes seconds."""
    times = []
    while len(times) < min(2, repeats + 1) or len(times) < repeats + 1 and sum(times) < 6:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times[1:] or times)


# Memory
# --------------------------------------------------------------------------------------------------


def resident(peak: bool = False) -> int:
    """Bytes of memory that this process holds now, or has held at most since resident() was last
    asked for the present (Linux).
    """
    if not peak:
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # forget the earlier peak: importing torch may have gone higher
    field = "VmHWM" if peak else "VmRSS"
    return next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    )


def peak(kind: str, T: int) -> None:
    """In a process of its own: print the bytes by which one forward and backward (one head, d 64,
    float32) raised peak memory over its inputs.
    """
    torch.set_num_threads(1)
    landmark_attention(
        *tensors(256, 1, 1, 64), 16, 8, implementation="blocked"
    ).sum().backward()  # libraries are loaded
    q, k, v = tensors(T, 1, 1, 64)
    before = resident()
    if kind == "explicit mask":
        definition(q, k, v, T, 1).sum().backward()
    else:
        landmark_attention(q, k, v, WINDOW, STRIDE, implementation="blocked").sum().backward()
    print(resident(peak=True) - before)


def fit(lengths: Sequence[int], sizes: Sequence[float]) -> tuple[float, float, float, float]:
    """Least squares of sizes to a + b·(W + T/k), the line the paper claims: a, b, R², and the
    largest share by which a size is off the line.

    Only lengths beyond the window count: up to it all tokens are in the window and memory grows as
    T.
    """
    lengths, sizes = zip(*((T, size) for T, size in zip(lengths, sizes) if T > WINDOW))
    seen = [WINDOW + T / STRIDE for T in lengths]
    b, a = statistics.linear_regression(seen, sizes)
    return (
        a,
        b,
        statistics.correlation(seen, sizes) ** 2,
        max(abs(a + b * x - y) / y for x, y in zip(seen, sizes)),
    )


def memory() -> None:
    # by default the C library keeps part of what is freed; so told it gives every block above 64 kB
    # back at once, and the peak is what is alive
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    print("peak memory of one forward and backward over its inputs, one head, d 64, float32 (MB)")
    for kind, lengths in (
        ("blocked path", (4096, 8192, 16_384, 32_768, 65_536, 131_072)),
        ("explicit mask", (2048, 4096, 8192, 16_384)),
    ):
        used = []
        for T in lengths:
            run = subprocess.run(
                [sys.executable, __file__, "peak", kind, str(T)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            used.append(int(run.stdout) / 1e6)
            print(f"  {kind:13} {T:7} {used[-1]:9.1f}", flush=True)
            results.record(
                "attention",
                f"peak memory/{kind}, {T} tokens",
                round(used[-1], 1),
                unit="MB",
                note="over the inputs: forward and backward, one head, d 64, float32",
            )
        if kind == "blocked path":
            a, b, r2, off = fit(lengths, used)
            line = (
                f"{a + b * WINDOW:.1f} MB + {b * 1000:.1f} kB · T/k, "
                f"R² {r2:.6f}, at most {off:.1%} off"
            )
            print(f"  beyond the window {line}")
            results.record(
                "attention",
                "peak memory/blocked path, slope of the line beyond the window",
                round(b / STRIDE * 1e6),
                unit="bytes per token",
                n=len(lengths) - 1,
                note=f"{line}; {4 * 64 * 4} of the slope are the output and the three gradients",
            )
    print(
        "cache of one sequence at Qwen2.5-32B's shape "
        "(64 layers, 8 key-value heads, d 128, bf16), GB"
    )
    shape = Model(layers=64, kv_heads=8, head_dim=128, window=WINDOW, landmark_stride=STRIDE)
    lengths = (4096, 8192, 16_384, 32_768, 65_536, 131_072, 1_048_576)
    sizes = []
    for T in lengths:
        sizes.append(LandmarkCache(shape, 1, T, torch.bfloat16, "meta").bytes)
        dense = 64 * 8 * 128 * 2 * 2 * T
        print(
            f"  {T:8} landmark {sizes[-1] / 1e9:7.3f}  dense {dense / 1e9:7.2f}  "
            f"{dense / sizes[-1]:5.1f} times"
        )
        results.record(
            "attention",
            f"cache/{T} tokens",
            round(sizes[-1] / 1e9, 3),
            unit="GB",
            note=f"dense {dense / 1e9:.2f} GB, {dense / sizes[-1]:.1f} times as much",
        )
    a, b, r2, off = fit(lengths, sizes)
    line = f"{a:,.0f} + {b:,.1f} · (W + T/k) bytes, R² {r2:.6f}, at most {off:.0e} off"
    print(f"  beyond the window {line}")
    results.record(
        "attention",
        "cache/slope of the line beyond the window",
        round(b),
        unit="bytes for each of W + T/k",
        n=len(lengths) - 1,
        note=f"{line}; a slot holds 64 · 8 · 128 · 2 · 2 = {64 * 8 * 128 * 2 * 2:,}",
    )


def long() -> None:
    """A small model reads 131 000 tokens in chunks and decodes 16 more."""
    from model import SAGE, State

    T = 131_072
    config = Model(
        width=64,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=32,
        feed_forward=128,
        context=T,
        window=WINDOW,
        landmark_stride=STRIDE,
    )
    model = SAGE(config)
    state = State(config, 1, T)
    tokens = torch.randint(config.vocab_size, (1, T - 16))
    start = time.perf_counter()
    with torch.inference_mode():
        for chunk in tokens.split(16_384, 1):
            hidden = model.hidden(chunk, state=state)
        read = time.perf_counter()
        for _ in range(16):
            token = model.logits(hidden[:, -1:]).argmax(-1)
            hidden = model.hidden(token, state=state)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    per_token = (time.perf_counter() - read) / 16
    print(
        f"128k tokens: read in {read - start:.1f} s, "
        f"decoded at {per_token * 1000:.1f} ms per token, {used:.2f} GB of memory at most, "
        f"cache {state.cache.bytes / 1e6:.1f} MB"
    )
    results.record(
        "attention",
        "128k/peak memory of reading and decoding",
        round(used, 2),
        unit="GB",
        note=f"the whole process, toy of {sum(p.numel() for p in model.parameters()):,} parameters",
    )
    results.record(
        "attention",
        "128k/cache",
        round(state.cache.bytes / 1e6, 1),
        unit="MB",
        note=f"dense: {2 * 2 * 32 * T * 4 / 1e6:.1f} MB",
    )
    results.record("attention", "128k/reading", round(T / (read - start)), unit="tokens/s", n=1)


# CPU
# --------------------------------------------------------------------------------------------------


def cpu(
    lengths: tuple[int, ...] = (2048, 4096, 8192, 16_384, 32_768),
    window: int = 1024,
    record: bool = True,
) -> None:
    H, K, d = 2, 1, 64
    print(
        f"CPU, {torch.get_num_threads()} threads, float32, H {H}, K {K}, d {d}, "
        f"window {window}, stride {STRIDE}: milliseconds forward | forward and backward"
    )
    for T in lengths:
        q, k, v = tensors(T, H, K, d)
        backends = {
            "blocked": lambda: landmark_attention(
                q, k, v, window, STRIDE, implementation="blocked"
            ),
            "SDPA causal (dense)": lambda: F.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            ),
        }
        if T <= 8192:  # its mask is T × T
            index = torch.arange(T)
            seen = mask(index, index, window, STRIDE)
            backends["SDPA with the mask"] = lambda: F.scaled_dot_product_attention(
                q, k, v, attn_mask=seen, enable_gqa=True
            )
        for name, call in backends.items():
            with torch.no_grad():
                forward = seconds(call)
            both = seconds(lambda: torch.autograd.grad(call().sum(), (q, k, v)))
            print(
                f"  {T:6} {name:20} {statistics.median(forward) * 1e3:9.1f} | "
                f"{statistics.median(both) * 1e3:9.1f}",
                flush=True,
            )
            if record:
                for what, times in (("forward", forward), ("forward and backward", both)):
                    results.record(
                        "attention",
                        f"cpu/{what}, {T} tokens, {name}",
                        round(statistics.median(times) * 1e3, 2),
                        unit="ms",
                        n=len(times),
                        spread=f"min {times[0] * 1e3:.1f} max {times[-1] * 1e3:.1f}",
                        note=f"float32, H {H}, K {K}, d {d}, W {window}, k {STRIDE}",
                    )


# Picture
# --------------------------------------------------------------------------------------------------


def picture() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    recorded = {
        r["name"]: r["value"] for r in json.loads((results.FOLDER / "attention.json").read_text())
    }
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.9), constrained_layout=True)
    i = torch.arange(96)
    seen = mask(i, i, 16, 8).float()
    seen[(i[:, None] - i >= 16) & (i % 8 == 0)] *= (
        0.55  # landmarks beyond the window in a lighter tone
    )
    left.imshow(seen, cmap="Blues", vmin=0, vmax=1.15, interpolation="nearest")
    left.set(title="who sees whom: window 16, a landmark every 8", xlabel="key", ylabel="query")

    def curve(axis, prefix: str, suffix: str, label: str) -> list[tuple[int, float]]:
        points = sorted(
            (int(name[len(prefix) : len(name) - len(suffix)]), value)
            for name, value in recorded.items()
            if name.startswith(prefix) and name.endswith(suffix)
        )
        axis.plot(
            [T for T, _ in points],
            [value for _, value in points],
            marker="o",
            markersize=3,
            label=label if points else f"{label}: not measured",
        )
        return points

    if points := curve(middle, "peak memory/blocked path, ", " tokens", "landmark, blocked"):
        a, b, _, _ = fit(*zip(*points))
        middle.plot(
            [T for T, _ in points if T > WINDOW],
            [a + b * (WINDOW + T / STRIDE) for T, _ in points if T > WINDOW],
            "k:",
            linewidth=1,
            label="a + b · (W + T/k)",
        )
    curve(middle, "peak memory/explicit mask, ", " tokens", "dense, explicit mask")
    middle.set(
        title=f"peak memory, one head, window {WINDOW}",
        xlabel="tokens",
        ylabel="MB, forward and backward",
    )
    curve(right, "cpu/forward and backward, ", " tokens, blocked", "landmark, blocked")
    curve(right, "cpu/forward and backward, ", " tokens, SDPA causal (dense)", "dense, SDPA causal")
    curve(
        right,
        "cpu/forward and backward, ",
        " tokens, SDPA with the mask",
        "landmark as a mask in SDPA",
    )
    right.set(
        title="time on a CPU, window 1024", xlabel="tokens", ylabel="ms, forward and backward"
    )
    for axis in (middle, right):
        lengths = sorted({int(T) for line in axis.lines for T in line.get_xdata()})
        if lengths:  # an empty axis has no logarithm
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(lengths, [f"{T // 1024}k" for T in lengths], minor=False)
            axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
    figure.savefig(ROOT / "docs" / "attention.png", dpi=110)
    print("wrote docs/attention.png")


def main() -> None:
    if sys.argv[1:2] == ["peak"]:
        return peak(sys.argv[2], int(sys.argv[3]))
    parts = dict(memory=memory, long=long, cpu=cpu, picture=picture)
    for name in sys.argv[1:]:
        if name not in parts:
            raise SystemExit(f"{name!r} is no part of this bench; one of {', '.join(parts)}")
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
