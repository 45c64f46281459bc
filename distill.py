"""Distillation from a teacher, then from the student's own failures (paper §3.1, Algorithm 1,
equation 5).

    python distill.py config/toy.py                    out/toy/base → distilled → reflected
    python distill.py config/toy.py --stage distill    the teacher's trajectories
    python distill.py config/toy.py --stage reflect    rounds of trying, critique and revision
    python distill.py config/toy.py --stage reflect --distill.no-failures --distill.name rejection
                                                       rejection sampling, the control
    python distill.py config/toy.py --resume           continues a stopped run, on a CPU to the bit
    torchrun --nproc-per-node 8 distill.py config/7b.py    the same steps on many GPUs

Both stages pack examples (weighted_examples.py: tokens, and a weight for each token) into rows and
minimise the weighted cross-entropy. They differ in where the examples come from:
- distill: trajectories of a teacher, and corrections of hard negatives
- reflect: the student acts; what verified is kept; a failed attempt is followed by a critique and
  by a revision that verifies, its first wrong step by the right one; and the teacher's episodes
  are replayed beside them

What differs from the usual fine-tuning:
- tokens that the model did not write are masked, or weigh little (distill.prompt_weight)
- wrong calls are shown and masked: only putting them right is learnt
- half of the faults' messages, and of the requests' sentences where names are invented, keep only
  the words that count, among random ones (distill.babble, worlds/splits.py), and the teacher
  sometimes makes a wrong call that the check corrects, so that names, schemas and relations are
  read, not phrases: so the toy solved 65 and 47% of SQL tasks in words never read (two lineages),
  without such sentences 25% (one)
"""

import copy
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import support.openmp  # before torch

import torch
import torch.nn.functional as F
from torch import Tensor

from agent import episode_rates, prompt_of, revision_prefix, rollouts
from config import Config, Distill, UserError
from losses import cross_entropy
from model import SAGE, flops_per_token
from support import checkpoint, machine, provenance, ranks, settings
from support.interrupts import stop_requested
from support.log import Progress
from support.packing import PackedLoader
from support.model_checks import check_documents
from support.training_run import Meter, TrainingRun
from weighted_examples import (
    Buffer,
    Failure,
    criticise,
    drawn_trajectories,
    left_out,
    teacher_example,
    trajectory_examples,
)
from worlds.difficulty import Difficulty
from worlds.expert import solve_task, trajectory
from worlds.labels import encode_episode
from worlds.tasks import Tasks, playable, world_names
from worlds.teacher_file import read_teacher_file

# Of a round's buffer; raised when the same student and tasks give another one.
BUFFER_VERSION = 3
REVISION_ROOM = 384  # tokens that a revision may add to the failed attempt and its critique

# --------------------------------------------------------------------------------------------------
# The loop: weighted cross-entropy on packed rows, for both stages.


def teacher_identity(c: Distill) -> dict:
    """The weights whose logits a stage learns from, by their hash; part of what it is made from."""
    run = settings.absolute_model(c.kl_teacher) if c.kl and c.kl_teacher else None
    return {"distill.kl_teacher": run and checkpoint.weights_identity(run)}


def kl_teacher(stage: TrainingRun, documents: Tensor) -> SAGE:
    """The model whose logits are distilled. Raises UserError where it has another vocabulary, or
    cannot read rows that were packed for the student, with these `documents` (R, T).
    """
    teacher = stage.load_decoder(settings.absolute_model(stage.section.kl_teacher))
    if teacher.config.vocab_size != stage.model.config.vocab_size:
        raise UserError(
            f"distill.kl_teacher has {teacher.config.vocab_size} tokens, the student "
            f"{stage.model.config.vocab_size}; their logits cannot be compared"
        )
    check_documents(documents, teacher.config)
    return teacher


def divergence_from(
    teacher: SAGE, student: SAGE, hidden: Tensor, tokens: Tensor, documents: Tensor
) -> Tensor:
    """KL(teacher ‖ student) over the vocabulary at each token of packed rows, (B, T) in nats, from
    the student's hidden states (B, T, D).
    """
    with torch.no_grad():
        wanted = teacher.logits(teacher.hidden(tokens, documents)).float()  # (B, T, V)
    return F.kl_div(
        student.logits(hidden).float().log_softmax(-1),
        wanted.log_softmax(-1),
        log_target=True,
        reduction="none",
    ).sum(-1)


def seconds_per_step(
    stage: TrainingRun, loader: PackedLoader, backward_of: Callable, tries: int = 3
) -> float:
    """Seconds per step on this machine: the median of `tries` on the first rows, plus a fifth for
    the optimiser and checkpoints. It leaves no trace in model and loader.
    """
    place = loader.state()
    taken = []
    for _ in range(tries):
        began = time.perf_counter()
        backward_of(loader.next())
        machine.wait_for(stage.device)
        taken.append(time.perf_counter() - began)
    stage.model.zero_grad(set_to_none=True)
    loader.restore(place)
    return 1.2 * statistics.median(taken)


