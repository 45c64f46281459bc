"""Functions of `random` as tools: chance that comes out the same whenever the seed is the same."""

import random
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import PEOPLE, Kind, whole_number, word_list, write_list

SEED = whole_number(1, 9999)
SHUFFLED = word_list(3, 6)


def draw_people(rng: Random) -> list[str]:
    return rng.sample(PEOPLE, rng.randint(3, 5))


@asked_for(
    "the one drawn by lot from {entries} with seed {seed}",
    """
    Draw lots between {entries}, with the seed {seed}. Who has to wash up?
    + Pick one of {entries} at random, seed {seed}.
    One cake is left, and these want it: {entries}. Let chance decide, seeded with {seed}.
    Who gets the front seat? In the car are {entries}. Use {seed} as the seed of the draw.
    The raffle has one ticket each for {entries}. With the generator started at {seed}, who wins?
    + Choose blindly from {entries}. So that all can check it, the seed is {seed}.
    Nobody wants to call the landlord. Out of {entries}, let luck with seed {seed} name someone.
    + A random winner among {entries}, please. Seed: {seed}.
    """,
    entries=Kind("words", draw_people, write_list, SHUFFLED.fits),
    seed=SEED,
)
def draw_lots(entries: list[str], seed: int) -> str:
    """One entry of a list, by chance.

    entries: what may be drawn
    seed: where the chance begins
    """
    if not entries:
        raise ValueError("there is nothing to draw from")
    return entries[int(random.Random(seed).random() * len(entries))]


@asked_for(
    "{entries} shuffled with seed {seed}",
    """
    + Shuffle {entries} with seed {seed}.
    The quiz has the words {entries}. Reorder them by chance, seed {seed}.
    + Mix up {entries}. The seed is {seed}.
    Who knows in which order {entries} should be painted? Leave it to luck, with seed {seed}.
    Stir the cards {entries}, seeded with {seed}. How do they lie now?
    I want {entries} in a random sequence that I can repeat with {seed}. What is it?
    My playlist is {entries}. Play it in any old order, as seed {seed} has it.
    + Give me {entries} all jumbled. Start the random numbers at {seed}.
    """,
    entries=SHUFFLED,
    seed=SEED,
)
def shuffle_list(entries: list[str], seed: int) -> list[str]:
    """A list in an order by chance.

    entries: the entries
    seed: where the chance begins
    """
    source = random.Random(seed)
    return sorted(entries, key=lambda entry: source.random())


@asked_for(
    "the throw of {dice} dice with seed {seed}",
    """
    Roll {dice} dice with seed {seed}. What do they show?
    It is my turn to throw {dice} dice. The seed is {seed}. What comes up?
    We lost the dice of our game. Give me {dice} of them, seeded with {seed}.
    + Throw some dice. Begin the random numbers at {seed}; the number of dice is {dice}.
    Shake the cup with the {dice} dice and let seed {seed} decide. What lies on the table?
    I attack with {dice} dice. How many pips does each have, for the seed {seed}?
    Simulate {dice} throws of a die; take {seed} as seed.
    For the maths lesson: {dice} fair dice, random seed {seed}. List the faces.
    """,
    dice=whole_number(2, 6),
    seed=SEED,
)
def roll_dice(dice: int, seed: int) -> list[int]:
    """Numbers from 1 to 6, by chance.

    dice: how many, up to 50
    seed: where the chance begins
    """
    if not 1 <= dice <= 50:
        raise ValueError("there must be 1 to 50 dice")
    source = random.Random(seed)
    return [1 + int(source.random() * 6) for _ in range(dice)]
