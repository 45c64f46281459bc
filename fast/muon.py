"""Muon: momentum whose every update is turned into a nearly orthogonal matrix (Keller Jordan 2024),
for the matrices inside blocks.

The same rule as torch.optim.Muon, which a test holds it to. Written out because torch's computes
its Newton-Schulz iteration in bfloat16 always: on a CPU without bf16 units that is a hundred times
slower than float32, and a step takes seconds. Here the caller names the dtype, and matrices of one
shape go through the iteration together, on every rank that holds a part of them.
"""

from collections import defaultdict

import torch
from torch import Tensor

from parallel import local, own_rows, unsharded

# steepest at 0 among quintics that keep singular values near 1 after five rounds
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(updates: Tensor, rounds: int = 5) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ, roughly: singular values end between about
    0.7 and 1.2. (N, m, n) → (N, m, n).
    """
    a, b, c = QUINTIC
    tall = updates.shape[1] > updates.shape[2]
    x = updates.mT if tall else updates  # the smaller side first makes the smaller Gram matrix
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
        *,
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
                    state = self.state[p]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(p.grad)
                    buffer = state["momentum_buffer"]
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(unsharded(p.grad.lerp(buffer, group["momentum"])))
                directions = orthogonalise(torch.stack(updates).to(self.dtype)).to(same[0].dtype)
                size = group["lr"] * max(1, m / n) ** 0.5
                here = [local(p) for p in same]
                torch._foreach_mul_(here, 1 - group["lr"] * group["weight_decay"])
                steps = [direction[own_rows(p)] for direction, p in zip(directions, same)]
                torch._foreach_add_(here, steps, alpha=-size)
