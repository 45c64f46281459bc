"""Functions of `difflib` as tools: how alike two texts are."""

import difflib

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PEOPLE, PHRASE, WORD, Kind, in_quotes, made_by


def misspell(word: str, place: int) -> str:
    """The word without one letter."""
    return word[:place] + word[place + 1 :]


NAMES = made_by(
    lambda rng: rng.sample(PEOPLE, rng.randint(3, 5)), lambda rng, value: ", ".join(value)
)
MISSPELT_NAME = Kind("text", lambda rng: misspell(rng.choice(PEOPLE), rng.randint(1, 2)), in_quotes)


@asked_for(
    "the similarity of {first} and {second}",
    """
    + How similar are {first} and {second}, from 0 to 1?
    + Compare {first} with {second} and give me the similarity.
    Did someone copy? One wrote {first}, the other {second}. I want the similarity ratio.
    + What is the similarity score of {first} and {second}?
    To what degree do {first} and {second} agree, 1 being identical?
    My search looks for {first} and found {second}. How close is that as a ratio?
    + Rate the likeness of {first} and {second} between 0 and 1.
    Measure how near {first} comes to {second}.
    """,
    first=PHRASE,
    second=PHRASE,
)
def similarity(first: str, second: str) -> float:
    """How alike two texts are, from 0 to 1.

    first: one text
    second: the other text
    """
    return round(difflib.SequenceMatcher(None, first, second, autojunk=False).ratio(), 4)


@asked_for(
    "the name closest to {name} among {known}",
    """
    Which of the names {known} did they mean by {name}?
    Somebody signed as {name}. Our members are {known}; who is it most likely?
    The letter is for {name}, misspelt. Find the closest of {known}.
    Correct the name {name}; it must be one of {known}.
    From {known}, pick the name that is most like {name}.
    I cannot find {name} on the list {known}. Which entry comes nearest?
    Guest list: {known}. At the door stands {name}. Whose entry matches best?
    What is the best match for {name} among {known}?
    """,
    name=MISSPELT_NAME,
    known=NAMES,
)
def closest_name(name: str, known: list[str]) -> str:
    """The known name that is spelled most like another.

    name: the name to look for
    known: the known names
    """
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not found:
        raise ValueError("no known name is like it")
    return found[0]


@asked_for(
    "the longest part that {first} and {second} share",
    """
    + What is the longest piece of text that {first} and {second} have in common?
    + Find the longest common substring of {first} and {second}.
    Which letters in a row do {first} and {second} share? The longest such stretch, please.
    Lay {first} over {second}: what is the longest stretch that matches?
    I want a nickname out of {first} and {second}, so give me their longest shared part.
    + Between {first} and {second}, which run of letters is the longest one in both?
    + Show the longest part of {first} that also occurs in {second}.
    Take {first} and {second} and tell me their longest common part.
    """,
    first=WORD,
    second=WORD,
)
def longest_shared_part(first: str, second: str) -> str:
    """The longest run of characters that two texts share.

    first: one text
    second: the other text
    """
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    match = matcher.find_longest_match()
    return first[match.a : match.a + match.size]
