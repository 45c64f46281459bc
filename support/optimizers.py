"""The optimisers of every training script, and the schedule of their rates.

optimizers = make_optimizers(model, config.train, torch.bfloat16)
scale = warmup_stable_decay(config.train, step, steps)        share of the peak, in every step
set_rates(optimizers, scale)
"""

import torch
from torch import nn

from config import Loop
from fast.muon import Muon

TABLES = ("embedding.text.weight", "embedding.code.weight", "head.weight")


def make_optimizers(
    model: nn.Module,
    c: Loop,
    dtype: torch.dtype,
    pretrained: str = "",
    pretrained_rate: float = 0.0,
) -> list[torch.optim.Optimizer]:
    """Matrices inside blocks to Muon (or AdamW); embeddings and output matrix to AdamW with decay;
    gains, biases, gate and smear to AdamW without. What is frozen is left out.

    With a `pretrained_rate`, parameters whose names begin with `pretrained` go to AdamW at that
    rate. `dtype` is that of Muon's products. A parameter group's "peak" is the rate that
    `set_rates` scales.
    """
    matrices, tables, rest, learnt = [], [], [], []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if pretrained_rate and name.startswith(pretrained):
            learnt.append(p)
            continue
        in_block = "blocks." in name or ".block." in name  # a decoder's, or a head's own
        if p.ndim == 2 and in_block:
            matrices.append(p)
        elif name in TABLES:
            tables.append(p)
        else:
            rest.append(p)

    use_muon = c.optimizer == "muon"
    groups = [
        dict(params=tables if use_muon else matrices + tables, weight_decay=c.weight_decay),
        dict(params=rest, weight_decay=0.0),
    ]
    if learnt:
        groups.append(dict(params=learnt, weight_decay=c.weight_decay, lr=pretrained_rate))
    betas = (c.beta1, c.beta2)
    optimizers = [torch.optim.AdamW(groups, lr=c.learning_rate, betas=betas, fused=True)]
    if use_muon:
        optimizers.append(
            Muon(matrices, lr=c.muon_learning_rate, weight_decay=c.weight_decay, dtype=dtype)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def warmup_stable_decay(c: Loop, step: int, steps: int) -> float:
    """The share of its peak that a rate has at step 1 … steps: it rises over the first `c.warmup`
    of them, stays, and falls to `c.final` over the last `c.decay`.
    """
    rising = max(1, int(c.warmup * steps))
    falling = int(c.decay * steps)
    left = steps - step
    if left >= falling:
        return min(step / rising, 1.0)
    return c.final + (1 - c.final) * left / falling


def set_rates(optimizers: list[torch.optim.Optimizer], scale: float, rate: float = 1.0) -> None:
    """Give every parameter group `scale` · `rate` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale * rate
