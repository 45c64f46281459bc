"""What a run will take, before a GPU is rented: memory per rank, speed, time, size on disk.

    python train.py config/32b.py --dry-run --plan.ranks 64
    python train.py config/32b.py --dry-run --plan.ranks 8 --plan.memory 141

Memory and arithmetic are counted, not estimated. Rank 0's training step runs as train.py makes it,
with FSDP2, activation checkpointing and optimiser, but on fake tensors, which have a shape and no
data, in a fake process group, whose collectives return at once: any size, on any machine, in less
than a minute. `Ledger` writes down each tensor's memory as it comes and goes, and what it is for.
Beside measurements: on one H100 0.5B took 34 GiB and 1.5B 51, and 34.2 and 51.0 were found here of
the same code (the loss has larger chunks since, and 0.5B takes 35.1); torchtitan's Qwen3-32B
reserved 81.9 on each of 8, here 70.8 are live, 83.4 with `MARGIN` (tests/test_plan.py).

What is assumed:
- attention keeps q, k, v, its output and the log-sum-exp, as torch's and our own GPU kernels do;
  the scratch memory of kernels (tens of MB) is left out
- every expert gets the same number of tokens (moe.py)
- steps are traced as they run uncompiled; a compiled block holds less between its operations
- the allocator's gaps, NCCL's buffers and the CUDA context hold no tensor: `MARGIN` stands for them
"""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from unittest import mock
from weakref import ref

import support.openmp  # before torch

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import moe
import parallel
from config import Config, Model, UserError
from losses import cross_entropy, prose_loss
from model import SAGE, flops_per_token
from support.optimizers import make_optimizers

GIB = 2**30
# Of the traced peak, and bytes on top. torchtitan's Qwen3-32B *reserved* 81.85 GiB where the trace
# of that shape finds 70.8 live (1.16×); a CUDA context and NCCL's channels take 1 to 2 GiB.
MARGIN = 0.15
OUTSIDE_TORCH = 2 * GIB

# What memory is for, in the order of the table.
PARAMETERS = "parameters"
OPTIMISER = "optimiser state"
GRADIENTS = "gradients"
WORKING_COPIES = "parameters, gathered or in bfloat16"
WHOLE_GRADIENTS = "gradients, being summed over ranks"
ACTIVATIONS = "activations, and their gradients"
LOGITS = "loss: logits in chunks, gradients"
OTHER = "tokens, scalars"
CATEGORIES = (
    PARAMETERS,
    OPTIMISER,
    GRADIENTS,
    WORKING_COPIES,
    WHOLE_GRADIENTS,
    ACTIVATIONS,
    LOGITS,
    OTHER,
)
SAMPLES = "samples (weights gathered)"
SHARED_OUT = (PARAMETERS, OPTIMISER, GRADIENTS)  # each rank's own rows, float32


# --------------------------------------------------------------------------------------------------
# Arithmetic.


def mean_visible_keys(length: int, window: int, stride: int) -> float:
    """Keys that a query sees, on average over a row of `length` tokens (§2.3): the window before
    it, itself included, and the landmarks before that.
    """
    near = min(length, window)
    pairs = near * (near + 1) // 2 + (length - near) * window
    # a landmark at j is seen beyond their window by the queries from j + window on
    pairs += sum(range(length - window, 0, -stride))
    return pairs / length


def visible_flops_per_token(config: Model, length: int) -> float:
    """`model.flops_per_token` with the pairs that landmark attention sees: 6 FLOPs per multiplying
    weight, and 12·H·d per visible pair and layer.
    """
    keys = sum(mean_visible_keys(length, config.window, stride) for stride in config.strides)
    return flops_per_token(config, 0) + 12 * config.heads * config.head_dim * keys


def places_of_even_load(chosen: Tensor, experts: int) -> list[Tensor]:
    """`moe.places_by_expert` where no token was routed: an equal number for each expert."""
    return list(torch.arange(len(chosen), device=chosen.device).tensor_split(experts))


def attention_flops(q: Tensor, k, v, window: int, stride: int, *others, **keywords) -> float:
    """Of the forward pass of `attention_op` in fast/attention.py: two products per visible pair."""
    B, H, T, d = q.shape
    return 4 * B * H * d * T * mean_visible_keys(T, window, stride)


