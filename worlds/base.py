"""The worlds: where the agent acts, is trained and is judged (paper sections 3.1, 4.1, 6, 10.1).

A world is one file and one class. `sample` draws a task, an instance plays one episode of it:

    task = world("api").sample(7, Difficulty())                     what is asked, the tools, the solution that is known to work
    episode = Episode(task)                                         the world behind a check of each call and an injector of faults
    text = episode.step({"name": "kemilo", "arguments": {...}})     what the tool says; a text that begins with "error" is a failed call
    episode.verify("answer: 42")                                    is the task done? judged by the answer or by the state of the world

What differs from the usual reinforcement-learning environment:
- A tool's result is a function of the task and the arguments alone, so the same mistake gives the
  same wrong result every time. (With random wrong results plain voting is nearly perfect, and
  nothing is left for a verifier to do.)
- Every task carries its own solution as steps with declared dependencies; a scripted teacher can
  therefore act in every world.
- Faults are drawn from the task's seed apart from the task itself: the same seeds with and without
  faults are the same tasks.
- Three splits, train, validation and test, share no name, no wording of a request and no text of a
  fault, and one kind of fault each is nobody else's; every purpose (a stage's tasks, its replay, a
  test …) draws tasks of its own (PURPOSES). tests/test_leaks.py reads what the stages show.
- Names are random but pronounceable; a hash of the name says which split it belongs to.

`python -m worlds --show shell` prints a few tasks with the expert's solution.
"""

import copy
import random
import re
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

from worlds import WORLDS
from worlds import tools as toolbox
from config import UserError
from support.tokenizer import SYLLABLES
from worlds.sandbox import available


# ------------------------------------------------------------------------------ splits and purposes
# What is learnt from, what a recipe is chosen by, and what is reported from are three different
# things. Names, wordings of requests, texts of faults and kinds of faults belong to one split each;
# so does every purpose for which tasks are drawn, and no two purposes share a task's seed.

SPLITS = ("train", "validation", "test")

PURPOSES = {  # what tasks are drawn for -> the split of their names and words
    "show": "train",  # python -m worlds
    "teacher": "train",  # teacher.py's data sets
    "distill": "train",  # the trajectories that stage distill learns from
    "reflect": "train",  # the student's own attempts ...
    "reflect replay": "train",  # ... and the teacher's episodes beside them
    "dpo": "train",
    "dpo replay": "train",
    "ppo": "train",
    "ppo replay": "train",
    "heads": "train",  # the agent's own episodes that the heads learn from ...
    "heads expert": "train",  # ... the expert's, and hard negatives of them
    "heads inverse": "train",  # ... and the expert's again, for the inverse head alone
    "heads calibration": "validation",
    "heads calibration expert": "validation",
    "heads threshold": "validation",
    "validation": "validation",  # where recipes and settings are chosen
    "test": "test",  # what is reported; looked at once a recipe is fixed
    "test expert": "test",  # hard negatives by which the heads are judged
}


def seed_of(purpose: str, seed: int) -> int:
    """The seed with which a run of seed `seed` ≥ 0 draws the tasks of a purpose.

    One-to-one, and so is `draw`'s step from it to each task's own seed: tasks of two purposes, or
    of two runs, have different seeds by construction. Raises UserError for an unknown purpose.
    """
    if purpose not in PURPOSES:
        raise UserError(
            f"tasks are drawn for no purpose {purpose!r}; there are {', '.join(PURPOSES)}"
        )
    return seed * len(PURPOSES) + list(PURPOSES).index(purpose)


# ----------------------------------------------------------------------------------------------------------
# names

# English words that are made like the names below and may stand in texts that the agent reads: no
# name is one of them.
ENGLISH = frozenset(
    "base data date done file gate gave give gone like line made make meta mode more move name node none page rate role safe sage same size some "
    "take time".split()
)


NAME = re.compile(f"(?:{'|'.join(SYLLABLES)}){{2}}")


