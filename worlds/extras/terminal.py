"""Terminal world: no world at all, but whoever sits at the terminal. For tools of which only the
schemas are there (sample.py --tools).

The agent's call is shown, and what is typed or pasted is what the tool says: a line, or JSON of
several lines. Nothing a model writes is executed, and nobody knows the right answer: such an
episode is never verified.
"""

import json
import select
import sys

from support.tokenizer import printable
from worlds.calls import write_call
from worlds.base import Task, World, unjudged_task


def task_of(request: str, tools: list[dict], style: str) -> Task:
    """A request with somebody's tools as a task."""
    return unjudged_task("terminal.Terminal", "typed", request, tools, style=style)


def whole(text: str) -> bool:
    """Whether a text that begins like JSON has come to its end; one that does not needs no end."""
    if text.lstrip()[:1] not in ("{", "["):
        return True
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:  # deeper than anybody types: take it as it is
        return True
    return True


def pasted() -> bool:
    """Whether a terminal holds more lines already: people type slower than this."""
    return sys.stdin.isatty() and bool(select.select([sys.stdin], [], [], 0.05)[0])


def typed() -> str:
    """One answer: a line, JSON until it is whole or a line is empty, all lines of a paste."""
    text = line = sys.stdin.readline()
    while line and (pasted() or line.strip() and not whole(text)):
        line = sys.stdin.readline()
        text += line
    return text.strip("\r\n")


class Terminal(World):
    faults = ()
    patience = float("inf")  # people type slowly

    def step(self, call: dict) -> str:
        how = "one line, or JSON; an empty line ends JSON that is not whole"
        asked = f"{write_call(call)}\nwhat does {call['name']} say? ({how}) "
        print(printable(asked), end="", file=sys.stderr, flush=True)
        return typed() or "error: no answer"

    def verify(self, answer: str) -> bool:
        return False
