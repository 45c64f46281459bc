"""Functions of `logging` as tools: notes of more and less weight."""

import logging
from random import Random
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by, named

NOTE_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")  # in rising order
NOTED_THINGS = (
    "boiler lift fridge pump gate router oven alarm garage cellar greenhouse chimney freezer "
    "doorbell generator"
).split()


def draw_notes(rng: Random) -> list[str]:
    places = rng.sample(NOTED_THINGS, rng.randint(3, 5))
    return [f"{rng.choice(NOTE_LEVELS)} {place}" for place in places]


def draw_different_notes(rng: Random) -> list[str]:
    """Notes of which no two have the same weight."""
    places = rng.sample(NOTED_THINGS, rng.randint(3, 4))
    levels = rng.sample(NOTE_LEVELS, len(places))
    return [f"{level} {place}" for level, place in zip(levels, places, strict=True)]


def write_notes(rng: Random, notes: list[str]) -> str:
    """As a list, or one after the other."""
    return f"[{', '.join(notes)}]" if rng.random() < 0.3 else "; ".join(notes)


def weight_of(note: str) -> int:
    """The number that stands for the level at a note's start."""
    level = note.partition(" ")[0]
    if level not in NOTE_LEVELS:
        raise ValueError(f"a note begins with one of {', '.join(NOTE_LEVELS)}")
    return logging.getLevelName(level)


@asked_for(
    "the notes of {level} and above in {notes}",
    """
    From {notes}, show me {level} and above.
    The house wrote {notes}. Which of it is at least {level}?
    I was away. Tell me what happened, {level} or more serious: {notes}
    Drop all that ranks under {level}: {notes}
    What gets through a filter set to {level}, out of {notes}?
    My phone only rings for {level} and up. For which of {notes} does it ring?
    The caretaker reads {level} and higher. Which of these does he see: {notes}?
    Set the threshold to {level} and go through {notes}.
    """,
    notes=made_by(draw_notes, write_notes),
    level=named({level: level for level in NOTE_LEVELS[1:]}),
)
def notes_from_level(
    notes: list[str], level: Literal["INFO", "WARNING", "ERROR", "CRITICAL"]
) -> list[str]:
    """The notes that are as serious as a level, or more.

    notes: each beginning with its level, as in "ERROR boiler"
    level: the lowest level to keep
    """
    return [note for note in notes[:200] if weight_of(note) >= weight_of(level)]


@asked_for(
    "the gravest of the notes {notes}",
    """
    Which of these is the worst: {notes}?
    I can deal with one thing tonight. What is most urgent in {notes}?
    The alarm panel lists {notes}. What should the guard look at first?
    {notes}: where does it burn?
    Of {notes}, name the gravest one.
    Find the top problem in {notes}.
    If I read only a single line of {notes}, which one matters most?
    Tell me the most severe message in {notes}.
    """,
    notes=made_by(draw_different_notes, write_notes),
)
def most_serious(notes: list[str]) -> str:
    """The note with the highest level.

    notes: each beginning with its level, as in "ERROR boiler"
    """
    if not notes:
        raise ValueError("there are no notes")
    return max(notes[:200], key=weight_of)
