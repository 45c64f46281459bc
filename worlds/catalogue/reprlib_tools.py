"""Functions of `reprlib` as tools: what is too long, with dots in the place of a part."""

import reprlib
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import SENTENCE, made_by, whole_number, word_list


class Plain(reprlib.Repr):
    """As reprlib has it, without quotation marks around words."""

    def repr_str(self, x: str, level: int) -> str:
        return x


def check_length(length: int) -> None:
    """Raises ValueError for a length in which nothing has room."""
    if not 5 <= length <= 150:
        raise ValueError("the length must be from 5 to 150")


def draw_account(rng: Random) -> int:
    """A number of a customer, a parcel, a contract, ..."""
    return rng.randint(10**11, 10**16 - 1)


@asked_for(
    "{text} cut down to {length} characters",
    """
    + Cut the middle out of {text} so that {length} characters stay.
    My phone shows only {length} characters of a title, the two ends of it. How does it show {text}?
    + Squeeze {text} into {length} characters, with its beginning and its end to be seen.
    In the side bar, {text} has {length} characters of room. Put dots where something is missing.
    The tab should still show how {text} begins and ends. It has {length} characters.
    + Abbreviate {text} to a length of {length}, dots in the middle.
    I label folders by a sentence, but {length} signs is all they hold: {text}. What do I write?
    Leave out the inside of {text}; it may be {length} long in all.
    """,
    text=SENTENCE,
    length=whole_number(11, 26),
)
def shorten_middle(text: str, length: int) -> str:
    """The start and the end of a text, with three dots between.

    text: the text
    length: characters of the result
    """
    check_length(length)
    short = reprlib.Repr()
    short.maxstring = length + 2  # quotation marks, which go
    return short.repr(text)[1:-1]


@asked_for(
    "the account number {number} in {length} signs",
    """
    Show the account number {number} in {length} signs, the rest as dots.
    On the receipt the customer number {number} has only {length} places. What is printed?
    Hide the inner digits of {number}, so that {length} characters are left, dots included.
    My parcel has the number {number}. The text message abbreviates it to {length} characters. How?
    Contract {number} does not fit on the label, which takes {length} characters. Shorten it.
    I want first and last digits of {number} with dots between, {length} characters together.
    Make the serial number {number} short, {length} long, but such that I can recognise it.
    The bank never writes out {number} in mails. What does it write, with {length} characters?
    """,
    number=made_by(draw_account),
    length=whole_number(8, 11),
)
def shorten_number(number: int, length: int) -> str:
    """The first and the last digits of a long number.

    number: the number
    length: characters of the result, with three dots
    """
    check_length(length)
    short = reprlib.Repr()
    short.maxlong = length
    return short.repr(number)


@asked_for(
    "a preview of {entries} that shows {count}",
    """
    Show the first {count} of {entries}, then dots.
    The guests are {entries}. For the headline, name {count} of them and hint at the others.
    My basket holds {entries}. The small window lists {count} and then three dots. What does it say?
    + Preview {entries} with {count} shown and a sign that there are more.
    I can't read out all of {entries}. Begin with {count} and trail off.
    + Give me {entries} in brief. The number of entries before the dots: {count}.
    The subject of my mail is the beginning of {entries}, just {count}, with an ellipsis.
    Our ad says what we sell, {entries}, but has room for {count} and "...". Write that line.
    """,
    entries=word_list(4, 6),
    count=whole_number(2, 3),
)
def preview_list(entries: list[str], count: int) -> str:
    """The beginning of a list as one line, with dots if there is more.

    entries: the list
    count: how many entries are shown
    """
    if count < 1:
        raise ValueError("at least one entry must be shown")
    short = Plain()
    short.maxlist = count
    return short.repr(entries)[1:-1]
