"""Functions of `json` as tools: values in JSON documents."""

import json
from random import Random
from typing import Any

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, PEOPLE, Kind, backquoted, made_by

FIELDS = ("name", "age", "city", "item", "price")


def draw_record(rng: Random) -> dict:
    values = {
        "name": rng.choice(PEOPLE),
        "age": rng.randint(18, 90),
        "city": rng.choice(("Lyon", "Turin", "Porto", "Graz", "Bergen")),
        "item": rng.choice(NOUNS),
        "price": rng.randint(20, 900) / 10,
    }
    return {key: values[key] for key in rng.sample(FIELDS, 3)}


DOCUMENT = Kind("document", lambda rng: json.dumps(draw_record(rng)), backquoted)
ROWS = Kind(
    "document",
    lambda rng: json.dumps(
        [{"item": rng.choice(NOUNS), "n": rng.randint(1, 60)} for _ in range(3)]
    ),
    backquoted,
)
FIELD = made_by(lambda rng: rng.choice(FIELDS))


@asked_for(
    "the {key} in {document}",
    """
    What is the {key} in the JSON {document}?
    Read {key} out of {document}.
    The server answered {document}. I want the {key}.
    Get the value under {key} from this JSON: {document}.
    In {document}, what stands for {key}?
    Parse {document} and give me its {key}.
    A customer record: {document}. Which {key} does it have?
    I only need {key} from {document}, please.
    """,
    document=DOCUMENT,
    key=FIELD,
)
def json_value(document: str, key: str) -> Any:
    """The value of a key in a JSON object.

    document: the JSON text
    key: the key
    """
    found = json.loads(document)
    if not isinstance(found, dict) or key not in found:
        raise ValueError(f"there is no {key}")
    return found[key]


@asked_for(
    "the keys of {document}",
    """
    Which keys does {document} have?
    List the field names in {document}.
    I got {document}. What fields does it come with?
    Show me the keys of the JSON object {document}, in their order.
    What could I ask {document} for? Just name its keys.
    For the table's head I need the keys in {document}.
    Find out which names the values in {document} go by.
    Give me the keys, not the values, of {document}.
    """,
    document=DOCUMENT,
)
def json_keys(document: str) -> list[str]:
    """The keys of a JSON object, in order.

    document: the JSON text
    """
    found = json.loads(document)
    if not isinstance(found, dict):
        raise ValueError("the document is no object")
    return list(found)


@asked_for(
    "the sum of {key} over {rows}",
    """
    Add up all values of {key} in {rows}.
    What is the total of {key} over the rows {rows}?
    The stock list reads {rows}. How much is {key} altogether?
    Sum the field {key} in this JSON list: {rows}.
    Our order is {rows}; {key} is the count. How many pieces in all?
    Take {rows} and total up {key}.
    Over all entries of {rows}, what does {key} come to?
    Give me the sum of every {key} in {rows}.
    """,
    rows=ROWS,
    key=made_by(lambda rng: "n"),
)
def json_total(rows: str, key: str) -> float:
    """The sum of a key's values in a JSON list of objects.

    rows: the JSON text
    key: the key
    """
    return sum(row[key] for row in json.loads(rows))
