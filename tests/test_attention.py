"""Landmark attention's paths against float64, against two implementations nobody here wrote, and
against bad input.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import attention
from attention import definition, landmark_attention, linear_memory, visible
from config import UserError
from fast import attention as fast_attention


def tensors(
    B: int, H: int, K: int, T: int, d: int, dtype=torch.float32, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(B, heads, T, d, generator=generator).to(dtype).requires_grad_()
        for heads in (H, K, K)
    ]


def by(path: str, q: Tensor, k: Tensor, v: Tensor, *rest, **more) -> Tensor:
    """The readable forms by their names, the others as implementations of landmark_attention."""
    if path == "definition":
        return definition(q, k, v, *rest, **more)
    if path == "linear memory":
        return linear_memory(q, k, v, *rest, **more)
    return landmark_attention(q, k, v, *rest, implementation=path, **more)


def run(path: str, q: Tensor, k: Tensor, v: Tensor, *rest, **more) -> list[Tensor]:
    """The output and the gradients of q, k, v under one fixed incoming gradient."""
    out = by(path, q, k, v, *rest, **more)
    incoming = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, (q, k, v), incoming)]


def relative(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖ (absolute where the truth is zero: a softmax over one key has no
    gradient).
    """
    return ((found.double() - wanted).norm() / wanted.norm().clamp(min=1.0)).item()


@st.composite
def cases(draw):
    K, T = draw(st.integers(1, 3)), draw(st.one_of(st.integers(1, 20), st.integers(1, 300)))
    return dict(
        B=draw(st.integers(1, 3)),
        K=K,
        H=K * draw(st.integers(1, 3)),
        T=T,
        d=draw(st.sampled_from([1, 8, 24])),
        window=draw(st.one_of(st.just(1), st.integers(1, 2 * T), st.just(128))),
        stride=draw(st.one_of(st.just(1), st.integers(1, 40))),
        packed=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
    )


@settings(max_examples=240)
@given(cases())
def test_every_path_equals_float64_with_the_explicit_mask(case):
    B, H, K, T, window, stride = (case[name] for name in ("B", "H", "K", "T", "window", "stride"))
    q, k, v = tensors(B, H, K, T, case["d"], seed=case["seed"])
    documents = None
    if case["packed"]:
        documents = (
            torch.rand(B, T, generator=torch.Generator().manual_seed(case["seed"]))
            .lt(0.1)
            .cumsum(1)
        )
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    wanted = run("definition", *wide, window, stride, documents=documents)
    paths = ["definition", "linear memory", "short", "blocked", "auto"]
    if T <= window:
        paths.append("causal" if documents is None else "separate")
    for path in paths:
        found = run(path, q, k, v, window, stride, documents=documents)
        errors = [relative(a, b) for a, b in zip(found, wanted)]
        assert errors[0] <= 2e-6 and max(errors[1:]) <= 1e-5, (path, errors)


def test_the_mask_is_the_sentence():
    for window, stride in [(1, 1), (3, 4), (4, 3), (5, 100), (100, 5)]:
        index = torch.arange(40)
        seen = attention.mask(index, index, window, stride)
        for i in range(40):
            for j in range(40):
                assert seen[i, j] == (j <= i and (i - j < window or j % stride == 0))


@pytest.mark.parametrize("path", ["definition", "linear memory", "short", "blocked"])
@pytest.mark.parametrize("window, stride", [(7, 1), (60, 9), (1000, 9)])
def test_full_causal_where_the_mask_is_full(path, window, stride):
    q, k, v = tensors(2, 4, 2, 60, 16)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(by(path, q, k, v, window, stride), wanted)


@pytest.mark.parametrize("path", ["definition", "linear memory", "short", "blocked"])
def test_equals_flex_attention(path):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = (
        x.detach() for x in tensors(2, 4, 2, 256, 16)
    )  # on a CPU flex_attention has no backward
    block_mask = create_block_mask(
        lambda b, h, i, j: visible(i, j, 40, 16), None, None, 256, 256, device="cpu"
    )
    wanted = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True)
    torch.testing.assert_close(by(path, q, k, v, 40, 16), wanted)


