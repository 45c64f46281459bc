"""Landmark attention in Triton: forward, dq, dk/dv from the window, dk/dv of the landmarks, and
one-token decoding from the cache.

The pairs (query i, key j) of a long row, W = window, k = stride:

        keys ->            0   k   2k   3k        i-W          i
        query block        |   |   |    |   ......[/######\\]
                           landmarks before        /  left edge, masked
                           the slice, no mask      \\  diagonal, masked
                                                   #  every pair visible, no mask

A block of M queries walks the landmarks before its slice, then the slice: left edge, middle,
diagonal. Each of these stretches is a loop of its own, unrolled from one body by `static_range`,
so that only the stretches at an edge compute a mask. Landmark tiles need no gather: keys j·k are a
tile of rows with k times the row stride.

Backward splits the same pairs by key instead. A block of keys takes its gradient from the W queries
after it; a landmark takes more from every later query, up to T of them for few keys, so those
queries are divided into parts with float32 partial sums (without that a handful of programs would
run for the whole of the backward). The window's kernel starts its sums from the landmarks' and
writes each gradient once.

Tiles are read and written through descriptors of (B, heads, T, d): one instruction of Hopper's
tensor memory accelerator (TMA) moves a tile, with zeros for rows past the end. The host makes the
descriptors and passes them as arguments. Hardware before sm_90 has no TMA: there a kernel gets the
tensors and makes the descriptors itself, and Triton rewrites them to pointers and asynchronous
copies. (In descriptors made by the host that rewriting loses sight of how strides are aligned, and
with it every asynchronous copy.)

Arithmetic, d = 128: a visible pair costs 4d flops forward and 10d backward (the kernels here do
14d: scores and dP are computed once for dq and once for dk, dv). At 128k tokens, W = 4096, k = 64 a
head has 6.5e8 visible pairs, 13 times fewer than dense. A block of 128 queries reads (W + T/k)·2d·2
bytes for 128·(W + T/k)·4d flops, 128 flops per byte from L2: the tensor cores are the roof, not
memory. Decoding reads (W + T/k)·2d·2 bytes per key-value head for 4d·G flops per slot: memory is
the roof, so slots are split over programs until the chip is full.

Measured on an H100 under Triton 3.6 (bf16, d = 128, 40 heads over 8, T = 32k, W = 4096, k = 64,
TFLOP/s of visible pairs; its matrix peak is 746): with plain pointers and one loop with a branch
around the mask, forward 442, window 449, landmarks 356, dq 537 at their fastest tiles. A trial for
batch 1 with descriptors and a loop per stretch: forward 491, window 482 to 486. The kernels below
are that trial for any batch and with documents; they are not measured yet, nor is any hardware
before Hopper.

    python -m pytest tests/test_kernels.py     in the interpreter on a CPU, and compiled for sm_90
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

LOG2_E = tl.constexpr(1.4426950408889634)  # exponentials are base 2: the hardware has no other
# float32 products on tensor cores are rounded to 11 bits ("tf32") unless told otherwise; three of
# them on split operands keep float32's accuracy ("ieee" is plain multiply-add, which spills)
PRECISION = tl.constexpr("tf32x3")
# TRITON_INTERPRET=1 when this was imported: kernels run on CPU tensors, for tests
INTERPRETED = triton.knobs.runtime.interpret


# Shared by every kernel
# --------------------------------------------------------------------------------------------------


@triton.jit
def described(X, B, T, heads, step, COUNT: tl.constexpr, D: tl.constexpr):
    """A descriptor of every step-th row of X (B, T, heads, D), as (B, heads, rows, D): X itself
    where the host made one (`tiled` below), that is, where there is TMA.
    """
    if isinstance(X, tl.tensor_descriptor):
        return X
    else:
        row_stride = tl.cast(step, tl.int64) * heads * D
        return tl.make_tensor_descriptor(
            X,
            shape=[B, heads, tl.cdiv(T, step), D],
            strides=[tl.cast(T, tl.int64) * heads * D, D, row_stride, 1],
            block_shape=[1, 1, COUNT, D],
        )


@triton.jit
def load_tile(X, row, head, start):
    """The rows of one head from `start` on, as many as the descriptor's tile has: (COUNT, D)."""
    tile = X.load([row, head, start, 0])
    return tile.reshape(tile.shape[2], tile.shape[3])


