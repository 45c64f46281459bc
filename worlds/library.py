"""Library world: requests in English, and the functions of Python's standard library as tools
(paper sections 3.1.3, 6.5).

    "I leave on 3 March 2024 and come back on March 9, 2024. How many days is that?"
        days_between(start="2024-03-03", end="2024-03-09")        6

The tools are the functions of worlds/catalogue/, a few per module of the library, each with the
ways in which people ask for it. They really run, in a process with limits.

- A module belongs to one split (splits.split_of of its name), so the tools and the requests of
  validation and test are those of modules that training never shows.
- Chains: the result of one call is an argument of the next, as "that number" or as "the number of
  days from ... to ..." within the next request.
- Decoys come from the module of the right tool, and nearly fit.
- Right answers that are no result: "ask: end" where the request does not give a value, "no tool
  fits" where no tool can do what is asked.
- An answer counts only if a tool gave it: guessing a weekday is not acting.
"""

import json
import os
import math
import random
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from itertools import count
from typing import Any

from worlds import renaming
from worlds.base import SolutionStep, Task, World, failed, same_answer
from worlds.calls import value_text
from worlds.catalogue.entries import CatalogueEntry
from worlds.catalogue.everything import CATALOGUE
from worlds.catalogue.values import is_date, value_type
from worlds.catalogue.wordings import WORDINGS
from worlds.difficulty import Difficulty
from worlds.drawing import Drawing, draw_chain_length
from worlds.extras.tool_process import ToolLimits, ToolProcess
from worlds.extras.tool_schema import tool_of_function
from worlds.renaming import ToolNames, other_names, renamed_tool
from worlds.splits import split_of

LONGEST_RESULT = 200  # characters of a drawn task's results
LONGEST_SHOWN = 40  # characters of a value in a plan; longer ones stand in the call alone
MOST_DRAWS = 100  # of values until a function accepts them
LONGEST_CHAIN = 3
LONGEST_ARGUMENTS = 4000  # characters, as JSON; a task's own have up to 400
CALL_LIMITS = ToolLimits(seconds=2, memory=512 << 20, output=2048)  # a task's own: 1 ms, 200 bytes

SAME_TYPES = {"number": ("number", "integer")}  # whose results fit a kind of value; else its own

# ---------------------------------------------------------------------------------------- catalogue


@cache
def entries_of(split: str) -> list[CatalogueEntry]:
    """The tools of a split: those of the modules whose names belong to it."""
    return [entry for entry in CATALOGUE.values() if split_of(entry.module) == split]


@cache
def tool_of_entry(name: str) -> dict:
    """A tool of the catalogue as the agent sees it: from the function's hints and docstring."""
    tool = tool_of_function(CATALOGUE[name].function)
    function = tool["function"]
    function["description"] = function["description"].removesuffix(".")
    return tool


class LibraryDrawing(Drawing):
    """The random numbers and words of one task, the names of the tools, and the tools that its
    calls are drawn from: all of the split, or those of a prompt that is `shown` already.
    """

    def __init__(
        self,
        seed: int,
        difficulty: Difficulty,
        shown: list[CatalogueEntry] | None = None,
        names: dict[str, ToolNames] | None = None,
    ):
        super().__init__("library", seed, difficulty, WORDINGS)
        self.shown = shown
        self.entries = shown or entries_of(difficulty.split)
        self.names = names or draw_names(seed, difficulty)

    def name_of(self, entry: CatalogueEntry) -> str:
        """What the prompt calls a tool."""
        return self.names[entry.name].name

    def key_of(self, entry: CatalogueEntry, key: str) -> str:
        """What the prompt calls an argument of a tool."""
        return self.names[entry.name].keys[key]

    def call_of(self, entry: CatalogueEntry, arguments: dict[str, Any]) -> dict:
        """A call of a tool as the agent is to write it."""
        named = {self.key_of(entry, key): value for key, value in arguments.items()}
        return {"name": self.name_of(entry), "arguments": named}

    def tool_of(self, entry: CatalogueEntry) -> dict:
        """A tool as the prompt shows it."""
        return renamed_tool(tool_of_entry(entry.name), self.names[entry.name])

    def tries(self) -> Iterable[int]:
        """How often to draw again: for ever, but few tools may hold nothing of what is wanted."""
        return range(20) if self.shown else count()

    def unshown(self, modules: set[str | None]) -> list[CatalogueEntry]:
        """The tools of the split that are of none of these modules."""
        return [entry for entry in entries_of(self.split) if entry.module not in modules]


