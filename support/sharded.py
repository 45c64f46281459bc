"""Tensors of a checkpoint in shards: every rank writes its own rows, and reads them back from what
any number of ranks wrote.

    checkpoint-0000500/model/.metadata         which rows of which tensor are where
    checkpoint-0000500/model/__0_0.distcp      rank 0's rows, __1_0.distcp rank 1's, …

The format is that of torch.distributed.checkpoint (DCP). Its index is a pickle: read only runs that
you trust. A folder of shards stands for the file of the same name that one process writes: model/
for model.safetensors.

DCP takes a second to import; one process does without it.
"""

import functools
import warnings
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from config import UserError

# --------------------------------------------------------------------------------------------------
# Writing.


@functools.cache
def saving_group() -> dist.ProcessGroup:
    """A second group of all ranks, so that the writers' messages do not mix with the run's."""
    return dist.new_group(backend="gloo")


def copy_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of this rank's part of tensors: the run may change them while they are written."""
    stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=False,
            use_shared_memory=False,
            use_async_staging=False,
            use_non_blocking_copy=False,
        )
    )
    copied = stager.stage(tensors)
    stager.close()
    return copied


class _Writer(dcp.FileSystemWriter):
    """Raises the disk's own OSError, which torch.save hides behind a RuntimeError."""

    def write_data(self, plan, planner):
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_shards(folder: Path, tensors: dict[str, Tensor], group: dist.ProcessGroup) -> None:
    """Write tensors: each rank its own rows, rank 0 what is the same on all. Raises OSError or
    UserError on all ranks where one of them fails.
    """
    try:
        dcp.save(tensors, storage_writer=_Writer(folder), process_group=group)
    except CheckpointException as error:
        raise _first_failure(error, f"{folder} cannot be written") from None


def _first_failure(error: CheckpointException, what: str) -> OSError | UserError:
    """The failure of the lowest rank that failed; DCP's exception holds every rank's."""
    cause, _ = error.failures[min(error.failures)]
    if isinstance(cause, OSError):
        return cause
    return UserError(f"{what} ({type(cause).__name__}: {cause})")


# --------------------------------------------------------------------------------------------------
# Reading: each rank by itself, without communication.


def describe_shards(folder: Path) -> dict[str, tuple]:
    """Shape and dtype of each tensor. Raises UserError where a shard is missing or cut short."""
    try:
        metadata = dcp.FileSystemReader(folder).read_metadata()
    except Exception as error:  # its index is a pickle: what is damaged fails in any way
        raise UserError(
            f"{folder / '.metadata'} is missing or damaged ({type(error).__name__}: {error}); "
            "delete the checkpoint to go on from the one before it"
        ) from None
    sizes: dict[str, int] = {}
    for stored in metadata.storage_data.values():
        end = stored.offset + stored.length
        sizes[stored.relative_path] = max(end, sizes.get(stored.relative_path, 0))
    faults = []
    for name, size in sorted(sizes.items()):
        path = folder / name
        if not path.exists():
            faults.append(f"{name} is missing")
        elif path.stat().st_size < size:
            faults.append(f"{name} has {path.stat().st_size:,} bytes, wanted {size:,}")
    if faults:
        raise UserError(
            f"the shards in {folder} are not whole: {'; '.join(faults)}; put them back, or delete "
            "the checkpoint to go on from the one before it"
        )
    return {
        name: (tuple(tensor.size), tensor.properties.dtype)
        for name, tensor in metadata.state_dict_metadata.items()
    }


def read_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors, whole ones or this rank's rows, by their names. Raises UserError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            dcp.load(tensors, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
        except CheckpointException as error:
            raise UserError(
                f"{_first_failure(error, f'{folder} cannot be read')}; put its shards back, or "
                "delete the checkpoint to go on from the one before it"
            ) from None
