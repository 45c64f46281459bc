"""The worlds: where the agent acts, is trained and is judged (paper sections 3.1, 4.1, 6, 10.1).

A world is one file and one class. `sample` draws a task, an instance plays one episode of it:

    task = world("api").sample(random.Random(7), Difficulty())      what is asked, the tools, the solution that is known to work
    episode = Episode(task)                                         the world behind a check of each call and an injector of faults
    text = episode.step({"name": "kemilo", "arguments": {...}})     what the tool says; a text that begins with "error" is a failed call
    episode.verify("answer: 42")                                    is the task done? judged by the answer or by the state of the world

What differs from the usual reinforcement-learning environment:
- A tool's result is a function of the task and the arguments alone, so the same mistake gives the same wrong result every time.
  (With random wrong results plain voting is nearly perfect, and nothing is left for a verifier to do.)
- Every task carries its own solution as steps with declared dependencies; a scripted teacher can therefore act in every world.
- Faults are drawn from the task's seed apart from the task itself: the same seeds with and without faults are the same tasks.
- Names are random but pronounceable; a hash of the name says whether it belongs to training or is held out for testing.

`python -m worlds --show shell` prints a few tasks with the expert's solution.
"""

import copy
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import tools as toolbox
from config import UserError
from tokenizer import SYLLABLES

WORLDS = {"api": "Api", "sql": "Sql", "shell": "Shell", "math": "Math", "safety": "Safety"}  # module in this folder -> its class


# ---------------------------------------------------------------------------------------------------------- names

HELD_OUT = 5  # one name in five is kept for testing


def held_out(name: str) -> bool:
    """Whether a name is reserved for test tasks; a hash decides, so no list of names has to be kept anywhere."""
    return zlib.crc32(name.encode()) % HELD_OUT == 0


def draw_name(rng: random.Random, split: str, used: set[str], syllables: int = 2) -> str:
    """A pronounceable name of the split ("train" or "test") that is not yet in `used`; it is added there."""
    while True:
        name = "".join(rng.choice(SYLLABLES) for _ in range(syllables))
        if name not in used and held_out(name) == (split == "test"):
            used.add(name)
            return name


# ------------------------------------------------------------------------------------------------- tasks and steps

FAULT_KINDS = ("timeout", "locked", "renamed", "moved", "type", "incomplete", "denied")


