"""Every figure of this project that needs a GPU, by one command and within a time that one states.

    python bench/gpu.py                        the most important figures first, eight minutes
    python bench/gpu.py --rest                 then again, for what found no time: compilers'
                                               caches are filled by then
    python bench/gpu.py --only steps,decoding  of some sections
    python bench/gpu.py --tiny                 the same at a toy's size on any machine: what a test
                                               runs; its figures mean nothing
    python bench/gpu.py --record FILE          enters the figures of a run, also of another
                                               machine's, in docs/results/gpu.json

A case (one length of the kernels, one size of a training step, …) runs in a process of its own,
which is ended when the time is over. What stands beside each other in a case is measured in turns,
and medians are what to read; a training step's peer comes after it, since two models and their
optimisers do not fit together. Each figure is printed as it is measured and appended to a file of
JSON lines at once, with the machine's and the software's names; what fails is recorded with its
reason, and so is what found no time. Legend as in model.py.
"""

import argparse
import contextlib
import gc
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import zip_longest
from multiprocessing.connection import Connection
from pathlib import Path

BEGAN = time.monotonic()  # importing takes seconds, too
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# whether there is a GPU is then asked without touching it: a process that has done so cannot fork
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import support.openmp  # before torch

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton: its kernels then run on a CPU

import torch.nn.functional as F
import transformers
import triton
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

import cases
import parallel
from attention import LandmarkCache, landmark_attention, visible
from cases import Bench, Call, Case
from config import Config, Data, DryRun, Model, Parallel, Train
from fast import kernels
from fast.attention import decode_op
from fast.compiling import compile_training
from fast.decoding import compiled_step
from fast.graphs import StepGraph
from generate import generate, read_token
from losses import cross_entropy
from model import SAGE, flops_per_token
from support import plan, result_tables
from support.log import read_log
from support.optimizers import make_optimizers
from support.pretrained import tensor_name, config_shape
from support.qwen_sizes import SIZES

# What is measured, and how much of it
# --------------------------------------------------------------------------------------------------


@dataclass
class Scale:
    """The sizes of all that is measured: a GPU's, or a toy's, which a test runs on a CPU."""

    device: str
    dtype: torch.dtype = torch.bfloat16
    matrix: int = 8192  # rows and columns of the products that give the matrix peak
    copied: int = 2 << 30  # bytes of the copy that gives the memory's bandwidth
    attention: Model = field(default_factory=lambda: replace(SIZES["32B"], layers=1))
    lengths: tuple[int, ...] = (32_768, 131_072, 8192)  # T of the kernels
    tiled: tuple[tuple[str, int], ...] = (("0.5B", 16_384), ("32B", 32_768))  # shape and T
    tiles: dict[str, tuple] = field(default_factory=lambda: TILES)
    models: dict[str, Model] = field(default_factory=lambda: SIZES)
    # of a training step: model, sequences × tokens, and the activation checkpointing it needs
    steps: tuple[tuple[str, int, int, str], ...] = (
        ("0.5B", 4, 4096, "none"),
        ("0.5B", 1, 16_384, "none"),
        ("1.5B", 4, 4096, "selective"),
        ("1.5B", 1, 16_384, "selective"),
    )
    decoded: tuple[str, ...] = ("0.5B", "7B")  # the models that decode
    batches: tuple[int, ...] = (1, 8, 64)
    tokens: int = 32  # that are decoded in one turn
    turns: int = 5  # at most, of what is measured beside each other
    seconds: float = 12.0  # after which no further turn begins, once there are two
    patience: float = 100.0  # seconds until a contestant's first call, which compiles, is given up
    lineage: dict[str, str] = field(default_factory=lambda: LINEAGE)


# What is tried instead of fast/kernels.py's own: (queries, keys, warps, stages) of each kernel
QUERY_TILES = ((64, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 3))
KEY_TILES = ((32, 64, 4, 3), (64, 64, 4, 3), (64, 128, 8, 2), (32, 128, 8, 2))
TILES = dict(forward=QUERY_TILES, dq=QUERY_TILES, window=KEY_TILES, landmark=KEY_TILES)