@torch.no_grad()
def validation_success(stage: TrainingRun, step: int) -> float:
    """Success of sampled validation tasks, the mean over worlds. The log gets each world's success
    and entropy, the mean of −log P over the student's tokens, in nats.
    """
    c = stage.section
    difficulty = Difficulty.of(c, style=stage.style, fault_rate=0.0, babble=0.0)
    player = stage.player()
    figures, successes = {}, []
    for world in playable(list(dict.fromkeys(world_names(c.worlds)))):
        tasks = Tasks("validation", stage.config.eval.seed, [world], difficulty)
        some = [tasks[index] for index in range(c.eval_tasks)]
        played = rollouts(player, stage.tokenizer, some, seed=c.seed)
        drawn = [p for r in played for p, own in zip(r.log_probs, r.action_mask) if own]
        successes.append(episode_rates(played)["success"])
        figures[f"success_{world}"] = successes[-1]
        figures[f"entropy_{world}"] = -statistics.fmean(drawn)
    stage.log.write(step=step, **figures)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in figures.items())
    stage.log.say(f"{'':12}validation, sampled: {shown}")
    return statistics.fmean(successes)


def learn(
    stage: TrainingRun,
    loader: PackedLoader,
    first: int,
    last: int | None = None,
    *,
    minutes: float = 0.0,
    **kept,
) -> None:
    """Optimiser steps first + 1 … last of a stage; `kept` goes into its checkpoints.

    Without `last` all of the stage's, fewer where they would take more than `minutes` (0: any
    time), or where the validation tasks' success is `enough`.
    """
    c = stage.section
    model = stage.model
    *_, all_documents = loader.tensors
    teacher = kl_teacher(stage, all_documents) if c.kl else None

    def loss_of(tokens, targets, weights, documents, count):
        """Weighted cross-entropy + kl · weighted KL(teacher ‖ student), summed over this rank's
        rows (B, T), over `count`: all ranks' weights, each at most 1.
        """
        hidden = model.hidden(tokens, documents)  # (B, T, D)
        loss = cross_entropy(hidden, model.unembedding, targets, weights=weights, count=count)
        if teacher is None:
            return loss
        divergence = divergence_from(teacher, model, hidden, tokens, documents)  # (B, T)
        return loss + c.kl * (divergence * weights).sum() / count

    loss_of = machine.compiled(loss_of, c.compile)

    def backward_of(batch) -> Tensor:
        """The loss of a batch (tokens, targets, weights, documents, each (B, T)) over all ranks;
        this rank's gradients are added to p.grad.
        """
        mine, counted = ranks.share_rows(c.batch)  # counted: False for rows that only fill up
        # the mean's denominator, over all ranks: weights, each cut at 1. Were equation 5's w > 1 in
        # it as well, a batch that has w everywhere would have the gradient of w = 1
        count = batch[2].clamp(max=1).sum().to(stage.device)
        tokens, targets, weights, documents = (part[mine].to(stage.device) for part in batch)
        with stage.autocast:
            loss = loss_of(tokens, targets, weights * counted, documents, count)
        loss.backward()
        return ranks.total(loss)

    if minutes and not first:
        stage.plan_minutes(minutes, seconds_per_step(stage, loader, backward_of))
    step_tokens = c.batch * c.sequence
    step_flops = step_tokens * flops_per_token(
        model.config, c.sequence, trained_blocks=c.trained_blocks, taught=loader.taught()
    )
    meter = Meter(first, stage.peak)
    step = first
    with stop_requested() as stopping:
        while step < (last or stage.steps):
            step += 1
            with meter.waiting():
                batch = loader.next()
            loss = backward_of(batch)
            norm = stage.update(step)

            meter.count(step_tokens, step_flops)
            meter.add(loss=loss, norm=norm)
            if last is None and c.eval_every and step % c.eval_every == 0:
                with meter.paused():
                    enough = ranks.from_first(validation_success(stage, step) >= c.enough)
                if enough:
                    stage.begin_decay(step)
            if stage.is_log_step(step, last):
                stage.log_line(step, meter)
            with meter.paused():
                stage.end_step(step, stopping, last, rows=loader.state(), **kept)


# --------------------------------------------------------------------------------------------------
# Stage distill.


