"""Calls that are wrong on purpose: hard negatives (paper section 3.1, "Negative Constraint
Sampling") and slips.
"""

import random
import re
from collections.abc import Callable
from typing import Any

from worlds.calls import check_call

# ---------------------------------------------------------------------------------- hard negatives

NEGATIVE_KINDS = {"type": "type", "key": "unexpected", "logic": None}  # kind: the fault check finds
INVENTED_KEYS = (  # that models like to make up
    "limit",
    "format",
    "verbose",
    "id",
    "mode",
    "user",
    "timeout",
    "strict",
)


def hard_negatives(
    call: dict, tools: list[dict], rng: random.Random, task: Any = None
) -> dict[str, dict]:
    """Three wrong versions of a correct call: {"type": ..., "key": ..., "logic": ...}.

    "type" gives an argument a value of another type, "key" adds an argument that the schema does
    not have, "logic" obeys the schema and makes no sense here (the world's own traps first, then
    swapped or shifted values). With `task` (a worlds.base.Task whose solution holds the call) each
    is executed and kept only if it goes wrong there; without, "type" and "key" are wrong by
    check_call. A kind is absent where the call has none: no argument to spoil, or no spoilt version
    that fails.
    """
    functions = [tool["function"] for tool in tools]
    function = next(function for function in functions if function["name"] == call["name"])
    properties = function.get("parameters", {}).get("properties", {})

    def allows(name: str) -> bool:  # a made-up name must not be one that is held out
        return task is None or task.allows(name)

    candidates = {
        "type": _wrong_types(call["arguments"], rng),
        "key": _wrong_keys(call["arguments"], properties, rng, allows),
        "logic": _wrong_values(call["arguments"], properties, rng),
    }
    negatives = {}
    for kind, fault in NEGATIVE_KINDS.items():
        wrong_calls = [{"name": call["name"], "arguments": some} for some in candidates[kind]]
        if kind == "logic" and task is not None:
            traps = task.wrong_calls(call)
            wrong_calls = rng.sample(traps, len(traps)) + wrong_calls
        wanted = {fault} if fault else set()
        for wrong in wrong_calls:
            found = {found.kind for found in check_call(wrong, tools)}
            if found != wanted or wrong == call:
                continue
            if task is None or task.fails(call, wrong):
                negatives[kind] = wrong
                break
    return negatives


def _wrong_types(arguments: dict, rng: random.Random) -> list[dict]:
    """The arguments with one value of another type each, numbers as strings first (the paper's own
    example).
    """

    def other(value: Any) -> Any:
        if type(value) in (int, float, bool):
            return str(value).lower()
        return rng.randrange(10, 100) if isinstance(value, str) else str(value)

    keys = rng.sample(list(arguments), len(arguments))
    keys.sort(key=lambda key: isinstance(arguments[key], str))
    return [{**arguments, key: other(arguments[key])} for key in keys]


def _wrong_keys(
    arguments: dict, properties: dict, rng: random.Random, allows: Callable[[str], bool]
) -> list[dict]:
    """The arguments with one more each: a misspelt twin of a real one, or one of INVENTED_KEYS."""
    invented = rng.sample(INVENTED_KEYS, len(INVENTED_KEYS))
    if properties:
        key = rng.choice(list(properties))
        twins = [key[:-1] + letter for letter in rng.sample("aeiou", 5)]
        twins = [twin for twin in twins if twin != key and allows(twin)]
        place = rng.randrange(2)
        invented[place:place] = twins[:1]
    value = rng.choice(list(arguments.values())) if arguments else rng.randrange(10, 100)
    return [{**arguments, key: value} for key in invented if key not in properties]


def _wrong_values(arguments: dict, properties: dict, rng: random.Random) -> list[dict]:
    """The arguments with values of the right types that are not the right ones: swapped, off by
    one, another choice, a past date.
    """
    keys = rng.sample(list(arguments), len(arguments))
    swapped = []
    for a in keys:
        for b in keys:
            first, second = arguments[a], arguments[b]
            if a < b and type(first) is type(second) and first != second:
                swapped.append({**arguments, a: second, b: first})
    changed = [
        {**arguments, key: _another(arguments[key], properties.get(key, {}), rng)} for key in keys
    ]
    if rng.random() < 0.5:
        return [*swapped[:1], *changed, *swapped[1:]]
    return [*changed, *swapped]


def _another(value: Any, schema: dict, rng: random.Random) -> Any:
    """Another value of the same type that the schema allows, as far as there is one."""
    choices = [choice for choice in schema.get("enum", []) if choice != value]
    if choices:
        return rng.choice(choices)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + rng.choice((-1, 1))
    if isinstance(value, str):
        year = re.search(r"\b(1[89]|20)\d\d\b", value)
        if year:
            return value.replace(year[0], str(int(year[0]) - 100))
        return " ".join([*value.split()[:-1], "xx" + value[-1:]])
    if isinstance(value, list):
        return [_another(value[0], {}, rng), *value[1:]] if value else [0]
    if isinstance(value, dict):
        return {key: _another(inner, {}, rng) for key, inner in value.items()}
    return value


# ------------------------------------------------------------------------------------------- slips


def slip(
    content: str, call: dict, tools: list[dict], rng: random.Random, name: Callable[[set[str]], str]
) -> tuple[str, dict] | None:
    """The same words and call as if the schemas had been misread.

    The tool or an argument goes by another name in words and call alike, an argument is missing,
    one is too many, or one is of another type. `name` draws a name that is not in a set. None where
    check_call would accept the call.
    """
    schemas = {}
    for tool in tools:
        function = tool["function"]
        schemas[function["name"]] = function.get("parameters", {}).get("properties", {})
    arguments = call["arguments"]
    every_key = {key for properties in schemas.values() for key in properties}
    foreign = sorted(every_key - {*schemas[call["name"]]})  # keys of other tools
    made_up = name({*schemas, *every_key})
    kind = rng.choices(("tool", "argument", "missing", "more", "type"), (3, 3, 1, 1, 1))[0]
    key = rng.choice(list(arguments) or [""])

    words = content
    if kind == "tool":
        words = _replaced(content, call["name"], made_up)
        wrong = {**call, "name": made_up}
    elif not arguments:
        return None
    elif kind == "argument":
        new = rng.choice(foreign) if foreign and rng.random() < 0.5 else made_up
        words = _replaced(content, key, new)
        spoilt = {new if old == key else old: value for old, value in arguments.items()}
        wrong = {**call, "arguments": spoilt}
    elif kind == "missing":
        spoilt = {other: value for other, value in arguments.items() if other != key}
        wrong = {**call, "arguments": spoilt}
    elif kind == "more":
        wrong = {**call, "arguments": {**arguments, made_up: arguments[key]}}
    else:
        wrong = {**call, "arguments": _wrong_types(arguments, rng)[0]}
    return (words, wrong) if check_call(wrong, tools) else None


def _replaced(text: str, old: str, new: str) -> str:
    """The text with one word replaced."""
    return re.sub(rf"\b{re.escape(old)}\b", new, text)
