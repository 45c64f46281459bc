"""Functions of `decimal` as tools: money and rounding, without the errors of binary fractions."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import decimal, whole_number

CENT = Decimal("0.01")
PRICE = decimal(5, 400, 2)
PERCENT = whole_number(3, 45)


def rounded(value: Decimal, unit: Decimal = CENT) -> float:
    """To the nearest unit, halves up. Raises ValueError for what is too large."""
    try:
        return float(value.quantize(unit, ROUND_HALF_UP))
    except InvalidOperation:
        raise ValueError("the number has too many digits") from None


@asked_for(
    "{price} plus {percent} percent",
    """
    + What is {price} plus {percent} percent?
    The net price is {price} and tax is {percent}%. What do I pay?
    + Add {percent}% to {price}.
    Rent is {price} and goes up by {percent} percent. What will it be?
    + Raise {price} by {percent}%.
    The meal was {price}; with a tip of {percent} percent, how much is that?
    I resell for {percent}% more than the {price} I paid. At which price?
    With {percent}% VAT on top, how much is {price}?
    """,
    price=PRICE,
    percent=PERCENT,
)
def add_percent(price: float, percent: int) -> float:
    """A price raised by a percentage, in cents.

    price: the price
    percent: what is added, in percent
    """
    return rounded(Decimal(str(price)) * (100 + percent) / 100)


@asked_for(
    "{price} less {percent} percent",
    """
    + What is {price} less {percent} percent?
    A coat costs {price}, now with {percent}% off. What is the new price?
    + Take {percent}% off {price}.
    My ticket is {price} and students get {percent} percent discount. How much do I pay?
    + Lower {price} by {percent}%.
    The dealer gives {percent} percent rebate on {price}. What is left to pay?
    With a voucher for {percent}% off, how much is {price}?
    Sale! {percent} percent down from {price}. Which price is that?
    """,
    price=PRICE,
    percent=PERCENT,
)
def subtract_percent(price: float, percent: int) -> float:
    """A price lowered by a percentage, in cents.

    price: the price
    percent: what is taken off, in percent
    """
    return rounded(Decimal(str(price)) * (100 - percent) / 100)


@asked_for(
    "the share of each of {people} people in {total}",
    """
    + Split {total} evenly among {people} people. How much is each share?
    The bill comes to {total} and we are {people}. What does everyone pay?
    {people} friends bought a present for {total}. How much per head?
    + Divide {total} by {people} people, to the cent.
    We share the taxi, {total} for {people} of us. My part?
    + What is one share if {total} is shared by {people}?
    Our flat has {people} tenants and the heating cost {total}. How much for each?
    Dinner was {total}. There were {people} of us, all paying the same. How much?
    """,
    total=decimal(20, 900, 2),
    people=whole_number(3, 12),
)
def split_bill(total: float, people: int) -> float:
    """The equal share of each person, in cents.

    total: what is to be paid
    people: how many pay
    """
    if people < 1:
        raise ValueError("there must be somebody to pay")
    return rounded(Decimal(str(total)) / people)


@asked_for(
    "{number} rounded to {places} decimal places",
    """
    + Round {number} to {places} decimal places.
    + What is {number} with {places} digits after the point?
    The form has room for {places} decimals. What do I enter for {number}?
    + Give {number} to {places} decimal places, halves up.
    My scale says {number}. Rounded to {places} places, what is that?
    + Shorten {number} to {places} decimals, properly rounded.
    For the report, {number} should have {places} decimal places.
    Cut the tail off {number}: {places} places, rounded, are plenty.
    """,
    number=decimal(0.1, 90, 5),
    places=whole_number(2, 4),
)
def round_to(number: float, places: int) -> float:
    """Round to some decimal places, halves up.

    number: the number
    places: decimal places, up to 12
    """
    if not 0 <= places <= 12:
        raise ValueError("places must be from 0 to 12")
    return rounded(Decimal(str(number)), Decimal(1).scaleb(-places))
