"""The scripted expert: it solves every task of every world, reacts to faults, and says what went
wrong in a failed attempt (paper 3.1, 4.1).

    messages, episode = solve(task)              plan, then a thought and a call a turn, then the answer; `episode.verified` is the judge's verdict
    critique(task, episode, last_message)        "unknown key kema; the schema has kemi", for Algorithm 1
    preference(task)                             a safety task as chosen and rejected messages, for DPO

The expert knows each task's solution, but it meets the task's fault like anyone else: it reads the
error and reacts to what that says. Beside it stands its opposite, `by_chance`: how far random valid
calls get. `python -m worlds --show api` prints the expert at work.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from worlds.tools import Plan, check, decode, hard_negatives, slip
from worlds.base import (
    BABBLE,
    DEMANDS_MORE,
    ENDINGS,
    FAULT_TEXTS,
    OPENINGS,
    SLOTS,
    SYLLABLES,
    Difficulty,
    Episode,
    Task,
    draw,
    draw_name,
    failed,
    playable,
    same_answer,
)


@dataclass
class Trajectory:
    """One episode as training data."""

    world: str
    kind: str
    seed: int  # with `index` and `difficulty` the arguments of worlds.draw
    index: int
    difficulty: dict
    tools: list  # as shown to the model: schemas, or compact lines
    messages: list[dict]
    answer: str
    constraints: dict[str, Any]
    fault: str | None  # the kind of fault that was delivered
    invented: (
        int  # arguments and tools that no schema in force has: 0 for an expert that does not slip
    )
    verified: bool
    negatives: list[dict] = field(default_factory=list)


def call_message(content: str, *calls: dict) -> dict:
    """An assistant's message with its tool calls, as OpenAI's clients write it."""
    entries = [{"type": "function", "function": call} for call in calls]
    return {"role": "assistant", "content": content, "tool_calls": entries}


# ----------------------------------------------------------------------------------------------
# reactions to faults

AROUND = ["(?:" + "|".join(map(re.escape, some)) + ")" for some in (OPENINGS, ENDINGS)]


def pattern(core: str) -> re.Pattern:
    """The regular expression that the core of a fault's text stands for, with whatever opening and
    ending.
    """
    core = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\S+?)", re.escape(core))
    return re.compile(f"error: {AROUND[0]}{core}{AROUND[1]}\\s*")


def babbling(kind: str) -> re.Pattern:
    """The same for a fault of a kind whose words say nothing: only the names between them do."""
    word, name, digits = f"(?:{'|'.join(BABBLE)})", r"[^\W\d]\w*", "-?[0-9]+"
    forms = {"key": name, "value": digits, "new": name if kind == "renamed" else digits}
    core = "".join(
        f" (?!{word}\\b)(?P<{slot}>{forms[slot]})(?: {word})*" for slot in SLOTS[kind].split()
    )
    return re.compile(f"error: {AROUND[0]}{word}(?: {word})*{core}{AROUND[1]}\\s*")


SIGNS = [
    (kind, babbling(kind)) for kind in SLOTS if kind != "locked"
]  # a babbling lock is a babbling time-out
SIGNS += [
    (kind, pattern(core))
    for kind, texts in FAULT_TEXTS.items()
    for core in (*texts.train, *texts.validation, *texts.test)
]


def number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def react(observation: str) -> tuple[str, Callable[[dict], dict]] | None:
    """What an error text asks for: the thought, and a change of the arguments;

    None where the text is no known fault.
    """
    for kind, sign in SIGNS:
        if match := sign.fullmatch(observation):
            found = match.groupdict()
            key, value, new = found.get("key", ""), found.get("value", ""), found.get("new", "")
            return {
                "timeout": ("the same call again", lambda given: given),
                "locked": ("the same call again", lambda given: given),
                "renamed": (
                    f"{new} instead of {key}",
                    lambda given: {new if k == key else k: v for k, v in given.items()},
                ),
                "moved": (
                    f"{key} {new} instead of {value}",
                    lambda given: {
                        k: number(new) if k == key and str(v) == value else v
                        for k, v in given.items()
                    },
                ),
                "type": (
                    f"{key} as a string",
                    lambda given: {k: str(v) if k == key else v for k, v in given.items()},
                ),
                "incomplete": (f"with {key} {new}", lambda given: {**given, key: number(new)}),
            }["incomplete" if kind in DEMANDS_MORE else kind]
    return None


# ------------------------------------------------------------------------------------------------
# the scripted expert


def solve(task: Task, faults: bool = True, slips: bool = False) -> tuple[list[dict], Episode]:
    """The expert's messages for a task, after the user's, and the episode it played, closed, to be
    asked for its log and verdict.

    With `slips` it gets one call wrong before it gets it right, in a message marked "slip" that
    nobody is to imitate: what is to be learnt is the next one,
    which has read what the check said to the slip.
    """
    messages: list[dict] = []
    plan = Plan(
        {number: (step.goal, step.depends_on) for number, step in enumerate(task.solution, 1)}
    ).write()
    content = [
        text for text in (task.analysis, plan) if text
    ]  # no plan where the right reaction is a message
    changes: dict[
        str, list[Callable[[dict], dict]]
    ] = {}  # tool -> what its faults have asked for so far
    rng, calling = (
        random.Random(f"slip {task.seed}"),
        [number for number, step in enumerate(task.solution, 1) if step.call],
    )
    spoilt = (
        rng.choice(calling) if slips and calling else None
    )  # the step whose call it gets wrong once

    def made_up(known: set[str]) -> str:
        return draw_name(rng, task.difficulty.split, known)

    with Episode(task, faults) as episode:
        for number, step in enumerate(task.solution, 1):
            if step.call is None:
                continue
            thought, name = step.thought, step.call["name"]
            for _ in range(3):
                arguments = step.call["arguments"]
                for change in changes.get(name, []):
                    arguments = change(arguments)
                call, words = (
                    {"name": name, "arguments": arguments},
                    "\n".join([*content, f"{number}: {thought}"]),
                )
                content = []
                if number == spoilt and (wrong := slip(words, call, episode.tools, rng, made_up)):
                    messages += [
                        {**call_message(*wrong), "slip": True},
                        {"role": "tool", "content": episode.step(wrong[1])},
                    ]
                    # the plan's line once more, which is to be read off the schemas again
                    words = f"{number}: {step.goal}"
                spoilt = None if number == spoilt else spoilt
                said = episode.step(call)
                messages += [call_message(words, call), {"role": "tool", "content": said}]
                if not (failed(said) and (reaction := react(said))):
                    break
                thought, change = reaction
                changes.setdefault(name, []).append(change)
        messages.append({"role": "assistant", "content": "\n".join([*content, task.answer])})
        episode.verify(task.answer)
    return messages, episode


def invented(episode: Episode) -> int:
    """The audit: how many of an episode's calls name a tool or an argument that the schemas in
    force do not have (one each).
    """
    return sum(
        fault.kind in ("unknown_tool", "unexpected")
        for entry in episode.log
        for fault in entry.faults
    )


def trajectory(
    name: str,
    seed: int,
    index: int,
    difficulty: Difficulty,
    negatives: bool = True,
    slips: bool = False,
) -> Trajectory:
    """The scripted expert's trajectory for task number `index` of `seed`, as worlds.draw has it."""
    task = draw(name, seed, index, difficulty)
    return record(task, seed, index, *solve(task, slips=slips), negatives)


