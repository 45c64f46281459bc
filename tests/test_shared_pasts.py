"""Places with the same past computed once: states and gradients are those of the whole rows."""

from dataclasses import replace

import pytest
import torch

from config import Model, Parallel
from fast.shared_pasts import shared_pasts
from model import SAGE
from parallel import parallelise
from support.packing import pack, pack_short

SHAPE = Model(
    vocab_size=64,
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    feed_forward=48,
    context=128,
    window=64,
    landmark_stride=8,
    previous_token=True,
)
SHAPES = {
    "smeared keys": SHAPE,
    "landmarks": replace(SHAPE, window=16),
    "Qwen3": replace(SHAPE, family="qwen3", previous_token=False, embedding="plain"),
    "experts": replace(SHAPE, experts=4, experts_per_token=2),
}


def samples(tasks: int = 3, seed: int = 0) -> list[tuple[list[int], list[bool]]]:
    """Samples that begin with their task's prompt, some alike for longer, one of them twice."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> list[int]:
        return torch.randint(0, 64, (length,), generator=generator).tolist()

    examples = []
    for _ in range(tasks):
        prompt, beginning = draw(30), draw(4)
        answers = [draw(7), beginning + draw(3), beginning + draw(9), beginning]
        for answer in [*answers, answers[0]]:
            examples.append((prompt + answer, [False] * 30 + [True] * len(answer)))
    return examples


def test_distinct_pasts_are_counted():
    """Three documents and padding, by hand: 5 6 7, 5 6 8 and 6 7 hold the pasts 5, 56, 567, 568, 6,
    67, and padding is one more.
    """
    tokens = torch.tensor([[5, 6, 7, 6, 7, 0], [5, 6, 8, 0, 0, 0]])
    documents = torch.tensor([[0, 0, 0, 1, 1, -1], [2, 2, 2, -1, -1, -1]])
    shared = shared_pasts(tokens, documents)
    assert shared.number.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 6, 5, 5, 5]]
    assert shared.first.tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert shared.once(tokens[..., None]).flatten().tolist() == [5, 6, 7, 6, 7, 0, 8]
    assert torch.equal(shared.everywhere(shared.once(tokens)), tokens)


def test_documents_in_a_row_do_not_continue_each_other():
    """The same tokens as one document and as two have different pasts."""
    tokens = torch.tensor([[5, 6, 5, 6]])
    as_one = shared_pasts(tokens, torch.tensor([[0, 0, 0, 0]]))
    as_two = shared_pasts(tokens, torch.tensor([[0, 0, 1, 1]]))
    assert len(as_one.first) == 4 and len(as_two.first) == 2


@pytest.mark.parametrize("name", SHAPES)
def test_states_and_gradients_are_those_of_whole_rows(name):
    shape = SHAPES[name]
    model = SAGE(shape, seed=1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3 if p.ndim == 2 else 1)  # so that attention tells tokens apart
    examples = samples()
    packed = pack(examples, 128, shape)  # several documents in a row
    documents = packed.documents
    counted = documents >= 0
    direction = torch.randn(*documents.shape, shape.width, generator=torch.manual_seed(0))

    def run(shared):
        model.zero_grad()
        hidden = model.hidden(packed.tokens, documents, shared=shared)
        (hidden * direction)[counted].sum().backward()
        return hidden.detach()[counted], [p.grad.clone() for p in model.parameters()]

    shared = shared_pasts(packed.tokens, documents)
    assert len(shared.first) < 0.6 * counted.sum()
    plain, plain_gradients = run(None)
    once, gradients = run(shared)
    torch.testing.assert_close(once, plain, atol=2e-5, rtol=1e-4)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


def test_recomputed_blocks_share_too():
    """Activation checkpointing passes what is shared through."""
    model = SAGE(SHAPE, seed=1)
    packed = pack_short(samples(), SHAPE)
    shared = shared_pasts(packed.tokens, packed.documents)
    counted = packed.documents >= 0
    plain = model.hidden(packed.tokens, packed.documents)[counted]
    parallelise(model, Parallel(activation_checkpointing="full"))
    hidden = model.hidden(packed.tokens, packed.documents, shared=shared)[counted]
    torch.testing.assert_close(hidden, plain, atol=2e-5, rtol=1e-4)
    hidden.sum().backward()
    assert all(block.attention.q.weight.grad.abs().sum() > 0 for block in model.blocks)


def test_samples_of_a_task_are_neighbours():
    """Rows in the order of their first examples, each example where its position says."""
    examples = samples(tasks=5)
    packed = pack_short(examples, SHAPE)
    firsts = packed.documents.masked_fill(packed.documents < 0, 99).amin(1).tolist()
    assert firsts == sorted(firsts)
    for number, ((row, column), (ids, taught)) in enumerate(zip(packed.positions, examples)):
        here = slice(column, column + len(ids))
        assert packed.tokens[row, here].tolist() == ids
        assert packed.documents[row, here].tolist() == [number] * len(ids)
        assert packed.weights[row, column : column + len(ids) - 1].tolist() == list(
            map(float, taught[1:])
        )
