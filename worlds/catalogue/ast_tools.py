"""Functions of `ast` as tools: formulas and values as Python writes them."""

import ast
from collections.abc import Callable
from random import Random
from typing import Any

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PEOPLE, Kind, made_by, write_plain

QUANTITIES = (
    "price amount tax shipping width height depth speed hours wage rent tips weight age guests"
).split()
FORMULA_SIGNS = "+ - * /".split()
LONGEST_FORMULA = 300  # characters


def parsed_formula(formula: str) -> ast.expr:
    """The tree of a formula."""
    if len(formula) > LONGEST_FORMULA:
        raise ValueError(f"a formula may have {LONGEST_FORMULA} characters")
    try:
        return ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("this is no formula") from None


def draw_formula(rng: Random) -> str:
    """Such as (price + tax) * 3 - tips."""
    names = rng.sample(QUANTITIES, rng.randint(2, 3))
    parts = [*names, str(rng.randint(2, 60))]
    rng.shuffle(parts)
    first = f"({parts[0]} {rng.choice('+-')} {parts[1]})"
    rest = [f"{rng.choice(FORMULA_SIGNS)} {part}" for part in parts[2:]]
    return " ".join([first, *rest])


def draw_stepped(rng: Random) -> str:
    """A formula whose first step is not always in front."""
    a, b, c = rng.sample(QUANTITIES, 3)
    forms = (
        "{a} {s} {b} * {c}",
        "{a} * ({b} {s} {c})",
        "{n} * ({a} {s} {b}) / {c}",
        "{a} {s} {b} / {n} + {c}",
        "({a} {s} {n}) * {b}",
        "{n} {s} {a} * {b} + {c}",
        "{a} / {n} {s} {b} * {c}",
    )
    return rng.choice(forms).format(a=a, b=b, c=c, s=rng.choice("+-"), n=rng.randint(2, 50))


def draw_bracketed(rng: Random) -> str:
    """A formula with more brackets than it needs."""
    a, b, c = rng.sample(QUANTITIES, 3)
    forms = (
        "({a} * {b}) {s} {c}",
        "{a} {s} ({b} * {c})",
        "(({a} {s} {b})) * {c}",
        "(({a} * {b}) {s} ({c}))",
        "({a} {s} {b}) + (({c} / {n}))",
        "(({a} / {b}) * {n}) {s} {c}",
    )
    return rng.choice(forms).format(a=a, b=b, c=c, s=rng.choice("+-"), n=rng.randint(2, 50))


def is_formula(text: str) -> bool:
    """Whether a result of another tool is a formula."""
    try:
        return f" {text[:LONGEST_FORMULA]} ".count(" ") > 3 and isinstance(
            parsed_formula(text), ast.BinOp
        )
    except ValueError:
        return False


def formulas(draw: Callable[[Random], str]) -> Kind:
    """A kind of formulas."""
    return Kind("text", draw, write_plain, is_formula, "formula")


def draw_stored(rng: Random) -> str:
    """Such as {'name': 'Anna', 'pets': ['cat'], 'paid': True}."""
    stored: dict[str, Any] = {
        "name": rng.choice(PEOPLE),
        "age": rng.randint(18, 80),
        "paid": rng.choice((True, False)),
        "items": rng.sample(NOUNS, 2),
        "room": rng.randint(100, 400),
    }
    keys = rng.sample(list(stored), 3)
    return str({key: stored[key] for key in keys})


@asked_for(
    "the quantities that {formula} needs",
    """
    Which quantities does the formula {formula} need?
    I am to work out {formula}. What do I have to find out first?
    + List the variables in {formula}.
    Before the spreadsheet can fill in {formula}, which values must I type?
    + Name all unknowns of {formula}.
    + If I have to compute {formula}, what must be known?
    My invoice uses {formula}. Tell me the inputs.
    Someone wrote {formula} on a napkin. Which names occur in it?
    """,
    formula=formulas(draw_formula),
)
def formula_inputs(formula: str) -> list[str]:
    """The names in a formula, each once, in order.

    formula: as Python writes it
    """
    nodes = [node for node in ast.walk(parsed_formula(formula)) if isinstance(node, ast.Name)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(node.id for node in nodes))


@asked_for(
    "{formula} without needless brackets",
    """
    Which brackets in {formula} can go? Write it without them.
    Simplify the parentheses of {formula}.
    My teacher says {formula} has too many brackets. How would she write it?
    Tidy up {formula}.
    Strip {formula} of the parentheses that change nothing.
    What is the shortest way to write {formula} without reordering it?
    Does {formula} need all its brackets? Show me what is left.
    Multiplication goes first anyway, so clean {formula} of superfluous brackets.
    """,
    formula=formulas(draw_bracketed),
)
def tidy_formula(formula: str) -> str:
    """A formula with the brackets only that it must have.

    formula: as Python writes it
    """
    return ast.unparse(parsed_formula(formula))


@asked_for(
    "the first step in working out {formula}",
    """
    + In {formula}, what is worked out first?
    + When I do {formula} by hand, with which step do I begin?
    + Which part of {formula} takes precedence?
    Going by brackets and by product before sum, where does one start with {formula}?
    Working out {formula} takes several steps. Show me the opening one.
    If a calculator evaluates {formula}, which two things does it combine before all else?
    My pupils get {formula} wrong. Which little sum should they do to start with?
    What does a machine compute to begin with, given {formula}?
    """,
    formula=formulas(draw_stepped),
)
def first_step(formula: str) -> str:
    """The part of a formula that is computed before the rest.

    formula: as Python writes it
    """
    found = parsed_formula(formula)
    if not isinstance(found, ast.BinOp):
        raise ValueError("the formula has no step such as a + b")
    while True:  # the left side is computed before the right one
        parts = [part for part in (found.left, found.right) if isinstance(part, ast.BinOp)]
        if not parts:
            return ast.unparse(found)
        found = parts[0]


@asked_for(
    "the {key} in {stored}",
    """
    What is the {key} in {stored}?
    The old program saved {stored}. I want the {key} from it.
    Look into the Python value {stored} for the {key}.
    {stored} was printed by a script. Which {key} does it hold?
    Read {stored} and give me the {key}.
    A guest is on file as {stored}. Their {key}?
    Take the entry for {key} out of the dict {stored}.
    Someone sent me {stored} and I only need its {key}.
    """,
    stored=made_by(draw_stored),
    key=made_by(lambda rng: rng.choice(("name", "age", "items", "room"))),
)
def stored_value(stored: str, key: str) -> str | int | float | list[str]:
    """A value from a dict as Python prints it.

    stored: the dict's text
    key: whose value is wanted
    """
    try:
        found = ast.literal_eval(parsed_formula(stored))
    except (TypeError, MemoryError, RecursionError):
        raise ValueError("this is no dict") from None
    if not isinstance(found, dict) or key not in found:
        raise ValueError(f"there is no {key}")
    return found[key]
