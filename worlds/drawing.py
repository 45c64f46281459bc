"""What worlds share when they draw a task: fresh names, wordings, decoy tools."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worlds.base import SolutionStep
from worlds.difficulty import Difficulty
from worlds.splits import Wordings, draw_name
from worlds.tools import make_tool

UNSUITED = Wordings(  # requests that no tool fits
    (
        "Call {a} at noon.",
        "Book a table for {a}.",
        "Ask {a} how {b} is.",
        "Teach {a} to swim.",
        "Meet {a} and {b} at six.",
    ),
    ("Invite {a} for lunch.", "Drive {a} to {b}."),
    ("Cook dinner for {a}.", "Paint a picture of {a} with {b}."),
)


class Drawing:
    """The random numbers, names and words of one task.

    Words have random numbers of their own, so the same seed in other words is the same task.
    """

    def __init__(
        self, world: str, seed: int, difficulty: Difficulty, wordings: dict[str, Wordings]
    ):
        self.rng = random.Random(f"{world} {seed}")
        self.word_rng = random.Random(f"words {seed}")
        self.difficulty = difficulty
        self.wordings = wordings
        self.used: set[str] = set()  # names

    def name(self) -> str:
        """A name that the task does not use yet."""
        return draw_name(self.rng, self.difficulty.split, self.used)

    def ask(self, what: str, **slots: Any) -> str:
        """A sentence of the request, in one of its wordings."""
        return self.wordings[what].draw(self.word_rng, self.difficulty.request_split, **slots)

    def noise(self) -> str:
        """The sentences of the request that do not matter, a space before each."""
        sentences = ""
        for _ in range(self.difficulty.distractors):
            sentences += " " + self.ask("noise", name=self.name(), n=self.rng.randrange(2, 100))
        return sentences

    def with_decoys(self, tool: dict) -> list[dict]:
        """A tool among others that have nothing to do with the task, in random order."""
        shown = [tool]
        for _ in range(self.difficulty.tools - 1):
            name = self.name()
            gives = self.name()
            argument = {self.name(): {"type": "integer"}}
            shown.append(make_tool(name, f"gives {gives}", argument))
        self.rng.shuffle(shown)
        return shown


@dataclass
class Draft:
    """A task before its special cases, its noise and its decoys."""

    request: str
    steps: list[SolutionStep]
    answer: str
    constraints: dict[str, Any]
    after: Any = None  # the state of the world when it is done; None: nothing is to change


# number of calls → kind of task → what drafts one
Families = dict[int, dict[str, Callable[[Any], Draft]]]


def draw_chain_length(rng: random.Random, longest: int) -> int:
    """A quarter of the tasks needs one call more than the rest, as far as `longest` allows."""
    length = 1
    while length < longest and rng.random() < 0.25:
        length += 1
    return length
