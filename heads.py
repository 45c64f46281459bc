"""Training the heads of inverse reasoning beside a decoder that stays as it is (paper §4.2, §5;
equations 6, 7 and 13), as one straight read.

    python heads.py config/toy.py                                   out/toy/sage → out/toy/thinking: the same decoder, and its heads
    python heads.py config/toy.py --heads.start out/toy/distilled   the heads of another stage's decoder
    python heads.py config/toy.py --resume                          goes on where a stopped run was, to the bit

The confidence head learns from labelled steps (steps.py): of the agent's own episodes, sampled with
faults, and of hard negatives on the expert's. The
inverse head learns to tell a verified episode's constraints from the agent's own words in it,
and from further episodes of the expert's. The gate comes last: it foretells the confidence head.

What differs from the usual training of a verifier:
- the decoder is frozen, and saved as it was to the bit; labels come from execution, and a missing
  one teaches nothing
- the data is seen once: episodes of its own are cheap, and new ones teach more than old ones again
- confidences are calibrated on episodes that training has not seen, by a temperature and an offset
  each
- the gate is a logistic regression on what the fast pass leaves behind, and has one answer: nothing
  to tune, nothing to resume
"""

import math
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import support.openmp  # before torch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from support import settings
from support import provenance
from support import runtime
from config import Model, UserError
from support.data import Packed, pack
from losses import IGNORE, auroc, calibration_error, cross_entropy
from mch import (
    ThinkingHeads,
    calibrate,
    confidence_loss,
    constraint_texts,
    fit_logistic,
    surprise_of,
)
from model import SAGE, flops_per_token
from agent import Rollout, rollouts
from support.training_run import TrainingRun
from worlds.expert import call_message, solve
from worlds.labels import (
    NEGATIVE_FACTS,
    PART_NAMES,
    PARTS,
    Labels,
    Part,
    StepFacts,
    encode_episode,
    label_steps,
    labels_of,
    message_spans,
)
from support.tokenizer import Tokenizer
from worlds.base import Difficulty, Task, Tasks, seed_of
from worlds.tools import hard_negatives

# Of what `collect` writes: raised when the same decoder and tasks give other data.
VERSION = 1

# ------------------------------------------------------------------------------------------------------
# labelled examples