def attention_backward_flops(gradient: Tensor, *others, **keywords) -> float:
    """Of its backward pass: five products, one of which computes the scores again."""
    q, k, v, _, _, window, stride = others[:7]
    return 2.5 * attention_flops(q, k, v, window, stride)


FLOPS = flop_registry | {
    torch.ops.sage.landmark_attention: attention_flops,
    torch.ops.sage.landmark_attention_backward: attention_backward_flops,
}


# --------------------------------------------------------------------------------------------------
# Memory, as it comes and goes.


def storage_of(x: Tensor) -> torch.UntypedStorage:
    """The memory behind a tensor; of a sharded one, behind this rank's rows."""
    return getattr(x, "_local_tensor", x).untyped_storage()


class Ledger(TorchDispatchMode):
    """Writes down each storage that an operation makes, grows or drops, by weak references.

    `phase` is what the step is doing. What a storage is for may be found out later (a gradient is
    one once it is assigned), so the entries name storages and are summed up at the end.
    """

    def __init__(self):
        super().__init__()
        self.phase = "start"
        self.entries: list[tuple[int, int, str]] = []  # storage's number, change in bytes, phase
        self.categories: list[str] = []  # by number
        self.live: dict[int, tuple[int, int, ref]] = {}  # id → number, bytes, weak reference
        self.flops = 0.0  # executed, by matrix products and attention

    def __enter__(self):
        # FSDP frees gathered parameters by resizing their storage, which is no operation
        self.resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            self.resize(storage, size)
            self.resized(storage, size)
            return storage

        torch.UntypedStorage.resize_ = resize_
        return super().__enter__()

    def __exit__(self, *arguments):
        torch.UntypedStorage.resize_ = self.resize
        return super().__exit__(*arguments)

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = operation(*arguments, **keywords)
        count = FLOPS.get(operation._overloadpacket)
        if count is not None:
            self.flops += count(*arguments, **keywords, out_val=result)
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self.seen(storage_of(x))
        self.classify(operation._overloadpacket, arguments, keywords, result)
        return result

    def classify(self, operation, arguments, keywords, result) -> None:
        """Some operations tell what their tensors are for."""
        if operation is torch.ops.fsdp.all_gather_copy_in:
            self.tag(WORKING_COPIES, arguments)
        elif operation in (torch.ops.fsdp.chunk_cat, torch.ops.c10d._reduce_scatter_base_):
            self.tag(WHOLE_GRADIENTS, arguments, keywords)
        elif operation is torch.ops.aten._to_copy and self.category_of(arguments[0]) == PARAMETERS:
            self.tag(WORKING_COPIES, result)  # autocast's

    def seen(self, storage: torch.UntypedStorage) -> None:
        """Enter a storage that is new."""
        key = id(storage)
        if key in self.live:
            return
        number = len(self.categories)
        by_phase = {"start": OTHER, "loss": LOGITS, "optimiser": OTHER}
        self.categories.append(by_phase.get(self.phase, ACTIVATIONS))
        self.live[key] = (number, storage.nbytes(), ref(storage, lambda _: self.dropped(key)))
        self.entries.append((number, storage.nbytes(), self.phase))

    def dropped(self, key: int) -> None:
        number, size, _ = self.live.pop(key)
        self.entries.append((number, -size, self.phase))

    def resized(self, storage: torch.UntypedStorage, size: int) -> None:
        if id(storage) in self.live:
            number, before, reference = self.live[id(storage)]
            self.live[id(storage)] = (number, size, reference)
            self.entries.append((number, size - before, self.phase))
            self.categories[number] = WORKING_COPIES

    def tag(self, category: str, *tensors) -> None:
        """Say what the memory of some tensors (or of lists of them) is for; parameters stay so."""
        for x in tree_leaves(tensors):
            if isinstance(x, Tensor) and self.category_of(x) not in (None, PARAMETERS):
                number = self.live[id(storage_of(x))][0]
                self.categories[number] = category

    def category_of(self, x: Tensor) -> str | None:
        entry = self.live.get(id(storage_of(x)))
        return self.categories[entry[0]] if entry else None

    def sums(self, end: int | None = None) -> dict[str, int]:
        """Bytes of each category after the first `end` entries, or now."""
        found = dict.fromkeys(CATEGORIES, 0)
        for number, change, _ in self.entries[:end]:
            found[self.categories[number]] += change
        return found

    def peak(self, categories: Collection[str] = CATEGORIES) -> tuple[dict[str, int], str]:
        """Bytes of each of some categories when they took most together, and the phase."""
        changes = [
            change if self.categories[number] in categories else 0
            for number, change, _ in self.entries
        ]
        totals = list(accumulate(changes))
        top = totals.index(max(totals))
        sums = self.sums(top + 1)
        return {category: sums[category] for category in categories}, self.entries[top][2]