def test_definition_passes_gradcheck():
    q, k, v = tensors(1, 2, 1, 9, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *x: definition(*x, 3, 4), (q, k, v))
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2]])
    packed = lambda *x: definition(*x, 2, 4, documents=documents)
    assert torch.autograd.gradcheck(packed, (q, k, v))


@pytest.mark.parametrize("path", ["definition", "linear memory", "short", "blocked"])
def test_a_packed_document_is_as_when_it_stands_alone(path):
    lengths = [35, 50, 27]
    starts = [0, 48, 112]  # multiples of the stride, as packing.pack places them
    q, k, v = tensors(1, 4, 2, 144, 8)
    documents = torch.full((1, 144), -1)
    for number, (start, length) in enumerate(zip(starts, lengths)):
        documents[0, start : start + length] = number
    packed = by(path, q, k, v, 20, 16, documents=documents)
    for start, length in zip(starts, lengths):
        alone = by(path, *(x[:, :, start : start + length] for x in (q, k, v)), 20, 16)
        torch.testing.assert_close(packed[:, :, start : start + length], alone)


def test_documents_are_told_apart_in_every_row():
    q, k, v = tensors(2, 4, 2, 1400, 8)  # one document is longer than `short` is good for
    documents = torch.cat([torch.zeros(2, 1100), torch.ones(2, 250), -torch.ones(2, 50)], 1).long()
    documents[1, 40:1100] = 7
    wanted = run("definition", q, k, v, 1400, 16, documents=documents)
    for found, truth in zip(run("separate", q, k, v, 1400, 16, documents=documents), wanted):
        torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("path", ["short", "blocked"])
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)  # C++ takes its time on a loaded machine
def test_compiles_in_one_graph_and_keeps_its_gradients(path, backend):
    q, k, v = tensors(2, 4, 2, 70, 16)

    def loss(function):
        return torch.autograd.grad(function(q * 1.5, k, v).square().sum(), (q, k, v))

    compiled = torch.compile(
        lambda *x: landmark_attention(*x, 20, 8, implementation=path),
        fullgraph=True,
        backend=backend,
    )
    for found, wanted in zip(
        loss(compiled), loss(lambda *x: landmark_attention(*x, 20, 8, implementation=path))
    ):
        torch.testing.assert_close(found, wanted)


def test_operator_passes_torchs_own_checks():
    q, k, v = tensors(1, 4, 2, 40, 16)
    torch.library.opcheck(fast_attention.attention_op, (q, k, v, 10, 8, None, False))
    torch.library.opcheck(
        fast_attention.attention_op, (q, k, v, 10, 8, torch.zeros(1, 40, dtype=torch.int32), False)
    )