# config/small.py's stages, cut short: the run's name → the command. Stage distill is long enough
# for the agent to end its messages, without which the heads have nothing to learn from.
LINEAGE = {
    "base": "train.py --train.steps 60 --train.sample-every 0 --train.log-every 10",
    "distilled": "distill.py --stage distill --distill.steps 200 --distill.trajectories 8000 "
    "--distill.log-every 10",
    "reflected": "distill.py --stage reflect --distill.reflect-steps 20 --distill.rounds 1 "
    "--distill.tasks 100 --distill.replay 2 --distill.log-every 5",
    "safe": "rl.py --stage dpo --dpo.steps 20 --dpo.pairs 400 --dpo.trajectories 200 "
    "--dpo.log-every 5",
    "sage": "rl.py --stage ppo --ppo.steps 3 --ppo.trajectories 200 --ppo.log-every 1",
    "thinking": "heads.py --heads.steps 20 --heads.tasks 300 --heads.trajectories 100 "
    "--heads.validation 60 --heads.log-every 5",
}

_TOY = Model(width=64, layers=2, heads=2, kv_heads=1, feed_forward=96, window=64, head_dim=32)
_TOY_RUN = (
    " --model.width 32 --model.layers 1 --model.heads 2 --model.kv-heads 1 --model.head-dim 16 "
    "--model.feed-forward 48 --model.context 640"
)


def toy_scale(device: str) -> Scale:
    """The same at a size that a CPU computes in seconds, the kernels in Triton's interpreter."""
    stages = {
        "base": "train.py --train.steps 2 --train.batch 2 --train.eval-batches 1 "
        "--data.path worlds --data.sequence 32 --train.sample-every 0",
        "distilled": "distill.py --stage distill --distill.steps 2 --distill.trajectories 8 "
        "--distill.batch 1",
        "reflected": "distill.py --stage reflect --distill.reflect-steps 1 --distill.rounds 1 "
        "--distill.tasks 4 --distill.batch 1 --distill.tries 0",
        "safe": "rl.py --stage dpo --dpo.steps 2 --dpo.pairs 4 --dpo.trajectories 4 --dpo.batch 1 "
        "--dpo.replay-rows 1",
        "sage": "rl.py --stage ppo --ppo.steps 1 --ppo.prompts 1 --ppo.samples 2 --ppo.room 16 "
        "--ppo.trajectories 8 --ppo.replay-rows 1 --ppo.log-every 1",
    }
    return Scale(
        device,
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        matrix=256,
        copied=1 << 20,
        attention=replace(_TOY, layers=1, heads=2, head_dim=64, landmark_stride=16),
        lengths=(256,),
        tiled=(("tile", 96),),
        tiles=dict(forward=((16, 16, 4, 1),), window=((16, 16, 4, 1),)),
        models={"toy": _TOY, "tile": replace(_TOY, head_dim=64, window=32, landmark_stride=16)},
        steps=(("toy", 2, 96, "selective"),),
        decoded=("toy",),
        batches=(1, 2),
        tokens=4,
        turns=2,
        seconds=1.0,
        lineage={stage: command + _TOY_RUN for stage, command in stages.items()},
    )


# The roof
# --------------------------------------------------------------------------------------------------

ROOF = ["matrix peak", "bandwidth"]


def measure_roof(bench: Bench, scale: Scale) -> None:
    """The rate of a large matrix product, and the bandwidth of a large copy, read and written."""
    size = (scale.matrix, scale.matrix)
    calls = {}
    with bench.contestant(*ROOF):
        a = torch.randn(size, device=scale.device).to(scale.dtype)
        b = torch.randn(size, device=scale.device).to(scale.dtype)
        source = torch.zeros(scale.copied, dtype=torch.uint8, device=scale.device)
        target = torch.empty_like(source)
        calls = {"matrix peak": partial(torch.mm, a, b), "bandwidth": partial(target.copy_, source)}
        for call in calls.values():
            call()
    done = {"matrix peak": (2e-12 * scale.matrix**3, "TFLOP/s")}
    done["bandwidth"] = (2e-12 * scale.copied, "TB/s")
    clocks = {name: partial(bench.kernel_seconds, call) for name, call in calls.items()}
    for name, times in bench.in_turns(clocks).items():
        bench.figure(name, times, *done[name])


# Attention
# --------------------------------------------------------------------------------------------------


BLOCK = 128  # FlexAttention's, of queries and of keys


