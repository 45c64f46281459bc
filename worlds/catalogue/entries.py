"""One tool of the catalogue: a function, how people ask for it, and its arguments' values."""

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from worlds.catalogue.values import Kind

CATALOGUE: dict[str, "CatalogueEntry"] = {}  # by the function's name, in the order of the files
LINK = "+ "  # marks a request that reads well with "that number" in the place of a value
UNIT = (  # behind a slot, it keeps "that number" out
    r"(?:%|-| (?:percent|people|places|digits|hex|characters|decimals?|buckets|groups|shards|minus|"
    r"years|instalments|payments|largest|smallest|highest|lowest|checksum|hash|digest|mask|"
    r"network|in rising|in falling)\b)"
)


@dataclass(frozen=True)
class CatalogueEntry:
    """A function and how people ask for it."""

    function: Callable[..., Any]
    noun: str  # what it gives, as a part of another sentence, with {slots} for its arguments
    lines: tuple[str, ...]  # whole requests, with the same slots
    values: dict[str, Kind]  # of its arguments

    @property
    def name(self) -> str:
        return self.function.__name__

    @cached_property
    def module(self) -> str:
        """The module of the standard library behind it."""
        return self.function.__module__.rpartition(".")[2].removesuffix("_tools").replace("_", ".")

    @cached_property
    def phrasings(self) -> list[str]:
        """The requests."""
        return [line.removeprefix(LINK) for line in self.lines]

    @cached_property
    def linking(self) -> list[str]:
        """Those that may follow another request, whose result they take."""
        return [line.removeprefix(LINK) for line in self.lines if line.startswith(LINK)]

    def linking_by(self, key: str) -> list[str]:
        """Those that have a slot for an argument, without a unit or a percent sign behind it."""
        slot = f"{{{key}}}"
        return [line for line in self.linking if re.search(rf"{slot}(?!{UNIT})", line)]

    @cached_property
    def required(self) -> list[str]:
        """The arguments that every call has."""
        parameters = inspect.signature(self.function).parameters.values()
        return [some.name for some in parameters if some.default is some.empty]

    def needed(self, phrasing: str) -> list[str]:
        """The arguments for which a phrasing has a slot."""
        return [key for key in self.values if f"{{{key}}}" in phrasing]

    def outcome(self, arguments: dict[str, Any]) -> Any:
        """What the function gives for values of the catalogue, None where it takes them not."""
        try:
            return self.function(**arguments)
        except ValueError:
            return None


def asked_for(noun: str, phrasings: str, /, **values: Kind) -> Callable:
    """Put a function into the catalogue, with one phrasing per line."""

    def register(function: Callable) -> Callable:
        lines = textwrap.dedent(phrasings).strip().splitlines()
        entry = CatalogueEntry(function, noun, tuple(lines), values)
        assert list(inspect.signature(function).parameters) == list(values), entry.name
        assert entry.name not in CATALOGUE, entry.name
        CATALOGUE[entry.name] = entry
        return function

    return register
