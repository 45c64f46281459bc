"""The losses as pure functions of tensors. Nothing here knows a model, a tokenizer or a device.

Cross-entropy in chunks is the one of pretraining; what differs from the textbook is that the V logits of every token are never
held together: each chunk's gradient is taken at once, in the forward pass, and only sums are kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100  # a target that teaches nothing: padding, prompts, tool output


class ChunkedCrossEntropy(torch.autograd.Function):
    """Σ over tokens of −log softmax(h Wᵀ)[target] + z·(log Σ exp)², and its gradient, chunk by chunk.

    With p = softmax(ℓ) and Z = log Σ exp ℓ:  ∂/∂ℓ = p − onehot + 2z·Z·p.  The upstream gradient is one number, so it
    scales what forward has already computed.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None, z_loss: float, chunk: int, learn: bool) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        if learn:
            hidden_gradient = torch.empty_like(hidden)
            weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            h, target = hidden[start:start + chunk], targets[start:start + chunk]
            taught = (target != IGNORE).float() * (1.0 if weights is None else weights[start:start + chunk])  # (C,)
            logits = (h @ weight.T).float()  # (C, V)
            normaliser = torch.logsumexp(logits, -1)  # (C,)
            index = target.clamp(min=0)[:, None]
            total += ((normaliser - logits.gather(1, index).squeeze(1) + z_loss * normaliser.square()) * taught).sum()
            if not learn:
                continue
            gradient = torch.exp(logits - normaliser[:, None]) * (1 + 2 * z_loss * normaliser)[:, None]
            gradient = gradient.scatter_add(1, index, -torch.ones_like(index, dtype=gradient.dtype))
            gradient = (gradient * taught[:, None]).to(h.dtype)
            hidden_gradient[start:start + chunk] = gradient @ weight
            weight_gradient += (gradient.T @ h).float()
        if learn:
            ctx.save_for_backward(hidden_gradient, weight_gradient)
            ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * upstream.to(hidden_gradient.dtype), (weight_gradient * upstream).to(ctx.weight_dtype), None, None, None, None, None


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0, chunk_elements: int = 1 << 26, weights: Tensor | None = None) -> Tensor:
    """Mean next-token cross-entropy in nats, plus z_loss · mean (log Σ exp logits)².

    hidden (…, D), the head's weight (V, D), targets (…) with IGNORE where nothing is taught. At most `chunk_elements` logits
    exist at a time (2²⁶ float32 logits are 256 MiB). Mean over taught targets, weighted by `weights` (…) if they are given;
    0 when there is none. Under autocast the
    products run in its dtype, the softmax in float32. z-loss: PaLM (Chowdhery et al. 2022).
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden, weight = (x.to(torch.get_autocast_dtype(hidden.device.type)) for x in (hidden, weight))
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    chunk = max(1, chunk_elements // weight.shape[0])
    weights = None if weights is None else weights.reshape(-1).float()
    total = ChunkedCrossEntropy.apply(hidden, weight, targets, weights, z_loss, chunk, torch.is_grad_enabled())
    taught = targets != IGNORE
    return total / (taught.sum().clamp(min=1) if weights is None else (taught * weights).sum().clamp(min=1e-6))


def gate_loss(gate_logits: Tensor, kinds: Tensor) -> Tensor:
    """Binary cross-entropy of the split embedding's gate against weak labels: g → 1 in prose (kind 0), → 0 in code (kind 1).

    gate_logits and kinds (B, T); mean in nats (§2.2).
    """
    return F.binary_cross_entropy_with_logits(gate_logits.float(), 1.0 - kinds.float())