def distill(config: Config) -> None:
    """Stage 1 of §3.1: supervised learning on teacher trajectories and on corrections of hard
    negatives.
    """
    c = config.distill
    file = Path(settings.absolute(c.file)) if c.file else None
    file_digest = provenance.digest(file) if file and file.is_file() else None
    made_from = {"distill.file": file_digest, **teacher_identity(c)}
    if c.eval_every:  # whose tasks may decide when it ends
        made_from["eval.seed"] = config.eval.seed
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
    loader = PackedLoader(examples, c.sequence, c.batch, c.seed, stage.model.config)
    loader.restore(stage.kept.get("rows", loader.state()))

    _, _, weights, _ = loader.tensors
    taught = int((weights == 1).sum())  # not what weighs prompt_weight
    stage.log.say(
        f"data    {len(trajectories):,} verified trajectories, "
        f"{len(examples) - len(trajectories):,} corrections: "
        f"{taught / 1e6:.1f}M taught tokens in {len(loader.order):,} rows of {c.sequence}"
        + left_out([len(tokens) for tokens, _ in examples], c.sequence)
    )
    learn(stage, loader, stage.first, minutes=c.minutes)
    stage.finish()


# --------------------------------------------------------------------------------------------------
# Stage reflect: Algorithm 1.


def revision_prompt(stage: TrainingRun, failure: Failure) -> list[int]:
    """What a revision is written after: the failed attempt, "again" and the critique."""
    attempt = failure.attempt.tokens
    return revision_prefix(stage.tokenizer, stage.style, attempt, failure.critique)


def revise(
    stage: TrainingRun, failures: list[Failure], seed: int
) -> list[tuple[list[int], list[bool]] | None]:
    """The student tries each failed task again, given its attempt and the critique.

    For each failure the revision's tokens and action mask if it verified without a refused call,
    else None.
    """
    prompts = [revision_prompt(stage, failure) for failure in failures]
    tasks = [failure.attempt.task for failure in failures]
    progress = Progress(stage.log.say, "play  ")
    options = dict(seed=seed, prompts=prompts, room=REVISION_ROOM, progress=progress)
    revisions = rollouts(stage.player(), stage.tokenizer, tasks, **options)
    results = []
    for prompt, revision in zip(prompts, revisions, strict=True):
        start = len(prompt)
        good = revision.verified and not revision.invalid
        results.append((revision.tokens[start:], revision.action_mask[start:]) if good else None)
    return results


def revise_failures(stage: TrainingRun, failures: list[Failure], buffer: Buffer, seed: int) -> int:
    """Algorithm 1's inner loop: each failure is tried again up to K times, with its critique; what
    never verifies gets the teacher's own revision. Attempts without room for a revision are left
    out, with a line in the log. Returns how many were tried.
    """
    c = stage.section
    longest = stage.config.model.context - REVISION_ROOM
    fitting = [failure for failure in failures if len(revision_prompt(stage, failure)) <= longest]
    if len(fitting) < len(failures):
        left = len(failures) - len(fitting)
        stage.log.say(f"play    {left} failures leave no room for a revision in model.context")
    failures = fitting
    tried = len(failures) if c.tries else 0
    for tries in range(1, c.tries + 1):
        if not failures:
            break
        stage.log.say(f"play    {len(failures)} failures: try {tries} of {c.tries}")
        still_open = []
        for failure, revision in zip(failures, revise(stage, failures, seed + tries), strict=True):
            if revision is None:
                still_open.append(failure)
            else:
                buffer.add_revision("revised", failure, *revision, tries)
        failures = still_open

    for failure in failures:
        task = failure.attempt.task
        messages, episode = solve_task(task)
        if episode.verified:
            start = len(prompt_of(task, stage.tokenizer))
            tokens, mask = encode_episode(task, messages, stage.tokenizer)
            buffer.add_revision("teacher", failure, tokens[start:], mask[start:], c.tries)
    return tried


def replay_teacher(stage: TrainingRun, number: int, buffer: Buffer, rng: random.Random) -> None:
    """Further episodes of the teacher, so that acting is not forgotten: `replay` per task."""
    c = stage.section
    difficulty = Difficulty.of(c, style=stage.style)
    tasks = Tasks("reflect replay", c.seed, world_names(c.worlds), difficulty)
    count = int(c.replay * c.tasks)
    for index in range(number * count, (number + 1) * count):
        slips = rng.random() < c.slips
        row = trajectory(*tasks.arguments(index), negatives=False, slips=slips)
        if row.verified:
            example = teacher_example(
                row.messages, row.tools, stage.tokenizer, stage.style, c.prompt_weight
            )
            buffer.add("replay", tasks[index], example)