def record(
    task: Task,
    seed: int,
    index: int,
    messages: list[dict],
    episode: Episode,
    negatives: bool = True,
) -> Trajectory:
    """An episode as a line of the data set."""
    spoilt = []
    rng = random.Random(f"negatives {task.seed}")
    for step in task.solution if negatives else ():
        if step.call:
            for kind, call in hard_negatives(step.call, task.tools, rng, task).items():
                found = check(call, task.tools)
                spoilt.append(
                    {
                        "kind": kind,
                        "right": step.call,
                        "wrong": call,
                        "fault": found[0].message if found else difference(step.call, call),
                    }
                )
    changed = {
        key: value
        for key, value in asdict(task.difficulty).items()
        if value != getattr(Difficulty(), key)
    }
    return Trajectory(
        task.world,
        task.kind,
        seed,
        index,
        changed,
        task.shown_tools(),
        [{"role": "user", "content": task.request}, *messages],
        task.answer,
        task.constraints,
        episode.fault and episode.fault[1],
        invented(episode),
        bool(episode.verified),
        spoilt,
    )


def fingerprint(worlds: Iterable[str], seed: int, difficulty: Difficulty, tasks: int = 20) -> str:
    """16 hex digits of a seed's first tasks as the expert solves them.

    They change where worlds, check or expert do: whoever keeps what was made from drawn tasks
    records them, to know whether the same would be drawn today.
    """
    made = [
        asdict(trajectory(name, seed, index, difficulty, slips=index % 2 == 1))
        for name in sorted(set(playable(list(worlds))))
        for index in range(tasks)
    ]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def random_call(rng: random.Random, tools: list[dict], words: list[str]) -> dict:
    """A call that obeys a random tool's schema; its values are drawn from `words` where the type
    allows, otherwise at random.
    """
    function = rng.choice(tools)["function"]
    parameters = function["parameters"]
    numbers = [int(word) for word in words if word.isdigit()]

    def value(schema: dict) -> Any:
        if "enum" in schema:
            return rng.choice(schema["enum"])
        kind = schema["type"]
        if kind == "boolean":
            return rng.random() < 0.5
        if kind in ("integer", "number"):
            return rng.choice(numbers) if numbers else rng.randrange(1000)
        return " ".join(rng.choices(words, k=rng.randint(1, 3))) if words else rng.choice(SYLLABLES)

    keys = [
        key
        for key in parameters["properties"]
        if key in parameters["required"] or rng.random() < 0.5
    ]
    return {
        "name": function["name"],
        "arguments": {key: value(parameters["properties"][key]) for key in keys},
    }


