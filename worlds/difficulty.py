"""The settings of a task: how many tools, how long a chain, how often a tool fails, whose words."""

from dataclasses import dataclass
from typing import Any

from config import UserError
from worlds.faults import FAULT_KINDS, HELD_OUT_KINDS
from worlds.splits import SPLITS

RANGES = {  # setting: (lowest, highest)
    "tools": (1, 10),
    "arguments": (1, 4),
    "shortest": (1, 8),
    "chain": (1, 8),
    "longer": (0, 1),
    "decoys": (0, 6),
    "distractors": (0, 100),
    "size": (1, 3),
    "faults": (1, 2),
    "special": (0, 1),
    "fault_rate": (0, 1),
    "babble": (0, 1),
    "renamed": (0, 1),
}
CHOICES = {  # setting: its allowed values
    "fault_wording": ("split", "train"),
    "request_wording": ("split", "train"),
    "style": ("compact", "qwen"),
    "split": SPLITS,
    "names": ("invented", "english"),
}


# The ladder of difficulty. A stage is trained and judged where the model that it starts from solves
# 30 to 60% of sampled episodes, and one of eight samples at least 20 points more (docs/CLAIMS.md).
RUNGS = {
    "standard": {},  # one or two calls, as in all tables that name no rung
    "easy": dict(shortest=1, chain=3, tools=4),
    "middle": dict(shortest=3, chain=5, tools=6, distractors=1, size=2),
    "hard": dict(shortest=5, chain=8, tools=9, decoys=2, distractors=2, size=3, faults=2),
    "up-to-middle": dict(shortest=1, chain=5, tools=6, distractors=1, size=2),
    "up-to-hard": dict(shortest=1, chain=8, tools=9, decoys=2, distractors=2, size=3, faults=2),
}


@dataclass(frozen=True)
class Difficulty:
    """The settings of a task. Worlds ignore those that mean nothing to them.

    Raises UserError where a value is out of range.
    """

    tools: int = 3  # tools in the prompt
    arguments: int = 2  # most arguments of one tool
    # fewest and most calls of a solution (in the math world, sentences), as far as the world can
    # choose; RUNGS has the ladder
    shortest: int = 1
    chain: int = 2
    longer: float = 0.25  # chance, call after call, that a task needs one more, up to `chain`
    decoys: int = 1  # tools (tables, files) that share the right one's nouns
    distractors: int = 0  # sentences of the request that do not matter
    size: int = 1  # of the tables and file trees: so many times as many rows and files
    # share of tasks whose right answer is no result: ask, no tool fits, refuse
    special: float = 0.2
    fault_rate: float = 0.0  # share of episodes in which a tool fails on purpose
    faults: int = 1  # so often in such an episode
    # which kinds of faults; a held-out kind is allowed in its own split only
    fault_kinds: tuple[str, ...] = FAULT_KINDS
    # texts of faults: "split" for the split's own, "train" to measure what new words cost
    fault_wording: str = "split"
    request_wording: str = "split"  # words of requests: likewise
    # share of training's faults, and of its requests' sentences, that are what counts among random
    # words
    babble: float = 0.0
    # share of training's tasks of the library world whose tools and arguments have other names
    renamed: float = 0.0
    style: str = "compact"  # how tools appear in the prompt, see support/chat_template.py
    split: str = "train"  # whose names and words occur: one of SPLITS
    # "invented": syllables, telegraphic requests; "english": real words and natural requests
    names: str = "invented"

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"difficulty's {name} is {value}; wanted {low} to {high}")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"difficulty's {name} is {value!r}; wanted {' or '.join(allowed)}")
        if self.shortest > self.chain:
            raise UserError(
                f"difficulty's shortest is {self.shortest} and its chain {self.chain}; wanted no "
                "fewer most calls than fewest"
            )
        allowed = FAULT_KINDS + HELD_OUT_KINDS[self.split]
        for kind in self.fault_kinds:
            if kind not in allowed:
                raise UserError(
                    f"difficulty's fault_kinds names {kind}; wanted some of "
                    f"{', '.join(allowed)} (others are held out from the split {self.split})"
                )
        if self.babble and self.split != "train":
            raise UserError(
                f"difficulty's babble is {self.babble} in the split {self.split}; "
                "its words belong to training"
            )

    @classmethod
    def of(cls, section: Any, **more: Any) -> "Difficulty":
        """From a section of the training settings: rung, names, renamed, longer, fault_rate,
        fault_kinds (with commas), babble; `more` replaces or adds.
        """
        given = RUNGS[section.rung] | {
            "fault_rate": section.fault_rate,
            "fault_kinds": tuple(section.fault_kinds.split(",")),
            "babble": section.babble,
            "names": section.names,
            "renamed": section.renamed,
            "longer": section.longer,
        }
        return cls(**(given | more))

    @property
    def request_split(self) -> str:
        """The split whose wordings a request is drawn from."""
        return "train" if self.request_wording == "train" else self.split
