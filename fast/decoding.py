"""A decoding step under torch.compile: one more token per row, the same logits as the plain step.

What the compiler is helped with, from outside the model:
- one row on a CPU: x Wᵀ as product and sum, which Inductor makes a single loop over W at memory
  speed, where a matrix product's call would cost as much again
- what many loops read is written to memory once (fast/compiling.py)
- tiny models get one thread: calling a second costs more than it brings

    python bench/decode.py     speed, beside transformers' generate
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fast.compiling import AnglesOnce, written_once


class OneRow(TorchFunctionMode):
    """While this is active, linear layers of one row are product and sum. Only for a compiled step
    on a CPU.
    """

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.nn.functional.linear:
            x, weight, bias = (*arguments, None)[:3]
            if x.numel() == weight.shape[1] and x.device.type == "cpu":
                y = (weight * written_once(x.reshape(1, -1))).sum(-1)  # (out,)
                return (y if bias is None else y + bias).view(*x.shape[:-1], -1)
        return function(*arguments, **(keywords or {}))


def one_token(model: nn.Module, state, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits (B, V) after one more token per row; tokens and positions (B, 1)."""
    with AnglesOnce(), OneRow():
        return model(tokens, state=state, positions=positions)[:, -1]


def compiled_step(model: nn.Module | None = None) -> Callable[..., Tensor]:
    """`generate.next_logits` under torch.compile: shapes are static, so it compiles once for each
    batch size and cache length.

    Given a `model` whose weights fit a core's share of the cache (16 MB), it is compiled for one
    thread.
    """
    # past the limit torch falls back to eager with only a warning
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # the checks of every buffer's shape would cost a tenth of a tiny model's step
    options = {"size_asserts": False}
    if model is not None and sum(p.nbytes for p in model.parameters()) < 16e6:
        options["cpp.threads"] = 1
    return torch.compile(one_token, fullgraph=True, dynamic=False, options=options)
