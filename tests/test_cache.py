"""The cache gives what the full forward gives, however the tokens are cut into prefill, chunks and
steps; and it is as large as it says.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attention import LandmarkCache, definition
from config import Model, UserError

LAYERS, K, G, d = 2, 2, 2, 8


def cache_of(layers, batch, kv_heads, head_dim, window, stride, *rest, **more) -> LandmarkCache:
    shape = Model(
        layers=layers, kv_heads=kv_heads, head_dim=head_dim, window=window, landmark_stride=stride
    )
    return LandmarkCache(shape, batch, *rest, **more)


def piece(x: Tensor, starts: list[int], counts: list[int], width: int) -> Tensor:
    """Tokens starts[b] … of each row of x (B, heads, T, d), right-padded with NaN to `width`."""
    out = torch.full((*x.shape[:2], width, x.shape[3]), float("nan"), dtype=x.dtype)
    for row, (start, count) in enumerate(zip(starts, counts)):
        out[row, :, :count] = x[row, :, start : start + count]
    return out


@st.composite
def runs(draw):
    """Rows of different lengths, and a split of each into pieces."""
    lengths = draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    pieces = []
    left = list(lengths)
    while any(left):
        width = draw(st.sampled_from([1, 1, 2, 3, 9, 70]))
        counts = [draw(st.integers(0, min(width, rest))) for rest in left]
        if not any(counts):
            counts = [min(width, rest) for rest in left]
        pieces.append((width, counts))
        left = [rest - count for rest, count in zip(left, counts)]
    return (
        lengths,
        pieces,
        draw(st.integers(1, 40)),
        draw(st.integers(1, 12)),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 999)),
    )


@settings(max_examples=150)
@given(runs())
def test_any_split_gives_what_the_full_forward_gives(run):
    lengths, pieces, window, stride, spare, seed = run
    B, T = len(lengths), max(lengths)
    generator = torch.Generator().manual_seed(seed)
    layers = [
        [torch.randn(B, heads, T, d, generator=generator) for heads in (K * G, K, K)]
        for _ in range(LAYERS)
    ]
    wanted = [definition(*(x.double() for x in qkv), window, stride) for qkv in layers]
    cache = cache_of(LAYERS, B, K, d, window, stride, T + spare)
    done = [0] * B
    for width, counts in pieces:
        positions = torch.full((B, width), -1)
        for row in range(B):
            positions[row, : counts[row]] = torch.arange(done[row], done[row] + counts[row])
        for layer, qkv in enumerate(layers):
            out = cache.attend(
                layer, *(piece(x, done, counts, width) for x in qkv), cache.plan(positions)
            )
            assert out.isfinite().all()  # NaN of the padding reached nothing
            for row in range(B):
                truth = wanted[layer][row, :, done[row] : done[row] + counts[row]]
                assert torch.allclose(
                    out[row, :, : counts[row]].double(), truth, atol=2e-6, rtol=1e-5
                )
                assert not out[row, :, counts[row] :].any()
        cache.advance(positions)
        done = [a + b for a, b in zip(done, counts)]
    assert cache.lengths.tolist() == lengths


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float64, 1e-12)]
)
def test_other_dtypes(dtype, tolerance):
    q, k, v = (
        torch.randn(
            2, heads, 90, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64
        ).to(dtype)
        for heads in (4, 2, 2)
    )
    wanted = definition(*(x.double() for x in (q, k, v)), 20, 8)
    cache, outputs, at = cache_of(1, 2, 2, d, 20, 8, 90, dtype=dtype), [], 0
    for width in [40, 1, 1, 30, 1, 17]:
        positions = torch.arange(at, at + width).expand(2, -1)
        outputs.append(
            cache.attend(0, *(x[:, :, at : at + width] for x in (q, k, v)), cache.plan(positions))
        )
        cache.advance(positions)
        at += width
    found = torch.cat(outputs, 2)
    assert found.dtype == dtype
    assert (found.double() - wanted).norm() / wanted.norm() < tolerance


def test_steps_of_all_lengths_have_few_shapes():
    """oneDNN keeps a kernel for every shape it meets:

    400 steps read slots in 64s, and never fewer than they see.
    """
    cache, read = cache_of(1, 2, 1, d, 300, 16, 400), []
    for position in range(400):
        read.append(cache.plan(torch.tensor([[position], [-1]])).seen.bias.shape[-1])
        assert read[-1] >= (cache.seen_from <= position).sum()
    assert sorted(set(read)) == [64, 128, 192, 256, 320]


def test_a_long_prompt_in_chunks_longer_than_any_buffer():
    q, k, v = (
        torch.randn(1, heads, 900, d, generator=torch.Generator().manual_seed(4))
        for heads in (2, 1, 1)
    )
    wanted = definition(q, k, v, 30, 16)
    cache, outputs, at = cache_of(1, 1, 1, d, 30, 16, 900), [], 0
    for width in [1, 600, 299]:  # 600 = more than two inner chunks, twenty rings
        positions = torch.arange(at, at + width)[None]
        outputs.append(
            cache.attend(0, *(x[:, :, at : at + width] for x in (q, k, v)), cache.plan(positions))
        )
        cache.advance(positions)
        at += width
    torch.testing.assert_close(torch.cat(outputs, 2), wanted, atol=2e-6, rtol=1e-5)


def test_reported_bytes_are_allocated_bytes():
    for window, stride, tokens, dtype in [
        (16, 4, 100, torch.float32),
        (16, 4, 10, torch.bfloat16),
        (4096, 64, 131_072, torch.bfloat16),
    ]:
        cache = cache_of(3, 2, 2, 16, window, stride, tokens, dtype)
        storages = {
            x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
            for x in vars(cache).values()
            for x in (x if isinstance(x, list) else [x])
            if isinstance(x, Tensor)
        }
        assert cache.bytes == sum(storages.values())
        slots = min(window, tokens) + (
            -(-tokens // stride) if tokens > window else 0
        )  # the paper's O(W + T/k)
        assert cache.bytes == 3 * 2 * 2 * 2 * (slots + 1) * 16 * dtype.itemsize + 2 * 8 + slots * 8


def test_selected_rows_are_copies_that_go_their_own_way():
    q, k, v = (
        torch.randn(3, heads, 60, d, generator=torch.Generator().manual_seed(5))
        for heads in (4, 2, 2)
    )
    cache = cache_of(1, 2, 2, d, 10, 4, 60)
    positions = torch.stack(
        [torch.arange(50), torch.cat([torch.arange(40), torch.full((10,), -1)])]
    )
    cache.attend(0, q[:2, :, :50], k[:2, :, :50], v[:2, :, :50], cache.plan(positions))
    cache.advance(positions)
    before = [x.clone() for x in cache.keys + cache.values]
    twins = copy.copy(cache)
    twins.use([x[[1, 1, 0]] for x in cache.tensors()])
    assert twins.lengths.tolist() == [40, 40, 50] and cache.lengths.tolist() == [50, 40]
    rows = [1, 1, 0]
    q2, k2, v2 = (
        torch.randn(3, heads, 1, d, generator=torch.Generator().manual_seed(6))
        for heads in (4, 2, 2)
    )
    found = twins.attend(0, q2, k2, v2, twins.plan(twins.lengths[:, None].clone()))
    for row, source in enumerate(rows):
        n = int(cache.lengths[source])
        full = definition(
            *(
                torch.cat([old[source : source + 1, :, :n], new[row : row + 1]], 2)
                for old, new in ((q, q2), (k, k2), (v, v2))
            ),
            10,
            4,
        )
        torch.testing.assert_close(found[row : row + 1], full[:, :, -1:], atol=2e-6, rtol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, cache.keys + cache.values))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_one_token_step_compiles_once_for_all_positions(batch, backend):
    torch._dynamo.reset()

    def step(cache, q, k, v, positions):
        out = cache.attend(0, q, k, v, cache.plan(positions))
        cache.advance(positions)
        return out

    eager, compiled = (cache_of(1, batch, 2, d, 10, 4, 40), cache_of(1, batch, 2, d, 10, 4, 40))
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph if backend == "aot_eager" else torch._inductor.compile(graph, inputs)

    fast = torch.compile(step, fullgraph=True, backend=counting)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for t in range(40):
            q, k, v = (torch.randn(batch, heads, 1, d, generator=generator) for heads in (4, 2, 2))
            positions = torch.full((batch, 1), t)
            if batch == 3 and t % 5 == 0:
                positions[1] = -1  # a row that has ended
            torch.testing.assert_close(
                fast(compiled, q, k, v, positions),
                step(eager, q, k, v, positions),
                atol=2e-6,
                rtol=1e-5,
            )
    assert len(graphs) == 1


def test_a_full_cache_says_so():
    cache = cache_of(1, 1, 1, d, 8, 4, 5)
    x = torch.zeros(1, 1, 6, d)
    cache.attend(0, x, x, x, cache.plan(torch.arange(6)[None]))
    with pytest.raises(UserError, match="5 tokens.*6"):
        cache.advance(torch.arange(6)[None])
