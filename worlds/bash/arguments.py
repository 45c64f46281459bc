"""What every command of the small bash needs: its streams, its options, its complaints, and the meaning of a glob and of a date."""

import fnmatch
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache

from worlds.bash.files import NOW, Failure, Files, Unknown


@dataclass
class Streams:
    """Where a command reads and writes."""
    stdin: bytes
    out: bytearray
    err: bytearray
    piped: bool = False            # stdin is a pipe, not a file


@lru_cache(1000)
def glob(pattern: str) -> Callable[[str], re.Match | None]:
    """A glob pattern as a function that matches names; [^...] is [!...]."""
    return re.compile(fnmatch.translate(pattern.replace("[^", "[!"))).match


def options(arguments: list[str], flags: str, valued: str = "", longer: tuple[str, ...] = ()) -> tuple[dict[str, str], list[str]]:
    """GNU's way with options: letters may be joined, a value may follow or be attached, operands stand anywhere."""
    given: dict[str, str] = {}
    operands: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            operands += rest
        elif word in longer:
            given[word] = ""
        elif word.startswith("--") or not word.startswith("-") or word == "-":
            if word.startswith("-"):
                raise Unknown(f"the option {word}" if word != "-" else "- as a file")
            operands.append(word)
        else:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in valued:
                    value = letters or next(rest, None)
                    if value is None:
                        raise Unknown(f"-{letter} without its value")
                    given[letter] = value
                    break
                if letter not in flags:
                    raise Unknown(f"the option -{letter}")
                given[letter] = ""
    return given, operands


def say(streams: Streams, text: str) -> int:
    """Complain; the status of a failed command."""
    streams.err += text.encode() + b"\n"
    return 1


def inputs(tree: Files, streams: Streams, command: str, files: list[str]) -> Iterator[tuple[str, bytes | None]]:
    """(name, bytes) of each file that can be read, or of standard input as ("", bytes); complains about the others, giving (name, None)."""
    if not files:
        yield "", streams.stdin
    for name in files:
        try:
            yield name, tree.read(name)
        except Failure as failure:
            say(streams, f"{command}: {shlex.quote(name)}: {failure}")
            yield name, None


@lru_cache(1000)
def moment(text: str) -> float:
    """The time that a date names, in Unix seconds: ISO dates, and the few relative words that agents use."""
    now = datetime.fromtimestamp(NOW, timezone.utc)
    if match := re.fullmatch(r"(\d+) days? ago", text):
        return (now - timedelta(days=int(match[1]))).timestamp()
    if text in ("now", "today", "yesterday"):
        return (now - timedelta(days=text == "yesterday")).timestamp()
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        raise Unknown(f"the date {text}") from None
