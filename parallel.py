"""One model on many devices: FSDP2 from the outside. model.py has no line for it.

    torchrun --nproc-per-node 8 train.py config/32b.py

Every rank holds 1/W of each parameter, of its gradient and of its optimiser state, in float32
(fully sharded data parallelism, ZeRO-3). Before a block computes, its parameters are gathered from
all ranks in the dtype of the products, and dropped after it; its gradients are summed in float32,
and each rank keeps its own part of the sum.

A step is the same whatever the number of ranks W: its examples are shared out (`share`), the loss
is a sum over a rank's own tokens divided by the count over all, and gradients are added.

A script's loop shows a few calls: `share`, `own_part` or `in_turns` of its data, `synchronise`
before each backward pass, `total` of a figure, and `gathered` around decoding. A process that
torchrun did not start is alone: they then do nothing, but for activation checkpointing, which
`spread` gives to one device as well.
"""

import contextlib
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial, wraps
from itertools import zip_longest
from types import EllipsisType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy
from torch.distributed.fsdp import OffloadPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from config import Parallel, UserError
from support.rendezvous import meet

# --------------------------------------------------------------------------------------------------
# The ranks: one process per device, all of them running the same script.


def start() -> None:
    """Join the other ranks, if torchrun started this process; all but the first fall silent.

    Raises UserError where the ranks have different versions of torch.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    timeout = timedelta(minutes=30)
    store, number, count = meet(timeout)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")
    check_versions(gather(torch.__version__))


def stop() -> None:
    """Leave the other ranks, at the end of a script."""
    if is_sharded():
        dist.destroy_process_group()


def check_versions(found: list[str]) -> None:
    """Raise UserError where the ranks' versions of torch differ."""
    if len(set(found)) > 1:
        listed = ", ".join(f"rank {number} has {version}" for number, version in enumerate(found))
        raise UserError(
            f"the ranks run different versions of torch ({listed}); install one of them everywhere"
        )


def is_first_to_say(text: str) -> bool:
    """Whether no other rank has said this before: what all ranks find is said once."""
    if not is_sharded():
        return True
    store = dist.distributed_c10d._get_default_store()
    return store.add(f"said {zlib.crc32(text.encode())}", 1) == 1


def restarts() -> int:
    """How often torchrun has restarted the run (--max-restarts): it then resumes by itself."""
    return max(gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))))


def is_sharded() -> bool:
    """Whether torchrun started this process: models are then sharded, with one rank too."""
    return dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_sharded() else 0


def world_size() -> int:
    """W, the number of ranks."""
    return dist.get_world_size() if is_sharded() else 1


def gather(value: Any) -> list:
    """Every rank's value, in the order of ranks."""
    values = [value] * world_size()
    if is_sharded():
        began = time.perf_counter()
        dist.all_gather_object(values, value)
        _waited.append(time.perf_counter() - began)
    return values


_waited: list[float] = []  # seconds


def seconds_waited() -> float:
    """How long this rank has waited in `gather` for the others since the last call."""
    seconds = sum(_waited)
    _waited.clear()
    return seconds


def from_first(value: Any) -> Any:
    """The first rank's value: what was measured, or drawn, must be the same everywhere."""
    return gather(value)[0]


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without a gradient."""
    value = value.detach().clone()
    if is_sharded():
        dist.all_reduce(value)
    return value


def any_rank(flag: bool) -> bool:
    """Whether a flag is set on some rank."""
    return bool(total(torch.tensor(float(flag))))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What a user or a disk did wrong on one rank stops all of them, with one message.

    A UserError or OSError inside the block is raised on all ranks at its end, as a UserError.
    """
    problem = None
    try:
        yield
    except (UserError, OSError) as error:
        if not is_sharded():
            raise
        problem = error
    found = {number: str(p) for number, p in enumerate(gather(problem)) if p is not None}
    if found:
        number, text = next(iter(found.items()))
        whose = "" if len(found) == world_size() else f" (rank {number} of {world_size()})"
        raise UserError(text + whose) from problem


def share(items: Sequence) -> Sequence:
    """This rank's part of some work: every W-th item."""
    return items[rank() :: world_size()]


def collect(mine: Iterable) -> list:
    """The results of all the work that was shared out, in the order before `share` or `in_turns`;
    on every rank.
    """
    missing = object()
    turns = zip_longest(*gather(list(mine)), fillvalue=missing)
    return [item for turn in turns for item in turn if item is not missing]


def own_part(rows: int) -> tuple[slice, bool]:
    """This rank's stretch of the rows of a batch, and whether it counts: where there are fewer rows
    than ranks, some ranks read what others read already, since all must make the same passes.
    """
    length = -(-rows // world_size())
    first = rank() * length
    return (slice(first, first + length), True) if first < rows else (slice(0, length), False)


def in_turns(items: Iterable) -> Iterator[tuple[Any, bool]]:
    """This rank's part of some work, where each item is a forward pass: all ranks must make equally
    many, so where the last items are fewer than ranks, the others get one that does not count.
    """
    for group in zip_longest(*[iter(items)] * world_size()):
        mine = group[rank()]
        yield (group[0], False) if mine is None else (mine, True)


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
            compiled=compile_blocks and is_sharded(),
        )
    if not is_sharded():
        return model
    options = dict(
        mesh=dist.init_device_mesh(device_type(), (world_size(),)),
        mp_policy=MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False),
        offload_policy=CPUOffloadPolicy() if c.offload else OffloadPolicy(),
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
    return "cpu" if c.offload and is_sharded() else device


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
    if is_sharded():
        model.set_requires_gradient_sync(last or c.accumulate == "sharded")


def sum_gradients(module: nn.Module) -> None:
    """Sum the gradients of parameters that are whole on every rank: heads beside the decoder."""
    for p in module.parameters():
        if is_sharded() and p.requires_grad and not isinstance(p, DTensor):
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
    return (total(square) if isinstance(parameters[0], DTensor) else square).sqrt().float()


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
    length = -(-rows // world_size())
    return slice(min(rank() * length, rows), min((rank() + 1) * length, rows))


@torch.no_grad()
def initialise(model: nn.Module, seed: int, only: tuple[str, ...] = ("",)) -> None:
    """`SAGE.initialise` for any number of ranks: the same weights, each rank keeping its own rows.

    Each parameter is drawn whole, one at a time.
    """
    for p, values in model.initial_values(seed, only):
        local(p).copy_(values[own_rows(p)])
    if model.config.embedding == "split":
        local(model.embedding.code.weight).copy_(local(model.embedding.text.weight))
