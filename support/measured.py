"""What measurements of models share: a model opened with its identity, rows that outlive a kill,
and where benchmark data lies. Used by benchmarks.py, support/asked.py, support/played.py and
bench/lineage.py.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from config import UserError
from model import SAGE
from support import checkpoint, provenance, result_tables, settings
from support.pretrained import is_pretrained
from support.published import model_path
from support.tokenizer import Tokenizer
from support.tokenizer_folder import load_tokenizer
from support.training_run import open_model


@dataclass
class Stage:
    """A model that is measured, a run's or published, with its tokenizer; `weights` is its identity
    (provenance).
    """

    name: str
    model: SAGE
    tokenizer: Tokenizer
    weights: dict


def name_and_model(argument: str) -> tuple[str, str]:
    """Of MODEL or NAME=MODEL; a path may have a "=" of its own."""
    name, found, model = argument.partition("=")
    return (name, model) if found and "/" not in name else ("", argument)


def named_stages(arguments: list[str]) -> dict[str, str]:
    """Names and paths of stages given as MODEL or NAME=MODEL. Raises UserError for what is not
    there, and where two have one name: what is kept of them lies in a folder of that name.
    """
    stages: dict[str, str] = {}
    for argument in arguments:
        name, model = name_and_model(argument)
        path = model_path(model).absolute()
        if not is_pretrained(path):
            checkpoint.latest(path)  # says so where there is none
        name = name or path.resolve().name
        if name in stages:
            raise UserError(
                f"two stages are named {name}, {stages[name]} and {path}; give them names of their "
                f"own, as in first={path}"
            )
        stages[name] = str(path)
    return stages


def open_stage(argument: str, dtype: torch.dtype, device: str) -> Stage:
    """The stage given as MODEL or NAME=MODEL: a run's folder, or published weights by path or name.
    Raises UserError.
    """
    name, model = name_and_model(argument)
    path = model_path(model)
    if is_pretrained(path):
        tokenizer = load_tokenizer(path)
    else:
        _, config = checkpoint.read_meta(checkpoint.latest(path))
        tokenizer = checkpoint.tokenizer_of(path, config.data.tokenizer)
    model = open_model(path, dtype, device)
    weights = checkpoint.weights_identity(path)
    weights |= dict(tokenizer=tokenizer.hash, dtype=str(dtype))
    return Stage(name or path.resolve().name, model, tokenizer, weights)


class RowFile:
    """The rows of one measurement of one stage, one JSON line per item, below a line that says what
    they were made from.

    Rows that were made from something else are put aside, with a note, and are there again when
    the same is asked once more. A last line that was cut short is measured again.
    """

    def __init__(self, path: Path, made_from: dict):
        self.path = path
        self.header = json.dumps(dict(made_from=made_from))
        self.rows = self.stored()  # item's number → its row
        if path.exists() and not path.read_text().startswith(self.header):
            print(
                f"note    {path} was made from something else; its rows go to "
                f"{self.aside(self.found_header()).name} before any is added",
                flush=True,
            )

    def stored(self) -> dict[int, dict]:
        """The rows that were made from the same, in the file or put aside."""
        for path in (self.path, self.aside(self.header)):
            lines = path.read_text().split("\n") if path.exists() else [""]
            if lines[0] == self.header:
                # what stands behind the last line end is cut short
                return {row["number"]: row for row in readable(lines[1:-1])}
        return {}

    def current(self) -> bool:
        """Whether the file holds rows that were made from the same."""
        return self.path.exists() and self.found_header() == self.header

    def found_header(self) -> str:
        """What the rows that are there were made from."""
        return self.path.read_text().partition("\n")[0]

    def aside(self, header: str) -> Path:
        """Where rows of this header are while others have the file."""
        digest = hashlib.sha256(header.encode()).hexdigest()[:8]
        return self.path.with_suffix(f".{digest}.jsonl")

    def add(self, rows: list[dict]) -> None:
        """Keep further rows, each with where it was measured. The file is written whole: it is
        small beside what it took. Raises UserError where another process is writing it.
        """
        lock = self.path.with_suffix(".lock")  # the file itself is replaced
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        provenance.claim(lock)
        fresh = {row["number"]: row | dict(measured=result_tables.origin()) for row in rows}
        if self.path.exists() and not self.path.read_text().startswith(self.header):
            # hours of answers, perhaps, to a question that was put in another way
            self.path.replace(self.aside(self.found_header()))
        # another process may have written since
        self.rows = self.stored() | self.rows | fresh
        lines = [self.header, *map(json.dumps, self.rows.values())]
        provenance.replace(self.path, "\n".join(lines) + "\n")


def readable(lines: list[str]) -> Iterator[dict]:
    """The rows among lines; a damaged one is left out, and measured again."""
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def data_folder() -> Path:
    """The folder of benchmark data: $SAGE_DATA, or shared/data beside the checkout."""
    return Path(os.environ.get("SAGE_DATA") or settings.ROOT.parent / "shared" / "data")


def benchmark_folder(given: str) -> Path:
    """The folder of benchmark data that a user gave, or data_folder."""
    return Path(given).expanduser() if given else data_folder()


def clock(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 1 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
