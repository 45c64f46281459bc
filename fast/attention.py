"""Landmark attention, sooner: the same results as attention.definition by other arithmetic.

    causal      torch's scaled_dot_product_attention, exact when T <= window
    short       CPU training at small T: two products and a softmax that keeps its probabilities
    separate    a row's packed documents one by one, on a CPU when T <= window
    blocked     linear memory on any device: blocks of queries against their window and the
                landmarks before it, walked again for the gradients
    triton      kernels.py: the same on a GPU, at its speed

and the attention of one token per row over a cache (`cached_attention`). tests/test_attention.py,
test_cache.py and test_kernels.py hold all of it equal to the definition. Legend as in attention.py;
C queries in a block.
"""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from config import UserError
from fast.compiling import product_dtype, shapes_are_static, written_once

IMPLEMENTATIONS = ("auto", "causal", "short", "separate", "blocked", "triton")
_LOG2_E = 1.4426950408889634


def _seen(query: Tensor, key: Tensor, window: int, stride: int) -> Tensor:
    """attention.visible, which stands above this module."""
    return (key <= query) & ((query - key < window) | (key % stride == 0))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full causal attention by torch: what landmark attention is when T <= window."""
    shared = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)


# Short rows on a CPU
# --------------------------------------------------------------------------------------------------


class KeptProbabilities(torch.autograd.Function):
    """Attention whose forward keeps the probabilities (B, H, T, T), so that backward is four matrix
    products.

    torch's CPU attention recomputes them tile by tile, which at a few hundred tokens costs more
    than half of a training step.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        B, H, T, d = q.shape
        K = k.shape[1]
        # heads that share keys stand below each other
        q = q.reshape(B * K, H // K * T, d) * d**-0.5  # (B·K, G·T, d)
        k = k.reshape(B * K, T, d)
        v = v.reshape(B * K, T, d)
        scores = torch.bmm(q, k.mT).view(B, K, H // K, T, T) + bias
        probabilities = torch.softmax(scores, -1, dtype=q.dtype).view(B * K, -1, T)
        ctx.save_for_backward(q, k, v, probabilities)
        ctx.heads = K
        return torch.bmm(probabilities, v).view(B, H, T, d)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        q, k, v, probabilities = ctx.saved_tensors
        B, H, T, d = gradient.shape
        K = ctx.heads
        gradient = gradient.reshape(B * K, -1, d)  # (B·K, G·T, d)
        dv = torch.bmm(probabilities.mT, gradient).view(B, K, T, d)
        dp = torch.bmm(gradient, v.mT)  # (B·K, G·T, T)
        ds = torch._softmax_backward_data(dp, probabilities, -1, q.dtype)  # p (dp − Σ p dp)
        dq = (torch.bmm(ds, k) * d**-0.5).view(B, H, T, d)
        dk = torch.bmm(ds.mT, q).view(B, K, T, d)  # q already carries 1/√d
        return dq, dk, dv, None


def short(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, *, documents: Tensor | None = None
) -> Tensor:
    """Landmark attention for training at small T on a CPU; O(T²) memory per head, and one graph
    under torch.compile.
    """
    index = torch.arange(q.shape[2], device=q.device)
    seen = _seen(index[:, None], index, window, stride)  # (T, T)
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None, :])[:, None, None]
    bias = torch.zeros((), dtype=q.dtype, device=q.device).masked_fill(~seen, float("-inf"))
    return KeptProbabilities.apply(q, k, v, written_once(bias))


# Packed rows on a CPU, document by document
# --------------------------------------------------------------------------------------------------


def separate(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, *, documents: Tensor
) -> Tensor:
    """Landmark attention of each document alone, where T <= window: pairs of tokens of different
    documents are not computed. How many documents there are is not known to a compiler.
    """
    rows = []
    for row, numbers in enumerate(documents):
        _, lengths = torch.unique_consecutive(numbers, return_counts=True)
        parts = [x[row : row + 1].split(lengths.tolist(), 2) for x in (q, k, v)]
        outputs = []
        for part in zip(*parts, strict=True):
            kept = choose_implementation(part[0], window) == "short"
            outputs.append(short(*part, window, stride) if kept else causal(*part))
        rows.append(torch.cat(outputs, 2))
    return torch.cat(rows)


