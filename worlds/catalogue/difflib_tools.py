"""Functions of `difflib` as tools: how alike two texts are."""

import difflib
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PEOPLE, PHRASE, WORD, Kind, in_quotes, made_by, write_list

CONFUSED = [
    line.split()
    for line in """
    desert dessert deserted
    quiet quite quit
    advice advise device
    weather whether leather
    angel angle ankle
    through thorough though
    diary dairy daily
    receipt recipe recite
    custom costume customer
    principal principle prince
    """.strip().splitlines()
]
PLANS = "lunch rehearsal interview party lesson picnic".split()
ROOMS = "hall garden library cellar museum kitchen".split()
PLAN_DAYS = "Monday Tuesday Thursday Friday".split()


def misspell(word: str, place: int) -> str:
    """The word without one letter."""
    return word[:place] + word[place + 1 :]


def draw_confused(rng: Random) -> list[str]:
    """Words of which some look alike."""
    words = [word for group in rng.sample(CONFUSED, 3) for word in group]
    return rng.sample(words, rng.randint(5, 7))


def draw_plan(rng: Random) -> str:
    """A note on who meets when and where; two of them differ in some words."""
    what, where, day, who = (rng.choice(some) for some in (PLANS, ROOMS, PLAN_DAYS, PEOPLE))
    return f"The {what} on {day} is in the {where} with {who}"


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


@asked_for(
    "the words among {known} that look like {word}",
    """
    Which of {known} could be mixed up with {word}?
    I typed {word} and the dictionary knows {known}. What suggestions should it make?
    List all words of {known} that are spelled almost as {word} is.
    Spelling test: {word} was read out, the pupils may choose from {known}. Which are tempting?
    Find the near misses of {word} among {known}.
    Our menu has the keys {known}. Is any too close to the new one, {word}? Name them all.
    From {known}, keep those that resemble {word}.
    Did you mean ...? Finish that for {word}, out of {known}.
    """,
    word=made_by(lambda rng: rng.choice(rng.choice(CONFUSED)), in_quotes),
    known=made_by(draw_confused, write_list),
)
def similar_words(word: str, known: list[str]) -> list[str]:
    """All known words with a spelling close to another word, except itself.

    word: the word to compare with
    known: the known words
    """

    def alike(some: str) -> bool:
        return difflib.SequenceMatcher(None, some, word, autojunk=False).ratio() >= 0.7

    return [some for some in known if some != word and alike(some)]


@asked_for(
    "the words that are new in {new} compared with {old}",
    """
    Yesterday's plan was {old}, today's is {new}. Which words were put in?
    The sign said {old}. Now it says {new}. What has been changed on it, word by word?
    List the words of {new} that replace or extend {old}.
    I had noted {old} and then got {new}. What is different in the later message?
    From draft {old} to draft {new}: which words would be marked green?
    She corrected {old} to {new}. Show me only what she wrote in.
    Spot the differences: first {old}, then {new}. Give the words of the second.
    Which words do I have to read again in {new} if I know {old}?
    """,
    old=made_by(draw_plan, in_quotes),
    new=made_by(draw_plan, in_quotes),
)
def new_words(old: str, new: str) -> list[str]:
    """The words that a later version of a text has and the earlier had not, in order.

    old: the earlier version
    new: the later version
    """
    before, after = old.split(), new.split()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    return [word for *_, start, end in changes for word in after[start:end]]
