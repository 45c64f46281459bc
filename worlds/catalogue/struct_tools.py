"""Functions of `struct` as tools: texts and numbers squeezed into fields of a fixed size."""

import struct

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PHRASE, decimal, or_pasted, whole_number


@asked_for(
    "{text} in a field that is {width} wide",
    """
    The badge printer takes {width} characters and puts a dot where none is. What about {text}?
    + Make {text} exactly {width} characters long, with dots behind if it is too short.
    The display in the lift has room for {width} letters. How does it show {text}, dots for blanks?
    + Fit {text} into a field of width {width}.
    The form has {width} boxes. I enter {text}, and each empty box gets a dot. What stands there?
    + Chop {text} off after {width} characters, or fill it up with dots.
    In my list of songs every title takes {width} places, dots included. How do I write {text}?
    + Pad or trim {text} to a width of {width}.
    """,
    text=or_pasted(PHRASE),
    width=whole_number(10, 26),
)
def fixed_field(text: str, width: int) -> str:
    """A text cut to a width, or filled with dots.

    text: the text, in plain letters
    width: how long the result is, up to 200
    """
    if not 1 <= width <= 200:
        raise ValueError("the width must be from 1 to 200")
    if not text.isascii():
        raise ValueError("only letters without accents fit")
    return struct.pack(f"{width}s", text.encode()).decode().replace("\0", ".")


@asked_for(
    "{number} in half precision",
    """
    My weather station stores readings in 16 bits. What does it keep of {number}?
    + What becomes of {number} in half precision?
    + Round {number} to the nearest float16.
    The sensor measured {number} but can only send two bytes. What arrives?
    To save memory I keep weights as 16-bit floats. One of them is {number}. What is it then?
    A game saves heights as half floats. At which height does a player at {number} stand afterwards?
    + Which floating-point number of two bytes is nearest to {number}?
    + Store {number} as a 16-bit float and read it again.
    """,
    number=decimal(0.5, 900, 3),
)
def half_precision(number: float) -> float:
    """The closest number that takes two bytes.

    number: the number, up to 65504
    """
    try:
        return struct.unpack("<e", struct.pack("<e", number))[0]
    except OverflowError:
        raise ValueError("the number is too large for two bytes") from None


@asked_for(
    "the four bytes of {number}",
    """
    + Write {number} as four bytes in hexadecimal, the largest first.
    The lock of my garage wants the code {number} as four bytes. Which, in hex?
    + How does {number} lie in the memory of a big-endian machine, as a 32-bit integer?
    I look for {number} in a hex dump of 32-bit integers. Which bytes am I after?
    I am to type {number} into an old computer, byte by byte. Give me the pairs of hex digits.
    + Convert {number} to a 32-bit hex string, bytes apart.
    + Take {number} to pieces, four bytes in all. What are they?
    The parcel scanner sends its count, {number}, in network byte order. What goes over the wire?
    """,
    number=whole_number(100, 99_999_999),
)
def four_bytes(number: int) -> str:
    """A whole number in the bytes of 32 bits, such as 00 00 01 a4.

    number: the number
    """
    try:
        return struct.pack(">i", number).hex(" ")
    except struct.error:
        raise ValueError("the number does not fit in 32 bits") from None
