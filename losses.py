"""The losses as pure functions of tensors. Nothing here knows a model, a tokenizer or a device.

Cross-entropy and log-probabilities come twice: from logits, as they are defined, and from hidden
states, which is the same without ever holding the V logits of all tokens (fast/cross_entropy.py).

The losses of preferences are in preferences.py, of reinforcement in rl.py, of the thinking heads in
mch.py. Last come the two figures that say what a probability is worth: AUROC and calibration error.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fast.cross_entropy import chunked_cross_entropy, in_chunks

IGNORE = -100  # a target that teaches nothing: padding, prompts, tool output


# --------------------------------------------------------------------------------------------------
# Cross-entropy and log-probabilities


def target_weights(targets: Tensor, weights: Tensor | None) -> Tensor:
    """How much each target counts (…), float32: 1, or its weight; 0 where nothing is taught."""
    taught = (targets != IGNORE).float()
    return taught if weights is None else taught * weights


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
    weights = target_weights(targets, weights)
    total = ((normaliser - chosen + z_loss * normaliser.square()) * weights).sum()
    return total / weights.sum().clamp(min=1e-6)


def cross_entropy(
    hidden: Tensor,
    unembedding: Tensor,
    targets: Tensor,
    z_loss: float = 0.0,
    *,
    weights: Tensor | None = None,
    count: Tensor | None = None,
    chunk_elements: int = 1 << 27,
) -> Tensor:
    """`cross_entropy_of_logits` of hidden (…, D) and unembedding (V, D), with at most
    `chunk_elements` logits at a time (2²⁷ take 1 GiB: 2 bytes each as bf16 logits, 4 as float32
    probabilities, 2 as bf16 gradients).

    The sum is divided by `count`, where it is given (by the whole batch, of which these are a
    part), otherwise by the sum of the weights. Under autocast the products run in its dtype, the
    softmax in float32.
    """
    counted = target_weights(targets, weights)
    total = chunked_cross_entropy(
        hidden,
        unembedding,
        targets,
        counted,
        z_loss=z_loss,
        chunk_elements=chunk_elements,
        sparse=weights is not None,
    )
    return total / (counted.sum() if count is None else count).clamp(min=1e-6)


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
    unembedding: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk_elements: int = 1 << 26,
) -> tuple[Tensor, Tensor]:
    """`log_probs_of_logits` of hidden (…, D), unembedding (V, D) and targets (…), both (…) and
    differentiable; 0 where the target is IGNORE.

    Only taught places are computed, at most `chunk_elements` logits at a time.
    """
    taught = targets != IGNORE
    log_p, entropy = in_chunks(
        partial(log_probs_of_logits, temperature=temperature),
        hidden[taught],
        unembedding,
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


def sum_per_document(values: Tensor, documents: Tensor, count: int) -> Tensor:
    """Sums (count,) of token values (R, T) over each of the documents 0 … count − 1."""
    sums = values.new_zeros(count + 1)  # the first one is padding's, whose document is −1
    return sums.index_add(0, documents.flatten() + 1, values.flatten())[1:]


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
    # of each distinct score: the mean of the ranks that its equals share
    rank = count.cumsum(0) - (count - 1) / 2
    rank_sum = rank[place[positive]].double().sum()
    return ((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)).item()


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: Σ over bins of n_bin/N · |mean probability − share of positives|,
    in bins of equal mass (Naeini et al. 2015; Nguyen and O'Connor 2015).

    Equal mass, not equal width: confident heads put nearly all steps into one bin of equal width.
    Equal probabilities share their labels' mean: their order says nothing. NaN for no steps.
    """
    if not len(labels):
        return float("nan")
    values, place, count = probabilities.double().unique(return_inverse=True, return_counts=True)
    shares = torch.zeros_like(values).index_add(0, place, labels.double()) / count
    claimed = values.repeat_interleave(count).tensor_split(bins)
    positive = shares.repeat_interleave(count).tensor_split(bins)
    errors = [(p.sum() - y.sum()).abs().item() for p, y in zip(claimed, positive)]
    return sum(errors) / len(labels)
