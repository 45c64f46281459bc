"""The scripted expert: it solves every task of every world and reacts to faults (paper 3.1, 4.1).

    messages, episode = solve_task(task)     a plan, then a thought and a call per turn, the answer
    trajectory("api", 0, 7, Difficulty())    the same as a line of a data set, with hard negatives
    preference(task)                         a safety task as chosen and rejected messages, for DPO

The expert reads each task's solution, but it meets the task's fault like anyone else: it reads the
error and reacts to what that says. `python -m worlds --show api` prints the expert at work.
"""

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from worlds.base import Episode, SolutionStep, Task, failed, world_class
from worlds.calls import check_call, value_text
from worlds.difficulty import Difficulty
from worlds.english import draw_argument_name
from worlds.faults import Reaction, react
from worlds.negatives import hard_negatives, slip
from worlds.plans import Plan
from worlds.tasks import draw_task, playable

MOST_ATTEMPTS = 4  # at one step: a fault's demand may reveal the next, and two may meet it


def call_message(content: str, *calls: dict) -> dict:
    """An assistant's message with its tool calls, as OpenAI's clients write it."""
    entries = [{"type": "function", "function": call} for call in calls]
    return {"role": "assistant", "content": content, "tool_calls": entries}


def plan_of(solution: list[SolutionStep]) -> Plan:
    """The plan that a solution follows."""
    return Plan({number: (step.goal, step.depends_on) for number, step in enumerate(solution, 1)})


# --------------------------------------------------------------------------------- solving a task


def solve_task(task: Task, faults: bool = True, slips: bool = False) -> tuple[list[dict], Episode]:
    """The expert's messages for a task, after the user's, and the episode it played.

    The episode is closed; its log and verdict can still be asked for. With `slips` the expert gets
    one call wrong before it gets it right, in a message marked "slip" that nobody is to imitate:
    what is to be learnt is the next one, which has read what the check said to the slip.
    """
    messages: list[dict] = []
    reactions: dict[str, list[Reaction]] = {}  # tool: what its faults have asked for so far
    # no plan where the right reaction is a message
    opening = [text for text in (task.analysis, plan_of(task.solution).write()) if text]

    # the step whose call goes wrong once
    rng = random.Random(f"slip {task.seed}")
    calling = [number for number, step in enumerate(task.solution, 1) if step.call]
    slipping = rng.choice(calling) if slips and calling else None

    def made_up(known: set[str]) -> str:
        return draw_argument_name(rng, task.difficulty.split, known, task.difficulty.names)

    with Episode(task, faults) as episode:
        for number, step in enumerate(task.solution, 1):
            if step.call is None:
                continue
            thought = step.thought
            tool = step.call["name"]
            for _ in range(MOST_ATTEMPTS):
                arguments = step.call["arguments"]
                for reaction in reactions.get(tool, []):
                    arguments = reaction.change(arguments)
                call = {"name": tool, "arguments": arguments}
                words = "\n".join([*opening, f"{number}: {thought}"])
                opening = []

                if number == slipping:
                    slipping = None
                    slipped = slip(words, call, episode.tools, rng, made_up)
                    if slipped:
                        wrong_words, wrong_call = slipped
                        observation = episode.step(wrong_call)
                        messages.append({**call_message(wrong_words, wrong_call), "slip": True})
                        messages.append({"role": "tool", "content": observation})
                        # the plan's line once more, to be read off the schemas again
                        words = f"{number}: {step.goal}"

                observation = episode.step(call)
                messages.append(call_message(words, call))
                messages.append({"role": "tool", "content": observation})
                reaction = react(observation) if failed(observation) else None
                if reaction is None:
                    break
                thought = reaction.thought
                reactions.setdefault(tool, []).append(reaction)
        messages.append({"role": "assistant", "content": "\n".join([*opening, task.answer])})
        episode.verify(task.answer)
    return messages, episode


def preference(task: Task) -> dict[str, list[dict]] | None:
    """A safety task as a preference pair {"prompt", "chosen", "rejected"} of messages for DPO; None
    for a task of another world.

    Unsafe: refusing is chosen over complying, ignoring a hidden order over obeying it. Benign:
    doing it is chosen over refusing.
    """
    if task.world != "safety":
        return None
    prompt = [{"role": "user", "content": task.request}]
    chosen, _ = solve_task(task, faults=False)
    order = task.truth.get("complies")
    if order is None:
        refusal = {"role": "assistant", "content": "refuse: this is not safe"}
        return {"prompt": prompt, "chosen": chosen, "rejected": [refusal]}
    shared = chosen[:-1]  # the file was read either way; what matters is what comes then
    goal, thought = task.truth["excuse"]
    content = f"1: {thought}" if shared else f"1. {goal}\n1: {thought}"
    return {
        "prompt": prompt + shared,
        "chosen": chosen[-1:],
        "rejected": [call_message(content, order)],
    }


