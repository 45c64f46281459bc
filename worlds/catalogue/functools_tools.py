"""Functions of `functools` as tools: steps done one after the other, orders by own rules."""

import functools
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, made_by, numbers, whole_number, write_list

SUM_STEPS = {
    "plus": lambda number, by: number + by,
    "minus": lambda number, by: number - by,
    "times": lambda number, by: number * by,
}


def draw_sum_steps(rng: Random) -> list[str]:
    words = [rng.choice(list(SUM_STEPS)) for _ in range(rng.randint(2, 4))]
    return [f"{word} {rng.randint(2, 9 if word == 'times' else 40)}" for word in words]


def draw_sections(rng: Random) -> list[str]:
    """Numbers of sections, some with 10 and more behind the point."""
    chapters = rng.sample(range(1, 13), 2)
    late = f"{chapters[0]}.{rng.randint(10, 14)}"
    early = f"{chapters[0]}.{rng.randint(2, 9)}"
    every = [f"{chapter}.{part}" for chapter in chapters for part in range(1, 15)]
    others = rng.sample([some for some in every if some not in (late, early)], rng.randint(2, 4))
    return rng.sample([late, early, *others], 2 + len(others))


def take_step(number: int, step: str) -> int:
    """A number after a step such as "times 3"."""
    word, _, by = step.partition(" ")
    if word not in SUM_STEPS or not by.isdecimal() or len(by) > 9 or abs(number) > 10**18:
        raise ValueError('a step reads "plus 5", "minus 5" or "times 5", with numbers below 10^9')
    return SUM_STEPS[word](number, int(by))


@asked_for(
    "what {start} becomes by {steps}",
    """
    + Start with {start} and go through {steps}. Where do you end?
    I think of {start}, then {steps}. What have I got?
    A riddle: {start}, and in turn {steps}. The answer is?
    + Apply these to {start}, in the order given: {steps}.
    The till showed {start}. Then came {steps}. What does it show in the end?
    + Take {start} and do {steps}, one after another.
    + After {steps}, what has become of {start}?
    In the number game my card says {start} and the dice say {steps}. What is my result?
    """,
    start=whole_number(2, 60),
    steps=made_by(draw_sum_steps, write_list),
)
def follow_steps(start: int, steps: list[str]) -> int:
    """The number one gets from another by sums and products in turn.

    start: first number
    steps: such as "plus 5", "minus 5" and "times 5"
    """
    return functools.reduce(take_step, steps[:100], start)


@asked_for(
    "the largest number from the cards {cards}",
    """
    + Lay {cards} side by side so that they read as the largest possible number.
    I have number magnets {cards}. What is the biggest figure I can make of all of them?
    + Join {cards} end to end, in the best order, to get as much as possible.
    The children hold signs with {cards}. How must they stand for the highest reading?
    + What is the greatest value you can write by placing {cards} next to each other?
    + Glue {cards} together, without cutting any, into the largest number.
    A game show: tiles {cards}, and the contestant wins the amount they spell. The most is?
    + Put {cards} in a row. Which order gives the largest number when read as one?
    """,
    cards=numbers(1, 98, 3, 5),
)
def largest_from_cards(cards: list[int]) -> int:
    """The largest number that reads off when some are laid in a row.

    cards: the numbers, not negative, up to 20
    """
    if not 1 <= len(cards) <= 20 or min(cards) < 0 or max(cards) > 10**6:
        raise ValueError("wanted 1 to 20 numbers from 0 to 1000000")

    def compare(first: str, second: str) -> int:
        return int(second + first) - int(first + second)

    return int("".join(sorted(map(str, cards), key=functools.cmp_to_key(compare))))


@asked_for(
    "the sections {sections} in order",
    """
    My loose pages are from sections {sections}. In which order do they go?
    Sort {sections} as a table of contents does.
    The computer puts 3.10 ahead of 3.9, which is wrong. Order {sections} properly.
    Arrange the paragraphs {sections} from the front of the book to the back.
    I read {sections} in a muddle. What is the order in the manual?
    Order the releases {sections}, oldest first.
    Put the clauses {sections} of the contract in sequence.
    Someone dropped the folder! Chapters {sections} need sorting by number.
    """,
    sections=Kind("own", draw_sections, write_list),
)
def sort_sections(sections: list[str]) -> list[str]:
    """Numbers of sections, with points in them, in the order of a book.

    sections: such as "2.10"
    """

    def parts(section: str) -> list[int]:
        pieces = section.split(".")
        if not all(piece.isdecimal() and len(piece) < 10 for piece in pieces):
            raise ValueError('a section reads "2.10"')
        return [int(piece) for piece in pieces]

    def compare(first: str, second: str) -> int:
        return (parts(first) > parts(second)) - (parts(first) < parts(second))

    return sorted(sections[:200], key=functools.cmp_to_key(compare))
