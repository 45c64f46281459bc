"""The examples that stages distill and reflect learn from: tokens, and how much each counts in the
loss (paper §3.1, equation 5).

    teacher_example       a teacher's conversation
    correction_example    a wrong call, the words that name its fault, the right call
    success_example       the student's own episode that verified
    revision_example      equation 5: a failed attempt, its critique, a revision that verifies

Tokens that the model did not write are masked, or weigh little (distill.prompt_weight); wrong calls
and failed attempts are shown and masked: only putting them right is learnt.
"""

import random
from dataclasses import dataclass

from agent import AGAIN, Rollout, revision_prefix
from config import Distill
from support.packing import Example
from support.tokenizer import Tokenizer
from worlds.base import Task
from worlds.critique import critique as critique_of
from worlds.difficulty import Difficulty
from worlds.expert import call_message, earlier_requests, trajectory
from worlds.labels import PART_NAMES, PARTS, first_wrong_step, message_spans
from worlds.tasks import Tasks, world_names


# --------------------------------------------------------------------------------------------------
# One example.


def token_weights(action_mask: list[bool], prompt_weight: float) -> list[float]:
    """1 for each token that the model is to write, `prompt_weight` for all others."""
    return [1.0 if mine else prompt_weight for mine in action_mask]


def mask_span(weights: list[float], span: tuple[int, int]) -> None:
    first, last = span
    weights[first : last + 1] = [0.0] * (last + 1 - first)


def teacher_example(
    messages: list[dict], tools: list, tokenizer: Tokenizer, style: str, prompt_weight: float
) -> Example:
    """A teacher's conversation. Its slips are masked."""
    tokens, action_mask = tokenizer.encode_chat(messages, tools, style)
    weights = token_weights(action_mask, prompt_weight)
    written = [message for message in messages if message["role"] == "assistant"]
    spans = message_spans(tokens, action_mask, tokenizer.stop)
    for message, span in zip(written, spans, strict=True):
        if message.get("slip"):
            mask_span(weights, span)
    return tokens, weights


def success_example(attempt: Rollout, tokenizer: Tokenizer, prompt_weight: float) -> Example:
    """The student's own verified attempt. Messages with a call that was refused are masked."""
    weights = token_weights(attempt.action_mask, prompt_weight)
    spans = message_spans(attempt.tokens, attempt.action_mask, tokenizer.stop)
    for calls, span in zip(attempt.groups, spans):
        if any(attempt.log[place].faults for place in calls):
            mask_span(weights, span)
    return attempt.tokens, weights


def before_call(messages: list[dict], call: dict) -> list[dict] | None:
    """The conversation before the message that makes a call, with all that its arguments are taken
    from; None where no message makes it.
    """
    for place, message in enumerate(messages):
        if any(made["function"] == call for made in message.get("tool_calls") or ()):
            return messages[:place]
    return None


def correction_example(
    row: dict, negative: dict, tokenizer: Tokenizer, style: str, prompt_weight: float
) -> Example:
    """A hard negative put right. Shown: the conversation so far, the wrong call, "again"; the
    model's own messages in it are masked, all other tokens weigh `prompt_weight`. Learnt: what was
    wrong, and the right call.
    """
    shown = [
        *before_call(row["messages"], negative["right"]),
        call_message("", negative["wrong"]),
        {"role": "user", "content": AGAIN},
    ]
    right = call_message(f"{negative['kind']}: {negative['fault']}\n", negative["right"])
    _, shown_mask = tokenizer.encode_chat(shown, row["tools"], style)
    tokens, action_mask = tokenizer.encode_chat([*shown, right], row["tools"], style)
    weights = token_weights(action_mask, prompt_weight)
    for place, written in enumerate(shown_mask):
        if written:
            weights[place] = 0.0
    return tokens, weights


def revision_example(
    attempt: list[int],
    critique: str,
    revision: list[int],
    revision_mask: list[bool],
    *,
    tokenizer: Tokenizer,
    style: str,
    weight: float,
    critique_weight: float,
) -> Example:
    """Equation 5: L = −w · [log P(y′ | x, y0, q) + η · log P(q | x, y0)].

    `attempt` holds the tokens of x and y0 and is masked; critique q and revision y′ are learnt.
    `revision` are the tokens after the critique, `revision_mask` which of them the model writes.
    `weight` is w, `critique_weight` η.
    """
    prefix = revision_prefix(tokenizer, style, attempt, critique)  # x, y0, "again", q
    critique_length = len(tokenizer.encode_inside(f"{critique}\n"))
    weights = [0.0] * (len(prefix) - critique_length)
    weights += [weight * critique_weight] * critique_length
    weights += [weight * mine for mine in revision_mask]
    return prefix + revision, weights


# --------------------------------------------------------------------------------------------------
# Of stage distill: a teacher's trajectories.