def flex_mask(
    T: int, window: int, stride: int, packed: bool, device: str
) -> tuple[BlockMask, Callable]:
    """FlexAttention's mask of landmark attention, from the blocks: without a T × T tensor.

    `packed`: the columns are [landmarks; all keys], so that blocks between the window and the
    landmarks are skipped; otherwise they are the keys, and a landmark stands in every block.
    Returns the mask, and it as a function of indices.
    """
    landmarks = -(-T // stride) if packed else 0

    def seen(b, h, i, j):
        if not packed:
            return visible(i, j, window, stride)
        position = j - landmarks
        near = (position >= 0) & (position <= i) & (i - position < window)
        return near | (j < landmarks) & (i - j * stride >= window)

    # The queries that see a column are consecutive: from the first to the last one.
    position = torch.arange(T, device=device)
    first = position
    last = position + window - 1
    if packed:
        first = torch.cat([position[::stride] + window, first])  # (columns,)
        last = torch.cat([torch.full_like(position[::stride], T), last])
    else:
        last = torch.where(position % stride == 0, T, last)
    columns = landmarks + T
    blocks = -(-columns // BLOCK)
    padding = (0, blocks * BLOCK - columns)  # columns that nobody sees
    first = F.pad(first, padding, value=2 * T)
    last = F.pad(last, padding, value=-1)

    start = torch.arange(0, T, BLOCK, device=device)[:, None]  # of each block of queries
    end = start + BLOCK - 1
    by_some = (first <= end.clamp(max=T - 1)) & (last >= start)  # (query blocks, columns)
    by_all = (first <= start) & (last >= end) & (end < T)
    some = by_some.view(len(start), blocks, BLOCK).any(-1)  # (query blocks, column blocks)
    whole = by_all.view(len(start), blocks, BLOCK).all(-1)

    def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """How many blocks are chosen in each row, and all blocks, the chosen ones first."""
        order = chosen.int().argsort(dim=-1, descending=True, stable=True)
        return chosen.sum(-1).int()[None, None], order.int()[None, None]

    mask = BlockMask.from_kv_blocks(
        *listed(some & ~whole), *listed(whole), BLOCK, seen, seq_lengths=(T, columns)
    )
    return mask, seen


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def flex(scale: Scale, T: int, packed: bool) -> Attend:
    """FlexAttention, with the mask or over packed columns."""
    window, stride = scale.attention.window, scale.attention.landmark_stride
    block_mask, _ = flex_mask(T, window, stride, packed, scale.device)
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if packed:
            k = torch.cat([k[:, :, ::stride], k], 2)
            v = torch.cat([v[:, :, ::stride], v], 2)
        return compiled(q, k, v, block_mask=block_mask, enable_gqa=True)

    return attend


def dense(backend: SDPBackend) -> Attend:
    """torch's attention over all keys before each query: more pairs than landmark attention's."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return attend


def landmark(scale: Scale) -> Attend:
    """Ours, by the kernels."""
    pattern = dict(window=scale.attention.window, stride=scale.attention.landmark_stride)
    return partial(landmark_attention, **pattern, implementation="triton")


# name → how to make it, for a scale and T. The first one is what the others' outputs are compared
# with; those marked as dense compute something else.
ATTENTIONS: dict[str, Callable[[Scale, int], Attend]] = {
    "landmark": lambda scale, T: landmark(scale),
    "FlexAttention, packed": lambda scale, T: flex(scale, T, packed=True),
    "SDPA cuDNN (dense)": lambda scale, T: dense(SDPBackend.CUDNN_ATTENTION),
    "SDPA flash (dense)": lambda scale, T: dense(SDPBackend.FLASH_ATTENTION),
    "FlexAttention, mask": lambda scale, T: flex(scale, T, packed=False),
}
WAYS = {"forward": 4, "backward": 10}  # flops per visible pair and dimension of a head
DECODERS = ["landmark, launched", "landmark, CUDA graph", "SDPA (all keys)"]


def visible_pairs(shape: Model, T: int) -> float:
    """Pairs of a query and a key that it sees, of all heads."""
    keys = plan.mean_visible_keys(T, shape.window, shape.landmark_stride)
    return shape.heads * T * keys


def kernel_names(T: int) -> list[str]:
    names = [f"{way}, {T} tokens, {name}" for name in ATTENTIONS for way in WAYS]
    return names + [f"decode, {T} tokens, {name}" for name in DECODERS]


def measure_kernels(bench: Bench, scale: Scale, T: int) -> None:
    """Attention forward and backward at Qwen2.5-32B's shape, and of one new token over a cache.

    TFLOP/s count visible pairs alone, whatever else a contestant computes. A forward pass also
    keeps what the backward pass needs.
    """
    shape = scale.attention
    torch.manual_seed(T)
    q, k, v = (
        torch.randn(
            1, heads, T, shape.head_dim, device=scale.device, dtype=scale.dtype, requires_grad=True
        )
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
    )
    given = (q, k, v)
    if scale.device == "cpu":  # where FlexAttention refuses what needs a gradient
        given = (q.detach(), k.detach(), v.detach())
    incoming = torch.randn_like(q)
    torch._functorch.config.donated_buffer = False  # a graph's backward pass is run many times

    calls = {}
    also = {}
    wanted = None  # the first contestant's output
    for name, make in ATTENTIONS.items():
        forward, backward = (f"{way}, {T} tokens, {name}" for way in WAYS)
        with bench.contestant(forward, backward):
            start = time.perf_counter()
            attend = make(scale, T)
            out = attend(*given).detach()
            bench.synchronize()
            also[forward] = {"first call, s": time.perf_counter() - start}
            if wanted is None:
                wanted = out
            elif "dense" not in name:
                difference = (out - wanted).abs().max().item()
                also[forward]["largest difference from ours"] = difference
            calls[forward] = partial(attend, *given)
        if forward in calls:
            with bench.contestant(backward):
                out = attend(q, k, v)
                gradients = partial(torch.autograd.grad, out, (q, k, v), incoming)
                calls[backward] = partial(gradients, retain_graph=True)
                calls[backward]()

    clocks = {name: partial(bench.kernel_seconds, call) for name, call in calls.items()}
    pairs = visible_pairs(shape, T)
    for name, times in bench.in_turns(clocks).items():
        flops = WAYS[name.split(",")[0]] * shape.head_dim * pairs
        bench.figure(name, times, flops / 1e12, "TFLOP/s", flops=flops, **also.get(name, {}))
    measure_decode_kernels(bench, scale, q, k, v)


@torch.no_grad()
def measure_decode_kernels(bench: Bench, scale: Scale, q: Tensor, k: Tensor, v: Tensor) -> None:
    """One new token after T: over the cache's slots, by launches that the host waits for and as a
    graph with a cold cache, as it is in a model's step; and over all keys.
    """
    T = q.shape[2]
    cache = LandmarkCache(scale.attention, 1, T, scale.dtype, scale.device)
    keys, values = cache.keys[0], cache.values[0]
    slots = keys.shape[2] - 1  # without the spare
    last = torch.full((1,), T - 1, device=scale.device)
    token = q[:, :, -1:].detach()

    def over_slots() -> Tensor:
        return decode_op(token, keys, values, last, cache.ring, slots, cache.stride)

    def over_all_keys() -> Tensor:
        return F.scaled_dot_product_attention(token, k, v, enable_gqa=True)

    cached = keys.nbytes + values.nbytes
    launched = partial(bench.wall_seconds, count=50 if scale.device == "cuda" else 1)
    contestants = {  # how to make it, bytes that it reads, and its clock
        "landmark, launched": (lambda: over_slots, cached, launched),
        "landmark, CUDA graph": (lambda: captured(over_slots), cached, bench.kernel_seconds),
        "SDPA (all keys)": (lambda: over_all_keys, k.nbytes + v.nbytes, bench.kernel_seconds),
    }
    clocks = {}
    read = {}
    for decoder, (make, size, clock) in contestants.items():
        name = f"decode, {T} tokens, {decoder}"
        with bench.contestant(name):
            call = make()
            call()
            clocks[name] = partial(clock, call)
            read[name] = size
    for name, times in bench.in_turns(clocks).items():
        bench.figure(name, times, read[name] / 1e12, "TB/s", bytes_read=read[name])


def captured(call: Call) -> Call:
    """The call as a CUDA graph's replay."""
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA graphs need a GPU")
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def tile_name(kernel: str, tile: tuple[int, int, int, int]) -> str:
    M, N, warps, stages = tile
    return f"{kernel} {M}×{N}, {warps} warps, {stages} stages"


def tiles_names(scale: Scale, size: str, T: int) -> list[str]:
    tried = [tile_name(kernel, tile) for kernel, tiles in scale.tiles.items() for tile in tiles]
    return [f"{size}, {T} tokens, {name}" for name in ("forward", "backward", *tried)]


@torch.no_grad()
def measure_tiles(bench: Bench, scale: Scale, size: str, T: int) -> None:
    """The forward pass and the whole backward pass, with fast/kernels.py's own tiles, and with one
    kernel's tile replaced.
    """
    shape = scale.models[size]
    H, K, d = shape.heads, shape.kv_heads, shape.head_dim
    place = dict(device=scale.device, dtype=scale.dtype)
    q, dout = torch.randn(2, 1, H, T, d, **place)
    k, v = torch.randn(2, 1, K, T, d, **place)
    pattern = (shape.window, shape.landmark_stride, None)
    out, lse = kernels.forward(q, k, v, *pattern)
    calls = {
        "forward": partial(kernels.forward, q, k, v, *pattern),
        "backward": partial(kernels.backward, dout, q, k, v, out, lse, *pattern),
    }
    for kernel, tiles in scale.tiles.items():
        way = "forward" if kernel == "forward" else "backward"
        for tile in tiles:
            changed = kernels.TILES | {(kernel, q.element_size(), d): tile}
            calls[tile_name(kernel, tile)] = partial(calls[way], tiles=changed)
    clocks = {}
    for tile, call in calls.items():
        name = f"{size}, {T} tokens, {tile}"
        with bench.contestant(name):
            call()
            bench.synchronize()
            clocks[name] = partial(bench.kernel_seconds, call)
    pairs = visible_pairs(shape, T)
    for name, times in bench.in_turns(clocks).items():
        flops = WAYS["forward" if "tokens, forward" in name else "backward"] * d * pairs
        bench.figure(name, times, flops / 1e12, "TFLOP/s", flops=flops)


# Training steps
# --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_tensors(dtype: torch.dtype, device: str | torch.device) -> Iterator[None]:
    """Inside the block new tensors have this dtype and lie on this device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def random_model(shape: Model, dtype: torch.dtype, device: str) -> SAGE:
    with new_tensors(dtype, device):
        return SAGE(shape, seed=0)


def peer(model: SAGE) -> nn.Module:
    """transformers' Qwen2 with a model's weights, and torch's fused attention."""
    shape = config_shape(model.config)
    config = transformers.Qwen2Config(**shape, attn_implementation="sdpa")
    with new_tensors(model.unembedding.dtype, model.unembedding.device):
        theirs = transformers.Qwen2ForCausalLM(config)
    weights = {tensor_name(name): p.detach() for name, p in model.named_parameters()}
    weights.pop(None)  # SAGE's own
    theirs.load_state_dict(weights, strict=not model.config.tied)
    return theirs


def sage_loss(model: SAGE, tokens: Tensor) -> Tensor:
    """train.py's main loss of tokens (B, T + 1)."""
    return cross_entropy(model.hidden(tokens[:, :-1]), model.unembedding, tokens[:, 1:])


def qwen_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens[:, :-1], labels=tokens[:, :-1], use_cache=False).loss


@dataclass
class Step:
    """One optimiser step: forward and backward pass, clipping, AdamW."""

    model: nn.Module
    loss: Callable[[Tensor], Tensor]
    optimizers: list[torch.optim.Optimizer]
    tokens: Tensor  # (B, T + 1)
    dtype: torch.dtype

    def __call__(self) -> Tensor:
        products = torch.autocast(
            self.tokens.device.type, self.dtype, enabled=self.dtype != torch.float32
        )
        with products:
            loss = self.loss(self.tokens)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()


def sage_steps(scale: Scale, shape: Model, tokens: Tensor, recompute: str) -> list[Step]:
    """The step of train.py with AdamW, eager and compiled, on one model."""
    model = random_model(shape, torch.float32, scale.device)
    parallel.parallelise(model, Parallel(activation_checkpointing=recompute), scale.dtype)
    optimizers = make_optimizers(model, Train(optimizer="adamw", learning_rate=1e-5), scale.dtype)
    eager = Step(model, partial(sage_loss, model), optimizers, tokens, scale.dtype)
    return [eager, replace(eager, loss=compile_training(partial(sage_loss, model)))]


def qwen_steps(scale: Scale, shape: Model, tokens: Tensor, recompute: str) -> list[Step]:
    """transformers' step with the same weights and optimiser; where ours computes anything again,
    it computes whole layers again.
    """
    model = peer(random_model(shape, torch.float32, scale.device)).train()
    if recompute != "none":
        model.gradient_checkpointing_enable()
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)]
    return [Step(model, partial(qwen_loss, model), optimizers, tokens, scale.dtype)]


