"""API world: tools that nobody has seen before, and chains of calls whose results feed later
arguments (paper 3.1.3, 6.5).

Every task makes up its tools. A tool turns named quantities into another one, `gives dolu:
kemi(rana, bolo?) int, slow|fast`, and the request asks for a quantity: "Find pita. rana is 17." The
agent has to find the tool that gives pita, see that it needs dolu, find the one that gives dolu,
and so on; nothing can be known from names alone, which is what "one-shot tool learning" means here.

- A tool's result is a hash of the task, the tool and the arguments: a wrong argument gives a wrong
  number, and always the same one.
- Decoys share the right tools' nouns: the same input with another result, or the right result from
  something that is not known.
- Right answers that are no number: "ask: rana" when a needed value is not in the request, "no tool
  fits" when no tool gives what is asked.
"""

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worlds.tools import tool
from worlds.base import BABBLE, Difficulty, Step, Task, Wordings, World, draw_name

ASKING = Wordings(
    (
        "Find {goal}.",
        "Get {goal}.",
        "What is {goal}?",
        "Give me {goal}.",
        "I want {goal}.",
        "Tell us {goal}.",
        "Do you need {goal}? Find it.",
        "Which number is {goal}?",
        "Show me {goal}.",
        "Let me have {goal}.",
        "Help me find {goal}.",
        "We need {goal}.",
        "Say {goal}.",
        "Please tell us {goal}.",
        "Can you tell me what {goal} is?",
        "I ask for {goal}.",
    ),
    (
        "Tell me {goal}.",
        "I need {goal}.",
        "Work out {goal}.",
        "How much is {goal}?",
        "Look up {goal} for me.",
        "{goal}, please.",
    ),
    (
        "Compute {goal}.",
        "{goal} is wanted.",
        "Could somebody determine {goal}?",
        "Bring back {goal}.",
    ),
)


@dataclass(frozen=True)
class Maker:
    """A tool by what it does: the arguments' schemas in order, those that it must have, and the
    quantity that comes out.
    """

    name: str
    gives: str
    arguments: dict[str, dict]
    required: list[str]


def result(seed: int, call: dict) -> int:
    """What a tool returns: three digits out of a hash of the task, the tool and the arguments."""
    return (
        100
        + zlib.crc32(f"{seed} {call['name']} {sorted(call['arguments'].items())}".encode()) % 900
    )


def plain(value: Any) -> str:
    """A value in a sentence: JSON's true and false, text without quotation marks."""
    return value if isinstance(value, str) else json.dumps(value)


def draw_argument(rng: random.Random, name: Callable[[], str]) -> tuple[dict, Any]:
    """The schema of a further argument, and a value that it allows."""
    kind = rng.choice(("integer", "boolean", "text", "choice"))
    if kind == "integer":
        return {"type": "integer"}, rng.randrange(10, 100)
    if kind == "boolean":
        return {"type": "boolean"}, rng.random() < 0.5
    if kind == "text":
        return {"type": "string"}, name()
    choices = [name(), name()]
    return {"type": "string", "enum": choices}, rng.choice(choices)


def draw_makers(
    rng: random.Random, name: Callable[[], str], goal: str, calls: int, arguments: int
) -> tuple[list[Maker], dict[str, Any]]:
    """Backwards from the goal, a maker of it and makers of quantities that earlier ones need; and
    the values left to be given.
    """
    makers: list[Maker] = []
    given: dict[str, Any] = {}
    open_integers: list[
        str
    ] = []  # needed quantities that a further maker could give instead of the request
    wanted = goal
    for _ in range(calls):
        maker = Maker(name(), wanted, {}, [])
        for place in range(rng.randint(1, arguments)):
            key = name()
            schema, value = (
                draw_argument(rng, name) if place else ({"type": "integer"}, rng.randrange(10, 100))
            )
            maker.arguments[key] = schema
            if optional := place > 0 and rng.random() < 0.3:
                if (
                    rng.random() < 0.5
                ):  # an optional argument counts only where the request names it
                    given[key] = value
            else:
                given[key] = value
                maker.required.append(key)
            if not optional and schema == {"type": "integer"}:
                open_integers.append(key)
        makers.append(maker)
        given.pop(wanted, None)
        wanted = open_integers.pop(rng.randrange(len(open_integers)))
    return makers, given


def wrong_calls(call: dict, makers: list[Maker], known: dict[str, Any]) -> list[dict]:
    """Calls that obey the schemas and are senseless here: another tool that takes the same
    quantity, another quantity's number, one off.
    """
    wrong = [
        {"name": maker.name, "arguments": {key: known[key] for key in maker.required}}
        for maker in makers
        if maker.name != call["name"]
        and set(maker.required) <= known.keys() & call["arguments"].keys()
    ]
    for key, value in call["arguments"].items():
        if type(value) is int:
            others = [other for name, other in known.items() if type(other) is int and name != key]
            wrong += [
                {"name": call["name"], "arguments": {**call["arguments"], key: other}}
                for other in (*others[:2], value + 1)
            ]
    return wrong


