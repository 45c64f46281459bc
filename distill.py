"""Distillation from a teacher, then from the student's own failures (paper §3.1, Algorithm 1,
equation 5).

    python distill.py config/toy.py                    out/toy/base → distilled → reflected
    python distill.py config/toy.py --stage distill    the teacher's trajectories
    python distill.py config/toy.py --stage reflect    rounds of trying, critique and revision
    python distill.py config/toy.py --stage reflect --distill.no-failures --distill.name rejection
                                                       rejection sampling, the control
    python distill.py config/toy.py --resume           goes on where a stopped run was, to the bit
    torchrun --nproc-per-node 8 distill.py config/7b.py    the same steps on many GPUs

Both stages build examples (tokens, and a weight for each token), pack them into rows, and minimise
the weighted cross-entropy. They differ in where the examples come from:
- distill: trajectories of a teacher, and corrections of hard negatives: a wrong call, the words
  that name its fault, the right call
- reflect: the student acts; what verified is kept; a failed attempt is followed by a critique and
  by a revision that verifies

What differs from the usual fine-tuning:
- tokens that the model did not write are masked, or weigh little (distill.prompt_weight)
- wrong calls are shown and masked: only putting them right is learnt
- half of the requests and faults are worded in words without meaning, and the teacher sometimes
  slips and is corrected by the check, so that only names and schemas can be relied on. On the toy
  this took success on requests in other words from 37% to 78%, recovery from a fault of a new kind
  from 39% to 64% (one seed)
"""

import copy
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import support.openmp  # before torch

import torch
import torch.nn.functional as F
from torch import Tensor

from agent import AGAIN, Rollout, episode_rates, prompt_of, revision_prefix, rollouts
from config import Config, Distill, UserError
from losses import cross_entropy
from model import flops_per_token
from support import checkpoint, machine, provenance, ranks, settings
from support.interrupts import stop_requested
from support.packing import PackedLoader
from support.model_checks import check_documents
from support.tokenizer import Tokenizer
from support.training_run import Meter, TrainingRun
from worlds.critique import critique
from worlds.expert import call_message, earlier_requests, solve_task, trajectory
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, world_names
from worlds.labels import PART_NAMES, PARTS, encode_episode, first_wrong_step, message_spans
from worlds.teacher_file import read_teacher_file

Example = tuple[list[int], list[float]]  # token IDs, and how much each counts in the loss

# Of a round's buffer; raised when the same student and tasks give another one.
BUFFER_VERSION = 1
REVISION_ROOM = 384  # tokens that a revision may add to the failed attempt

# --------------------------------------------------------------------------------------------------
# Examples: tokens and weights.


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
    """The student's own verified attempt. Calls that the check refused on the way are masked."""
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
        if any(made["function"] == call for made in message.get("tool_calls", ())):
            return messages[:place]
    return None


def correction_example(
    row: dict, negative: dict, tokenizer: Tokenizer, style: str, prompt_weight: float
) -> Example:
    """A hard negative put right: the conversation so far, the wrong call, "again" (all masked),
    then what was wrong with it and the right call.
    """
    critique = f"{negative['kind']}: {negative['fault']}\n"
    shown = [
        *before_call(row["messages"], negative["right"]),
        call_message("", negative["wrong"]),
        {"role": "user", "content": AGAIN},
    ]
    right = call_message(critique, negative["right"])
    shown_tokens, shown_mask = tokenizer.encode_chat(shown, row["tools"], style)
    tokens, action_mask = tokenizer.encode_chat([*shown, right], row["tools"], style)
    weights = token_weights(action_mask, prompt_weight)
    for place in range(len(shown_tokens)):
        if shown_mask[place]:
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
# The loop: weighted cross-entropy on packed rows, for both stages.


def teacher_identity(c: Distill) -> dict:
    """The weights whose logits a stage learns from, by their hash; part of what it is made from."""
    run = settings.absolute_model(c.kl_teacher) if c.kl and c.kl_teacher else None
    return {"distill.kl_teacher": run and checkpoint.weights_identity(run)}


def seconds_per_step(
    stage: TrainingRun, rows: PackedLoader, backward_of: Callable, tries: int = 3
) -> float:
    """Seconds per step on this machine: the median of `tries` on the first rows, plus a fifth for
    the optimiser and checkpoints. It leaves no trace in model and loader.
    """
    place = rows.state()
    taken = []
    for _ in range(tries):
        began = time.perf_counter()
        backward_of(rows.next())
        machine.wait_for(stage.device)
        taken.append(time.perf_counter() - began)
    stage.model.zero_grad(set_to_none=True)
    rows.restore(place)
    return 1.2 * statistics.median(taken)


