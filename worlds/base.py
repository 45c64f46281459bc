"""A world: where the agent acts, is trained and is judged (paper sections 3.1, 4.1, 6, 10.1).

A world is one file and one class. `sample` draws a task; an instance plays one episode of it:

    task = world_class("api").sample(7, Difficulty())     request, tools, a solution that works
    with Episode(task) as episode:                        the world, checks and faults in front
        episode.step({"name": "kemilo", "arguments": {}}) "error: rana is missing ...", or a result
        episode.verify("answer: 42")                      is the task done?

What differs from the usual reinforcement-learning environment:
- A tool's result is a function of the task, the calls before and the arguments alone, so the same
  mistake gives the same wrong result every time. (With random wrong results plain voting is nearly
  perfect, and nothing is left for a verifier to do.)
- Every task carries its own solution as steps with declared dependencies, so a scripted teacher can
  act in every world (worlds/expert.py).
- A tool call or two per episode may fail on purpose (worlds/faults.py).

`python -m worlds --show shell` prints a few tasks with the expert's solution.
"""

import re
import time
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from config import UserError
from worlds import WORLDS
from worlds.calls import call_faults, decode_call
from worlds.difficulty import Difficulty
from worlds.faults import FAULT_KINDS, Demand, make_demand, plan_faults
from worlds.splits import Wordings, split_of
from worlds.tools import Fault, compact_tool

# ------------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class SolutionStep:
    """One step of a task's solution."""

    goal: str  # its line in the plan, e.g. "kemilo rana=17"
    thought: str  # one line, said right before the call; may name earlier results
    call: dict | None  # {"name": ..., "arguments": ...} with the true values; None: only a thought
    depends_on: tuple[int, ...] = ()  # numbers, from 1, of the steps whose results this one uses
    # calls that look right and are not: logic errors (worlds/negatives.py plays them to make sure)
    wrong: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Task:
    """One task: all that the agent sees, all that the judge needs, and a solution."""

    world: str
    kind: str  # family within the world: "chain", "ask", "select", ...
    seed: int
    request: str  # the user's message
    tools: list[dict]  # {"type": "function", "function": {name, description, parameters}}
    solution: list[SolutionStep]
    # a right episode's last message: "answer: 42", "ask: rana", "done", "no tool fits", "refuse: …"
    answer: str
    # name → value: what the request demands, and what the inverse-consistency head reconstructs
    # from plan and conclusion (equation 13)
    constraints: dict[str, Any]
    truth: dict[str, Any] = field(default_factory=dict)  # what the world's own `verify` needs
    difficulty: Difficulty = Difficulty()
    analysis: str = ""  # what the expert thinks before it plans: lines, or nothing

    def shown_tools(self) -> list:
        """The tools in the task's style, as tokenizer.chat_text takes them: schemas, or lines."""
        if self.difficulty.style == "compact":
            return [compact_tool(tool) for tool in self.tools]
        return self.tools

    def allows(self, name: str) -> bool:
        """Whether a name that is made up for this task belongs to its split."""
        return split_of(name) == self.difficulty.split

    def wrong_calls(self, call: dict) -> list[dict]:
        """The world's own wrong alternatives to a call of the solution."""
        return [wrong for step in self.solution if step.call == call for wrong in step.wrong]

    def fails(self, right: dict, wrong: dict) -> bool:
        """Whether taking `wrong` instead of the solution's call `right` goes wrong.

        Both are executed, without faults. It goes wrong if the call is refused, if the tool says
        something else than to `right`, or if the episode, continued along the solution, does not
        verify.
        """
        calls = [step.call for step in self.solution if step.call]
        place = calls.index(right)
        with Episode(self, faults=False) as expected, Episode(self, faults=False) as actual:
            for call in calls[:place]:
                expected.step(call)
                actual.step(call)
            wanted = expected.step(right)
            observation = actual.step(wrong)
            if failed(observation) or observation != wanted:
                return True
            for call in calls[place + 1 :]:
                actual.step(call)
            return not actual.verify(self.answer)


