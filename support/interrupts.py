"""Interruptions: Ctrl-C as a question, and blocks that may not take too long."""

import contextlib
import os
import signal
import threading
import time

from parallel import any_rank, is_sharded
from support.rendezvous import says_that_one_is_lost


@contextlib.contextmanager
def stop_requested():
    """Turn Ctrl-C and SIGTERM into a question: yields a function that says whether one came.

    All ranks must ask together, and get the same answer: whether one came to some of them. A second
    Ctrl-C ends at once; not under torchrun, which hands on what its processes got from the terminal
    or from Slurm already, and ends them itself if they take too long.
    """
    came = []

    def note(number, frame) -> None:
        if came and not is_sharded():
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: any_rank(bool(came))
    except RuntimeError as error:
        if came and says_that_one_is_lost(error):
            os._exit(1)  # torchrun has told this rank to end because of that
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def time_limit(seconds: float, what: str):
    """Raise TimeoutError inside the block once `seconds` have passed; 0: no limit.

    Only the main thread can be interrupted; in another there is no limit.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
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
