"""Functions of `bisect` as tools: places in sorted lists."""

import bisect

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import increasing, whole_number

LIST = increasing(1, 100)


def check_sorted(values: list) -> None:
    """Raises ValueError unless the numbers go upwards."""
    if values != sorted(values):
        raise ValueError("the numbers are not sorted")


@asked_for(
    "the number of entries of {values} below {limit}",
    """
    + How many of {values} are below {limit}?
    + Count the entries of {values} smaller than {limit}.
    The scores, from the lowest: {values}. How many failed to reach {limit}?
    Children under {limit} pay half. The ages are {values}. How many pay half?
    + Of {values}, how many lie under {limit}?
    In the sorted list {values}, how many come before {limit}?
    Prices are {values}. I have {limit}; how many things cost less than that?
    + Tell me how many numbers in {values} are less than {limit}.
    """,
    values=LIST,
    limit=whole_number(10, 95),
)
def count_below(values: list[float], limit: float) -> int:
    """How many of some sorted numbers are below a limit.

    values: the numbers, smallest first
    limit: the limit
    """
    check_sorted(values)
    return bisect.bisect_left(values, limit)


@asked_for(
    "{values} with {number} in its place",
    """
    + Put {number} into the sorted list {values}.
    + Insert {number} into {values} so that the order is kept.
    The queue goes by number: {values}. Now {number} arrives. What does the queue look like?
    + Add {number} to {values} at the right place.
    My records are {values}, sorted. I found one more, {number}. Give me the new list.
    + Where {number} fits, slip it into {values} and show all.
    A late runner came in at {number} minutes. The list so far is {values}. Complete it.
    Sort {number} into {values}.
    """,
    values=LIST,
    number=whole_number(1, 100),
)
def insert_sorted(values: list[float], number: float) -> list[float]:
    """Some sorted numbers with one more in its place.

    values: the numbers, smallest first
    number: the number to add
    """
    check_sorted(values)
    longer = list(values)
    bisect.insort(longer, number)
    return longer


@asked_for(
    "the step of {limits} that {value} has reached",
    """
    The levels begin at {limits} points. Which level have I reached with {value}?
    Postage steps start at {limits} grams. In which step is a letter of {value} grams?
    With bonus limits {limits}, how many of them does {value} reach?
    Marks change at {limits}. I have {value} points: how many limits have I passed?
    Which tax bracket is {value} in, if brackets begin at {limits}? Below the first is 0.
    The badges come at {limits} km. I rode {value} km. Number of badges?
    Tell me the rank for {value} when the ranks start at {limits}.
    Thresholds are {limits}. How many are at or below {value}?
    """,
    limits=LIST,
    value=whole_number(10, 95),
)
def level_reached(limits: list[float], value: float) -> int:
    """How many limits a value has reached; below the first it is 0.

    limits: where the levels begin, smallest first
    value: the value
    """
    check_sorted(limits)
    return bisect.bisect_right(limits, value)
