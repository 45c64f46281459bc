"""What is learnt from, what recipes are chosen by and what is reported from share no words.

There are three splits: train, validation and test. Made-up names, wordings of requests, texts of
faults and some kinds of faults belong to one split each. Names are random but pronounceable; a hash
of the name says which split it belongs to, so no list of names has to be kept.
tests/test_leaks.py reads what the training stages show.
"""

import random
import re
import zlib
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "validation", "test")

# ----------------------------------------------------------------------------------------- names

# English words that are built like the names below and may occur in texts that the agent reads. No
# name is one of them.
ENGLISH = frozenset(
    "base data date done file gate gave give gone like line made make meta mode more move name "
    "node none page rate role safe sage same size some take time".split()
)
# Names are made of two of these. The toy vocabulary keeps each whole and never joins one with the
# mark before it, so that "(rubu", " rubu" and "\"rubu" all hold the tokens ru, bu: a small model
# copies names by copying tokens, and learns it many times sooner (docs/LOG.md).
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
NAME = re.compile(f"(?:{'|'.join(SYLLABLES)}){{2}}")


def split_of(name: str) -> str:
    """The one split whose tasks may use a name: 3/5 of all names train, 1/5 each validate, test."""
    remainder = zlib.crc32(name.encode()) % 5
    if remainder == 0:
        return "test"
    return "validation" if remainder == 1 else "train"


def strangers(text: str, split: str = "train") -> set[str]:
    """The made-up names in a text that belong to another split."""
    words = set(re.findall(r"\b[a-z]+\b", text)) - ENGLISH
    return {word for word in words if NAME.fullmatch(word) and split_of(word) != split}


def draw_name(rng: random.Random, split: str, used: set[str]) -> str:
    """A pronounceable name of the split that is not yet in `used`; it is added there."""
    while True:
        name = rng.choice(SYLLABLES) + rng.choice(SYLLABLES)
        if name not in used and name not in ENGLISH and split_of(name) == split:
            used.add(name)
            return name


# ----------------------------------------------------------------------------------------- wordings


@dataclass(frozen=True)
class Wordings:
    """The ways to say one thing, by split; {slots} are filled in."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def draw(self, rng: random.Random, split: str, **slots: Any) -> str:
        """One of a split's wordings, with its slots filled in."""
        return rng.choice(getattr(self, split)).format(**slots)
