"""Interruptions: Ctrl-C and SIGTERM as a flag that a loop polls, and time limits."""

import contextlib
import math
import os
import signal
import socket
import threading
import time

from support.ranks import any_rank, gather, launched
from support.rendezvous import is_lost_rank_error

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_requested():
    """Turn Ctrl-C and SIGTERM into a flag: yields a function that says whether one has come.

    All ranks must call it at the same place, and all get the same answer: whether a signal came to
    any of them. A second Ctrl-C ends the process at once, except under torchrun: there processes
    often get a signal twice, from the terminal or Slurm and from torchrun, which itself kills those
    that take too long.
    """
    came = []
    agreed = threading.Event()

    def note(number, frame) -> None:
        if came and not launched():
            raise KeyboardInterrupt
        came.append(number)

    def ask() -> bool:
        stop = any_rank(bool(came))
        if stop:
            agreed.set()
        return stop

    before = {number: signal.signal(number, note) for number in ENDING}
    watch = end_with_lost_neighbour(agreed) if launched() else contextlib.nullcontext()
    try:
        with watch:
            yield ask
    except RuntimeError as error:
        if came and is_lost_rank_error(error):
            os._exit(1)  # torchrun has told this rank to end because of that
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def end_with_lost_neighbour(agreed: threading.Event):
    """Inside the block, end this process at once when a signal comes and another rank of the same
    machine has died; not any more, once the ranks have `agreed` to stop.

    When a rank dies, torchrun sends the others SIGTERM. One that waits for the dead rank in NCCL
    would only look at the signal when its step ends, that is never, and would hold the node up
    until torchrun's shutdown time-out.
    """
    here = socket.gethostname()
    neighbours = [number for host, number in gather((here, os.getpid())) if host == here]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)  # gets the number of each signal, whatever else waits

    def watch() -> None:
        asked = False
        while not asked:
            number = os.read(reading, 1)
            if not number:  # the block has been left
                os.close(reading)
                return
            asked = number[0] in ENDING
        while not agreed.wait(1):
            if not all(map(is_alive, neighbours)):
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        agreed.set()
        signal.set_wakeup_fd(before)
        os.close(writing)


def is_alive(process: int) -> bool:
    """Whether a process of this machine, and this user, has not ended."""
    try:
        os.kill(process, 0)
        return True
    except ProcessLookupError:
        return False


@contextlib.contextmanager
def time_limit(seconds: float, what: str):
    """Raise TimeoutError inside the block once `seconds` have passed; 0 or infinitely many: no
    limit.

    Only the main thread can be interrupted; in another there is no limit.
    """
    if not 0 < seconds < math.inf or threading.current_thread() is not threading.main_thread():
        yield
        return

    left = signal.getitimer(signal.ITIMER_REAL)[0]
    began = time.monotonic()
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