def learn(stage: TrainingRun, rows: PackedLoader, first: int, last: int, **kept) -> None:
    """Optimiser steps first + 1 … last of a stage; `kept` goes into its checkpoints."""
    c = stage.section
    model = stage.model
    teacher = None
    if c.kl and c.kl_teacher:
        teacher = stage.load_decoder(settings.absolute_model(c.kl_teacher))
        if teacher.config.vocab_size != model.config.vocab_size:
            raise UserError(
                f"distill.kl_teacher has {teacher.config.vocab_size} tokens, the student "
                f"{model.config.vocab_size}; their logits cannot be compared"
            )
        documents = rows.tensors[3]  # rows were packed for the student
        check_documents(documents, teacher.config)

    def loss_of(tokens, targets, weights, documents, count):
        """Weighted cross-entropy, plus kl · KL(teacher ‖ student) at the taught tokens, of this
        rank's rows (B, T): sums divided by `count`, the sum of the weights of all ranks' rows.
        """
        hidden = model.hidden(tokens, documents)  # (B, T, D)
        loss = cross_entropy(hidden, model.unembedding, targets, weights=weights, count=count)
        if teacher is None:
            return loss
        with torch.no_grad():
            teacher_logits = teacher.logits(teacher.hidden(tokens, documents))  # (B, T, V)
        divergence = F.kl_div(
            model.logits(hidden).float().log_softmax(-1),
            teacher_logits.float().log_softmax(-1),
            log_target=True,
            reduction="none",
        ).sum(-1)  # (B, T)
        return loss + c.kl * (divergence * weights).sum() / count

    loss_of = machine.compiled(loss_of, c.compile, last - first, stage.device)

    def backward_of(batch) -> Tensor:
        """The loss of a batch (tokens, targets, weights, documents, each (B, T)) over all ranks;
        this rank's gradients are added to p.grad.
        """
        count = batch[2].sum().to(stage.device)  # Σ weights, of the rows of all ranks
        mine, counted = ranks.share_rows(c.batch)  # counted: False for rows that only fill up
        tokens, targets, weights, documents = (part[mine].to(stage.device) for part in batch)
        with stage.autocast:
            loss = loss_of(tokens, targets, weights * counted, documents, count)
        loss.backward()
        return ranks.total(loss)

    if c.minutes and stage.name == "distilled" and not first:
        stage.plan_minutes(c.minutes, seconds_per_step(stage, rows, backward_of))
        last = stage.steps
    step_tokens = c.batch * c.sequence
    step_flops = step_tokens * flops_per_token(
        model.config, c.sequence, trained_blocks=c.trained_blocks, taught=rows.taught()
    )
    meter = Meter(first, stage.peak)
    with stop_requested() as stopping:
        for step in range(first + 1, last + 1):
            with meter.waiting():
                batch = rows.next()
            loss = backward_of(batch)
            norm = stage.update(step)

            meter.count(step_tokens, step_flops)
            meter.add(loss=loss, norm=norm)
            if stage.is_log_step(step, last):
                stage.log_line(step, meter)
            stage.end_step(step, stopping, last, rows=rows.state(), **kept)


# --------------------------------------------------------------------------------------------------
# Stage distill.


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
        begins = [place for place, message in enumerate(earlier) if message["role"] == "user"]
        del earlier[: begins[1] if len(begins) > 1 else None]  # the oldest one


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


def distill(config: Config) -> None:
    """Stage 1 of §3.1: supervised learning on teacher trajectories and on corrections of hard
    negatives.
    """
    c = config.distill
    file = Path(settings.absolute(c.file))
    file_digest = provenance.digest(file) if c.file and file.is_file() else None
    made_from = {"distill.file": file_digest, **teacher_identity(c)}
    stage = TrainingRun(config, "distilled", "base", c.steps, c, made_from=made_from)
    if stage.finished():
        return

    if c.file:
        trajectories = read_teacher_file(c, stage.log.say, stage.style)
        rng = random.Random(f"negatives distill {c.seed}")
        for row in trajectories:
            if rng.random() >= c.correction:
                row["negatives"] = []
    else:
        trajectories = drawn_trajectories(c, stage.style)
    examples = trajectory_examples(trajectories, c, stage.tokenizer, stage.style)
    random.Random(c.seed).shuffle(examples)
    rows = PackedLoader(examples, c.sequence, c.batch, c.seed, stage.model.config)
    rows.restore(stage.kept.get("rows", rows.state()))

    taught = int((rows.tensors[2] > 0.5).sum())
    stage.log.say(
        f"data    {len(trajectories):,} verified trajectories, "
        f"{len(examples) - len(trajectories):,} corrections: "
        f"{taught / 1e6:.1f}M taught tokens in {len(rows.order):,} rows of {c.sequence}"
        + left_out([len(tokens) for tokens, _ in examples], c.sequence)
    )
    learn(stage, rows, stage.first, stage.steps)
    stage.finish()


