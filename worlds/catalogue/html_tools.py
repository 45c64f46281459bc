"""Functions of `html` as tools: texts for web pages."""

import html
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PEOPLE, Kind, backquoted


def draw_marked(rng: Random) -> str:
    """A text with signs in it that mean something in HTML."""
    first, second = rng.sample(NOUNS, 2)
    form = rng.choice(("{0} & {1}", "{0} <{1}>", "{2} & {0} > {1}", "<{0}> & {2}", "{0} < {1}"))
    return form.format(first, second, rng.choice(PEOPLE))


MARKED = Kind("marked", draw_marked, backquoted, lambda value: any(sign in value for sign in "&<>"))
ESCAPED = Kind("escaped", lambda rng: html.escape(draw_marked(rng)), backquoted)


@asked_for(
    "{text} escaped for HTML",
    """
    Escape {text} for HTML.
    How do I put {text} on a web page so that it shows as it is?
    My page breaks at {text}. What must stand in the source instead?
    Make {text} safe to paste between tags.
    Write {text} with HTML entities.
    The browser takes {text} for markup. Give me the escaped form.
    What does {text} look like in HTML source?
    Replace the special signs in {text} by entities.
    """,
    text=MARKED,
)
def escape_html(text: str) -> str:
    """A text with <, > and & written for HTML.

    text: the text
    """
    return html.escape(text)


@asked_for(
    "the text that {source} shows",
    """
    What does {source} show in a browser?
    Decode the HTML entities in {source}.
    The feed delivers {source}. What is the plain text?
    Turn {source} back into normal characters.
    Unescape {source}.
    I copied {source} from a page's source. What would a reader see?
    Get rid of the entities: {source}.
    Which text was meant by {source}, escaped for HTML?
    """,
    source=ESCAPED,
)
def unescape_html(source: str) -> str:
    """The text that HTML with entities shows.

    source: the HTML
    """
    return html.unescape(source)
