"""Losses over a vocabulary without the V logits of all tokens at once: the same values and
gradients as losses.cross_entropy_of_logits and log_probs_of_logits (tests/test_losses.py).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fast.compiling import product_dtype

LARGE_VOCABULARY = 8192  # whose logits cost as much as some blocks of a model of its size


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
        hidden_gradient = weight_gradient = None
        if learn:
            hidden_gradient = torch.empty_like(hidden)
        if learn and ctx.needs_input_grad[1]:  # not of an embedding that is frozen
            weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            here = slice(start, start + chunk)
            h = hidden[here]
            logits = h @ weight.T  # (C, V)
            p = torch.softmax(logits, -1, dtype=torch.float32)  # one kernel reads bf16, writes this
            top, place = logits.max(-1, keepdim=True)  # (C, 1)
            # log Σ exp ℓ = ℓ − log p of any token; the likeliest one's p cannot underflow
            normaliser = top.float() - p.gather(1, place).log()  # (C, 1)
            index = targets[here].clamp(min=0)[:, None]  # (C, 1)
            nll = normaliser - logits.gather(1, index).float()
            factor = counted[here, None]  # (C, 1)
            total += ((nll + z_loss * normaliser.square()) * factor).sum()
            if not learn:
                continue
            scale = 1 + 2 * z_loss * normaliser  # (C, 1); ∂/∂ℓ = scale · (p − onehot / scale)
            if torch.compiler.is_compiling():  # a comparison becomes part of the loop that makes p
                columns = torch.arange(weight.shape[0], device=weight.device)
                p = torch.where(columns == index, p - 1 / scale, p)
            else:
                p.scatter_add_(1, index, -1 / scale)
            gradient = p.mul_(scale * factor).to(h.dtype)
            hidden_gradient[here] = gradient @ weight
            if weight_gradient is not None:
                weight_gradient += gradient.T @ h
        if learn:
            ctx.save_for_backward(hidden_gradient, weight_gradient)
            ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden_gradient, weight_gradient = ctx.saved_tensors
        hidden_gradient = hidden_gradient * upstream.to(hidden_gradient.dtype)
        if weight_gradient is not None:
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
    sparse: bool,
) -> Tensor:
    """The sum of cross-entropies of hidden (…, D), weight (V, D) and targets (…), each times
    `counted` (…), with at most `chunk_elements` logits at a time.

    With `sparse`, where few of the places count, only these are computed (of a tool call with its
    prompt, a tenth), unless it is compiled. Few are a quarter, or, of a vocabulary whose logits
    cost as much as several blocks, three quarters.
    """
    hidden = hidden.to(product_dtype(hidden))
    weight = weight.to(product_dtype(weight))
    hidden = hidden.reshape(-1, hidden.shape[-1])  # (N, D)
    targets = targets.reshape(-1)
    counted = counted.reshape(-1)
    if sparse and not torch.compiler.is_compiling():  # how many is not known to a compiler
        places = counted.nonzero().squeeze(1)
        few = 0.25 if weight.shape[0] < LARGE_VOCABULARY else 0.75
        if len(places) < few * len(counted):
            hidden = hidden[places]
            targets = targets[places]
            counted = counted[places]
    chunk = max(1, chunk_elements // weight.shape[0])
    learns = torch.is_grad_enabled()  # inside of an autograd function it never is
    return ChunkedCrossEntropy.apply(hidden, weight, targets, counted, z_loss, chunk, learns)


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
