"""Functions of `numbers` as tools: what sort of number something is."""

import numbers
from fractions import Fraction
from math import isfinite
from random import Random
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, made_by, named, write_list

NUMBER_SORTS = {
    "whole": lambda number: isinstance(number, numbers.Integral),
    "fraction": lambda number: (
        isinstance(number, numbers.Rational) and not isinstance(number, numbers.Integral)
    ),
    "decimal": lambda number: (
        isinstance(number, numbers.Real) and not isinstance(number, numbers.Rational)
    ),
    "complex": lambda number: not isinstance(number, numbers.Real),
}


def read_number(text: str) -> numbers.Number:
    """A number as it is written: 3, 2/3, 0.5 or 2+1j."""
    if len(text) > 50:
        raise ValueError("a number may have 50 characters")
    for kind in (int, Fraction if "/" in text else float, complex):
        try:
            number = kind(text)
        except (ValueError, ZeroDivisionError):
            continue
        if isfinite(number.real):
            return number
    raise ValueError(f"{text} is no number")


def draw_mixed_numbers(rng: Random) -> list[str]:
    """Numbers of several sorts."""
    few = [
        str(rng.randint(2, 99)),
        str(rng.randint(2, 99)),
        f"{rng.randint(1, 9)}/{rng.choice((7, 11, 13))}",
        f"{rng.randint(1, 5)}/{rng.choice((8, 10, 12))}",
        f"{rng.randint(1, 99) / 10}",
        f"{rng.randint(1, 99) / 100}",
        f"{rng.randint(1, 9)}+{rng.randint(2, 9)}j",
    ]
    return rng.sample(few, rng.randint(4, 6))


def draw_real_numbers(rng: Random) -> list[str]:
    """Numbers that have an order, one of them a fraction at least."""
    real = [text for text in draw_mixed_numbers(rng) if "j" not in text]
    return real if any("/" in text for text in real) else draw_real_numbers(rng)


def can_be_ordered(texts: list[str]) -> bool:
    """Whether a result of another tool is a list of numbers as texts."""
    try:
        return len(texts) > 1 and all(isinstance(read_number(t), numbers.Real) for t in texts)
    except ValueError:
        return False


MIXED_NUMBERS = made_by(draw_mixed_numbers, write_list)


@asked_for(
    "the {sort} among {values}",
    """
    Which {sort} are there in {values}?
    Pick the {sort} out of {values}.
    The blackboard shows {values}. I have to circle the {sort}. Which ones?
    Of {values}, leave me the {sort} only.
    My maths homework: list the {sort} in {values}.
    Go over {values} and collect all {sort}.
    {values} are mixed up in one box. Where are the {sort}?
    I need the {sort}, nothing else, from {values}.
    """,
    values=MIXED_NUMBERS,
    sort=named(
        {
            "whole": "whole numbers",
            "fraction": "fractions",
            "decimal": "decimals",
            "complex": "complex numbers",
        }
    ),
)
def numbers_of_sort(
    values: list[str], sort: Literal["whole", "fraction", "decimal", "complex"]
) -> list[str]:
    """The numbers of one sort, as they are written.

    values: such as "3", "2/3", "0.5" and "2+1j"
    sort: which sort
    """
    return [text for text in values[:200] if NUMBER_SORTS[sort](read_number(text))]


@asked_for(
    "{values} by size",
    """
    + Order {values} from the least to the greatest.
    Which is smallest, which next, in {values}? Give the whole row.
    Some of my friends write fractions, some decimals: {values}. Rank them by size.
    + Line {values} up, low to high.
    Pour the spoonfuls {values}, the tiniest first. In what order?
    Drill bits in inches: {values}. Sort them from thin to thick.
    A child should put the cards {values} on a number line. What is the right order?
    + Compare {values} and write them in increasing order.
    """,
    values=Kind("words", draw_real_numbers, write_list, can_be_ordered, "cards"),
)
def order_by_size(values: list[str]) -> list[str]:
    """Fractions, decimals and whole numbers in rising order, as they are written.

    values: such as "3", "2/3" and "0.5"
    """
    found = [(read_number(text), text) for text in values[:200]]
    if not all(isinstance(number, numbers.Real) for number, _ in found):
        raise ValueError("complex numbers have no order")
    return [text for _, text in sorted(found)]
