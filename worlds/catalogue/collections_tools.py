"""Functions of `collections` as tools: lists counted, turned and cleaned of doubles."""

import collections
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import (
    NOUNS,
    PEOPLE,
    SENTENCE,
    made_by,
    whole_number,
    word_list,
    write_list,
)


def draw_votes(rng: Random) -> list[str]:
    """Votes for three people, one of whom leads."""
    people = rng.sample(PEOPLE, 3)
    votes = [*people, people[0]] + [rng.choice(people) for _ in range(rng.randint(2, 4))]
    rng.shuffle(votes)
    return votes


VOTES = made_by(draw_votes, write_list)


@asked_for(
    "the winner of the votes {votes}",
    """
    The votes are {votes}. Who won?
    Count the ballots {votes} and name whoever has most.
    Who is mentioned most often in {votes}?
    We asked around and heard {votes}. Which name came up most?
    Find the most common entry of {votes}.
    Goals were scored by {votes}. Who is top scorer?
    Which one leads in {votes}?
    Get me the most frequent name in {votes}.
    """,
    votes=VOTES,
)
def most_common(votes: list[str]) -> str:
    """The most frequent entry.

    votes: the entries
    """
    counts = collections.Counter(votes).most_common(2)
    if not counts or len(counts) > 1 and counts[0][1] == counts[1][1]:
        raise ValueError("no entry is the most frequent")
    return counts[0][0]


@asked_for(
    "the number of votes for {name} in {votes}",
    """
    How many votes in {votes} are for {name}?
    How often does {name} stand in {votes}?
    Count {name} in {votes}.
    The tally sheet reads {votes}. What is {name}'s score?
    {name} wants to know how many of {votes} were for them.
    Who washed up this week: {votes}. How often was it {name}?
    Number of times {name} occurs in {votes}, please.
    Go through {votes} and tell me the count for {name}.
    """,
    votes=VOTES,
    name=made_by(lambda rng: rng.choice(PEOPLE)),
)
def votes_for(votes: list[str], name: str) -> int:
    """How often a name occurs among votes.

    votes: the entries
    name: the name
    """
    count = collections.Counter(votes)[name]
    if not count:
        raise ValueError(f"no vote for {name}")
    return count


@asked_for(
    "{entries} moved on by {steps}",
    """
    Move {entries} on by {steps}, with the last ones coming round to the front.
    Rotate the list {entries} by {steps} to the right.
    The cleaning rota is {entries}. Shift it by {steps} so that the last come first.
    If {entries} stand in a ring and go {steps} places on, what is the new order?
    Turn {entries} by {steps} places to the right.
    Take {steps} from the end of {entries} and put them in front, in the same order.
    What does {entries} look like after rotating it {steps} to the right?
    Seats {entries} move up by {steps}. Give me the list after that.
    """,
    entries=word_list(4, 6),
    steps=whole_number(1, 3),
)
def rotate_list(entries: list[str], steps: int) -> list[str]:
    """Rotate a list to the right.

    entries: the entries
    steps: how many come from the end to the front
    """
    turned = collections.deque(entries)
    turned.rotate(steps)
    return list(turned)


@asked_for(
    "the number of different letters in {text}",
    """
    + How many different letters are there in {text}?
    + Count the distinct letters of {text}.
    I have one stamp per letter. How many stamps do I need for {text}?
    + What is the number of different letters used in {text}?
    Is {text} a pangram? Tell me how many different letters it has.
    + Ignoring repeats and case, how many letters does {text} have?
    To set {text} in type, how many kinds of letters must the box hold?
    + Find out how many distinct letters occur in {text}.
    """,
    text=SENTENCE,
)
def distinct_letters(text: str) -> int:
    """How many different letters a text has, small and capital taken as one.

    text: the text
    """
    return len(collections.Counter(filter(str.isalpha, text.lower())))


@asked_for(
    "the letters that {first} has and {second} lacks",
    """
    Which letters does {first} have that {second} lacks?
    Take the letters of {second} away from {first}. What is left, in order?
    I laid out {first} in letter tiles and took back those of {second}. Which tiles remain?
    {first} minus {second}, letter by letter: what stays?
    An anagram puzzle: remove {second} from {first} and tell me the rest.
    What letters are left over when {second} is taken out of {first}?
    Compare {first} to {second} and give me the surplus letters of the first.
    Strike every letter of {second} once from {first}. The remainder, please.
    """,
    first=made_by(lambda rng: rng.choice(NOUNS), lambda rng, word: f'"{word}"'),
    second=made_by(lambda rng: rng.choice(NOUNS), lambda rng, word: f'"{word}"'),
)
def letters_left(first: str, second: str) -> str:
    """The letters of one word without those of another, in order.

    first: the word that is taken from
    second: the word whose letters go
    """
    rest = collections.Counter(first) - collections.Counter(second)
    return "".join(rest.elements())
