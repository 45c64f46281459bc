"""Functions of `base64` as tools: texts in letters and digits that survive any channel."""

import base64

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PHRASE, WORD, Kind, in_quotes

CODE = Kind(
    "code",
    lambda rng: base64.b64encode(" ".join(rng.sample(NOUNS, 2)).encode()).decode(),
    in_quotes,
)


@asked_for(
    "{text} in Base64",
    """
    + Encode {text} in Base64.
    + What does {text} look like as Base64?
    The form wants my password as Base64. It is {text}.
    + Turn {text} into a Base64 string.
    I have to paste {text} into a config file, Base64-encoded. What do I paste?
    + Give me the Base64 form of {text}.
    Please convert {text} to base64 for a mail header.
    How is {text} written in Base64?
    """,
    text=PHRASE,
)
def encode_base64(text: str) -> str:
    """Encode a text in Base64.

    text: the text
    """
    return base64.b64encode(text.encode()).decode()


@asked_for(
    "what the Base64 string {code} says",
    """
    Decode the Base64 string {code}.
    What does {code} say? It is Base64.
    Somebody sent me {code} in Base64. What is the message?
    Turn {code} back from Base64 into plain text.
    I found {code} in a log, clearly base64. Read it for me.
    Undo the Base64 in {code}.
    Which text hides behind {code}, encoded in Base64?
    Translate {code} from Base64.
    """,
    code=CODE,
)
def decode_base64(code: str) -> str:
    """The text that a Base64 string encodes.

    code: Base64 string
    """
    return base64.b64decode(code, validate=True).decode()


@asked_for(
    "the hexadecimal bytes of {text}",
    """
    + Write the bytes of {text} in hexadecimal.
    What are the hex codes of {text}, as one string?
    + Convert {text} to hex.
    I am checking a dump and need {text} as hexadecimal digits.
    How is {text} spelled in hex bytes?
    + Give me {text} as a hex string.
    A label printer takes only hex. What do I send for {text}?
    Show {text} base16 encoded.
    """,
    text=WORD,
)
def encode_hex(text: str) -> str:
    """The bytes of a text as hexadecimal digits.

    text: the text
    """
    return base64.b16encode(text.encode()).decode().lower()