# --------------------------------------------------------------------------------------------------
# Stage reflect: Algorithm 1.


@dataclass
class Failure:
    """A failed attempt y0 at a task x, and the teacher's critique q."""

    attempt: Rollout
    critique: str


def criticise(attempt: Rollout) -> Failure:
    """The teacher's critique names the first thing that went wrong, from the episode's log."""
    message = attempt.messages[-1] if attempt.messages else ""
    return Failure(attempt, critique(attempt.task, attempt, message))


class Buffer:
    """The examples of a round, as readable rows with the texts they were made of."""

    def __init__(self, c: Distill, tokenizer: Tokenizer, style: str):
        self.c = c
        self.tokenizer = tokenizer
        self.style = style
        self.rows: list[dict] = []

    def add(self, source: str, task, example: Example, **texts) -> None:
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


def revise(
    stage: TrainingRun, failures: list[Failure], seed: int
) -> list[tuple[Failure, list[int], list[bool]] | None]:
    """The student tries each failed task again, given its attempt and the critique.

    For each failure the revision's tokens and action mask if it verified without a refused call,
    else None.
    """
    prompts = [
        revision_prefix(stage.tokenizer, stage.style, failure.attempt.tokens, failure.critique)
        for failure in failures
    ]
    tasks = [failure.attempt.task for failure in failures]
    options = dict(seed=seed, prompts=prompts, room=REVISION_ROOM)
    revisions = rollouts(stage.player(), stage.tokenizer, tasks, **options)
    results = []
    for prompt, revision in zip(prompts, revisions, strict=True):
        start = len(prompt)
        good = revision.verified and not revision.invalid
        results.append((revision.tokens[start:], revision.action_mask[start:]) if good else None)
    return results


def reflection_round(stage: TrainingRun, number: int) -> tuple[list[dict], dict]:
    """Round `number` of Algorithm 1 with the present student: the buffer's rows, and figures.

    for each task x:
        y0 ∼ student(x);  if y0 verifies, keep it
        else  q = teacher(x, y0)
              up to K times:  y′ ∼ student(x, y0, q);  stop if y′ verifies
              if none did:  y′ = the teacher's own
              keep (x, y0, q, y′) with weight w = 1 + (tries − 1)/K

    A revision counts only without refused calls, and attempts without room for one are left out.
    Not in Algorithm 1: corrections of first wrong steps, and replayed episodes of the teacher.
    """
    c = stage.section
    tokenizer = stage.tokenizer
    seed = c.seed * 1000 + 17 * (number + 1)
    rng = random.Random(f"reflect {seed}")
    worlds = world_names(c.worlds)
    difficulty = Difficulty.of(c, style=stage.style)
    drawn = Tasks("reflect", c.seed, worlds, difficulty)
    tasks = [drawn[number * c.tasks + index] for index in range(c.tasks)]
    buffer = Buffer(c, tokenizer, stage.style)

    # sample and judge by execution
    stage.log.say(f"play    round {number + 1}: {len(tasks)} tasks")
    attempts = rollouts(stage.player(), tokenizer, tasks, seed=seed)
    usable = [attempt for attempt in attempts if attempt.ended != "raised"]
    for attempt in usable:
        if attempt.verified:
            buffer.add_success(attempt)
        if c.failures and c.step_weight and (attempt.invalid or not attempt.verified):
            buffer.add_first_wrong_step(attempt, rng)

    # critique
    failed = [attempt for attempt in usable if not attempt.verified]
    open_failures = [criticise(attempt) for attempt in failed] if c.failures else []

    # revise, up to K tries
    longest = stage.config.model.context - REVISION_ROOM
    for tries in range(1, c.tries + 1):
        open_failures = [f for f in open_failures if len(f.attempt.tokens) < longest]
        if not open_failures:
            break
        stage.log.say(f"play    {len(open_failures)} failures: try {tries} of {c.tries}")
        still_open = []
        revisions = revise(stage, open_failures, seed + tries)
        for failure, revision in zip(open_failures, revisions, strict=True):
            if revision is None:
                still_open.append(failure)
            else:
                buffer.add_revision("revised", failure, *revision, tries)
        open_failures = still_open

    # where every try failed: the teacher's own revision
    for failure in open_failures:
        task = failure.attempt.task
        messages, episode = solve_task(task)
        if episode.verified:
            start = len(prompt_of(task, tokenizer))
            tokens, mask = encode_episode(task, messages, tokenizer)
            buffer.add_revision("teacher", failure, tokens[start:], mask[start:], c.tries)

    # the teacher's episodes are replayed, so that acting is not forgotten
    replay = Tasks("reflect replay", c.seed, worlds, difficulty)
    count = int(c.replay * c.tasks)
    for index in range(number * count, (number + 1) * count):
        slips = rng.random() < c.slips
        row = trajectory(*replay.arguments(index), negatives=False, slips=slips)
        if not row.verified:
            continue
        conversation = (row.messages, row.tools)
        example = teacher_example(*conversation, tokenizer, stage.style, c.prompt_weight)
        buffer.add("replay", replay[index], example)

    sources = Counter(row["source"] for row in buffer.rows)
    figures = dict(
        first_try=episode_rates(attempts)["success"],
        revised=sources["revised"] / max(len(failed), 1),
        **{f"buffer_{source}": count for source, count in sources.items()},
    )
    return buffer.rows, figures


