"""Weights from files, tensor by tensor, and folders that are written whole or not at all.

What a run's checkpoints (support/checkpoint.py) and published weights (support/pretrained.py)
share: memory never holds a model twice, and a program killed at any moment leaves what was there
before.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import parallel
from config import Model, UserError
from model import SAGE
from support.gguf_file import describe_gguf, is_gguf, read_gguf_rows

# ------------------------------------------------------------------------------------------------
# Reading.


def open_safetensors(path: Path):
    """A safetensors file, opened; UserError where it is missing, truncated or no such file."""
    if not path.exists():
        raise UserError(
            f"{path} is missing, though its folder needs it; copy it from where the model came "
            "from, or delete a run's checkpoint that lacks it"
        )
    try:
        return safetensors.safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or cut short ({error}); copy it anew, or delete it if it is a "
            "run's checkpoint"
        ) from None


Parallelise = Callable[[SAGE], SAGE]  # parallel.parallelise, with a run's settings


def outline(config: Model, dtype: torch.dtype) -> SAGE:
    """A model without memory: the names and shapes of its parameters."""
    with torch.device("meta"):
        return SAGE(config, seed=None).to(dtype)


def allocate_model(
    config: Model, dtype: torch.dtype, device: str, parallelise: Parallelise | None = None
) -> SAGE:
    """A model whose weights are allocated and not yet filled.

    `parallelise` shards it before it takes memory: then each rank has its own rows alone.
    """
    model = outline(config, dtype)
    if parallelise is not None:
        parallelise(model)
    return model.to_empty(device=device)


# What weights may be stored in, in the words of safetensors.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def describe_tensors(path: Path) -> dict[str, tuple]:
    """Shape and dtype (torch's, or the file's word for another) of each tensor in a safetensors or
    GGUF file, or in a folder of shards. Raises UserError where it is missing or damaged.
    """
    if path.is_dir():
        from support.sharded import describe_shards

        return describe_shards(path)
    if is_gguf(path):
        return describe_gguf(path)
    found = {}
    with open_safetensors(path) as file:
        for name in file.keys():
            part = file.get_slice(name)
            dtype = part.get_dtype()
            found[name] = (tuple(part.get_shape()), FLOATS.get(dtype, dtype))
    return found


def check_weights(
    parameters: dict[str, Tensor],
    sources: dict[str, tuple[Path, str]],
    where: Path,
    *,
    paths: Iterable[Path] = (),
    ignored: Iterable[str] = (),
) -> None:
    """Compare files with the parameters they are to fill, of which only names and shapes count.
    `sources` maps our name to (file, name in it).

    Raises UserError, one that lists all that is wrong: tensors that are missing, of another shape,
    not of floats, or that the files (those of `paths` too) hold beside the sources and `ignored`.
    """
    held = {path: describe_tensors(path) for path in {*paths, *(p for p, _ in sources.values())}}
    missing, quantised, wrong_shape = [], [], []
    for name, (path, theirs) in sources.items():
        wanted = tuple(parameters[name].shape)
        if theirs not in held[path]:
            missing.append(theirs)
            continue
        shape, dtype = held[path][theirs]
        if shape != wanted:
            wrong_shape.append(f"{theirs} is {shape}, wanted {wanted}")
        if dtype not in FLOATS.values():
            quantised.append(f"{theirs} is {dtype}, wanted F32, F16 or BF16")
    names = {name for found in held.values() for name in found}
    expected = {theirs for _, theirs in sources.values()} | set(ignored)
    faults = {
        "missing": missing,
        "quantised": quantised,
        "wrong shape": wrong_shape,
        "not expected": sorted(names - expected),
    }
    complaints = [f"{what}: {', '.join(found)}" for what, found in faults.items() if found]
    if complaints:
        raise UserError(f"the weights in {where} do not fit its config: {'; '.join(complaints)}")


def copy_rows(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors from a file or a folder of shards, by their names in it; of sharded ones only
    the rows that lie on this rank are read. Raises UserError.
    """
    if path.is_dir():
        from support.sharded import read_shards

        read_shards(path, tensors)
        return
    for name, tensor in tensors.items():
        rows = parallel.own_rows(tensor) if tensor.ndim else ...
        if is_gguf(path):
            parallel.local(tensor).copy_(read_gguf_rows(path, name, rows))
            continue
        # opened anew for each: a mapping that stays open keeps what was read from it in memory
        with open_safetensors(path) as file:
            try:
                parallel.local(tensor).copy_(file.get_slice(name)[rows])
            except SafetensorError as error:
                raise UserError(f"{path} is damaged at {name} ({error}); copy it anew") from None


