"""One model on many devices: FSDP2 from the outside. model.py has no line for it.

    torchrun --nproc-per-node 8 train.py config/32b.py

Every rank holds 1/W of each parameter, of its gradient and of its optimiser state, in float32
(fully sharded data parallelism, ZeRO-3). Before a block computes, its parameters are gathered from
all ranks in the dtype of the matrix products, and freed after it; its gradients are summed in
float32, and each rank keeps its own part of the sum.

A step is the same for any number of ranks W: its examples are shared out, the loss is the sum over
a rank's own tokens divided by the count over all ranks, and gradients are added up. A script's loop
therefore shows a few calls: `ranks.share`, `share_evenly` or `share_rows` of its data
(support/ranks.py), `set_gradient_sync` before each of train.py's backward passes (in rl.py each
pass sums gradients over ranks), `ranks.total` of a figure, and `gathered` around decoding.

Without torchrun there is one process, and all of this does nothing, except that `parallelise` also
gives a single device its activation checkpointing.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import EllipsisType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from config import Parallel
from support import ranks

# --------------------------------------------------------------------------------------------------
# Parameters: which part of them is on this rank.


def is_sharded(p: Tensor) -> bool:
    """Whether FSDP has sharded a parameter, which is then a DTensor. (Importing that class to ask
    would cost every program a second.)
    """
    return hasattr(p, "full_tensor")


def unsharded(p: Tensor) -> Tensor:
    """A whole parameter, or its whole gradient, on every rank."""
    return p.full_tensor() if is_sharded(p) else p


def local(p: Tensor) -> Tensor:
    """The part of a parameter that lies on this rank, to read and to fill."""
    return p.detach().to_local() if is_sharded(p) else p.detach()


def own_rows(p: Tensor) -> slice | EllipsisType:
    """Which rows (dimension 0) of a whole parameter lie on this rank, as an index: one of W
    stretches of equal length, of which the last may be shorter or empty. All of it, if unsharded.
    """
    if not is_sharded(p):
        return ...
    rows = p.shape[0]
    length = -(-rows // ranks.world_size())
    return slice(min(ranks.rank() * length, rows), min((ranks.rank() + 1) * length, rows))


@torch.no_grad()
def initialise(model: nn.Module, seed: int, only: tuple[str, ...] = ("",)) -> None:
    """`SAGE.initialise` for any number of ranks: the same weights, of which each rank keeps its own
    rows. Each parameter is drawn whole, one at a time.
    """
    for p, values in model.initial_values(seed, only):
        local(p).copy_(values[own_rows(p)])
    if model.config.embedding == "split":
        local(model.embedding.code.weight).copy_(local(model.embedding.text.weight))


def device_type() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def parameter_device(c: Parallel, device: str) -> str:
    """Where the parameters of a model that computes on `device` are allocated."""
    return "cpu" if c.offload and ranks.launched() else device


# --------------------------------------------------------------------------------------------------
# The model: what backward recomputes, what is compiled, what is sharded.


def recompute_options(c: Parallel, width: int) -> dict | None:
    """Options of torch's `checkpoint` for a block; None where nothing is recomputed.

    "full" keeps a block's input alone. "selective" also keeps attention and every product that is
    no wider than the residual stream: the feed-forward's wide products take most of the memory.
    """
    if c.activation_checkpointing == "none":
        return None
    options = dict(use_reentrant=False, preserve_rng_state=False)  # nothing is drawn in a block
    if c.activation_checkpointing == "full":
        return options
    ops = torch.ops
    weight_argument = {ops.aten.mm.default: 1, ops.aten.addmm.default: 2}  # its place
    attention = {
        ops.sage.landmark_attention.default,
        ops.aten._scaled_dot_product_flash_attention.default,
        ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        ops.aten._scaled_dot_product_efficient_attention.default,
        ops.aten._scaled_dot_product_cudnn_attention.default,
    }

    def policy(context, op, *arguments, **keywords) -> CheckpointPolicy:
        narrow = op in weight_argument and arguments[weight_argument[op]].shape[1] <= width
        keep = narrow or op in attention
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return options | dict(context_fn=partial(create_selective_checkpoint_contexts, policy))


def training_forward(forward: Callable, options: dict | None, compiled: bool) -> Callable:
    """A block's forward pass with activation checkpointing (Chen et al. 2016) and torch.compile.
    Without gradients, as in decoding, the plain one runs.
    """
    if options is None and not compiled:
        return forward
    training = forward
    if options is not None:
        training = partial(checkpoint, forward, **options)
    if compiled:
        training = torch.compile(training, fullgraph=True)

    @wraps(forward)
    def chosen(*arguments, **keywords):
        return (training if torch.is_grad_enabled() else forward)(*arguments, **keywords)

    return chosen


def parallelise(
    model: nn.Module, c: Parallel, dtype: torch.dtype = torch.float32, compile_blocks: bool = False
) -> nn.Module:
    """Prepare a SAGE for training, in place: activation checkpointing, and under torchrun blocks
    compiled one by one and parameters sharded over the ranks. `dtype` is that of matrix products.

    A model to be sharded is best still on the meta device, without memory; `to_empty` then
    allocates this rank's rows alone.
    """
    options = recompute_options(c, model.config.width)
    compiled = compile_blocks and ranks.launched()
    for block in model.blocks:
        block.forward = training_forward(block.forward, options, compiled)
    if ranks.launched():
        shard(model, c, dtype)
    return model


def shard(model: nn.Module, c: Parallel, dtype: torch.dtype) -> None:
    """FSDP2 in groups that are gathered and freed together: the embedding's tables, each block, and
    the root, to which all other parameters belong.

    The root stays gathered until backward has ended, since the loss reads the output matrix outside
    of a forward pass. A tied table, which is that matrix, is therefore the root's.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    offload = CPUOffloadPolicy(pin_memory=device_type() == "cuda")
    options = dict(
        mesh=dist.init_device_mesh(device_type(), (ranks.world_size(),)),
        mp_policy=MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False),
        offload_policy=offload if c.offload else OffloadPolicy(),
    )
    tables = []
    if not model.config.tied:
        tables.append(model.embedding.text)
    if model.config.embedding == "split":
        tables.append(model.embedding.code)
    if tables:
        fully_shard(tables, **options)
    for block in model.blocks:
        fully_shard(block, **options)
    fully_shard(model, reshard_after_forward=False, **options)
    # Our code calls `hidden`, never the model itself. `forward`, which calls `hidden`, would be a
    # second pass around it, at whose end the root's parameters are freed.
    register_fsdp_forward_method(model, "hidden")
    for module in fsdp_modules(model):
        module.set_gradient_divide_factor(1.0)  # a sum: the loss is divided by the global count
        module.set_force_sum_reduction_for_comms(True)


