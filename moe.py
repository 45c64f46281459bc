"""Experts in place of the feed-forward (paper, appendix A.3): a router sends each token through the
k best of N of them; two losses keep the router even and its logits small.

    p = softmax(x W_r)                                 over the N experts (A.3)
    y = Σ over the k largest p_i of w_i · expert_i(x)
    loss = cross-entropy + Σ over layers (α · N · Σ_i f_i · P_i + λ_z · mean (log Σ exp x W_r)²)

with f_i the share of one pass's choices that fell on expert i, and P_i the mean of p_i: Switch
Transformer's loss (Fedus et al. 2021), and ST-MoE's z-loss (Zoph et al. 2022), whose weight warms
up. SAGE-32B is dense: without `model.experts` nothing here runs.

What differs from these:
- No capacity, no dropped tokens: a token's output depends on that token alone, so that routing is
  causal and cached decoding equals a full pass.
- w_i = p_i / Σ of the chosen p, as in Mixtral: the output is a mean of experts, as large as one
  dense feed-forward's. With k = 1 w = p, as in Switch: renormalised it would be 1, and the
  cross-entropy would teach the router nothing.
- f sums to 1 for any k, so that an even load costs exactly 1 (Mixtral's f sums to k).

    python train.py config/toy.py --model.experts 8 --train.minutes 0 --out out/experts
    python bench/experts.py                            does each expert stay in use?
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import Model, Train
from fast.compiling import shapes_are_static


def places_by_expert(chosen: Tensor, experts: int) -> list[Tensor]:
    """Of choices (tokens · k,), for each expert the places that name it, in their order."""
    counts = chosen.bincount(minlength=experts).tolist()
    return list(chosen.argsort(stable=True).split(counts))


class Experts(nn.Module):
    """N feed-forwards, of which each token takes the k that its router finds best."""

    def __init__(self, config: Model, experts: Iterable[nn.Module]):
        super().__init__()
        self.k = config.experts_per_token
        self.router = nn.Linear(config.width, config.experts, bias=False)
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        x = x.flatten(0, 1)  # (BT, D)
        p = self.router(x).float().softmax(-1)  # (BT, N)
        weights, chosen = p.topk(self.k)  # (BT, k)
        if self.k > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        if shapes_are_static():  # compiled or recorded: every expert reads every token
            weights = torch.zeros_like(p).scatter(-1, chosen, weights)  # (BT, N)
            y = sum(w * expert(x) for w, expert in zip(weights.split(1, -1), self.experts))
            return y.to(x.dtype).view(B, T, D)
        y = torch.zeros_like(x)
        places = places_by_expert(chosen.flatten(), len(self.experts))
        for expert, here in zip(self.experts, places):
            # one without tokens runs on none: its gradient is then 0 on this rank, not absent
            output = expert(x[here // self.k]) * weights.flatten()[here, None]  # (tokens, D)
            y.index_add_(0, here // self.k, output.to(y.dtype))
        return y.view(B, T, D)


def idle_parameters(config: Model) -> int:
    """How many parameters a token does not use: those of the experts that it did not choose."""
    matrices = 3 if config.activation == "swiglu" else 2
    idle = max(config.experts - config.experts_per_token, 0)
    return config.layers * idle * matrices * config.width * config.feed_forward


def find_routers(model: nn.Module) -> list[nn.Module]:
    """The routers of a model, by layers; none of a dense one."""
    return [module.router for module in model.modules() if isinstance(module, Experts)]


@contextmanager
def router_logits(routers: list[nn.Module]) -> Iterator[list[Tensor]]:
    """The logits (BT, N) that each router gives inside the block, not in what backward repeats."""
    seen: list[Tensor] = []

    def keep(router, inputs, output) -> None:
        seen.append(output)

    hooks = [router.register_forward_hook(keep) for router in routers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def expert_load(logits: Tensor, k: int) -> Tensor:
    """f (N,): the share of the choices that fell on each expert, of logits (BT, N). Sums to 1."""
    chosen = logits.detach().float().softmax(-1).topk(k).indices  # as the forward pass chose
    return F.one_hot(chosen, logits.shape[-1]).float().mean((0, 1))


def balance_loss(logits: Tensor, k: int) -> Tensor:
    """N · Σ f_i · P_i of logits (BT, N): 1 for an even load. Only P has a gradient."""
    P = logits.float().softmax(-1).mean(0)  # (N,)
    return logits.shape[-1] * (expert_load(logits, k) * P).sum()


def router_z_loss(logits: Tensor) -> Tensor:
    """mean (log Σ exp logits)² of logits (BT, N)."""
    return logits.float().logsumexp(-1).square().mean()


def routing_loss(logits: list[Tensor], k: int, c: Train, step: int) -> Tensor:
    """What training adds to the cross-entropy at step 1 … c.steps, of the logits of all layers."""
    z_weight = c.router_z_loss * min(1.0, step / max(1, c.router_z_warmup * c.steps))
    return sum(c.balance_weight * balance_loss(x, k) + z_weight * router_z_loss(x) for x in logits)