def copy_own_weights(module: nn.Module, path: Path, where: Path) -> None:
    """Fill a module from a file, or a folder of shards, that holds its parameters by their own
    names. Raises UserError.
    """
    parameters = dict(module.named_parameters())
    check_weights(parameters, {name: (path, name) for name in parameters}, where)
    copy_rows(path, parameters)


# ------------------------------------------------------------------------------------------------
# Writing.


def restore_folder(folder: Path) -> None:
    """Put back what a writer of `folder` had moved away when it was killed.

    FOLDER.old exists only between the renames of `written_aside`, and is always a whole version.
    """
    old = folder.with_name(folder.name + ".old") if folder.name else folder
    if not folder.exists() and old.exists():
        with contextlib.suppress(FileNotFoundError):  # another reader was quicker
            old.rename(folder)


def aside_of(folder: Path) -> Path:
    """Where a folder is written before it is put in its place."""
    folder = folder.resolve()
    return folder.with_name(folder.name + ".tmp")


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder that is written beside its place and put there, whole, when the block ends.

    Killed at any moment it leaves a whole version: in FOLDER, or between the two renames in
    FOLDER.old, from where the next reader or writer puts it back (`restore_folder`). FOLDER.tmp
    never counts. On an error nothing is left and the old version stays. Raises UserError for a full
    disk, whichever writer met it, and where FOLDER is a file.
    """
    folder = folder.resolve()
    aside = aside_of(folder)
    old = folder.with_name(folder.name + ".old")
    if folder.is_file():
        raise UserError(f"{folder} is a file; wanted a folder to write to, name another")
    restore_folder(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():  # replaced already, when a writer was killed
        old.rename(aside)
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in [*aside.iterdir(), aside]:
            flush_to_disk(path)
        while True:
            if folder.exists():
                folder.rename(old)
            try:
                aside.rename(folder)
                break
            except OSError as error:  # a reader may have put the old version back in between
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        flush_to_disk(folder.parent)
    except BaseException as error:
        restore_folder(folder)
        shutil.rmtree(aside, ignore_errors=True)
        if _is_full_disk(error):
            raise UserError(
                f"no room to write {folder} ({error}); what was there before is intact: "
                "free some space, and a run goes on with --resume"
            ) from None
        raise
    if old.exists():
        old.rename(aside)  # so that what is half deleted is never called .old
        shutil.rmtree(aside, ignore_errors=True)


# every export has one of these, and nothing else has: what SAGE adds to a family's weights, or the
# mark of an adapter that was written here, since anybody's adapter has peft's two files
ADAPTER_MARK = "sage.json"
EXPORT_MARKS = ("sage.safetensors", ADAPTER_MARK)


def refuse_other_folder(folder: Path) -> None:
    """Raise UserError for a folder, or one of the two names beside it that `written_aside` uses,
    that holds anything but an earlier export: it would be replaced.
    """
    folder = folder.resolve()
    for path in (folder, folder.with_name(folder.name + ".old"), aside_of(folder)):
        exported = any((path / name).is_file() for name in EXPORT_MARKS)
        if path.is_dir() and any(path.iterdir()) and not exported:
            raise UserError(
                f"{path} holds other files than an earlier export, and they would be lost; name a "
                "folder that is not there yet, or is empty"
            )


def _is_full_disk(error: BaseException) -> bool:
    """Whether an error, of Python or in the words of Rust, says that there is no room."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    in_words = any(f"os error {code}" in str(error) for code in codes)
    return in_words or getattr(error, "errno", None) in codes