def fsdp_modules(model: nn.Module) -> list[nn.Module]:
    """The groups that `shard` made: none in one process."""
    return [module for module in model.modules() if hasattr(module, "unshard")]


def reshard(model: nn.Module) -> None:
    """Free what is gathered: `model.parameters()` are then the shards, to be saved."""
    for module in fsdp_modules(model):
        module.reshard()


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gather all parameters on every rank, once: inside the block ranks may decode different
    episodes. Takes the memory of the whole model in the dtype of its matrix products.
    """
    modules = fsdp_modules(model)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(module is not model, recurse=False)
        reshard(model)


# --------------------------------------------------------------------------------------------------
# Gradients.


def set_gradient_sync(model: nn.Module, c: Parallel, last: bool) -> None:
    """Before each backward pass of a step: whether it sums gradients over the ranks.

    With `accumulate` "whole" only the `last` pass does, and every rank holds a whole gradient until
    then; with "sharded" every pass does.
    """
    if ranks.launched():
        model.set_requires_gradient_sync(last or c.accumulate == "sharded")


def sum_gradients(module: nn.Module) -> None:
    """Sum over the ranks what FSDP does not: the gradients of unsharded parameters, which are those
    of heads beside the decoder.
    """
    if not ranks.launched():
        return
    for p in module.parameters():
        if p.requires_grad and not is_sharded(p):
            if p.grad is None:  # this rank's examples did not reach it
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The length of a gradient, summed in float64: in float32 it would depend on the order, and so
    on the number of ranks, in its sixth digit. All parameters are sharded, or none is.
    """
    norms = [torch.linalg.vector_norm(local(p.grad), dtype=torch.float64) for p in parameters]
    square = torch.stack(norms).square().sum()
    if is_sharded(parameters[0]):
        square = ranks.total(square)
    return square.sqrt().float()
