"""Functions of `html.entities` as tools: names that web pages have for signs."""

import html.entities
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, in_quotes, made_by, write_plain

NAMED_SIGNS = "éèêàâçñöäüßøåæœ€£¥¢§©®™°±×÷½¼¾µ¿¡«»„…–—†•′∞≈≠≤≥√∑∏∫πωαβ←↑→↓↔♠♣♥♦"


def draw_entity(rng: Random) -> str:
    return f"&{html.entities.codepoint2name[ord(rng.choice(NAMED_SIGNS))]};"


def is_entity(text: str) -> bool:
    return text[:1] == "&" and text[1:-1] in html.entities.name2codepoint


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
    """How HTML writes one special sign, by its name.

    sign: one character
    """
    if len(sign) != 1 or ord(sign) not in html.entities.codepoint2name:
        raise ValueError("HTML has no name for this")
    return f"&{html.entities.codepoint2name[ord(sign)]};"


@asked_for(
    "the sign called {entity}",
    """
    + Which sign does {entity} stand for?
    In the page's source I found {entity}. What will visitors see there?
    My mail is full of {entity}. What was it meant to be?
    + Show me the character behind {entity}.
    What do I get if I write {entity} in HTML?
    The recipe says {entity} where a sign should be. Which one?
    Replace {entity} by the real thing.
    Somebody typed {entity} on a price tag. Tell me the symbol they wanted.
    """,
    entity=ENTITY,
)
def sign_of_entity(entity: str) -> str:
    """The sign that HTML calls by a name.

    entity: such as &eacute;
    """
    name = entity.removeprefix("&").removesuffix(";")
    if name not in html.entities.name2codepoint:
        raise ValueError(f"HTML knows no sign called {name[:40]}")
    return chr(html.entities.name2codepoint[name])


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
    """The reference by number, as in &#233;, for a named one.

    entity: such as &eacute;
    """
    return f"&#{ord(sign_of_entity(entity))};"
