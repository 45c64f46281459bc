"""Functions of `heapq` as tools: the largest and the smallest of many."""

import heapq

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import bracketed, increasing, numbers, whole_number

VALUES = numbers(1, 200, 6, 9)
COUNT = whole_number(2, 4)


@asked_for(
    "the {count} largest of {values}",
    """
    + What are the {count} largest of {values}?
    + Give me the top {count} of {values}, the highest first.
    Points in the finals: {values}. The best {count} get medals; which scores are those?
    + Pick the {count} highest numbers from {values}.
    Our {count} dearest bills out of {values}, please, beginning with the dearest.
    + From {values}, take the greatest {count} in falling order.
    I keep only my {count} best throws of {values} metres. Which ones, best first?
    Which {count} values stand out at the top of {values}?
    """,
    values=VALUES,
    count=COUNT,
)
def largest(values: list[float], count: int) -> list[float]:
    """The largest numbers, the largest first.

    values: the numbers
    count: how many of them
    """
    return heapq.nlargest(count, values)


@asked_for(
    "the {count} smallest of {values}",
    """
    + What are the {count} smallest of {values}?
    + Give me the bottom {count} of {values}, the lowest first.
    Lap times were {values}. Show the fastest {count}, quickest first.
    + Pick the {count} lowest numbers from {values}.
    I was offered {values} euros for the repair. Which are the {count} cheapest, in order?
    + From {values}, take the least {count} in rising order.
    The {count} lightest parcels of {values} grams go by bike. Which weights are they?
    Find the {count} minimum values of {values}.
    """,
    values=VALUES,
    count=COUNT,
)
def smallest(values: list[float], count: int) -> list[float]:
    """The smallest numbers, the smallest first.

    values: the numbers
    count: how many of them
    """
    return heapq.nsmallest(count, values)


@asked_for(
    "{first} and {second} merged",
    """
    + Merge the sorted lists {first} and {second} into one.
    + Combine {first} and {second} so that the numbers go upwards.
    Two queues, {first} and {second}, become one. In which order do the numbers stand?
    Both lists are sorted: {first}; {second}. What is the sorted list of all?
    I dealt two piles, {first} and {second}. Put them together in order.
    + Make a single rising list from {first} and {second}.
    Zip {first} and {second} together, smallest first.
    Trains leave platform 1 at minutes {first} and platform 2 at {second}. All departures in order?
    """,
    first=bracketed(increasing(1, 60)),
    second=bracketed(increasing(1, 60)),
)
def merge_sorted(first: list[float], second: list[float]) -> list[float]:
    """Two sorted lists as one.

    first: one list, smallest first
    second: the other list, smallest first
    """
    return list(heapq.merge(first, second))
