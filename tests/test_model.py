"""The decoder and its cached decoding: causality, cached = uncached, batch = singles, packed =
alone, initialisation.
"""

import pytest
import torch

from config import Model, UserError
from support.packing import pack
from fast.decoding import compiled_step
from generate import choose_token as choose, generate, pad
from model import SAGE, State, flops_per_token

SHAPES = {
    "toy": Model(
        vocab_size=97,
        width=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        feed_forward=48,
        layers=3,
        previous_token=True,
    ),
    "qwen": Model(
        vocab_size=97,
        width=32,
        heads=4,
        kv_heads=1,
        head_dim=8,
        feed_forward=48,
        layers=2,
        tied=False,
    ),
    "small window": Model(
        vocab_size=97,
        width=32,
        heads=4,
        kv_heads=4,
        head_dim=8,
        feed_forward=48,
        layers=3,
        previous_token=True,
        window=8,
        landmark_stride=3,
    ),
    "baseline": Model(
        vocab_size=97,
        width=32,
        heads=2,
        kv_heads=2,
        head_dim=16,
        feed_forward=48,
        layers=2,
        embedding="plain",
        activation="gelu",
        norm="layer",
    ),
}


def lively(config: Model, seed: int = 0) -> SAGE:
    """A model in which every part matters: no zeros, no ones, E_code unlike E_text."""
    model = SAGE(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.15)
    return model


@pytest.fixture(params=SHAPES, scope="module")
def model(request):
    return lively(SHAPES[request.param])


def tokens_of(*shape, seed=1):
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_causality_by_perturbation(model):
    """Changing token t changes nothing before t, and something at t: for the logits and for the
    embedding's gate alone.
    """
    tokens = tokens_of(1, 30)
    for place in (0, 3, 17, 29):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 97
        for function in [model] + (
            [model.embedding.prose_logits] if model.config.embedding == "split" else []
        ):
            before, after = function(tokens), function(other)
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.allclose(before[:, place], after[:, place])


@torch.no_grad()
def test_gate_reads_four_tokens_and_no_more():
    model = lively(SHAPES["toy"])
    tokens = tokens_of(1, 30)
    other = tokens.clone()
    other[0, 10] += 1
    changed = (model.embedding.prose_logits(tokens) != model.embedding.prose_logits(other))[0]
    assert changed.nonzero().flatten().tolist() == [10, 11, 12, 13]


@torch.no_grad()
@pytest.mark.parametrize("splits", [[30], [1] * 30, [7, 1, 1, 13, 1, 7], [29, 1]])
def test_cached_equals_uncached_for_any_split(model, splits):
    tokens = tokens_of(3, 30)
    state, outputs, start = State(model.config, 3, 30), [], 0
    for length in splits:
        outputs.append(model(tokens[:, start : start + length], state=state))
        start += length
    assert (torch.cat(outputs, 1) - model(tokens)).abs().max() < 2e-5


@torch.no_grad()
def test_ragged_batch_equals_singles(model):
    """Three prompts of different lengths, then single tokens: each row as if it were alone; padding
    never speaks.
    """
    rows = [tokens_of(1, n, seed=n)[0].tolist() for n in (5, 17, 1)]
    state = State(model.config, 3, 24)
    tokens, positions = pad(rows, "cpu")
    model(tokens, state=state, positions=positions)
    assert state.cache.lengths.tolist() == [5, 17, 1]
    following = tokens_of(3, 6, seed=9)
    outputs = torch.cat([model(following[:, i : i + 1], state=state) for i in range(6)], 1)
    for row, prompt in enumerate(rows):
        alone = model(torch.tensor([prompt + following[row].tolist()]))[:, len(prompt) :]
        assert (outputs[row] - alone[0]).abs().max() < 2e-5


@torch.no_grad()
def test_selected_rows_share_a_prefix(model):
    tokens = tokens_of(2, 12)
    state = State(model.config, 2, 20)
    model(tokens, state=state)
    copy = state.select([1, 1, 0])
    following = tokens_of(3, 1, seed=4)
    logits = model(following, state=copy)[:, 0]
    for row, source in enumerate((1, 1, 0)):
        assert (
            logits[row] - model(torch.cat([tokens[source], following[row]])[None])[0, -1]
        ).abs().max() < 2e-5
    assert state.cache.lengths.tolist() == [12, 12]  # the original did not move


@torch.no_grad()
def test_packed_documents_equal_documents_alone(model):
    examples = [(tokens_of(1, n, seed=n)[0].tolist(), [True] * n) for n in (9, 14, 6, 3)]
    packed = pack(examples, 24, model.config)
    logits = model(packed.tokens, documents=packed.documents)
    for (tokens, _), (row, column) in zip(examples, packed.positions):
        alone = model(torch.tensor([tokens]))[0]
        assert (logits[row, column : column + len(tokens)] - alone).abs().max() < 2e-5


