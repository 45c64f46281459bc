"""Tools: how a call is found in text, what can be wrong with it, plans as graphs, and the three kinds of hard negatives.

Signatures are final; bodies follow.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a call. `kind`: syntax, unknown_tool, missing, unexpected, type or value."""
    kind: str
    message: str                                 # one line for the agent: what was found, what the schema wants
    where: str = ""                              # the argument, as a path: "filter.limit"


def tool(name: str, description: str, properties: dict[str, dict], required: list[str] | None = None) -> dict:
    """A tool in Qwen's format from JSON-Schema properties; all of them are required unless `required` says otherwise."""
    parameters = {"type": "object", "properties": properties, "required": list(properties) if required is None else required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def compact(tool: dict) -> str: ...
def parse(text: str) -> tuple[list[dict], list[Fault]]: ...
def check(call: dict | str, tools: list[dict]) -> list[Fault]: ...
def hard_negatives(call: dict, tools: list[dict], rng: random.Random, task=None) -> dict[str, dict]: ...