def test_activation_checkpointing_and_shapes_without_data():
    q, k, v = tensors(2, 4, 2, 300, 16)
    plain = run("blocked", q, k, v, 20, 8)[1:]
    incoming = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    again = checkpoint(
        lambda *x: landmark_attention(*x, 20, 8, implementation="blocked"),
        q,
        k,
        v,
        use_reentrant=False,
    )
    for found, wanted in zip(torch.autograd.grad(again, (q, k, v), incoming), plain):
        assert torch.equal(found, wanted)
    with torch.device("meta"):
        shape = [torch.empty(2, heads, 131_072, 64, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    assert landmark_attention(*shape, 4096, 64).shape == (2, 4, 131_072, 64)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned, in elements."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return result


def test_linear_memory_makes_no_square_tensor():
    for T in (1024, 4096):
        q, k, v = (x.detach() for x in tensors(1, 2, 1, T, 8))
        with Largest() as largest:
            linear_memory(q, k, v, 64, 32)
            out, lse = fast_attention.blocked(q, k, v, 64, 32)
            fast_attention.blocked_backward(
                out, q, k, v, out, lse=lse, window=64, stride=32, documents=None
            )
        allowed = max(
            2 * T * 8, 2 * 128 * (64 + 128 + T // 32)
        )  # q's own size, or a block's scores against its window and landmarks
        assert largest.elements <= allowed < T * T // 4, (T, largest.elements, allowed)


def test_autocast_takes_mixed_dtypes_like_torchs_own():
    q, k, v = tensors(1, 2, 2, 40, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = landmark_attention(q, k.bfloat16(), v, 10, 8)
    assert found.dtype == torch.bfloat16
    wanted = definition(q, k, v, 10, 8)
    assert (found.float() - wanted).norm() / wanted.norm() < 2e-2


@pytest.mark.parametrize("path", ["definition", "linear memory", "short", "blocked"])
def test_bf16_stays_near_the_truth(path):
    q, k, v = tensors(2, 4, 2, 200, 16, torch.bfloat16)
    wanted = run("definition", *(x.detach().double().requires_grad_() for x in (q, k, v)), 50, 16)
    for found, truth in zip(run(path, q, k, v, 50, 16), wanted):
        assert relative(found, truth) < 1.5e-2


def test_auto_says_what_it_takes():
    q = torch.zeros(1, 2, 2000, 8)
    documents = torch.zeros(1, 2000)
    assert fast_attention.choose_implementation(q, 4096, documents) == "separate"
    assert fast_attention.choose_implementation(q, 1999, documents) == "blocked"
    assert fast_attention.choose_implementation(q[:, :, :600], 4096, documents) == "separate"
    assert fast_attention.choose_implementation(q, 4096) == "causal"
    assert fast_attention.choose_implementation(q, 128) == "blocked"
    assert fast_attention.choose_implementation(q[:, :, :200], 128) == "short"
    few = torch.zeros(1, 200)
    assert fast_attention.choose_implementation(q[:, :, :200], 4096, few) == "separate"
    learning = q[:, :, :200].clone().requires_grad_()
    assert fast_attention.choose_implementation(learning, 4096, few) == "short"


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(k=(1, 2, 9, 4)), ["(1, 4, 8, 4)", "(1, 2, 9, 4)"]),
        (dict(v=(1, 2, 8, 5)), ["(1, 2, 8, 5)"]),
        (dict(k=(2, 2, 8, 4), v=(2, 2, 8, 4)), ["(2, 2, 8, 4)"]),
        (dict(k=(1, 3, 8, 4), v=(1, 3, 8, 4)), ["4 query heads", "3 key-value heads"]),
        (dict(k=(1, 0, 8, 4), v=(1, 0, 8, 4)), ["4 query heads", "0 key-value heads"]),
        (dict(q=(4, 8, 4)), ["(4, 8, 4)"]),
        (dict(window=0), ["window=0"]),
        (dict(stride=-3), ["stride=-3"]),
        (dict(documents=torch.zeros(1, 9)), ["(1, 8)", "(1, 9)"]),
        (dict(dtype=torch.float64), ["torch.float32", "torch.float64"]),
        (dict(device="meta"), ["cpu", "meta"]),
        (dict(implementation="fast"), ["'fast'", "blocked"]),
        (dict(implementation="causal", window=3), ["T=8", "window=3"]),
        (dict(implementation="triton"), ["4"]),
    ],
)
def test_bad_input_is_told_with_its_values(change, words):
    q = torch.zeros(change.get("q", (1, 4, 8, 4)))
    k = torch.zeros(
        change.get("k", (1, 2, 8, 4)),
        dtype=change.get("dtype", torch.float32),
        device=change.get("device", "cpu"),
    )
    v = torch.zeros(change.get("v", (1, 2, 8, 4)))
    with pytest.raises(UserError) as error:
        landmark_attention(
            q,
            k,
            v,
            change.get("window", 4),
            change.get("stride", 2),
            documents=change.get("documents"),
            implementation=change.get("implementation", "auto"),
        )
    for word in words:
        assert word in str(error.value)