@cache
def own_names() -> dict[str, ToolNames]:
    """The names that all tools have in the library."""
    return {
        entry.name: ToolNames(entry.name, {key: key for key in entry.values})
        for entry in CATALOGUE.values()
    }


def draw_names(seed: int, difficulty: Difficulty) -> dict[str, ToolNames]:
    """What a task calls the tools of its split: in a share of training's tasks by other names."""
    # other random numbers than the task's, which stays the same under other names
    renamed = random.Random(f"renamed {seed}").random() < difficulty.renamed
    if not renamed or difficulty.split != renaming.SPLIT:
        return own_names()
    entries = entries_of(difficulty.split)
    return other_names(seed, {entry.name: (entry.module, list(entry.values)) for entry in entries})


# -------------------------------------------------------------------------------------------- calls


@dataclass(frozen=True)
class LibraryCall:
    """One call of a solution, with the words that ask for it."""

    entry: CatalogueEntry
    phrasing: str
    arguments: dict[str, Any]
    texts: dict[str, str]  # the arguments as the request writes them
    result: Any
    fed: str = ""  # the argument that is the result of the call before

    def sentence(self, **texts: str) -> str:
        """The request, with some of the values in other words."""
        text = self.phrasing.format(**{**self.texts, **texts})
        return text[0].upper() + text[1:]

    def noun(self, **texts: str) -> str:
        """What it gives, within a sentence."""
        return self.entry.noun.format(**{**self.texts, **texts})


def draw_call(
    draw: Drawing, entry: CatalogueEntry, fed: str = "", result: Any = None
) -> LibraryCall | None:
    """A call of a tool that works; `fed` names the argument that is an earlier `result`.

    None where no drawn values do.
    """
    rng = draw.rng
    phrasing = rng.choice(entry.linking_by(fed) if fed else entry.phrasings)
    needed = entry.needed(phrasing)
    for _ in range(MOST_DRAWS):
        arguments = {key: entry.values[key].draw(rng) for key in needed}
        if fed:
            arguments[fed] = result
        given = entry.outcome(arguments)
        if usable(given) and given not in arguments.values():
            texts = {key: entry.values[key].write(rng, value) for key, value in arguments.items()}
            return LibraryCall(entry, phrasing, arguments, texts, given, fed)
    return None


def usable(result: Any) -> bool:
    """Whether a result can be an answer: not empty, on one line, and short."""
    if result is None or result == "" or result == []:
        return False
    written = json.dumps(result, ensure_ascii=False)
    return len(written) <= LONGEST_RESULT and "\\" not in written


def draw_calls(draw: LibraryDrawing, length: int) -> list[LibraryCall]:
    """A chain of calls, each fed by the one before. Raises NoSuchTask."""
    for _ in draw.tries():
        calls: list[LibraryCall] = []
        following: LibraryCall | None = draw_call(draw, draw.rng.choice(draw.entries))
        while following:
            calls.append(following)
            if len(calls) == length:
                return calls
            following = draw_next(draw, calls)
    raise NoSuchTask


def draw_next(draw: LibraryDrawing, calls: list[LibraryCall]) -> LibraryCall | None:
    """A call of another tool, fed by the result of the last; None where no tool takes it."""
    result = calls[-1].result
    used = [call.entry for call in calls]
    takers = [
        (entry, key)
        for entry in draw.entries
        if entry not in used
        for key, kind in entry.values.items()
        if value_type(result) in SAME_TYPES.get(kind.type, (kind.type,)) and kind.fits(result)
        if entry.linking_by(key)
    ]
    if not takers:
        return None
    entry, key = draw.rng.choice(takers)
    following = draw_call(draw, entry, key, result)
    said = [value for call in calls for value in call.arguments.values()]
    return following if following and following.result not in said else None


# ------------------------------------------------------------------------------------------ answers

BETWEEN = ";"  # stands between the two results of an answer


def same_value(said: str, wanted: Any) -> bool:
    """Whether a text says a value: integers exactly, floats as `close_values` has them, texts up to
    spaces and quotation marks, lists entry by entry; with or without a full stop behind it.
    """
    said = said.strip()
    if not isinstance(wanted, str):
        said = said.removesuffix(".")
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        value = said
    if isinstance(wanted, str):
        return plain_text(value if isinstance(value, str) else said) == plain_text(wanted)
    if isinstance(value, str):
        return False
    return close_values(value, wanted)


def plain_text(text: str) -> str:
    """A text without what a copy may change: spaces around and within, a final full stop."""
    return re.sub(r"\s+", " ", text).strip().removesuffix(".")


