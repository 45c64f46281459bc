"""Functions of `keyword` as tools: the words that Python keeps for itself."""

import keyword
import re
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, SENTENCE, in_quotes, made_by

RESERVED_LABELS = (
    "class from import return pass global lambda yield raise while except finally".split()
)


def draw_label(rng: Random) -> str:
    """A heading that is no good name as it is."""
    if rng.random() < 0.4:
        return rng.choice(RESERVED_LABELS)
    return " ".join(word.capitalize() for word in rng.sample(NOUNS, rng.randint(2, 3)))


@asked_for(
    "the Python words in {text}",
    """
    + Which words of {text} are Python keywords?
    A colour for every word that Python reserves: which ones in {text} get it?
    + Find the words in {text} that could also stand in a Python program as part of its grammar.
    We play spot the keyword. The sentence is {text}. What do I have to shout?
    My pupils know Python better than English. Which parts of {text} would look familiar to them?
    + List every reserved word of Python that occurs in {text}.
    Could I name variables after all words of {text}? Tell me which are taken by the language.
    + From {text}, keep just what is a keyword in Python.
    """,
    text=SENTENCE,
)
def keywords_in(text: str) -> list[str]:
    """The words of a text that belong to Python's grammar, in order.

    text: the text
    """
    return [word for word in re.findall(r"[A-Za-z]+", text) if keyword.iskeyword(word)]


@asked_for(
    "a variable name for {label}",
    """
    Make a Python variable name out of {label}.
    The column is headed {label}. What may I call it in my Python script?
    I need a legal identifier that says {label}.
    How would a Python programmer write {label} as a name, small and with underscores?
    Python does not let me call something {label}. What comes closest?
    Turn the form's heading {label} into a name for a field.
    My function gets an argument for {label}. Propose how to spell it.
    Store it under {label}, but spelled so that Python accepts it.
    """,
    label=made_by(draw_label, in_quotes),
)
def variable_name(label: str) -> str:
    """A text as Python takes it for a name; a reserved word gets an underscore behind it.

    label: what the name should say
    """
    name = "_".join(re.findall(r"[a-z0-9]+", label.lower()))
    if not name or name[0].isdigit():
        raise ValueError("a name must begin with a letter")
    return f"{name}_" if keyword.iskeyword(name) else name
