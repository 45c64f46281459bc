"""Reinforcement learning from execution (paper §3.1.3, CodePPO), as one straight read: episodes,
rewards, advantages, losses, loop.

    python rl.py config/toy.py                  stages dpo and ppo: reflected → safe → sage
    python rl.py config/toy.py --stage dpo      preferences.py's stage alone
    python rl.py config/toy.py --stage ppo      Proximal Policy Optimization on episodes, alone
    python rl.py config/toy.py --stage ppo --ppo.advantage group --ppo.name grpo
                                                without a value head (or rloo), for comparison
    python rl.py config/toy.py --resume         continues a stopped run (on a CPU, to the bit)
    torchrun --nproc-per-node 8 rl.py config/7b.py    the same steps on many GPUs

What differs from the textbook:
1. The teacher's episodes of the same worlds may be replayed beside the rewards (as InstructGPT's
   PPO-ptx does; ppo.replay_rows). Without them, with 16 tasks in a step, a learning rate high
   enough for rewards to change the policy destroyed what it had learnt before. config/small.py and
   those of the large models replay; the toy and SmolLM2, with more tasks in a step and one update
   of it, do not.
2. The reward is execution's verdict, once, at the end. A call that does not parse or names an
   unknown tool ends the episode (zero tolerance); an invented argument costs. An episode in which
   an exception was raised, or whose time ran out, is a failure. One longer than ppo.sequence is
   left out.
3. A reward is measured from the mean of the same task's other samples, so that the successes of an
   easy world do not raise the probability of all their tokens. A task whose samples were all
   rewarded alike teaches nothing and is left out; a step of such tasks only is skipped and counted.
4. Advantages step from one of the model's own tokens to the next: tool output is not an action.
5. With a value head, advantages are whitened under the weights that average the losses
   (`mean_weights`).
6. The value head reads hidden states without a gradient into them: its loss moves only itself.

P tasks of G samples each, N episodes. Per-token tensors are (R, T): R packed rows of T tokens,
several episodes in a row. They are aligned with `targets`: entry t is about token t + 1.

    action_mask   the targets that the model wrote; prompts and tool output enter no loss
    documents     which example each token belongs to, −1 in padding
    weights       how much each target counts in a mean; they sum to 1
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import support.openmp  # before torch

import torch
from torch import Tensor, nn

from agent import Rollout, episode_rates, rollouts
from config import Config, Model, Ppo, UserError
from fast.shared_pasts import shared_pasts
from losses import IGNORE, sum_per_document, token_log_probs
from model import SAGE, flops_per_token
from preferences import dpo
from support import ranks, settings
from support.interrupts import stop_requested
from support.packing import Packed, PackedLoader, pack_short
from support.replay import replay_loss, teacher_rows
from support.training_run import Meter, TrainingRun
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, world_names

# --------------------------------------------------------------------------------------------------
# Episodes and their rewards.


def reward(episode: Rollout, c: Ppo) -> float:
    """Execution's verdict, 1 or 0, and what each invented argument costs (CodePPO).

    An episode that raised or ran out of time has verified nothing: 0, less the same costs. Where
    zero tolerance ended it, the reward is `malformed`, whatever came before.
    """
    if episode.ended == "malformed":
        return c.malformed
    return float(episode.verified) + c.invented * episode.invented


def nan_where_too_long(rewards: Tensor, episodes: list[Rollout], c: Ppo) -> Tensor:
    """Rewards (N,) with NaN for each episode longer than ppo.sequence, which does not count."""
    fits = torch.tensor([len(episode.tokens) <= c.sequence for episode in episodes])
    return rewards.where(fits, math.nan)


def rewards_differ(rewards: Tensor) -> Tensor:
    """Which groups (P, 1) of rewards (P, G) are not all equal; NaN does not count."""
    missing = rewards.isnan()
    highest = rewards.masked_fill(missing, -torch.inf).amax(1, keepdim=True)
    lowest = rewards.masked_fill(missing, torch.inf).amin(1, keepdim=True)
    return highest > lowest


def draw_episodes(stage: TrainingRun, step: int) -> list[Rollout]:
    """`samples` episodes of each of the step's tasks, next to each other: a function of the
    weights, the seed and the step.

    Draws `prompts` tasks, then as many again, at most `draws` times in all, until `prompts` of them
    have samples with different rewards (DAPO's dynamic sampling, Yu et al. 2025).
    """
    c = stage.section
    tasks = Tasks("ppo", c.seed, world_names(c.worlds), Difficulty.of(c, style=stage.style))
    player = stage.player()
    count = c.prompts * c.samples
    episodes: list[Rollout] = []
    for draw in range(c.draws):
        first = ((step - 1) * c.draws + draw) * c.prompts
        places = range(first, first + c.prompts)
        drawn = [tasks[place % c.tasks if c.tasks else place] for place in places]
        episodes += rollouts(
            player,
            stage.tokenizer,
            [task for task in drawn for _ in range(c.samples)],
            c.temperature,
            # each episode draws from a generator of its own, by seed and number
            seed=c.seed * 100_003 + step,
            numbers=list(range(draw * count, (draw + 1) * count)),
            batch=count,
            tolerance=c.tolerance,
            zero_tolerance=True,
            room=c.room,
        )
        if draw + 1 < c.draws:
            rewards = torch.tensor([reward(episode, c) for episode in episodes])
            groups = nan_where_too_long(rewards, episodes, c).view(-1, c.samples)  # (P, G)
            if rewards_differ(groups).sum() >= c.prompts:
                break
    return episodes


def check_episodes(episodes: list[Rollout], rewards: Tensor, c: Ppo, step: int) -> None:
    """Raise UserError for a reward that is no finite number, or where no episode fits in a row."""
    for episode, value in zip(episodes, rewards.tolist()):
        if not math.isfinite(value):
            raise UserError(
                f"step {step}: the reward of a task of the world {episode.task.world} (seed "
                f"{episode.task.seed}) is {value}; look at ppo.malformed and ppo.invented"
            )
    if all(len(episode.tokens) > c.sequence for episode in episodes):
        raise UserError(
            f"step {step}: not one of {len(episodes)} episodes fits in ppo.sequence "
            f"{c.sequence}; raise it, or lower ppo.room"
        )


# --------------------------------------------------------------------------------------------------
# Advantages.


@torch.no_grad()
def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward less the mean of its group's *others*, (P, G) → (P, G).

    NaN marks one that does not count, and gets 0, as do equal rewards. That mean estimates what
    the task is worth, and does not depend on the sample it is subtracted from: a baseline that adds
    no bias (Kool et al. 2019).
    """
    known = ~rewards.isnan()
    others = (known.sum(1, keepdim=True) - 1).clamp(min=1)
    baseline = (rewards.nansum(1, keepdim=True) - rewards) / others
    return torch.where(known & rewards_differ(rewards), rewards - baseline, 0.0)


@torch.no_grad()
def group_advantages(rewards: Tensor) -> Tensor:
    """(r − mean)/deviation over each task's samples (P, G), no value head (GRPO, Shao et al. 2024).

    NaN marks one that does not count: it gets 0, and is in neither mean nor deviation. A group of
    equal rewards, or of one, says nothing about what was better: exactly 0.
    """
    known = ~rewards.isnan()
    centred = rewards - rewards.nanmean(1, keepdim=True)
    freedom = (known.sum(1, keepdim=True) - 1).clamp(min=1)  # n − 1
    deviation = (centred.square().nansum(1, keepdim=True) / freedom).sqrt()
    return torch.where(known & rewards_differ(rewards), centred / (deviation + 1e-4), 0.0)


def compare_samples(rewards: Tensor, c: Ppo) -> tuple[Tensor, Tensor]:
    """Each reward (N,) against its task's other samples, or the whole step's (ppo.advantage,
    ppo.baseline), and whether it teaches anything (N,): only where its group's rewards differ.

    NaN marks one that does not count.
    """
    by_task = c.samples > 1 and c.baseline == "task"
    groups = rewards.view(-1, c.samples if by_task else len(rewards))  # (P, G) or (1, P·G)
    relative = group_advantages(groups) if c.advantage == "group" else leave_one_out(groups)
    informative = rewards_differ(groups) & ~groups.isnan()
    return relative.flatten(), informative.flatten()


def reward_per_token(episode: Rollout, value: float) -> list[float]:
    """The episode's reward at the last token that the model wrote, 0 at all others."""
    last = max(place for place, own in enumerate(episode.action_mask) if own)
    return [value if place == last else 0.0 for place in range(len(episode.tokens))]


def lay_out(values: list[list[float]], packed: Packed) -> Tensor:
    """Per-token numbers of each example as (R, T), aligned with `packed.targets`; 0 elsewhere."""
    rows = torch.zeros(packed.targets.shape)
    for (row, column), numbers in zip(packed.positions, values):
        # as targets are: the number of token t + 1 stands at t, and the first token's nowhere
        rows[row, column : column + len(numbers) - 1] = torch.tensor(numbers[1:])
    return rows


@torch.no_grad()
def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    action_mask: Tensor,
    *,
    gamma: float,
    lam: float,
    documents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (R, T) of the model's own tokens, 0 elsewhere (Schulman et al. 2016).

        δ_t = r_t + γ·V_{t+1} − V_t        A_t = δ_t + γλ·A_{t+1}        return_t = A_t + V_t

    where t + 1 is the model's *next own* token: tool output in between is part of the world's
    answer, not a step of its own, so three tokens more or less of it change nothing. V after the
    last one is 0. With γ = λ = 1 every token's return is the final reward. Rows may hold several
    episodes, told apart by `documents`.
    """
    advantages = torch.zeros_like(values, dtype=torch.float32)
    next_advantage = advantages.new_zeros(len(values))  # (R,), at the next own token
    next_value = next_advantage
    for t in reversed(range(values.shape[1])):
        if documents is not None and t + 1 < values.shape[1]:
            same = documents[:, t] == documents[:, t + 1]
            next_advantage = next_advantage * same
            next_value = next_value * same
        own = action_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # for the tokens before t, t is now the next own token, if it is one of the model's own
        next_advantage = torch.where(own, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(own, values[:, t], next_value)
        advantages[:, t] = next_advantage * own
    return advantages, (advantages + values) * action_mask


def weighted_moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of values under weights of the same shape; what has none is not read."""
    counted = weights > 0
    values, weights = values[counted], weights[counted]
    mean = (weights * values).sum() / weights.sum()
    return mean, (weights * (values - mean).square()).sum() / weights.sum()


@torch.no_grad()
def whiten(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean 0 and deviation 1; 0 where there is no weight, and if all values are equal.

    To be called with the loss's weights: four successes of 20 tokens beside four failures of 150,
    whitened by tokens, have a mean of +1.19 in a loss that counts every episode the same.
    """
    counted = weights > 0
    if not counted.any() or values[counted].max() == values[counted].min():
        return torch.zeros_like(values)
    mean, variance = weighted_moments(values, weights)
    return torch.where(counted, (values - mean) / variance.sqrt().clamp(min=1e-6), 0.0)


# --------------------------------------------------------------------------------------------------
# Losses.


def mean_weights(
    action_mask: Tensor, documents: Tensor, mean: Literal["sequence", "token"] = "sequence"
) -> Tensor:
    """Each token's weight (R, T) in a mean over the model's own tokens: they sum to 1, 0 elsewhere.

    "sequence": every episode counts the same, and its tokens share that; in a mean over tokens long
    failing episodes dominate the loss. "token": every token counts the same.
    """
    weights = action_mask.float()
    if mean == "sequence":
        lengths = sum_per_document(weights, documents, int(documents.max()) + 1)  # (N,)
        weights = weights / lengths.clamp(min=1)[documents.clamp(min=0)]
    return weights / weights.sum().clamp(min=1e-9)


def ppo_loss(
    new_log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    clip: float = 0.2,
    *,
    clip_high: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """−Σ w · min(ρ·A, clip(ρ, 1 − clip, 1 + clip_high)·A) with ρ = π_new/π_old of each token, and
    the weighted share of tokens where the clip binds (Schulman et al. 2017).

    `clip_high` is `clip` where it is 0; a higher one lets unlikely tokens rise further
    ("clip-higher", Yu et al. 2025). All (R, T). Before the first step ρ = 1, nothing is clipped,
    and the gradient is REINFORCE's: −Σ w·A·∇log π.
    """
    ratio = torch.exp(new_log_probs - old_log_probs)
    unclipped = ratio * advantages
    highest = 1 + (clip_high or clip)
    clipped = ratio.clamp(1 - clip, highest) * advantages
    loss = -(torch.minimum(unclipped, clipped) * weights).sum()
    clip_fraction = ((clipped < unclipped) * weights).sum().detach()
    return loss, clip_fraction


def value_loss(
    new_values: Tensor, old_values: Tensor, returns: Tensor, weights: Tensor, clip: float = 0.2
) -> Tensor:
    """½ Σ w · max((V − return)², (V_clipped − return)²), where V_clipped is V kept within `clip` of
    its value before the step's first update: a value gains nothing by moving further.
    """
    near = old_values + (new_values - old_values).clamp(-clip, clip)
    error = torch.maximum((new_values - returns).square(), (near - returns).square())
    return 0.5 * (error * weights).sum()


# Estimates of KL(π ‖ π_ref) from each sampled token, with d = log π/π_ref (Schulman 2020,
# "Approximating KL divergence"):
#     k1 = d        k2 = ½·d²        k3 = e^(−d) − 1 + d
# In the mean k1 and k3 are the divergence; k3, never negative and with less scatter, is logged. As
# a loss on the policy's own samples only k2 has its gradient: k1's is zero in the mean, and k3's is
# biased.


def kl_k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """k2 of each token. ∇KL = E_π[d·∇log π], since E_π[∇log π] = 0, and that is E_π[∇k2]."""
    return 0.5 * (log_probs - ref_log_probs).square()


def kl_loss(
    new_log_probs: Tensor, old_log_probs: Tensor, ref_log_probs: Tensor, weights: Tensor
) -> Tensor:
    """Σ w · ρ · k2 with ρ = π/π_old held fixed, whose gradient is that of KL(π ‖ π_ref).

    The draws are π_old's: from the second optimiser step on k2 alone would have another gradient.
    DeepSeek-V3.2 (2025) has k3 and lets ρ have a gradient, which comes to the same.
    """
    ratio = torch.exp(new_log_probs.detach() - old_log_probs)
    return (ratio * kl_k2(new_log_probs, ref_log_probs) * weights).sum()


def kl_k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """k3 of each token."""
    difference = log_probs - ref_log_probs
    return torch.exp(-difference) - 1 + difference


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, weights: Tensor) -> float:
    """1 − Var(return − V)/Var(return) under the loss's weights.

    1 predicts all, 0 no more than a constant; NaN where all returns are equal: nothing to explain.
    """
    counted = returns[weights > 0]
    if not len(counted) or counted.max() == counted.min():
        return float("nan")
    _, unexplained = weighted_moments(returns - values, weights)
    _, variance = weighted_moments(returns, weights)
    return (1 - unexplained / variance).item()


# --------------------------------------------------------------------------------------------------
# The loop.


def value_head(shape: Model) -> nn.ModuleDict:
    """V(hidden state), zero at the beginning: every advantage is then the return itself."""
    value = nn.Linear(shape.width, 1)
    nn.init.zeros_(value.weight)
    nn.init.zeros_(value.bias)
    return nn.ModuleDict({"value": value})


def evaluate_policy(
    stage: TrainingRun, model: SAGE, tokens: Tensor, targets: Tensor, documents: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """log P of the model's own tokens, the entropy there, and values (0 without a value head) of
    packed rows, each (R, T).
    """
    shared = shared_pasts(tokens, documents)  # what samples of one task have in common, once
    with stage.autocast:
        hidden = model.hidden(tokens, documents, shared=shared)  # (R, T, D)
        log_probs, entropy = token_log_probs(
            hidden, model.unembedding, targets, temperature=stage.section.temperature
        )
        if not stage.heads:
            return log_probs, entropy, torch.zeros_like(log_probs)
        values = stage.heads["value"](hidden.detach()).squeeze(-1).float()
    return log_probs, entropy, values


@dataclass
class Batch:
    """A step's episodes in packed rows, as they were before the first update; all (R, T)."""

    tokens: Tensor
    targets: Tensor  # what the model wrote, IGNORE elsewhere
    documents: Tensor
    weights: Tensor  # of every mean, in losses as in figures
    drawn_log_probs: Tensor  # as the sampler said when it drew
    old_log_probs: Tensor  # of the same policy, evaluated as in training
    ref_log_probs: Tensor
    entropy: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def rows(self, index: Tensor) -> "Batch":
        """A part of the rows."""
        return Batch(**{name: tensor[index] for name, tensor in vars(self).items()})


def split_rows(rows: Tensor, c: Ppo) -> Sequence[Tensor]:
    """Row numbers of each forward pass: at most `ppo.batch`, fewer where ranks would go without."""
    return rows.split(min(c.batch, -(-len(rows) // ranks.world_size())))


def make_batch(
    stage: TrainingRun, reference: SAGE, episodes: list[Rollout], relative_rewards: Tensor
) -> Batch:
    """Episodes in packed rows, with each token's advantage and return. `relative_rewards` (N,) are
    rewards less their baseline (`compare_samples`).
    """
    c, device = stage.section, stage.device
    examples = [(episode.tokens, episode.action_mask) for episode in episodes]
    packed = pack_short(examples, stage.model.config).to(device)
    tokens, targets, documents = packed.tokens, packed.targets, packed.documents
    action_mask = targets != IGNORE
    weights = mean_weights(action_mask, documents, c.mean)

    # -- the policy that sampled, its values, and the frozen reference; counted: False for rows that
    # only fill up, so that all ranks make equally many passes
    parts = []
    with torch.no_grad():
        for rows, counted in ranks.share_evenly(split_rows(torch.arange(len(tokens)), c)):
            inputs = tokens[rows], targets[rows], documents[rows]
            policy = evaluate_policy(stage, stage.model, *inputs)
            ref_log_probs, _, _ = evaluate_policy(stage, reference, *inputs)
            if counted:
                parts.append(torch.stack([*policy, ref_log_probs]).cpu())
    evaluated = torch.cat(ranks.collect(parts), 1).to(device)  # (4, R, T)
    old_log_probs, entropy, values, ref_log_probs = evaluated

    # -- advantages
    if c.advantage == "gae":
        per_token = map(reward_per_token, episodes, relative_rewards.tolist())
        token_rewards = lay_out(list(per_token), packed).to(device)
        advantages, returns = generalized_advantages(
            token_rewards, values, action_mask, gamma=c.gamma, lam=c.lam, documents=documents
        )
        advantages = whiten(advantages, weights)
    else:
        advantages = relative_rewards.to(device)[documents.clamp(min=0)] * action_mask
        returns = torch.zeros_like(values)  # there is no value head

    return Batch(
        tokens=tokens,
        targets=targets,
        documents=documents,
        weights=weights,
        drawn_log_probs=lay_out([e.log_probs for e in episodes], packed).to(device),
        old_log_probs=old_log_probs,
        ref_log_probs=ref_log_probs,
        entropy=entropy,
        values=values,
        advantages=advantages,
        returns=returns,
    )


def policy_update_loss(
    stage: TrainingRun, mb: Batch, warming_up: bool = False
) -> tuple[Tensor, Tensor]:
    """These rows' share of the loss, and of clip fraction and approx_kl (2,): `weights` sum to 1
    over all rows, so the shares add up.
    """
    c = stage.section
    new_log_probs, entropy, new_values = evaluate_policy(
        stage, stage.model, mb.tokens, mb.targets, mb.documents
    )
    if warming_up:  # the value head learns alone
        loss = value_loss(new_values, mb.values, mb.returns, mb.weights, clip=math.inf)
        return loss, torch.zeros(2)
    loss, clip_fraction = ppo_loss(
        new_log_probs,
        mb.old_log_probs,
        mb.advantages,
        mb.weights,
        c.ratio_clip,
        clip_high=c.ratio_clip_high,
    )
    loss = loss + c.kl * kl_loss(new_log_probs, mb.old_log_probs, mb.ref_log_probs, mb.weights)
    loss = loss - c.entropy * (entropy * mb.weights).sum()
    if stage.heads:
        loss = loss + value_loss(new_values, mb.values, mb.returns, mb.weights, c.value_clip)
    approx_kl = kl_k3(mb.old_log_probs, new_log_probs.detach())  # KL(sampler ‖ now)
    return loss, torch.stack([clip_fraction, (approx_kl * mb.weights).sum()]).cpu()


def update_policy(
    stage: TrainingRun,
    batch: Batch,
    step: int,
    replay: PackedLoader | None,
    meter: Meter,
    *,
    warming_up: bool,
) -> int:
    """A few epochs of minibatches, as long as the policy stays near the one that sampled; returns
    how many epochs that were.
    """
    c = stage.section
    row_count = len(batch.tokens)
    epochs, approx_kl = 0, 0.0
    while epochs < c.epochs and approx_kl <= c.stop_kl:
        generator = torch.Generator().manual_seed(c.seed * 1_000_003 + step * 97 + epochs)
        shuffled = torch.randperm(row_count, generator=generator)
        minibatches = shuffled.tensor_split(min(c.minibatches, row_count))
        sums = torch.zeros(2)  # of the clip fraction and approx_kl
        for minibatch in minibatches:
            # in the order of the tasks again, so that samples that share a prompt mostly meet
            passes = split_rows(minibatch.sort().values, c)
            for rows, counted in ranks.share_evenly(passes):
                loss, figures = policy_update_loss(stage, batch.rows(rows), warming_up)
                # so that the minibatches' gradients average to the whole batch's
                (len(minibatches) * counted * loss).backward()
                sums += figures * counted
            if replay and not warming_up:
                replayed = replay_loss(stage, replay)
                (c.replay * replayed).backward()
                meter.add(replay=ranks.total(replayed))
            meter.add(norm=stage.update(step))
        clip_fraction, approx_kl = ranks.total(sums).tolist()
        meter.add(clip_fraction=clip_fraction)
        epochs += 1
    meter.add(approx_kl=approx_kl)
    return epochs


def step_flops(stage: TrainingRun, batch: Batch, epochs: float, replayed_rows: int) -> float:
    """FLOPs of a step's passes over its batch and the replayed rows; playing is not counted.

    Tokens that samples have in common are computed once. A pass that only goes forward, such as
    make_batch's two, is a third of an epoch.
    """
    c = stage.section
    distinct = len(shared_pasts(batch.tokens, batch.documents).first)  # tokens, each once
    computed = (2 / 3 + epochs) * distinct + replayed_rows * c.sequence  # tokens
    taught = float((batch.targets != IGNORE).sum()) / distinct
    width = batch.tokens.shape[1]
    return computed * flops_per_token(
        stage.model.config, width, trained_blocks=c.trained_blocks, taught=taught
    )


def batch_figures(batch: Batch) -> dict[str, Tensor]:
    """What the log says of a batch: the policy before the step's update."""
    mismatch = (batch.drawn_log_probs - batch.old_log_probs).abs()
    return dict(
        kl=(kl_k3(batch.old_log_probs, batch.ref_log_probs) * batch.weights).sum(),
        entropy=(batch.entropy * batch.weights).sum(),
        mismatch=mismatch.where(batch.targets != IGNORE, 0.0).max(),
    )


def episode_figures(episodes: list[Rollout]) -> dict[str, float]:
    """Rates of a log interval's episodes, by the names of the log."""
    rates = episode_rates(episodes)
    return dict(
        success=rates["success"],
        calls=rates["calls"],
        invented=rates["invented_per_call"],
        malformed=rates.get("ended_malformed", 0.0),
        raised=rates.get("ended_raised", 0.0),
        timed_out=rates.get("ended_time", 0.0),
    )


# on the terminal; log.jsonl has all
SHOWN_FIGURES = tuple(
    "reward success invented kl entropy clip_fraction explained_variance skipped norm".split()
)


def ppo(config: Config) -> None:
    """CodePPO: draw episodes, judge them by execution, and make what went better than expected
    likelier, in small steps.
    """
    c = config.ppo
    heads = value_head if c.advantage == "gae" else None
    stage = TrainingRun(
        config,
        "sage",
        config.dpo.name or "safe",
        c.steps,
        c,
        heads=heads,
        heads_rate=c.value_learning_rate,
        curve=("reward", "success"),
    )
    if stage.finished():
        return
    reference = stage.load_decoder(stage.source)  # a frozen copy, from the disk: nothing is shared
    replay = teacher_rows(stage, "ppo replay")
    skipped = stage.kept.get("skipped", 0)  # steps without any signal
    warmed_up = stage.kept.get("warmed_up", stage.heads is None)  # without a value head at once
    logged_episodes: list[Rollout] = []  # since the last log line

    meter = Meter(stage.first, stage.peak)
    with stop_requested() as stopping:
        for step in range(stage.first + 1, c.steps + 1):
            # -- episodes and their rewards
            began = time.perf_counter()
            with meter.alone():
                episodes = draw_episodes(stage, step)
            meter.add(rollout_ms=(time.perf_counter() - began) * 1e3)
            rewards = torch.tensor([reward(episode, c) for episode in episodes])  # (P·G,)
            check_episodes(episodes, rewards, c, step)

            # -- what teaches something; if nothing does, all that fit are packed, for the log only
            scored = nan_where_too_long(rewards, episodes, c)
            relative_rewards, informative = compare_samples(scored, c)
            has_signal = bool(informative.any())
            skipped += not has_signal
            chosen = informative if has_signal else ~scored.isnan()
            learnt = [episode for episode, is_in in zip(episodes, chosen.tolist()) if is_in]
            batch = make_batch(stage, reference, learnt, relative_rewards[chosen])

            # -- learn from it; a value head learns alone for value_warmup steps, or until it
            # explains enough
            explained = explained_variance(batch.values, batch.returns, batch.weights)
            enough = ranks.from_first(has_signal and explained >= c.value_explains)
            warmed_up = warmed_up or step > c.value_warmup or enough
            epochs = 0
            if has_signal:
                epochs = update_policy(stage, batch, step, replay, meter, warming_up=not warmed_up)
                meter.add(explained_variance=explained)

            # -- the log
            for episode, value in zip(episodes, rewards.tolist()):
                meter.add(**{"reward": value, f"reward_{episode.task.world}": value})
            meter.add(**batch_figures(batch), too_long=scored.isnan().float().mean())
            meter.add(action_tokens=sum(sum(episode.action_mask) for episode in episodes))
            updates = epochs * min(c.minibatches, len(batch.tokens))
            replayed_rows = updates * c.replay_rows if replay and warmed_up else 0
            tokens = sum(len(episode.tokens) for episode in episodes)
            passes = epochs if warmed_up else epochs / 3  # the value head alone: forward only
            meter.count(tokens, flops=step_flops(stage, batch, passes, replayed_rows))
            logged_episodes += episodes
            if stage.is_log_step(step):
                figures = meter.means() | episode_figures(logged_episodes)
                figures |= dict(skipped=skipped, mismatch=max(map(float, meter.values["mismatch"])))
                stage.log_line(step, meter, figures, SHOWN_FIGURES)
                logged_episodes = []
            replay_state = replay.state() if replay else None
            state = dict(replay=replay_state, skipped=skipped, warmed_up=warmed_up)
            with meter.paused():
                stage.end_step(step, stopping, **state)
    stage.finish()


def main() -> None:
    ranks.start()
    config = settings.from_command_line()
    settings.refuse_unread(config, stages=("dpo", "ppo"))
    if config.stage in ("", "dpo"):
        dpo(config)
    if config.stage in ("", "ppo"):
        ppo(config)


if __name__ == "__main__":
    settings.run_script(main, many_ranks=True)