@triton.jit
def store_tile(X, row, head, start, tile):
    X.store([row, head, start, 0], tile.to(X.dtype).reshape(1, 1, tile.shape[0], tile.shape[1]))


@triton.jit
def scaled_scores(q, k):
    """q kᵀ / √D in powers of two."""
    return tl.dot(q, tl.trans(k), input_precision=PRECISION) * (LOG2_E * q.shape[1] ** -0.5)


@triton.jit
def add_keys(total, weight, best, scores, v):
    """One step of a running softmax, with scores (M, N) in powers of two against values v (N, D):
    total (M, D) and weight (M) are relative to 2^best, which starts finite.
    """
    higher = tl.maximum(best, tl.max(scores, 1))
    p = tl.exp2(scores - higher[:, None])
    shrink = tl.exp2(best - higher)
    weight = weight * shrink + tl.sum(p, 1)
    total = tl.dot(p.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
    return total, weight, higher


# Forward and dq: a block of queries walks its keys
# --------------------------------------------------------------------------------------------------


@triton.jit
def key_stretches(start, T, window, stride, M: tl.constexpr, N: tl.constexpr):
    """Where the stretches of keys that the block of queries at `start` sees begin and end: 0 whole
    tiles of landmarks and 1 the rest of them, counted in landmarks; 2 the slice's left edge, 3 its
    middle and 4 the diagonal.
    """
    first = tl.maximum(start - window + 1, 0) // N * N  # of the slice
    clear = tl.minimum(tl.cdiv(tl.maximum(start + M - window, 0), N) * N, start)
    landmarks = tl.cdiv(first, stride)
    whole = landmarks // N * N
    end = tl.minimum(start + M, T)
    return (0, whole, first, clear, start), (whole, landmarks, clear, start, end)


@triton.jit
def hide(
    x, hidden, queries, keys, first, query_documents, DOCUMENTS, T, window, stride,
    STRETCH: tl.constexpr,
):  # fmt: skip
    """x (M, N), with `hidden` where a query does not see a key."""
    if STRETCH == 1:  # the rest of the landmarks: the tile goes on beyond those before the slice
        x = tl.where((keys < first)[None, :], x, hidden)
    if STRETCH == 2 or STRETCH == 4:  # the left edge or the diagonal
        distance = queries[:, None] - keys[None, :]
        near = (distance < window) | (keys % stride == 0)[None, :]
        x = tl.where((distance >= 0) & near, x, hidden)
    if DOCUMENTS is not None:
        key_documents = tl.load(DOCUMENTS + keys, mask=keys < T, other=-1)
        x = tl.where(query_documents[:, None] == key_documents[None, :], x, hidden)
    return x


@triton.jit
def load_keys(
    K, V, LANDMARK_K, LANDMARK_V, row, kv_head, begin, stride, N: tl.constexpr,
    STRETCH: tl.constexpr,
):  # fmt: skip
    """Positions (N,), keys and values (N, D) of a tile that begins at `begin`: of landmarks in the
    first two stretches, whose tiles are counted in strides, then of the slice.
    """
    places = begin + tl.arange(0, N)
    if STRETCH < 2:
        k = load_tile(LANDMARK_K, row, kv_head, begin)
        v = load_tile(LANDMARK_V, row, kv_head, begin)
        return places * stride, k, v
    else:
        return places, load_tile(K, row, kv_head, begin), load_tile(V, row, kv_head, begin)


@triton.jit
def forward_kernel(
    Q, K, V, LANDMARK_K, LANDMARK_V, DOCUMENTS, OUT, LSE, T, H, window, stride,
    GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """OUT (B, T, H, D) and LSE (B, H, T), the base-2 logarithm of each softmax's sum; one program
    per block of M queries of a head.
    """
    KV = H // GROUP
    B = tl.num_programs(1) // H
    Q = described(Q, B, T, H, 1, M, D)
    K = described(K, B, T, KV, 1, N, D)
    V = described(V, B, T, KV, 1, N, D)
    LANDMARK_K = described(LANDMARK_K, B, T, KV, stride, N, D)
    LANDMARK_V = described(LANDMARK_V, B, T, KV, stride, N, D)
    OUT = described(OUT, B, T, H, 1, M, D)

    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * M  # the longest first
    row, head = tl.program_id(1) // H, tl.program_id(1) % H
    kv_head = head // GROUP
    queries = start + tl.arange(0, M)
    q = load_tile(Q, row, head, start)  # (M, D)
    query_documents = queries
    if DOCUMENTS is not None:
        DOCUMENTS += row.to(tl.int64) * T
        query_documents = tl.load(DOCUMENTS + queries, mask=queries < T, other=-2)

    total = tl.zeros([M, D], tl.float32)
    weight = tl.zeros([M], tl.float32)
    best = tl.full([M], -1e30, tl.float32)
    begins, ends = key_stretches(start, T, window, stride, M, N)
    for STRETCH in tl.static_range(5):
        for begin in tl.range(begins[STRETCH], ends[STRETCH], N):
            keys, k, v = load_keys(
                K, V, LANDMARK_K, LANDMARK_V, row, kv_head, begin, stride, N, STRETCH
            )
            scores = scaled_scores(q, k)  # (M, N)
            scores = hide(
                scores, float("-inf"), queries, keys, begins[2], query_documents, DOCUMENTS, T,
                window, stride, STRETCH,
            )  # fmt: skip
            total, weight, best = add_keys(total, weight, best, scores, v)
    store_tile(OUT, row, head, start, total / weight[:, None])
    lse = LSE + tl.program_id(1).to(tl.int64) * T + queries
    tl.store(lse, best + tl.log2(weight), mask=queries < T)


@triton.jit
def dq_kernel(
    Q, K, V, LANDMARK_K, LANDMARK_V, DOCUMENTS, OUT, DOUT, LSE, DELTA, DQ, T, H, window, stride,
    GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """DQ (B, T, H, D) = Σ dS k / √D with dS = P (dP − DELTA), and DELTA (B, H, T) = Σ OUT·DOUT for
    the kernels after it; the forward's walk over the keys.
    """
    KV = H // GROUP
    B = tl.num_programs(1) // H
    Q = described(Q, B, T, H, 1, M, D)
    K = described(K, B, T, KV, 1, N, D)
    V = described(V, B, T, KV, 1, N, D)
    LANDMARK_K = described(LANDMARK_K, B, T, KV, stride, N, D)
    LANDMARK_V = described(LANDMARK_V, B, T, KV, stride, N, D)
    OUT = described(OUT, B, T, H, 1, M, D)
    DOUT = described(DOUT, B, T, H, 1, M, D)
    DQ = described(DQ, B, T, H, 1, M, D)

    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    row, head = tl.program_id(1) // H, tl.program_id(1) % H
    kv_head = head // GROUP
    queries = start + tl.arange(0, M)
    q = load_tile(Q, row, head, start)  # (M, D)
    dout = load_tile(DOUT, row, head, start)
    out = load_tile(OUT, row, head, start)
    query_documents = queries
    if DOCUMENTS is not None:
        DOCUMENTS += row.to(tl.int64) * T
        query_documents = tl.load(DOCUMENTS + queries, mask=queries < T, other=-2)
    vectors = tl.program_id(1).to(tl.int64) * T + queries
    lse = tl.load(LSE + vectors, mask=queries < T, other=0.0)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(DELTA + vectors, delta, mask=queries < T)

    dq = tl.zeros([M, D], tl.float32)
    begins, ends = key_stretches(start, T, window, stride, M, N)
    for STRETCH in tl.static_range(5):
        for begin in tl.range(begins[STRETCH], ends[STRETCH], N):
            keys, k, v = load_keys(
                K, V, LANDMARK_K, LANDMARK_V, row, kv_head, begin, stride, N, STRETCH
            )
            scores = scaled_scores(q, k)  # (M, N)
            p = hide(
                tl.exp2(scores - lse[:, None]), 0.0, queries, keys, begins[2], query_documents,
                DOCUMENTS, T, window, stride, STRETCH,
            )  # fmt: skip
            dp = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
            ds = p * (dp - delta[:, None])
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    store_tile(DQ, row, head, start, dq * D**-0.5)


# dk and dv: a block of keys walks its queries
# --------------------------------------------------------------------------------------------------


@triton.jit
def key_gradients(
    dk, dv, k, v, keys, Q, DOUT, LSE, DELTA, DOCUMENTS, row, kv_head, bounds, T, H, window,
    FAR: tl.constexpr, GROUP: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Add to dk·√D and dv (N, D) the queries between the first and the last of `bounds`: those
    within the window of a key or, with FAR, those beyond it. Between the second and the third
    bound every query counts for every key. Queries past the end are zeros and add nothing.
    """
    key_documents = keys
    if DOCUMENTS is not None:
        DOCUMENTS += row.to(tl.int64) * T
        key_documents = tl.load(DOCUMENTS + keys, mask=keys < T, other=-2)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        vectors = (row * H + head).to(tl.int64) * T
        for STRETCH in tl.static_range(2 if FAR else 3):
            for begin in tl.range(bounds[STRETCH], bounds[STRETCH + 1], M):
                queries = begin + tl.arange(0, M)
                q = load_tile(Q, row, head, begin)  # (M, D)
                dout = load_tile(DOUT, row, head, begin)
                lse = tl.load(LSE + vectors + queries, mask=queries < T, other=0.0)
                delta = tl.load(DELTA + vectors + queries, mask=queries < T, other=0.0)
                scores = scaled_scores(k, q)  # (N, M): no product needs a transpose
                p = tl.exp2(scores - lse[None, :])
                if STRETCH != 1:
                    distance = queries[None, :] - keys[:, None]
                    if FAR:
                        p = tl.where(distance >= window, p, 0.0)
                    else:
                        p = tl.where((distance >= 0) & (distance < window), p, 0.0)
                if DOCUMENTS is not None:
                    query_documents = tl.load(DOCUMENTS + queries, mask=queries < T, other=-1)
                    p = tl.where(key_documents[:, None] == query_documents[None, :], p, 0.0)
                dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision=PRECISION)
                dp = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
                ds = p * (dp - delta[None, :])
                dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def landmark_kernel(
    Q, LANDMARK_K, LANDMARK_V, DOCUMENTS, DOUT, LSE, DELTA, PARTIAL, T, H, window, stride, count,
    part, GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """PARTIAL (parts, 2, B, K, count, D) float32: dk·√D and dv of the landmarks from the queries
    beyond their window, `part` queries per program.
    """
    KV = H // GROUP
    B = tl.num_programs(2) // KV
    Q = described(Q, B, T, H, 1, M, D)
    DOUT = described(DOUT, B, T, H, 1, M, D)
    LANDMARK_K = described(LANDMARK_K, B, T, KV, stride, N, D)
    LANDMARK_V = described(LANDMARK_V, B, T, KV, stride, N, D)

    first = tl.program_id(0) * N
    row, kv_head = tl.program_id(2) // KV, tl.program_id(2) % KV
    landmarks = first + tl.arange(0, N)
    k = load_tile(LANDMARK_K, row, kv_head, first)  # (N, D)
    v = load_tile(LANDMARK_V, row, kv_head, first)
    begin = tl.maximum(tl.program_id(1) * part, (first * stride + window) // M * M)
    end = tl.minimum((tl.program_id(1) + 1) * part, T)
    clear = tl.cdiv((first + N - 1) * stride + window, M) * M
    clear = tl.minimum(tl.maximum(clear, begin), end)
    dk = tl.zeros([N, D], tl.float32)
    dv = tl.zeros([N, D], tl.float32)
    dk, dv = key_gradients(
        dk, dv, k, v, landmarks * stride, Q, DOUT, LSE, DELTA, DOCUMENTS, row, kv_head,
        (begin, clear, end), T, H, window, True, GROUP, M, D,
    )  # fmt: skip
    half = tl.num_programs(2).to(tl.int64) * count * D
    out = PARTIAL + tl.program_id(1) * 2 * half + tl.program_id(2).to(tl.int64) * count * D
    out += landmarks[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(out, dk, mask=landmarks[:, None] < count)
    tl.store(out + half, dv, mask=landmarks[:, None] < count)


@triton.jit
def window_kernel(
    Q, K, V, DOCUMENTS, DOUT, LSE, DELTA, FAR, DK, DV, T, H, window, stride, count,
    GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """DK and DV (B, T, K, D) from the queries within the window, on top of FAR (2, B, K, count, D),
    what the landmarks have from beyond it.
    """
    KV = H // GROUP
    B = tl.num_programs(1) // KV
    Q = described(Q, B, T, H, 1, M, D)
    K = described(K, B, T, KV, 1, N, D)
    V = described(V, B, T, KV, 1, N, D)
    DOUT = described(DOUT, B, T, H, 1, M, D)
    DK = described(DK, B, T, KV, 1, N, D)
    DV = described(DV, B, T, KV, 1, N, D)

    first = tl.program_id(0) * N
    row, kv_head = tl.program_id(1) // KV, tl.program_id(1) % KV
    keys = first + tl.arange(0, N)
    k = load_tile(K, row, kv_head, first)  # (N, D)
    v = load_tile(V, row, kv_head, first)
    landmark = keys // stride
    far = FAR + tl.program_id(1).to(tl.int64) * count * D
    far += landmark[:, None] * D + tl.arange(0, D)[None, :]
    has_far = ((keys % stride == 0) & (landmark < count))[:, None]
    dk = tl.load(far, mask=has_far, other=0.0)
    dv = tl.load(far + tl.num_programs(1).to(tl.int64) * count * D, mask=has_far, other=0.0)
    diagonal = first + N
    whole = diagonal + tl.maximum(tl.minimum(first + window, T) - diagonal, 0) // M * M
    end = tl.minimum(first + N - 1 + window, T)
    dk, dv = key_gradients(
        dk, dv, k, v, keys, Q, DOUT, LSE, DELTA, DOCUMENTS, row, kv_head,
        (first, diagonal, whole, end), T, H, window, False, GROUP, M, D,
    )  # fmt: skip
    store_tile(DK, row, kv_head, first, dk * D**-0.5)
    store_tile(DV, row, kv_head, first, dv)


# Decoding
# --------------------------------------------------------------------------------------------------


@triton.jit
def decode_kernel(
    Q, K, V, POSITIONS, OUT, LSE, H, ring, slots, allocated, stride, split,
    GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One query per row against `split` slots of the cache per program, read in place: OUT (B, H,
    splits, D) and LSE (B, H, splits) in float32.

    The GROUP query heads of a key-value head stand in the rows of one tile, so keys and values are
    read once for all of them.
    """
    KV = H // GROUP
    row, head = tl.program_id(1) // KV, tl.program_id(1) % KV
    position = tl.load(POSITIONS + row).to(tl.int32)
    member = tl.arange(0, M)
    heads = row * H + head * GROUP + member
    q = tl.load(
        Q + heads[:, None] * D + tl.arange(0, D)[None, :], mask=member[:, None] < GROUP, other=0.0
    )
    base = tl.program_id(1).to(tl.int64) * allocated * D
    total = tl.zeros([M, D], tl.float32)
    weight = tl.zeros([M], tl.float32)
    best = tl.full([M], -1e30, tl.float32)
    begin = tl.program_id(0) * split
    for start in tl.range(begin, tl.minimum(begin + split, slots), N):
        slot = start + tl.arange(0, N)
        # a ring slot is in use once a token reached it; a landmark counts once the ring has dropped
        # it (the ring is a whole window then)
        seen = (slot < slots) & tl.where(
            slot < ring, slot <= position, (slot - ring) * stride + ring <= position
        )
        rows = base + slot[:, None] * D + tl.arange(0, D)[None, :]
        k = tl.load(K + rows, mask=seen[:, None], other=0.0)
        v = tl.load(V + rows, mask=seen[:, None], other=0.0)
        scores = scaled_scores(q, k)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        total, weight, best = add_keys(total, weight, best, scores, v)
    place = heads * tl.num_programs(0) + tl.program_id(0)
    tl.store(
        OUT + place[:, None] * D + tl.arange(0, D)[None, :],
        total / tl.maximum(weight, 1e-30)[:, None],
        mask=member[:, None] < GROUP,
    )
    tl.store(LSE + place, best + tl.log2(tl.maximum(weight, 1e-30)), mask=member < GROUP)


# Launching
# --------------------------------------------------------------------------------------------------

# kernel, bytes of an element, d -> (queries M, keys N, warps, stages), for a Hopper's 227 KiB of
# shared memory. bf16 at d = 128 are the fastest of those timed (the window's but for 1%: it spills
# less); the others are only known to compile. float32 is there to check results by and spills.
TILES = {
    ("forward", 2, 128): (128, 128, 8, 3),
    ("forward", 2, 64): (128, 64, 8, 3),
    ("forward", 4, 128): (16, 16, 4, 1),
    ("forward", 4, 64): (64, 32, 4, 2),
    ("dq", 2, 128): (128, 64, 8, 3),
    ("dq", 2, 64): (128, 64, 8, 3),
    ("dq", 4, 128): (16, 16, 4, 1),
    ("dq", 4, 64): (64, 16, 4, 2),
    ("landmark", 2, 128): (32, 64, 4, 3),
    ("landmark", 2, 64): (32, 128, 8, 3),
    ("landmark", 4, 128): (16, 16, 4, 1),
    ("landmark", 4, 64): (16, 32, 4, 2),
    ("window", 2, 128): (32, 64, 4, 3),
    ("window", 2, 64): (32, 128, 8, 3),
    ("window", 4, 128): (16, 16, 4, 1),
    ("window", 4, 64): (16, 32, 4, 2),
    ("decode", 2, 128): (16, 64, 4, 3),
    ("decode", 2, 64): (16, 64, 4, 3),
    ("decode", 4, 128): (16, 32, 4, 2),
    ("decode", 4, 64): (16, 32, 4, 2),
}
# and for the 99 KiB of the hardware that has least (sm_86, sm_89, sm_120); none of it was timed
SMALL_TILES = TILES | {
    ("forward", 2, 128): (64, 64, 4, 2),
    ("dq", 2, 128): (64, 64, 4, 2),
    ("window", 2, 128): (32, 64, 4, 2),
    ("landmark", 2, 128): (32, 64, 4, 2),
}


def unsupported(q: Tensor) -> str | None:
    """Why the kernels cannot take tensors like this one, or None."""
    if q.shape[-1] not in (64, 128):
        return f"head width 64 or 128, not {q.shape[-1]}"
    if q.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"bfloat16, float16 or float32, not {q.dtype}"
    if not q.is_cuda and not INTERPRETED:
        return f"a GPU (or TRITON_INTERPRET=1 set before Python starts), not {q.device}"
    return None


@functools.cache
def has_tma(device: torch.device) -> bool:
    """Whether the host makes the descriptors: from Hopper on, and in the interpreter."""
    if INTERPRETED or torch.version.hip:
        return INTERPRETED
    return torch.cuda.get_device_capability(device) >= (9, 0)


@functools.cache
def default_tiles(device: torch.device) -> dict:
    """The tiles that fit the shared memory of a device."""
    if INTERPRETED:
        return TILES
    room = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    return TILES if room >= 227 * 1024 else SMALL_TILES


def rows(x: Tensor) -> Tensor:
    """(B, heads, T, d) -> contiguous (B, T, heads, d): a view of what a projection wrote."""
    return x.transpose(1, 2).contiguous()


def tiled(x: Tensor, count: int, step: int = 1) -> TensorDescriptor | Tensor:
    """Every step-th row of x (B, T, heads, d), `count` at a time, as a kernel takes it: a
    descriptor, or x itself where there is no TMA.
    """
    if not has_tma(x.device):
        return x
    B, T, heads, d = x.shape
    shape = [B, heads, triton.cdiv(T, step), d]
    return TensorDescriptor(x, shape, [T * heads * d, d, step * heads * d, 1], [1, 1, count, d])


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    tiles: dict | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of q (B, H, T, d) over k, v (B, K, T, d); documents (B, T) int32 or None; tiles as
    TILES, for trying others.

    Returns out (B, H, T, d), lse (B, H, T) in powers of two.
    """
    B, H, T, d = q.shape
    group = H // k.shape[1]
    tiles = tiles or default_tiles(q.device)
    M, N, warps, stages = tiles["forward", q.element_size(), d]
    q, k, v = rows(q), rows(k), rows(v)
    out = torch.empty_like(q)
    lse = torch.empty(B, H, T, dtype=torch.float32, device=q.device)
    keys = (tiled(k, N), tiled(v, N), tiled(k, N, stride), tiled(v, N, stride))
    forward_kernel[triton.cdiv(T, M), B * H](
        tiled(q, M), *keys, documents, tiled(out, M), lse, T, H, window, stride, group, M, N, d,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out.transpose(1, 2), lse


def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    tiles: dict | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, in their shapes, from `dout` (B, H, T, d) and what forward
    returned.
    """
    B, H, T, d = q.shape
    K = k.shape[1]
    tiles = tiles or default_tiles(q.device)
    size = q.element_size()
    q, k, v, out, dout = (rows(x) for x in (q, k, v, out, dout))

    M, N, warps, stages = tiles["dq", size, d]
    dq = torch.empty_like(q)
    delta = torch.empty_like(lse)
    keys = (tiled(k, N), tiled(v, N), tiled(k, N, stride), tiled(v, N, stride))
    dq_kernel[triton.cdiv(T, M), B * H](
        tiled(q, M), *keys, documents, tiled(out, M), tiled(dout, M), lse, delta, tiled(dq, M),
        T, H, window, stride, H // K, M, N, d, num_warps=warps, num_stages=stages,
    )  # fmt: skip

    # landmarks that some query sees beyond its window
    count = triton.cdiv(max(T - window, 0), stride)
    far = q.new_empty(0, dtype=torch.float32)
    if count:
        M, N, warps, stages = tiles["landmark", size, d]
        # about eight programs per processor of a Hopper, which has 132
        blocks = triton.cdiv(count, N) * B * K
        parts = min(triton.cdiv(1024, blocks), triton.cdiv(T, 4 * M))
        part = triton.cdiv(triton.cdiv(T, parts), M) * M
        parts = triton.cdiv(T, part)
        partial = q.new_empty(parts, 2, B, K, count, d, dtype=torch.float32)
        landmark_kernel[triton.cdiv(count, N), parts, B * K](
            tiled(q, M), tiled(k, N, stride), tiled(v, N, stride), documents, tiled(dout, M), lse,
            delta, partial, T, H, window, stride, count, part, H // K, M, N, d,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        far = partial.sum(0)  # (2, B, K, count, d)

    M, N, warps, stages = tiles["window", size, d]
    dk = torch.empty_like(k)
    dv = torch.empty_like(v)
    window_kernel[triton.cdiv(T, N), B * K](
        tiled(q, M), tiled(k, N), tiled(v, N), documents, tiled(dout, M), lse, delta, far,
        tiled(dk, N), tiled(dv, N), T, H, window, stride, count, H // K, M, N, d,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    ring: int,
    slots: int,
    stride: int,
    tiles: dict | None = None,
) -> Tensor:
    """One token per row over a LandmarkCache's layer: q (B, H, 1, d), keys and values (B, K,
    allocated slots, d), positions (B,) int64 -> (B, H, 1, d).
    """
    B, H, _, d = q.shape
    K = keys.shape[1]
    tiles = tiles or default_tiles(q.device)
    M, N, warps, stages = tiles["decode", q.element_size(), d]
    M = max(M, triton.next_power_of_2(H // K))
    splits = min(
        triton.cdiv(512, B * K), triton.cdiv(slots, N)
    )  # about four programs per processor
    split = triton.cdiv(triton.cdiv(slots, splits), N) * N
    splits = triton.cdiv(slots, split)
    out = torch.empty(B, H, splits, d, dtype=torch.float32, device=q.device)
    lse = torch.empty(B, H, splits, dtype=torch.float32, device=q.device)
    decode_kernel[splits, B * K](
        q.contiguous(), keys, values, positions.contiguous(), out, lse, H, ring, slots,
        keys.shape[2], stride, split, H // K, M, N, d, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    share = torch.softmax(lse / LOG2_E.value, -1)  # lse is in powers of two
    return (share[..., None] * out).sum(2, keepdim=True).to(q.dtype)
