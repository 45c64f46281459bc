"""Training the heads of inverse reasoning beside a frozen decoder (paper §4.2, §5; equations 6, 7
and 13).

    python heads.py config/toy.py                     out/toy/sage → out/toy/thinking
    python heads.py config/toy.py --heads.start out/toy/distilled     another stage's decoder
    python heads.py config/toy.py --resume            continues a stopped run (on a CPU, to the bit)
    python heads.py config/problems.py                an inverse head with a decoder of its own

The confidence head learns from labelled steps (labelled_steps.py): steps of the agent's own
episodes, sampled with faults, the expert's, and hard negatives of the expert's calls. The inverse
head learns to predict a verified episode's constraints from the agent's own words in it, and from
further episodes of the expert; and to prefer a right sample to a wrong one (`contrast_loss`). The
gate is fitted last: it predicts which steps the confidence head would reject (`doubted`).

What differs from the usual training of a verifier:
- the decoder is frozen, and saved as it was to the bit; labels come from execution, and an unknown
  label teaches nothing
- the data is seen once: episodes are cheap, and new ones teach more than old ones again
- confidences are calibrated on episodes that training has not seen, by a temperature and an offset
  for each part
- the gate is a logistic regression on what the fast pass computed anyway: a convex problem with
  nothing to tune and nothing to resume
"""

import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import support.openmp  # before torch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config import UserError
from fast.shared_pasts import shared_pasts
from labelled_steps import (
    PackedSteps,
    conclusion_of,
    constraint_examples,
    count_labels,
    pack_steps,
    read_data,
    retelling,
)
from losses import auroc, calibration_error, cross_entropy, sum_per_document, token_log_probs
from mch import (
    MetaCognitiveHead,
    ThinkingHeads,
    calibrate,
    closed,
    confidence_loss,
    fit_logistic,
    surprise_of,
)
from model import SAGE, flops_per_token
from support import ranks, settings
from support.interrupts import stop_requested
from support.packing import pack_short
from support.tokenizer import Tokenizer
from support.training_run import Meter, TrainingRun
from worlds.labels import PART_NAMES, PARTS, Part

# stage distill's settings that shape the heads' tasks, and so their data; with contrast, babble too
DIFFICULTY = ("rung", "names", "renamed", "longer", "fault_rate", "fault_kinds")

# --------------------------------------------------------------------------------------------------
# The confidence head on steps.


