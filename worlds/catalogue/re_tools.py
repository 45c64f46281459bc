"""Functions of `re` as tools: things found in texts and replaced."""

import re
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PEOPLE, SENTENCE, Kind, in_quotes, made_by

MEMOS = (
    "Pay {a} euros to the plumber and {b} to the baker",
    "Room {a} is free, room {b} is not",
    "The {b} bus takes {a} minutes",
    "Order {a} plates and {b} cups for {name}",
    "{name} ran {a} km in {b} minutes",
    "Gate {b}, seat {a}, boarding with {name}",
)


def draw_memo(rng: Random) -> str:
    numbers = rng.sample(range(2, 400), 2)
    return rng.choice(MEMOS).format(a=numbers[0], b=numbers[1], name=rng.choice(PEOPLE))


def draw_mail(rng: Random) -> str:
    """A line with the addresses of one or two people in it."""
    hosts = ("example.org", "mail.example.com", "post.example.net")
    people = [f"{name.lower()}@{rng.choice(hosts)}" for name in rng.sample(PEOPLE, 2)]
    forms = ("Write to {0} or to {1}", "{0} is away, ask {1}", "From {0}: lunch at noon?")
    return rng.choice(forms).format(*people)


def draw_cramped(rng: Random) -> str:
    """A name that programmers wrote: blueTrainTicket."""
    first, *others = rng.sample(NOUNS, 3)
    return first + "".join(word.capitalize() for word in others)


LETTER = made_by(lambda rng: rng.choice("aeionrst"), in_quotes)
NEW_WORD = made_by(lambda rng: rng.choice(NOUNS), in_quotes)
OLD_WORD = made_by(lambda rng: rng.choice("the of her his a in and for is".split()), in_quotes)


@asked_for(
    "the numbers in {text}",
    """
    Which numbers are in {text}?
    Pull the numbers out of {text}.
    My note says {text}. List every number in it.
    I only care about the figures: {text}. Give me those.
    Find all whole numbers in {text}, in order.
    From {text}, extract the numbers.
    What figures does {text} mention?
    Read {text} and leave nothing but the numbers.
    """,
    text=Kind("memo", draw_memo, in_quotes),
)
def find_numbers(text: str) -> list[int]:
    """The whole numbers in a text, in order.

    text: the text
    """
    return [int(digits) for digits in re.findall(r"\d{1,18}", text)]


@asked_for(
    "the e-mail addresses in {text}",
    """
    Which e-mail addresses are in {text}?
    Get me the email addresses out of {text}.
    I have to answer this: {text}. To which addresses can I write?
    Collect all mail addresses from {text}.
    Copy just the addresses from {text}, please.
    The message reads {text}. List the e-mail addresses in it.
    Find every address with an @ in {text}.
    Who can be mailed, according to {text}? I want the addresses.
    """,
    text=Kind("mail", draw_mail, in_quotes),
)
def find_emails(text: str) -> list[str]:
    """The e-mail addresses in a text, in order.

    text: the text
    """
    return re.findall(r"[\w.]+@[\w.]+\w", text)


@asked_for(
    "{text} with {new} for every {old}",
    """
    + Replace the word {old} by {new} in {text}.
    + In {text}, put {new} wherever the word {old} stands.
    The word {old} has to go from {text}. Write {new} in its place.
    + Swap every {old} for {new} in {text}. What does it say then?
    I wrote {text} but meant {new}, not {old}. Correct it.
    + Change {old} to {new} in {text}, whole words only.
    How does {text} read with {new} instead of {old}?
    For my nonsense poem, turn each {old} in {text} into {new}.
    """,
    text=SENTENCE,
    old=OLD_WORD,
    new=NEW_WORD,
)
def replace_word(text: str, old: str, new: str) -> str:
    """Replace a whole word wherever it stands.

    text: the text
    old: the word to replace
    new: the word to put there
    """
    return re.sub(rf"\b{re.escape(old)}\b", lambda match: new, text)


@asked_for(
    "the number of times {letter} occurs in {text}",
    """
    + How often does the letter {letter} occur in {text}?
    + Count the {letter} in {text}.
    I cut letters out of cardboard for {text}. How many {letter} do I need?
    + How many times is {letter} used in {text}?
    Wheel of fortune: the answer is {text}, somebody buys {letter}. How many are there?
    The key {letter} sticks. How often must I hit it to type {text}?
    + Tell me the number of {letter} in {text}.
    Go through {text} and count each {letter}, small or capital.
    """,
    text=SENTENCE,
    letter=LETTER,
)
def count_letter(text: str, letter: str) -> int:
    """How often a letter occurs in a text, small or capital.

    text: the text
    letter: the letter
    """
    return len(re.findall(re.escape(letter), text, re.IGNORECASE))


@asked_for(
    "{name} as separate words",
    """
    Split the variable name {name} into words.
    Which words are run together in {name}?
    Make {name} readable: small letters and spaces.
    A heading for the column {name} should be in plain words. Which ones?
    Take the camel case out of {name}.
    How would one write {name} as normal words?
    Put spaces into {name} where a new word begins.
    Turn the identifier {name} into lower-case words.
    """,
    name=made_by(draw_cramped),
)
def split_camel_case(name: str) -> str:
    """The words of a name such as blueTrain, with spaces between.

    name: the name
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