# Blocks of queries
# --------------------------------------------------------------------------------------------------


@dataclass
class Tile:
    """A block of C queries and all keys that one of them sees: landmarks, then the window."""

    block: slice  # the queries
    far: slice  # the landmarks before the window's slice
    near: slice  # the window's slice
    index: Tensor  # (keys,) positions of both
    seen: Tensor  # (C, keys) who sees whom

    def keys_of(self, x: Tensor) -> Tensor:
        """The tile's rows of keys or values (B, K, T, d): (B, K, keys, d)."""
        return torch.cat([x[:, :, self.far], x[:, :, self.near]], 2)


def tiles(T: int, window: int, stride: int, device) -> Iterator[Tile]:
    """The walk over a row's blocks of queries.

    C is a window's eighth, so that the edges of the slice stay small beside it, but 128 at least,
    so that matrix products are worth their start, and 512 at most, so that a tile of scores stays
    small.
    """
    C = max(128, min(512, window // 8))
    for start in range(0, T, C):
        stop = min(start + C, T)
        first = max(0, start - window + 1)
        landmarks = torch.arange(0, first, stride, device=device)
        index = torch.cat([landmarks, torch.arange(first, stop, device=device)])
        queries = torch.arange(start, stop, device=device)[:, None]
        yield Tile(
            slice(start, stop),
            far=slice(0, first, stride),
            near=slice(first, stop),
            index=index,
            seen=_seen(queries, index, window, stride),
        )


def tile_scores(q: Tensor, k: Tensor, tile: Tile, documents: Tensor | None) -> Tensor:
    """Masked scores of queries (B, K, G·C, d) against keys (B, K, keys, d), in at least float32 and
    in units of ln 2: (B, K, G, C, keys).

    For exp2, and with a mask that is added: torch's exp on a CPU is MKL's, which takes 4 to 30
    times as long wherever the result underflows.
    """
    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32))
    scores.mul_(q.shape[-1] ** -0.5 * _LOG2_E)
    seen = tile.seen
    if documents is not None:
        same = documents[:, tile.block, None] == documents[:, None, tile.index]  # (B, C, keys)
        seen = seen & same[:, None, None]
    bias = torch.zeros(seen.shape, dtype=scores.dtype, device=scores.device)
    bias.masked_fill_(~seen, float("-inf"))
    return scores.view(*k.shape[:2], -1, *seen.shape[-2:]).add_(bias)