def read_steps(
    model: SAGE, head: MetaCognitiveHead, steps: PackedSteps, device: str | torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The head's logits at the last token of each step (S, P), and of all tokens the decoder's
    hidden states (R, T, D) and log-probability and entropy (R, T, 2).
    """
    tokens = steps.packed.tokens.to(device)
    documents = steps.packed.documents.to(device)
    # hard negatives begin as the expert's episode does
    hidden = model.hidden(tokens, documents, shared=shared_pasts(tokens, documents))
    surprise = surprise_of(model, tokens, hidden, steps.action_mask.to(device))
    logits = head(hidden, surprise, documents)  # (R, T, P)
    return logits[steps.rows.to(device), steps.columns.to(device)], hidden, surprise


@torch.no_grad()
def evaluate_steps(
    model: SAGE, heads: ThinkingHeads, rows: list[dict], batch: int = 32
) -> dict[str, Tensor]:
    """All S steps of some examples, in order, on the CPU:

    logits (S, P), labels (S, P)    of the confidence head; NaN where unknown
    hidden (S, D)                   the decoder's, at the step's last token
    row (S,), is_call (S,)          the number of its example; whether it is a call
    mean_log_p, min_log_p, mean_entropy, max_entropy (S,)    over its tokens, in nats
    """
    device = next(model.parameters()).device
    found = defaultdict(list)
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        steps = pack_steps(some, model.config)
        logits, hidden, surprise = read_steps(model, heads["meta"], steps, device)
        found["logits"].append(logits.float().cpu())
        found["hidden"].append(hidden.float().cpu()[steps.rows, steps.columns])
        found["labels"].append(steps.labels)
        log_p, entropy = surprise.cpu().unbind(-1)  # (R, T) each
        places = zip(some, steps.packed.positions, strict=True)
        for number, (row, (packed_row, offset)) in enumerate(places, start):
            for step in row["steps"]:
                first, last = step["span"]
                span = packed_row, slice(offset + first, offset + last + 1)
                found["row"].append(torch.tensor([number]))
                found["is_call"].append(torch.tensor([step["call"]]))
                found["mean_log_p"].append(log_p[span].mean()[None])
                found["min_log_p"].append(log_p[span].amin()[None])
                found["mean_entropy"].append(entropy[span].mean()[None])
                found["max_entropy"].append(entropy[span].amax()[None])
    return {name: torch.cat(values) for name, values in found.items()}


def own_steps(part: Part, steps: dict[str, Tensor], rows: list[dict]) -> Tensor:
    """Which steps (S,) a part is calibrated and measured on: the agent's own whose label is known;
    of a `calls_only` part the calls alone.
    """
    own = torch.tensor([row["source"] == "own" for row in rows])[steps["row"]]
    known = ~steps["labels"][:, PARTS.index(part)].isnan()
    return own & known & steps["is_call"] if part.calls_only else own & known


def negative_steps(part: Part, steps: dict[str, Tensor], rows: list[dict]) -> Tensor:
    """Which steps (S,) probe a part: hard negatives of its kind, and the expert's calls."""
    kinds = (part.negative, "expert")
    probes = torch.tensor([row["source"] in kinds for row in rows])[steps["row"]]
    return probes & ~steps["labels"][:, PARTS.index(part)].isnan() & steps["is_call"]


def part_figures(
    confidence: Tensor, steps: dict[str, Tensor], rows: list[dict]
) -> dict[str, float]:
    """AUROC and calibration error of confidences (S, P) on own steps, AUROC on hard negatives; an
    AUROC is NaN where all labels are equal.
    """
    figures = {}
    for number, part in enumerate(PARTS):
        scores = confidence[:, number]
        labels = steps["labels"][:, number]
        own = own_steps(part, steps, rows)
        figures[f"auroc_{part.name}"] = auroc(scores[own], labels[own])
        figures[f"error_{part.name}"] = calibration_error(scores[own], labels[own])
        if part.negative:
            probes = negative_steps(part, steps, rows)
            figures[f"spoilt_{part.name}"] = auroc(scores[probes], labels[probes])
    return figures


# --------------------------------------------------------------------------------------------------
# Calibration, then the gate.


@torch.no_grad()
def calibrate_parts(
    head: MetaCognitiveHead, validation: dict[str, Tensor], rows: list[dict]
) -> None:
    """A temperature and an offset for each part, from own steps of the validation examples."""
    for number, part in enumerate(PARTS):
        own = own_steps(part, validation, rows)
        logits, labels = validation["logits"][own, number], validation["labels"][own, number]
        head.temperature[number], head.offset[number] = calibrate(logits, labels)


@torch.no_grad()
def confidences(head: MetaCognitiveHead, steps: dict[str, Tensor]) -> Tensor:
    """Calibrated confidences (S, P)."""
    return head.confidence(steps["logits"].to(head.temperature.device)).cpu()


def rejected(head: MetaCognitiveHead, steps: dict[str, Tensor]) -> Tensor:
    """Which steps (S,) the head would reject: their least calibrated confidence is under ½."""
    return (confidences(head, steps).amin(-1) < 0.5).float()


def doubted(head: MetaCognitiveHead, steps: dict[str, Tensor], rho: float) -> Tensor:
    """Which steps (S,) the gate is to predict: those that the head would reject. If these are more
    than a share 1 − ρ of all, they tell hardly anything apart; then the share ρ of the steps of
    which the head is least sure.
    """
    least = confidences(head, steps).amin(-1)
    nearly_all = (least < 0.5).float().mean() > 1 - rho
    return (least < (least.quantile(rho) if nearly_all else 0.5)).float()


@torch.no_grad()
def thinking_gate_values(heads: ThinkingHeads, steps: dict[str, Tensor]) -> Tensor:
    """γ of equation 7 for each step (S,)."""
    device = heads.tau.device
    logits = heads["gate"](steps["hidden"].to(device), steps["max_entropy"].to(device))
    return torch.sigmoid(logits).cpu()


@torch.no_grad()
def fit_gate(
    heads: ThinkingHeads, train: dict[str, Tensor], greedy: dict[str, Tensor], rho: float
) -> float:
    """Equation 7's w and b from own training steps, τ from steps of greedy episodes; returns the
    share of the former that it is to predict.

    Where that is none of them there is nothing to fit, and γ stays ½. τ is the
    (1 − ρ)-quantile of γ over greedy steps, as the gate will see them: a share ρ exceeds it.
    Sampled steps are less certain: by their quantile hardly any greedy step would.
    """
    target = doubted(heads["meta"], train, rho)
    if target.any():
        features = torch.cat([train["hidden"], train["max_entropy"][:, None]], 1)  # (S, D + 1)
        weight, bias = fit_logistic(features, target)
        heads["gate"].out.weight.copy_(weight[None])
        heads["gate"].out.bias.copy_(bias[None])
    heads.tau.copy_(thinking_gate_values(heads, greedy).double().quantile(1 - rho))
    heads.trained.fill_(1)
    return target.mean().item()


def gate_figures(
    heads: ThinkingHeads,
    validation: dict[str, Tensor],
    greedy: dict[str, Tensor],
    own: Tensor,
    rho: float,
) -> dict[str, float]:
    """How well the gate predicts doubt on the validation steps `own` (S,), beside the entropy
    alone, and the share of greedy steps over the threshold.
    """
    steps = {name: values[own] for name, values in validation.items()}
    target = doubted(heads["meta"], steps, rho)
    return dict(
        tau=heads.tau.item(),
        switched=(thinking_gate_values(heads, greedy) > heads.tau.cpu()).float().mean().item(),
        rejected=rejected(heads["meta"], steps).mean().item(),
        auroc_gate=auroc(thinking_gate_values(heads, steps), target),
        auroc_gate_entropy=auroc(steps["max_entropy"], target),
    )


# --------------------------------------------------------------------------------------------------
# Inverse consistency.


def consistency(
    model: SAGE, heads: ThinkingHeads, rows: list[dict], tokenizer: Tokenizer, batch: int = 32
) -> tuple[Tensor, Tensor]:
    """ICS of examples and its prior, each (N,), in nats per constraint."""
    ics, prior = [], []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        constraints = [
            [[*tokenizer.encode(text), tokenizer.stop[0]] for text in row["constraints"]]
            for row in some
        ]
        conclusions = [closed(conclusion_of(row), tokenizer.stop[0]) for row in some]
        some_ics, some_prior = heads["inverse"].scores(model, conclusions, constraints)
        ics += some_ics
        prior += some_prior
    return torch.tensor(ics), torch.tensor(prior)


def contrast_loss(
    model: SAGE, heads: ThinkingHeads, pairs: list[dict], tokenizer: Tokenizer
) -> tuple[Tensor, int]:
    """−log σ(ICS(right) − ICS(wrong)), summed over pairs of samples of one task (Bradley and
    Terry's model; ours, not in the paper), and the number of tokens computed.

    Cross-entropy teaches the inverse head to reproduce requests worded as training's are. Which of
    two samples fits a request can be learnt even from wordings that cannot be predicted.
    """
    device = next(model.parameters()).device
    examples = [
        retelling(pair[side], text, tokenizer)
        for pair in pairs
        for side in ("right", "wrong")
        for text in pair["constraints"]
    ]
    packed = pack_short(examples, model.config).to(device)
    shared = shared_pasts(packed.tokens, packed.documents)  # a sample's words, once
    hidden = heads["inverse"](model, packed.tokens, packed.documents, shared=shared)
    log_p, _ = token_log_probs(hidden, model.unembedding, packed.targets)  # (R, T); 0 in padding
    each = sum_per_document(log_p, packed.documents, len(examples))
    constraints = [len(pair["constraints"]) for pair in pairs for _ in ("right", "wrong")]
    ics = torch.stack([of_sample.mean() for of_sample in each.split(constraints)])
    right, wrong = ics.view(-1, 2).unbind(1)
    return -F.logsigmoid(right - wrong).sum(), len(shared.first)


# --------------------------------------------------------------------------------------------------
# Printing.


def three_digits(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def log_figures(stage: TrainingRun, step: int, figures: dict[str, float]) -> None:
    """Into log.jsonl, where JSON has no NaN."""
    known = {name: None if math.isnan(value) else value for name, value in figures.items()}
    stage.log.write(step=step, **known)


def log_evaluation(stage: TrainingRun, step: int, rows: list[dict]) -> None:
    """AUROC and error of each part on examples of its own steps, before calibration."""
    found = evaluate_steps(stage.model, stage.heads, rows)
    figures = part_figures(found["logits"].sigmoid(), found, rows)
    log_figures(stage, step, figures)
    by_part = ", ".join(
        f"{name} {three_digits(figures[f'auroc_{name}'])} "
        f"(error {three_digits(figures[f'error_{name}'])})"
        for name in PART_NAMES
    )
    stage.log.say(f"{'':12}AUROC on own validation steps: {by_part}")


def closing_table(
    figures: dict[str, float],
    uncalibrated: dict[str, float],
    steps: dict[str, Tensor],
    rows: list[dict],
) -> str:
    """One line for each part, then gate and inverse head."""
    lines = [
        f"{'':12}{'AUROC':>8}{'calibration error':>20}{'uncalibrated':>15}"
        f"{'steps':>8}{'wrong':>8}{'AUROC, hard negatives':>25}"
    ]
    for number, part in enumerate(PARTS):
        labels = steps["labels"][own_steps(part, steps, rows), number]
        spoilt = three_digits(figures[f"spoilt_{part.name}"]) if part.negative else ""
        lines.append(
            f"{part.name:12}"
            f"{three_digits(figures[f'auroc_{part.name}']):>8}"
            f"{three_digits(figures[f'error_{part.name}']):>20}"
            f"{three_digits(uncalibrated[f'error_{part.name}']):>15}"
            f"{len(labels):>8}{int((labels == 0).sum()):>8}{spoilt:>25}"
        )
    lines += [
        "",
        f"gate        AUROC {three_digits(figures['auroc_gate'])} of what the head doubts "
        f"(it rejects {figures['rejected']:.1%} of the steps), "
        f"entropy alone {three_digits(figures['auroc_gate_entropy'])}; "
        f"τ {three_digits(figures['tau'])} sends {figures['switched']:.1%} of greedy steps "
        "into Reasoning Mode",
        f"inverse     ICS {three_digits(figures['ics'])} nats per constraint, "
        f"prior {three_digits(figures['prior'])}; "
        f"AUROC {three_digits(figures['auroc_ics'])} of the verified episodes, "
        f"its gain {three_digits(figures['auroc_ics_gain'])}",
    ]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# What the steps learn from, and what is fitted after them.


def dealt_out(examples: list, steps: int, seed: list[int]) -> list[list]:
    """Examples, shuffled and dealt out over the optimiser steps."""
    order = np.random.default_rng(seed).permutation(len(examples))
    return [[examples[number] for number in share] for share in np.array_split(order, steps)]


@dataclass
class Lessons:
    """What each optimiser step learns from: a list per step. Every example is seen once."""

    train: list[list[dict]]  # labelled examples, for the confidence head
    constraints: list[list[tuple]]  # each (tokens, which are taught), for the inverse head
    pairs: list[list[dict]]  # a right and a wrong sample, for it as well


def lessons_of(stage: TrainingRun, rows: list[dict], file: Path) -> Lessons:
    """The lines of the data file, dealt out. Raises UserError where they are too few."""
    c = stage.section
    train = [row for row in rows if row["use"] == "train"]
    pairs = [row for row in rows if row["use"] == "contrast"]
    rng = random.Random(c.seed)
    constraints = []
    for row in rows:
        if row["use"] in ("train", "inverse") and row["verified"]:
            constraints += constraint_examples(row, stage.tokenizer, c.prior, rng)

    on_ranks = f" on {ranks.world_size()} ranks" if ranks.launched() else ""
    if min(len(train), len(constraints)) < c.steps * ranks.world_size():
        raise UserError(
            f"{file} has {len(train)} examples and {len(constraints)} constraints for {c.steps} "
            f"steps{on_ranks}, each to be seen once; delete the file, and lower heads.steps or "
            "give more heads.tasks and heads.trajectories"
        )
    # pairs come while the rates fall: before, they spoil what the head learns (docs/LOG.md)
    falling = int(c.decay * c.steps) if c.contrast else 0
    if c.contrast and not 0 < falling * ranks.world_size() <= len(pairs):
        raise UserError(
            f"{file} has {len(pairs)} pairs of a right and a wrong sample for the {falling} steps "
            f"of the decay{on_ranks}, each to be seen once: raise heads.decay to have such steps; "
            "to have fewer, lower it, or delete the file and give more tasks (heads.contrast) or "
            "samples of each (heads.contrast_samples)"
        )
    without_pairs = [[] for _ in range(c.steps - falling)]
    trainable = sum(p.numel() for p in stage.heads.parameters() if p.requires_grad)
    stage.log.say(
        f"heads       {trainable:,} parameters beside the decoder's "
        f"{sum(p.numel() for p in stage.model.parameters()):,}; "
        f"{len(train):,} examples, {len(constraints):,} constraints and {len(pairs):,} pairs, "
        "each seen once"
    )
    return Lessons(
        train=dealt_out(train, c.steps, [c.seed, 0]),
        constraints=dealt_out(constraints, c.steps, [c.seed, 1]),
        pairs=without_pairs + (dealt_out(pairs, falling, [c.seed, 2]) if falling else []),
    )


def calibrate_and_judge(stage: TrainingRun, rows: list[dict], digest: str) -> None:
    """Calibration and gate, which are fitted after the last step; saves them, and says what the
    heads are worth.
    """
    c, model, heads = stage.section, stage.model, stage.heads
    own_train = [row for row in rows if row["use"] == "train" and row["source"] == "own"]
    validation = [row for row in rows if row["use"] == "validation"]
    own_validation = [row for row in validation if row["source"] == "own"]
    greedy = [row for row in rows if row["use"] == "greedy"]
    with stage.autocast:
        validation_steps = evaluate_steps(model, heads, validation)
        greedy_steps = evaluate_steps(model, heads, greedy)
        train_steps = evaluate_steps(model, heads, own_train)
    uncalibrated = part_figures(validation_steps["logits"].sigmoid(), validation_steps, validation)
    calibrate_parts(heads["meta"], validation_steps, validation)
    share = fit_gate(heads, train_steps, greedy_steps, c.rho)
    if not share:
        stage.log.say(
            "note    the head would reject none of the training steps: there is no gate to fit, "
            "and hybrid mode never thinks"
        )

    own = own_steps(PARTS[PART_NAMES.index("success")], validation_steps, validation)
    figures = gate_figures(heads, validation_steps, greedy_steps, own, c.rho)
    calibrated = confidences(heads["meta"], validation_steps)
    figures |= part_figures(calibrated, validation_steps, validation)
    ics, prior = consistency(model, heads, own_validation, stage.tokenizer)
    verified = torch.tensor([float(row["verified"]) for row in own_validation])
    figures |= dict(
        ics=ics.mean().item(),
        prior=prior.mean().item(),
        auroc_ics=auroc(ics, verified),
        auroc_ics_gain=auroc(ics - prior, verified),
    )
    log_figures(stage, c.steps, figures)
    stage.save(c.steps, data=digest)
    stage.log.say(
        f"\nvalidation  {len(own_validation)} own episodes, {int(verified.sum())} verified, and "
        "hard negatives; n/a where all labels are equal; calibrated on these steps, so "
        "bench/reasoning.py measures on others\n"
    )
    stage.log.say(closing_table(figures, uncalibrated, validation_steps, validation) + "\n")


# --------------------------------------------------------------------------------------------------
# The script.


def main() -> None:
    ranks.start()
    config = settings.from_command_line()
    settings.refuse_unread(config)
    c = config.heads
    difficulty = (*DIFFICULTY, "babble") if c.contrast else DIFFICULTY
    stage = TrainingRun(
        config,
        "thinking",
        "sage",
        c.steps,
        c,
        heads=lambda shape: ThinkingHeads(shape, c.seed, own_decoder=c.inverse == "decoder"),
        frozen=True,
        curve=("loss", "inverse"),
        pretrained="inverse.decoder.",
        pretrained_rate=c.decoder_learning_rate,
        made_from={f"distill.{name}": getattr(config.distill, name) for name in difficulty},
    )
    if stage.finished():
        return
    model, heads, tokenizer, device = stage.model, stage.heads, stage.tokenizer, stage.device
    if not stage.first:
        heads["inverse"].begin_as(model)

    # data
    rows, digest = read_data(stage)
    own = [row for row in rows if row.get("source") == "own"]
    counts = Counter(row["use"] for row in own)
    own_validation = [row for row in own if row["use"] == "validation"]
    file = stage.folder / "steps.jsonl"
    if not all(counts[use] for use in ("train", "validation", "greedy")):
        raise UserError(
            f"{file} has {counts['train']} own episodes for training, {counts['validation']} for "
            f"validation and {counts['greedy']} greedy ones with a whole message in them: raise "
            "heads.tasks, heads.validation, heads.room or heads.sequence, or train the decoder "
            "until it ends its messages; then delete the file"
        )
    lessons = lessons_of(stage, rows, file)

    # training
    meter = Meter(stage.first, stage.peak)
    with stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            # -- the step's examples, whose labels and tokens are counted before they are shared out
            examples = lessons.train[step - 1]
            label_count = sum(count_labels(row) for row in examples)
            asked = lessons.constraints[step - 1]
            token_count = torch.tensor(sum(sum(taught) for _, taught in asked), device=device)
            compared = lessons.pairs[step - 1]
            with meter.waiting():
                steps = pack_steps(ranks.share(examples), model.config)
                asked = ranks.share(asked)
                packed = pack_short(asked, model.config).to(device)

            with stage.autocast:
                # equation 6: cross-entropy of the known labels
                logits, _, _ = read_steps(model, heads["meta"], steps, device)
                loss = confidence_loss(logits, steps.labels.to(device), label_count)
                # equation 13: cross-entropy of the constraints' tokens
                hidden = heads["inverse"](model, packed.tokens, packed.documents)
                inverse = cross_entropy(
                    hidden, model.unembedding, packed.targets, count=token_count
                )
                # ours: the right one of two samples shall make the constraints likelier
                contrast, contrast_tokens = torch.zeros_like(loss), 0
                if compared:
                    contrast, contrast_tokens = contrast_loss(
                        model, heads, ranks.share(compared), tokenizer
                    )
                    contrast = contrast / len(compared)
            (loss + inverse + contrast).backward()
            loss, inverse, contrast = ranks.total(torch.stack([loss, inverse, contrast]))
            norm = stage.update(step)

            step_tokens = ranks.world_size() * steps.packed.tokens.numel()
            constraint_tokens = ranks.world_size() * (packed.tokens.numel() + contrast_tokens)
            # in FLOPs a frozen decoder, which only goes forward, is a third of one that learns
            inverse_tokens = constraint_tokens if c.inverse == "decoder" else constraint_tokens / 3
            token_flops = flops_per_token(config.model, steps.packed.tokens.shape[1])
            flops = (step_tokens / 3 + inverse_tokens) * token_flops
            meter.count(step_tokens + constraint_tokens, flops)
            meter.add(loss=loss, inverse=inverse, norm=norm)
            if compared:
                meter.add(contrast=contrast)
            if stage.is_log_step(step):
                stage.log_line(step, meter)
            if step == c.steps:
                stage.log.bar.update()
                break  # saved below, once calibration and gate are fitted
            if step % c.eval_every == 0:
                with meter.paused(), stage.autocast:
                    log_evaluation(stage, step, own_validation)
            with meter.paused():
                # saved one step before the end, from where calibration can be taken up again
                stage.end_step(step, stopping, c.steps - 1, data=digest)

    calibrate_and_judge(stage, rows, digest)
    stage.finish()


if __name__ == "__main__":
    settings.run_script(main, many_ranks=True)