def test_generation_batch_three_equals_three_times_one(model):
    prompts = [tokens_of(1, n, seed=n)[0].tolist() for n in (4, 11, 7)]
    for temperature in (0.0, 1.0):
        together = generate(model, prompts, 15, temperature, seed=5)
        assert together == [
            generate(model, [p], 15, temperature, seed=5 + row)[0] for row, p in enumerate(prompts)
        ]
    assert (
        len(
            {
                tuple(t)
                for t in (generate(model, [prompts[0]], 15, 1.0, seed=s)[0] for s in range(5))
            }
        )
        == 5
    )


def test_greedy_generation_equals_full_forward(model):
    prompt = tokens_of(1, 6)
    expected = prompt.clone()
    with torch.no_grad():
        for _ in range(12):
            expected = torch.cat([expected, model(expected)[:, -1:].argmax(-1)], 1)
    assert generate(model, prompt.tolist(), 12) == [expected[0, 6:].tolist()]


def test_generation_stops_and_streams():
    model = lively(SHAPES["toy"])
    free = generate(model, [[1, 2, 3], [4]], 20)
    stop = [free[0][5]]
    seen = []
    stopped = generate(
        model,
        [[1, 2, 3], [4]],
        20,
        stop=stop,
        on_token=lambda row, token: seen.append((row, token)),
    )
    assert stopped[0] == free[0][: free[0].index(stop[0])]
    assert [token for row, token in seen if row == 0] == stopped[0] and [
        token for row, token in seen if row == 1
    ] == stopped[1]


def test_choose_draws_from_the_nucleus_at_the_right_rate():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(20_000, 1)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(choose(logits, 1.0, 0.75, uniform), minlength=4) / 20_000
    assert torch.allclose(
        share, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.01
    )  # 0.5 and 0.3 reach 0.75
    share = torch.bincount(choose(logits, 1.0, 1.0, uniform), minlength=4) / 20_000
    assert torch.allclose(share, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.01)
    hot = torch.bincount(choose(logits, 2.0, 1.0, uniform), minlength=4) / 20_000
    assert torch.allclose(hot, (logits[0] / 2).softmax(-1), atol=0.01)


@pytest.mark.parametrize(
    "prompts",  # a path each
    [
        pytest.param([[1, 2, 3]], id="one row", marks=pytest.mark.slow),
        pytest.param([[1, 2, 3], [4], [5] * 30], id="ragged rows"),
    ],
)
def test_compiled_step_equals_eager(prompts):
    """Skipped where there is no C++ compiler: sample.py then decodes eagerly."""
    from support import machine

    if not machine.can_compile("cpu"):
        pytest.skip("torch.compile needs a C++ compiler, and there is none here")
    model = lively(SHAPES["small window"])
    assert generate(model, prompts, 20, step=compiled_step(model)) == generate(model, prompts, 20)


def test_errors_of_decoding():
    model = lively(SHAPES["toy"])
    with pytest.raises(UserError, match="empty prompt"):
        generate(model, [[]], 5)
    with pytest.raises(UserError, match="exceed the model's context of 1024"):
        generate(model, [[1] * 1000], 100)
    with pytest.raises(UserError, match="1025 tokens are over the model's context of 1024"):
        model(torch.zeros(1, 1025, dtype=torch.int64))


def test_initialisation_is_equation_1_and_the_same_for_every_part():
    config = Model(width=256, layers=8, head_dim=64, feed_forward=700)
    model = SAGE(config, seed=1)
    for name, p in model.named_parameters():
        std = (
            0.02 / 16**0.5
            if name.endswith(("attention.o.weight", "feed_forward.down.weight"))
            else 0.02
        )
        if (
            p.ndim == 2
            and "embedding.ids" not in name
            and "out" not in name
            and "convolution" not in name
        ):
            assert p.abs().max() <= 3 * std
            assert (
                abs(p.std() / (std * 0.9866) - 1) < 0.03
            )  # cutting at 3σ leaves 0.9866 of the deviation
            assert abs(p.mean()) < 5 * std / p.numel() ** 0.5
        elif name.endswith("norm.weight"):
            assert (p == 1).all()
        elif name.endswith("bias"):
            assert (p == 0).all()
    again = SAGE(config, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    assert not torch.equal(
        SAGE(config, seed=2).blocks[0].attention.q.weight, model.blocks[0].attention.q.weight
    )
    assert not torch.equal(model.blocks[0].attention.q.weight, model.blocks[1].attention.q.weight)
    assert torch.equal(model.embedding.code.weight, model.embedding.text.weight)


def test_flops_agree_with_torchs_counter(monkeypatch):
    """Torch counts the operations of a real forward and backward (with attention written out: its
    counter does not know the fused one).
    """
    from torch.utils.flop_counter import FlopCounterMode

    from attention import definition

    monkeypatch.setattr("model.landmark_attention", definition)

    config = Model(vocab_size=512, previous_token=True)
    model = SAGE(config)
    tokens = torch.randint(0, 512, (2, 64))
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    assert abs(counter.get_total_flops() / (flops_per_token(config, 64) * 128) - 1) < 0.03