# --------------------------------------------------------------------------------------------------
# The traced step.


@dataclass
class Trace:
    """What rank 0 did in a step that ran after a first one."""

    parameters: int  # N, of the whole model
    own: int  # of them on rank 0: N/W, where rows do not divide a little more
    tensors: int  # that the parameters are
    state: dict[str, int]  # bytes by category after the first step
    peak: dict[str, int]  # bytes by category when most memory is taken, the GPU's alone
    phase: str  # when that is
    host: int  # bytes of the host's memory that are taken at most, where it is offloaded
    flops: float  # executed per token, what is computed twice included
    seconds: float  # that tracing took

    @property
    def needed(self) -> float:
        """Bytes that a GPU must have."""
        return sum(self.peak.values()) * (1 + MARGIN) + OUTSIDE_TORCH


@contextmanager
def fake_ranks(count: int):
    """A process group of which this is rank 0, and the others do not exist."""
    if dist.is_initialized():
        raise UserError("--dry-run plans for any number of ranks by itself; start it with python")
    if count == 1:
        yield  # as train.py runs without torchrun
        return
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def trace(config: Config) -> Trace:
    """Run a training step of rank 0 of `config.plan.ranks` on fake tensors, after a first one that
    brought the optimiser's state into being.
    """
    c, ranks = config.train, config.plan.ranks
    # from the second pass on, each finds the sum of the gradients before it: two show all
    passes = min(c.accumulation // ranks, 2)
    dtype = torch.float32 if c.dtype == "float32" else torch.bfloat16
    began = time.perf_counter()
    # own rows are told apart by category: where they lie does not change the rest
    placement = replace(config.parallel, offload=False)
    # a fake CPU, so that a machine with GPUs plans the same; attention as on a GPU
    fake_device = mock.patch("parallel.device_type", lambda: "cpu")
    gpu_attention = mock.patch("fast.attention.choose_implementation", lambda *_: "triton")
    even_load = mock.patch("moe.places_by_expert", places_of_even_load)
    with fake_ranks(ranks), fake_device, gpu_attention, even_load:
        with torch.device("meta"):
            model = SAGE(config.model, seed=None)
        parameters = sum(p.numel() for p in model.parameters())
        parallel.parallelise(model, placement, dtype)
        own = sum(parallel.local(p).numel() for p in model.parameters())
        ledger = Ledger()
        with FakeTensorMode(allow_non_fake_inputs=True), ledger:
            state = take_steps(config, model.to_empty(device="cpu"), passes, dtype, ledger)
    offloaded = SHARED_OUT if config.parallel.offload and ranks > 1 else ()
    here = [category for category in CATEGORIES if category not in offloaded]
    peak, phase = ledger.peak(here)
    host, _ = ledger.peak(offloaded)
    return Trace(
        parameters=parameters,
        own=own,
        tensors=len(list(model.parameters())),
        state=state,
        peak=peak,
        phase=phase,
        host=sum(host.values()),
        flops=ledger.flops / (passes * c.batch * config.data.sequence),
        seconds=time.perf_counter() - began,
    )


def take_steps(
    config: Config, model: SAGE, passes: int, dtype: torch.dtype, ledger: Ledger
) -> dict[str, int]:
    """A step on gradients of zero, then one of so many passes, as train.py makes it; the ledger is
    told what memory is for. Returns its sums after it. Last the weights are gathered, as for
    samples.
    """
    c = config.train
    ledger.tag(PARAMETERS, list(model.parameters()))
    optimizers = make_optimizers(model, c, dtype)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    tokens = torch.zeros(c.batch, config.data.sequence + 1, dtype=torch.int64)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]  # (B, T)
    kinds = torch.zeros(c.batch, config.data.sequence, dtype=torch.uint8)
    routers = moe.find_routers(model)

    def losses() -> Tensor:
        ledger.phase = "forward pass"
        with moe.router_logits(routers) as logits:
            hidden = model.hidden(inputs)  # (B, T, D)
        ledger.phase = "loss"
        loss = cross_entropy(hidden, model.unembedding, targets, c.z_loss)
        if config.model.embedding == "split" and c.prose_weight > 0:
            gate = prose_loss(model.embedding.prose_logits(inputs), kinds)
            loss = loss + c.prose_weight * gate
        if routers:
            k = config.model.experts_per_token
            loss = loss + moe.routing_loss(logits, k, c, step=1)
        return loss / c.accumulation

    def update() -> None:
        ledger.phase = "optimiser"
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ledger.tag(OPTIMISER, list(optimizer.state.values()))

    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    update()
    for number in range(passes):
        parallel.set_gradient_sync(model, config.parallel, last=number == passes - 1)
        with autocast:
            loss = losses()
        ledger.phase = "backward pass"
        loss.backward()
        del loss
        ledger.tag(GRADIENTS, [p.grad for p in model.parameters()])
    update()
    state = ledger.sums()
    if c.sample_every:
        ledger.phase = SAMPLES
        with parallel.gathered(model):
            pass
    return state


