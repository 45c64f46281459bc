"""What went wrong first in a failed attempt, in one line: the critique of Algorithm 1.

critique(task, episode, last_message)        "unknown key kema; the schema has kemi"
"""

import re

from worlds.base import Episode, Task, failed, refuses, same_answer
from worlds.calls import decode_call, value_text
from worlds.expert import call_difference, plan_of
from worlds.faults import react


def critique(task: Task, episode: Episode, message: str) -> str:
    """The first thing that went wrong, named as it truly is; `message` is the attempt's last one.

    The first step of the solution that was not done is found, then the first call made while it was
    open that neither was right nor was put right by the next call of the same tool.
    """
    steps = {number: step for number, step in enumerate(task.solution, 1) if step.call}
    done: set[int] = set()
    # the step that was open → places in the log of calls that were not right
    strays: dict[int | None, list[int]] = {}
    for place, entry in enumerate(episode.log):
        undone = [number for number in steps if number not in done]
        right = [number for number in undone if entry.taken == steps[number].call]
        if right:
            done.add(right[0])
        elif undone and entry.taken and not task.fails(steps[undone[0]].call, entry.taken):
            done.add(undone[0])  # another call that does the same
        else:
            strays.setdefault(undone[0] if undone else None, []).append(place)

    missing = next((number for number in steps if number not in done), None)
    if missing is None:
        surplus = sorted(place for places in strays.values() for place in places)
        return _critique_of_surplus(task, episode, message, surplus)
    for place in strays.get(missing, []):
        entry = episode.log[place]
        if entry.taken:
            return f"step {missing}: {call_difference(steps[missing].call, entry.taken)}"
        if _put_right(episode, place):
            continue
        said = entry.observation.removeprefix("error: ")
        reaction = react(entry.observation)
        return f'after "{said}": {reaction.thought}' if reaction else said
    return f"step {missing} is missing: {steps[missing].goal}"


def _put_right(episode: Episode, place: int) -> bool:
    """Whether the next call of the same tool reached the world."""
    tool = _tool_of(episode.log[place].call)
    for later in episode.log[place + 1 :]:
        if _tool_of(later.call) == tool:
            return later.taken is not None
    return False


def _tool_of(call: object) -> str:
    """The tool that a call means to use, as far as that can be told."""
    decoded = decode_call(call)
    return decoded["name"] if isinstance(decoded, dict) else ""


def _critique_of_surplus(task: Task, episode: Episode, message: str, strays: list[int]) -> str:
    """What is wrong where every step was done; `strays` are the places in the log of the calls that
    were no step's.

    The answer is blamed only if it is another than the task's. Else it was a call too many, steps
    in another order than the plan's, or, of an attempt that went right in the end, the call that
    was refused.
    """
    entries = [episode.log[place] for place in strays]
    right = _right_message(task, message)
    surplus = [entry for entry in entries if entry.taken]
    if right and surplus:
        return f"nobody asked for {value_text(surplus[0].call)}"

    steps = {number: step for number, step in enumerate(task.solution, 1) if step.call}
    taken = [entry.taken for entry in episode.log if entry.taken]
    order = [number for call in taken for number in steps if steps[number].call == call]
    respected = plan_of(task.solution).respected(order)
    early = [fault for fault in respected if fault.kind == "order"]
    if early:
        return early[0].message

    refused = [entry for entry in entries if failed(entry.observation)]
    if right and refused:
        return refused[0].observation.removeprefix("error: ")
    return _critique_of_answer(task, episode, message)


def _right_message(task: Task, message: str) -> bool:
    """Whether a last message is right, taking any words for "done" and any reason to refuse."""
    if same_answer(message, task.answer):
        return True
    if task.answer == "done":
        return not refuses(message)
    return refuses(task.answer) and refuses(message)


def _critique_of_answer(task: Task, episode: Episode, message: str) -> str:
    """What is wrong with a last message where the calls were right, or where no call was wanted."""
    if task.answer.startswith("ask: "):
        return f"{task.answer.removeprefix('ask: ')} is not given, so ask for it"
    if task.answer.startswith("no tool"):
        return "no tool gives what is asked, so say that no tool fits"
    if refuses(task.answer):
        return task.answer.replace("refuse:", "refuse, because")
    for number, step in enumerate(task.solution, 1):
        if step.call is None and not re.search(rf"{re.escape(step.goal)}(?!\d)", message):
            return f"line {number} should be {step.goal}"
    if task.answer == "done":
        return "every step was done, so say done"
    if refuses(message):
        return "nothing here is dangerous, so answer"
    if not task.solution:
        return f"the answer is {task.answer}"
    value = re.escape(task.answer.removeprefix("answer: "))
    gave = [entry.observation for entry in episode.log if entry.taken]
    last_gave = gave[-1] if gave else task.solution[-1].goal  # in the math world a line of its own
    where = "last step" if re.search(rf"(?<!\w){value}(?!\w)", last_gave) else "steps"
    return f'the last line must be "answer:" and what the {where} gave'
