"""Functions of `array` as tools: rows of numbers turned round, searched and thinned."""

import array
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, numbers, whole_number, write_list


def draw_places(rng: Random) -> list[int]:
    """Different numbers in any order."""
    return rng.sample(range(1, 25), rng.randint(4, 7))


FINISHERS = Kind("numbers", draw_places, write_list, numbers(1, 24).fits)
ONE = whole_number(1, 24)


def row_of(values: list[float]) -> array.array:
    """The numbers as an array: whole ones stay whole. Raises ValueError for too large ones."""
    whole = all(isinstance(value, int) for value in values)
    try:
        return array.array("q" if whole else "d", values)
    except OverflowError:
        raise ValueError("the numbers are too large") from None


@asked_for(
    "the reverse of {values}",
    """
    The stops on my way out are {values}. Now I travel back. In which order do I pass them?
    + Turn {values} round, last first.
    + Read {values} backwards.
    The scores {values} are listed newest first. I'd like the oldest at the top.
    My round goes past the houses {values}. Tomorrow I begin with the last one. Give me the order.
    + Reverse {values}.
    Somebody filed the pages {values} the wrong way about. How do they go?
    Dancers {values} came in one by one. Whoever came in last leaves first. Who follows whom?
    """,
    values=FINISHERS,
)
def reverse_numbers(values: list[float]) -> list[float]:
    """Some numbers in the opposite order.

    values: the numbers
    """
    row = row_of(values)
    row.reverse()
    return row.tolist()


@asked_for(
    "{values} without the first {number}",
    """
    + Strike {number} from {values}.
    Raffle tickets {values} are still in the drum. Number {number} comes out. Which remain?
    The seats {values} were free, then somebody took {number}. What can I still book?
    I play {values} every week, but {number} never wins. Give me the rest.
    + Leave {number} out of {values}.
    On my bingo card are {values}, and {number} was just called. What is left to wait for?
    Locker {number} has been given back. The rented ones were {values}. Bring the list up to date.
    + Delete {number} from {values}, once.
    """,
    values=FINISHERS,
    number=ONE,
)
def remove_number(values: list[float], number: float) -> list[float]:
    """Some numbers with one taken out, where it stands first.

    values: the numbers
    number: the one to take out
    """
    row = row_of(values)
    if number not in row:
        raise ValueError(f"{number} is not among them")
    row.remove(number)
    return row.tolist()


@asked_for(
    "the place of {number} in {values}",
    """
    The runners crossed the line in the order {values}. At what place did number {number} come in?
    + At which place in {values} does {number} stand?
    The doctor calls the numbers {values}, one after the other. I hold {number}. When is my turn?
    Trams arrive in the order {values}. Counting from one, which of them is the {number}?
    + Find the position of {number} in {values}, where the first has position 1.
    The books on the shelf are volumes {values}. How far along is volume {number}?
    + I know that {number} is in {values}. Which one from the left is it?
    The balls drawn were {values}. Was {number} the first, the second, the third...?
    """,
    values=FINISHERS,
    number=ONE,
)
def place_of_number(values: list[float], number: float) -> int:
    """Where a number first stands in a list; the beginning is 1.

    values: the list
    number: the number to look for
    """
    row = row_of(values)
    if number not in row:
        raise ValueError(f"{number} is not in the list")
    return row.index(number) + 1
