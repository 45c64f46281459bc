"""Help for torch.compile, from outside the model.

Inductor computes a cheap expression again in every loop that reads it. For some tensors that costs
more than writing them to memory once, which `written_once` makes it do.
"""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# asked here: asked in a compiled function it would break the graph under torch 2.11
_AUTOCAST = {
    kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)
}
_is_capturing = False


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a matrix product of x: autocast's where that is on, or x's own."""
    device = x.device.type
    if device in _AUTOCAST and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


@contextmanager
def capturing():
    """While this is active, a decoding step is being recorded (fast/graphs.py)."""
    global _is_capturing
    _is_capturing = True
    try:
        yield
    finally:
        _is_capturing = False


def shapes_are_static() -> bool:
    """Whether what runs is being compiled or recorded, to be run again on other data: then no shape
    may depend on data, and nothing may be read back to the host.
    """
    return torch.compiler.is_compiling() or _is_capturing


def written_once(x: Tensor) -> Tensor:
    """x itself; a compiled function then writes it to memory instead of computing it again for
    every row or head that reads it.
    """
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


class AnglesOnce(TorchFunctionMode):
    """While this is active, cosines and sines, which are the rotary embedding's, are written once:
    all heads of all layers would compute them anew.
    """

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        return written_once(result) if function in (torch.Tensor.cos, torch.Tensor.sin) else result


def compile_training(function: Callable) -> Callable:
    """A function of a model under torch.compile, as training takes it."""

    def with_angles_once(*arguments):
        with AnglesOnce():
            return function(*arguments)

    return torch.compile(with_angles_once)
