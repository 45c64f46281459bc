"""Faults that an episode injects: what they say, what they demand, and how a reader obeys.

One fault is delivered per episode at most, or as many as `difficulty.faults` says (paper section
6.1, recovery from injected tool errors). Instead of carrying out one valid call the tool says, say,
"error: luno is now kemi", and from then on takes `kemi` only. `plan_faults` decides where,
`make_demand` what, `react` is its inverse: it reads the text and says how the next call must
change.

Not to be confused with tools.Fault, a mistake that the agent itself made in a call.
"""

import copy
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worlds.english import draw_argument_name, draw_renaming
from worlds.phrasings import FAULT_PHRASINGS
from worlds.splits import BABBLE, Wordings

# ------------------------------------------------------------------------------------------- kinds

FAULT_KINDS = ("timeout", "locked", "renamed", "moved", "type", "incomplete")
HELD_OUT_KINDS = {"train": (), "validation": ("denied",), "test": ("expired",)}  # of one split only
DEMANDS_MORE = ("incomplete", "denied", "expired")  # those that want a further argument

# ------------------------------------------------------------------------------------------- texts

FAULT_TEXTS = {  # kind: cores of its texts
    "timeout": Wordings(
        (
            "timeout, try again",
            "no answer in time, call again",
            "timed out after 30 s",
            "took too long, once more",
            "still waiting, try again",
            "the server did not answer, repeat",
            "no result in 9 s, call again",
        ),
        ("no reply for 30 s, repeat the call",),
        ("nothing came back for a minute, send it anew",),
    ),
    "locked": Wordings(
        (
            "database locked, try again",
            "locked, repeat",
            "busy, call again",
            "in use, once more",
            "the lock is held, try again",
            "somebody else is writing, repeat",
            "not free now, call again",
        ),
        ("table is busy, repeat the call",),
        ("occupied, send it anew",),
    ),
    "renamed": Wordings(
        (
            "{key} is now {new}",
            "{key} was renamed to {new}",
            "use the name {new} for {key}",
            "{key} is called {new} here",
            "write {new}, not {key}",
            "{new} has taken the place of the argument {key}",
            "no argument {key} any more, but {new}",
        ),
        ("the parameter {key} got the name {new}",),
        ("{key} was replaced, its successor is {new}",),
    ),
    "moved": Wordings(
        (
            "{key} {value} moved to {new}",
            "{key} {value} is now {new}",
            "{value} is gone, {key} is {new}",
            "{key} {value} went to {new}",
            "no {key} {value} any more, but {new}",
            "{new} has taken the place of {key} {value}",
            "look for {key} {value} at {new}",
        ),
        ("{key} {value} has become {new}",),
        ("{key} {value} was replaced, its successor is {new}",),
    ),
    "type": Wordings(
        (
            "{key} must be a string",
            "{key} should be text",
            "give {key} as a string",
            "{key} wants a string",
            "no number for {key}, text please",
            "put {key} in quotes",
            "{key} is a number, text is needed",
        ),
        ("{key} takes text, not a number",),
        ("{key} came as digits, send characters",),
    ),
    "incomplete": Wordings(
        (
            "{key} {new} is missing",
            "add {key} {new}",
            "{key} {new} has to come along",
            "{key} {new}, please",
            "no {key}, it is {new}",
            "{key} is needed, {new}",
            "where is {key} {new}?",
            "send {key} {new} too",
            "{key} {new} was forgotten",
        ),
        ("{key} {new} was left out",),
        ("the call lacks {key} {new}",),
    ),
    "denied": Wordings(
        (),
        (
            "permission denied, pass {key} {new}",
            "not allowed, give {key} {new}",
            "access only with {key} {new}",
            "refused as no {key} {new} came",
        ),
        (),
    ),
    "expired": Wordings(
        (),
        (),
        (
            "session expired, sign on via {key} {new}",
            "ticket outdated, fresh {key} {new} needed",
            "licence lapsed, renew via {key} {new}",
        ),
    ),
}
# Training puts a random opening and ending around a text, so that what it asks for is learnt and
# not the text itself.
OPENINGS = ("", "sorry, ", "stop, ", "not yet: ", "call failed: ", "hm, ")
ENDINGS = ("", ", please", " this time", ", mind that", " since today")
SLOTS = {  # the names in a training fault's text, in the order in which babble has them
    "timeout": "",
    "locked": "",
    "renamed": "key new",
    "moved": "key value new",
    "type": "key",
    "incomplete": "key new",
}


