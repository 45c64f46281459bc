"""What is known about each step of an episode: the labels that the confidence head learns from
(paper §3.1, §4.2).

A step is one message of the agent: a thought with its calls, or the answer. The confidence vector
of equation 6 has one number per row of PARTS; each row says what its number means, how the label
follows from what execution established, and how a critique names the fault. A further part is a
further row.

Facts about a step come from
- the agent's own episodes: the check of each call, the task's solution, the verdict at the end
- hard negatives: an expert's call, spoilt on purpose in one known way
What cannot be known has the label None, and is neither learnt nor counted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from support.tokenizer import Tokenizer
from worlds.base import Entry, Task
from worlds.expert import solve_task
from worlds.calls import decode_call

Labels = list[float | None]  # of one step, one per row of PARTS; None: cannot be known

MALFORMED = {"syntax", "type", "value", "missing", "schema"}  # kinds of tools.Fault
MADE_UP = {"unknown_tool", "unexpected"}


# --------------------------------------------------------------------------------------------------
# the parts of the confidence vector


@dataclass(frozen=True)
class StepFacts:
    """What execution established about one call, or about the answer."""

    fault_kinds: frozenset[str] = frozenset()  # kinds of tools.Fault that the check found
    # of a valid call: a step of the solution that is still open, None if that cannot be said; of an
    # answer: it verified
    right: bool | None = True
    verified: bool | None = None  # the agent's episode verified; None: not the agent's episode


def syntax_label(facts: StepFacts) -> float | None:
    """0 where the call does not parse, lacks an argument, or has one of a wrong type or value.

    Unknown where it names no tool: without a schema there are no types.
    """
    if facts.fault_kinds == {"unknown_tool"}:
        return None
    return float(not facts.fault_kinds & MALFORMED)


def grounded_label(facts: StepFacts) -> float | None:
    """0 where the call names a tool or an argument that no schema in force has; unknown where it
    does not parse.
    """
    if "syntax" in facts.fault_kinds:
        return None
    return float(not facts.fault_kinds & MADE_UP)


def logic_label(facts: StepFacts) -> float | None:
    """Whether a valid call, or the answer, is the right one; a refused call has no logic."""
    return None if facts.fault_kinds or facts.right is None else float(facts.right)


def success_label(facts: StepFacts) -> float | None:
    """Whether the episode verified in the end, the same for all its steps."""
    return None if facts.verified is None else float(facts.verified)


@dataclass(frozen=True)
class Part:
    """One number of the confidence vector."""

    name: str
    meaning: str  # of a confidence near 1
    critique: str  # what is written behind a step whose part is 0
    label: Callable[[StepFacts], float | None]
    negative: str = ""  # the kind of hard negative that spoils this part alone; "": there is none
    calls_only: bool = False  # right by definition for answers, so measured on calls only


# The order matters once: of several wrong parts of one step the first is named in its critique
# (`first_wrong_step`). With a new row raise labelled_steps.STEPS_VERSION and
# distill.BUFFER_VERSION: files that were made without it do not pass for the same.
PARTS = (
    Part(
        name="syntax",
        meaning="the call parses and its types fit",
        critique="the call does not fit its schema",
        label=syntax_label,
        negative="type",
        calls_only=True,
    ),
    Part(
        name="grounded",
        meaning="no tool and no argument is invented",
        critique="a tool or an argument is made up",
        label=grounded_label,
        negative="key",
        calls_only=True,
    ),
    Part(
        name="logic",
        meaning="the call, or the answer, is the right one here",
        critique="a value or the order is not right",
        label=logic_label,
        negative="logic",
    ),
    Part(
        name="success",
        meaning="the episode will verify",
        critique="this does not lead to the goal",
        label=success_label,
    ),
)
PART_NAMES = tuple(part.name for part in PARTS)

# What is wrong with each kind of hard negative (negatives.hard_negatives), and nothing else is.
NEGATIVE_FACTS = {
    "type": StepFacts(frozenset({"type"})),
    "key": StepFacts(frozenset({"unexpected"})),
    "logic": StepFacts(right=False),
}


def labels_of(facts: StepFacts) -> Labels:
    return [part.label(facts) for part in PARTS]


# --------------------------------------------------------------------------------------------------
# the steps of an agent's episode


class Played(Protocol):
    """What is read of an episode; agent.Rollout has it."""

    task: Task
    tokens: list[int]
    action_mask: list[bool]
    log: list[Entry]  # all calls
    groups: list[list[int]]  # places in `log` of each message's calls, none for the answer
    faults: list[tuple[int, str]]  # (place in `log`, kind) of those that were injected
    verified: bool
    ended: str


def label_steps(episode: Played) -> list[Labels]:
    """The labels of an episode's messages, in order; an answer without a verdict has none. Not of
    one that raised.
    """
    labels = [labels_of(facts) for facts in call_facts(episode)]
    steps = []
    for group in filter(None, episode.groups):
        labels_by_part = zip(*(labels[place] for place in group), strict=True)
        steps.append([label_of_message(part_labels) for part_labels in labels_by_part])
    if episode.ended == "answer":
        steps.append(labels_of(StepFacts(right=episode.verified, verified=episode.verified)))
    return steps


def call_facts(episode: Played) -> list[StepFacts]:
    """Facts about every call in an episode's log.

    A call is right if it is a step of the solution that is still open; doing it twice is wrong. A
    call that met an injected fault is judged as it was written: the world never took it, and its
    step stays open. Where steps are open and yet what was to be done is done, other calls did their
    work, and which did is not known.
    """
    open_calls = [step.call for step in episode.task.solution if step.call]
    facts = []
    for place, entry in enumerate(episode.log):
        fault_kinds = frozenset(fault.kind for fault in entry.faults)
        met_fault = place in [at for at, _ in episode.faults]
        call = decode_call(entry.call) if met_fault else entry.taken
        match = None if fault_kinds else matching_call(episode.task, open_calls, call)
        if match is not None and not met_fault:
            del open_calls[match]
        facts.append(StepFacts(fault_kinds, match is not None, episode.verified))
    if episode.verified and open_calls and episode.task.answer == "done":
        facts = [fact if fact.right else replace(fact, right=None) for fact in facts]
    return facts


def matching_call(task: Task, open_calls: list[dict], call: dict | None) -> int | None:
    """Which open call of the solution a call carries out: an equal one, or else the first if the
    task, played again from the state before it, comes out the same; None for neither.
    """
    if call in open_calls:
        return open_calls.index(call)
    if call is not None and open_calls and not task.fails(open_calls[0], call):
        return 0
    return None


def label_of_message(call_labels: tuple[float | None, ...]) -> float | None:
    """A message's label from those of its calls: wrong if one is, else unknown if one is."""
    if 0.0 in call_labels:
        return 0.0
    return None if None in call_labels else 1.0