def planned_memory(scale: Scale, shape: Model, batch: int, T: int, recompute: str) -> float:
    """GiB that `train.py --dry-run` counts at the peak of this step, on fake tensors."""
    config = Config(
        model=shape,
        data=Data(sequence=T),
        train=Train(
            batch=batch,
            optimizer="adamw",
            dtype=str(scale.dtype).removeprefix("torch."),
            prose_weight=0,
        ),
        parallel=Parallel(activation_checkpointing=recompute),
        plan=DryRun(ranks=1),
    )
    return sum(plan.trace(config).peak.values()) / 2**30


STEP_MAKERS = {sage_steps: ["eager", "compiled"], qwen_steps: ["transformers"]}


def step_names(size: str, batch: int, T: int) -> list[str]:
    return [f"{size}, {batch} × {T}, {name}" for names in STEP_MAKERS.values() for name in names]


def measure_steps(
    bench: Bench, scale: Scale, *, size: str, batch: int, T: int, recompute: str
) -> None:
    """A training step with random weights: float32 weights, products in bf16."""
    shape = scale.models[size]
    torch.manual_seed(0)
    tokens = torch.randint(shape.vocab_size, (batch, T + 1), device=scale.device)
    torch.set_float32_matmul_precision("medium")  # as train.py sets it
    flops = batch * T * flops_per_token(shape, T)
    planned = None
    with bench.contestant():
        planned = planned_memory(scale, shape, batch, T, recompute)
    for make, kinds in STEP_MAKERS.items():
        names = [f"{size}, {batch} × {T}, {kind}" for kind in kinds]
        steps = {}
        with bench.contestant(*names):
            steps = dict(zip(names, make(scale, shape, tokens, recompute)))
        clocks = {}
        also = {}
        for name, step in steps.items():
            with bench.contestant(name):
                first = bench.wall_seconds(step)  # compiles
                peak, loss = bench.peak_memory(step)
                also[name] = {"first call, s": first, "peak GiB": peak, "loss": float(loss)}
                if make is sage_steps:
                    also[name]["planned GiB"] = planned
                clocks[name] = partial(bench.wall_seconds, step)
        for name, times in bench.in_turns(clocks).items():
            bench.figure(name, times, batch * T, "tokens/s", flops=flops, **also[name])
        steps = step = clocks = None  # two models would not fit beside each other
        torch.compiler.reset()  # which may hold one
        gc.collect()
        if scale.device == "cuda":
            torch.cuda.empty_cache()