def reflection_round(stage: TrainingRun, number: int) -> tuple[list[dict], dict]:
    """Round `number` of Algorithm 1 with the present student: the buffer's rows, and figures.

    for each task x:
        y0 ∼ student(x);  if y0 verifies, keep it
        else  q = teacher(x, y0)
              up to K times:  y′ ∼ student(x, y0, q);  stop if y′ verifies
              if none did:  y′ = the teacher's own
              keep (x, y0, q, y′) with weight w = 1 + (tries − 1)/K

    A revision counts only without refused calls. Not in Algorithm 1: corrections of first wrong
    steps, and replayed episodes of the teacher.
    """
    c = stage.section
    seed = c.seed * 1000 + 17 * (number + 1)
    rng = random.Random(f"reflect {seed}")
    drawn = Tasks("reflect", c.seed, world_names(c.worlds), Difficulty.of(c, style=stage.style))
    tasks = [drawn[number * c.tasks + index] for index in range(c.tasks)]
    buffer = Buffer(c, stage.tokenizer, stage.style)

    # sample, and judge by execution
    stage.log.say(f"play    round {number + 1}: {len(tasks)} tasks")
    progress = Progress(stage.log.say, "play  ")
    attempts = rollouts(stage.player(), stage.tokenizer, tasks, seed=seed, progress=progress)
    usable = [attempt for attempt in attempts if attempt.ended != "raised"]
    failed = [attempt for attempt in usable if not attempt.verified]
    for attempt in usable:
        if attempt.verified:
            buffer.add_success(attempt)
        if c.failures and c.step_weight and (attempt.invalid or not attempt.verified):
            buffer.add_first_wrong_step(attempt, rng)

    # critique and revise
    figures = dict(first_try=episode_rates(attempts)["success"])
    if c.failures:
        tried = revise_failures(stage, [criticise(attempt) for attempt in failed], buffer, seed)
        if tried:
            revised = sum(row["source"] == "revised" for row in buffer.rows)
            figures["revised"] = revised / tried
    replay_teacher(stage, number, buffer, rng)
    return buffer.rows, figures


def write_buffer(stage: TrainingRun, number: int, file: Path, made_from: dict) -> None:
    """Play a round and write its buffer, one example per line."""
    c = stage.section
    began = time.perf_counter()
    rows, figures = reflection_round(stage, number)
    provenance.write_lines(file, rows, made_from)
    sources = Counter(row["source"] for row in rows)
    sizes = ", ".join(f"{source} {count}" for source, count in sources.items())
    figures = figures | {f"buffer_{source}": count for source, count in sources.items()}
    note = left_out([len(row["tokens"]) for row in rows], c.sequence)
    revised = ""
    if "revised" in figures:
        revised = f", {figures['revised']:.1%} of the failures revised by the student itself"
    stage.log.say(
        f"round {number + 1}: {figures['first_try']:.1%} of {c.tasks} tasks at the first try"
        f"{revised}; buffer {sizes}{note}; {time.perf_counter() - began:.0f} s"
    )
    first_step = c.reflect_steps * number // c.rounds
    stage.log.write(step=first_step, round=number + 1, **figures)


def learn_from_round(
    stage: TrainingRun, number: int, first: int, last: int, resumed_inside: bool
) -> None:
    """Learn from a round's buffer in steps first + 1 … last; play the round if it is not there.

    A run `resumed_inside` the round must find its buffer: the student that played it is gone.
    """
    c = stage.section
    if resumed_inside:  # the folder's weights are no longer those that played
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
    if not file.exists() and resumed_inside:
        raise UserError(
            f"{file} is gone, and {stage.folder} stands at step {stage.first}, within the round "
            "that learns from it; put it back, or delete the folder to make it anew"
        )
    if not ranks.from_first(file.exists()):
        write_buffer(stage, number, file, made_from)
    if not file.stat().st_size:
        raise UserError(
            f"{file} is empty: no attempt succeeded and no revision could be made; "
            f"give distill.replay more, or train stage distill longer, and delete {stage.folder} "
            "to begin anew"
        )
    anew = stage.folder if resumed_inside else file
    remedy = f"give the same command, or delete {anew} to sample again"
    buffer = provenance.read_lines(file, made_from, stage.defaults, remedy)

    examples = [(row["tokens"], row["weights"]) for row in buffer]
    loader = PackedLoader(examples, c.sequence, c.batch, c.seed + number, stage.model.config)
    if resumed_inside:
        loader.restore(stage.kept["rows"])
    learn(stage, loader, first, last, student=student)


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
            inside = stage.first > first
            learn_from_round(stage, number, max(first, stage.first), last, resumed_inside=inside)
    stage.finish()


def main() -> None:
    ranks.start()
    config = settings.from_command_line()
    settings.refuse_unread(config, stages=("distill", "reflect"))
    if config.distill.name and not config.stage:
        raise UserError(
            f"distill.name {config.distill.name!r} is one stage's folder, and both stages are "
            "asked for; give --stage distill or --stage reflect"
        )
    if config.stage in ("", "distill"):
        # stages decide dtype and compilation each for itself
        distill(copy.deepcopy(config))
    if config.stage in ("", "reflect"):
        reflect(config)


if __name__ == "__main__":
    settings.run_script(main, many_ranks=True)