# --------------------------------------------------------------------------------------------------
# steps as tokens


def message_spans(
    tokens: list[int], action_mask: list[bool], stop: list[int]
) -> list[tuple[int, int]]:
    """First and last token of each whole message of the agent, its <|im_end|> included."""
    spans = []
    first = None
    for place, (token, mine) in enumerate(zip(tokens, action_mask, strict=True)):
        if not mine:
            continue
        if first is None:
            first = place
        if token in stop:
            spans.append((first, place))
            first = None
    return spans


def encode_episode(
    task: Task, messages: list[dict], tokenizer: Tokenizer
) -> tuple[list[int], list[bool]]:
    """Tokens of a task's request and the messages after it, and which of them the agent writes."""
    request = {"role": "user", "content": task.request}
    return tokenizer.encode_chat([request, *messages], task.shown_tools(), task.difficulty.style)


def first_wrong_step(
    episode: Played, tokenizer: Tokenizer
) -> tuple[list[int], Part, list[int]] | None:
    """An episode's tokens up to its first wrong step, the part that is wrong, and the message that
    the expert writes there.

    None where no step is wrong by itself, or the agent's way there was not the expert's.
    """
    messages, _ = solve_task(episode.task)
    expert_tokens, expert_mask = encode_episode(episode.task, messages, tokenizer)
    expert_spans = message_spans(expert_tokens, expert_mask, tokenizer.stop)
    expert_calls = [
        message["tool_calls"][0]["function"] for message in messages if "tool_calls" in message
    ]
    own_spans = message_spans(episode.tokens, episode.action_mask, tokenizer.stop)
    done = 0  # calls so far, all of them the expert's, who makes one per message
    # an answer that was not judged in time is a message without labels
    for labels, group, (_, last) in zip(label_steps(episode), [*episode.groups, []], own_spans):
        for part, label in zip(PARTS, labels, strict=True):
            if label == 0 and part.name != "success":
                expert_first, expert_last = expert_spans[done]
                correction = expert_tokens[expert_first : expert_last + 1]
                return episode.tokens[: last + 1], part, correction
        calls = [decode_call(episode.log[place].call) for place in group]
        if not calls or calls != expert_calls[done : done + len(calls)]:
            return None
        done += len(calls)
    return None