def unjudged_task(
    world: str, kind: str, request: str, tools: list[dict], *, style: str, truth: dict | None = None
) -> Task:
    """A user's own request with the user's own tools: nobody knows a solution or an answer."""
    return Task(
        world=world,
        kind=kind,
        seed=0,
        request=request,
        tools=tools,
        solution=[],
        answer="",
        constraints={},
        truth=truth or {},
        difficulty=Difficulty(style=style),
    )


def failed(observation: str) -> bool:
    """Whether a tool's text reports a failed call."""
    return observation.startswith("error")


def same_answer(given: str, wanted: str) -> bool:
    """Whether a message's last line is the wanted one, up to case, spaces, underscores for spaces,
    and a final full stop.
    """
    lines = given.strip().splitlines() or [""]
    return words_of(lines[-1]) == words_of(wanted)


def words_of(text: str) -> list[str]:
    """The words and signs of a line, as answers are compared."""
    return re.findall(r"\w+|[^\w\s]", text.lower().replace("_", " ").rstrip(". "))


def refuses(message: str) -> bool:
    """Whether a last message is a refusal, whatever its reason."""
    return message.strip().lower().startswith("refuse")


def cut_text(text: str, most: int) -> str:
    """A text, cut behind `most` characters."""
    return text if len(text) <= most else text[:most] + " ..."


# ------------------------------------------------------------------------------------------ worlds


class World:
    """What a world must do. A subclass draws tasks; an instance is the state of one episode.

    `step` and `verify` bound what they use in seconds and bytes, whatever the agent says. To add a
    world, write its file and name it in worlds/__init__.py.
    """

    faults: tuple[str, ...] = (*FAULT_KINDS, "denied", "expired")  # the kinds that make sense here
    wordings: dict[str, Wordings] = {}  # every wording of its requests, by what is asked for
    patience = 20.0  # seconds that one episode may spend in it
    checked = True  # calls that break the schemas are refused; False: the world's judge takes them
    # why recovery and invented arguments are not measured here; "" where they are (eval.py)
    why_not_acting = ""

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        """The task of a seed: everything about it is drawn from the seed and the difficulty."""
        raise NotImplementedError

    @classmethod
    def related(cls, task: Task, number: int) -> Task | None:
        """Another request for the same tools, of those the `number`th (from 1); None where tools
        belong to one task, or allow no such request.
        """
        return None

    @classmethod
    def why_unplayable(cls) -> str:
        """Why this world cannot be played on this machine; "" where it can."""
        return ""

    def __init__(self, task: Task):
        self.task = task

    def step(self, call: dict) -> str:
        """Carry out a call without call_faults; what the tool says ("error: …" if it fails).

        Never raises.
        """
        raise NotImplementedError

    def verify(self, answer: str) -> bool:
        """Whether the task is done, given the agent's last message; here by the answer alone."""
        return same_answer(answer, self.task.answer)

    def close(self) -> None:
        """Give back what the episode holds (processes, files, connections)."""


def world_class(name: str) -> type[World]:
    """The class of a world by its name, or by "module.Class" of one in worlds/extras.

    Raises UserError if there is none.
    """
    module, _, class_name = name.partition(".")
    if class_name:
        path = f"worlds.extras.{module}"
        if find_spec(path) is None or not hasattr(import_module(path), class_name):
            raise UserError(f"there is no world {name!r} in worlds/extras")
        return getattr(import_module(path), class_name)
    if name not in WORLDS:
        raise UserError(f"there is no world {name!r}; there are {', '.join(WORLDS)}")
    return getattr(import_module(f"worlds.{name}"), WORLDS[name])


# ---------------------------------------------------------------------------------------- episodes


@dataclass(frozen=True)
class Entry:
    """One call of an episode."""

    call: Any  # as it was read: a dict, or the text of a call that does not parse
    faults: list[Fault]  # what the check found wrong with it
    observation: str  # what the tool said
    taken: dict | None  # the call as the world took it; None if it did not reach the world


LOOP = 3  # failures of the same kind in a row that are called a loop