def blocked(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, *, documents: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Landmark attention in linear memory: returns out (B, H, T, d) and the logarithm of each
    softmax's sum (B, H, T), for backward.
    """
    B, H, T, d = q.shape
    K = k.shape[1]
    wide = torch.promote_types(q.dtype, torch.float32)
    out = q.new_empty(B, T, H, d).transpose(1, 2)  # laid out as the output projection reads it
    lse = torch.empty(B, H, T, dtype=wide, device=q.device)
    for tile in tiles(T, window, stride, q.device):
        queries = q[:, :, tile.block].reshape(B, K, -1, d)  # (B, K, G·C, d)
        scores = tile_scores(queries, tile.keys_of(k), tile, documents)
        most = scores.amax(-1, keepdim=True)  # (B, K, G, C, 1)
        p = scores.sub_(most).exp2_()
        total = p.sum(-1, keepdim=True)
        p = p.to(q.dtype).view(B, K, -1, len(tile.index))  # (B, K, G·C, keys)
        mixed = (p @ tile.keys_of(v)).view(B, H, -1, d)
        out[:, :, tile.block] = mixed.div_(total.view(B, H, -1, 1))
        lse[:, :, tile.block] = total.log2_().add_(most).div_(_LOG2_E).view(B, H, -1)
    return out, lse


def blocked_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    *,
    lse: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v: the same walk, the probabilities computed again from `lse`, keys'
    gradients summed in float32.
    """
    B, H, T, d = q.shape
    K, wide = k.shape[1], lse.dtype
    dq = torch.empty_like(q)
    dk = torch.zeros_like(k, dtype=wide)
    dv = torch.zeros_like(v, dtype=wide)
    delta = (dout.to(wide) * out).sum(-1)  # (B, H, T): Σ p dp of each softmax
    for tile in tiles(T, window, stride, q.device):
        keys, values = tile.keys_of(k), tile.keys_of(v)
        queries = q[:, :, tile.block].reshape(B, K, -1, d)  # (B, K, G·C, d)
        gradient = dout[:, :, tile.block].reshape(B, K, -1, d)
        per_query = (B, K, H // K, -1, 1)
        p = tile_scores(queries, keys, tile, documents)  # (B, K, G, C, keys)
        p.sub_(lse[:, :, tile.block].reshape(per_query) * _LOG2_E).exp2_()
        dp = (gradient @ values.mT).to(wide).view_as(p)
        ds = dp.sub_(delta[:, :, tile.block].reshape(per_query)).mul_(p).mul_(d**-0.5)
        ds = ds.to(q.dtype).view(B, K, -1, len(tile.index))  # (B, K, G·C, keys)
        p = p.to(q.dtype).view(B, K, -1, len(tile.index))
        dq[:, :, tile.block] = (ds @ keys).view(B, H, -1, d)
        slice_length = tile.near.stop - tile.near.start
        for total, part in ((dk, ds.mT @ queries), (dv, p.mT @ gradient)):
            landmarks, window_slice = part.split([len(tile.index) - slice_length, slice_length], 2)
            total[:, :, tile.far] += landmarks
            total[:, :, tile.near] += window_slice
    return dq, dk.to(k.dtype), dv.to(v.dtype)


# One operator for the two paths with linear memory, so that torch.compile, activation checkpointing
# and FakeTensor see a single node with a known shape instead of a loop over blocks or a kernel
# launch.


@torch.library.custom_op("sage::landmark_attention", mutates_args=())
def attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    triton: bool,
) -> tuple[Tensor, Tensor]:
    if triton:
        from fast import kernels

        return kernels.forward(q, k, v, window, stride, documents)
    return blocked(q, k, v, window, stride, documents=documents)


@attention_op.register_fake
def _(q, k, v, window, stride, documents, triton):
    B, H, T, d = q.shape
    out = q.new_empty(B, T, H, d).transpose(1, 2)
    return out, q.new_empty(B, H, T, dtype=torch.promote_types(q.dtype, torch.float32))


@torch.library.custom_op("sage::landmark_attention_backward", mutates_args=())
def attention_backward_op(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    triton: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if triton:
        from fast import kernels

        return kernels.backward(dout, q, k, v, out, lse, window, stride, documents)
    return blocked_backward(
        dout, q, k, v, out, lse=lse, window=window, stride=stride, documents=documents
    )


@attention_backward_op.register_fake
def _(dout, q, k, v, out, lse, window, stride, documents, triton):
    if triton:
        return tuple(x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v))
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup(ctx, inputs, output):
    q, k, v, ctx.window, ctx.stride, documents, ctx.triton = inputs
    ctx.save_for_backward(q, k, v, *output, documents)


def _backward(ctx, dout, _):
    q, k, v, out, lse, documents = ctx.saved_tensors
    gradients = attention_backward_op(
        dout, q, k, v, out, lse, ctx.window, ctx.stride, documents, ctx.triton
    )
    return *gradients, None, None, None, None


attention_op.register_autograd(_backward, setup_context=_setup)


# Which implementation
# --------------------------------------------------------------------------------------------------


def refusal(name: str, q: Tensor, window: int, documents: Tensor | None) -> str | None:
    """Why the implementation `name` does not take these tensors, or None."""
    if name == "causal" and (q.shape[2] > window or documents is not None):
        given = "None" if documents is None else "given"
        return (
            f"it is exact for T <= window without documents; found T={q.shape[2]}, "
            f"window={window}, documents {given}"
        )
    if name == "separate" and (q.shape[2] > window or documents is None):
        return f"it is exact for T <= window, with documents; found T={q.shape[2]}, window={window}"
    if name == "triton":
        try:
            from fast import kernels
        except ImportError as error:
            return f"Triton is missing ({error}); pip install triton"
        reason = kernels.unsupported(q)
        return reason and f"it needs {reason}"
    return None


@functools.cache
def say_once(text: str) -> None:
    """Warn of a path that was not taken, once per process."""
    warnings.warn(text, stacklevel=3)


# tokens of a row up to which, in training, masking pairs of different documents costs less than
# taking the documents one by one
LONGEST_TOGETHER = 384
# asked here: asked in a forward pass it would break torch.compile's graph in every layer
BF16_UNITS = torch.cpu._is_avx512_bf16_supported()


def short_limit(dtype: torch.dtype) -> int:
    """Tokens up to which keeping the probabilities beats computing them again tile by tile, on this
    CPU.

    With bf16 units the three products cost little beside torch's own attention; without them
    float32's tiles win from a few hundred tokens on.
    """
    return 1023 if dtype == torch.bfloat16 and BF16_UNITS else 512


def choose_implementation(q: Tensor, window: int, documents: Tensor | None = None) -> str:
    """The implementation that "auto" takes for q (B, H, T, d): it goes by device, size, and whether
    a gradient will be needed.
    """
    T = q.shape[2]
    on_cpu = q.device.type == "cpu"
    brief = on_cpu and T <= short_limit(q.dtype)
    training = on_cpu and torch.is_grad_enabled() and q.requires_grad
    if T <= window and documents is None:
        return "short" if brief and q.dtype == torch.bfloat16 and training else "causal"
    if on_cpu and T <= window and not torch.compiler.is_compiling():
        return "short" if training and T <= LONGEST_TOGETHER else "separate"
    if on_cpu:
        return "short" if brief else "blocked"
    reason = refusal("triton", q, window, documents)
    if reason is None:
        return "triton"
    if q.is_cuda:
        say_once(
            f"landmark attention runs in plain PyTorch on {q.device}: the Triton kernels do not "
            f"take it, {reason}"
        )
    return "blocked"


def check_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None
) -> None:
    """Raise UserError, with the values, for whatever does not fit together."""
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape
    if not fits or k.shape[0] != q.shape[0] or k.shape[2:] != q.shape[2:]:
        raise UserError(
            "attention needs q (B, H, T, d) and k, v (B, K, T, d); found "
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        )
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise UserError(
            f"{q.shape[1]} query heads cannot share {k.shape[1]} key-value heads; H must be a "
            "multiple of K"
        )
    if window < 1 or stride < 1:
        raise UserError(
            f"window and stride must be at least 1; found window={window}, stride={stride}"
        )
    if len({q.dtype, k.dtype, v.dtype}) > 1:
        raise UserError(f"q, k and v must have one dtype; found {q.dtype}, {k.dtype}, {v.dtype}")
    given = [q, k, v] if documents is None else [q, k, v, documents]
    if len({x.device for x in given}) > 1:
        devices = ", ".join(str(x.device) for x in given)
        raise UserError(f"q, k, v and documents must be on one device; found {devices}")
    if documents is not None and documents.shape != (q.shape[0], q.shape[2]):
        raise UserError(
            f"documents must be (B, T) = {(q.shape[0], q.shape[2])}; found {tuple(documents.shape)}"
        )


