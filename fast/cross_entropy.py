"""Losses over a vocabulary without the V logits of all tokens at once: the same values and
gradients as losses.cross_entropy_of_logits and log_probs_of_logits (tests/test_losses.py).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class ChunkedCrossEntropy(torch.autograd.Function):
    """Σ over tokens of counted · (−log softmax(h Wᵀ)[target] + z·(log Σ exp)²), chunk by chunk.

    Each chunk's gradient is taken at once, in the forward pass, and only sums are kept.

    With p = softmax(ℓ) and Z = log Σ exp ℓ:  ∂/∂ℓ = p − onehot + 2z·Z·p.  The upstream gradient is
    one number, so it scales what forward has already computed.
    """

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        counted: Tensor,
        z_loss: float,
        chunk: int,
        learn: bool,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        if learn:
            hidden_gradient = torch.empty_like(hidden)
            weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            here = slice(start, start + chunk)
            h = hidden[here]
            logits = (h @ weight.T).float()  # (C, V)
            normaliser = torch.logsumexp(logits, -1)  # (C,)
            index = targets[here].clamp(min=0)[:, None]  # (C, 1)
            nll = normaliser - logits.gather(1, index).squeeze(1)
            total += ((nll + z_loss * normaliser.square()) * counted[here]).sum()
            if not learn:
                continue
            gradient = torch.exp(logits - normaliser[:, None])  # (C, V)
            gradient = gradient * (1 + 2 * z_loss * normaliser)[:, None]
            gradient = gradient.scatter_add(1, index, -torch.ones_like(index, dtype=gradient.dtype))
            gradient = (gradient * counted[here, None]).to(h.dtype)
            hidden_gradient[here] = gradient @ weight
            weight_gradient += (gradient.T @ h).float()
        if learn:
            ctx.save_for_backward(hidden_gradient, weight_gradient)
            ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden_gradient, weight_gradient = ctx.saved_tensors
        hidden_gradient = hidden_gradient * upstream.to(hidden_gradient.dtype)
        weight_gradient = (weight_gradient * upstream).to(ctx.weight_dtype)
        return hidden_gradient, weight_gradient, None, None, None, None, None


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    counted: Tensor,
    *,
    z_loss: float,
    chunk_elements: int,
) -> Tensor:
    """The sum of cross-entropies of hidden (…, D), weight (V, D) and targets (…), each times
    `counted` (…), with at most `chunk_elements` logits at a time.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    chunk = max(1, chunk_elements // weight.shape[0])
    return ChunkedCrossEntropy.apply(
        hidden,
        weight,
        targets.reshape(-1),
        counted.reshape(-1),
        z_loss,
        chunk,
        torch.is_grad_enabled(),
    )


def in_chunks(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    chunk_elements: int,
) -> tuple[Tensor, ...]:
    """function(logits (N, V), targets (N,)) → tensors (N,), for the logits of hidden (N, D) and
    weight (V, D), at most `chunk_elements` of them at a time: backward makes each chunk's again.
    """

    def of_chunk(h: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return function(h @ weight.T, target)

    chunk = max(1, chunk_elements // weight.shape[0])
    parts = [
        checkpoint(
            of_chunk,
            hidden[start : start + chunk],
            weight,
            targets[start : start + chunk],
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, max(len(hidden), 1), chunk)
    ]
    return tuple(torch.cat(part) for part in zip(*parts))