def split_of(name: str) -> str:
    """The one split whose tasks may use a name; a hash decides, so no list of names has to be kept:
    three in five train, one each validates and tests.
    """
    return {0: "test", 1: "validation"}.get(zlib.crc32(name.encode()) % 5, "train")


def strangers(text: str, split: str = "train") -> set[str]:
    """The made-up names in a text that belong to another split."""
    words = set(re.findall(r"\b[a-z]+\b", text)) - ENGLISH
    return {word for word in words if NAME.fullmatch(word) and split_of(word) != split}


def draw_name(rng: random.Random, split: str, used: set[str], syllables: int = 2) -> str:
    """A pronounceable name of the split that is not yet in `used`; it is added there."""
    while True:
        name = "".join(rng.choice(SYLLABLES) for _ in range(syllables))
        if name not in used and name not in ENGLISH and split_of(name) == split:
            used.add(name)
            return name


# ----------------------------------------------------------------------------------------- wordings


@dataclass(frozen=True)
class Wordings:
    """The ways to say one thing, by split; {slots} are filled in."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def draw(self, rng: random.Random, split: str, **slots: Any) -> str:
        """One of a split's."""
        return rng.choice(getattr(self, split)).format(**slots)


UNSUITED = Wordings(  # requests that no tool fits
    (
        "Call {a} at noon.",
        "Book a table for {a}.",
        "Ask {a} how {b} is.",
        "Teach {a} to swim.",
        "Meet {a} and {b} at six.",
    ),
    ("Invite {a} for lunch.", "Drive {a} to {b}."),
    ("Cook dinner for {a}.", "Paint a picture of {a} with {b}."),
)

# -------------------------------------------------------------------------------------------------
# tasks and steps

FAULT_KINDS = ("timeout", "locked", "renamed", "moved", "type", "incomplete")
DEMANDS_MORE = ("incomplete", "denied", "expired")  # those that want a further argument
HELD_OUT_KINDS = {
    "train": (),
    "validation": ("denied",),
    "test": ("expired",),
}  # kinds of faults that one split alone has