def close_values(value: Any, wanted: Any) -> bool:
    """Whether two JSON values are equal; floats up to 1e-6 of their size, or 1e-6 below 1."""
    if isinstance(wanted, list):
        if not isinstance(value, list) or len(value) != len(wanted):
            return False
        return all(map(close_values, value, wanted))
    if type(wanted) is int and type(value) in (int, float):
        return value == wanted
    if type(wanted) is float and type(value) in (int, float):
        fits = abs(value) <= sys.float_info.max  # a longer integer is no float
        return fits and math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-6)
    return type(value) is type(wanted) and value == wanted


# ------------------------------------------------------------------------------------------- drafts


class NoSuchTask(Exception):
    """The tools that are shown already allow no task of the wanted kind."""


@dataclass(frozen=True)
class LibraryDraft:
    """A task before its frame and its noise."""

    request: str
    calls: list[LibraryCall]  # that are to be made
    tools: list[CatalogueEntry]  # of the prompt
    answer: str
    constraints: dict[str, Any]


def values_given(draw: LibraryDrawing, calls: list[LibraryCall]) -> dict[str, Any]:
    """The values that a request gives, as it writes them, by argument; "tool argument" where two
    share a name.
    """
    given: dict[str, Any] = {}
    for call in calls:
        for key, value in call.arguments.items():
            if key == call.fed:
                continue
            text = call.texts[key]
            name = draw.key_of(call.entry, key)
            if name in given:
                name = f"{draw.name_of(call.entry)} {name}"
            given[name] = value if value_text(value) in text else text
    return given


def draw_shown(draw: LibraryDrawing, needed: Sequence[CatalogueEntry]) -> list[CatalogueEntry]:
    """The needed tools, decoys of the same modules, and others, in random order."""
    if draw.shown:
        return draw.shown
    modules = {entry.module for entry in needed}
    others = [entry for entry in draw.entries if entry not in needed]
    draw.rng.shuffle(others)
    near = [entry for entry in others if entry.module in modules][: draw.difficulty.decoys]
    far = [entry for entry in others if entry.module not in modules]
    shown = [*needed, *[*near, *far][: draw.difficulty.tools - len(needed)]]
    draw.rng.shuffle(shown)
    return shown


def draft_chain(draw: LibraryDrawing, length: int) -> LibraryDraft:
    """One call, or several of which each takes the result of the one before."""
    calls = draw_calls(draw, length)
    answer = f"answer: {value_text(calls[-1].result)}"
    constraints = {"goal": draw.name_of(calls[-1].entry), **values_given(draw, calls)}
    tools = draw_shown(draw, [call.entry for call in calls])
    return LibraryDraft(ask_for_chain(draw, calls), calls, tools, answer, constraints)


def ask_for_chain(draw: Drawing, calls: list[LibraryCall]) -> str:
    """The request for a chain, sentence after sentence: "... What is the root of that number?"

    In half of the chains the first call is a noun in the sentence of the second: "What is the root
    of the number of days from ... to ...?"
    """
    sentences = [calls[0].sentence()]
    for place, call in enumerate(calls[1:], 1):
        that = draw.ask(f"that {value_type(calls[place - 1].result)}")
        if place == 1 and draw.word_rng.random() < 0.5:
            sentences = []
            that = calls[0].noun()
        sentences.append(call.sentence(**{call.fed: that}))
    return " ".join(sentences)


def draft_pair(draw: LibraryDrawing) -> LibraryDraft:
    """Two calls that have nothing to do with each other; the answer has both results."""
    for _ in draw.tries():
        calls = [*draw_calls(draw, 1), *draw_calls(draw, 1)]
        texts = [value_text(call.result) for call in calls]
        if calls[0].entry is not calls[1].entry and BETWEEN not in "".join(texts):
            break
    else:
        raise NoSuchTask
    first, second = [call.sentence() for call in calls]
    request = draw.ask("pair", first=first, second=second)
    goal = " and ".join(draw.name_of(call.entry) for call in calls)
    constraints = {"goal": goal, **values_given(draw, calls)}
    tools = draw_shown(draw, [call.entry for call in calls])
    return LibraryDraft(request, calls, tools, f"answer: {f'{BETWEEN} '.join(texts)}", constraints)


