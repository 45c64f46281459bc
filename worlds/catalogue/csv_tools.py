"""Functions of `csv` as tools: lines of tables, separated by commas."""

import csv
import io
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PEOPLE, in_quotes, made_by, whole_number, word_list

TOWNS = "Lisbon Prague Oslo Vienna Dublin Athens Turin Ghent".split()


def draw_row(rng: Random) -> str:
    """A line such as Anna,"Oslo, harbour",42,apple"""
    town = rng.choice(TOWNS)
    if rng.random() < 0.5:
        town = f'"{town}, {rng.choice(NOUNS)}"'
    return f"{rng.choice(PEOPLE)},{town},{rng.randint(18, 90)},{rng.choice(NOUNS)}"


ROW = made_by(draw_row, lambda rng, row: f"'{row}'")


@asked_for(
    "column {column} of {line}",
    """
    What stands in column {column} of the CSV line {line}?
    Read field number {column} from {line}.
    Get me value {column} of this comma-separated row: {line}.
    My table has the row {line}. Which entry is in column {column}?
    Column {column} of {line}, please; mind the quotes.
    Pick entry {column} out of the CSV record {line}.
    I exported {line} and need only what is in field {column}.
    The first column is 1. What do I find in column {column} of {line}?
    """,
    line=ROW,
    column=whole_number(1, 4),
)
def csv_field(line: str, column: int) -> str:
    """One field of a CSV line.

    line: the CSV line
    column: the field's number, from 1
    """
    fields = next(csv.reader([line]))
    if not 1 <= column <= len(fields):
        raise ValueError(f"there are {len(fields)} columns")
    return fields[column - 1]


@asked_for(
    "{fields} as a line with {separator} between",
    """
    Write {fields} as one CSV line with {separator} between the fields.
    + Put {fields} into a single row, separated by {separator}.
    I have {fields} and need a line for my spreadsheet, separator {separator}. How does it look?
    Make a record out of {fields}; use {separator} as the delimiter.
    + Join {fields} into a CSV row delimited with {separator}.
    The import wants {separator} between values. Give me the row for {fields}.
    Which line do I append for {fields} if columns are divided by {separator}?
    + Format {fields} as a CSV record whose delimiter is {separator}.
    """,
    fields=word_list(3, 5),
    separator=made_by(lambda rng: rng.choice(";|:"), in_quotes),
)
def csv_line(fields: list[str], separator: str = ",") -> str:
    """Write fields as one CSV line.

    fields: the fields
    separator: one character between them
    """
    written = io.StringIO()
    csv.writer(written, delimiter=separator, lineterminator="").writerow(fields)
    return written.getvalue()
