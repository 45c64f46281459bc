"""A decoding step under torch.compile: the same as generate.read_token.

What the compiler is helped with, from outside the model:
- one row: x Wᵀ as product and sum, which Inductor makes a single loop over W at memory speed, where
  a matrix product's call would cost as much again
- what many loops read is written to memory once (fast/compiling.py)
- tiny models get one thread on a CPU: calling a second costs more than it brings
- on a GPU those loops are tuned one parameter after the other (gpt-fast's setting)

    python bench/decode.py     speed, beside transformers' generate
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fast.compiling import AnglesOnce, written_once


class OneRow(TorchFunctionMode):
    """While this is active, linear layers of one row are product and sum: in a compiled step."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.nn.functional.linear:
            x, weight, bias = (*arguments, None)[:3]
            if x.numel() == weight.shape[1]:
                y = (weight * written_once(x.reshape(1, -1))).sum(-1)  # (out,)
                return (y if bias is None else y + bias).view(*x.shape[:-1], -1)
        return function(*arguments, **(keywords or {}))


def read_token_helped(
    model: nn.Module, state, tokens: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """generate.read_token, which stands above this module, with the compiler's helpers."""
    with AnglesOnce(), OneRow():
        hidden = model.hidden(tokens, state=state, positions=positions)[:, -1]  # (B, D)
        return hidden, model.logits(hidden)


def compiled_step(model: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """`generate.read_token` under torch.compile: shapes are static, so it compiles once for each
    batch size and cache length.

    A model whose weights fit a core's share of a CPU's cache (16 MB) gets one thread.
    """
    # past the limit torch falls back to eager with only a warning
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # the checks of every buffer's shape would cost a tenth of a tiny model's step
    options = {"size_asserts": False}
    if next(model.parameters()).is_cuda:
        options["coordinate_descent_tuning"] = True
    elif sum(p.nbytes for p in model.parameters()) < 16e6:
        options["cpp.threads"] = 1
    return torch.compile(read_token_helped, fullgraph=True, dynamic=False, options=options)
