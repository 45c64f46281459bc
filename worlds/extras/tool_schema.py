"""A Python function as a tool: its JSON schema from its hints and its docstring.

    def days_between(start: str, end: str) -> int:
        \"\"\"Count the days from one date to another.

        start: first date, YYYY-MM-DD
        end: last date, YYYY-MM-DD
        \"\"\"

The first paragraph says what the tool does; a line "name: ..." (also under "Args:", as Google
writes it) or Annotated[type, "..."] says what an argument is. An argument with a default may be
left out. Hints: int, float, str, bool, None, list, dict, Literal, unions, TypedDict.

Only the standard library is imported: this also runs where a user's file is loaded
(tool_child.py).
"""

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

SIMPLE_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
    list: "array",
    dict: "object",
}
ARGUMENT_LINE = re.compile(r"(\w+)(?: \([^)]*\))?:\s*(\S.*)")


def schema_of_hint(hint: Any) -> dict:
    """The JSON schema of a type hint. Raises ValueError for one that JSON has no values for."""
    if hint is Any:
        return {}
    if hint in SIMPLE_TYPES:
        return {"type": SIMPLE_TYPES[hint]}
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin is typing.Annotated:
        return schema_of_hint(inner[0])
    if origin is typing.Literal:
        kinds = {type(choice) for choice in inner}
        if kinds <= SIMPLE_TYPES.keys():
            kind = {"type": SIMPLE_TYPES[kinds.pop()]} if len(kinds) == 1 else {}
            return {**kind, "enum": list(inner)}
    if origin in (list, dict) and not inner:  # typing.List, typing.Dict
        return {"type": SIMPLE_TYPES[origin]}
    if origin is list:
        return {"type": "array", "items": schema_of_hint(inner[0])}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": schema_of_hint(inner[1])}
    if origin in (typing.Union, types.UnionType):
        schemas = [schema_of_hint(choice) for choice in inner]
        if all(schema.keys() == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint)
        return {
            "type": "object",
            "properties": {key: schema_of_hint(field) for key, field in fields.items()},
            "required": sorted(hint.__required_keys__),
        }
    raise ValueError(
        f"{getattr(hint, '__name__', hint)} has no values in JSON; wanted int, float, str, bool, "
        "list[...], dict[str, ...], Literal[...], a union of them, or a TypedDict"
    )


def argument_lines(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument, in lines "name: ..."."""
    found = {}
    for line in docstring.splitlines():
        matched = ARGUMENT_LINE.fullmatch(line.strip())
        if matched:
            found.setdefault(matched[1], matched[2])
    return found


def tool_of_function(function: Callable, name: str = "") -> dict:
    """The tool {"type": "function", "function": {name, description, parameters}} of a function,
    under its own name or another.

    Raises ValueError that says what is missing.
    """
    if not callable(function):
        raise ValueError(f"{name} is {function!r}; wanted a function")
    name = name or function.__name__
    docstring = inspect.getdoc(function) or ""
    if not docstring:
        raise ValueError(
            f"function {name} has no docstring; wanted a sentence that says what it does"
        )
    summary = " ".join(docstring.partition("\n\n")[0].split())
    lines = argument_lines(docstring)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # a hint is any expression
        raise ValueError(f"function {name}: its hints cannot be read ({error})") from None
    properties = {}
    required = []
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"function {name}: argument {parameter} cannot be given by its name")
        if key not in hints:
            raise ValueError(f"function {name}: argument {key} has no type hint; write {key}: str")
        try:
            schema = schema_of_hint(hints[key])
        except ValueError as error:
            raise ValueError(f"function {name}: argument {key}: {error}") from None
        except RecursionError:
            raise ValueError(
                f"function {name}: argument {key}: its type contains itself, which no schema here "
                "can say"
            ) from None
        notes = [note for note in getattr(hints[key], "__metadata__", ()) if isinstance(note, str)]
        description = notes[0] if notes else lines.get(key)
        if description:
            schema["description"] = description
        properties[key] = schema
        if parameter.default is parameter.empty:
            required.append(key)
    parameters = {"type": "object", "properties": properties, "required": required}
    described = {"name": name, "description": summary, "parameters": parameters}
    return {"type": "function", "function": described}