def fastest_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    implementation: str,
) -> Tensor:
    """attention.landmark_attention by the named implementation, or "auto"."""
    q, k, v = (x.to(product_dtype(x)) for x in (q, k, v))
    check_attention(q, k, v, window, stride, documents)
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"implementation {implementation!r} is not known; one of {', '.join(IMPLEMENTATIONS)}"
        )
    if implementation == "auto":
        implementation = choose_implementation(q, window, documents)
    elif reason := refusal(implementation, q, window, documents):
        raise UserError(f"implementation {implementation!r} cannot take this: {reason}")

    if implementation == "causal":
        return causal(q, k, v)
    if implementation == "short":
        return short(q, k, v, window, stride, documents=documents)
    if implementation == "separate":
        return separate(q, k, v, window, stride, documents=documents)
    if documents is not None:
        documents = documents.to(torch.int32).contiguous()  # the kernels take no strides
    return attention_op(q, k, v, window, stride, documents, implementation == "triton")[0]


# One token per row over the cache
# --------------------------------------------------------------------------------------------------


@dataclass
class SlotMask:
    """Which slots of a cache the new token of each row sees, in the form that is read fastest."""

    positions: Tensor  # (B,) of the new tokens
    ring: int  # R; the landmarks' slots are behind the ring's
    stride: int
    bias: Tensor  # (B, 1, slots), 0 where the token sees the slot and very negative where not
    used: Tensor  # slots in use in the row that is furthest, rounded up to a multiple of 64


