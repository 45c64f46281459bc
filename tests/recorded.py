"""A CUDA graph's behaviour on a CPU: what a function does to tensors is recorded operation by
operation, and done again in the same memory, without its Python.

So a number that Python worked out is frozen, memory that was allocated anew is not seen, and what
a graph cannot do is an error: reading data back to the host, shapes that depend on data, tensors
made of the host's numbers.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recorder(TorchDispatchMode):
    """While this is active, operations are kept with the tensors they read and wrote."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if operation is torch.ops.aten.lift_fresh.default:
            raise RuntimeError("a graph cannot copy the host's numbers: torch.tensor in a step")
        by_index = operation is torch.ops.aten.index.Tensor  # dynamic only where it is Boolean
        if by_index and not any(x is not None and x.dtype == torch.bool for x in arguments[1]):
            forbidden = False
        else:
            forbidden = bool(FORBIDDEN & set(operation.tags))
        if forbidden:
            raise RuntimeError(f"a graph cannot run {operation}: its result depends on data")
        result = operation(*arguments, **keywords)
        self.operations.append((operation, arguments, keywords, result))
        return result

    def replay(self) -> None:
        for operation, arguments, keywords, result in self.operations:
            again = operation(*arguments, **keywords)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(run):
    """`fast.graphs.record_cuda` on a CPU."""
    recorder = Recorder()
    with recorder:
        outputs = run()
    return recorder.replay, outputs
