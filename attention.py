"""Landmark attention (paper §2.3): a local window plus one landmark every `stride` tokens, and the
cache that goes with it.

    query i sees key j <= i   iff   i - j < window   or   j mod stride = 0

What differs from the textbook: the cited Landmark Attention paper gates blocks through a grouped
softmax and stays quadratic; this is the fixed pattern that SAGE's text describes, under one
softmax. For T <= window it *is* causal attention, so Qwen's outputs do not change. Token 0 is
always visible (the attention sink that long contexts need). Memory of a sequence is O(window +
T/stride) instead of O(T).

    definition      explicit mask, any T: what every other path is compared with
    causal          torch's scaled_dot_product_attention, exact when T <= window
    short           CPU training at small T: two matrix products and a softmax that keeps its probabilities
    blocked         linear memory on any device: blocks of queries against their window and the landmarks before it
    triton          kernels.py: the same on a GPU, at its speed

Keys are counted from index 0 of the row and rotated before they come here. Legend: B batch, T
tokens, H query heads, K key-value heads, G = H / K queries that share a key, d head width, n new
tokens, R ring slots, M landmark slots, C queries in a block.

    python bench/attention.py     speed and memory          python bench/retrieval.py     needle test
"""

import functools
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from config import UserError


def visible(query: Tensor, key: Tensor, window: int, stride: int) -> Tensor:
    """The mask: whether the token at position `query` sees the one at position `key` (integers that
    broadcast; §2.3).
    """
    return (key <= query) & ((query - key < window) | (key % stride == 0))


def mask(T: int, window: int, stride: int, documents: Tensor | None, device) -> Tensor:
    """Who sees whom in whole rows: bool (T, T), or (B, 1, 1, T, T) when `documents` (B, T) tells
    packed documents apart.
    """
    index = torch.arange(T, device=device)
    seen = visible(index[:, None], index[None, :], window, stride)
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None, :])[:, None, None]
    return seen