def fault_text(
    kind: str, split: str, rng: random.Random, babble: float = 0.0, names: str = "invented"
) -> str:
    """What a fault of a kind says in a split's words, with {key}, {value} and {new} still open.

    In training, openings and endings stand around it unless `names` is "english", and a share
    `babble` of the texts consists of the names among random words.
    """
    english = names == "english"
    texts = FAULT_PHRASINGS if english else FAULT_TEXTS
    core = rng.choice(getattr(texts[kind], split))
    if split != "train":
        return f"error: {core}"
    if babble and rng.random() < babble:
        parts = rng.choices(BABBLE, k=rng.randint(1, 3))
        for slot in SLOTS[kind].split():
            parts.append(f"{{{slot}}}")
            parts += rng.choices(BABBLE, k=rng.choice((0, 0, 1, 2)))
        core = " ".join(parts)
    if english:
        return f"error: {core}"
    return f"error: {rng.choice(OPENINGS)}{core}{rng.choice(ENDINGS)}"


# ----------------------------------------------------------------------------- injecting a fault


def plan_faults(task: Any, kinds: Sequence[str]) -> list[tuple[int, str]]:
    """Which valid calls of a worlds.base.Task's episode meet which faults: (number from 0, kind) in
    their order.

    Drawn from the task's seed apart from the task itself: the same seeds with and without faults
    are the same tasks.
    """
    rng = random.Random(f"fault {task.seed}")
    kinds = [kind for kind in kinds if kind in task.difficulty.fault_kinds]
    calls = sum(step.call is not None for step in task.solution)
    if not calls or not kinds or rng.random() >= task.difficulty.fault_rate:
        return []
    planned = {rng.randrange(calls): rng.choice(kinds)}
    while len(planned) < task.difficulty.faults:
        # a call that met a fault is made again, which is one more
        planned.setdefault(rng.randrange(calls + len(planned)), rng.choice(kinds))
    return sorted(planned.items())


@dataclass(frozen=True)
class Demand:
    """What a fault wants of every later call of one tool."""

    kind: str
    text: str  # what the tool says
    tool: str
    key: str  # the argument that the fault is about
    value: Any  # what the call gave for it
    new: Any  # the argument's new name, its new value, or a further argument's value

    def schemas(self, tools: list[dict]) -> list[dict]:
        """The tools as they are from now on."""
        tools = copy.deepcopy(tools)
        functions = (entry["function"] for entry in tools)
        parameters = next(f["parameters"] for f in functions if f["name"] == self.tool)
        properties = parameters.setdefault("properties", {})
        required = parameters.setdefault("required", [])
        if self.kind == "renamed":
            parameters["properties"] = _renamed(properties, self.key, self.new)
            parameters["required"] = [self.new if key == self.key else key for key in required]
        elif self.kind == "type":
            properties[self.key] = {"type": "string"}
        elif self.kind in DEMANDS_MORE:
            properties[self.key] = {"type": "integer", "enum": [self.new]}
            required.append(self.key)
        return tools

    def undo(self, call: dict) -> dict | str:
        """A call that obeys the demand as the world takes it; the fault's text if it disobeys."""
        if call["name"] != self.tool:
            return call
        given = dict(call["arguments"])
        if self.kind == "renamed" and self.new in given:
            given[self.key] = given.pop(self.new)
        elif self.kind == "moved" and given.get(self.key) == self.value:
            return self.text  # the old value stays wrong: the same mistake, the same answer
        elif self.kind == "moved" and given.get(self.key) == self.new:
            given[self.key] = self.value
        elif self.kind == "type" and self.key in given:
            if not re.fullmatch(r"-?[0-9]{1,18}", given[self.key]):
                return f"error: {self.key} is no number"
            given[self.key] = int(given[self.key])
        elif self.kind in DEMANDS_MORE:
            given.pop(self.key, None)
        return {"name": self.tool, "arguments": given}