def draft_question(draw: LibraryDrawing) -> LibraryDraft:
    """A request that only alludes to one of the values it should give."""
    for _ in draw.tries():
        (call,) = draw_calls(draw, 1)
        missing = [
            key
            for key in call.entry.required
            if allusion(call, key) in WORDINGS and call.phrasing in call.entry.linking_by(key)
        ]
        if missing:
            break
    else:
        raise NoSuchTask
    key = draw.rng.choice(missing)
    request = call.sentence(**{key: draw.ask(allusion(call, key))})
    given = values_given(draw, [call])
    missing_key = draw.key_of(call.entry, key)
    del given[missing_key]
    constraints = {"goal": draw.name_of(call.entry), "missing": missing_key, **given}
    answer = f"ask: {missing_key.replace('_', ' ')}"
    return LibraryDraft(request, [], draw_shown(draw, [call.entry]), answer, constraints)


def allusion(call: LibraryCall, key: str) -> str:
    """Which of WORDINGS speaks of such a value without giving it, if there is one."""
    kind = call.entry.values[key]
    return f"some {kind.alluded or kind.type}"


# "How long is January 1938?" is asked of calendar, and the day of the year of 31 January tells it
STANDS_IN = {"calendar": "datetime", "datetime": "calendar"}


def draft_unsuited(draw: LibraryDrawing) -> LibraryDraft:
    """A request that no tool of the prompt can do: most are other tools' of the same split."""
    if draw.shown:
        shown = {entry.module for entry in draw.shown}
        draw.entries = draw.unshown(shown | {STANDS_IN.get(module) for module in shown})
    (call,) = draw_calls(draw, 1)
    others = draw.unshown({call.entry.module, STANDS_IN.get(call.entry.module)})
    tools = draw.shown or draw.rng.sample(others, draw.difficulty.tools)
    if draw.rng.random() < 0.3:
        return LibraryDraft(draw.ask("unsuited"), [], tools, "no tool fits", {})
    # what is asked for goes by its own name, since the prompt has no other
    draw.names = own_names() | {entry.name: draw.names[entry.name] for entry in tools}
    constraints = {"goal": draw.name_of(call.entry), **values_given(draw, [call])}
    return LibraryDraft(call.sentence(), [], tools, "no tool fits", constraints)


# ---------------------------------------------------------------------------------------- solutions


def planned(key: str, value: Any) -> str:
    """An argument in a plan: "width 12"; a long value by its name alone."""
    text = value_text(value)
    return f"{key} {text}" if len(text) <= LONGEST_SHOWN else key


def solution_steps(
    draw: LibraryDrawing, calls: list[LibraryCall], shown: list[CatalogueEntry]
) -> list[SolutionStep]:
    """The calls as steps, each with the calls that look right there and are not."""
    steps = []
    for number, call in enumerate(calls, 1):
        named = {key: draw.key_of(call.entry, key) for key in call.arguments}
        inputs = []
        for key, value in call.arguments.items():
            name = named[key]
            fed = f"{name} from step {number - 1}"
            inputs.append(fed if key == call.fed else planned(name, value))
        thought = "all values are given"
        if call.fed:
            thought = f"{named[call.fed]} is {value_text(call.arguments[call.fed])}"
        steps.append(
            SolutionStep(
                goal=", ".join(inputs),
                thought=thought,
                call=draw.call_of(call.entry, call.arguments),
                depends_on=(number - 1,) if call.fed else (),
                wrong=(*near_calls(draw, call, shown), *other_values(draw, call)),
            )
        )
    return steps


def near_calls(draw: LibraryDrawing, call: LibraryCall, shown: list[CatalogueEntry]) -> list[dict]:
    """Other tools of the prompt that take as many values, under whatever names; and dates one day
    late.
    """
    wrong = []
    for entry in shown:
        keys = entry.required
        if entry is call.entry or len(keys) != len(call.arguments):
            continue
        arguments = dict(zip(keys, call.arguments.values(), strict=True))
        wrong.append(draw.call_of(entry, arguments))
    for key, value in call.arguments.items():
        if isinstance(value, str) and is_date(value):
            next_day = str(date.fromisoformat(value) + timedelta(1))
            wrong.append(draw.call_of(call.entry, {**call.arguments, key: next_day}))
    return wrong


def other_values(draw: LibraryDrawing, call: LibraryCall) -> list[dict]:
    """The same call with another value for one argument, such as another request would give."""
    wrong = []
    for key, value in call.arguments.items():
        other = call.entry.values[key].draw(draw.rng)
        if other != value:
            wrong.append(draw.call_of(call.entry, {**call.arguments, key: other}))
    return wrong


# ------------------------------------------------------------------------------------------- world

