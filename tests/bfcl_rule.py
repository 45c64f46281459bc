"""The Berkeley function-calling leaderboard's single-turn rule, written anew from its description, as a judge that owes nothing to tools.py.

Right name; no required argument missing; no argument outside the schema or the allowed answers; Python type equality (an int serves for a
float, not the reverse; a bool is no int); the value among the allowed ones, strings compared without spaces, ,./-_*^ and case; an optional
argument may be left out only where "" is allowed. It works on the files' own schemas (types "dict", "float", "tuple", "any"), which
`json_schema` translates for everybody else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = ("simple_python", "multiple", "parallel")
PYTHON = {"string": str, "integer": int, "float": float, "number": float, "boolean": bool, "array": list, "tuple": list, "dict": dict, "object": dict}
DROPPED = str.maketrans("", "", " ,./-_*^")


def cases(folder: Path) -> Iterator[tuple[str, list[dict], list[dict]]]:
    """(id, functions, [{name: {argument: [allowed values]}}]) of every case that has an answer."""
    for name in FILES:
        questions = [json.loads(line) for line in (folder / f"BFCL_v4_{name}.json").read_text().splitlines()]
        answers = {a["id"]: a["ground_truth"] for a in map(json.loads, (folder / "possible_answer" / f"BFCL_v4_{name}.json").read_text().splitlines())}
        for question in questions:
            yield question["id"], question["function"], answers[question["id"]]


def judge(function: dict, allowed: dict[str, list], call: dict) -> str:
    """"" if the call is right, else the kind of its error: wrong_name, missing, unexpected_param, type_error or value_error."""
    properties = function["parameters"]["properties"]
    arguments = call["arguments"]
    if call["name"] != function["name"]:
        return "wrong_name"
    if any(key not in arguments for key in function["parameters"].get("required", [])):
        return "missing"
    for key, value in arguments.items():
        if key not in properties or key not in allowed:
            return "unexpected_param"
        if error := judge_value(properties[key], allowed[key], value):
            return error
    return "missing" if any(key not in arguments and "" not in values for key, values in allowed.items()) else ""


def judge_value(schema: dict, allowed: list, value: Any) -> str:
    wanted = PYTHON.get(schema["type"])
    answers = [answer for answer in allowed if answer != ""]
    as_variable = bool(answers) and wanted is not None and type(value) is type(answers[0]) and type(answers[0]) is not wanted
    if as_variable:                              # the answer key itself breaks the schema here; the rule follows the answer key
        return "" if value in answers else "value_error"
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is not None and type(value) is not wanted:
        return "type_error"
    inner = PYTHON.get(schema.get("items", {}).get("type")) if wanted is list else None
    if inner and any(type(item) is not inner and not (inner is float and type(item) is int) for item in value):
        return "type_error"
    return "" if any(equal(value, answer) for answer in allowed) else "value_error"


def equal(value: Any, answer: Any) -> bool:
    """Whether a value is an allowed one; inside a dictionary every key carries its own list of allowed values."""
    if isinstance(value, str) and isinstance(answer, str):
        return value.translate(DROPPED).lower().replace("'", '"') == answer.translate(DROPPED).lower().replace("'", '"')
    if isinstance(value, list) and isinstance(answer, list):
        return len(value) == len(answer) and all(equal(a, b) for a, b in zip(value, answer))
    if isinstance(value, dict) and isinstance(answer, dict):
        if any(key not in answer for key in value):
            return False
        if any(key not in value and not (isinstance(choices, list) and "" in choices) for key, choices in answer.items()):
            return False
        return all(any(equal(item, choice) for choice in (answer[key] if isinstance(answer[key], list) else [answer[key]])) for key, item in value.items())
    return type(value) is type(answer) and value == answer or (type(value) in (int, float) and type(answer) in (int, float) and value == answer)


def plainly(answer: Any) -> Any:
    """An allowed value as a model would write it: inside dictionaries the first choice of each key, optional keys left out."""
    if isinstance(answer, dict):
        return {key: plainly(choices[0] if isinstance(choices, list) else choices) for key, choices in answer.items()
                if not (isinstance(choices, list) and "" in choices)}
    return [plainly(item) for item in answer] if isinstance(answer, list) else answer


def truths(answer: dict, functions: list[dict]) -> Iterator[dict]:
    """The calls that an answer allows: the first choice of every argument, then each further choice of each argument in turn.

    An argument whose first choice is to be left out ("") is left out, unless the schema requires it (simple_python_200).
    """
    (name, allowed), = answer.items()
    required = next(f for f in functions if f["name"] == name)["parameters"].get("required", [])
    first = {key: plainly(next(value for value in values if value != "")) for key, values in allowed.items() if values[0] != "" or key in required}
    yield {"name": name, "arguments": first}
    for key, values in allowed.items():
        for value in values[1:]:
            if value != "":
                yield {"name": name, "arguments": {**first, key: plainly(value)}}


def json_schema(schema: Any) -> Any:
    """The leaderboard's dialect as JSON Schema."""
    if not isinstance(schema, dict):
        return schema
    names = {"dict": "object", "float": "number", "tuple": "array"}
    translated = {key: value for key, value in schema.items() if key in ("type", "properties", "required", "items", "enum", "description")}
    if "type" in translated:
        translated["type"] = names.get(translated["type"], translated["type"])
        if translated["type"] == "any":
            del translated["type"]
    if isinstance(translated.get("properties"), dict):
        translated["properties"] = {key: json_schema(inner) for key, inner in translated["properties"].items()}
    if "items" in translated:
        translated["items"] = json_schema(translated["items"])
    return translated


def tool(function: dict) -> dict:
    return {"type": "function", "function": {**function, "parameters": json_schema(function["parameters"])}}
