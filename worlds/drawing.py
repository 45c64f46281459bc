"""What worlds share when they draw a task: fresh names, wordings, decoy tools."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from worlds.base import SolutionStep
from worlds.difficulty import Difficulty
from worlds.english import draw_tools, draw_word
from worlds.phrasings import PHRASINGS
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


Words = TypeVar("Words")


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
        self.split = difficulty.split
        self.english = difficulty.names == "english"
        self.wordings = PHRASINGS.get(world, wordings) if self.english else wordings
        self.used: set[str] = set()  # names

    def name(self, kind: str = "people") -> str:
        """A name that the task does not use yet: syllables, or in English a word of the kind."""
        if self.english:
            return draw_word(self.rng, kind, self.split, self.used)
        return draw_name(self.rng, self.split, self.used)

    def said(self, invented: Words, english: Words) -> Words:
        """The one of two texts, or of two things of texts, that fits the task's words."""
        return english if self.english else invented

    def ask(self, what: str, **slots: Any) -> str:
        """A sentence of the request: one of its wordings, or, in a share `babble` of training's,
        what counts among random words.
        """
        difficulty = self.difficulty
        split, babble = difficulty.request_split, difficulty.babble
        return self.wordings[what].draw(self.word_rng, split, babble, **slots)

    def text(self, what: str, **slots: Any) -> str:
        """A text that belongs to the task, whatever words it is asked for in."""
        return self.wordings[what].draw(self.rng, self.split, **slots)

    def noise(self) -> str:
        """The sentences of the request that do not matter, a space before each."""
        sentences = ""
        for _ in range(self.difficulty.distractors):
            name = self.name("folders")
            sentences += " " + self.ask("noise", name=name, n=self.rng.randrange(2, 100))
        return sentences

    def with_decoys(self, tool: dict) -> list[dict]:
        """A tool among others that have nothing to do with the task, in random order."""
        others = self.difficulty.tools - 1
        if self.english:
            shown = [tool, *draw_tools(self.rng, self.split, others)]
        else:
            shown = [tool, *(self._made_up_tool() for _ in range(others))]
        self.rng.shuffle(shown)
        return shown

    def planned(self, steps: list[SolutionStep]) -> list[SolutionStep]:
        """Steps as a plan has them: in English a line begins with the tool that it takes, in every
        world, so that plans are read off the tools, not off the likeness of a request to those of
        one world.
        """
        return [
            replace(step, goal=f"{step.call['name']}: {step.goal}")
            if self.english and step.call
            else step
            for step in steps
        ]

    def _made_up_tool(self) -> dict:
        name = self.name()
        gives = self.name()
        return make_tool(name, f"gives {gives}", {self.name(): {"type": "integer"}})


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


def draw_chain_length(rng: random.Random, difficulty: Difficulty, longest: int) -> int:
    """The number of calls of a solution: the difficulty's `shortest` to its `chain`, no more than
    `longest`.
    """
    longest = min(difficulty.chain, longest)
    length = min(difficulty.shortest, longest)
    while length < longest and rng.random() < difficulty.longer:
        length += 1
    return length
