"""Landmark attention in Triton: forward, dq, dk/dv from the window, dk/dv of the landmarks, and
one-token decoding from the cache.

The pairs (query i, key j) of a long row, W = window, k = stride:

        keys ->            0   k   2k   3k        i-W          i
        query block        |   |   |    |   ......[/######\\]
                           landmarks before        /  left edge, masked
                           the slice, no mask      \\  diagonal, masked
                                                   #  every pair visible, no mask

A block of M queries walks the landmarks before its slice, then the slice: left edge, middle,
diagonal. Most tiles are visible as a whole; the branch around the mask is the same for all threads,
so their inner loop is two matrix products and an exponential. Landmark tiles need no gather: keys
j·k are a tile of rows with k times the row stride.

Backward splits the same pairs by key instead. A block of keys takes its gradient from the W queries
after it; a landmark takes more from every later query, up to T of them for few keys, so those
queries are divided into parts with float32 partial sums (without that a handful of programs would
run for the whole of the backward). The window's kernel starts its sums from the landmarks' and
writes each gradient once.

Arithmetic, d = 128: a visible pair costs 4d flops forward and 10d backward (the kernels here do
14d: scores and dP are computed once for dq and once for dk, dv). At 128k tokens, W = 4096, k = 64 a
head has 6.5e8 visible pairs, 13 times fewer than dense. A block of 128 queries reads (W + T/k)·2d·2
bytes for 128·(W + T/k)·4d flops, 128 flops a byte from L2: the tensor cores are the roof, not
memory. Decoding reads (W + T/k)·2d·2 bytes a key-value head for 4d·G flops a slot: memory is the
roof, so slots are split over programs until the chip is full.

Tried, by compiling for sm_90 (bench/hopper.py; no GPU was at hand, so no time is known):
- One loop for each stretch, masked or not: five copies of the forward's inner loop. Backward
  spilled 290–470 instructions at every tile
  size, and compiling took 10 s. One loop with a branch around the mask, as here: none or 16, 3 s.
- A base pointer written as row·T·H·d // GROUP: the compiler could no longer prove it aligned and
  dropped every asynchronous copy.
- 128 × 128 tiles forward: 12 spills; 64 × 128 backward (queries × keys): 60–120; 32 × 128 is what
  fits beside two 128 × 128 sums.
- Three stages instead of two: free in registers for forward and dq, 12–44 spills for the keys'
  gradients at d = 128 under Triton 3.6.
- float32 by plain multiply-add ("ieee"): thousands of spills; as three tf32 products on split
  operands: none.

Rows are read as (B, T, heads, d), the layout in which a model's projections write them: no stride
is passed, one copy is made when they differ.

    python -m pytest tests/test_kernels.py     in the interpreter on a CPU, and compiled for sm_90
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)  # exponentials are base 2: the hardware has no other
INTERPRETED = (
    triton.knobs.runtime.interpret
)  # TRITON_INTERPRET=1 when this was imported: kernels run on CPU tensors, for tests


# Shared by every kernel
# --------------------------------------------------------------------------------------------------


@triton.jit
def load_rows(base, start, row_stride, limit, COUNT: tl.constexpr, D: tl.constexpr):
    """COUNT rows from `start` of a (rows, D) matrix, zeros from row `limit` on."""
    index = tl.arange(0, COUNT)
    # only the tile's corner needs 64 bits; the offsets inside it stay the same all along a loop
    rows = (
        base
        + tl.cast(start, tl.int64) * row_stride
        + index[:, None] * row_stride
        + tl.arange(0, D)[None, :]
    )
    return tl.load(rows, mask=start + index[:, None] < limit, other=0.0)


@triton.jit
def window_slice(start, window, M: tl.constexpr, N: tl.constexpr):
    """First key of the slice that the block of queries at `start` walks, and the first from which
    all of the block see all keys.
    """
    first = tl.maximum(start - window + 1, 0) // N * N
    clear = tl.minimum((tl.maximum(start + M - window, 0) + N - 1) // N * N, start)
    return first, clear


# Forward
# --------------------------------------------------------------------------------------------------


@triton.jit
def attend_keys(
    total,
    weight,
    best,
    q,
    K,
    V,
    DOCUMENTS,
    begin,
    clear,
    whole,
    end,
    step,
    row_stride,
    queries,
    query_documents,
    window,
    stride,
    PACKED: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add keys begin·step … end·step to a running softmax: total (M, D) and weight (M) are relative
    to 2^best.

    From `clear` up to `whole` every query sees every key and no mask is computed.
    """
    for start in tl.range(begin, end, N):
        keys = (start + tl.arange(0, N)) * step
        k = load_rows(K, start, step * row_stride, end, N, D)  # (N, D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (
            LOG2_E * D**-0.5
        )  # (M, N), in powers of two
        if (start < clear) | (start >= whole):
            distance = queries[:, None] - keys[None, :]
            seen = (
                (distance >= 0)
                & ((distance < window) | (keys[None, :] % stride == 0))
                & (keys[None, :] < end * step)
            )
            scores = tl.where(seen, scores, float("-inf"))
        if PACKED:
            key_documents = tl.load(DOCUMENTS + keys, mask=keys < end * step, other=-1)
            scores = tl.where(
                query_documents[:, None] == key_documents[None, :], scores, float("-inf")
            )
        higher = tl.maximum(best, tl.max(scores, 1))  # finite: best starts at -1e30
        p = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(best - higher)
        weight = weight * shrink + tl.sum(p, 1)
        v = load_rows(V, start, step * row_stride, end, N, D)
        total = tl.dot(p.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        best = higher
    return total, weight, best


@triton.jit
def forward_kernel(
    Q,
    K,
    V,
    DOCUMENTS,
    OUT,
    LSE,
    T,
    H,
    window,
    stride,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """OUT (B, T, H, D) and LSE (B, H, T), the base-2 logarithm of each softmax's sum; one program a
    block of M queries of a head.
    """
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * M  # the longest first
    row, head = tl.program_id(1) // H, tl.program_id(1) % H
    queries = start + tl.arange(0, M)
    base, stretch = row.to(tl.int64) * T * H * D, H // GROUP * D
    K += row.to(tl.int64) * T * stretch + head // GROUP * D
    V += row.to(tl.int64) * T * stretch + head // GROUP * D
    DOCUMENTS += row.to(tl.int64) * T
    q = load_rows(Q + base + head * D, start, H * D, T, M, D)
    query_documents = (
        tl.load(DOCUMENTS + queries, mask=queries < T, other=-2) if PACKED else queries
    )
    total = tl.zeros([M, D], tl.float32)
    weight = tl.zeros([M], tl.float32)
    best = tl.full([M], -1e30, tl.float32)
    first, clear = window_slice(start, window, M, N)
    count = (first + stride - 1) // stride
    total, weight, best = attend_keys(
        total,
        weight,
        best,
        q,
        K,
        V,
        DOCUMENTS,
        0,
        0,
        count // N * N,
        count,
        stride,
        stretch,
        queries,
        query_documents,
        window,
        stride,
        PACKED,
        N,
        D,
        PRECISION,
    )
    total, weight, best = attend_keys(
        total,
        weight,
        best,
        q,
        K,
        V,
        DOCUMENTS,
        first,
        clear,
        start,
        tl.minimum(start + M, T),
        1,
        stretch,
        queries,
        query_documents,
        window,
        stride,
        PACKED,
        N,
        D,
        PRECISION,
    )
    out = (
        OUT
        + base
        + head * D
        + tl.cast(start, tl.int64) * H * D
        + tl.arange(0, M)[:, None] * (H * D)
        + tl.arange(0, D)[None, :]
    )
    tl.store(out, (total / weight[:, None]).to(OUT.dtype.element_ty), mask=queries[:, None] < T)
    tl.store(
        LSE + tl.program_id(1).to(tl.int64) * T + queries, best + tl.log2(weight), mask=queries < T
    )


# Backward: dq
# --------------------------------------------------------------------------------------------------


@triton.jit
def query_gradient(
    dq,
    q,
    dout,
    lse,
    delta,
    K,
    V,
    DOCUMENTS,
    begin,
    clear,
    whole,
    end,
    step,
    row_stride,
    queries,
    query_documents,
    window,
    stride,
    PACKED: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add Σ dS k over keys begin·step … end·step to dq (M, D), dS = P (dP − Σ P dP)."""
    for start in tl.range(begin, end, N):
        keys = (start + tl.arange(0, N)) * step
        k = load_rows(K, start, step * row_stride, end, N, D)
        v = load_rows(V, start, step * row_stride, end, N, D)
        p = tl.exp2(
            tl.dot(q, tl.trans(k), input_precision=PRECISION) * (LOG2_E * D**-0.5) - lse[:, None]
        )
        if (start < clear) | (start >= whole):
            distance = queries[:, None] - keys[None, :]
            seen = (
                (distance >= 0)
                & ((distance < window) | (keys[None, :] % stride == 0))
                & (keys[None, :] < end * step)
            )
            p = tl.where(seen, p, 0.0)
        if PACKED:
            key_documents = tl.load(DOCUMENTS + keys, mask=keys < end * step, other=-1)
            p = tl.where(query_documents[:, None] == key_documents[None, :], p, 0.0)
        dp = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@triton.jit
def dq_kernel(
    Q,
    K,
    V,
    DOCUMENTS,
    OUT,
    DOUT,
    LSE,
    DELTA,
    DQ,
    T,
    H,
    window,
    stride,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """DQ (B, T, H, D), and DELTA (B, H, T) = Σ OUT·DOUT for the kernels after it; the forward's
    walk over the keys.
    """
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    row, head = tl.program_id(1) // H, tl.program_id(1) % H
    queries = start + tl.arange(0, M)
    base, stretch = row.to(tl.int64) * T * H * D, H // GROUP * D
    K += row.to(tl.int64) * T * stretch + head // GROUP * D
    V += row.to(tl.int64) * T * stretch + head // GROUP * D
    DOCUMENTS += row.to(tl.int64) * T
    q = load_rows(Q + base + head * D, start, H * D, T, M, D)
    dout = load_rows(DOUT + base + head * D, start, H * D, T, M, D)
    out = load_rows(OUT + base + head * D, start, H * D, T, M, D)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    lse = tl.load(LSE + tl.program_id(1).to(tl.int64) * T + queries, mask=queries < T, other=0.0)
    tl.store(DELTA + tl.program_id(1).to(tl.int64) * T + queries, delta, mask=queries < T)
    query_documents = (
        tl.load(DOCUMENTS + queries, mask=queries < T, other=-2) if PACKED else queries
    )
    dq = tl.zeros([M, D], tl.float32)
    first, clear = window_slice(start, window, M, N)
    count = (first + stride - 1) // stride
    dq = query_gradient(
        dq,
        q,
        dout,
        lse,
        delta,
        K,
        V,
        DOCUMENTS,
        0,
        0,
        count // N * N,
        count,
        stride,
        stretch,
        queries,
        query_documents,
        window,
        stride,
        PACKED,
        N,
        D,
        PRECISION,
    )
    dq = query_gradient(
        dq,
        q,
        dout,
        lse,
        delta,
        K,
        V,
        DOCUMENTS,
        first,
        clear,
        start,
        tl.minimum(start + M, T),
        1,
        stretch,
        queries,
        query_documents,
        window,
        stride,
        PACKED,
        N,
        D,
        PRECISION,
    )
    gradient = (
        DQ
        + base
        + head * D
        + tl.cast(start, tl.int64) * H * D
        + tl.arange(0, M)[:, None] * (H * D)
        + tl.arange(0, D)[None, :]
    )
    tl.store(gradient, (dq * D**-0.5).to(DQ.dtype.element_ty), mask=queries[:, None] < T)


# Backward: dk and dv
# --------------------------------------------------------------------------------------------------


@triton.jit
def key_gradient(
    dk,
    dv,
    k,
    v,
    Q,
    DOUT,
    LSE,
    DELTA,
    DOCUMENTS,
    begin,
    clear,
    whole,
    end,
    row_stride,
    keys,
    key_documents,
    window,
    FAR: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add queries begin … end of one head to dk and dv (N, D): those within the window of a key, or
    (FAR) those beyond it.

    From `clear` up to `whole` every query counts for every key and no mask is computed.
    """
    for start in tl.range(begin, end, M):
        queries = start + tl.arange(0, M)
        q = load_rows(Q, start, row_stride, end, M, D)  # (M, D)
        dout = load_rows(DOUT, start, row_stride, end, M, D)
        lse = tl.load(LSE + queries, mask=queries < end, other=0.0)
        delta = tl.load(DELTA + queries, mask=queries < end, other=0.0)
        p = tl.exp2(
            tl.dot(k, tl.trans(q), input_precision=PRECISION) * (LOG2_E * D**-0.5) - lse[None, :]
        )  # (N, M): no product needs a transpose
        if (start < clear) | (start >= whole):
            distance = queries[None, :] - keys[:, None]
            seen = (distance >= window) if FAR else ((distance >= 0) & (distance < window))
            p = tl.where(seen & (queries[None, :] < end), p, 0.0)
        if PACKED:
            query_documents = tl.load(DOCUMENTS + queries, mask=queries < end, other=-1)
            p = tl.where(key_documents[:, None] == query_documents[None, :], p, 0.0)
        dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision=PRECISION)
        dp = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def landmark_kernel(
    Q,
    K,
    V,
    DOCUMENTS,
    DOUT,
    LSE,
    DELTA,
    PARTIAL,
    T,
    H,
    window,
    stride,
    count,
    part,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """PARTIAL (parts, 2, B, K, count, D) float32: dk·√d and dv of the landmarks from the queries
    beyond their window, `part` queries a program.
    """
    first = tl.program_id(0) * N
    KV = H // GROUP
    row, head = tl.program_id(2) // KV, tl.program_id(2) % KV
    landmarks = first + tl.arange(0, N)
    keys = landmarks * stride
    k = load_rows(K + row.to(tl.int64) * T * KV * D + head * D, first, stride * KV * D, count, N, D)
    v = load_rows(V + row.to(tl.int64) * T * KV * D + head * D, first, stride * KV * D, count, N, D)
    DOCUMENTS += row.to(tl.int64) * T
    key_documents = tl.load(DOCUMENTS + keys, mask=landmarks < count, other=-2) if PACKED else keys
    begin = tl.maximum(tl.program_id(1) * part, (first * stride + window) // M * M)
    end = tl.minimum(T, (tl.program_id(1) + 1) * part)
    clear, whole = (
        (first + N - 1) * stride + window,
        end // M * M,
    )  # between them all queries see all landmarks
    dk = tl.zeros([N, D], tl.float32)
    dv = tl.zeros([N, D], tl.float32)
    for member in range(GROUP):
        query_head = head * GROUP + member
        q, dout = (
            Q + row.to(tl.int64) * T * H * D + query_head * D,
            DOUT + row.to(tl.int64) * T * H * D + query_head * D,
        )
        lse, delta = (
            LSE + (row * H + query_head).to(tl.int64) * T,
            DELTA + (row * H + query_head).to(tl.int64) * T,
        )
        dk, dv = key_gradient(
            dk,
            dv,
            k,
            v,
            q,
            dout,
            lse,
            delta,
            DOCUMENTS,
            begin,
            clear,
            whole,
            end,
            H * D,
            keys,
            key_documents,
            window,
            True,
            PACKED,
            M,
            D,
            PRECISION,
        )
    half = tl.num_programs(2).to(tl.int64) * count * D
    out = (
        PARTIAL
        + tl.program_id(1) * 2 * half
        + tl.program_id(2).to(tl.int64) * count * D
        + landmarks[:, None] * D
        + tl.arange(0, D)[None, :]
    )
    tl.store(out, dk, mask=landmarks[:, None] < count)
    tl.store(out + half, dv, mask=landmarks[:, None] < count)


@triton.jit
def window_kernel(
    Q,
    K,
    V,
    DOCUMENTS,
    DOUT,
    LSE,
    DELTA,
    FAR,
    DK,
    DV,
    T,
    H,
    window,
    stride,
    count,
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """DK and DV (B, T, K, D) from the queries within the window, on top of FAR (2, B, K, count, D),
    what the landmarks have from beyond it.
    """
    first = tl.program_id(0) * N
    KV = H // GROUP
    row, head = tl.program_id(1) // KV, tl.program_id(1) % KV
    keys = first + tl.arange(0, N)
    base = row.to(tl.int64) * T * KV * D + head * D
    k = load_rows(K + base, first, KV * D, T, N, D)
    v = load_rows(V + base, first, KV * D, T, N, D)
    DOCUMENTS += row.to(tl.int64) * T
    key_documents = tl.load(DOCUMENTS + keys, mask=keys < T, other=-2) if PACKED else keys
    landmark = keys // stride
    far = (
        FAR
        + tl.program_id(1).to(tl.int64) * count * D
        + landmark[:, None] * D
        + tl.arange(0, D)[None, :]
    )
    has_far = ((keys % stride == 0) & (landmark < count))[:, None]
    dk = tl.load(far, mask=has_far, other=0.0)
    dv = tl.load(far + tl.num_programs(1).to(tl.int64) * count * D, mask=has_far, other=0.0)
    end = tl.minimum(T, first + N - 1 + window)
    diagonal = first + N
    whole = (
        diagonal + tl.maximum(tl.minimum(T, first + window) - diagonal, 0) // M * M
    )  # up to here all queries see all keys
    for member in range(GROUP):
        query_head = head * GROUP + member
        q, dout = (
            Q + row.to(tl.int64) * T * H * D + query_head * D,
            DOUT + row.to(tl.int64) * T * H * D + query_head * D,
        )
        lse, delta = (
            LSE + (row * H + query_head).to(tl.int64) * T,
            DELTA + (row * H + query_head).to(tl.int64) * T,
        )
        dk, dv = key_gradient(
            dk,
            dv,
            k,
            v,
            q,
            dout,
            lse,
            delta,
            DOCUMENTS,
            first,
            diagonal,
            whole,
            end,
            H * D,
            keys,
            key_documents,
            window,
            False,
            PACKED,
            M,
            D,
            PRECISION,
        )
    base += tl.cast(first, tl.int64) * KV * D
    out = tl.arange(0, N)[:, None] * (KV * D) + tl.arange(0, D)[None, :]
    tl.store(DK + base + out, (dk * D**-0.5).to(DK.dtype.element_ty), mask=keys[:, None] < T)
    tl.store(DV + base + out, dv.to(DV.dtype.element_ty), mask=keys[:, None] < T)


# Decoding
# --------------------------------------------------------------------------------------------------


@triton.jit
def decode_kernel(
    Q,
    K,
    V,
    POSITIONS,
    OUT,
    LSE,
    H,
    ring,
    slots,
    allocated,
    stride,
    split,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One query a row against `split` slots of the cache a program, read in place: OUT (B, H,
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
        scores = tl.where(
            seen[None, :],
            tl.dot(q, tl.trans(k), input_precision=PRECISION) * (LOG2_E * D**-0.5),
            float("-inf"),
        )
        higher = tl.maximum(best, tl.max(scores, 1))
        p = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(best - higher)
        weight = weight * shrink + tl.sum(p, 1)
        total = tl.dot(p.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        best = higher
    place = heads * tl.num_programs(0) + tl.program_id(0)
    tl.store(
        OUT + place[:, None] * D + tl.arange(0, D)[None, :],
        total / tl.maximum(weight, 1e-30)[:, None],
        mask=member[:, None] < GROUP,
    )
    tl.store(LSE + place, best + tl.log2(tl.maximum(weight, 1e-30)), mask=member < GROUP)


# Launching
# --------------------------------------------------------------------------------------------------

# kernel, bytes of an element, d -> (queries M, keys N, warps, stages). bf16 at d = 128: the fastest
# of those timed on an H100 under Triton 3.6; the others are not measured.
TILES = {
    ("forward", 2, 128): (64, 64, 4, 3),
    ("forward", 2, 64): (128, 64, 8, 3),
    ("forward", 4, 128): (32, 16, 8, 1),
    ("forward", 4, 64): (64, 32, 4, 2),
    ("dq", 2, 128): (128, 64, 8, 3),
    ("dq", 2, 64): (128, 64, 8, 3),
    ("dq", 4, 128): (32, 16, 8, 1),
    ("dq", 4, 64): (64, 32, 8, 2),
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
# float32 products on tensor cores are rounded to 11 bits ("tf32") unless told otherwise; three of
# them on split operands keep float32's accuracy
PRECISION = "tf32x3"


def unsupported(q: Tensor) -> str | None:
    """Why the kernels cannot take tensors like this one, or None."""
    if q.shape[-1] not in (64, 128):
        return f"head width 64 or 128, not {q.shape[-1]}"
    if q.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"bfloat16, float16 or float32, not {q.dtype}"
    if not q.is_cuda and not INTERPRETED:
        return f"a GPU (or TRITON_INTERPRET=1 set before Python starts), not {q.device}"
    return None


def rows(x: Tensor) -> Tensor:
    """(B, heads, T, d) -> contiguous (B, T, heads, d): a view of what a projection wrote."""
    return x.transpose(1, 2).contiguous()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    documents: Tensor | None,
    tiles: dict = TILES,
) -> tuple[Tensor, Tensor]:
    """Attention of q (B, H, T, d) over k, v (B, K, T, d); documents (B, T) int32 or None.

    Returns out (B, H, T, d), lse (B, H, T) in powers of two.
    """
    B, H, T, d = q.shape
    q, k, v = rows(q), rows(k), rows(v)
    out, lse = torch.empty_like(q), torch.empty(B, H, T, dtype=torch.float32, device=q.device)
    M, N, warps, stages = tiles["forward", q.element_size(), d]
    forward_kernel[triton.cdiv(T, M), B * H](
        q,
        k,
        v,
        q if documents is None else documents,
        out,
        lse,
        T,
        H,
        window,
        stride,
        GROUP=H // k.shape[2],
        PACKED=documents is not None,
        M=M,
        N=N,
        D=d,
        PRECISION=PRECISION,
        num_warps=warps,
        num_stages=stages,
    )
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
    tiles: dict = TILES,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, in their shapes, from `dout` (B, H, T, d) and what forward
    returned.
    """
    B, H, T, d = q.shape
    q, k, v, out, dout = (rows(x) for x in (q, k, v, out, dout))
    K, size = k.shape[2], q.element_size()
    delta = torch.empty_like(lse)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    packed = q if documents is None else documents
    settings = dict(GROUP=H // K, PACKED=documents is not None, D=d, PRECISION=PRECISION)
    M, N, warps, stages = tiles["dq", size, d]
    dq_kernel[triton.cdiv(T, M), B * H](
        q,
        k,
        v,
        packed,
        out,
        dout,
        lse,
        delta,
        dq,
        T,
        H,
        window,
        stride,
        **settings,
        M=M,
        N=N,
        num_warps=warps,
        num_stages=stages,
    )
    count = triton.cdiv(
        max(T - window, 0), stride
    )  # landmarks that some query sees beyond its window
    far = q.new_empty(0, dtype=torch.float32)
    if count:
        M, N, warps, stages = tiles["landmark", size, d]
        blocks = triton.cdiv(count, N) * B * K
        parts = min(
            triton.cdiv(1024, blocks), triton.cdiv(T, 4 * M)
        )  # about eight programs for each of a Hopper's 132 processors
        part = triton.cdiv(triton.cdiv(T, parts), M) * M
        partial = torch.empty(
            triton.cdiv(T, part), 2, B, K, count, d, dtype=torch.float32, device=q.device
        )
        landmark_kernel[triton.cdiv(count, N), len(partial), B * K](
            q,
            k,
            v,
            packed,
            dout,
            lse,
            delta,
            partial,
            T,
            H,
            window,
            stride,
            count,
            part,
            **settings,
            M=M,
            N=N,
            num_warps=warps,
            num_stages=stages,
        )
        far = partial.sum(0)  # (2, B, K, count, d)
    M, N, warps, stages = tiles["window", size, d]
    window_kernel[triton.cdiv(T, N), B * K](
        q,
        k,
        v,
        packed,
        dout,
        lse,
        delta,
        far,
        dk,
        dv,
        T,
        H,
        window,
        stride,
        count,
        **settings,
        M=M,
        N=N,
        num_warps=warps,
        num_stages=stages,
    )
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    ring: int,
    slots: int,
    stride: int,
    tiles: dict = TILES,
) -> Tensor:
    """One token a row over a LandmarkCache's layer: q (B, H, 1, d), keys and values (B, K,
    allocated slots, d), positions (B,) int64 -> (B, H, 1, d).
    """
    B, H, _, d = q.shape
    K = keys.shape[1]
    M, N, warps, stages = tiles["decode", q.element_size(), d]
    splits = min(triton.cdiv(512, B * K), triton.cdiv(slots, N))  # about four programs a processor
    split = triton.cdiv(triton.cdiv(slots, splits), N) * N
    splits = triton.cdiv(slots, split)
    out = torch.empty(B, H, splits, d, dtype=torch.float32, device=q.device)
    lse = torch.empty(B, H, splits, dtype=torch.float32, device=q.device)
    decode_kernel[splits, B * K](
        q.contiguous(),
        keys,
        values,
        positions.contiguous(),
        out,
        lse,
        H,
        ring,
        slots,
        keys.shape[2],
        stride,
        split,
        GROUP=H // K,
        M=max(M, triton.next_power_of_2(H // K)),
        N=N,
        D=d,
        PRECISION=PRECISION,
        num_warps=warps,
        num_stages=stages,
    )
    share = torch.softmax(lse * LOG2_E.value**-1, -1)  # lse is in powers of two
    return (share[..., None] * out).sum(2, keepdim=True).to(q.dtype)