def loop_in(log: list[Entry], times: int = LOOP) -> str:
    """The loop that a log ends with, in words; "" if it ends with none (paper section 7.2).

    A loop is `times` calls in a row of one tool that all failed with the same text, each made of
    what the first was made of: at least half of the words in its arguments' values, at every depth,
    are among the first one's. `[a, b]`, `a`, `b` is such a loop; three names that were looked for
    in vain are none.
    """
    last = log[-times:]
    if len(last) < times or any(entry.observation != last[0].observation for entry in last):
        return ""
    names = {
        str(entry.call.get("name", "")) if isinstance(entry.call, dict) else "" for entry in last
    }
    if not failed(last[0].observation) or len(names) > 1:
        return ""
    words = [set(re.findall(r"\w+", str(_material(entry.call)).lower())) for entry in last]
    if any(len(some & words[0]) < len(some) / 2 for some in words):
        return ""
    return f"loop: {names.pop() or 'a call'} failed {times} times with the same error"


def _material(call: Any) -> Any:
    """What a call is made of: its arguments' values, or the text of one that was not read."""
    arguments = call.get("arguments") if isinstance(call, dict) else call
    return list(arguments.values()) if isinstance(arguments, dict) else arguments


class Episode:
    """One attempt at a task: the world behind a check of each call and an injector of faults.

    Each call is checked against the schemas in force; the task's faults, if it has any, meet valid
    calls; the rest reaches the world.
    """

    def __init__(self, task: Task, faults: bool = True):
        self.task = task
        self.tools = task.tools  # the schemas in force; a fault may change them
        self.world = world_class(task.world)(task)
        self.planned = plan_faults(task, self.world.faults) if faults else []
        self.demands: list[Demand] = []  # of the faults that were delivered
        self.faults: list[tuple[int, str]] = []  # their places in the log and their kinds
        self.log: list[Entry] = []  # every call
        self.valid_calls = 0
        self.verified: bool | None = None  # the verdict, once it was asked for
        self.problem = ""  # what the world raised, if it did
        self.seconds = 0.0  # spent in steps and the verdict

    def __enter__(self) -> "Episode":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, call: dict | str) -> str:
        """What the tool says to a call (a dict, or the raw text of one).

        The answer to a call that breaks a schema is its first fault.
        """
        began = time.monotonic()
        decoded = decode_call(call)
        malformed = isinstance(decoded, Fault)
        faults = [decoded] if malformed else call_faults(decoded, self.tools)
        taken = None
        if faults and (malformed or self.world.checked):
            observation = f"error: {faults[0].message}"
        elif self.planned and self.valid_calls == self.planned[0][0]:
            observation = self._inject(decoded)
        else:
            observation, taken = self._carry_out(decoded)
        self.valid_calls += not faults
        self.seconds += time.monotonic() - began
        self.log.append(Entry(call, faults, observation, taken))
        return observation

    def _inject(self, call: dict) -> str:
        """Deliver the next planned fault; what the tool says."""
        _, kind = self.planned.pop(0)
        demand = make_demand(kind, call, self.tools, self.task, earlier=self.demands)
        self.tools = demand.schemas(self.tools)
        self.demands.append(demand)
        self.faults.append((len(self.log), demand.kind))
        return demand.text

    def _carry_out(self, call: dict) -> tuple[str, dict | None]:
        """What the world says to a call, and the call as the world took it.

        Whatever the world raises is the agent's failure, and is kept in `problem` for whoever mends
        the world. A world that broke has taken nothing.
        """
        known = call
        for demand in reversed(self.demands):
            known = demand.undo(known)
            if isinstance(known, str):
                return known, None
        try:
            observation = self.world.step(known)
        except UserError:  # a mistake in setting up the machine, not the agent's
            raise
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            observation = "error: the tool broke down"
        return observation, None if self.problem else known

    def verify(self, answer: str) -> bool:
        """Whether the task is done, given the agent's last message.

        Never where the world raises, or was broken by an earlier call.
        """
        began = time.monotonic()
        try:
            self.verified = bool(self.world.verify(answer)) and not self.problem
        except UserError:
            raise
        except Exception as error:
            self.verified = False
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            self.seconds += time.monotonic() - began
        return self.verified

    def close(self) -> None:
        """Give back what the world holds."""
        try:
            self.world.close()
        except Exception as error:
            self.problem = self.problem or f"{type(error).__name__}: {error}"
