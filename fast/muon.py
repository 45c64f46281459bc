"""Muon: momentum whose every update is turned into a nearly orthogonal matrix (Keller Jordan 2024),
for the matrices inside blocks.

The same rule as torch.optim.Muon, which a test holds it to. Written out because torch's computes
its Newton-Schulz iteration in bfloat16 always: on a CPU without bf16 units that is a hundred times
slower than float32, and the step takes seconds. Here the caller names the dtype, and matrices of
one shape go through the iteration together.

Also what every training script does with it: `optimizers` shares a model's parameters out,
`set_rate` follows the schedule.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

from config import Loop

QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # steepest at 0 among quintics that keep singular values near 1 after five rounds


def orthogonalise(updates: Tensor, rounds: int = 5) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ, roughly: singular values end between about
    0.7 and 1.2. (N, m, n) → (N, m, n).
    """
    a, b, c = QUINTIC
    tall = updates.shape[1] > updates.shape[2]
    x = (
        updates.mT if tall else updates
    )  # the smaller side first: the Gram matrix is then the smaller one
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # singular values at most 1
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum 0.95 with Nesterov's look-ahead, orthogonalised, scaled by √max(1, m/n); decoupled
    weight decay.

    `parameters` are matrices (m, n) only; `dtype` is that of the Newton-Schulz iteration.
    """

    def __init__(
        self,
        parameters,
        lr: float = 0.02,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ):
        super().__init__(parameters, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for (m, n), same in shapes.items():
                updates = []
                for p in same:
                    buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]))
                directions = orthogonalise(torch.stack(updates).to(self.dtype)).to(same[0].dtype)
                torch._foreach_mul_(same, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    same, list(directions.unbind()), alpha=-group["lr"] * max(1, m / n) ** 0.5
                )


def optimizers(model: nn.Module, c: Loop, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Matrices inside blocks to Muon (or AdamW); embeddings and heads to AdamW with decay; gains,
    biases, gate and smear without.

    A parameter group may have its own "weight_decay"; its "peak" is the rate that `set_rate`
    scales.
    """
    matrices = [
        p
        for name, p in model.named_parameters()
        if p.ndim == 2 and (name.startswith("blocks.") or ".block." in name)
    ]  # the decoder's, or a head's own block
    tables = [
        p
        for name, p in model.named_parameters()
        if name in ("embedding.text.weight", "embedding.code.weight", "head.weight")
    ]
    rest = [p for p in model.parameters() if not any(p is q for q in matrices + tables)]
    decayed = tables if c.optimizer == "muon" else matrices + tables
    both = [
        torch.optim.AdamW(
            [
                dict(params=decayed, weight_decay=c.weight_decay),
                dict(params=rest, weight_decay=0.0),
            ],
            lr=c.learning_rate,
            betas=(c.beta1, c.beta2),
            fused=True,
        )
    ]
    if c.optimizer == "muon":
        both.append(
            Muon(matrices, lr=c.muon_learning_rate, weight_decay=c.weight_decay, dtype=dtype)
        )
    for group in (group for optimizer in both for group in optimizer.param_groups):
        group["peak"] = group["lr"]
    return both


def set_rate(
    optimizers: list[torch.optim.Optimizer], c: Loop, step: int, steps: int, share: float = 1.0
) -> float:
    """Warmup-Stable-Decay: give every group its rate of step 1 … steps, `share` of it; returns the
    schedule's share of the peak.
    """
    warm, falling, left = max(1, int(c.warmup * steps)), int(c.decay * steps), steps - step
    scale = min(step / warm, 1.0) if left >= falling else c.final + (1 - c.final) * left / falling
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak"] * scale * share
    return scale
