"""One model on many devices: FSDP2 from the outside. model.py has no line for it.

    torchrun --nproc-per-node 8 train.py config/32b.py

Every rank holds 1/W of each parameter, of its gradient and of its optimiser state, in float32
(fully sharded data parallelism, ZeRO-3). Before a block computes, its parameters are gathered from
all ranks in the dtype of the products, and dropped after it; its gradients are summed in float32,
and each rank keeps its own part of the sum.

A step is the same whatever the number of ranks W: its examples are shared out, the loss is a sum
over a rank's own tokens divided by the count over all, and gradients are added. So a script's loop
shows a few calls: `ranks.share`, `own_part` or `in_turns` of its data (support/ranks.py),
`synchronise` before each backward pass, `ranks.total` of a figure, and `gathered` around decoding.

A process that torchrun did not start is alone: all of it then does nothing, but for activation
checkpointing, which `spread` gives to one device as well.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import EllipsisType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy
from torch.distributed.fsdp import OffloadPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from config import Parallel
from support import ranks

# --------------------------------------------------------------------------------------------------
# The model: what is computed twice, what is compiled, what is sharded.


def spread(
    model: nn.Module, c: Parallel, dtype: torch.dtype = torch.float32, compile_blocks: bool = False
) -> nn.Module:
    """Prepare a SAGE for training on this rank's device, or on all of them; returns it.

    Under torchrun it is best still on the meta device, without memory: `to_empty` then gives each
    rank its own rows (`own_rows`) to fill. `dtype` is that of the products.
    """
    for block in model.blocks:
        block.forward = trained_forward(
            block.forward,
            recompute_options(c, model.config.width),
            compiled=compile_blocks and ranks.launched(),
        )
    if not ranks.launched():
        return model
    offload = CPUOffloadPolicy(pin_memory=device_type() == "cuda")
    options = dict(
        mesh=dist.init_device_mesh(device_type(), (ranks.world_size(),)),
        mp_policy=MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False),
        offload_policy=offload if c.offload else OffloadPolicy(),
    )
    # What the loss reads outside of a forward pass stays gathered until backward has ended: the
    # root's own parameters, which are those that are in no other group.
    tied = model.head is None
    tables = [
        table
        for name, table in model.embedding.named_children()
        if isinstance(table, nn.Embedding) and name != "ids" and not (tied and name == "text")
    ]
    if tables:
        fully_shard(tables, **options)
    for block in model.blocks:
        fully_shard(block, **options)
    fully_shard(model, reshard_after_forward=False, **options)
    # hidden is the forward pass of all our code; the model's own, which calls it, would be a second
    # one around it, at whose end the root's parameters are dropped
    register_fsdp_forward_method(model, "hidden")
    for module in fsdp_modules(model):
        module.set_gradient_divide_factor(1.0)  # a sum: the loss is divided by the global count
        module.set_force_sum_reduction_for_comms(True)
    return model


def device_type() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def home_of_shards(c: Parallel, device: str) -> str:
    """Where the parameters of a model that computes on `device` are allocated."""
    return "cpu" if c.offload and ranks.launched() else device


def fsdp_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def trained_forward(forward: Callable, options: dict | None, compiled: bool) -> Callable:
    """A block's forward pass as it is taken in training; without gradients, as in decoding, it
    stays what it is.

    `options` are those of torch's checkpoint: backward computes the pass again (Chen et al. 2016).
    """
    training = forward
    if options is not None:
        training = partial(checkpoint, forward, **options)
    if compiled:
        training = torch.compile(training, fullgraph=True)

    @wraps(forward)
    def chosen(*arguments, **keywords):
        return (training if torch.is_grad_enabled() else forward)(*arguments, **keywords)

    return forward if training is forward else chosen


def recompute_options(c: Parallel, width: int) -> dict | None:
    """What backward computes again: all of a block but its input, or, selectively, what is neither
    attention nor a product no wider than the residual stream. The feed-forward's wide products hold
    most of the memory.
    """
    if c.activation_checkpointing == "none":
        return None
    options = dict(use_reentrant=False, preserve_rng_state=False)  # nothing is drawn in a block
    if c.activation_checkpointing == "full":
        return options
    ops = torch.ops
    products = {ops.aten.mm.default: 1, ops.aten.addmm.default: 2}  # the place of the matrix
    attention = {
        ops.sage.landmark_attention.default,
        ops.aten._scaled_dot_product_flash_attention.default,
        ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        ops.aten._scaled_dot_product_efficient_attention.default,
        ops.aten._scaled_dot_product_cudnn_attention.default,
    }

    def policy(context, op, *arguments, **keywords) -> CheckpointPolicy:
        narrow = op in products and arguments[products[op]].shape[1] <= width
        keep = narrow or op in attention
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    return options | dict(context_fn=partial(create_selective_checkpoint_contexts, policy))


def synchronise(model: nn.Module, c: Parallel, last: bool) -> None:
    """Before each backward pass of a step: whether its gradients are summed over the ranks.

    Where they accumulate whole, only the `last` pass sends anything, at the cost of a whole
    gradient on every rank; sharded, every pass does.
    """
    if ranks.launched():
        model.set_requires_gradient_sync(last or c.accumulate == "sharded")


def sum_gradients(module: nn.Module) -> None:
    """Sum the gradients of parameters that are whole on every rank: heads beside the decoder."""
    for p in module.parameters():
        if ranks.launched() and p.requires_grad and not isinstance(p, DTensor):
            if p.grad is None:  # a rank whose examples did not reach it
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The length of a gradient, summed in float64: in float32 it would depend on the order, and so
    on the number of ranks, in its sixth digit. All parameters are sharded, or none is.
    """
    squares = [
        torch.linalg.vector_norm(local(p.grad), dtype=torch.float64) ** 2 for p in parameters
    ]
    square = torch.stack(squares).sum()
    return (ranks.total(square) if isinstance(parameters[0], DTensor) else square).sqrt().float()


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gather all parameters on every rank, once: inside, ranks may decode different episodes, of
    different lengths. Takes the memory of the whole model in the dtype of its products.
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


def reshard(model: nn.Module) -> None:
    """Drop what is gathered: `model.parameters()` are then the shards, to be saved."""
    for module in fsdp_modules(model):
        module.reshard()


# --------------------------------------------------------------------------------------------------
# The parameters: which part of them is here.


def unsharded(p: Tensor) -> Tensor:
    """The whole of a parameter, or of its gradient, on every rank."""
    return p.full_tensor() if isinstance(p, DTensor) else p


def local(p: Tensor) -> Tensor:
    """The part of a parameter that lies on this rank, to read and to fill."""
    return p.detach().to_local() if isinstance(p, DTensor) else p.detach()


def own_rows(p: Tensor) -> slice | EllipsisType:
    """Which rows (dimension 0) of a whole parameter lie on this rank, as an index: W stretches of
    equal length, the last ones shorter or empty; all of it, where it is not sharded.
    """
    if not isinstance(p, DTensor):
        return ...
    rows = p.shape[0]
    length = -(-rows // ranks.world_size())
    return slice(min(ranks.rank() * length, rows), min((ranks.rank() + 1) * length, rows))


@torch.no_grad()
def initialise(model: nn.Module, seed: int, only: tuple[str, ...] = ("",)) -> None:
    """`SAGE.initialise` for any number of ranks: the same weights, each rank keeping its own rows.

    Each parameter is drawn whole, one at a time.
    """
    for p, values in model.initial_values(seed, only):
        local(p).copy_(values[own_rows(p)])
    if model.config.embedding == "split":
        local(model.embedding.code.weight).copy_(local(model.embedding.text.weight))