@dataclass(frozen=True)
class Difficulty:
    """The knobs of a task. Worlds ignore those that mean nothing to them."""

    tools: int = 3  # tools in the prompt, 2 to 6
    arguments: int = 2  # most arguments of one tool, 1 to 4
    chain: int = 2  # most calls of a solution, 1 to 4
    decoys: int = 1  # tools (tables, files) that share the right one's nouns
    distractors: int = 0  # lines of the request that do not matter
    special: float = (
        0.2  # share of tasks with another right answer than a call: ask, no tool fits, refuse
    )
    fault_rate: float = 0.0  # probability that an episode delivers one fault
    fault_kinds: tuple[str, ...] = (
        FAULT_KINDS  # which of them; a held-out kind is refused in another split than its own
    )
    fault_wording: str = (
        "split"  # texts of faults: the split's own, or "train": to tell what new words cost
    )
    request_wording: str = "split"  # words of requests: likewise
    # share of faults, and of requests in the API world, whose words say nothing: only their names
    # do
    babble: float = 0.0
    # how the tools stand in the prompt: "compact" or "qwen", as tokenizer.chat_text has it
    style: str = "compact"
    split: str = "train"  # whose names and words occur: see SPLITS

    def __post_init__(self) -> None:
        for name, low, high in (
            ("tools", 1, 6),
            ("arguments", 1, 4),
            ("chain", 1, 4),
            ("decoys", 0, 6),
            ("distractors", 0, 100),
            ("special", 0, 1),
            ("fault_rate", 0, 1),
            ("babble", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"difficulty's {name} is {getattr(self, name)}; wanted {low} to {high}"
                )
        for name, known in (
            ("fault_wording", ("split", "train")),
            ("request_wording", ("split", "train")),
            ("style", ("compact", "qwen")),
            ("split", SPLITS),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"difficulty's {name} is {getattr(self, name)!r}; wanted {' or '.join(known)}"
                )
        allowed = FAULT_KINDS + HELD_OUT_KINDS[self.split]
        if unknown := [kind for kind in self.fault_kinds if kind not in allowed]:
            raise UserError(
                f"difficulty's fault_kinds names {unknown[0]}; wanted some of {', '.join(allowed)} (others are held out from the split {self.split})"
            )
        if self.babble and self.split != "train":
            raise UserError(
                f"difficulty's babble is {self.babble} in the split {self.split}; its words belong to training"
            )

    @classmethod
    def of(cls, section: Any, **more) -> "Difficulty":
        """As a section of training's settings has it: its fault_rate, fault_kinds (with commas) and
        babble.
        """
        return cls(
            **{
                "fault_rate": section.fault_rate,
                "fault_kinds": tuple(section.fault_kinds.split(",")),
                "babble": section.babble,
                **more,
            }
        )

    @property
    def words(self) -> str:
        """The split whose wordings a request is drawn from."""
        return "train" if self.request_wording == "train" else self.split


@dataclass(frozen=True)
class Step:
    """One step of a solution: its line in the plan, the thought before the call, the call, the
    steps it needs (counted from 1).
    """

    goal: str  # the step's line in the plan, e.g. "kemilo rana=17"
    thought: str  # one line, said right before the call; may name earlier results
    call: dict | None  # {"name": ..., "arguments": {...}} with the true values; None: thought alone
    depends_on: tuple[int, ...] = ()  # numbers of the steps whose results this one uses
    wrong: tuple[
        dict, ...
    ] = ()  # calls that look right and are not, where the world knows some (logic errors)


@dataclass(frozen=True)
class Task:
    """One task: all that the agent sees, all that the judge needs, and a solution.

    `answer` is the last message of a right episode ("answer: 42", "ask: rana", "done", "no tool
    fits", "refuse: ..."); `truth` is whatever the world's own `verify` needs; `constraints` (name
    -> value) is what the request demands and what the inverse-consistency head reconstructs from
    plan and conclusion (equation 13).
    """

    world: str
    kind: str  # family within the world: "chain", "ask", "select", ...
    seed: int
    request: str  # the user's message
    tools: list[dict]  # {"type": "function", "function": {name, description, parameters}}
    solution: list[Step]
    answer: str
    constraints: dict[str, Any]
    truth: dict[str, Any] = field(default_factory=dict)
    difficulty: Difficulty = Difficulty()
    analysis: str = ""  # what the expert thinks before it plans: lines, or nothing

    def shown_tools(self) -> list:
        """The tools as `tokenizer.chat_text` takes them in the task's style: schemas, or one short line
        each.
        """
        return (
            [toolbox.compact(tool) for tool in self.tools]
            if self.difficulty.style == "compact"
            else self.tools
        )

    def allows(self, name: str) -> bool:
        """Whether a name that is made up for this task belongs to its split."""
        return split_of(name) == self.difficulty.split

    def wrong_calls(self, call: dict) -> list[dict]:
        """The world's own wrong alternatives to a call of the solution."""
        return [wrong for step in self.solution if step.call == call for wrong in step.wrong]

    def fails(self, right: dict, wrong: dict) -> bool:
        """Whether taking `wrong` instead of the solution's call `right` goes wrong, found out by
        executing both.

        It does if the call is refused, if the tool says something else than it says to `right`, or
        if the episode, continued
        along the solution, does not verify. The task is played without faults.
        """
        calls = [step.call for step in self.solution if step.call]
        at = calls.index(right)
        with Episode(self, faults=False) as expected, Episode(self, faults=False) as actual:
            for call in calls[:at]:
                expected.step(call), actual.step(call)
            said, heard = expected.step(right), actual.step(wrong)
            if failed(heard) or said != heard:
                return True
            for call in calls[at + 1 :]:
                actual.step(call)
            return not actual.verify(self.answer)


class World:
    """The protocol. A subclass draws tasks; an instance is the state of one episode of one task.

    `step` and `verify` bound what they do in seconds and bytes, whatever the agent says: each world
    says how.
    """

    faults: tuple[str, ...] = (*FAULT_KINDS, "denied", "expired")  # the kinds that make sense here
    wordings: dict[str, Wordings] = {}  # every wording of its requests, by what is asked for
    patience = 20.0  # seconds that one episode may spend in it
    checked = (
        True  # a call that breaks the schemas is refused; False: the world's own judge takes it
    )

    @classmethod
    def sample(cls, seed: int, difficulty: Difficulty) -> Task:
        """The task of a seed: everything about it is drawn from the seed and the difficulty."""
        raise NotImplementedError

    def __init__(self, task: Task):
        self.task = task

    def step(self, call: dict) -> str:
        """Carry out a call that has passed `tools.check`; return what the tool says ("error:

        ..." if it fails). Never raises.
        """
        raise NotImplementedError

    def verify(self, answer: str) -> bool:
        """Whether the task is done, given the agent's last message.

        The default judges by the answer alone.
        """
        return same_answer(answer, self.task.answer)

    def close(self) -> None:
        """Give back what the episode holds (processes, files, connections)."""


def world(name: str) -> type[World]:
    """The class of a world by its name, or of tasks read from files by "module.Class"; raises
    UserError if there is none.
    """
    module, _, of_files = name.partition(
        "."
    )  # "benchmarks.Functions": nothing can be sampled there
    if not of_files and name not in WORLDS:
        raise UserError(f"there is no world {name!r}; there are {', '.join(WORLDS)}")
    return getattr(import_module(f"worlds.{module}"), of_files or WORLDS[name])


@cache
def told(line: str) -> None:
    """Say something once."""
    print(line, file=sys.stderr, flush=True)


def playable(names: Sequence[str]) -> list[str]:
    """The worlds that can be acted in on this machine; one line says what is left out.

    Raises UserError where none is left.
    """
    if "shell" not in names or available():
        return list(names)
    why = "a model's commands run nowhere but in bubblewrap, which is not installed (apt-get install bubblewrap)"
    if set(names) == {"shell"}:
        raise UserError(f"the shell world cannot be played: {why}")
    told(f"the shell world is left out: {why}")
    return [name for name in names if name != "shell"]


MOST_TASKS = 2**32  # of one seed; an index is the lower half of a task's own seed


def draw(name: str, seed: int, index: int, difficulty: Difficulty = Difficulty()) -> Task:
    """Task number `index` of a seed: the same arguments give the same task, so a data set's line
    can be rebuilt as a task.
    """
    if not 0 <= index < MOST_TASKS:
        raise UserError(
            f"task {index} of the world {name}: wanted a number from 0 to {MOST_TASKS - 1}"
        )
    return world(name).sample(seed * MOST_TASKS + index, difficulty)


@dataclass(frozen=True)
class Tasks:
    """The tasks of one purpose and run, endless: `tasks[index]`; worlds take turns, as far as they
    are playable here.
    """

    purpose: str  # one of PURPOSES
    seed: int  # of the run
    worlds: Sequence[str]
    difficulty: Difficulty  # its split becomes the purpose's

    def __post_init__(self) -> None:
        object.__setattr__(self, "worlds", playable(self.worlds))

    def arguments(self, index: int) -> tuple[str, int, int, Difficulty]:
        """Of `draw`, for task number `index`."""
        seed = seed_of(self.purpose, self.seed)
        return (
            self.worlds[index % len(self.worlds)],
            seed,
            index,
            replace(self.difficulty, split=PURPOSES[self.purpose]),
        )

    def __getitem__(self, index: int) -> Task:
        return draw(*self.arguments(index))


def failed(observation: str) -> bool:
    """Whether a tool's text reports a failed call."""
    return observation.startswith("error")


def same_answer(given: str, wanted: str) -> bool:
    """Whether the last line of the agent's message is the wanted one, up to case, spaces and a
    closing full stop.
    """
    last = (given.strip().splitlines() or [""])[-1]
    words, wanted_words = (
        re.findall(r"\w+|[^\w\s]", text.lower().rstrip(". ")) for text in (last, wanted)
    )
    return words == wanted_words


# ---------------------------------------------------------------------------------------------------------
# faults

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
OPENINGS = (
    "",
    "sorry, ",
    "stop, ",
    "not yet: ",
    "call failed: ",
    "hm, ",
)  # what stands around a core, so that no text is learnt by heart instead of what it asks for
ENDINGS = ("", ", please", " this time", ", mind that", " since today")
SLOTS = {
    "timeout": "",
    "locked": "",
    "renamed": "key new",
    "moved": "key value new",
    "type": "key",
    "incomplete": "key new",
}  # what a fault of training names, in babble's order
BABBLE = """about above after although always because behind below between beyond both built cannot check close code common course cycle days
different during early either else empty end enough even extra far few field final follow full further general great group half
hand happen hard head help high however idea important instead item keep kind large last later least less level light list little
local low match matter may mean might most must near never next night nor often old order other our over own part past people
perhaps place plan point possible present problem question quite rather ready real right room second seem set several shall short
should small something soon start step still such there these thing think those though three through together top toward true turn
two unless until upon usual very want way week well were when whether while why will wish within world would year your""".split()


def fault_text(kind: str, split: str, rng: random.Random, babble: float = 0.0) -> str:
    """What a fault of a kind says in a split's words, with {key}, {value} and {new} still open.

    In training openings and endings stand around it, and in a share of `babble` there are only the
    names, among words by chance.
    """
    core = rng.choice(getattr(FAULT_TEXTS[kind], split))
    if split != "train":
        return f"error: {core}"
    if babble and rng.random() < babble:
        parts = rng.choices(BABBLE, k=rng.randint(1, 3))
        for slot in SLOTS[kind].split():
            parts += [f"{{{slot}}}", *rng.choices(BABBLE, k=rng.choice((0, 0, 1, 2)))]
        core = " ".join(parts)
    return f"error: {rng.choice(OPENINGS)}{core}{rng.choice(ENDINGS)}"


def plan_fault(task: Task, kinds: Sequence[str]) -> tuple[int, str] | None:
    """Which of the episode's valid calls meets which fault:

    (number from 0, kind), or None. A function of the task's seed.
    """
    rng = random.Random(f"fault {task.seed}")
    kinds = [kind for kind in kinds if kind in task.difficulty.fault_kinds]
    calls = sum(step.call is not None for step in task.solution)
    if not calls or not kinds or rng.random() >= task.difficulty.fault_rate:
        return None
    return rng.randrange(calls), rng.choice(kinds)


def demand(
    kind: str, call: dict, tools: list[dict], task: Task
) -> tuple[str, str, list[dict], Callable[[dict], dict | str]]:
    """What a fault says to a call and what it demands from then on: (kind, text, schemas in force,
    undo).

    `undo` turns a call that obeys the demand into the one that the world knows, or into the fault's
    text if it does not obey. A kind whose demand cannot be put on this call becomes a timeout.
    """
    rng = random.Random(f"fault value {task.seed}")
    name, arguments = call["name"], call["arguments"]
    keys = [key for key, value in arguments.items() if kind == "renamed" or type(value) is int]
    if kind in ("renamed", "moved", "type") and not keys:
        kind = "timeout"
    key = rng.choice(keys) if keys else ""
    value = arguments.get(key)
    tools = copy.deepcopy(tools)
    parameters = next(t["function"]["parameters"] for t in tools if t["function"]["name"] == name)
    properties, required = (
        parameters.setdefault("properties", {}),
        parameters.setdefault("required", []),
    )
    knobs = task.difficulty
    if kind in DEMANDS_MORE:
        key = draw_name(rng, knobs.split, {*properties})
    new: Any = (
        draw_name(rng, knobs.split, {*properties})
        if kind == "renamed"
        else rng.randrange(100, 1000)
    )
    while kind == "moved" and new == value:  # to where it is already, no call could obey
        new = rng.randrange(100, 1000)
    words = "train" if knobs.fault_wording == "train" and kind in FAULT_KINDS else knobs.split
    text = fault_text(kind, words, rng, knobs.babble).format(key=key, value=value, new=new)
    if kind == "renamed":
        parameters["properties"] = {
            new if k == key else k: schema for k, schema in properties.items()
        }
        parameters["required"] = [new if k == key else k for k in required]
    elif kind == "type":
        properties[key] = {"type": "string"}
    elif kind in DEMANDS_MORE:
        properties[key] = {"type": "integer", "enum": [new]}
        required.append(key)

    def undo(call: dict) -> dict | str:
        given = dict(call["arguments"])
        if call["name"] != name:
            return call
        if kind == "renamed" and new in given:
            given[key] = given.pop(new)
        elif kind == "moved" and given.get(key) == value:
            return text  # the old place stays empty: the same mistake, the same answer
        elif kind == "moved" and given.get(key) == new:
            given[key] = value
        elif kind == "type" and key in given:
            if not re.fullmatch(r"-?[0-9]{1,18}", given[key]):
                return f"error: {key} is no number"
            given[key] = int(given[key])
        elif kind in DEMANDS_MORE:
            given.pop(key, None)
        return {"name": name, "arguments": given}

    return kind, text, tools, undo


@dataclass(frozen=True)
class Entry:
    """One call of an episode: as the agent made it, what the check found, what was said, and the
    call as the world took it.
    """

    call: Any
    faults: list[toolbox.Fault]
    said: str
    taken: dict | None  # None if the call did not reach the world


class Episode:
    """One attempt at a task: checks each call against the schemas, injects the task's fault, passes
    the rest to the world.

    `tools` are the schemas in force: a fault may rename a parameter, change its type or demand a
    further one. `log` holds every call; `fault` is (place in the log, kind) once one was delivered;
    `verified` is the verdict once it was asked for.
    """

    def __init__(self, task: Task, faults: bool = True):
        self.task = task
        self.tools = task.tools
        self.world = world(task.world)(task)
        self.planned = plan_fault(task, self.world.faults) if faults else None
        self.fault: tuple[int, str] | None = None
        self.verified: bool | None = None
        self.problem = ""  # what the world raised, if it did
        self.seconds = 0.0  # spent in steps and the verdict
        self.valid_calls = 0
        self.log: list[Entry] = []
        self.undo: Callable[[dict], dict | str] = lambda call: call

    def __enter__(self) -> "Episode":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the world holds."""
        try:
            self.world.close()
        except Exception as error:
            self.problem = self.problem or f"{type(error).__name__}: {error}"

    def step(self, call: dict | str) -> str:
        """What the tool says to a call (a dict, or the raw text of one); a wrong call is told its
        first fault.
        """
        began = time.monotonic()
        decoded = toolbox.decode(call)
        found = toolbox.faults_of(decoded, self.tools) if isinstance(decoded, dict) else [decoded]
        known: dict | str | None = None
        if found and (self.world.checked or not isinstance(decoded, dict)):
            said = f"error: {found[0].message}"
        elif self.planned and not self.fault and self.valid_calls == self.planned[0]:
            kind, said, self.tools, self.undo = demand(
                self.planned[1], decoded, self.tools, self.task
            )
            self.fault = len(self.log), kind
        else:
            known = self.undo(decoded)
            said = known if isinstance(known, str) else self.act(known)
            known = None if self.problem else known  # a world that broke has taken nothing
        self.valid_calls += not found
        self.seconds += time.monotonic() - began
        self.log.append(Entry(call, found, said, known if isinstance(known, dict) else None))
        return said

    def act(self, call: dict) -> str:
        """What the world says to a call.

        Whatever it raises is the agent's failure, and is kept in `problem` for whoever mends the
        world.
        """
        try:
            return self.world.step(call)
        except UserError:  # of whoever set the machine up, not the agent's
            raise
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
            return "error: the tool broke down"

    def verify(self, answer: str) -> bool:
        """Whether the task is done, given the agent's last message; not where the world raises or
        was broken by a call.
        """
        began = time.monotonic()
        try:
            self.verified = bool(self.world.verify(answer)) and not self.problem
        except UserError:
            raise
        except Exception as error:
            self.verified, self.problem = False, f"{type(error).__name__}: {error}"
        finally:
            self.seconds += time.monotonic() - began
        return self.verified
