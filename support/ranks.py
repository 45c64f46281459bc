"""The ranks: one process per device, all of them running the same script (torchrun starts them).

    ranks.start()
    for example in ranks.share(examples): ...      this rank's part of some work
    with ranks.fail_together(): read(file)         an error on one rank stops all, with one message

Without torchrun there is one process, and all of this does nothing. All ranks must make the same
calls in the same order, since whatever communicates waits for the others.
"""

import atexit
import contextlib
import os
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from config import UserError
from support.rendezvous import meet

# --------------------------------------------------------------------------------------------------
# The processes.


def launched() -> bool:
    """Whether torchrun started this process: models are then sharded, even over a single rank."""
    return dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if launched() else 0


def world_size() -> int:
    """W, the number of ranks."""
    return dist.get_world_size() if launched() else 1


# --------------------------------------------------------------------------------------------------
# What all ranks tell each other.

_waited: list[float] = []  # seconds that `gather` took, since `seconds_waited` was last asked


def gather(value: Any) -> list:
    """Every rank's value, in rank order."""
    values = [value] * world_size()
    if launched():
        began = time.perf_counter()
        dist.all_gather_object(values, value)
        _waited.append(time.perf_counter() - began)
    return values


def seconds_waited() -> float:
    """How long this rank has waited in `gather` for the others since the last call of this."""
    seconds = sum(_waited)
    _waited.clear()
    return seconds


def from_first(value: Any) -> Any:
    """Rank 0's value: what is measured, or read from a disk, could differ between ranks."""
    return gather(value)[0]


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, detached."""
    value = value.detach().clone()
    if launched():
        dist.all_reduce(value)
    return value


def any_rank(flag: bool) -> bool:
    """Whether a flag is set on at least one rank."""
    return bool(total(torch.tensor(float(flag))))


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """A user's mistake or a disk's failure on one rank stops all of them, with one message.

    A UserError or OSError inside the block is raised on all ranks at its end, as a UserError. One
    process raises it as it is.
    """
    own_error = None
    try:
        yield
    except (UserError, OSError) as error:
        if not launched():
            raise
        own_error = error
    errors = {number: str(e) for number, e in enumerate(gather(own_error)) if e is not None}
    if errors:
        number, text = next(iter(errors.items()))
        where = "" if len(errors) == world_size() else f" (rank {number} of {world_size()})"
        raise UserError(text + where) from own_error


# --------------------------------------------------------------------------------------------------
# Work, shared out.


def share(items: Sequence) -> Sequence:
    """This rank's part of some work: every W-th item."""
    return items[rank() :: world_size()]


def share_evenly(items: Iterable) -> Iterator[tuple[Any, bool]]:
    """This rank's part of work in which every item is a forward pass, and whether each is counted.

    All ranks must make equally many passes, since they gather parameters for each other. Where the
    last items are fewer than the ranks, the others get a filler, which is not counted.
    """
    for group in zip_longest(*[iter(items)] * world_size()):
        mine = group[rank()]
        if mine is None:
            yield group[0], False
        else:
            yield mine, True


def share_rows(rows: int) -> tuple[slice, bool]:
    """This rank's stretch of the rows of a batch, and whether it is counted: where there are fewer
    rows than ranks, some ranks get the first rows as a filler.
    """
    length = -(-rows // world_size())
    first = rank() * length
    if first >= rows:
        return slice(0, length), False
    return slice(first, first + length), True


def collect(mine: Iterable) -> list:
    """The results of all items of `share` or `share_evenly`, in the order of the items, on every
    rank; `mine` are this rank's, without fillers.
    """
    missing = object()
    turns = zip_longest(*gather(list(mine)), fillvalue=missing)
    return [result for turn in turns for result in turn if result is not missing]


# --------------------------------------------------------------------------------------------------
# Beginning and end of a run.


def check_versions(found: list[str]) -> None:
    """Raise UserError where the ranks' versions of torch differ."""
    if len(set(found)) > 1:
        listed = ", ".join(f"rank {number} has {version}" for number, version in enumerate(found))
        raise UserError(
            f"the ranks run different versions of torch ({listed}); install one of them everywhere"
        )


def start() -> None:
    """Join the other ranks, if torchrun started this process; all but rank 0 print nothing.

    Raises UserError where the ranks have different versions of torch.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    timeout = timedelta(minutes=30)
    store, number, count = meet(timeout)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")
    check_versions(gather(torch.__version__))


def stop() -> None:
    """Leave the other ranks, at the end of a script that did its work."""
    if launched():
        end_before_teardown(0)
        dist.destroy_process_group()


def end_before_teardown(status: int) -> None:
    """Let this process end with `status` once its own threads have ended, before Python is torn
    down: a thread of gloo that has yet to drop a tensor of the last message would then abort it
    (pytorch pull request 179291). Nothing of Python's runs after that.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)


def refuse_many() -> None:
    """Raise UserError, on all ranks, where torchrun started what is to run as one process."""
    start()
    if launched():
        raise UserError("this script runs as one process: start it with python, without torchrun")


def restarts() -> int:
    """How often torchrun has restarted the run (--max-restarts); such a run resumes by itself."""
    return max(gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))))


def check_alike(what: str, values: dict, remedy: str) -> None:
    """Raise UserError, on all ranks, where one has other plain values than the first: each would
    train its part of the model on its own terms.
    """
    first, *others = gather(values)
    for number, other in enumerate(others, 1):
        found = [
            f"{name}: {first.get(name)!r} → {other.get(name)!r}"
            for name in {**first, **other}
            if first.get(name) != other.get(name)
        ]
        if found:
            raise UserError(
                f"rank {number} has other {what} than rank 0 ({'; '.join(found)}); {remedy}"
            )


def is_first_to_say(text: str) -> bool:
    """Whether no other rank has said this yet: an error that all ranks find is printed once."""
    if not launched():
        return True
    store = dist.distributed_c10d._get_default_store()
    return store.add(f"said {zlib.crc32(text.encode())}", 1) == 1