def make_demand(
    kind: str, call: dict, tools: list[dict], task: Any, *, earlier: Sequence[Demand] = ()
) -> Demand:
    """What a fault of a kind demands of a call in an episode of a worlds.base.Task, in force from
    then on beside the `earlier` ones.

    A kind that does not fit the call becomes a timeout.
    """
    name = f"fault value {task.seed}"
    rng = random.Random(f"{name} {len(earlier)}" if earlier else name)
    difficulty = task.difficulty

    # which argument it is about
    arguments = call["arguments"]
    keys = [key for key, value in arguments.items() if kind == "renamed" or type(value) is int]
    # an argument that a fault has added has one value that is right
    of_tool = [demand for demand in earlier if demand.tool == call["name"]]
    added = {demand.key for demand in of_tool if demand.kind in DEMANDS_MORE}
    keys = [key for key in keys if key not in added]
    if kind in ("renamed", "moved", "type") and not keys:
        kind = "timeout"
    key = rng.choice(keys) if keys else ""
    value = arguments.get(key)

    # what it is to become
    functions = (entry["function"] for entry in tools)
    parameters = next(f["parameters"] for f in functions if f["name"] == call["name"])
    taken = parameters.get("properties", {})
    if kind in DEMANDS_MORE:
        key = draw_argument_name(rng, difficulty.split, {*taken}, difficulty.names)
    new: Any
    if kind == "renamed":
        new = draw_renaming(rng, key, difficulty.split, {*taken}, difficulty.names)
    else:
        new = rng.randrange(100, 1000)
    while kind == "moved" and new == value:  # moved to where it is already: nobody could obey
        new = rng.randrange(100, 1000)

    # in which words it is said
    train_words = difficulty.fault_wording == "train" and kind in FAULT_KINDS
    split = "train" if train_words else difficulty.split
    # among random words a key that is one of them cannot be told from the rest
    babble = 0.0 if key in BABBLE else difficulty.babble
    text = fault_text(kind, split, rng, babble, difficulty.names)
    text = text.format(key=key, value=value, new=new)
    return Demand(kind, text, call["name"], key, value, new)


def _renamed(mapping: dict, old: str, new: str) -> dict:
    """The mapping with one key renamed in its place."""
    return {new if key == old else key: value for key, value in mapping.items()}


# ----------------------------------------------------------------------------- reading a fault

_ANY_OPENING = "(?:" + "|".join(map(re.escape, OPENINGS)) + ")"
_ANY_ENDING = "(?:" + "|".join(map(re.escape, ENDINGS)) + ")"


def _sign(core: str) -> re.Pattern:
    """The pattern of a fault's text, with any opening and ending around it."""
    core = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\S+?)", re.escape(core))
    return re.compile(f"error: {_ANY_OPENING}{core}{_ANY_ENDING}\\s*")


def _babbling_sign(kind: str) -> re.Pattern:
    """The same for a fault of a kind in random words: only the names among them tell."""
    word = f"(?:{'|'.join(BABBLE)})"
    name = r"[^\W\d]\w*"
    digits = "-?[0-9]+"
    forms = {"key": name, "value": digits, "new": name if kind == "renamed" else digits}
    core = f"{word}(?: {word})*"
    for slot in SLOTS[kind].split():
        core += f" (?!{word}\\b)(?P<{slot}>{forms[slot]})(?: {word})*"
    return re.compile(f"error: {_ANY_OPENING}{core}{_ANY_ENDING}\\s*")


# Babble comes first. A babbling lock reads like a babbling timeout.
SIGNS = [(kind, _babbling_sign(kind)) for kind in SLOTS if kind != "locked"]
for _kind, _texts in (*FAULT_PHRASINGS.items(), *FAULT_TEXTS.items()):
    for _core in (*_texts.train, *_texts.validation, *_texts.test):
        SIGNS.append((_kind, _sign(_core)))


@dataclass(frozen=True)
class Reaction:
    """How the arguments of the next call must change, as a fault's text asks for it."""

    kind: str
    key: str = ""
    value: str = ""
    new: str = ""

    @property
    def thought(self) -> str:
        """The change in words."""
        if self.kind == "renamed":
            return f"{self.new} instead of {self.key}"
        if self.kind == "moved":
            return f"{self.key} {self.new} instead of {self.value}"
        if self.kind == "type":
            return f"{self.key} as a string"
        if self.kind in DEMANDS_MORE:
            return f"with {self.key} {self.new}"
        return "the same call again"

    def change(self, arguments: dict) -> dict:
        """The arguments with the change made."""
        if self.kind == "renamed":
            return _renamed(arguments, self.key, self.new)
        changed = dict(arguments)
        if self.kind == "moved" and self.key in arguments:
            if str(arguments[self.key]) == self.value:
                changed[self.key] = _as_number(self.new)
        elif self.kind == "type" and self.key in arguments:
            changed[self.key] = str(arguments[self.key])
        elif self.kind in DEMANDS_MORE:
            changed[self.key] = _as_number(self.new)
        return changed


def react(observation: str) -> Reaction | None:
    """What an error text asks for; None where the text is no known fault."""
    for kind, sign in SIGNS:
        match = sign.fullmatch(observation)
        if match:
            return Reaction(kind, **match.groupdict())
    return None


def _as_number(text: str) -> int | str:
    """The integer that a text writes, where it writes one of less than 19 digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text