def labelled_example(
    source: str,
    task: Task,
    conversation: tuple[list[int], list[bool]],
    tokenizer: Tokenizer,
    *,
    labels: list[Labels],
    is_call: list[bool],
    verified: bool,
) -> dict:
    """A conversation (tokens, and which of them the agent wrote) with labelled steps, one for each
    whole message, as a line of the data file.
    """
    tokens, action_mask = conversation
    spans = message_spans(tokens, action_mask, tokenizer.stop)
    steps = [
        dict(span=span, call=call, labels=step_labels)
        for span, call, step_labels in zip(spans, is_call, labels, strict=True)
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


def own_example(episode: Rollout, tokenizer: Tokenizer) -> dict:
    """An episode of the agent's own. Steps are its whole messages: one that was cut off is none."""
    labels = label_steps(episode)
    is_call = [True] * len(labels)
    if episode.ended == "answer":
        is_call[-1] = False
    return labelled_example(
        "own",
        episode.task,
        (episode.tokens, episode.action_mask),
        tokenizer,
        labels=labels,
        is_call=is_call,
        verified=episode.verified,
    )


def expert_example(task: Task, tokenizer: Tokenizer) -> dict | None:
    """The expert's episode, if it verified. Its steps are right; that it succeeds says nothing about
    the agent's success.
    """
    messages, episode = solve(task)
    if not episode.verified:
        return None
    is_call = ["tool_calls" in message for message in messages if message["role"] == "assistant"]
    return labelled_example(
        "expert",
        task,
        encode_episode(task, messages, tokenizer),
        tokenizer,
        labels=[labels_of(StepFacts(right=True))] * len(is_call),
        is_call=is_call,
        verified=True,
    )


def negative_examples(task: Task, tokenizer: Tokenizer, rng: random.Random) -> list[dict]:
    """Hard negatives of one call of the expert, played without faults: conversations that end with
    the spoilt call.

    The steps before it are unlabelled here; they are learnt from the expert's own episode.
    """
    messages, _ = solve(task, faults=False)
    call_places = [place for place, message in enumerate(messages) if "tool_calls" in message]
    if not call_places:
        return []
    place = rng.choice(call_places)
    content = messages[place]["content"]
    right = messages[place]["tool_calls"][0]["function"]
    steps_before = place // 2  # each message of the expert is followed by its tool's result
    examples = []
    for kind, wrong in hard_negatives(right, task.tools, rng, task).items():
        spoilt = [*messages[:place], call_message(content, wrong)]
        unlabelled = [[None] * len(PARTS)] * steps_before
        examples.append(
            labelled_example(
                kind,
                task,
                encode_episode(task, spoilt, tokenizer),
                tokenizer,
                labels=[*unlabelled, labels_of(NEGATIVE_FACTS[kind])],
                is_call=[True] * (steps_before + 1),
                verified=False,
            )
        )
    return examples


def sample_examples(
    model: SAGE,
    tokenizer: Tokenizer,
    own: list[Task],
    expert: list[Task],
    *,
    seed: int,
    batch: int,
    room: int,
    temperature: float = 1.0,
) -> list[dict]:
    """Labelled examples: the agent's own episodes of the tasks `own`; the expert's of the tasks
    `expert`, each with its hard negatives.
    """
    episodes = rollouts(model, tokenizer, own, temperature, seed=seed, batch=batch, room=room)
    rows = [own_example(episode, tokenizer) for episode in episodes if episode.ended != "raised"]
    for task in expert:
        if example := expert_example(task, tokenizer):
            rows.append(example)
        rows += negative_examples(task, tokenizer, random.Random(f"spoilt {task.seed}"))
    return rows


def first_tasks(tasks: Tasks, count: int) -> list[Task]:
    return [tasks[index] for index in range(count)]


def conclusion_of(row: dict) -> list[int]:
    """Z and Y of equation 13: the agent's own words of an example, without the request and without
    what tools said.
    """
    tokens = []
    for step in row["steps"]:
        first, last = step["span"]
        tokens += row["tokens"][first : last + 1]
    return tokens


@dataclass
class PackedSteps:
    """Examples as rows packed for a model, and where their S steps are."""

    packed: Packed
    action_mask: Tensor  # (R, T) the agent's own tokens
    rows: Tensor  # (S,) of each step's last token
    columns: Tensor  # (S,)
    labels: Tensor  # (S, len(PARTS)); NaN where unknown


def pack_steps(rows: list[dict], model: Model) -> PackedSteps:
    """Examples packed into rows as long as the longest of them."""
    examples = []
    for row in rows:
        action_mask = [False] * len(row["tokens"])
        for step in row["steps"]:
            first, last = step["span"]
            action_mask[first : last + 1] = [True] * (last + 1 - first)
        examples.append((row["tokens"], action_mask))
    packed = pack(examples, max(len(row["tokens"]) for row in rows), model)
    places, labels = [], []
    for row, (packed_row, offset) in zip(rows, packed.positions, strict=True):
        for step in row["steps"]:
            places.append((packed_row, offset + step["span"][1]))
            labels.append([math.nan if label is None else label for label in step["labels"]])
    packed_rows, columns = torch.tensor(places).unbind(1)
    # targets are the next tokens, so a token is the agent's where the target before it counts
    action_mask = F.pad(packed.targets[:, :-1] != IGNORE, (1, 0))
    return PackedSteps(packed, action_mask, packed_rows, columns, torch.tensor(labels))


# ------------------------------------------------------------------------------------------------------
# the data file


def collect(stage: TrainingRun, file: Path, made_from: dict) -> None:
    """Write the data, readable, an example a line: for training, for validation, greedy episodes,
    as the fast mode plays them, for the gate's threshold, and
    the expert's solutions for the inverse head.
    A resumed run reads it instead of sampling again."""
    c, d, began, rows = stage.section, stage.config.distill, time.perf_counter(), []
    worlds, difficulty = c.worlds.split(","), Difficulty.of(d, style=stage.style, babble=0.0)
    parts = (
        ("train", "heads", "heads expert", c.tasks, c.trajectories, 1.0),
        (
            "validation",
            "heads calibration",
            "heads calibration expert",
            c.validation,
            c.validation,
            1.0,
        ),
        ("greedy", "heads threshold", "heads threshold", c.validation, 0, 0.0),
    )
    for part, own, expert, tasks, trajectories, temperature in parts:
        own, expert = (Tasks(purpose, c.seed, worlds, difficulty) for purpose in (own, expert))
        found = sample_examples(
            stage.model,
            stage.tokenizer,
            first_tasks(own, tasks),
            first_tasks(expert, trajectories),
            seed=seed_of(own.purpose, own.seed),
            batch=c.batch,
            room=c.room,
            temperature=temperature,
        )
        kept = [row for row in found if row["steps"] and len(row["tokens"]) <= c.sequence]
        own = [row for row in kept if row["source"] == "own"]
        stage.log.say(
            f"{part:10}  {len(own)} own episodes with {sum(len(row['steps']) for row in own)} steps, {sum(row['verified'] for row in own)} verified; {len(kept) - len(own)} of the expert's and hard negatives"
            + (
                f"; {len(found) - len(kept)} without a whole message or over {c.sequence} tokens, left out"
                if len(found) > len(kept)
                else ""
            )
        )
        rows += [dict(part=part, **row) for row in kept]
    inverse = Tasks("heads inverse", c.seed, worlds, difficulty)
    solutions = [
        expert_example(task, stage.tokenizer) for task in first_tasks(inverse, c.solutions)
    ]
    solutions = [row for row in solutions if row is not None]
    rows += [dict(part="inverse", **row) for row in solutions]
    stage.log.say(
        f"inverse     {len(solutions)} of the expert's episodes, for the inverse head alone"
    )
    provenance.write_lines(file, rows, made_from)
    stage.log.say(
        f"data        {len(rows):,} examples in {file.name}, {time.perf_counter() - began:.0f} s"
    )


def told(
    row: dict, tokenizer: Tokenizer, prior: float, rng: random.Random
) -> list[tuple[list[int], list[bool]]]:
    """What the inverse head learns from a verified episode: conclusion and constraint, the latter
    taught; with probability `prior` behind the empty conclusion.
    """
    examples = []
    for text in row["constraints"]:
        before = tokenizer.stop[:1] if rng.random() < prior else conclusion_of(row)
        constraint = [*tokenizer.encode(text), tokenizer.stop[0]]
        examples.append((before + constraint, [False] * len(before) + [True] * len(constraint)))
    return examples


# ------------------------------------------------------------------------------------------------------
# what the heads are worth


@torch.no_grad()
def examine(model: SAGE, heads: ThinkingHeads, rows: list[dict], batch: int = 32) -> dict[str, Tensor]:
    """Every step of some examples, in order: the confidence head's `logits` (S, 4), `labels` (S, 4)
    with NaN where missing, the decoder's `hidden` (S, D) at the step's
    last token, the number of its example in `row` (S,), whether it is a `call` (S,); and of its own
    tokens `mean_log_p`, `min_log_p`, `mean_entropy`, `max_entropy` (S,), in nats.
    """
    device, found = next(model.parameters()).device, defaultdict(list)
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        steps = pack_steps(some, model.config)
        packed, own, at, column, labels = (
            steps.packed,
            steps.action_mask,
            steps.rows,
            steps.columns,
            steps.labels,
        )
        documents = packed.documents.to(device)
        tokens, own = packed.tokens.to(device), own.to(device)
        hidden = model.hidden(tokens, documents)
        known = surprise_of(model, tokens, hidden, own)
        log_p, entropy = known.cpu().unbind(-1)  # (R, T)
        found["logits"].append(heads["meta"](hidden, known, documents).cpu()[at, column])
        found["hidden"].append(hidden.float().cpu()[at, column])
        found["labels"].append(labels)
        steps = [
            (start + number, r, offset, step)
            for number, (row, (r, offset)) in enumerate(zip(some, packed.positions))
            for step in row["steps"]
        ]
        (
            found["row"].append(torch.tensor([number for number, *_ in steps])),
            found["call"].append(torch.tensor([step["call"] for *_, step in steps])),
        )
        spans = [
            (r, slice(offset + step["span"][0], offset + step["span"][1] + 1))
            for _, r, offset, step in steps
        ]
        for name, values, of in (
            ("mean_log_p", log_p, Tensor.mean),
            ("min_log_p", log_p, Tensor.amin),
            ("mean_entropy", entropy, Tensor.mean),
            ("max_entropy", entropy, Tensor.amax),
        ):
            found[name].append(torch.stack([of(values[span]) for span in spans]))
    return {name: torch.cat(parts) for name, parts in found.items()}


def about(part: Part, found: dict[str, Tensor], rows: list[dict], spoilt: bool = False) -> Tensor:
    """Which steps (S,) a figure of a part is about: the agent's own, where the part says so its
    calls; with `spoilt` the part's hard negatives and the expert's calls.
    """
    kinds = {part.negative, "expert"} if spoilt else {"own"}
    inside = (
        torch.tensor([row["source"] in kinds for row in rows])[found["row"]]
        & ~found["labels"][:, PARTS.index(part)].isnan()
    )
    return inside & found["call"] if spoilt or part.calls_only else inside


def quality(confidence: Tensor, found: dict[str, Tensor], rows: list[dict]) -> dict[str, float]:
    """AUROC and calibration error of confidences (S, 4) on own steps, and AUROC on hard negatives;

    NaN where all labels are equal.
    """
    figures = {}
    for number, part in enumerate(PARTS):
        says, is_ = confidence[:, number], found["labels"][:, number]
        own, spoilt = about(part, found, rows), about(part, found, rows, spoilt=True)
        figures |= {
            f"auroc_{part.name}": auroc(says[own], is_[own]),
            f"error_{part.name}": calibration_error(says[own], is_[own]),
        }
        if part.negative:
            figures[f"spoilt_{part.name}"] = auroc(says[spoilt], is_[spoilt])
    return figures


@torch.no_grad()
def fit(
    heads: ThinkingHeads,
    found: dict[str, Tensor],
    validation: dict[str, Tensor],
    greedy: dict[str, Tensor],
    rows: list[dict],
    rho: float,
) -> dict[str, float]:
    """Calibrate every part on own steps of the `validation` examples `rows`, fit the gate on the
    own training steps `found`, choose τ on `greedy` steps.

    The gate's target: the head would reject the step, its least calibrated confidence is under ½.
    Where it would reject none or all of them there is nothing to fit, and γ stays ½. τ is the (1 −
    ρ)-quantile of γ over the steps of greedy episodes, which are those that the gate will look at:
    a share ρ of them lies above it (of sampled steps, which doubt more often, τ let hardly any
    greedy one pass).
    """
    meta, gate, device = heads["meta"], heads["gate"], heads.tau.device
    for number, part in enumerate(PARTS):
        own = about(part, validation, rows)
        meta.temperature[number], meta.offset[number] = calibrate(
            validation["logits"][own, number], validation["labels"][own, number]
        )
    rejected, wanted = (
        (meta.confidence(some["logits"].to(device)).amin(-1) < 0.5).float().cpu()
        for some in (found, validation)
    )
    if 0 < rejected.mean() < 1:
        weight, bias = fit_logistic(
            torch.cat([found["hidden"], found["max_entropy"][:, None]], 1), rejected
        )
        gate.out.weight.copy_(weight[None]), gate.out.bias.copy_(bias[None])
    own = about(PARTS[PART_NAMES.index("success")], validation, rows)
    gamma, wanted = (
        torch.sigmoid(
            gate(validation["hidden"][own].to(device), validation["max_entropy"][own].to(device))
        ).cpu(),
        wanted[own],
    )
    fast = torch.sigmoid(gate(greedy["hidden"].to(device), greedy["max_entropy"].to(device))).cpu()
    heads.tau.copy_(fast.double().quantile(1 - rho)), heads.trained.fill_(1)
    return dict(
        tau=heads.tau.item(),
        switched=(fast > heads.tau.cpu()).float().mean().item(),
        rejected=wanted.mean().item(),
        auroc_gate=auroc(gamma, wanted),
        auroc_gate_entropy=auroc(validation["max_entropy"][own], wanted),
    )


def consistency(
    model: SAGE, heads: ThinkingHeads, rows: list[dict], tokenizer: Tokenizer, batch: int = 32
) -> tuple[Tensor, Tensor]:
    """ICS of examples and its prior, each (N,) in nats a constraint."""
    pairs = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        constraints = [
            [[*tokenizer.encode(text), tokenizer.stop[0]] for text in row["constraints"]]
            for row in some
        ]
        pairs += zip(
            *heads["inverse"].scores(model, [conclusion_of(row) for row in some], constraints)
        )
    return tuple(torch.tensor(pairs).unbind(1))


def shown(value: float) -> str:
    return f"{value:.3f}" if value == value else "n/a"


# ------------------------------------------------------------------------------------------------------
# training


def main() -> None:
    config = settings.from_command_line()
    c = config.heads
    faults = {
        "distill.fault_rate": config.distill.fault_rate,
        "distill.fault_kinds": config.distill.fault_kinds,
    }
    stage = TrainingRun(
        config,
        "thinking",
        "sage",
        c.steps,
        c,
        heads=lambda shape: ThinkingHeads(shape, c.seed),
        frozen=True,
        made_from=faults,
    )
    if stage.finished():
        return
    model, heads, tokenizer, device = stage.model, stage.heads, stage.tokenizer, stage.device

    # -- data, each example in exactly one step
    file = stage.folder / "steps.jsonl"
    made_from = {**stage.made_from, "version": VERSION}
    if not file.exists():
        collect(stage, file, made_from)
    anew = stage.folder if stage.first else file
    remedy = f"give the same command, or delete {anew} to sample again"
    rows = provenance.read_lines(file, made_from, stage.defaults, remedy)
    if stage.kept.get("data", data := provenance.digest(file)) != data:
        raise UserError(
            f"{file} is not the one that the steps up to {stage.first} learnt from; "
            f"put that one back, or delete {stage.folder} to begin anew"
        )
    train, validation, greedy = (
        [row for row in rows if row["part"] == part] for part in ("train", "validation", "greedy")
    )
    own, unseen = ([row for row in some if row["source"] == "own"] for some in (train, validation))
    if not own or not unseen or not greedy:
        raise UserError(
            f"{file} has {len(own)} own episodes for training, {len(unseen)} for validation and {len(greedy)} greedy ones with a whole message in them: raise heads.tasks, heads.validation, heads.room or "
            "heads.sequence, or train the decoder until it ends its messages; then delete the file"
        )
    rng = random.Random(c.seed)
    lessons = [
        lesson
        for row in rows
        if row["verified"] and row["part"] in ("train", "inverse")
        for lesson in told(row, tokenizer, c.prior, rng)
    ]
    if min(len(train), len(lessons)) < c.steps:
        raise UserError(
            f"{file} has {len(train)} examples and {len(lessons)} constraints for {c.steps} steps, each to be seen once; lower heads.steps, or give more heads.tasks and heads.trajectories and delete the file"
        )
    order, order_told = (
        np.array_split(np.random.default_rng([c.seed, number]).permutation(count), c.steps)
        for number, count in enumerate((len(train), len(lessons)))
    )
    stage.log.say(
        f"heads       {sum(p.numel() for p in heads.parameters() if p.requires_grad):,} parameters beside the decoder's {sum(p.numel() for p in model.parameters()):,}; "
        f"{len(train):,} examples and {len(lessons):,} constraints, each seen once"
    )

    # -- learning
    interval, logged, seen = time.perf_counter(), stage.first, Counter()
    with runtime.stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            chosen = [train[i] for i in order[step - 1]]
            steps = pack_steps(chosen, model.config)
            packed, mine, at, column, labels = (
                steps.packed,
                steps.action_mask,
                steps.rows,
                steps.columns,
                steps.labels,
            )
            some = [lessons[i] for i in order_told[step - 1]]
            asked = pack(some, max(len(tokens) for tokens, _ in some), model.config)
            with stage.autocast:
                tokens, documents = packed.tokens.to(device), packed.documents.to(device)
                hidden = model.hidden(tokens, documents)
                logits = heads["meta"](
                    hidden, surprise_of(model, tokens, hidden, mine.to(device)), documents
                )[at.to(device), column.to(device)]  # (S, 4)
                confidence = confidence_loss(logits, labels.to(device))
                inverse = cross_entropy(
                    heads["inverse"](model, asked.tokens.to(device), asked.documents.to(device)),
                    stage.model.unembedding,
                    asked.targets.to(device),
                )
            (confidence + inverse).backward()
            norm = stage.update(step)
            stage.log.bar.update()

            seen.update(
                loss=confidence.item(),
                inverse=inverse.item(),
                tokens=packed.tokens.numel() + asked.tokens.numel(),
            )
            if step % c.log_every == 0 or step == c.steps:
                now, steps = time.perf_counter(), step - logged
                rate = seen["tokens"] / (now - interval)
                stage.log.line(
                    step,
                    (now - interval) / steps * 1e3,
                    rate,
                    rate
                    * flops_per_token(config.model, packed.tokens.shape[1])
                    / 3
                    / stage.peak,  # the decoder goes forward only
                    loss=seen["loss"] / steps,
                    inverse=seen["inverse"] / steps,
                    lr=c.learning_rate * stage.scale,
                    norm=norm,
                )
                interval, logged, seen = now, step, Counter()
            if step == c.steps:
                break  # saved once all is fitted
            if step % c.eval_every == 0:
                found = examine(model, heads, unseen)
                figures = quality(torch.sigmoid(found["logits"]), found, unseen)
                stage.log.say(
                    f"{'':12}AUROC on own validation steps: "
                    + ", ".join(
                        f"{part} {shown(figures[f'auroc_{part}'])} (error {shown(figures[f'error_{part}'])})"
                        for part in PART_NAMES
                    )
                )
                stage.log.write(
                    step=step,
                    **{name: None if value != value else value for name, value in figures.items()},
                )
            if stopping():
                stage.stop(step, data=data)
            if c.save_every and step % c.save_every == 0:
                stage.save(step, data=data)

    # -- calibration, the gate, and the closing table
    found = examine(model, heads, validation)
    raw = quality(torch.sigmoid(found["logits"]), found, validation)
    figures = fit(
        heads, examine(model, heads, own), found, examine(model, heads, greedy), validation, c.rho
    )
    figures |= quality(
        heads["meta"].confidence(found["logits"].to(device)).cpu(), found, validation
    )
    ics, prior = consistency(model, heads, unseen, tokenizer)
    verified = torch.tensor([float(row["verified"]) for row in unseen])
    figures |= dict(
        ics=ics.mean().item(),
        prior=prior.mean().item(),
        auroc_ics=auroc(ics, verified),
        auroc_ics_gain=auroc(ics - prior, verified),
    )
    stage.log.write(
        step=c.steps, **{name: None if value != value else value for name, value in figures.items()}
    )
    stage.save(c.steps, data=data)

    stage.log.say(
        f"\nvalidation  {len(unseen)} own episodes, {int(verified.sum())} verified, and hard negatives; n/a where all labels are equal; calibrated on these steps, so bench/reasoning.py measures on others\n\n"
        f"{'':12}{'AUROC':>8}{'calibration error':>20}{'uncalibrated':>15}{'steps':>8}{'wrong':>8}{'AUROC, hard negatives':>25}"
    )
    for number, part in enumerate(PARTS):
        of = found["labels"][about(part, found, validation), number]
        stage.log.say(
            f"{part.name:12}{shown(figures[f'auroc_{part.name}']):>8}{shown(figures[f'error_{part.name}']):>20}{shown(raw[f'error_{part.name}']):>15}{len(of):>8}{int((of == 0).sum()):>8}{shown(figures[f'spoilt_{part.name}']) if part.negative else '':>25}"
        )
    stage.log.say(
        f"\ngate        AUROC {shown(figures['auroc_gate'])} of what the head rejects ({figures['rejected']:.1%} of the steps), entropy alone {shown(figures['auroc_gate_entropy'])}; τ {shown(figures['tau'])} sends {figures['switched']:.1%} of greedy steps into Reasoning Mode"
        f"\ninverse     ICS {shown(figures['ics'])} nats a constraint, prior {shown(figures['prior'])}; AUROC {shown(figures['auroc_ics'])} of the verified episodes, its gain {shown(figures['auroc_ics_gain'])}\n"
    )
    stage.finish("loss", "inverse")


if __name__ == "__main__":
    settings.run_script(main)
