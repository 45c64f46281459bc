"""API world: tools that nobody has seen before, and chains of calls whose results feed later
arguments (paper 3.1.3, 6.5).

Every task makes up its tools. A tool turns named quantities into another one, `gives dolu:
kemi(rana, bolo?) int, slow|fast`, and the request asks for a quantity: "Find pita. rana is 17." The
agent has to find the tool that gives pita, see that it needs dolu, find the one that gives dolu,
and so on; nothing can be read off names alone, which is what "one-shot tool learning" means here.

- A tool's result is a hash of the task, the tool and the arguments: a wrong argument gives a wrong
  number (but for one in 900), and always the same one.
- Decoys share the right tools' nouns: the same input with another result, or the right result from
  something that is not known.
- Right answers that are no number: "ask: rana" when a needed value is not in the request, "no tool
  fits" when no tool gives what is asked.
"""

import json
import zlib
from dataclasses import dataclass
from typing import Any

from config import UserError
from worlds.base import SolutionStep, Task, World
from worlds.calls import value_text
from worlds.difficulty import Difficulty
from worlds.drawing import Drawing
from worlds.splits import Wordings
from worlds.tools import make_tool

WORDINGS = {
    "asking": Wordings(
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
        (("{goal}",),),
    )
}

INTEGER = {"type": "integer"}

# ------------------------------------------------------------------------------------------- tools


@dataclass(frozen=True)
class Maker:
    """A tool by what it does."""

    name: str
    gives: str  # the quantity that comes out
    arguments: dict[str, dict]  # their schemas, in order
    required: list[str]

    def as_tool(self) -> dict:
        """The tool as the agent sees it."""
        return make_tool(self.name, f"gives {self.gives}", self.arguments, self.required)

    def signature(self) -> str:
        """kemi(rana, bolo?)"""
        keys = [key if key in self.required else f"{key}?" for key in self.arguments]
        return f"{self.name}({', '.join(keys)})"


def api_result(seed: int, call: dict) -> int:
    """What a tool returns: three digits out of a hash of the task, the tool and the arguments."""
    key = f"{seed} {call['name']} {sorted(call['arguments'].items())}"
    return 100 + zlib.crc32(key.encode()) % 900


def draw_argument(draw: Drawing) -> tuple[dict, Any]:
    """The schema of a further argument, and a value that it allows."""
    kind = draw.rng.choice(("integer", "boolean", "text", "choice"))
    if kind == "integer":
        return INTEGER, draw.rng.randrange(10, 100)
    if kind == "boolean":
        return {"type": "boolean"}, draw.rng.random() < 0.5
    if kind == "text":
        return {"type": "string"}, draw.name()
    choices = [draw.name(), draw.name()]
    return {"type": "string", "enum": choices}, draw.rng.choice(choices)


def draw_makers(draw: Drawing, goal: str, calls: int) -> tuple[list[Maker], dict[str, Any]]:
    """Backwards from the goal, a maker of it and makers of quantities that earlier ones need; and
    the values that are left for the request to give.
    """
    rng = draw.rng
    makers: list[Maker] = []
    given: dict[str, Any] = {}
    open_integers: list[str] = []  # needed quantities that a further maker could give
    wanted = goal
    for _ in range(calls):
        maker = Maker(draw.name(), wanted, {}, [])
        for place in range(rng.randint(1, draw.difficulty.arguments)):
            key = draw.name()
            if place == 0:
                schema, value = INTEGER, rng.randrange(10, 100)
            else:
                schema, value = draw_argument(draw)
            maker.arguments[key] = schema
            optional = place > 0 and rng.random() < 0.3
            if not optional:
                maker.required.append(key)
                if schema == INTEGER:
                    open_integers.append(key)
            # an optional argument counts only where the request names it
            if not optional or rng.random() < 0.5:
                given[key] = value
        makers.append(maker)
        given.pop(wanted, None)
        wanted = open_integers.pop(rng.randrange(len(open_integers)))
    return makers, given


def draw_decoy(draw: Drawing, makers: list[Maker], only_inputs: bool) -> Maker:
    """A tool that shares a noun with a right one: its input (with another result), or its result
    (from something that is not known).
    """
    if only_inputs or draw.rng.random() < 0.5:
        integers = [
            key for maker in makers for key, schema in maker.arguments.items() if schema == INTEGER
        ]
        key = draw.rng.choice(integers)
        name = draw.name()
        return Maker(name, draw.name(), {key: INTEGER}, [key])
    key = draw.name()
    name = draw.name()
    return Maker(name, draw.rng.choice(makers).gives, {key: INTEGER}, [key])


def draw_unrelated(draw: Drawing) -> Maker:
    """A tool that has nothing to do with the task."""
    name = draw.name()
    gives = draw.name()
    key = draw.name()
    return Maker(name, gives, {key: INTEGER}, [key])


# ---------------------------------------------------------------------------------------- solutions


def solve_chain(
    seed: int, makers: list[Maker], given: dict[str, Any], decoys: list[Maker]
) -> list[SolutionStep]:
    """The calls with their values, each after those whose results it needs."""
    steps: list[SolutionStep] = []
    known = dict(given)  # quantity → its value
    source: dict[str, int] = {}  # quantity → the number of the step that gives it
    for maker in reversed(makers):
        arguments = {key: known[key] for key in maker.arguments if key in known}
        call = {"name": maker.name, "arguments": arguments}
        inputs = [
            key if key in source else f"{key} {value_text(value)}"
            for key, value in arguments.items()
        ]
        results = [f"{key} is {value}" for key, value in arguments.items() if key in source]
        steps.append(
            SolutionStep(
                goal=f"{maker.name} for {maker.gives}: {', '.join(inputs)}",
                thought=", ".join(results or ["given"]),
                call=call,
                depends_on=tuple(source[key] for key in arguments if key in source),
                wrong=tuple(senseless_calls(call, [*makers, *decoys], known)),
            )
        )
        known[maker.gives] = api_result(seed, call)
        source[maker.gives] = len(steps)
    return steps