def write_buffer(stage: TrainingRun, number: int, file: Path, made_from: dict) -> None:
    """Play a round and write its buffer, one example per line."""
    c = stage.section
    began = time.perf_counter()
    rows, figures = reflection_round(stage, number)
    provenance.write_lines(file, rows, made_from)
    sizes = ", ".join(
        f"{name.removeprefix('buffer_')} {count}"
        for name, count in figures.items()
        if name.startswith("buffer_")
    )
    note = left_out([len(row["tokens"]) for row in rows], c.sequence)
    stage.log.say(
        f"round {number + 1}: {figures['first_try']:.1%} of {c.tasks} tasks at the first try, "
        f"{figures['revised']:.1%} of the failures revised by the student itself; "
        f"buffer {sizes}{note}; {time.perf_counter() - began:.0f} s"
    )
    first_step = c.reflect_steps * number // c.rounds
    stage.log.write(step=first_step, round=number + 1, **figures)


def learn_from_round(stage: TrainingRun, number: int, first: int, last: int, within: bool) -> None:
    """Play a round, or read the buffer that a stopped run left, and learn from it."""
    c = stage.section
    if within:
        student = stage.kept.get("student")
    else:
        student = checkpoint.weights_identity(stage.folder if first else stage.source)
    file = stage.folder / f"buffer-{number}.jsonl"
    made_from = {
        **stage.made_from,
        "version": BUFFER_VERSION,
        "round": number + 1,
        "student": student,
    }
    if not file.exists() and within:
        raise UserError(
            f"{file} is gone, and {stage.folder} stands at step {stage.first}, within the round "
            "that learns from it; put it back, or delete the folder to make it anew"
        )
    if not ranks.from_first(file.exists()):
        write_buffer(stage, number, file, made_from)
    if not file.stat().st_size:
        raise UserError(
            f"{file} is empty: no attempt succeeded and no revision could be made; "
            f"train stage distill longer, or delete {file} to sample again"
        )
    anew = stage.folder if within else file
    remedy = f"give the same command, or delete {anew} to sample again"
    buffer = provenance.read_lines(file, made_from, stage.defaults, remedy)

    examples = [(row["tokens"], row["weights"]) for row in buffer]
    rows = PackedLoader(examples, c.sequence, c.batch, c.seed + number, stage.model.config)
    if within:
        rows.restore(stage.kept["rows"])
    learn(stage, rows, first, last, student=student)


def reflect(config: Config) -> None:
    """Stage 2 of §3.1: rounds of Algorithm 1, each with the student that the last one left."""
    c = config.distill
    stage = TrainingRun(
        config,
        "reflected",
        "distilled",
        c.reflect_steps,
        c,
        rate=c.reflect_rate,
        start=c.reflect_start,
        made_from=teacher_identity(c),
    )
    if stage.finished():
        return
    for number in range(c.rounds):
        first = c.reflect_steps * number // c.rounds
        last = c.reflect_steps * (number + 1) // c.rounds
        if stage.first < last:
            within = stage.first > first  # resumed in the middle of the round
            learn_from_round(stage, number, max(first, stage.first), last, within)
    stage.finish()


def main() -> None:
    ranks.start()
    config = settings.from_command_line()
    settings.refuse_unread(config, stages=("distill", "reflect"))
    if config.stage in ("", "distill"):
        # stages decide dtype and compilation each for itself
        distill(copy.deepcopy(config))
    if config.stage in ("", "reflect"):
        reflect(config)


if __name__ == "__main__":
    settings.run_script(main, many_ranks=True)