_running = threading.local()  # .process, with the number of the process that started it


def carry_out(call: dict) -> str:
    """What a tool of the catalogue says to a call, "error: ..." if it fails.

    One process serves all episodes of a thread, since the functions keep no state.
    """
    if len(json.dumps(call["arguments"])) > LONGEST_ARGUMENTS:
        return f"error: arguments of more than {LONGEST_ARGUMENTS} characters"
    owner, process = getattr(_running, "process", (0, None))
    if owner != os.getpid():  # none yet, or another's before a fork
        process = ToolProcess("worlds.catalogue.everything", CALL_LIMITS)
        _running.process = os.getpid(), process
    return process.call(call["name"], call["arguments"])


class Library(World):
    """Functions of the standard library; a task asks for what one to three calls give."""

    faults = ("timeout", "renamed", "moved", "type", "incomplete", "denied", "expired")
    wordings = WORDINGS

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        return cls.draw_task(seed, difficulty)

    @classmethod
    def related(cls, task: Task, number: int) -> Task | None:
        names = task.truth["names"]
        called = {names[entry].name: CATALOGUE[entry] for entry in names}
        shown = [called[tool["function"]["name"]] for tool in task.tools]
        # the rest, whose requests no tool fits, go by their own
        names = own_names() | names
        try:
            # seeds of draw_task are below 2¹²⁸, so that no other task has this one
            return cls.draw_task(task.seed + (number << 128), task.difficulty, shown, names)
        except NoSuchTask:
            return None

    @classmethod
    def draw_task(
        cls,
        seed: int,
        difficulty: Difficulty,
        shown: list[CatalogueEntry] | None = None,
        names: dict[str, ToolNames] | None = None,
    ) -> Task:
        """The task of a seed, of the tools that are `shown` already where some are."""
        # English whatever else is drawn; babble is made for syllables
        difficulty = replace(difficulty, names="english", babble=0.0)
        draw = LibraryDrawing(seed, difficulty, shown, names)
        special = draw.rng.random() < difficulty.special
        length = draw_chain_length(draw.rng, difficulty, min(difficulty.tools, LONGEST_CHAIN))
        if special:
            kind = draw.rng.choice(("ask", "none"))
            draft = draft_question(draw) if kind == "ask" else draft_unsuited(draw)
        elif length > 1 and draw.rng.random() < 0.2:
            kind = "pair"
            draft = draft_pair(draw)
        else:
            kind = "call" if length == 1 else "chain"
            draft = draft_chain(draw, length)

        request = draft.request
        if draw.word_rng.random() < 0.25:
            request = draw.ask("frame", request=request)
        for _ in range(difficulty.distractors):
            request = f"{draw.ask('noise', n=draw.rng.randrange(2, 100))} {request}"
        wanted = draft.calls if kind == "pair" else draft.calls[-1:]
        return Task(
            world="library",
            kind=kind,
            seed=seed,
            request=request,
            tools=[draw.tool_of(entry) for entry in draft.tools],
            solution=draw.planned(solution_steps(draw, draft.calls, draft.tools)),
            answer=draft.answer,
            constraints=draft.constraints,
            truth={
                "results": [call.result for call in wanted],
                "names": {entry.name: draw.names[entry.name] for entry in draft.tools},
            },
            difficulty=difficulty,
        )

    def __init__(self, task: Task):
        super().__init__(task)
        self.observations: list[str] = []

    def step(self, call: dict) -> str:
        observation = carry_out(self.own_call(call))
        if not failed(observation):
            self.observations.append(observation)
        return observation

    def own_call(self, call: dict) -> dict:
        """A call under the names that the tools have in the library."""
        for tool, names in self.task.truth["names"].items():
            if names.name == call["name"]:
                keys = {renamed: key for key, renamed in names.keys.items()}
                arguments = {keys.get(key, key): value for key, value in call["arguments"].items()}
                return {"name": tool, "arguments": arguments}
        return call

    def verify(self, answer: str) -> bool:
        """Whether the answer is right, and its values are what tools have said."""
        results = self.task.truth["results"]
        if not results:
            return same_answer(answer, self.task.answer)
        lines = answer.strip().splitlines() or [""]
        prefix, _, said = lines[-1].partition(":")
        if prefix.strip().lower() != "answer":
            return False
        values = [said] if len(results) == 1 else said.split(BETWEEN)
        if len(values) != len(results) or not all(map(same_value, values, results)):
            return False
        return all(
            any(same_value(seen, result) for seen in self.observations) for result in results
        )