# --------------------------------------------------------------------------------------------------
# What is printed.


def report(config: Config) -> None:
    """Print what a run of train.py would take, and whether it fits. Raises UserError for ranks that
    cannot share out a step's passes.
    """
    accumulation, ranks = config.train.accumulation, config.plan.ranks
    if accumulation % ranks:
        raise UserError(
            f"the {accumulation} passes of a step (train.accumulation) cannot be shared out evenly "
            f"over {ranks} ranks (plan.ranks); make them a multiple, such as "
            f"{-(-accumulation // ranks) * ranks}"
        )
    found = trace(config)
    print("\n".join([*memory_lines(config, found), *cost_lines(config, found), ""]), flush=True)
    needed = f"{gib(found.needed)} GiB of {config.plan.memory:g}"
    if has_room(config, found):
        print(f"fits        {needed}")
        return
    print(f"too large   {needed}. Traced again, each setting on top of those before it:")
    seek_fit(config, found)


def has_room(config: Config, found: Trace) -> bool:
    return found.needed <= config.plan.memory * GIB


def gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def step_tokens(config: Config) -> int:
    return config.train.batch * config.train.accumulation * config.data.sequence


def memory_lines(config: Config, found: Trace) -> list[str]:
    """The model, the step and the table of memory."""
    c, ranks = config.train, config.plan.ranks
    passes = c.accumulation // ranks
    checkpointing = config.parallel.activation_checkpointing
    idle = ""
    if config.model.experts:
        active = found.parameters - moe.idle_parameters(config.model)
        idle = f", of which a token uses {active:,}"
    lines = [
        f"model       {found.parameters:,} parameters, {config.model.layers} layers × "
        + f"{config.model.width}{idle}",
        f"step        {c.batch} × {config.data.sequence:,} tokens in each of {passes} passes on "
        + f"each of {ranks} ranks: {step_tokens(config):,} tokens",
        f"            activation checkpointing: {checkpointing}; optimiser: {c.optimizer}",
        "",
        f"{'memory of one rank, GiB':42}{'at the peak':>12}{'after a step':>15}",
    ]
    for category, size in found.peak.items():
        kept = gib(found.state[category]) if category in SHARED_OUT else ""
        lines.append(f"  {category:40}{gib(size):>12}{kept:>15}".rstrip())
    peak = sum(found.peak.values())
    state = sum(found.state[category] for category in SHARED_OUT)
    lines += [
        f"  {'together, in the ' + found.phase:40}{gib(peak):>12}{gib(state):>15}",
        f"  {'with gaps, NCCL and CUDA (assumed)':40}{gib(found.needed):>12}",
    ]
    if found.host:
        lines.append(f"  {'offloaded, in the host memory':40}{gib(found.host):>12}")
    if c.optimizer == "adamw":
        share = 12 * found.parameters / ranks
        beyond = state - share
        lines.append(
            f"  12·N/W bytes are {gib(share)} GiB: after a step {beyond:+,.0f} bytes (uneven rows, "
            + "counters)"
        )
    return [*lines, ""]