def drawn_trajectories(c: Distill, style: str) -> list[dict]:
    """The scripted expert's verified trajectories, in the form of a teacher's file."""
    tasks = Tasks("distill", c.seed, world_names(c.worlds), Difficulty.of(c, style=style))
    negatives_rng = random.Random(f"negatives distill {c.seed}")
    slips_rng = random.Random(f"slips distill {c.seed}")
    rows = []
    for index in range(c.trajectories):
        # most of an expert's time goes into negatives: only as many are drawn as are used
        negatives = negatives_rng.random() < c.correction
        slips = slips_rng.random() < c.slips
        row = trajectory(*tasks.arguments(index), negatives=negatives, slips=slips)
        earlier = earlier_requests(tasks[index], c.requests - 1) if c.requests > 1 else []
        if row.verified:
            rows.append(vars(row) | {"earlier": earlier})
    return rows


def conversation_example(row: dict, c: Distill, tokenizer: Tokenizer, style: str) -> Example:
    """A trajectory, behind as many of the earlier requests to the same tools as fit in a row."""
    earlier = list(row.get("earlier", ()))
    while True:
        messages = [*earlier, *row["messages"]]
        example = teacher_example(messages, row["tools"], tokenizer, style, c.prompt_weight)
        if not earlier or len(example[0]) <= c.sequence:
            return example
        requests = [place for place, m in enumerate(earlier) if m["role"] == "user"]
        earlier = earlier[requests[1] :] if len(requests) > 1 else []  # without the oldest


def trajectory_examples(
    rows: list[dict], c: Distill, tokenizer: Tokenizer, style: str
) -> list[Example]:
    """Trajectories, and a correction of each that comes with hard negatives."""
    examples = []
    for row in rows:
        examples.append(conversation_example(row, c, tokenizer, style))
        # a tool that failed on purpose may have made the expert call it otherwise
        made = [n for n in row["negatives"] if before_call(row["messages"], n["right"]) is not None]
        if made:
            negative = random.Random(f"{row['seed']} {row['index']}").choice(made)
            examples.append(correction_example(row, negative, tokenizer, style, c.prompt_weight))
    return examples


def left_out(lengths: list[int], sequence: int) -> str:
    """How many examples are too long for a row, as a note; nothing where none is."""
    too_long = sum(length > sequence for length in lengths)
    return f"; {too_long:,} over {sequence} tokens, left out" if too_long else ""


# --------------------------------------------------------------------------------------------------
# Of stage reflect: a round's buffer.


@dataclass
class Failure:
    """A failed attempt y0 at a task x, and the teacher's critique q."""

    attempt: Rollout
    critique: str


def criticise(attempt: Rollout) -> Failure:
    """The teacher's critique names the first thing that went wrong, from the episode's log."""
    message = attempt.messages[-1] if attempt.messages else ""
    return Failure(attempt, critique_of(attempt.task, attempt, message))


class Buffer:
    """The examples of a round, as readable rows with the texts they were made of."""

    def __init__(self, c: Distill, tokenizer: Tokenizer, style: str):
        self.c = c
        self.tokenizer = tokenizer
        self.style = style
        self.rows: list[dict] = []

    def add(self, source: str, task: Task, example: Example, **texts) -> None:
        tokens, weights = example
        about = dict(source=source, world=task.world, kind=task.kind, seed=task.seed)
        self.rows.append(about | texts | dict(tokens=tokens, weights=weights))

    def add_success(self, attempt: Rollout) -> None:
        example = success_example(attempt, self.tokenizer, self.c.prompt_weight)
        self.add("success", attempt.task, example, attempt=self.tokenizer.decode(attempt.tokens))

    def add_first_wrong_step(self, attempt: Rollout, rng: random.Random) -> None:
        """The attempt up to its first wrong step, and the expert's message in its place. The
        critique says no more than the confidence head can tell, which is how think.py asks for a
        revision.
        """
        found = first_wrong_step(attempt, self.tokenizer)
        if found is None:
            return
        tokens, part, correction = found
        if part.name == "logic" and rng.random() < 0.5:
            part = PARTS[PART_NAMES.index("success")]  # the head often sees no more than that
        example = revision_example(
            tokens,
            part.critique,
            correction,
            [True] * len(correction),
            tokenizer=self.tokenizer,
            style=self.style,
            weight=self.c.step_weight,
            critique_weight=self.c.critique_weight,
        )
        self.add(
            "step",
            attempt.task,
            example,
            critique=part.critique,
            attempt=self.tokenizer.decode(tokens),
            revision=self.tokenizer.decode(correction),
        )

    def add_revision(
        self, source: str, failure: Failure, revision: list[int], mask: list[bool], tries: int
    ) -> None:
        """Equation 5 with Algorithm 1's weight: what took more tries counts more."""
        example = revision_example(
            failure.attempt.tokens,
            failure.critique,
            revision,
            mask,
            tokenizer=self.tokenizer,
            style=self.style,
            weight=1 + (tries - 1) / self.c.tries if self.c.tries else 1.0,
            critique_weight=self.c.critique_weight,
        )
        self.add(
            source,
            failure.attempt.task,
            example,
            tries=tries,
            critique=failure.critique,
            attempt=self.tokenizer.decode(failure.attempt.tokens),
            revision=self.tokenizer.decode(revision),
        )
