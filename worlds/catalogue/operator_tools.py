"""Functions of `operator` as tools: sharing out, what remains, and what many cost."""

import operator

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import decimal, whole_number

ITEMS = whole_number(30, 900)
SIZE = whole_number(4, 24)


def check_size(size: int) -> None:
    """Raises ValueError for parts of nothing."""
    if size < 1:
        raise ValueError("the size must be at least 1")


@asked_for(
    "the number of full groups of {size} from {items}",
    """
    Eggs go in cartons of {size} and I have {items} eggs. How many cartons can I fill?
    + How many times does {size} go into {items}?
    + Divide {items} by {size} and forget the rest.
    {items} chairs, {size} to a row: how many complete rows can I set up?
    A roll is {items} cm long and each ribbon takes {size}. How many ribbons do I get out of it?
    We are {items} and play in teams of {size}. At most how many teams?
    + Cut {items} into pieces of {size}. How many whole pieces are there?
    One ride costs {size} coins. I have {items} coins. How often can I ride?
    """,
    items=ITEMS,
    size=SIZE,
)
def full_groups(items: int, size: int) -> int:
    """The whole part of a division: how often one number holds another.

    items: how many there are
    size: how many make one group
    """
    check_size(size)
    return operator.floordiv(items, size)


@asked_for(
    "what is left over from {items} in groups of {size}",
    """
    I pack {items} apples into bags of {size}. How many stay loose?
    + What remains when {items} is divided by {size}?
    {items} children line up in rows of {size}. How many do not fill a row?
    + Take {size} away from {items} as often as it goes. Where do I end?
    There are {size} of us and {items} cards. Dealt evenly, how many cards stay on the table?
    + Give me {items} modulo {size}.
    I need lengths of {size} cm from {items} cm of string. How much do I throw away?
    Share {items} marbles among {size} friends, the same for all. How many cannot be shared?
    """,
    items=ITEMS,
    size=SIZE,
)
def left_over(items: int, size: int) -> int:
    """The rest of a division without decimals.

    items: how many there are
    size: how many make one group
    """
    check_size(size)
    return operator.mod(items, size)


@asked_for(
    "the cost of {count} at {price} each",
    """
    What do {count} tickets at {price} come to?
    Parking is {price} a day and I stayed for {count} days. What do I owe?
    + Multiply {price} by {count}.
    The gym takes {price} a month. How much do I spend there in {count} months?
    Everybody at the table pays {price}, and there are {count} of us. What does the waiter collect?
    + How much is {count} times {price}?
    A metre of this cloth costs {price}. The curtains need {count} metres. Will you do the sum?
    I sold {count} jars of jam for {price} apiece. How much did I take in?
    """,
    price=decimal(0.5, 60, 2),
    count=whole_number(2, 40),
)
def cost_of(price: float, count: int) -> float:
    """The price of several things that cost the same.

    price: what one costs
    count: how many there are
    """
    if abs(price) > 1e9 or abs(count) > 1e9:
        raise ValueError("only numbers up to a billion")
    return round(operator.mul(price, count), 2)
