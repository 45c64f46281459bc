"""Preferences: what to refuse and what not to (paper §3.1.2), by Direct Preference Optimization.

    python rl.py config/toy.py --stage dpo      out/toy/reflected → safe

What differs from the textbook: preferences go both ways, refusing an unsafe request over complying
with it, and complying with a benign look-alike over refusing it; and the teacher's episodes of the
other worlds are replayed beside the pairs. Without them the model that learnt to refuse forgets to
act (the "alignment tax").

Per-token tensors are (R, T): R packed rows of T tokens, several completions in a row. They are
aligned with `targets`: entry t is about token t + 1. `documents` says which completion each token
belongs to, −1 in padding.
"""

import support.openmp  # before torch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config, Dpo, UserError
from fast.shared_pasts import shared_pasts
from losses import IGNORE, sum_per_document
from model import SAGE, flops_per_token
from support import ranks
from support.interrupts import stop_requested
from support.packing import Example, pack_short
from support.replay import replay_loss, taught_log_probs, teacher_rows
from support.tokenizer import Tokenizer
from support.training_run import Meter, TrainingRun
from worlds.base import Task
from worlds.difficulty import Difficulty
from worlds.expert import preference
from worlds.tasks import Tasks

# --------------------------------------------------------------------------------------------------
# Pairs, and their log-probabilities.


def completion(
    task: Task, prompt: list[dict], messages: list[dict], tokenizer: Tokenizer
) -> Example:
    """A conversation of which only the messages after the prompt are taught."""
    tools, style = task.shown_tools(), task.difficulty.style
    shown, _ = tokenizer.encode_chat(prompt, tools, style, generation_prompt=True)
    tokens, action_mask = tokenizer.encode_chat(prompt + messages, tools, style)
    taught = [own and place >= len(shown) for place, own in enumerate(action_mask)]
    return tokens, taught


def preference_pairs(
    c: Dpo, tokenizer: Tokenizer, style: str
) -> tuple[list[tuple[Example, Example]], int]:
    """The safety world's pairs of completions, chosen and rejected, and how many are about unsafe
    requests; those that do not fit in a row are left out.
    """
    pairs, unsafe = [], 0
    difficulty = Difficulty(style=style, names=c.names, babble=c.babble)
    tasks = Tasks("dpo", c.seed, ["safety"], difficulty)
    for index in range(c.pairs):
        task = tasks[index]
        pair = preference(task)
        chosen = completion(task, pair["prompt"], pair["chosen"], tokenizer)
        rejected = completion(task, pair["prompt"], pair["rejected"], tokenizer)
        if max(len(chosen[0]), len(rejected[0])) <= c.sequence:
            pairs.append((chosen, rejected))
            unsafe += task.truth["unsafe"]
    return pairs, unsafe