@dataclass(frozen=True)
class Difficulty:
    """The knobs of a task. Worlds ignore those that mean nothing to them."""
    tools: int = 3                               # tools in the prompt, 2 to 6
    arguments: int = 2                           # most arguments of one tool, 1 to 4
    chain: int = 2                               # most calls of a solution, 1 to 4
    decoys: int = 1                              # tools (tables, files) that share the right one's nouns
    distractors: int = 0                         # lines of the request that do not matter
    special: float = 0.2                         # share of tasks with another right answer than a call: ask, no tool fits, refuse
    fault_rate: float = 0.0                      # probability that an episode delivers one fault
    fault_kinds: tuple[str, ...] = FAULT_KINDS   # which of them; leave one out of training to test on it
    fault_wording: str = "seen"                  # "unseen": other words for the same faults, for testing only
    request_wording: str = "seen"                # "unseen": the API world's requests in words that nobody looked at while training was made, for testing only
    babble: float = 0.0                          # share of faults, and of requests in the API world, whose words say nothing: only their names do
    style: str = "compact"                       # how the tools stand in the prompt: "compact" or "qwen", as tokenizer.chat has it
    split: str = "train"                         # "train" or "test": which names may occur

    def __post_init__(self) -> None:
        for name, low, high in (("tools", 1, 6), ("arguments", 1, 4), ("chain", 1, 4), ("decoys", 0, 6), ("distractors", 0, 100),
                                ("special", 0, 1), ("fault_rate", 0, 1), ("babble", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"difficulty's {name} is {getattr(self, name)}; wanted {low} to {high}")
        for name, known in (("fault_wording", ("seen", "unseen")), ("request_wording", ("seen", "unseen")), ("style", ("compact", "qwen")), ("split", ("train", "test"))):
            if getattr(self, name) not in known:
                raise UserError(f"difficulty's {name} is {getattr(self, name)!r}; wanted {' or '.join(known)}")
        if unknown := set(self.fault_kinds) - set(FAULT_KINDS):
            raise UserError(f"difficulty's fault_kinds is {self.fault_kinds}, {min(unknown)} among them; wanted some of {', '.join(FAULT_KINDS)}")

    @classmethod
    def of(cls, section: Any, **more) -> "Difficulty":
        """As a section of training's settings has it: its fault_rate, fault_kinds (with commas) and babble."""
        return cls(**{"fault_rate": section.fault_rate, "fault_kinds": tuple(section.fault_kinds.split(",")), "babble": section.babble, **more})


@dataclass(frozen=True)
class Step:
    """One step of a solution: its line in the plan, the thought before the call, the call, the steps it needs (counted from 1)."""
    goal: str                                    # the step's line in the plan, e.g. "kemilo rana=17"
    thought: str                                 # one line, said right before the call; may name earlier results
    call: dict | None                            # {"name": ..., "arguments": {...}} with the true values; None: thought alone
    depends_on: tuple[int, ...] = ()             # numbers of the steps whose results this one uses
    wrong: tuple[dict, ...] = ()                 # calls that look right and are not, where the world knows some (logic errors)


@dataclass(frozen=True)
class Task:
    """One task: all that the agent sees, all that the judge needs, and a solution.

    `answer` is the last message of a right episode ("answer: 42", "ask: rana", "done", "no tool fits", "refuse: ..."); `truth` is
    whatever the world's own `verify` needs; `constraints` (name -> value) is what the request demands and what the
    inverse-consistency head reconstructs from plan and conclusion (equation 13).
    """
    world: str
    kind: str                                    # family within the world: "chain", "ask", "select", ...
    seed: int
    request: str                                 # the user's message
    tools: list[dict]                            # {"type": "function", "function": {name, description, parameters}}
    solution: list[Step]
    answer: str
    constraints: dict[str, Any]
    truth: dict[str, Any] = field(default_factory=dict)
    difficulty: Difficulty = Difficulty()
    analysis: str = ""                           # what the expert thinks before it plans: lines, or nothing

    def shown_tools(self) -> list:
        """The tools as `tokenizer.chat` takes them in the task's style: schemas, or one short line each."""
        return [toolbox.compact(tool) for tool in self.tools] if self.difficulty.style == "compact" else self.tools

    def wrong_calls(self, call: dict) -> list[dict]:
        """The world's own wrong alternatives to a call of the solution."""
        return [wrong for step in self.solution if step.call == call for wrong in step.wrong]

    def fails(self, right: dict, wrong: dict) -> bool:
        """Whether taking `wrong` instead of the solution's call `right` goes wrong, found out by executing both.

        It does if the call is refused, if the tool says something else than it says to `right`, or if the episode, continued
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
            for call in calls[at + 1:]:
                actual.step(call)
            return not actual.verify(self.answer)


class World:
    """The protocol. A subclass draws tasks, and an instance is the state of one episode of one task."""
    faults: tuple[str, ...] = FAULT_KINDS        # the kinds that make sense here
    checked = True                               # a call that breaks the schemas is refused; False: the world's own judge takes it

    @classmethod
    def sample(cls, rng: random.Random, difficulty: Difficulty) -> Task:
        """Draw a task: take one `seed = rng.getrandbits(32)`, and everything else from random.Random(seed)."""
        raise NotImplementedError

    def __init__(self, task: Task):
        self.task = task

    def step(self, call: dict) -> str:
        """Carry out a call that has passed `tools.check`; return what the tool says ("error: ..." if it fails). Never raises."""
        raise NotImplementedError

    def verify(self, answer: str) -> bool:
        """Whether the task is done, given the agent's last message. The default judges by the answer alone."""
        return same_answer(answer, self.task.answer)

    def close(self) -> None:
        """Give back what the episode holds (processes, files, connections)."""


def world(name: str) -> type[World]:
    """The class of a world by its name, or of tasks read from files by "module.Class"; raises UserError if there is none."""
    module, _, of_files = name.partition(".")    # "benchmarks.Functions": nothing can be sampled there
    if not of_files and name not in WORLDS:
        raise UserError(f"there is no world {name!r}; there are {', '.join(WORLDS)}")
    return getattr(import_module(f"worlds.{module}"), of_files or WORLDS[name])


def draw(name: str, seed: int, index: int, difficulty: Difficulty = Difficulty()) -> Task:
    """Task number `index` of a seed: the same arguments give the same task, so a data set's line can be rebuilt as a task."""
    return world(name).sample(random.Random(f"{name} {seed} {index}"), difficulty)


def failed(observation: str) -> bool:
    """Whether a tool's text reports a failed call."""
    return observation.startswith("error")


def same_answer(given: str, wanted: str) -> bool:
    """Whether the last line of the agent's message is the wanted one, up to case, spaces and a closing full stop."""
    last = (given.strip().splitlines() or [""])[-1]
    words, wanted_words = (re.findall(r"\w+|[^\w\s]", text.lower().rstrip(". ")) for text in (last, wanted))
    return words == wanted_words


# --------------------------------------------------------------------------------------------------------- faults

FAULT_TEXTS = {  # kind: cores of the texts seen in training, and last other words for testing
    "timeout": ("error: timeout, try again", "error: no answer in time, call again", "error: timed out after 30 s", "error: took too long, once more", "error: still waiting, try again",
                "error: the server did not answer, repeat", "error: no result in 9 s, call again", "error: no reply for 30 s, repeat the call"),
    "locked": ("error: database locked, try again", "error: locked, repeat", "error: busy, call again", "error: in use, once more", "error: the lock is held, try again",
               "error: somebody else is writing, repeat", "error: not free now, call again", "error: table is busy, repeat the call"),
    "renamed": ("error: {key} is now {new}", "error: {key} was renamed to {new}", "error: use the name {new} for {key}", "error: {key} is called {new} here", "error: write {new}, not {key}",
                "error: {new} has taken the place of the argument {key}", "error: no argument {key} any more, but {new}", "error: the parameter {key} got the name {new}"),
    "moved": ("error: {key} {value} moved to {new}", "error: {key} {value} is now {new}", "error: {value} is gone, {key} is {new}", "error: {key} {value} went to {new}",
              "error: no {key} {value} any more, but {new}", "error: {new} has taken the place of {key} {value}", "error: look for {key} {value} at {new}", "error: {key} {value} has become {new}"),
    "type": ("error: {key} must be a string", "error: {key} should be text", "error: give {key} as a string", "error: {key} wants a string", "error: no number for {key}, text please",
             "error: put {key} in quotes", "error: {key} is a number, text is needed", "error: {key} takes text, not a number"),
    "incomplete": ("error: {key} {new} is missing", "error: add {key} {new}", "error: {key} {new} has to come along", "error: {key} {new}, please", "error: no {key}, it is {new}",
                   "error: {key} is needed, {new}", "error: where is {key} {new}?", "error: send {key} {new} too", "error: {key} {new} was forgotten", "error: {key} {new} was left out"),
    "denied": ("error: permission denied, pass {key} {new}", "error: not allowed, give {key} {new}", "error: access only with {key} {new}", "error: refused without {key} {new}"),
}
OPENINGS = ("", "sorry, ", "stop, ", "not yet: ", "call failed: ", "hm, ")  # what stands around a core, so that no text is learnt by heart instead of what it asks for
ENDINGS = ("", ", please", " this time", ", mind that", " since today")
SLOTS = {"timeout": "", "locked": "", "renamed": "key new", "moved": "key value new", "type": "key", "incomplete": "key new", "denied": "key new"}  # what a fault names, in babble's order
BABBLE = """about above after although always another because behind below between beyond both bring built by cannot check clear close code common could count course cycle days different does
during each early either else empty end enough even every extra far few field final first follow from full further general great group half hand happen hard having head help high
hold however idea important inside instead item keep kind large last later least less level light list little local long look low main many match matter may mean might most much
must near never next night nor often old open order other our over own part past people perhaps place plan point possible present problem question quite rather ready real right
room second seem set several shall short should show small something soon start state step still such system their them then there these they thing think those though three through
together top toward true turn two under unless until up upon usual very want way week well were what when where whether which while whole why will wish within word work world would
write year your""".split()  # none is a name, or stands in a text that is kept for testing, or in an opening or ending


def fault_text(kind: str, wording: str, rng: random.Random, babble: float = 0.0) -> str:
    """What a fault of a kind says, with {key}, {value} and {new} still open; in a share of `babble` nothing but these, among words by chance."""
    *seen, unseen = FAULT_TEXTS[kind]
    if wording == "unseen":
        return unseen
    if babble and rng.random() < babble:
        parts = rng.choices(BABBLE, k=rng.randint(1, 3))
        for slot in SLOTS[kind].split():
            parts += [f"{{{slot}}}", *rng.choices(BABBLE, k=rng.choice((0, 0, 1, 2)))]
        return f"error: {rng.choice(OPENINGS)}{' '.join(parts)}{rng.choice(ENDINGS)}"
    return f"error: {rng.choice(OPENINGS)}{rng.choice(seen).removeprefix('error: ')}{rng.choice(ENDINGS)}"


def plan_fault(task: Task, kinds: Sequence[str]) -> tuple[int, str] | None:
    """Which of the episode's valid calls meets which fault: (number from 0, kind), or None. A function of the task's seed."""
    rng = random.Random(f"fault {task.seed}")
    kinds = [kind for kind in kinds if kind in task.difficulty.fault_kinds]
    calls = sum(step.call is not None for step in task.solution)
    if not calls or not kinds or rng.random() >= task.difficulty.fault_rate:
        return None
    return rng.randrange(calls), rng.choice(kinds)


def demand(kind: str, call: dict, tools: list[dict], task: Task) -> tuple[str, str, list[dict], Callable[[dict], dict | str]]:
    """What a fault says to a call and what it demands from then on: (kind, text, schemas in force, undo).

    `undo` turns a call that obeys the demand into the one that the world knows, or into the fault's text if it does not obey.
    A kind whose demand cannot be put on this call becomes a timeout.
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
    properties, required = parameters.setdefault("properties", {}), parameters.setdefault("required", [])
    if kind in ("incomplete", "denied"):
        key = draw_name(rng, task.difficulty.split, {*properties})
    new: Any = draw_name(rng, task.difficulty.split, {*properties}) if kind == "renamed" else rng.randrange(100, 1000)
    text = fault_text(kind, task.difficulty.fault_wording, rng, task.difficulty.babble).format(key=key, value=value, new=new)
    if kind == "renamed":
        parameters["properties"] = {new if k == key else k: schema for k, schema in properties.items()}
        parameters["required"] = [new if k == key else k for k in required]
    elif kind == "type":
        properties[key] = {"type": "string"}
    elif kind in ("incomplete", "denied"):
        properties[key] = {"type": "integer", "enum": [new]}
        required.append(key)

    def undo(call: dict) -> dict | str:
        given = dict(call["arguments"])
        if call["name"] != name:
            return call
        if kind == "renamed" and new in given:
            given[key] = given.pop(new)
        elif kind == "moved" and given.get(key) == value:
            return text                          # the old place stays empty: the same mistake, the same answer
        elif kind == "moved" and given.get(key) == new:
            given[key] = value
        elif kind == "type" and key in given:
            if not re.fullmatch(r"-?[0-9]{1,18}", given[key]):
                return f"error: {key} is no number"
            given[key] = int(given[key])
        elif kind in ("incomplete", "denied"):
            given.pop(key, None)
        return {"name": name, "arguments": given}

    return kind, text, tools, undo


@dataclass(frozen=True)
class Entry:
    """One call of an episode: as the agent made it, what the check found, what was said, and the call as the world took it."""
    call: Any
    faults: list[toolbox.Fault]
    said: str
    taken: dict | None                           # None if the call did not reach the world


class Episode:
    """One attempt at a task: checks each call against the schemas, injects the task's fault, passes the rest to the world.

    `tools` are the schemas in force: a fault may rename a parameter, change its type or demand a further one. `log` holds
    every call; `fault` is (place in the log, kind) once one was delivered; `verified` is the verdict once it was asked for.
    """

    def __init__(self, task: Task, faults: bool = True):
        self.task = task
        self.tools = task.tools
        self.world = world(task.world)(task)
        self.planned = plan_fault(task, self.world.faults) if faults else None
        self.fault: tuple[int, str] | None = None
        self.verified: bool | None = None
        self.valid_calls = 0
        self.log: list[Entry] = []
        self.undo: Callable[[dict], dict | str] = lambda call: call

    def __enter__(self) -> "Episode":
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()

    def step(self, call: dict | str) -> str:
        """What the tool says to a call (a dict, or the raw text of one); a wrong call is told its first fault."""
        decoded = toolbox.decode(call)
        found = toolbox.faults_of(decoded, self.tools) if isinstance(decoded, dict) else [decoded]
        known: dict | str | None = None
        if found and (self.world.checked or not isinstance(decoded, dict)):
            said = f"error: {found[0].message}"
        elif self.planned and not self.fault and self.valid_calls == self.planned[0]:
            kind, said, self.tools, self.undo = demand(self.planned[1], decoded, self.tools, self.task)
            self.fault = len(self.log), kind
        else:
            known = self.undo(decoded)
            said = known if isinstance(known, str) else self.world.step(known)
        self.valid_calls += not found
        self.log.append(Entry(call, found, said, known if isinstance(known, dict) else None))
        return said

    def verify(self, answer: str) -> bool:
        """Whether the task is done, given the agent's last message."""
        self.verified = self.world.verify(answer)
        return self.verified
