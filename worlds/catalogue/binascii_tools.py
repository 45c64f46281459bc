"""Functions of `binascii` as tools: letters with accents in mail that knows none."""

import binascii
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PEOPLE, Kind, in_quotes, made_by, short_text

NOTES = (
    "{name} is at the café",
    "Crème brûlée for {name}",
    "Grüße from {name}",
    "{name} flies to São Paulo",
    "The jalapeños are for {name}",
    "{name} has a new fiancé",
    "A piñata for {name}!",
    "{name} wrote her résumé",
    "Déjà vu, says {name}",
    "Meet {name} in Kraków",
    "{name} sold the château",
    "Skål, dear {name}!",
)


def draw_note(rng: Random) -> str:
    return rng.choice(NOTES).format(name=rng.choice(PEOPLE))


def draw_mail_code(rng: Random) -> str:
    return binascii.b2a_qp(draw_note(rng).encode()).decode()


def accented(value: str) -> bool:
    """Whether a text changes on its way into a mail, and is short."""
    return short_text(value) and len(value) <= 60 and not value.isascii()


@asked_for(
    "{text} in quoted-printable",
    """
    + Write {text} in quoted-printable.
    An old mail server can only pass plain letters. How does {text} go through it, with = signs?
    + Which form does {text} have in a raw e-mail, quoted-printable?
    My subject line is {text}. With the equals signs for odd letters, what does it become?
    + Encode {text} for mail as =XX codes.
    Before sending, the mail program rewrites {text} in its quoted, printable form. Show me that.
    The mailing list mangles accents, so {text} should be quoted-printable. What do I paste?
    + Put each special letter of {text} as an equals sign and two hex digits.
    """,
    text=Kind("text", draw_note, in_quotes, accented),
)
def mail_form(text: str) -> str:
    """A text as seven-bit mail carries it, such as caf=C3=A9.

    text: the text, of one short line
    """
    code = binascii.b2a_qp(text.encode()).decode()
    if "\n" in code:
        raise ValueError("the text is too long for one line")
    return code


@asked_for(
    "what {code} means in a mail",
    """
    My mail is full of equals signs: {code}. What did they write?
    Decode the quoted-printable {code}.
    Read this for me, it came by e-mail: {code}
    Grandma's message arrived as {code}. Make it legible.
    Turn {code} from quoted-printable back into normal letters.
    What did the sender type if the raw mail has {code}?
    I saved a letter and now it says {code}. Put the accents back.
    Take the =XX codes out of {code} and show the real letters.
    """,
    code=made_by(draw_mail_code, in_quotes),
)
def read_mail_form(code: str) -> str:
    """The text behind what seven-bit mail carries.

    code: the text with its =XX codes
    """
    return binascii.a2b_qp(code.encode()).decode()
