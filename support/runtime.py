"""What every script needs before and around its loop: the device, its measured speed, the log line,
the curve, the last word on errors.
"""

import contextlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from support import provenance
from config import UserError
from fast.compiling import compile_training


def pick_device(name: str) -> str:
    """ "cuda" or "cpu" for "auto"; otherwise what was asked for, if torch can reach it.

    Raises UserError.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); wanted auto, cpu or cuda"
        ) from None
    return name


def settle(device: str) -> None:
    """Before training: float32 products may be rounded as suits the processor, but sums come in one
    order, so that a run on a CPU repeats itself to the bit, with two threads as with one.

    Otherwise an embedding's gradient, to which many places add, depends on which thread was first.
    """
    torch.set_float32_matmul_precision("medium")
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def matmul_peak(device: str, dtype: torch.dtype, size: int = 1024, seconds: float = 0.5) -> float:
    """The machine's matrix-product rate in FLOP/s, measured: the best of many size × size products
    (4 × larger on a GPU).
    """
    size *= 4 if device.startswith("cuda") else 1
    a, b = (
        torch.ones(size, size, dtype=dtype, device=device),
        torch.ones(size, size, dtype=dtype, device=device),
    )  # no random numbers: a resumed run must find its own
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        synchronise()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def pick_dtype(name: str, device: str) -> torch.dtype:
    """The dtype of matrix products: what was asked for, or for "auto" the faster of bfloat16 and
    float32 on this machine.

    Measured, because it cannot be guessed: a CPU with bf16 units is 2-5 × faster in it, one without
    them up to 100 × slower.
    """
    if name != "auto":
        return getattr(torch, name)
    fast, safe = (
        matmul_peak(device, dtype, size=256, seconds=0.1)
        for dtype in (torch.bfloat16, torch.float32)
    )
    return torch.bfloat16 if fast > safe else torch.float32


def can_compile(device: str) -> bool:
    """Whether torch.compile works here, found out by trying: on a CPU it needs a C++ compiler and
    Python's headers.
    """
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return False
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
        return True
    except Exception:  # whatever the compiler's reason: the caller goes on without it, and says so
        return False


def compiled(function: Callable, setting: str, steps: int, device: str) -> Callable:
    """The function under torch.compile, if the setting says so;

    "auto" does where it works and there are ≥ 500 steps to repay it.
    """
    if setting == "off" or setting == "auto" and (steps < 500 or not can_compile(device)):
        return function
    print("compiling, up to a minute the first time on a machine", flush=True)
    return compile_training(function)


class Log:
    """A run's log: one line on the terminal in fixed columns, and the same numbers in log.jsonl."""

    def __init__(self, folder: str | Path, total: int, first: int = 0):
        self.path, self.total = Path(folder) / "log.jsonl", total
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if first == 0:
            self.path.write_text("")
        else:  # resumed: drop what a killed run logged past its last checkpoint
            kept = (
                [record for record in read_log(folder) if record["step"] <= first]
                if self.path.exists()
                else []
            )
            provenance.replace(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def say(self, text: str) -> None:
        self.bar.write(text)

    def line(
        self,
        step: int,
        milliseconds: float,
        tokens_per_second: float,
        peak_share: float,
        **numbers: float,
    ) -> None:
        """Log one interval: `numbers` are shown in the order given (loss, lr, …)."""
        eta = int((self.total - step) * milliseconds / 1000)
        shown = "  ".join(
            f"{name} {value:.1e}" if name == "lr" else f"{name} {value:.3f}"
            for name, value in numbers.items()
        )
        self.say(
            f"{step:>6}/{self.total} {step / self.total:4.0%}  {shown}  {milliseconds:5.0f} ms  {tokens_per_second:7,.0f} tok/s  "
            f"{peak_share:4.0%} of peak  ETA {eta // 60}:{eta % 60:02}"
        )
        self.write(
            step=step,
            ms=round(milliseconds, 1),
            tokens_per_second=round(tokens_per_second),
            peak_share=round(peak_share, 4),
            **numbers,
        )

    def write(self, **numbers: float) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(numbers) + "\n")


def read_log(folder: str | Path) -> list[dict]:
    """The records of a run's log.jsonl; a last line that a killed run left half-written is passed
    over.
    """
    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def draw_curve(
    folder: str | Path, title: str, left: str = "loss", right: str = "bits_per_byte"
) -> Path:
    """Draw two series of a run's log against its steps (the right one where it was logged) into
    loss.png; returns its path.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = {"loss": "training loss (nats a token)", "bits_per_byte": "held out (bits a byte)"}
    records = read_log(folder)
    series = {name: [(r["step"], r[name]) for r in records if name in r] for name in (left, right)}
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.plot(*zip(*series[left]), color="tab:blue", label=labels.get(left, left))
    axis.set(xlabel="step", ylabel=labels.get(left, left), title=title)
    axes = [axis]
    if series[right]:
        axes.append(axis.twinx())
        axes[1].plot(*zip(*series[right]), "o-", color="tab:orange", label=labels.get(right, right))
        axes[1].set_ylabel(labels.get(right, right))
    axis.legend(handles=[line for a in axes for line in a.lines], frameon=False)
    for a in axes:
        a.spines["top"].set_visible(False)
    path = Path(folder) / "loss.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


@contextlib.contextmanager
def stop_requested():
    """Turn Ctrl-C and SIGTERM into a question: yields a function that says whether one came.

    A second Ctrl-C ends at once.
    """
    came = []

    def note(number, frame) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def time_limit(seconds: float, what: str):
    """Raise TimeoutError inside the block once `seconds` have passed;

    0: no limit. Only the main thread can be interrupted; in another there is no limit.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    left, began = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if 0 < left <= seconds:  # a limit around this one comes first
        yield
        return

    def ring(number, frame) -> None:
        raise TimeoutError(f"{what} did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001))
