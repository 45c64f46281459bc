"""Labelled steps: what is known of each message of an episode, for whoever learns to tell right
steps from wrong ones (paper §3.1, §4.2).

A step is one message of the agent's: a thought and a call, or the answer. Its labels are the parts
of the confidence vector (mch.PARTS), and come from
- the agent's own episodes: the check says whether the call was sound and invented nothing, the
  task's solution whether it was right, the judge whether the episode verified
- hard negatives: an expert's episode up to a call, and the call spoilt on purpose; the spoilt part
  is 0, what can still be told is 1
What nobody can know is missing (None), and is neither learnt nor counted.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from config import Model
from support.data import Packed, pack
from worlds.expert import call_message, solve_task
from losses import IGNORE
from mch import PARTS, constraint_texts
from model import SAGE
from agent import Rollout, rollouts
from support.tokenizer import Tokenizer
from worlds.calls import decode_call
from worlds.negatives import hard_negatives
from worlds.base import Task
from worlds.tasks import Tasks, seed_of

Labels = list[float | None]  # of one step, in the order of PARTS; None: nobody can know

MALFORMED, MADE_UP = (
    {"syntax", "type", "value", "missing", "schema"},
    {"unknown_tool", "unexpected"},
)  # kinds of tools.Fault
SPOILT: dict[str, Labels] = {
    "type": [0.0, 1.0, None, None],
    "key": [1.0, 0.0, None, None],
    "logic": [1.0, 1.0, 0.0, None],
}  # hard negatives: a call that is refused has no logic
UNKNOWN: Labels = [None] * len(PARTS)
RIGHT: Labels = [
    1.0,
    1.0,
    1.0,
    None,
]  # an expert's message: its episodes say nothing of this agent's success
WORDS = dict(
    zip(
        PARTS,
        (
            "the call does not fit its schema",
            "a tool or an argument is made up",
            "a value or the order is not right",
            "this does not lead to the goal",
        ),
    )
)  # what is said of a step whose part is 0
PROBED = dict(zip(PARTS, SPOILT))  # which kind of negative is about which part


def judge(episode: Rollout) -> list[Labels]:
    """The labels of every message of an episode that did not raise.

    syntax    0 where the call does not parse, misses an argument, or has one of a wrong type or value; missing where it names no tool (no schema, no types)
    grounded  0 where the call names a tool or an argument that no schema in force has; missing where it does not parse
    logic     of valid calls: 1 if the call is that of a solution's step still to be done, or does the same as the first such step (tasks are played again
              to find out, as if all before had gone right). Repeating what is done is 0; a call
              that met the injected fault counts as it was meant
    success   whether the episode verified in the end, the same for all its messages
    A message with several calls has of each label its worst call's: 0, or else missing, or else 1.
    The answer has no call that could be malformed or made up: 1, 1; its logic is whether it is
    right.
    """
    steps, success = (
        [step.call for step in episode.task.solution if step.call],
        float(episode.verified),
    )
    left, labels = list(range(len(steps))), []
    for place, entry in enumerate(episode.log):
        kinds = {fault.kind for fault in entry.faults}
        syntax = None if kinds == {"unknown_tool"} else float(not kinds & MALFORMED)
        grounded = None if "syntax" in kinds else float(not kinds & MADE_UP)
        logic = None
        if not kinds:
            met = (
                episode.fault is not None and episode.fault[0] == place
            )  # the injected fault: the world did not take the call
            meant = decode_call(entry.call) if met else entry.taken
            done = next((number for number in left if steps[number] == meant), None)
            if (
                done is None
                and meant is not None
                and left
                and not episode.task.fails(steps[left[0]], meant)
            ):
                done = left[0]
            logic = float(done is not None)
            if done is not None and not met:
                left.remove(done)
        labels.append([syntax, grounded, logic, success])
    groups = [[labels[place] for place in group] for group in episode.groups if group]
    messages = [[worst(part) for part in zip(*group)] for group in groups]
    return messages + [[1.0, 1.0, success, success]] * (episode.ended == "answer")


def worst(labels: tuple[float | None, ...]) -> float | None:
    """One label for several calls: wrong if one is, unknown if none is wrong but one unknown."""
    return 0.0 if 0.0 in labels else None if None in labels else 1.0


def spans_of(tokens: list[int], own: list[bool], stop: list[int]) -> list[tuple[int, int]]:
    """First and last token of each whole message of the agent's, its <|im_end|> included."""
    spans, begin = [], None
    for place, mine in enumerate(own):
        begin = place if mine and begin is None else begin
        if mine and tokens[place] in stop:
            spans.append((begin, place))
            begin = None
    return spans


def example(
    source: str,
    task: Task,
    tokens: list[int],
    own: list[bool],
    labels: list[Labels],
    calls: list[bool],
    stop: list[int],
    verified: bool,
) -> dict:
    """A conversation with labelled steps, as a line of the data file: a step for each whole
    message; `labels` and `calls` are theirs.
    """
    steps = [
        dict(span=span, call=call, labels=known)
        for span, call, known in zip(spans_of(tokens, own, stop), calls, labels, strict=True)
    ]
    return dict(
        source=source,
        world=task.world,
        kind=task.kind,
        seed=task.seed,
        verified=verified,
        constraints=constraint_texts(task.constraints, task.request),
        steps=steps,
        tokens=tokens,
    )


