"""The losses beside torch's own."""

import pytest
import torch
import torch.nn.functional as F

from losses import (
    IGNORE,
    cross_entropy,
    cross_entropy_of_logits,
    log_probs_of_logits,
    prose_loss,
    token_log_probs,
)


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 50, 1000])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_chunked_cross_entropy_equals_torchs(rows_per_chunk, z_loss):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 10, 16, generator=generator, requires_grad=True)
    weight = torch.randn(33, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 33, (5, 10), generator=generator)
    targets[0, :4] = IGNORE
    logits = (hidden @ weight.T).flatten(0, 1)
    taught = targets.flatten() != IGNORE
    expected = (
        F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE)
        + z_loss * logits.logsumexp(-1).square()[taught].mean()
    )
    defined = cross_entropy_of_logits(hidden @ weight.T, targets, z_loss)
    assert torch.allclose(defined, expected, rtol=1e-6)
    wanted = torch.autograd.grad(3 * defined, (hidden, weight))
    loss = cross_entropy(hidden, weight, targets, z_loss, chunk_elements=33 * rows_per_chunk)
    found = torch.autograd.grad(3 * loss, (hidden, weight))
    assert torch.allclose(loss, expected, rtol=1e-6)
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert (found[0][0, :4] == 0).all()  # what is masked teaches nothing, exactly


@pytest.mark.parametrize("frozen", [False, True])
def test_few_taught_places_are_computed_alone(frozen):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(5, 10, 16, generator=generator, requires_grad=True)
    weight = torch.randn(33, 16, generator=generator, requires_grad=not frozen)
    targets = torch.full((5, 10), IGNORE)
    targets[1, 3:7] = torch.tensor([4, 0, 32, 7])
    wanted = cross_entropy_of_logits(hidden @ weight.T, targets)
    weights = torch.ones(5, 10)
    found = cross_entropy(hidden, weight, targets, weights=weights, chunk_elements=33 * 3)
    assert torch.allclose(found, wanted, rtol=1e-6)
    learning = (hidden,) if frozen else (hidden, weight)
    for a, b in zip(torch.autograd.grad(found, learning), torch.autograd.grad(wanted, learning)):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 1000])
def test_chunked_log_probs_equal_the_definition(rows_per_chunk):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(5, 10, 16, generator=generator, requires_grad=True)
    weight = torch.randn(33, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 33, (5, 10), generator=generator)
    targets[0, :4] = IGNORE
    taught = targets != IGNORE
    logits = hidden[taught] @ weight.T
    wanted = log_probs_of_logits(logits, targets[taught], temperature=0.7)
    found = token_log_probs(
        hidden, weight, targets, temperature=0.7, chunk_elements=33 * rows_per_chunk
    )
    for a, b in zip(found, wanted):
        assert torch.allclose(a[taught], b, rtol=1e-5, atol=1e-6) and (a[~taught] == 0).all()
        gradients = (
            torch.autograd.grad(x.sum(), (hidden, weight), retain_graph=True) for x in (a, b)
        )
        for c, d in zip(*gradients):
            assert torch.allclose(c, d, rtol=1e-4, atol=1e-6)


def test_what_is_almost_impossible_has_a_finite_loss():
    """A target whose probability is 0 in float32: e⁻³⁰⁰."""
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[300.0], [0.0], [-5.0]])
    loss = cross_entropy(hidden, weight, torch.tensor([1]), 1e-3)
    defined = cross_entropy_of_logits(hidden @ weight.T, torch.tensor([1]), 1e-3)
    assert loss.item() == pytest.approx(300 + 0.001 * 300**2) == defined.item()
    found, wanted = (torch.autograd.grad(x, hidden)[0] for x in (loss, defined))
    assert torch.allclose(found, wanted)


def test_nothing_taught_is_zero():
    hidden = torch.randn(4, 8, requires_grad=True)
    loss = cross_entropy(hidden, torch.randn(9, 8), torch.full((4,), IGNORE))
    loss.backward()
    assert loss == 0 and (hidden.grad == 0).all()


def test_chunks_never_hold_all_logits():
    """The largest tensor of forward and backward has chunk × V elements, not tokens × V."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    Largest.elements = max(Largest.elements, tensor.numel())
            return result

    hidden, weight = (
        torch.randn(512, 8, requires_grad=True),
        torch.randn(1000, 8, requires_grad=True),
    )
    with Largest():
        cross_entropy(
            hidden, weight, torch.randint(0, 1000, (512,)), chunk_elements=16_000
        ).backward()
    assert Largest.elements == 16_000


def test_prose_loss_sign():
    """A classifier that says prose (1) for prose and code (0) for code has the smaller loss."""
    kinds = torch.tensor([[0, 1, 1]])
    right, wrong = torch.tensor([[5.0, -5.0, -5.0]]), torch.tensor([[-5.0, 5.0, 5.0]])
    assert prose_loss(right, kinds) < 0.01 < 4 < prose_loss(wrong, kinds)


def test_weights_equal_torchs_weighted_mean():
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, 6, 8, generator=generator, requires_grad=True)
    weight = torch.randn(17, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, 17, (3, 6), generator=generator)
    weights = torch.rand(3, 6, generator=generator)
    targets[1] = IGNORE
    weights[0, 0] = 0
    each = F.cross_entropy(
        (hidden @ weight.T).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none"
    )
    expected = (each * weights.flatten()).sum() / weights[targets != IGNORE].sum()
    defined = cross_entropy_of_logits(hidden @ weight.T, targets, weights=weights)
    assert torch.allclose(defined, expected, rtol=1e-6)
    wanted = torch.autograd.grad(defined, (hidden, weight))
    loss = cross_entropy(hidden, weight, targets, weights=weights, chunk_elements=17 * 5)
    found = torch.autograd.grad(loss, (hidden, weight))
    assert torch.allclose(loss, expected, rtol=1e-6)
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert (found[0][0, 0] == 0).all() and (found[0][1] == 0).all()


def test_the_training_loss_is_one_graph():
    """A break in torch.compile's graph costs speed and says nothing: under bf16 autocast, as
    train.py takes the step, there must be none.
    """
    from config import Model
    from model import SAGE

    shape = dict(width=32, heads=2, kv_heads=1, head_dim=16, feed_forward=64)
    model = SAGE(Model(layers=2, previous_token=True, **shape))
    tokens = torch.randint(0, 1024, (2, 33))
    with torch.autocast("cpu", torch.bfloat16):
        found = torch._dynamo.explain(
            lambda t: cross_entropy(model.hidden(t[:, :-1]), model.embedding.text.weight, t[:, 1:])
        )(tokens)
    assert found.graph_break_count == 0, [reason.reason for reason in found.break_reasons]
