"""The machine a script runs on: its device, arithmetic, measured speed and compiler."""

import shutil
import time
from collections.abc import Callable

import torch

import parallel
from config import UserError
from fast.compiling import compile_training


def pick_device(name: str) -> str:
    """For "auto" a GPU if there is one, else the CPU; otherwise what was asked for.

    Raises UserError.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); "
            "wanted auto, cpu or cuda"
        ) from None
    return name


def set_arithmetic(device: str) -> None:
    """Before training: let float32 products be rounded as is fastest, but on a CPU sum in a fixed
    order, so that a run repeats itself to the bit, with two threads as with one.

    Otherwise an embedding's gradient, to which many positions add, depends on thread timing.
    """
    torch.set_float32_matmul_precision("medium")
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def matmul_peak(device: str, dtype: torch.dtype, size: int = 1024, seconds: float = 0.5) -> float:
    """The measured matrix-product rate of one device, in FLOP/s: the best of many size × size
    products (4 × larger on a GPU).
    """
    on_gpu = device.startswith("cuda")
    if on_gpu:
        size *= 4
    # no random numbers: a resumed run must find its own
    a = torch.ones(size, size, dtype=dtype, device=device)
    b = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        wait_for(device)
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
    bfloat16 = matmul_peak(device, torch.bfloat16, size=256, seconds=0.1)
    float32 = matmul_peak(device, torch.float32, size=256, seconds=0.1)
    return parallel.from_first(torch.bfloat16 if bfloat16 > float32 else torch.float32)


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


def should_compile(setting: str, steps: int, device: str) -> bool:
    """Whether training compiles: "auto" does where that works and there are ≥ 500 steps to repay
    it.
    """
    if setting == "auto":
        return steps >= 500 and parallel.from_first(can_compile(device))
    return setting == "on"


def compiled(function: Callable, setting: str, steps: int, device: str) -> Callable:
    """A step's losses under torch.compile, if training compiles; under torchrun the blocks are
    compiled instead, each by itself (`parallel.spread`).
    """
    if parallel.is_sharded() or not should_compile(setting, steps, device):
        return function
    print("compiling, up to a minute the first time on a machine", flush=True)
    return compile_training(function)


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
