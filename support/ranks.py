"""The ranks: one process per device, all of them running the same script (torchrun starts them).

    ranks.start()
    for example in ranks.share(examples): ...     this rank's part of some work
    with ranks.together(): read(file)             what fails on one rank stops all, with one message

A process that torchrun did not start is alone, and all of this does nothing. All ranks must make
the same calls in the same order: what sends something waits for the others.
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


def start() -> None:
    """Join the other ranks, if torchrun started this process; all but the first fall silent.

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


def check_versions(found: list[str]) -> None:
    """Raise UserError where the ranks' versions of torch differ."""
    if len(set(found)) > 1:
        listed = ", ".join(f"rank {number} has {version}" for number, version in enumerate(found))
        raise UserError(
            f"the ranks run different versions of torch ({listed}); install one of them everywhere"
        )


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
    """Whether no other rank has said this before: what all ranks find is said once."""
    if not launched():
        return True
    store = dist.distributed_c10d._get_default_store()
    return store.add(f"said {zlib.crc32(text.encode())}", 1) == 1


def restarts() -> int:
    """How often torchrun has restarted the run (--max-restarts): it then resumes by itself."""
    return max(gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))))


def launched() -> bool:
    """Whether torchrun started this process: models are then sharded, with one rank too."""
    return dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if launched() else 0


def world_size() -> int:
    """W, the number of ranks."""
    return dist.get_world_size() if launched() else 1


def gather(value: Any) -> list:
    """Every rank's value, in the order of ranks."""
    values = [value] * world_size()
    if launched():
        began = time.perf_counter()
        dist.all_gather_object(values, value)
        _waited.append(time.perf_counter() - began)
    return values


_waited: list[float] = []  # seconds


def seconds_waited() -> float:
    """How long this rank has waited in `gather` for the others since the last call."""
    seconds = sum(_waited)
    _waited.clear()
    return seconds


def from_first(value: Any) -> Any:
    """The first rank's value: what was measured, or drawn, must be the same everywhere."""
    return gather(value)[0]


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without a gradient."""
    value = value.detach().clone()
    if launched():
        dist.all_reduce(value)
    return value


def any_rank(flag: bool) -> bool:
    """Whether a flag is set on some rank."""
    return bool(total(torch.tensor(float(flag))))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What a user or a disk did wrong on one rank stops all of them, with one message.

    A UserError or OSError inside the block is raised on all ranks at its end, as a UserError.
    """
    problem = None
    try:
        yield
    except (UserError, OSError) as error:
        if not launched():
            raise
        problem = error
    found = {number: str(p) for number, p in enumerate(gather(problem)) if p is not None}
    if found:
        number, text = next(iter(found.items()))
        whose = "" if len(found) == world_size() else f" (rank {number} of {world_size()})"
        raise UserError(text + whose) from problem


def share(items: Sequence) -> Sequence:
    """This rank's part of some work: every W-th item."""
    return items[rank() :: world_size()]


def collect(mine: Iterable) -> list:
    """The results of all the work that was shared out, in the order before `share` or `in_turns`;
    on every rank.
    """
    missing = object()
    turns = zip_longest(*gather(list(mine)), fillvalue=missing)
    return [item for turn in turns for item in turn if item is not missing]


def own_part(rows: int) -> tuple[slice, bool]:
    """This rank's stretch of the rows of a batch, and whether it counts: where there are fewer rows
    than ranks, some ranks read what others read already, since all must make the same passes.
    """
    length = -(-rows // world_size())
    first = rank() * length
    return (slice(first, first + length), True) if first < rows else (slice(0, length), False)


def in_turns(items: Iterable) -> Iterator[tuple[Any, bool]]:
    """This rank's part of some work, where each item is a forward pass: all ranks must make equally
    many, so where the last items are fewer than ranks, the others get one that does not count.
    """
    for group in zip_longest(*[iter(items)] * world_size()):
        mine = group[rank()]
        yield (group[0], False) if mine is None else (mine, True)