def definition(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None
) -> Tensor:
    """softmax(q kᵀ / √d + mask) v with the mask written out, in at least float32:

    O(T²) memory, differentiable twice, any T.
    """
    B, H, T, d = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    grouped = q.to(wide).view(B, k.shape[1], -1, T, d)  # (B, K, G, T, d)
    scores = grouped @ k.to(wide).unsqueeze(2).mT / d**0.5  # (B, K, G, T, T)
    scores = scores.masked_fill(~mask(T, window, stride, documents, q.device), float("-inf"))
    return (scores.softmax(-1) @ v.to(wide).unsqueeze(2)).view(B, H, T, d).to(q.dtype)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full causal attention by torch: what landmark attention is when T <= window."""
    return F.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
    )


def written(x: Tensor) -> Tensor:
    """x itself; in a compiled function it is then written to memory once, where Inductor would
    compute it again for every row or head that reads it.
    """
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


class Short(torch.autograd.Function):
    """Attention whose forward keeps the probabilities (B, H, T, T), so that backward is four matrix
    products.

    torch's CPU attention recomputes them tile by tile, which at a few hundred tokens costs more
    than half of a training step.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        B, H, T, d = q.shape
        K = k.shape[1]
        q = (
            q.reshape(B * K, H // K * T, d) * d**-0.5
        )  # queries that share keys stand below each other
        k, v = k.reshape(B * K, T, d), v.reshape(B * K, T, d)
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
        gradient = gradient.reshape(B * K, -1, d)
        dv = torch.bmm(probabilities.mT, gradient).view(B, K, T, d)
        dp = torch.bmm(gradient, v.mT)
        ds = torch._softmax_backward_data(dp, probabilities, -1, q.dtype)  # p (dp − Σ p dp)
        dq = (torch.bmm(ds, k) * d**-0.5).view(B, H, T, d)
        dk = torch.bmm(ds.mT, q).view(B, K, T, d)  # q already carries 1/√d
        return dq, dk, dv, None


def short(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None
) -> Tensor:
    """Landmark attention for training at small T on a CPU; memory O(T²) a head, traces under
    torch.compile without a break.
    """
    seen = mask(q.shape[2], window, stride, documents, q.device)
    return Short.apply(
        q,
        k,
        v,
        written(torch.zeros((), dtype=q.dtype, device=q.device).masked_fill(~seen, float("-inf"))),
    )


def tiles(T: int, window: int, stride: int, device):
    """The blocked path's walk: a block of C queries, the landmarks before its window slice, the
    slice, and who sees whom (C, keys of both).

    C is a window's eighth, so that the edges of the slice stay small beside it, but 128 at least,
    so that matrix products are worth
    their start, and 512 at most, so that a tile of scores stays small.
    """
    C = max(128, min(512, window // 8))
    for start in range(0, T, C):
        stop, first = min(start + C, T), max(0, start - window + 1)
        far, near = slice(0, first, stride), slice(first, stop)
        index = torch.cat(
            [
                torch.arange(0, first, stride, device=device),
                torch.arange(first, stop, device=device),
            ]
        )
        yield (
            slice(start, stop),
            far,
            near,
            index,
            visible(torch.arange(start, stop, device=device)[:, None], index, window, stride),
        )


LOG2_E = 1.4426950408889634


def tile_scores(
    q: Tensor, k: Tensor, index: Tensor, seen: Tensor, block: slice, documents: Tensor | None
) -> Tensor:
    """Masked scores of queries (B, K, G·C, d) against keys (B, K, keys, d), in at least float32 and
    in units of ln 2: (B, K, G, C, keys).

    For exp2, and with a mask that is added: torch's exp on a CPU is MKL's, which takes 4 to 30
    times as long wherever the result underflows.
    """
    scores = (
        (q @ k.mT)
        .to(torch.promote_types(q.dtype, torch.float32))
        .mul_(q.shape[-1] ** -0.5 * LOG2_E)
    )
    if documents is not None:
        seen = seen & (documents[:, block, None] == documents[:, None, index])[:, None, None]
    hidden = torch.zeros(seen.shape, dtype=scores.dtype, device=scores.device).masked_fill_(
        ~seen, float("-inf")
    )
    return scores.view(*k.shape[:2], -1, *seen.shape[-2:]).add_(hidden)


def blocked(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Landmark attention in linear memory: returns out (B, H, T, d) and the logarithm of each
    softmax's sum (B, H, T), for backward.
    """
    B, H, T, d = q.shape
    K = k.shape[1]
    out = q.new_empty(B, T, H, d).transpose(1, 2)  # laid out as the output projection reads it
    lse = torch.empty(B, H, T, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    for block, far, near, index, seen in tiles(T, window, stride, q.device):
        keys, values = (torch.cat([x[:, :, far], x[:, :, near]], 2) for x in (k, v))
        queries = q[:, :, block].reshape(
            B, K, -1, d
        )  # (B, K, G·C, d): heads that share keys stand below each other
        scores = tile_scores(queries, keys, index, seen, block, documents)
        most = scores.amax(-1, keepdim=True)  # (B, K, G, C, 1)
        p = scores.sub_(most).exp2_()
        total = p.sum(-1, keepdim=True)
        out[:, :, block] = (
            (p.to(q.dtype).view(B, K, -1, len(index)) @ values)
            .view(B, H, -1, d)
            .div_(total.view(B, H, -1, 1))
        )
        lse[:, :, block] = total.log2_().add_(most).div_(LOG2_E).view(B, H, -1)
    return out, lse


def blocked_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
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
    dq, dk, dv = (
        torch.empty_like(q),
        torch.zeros_like(k, dtype=wide),
        torch.zeros_like(v, dtype=wide),
    )
    delta = (dout.to(wide) * out).sum(-1)  # (B, H, T): Σ p dp of each softmax
    for block, far, near, index, seen in tiles(T, window, stride, q.device):
        keys, values = (torch.cat([x[:, :, far], x[:, :, near]], 2) for x in (k, v))
        queries, gradient = (x[:, :, block].reshape(B, K, -1, d) for x in (q, dout))
        of_block = (B, K, H // K, -1, 1)
        p = (
            tile_scores(queries, keys, index, seen, block, documents)
            .sub_(lse[:, :, block].reshape(of_block) * LOG2_E)
            .exp2_()
        )
        dp = (gradient @ values.mT).to(wide).view_as(p)
        ds = (
            dp.sub_(delta[:, :, block].reshape(of_block))
            .mul_(p)
            .mul_(d**-0.5)
            .to(q.dtype)
            .view(B, K, -1, len(index))
        )
        p = p.to(q.dtype).view(B, K, -1, len(index))
        dq[:, :, block] = (ds @ keys).view(B, H, -1, d)
        for total, part in ((dk, ds.mT @ queries), (dv, p.mT @ gradient)):
            landmarks, slice_ = part.split(
                [len(index) - (near.stop - near.start), near.stop - near.start], 2
            )
            total[:, :, far] += landmarks
            total[:, :, near] += slice_
    return dq, dk.to(k.dtype), dv.to(v.dtype)


# One operator for the two paths with linear memory, so that torch.compile, activation checkpointing
# and FakeTensor see a single node with a
# known shape instead of a loop over blocks or a kernel launch.


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
    return blocked(q, k, v, window, stride, documents)


@attention_op.register_fake
def _(q, k, v, window, stride, documents, triton):
    B, H, T, d = q.shape
    return q.new_empty(B, T, H, d).transpose(1, 2), q.new_empty(
        B, H, T, dtype=torch.promote_types(q.dtype, torch.float32)
    )


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
    return blocked_backward(dout, q, k, v, out, lse, window, stride, documents)


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
    return (
        *attention_backward_op(
            dout, q, k, v, out, lse, ctx.window, ctx.stride, documents, ctx.triton
        ),
        None,
        None,
        None,
        None,
    )


attention_op.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("sage::landmark_decode", mutates_args=())
def decode_op(
    q: Tensor, keys: Tensor, values: Tensor, positions: Tensor, ring: int, slots: int, stride: int
) -> Tensor:
    from fast import kernels

    return kernels.decode(q, keys, values, positions, ring, slots, stride)


@decode_op.register_fake
def _(q, keys, values, positions, ring, slots, stride):
    return q.new_empty(q.shape)


# The one function a model calls
# -------------------------------------------------------------------------------------

IMPLEMENTATIONS = ("auto", "definition", "causal", "short", "blocked", "triton")


def cannot(name: str, q: Tensor, window: int, documents: Tensor | None) -> str | None:
    """Why the implementation `name` does not take these tensors, or None."""
    if name == "causal" and (q.shape[2] > window or documents is not None):
        return f"it is exact for T <= window without documents; found T={q.shape[2]}, window={window}, documents {'given' if documents is not None else 'None'}"
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
    """Tell a user of a path that was not taken, once a process."""
    warnings.warn(text, stacklevel=3)


BF16_UNITS = (
    torch.cpu._is_avx512_bf16_supported()
)  # asked here: asked in a forward it would break torch.compile's graph in every layer


def short_limit(dtype: torch.dtype) -> int:
    """Tokens up to which keeping the probabilities beats computing them again tile by tile, on this
    CPU.

    With bf16 units the three products cost little beside torch's own attention; without them
    float32's tiles win from a few hundred tokens on.
    """
    return 1024 if dtype == torch.bfloat16 and BF16_UNITS else 512


def choose(q: Tensor, window: int, documents: Tensor | None = None) -> str:
    """The implementation that "auto" takes for q (B, H, T, d): it goes by device, size, and whether
    a gradient will be needed.
    """
    T = q.shape[2]
    brief = q.device.type == "cpu" and T <= short_limit(q.dtype)
    if T <= window and documents is None:
        return (
            "short"
            if brief and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad
            else "causal"
        )
    if q.device.type == "cpu":
        return "short" if brief else "blocked"
    reason = cannot("triton", q, window, documents)
    if reason and q.is_cuda:
        say_once(
            f"landmark attention runs in plain PyTorch on {q.device}: the Triton kernels do not take it, {reason}"
        )
    return "blocked" if reason else "triton"


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    implementation: str,
) -> None:
    """Raise UserError, with the values, for whatever does not fit together."""
    if (
        q.dim() != 4
        or k.dim() != 4
        or k.shape != v.shape
        or k.shape[0] != q.shape[0]
        or k.shape[2:] != q.shape[2:]
    ):
        raise UserError(
            f"attention needs q (B, H, T, d) and k, v (B, K, T, d); found q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        )
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise UserError(
            f"{q.shape[1]} query heads cannot share {k.shape[1]} key-value heads; H must be a multiple of K"
        )
    if window < 1 or stride < 1:
        raise UserError(
            f"window and stride must be at least 1; found window={window}, stride={stride}"
        )
    if len({q.dtype, k.dtype, v.dtype}) > 1:
        raise UserError(f"q, k and v must have one dtype; found {q.dtype}, {k.dtype}, {v.dtype}")
    if (
        len(
            {x.device for x in (q, k, v)} | ({documents.device} if documents is not None else set())
        )
        > 1
    ):
        more = "" if documents is None else f", {documents.device}"
        raise UserError(
            f"q, k, v and documents must be on one device; found {q.device}, {k.device}, {v.device}{more}"
        )
    if documents is not None and documents.shape != (q.shape[0], q.shape[2]):
        raise UserError(
            f"documents must be (B, T) = {(q.shape[0], q.shape[2])}; found {tuple(documents.shape)}"
        )
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"implementation {implementation!r} is not known; one of {', '.join(IMPLEMENTATIONS)}"
        )


def check_documents(documents: Tensor, window: int, stride: int) -> None:
    """Raise UserError for rows longer than the window with a document that begins off the stride.

    Landmarks are counted from the row's first token: such a document sees others than when it
    stands alone. documents (B, T) integers, padding -1. Reads the tensor, so not for the inside
    of a compiled function: check the batch where it is made.
    """
    if documents.shape[1] <= window:
        return
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0)) & (documents >= 0)
    begins[:, ::stride] = False
    if begins.any():
        row, column = begins.nonzero()[0].tolist()
        raise UserError(
            f"packed rows of {documents.shape[1]} tokens are longer than the window of {window}, "
            f"and the document at token {column} of row {row} does not begin at a multiple of "
            f"landmark_stride {stride}; pack them for this model's config, or into rows no longer "
            "than its window"
        )


def landmark_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Attention of every query over its window and the landmarks before it (§2.3).

    q (B, H, T, d); k and v (B, K, T, d), H a multiple of K, rotated already; documents (B, T)
    integers or None: tokens see only their own document, whose first token stands at a multiple of
    `stride` when T > window. Returns (B, H, T, d). `choose` says what "auto" takes. Raises
    UserError for shapes, dtypes, devices or settings that do not fit, and for an implementation
    that cannot take them.
    """
    if torch.amp.is_autocast_available(q.device.type) and torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    check(q, k, v, window, stride, documents, implementation)
    if implementation == "auto":
        implementation = choose(q, window, documents)
    elif reason := cannot(implementation, q, window, documents):
        raise UserError(f"implementation {implementation!r} cannot take this: {reason}")
    if implementation == "causal":
        return causal(q, k, v)
    if implementation in ("blocked", "triton"):
        documents = None if documents is None else documents.to(torch.int32)
        return attention_op(q, k, v, window, stride, documents, implementation == "triton")[0]
    return (definition if implementation == "definition" else short)(
        q, k, v, window, stride, documents
    )


# The cache
# ----------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """What the new tokens of one forward mean to the cache, in every layer alike.

    Shapes: `LandmarkCache.plan`.
    """

    positions: Tensor  # (B, n), −1 in the padding
    padding: Tensor  # (B, 1, n, 1)
    fresh: bool = False  # several tokens: nothing is cached yet
    slots: Tensor | None = None  # one token: (B, 1 or 2), where its key and value go
    bias: Tensor | None = (
        None  # one token: (B, 1, slots), 0 where it sees and very negative where not
    )
    used: Tensor | None = (
        # one token: how many slots of the row that is furthest are in use, rounded up to a multiple
        # of 64
        None
    )


def cached(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / √d + bias) v of one token a row: q (B, K, G, d), keys and values (B, K, ≥ S,
    d), bias (B, 1, S) -> (B, K, G, d).
    """
    B, K, G, d = q.shape
    S = bias.shape[-1]
    keys, values = (x.view(B * K, -1, d)[:, :S] for x in (keys, values))
    bias = bias[:, None].expand(B, K, 1, S).reshape(B * K, S, 1)
    scores = torch.baddbmm(
        bias, keys, q.reshape(B * K, G, d).mT, alpha=d**-0.5
    ).mT  # (B·K, G, S); k qᵀ is half as dear as q kᵀ, which reads the keys across
    return torch.bmm(scores.softmax(-1), values).view(B, K, G, d)


@torch.library.custom_op("sage::cached_attention", mutates_args=())
def cached_op(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor, used: Tensor) -> Tensor:
    """`cached` for a compiled step on a CPU: shapes are static outside of it, but it reads no
    further than what is written.
    """
    return cached(q, keys, values, bias[..., : int(used)])


@cached_op.register_fake
def _(q, keys, values, bias, used):
    return q.new_empty(q.shape)


class LandmarkCache:
    """Keys and values of all layers of a batch: a ring of the last `window` tokens and the
    landmarks of the whole history.

    Each layer holds keys and values (B, K, R + M + 1, d): slot p mod R is the ring's place of
    position p, slot R + p / stride is its place among the landmarks, and the last slot is a spare
    that swallows what must not be kept (padding), so that every shape is static and a decoding step
    compiles. `lengths` (B,) counts the tokens of each row that are in the cache.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        window: int,
        stride: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device="cpu",
    ):
        self.window, self.stride, self.max_tokens = window, stride, max_tokens
        self.ring = min(window, max_tokens)
        self.landmarks = 0 if max_tokens <= window else -(-max_tokens // stride)
        shape = (batch, kv_heads, self.ring + self.landmarks + 1, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        # the position from which on a row's newest token sees a slot; it rises along the slots, so
        # those in use are always the first ones
        self.reach = torch.cat(
            [torch.arange(self.ring), window + stride * torch.arange(self.landmarks)]
        ).to(device)
        self.by_kernel = (
            self.lengths.is_cuda
            and layers > 0
            and cannot("triton", self.keys[0], window, None) is None
        )

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return sum(x.nbytes for x in [*self.keys, *self.values, self.lengths, self.reach])

    def seen(self, newest: Tensor, query: Tensor) -> Tensor:
        """Which slots the tokens at positions `query` (B, n) see when the ring's newest token is at
        `newest` (B,): bool (B, n, R + M).
        """
        slot = torch.arange(self.ring, device=query.device)
        position = (
            newest[:, None] - (newest[:, None] - slot) % self.ring
        )  # (B, R), negative: never written
        near = (position[:, None] >= 0) & (
            query[:, :, None] - position[:, None] < self.window
        )  # (B, n, R)
        if not self.landmarks:
            return near
        landmark = torch.arange(self.landmarks, device=query.device) * self.stride
        far = (query[:, :, None] - landmark >= self.window) & (
            landmark <= newest[:, None, None]
        )  # (B, n, M)
        return torch.cat([near, far], -1)

    def slots(self, positions: Tensor) -> Tensor:
        """Where keys and values of tokens at `positions` (B, n) go: (B, n), or with landmarks (B,
        2n), each token's place in the ring and among
        the landmarks; padding and what the ring would lose at once go to the spare."""
        spare, kept = self.ring + self.landmarks, positions >= 0
        near = torch.where(
            kept & (positions > positions.amax(1, keepdim=True) - self.ring),
            positions % self.ring,
            spare,
        )
        if not self.landmarks:
            return near
        return torch.cat(
            [
                near,
                torch.where(
                    kept & (positions % self.stride == 0),
                    self.ring + positions // self.stride,
                    spare,
                ),
            ],
            1,
        )

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """Put keys and values (B, K, n, d) in their slots (B, n or 2n)."""
        B, K, n, d = k.shape
        start = torch.arange(B * K, device=k.device).view(B, K, 1) * (
            self.ring + self.landmarks + 1
        )
        place = (start + slots[:, None]).flatten()  # (B·K·n or 2n,), rows of d numbers
        for store, new in ((self.keys[layer], k), (self.values[layer], v)):
            new = new if slots.shape[1] == n else torch.cat([new, new], 2)
            store.view(-1, d).index_put_((place,), new.to(store.dtype).reshape(-1, d))

    def plan(self, positions: Tensor) -> Plan:
        """What all layers need to know of new tokens at `positions` (B, n) int64, found once: each
        row's tokens follow its cached ones, −1 = padding at the right.
        """
        padding = (positions < 0)[:, None, :, None]
        if positions.shape[1] > 1:
            return Plan(positions, padding, fresh=not self.lengths.any())
        seen = self.reach <= positions  # (B, R + M)
        used = (
            -(-(self.reach <= positions.max()).sum().clamp(min=1) // 64) * 64
        )  # in 64s: oneDNN keeps a kernel for every shape it meets
        if positions.device.type == "cpu" and not torch.compiler.is_compiling():
            seen = seen[:, : int(used)]  # nobody has written further
        bias = torch.zeros(seen.shape, dtype=self.keys[0].dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(self.keys[0].dtype).min
        )[:, None]
        return Plan(positions, padding, slots=self.slots(positions), bias=bias, used=used)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        """Attention of n new tokens over the cache and themselves; writes their keys and values.

        q (B, H, n, d); k and v (B, K, n, d). Returns (B, H, n, d), zero at padding. Call
        advance(positions) once after the last layer.
        """
        if q.shape[2] == 1:
            self.write(layer, k, v, plan.slots)
            return self.step(layer, q, plan).masked_fill(plan.padding, 0)
        q, k, v = (
            x.masked_fill(plan.padding, 0) for x in (q, k, v)
        )  # NaN · 0 is NaN: padding must be gone before any product
        if plan.fresh:  # right padding is in nobody's past
            output = landmark_attention(q, k, v, self.window, self.stride)
            self.write(layer, k, v, self.slots(plan.positions))
            return output.masked_fill(plan.padding, 0)
        outputs, newest = [], self.lengths - 1
        for q, k, v, p in zip(*(x.split(256, 2) for x in (q, k, v)), plan.positions.split(256, 1)):
            outputs.append(self.chunk(layer, q, k, v, p, newest))
            self.write(layer, k, v, self.slots(p))
            newest = newest + (p >= 0).sum(1)
        return torch.cat(outputs, 2).masked_fill(plan.padding, 0)

    def step(self, layer: int, q: Tensor, plan: Plan) -> Tensor:
        """One token a row, already written: static shapes, no branch on data, so that it compiles.
        q (B, H, 1, d) -> (B, H, 1, d).
        """
        B, H, _, d = q.shape
        keys, values = self.keys[layer], self.values[layer]
        if self.by_kernel and q.dtype == keys.dtype:
            return decode_op(
                q,
                keys,
                values,
                plan.positions[:, 0],
                self.ring,
                self.ring + self.landmarks,
                self.stride,
            )
        q = q.view(B, keys.shape[1], -1, d).to(keys.dtype)  # (B, K, G, d)
        if not torch.compiler.is_compiling() or q.device.type != "cpu":
            return cached(q, keys, values, plan.bias).view(B, H, 1, d)
        if B > 1:
            return cached_op(q, keys, values, plan.bias, plan.used).view(B, H, 1, d)
        # one row: Inductor turns product-and-sum into one vectorised loop over memory
        wide, slots = torch.promote_types(q.dtype, torch.float32), plan.bias.shape[-1]
        q = written(q * d**-0.5)[:, :, :, None]  # (1, K, G, 1, d)
        scores = (q.to(wide) * keys[:, :, None, :slots]).sum(-1) + plan.bias[
            :, None
        ]  # (1, K, G, R + M)
        return (
            (scores.softmax(-1)[..., None] * values[:, :, None, :slots])
            .sum(-2)
            .to(q.dtype)
            .view(B, H, 1, d)
        )

    def chunk(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, newest: Tensor
    ) -> Tensor:
        """Several tokens a row against the cache as it was before them, and each other. q (B, H, n,
        d), newest (B,) -> (B, H, n, d).
        """
        B, H, n, d = q.shape
        slots = int((self.reach <= positions.max()).sum())  # nobody sees further
        k = torch.cat([self.keys[layer][:, :, :slots].to(q.dtype), k], 2)  # (B, K, slots + n, d)
        v = torch.cat([self.values[layer][:, :, :slots].to(q.dtype), v], 2)
        among = (
            visible(positions[:, :, None], positions[:, None, :], self.window, self.stride)
            & (positions >= 0)[:, None]
        )
        seen = torch.cat([self.seen(newest, positions)[..., :slots], among], -1)[
            :, None, None
        ]  # (B, 1, 1, n, slots + n)
        scores = (q.reshape(B, k.shape[1], -1, d) @ k.mT).to(
            torch.promote_types(q.dtype, torch.float32)
        ) * d**-0.5  # (B, K, G·n, slots + n)
        scores = scores.view(B, k.shape[1], -1, n, k.shape[2])
        p = scores.masked_fill(~seen, -1e30).softmax(-1).to(v.dtype)
        return (p.view(B, k.shape[1], -1, k.shape[2]) @ v).view(B, H, n, d)

    def advance(self, positions: Tensor) -> None:
        """Count the tokens at `positions` (B, n) as cached: once per forward, after the last layer
        has attended.

        Raises UserError past max_tokens (a compiled step does not look: it has no branches on data;
        its caller counts).
        """
        self.lengths += (positions >= 0).sum(1)
        if not torch.compiler.is_compiling() and int(self.lengths.max()) > self.max_tokens:
            raise UserError(
                f"the cache was made for {self.max_tokens} tokens a row and a row now has {int(self.lengths.max())}; "
                "make it with a larger max_tokens"
            )

    def select(self, rows: list[int] | Tensor) -> "LandmarkCache":
        """A copy of the chosen rows in this order, for candidates that share a prefix: select([0] *
        n) repeats the first row.
        """
        copy, rows = (
            object.__new__(LandmarkCache),
            torch.as_tensor(rows, dtype=torch.int64, device=self.lengths.device),
        )
        copy.__dict__.update(self.__dict__)
        copy.keys, copy.values = (
            [x.index_select(0, rows) for x in store] for store in (self.keys, self.values)
        )  # four times as fast as x[rows].clone()
        copy.lengths = self.lengths[rows]
        return copy
