"""How the ranks of a run find each other, also after a restart, and end when one of them is lost.

torchrun keeps one key-value store for all starts of a run (--max-restarts). What the processes of
an earlier start wrote into it, above all their addresses, is still there, so that a rank which
comes early would connect to a dead one (pytorch issue 135712, open in torch 2.13). Nothing in a
rank's environment says which start it belongs to: each node's torchrun counts restarts by itself.
So rank 0 draws a name for each start, and the ranks agree on it before they use the store.
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
    """A store for this start alone, this rank, and the number of ranks.

    Raises UserError where some ranks do not come in time.
    """
    store, rank, ranks = next(rendezvous("env://", timeout=timeout))
    own_name = uuid.uuid4().hex
    if rank == 0:
        answer_all_ranks(store, own_name, set(range(1, ranks)), timeout)
        return PrefixStore(own_name, store), rank, ranks
    # Only a living rank 0 can answer this name: torchrun ends all processes of one start before it
    # begins the next.
    store.set(f"name of {rank}", own_name)
    first_name = store.get(f"answer to {own_name}").decode()  # waits for it
    store.set(f"{rank} knows {first_name}", "")
    return PrefixStore(first_name, store), rank, ranks


def answer_all_ranks(store: Store, own_name: str, missing: set[int], timeout: timedelta) -> None:
    """Rank 0's part: answer every name, also of dead ranks, until each rank has confirmed."""
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


# parts of the error messages of gloo, of the key-value store and of NCCL
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection was likely closed",
    "remote process exited",
)


def is_lost_rank_error(error: Exception) -> bool:
    """Whether a collective failed because another rank has ended."""
    return dist.is_initialized() and any(words in str(error) for words in LOST)


def end_after_lost_rank(error: Exception) -> None:
    """End this process because another rank has ended.

    On that rank's own node torchrun names it, and ends this process within the 5 seconds: nothing
    is printed here. On other nodes one rank prints a line.
    """
    time.sleep(5)  # torchrun polls every 0.1 s
    if os.environ["LOCAL_RANK"] == "0":
        line = str(error).splitlines()[0]
        print(f"error: another rank has ended ({line}); see its node's output", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # a thread that writes a checkpoint would wait for the lost rank
