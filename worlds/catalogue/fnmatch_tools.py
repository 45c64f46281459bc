"""Functions of `fnmatch` as tools: file names and patterns with * and ? in them."""

import fnmatch
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, Kind, made_by, write_list

FOLDER_ENDINGS = "jpg png pdf txt mp3 csv".split()
WILDCARDS = [f"*.{ending}" for ending in FOLDER_ENDINGS] + [f"{letter}*" for letter in "abcmpst"]


def draw_folder_files(rng: Random) -> list[str]:
    """Names of files of two or three sorts."""
    endings = rng.sample(FOLDER_ENDINGS, rng.randint(2, 3))
    return [f"{noun}.{rng.choice(endings)}" for noun in rng.sample(NOUNS, rng.randint(4, 6))]


def draw_wildcards(rng: Random) -> list[str]:
    return [*rng.sample(WILDCARDS[:6], 3), *rng.sample(WILDCARDS[6:], rng.randint(1, 2))]


FOLDER_FILES = Kind(
    "words", draw_folder_files, write_list, lambda value: 3 <= len(value) <= 12, "files"
)
WILDCARD = made_by(lambda rng: rng.choice(WILDCARDS))


@asked_for(
    "the files among {names} that fit {pattern}",
    """
    + Which of {names} match {pattern}?
    My folder holds {names}. What does {pattern} pick out?
    If I delete {pattern}, what goes? The folder has {names}.
    I want to copy {pattern} to a stick, and I have {names}. List what gets copied.
    + Of {names}, keep just {pattern}.
    There are {names} on the desktop; search them for {pattern}.
    The backup takes {pattern}. Out of {names}, what will be in it?
    + Filter {names} by the wildcard {pattern}, please.
    """,
    names=FOLDER_FILES,
    pattern=WILDCARD,
)
def matching_files(names: list[str], pattern: str) -> list[str]:
    """The file names that a wildcard covers.

    names: the file names
    pattern: text in which * is anything and ? one character
    """
    return [name for name in names[:200] if fits_wildcard(name, pattern)]


@asked_for(
    "what is left of {names} without {pattern}",
    """
    + Which of {names} does {pattern} miss?
    I deleted {pattern} from a folder with {names}. What is still there?
    + Ignore {pattern} and tell me what remains of {names}.
    Upload everything but {pattern}. The folder has {names}, so what goes up?
    + From {names}, drop all that look like {pattern}.
    After moving {pattern} elsewhere, which of {names} stay behind?
    Our backup skips {pattern}. Of {names}, what does it save?
    Leave {pattern} out of the list {names}.
    """,
    names=FOLDER_FILES,
    pattern=WILDCARD,
)
def remaining_files(names: list[str], pattern: str) -> list[str]:
    """The file names that a wildcard does not cover.

    names: the file names
    pattern: text in which * is anything and ? one character
    """
    return [name for name in names[:200] if not fits_wildcard(name, pattern)]


@asked_for(
    "the first of {patterns} that {name} fits",
    """
    The file {name} arrives and the rules are {patterns}. Which one takes it?
    Try {patterns} one after the other: which is the first to fit {name}?
    My inbox sorts by {patterns}, first come first served. Where does {name} land?
    Why was {name} skipped? One of {patterns} must be the reason.
    Under which of {patterns} does {name} fall?
    Somebody wrote {patterns} into the ignore list. Find the entry that hides {name}.
    Check {name} against {patterns} and give me the earliest match.
    Which entry of {patterns} catches {name}?
    """,
    name=made_by(lambda rng: f"{rng.choice(NOUNS)}.{rng.choice(FOLDER_ENDINGS)}"),
    patterns=made_by(draw_wildcards, write_list),
)
def first_rule(name: str, patterns: list[str]) -> str:
    """The first of several wildcards that covers a file name.

    name: the file name
    patterns: the wildcards, in the order in which they are tried
    """
    for pattern in patterns[:200]:
        if fits_wildcard(name, pattern):
            return pattern
    raise ValueError(f"no pattern fits {name}")


def fits_wildcard(name: str, pattern: str) -> bool:
    """Whether a wildcard covers a name; many stars would take long."""
    if pattern.count("*") > 4 or len(pattern) > 100 or len(name) > 200:
        raise ValueError("a pattern may have 4 stars and 100 characters, a name 200 characters")
    return fnmatch.fnmatchcase(name, pattern)
