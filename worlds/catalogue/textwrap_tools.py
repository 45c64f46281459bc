"""Functions of `textwrap` as tools: texts cut to a width."""

import textwrap

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import SENTENCE, whole_number


@asked_for(
    "{text} shortened to {width} characters",
    """
    + Shorten {text} to at most {width} characters.
    The title field takes {width} characters. What is left of {text}?
    My display is {width} characters wide; cut {text} so that it fits on one line.
    + Make {text} fit into {width} characters, whole words only.
    I can print {width} characters per label. How should {text} look?
    + Trim {text} down to {width} characters with dots at the end.
    + Abridge {text}: no more than {width} characters.
    For the subject line, reduce {text} to {width} characters or fewer.
    """,
    text=SENTENCE,
    width=whole_number(14, 30),
)
def shorten(text: str, width: int) -> str:
    """Cut a text to whole words within a width, with "..." behind.

    text: the text
    width: most characters
    """
    return textwrap.shorten(text, width, placeholder="...")


@asked_for(
    "{text} in lines of {width} characters",
    """
    + Break {text} into lines of at most {width} characters.
    + Wrap {text} at {width} characters.
    I am engraving {text} on a sign with {width} characters per line. Which lines do I get?
    How would {text} be split over lines of {width} characters?
    + Give me {text} as separate lines, none longer than {width} characters.
    The old printer does {width} characters a line. Lay out {text} for it.
    + List the lines when {text} is wrapped to a width of {width}.
    Set {text} in a column {width} characters wide.
    """,
    text=SENTENCE,
    width=whole_number(12, 24),
)
def wrap_lines(text: str, width: int) -> list[str]:
    """Break a text into lines.

    text: the text
    width: most characters per line
    """
    if width < 1:
        raise ValueError("the width must be at least 1")
    return textwrap.wrap(text, width)


@asked_for(
    "the number of lines that {text} takes at {width} characters",
    """
    + How many lines does {text} take if a line holds {width} characters?
    + With {width} characters per line, on how many lines does {text} end up?
    + Count the lines of {text} wrapped at {width}.
    Will {text} fit on two lines of {width} characters? Tell me how many it takes.
    A line of the crossword diary has {width} characters; how many lines do I fill with {text}?
    I pay per line of {width} characters for the notice {text}. How many lines is it?
    + Number of {width}-character lines for {text}, please.
    Find out how many rows {text} needs when each is {width} characters wide.
    """,
    text=SENTENCE,
    width=whole_number(8, 20),
)
def lines_needed(text: str, width: int) -> int:
    """The number of lines that a text takes.

    text: the text
    width: most characters per line
    """
    if width < 1:
        raise ValueError("the width must be at least 1")
    return len(textwrap.wrap(text, width))
