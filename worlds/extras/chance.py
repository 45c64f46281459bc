"""How far random valid calls get: what a world must not be solvable by."""

import random
import re
from typing import Any

from worlds.base import Episode
from worlds.difficulty import Difficulty
from worlds.splits import SYLLABLES
from worlds.tasks import draw_task


def random_call(rng: random.Random, tools: list[dict], words: list[str]) -> dict:
    """A call that obeys a random tool's schema; its values are drawn from `words` where the type
    allows, otherwise at random.
    """
    function = rng.choice(tools)["function"]
    properties = function["parameters"]["properties"]
    required = function["parameters"]["required"]
    keys = [key for key in properties if key in required or rng.random() < 0.5]
    arguments = {key: random_value(rng, properties[key], words) for key in keys}
    return {"name": function["name"], "arguments": arguments}


def random_value(rng: random.Random, schema: dict, words: list[str]) -> Any:
    """A value that a simple schema allows."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if schema["type"] == "boolean":
        return rng.random() < 0.5
    if schema["type"] in ("integer", "number"):
        numbers = [int(word) for word in words if word.isdigit()]
        return rng.choice(numbers) if numbers else rng.randrange(1000)
    if not words:
        return rng.choice(SYLLABLES)
    return " ".join(rng.choices(words, k=rng.randint(1, 3)))


def by_chance(
    world: str,
    tasks: int,
    seed: int = 0,
    informed: bool = False,
    difficulty: Difficulty = Difficulty(),
) -> int:
    """How many of `tasks` tasks verify after as many random valid calls as the solution has and an
    answer out of what was said last.

    `informed`: values come from the request instead of from nowhere, which a policy that copies
    without reading could do.
    """
    right = 0
    for index in range(tasks):
        task = draw_task(world, seed, index, difficulty)
        rng = random.Random(index)
        words = re.findall(r"\w+", task.request)
        with Episode(task) as episode:
            observation = task.request
            for _ in range(max(1, len(task.solution)) if task.tools else 0):
                call = random_call(rng, task.tools, words if informed else [])
                observation = episode.step(call)
            candidates = re.findall(r"[0-9]+", observation) or words
            right += episode.verify(f"answer: {rng.choice(candidates)}")
    return right
