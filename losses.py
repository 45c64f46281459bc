"""The losses as pure functions of tensors. Nothing here knows a model, a tokenizer or a device.

Cross-entropy in chunks is the one of pretraining; what differs from the textbook is that the V
logits of every token are never
held together: each chunk's gradient is taken at once, in the forward pass, and only sums are kept.

Behind it stand log-probabilities of single tokens (what the preference and reinforcement stages
make of them is in rl.py), the losses of the heads (equations 6 and 7), and the two figures that say
what a probability is worth: AUROC and calibration error.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE = -100  # a target that teaches nothing: padding, prompts, tool output


class ChunkedCrossEntropy(torch.autograd.Function):
    """Σ over tokens of −log softmax(h Wᵀ)[target] + z·(log Σ exp)², and its gradient, chunk by
    chunk.

    With p = softmax(ℓ) and Z = log Σ exp ℓ:  ∂/∂ℓ = p − onehot + 2z·Z·p.  The upstream gradient is one number, so it
    scales what forward has already computed.
    """

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        z_loss: float,
        chunk: int,
        learn: bool,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        if learn:
            hidden_gradient = torch.empty_like(hidden)
            weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            h, target = hidden[start : start + chunk], targets[start : start + chunk]
            taught = (target != IGNORE).float() * (
                1.0 if weights is None else weights[start : start + chunk]
            )  # (C,)
            logits = (h @ weight.T).float()  # (C, V)
            normaliser = torch.logsumexp(logits, -1)  # (C,)
            index = target.clamp(min=0)[:, None]
            total += (
                (normaliser - logits.gather(1, index).squeeze(1) + z_loss * normaliser.square())
                * taught
            ).sum()
            if not learn:
                continue
            gradient = (
                torch.exp(logits - normaliser[:, None]) * (1 + 2 * z_loss * normaliser)[:, None]
            )
            gradient = gradient.scatter_add(1, index, -torch.ones_like(index, dtype=gradient.dtype))
            gradient = (gradient * taught[:, None]).to(h.dtype)
            hidden_gradient[start : start + chunk] = gradient @ weight
            weight_gradient += (gradient.T @ h).float()
        if learn:
            ctx.save_for_backward(hidden_gradient, weight_gradient)
            ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return (
            hidden_gradient * upstream.to(hidden_gradient.dtype),
            (weight_gradient * upstream).to(ctx.weight_dtype),
            None,
            None,
            None,
            None,
            None,
        )


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float = 0.0,
    chunk_elements: int = 1 << 26,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean next-token cross-entropy in nats, plus z_loss · mean (log Σ exp logits)².

    hidden (…, D), the head's weight (V, D), targets (…) with IGNORE where nothing is taught. At
    most `chunk_elements` logits exist at a time (2²⁶ float32 logits are 256 MiB). Mean over taught
    targets, weighted by `weights` (…) if they are given;
    0 when there is none. Under autocast the
    products run in its dtype, the softmax in float32. z-loss: PaLM (Chowdhery et al. 2022).
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden, weight = (
            x.to(torch.get_autocast_dtype(hidden.device.type)) for x in (hidden, weight)
        )
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    chunk = max(1, chunk_elements // weight.shape[0])
    weights = None if weights is None else weights.reshape(-1).float()
    total = ChunkedCrossEntropy.apply(
        hidden, weight, targets, weights, z_loss, chunk, torch.is_grad_enabled()
    )
    taught = targets != IGNORE
    return total / (
        taught.sum().clamp(min=1) if weights is None else (taught * weights).sum().clamp(min=1e-6)
    )


def gate_loss(gate_logits: Tensor, kinds: Tensor) -> Tensor:
    """Binary cross-entropy of the split embedding's gate against weak labels: g → 1 in prose (kind
    0), → 0 in code (kind 1).

    gate_logits and kinds (B, T); mean in nats (§2.2).
    """
    return F.binary_cross_entropy_with_logits(gate_logits.float(), 1.0 - kinds.float())


# ---------------------------------------------------------------------------------------------------------------------
# Log-probabilities.


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    chunk_elements: int = 1 << 26,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """log P(target) at each place, and the entropy there, both (…) in nats, differentiable; 0 where
    the target is IGNORE.

    hidden (…, D), the head's weight (V, D), targets (…). Only taught places are computed, at most
    `chunk_elements` logits at a time: backward makes each chunk's logits again. The softmax is
    float32, at the temperature that the sampler drew with.
    """

    def of_chunk(h: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_p = ((h @ weight.T).float() / temperature).log_softmax(-1)  # (C, V)
        return log_p.gather(1, target[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(-1)

    taught = targets != IGNORE
    rows, wanted, chunk = hidden[taught], targets[taught], max(1, chunk_elements // weight.shape[0])
    parts = [
        checkpoint(
            of_chunk,
            rows[start : start + chunk],
            weight,
            wanted[start : start + chunk],
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, max(len(rows), 1), chunk)
    ]
    blank = torch.zeros(targets.shape, device=hidden.device)
    return tuple(blank.masked_scatter(taught, torch.cat(part)) for part in zip(*parts))


# ---------------------------------------------------------------------------------------------------------------------
# Heads that say how sure a step is (equations 6 and 7): their loss, their calibration, and what
# their probabilities are worth.


def confidence_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over known labels of −[y·log c + (1 − y)·log(1 − c)], c = σ(z): logits z and labels y
    (…, parts), NaN where a label is missing.

    Each part is one Bernoulli's likelihood, so the loss is least where c is the part's probability.
    ∂/∂z = (c − y)/known: a missing
    label's gradient is exactly zero, and 0 is the loss where nothing is known.
    """
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(
        logits.float(), labels.nan_to_num().float(), reduction="none"
    )
    return each.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def fit_logistic(features: Tensor, labels: Tensor, ridge: float = 1.0) -> tuple[Tensor, Tensor]:
    """w (F,) and b of the σ(w·x + b) that makes labels (N,) in [0, 1] likeliest from features (N,
    F), with ½·ridge·|w|² against it.

    Convex, so there is one answer and nothing to tune; found by L-BFGS in float64.
    """
    x, y = features.double(), labels.double()
    w, b = (
        torch.zeros(x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True),
        torch.zeros((), dtype=torch.float64, device=x.device, requires_grad=True),
    )
    optimizer = torch.optim.LBFGS(
        [w, b],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = (
            F.binary_cross_entropy_with_logits(x @ w + b, y, reduction="sum")
            + 0.5 * ridge * w.square().sum()
        ) / len(y)
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return w.detach().to(features.dtype), b.detach().to(features.dtype)


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Temperature and offset for σ(z/temperature + offset) from logits and labels (N,) that
    training has not seen (Platt 1999).

    Logistic regression on the one feature z. Platt's targets (n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2) keep
    the slope finite where a head makes no mistake. A head that orders its steps the wrong way round
    gets an infinite temperature: it says the base rate. (1, 0) where a class is absent.
    """
    positive = labels.sum()
    negative = len(labels) - positive
    if not positive or not negative:
        return 1.0, 0.0
    targets = torch.where(labels > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    slope, offset = fit_logistic(logits[:, None], targets, ridge=0.0)
    if slope <= 0:
        return float("inf"), torch.logit(targets.mean()).item()
    return 1 / slope.item(), offset.item()


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
