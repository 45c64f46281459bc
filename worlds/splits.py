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

# Words that tell nothing apart in a request. None is a name, or one of the words that count, and
# none occurs in held-out texts alone.
BABBLE = """
about although always because behind between beyond both built cannot check close code common
course cycle days different during early either else end enough even far field final follow full
further general great group hand happen hard head help high however idea important instead item
keep kind large last later least level light list little local low match matter may mean might
most must near never next night nor often old other our over own part past people perhaps place
plan point possible present problem question quite rather ready real right room second seem
several shall short should small something soon start step still such there these thing think
those though three through together top toward true turn two unless until upon usual very want
way week well were when whether while why will wish within world would year your
""".split()


def in_random_words(rng: random.Random, parts: tuple[str, ...]) -> str:
    """The parts of a sentence in any order, up to two random words around each: of ("{b}",
    "{n} more", "than {a}") "Night than {a} perhaps {n} more {b} through".
    """

    def some() -> list[str]:
        return rng.choices(BABBLE, k=rng.choice((0, 1, 1, 2)))

    words = some()
    for part in rng.sample(parts, len(parts)):
        words += [part, *some()]
    sentence = " ".join(words)
    return sentence[0].upper() + sentence[1:]


@dataclass(frozen=True)
class Wordings:
    """The ways to say one thing, by split; {slots} are filled in.

    A model that reads a handful of sentences learns them by heart. So training also has `parts`,
    each a tuple of what counts in such a sentence, to be said in any order among random words. With
    them the toy solves 65 and 47% of SQL tasks in held-out words (two lineages), without them 25%
    (docs/LOG.md, 2026-11-30, "In other words"). All words of the parts are training's own, and
    whatever tells this thing from another is among them: nothing is deleted without a word that
    says so.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...] = ()

    def draw(self, rng: random.Random, split: str, babble: float = 0.0, **slots: Any) -> str:
        """One of a split's wordings with its slots filled in; with probability `babble`, which is 0
        outside training, parts among random words instead, ended as one of training's sentences.
        """
        if self.parts and babble and rng.random() < babble:
            sentence = in_random_words(rng, rng.choice(self.parts)) + rng.choice(self.train)[-1]
            return sentence.format(**slots)
        return rng.choice(getattr(self, split)).format(**slots)
