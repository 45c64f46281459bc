"""Functions of `itertools` as tools: lists gone through step by step."""

import itertools

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import (
    PEOPLE,
    bracketed,
    made_by,
    named,
    numbers,
    whole_number,
    word_list,
    write_list,
)

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


@asked_for(
    "{entries} in groups of {size}",
    """
    + Divide {entries} into groups of {size}, in this order.
    There are {size} seats to a boat and waiting are {entries}. Who or what sits together?
    I carry {size} things at a time. In which loads do {entries} come upstairs?
    + Break {entries} up into portions of {size}; the last one may be smaller.
    Print {entries} in rows of {size} each.
    {entries} go into boxes that hold {size}. Fill one box after the other and show me them all.
    + What are the batches if I take {size} at a time from {entries}?
    The form has pages with {size} lines each. How are {entries} spread over the pages?
    """,
    entries=word_list(5, 8),
    size=whole_number(2, 4),
)
def in_groups(entries: list[str], size: int) -> list[list[str]]:
    """Cut a list into pieces of one length, the last perhaps shorter.

    entries: the entries
    size: the length of a piece
    """
    if size < 1:
        raise ValueError("the size must be at least 1")
    size = min(size, len(entries) + 1)
    rest = iter(entries)
    return list(iter(lambda: list(itertools.islice(rest, size)), []))


@asked_for(
    "all matches between {players}",
    """
    {players} play chess, everyone once against everyone else. Which games are there?
    List every pair out of {players}.
    At the party {players} shake hands. Who shakes whose hand?
    Which twosomes can be formed from {players}?
    Each of {players} should do one errand with each of the others. Write down the teams.
    Make a fixture list for {players}.
    {players} want to meet two by two, no meeting twice. Which meetings does that take?
    A canoe takes two of {players}. Spell out all the crews it could have.
    """,
    players=made_by(lambda rng: rng.sample(PEOPLE, rng.randint(3, 5)), write_list),
)
def all_pairs(players: list[str]) -> list[str]:
    """Everyone with each of the others, as "one - other".

    players: the names, at most 50
    """
    if len(players) > 50:
        raise ValueError("at most 50 names")
    return [f"{one} - {other}" for one, other in itertools.combinations(players, 2)]


@asked_for(
    "the entries of {first} and {second} in turn",
    """
    Take one from {first}, one from {second}, and so on. What is the order?
    Two queues merge like a zip: {first} and {second}. Who or what comes after whom?
    Alternate between {first} and {second}, beginning with the former.
    My playlist has {first}, yours {second}. Play them by turns, mine first.
    Lay the cards {first} and {second} into one pile, left and right by turns from the left.
    + Weave {first} and {second} together into one list.
    String beads from {first} and {second} so that they take turns, the first kind in front.
    + Interleave {first} with {second}; what is left over goes to the end.
    """,
    first=bracketed(word_list(2, 4)),
    second=bracketed(word_list(2, 4)),
)
def take_turns(first: list[str], second: list[str]) -> list[str]:
    """One list out of two, an entry from each at a time.

    first: the list that begins
    second: the other list
    """
    turns = itertools.chain.from_iterable(itertools.zip_longest(first, second))
    return [entry for entry in turns if entry is not None]


@asked_for(
    "the lengths of the runs in {values}",
    """
    The coin showed {values}. How long was each streak, from the first to the last?
    Split {values} where the side changes and count each part.
    How many of the same come in a row, time after time, in {values}?
    Describe {values} by numbers only: so many alike, then so many of the other, and on.
    What are the lengths of all runs in {values}?
    Squeeze {values} by writing one count per streak.
    A friend wants {values} as "so many of these, so many of those". Which numbers do I tell her?
    Give me, for {values}, the size of every block of equals, in order.
    """,
    values=COIN,
)
def run_lengths(values: list[str]) -> list[int]:
    """For each stretch of equal entries, how many there are.

    values: the entries
    """
    return [len(list(run)) for _, run in itertools.groupby(values)]
