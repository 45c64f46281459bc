"""Functions of `hashlib` as tools: fingerprints of texts."""

import hashlib
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PHRASE, SENTENCE, WORD, one_of, or_pasted, whole_number


@asked_for(
    "the {algorithm} checksum of {text}",
    """
    + What is the {algorithm} checksum of {text}?
    + Compute the {algorithm} hash of {text}.
    The archive lists {algorithm} sums. Which one belongs to {text}?
    + Give me the {algorithm} digest of {text} in hex.
    I stored only a hash of {text}, made with {algorithm}. What must it be?
    + Hash {text} with {algorithm}.
    To see whether {text} was changed on its way, I need its {algorithm} value.
    Run {text} through {algorithm} and show the result.
    """,
    text=or_pasted(PHRASE),
    algorithm=one_of("md5", "sha1"),
)
def checksum(text: str, algorithm: Literal["md5", "sha1"]) -> str:
    """The checksum of a text, in hexadecimal.

    text: the text
    algorithm: how it is made
    """
    return hashlib.new(algorithm, text.encode()).hexdigest()


@asked_for(
    "a short key of {digits} digits for {text}",
    """
    Make a short key of {digits} hex digits for {text}.
    + Give me a BLAKE2 key with {digits} digits for {text}.
    I name pictures by a key of {digits} digits. Which key does {text} get?
    + Derive an identifier of {digits} hex digits from {text}.
    + Shrink {text} to a key {digits} digits long.
    My links end in {digits} hex digits made from the title. The title is {text}.
    A tag of {digits} digits is enough to tell my notes apart. What is it for {text}?
    + What is the {digits}-digit key of {text}?
    """,
    text=or_pasted(SENTENCE),
    digits=whole_number(4, 16),
)
def short_key(text: str, digits: int) -> str:
    """A key made from a text by BLAKE2.

    text: the text
    digits: hexadecimal digits of the key, up to 64
    """
    if not 1 <= digits <= 64:
        raise ValueError("a key has 1 to 64 digits")
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:digits]


@asked_for(
    "the drawer of {text} among {drawers}",
    """
    I sort index cards into {drawers} drawers by hash. Into which one goes {text}?
    + Which of {drawers} buckets does {text} fall into, counted from 0?
    Our data lies on {drawers} servers, chosen by hash. Which server has {text}?
    + Assign {text} to one of {drawers} groups, numbered from 0, by its hash.
    + Of {drawers} shards, which one holds the key {text}?
    Split the class into {drawers} teams by a hash of the name. Which team gets {text}?
    There are {drawers} mailboxes and the hash decides. Tell me the number for {text}.
    + Put {text} into bucket 0 to {drawers} minus 1 by hashing. Which bucket is it?
    """,
    text=or_pasted(WORD),
    drawers=whole_number(3, 40),
)
def hash_bucket(text: str, drawers: int) -> int:
    """The place, from 0, that a text's SHA-256 gives it.

    text: the text
    drawers: how many places there are
    """
    if drawers < 1:
        raise ValueError("there must be at least one place")
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % drawers
