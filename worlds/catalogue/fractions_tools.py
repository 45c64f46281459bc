"""Functions of `fractions` as tools: fractions kept exact."""

from fractions import Fraction
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, decimal, whole_number, write_plain


def draw_fraction(rng: Random) -> str:
    below = rng.choice((2, 3, 4, 5, 6, 8, 9, 10, 12))
    return f"{rng.randint(1, below - 1)}/{below}"


def is_fraction(value: str) -> bool:
    above, _, below = value.partition("/")
    return above.isdigit() and below.isdigit()


FRACTION = Kind("text", draw_fraction, write_plain, is_fraction, "fraction")


def read_fraction(text: str) -> Fraction:
    """The fraction in a text of at most 40 characters; raises ValueError where there is none."""
    if len(text) > 40 or "e" in text.lower():
        raise ValueError("write a fraction as 3/4")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError("nothing can be divided by 0") from None


@asked_for(
    "the sum of {first} and {second}",
    """
    + What is {first} plus {second}, as a fraction?
    + Add {first} and {second}.
    One jug holds {first} litre, another {second}. How much is that together, as a fraction?
    I practised {first} of an hour yesterday and {second} today. Which fraction of an hour in all?
    + Give me the exact sum of {first} and {second}.
    The recipe takes {first} cup of milk and {second} cup of cream. How many cups of liquid?
    + Sum up the fractions {first} and {second}.
    {first} of the cake is gone and {second} is promised. Which part is that in total?
    """,
    first=FRACTION,
    second=FRACTION,
)
def add_fractions(first: str, second: str) -> str:
    """The sum of two fractions.

    first: a fraction, e.g. 3/4
    second: another fraction
    """
    return str(read_fraction(first) + read_fraction(second))


@asked_for(
    "{first} of {second}",
    """
    + How much is {first} of {second}, as a fraction?
    + Multiply {first} by {second}.
    The tank is {second} full and we use {first} of that. Which part of the tank do we use?
    + Find {first} times {second} as a fraction.
    {second} of the class came, and {first} of those sang. What fraction of the class sang?
    She owns {second} of the land and sells {first} of her share. What part of the land is sold?
    I have {second} of a pizza and eat {first} of it. Which fraction of the pizza is that?
    + Work out the product of {first} and {second}, reduced.
    """,
    first=FRACTION,
    second=FRACTION,
)
def multiply_fractions(first: str, second: str) -> str:
    """The product of two fractions.

    first: a fraction, e.g. 3/4
    second: another fraction
    """
    return str(read_fraction(first) * read_fraction(second))


@asked_for(
    "{above}/{below} in lowest terms",
    """
    Reduce {above}/{below} to lowest terms.
    Simplify the fraction {above}/{below}.
    {above} of {below} people said yes. Which fraction is that, in its simplest form?
    What is {above} over {below}, cancelled down?
    I got {above} out of {below} points. Write that as a reduced fraction.
    Cancel {above}/{below} as far as it goes.
    Our team won {above} of {below} games. Give the share as a fraction in lowest terms.
    Can {above}/{below} be written with smaller numbers? Show me.
    """,
    above=whole_number(6, 96),
    below=whole_number(12, 144),
)
def reduce_fraction(above: int, below: int) -> str:
    """A fraction in lowest terms.

    above: the numerator
    below: the denominator
    """
    if below == 0:
        raise ValueError("nothing can be divided by 0")
    return str(Fraction(above, below))


@asked_for(
    "the fraction nearest to {number} with a denominator up to {largest}",
    """
    + Which fraction with a denominator of at most {largest} comes nearest to {number}?
    + Approximate {number} by a fraction; the denominator may be up to {largest}.
    My gears allow a ratio over {largest} at most. Which one is closest to {number}?
    + Write {number} as a simple fraction, denominator no larger than {largest}.
    The ruler has no decimals. What is {number} as a fraction over {largest} or less?
    Find a good fraction for {number} whose denominator does not exceed {largest}.
    I need {number} as a ratio of small numbers, the lower one up to {largest}.
    Turn {number} into the best fraction you can with at most {largest} below the line.
    """,
    number=decimal(0.05, 6, 4),
    largest=whole_number(8, 60),
)
def nearest_fraction(number: float, largest: int) -> str:
    """The fraction that is nearest to a number.

    number: the number
    largest: the largest denominator allowed
    """
    return str(Fraction(str(number)).limit_denominator(largest))