def of_episode(episode: Rollout, tokenizer: Tokenizer) -> dict:
    """An own episode."""
    labels, answered = judge(episode), episode.ended == "answer"
    calls = [True] * (len(labels) - answered) + [False] * answered
    return example(
        "own",
        episode.task,
        episode.tokens,
        episode.action_mask,
        labels,
        calls,
        tokenizer.stop,
        episode.verified,
    )


def encoded(task: Task, messages: list[dict], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """A task's conversation as tokens, and which of them the agent writes."""
    return tokenizer.encode_chat(
        [{"role": "user", "content": task.request}, *messages],
        task.shown_tools(),
        task.difficulty.style,
    )


def of_solution(task: Task, tokenizer: Tokenizer) -> list[dict]:
    """The expert's episode, if it verified."""
    messages, episode = solve_task(task)
    calls = ["tool_calls" in message for message in messages if message["role"] == "assistant"]
    return (
        [
            example(
                "expert",
                task,
                *encoded(task, messages, tokenizer),
                [RIGHT] * len(calls),
                calls,
                tokenizer.stop,
                True,
            )
        ]
        if episode.verified
        else []
    )


def of_expert(task: Task, tokenizer: Tokenizer, rng: random.Random) -> list[dict]:
    """The expert's episode, and hard negatives of one of its calls (without faults), each an
    episode that ends with the spoilt call.
    """
    rows = of_solution(task, tokenizer)
    messages = solve_task(task, faults=False)[0]
    if places := [place for place, message in enumerate(messages) if "tool_calls" in message]:
        place = rng.choice(places)
        right = messages[place]["tool_calls"][0]["function"]
        for kind, wrong in hard_negatives(right, task.tools, rng, task).items():
            spoilt = encoded(
                task,
                [*messages[:place], call_message(messages[place]["content"], wrong)],
                tokenizer,
            )
            before = (
                place // 2
                # the expert's messages, each with its result: they are right, and counted in its own
                # episode
            )
            rows.append(
                example(
                    kind,
                    task,
                    *spoilt,
                    [UNKNOWN] * before + [SPOILT[kind]],
                    [True] * (before + 1),
                    tokenizer.stop,
                    False,
                )
            )
    return rows


def first_wrong(episode: Rollout, tokenizer: Tokenizer) -> tuple[list[int], str, list[int]] | None:
    """An own episode up to its first wrong step, the part that is wrong, and what the expert writes
    in its place; None where no step is wrong by itself, or
    the expert has come another way."""
    messages, _ = solve_task(episode.task)
    tokens, own = encoded(episode.task, messages, tokenizer)
    written, experts = (
        spans_of(episode.tokens, episode.action_mask, tokenizer.stop),
        spans_of(tokens, own, tokenizer.stop),
    )
    calls = [
        message["tool_calls"][0]["function"] for message in messages if "tool_calls" in message
    ]
    done = 0  # calls so far, all of them the expert's, who makes one per message
    for labels, group, (_, end) in zip(judge(episode), [*episode.groups, []], written):
        wrong = [part for part, label in zip(PARTS, labels) if label == 0 and part != "success"]
        if wrong:
            begin, last = experts[done]
            return episode.tokens[: end + 1], wrong[0], tokens[begin : last + 1]
        made = [decode_call(episode.log[place].call) for place in group]
        if not made or made != calls[done : done + len(made)]:
            return None
        done += len(made)
    return None


def gather(
    model: SAGE,
    tokenizer: Tokenizer,
    own: Tasks,
    expert: Tasks,
    tasks: int,
    trajectories: int,
    batch: int,
    room: int,
    temperature: float = 1.0,
) -> list[dict]:
    """Labelled examples: the agent's own episodes of the first `tasks` tasks of `own`, the expert's
    of the first `trajectories` of `expert`.
    """
    played = rollouts(
        model,
        tokenizer,
        [own[i] for i in range(tasks)],
        temperature,
        seed=seed_of(own.purpose, own.seed),
        batch=batch,
        room=room,
    )
    rows = [of_episode(episode, tokenizer) for episode in played if episode.ended != "raised"]
    for i in range(trajectories):
        rows += of_expert(expert[i], tokenizer, random.Random(f"spoilt {expert[i].seed}"))
    return rows


def packed_steps(rows: list[dict], model: Model) -> tuple[Packed, Tensor, Tensor, Tensor, Tensor]:
    """Examples as rows packed for a model of this shape, and where their steps are.

    Returns the rows, which of their tokens (R, T) the agent wrote, rows (S,) and columns (S,) of
    the steps' last tokens, and the labels (S, 4), NaN where missing.
    """
    examples = []
    for row in rows:
        own = [False] * len(row["tokens"])
        for begin, end in (step["span"] for step in row["steps"]):
            own[begin : end + 1] = [True] * (end + 1 - begin)
        examples.append((row["tokens"], own))
    packed = pack(examples, max(len(row["tokens"]) for row in rows), model)
    places = [
        (r, column + step["span"][1])
        for row, (r, column) in zip(rows, packed.positions)
        for step in row["steps"]
    ]
    labels = [
        [float("nan") if label is None else label for label in step["labels"]]
        for row in rows
        for step in row["steps"]
    ]
    return (
        packed,
        F.pad(packed.targets[:, :-1] != IGNORE, (1, 0)),
        *torch.tensor(places).unbind(1),
        torch.tensor(labels),
    )


def conclusion_of(row: dict) -> list[int]:
    """Z and Y: the agent's own words of an example, without the request and what tools said."""
    return [
        token
        for step in row["steps"]
        for token in row["tokens"][step["span"][0] : step["span"][1] + 1]
    ]
