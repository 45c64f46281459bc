"""The losses as pure functions of tensors. Nothing here knows a model, a tokenizer or a device.

Cross-entropy and log-probabilities come twice: from logits, as they are defined, and from hidden
states, which is the same without ever holding the V logits of all tokens (fast/cross_entropy.py).

Behind it stand the losses of the preference and reinforcement stages (paper §3.1.2, CodePPO).
They share one layout: per-token tensors (R, T) of packed rows, in the places of `targets` (the
value at t is about the token that follows t); `action_mask` says which of these tokens the model
wrote, `documents` which episode they belong to, `weights` (`shares`) how much each counts, in the
advantages' centre as in the loss. What is not the model's own enters no loss, and its gradient is
exactly zero. Last come the losses of the heads (equations 6 and 7), and the two figures that say
what a probability is worth: AUROC and calibration error.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fast.cross_entropy import chunked_cross_entropy, in_chunks

IGNORE = -100  # a target that teaches nothing: padding, prompts, tool output


# --------------------------------------------------------------------------------------------------
# Cross-entropy and log-probabilities


def cross_entropy_of_logits(
    logits: Tensor, targets: Tensor, z_loss: float = 0.0, *, weights: Tensor | None = None
) -> Tensor:
    """Mean next-token cross-entropy in nats, plus z_loss · mean (log Σ exp logits)².

    logits (…, V), targets (…) with IGNORE where nothing is taught. The mean is over taught targets,
    weighted by `weights` (…) if they are given; 0 when there is none. z-loss: PaLM (Chowdhery et
    al. 2022).
    """
    logits = logits.float()
    normaliser = logits.logsumexp(-1)  # (…)
    chosen = logits.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)  # (…)
    counted = counted_targets(targets, weights)
    total = ((normaliser - chosen + z_loss * normaliser.square()) * counted).sum()
    return total / counted.sum().clamp(min=1e-6)


def counted_targets(targets: Tensor, weights: Tensor | None) -> Tensor:
    """How much each target counts (…), float32: its weight, or 1; 0 where nothing is taught."""
    taught = (targets != IGNORE).float()
    return taught if weights is None else taught * weights


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float = 0.0,
    *,
    weights: Tensor | None = None,
    chunk_elements: int = 1 << 26,
) -> Tensor:
    """`cross_entropy_of_logits` of hidden (…, D) and the unembedding (V, D), with at most
    `chunk_elements` logits at a time (2²⁶ float32 logits are 256 MiB).

    Under autocast the products run in its dtype, the softmax in float32.
    """
    counted = counted_targets(targets, weights)
    total = chunked_cross_entropy(
        hidden, weight, targets, counted, z_loss=z_loss, chunk_elements=chunk_elements
    )
    return total / counted.sum().clamp(min=1e-6)


def log_probs_of_logits(
    logits: Tensor, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log P(target) at each place, and the entropy there, both (N,) in nats, of logits (N, V) and
    targets (N,). The softmax is float32, at the temperature that the sampler drew with.
    """
    log_p = (logits.float() / temperature).log_softmax(-1)  # (N, V)
    return log_p.gather(1, targets[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(-1)


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk_elements: int = 1 << 26,
) -> tuple[Tensor, Tensor]:
    """`log_probs_of_logits` of hidden (…, D), the unembedding (V, D) and targets (…), both (…) and
    differentiable; 0 where the target is IGNORE.

    Only taught places are computed, at most `chunk_elements` logits at a time.
    """
    taught = targets != IGNORE
    log_p, entropy = in_chunks(
        partial(log_probs_of_logits, temperature=temperature),
        hidden[taught],
        weight,
        targets[taught],
        chunk_elements=chunk_elements,
    )
    blank = torch.zeros(targets.shape, device=hidden.device)
    return blank.masked_scatter(taught, log_p), blank.masked_scatter(taught, entropy)


def prose_loss(prose_logits: Tensor, kinds: Tensor) -> Tensor:
    """Binary cross-entropy of the split embedding's g against weak labels: g → 1 in prose (kind 0),
    → 0 in code (kind 1).

    prose_logits and kinds (B, T); mean in nats (§2.2).
    """
    return F.binary_cross_entropy_with_logits(prose_logits.float(), 1.0 - kinds.float())


def per_document(values: Tensor, documents: Tensor, count: int) -> Tensor:
    """Sums (count,) of token values (R, T) over each of the documents 0 … count − 1; padding is
    document −1.
    """
    return values.new_zeros(count + 1).index_add(0, documents.flatten() + 1, values.flatten())[1:]


def shares(
    action_mask: Tensor, documents: Tensor, mean: Literal["sequence", "token"] = "sequence"
) -> Tensor:
    """Each token's weight in a mean over the model's own tokens; they sum to 1, and are 0
    elsewhere.

    "sequence": every episode counts the same, its tokens share that (so a long failing episode
    does not drown the short ones: token-mean with long failures destroyed the policy in our
    prototype). "token": every token counts the same.
    """
    weights = action_mask.float()
    if mean == "sequence":
        length = per_document(weights, documents, int(documents.max()) + 1)
        weights = weights / length.clamp(min=1)[documents.clamp(min=0)]
    return weights / weights.sum().clamp(min=1e-9)


def weighted_moments(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of values under weights of the same shape; what has none is not read."""
    counted = weights > 0
    values, weights = values[counted], weights[counted]
    mean = (weights * values).sum() / weights.sum()
    return mean, (weights * (values - mean).square()).sum() / weights.sum()


# --------------------------------------------------------------------------------------------------
# Direct Preference Optimization.


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Mean of −log σ(margin) and the margins (N,), from whole completions' log-probabilities (N,)
    (Rafailov et al. 2023).

    The best policy under a reward r and a penalty β·KL(π ‖ π_ref) is π ∝ π_ref · exp(r/β), so r =
    β·log π/π_ref + a constant of the prompt, which
    Bradley and Terry's P(chosen over rejected) = σ(r_chosen − r_rejected) does not see:
        margin = β·[(log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)]
    At the beginning π = π_ref: the loss is ln 2 and its gradient β/2 · (∇log π(rejected) − ∇log
    π(chosen)).
    """
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return -F.logsigmoid(margins).mean(), margins.detach()


# --------------------------------------------------------------------------------------------------
# Proximal Policy Optimization.


@torch.no_grad()
def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    action_mask: Tensor,
    gamma: float,
    lam: float,
    documents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (R, T) of the model's own tokens, 0 elsewhere (Schulman et al. 2016).

        δ_t = r_t + γ·V_{t+1} − V_t        A_t = δ_t + γλ·A_{t+1}        return_t = A_t + V_t
    where t + 1 is the model's *next own* token: what a tool says in between is part of the world's
    answer, not a step of its own, so three tokens more or less of it change nothing. V behind the
    last one is 0. With γ = λ = 1 every token's return is the final reward. Rows may hold several
    episodes, told apart by `documents`.
    """
    advantages = torch.zeros_like(values, dtype=torch.float32)
    advantage = following = advantages.new_zeros(
        len(values)
    )  # A and V of the own token that comes next
    for t in reversed(range(values.shape[1])):
        if documents is not None and t + 1 < values.shape[1]:
            same = documents[:, t] == documents[:, t + 1]
            advantage, following = advantage * same, following * same
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = torch.where(action_mask[:, t], delta + gamma * lam * advantage, advantage)
        following = torch.where(action_mask[:, t], values[:, t], following)
        advantages[:, t] = advantage * action_mask[:, t]
    return advantages, (advantages + values) * action_mask


@torch.no_grad()
def whiten(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean 0 and deviation 1; 0 where there is no weight, and if all values are equal.

    To be called with the loss's weights: four short successes beside four long failures, whitened
    by tokens, have a mean of +1.19 in a loss that counts every episode the same.
    """
    counted = weights > 0
    if not counted.any() or values[counted].max() == values[counted].min():
        return torch.zeros_like(values)
    mean, variance = weighted_moments(values, weights)
    return torch.where(counted, (values - mean) / variance.sqrt().clamp(min=1e-6), 0.0)


def differ(rewards: Tensor) -> Tensor:
    """Which groups (P, 1) of rewards (P, G) are not all equal; NaN is one that does not count."""
    gaps = rewards.isnan()
    best = rewards.masked_fill(gaps, -torch.inf).amax(1, keepdim=True)
    return best > rewards.masked_fill(gaps, torch.inf).amin(1, keepdim=True)


@torch.no_grad()
def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward less the mean of its group's *others* (P, G) → (P, G).

    NaN marks one that does not count, and gets 0, as do equal rewards. That mean is a fair guess
    of what the task is worth, and does not depend on the sample it is taken from: a baseline that
    adds no bias (Kool et al. 2019).
    """
    known = ~rewards.isnan()
    others = (known.sum(1, keepdim=True) - 1).clamp(min=1)
    baseline = (rewards.nansum(1, keepdim=True) - rewards) / others
    return torch.where(known & differ(rewards), rewards - baseline, 0.0)


@torch.no_grad()
def group_advantages(rewards: Tensor) -> Tensor:
    """(r − mean)/deviation over each task's samples (P, G), no value head (Shao et al. 2024).

    NaN marks one that does not count: it gets 0, and mean and deviation are the others'. A group
    of equal rewards, or of one, says nothing about what was better: exactly 0.
    """
    known = ~rewards.isnan()
    centred = rewards - rewards.nanmean(1, keepdim=True)
    others = (known.sum(1, keepdim=True) - 1).clamp(min=1)
    deviation = (centred.square().nansum(1, keepdim=True) / others).sqrt()
    return torch.where(known & differ(rewards), centred / (deviation + 1e-4), 0.0)


def ppo_loss(
    new: Tensor, old: Tensor, advantages: Tensor, weights: Tensor, clip: float = 0.2
) -> tuple[Tensor, Tensor]:
    """−Σ w · min(ρ·A, clip(ρ, 1 ± clip)·A) with ρ = π_new/π_old of each token, and the share of
    tokens where the clip binds (Schulman et al. 2017).

    All (R, T); `weights` are `shares`. Before the first step ρ = 1, nothing is clipped, and the
    gradient is REINFORCE's: −Σ w·A·∇log π.
    """
    ratio = torch.exp(new - old)
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -(torch.minimum(ratio * advantages, clipped) * weights).sum()
    return loss, ((clipped < ratio * advantages) * weights).sum().detach()


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


def value_loss(
    new: Tensor, old: Tensor, returns: Tensor, weights: Tensor, clip: float = 0.2
) -> Tensor:
    """½ Σ w · max((V − return)², (V_clipped − return)²): the value may not leave its old self by
    more than `clip` in one update.
    """
    near = old + (new - old).clamp(-clip, clip)
    return (
        0.5 * (torch.maximum((new - returns).square(), (near - returns).square()) * weights).sum()
    )


def kl_k2(new: Tensor, reference: Tensor) -> Tensor:
    """½·(log π/π_ref)² a token: as a *loss* on the policy's own samples its gradient is that of
    KL(π ‖ π_ref).

    ∇KL = E_π[log(π/π_ref)·∇log π], since E_π[∇log π] = 0, and that is E_π[∇k2]. For telling the
    size of the divergence k1 and k3 are unbiased (Schulman 2020, "Approximating KL divergence"); as
    a loss k1 has a gradient of zero in the mean and k3 a biased one.
    """
    return 0.5 * (new - reference).square()


def kl_loss(new: Tensor, old: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """Σ w · ρ · k2 with ρ = π/π_old held fixed, whose gradient is that of KL(π ‖ π_ref).

    The draws are π_old's: from the second optimiser step on k2 alone would have another gradient.
    DeepSeek-V3.2 (2025) has k3 and lets ρ have a gradient, which comes to the same.
    """
    return (torch.exp(new.detach() - old) * kl_k2(new, reference) * weights).sum()


def kl_k3(new: Tensor, reference: Tensor) -> Tensor:
    """e^(−d) − 1 + d with d = log π/π_ref:

    E_π[k3] = E_π[k1 = d] = KL(π ‖ π_ref), never negative, with less scatter than k1.
    """
    difference = new - reference
    return torch.exp(-difference) - 1 + difference


# --------------------------------------------------------------------------------------------------
# What a probability is worth.


def auroc(scores: Tensor, labels: Tensor) -> float:
    """P(a positive's score > a negative's) + ½·P(equal), by ranks: (Σ ranks of positives − n₊(n₊ +
    1)/2)/(n₊·n₋), ties at their mean rank (Mann and Whitney 1947).

    scores and labels (N,), labels 1 or 0. NaN where a class is absent: there is nothing to tell
    apart.
    """
    positive = labels > 0
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, place, count = scores.double().unique(return_inverse=True, return_counts=True)
    rank = (
        count.cumsum(0) - (count - 1) / 2
    )  # of each distinct score: the mean of the ranks that its equals share
    return (
        (rank[place[positive]].double().sum() - n_positive * (n_positive + 1) / 2)
        / (n_positive * n_negative)
    ).item()


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: Σ over bins of n_bin/N · |mean probability − share of positives|,
    in bins of equal mass (Naeini et al. 2015; Nguyen and O'Connor 2015).

    Equal mass, not equal width: confident heads put nearly all steps into one bin of equal width.
    NaN for no steps.
    """
    order = probabilities.argsort(stable=True)
    parts = zip(
        probabilities[order].double().tensor_split(bins), labels[order].double().tensor_split(bins)
    )
    return (
        sum((p.sum() - y.sum()).abs().item() for p, y in parts) / len(labels)
        if len(labels)
        else float("nan")
    )
