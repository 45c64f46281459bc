"""Functions of `collections` as tools: lists counted, turned and cleaned of doubles."""

import collections
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import (
    NOUNS,
    PEOPLE,
    SENTENCE,
    Kind,
    bracketed,
    made_by,
    short_text,
    whole_number,
    word_list,
    write_list,
)

FOOD = "bread milk eggs rice cheese onions apples butter beans pasta carrots yoghurt".split()


def draw_votes(rng: Random) -> list[str]:
    """Votes for three people, one of whom leads."""
    people = rng.sample(PEOPLE, 3)
    votes = [*people, people[0]] + [rng.choice(people) for _ in range(rng.randint(2, 4))]
    rng.shuffle(votes)
    return votes


def draw_groceries(rng: Random) -> list[str]:
    return rng.sample(FOOD, rng.randint(3, 6))


def draw_shopping(rng: Random) -> list[str]:
    """A shopping list with one or two things on it twice."""
    things = draw_groceries(rng)
    things += rng.sample(things, rng.randint(1, 2))
    rng.shuffle(things)
    return things


def some_words(value: list[str]) -> bool:
    """Whether a list may stand for groceries."""
    return 2 <= len(value) <= 12 and all(map(short_text, value))


VOTES = made_by(draw_votes, write_list)
GROCERIES = Kind("words", draw_groceries, write_list, some_words)
SHOPPING = made_by(draw_shopping, write_list)


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


@asked_for(
    "{entries} without repeats",
    """
    Three of us wrote the shopping list, so it says {entries}. Name each thing only once.
    Delete the doubles from {entries}, keeping the order.
    What is on the list {entries} if everything counts once?
    Clean up {entries}: no entry twice.
    I typed {entries} and repeated myself. Keep the first of each.
    Which different things are in {entries}, in the order they appear?
    The market stalls along our street sell {entries}. What can one buy there, each named once?
    Drop from {entries} whatever has been said before.
    """,
    entries=SHOPPING,
)
def without_repeats(entries: list[str]) -> list[str]:
    """Each entry once, where it stands first.

    entries: the entries
    """
    return list(collections.OrderedDict.fromkeys(entries))


@asked_for(
    "the entries that {entries} has more than once",
    """
    What stands in {entries} more than once?
    Somebody put things down twice: {entries}. Which ones?
    Find the duplicates in {entries}.
    My basket holds {entries}. Of what do I have several?
    Check {entries} for repetitions and list what is repeated.
    Both of us went shopping and brought {entries}. What did we buy needlessly often?
    Of {entries}, tell me those that come again.
    The jars in the cellar hold {entries}. Which food fills several jars?
    """,
    entries=SHOPPING,
)
def repeated_entries(entries: list[str]) -> list[str]:
    """The entries that occur at least twice, each named once.

    entries: the entries
    """
    counts = collections.Counter(entries)
    return [entry for entry, count in counts.items() if count > 1]


@asked_for(
    "what {wanted} asks for beyond {have}",
    """
    The recipe needs {wanted}. In the cupboard are {have}. What must I buy?
    I should pack {wanted} and the bag holds {have} so far. What is still to go in?
    Which items of {wanted} are not among {have}?
    A pie takes {wanted}, and on the table are {have}. For what do I run to the neighbours?
    + Take {have} away from {wanted} and show the remaining ones.
    Tick off {have} on the list {wanted}. What stays open?
    + What does {have} lack to be as complete as {wanted}?
    We ordered {wanted} but the van delivered {have}. Tell me what they forgot.
    """,
    wanted=bracketed(GROCERIES),
    have=bracketed(GROCERIES),
)
def still_missing(wanted: list[str], have: list[str]) -> list[str]:
    """The entries of a list that a second list does not have, in order.

    wanted: the whole list
    have: what is there
    """
    there = collections.Counter(have)
    return [entry for entry in wanted if entry not in there]


@asked_for(
    "what {first} and {second} have in common",
    """
    I like {first}, she likes {second}. What can we both eat?
    Which entries stand in {first} and also in {second}?
    + What do {first} and {second} share?
    One shop sells {first}, the next one {second}. What can I get in either?
    Compare the lists {first} and {second} and name everything that is on both.
    + Show only those of {first} that {second} has, too.
    My diet allows {first}; the canteen offers {second}. What is left for me?
    Two guests remember the buffet, one {first}, one {second}. On what do they agree?
    """,
    first=bracketed(GROCERIES),
    second=bracketed(GROCERIES),
)
def in_both(first: list[str], second: list[str]) -> list[str]:
    """The entries that two lists share, in the order of the first.

    first: one list
    second: the other list
    """
    there = collections.Counter(second)
    return [entry for entry in first if entry in there]