def cost_lines(config: Config, found: Trace) -> list[str]:
    """Arithmetic, speed, duration and size on disk."""
    plan, T = config.plan, config.data.sequence
    visible = visible_flops_per_token(config.model, T)
    logged = flops_per_token(config.model, T)
    speed = plan.ranks * plan.tflops * 1e12 * plan.mfu / logged  # tokens per second
    tokens = plan.tokens or config.train.steps * step_tokens(config)
    hours = tokens / speed / 3600
    N, per_step = found.parameters, step_tokens(config)
    return [
        f"compute     {visible / 1e9:,.2f} GFLOP per token for what landmark attention sees; "
        + f"{logged / 1e9:,.2f} as the log's",
        f"            MFU counts (min(T, W + T/k) pairs); {found.flops / 1e9:,.2f} executed, with "
        + "what is computed twice",
        f"speed       {speed:,.0f} tokens/s at an MFU of {plan.mfu:.0%} of {plan.ranks} × "
        + f"{plan.tflops:g} TFLOP/s (by executed FLOPs {plan.mfu * found.flops / logged:.0%});",
        f"            a step takes {per_step / speed:,.1f} s",
        f"time        {hours / 24:,.1f} days, {hours * plan.ranks:,.0f} GPU-hours, for "
        + f"{tokens / 1e9:,.1f}B tokens in {tokens / per_step:,.0f} steps",
        f"disk        {gib(12 * N)} GiB per checkpoint, {config.train.keep} of them kept; the "
        + f"weights alone, in bfloat16, {gib(2 * N)}",
        f"traced in {found.seconds:.0f} s",
    ]


def seek_fit(config: Config, found: Trace) -> None:
    """Trace again with one remedy on top of another, cheapest first, until it fits."""
    if found.phase == SAMPLES:
        config = replace(config, train=replace(config.train, sample_every=0))
        if try_settings("--train.sample-every 0", config):
            return
    for words, cheaper in cheaper_settings(config):
        config = cheaper
        if try_settings(words, config):
            return
    ranks = config.plan.ranks * 2
    while config.train.accumulation % ranks == 0 and ranks <= 1024:
        more = replace(config, plan=replace(config.plan, ranks=ranks))
        if try_settings(f"--plan.ranks {ranks}", more):
            break
        ranks *= 2
    if config.plan.ranks > 1 and not config.parallel.offload:
        offloaded = replace(config, parallel=replace(config.parallel, offload=True))
        try_settings("or, slowly, on as many ranks as asked: --parallel.offload", offloaded)


def try_settings(words: str, config: Config) -> bool:
    """Print what a trace with other settings needs; whether it fits."""
    found = trace(config)
    verdict = "fits" if has_room(config, found) else "too large"
    if found.host:
        verdict += f" with {gib(found.host)} on the host"
    print(f"  {words:58}{gib(found.needed):>8} GiB, {verdict}", flush=True)
    return has_room(config, found)


def cheaper_settings(config: Config) -> Iterator[tuple[str, Config]]:
    """Settings that take less memory for the same step, each on top of those before."""
    placement = config.parallel
    if config.plan.ranks > 1 and placement.accumulate == "whole":
        placement = replace(placement, accumulate="sharded")
        config = replace(config, parallel=placement)
        if config.train.accumulation > config.plan.ranks:
            yield "--parallel.accumulate sharded", config
    modes = ["none", "selective", "full"]
    for mode in modes[modes.index(placement.activation_checkpointing) + 1 :]:
        config = replace(config, parallel=replace(placement, activation_checkpointing=mode))
        yield f"--parallel.activation-checkpointing {mode}", config
    while config.train.batch > 1:
        batch = config.train.batch // 2
        accumulation = config.train.accumulation * config.train.batch // batch
        config = replace(
            config, train=replace(config.train, batch=batch, accumulation=accumulation)
        )
        yield f"--train.batch {batch} --train.accumulation {accumulation}", config