# Decoding
# --------------------------------------------------------------------------------------------------

PROMPT = 16  # tokens


def decoders(batch: int) -> list[str]:
    """The compiled step is made for one row, and takes half a minute to compile."""
    compiled = ["compiled, CUDA graph"] if batch == 1 else []
    return ["CUDA graph", *compiled, "eager", "transformers"]


def decoding_names(size: str, batches: tuple[int, ...]) -> list[str]:
    return [f"{size}, {batch} rows, {name}" for batch in batches for name in decoders(batch)]


def bytes_per_step(model: SAGE, batch: int, length: int) -> int:
    """What decoding one token per row reads at least: each multiplying weight once, and the keys
    and values of each row's `length` tokens, which fit the window.
    """
    c = model.config
    weights = model.unembedding.nbytes
    weights += sum(p.nbytes for p in [*model.blocks.parameters(), *model.norm.parameters()])
    per_token = 2 * c.layers * c.kv_heads * c.head_dim * model.unembedding.element_size()
    return weights + batch * length * per_token


@torch.no_grad()
def qwen_continuations(model: nn.Module, prompts: Tensor, tokens: int) -> list[list[int]]:
    output = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return output[:, prompts.shape[1] :].tolist()


def measure_decoding(bench: Bench, scale: Scale, size: str) -> None:
    """Greedy decoding with random weights, by this project and by transformers.

    A token's time is that of a longer continuation less that of its prompt and first token.
    """
    torch.manual_seed(0)
    model = random_model(scale.models[size], scale.dtype, scale.device).eval()
    theirs = peer(model).eval()
    graph = StepGraph(read_token)
    compiled_graph = StepGraph(compiled_step(model))
    for batch in scale.batches:
        prompts = torch.randint(1, model.config.vocab_size, (batch, PROMPT), device=scale.device)
        ours = partial(generate, model, prompts.tolist())
        calls = {
            "CUDA graph": partial(ours, step=graph),
            "compiled, CUDA graph": partial(ours, step=compiled_graph),
            "eager": partial(ours, step=read_token),
            "transformers": partial(qwen_continuations, theirs, prompts),
        }
        clocks = {}
        outputs = {}
        for kind in decoders(batch):
            name = f"{size}, {batch} rows, {kind}"
            call = calls[kind]
            # a graph takes a tenth of the time, or less, of what the host launches
            tokens = scale.tokens * (8 if "graph" in kind else 1)
            with bench.contestant(name):
                outputs[name] = torch.tensor(call(tokens=1 + tokens))  # (B, tokens)
                clocks[name] = partial(token_seconds, bench, call, tokens)
        wanted = outputs.get(f"{size}, {batch} rows, transformers")
        read = bytes_per_step(model, batch, PROMPT + scale.tokens // 2)
        for name, times in bench.in_turns(clocks, scale.seconds / 2).items():
            also = {}
            if wanted is not None:
                same = outputs[name][:, : wanted.shape[1]] == wanted
                also["tokens as transformers'"] = same.float().mean().item()
            bench.figure(name, times, batch, "tokens/s", bytes_read=read, **also)


def token_seconds(bench: Bench, call: Callable, tokens: int) -> float:
    """Seconds per step of decoding: without the prompt, which both calls read. Where they are too
    short to be told apart, at least a tenth of the long one's share.
    """
    short = bench.wall_seconds(partial(call, tokens=1))
    long = bench.wall_seconds(partial(call, tokens=1 + tokens))
    return max(long - short, long / 10) / tokens


# A lineage
# --------------------------------------------------------------------------------------------------


def measure_lineage(bench: Bench, stages: dict[str, str]) -> None:
    """config/small.py's stages by the scripts that a user runs, cut short as their options say."""
    with tempfile.TemporaryDirectory() as folder:
        for stage, command in stages.items():
            with bench.contestant(stage, patience=300):
                script, *options = shlex.split(command)
                words = [ROOT / script, "config/small.py", *options, "--out", f"{folder}/base"]
                start = time.perf_counter()
                run = subprocess.run(
                    [sys.executable, *words], capture_output=True, text=True, cwd=ROOT
                )
                whole = time.perf_counter() - start
                print(run.stdout, run.stderr)
                if run.returncode:
                    raise RuntimeError(run.stderr.strip().splitlines()[-1])
                lines = [line for line in read_log(f"{folder}/{stage}") if "ms" in line]
                measured = lines[1:] or lines  # the first interval warms up
                seconds_per_token = [1 / line["tokens_per_second"] for line in measured]
                bench.figure(
                    stage,
                    seconds_per_token,
                    1,
                    "tokens/s",
                    command=f"python {script} config/small.py {shlex.join(options)}",
                    **{"steps": lines[-1]["step"], "whole stage, s": whole},
                )


# The run
# --------------------------------------------------------------------------------------------------


SECTIONS = ("kernels", "steps", "decoding", "lineage", "tiles")


def all_cases(scale: Scale) -> list[Case]:
    """The cases by importance: the roof, then the first one of each section, the second ones, …
    and the trial of other tiles at the end.
    """
    attentions = []
    for T in scale.lengths:
        measure = partial(measure_kernels, scale=scale, T=T)
        attentions.append(Case("kernels", f"{T} tokens", 45, kernel_names(T), measure))
    steps = []
    for size, batch, T, recompute in scale.steps:
        what = f"{size}, {batch} × {T}"
        size_and_length = dict(size=size, batch=batch, T=T, recompute=recompute)
        measure = partial(measure_steps, scale=scale, **size_and_length)
        steps.append(Case("steps", what, 70, step_names(size, batch, T), measure))
    decoding = []
    for size in scale.decoded:
        names = decoding_names(size, scale.batches)
        measure = partial(measure_decoding, scale=scale, size=size)
        decoding.append(Case("decoding", size, 75, names, measure))
    measure = partial(measure_lineage, stages=scale.lineage)
    lineage = Case("lineage", "config/small.py", 100, list(scale.lineage), measure)
    measure = partial(measure_roof, scale=scale)
    roof = Case("roof", "matrix product and copy", 8, ROOF, measure)
    rounds = zip_longest(attentions, steps, decoding, [None, None, lineage])
    tiles = []
    for size, T in scale.tiled:
        measure = partial(measure_tiles, scale=scale, size=size, T=T)
        tiles.append(Case("tiles", f"{size}, {T} tokens", 75, tiles_names(scale, size, T), measure))
    return [roof, *(case for one_round in rounds for case in one_round if case), *tiles]


def conditions(sending: Connection) -> None:
    """What stands beside every figure: the device, and the versions of what drives it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    driver = "none"
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, IndexError):
            driver = subprocess.run(query, capture_output=True, text=True).stdout.split()[0]
    sending.send(
        dict(
            device=torch.cuda.get_device_name() if device == "cuda" else "CPU",
            torch=torch.__version__,
            triton=triton.__version__,
            transformers=transformers.__version__,
            driver=driver,
            commit=result_tables.commit(),
            machine=result_tables.machine(),
            date=date.today().isoformat(),
            command=shlex.join(["python", "bench/gpu.py", *sys.argv[1:]]),
        )
    )


def in_words(record: dict) -> str:
    """A record as a line."""
    name = f"  {record['name']:52}"
    if "failed" in record:
        return f"{name} no figure: {record['failed'][:150]}"
    more = []
    for what, value in record["also"].items():
        if what.startswith("share"):
            more.append(f"{value:.1%} {what.removeprefix('share ')}")
        elif isinstance(value, str | None):
            more.append(f"{what}: {value or 'n/a'}")
        else:
            more.append(f"{what} {value:.4g}")
    value = f"{result_tables.four_digits(record['value'])} {record['unit']}"
    return f"{name} {value:>16}  ({record['spread']})  {', '.join(more)}"


NO_TIME = ("left out: no time", cases.TIME_OVER)


def is_measured(case: Case, path: Path, commit: str) -> bool:
    """Whether a file has all of a case's figures at a commit, or other reasons than the time."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [record for record in map(json.loads, lines) if record["commit"] == commit]
    known = {record["name"] for record in found if record.get("failed") not in NO_TIME}
    return all(f"{case.section}/{name}" in known for name in case.names)


def measure_all(chosen: list[Case], scale: Scale, minutes: float, path: Path, stamp: dict) -> None:
    """Run cases until the time is over; print and append what comes, each with its stamp."""
    deadline = BEGAN + 60 * minutes
    path.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(scale.device, scale.turns, scale.seconds, scale.patience, deadline, roof={})
    counts = {"value": 0, "failed": 0}
    for case in chosen:
        print(f"{case.section}, {case.what}", flush=True)
        if deadline - time.monotonic() > case.seconds / 3:
            records = cases.results(case, bench, path.with_suffix(".log"))
        else:  # not even its first figures
            names = [f"{case.section}/{name}" for name in case.names]
            records = (dict(name=name, failed=NO_TIME[0]) for name in names)
        with contextlib.closing(records), open(path, "a") as file:
            for record in records:
                print(in_words(record), flush=True)
                file.write(json.dumps(stamp | record, ensure_ascii=False) + "\n")
                file.flush()
                counts["value" if "value" in record else "failed"] += 1
                if case.section == "roof" and "value" in record:
                    bench.roof[record["name"].partition("/")[2]] = record["value"] * 1e12
    print(
        f"{counts['value']} figures, {counts['failed']} without one, in "
        f"{(time.monotonic() - BEGAN) / 60:.1f} minutes: {path}"
    )


def enter(path: Path) -> int:
    """Enter a run's figures in docs/results/gpu.json; returns their number."""
    count = 0
    for line in path.read_text().splitlines():
        found = json.loads(line)
        if "value" not in found:
            continue
        words = in_words(found).split(")  ", 1)[1]
        also = f"{words}; {found['device']}, driver {found['driver']}, Triton {found['triton']}"
        keys = ("name", "value", "spread", "n", "unit", "command", "commit", "machine", "date")
        blank = dict(seeds=None, goal="", paper="", note=also)
        result_tables.store("gpu", {key: found[key] for key in keys} | blank)
        count += 1
    return count


def main() -> None:
    costs = "".join(
        f"  {case.section:9} {case.what:24} {case.seconds:4} s\n"
        for case in all_cases(Scale("cuda"))
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"cases in their order, and what each costs, by estimate:\n{costs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="after which all ends")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--rest", action="store_true", help="only what today's file has not")
    parser.add_argument("--tiny", action="store_true", help="a toy's size, on any machine")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="folder")
    parser.add_argument("--record", type=Path, help="a file of a run; measures nothing")
    a = parser.parse_args()
    if a.record:
        print(f"{enter(a.record)} figures are in docs/results/gpu.json")
        return
    sections = a.only.split(",")
    for section in sections:
        if section not in SECTIONS:
            parser.error(f"no section {section!r}; one of {', '.join(SECTIONS)}")
    if torch.cuda.is_initialized():
        sys.exit("something that was imported has touched the GPU: forked processes could not")
    process, receiving = cases.in_child(conditions)
    stamp = receiving.recv()
    cases.end_group(process)
    device = "cpu" if stamp["device"] == "CPU" else "cuda"
    if device == "cpu" and not a.tiny:
        sys.exit("no GPU here, so nothing is measured; --tiny tries the same out at a toy's size")
    transformers.utils.logging.set_verbosity_error()
    scale = toy_scale(device) if a.tiny else Scale(device)
    print(f"{stamp['machine']}, driver {stamp['driver']}, Triton {stamp['triton']}", flush=True)
    name = re.sub(r"\W+", "-", stamp["device"])
    path = a.out / f"gpu-{stamp['date']}-{name}.jsonl"
    chosen = [case for case in all_cases(scale) if case.section in ("roof", *sections)]
    if a.rest:  # the roof is measured again: shares are of it
        roof, *others = chosen
        done = [case for case in others if is_measured(case, path, stamp["commit"])]
        chosen = [roof, *(case for case in others if case not in done)]
    measure_all(chosen, scale, a.minutes, path, stamp)


if __name__ == "__main__":
    main()
