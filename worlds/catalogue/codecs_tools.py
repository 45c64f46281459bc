"""Functions of `codecs` as tools: letters turned into other letters, and into bytes."""

import codecs
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PHRASE, SENTENCE, Kind, in_quotes, one_of

LABELS = "zürich café tromsø münchen jalapeño dvořák malmö gdańsk".split()
LABEL = Kind("text", lambda rng: rng.choice(LABELS), in_quotes, lambda value: not value.isascii())


@asked_for(
    "{text} in ROT13",
    """
    + Encrypt {text} with ROT13.
    + What is {text} in ROT13?
    + Move each letter of {text} by 13 places in the alphabet.
    I want to hide the spoiler {text} with rot13. What do I post?
    Apply the ROT13 cipher to {text}.
    For the treasure hunt, write {text} in ROT13.
    Scramble {text} by the old newsgroup trick, ROT13.
    + Give me {text} rotated by 13 letters.
    """,
    text=PHRASE,
)
def rot13(text: str) -> str:
    """Replace each letter by the one 13 places on.

    text: the text
    """
    return codecs.encode(text, "rot13")


@asked_for(
    "the size of {text} in {encoding}",
    """
    + How many bytes does {text} take in {encoding}?
    + Stored as {encoding}, how large is {text}?
    My field holds a limited number of bytes in {encoding}. How many does {text} need?
    + Count the bytes of {text}, encoded as {encoding}.
    + What is the length of {text} in bytes if I save it as {encoding}?
    We pay per byte and send {encoding}. How many bytes is {text}?
    Give me the {encoding} size of {text} in bytes.
    Find the number of bytes of {text} under {encoding}.
    """,
    text=SENTENCE,
    encoding=one_of("utf-8", "utf-16", "utf-32"),
)
def byte_count(text: str, encoding: Literal["utf-8", "utf-16", "utf-32"] = "utf-8") -> int:
    """The number of bytes that a text takes.

    text: the text
    encoding: how it is stored
    """
    return len(codecs.encode(text, encoding))


@asked_for(
    "{text} as a name for networks",
    """
    + How is the domain label {text} written in punycode?
    + Encode {text} in Punycode.
    My registrar wants {text} in plain letters, punycode. What do I enter?
    + Convert {text} for a domain name with the punycode codec.
    Show me the punycode of {text}.
    Browsers turn {text} into letters and digits by punycode. Into which?
    For the DNS record, what is {text} in punycode?
    I need the ASCII form, punycode, of {text}.
    """,
    text=LABEL,
)
def punycode(text: str) -> str:
    """A text in Punycode, as domain names have it.

    text: the text
    """
    return codecs.encode(text, "punycode").decode()