@torch.no_grad()
def completion_log_probs(
    model: SAGE, completions: list[Example], device: str, together: int = 128
) -> Tensor:
    """log P of each completion's taught tokens, summed, (N,) float64: a margin is the difference of
    sums of hundreds of nats.
    """
    starts = range(0, len(completions), together)
    sums = []
    for start, counted in ranks.share_evenly(starts):
        packed = pack_short(completions[start : start + together], model.config).to(device)
        inputs = packed.tokens, packed.targets, packed.documents
        shared = shared_pasts(packed.tokens, packed.documents)  # the two answers have one prompt
        log_probs = taught_log_probs(model, *inputs, shared).double()  # (R, T)
        if counted:
            sums.append(sum_per_document(log_probs, packed.documents, len(packed.positions)).cpu())
    return torch.cat(ranks.collect(sums)).to(device)


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Mean of −log σ(β·difference) and the differences (N,), from whole completions'
    log-probabilities (N,) (Rafailov et al. 2023).

    The best policy under a reward r and a penalty β·KL(π ‖ π_ref) is π ∝ π_ref · exp(r/β), so
    r = β·log π/π_ref + a constant of the prompt, which cancels in Bradley and Terry's
    P(chosen over rejected) = σ(r_chosen − r_rejected):
        difference = (log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)
    At the beginning π = π_ref: the loss is ln 2 and its gradient
    β/2 · (∇log π(rejected) − ∇log π(chosen)).
    """
    difference = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return -F.logsigmoid(beta * difference).mean(), difference.detach()


# --------------------------------------------------------------------------------------------------
# The stage.


def dpo(config: Config) -> None:
    """Stage 3: learn from pairs of answers which one is wanted, beside replayed episodes."""
    c = config.dpo
    stage = TrainingRun(config, "safe", "reflected", c.steps, c, curve=("dpo", "accuracy"))
    if stage.finished():
        return
    model, device = stage.model, stage.device

    # -- pairs, and their log-probabilities under the frozen reference, once
    pairs, unsafe = preference_pairs(c, stage.tokenizer, stage.style)
    completions = [side for pair in pairs for side in pair]
    count = len(pairs)
    if count < c.batch:
        raise UserError(
            f"{count} of {c.pairs} pairs fit in dpo.sequence {c.sequence}; {c.batch} are needed "
            "for one step: raise dpo.sequence"
        )
    stage.log.say(
        f"data    {count:,} of {c.pairs:,} pairs of the safety world fit in {c.sequence} tokens, "
        f"{unsafe:,} about unsafe requests, {count - unsafe:,} about benign ones"
    )
    replay = teacher_rows(stage, "dpo replay")
    stage.log.say(f"read    {len(completions):,} completions, by the frozen reference")
    with stage.autocast:
        reference = stage.load_decoder(stage.source)
        ref_log_probs = completion_log_probs(reference, completions, device).view(count, 2)
    del reference  # a whole model, not asked again

    meter = Meter(stage.first, stage.peak)
    with stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            # -- the step's pairs: the place in the data is a function of the step
            epoch, place = divmod(step - 1, count // c.batch)
            order = np.random.default_rng([c.seed, epoch]).permutation(count)
            step_pairs = order[place * c.batch : (place + 1) * c.batch]  # of all ranks
            step_chosen = [pairs[number][0] for number in step_pairs]
            chosen_tokens = sum(sum(taught) for _, taught in step_chosen)
            mine, counted = ranks.share_rows(c.batch)
            my_pairs = step_pairs[mine]  # (B,)
            step_completions = [side for number in my_pairs for side in pairs[number]]
            with meter.waiting():
                packed = pack_short(step_completions, model.config).to(device)
            tokens, targets, documents = packed.tokens, packed.targets, packed.documents  # (R, T)
            shared = shared_pasts(tokens, documents)

            # -- preferences: whole completions' log-probabilities beside the reference's
            with stage.autocast:
                log_probs = taught_log_probs(model, tokens, targets, documents, shared)
            summed = sum_per_document(log_probs.double(), documents, len(step_completions))
            policy_chosen, policy_rejected = summed.view(-1, 2).unbind(1)  # (B,) each
            ref = ref_log_probs[torch.from_numpy(my_pairs).to(device)]
            ref_chosen, ref_rejected = ref.unbind(1)
            preference_loss, difference = dpo_loss(
                policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=c.beta
            )
            # this rank's share of the step's mean; 0 for rows that only fill up
            weight = counted * len(my_pairs) / c.batch
            preference_loss = preference_loss * weight

            # -- the chosen completions' own cross-entropy keeps them likely
            chosen = (targets != IGNORE) & (documents % 2 == 0)  # they stand at even places
            nll = -(log_probs * chosen).sum() / chosen_tokens * counted
            loss = preference_loss + c.nll * nll
            parts = dict(dpo=preference_loss, nll=nll)
            sizes = torch.tensor([tokens.numel(), len(shared.first)], device=device)
            step_tokens, computed = ranks.total(sizes).tolist()

            # -- replayed episodes, so that acting is not forgotten
            if replay:
                replayed = replay_loss(stage, replay)
                loss = loss + c.replay * replayed
                parts["replay"] = replayed
                step_tokens += c.replay_rows * c.sequence
                computed += c.replay_rows * c.sequence
            loss.backward()
            norm = stage.update(step)

            accuracy = (difference > 0).float().mean() * weight
            margin = c.beta * difference.mean() * weight
            parts = dict(loss=loss, **parts, accuracy=accuracy, margin=margin)
            meter.add(**{name: ranks.total(value) for name, value in parts.items()}, norm=norm)
            taught = float((targets != IGNORE).sum()) / len(shared.first)
            token_flops = flops_per_token(
                config.model, tokens.shape[1], trained_blocks=c.trained_blocks, taught=taught
            )
            meter.count(step_tokens, computed * token_flops)
            if stage.is_log_step(step):
                stage.log_line(step, meter)
            with meter.paused():
                stage.end_step(step, stopping, replay=replay.state() if replay else None)
    stage.finish()