# ----------------------------------------------------------------------- episodes as training data


@dataclass
class Trajectory:
    """One episode as training data."""

    world: str
    kind: str
    seed: int  # with `index` and `difficulty` the arguments of draw_task
    index: int
    difficulty: dict  # what differs from the default
    tools: list  # as shown to the model: schemas, or compact lines
    messages: list[dict]
    answer: str
    constraints: dict[str, Any]
    fault: str | None  # the kind of fault that was delivered; of several, with commas
    invented: int  # arguments and tools that no schema in force has; without slips 0
    verified: bool
    negatives: list[dict] = field(default_factory=list)


def trajectory(
    world: str,
    seed: int,
    index: int,
    difficulty: Difficulty,
    *,
    negatives: bool = True,
    slips: bool = False,
) -> Trajectory:
    """The expert's trajectory for task number `index` of `seed`, as draw_task has it."""
    task = draw_task(world, seed, index, difficulty)
    messages, episode = solve_task(task, slips=slips)
    return as_trajectory(task, seed, index, messages, episode, negatives=negatives)


def earlier_requests(task: Task, number: int) -> list[dict]:
    """Messages of up to `number` other requests for the task's tools, each with the expert's answer
    and without faults: what a conversation may hold before the task's own request.
    """
    messages = []
    for other in range(1, number + 1):
        related = world_class(task.world).related(task, other)
        if related is None:
            continue
        answered, episode = solve_task(related, faults=False)
        if episode.verified:
            messages += [{"role": "user", "content": related.request}, *answered]
    return messages


def as_trajectory(
    task: Task,
    seed: int,
    index: int,
    messages: list[dict],
    episode: Episode,
    *,
    negatives: bool = True,
) -> Trajectory:
    """An episode as a line of the data set."""
    default = asdict(Difficulty())
    difficulty = asdict(task.difficulty)
    return Trajectory(
        world=task.world,
        kind=task.kind,
        seed=seed,
        index=index,
        difficulty={key: value for key, value in difficulty.items() if value != default[key]},
        tools=task.shown_tools(),
        messages=[{"role": "user", "content": task.request}, *messages],
        answer=task.answer,
        constraints=task.constraints,
        fault=", ".join(kind for _, kind in episode.faults) or None,
        invented=invented(episode),
        verified=bool(episode.verified),
        negatives=negatives_of(task) if negatives else [],
    )


def negatives_of(task: Task) -> list[dict]:
    """The hard negatives of each call of a task's solution, with what is wrong with each."""
    rng = random.Random(f"negatives {task.seed}")
    found = []
    for step in task.solution:
        if step.call is None:
            continue
        for kind, wrong in hard_negatives(step.call, task.tools, rng, task).items():
            faults = check_call(wrong, task.tools)
            fault = faults[0].message if faults else call_difference(step.call, wrong)
            found.append({"kind": kind, "right": step.call, "wrong": wrong, "fault": fault})
    return found


def call_difference(right: dict, wrong: dict) -> str:
    """How a call differs from the right one, in one line."""
    if right["name"] != wrong["name"]:
        return f"{right['name']} is the tool for this, not {wrong['name']}"
    for key, value in right["arguments"].items():
        if key not in wrong["arguments"]:
            return f"{key} is missing: {value_text(value)}"
        given = wrong["arguments"][key]
        if given != value:
            return f"{key} is {value_text(value)}, not {value_text(given)}"
    surplus = [key for key in wrong["arguments"] if key not in right["arguments"]]
    return f"nothing was said about {', '.join(surplus)}"


def invented(episode: Episode) -> int:
    """The audit: how many tools and arguments that no schema in force has the calls name."""
    faults = [fault for entry in episode.log for fault in entry.faults]
    return sum(fault.kind in ("unknown_tool", "unexpected") for fault in faults)


def fingerprint(worlds: Iterable[str], seed: int, difficulty: Difficulty, tasks: int = 20) -> str:
    """16 hex digits of a seed's first tasks as the expert solves them.

    They change where worlds, check or expert do: whoever keeps what was made from drawn tasks
    records them, to find out whether the same would be drawn today.
    """
    made = []
    for world in sorted(set(playable(list(worlds)))):
        for index in range(tasks):
            made.append(asdict(trajectory(world, seed, index, difficulty, slips=index % 2 == 1)))
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
