"""Other names for the tools of a prompt and their arguments, so that a call must be read off the
schemas.

    hue_of(colour)      getHueOf(input_colour), allergy_3(x), colorsys.hue_of(colour), ...

Trained for half an hour on fifty tools that always have the same names, SmolLM2 knew the names by
heart, and called tools it had never seen by names of its own (docs/LOG.md).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from worlds.english import draw_word, words_of_split

SPLIT = "train"  # nothing else is renamed
TOOL_FORMS = ("get_*", "do_*", "run_*", "calculate_*", "make_*", "my_*", "*_tool", "*_function")
TOPIC_FORMS = ("*", "use_*", "*_now", "*_1", "*_2", "*_3", "*_service", "ask_*")
PLAIN_KEYS = ("value", "input", "data", "item", "arg", "param", "x", "y", "a", "b")


@dataclass(frozen=True)
class ToolNames:
    """How a prompt calls a tool and its arguments."""

    name: str
    keys: dict[str, str]  # argument → its name in the prompt


def camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def pascal_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def other_tool_name(rng: random.Random, name: str, module: str) -> str:
    """Another name for a tool: its own in another form, or words that say nothing about it."""
    chance = rng.random()
    if chance < 0.2:
        return name
    if chance < 0.3:
        return f"{module}.{name}"
    if chance < 0.6:
        found = rng.choice(TOOL_FORMS).replace("*", name)
    else:
        topics: set[str] = set()
        found = draw_word(rng, "topics", SPLIT, topics)
        if rng.random() < 0.5:
            found += f"_{draw_word(rng, 'topics', SPLIT, topics)}"
        found = rng.choice(TOPIC_FORMS).replace("*", found)
    change: Callable[[str], str] = rng.choice((str, str, camel_case, pascal_case))
    return change(found.replace(" ", "_").replace("-", "_"))


def other_key(rng: random.Random, key: str) -> str:
    """Another name for an argument."""
    chance = rng.random()
    if chance < 0.35:
        return key
    if chance < 0.7:
        form = rng.choice(words_of_split("renamings", SPLIT))
        return rng.choice((str, camel_case))(form.replace("*", key))
    if chance < 0.85:
        return rng.choice(PLAIN_KEYS)
    return rng.choice(words_of_split("arguments", SPLIT))


def draw_unlike(draw: Callable[[], str], used: set[str]) -> str:
    """What is drawn, and not yet in `used`; it is added there."""
    while True:
        found = draw()
        if found not in used:
            used.add(found)
            return found


def other_names(seed: int, tools: dict[str, tuple[str, list[str]]]) -> dict[str, ToolNames]:
    """Names for all tools of a catalogue, {name: (module, its arguments)}; no two are the same."""
    rng = random.Random(f"renaming {seed}")
    names: set[str] = set()
    found = {}
    for tool, (module, keys) in tools.items():
        name = draw_unlike(lambda: other_tool_name(rng, tool, module), names)
        own: set[str] = set()
        renamed = {key: draw_unlike(lambda: other_key(rng, key), own) for key in keys}
        found[tool] = ToolNames(name, renamed)
    return found


def renamed_tool(tool: dict, names: ToolNames) -> dict:
    """A tool's schema under other names."""
    function = tool["function"]
    schema = function["parameters"]
    properties = {names.keys[key]: value for key, value in schema["properties"].items()}
    schema = {**schema, "properties": properties}
    if "required" in schema:
        schema["required"] = [names.keys[key] for key in schema["required"]]
    return {**tool, "function": {**function, "name": names.name, "parameters": schema}}