def senseless_calls(call: dict, makers: list[Maker], known: dict[str, Any]) -> list[dict]:
    """Calls that obey the schemas and are senseless here: another tool that takes the same
    quantity, another quantity's number, one off.
    """
    name = call["name"]
    arguments = call["arguments"]
    wrong = []
    for maker in makers:
        if maker.name != name and set(maker.required) <= known.keys() & arguments.keys():
            values = {key: known[key] for key in maker.required}
            wrong.append({"name": maker.name, "arguments": values})
    for key, value in arguments.items():
        if type(value) is int:
            others = [other for quantity, other in known.items() if quantity != key]
            others = [other for other in others if type(other) is int]
            for other in (*others[:2], value + 1):
                wrong.append({"name": name, "arguments": {**arguments, key: other}})
    return wrong


def search_lines(goal: str, makers: list[Maker], given: dict[str, Any]) -> list[str]:
    """Backward chaining written down: "dolu: kemi(rana, bolo?)" and "rana ?, bolo slow" for each
    tool that is looked at, "rana: none" where nothing gives a quantity.

    Behind each of a tool's arguments stands its value where the request gives it, "?" where it has
    to be found, "-" where it may be left out. Depth first, tools in the order in which they are
    shown, until the goal can be had or nothing is left. This is what is to be thought before a plan
    can be made; each word can be copied from the tools, the request or the line before.
    """
    lines: list[str] = []

    def state(key: str, maker: Maker) -> str:
        if key in given:
            return value_text(given[key])
        return "?" if key in maker.required else "-"

    def can_have(quantity: str, above: tuple[str, ...]) -> bool:
        """Whether a quantity can be had without those that it is itself needed for."""
        fitting = [maker for maker in makers if maker.gives == quantity and quantity not in above]
        for maker in fitting:
            lines.append(f"{quantity}: {maker.signature()}")
            lines.append(", ".join(f"{key} {state(key, maker)}" for key in maker.arguments))
            # every one is looked at, also behind one that cannot be had
            needed = [key for key in maker.required if key not in given]
            if all([can_have(key, (*above, quantity)) for key in needed]):
                return True
        if not fitting:
            lines.append(f"{quantity}: none")
        return False

    can_have(goal, ())
    return lines


# ------------------------------------------------------------------------------------------- world


class Api(World):
    """Tools that give one quantity for others; a task asks for one of them."""

    faults = ("timeout", "renamed", "moved", "type", "incomplete", "denied", "expired")
    wordings = WORDINGS

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        if difficulty.names != "invented":
            raise UserError(
                "the api world has invented names only, since nothing is to be read off them; "
                "where names is english leave it out (worlds 'all but api')"
            )
        draw = Drawing("api", seed, difficulty, WORDINGS)
        rng = draw.rng

        # the goal and the chain of tools that leads to it
        goal = draw.name()
        kind = "chain"
        if rng.random() < difficulty.special:
            kind = rng.choice(("ask", "none"))
        longest = min(difficulty.chain, difficulty.tools)
        calls = rng.randint(min(difficulty.shortest, longest), longest)
        makers, given = draw_makers(draw, goal, calls)

        # further tools. Where a value is missing, a second way to the goal from another unknown
        # would be as good, so none is offered
        decoys: list[Maker] = []
        for place in range(difficulty.tools - len(makers)):
            if place < difficulty.decoys:
                decoys.append(draw_decoy(draw, [*makers, *decoys], only_inputs=kind == "ask"))
            else:
                decoys.append(draw_unrelated(draw))

        # the solution
        solution = solve_chain(seed, makers, given, decoys)
        answer = f"answer: {api_result(seed, solution[-1].call)}"
        constraints = {"goal": goal}
        if kind == "ask":
            needed = [key for maker in makers for key in maker.required if key in given]
            missing = rng.choice(needed)
            del given[missing]
            solution = []
            answer = f"ask: {missing}"
            constraints = {"goal": goal, "missing": missing}
        elif kind == "none":
            goal = draw.name()
            solution = []
            answer = "no tool fits"
            constraints = {"goal": goal}

        # what the agent sees; noise is in the request, and in every result
        shown = rng.sample([*makers, *decoys], len(makers) + len(decoys))
        noise = {draw.name(): rng.randrange(10, 100) for _ in range(difficulty.distractors)}
        facts = [*given.items(), *noise.items()]
        rng.shuffle(facts)
        sentences = [draw.ask("asking", goal=goal)]
        sentences += [f"{key} is {value_text(value)}." for key, value in facts]
        return Task(
            world="api",
            kind=kind,
            seed=seed,
            request=" ".join(sentences),
            tools=[maker.as_tool() for maker in shown],
            solution=solution,
            answer=answer,
            constraints={**constraints, **given},
            truth={
                "gives": {maker.name: maker.gives for maker in [*makers, *decoys]},
                "noise": noise,
            },
            difficulty=difficulty,
            analysis="\n".join(search_lines(goal, shown, given)),
        )

    def step(self, call: dict) -> str:
        quantity = self.task.truth["gives"][call["name"]]
        values = {**self.task.truth["noise"], quantity: api_result(self.task.seed, call)}
        return json.dumps(dict(sorted(values.items())), separators=(",", ":"))
