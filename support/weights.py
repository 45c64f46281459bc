"""Weights from files, tensor by tensor, and folders that are written whole or not at all.

What a run's checkpoints (support/checkpoint.py) and Qwen2.5's folders (support/qwen.py) share:
memory never holds a model twice, and a program killed at any moment leaves what was there before.
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
from torch import nn

import parallel
from config import Model, UserError
from model import SAGE

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


def allocate_model(
    config: Model, dtype: torch.dtype, device: str, spread: Callable[[SAGE], SAGE] | None = None
) -> SAGE:
    """A model whose weights are allocated and not yet filled; `spread` prepares it before."""
    with torch.device("meta"):
        model = SAGE(config, seed=None).to(dtype)
    if spread is not None:
        spread(model)
    return model.to_empty(device=device)


@torch.no_grad()
def copy_weights(
    module: nn.Module,
    sources: dict[str, tuple[Path, str]],
    where: Path,
    *,
    paths: Iterable[Path] = (),
    ignored: Iterable[str] = (),
) -> None:
    """Copy tensors into parameters, one at a time. `sources` maps our name to (file, name in it).

    Raises UserError, one that lists all that is wrong: tensors that are missing, of another shape,
    not of floats, or that the files (those of `paths` too) hold beside the sources and `ignored`.
    """
    shapes: dict[Path, dict[str, tuple]] = {}
    dtypes: dict[str, str] = {}
    for path in {*paths, *(path for path, _ in sources.values())}:
        with open_safetensors(path) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            shapes[path] = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes |= {name: part.get_dtype() for name, part in slices.items()}
    parameters = dict(module.named_parameters())
    missing, quantised, wrong_shape = [], [], []
    for name, (path, theirs) in sources.items():
        wanted = tuple(parameters[name].shape)
        if theirs not in shapes[path]:
            missing.append(theirs)
        elif shapes[path][theirs] != wanted:
            wrong_shape.append(f"{theirs} is {shapes[path][theirs]}, wanted {wanted}")
        if dtypes.get(theirs, "F32") not in ("F64", "F32", "F16", "BF16"):
            quantised.append(f"{theirs} is {dtypes[theirs]}, wanted F32, F16 or BF16")
    held = {name for names in shapes.values() for name in names}
    expected = {theirs for _, theirs in sources.values()} | set(ignored)
    faults = {
        "missing": missing,
        "quantised": quantised,
        "wrong shape": wrong_shape,
        "not expected": sorted(held - expected),
    }
    complaints = [
        f"{what}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
        for what, names in faults.items()
        if names
    ]
    if complaints:
        raise UserError(f"the weights in {where} do not fit its config: {'; '.join(complaints)}")
    for name, (path, theirs) in sources.items():
        # opened anew for each: a mapping that stays open keeps what was read from it in memory
        with open_safetensors(path) as file:
            try:
                values = file.get_slice(theirs)[parallel.own_rows(parameters[name])]
                parallel.local(parameters[name]).copy_(values)
            except SafetensorError as error:
                raise UserError(f"{path} is damaged at {theirs} ({error}); copy it anew") from None


def copy_own_weights(module: nn.Module, path: Path, where: Path) -> None:
    """Fill a module from a file that holds its parameters by their own names. Raises UserError."""
    copy_weights(module, {name: (path, name) for name, _ in module.named_parameters()}, where)


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
    aside = folder.with_name(folder.name + ".tmp")
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


def _is_full_disk(error: BaseException) -> bool:
    """Whether an error, of Python or in the words of Rust, says that there is no room."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    in_words = any(f"os error {code}" in str(error) for code in codes)
    return in_words or getattr(error, "errno", None) in codes