def solve(seed: int, makers: list[Maker], given: dict[str, Any], decoys: list[Maker]) -> list[Step]:
    """The calls with their values, each after those whose results it needs."""
    steps: list[Step] = []
    known, number = dict(given), {}  # quantity -> its value; quantity -> the step that gives it
    for maker in reversed(makers):
        call = {
            "name": maker.name,
            "arguments": {key: known[key] for key in maker.arguments if key in known},
        }
        sources = [
            key if key in number else f"{key} {plain(known[key])}" for key in call["arguments"]
        ]
        heard = [f"{key} is {known[key]}" for key in call["arguments"] if key in number]
        steps.append(
            Step(
                goal=f"{maker.name} for {maker.gives}: {', '.join(sources)}",
                thought=", ".join(heard or ["given"]),
                call=call,
                depends_on=tuple(number[key] for key in call["arguments"] if key in number),
                wrong=tuple(wrong_calls(call, [*makers, *decoys], known)),
            )
        )
        known[maker.gives] = result(seed, call)
        number[maker.gives] = len(steps)
    return steps


def search(goal: str, tools: list[Maker], given: dict[str, Any]) -> list[str]:
    """Backward chaining written down: "dolu: kemi(rana, bolo?)" and "rana ?, bolo slow" for each
    tool that is looked at, "rana: none" where nothing gives a quantity.

    Behind each of a tool's arguments stands its value where the request gives it, "?" where it has
    to be found, "-" where it may be left out. Depth first, tools in the order in which they are
    shown, until the goal can be had or nothing is left. This is what is to be thought before a plan
    can be made; each word can be copied from the tools, the request or the line before.
    """
    lines: list[str] = []

    def can_have(quantity: str, above: tuple[str, ...]) -> bool:
        makers = [maker for maker in tools if maker.gives == quantity and quantity not in above]
        for maker in makers:
            open_ = [key for key in maker.required if key not in given]
            said = [
                f"{key} {plain(given[key]) if key in given else '?' if key in open_ else '-'}"
                for key in maker.arguments
            ]
            lines.append(
                f"{quantity}: {maker.name}({', '.join(key if key in maker.required else f'{key}?' for key in maker.arguments)})\n{', '.join(said)}"
            )
            if all([can_have(key, (*above, quantity)) for key in open_]):
                return True
        if not makers:
            lines.append(f"{quantity}: none")
        return False

    can_have(goal, ())
    return lines


def draw_decoy(
    rng: random.Random, name: Callable[[], str], makers: list[Maker], ambiguous: bool
) -> Maker:
    """A tool that shares a noun with a right one: its input (another result), or its result (from
    something that is not known).
    """
    if ambiguous or rng.random() < 0.5:
        key = rng.choice(
            [
                key
                for maker in makers
                for key, schema in maker.arguments.items()
                if schema == {"type": "integer"}
            ]
        )
        return Maker(name(), name(), {key: {"type": "integer"}}, [key])
    key = name()
    return Maker(name(), rng.choice(makers).gives, {key: {"type": "integer"}}, [key])


class Api(World):
    faults = ("timeout", "renamed", "moved", "type", "incomplete", "denied", "expired")
    wordings = {"asking": ASKING}

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        rng, wording = random.Random(f"api {seed}"), random.Random(f"words {seed}")
        used: set[str] = set()

        def name() -> str:
            return draw_name(rng, difficulty.split, used)

        goal = name()
        kind = rng.choice(("ask", "none")) if rng.random() < difficulty.special else "chain"
        makers, given = draw_makers(
            rng,
            name,
            goal,
            rng.randint(1, min(difficulty.chain, difficulty.tools)),
            difficulty.arguments,
        )
        decoys: list[Maker] = []
        for extra in range(difficulty.tools - len(makers)):
            # Where a value is missing, a second way to the goal from another unknown would be as
            # good: then none is offered.
            decoys.append(
                draw_decoy(rng, name, [*makers, *decoys], kind == "ask")
                if extra < difficulty.decoys
                else Maker(name(), name(), {(key := name()): {"type": "integer"}}, [key])
            )
        solution = solve(seed, makers, given, decoys)
        answer, constraints = f"answer: {result(seed, solution[-1].call)}", {"goal": goal}
        if kind == "ask":
            missing = rng.choice(
                [key for maker in makers for key in maker.required if key in given]
            )
            del given[missing]
            solution, answer, constraints = (
                [],
                f"ask: {missing}",
                {"goal": goal, "missing": missing},
            )
        elif kind == "none":
            goal = name()
            solution, answer, constraints = [], "no tool fits", {"goal": goal}
        shown = rng.sample([*makers, *decoys], len(makers) + len(decoys))
        tools = [
            tool(maker.name, f"gives {maker.gives}", maker.arguments, maker.required)
            for maker in shown
        ]

        noise = {
            name(): rng.randrange(10, 100) for _ in range(difficulty.distractors)
        }  # in the request, and in every result
        facts = [*given.items(), *noise.items()]
        rng.shuffle(facts)
        asking = ASKING.draw(wording, difficulty.words, goal=goal)
        if difficulty.babble and wording.random() < difficulty.babble:
            before, behind = (
                wording.choices(BABBLE, k=wording.randint(0, 3)),
                wording.choices(BABBLE, k=wording.choice((0, 0, 1))),
            )
            asking = f"{' '.join([*before, goal, *behind])}."
        request = " ".join([asking, *(f"{key} is {plain(value)}." for key, value in facts)])
        return Task(
            "api",
            kind,
            seed,
            request,
            tools,
            solution,
            answer,
            {**constraints, **given},
            truth={
                "gives": {maker.name: maker.gives for maker in [*makers, *decoys]},
                "noise": noise,
            },
            difficulty=difficulty,
            analysis="\n".join(search(goal, shown, given)),
        )

    def step(self, call: dict) -> str:
        said = {
            **self.task.truth["noise"],
            self.task.truth["gives"][call["name"]]: result(self.task.seed, call),
        }
        return json.dumps(dict(sorted(said.items())), separators=(",", ":"))
