"""Functions of `itertools` as tools: lists gone through step by step."""

import itertools

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by, named, numbers, whole_number, word_list, write_list

COIN = made_by(
    lambda rng: [rng.choice(("heads", "tails")) for _ in range(rng.randint(6, 10))], write_list
)


@asked_for(
    "the running totals of {values}",
    """
    + What are the running totals of {values}?
    + Add up {values} step by step and show every subtotal.
    I saved {values} euros month by month. How much did I have after each month?
    + Give me the cumulative sums of {values}.
    We walked {values} km on the days of our trip. How far had we come each evening?
    My sales per week were {values}. List the sum so far for every week.
    + Make a running sum out of {values}.
    The dice showed {values}; what was my score after each throw?
    """,
    values=numbers(1, 60),
)
def running_totals(values: list[int]) -> list[int]:
    """The sums so far, after each number.

    values: the numbers
    """
    return list(itertools.accumulate(values))


@asked_for(
    "the longest run in {values}",
    """
    What is the longest run of equal entries in {values}?
    The coin fell {values}. How many times in a row did the same side come at most?
    How long is the longest streak in {values}?
    Look at {values}: the greatest number of equal ones next to each other is what?
    I tossed {values}. Give me the length of the longest streak.
    Find the longest stretch without a change in {values}.
    Count the longest series of the same result in {values}.
    Is that random? {values}. Tell me the longest repetition in a row.
    """,
    values=COIN,
)
def longest_run(values: list[str]) -> int:
    """The length of the longest run of equal entries.

    values: the entries
    """
    return max((len(list(run)) for _, run in itertools.groupby(values)), default=0)


@asked_for(
    "the number of pairs in {values} that add up to {total}",
    """
    How many pairs out of {values} add up to {total}?
    Count the ways to pick two of {values} with the sum {total}.
    I have weights of {values} kg. With how many pairs can I make {total} kg?
    In {values}, how many twos sum to {total}?
    Two cards out of {values} must total {total}. How many choices are there?
    Check all pairs from {values}: how often is the sum {total}?
    Which number of pairs from {values} reaches {total} exactly?
    For the puzzle, count pairs of {values} that make {total}.
    """,
    values=numbers(1, 9, 6, 9),
    total=whole_number(8, 12),
)
def pairs_with_sum(values: list[int], total: int) -> int:
    """Count the pairs of entries with a sum.

    values: the numbers, at most 1000
    total: the sum
    """
    if len(values) > 1000:
        raise ValueError("at most 1000 numbers")
    return sum(first + second == total for first, second in itertools.combinations(values, 2))


@asked_for(
    "every {step} entry of {entries}",
    """
    Take every {step} entry of {entries}, beginning with the first.
    From {entries}, keep the first and then every {step} one.
    I read every {step} item of {entries}. Which ones do I read?
    Thin out {entries}: the first stays, and each {step} after it.
    Only every {step} of {entries} gets a prize, starting at the front. Who or what gets one?
    List each {step} element in {entries}, from the first on.
    Walk through {entries} and write down every {step} one. Begin with the first.
    Sample {entries}, taking the first and every {step} from there.
    """,
    entries=word_list(5, 8),
    step=named({2: "second", 3: "third"}),
)
def every_nth(entries: list[str], step: int) -> list[str]:
    """Every second, third, ... entry, from the first on.

    entries: the entries
    step: 2 for every second
    """
    if step < 1:
        raise ValueError("the step must be at least 1")
    return list(itertools.islice(entries, 0, None, step))
