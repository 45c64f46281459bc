"""The machine a script runs on: its device, arithmetic, measured speed and compiler."""

import ctypes
import platform
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from support import ranks
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
    """Set up arithmetic for training: float32 products may be rounded where that is faster, but a
    CPU sums in a fixed order, so that a run repeats itself to the bit with any number of threads.

    Otherwise an embedding's gradient, to which many positions add, depends on thread timing.
    """
    torch.set_float32_matmul_precision("medium")
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next one, up to 1 GiB. By default glibc may
    give it back in every step, and the toy then spends up to a quarter of its time on the 10,000
    pages that come anew (docs/LOG.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, 1 << 30)
    libc.mallopt(mmap_threshold, 32 << 20)  # larger is not taken


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


# Dense bfloat16 products in TFLOP/s, as the makers publish them. The first name that is part of the
# device's own is taken; slices of a GPU (MIG) have no published figure.
PUBLISHED_PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "H200": 989,
    "GH200": 989,
    "GB200": 2500,
    "B200": 2250,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "MI300X": 1307,
}


@dataclass(frozen=True)
class Peak:
    """How fast a device multiplies matrices of one dtype, in FLOP/s; found with `Peak.of`.

    `measured` is what large products reach here, `published` what the maker states: nothing reaches
    it, but it is what others divide by (MFU). None where it is not known.
    """

    device: str
    dtype: torch.dtype
    name: str
    measured: float
    published: float | None = None

    @classmethod
    def of(cls, device: str, dtype: torch.dtype) -> "Peak":
        name = "this CPU"
        if device.startswith("cuda"):
            name = torch.cuda.get_device_name(device)
        return cls(device, dtype, name, matmul_peak(device, dtype), published_peak(name, dtype))

    def current_rate(self) -> float:
        """FLOP/s measured anew, within hundredths of a second: is the device slower by now?"""
        size = 1024 if self.device.startswith("cuda") else 256
        return matmul_peak(self.device, self.dtype, size, seconds=0.02)

    def __str__(self) -> str:
        peak = f"{self.name}'s {str(self.dtype).removeprefix('torch.')} matrix peak is"
        if self.published is None:
            return f"{peak} {self.measured / 1e9:,.0f} GFLOP/s, measured"
        return (
            f"{peak} {self.published / 1e12:,.0f} TFLOP/s as published (MFU is the share of it), "
            f"{self.measured / 1e12:,.0f} measured"
        )


def published_peak(name: str, dtype: torch.dtype) -> float | None:
    """The maker's figure for a device of this name, in FLOP/s; None where it is not known."""
    if dtype not in (torch.bfloat16, torch.float16) or " MIG " in name:
        return None
    for part, teraflops in PUBLISHED_PEAKS.items():
        if part in name:
            return teraflops * 1e12
    return None


def memory_used(device: str) -> tuple[float, float | None]:
    """Memory in GiB: of a GPU, the most that tensors held since the last call, and the most that
    torch's allocator had reserved for them; on a CPU, what this process occupies now, and None.
    """
    gibibyte = 2**30
    if device.startswith("cuda"):
        allocated = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        return allocated / gibibyte, reserved / gibibyte
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[1])
        return pages * resource.getpagesize() / gibibyte, None
    # macOS has no such file: the most since the process began, there in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / gibibyte, None


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
    return ranks.from_first(torch.bfloat16 if bfloat16 > float32 else torch.float32)


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
        return steps >= 500 and ranks.from_first(can_compile(device))
    return setting == "on"


def compiled(function: Callable, setting: str) -> Callable:
    """A step's losses under torch.compile, if training compiles; under torchrun the blocks are
    compiled instead, each by itself (`parallel.parallelise`).
    """
    if ranks.launched() or setting != "on":
        return function
    print("compiling, up to a minute the first time on a machine", flush=True)
    return compile_training(function)


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
