"""Functions of `html.entities` as tools: names that web pages have for signs."""

import html.entities
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, in_quotes, made_by, write_plain

NAMED_SIGNS = "éèêàâçñöäüßøåæœ€£¥¢§©®™°±×÷½¼¾µ¿¡«»„…–—†•′∞≈≠≤≥√∑∏∫πωαβ←↑→↓↔♠♣♥♦"


def draw_entity(rng: Random) -> str:
    return f"&{html.entities.codepoint2name[ord(rng.choice(NAMED_SIGNS))]};"


def draw_reference(rng: Random) -> str:
    return f"&#{ord(rng.choice(NAMED_SIGNS))};"


def is_entity(text: str) -> bool:
    return text[:1] == "&" and text[1:-1] in html.entities.name2codepoint


REFERENCE = made_by(draw_reference)
ENTITY = Kind("text", draw_entity, write_plain, is_entity, "entity")


@asked_for(
    "the entity for {sign}",
    """
    My keyboard has no {sign}. How do I get it onto a web page?
    What is the HTML entity for {sign}?
    Write {sign} so that even an old browser shows it.
    The page turns every {sign} into a question mark. What should stand in the source?
    By which name does HTML know {sign}?
    The editor takes plain ASCII only, and I need {sign} on the menu of our restaurant.
    Look up how {sign} is spelt with & and ;
    Give me the named reference for {sign}.
    """,
    sign=made_by(lambda rng: rng.choice(NAMED_SIGNS), in_quotes),
)
def entity_for(sign: str) -> str:
    """The entity with a name for a special sign.

    sign: one character
    """
    if len(sign) != 1 or ord(sign) not in html.entities.codepoint2name:
        raise ValueError("HTML has no name for this")
    return f"&{html.entities.codepoint2name[ord(sign)]};"


@asked_for(
    "the named entity for {reference}",
    """
    Which name could stand in place of {reference} on my page?
    Nobody can remember {reference}. How do I write the same with a name?
    Change {reference} to the entity that has a name.
    Our style guide forbids numbers between & and ; so what replaces {reference}?
    Is there an HTML word for {reference}? Give it with & and ;
    The editor left {reference} in the text. I prefer it spelt with letters.
    What is {reference} in its named form?
    Make {reference} readable for the people who edit our pages.
    """,
    reference=REFERENCE,
)
def named_entity(reference: str) -> str:
    """The entity with a name for one with a number.

    reference: such as &#233;
    """
    digits = reference.removeprefix("&#").removesuffix(";")
    if not (digits.isdecimal() and len(digits) < 8):
        raise ValueError("a reference reads &#233;")
    return entity_for(chr(min(int(digits), 0x10FFFF)))


@asked_for(
    "the numeric reference for {entity}",
    """
    XML does not know {entity}. Which number does it take instead?
    + Change {entity} to a numeric reference.
    The feed refuses {entity}, it wants the one with # in it. What is that?
    + Write {entity} by its code point, with & and # and ;
    + What is {entity} in numeric form?
    Our old printer understands numbers only, not {entity}. Convert it.
    I look for the decimal reference that does the same as {entity}.
    A validator complains about the named {entity}. Put the numbered one in its place.
    """,
    entity=ENTITY,
)
def numeric_entity(entity: str) -> str:
    """The entity with a number for one with a name.

    entity: such as &eacute;
    """
    name = entity.removeprefix("&").removesuffix(";")
    if name not in html.entities.name2codepoint:
        raise ValueError(f"HTML knows no sign called {name[:40]}")
    return f"&#{html.entities.name2codepoint[name]};"
