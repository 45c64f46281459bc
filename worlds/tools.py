"""Tools as JSON-Schema functions in Qwen's (OpenAI's) format: made, printed, imported, checked.

    make_tool("kemi", "gives dolu", {"rana": {"type": "integer"}})
    compact_tool(tool)        "gives dolu: kemi(rana) int", a third of the tokens
    openai_tools(found)       the tools of a file in OpenAI's, MCP's or Anthropic's format
    check_tools(tools)        what is wrong with them

Calls of tools are worlds/calls.py, plans worlds/plans.py, hard negatives worlds/negatives.py.
"""

import time
from dataclasses import dataclass
from typing import Any

from support import schemas


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a call or a plan.

    `kind` of a call's fault: syntax, unknown_tool, missing, unexpected, type, value, or schema (the
    tool itself is malformed);
    of a plan's: syntax, duplicate, unknown_step, circle, order, unfinished.
    """

    kind: str
    message: str  # one line for the agent: what was found, what was wanted
    where: str = ""  # the argument as a path ("filter.limit"), or the plan's step


def make_tool(
    name: str, description: str, properties: dict[str, dict], required: list[str] | None = None
) -> dict:
    """A tool from JSON-Schema properties; all of them are required unless `required` names some."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


# ---------------------------------------------------------------------------------------- printing

SHORT_TYPES = {
    "integer": "int",
    "number": "num",
    "string": "str",
    "boolean": "bool",
    "object": "obj",
    "array": "list",
    "null": "null",
}


def compact_tool(tool: dict) -> str:
    """One line for a tool: `description: kemi(rana, mode?) int, a|b`; "?": an optional argument.

    What a tool is for comes first, since that is what it is looked up by: a small model reads on
    from there to the name, and never back. Names stand side by side and their types behind, so that
    a signature is copied in one stretch.
    """
    function = tool["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties", {})
    required = parameters.get("required", [])
    names = [key if key in required else f"{key}?" for key in properties]
    types = [_compact_type(schema) for schema in properties.values()]
    signature = f"{function['name']}({', '.join(names)}) {', '.join(types)}".rstrip()
    return f"{function['description']}: {signature}" if function.get("description") else signature


def _compact_type(schema: Any) -> str:
    """A schema in a word: int, a|b, [int], {key int}."""
    if not isinstance(schema, dict):
        return "any"
    if isinstance(schema.get("enum"), list):
        return "|".join(schemas.said(choice) for choice in schema["enum"])
    if isinstance(schema.get("properties"), dict):
        required = schema.get("required", [])
        fields = [
            f"{key} {_compact_type(inner)}{'' if key in required else '?'}"
            for key, inner in schema["properties"].items()
        ]
        return "{" + ", ".join(fields) + "}"
    if isinstance(schema.get("items"), dict):
        return "[" + _compact_type(schema["items"]) + "]"
    names = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
    return "|".join(SHORT_TYPES.get(name, "any") for name in names)


# --------------------------------------------------------------------------- importing and checking

SCHEMA_KEYS = ("parameters", "inputSchema", "input_schema")  # OpenAI's, MCP's, Anthropic's name
WANTED_TOOL = '{"type": "function", "function": {"name": ..., "parameters": ...}}'


def openai_tools(found: Any) -> Any:
    """The tools of a file as a list in OpenAI's format; what is none stays, for check_tools to
    name.

    Also read: functions without {"type": "function"} around them, MCP's tools/list ({"tools":
    [{"name", "inputSchema"}]}, with or without {"result": ...} around it) and Anthropic's
    `input_schema`. Absent or null parameters become those of a tool without arguments.
    """
    for key in ("result", "tools"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    if not isinstance(found, list):
        return found
    tools = []
    for entry in found:
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            tools.append(entry)
            continue
        found_schemas = [function[key] for key in SCHEMA_KEYS if function.get(key) is not None]
        described = {key: function[key] or "" for key in ("name", "description") if key in function}
        parameters = next(iter(found_schemas), {"type": "object", "properties": {}})
        tools.append({"type": "function", "function": {**described, "parameters": parameters}})
    return tools


def check_tools(tools: Any) -> list[Fault]:
    """What is wrong with a list of tools, as faults of kind "schema"; empty if nothing is.

    Ends within a second or so: what was not checked by then is a fault.
    """
    if not isinstance(tools, list):
        return [Fault("schema", f"tools must be a list, not {type(tools).__name__}")]
    faults: list[Fault] = []
    names: set[str] = set()
    began = time.monotonic()
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            faults.append(Fault("schema", f"tool {place} must be {WANTED_TOOL}", str(place)))
        elif name in names:
            faults.append(Fault("schema", f"two tools are called {name[:60]}", name))
        elif time.monotonic() - began > schemas.VERDICT_SECONDS:
            late = (
                f"tools from {name[:60]} on could not be checked within {schemas.VERDICT_SECONDS} s"
            )
            return [*faults, Fault("schema", late, name)]
        else:
            names.add(name)
            faults += function_faults(function, None)
    return faults


def function_faults(function: dict, arguments: dict | None) -> list[Fault]:
    """What is wrong with a function's schema, or else with arguments; None: only the schema."""
    name = function["name"]
    others = [key for key in SCHEMA_KEYS if key in function]
    if others and "parameters" not in others:
        found = [("schema", f"{others[0]} stands where parameters is wanted", "")]
    else:
        found = schemas.ask(function.get("parameters"), arguments)
    faults = []
    for kind, message, where in found:
        if kind == "schema":
            message = f"the schema of {name[:60]} cannot be used: {message}"
            where = name
        faults.append(Fault(kind, message, where))
    return faults