def by_chance(name: str, tasks: int, seed: int = 0, informed: bool = False) -> int:
    """How many of `tasks` tasks verify after as many random valid calls as the solution has and an
    answer out of what was said last.

    `informed`: values come from the request instead of from nowhere, which a policy that copies
    without reading could do.
    """
    right = 0
    for index in range(tasks):
        task = draw(name, seed, index)
        rng = random.Random(index)
        words = re.findall(r"\w+", task.request)
        with Episode(task) as episode:
            said = task.request
            for _ in range(max(1, len(task.solution)) if task.tools else 0):
                said = episode.step(random_call(rng, task.tools, words if informed else []))
            right += episode.verify(f"answer: {rng.choice(re.findall(r'[0-9]+', said) or words)}")
    return right


# -------------------------------------------------------------------------------------------------------
# critiques


def difference(right: dict, wrong: dict) -> str:
    """In what a call differs from the right one, in one line."""
    if right["name"] != wrong["name"]:
        return f"{right['name']} is the tool for this, not {wrong['name']}"
    for key, value in right["arguments"].items():
        if key not in wrong["arguments"]:
            return f"{key} is missing: {plain(value)}"
        if wrong["arguments"][key] != value:
            return f"{key} is {plain(value)}, not {plain(wrong['arguments'][key])}"
    return f"nothing was said about {', '.join(key for key in wrong['arguments'] if key not in right['arguments'])}"


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def critique(task: Task, episode: Episode, message: str) -> str:
    """What went wrong first in a failed attempt, in one line that names the true fault; `message`
    is the attempt's last one.

    The first step of the solution that was not done is found, then the first call made while it was
    open that neither was right nor was put right by the next call of the same tool.
    """
    steps = {number: step for number, step in enumerate(task.solution, 1) if step.call}
    done: set[int] = set()
    strays: dict[
        int | None, list[int]
    ] = {}  # the step that was open -> places in the log of the calls that were not right
    for place, entry in enumerate(episode.log):
        open_step = next((number for number in steps if number not in done), None)
        if right := [
            number
            for number, step in steps.items()
            if number not in done and entry.taken == step.call
        ]:
            done.add(right[0])
        elif open_step and entry.taken and not task.fails(steps[open_step].call, entry.taken):
            done.add(open_step)  # another call that does the same
        else:
            strays.setdefault(open_step, []).append(place)
    missing = next((number for number in steps if number not in done), None)
    if missing is None:
        return critique_of_surplus(
            task, episode, message, sorted(place for places in strays.values() for place in places)
        )
    for place in strays.get(missing, ()):
        entry = episode.log[place]
        later = next(
            (
                other
                for other in episode.log[place + 1 :]
                if tool_of(other.call) == tool_of(entry.call)
            ),
            None,
        )
        if entry.taken:
            return f"step {missing}: {difference(steps[missing].call, entry.taken)}"
        if later and later.taken:
            continue
        if reaction := react(entry.said):
            return f'after "{entry.said.removeprefix("error: ")}": {reaction[0]}'
        return entry.said.removeprefix("error: ")
    return f"step {missing} is missing: {steps[missing].goal}"


