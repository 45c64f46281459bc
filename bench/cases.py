"""What bench/gpu.py measures with: cases that run in processes of their own until a time is over,
contestants whose failures are recorded, clocks that are asked in turns.

    Case        figures that are measured together; `results` runs it and yields them as they come
    Bench       what a case's function measures and reports with, in its own process

A record is a dict: name, value, unit, spread, n (turns) and `also`, whatever else was measured; or
name and `failed`, the reason why there is no figure. Every figure that a case names has one.
"""

import contextlib
import multiprocessing
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import support.openmp  # before torch

import torch
from torch import Tensor

Call = Callable[[], object]
TIME_OVER = "the time was over"
RESERVE = 8.0  # seconds before the end that are kept for the turns of what is ready by then


def reason_of(error: BaseException) -> str:
    """Why a contestant has no figure, in one line. Compilers wrap what they were interrupted by."""
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for found in chain:
        if isinstance(found, TimeoutError):
            return str(found)
        if isinstance(found, torch.OutOfMemoryError):
            return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]


@cache
def cache_filler() -> Tensor:
    return torch.empty(256 << 20, dtype=torch.uint8, device="cuda")  # five times an H100's L2


@dataclass
class Bench:
    """Contestants, clocks, and the way to the process that prints and records."""

    device: str
    turns: int  # at most
    seconds: float  # after which no further turn begins, once there are two
    patience: float  # seconds until a contestant's call, which may compile, is given up
    deadline: float  # time.monotonic() at which the process is ended, whatever it does
    # matrix peak in FLOP/s and bandwidth in bytes/s, once they are known: shares are of these
    roof: dict[str, float]
    section: str = ""
    connection: Connection | None = None

    # -- what is reported

    def figure(
        self,
        name: str,
        times: list[float],
        amount: float,
        unit: str,
        *,
        flops: float = 0,
        bytes_read: float = 0,
        command: str = "",
        **also,
    ) -> None:
        """A rate: `amount` per time, of the median of some turns' times in seconds. `flops` and
        `bytes_read` in one time become shares of the roof.
        """
        median = statistics.median(times)
        shares = {}
        for limit, done in (("matrix peak", flops), ("bandwidth", bytes_read)):
            if done and limit in self.roof:
                shares[f"share of the {limit}"] = done / median / self.roof[limit]
        record = dict(
            name=f"{self.section}/{name}",
            value=amount / median,
            unit=unit,
            spread=f"min {amount / max(times):.4g} max {amount / min(times):.4g}",
            n=len(times),
            also=dict(ms=1e3 * median) | shares | also,
        )
        if command:
            record["command"] = command
        self.connection.send(record)

    def failure(self, name: str, reason: str) -> None:
        self.connection.send(dict(name=f"{self.section}/{name}", failed=reason))

    @contextlib.contextmanager
    def contestant(
        self, *names: str, patience: float | None = None, reserve: float = RESERVE
    ) -> Iterator[None]:
        """What is raised in the block, or does not finish in time, is recorded as the reason why
        these figures are missing; the others go on.
        """
        patience = patience or self.patience
        left = self.deadline - time.monotonic() - reserve
        reason = f"did not finish within {patience:g} s" if patience < left else TIME_OVER

        def give_up(*_):
            raise TimeoutError(reason)

        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(patience, left)))
        try:
            yield
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            traceback.print_exc()
            for name in names:
                self.failure(name, reason_of(error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    # -- clocks

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def wall_seconds(self, call: Call, count: int = 1) -> float:
        """Seconds of one of `count` calls that follow each other, launches included."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            call()
        self.synchronize()
        return (time.perf_counter() - start) / count

    def kernel_seconds(self, call: Call) -> float:
        """Seconds that the device computes: the median of up to 20 calls, each with a cold L2.

        Filling that cache takes as long as launching a few kernels, so that launches do not count.
        """
        if self.device == "cpu":
            return self.wall_seconds(call)
        times = []
        while len(times) < 20 and sum(times) < 0.02:
            start = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            cache_filler().zero_()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return statistics.median(times)

    def peak_memory(self, call: Call) -> tuple[float | None, object]:
        """GiB allocated at most during a call (None on a CPU), and its result."""
        if self.device == "cpu":
            return None, call()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**30, result

    def in_turns(
        self, clocks: dict[str, Callable[[], float]], seconds: float | None = None
    ) -> dict[str, list[float]]:
        """Seconds by each clock, asked in turns, so that a drift of the machine meets all of them.
        One that fails is recorded, and left out.
        """
        times = {name: [] for name in clocks}
        end = min(time.monotonic() + (seconds or self.seconds), self.deadline - RESERVE / 2)
        for turn in range(self.turns):
            for name in list(times):
                with self.contestant(name, reserve=0):
                    times[name].append(clocks[name]())
                if len(times[name]) == turn:  # it has failed
                    del times[name]
            enough = turn > 0 or self.deadline - time.monotonic() < RESERVE / 2
            if enough and time.monotonic() > end:
                break
        return times


# Processes
# --------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """Figures that are measured together, in a process of their own."""

    section: str
    what: str
    seconds: int  # that it takes on an H100 whose compilers' caches are empty, by estimate
    names: list[str]  # of its figures
    measure: Callable[[Bench], None]


def in_child(target: Callable, *arguments) -> tuple[multiprocessing.Process, Connection]:
    """A process with a group of its own, and what it sends. It begins with all imports done, as
    this one is, which therefore must not have touched the GPU.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def begin() -> None:
        os.setsid()
        target(*arguments, sending)

    sys.stdout.flush()
    process = context.Process(target=begin)
    process.start()
    sending.close()
    return process, receiving


def end_group(process: multiprocessing.Process) -> None:
    """End a process, and all that it has started."""
    process.join(0.5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def measure(case: Case, bench: Bench, log: Path, sending: Connection) -> None:
    """In the case's own process: what compilers and scripts print goes to the end of a file."""
    with open(log, "a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    bench.section = case.section
    bench.connection = sending
    if bench.device == "cpu":  # a test's, with toy sizes: compiling would take minutes
        torch.set_num_threads(1)
        torch.compiler.set_stance("force_eager")
    try:
        case.measure(bench)
    except Exception as error:
        traceback.print_exc()
        sending.send(dict(ended=reason_of(error)))


def results(case: Case, bench: Bench, log: Path) -> Iterator[dict]:
    """Every figure of a case as it comes, or the reason why there is none."""
    missing = [f"{case.section}/{name}" for name in case.names]
    process, receiving = in_child(measure, case, bench, log)
    reason = ""
    try:
        while not reason:
            if not receiving.poll(max(0.0, bench.deadline - time.monotonic())):
                reason = TIME_OVER
                break
            try:
                record = receiving.recv()
            except EOFError:
                break
            reason = record.get("ended", "")
            if record.get("name") in missing:  # the first word counts
                missing.remove(record["name"])
                yield record
    finally:
        end_group(process)
    for name in missing:
        yield dict(name=name, failed=reason or f"its process ended with {process.exitcode}")
