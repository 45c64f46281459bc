"""Terminal world: no world at all, but whoever sits at the terminal. For tools of which only the schemas are there (sample.py --tools).

The agent's call is shown, and what is typed is what the tool says. Nothing a model writes is executed, and nobody knows the right answer: such an
episode is never verified.
"""

import sys

import tools as toolbox
from worlds import Difficulty, Task, World


def task_of(request: str, tools: list[dict], style: str) -> Task:
    """A request with somebody's tools as a task."""
    return Task("terminal.Terminal", "typed", 0, request, tools, [], "", {}, difficulty=Difficulty(style=style))


class Terminal(World):
    faults = ()

    def step(self, call: dict) -> str:
        print(f"{toolbox.write(call)}\nwhat does {call['name']} say? ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().rstrip("\n") or "error: no answer"

    def verify(self, answer: str) -> bool:
        return False
