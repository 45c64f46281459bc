"""Functions of `zlib` as tools: numbers by which archives notice that a text has changed."""

import zlib

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PHRASE, SENTENCE, or_pasted


@asked_for(
    "the CRC-32 of {text}",
    """
    + What is the CRC-32 of {text}, as a whole number?
    + Compute the cyclic redundancy check of {text}.
    A zip archive notes a number for each file in it. My file holds just {text}. Which number?
    I send {text} over a noisy line and want to add its CRC. What do I add?
    + Run {text} through crc32.
    PNG pictures protect their comments with a CRC. The comment says {text}. What is the CRC?
    + By cyclic redundancy, what number stands for {text}?
    Did the line {text} survive the copy? Give me its CRC-32 so that I can compare.
    """,
    text=or_pasted(SENTENCE),
)
def crc_of(text: str) -> int:
    """The number that a 32-bit cyclic redundancy check gives.

    text: the text
    """
    return zlib.crc32(text.encode())


@asked_for(
    "the Adler-32 of {text}",
    """
    + What is the Adler-32 of {text}?
    + Compute Mark Adler's checksum for {text}.
    At the end of a zlib stream stands a sum over its contents, here {text}. What is it?
    + Sum up {text} as adler32 does it.
    My backup tool compares Adler numbers. What should it find for {text}?
    I want the quick one of zlib's two checks, Adler's, for {text}.
    rsync-like tools know a block by its Adler-32. Which number has a block with only {text}?
    + Give {text} to Adler's algorithm and tell me the integer.
    """,
    text=or_pasted(PHRASE),
)
def adler_of(text: str) -> int:
    """The number that Adler's fast check gives.

    text: the text
    """
    return zlib.adler32(text.encode())