def slot_mask(
    seen_from: Tensor, positions: Tensor, *, ring: int, stride: int, dtype: torch.dtype
) -> SlotMask:
    """The mask of one token per row at `positions` (B, 1), where slots are seen from the positions
    `seen_from` (R + M,) on, which rise along the slots.
    """
    seen = seen_from <= positions  # (B, R + M)
    used = (seen_from <= positions.max()).sum().clamp(min=1)
    used = -(-used // 64) * 64  # in 64s: oneDNN keeps a kernel for every shape it meets
    if positions.device.type == "cpu" and not shapes_are_static():
        seen = seen[:, : int(used)]  # nothing is written further on
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    bias = bias.masked_fill(~seen, torch.finfo(dtype).min)[:, None]  # (B, 1, slots)
    return SlotMask(positions[:, 0], ring, stride, bias, used)


def slot_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / √d + bias) v of one token per row: q (B, K, G, d), keys and values
    (B, K, ≥ S, d), bias (B, 1, S) → (B, K, G, d).
    """
    B, K, G, d = q.shape
    S = bias.shape[-1]
    keys = keys.view(B * K, -1, d)[:, :S]
    values = values.view(B * K, -1, d)[:, :S]
    bias = bias[:, None].expand(B, K, 1, S).reshape(B * K, S, 1)
    # k qᵀ takes half the time of q kᵀ, which reads the keys across
    scores = torch.baddbmm(bias, keys, q.reshape(B * K, G, d).mT, alpha=d**-0.5).mT  # (B·K, G, S)
    return torch.bmm(scores.softmax(-1), values).view(B, K, G, d)


@torch.library.custom_op("sage::cached_attention", mutates_args=())
def slot_attention_op(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor, used: Tensor
) -> Tensor:
    """`slot_attention` for a compiled step on a CPU: shapes are static outside of it, but it reads
    no further than what is written.
    """
    return slot_attention(q, keys, values, bias[..., : int(used)])


@slot_attention_op.register_fake
def _(q, keys, values, bias, used):
    return q.new_empty(q.shape)


@torch.library.custom_op("sage::landmark_decode", mutates_args=())
def decode_op(
    q: Tensor, keys: Tensor, values: Tensor, positions: Tensor, ring: int, slots: int, stride: int
) -> Tensor:
    from fast import kernels

    return kernels.decode_attention(q, keys, values, positions, ring, slots, stride)


@decode_op.register_fake
def _(q, keys, values, positions, ring, slots, stride):
    return q.new_empty(q.shape)


def cached_attention(q: Tensor, keys: Tensor, values: Tensor, seen: SlotMask) -> Tensor:
    """One token per row over a layer of the cache, its own key and value already written.

    q (B, H, 1, d); keys and values (B, K, R + M + 1, d) → (B, H, 1, d). Static shapes and no branch
    on data, so that it compiles.
    """
    B, H, _, d = q.shape
    slots = keys.shape[2] - 1  # the last one is a spare
    same = q.is_cuda and q.dtype == keys.dtype
    if same and refusal("triton", keys, seen.ring, None) is None:
        return decode_op(q, keys, values, seen.positions, seen.ring, slots, seen.stride)
    q = q.view(B, keys.shape[1], -1, d).to(keys.dtype)  # (B, K, G, d)
    if not torch.compiler.is_compiling() or q.device.type != "cpu":
        return slot_attention(q, keys, values, seen.bias).view(B, H, 1, d)
    if B > 1:
        return slot_attention_op(q, keys, values, seen.bias, seen.used).view(B, H, 1, d)
    # one row: Inductor turns product and sum into one vectorised loop over memory
    wide = torch.promote_types(q.dtype, torch.float32)
    S = seen.bias.shape[-1]
    q = written_once(q * d**-0.5)[:, :, :, None].to(wide)  # (1, K, G, 1, d)
    scores = (q * keys[:, :, None, :S]).sum(-1) + seen.bias[:, None]  # (1, K, G, S)
    mixed = (scores.softmax(-1)[..., None] * values[:, :, None, :S]).sum(-2)  # (1, K, G, d)
    return mixed.to(keys.dtype).view(B, H, 1, d)