def tool_of(call: Any) -> str:
    """The tool that a call means to use, as far as that can be told."""
    found = decode(call)
    return found["name"] if isinstance(found, dict) else ""


def critique_of_surplus(task: Task, episode: Episode, message: str, strays: list[int]) -> str:
    """What is wrong where every step was done; `strays` are the places in the log of the calls that
    were no step's.

    The answer is blamed only if it is another than the task's. Else it was a call too many, steps
    in another order than the plan's, or, of an attempt that went right in the end, the call that
    was refused.
    """
    right = same_answer(message, task.answer)
    right = (
        right
        or task.answer == "done"
        and not refuses(message)
        or refuses(task.answer)
        and refuses(message)
    )
    if right:
        if extra := next(
            (entry for entry in map(episode.log.__getitem__, strays) if entry.taken), None
        ):
            return f"nobody asked for {plain(extra.call)}"
    order = [
        number
        for entry in episode.log
        if entry.taken
        for number, step in enumerate(task.solution, 1)
        if step.call == entry.taken
    ]
    plan = Plan(
        {
            number: (step.goal, step.depends_on)
            for number, step in enumerate(task.solution, 1)
            if step.call
        }
    )
    if early := [fault for fault in plan.respected(order) if fault.kind == "order"]:
        return early[0].message
    refused = next(
        (entry for entry in map(episode.log.__getitem__, strays) if failed(entry.said)), None
    )
    return (
        refused.said.removeprefix("error: ")
        if right and refused
        else critique_of_answer(task, message)
    )


def refuses(message: str) -> bool:
    """Whether a last message is a refusal, whatever its reason."""
    return message.strip().lower().startswith("refuse")


def critique_of_answer(task: Task, message: str) -> str:
    """What is wrong with a last message where the calls were right, or where no call was wanted."""
    if task.answer.startswith("ask: "):
        return f"{task.answer.removeprefix('ask: ')} is not given, so ask for it"
    if task.answer.startswith("no tool"):
        return "no tool gives what is asked, so say that no tool fits"
    if task.answer.startswith("refuse"):
        return task.answer.replace("refuse:", "refuse, because")
    for number, step in enumerate(task.solution, 1):
        if step.call is None and step.goal not in message:
            return f"line {number} should be {step.goal}"
    if refuses(message):
        return "nothing here is dangerous, so do it"
    return (
        "the answer must be what the last step gave"
        if task.solution
        else f"the answer is {task.answer}"
    )


def preference(task: Task) -> dict[str, list[dict]] | None:
    """A safety task as a preference pair {"prompt", "chosen", "rejected"} of messages for DPO; None
    for a task of another world.

    Unsafe: refusing is chosen over complying, ignoring a hidden order over obeying it. Benign:
    doing it is chosen over refusing.
    """
    if task.world != "safety":
        return None
    prompt, (chosen, _) = [{"role": "user", "content": task.request}], solve(task, faults=False)
    if order := task.truth.get("complies"):
        shared = chosen[:-1]  # the file was read either way; what matters is what comes then
        content = "1: as told" if shared else f"1. {order['name']}\n1: as told"
        return {
            "prompt": prompt + shared,
            "chosen": chosen[-1:],
            "rejected": [call_message(content, order)],
        }
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": [{"role": "assistant", "content": "refuse: this is not safe"}],
    }
