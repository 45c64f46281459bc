"""How the ranks of a run find each other, after a restart too, and end when one of them is lost.

torchrun keeps one key-value store for all starts of a run (--max-restarts). What the processes of
an earlier start have written into it, their addresses above all, is still there, and a rank that is
early would connect to the dead (pytorch issue 135712, open in torch 2.13). Nothing in a rank's
environment says which start it belongs to: torchrun counts restarts on each node by itself.
"""

import os
import sys
import time
import uuid
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from config import UserError


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """A store for the ranks of this start alone, this rank, and how many there are.

    Raises UserError where some do not come in time.
    """
    store, rank, ranks = next(rendezvous("env://", timeout=timeout))
    own_name = uuid.uuid4().hex
    if rank == 0:
        introduce_to_all(store, own_name, set(range(1, ranks)), timeout)
        return PrefixStore(own_name, store), rank, ranks
    # An answer to this name can only come from a rank 0 that lives: torchrun has ended all
    # processes of the last start before it begins the next.
    store.set(f"name of {rank}", own_name)
    first_name = store.get(f"answer to {own_name}").decode()  # waits for it
    store.set(f"{rank} knows {first_name}", "")
    return PrefixStore(first_name, store), rank, ranks


def introduce_to_all(store: Store, own_name: str, missing: set[int], timeout: timedelta) -> None:
    """Rank 0's part: answer every name, of the dead too, until all living ranks know its own."""
    deadline = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"name of {rank}"]):
                name = store.get(f"name of {rank}").decode()
                store.set(f"answer to {name}", own_name)
            if store.check([f"{rank} knows {own_name}"]):
                missing.remove(rank)
        if time.monotonic() > deadline:
            absent = ", ".join(map(str, sorted(missing)))
            raise UserError(
                f"ranks {absent} did not come within {timeout}; see their nodes' output"
            )
        time.sleep(0.02)


# of gloo, of the key-value store, of NCCL
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection was likely closed",
    "remote process exited",
)


def says_that_one_is_lost(error: Exception) -> bool:
    """Whether a collective failed because another rank has ended."""
    return dist.is_initialized() and any(words in str(error) for words in LOST)


def end_for_another(error: Exception) -> None:
    """End this process because another rank has ended.

    torchrun names that one, and ends the rest of its own node: then there is nothing to say here.
    A rank of another node, which waits in vain for that, says one line per node.
    """
    time.sleep(5)  # torchrun looks every 0.1 s
    if os.environ["LOCAL_RANK"] == "0":
        line = str(error).splitlines()[0]
        print(f"error: another rank has ended ({line}); see its node's output", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # a thread that writes a checkpoint would wait for the lost rank
