"""The heads: they change nothing, remember rightly, and the inverse one cannot see the problem."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from support import checkpoint
from config import Config, Model, UserError
from mch import ThinkingGate, ThinkingHeads, constraint_texts, surprise_of
from model import SAGE, State
from worlds.labels import PARTS

SHAPE = Model(
    vocab_size=64,
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    feed_forward=48,
    context=128,
    window=8,
    landmark_stride=4,
    previous_token=True,
)
END = 63


def trained(config=SHAPE, seed=0, own_decoder=False):
    """A decoder and heads whose every weight is drawn, so that nothing hides behind a zero."""
    model = SAGE(config, seed=1).eval()
    heads = ThinkingHeads(config, own_decoder=own_decoder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in heads.named_parameters():
            if p.requires_grad and p.ndim:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3 + ("norm" in name))
    return model, heads


def close(found, wanted):
    """Equal up to float32's rounding, which grows with the largest logit (here up to 20), not with
    each.
    """
    return (found - wanted).abs().max() <= 2e-6 * max(wanted.abs().max(), 1)


def draw(*shape, seed=0, high=END):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def test_the_heads_change_no_logit():
    """Cached decoding with all heads looking on, beside the same without: equal to the bit, and so
    are the decoder's weights and cache.
    """

    def decode(heads):
        model, _ = trained()
        state, tokens, logits = State(SHAPE, 2, 40), draw(2, 20), []
        mind = heads and heads["meta"].new_state(2, 40)
        for _ in range(12):
            hidden = model.hidden(tokens, state=state)
            logits.append(model.logits(hidden[:, -1]))
            if heads:
                sure = heads["meta"].confidence(
                    heads["meta"](
                        hidden, surprise_of(model, tokens, hidden, tokens > 0), state=mind
                    )[:, -1]
                )
                gate = heads["gate"](hidden[:, -1], logits[-1].softmax(-1).amax(-1))
                heads["inverse"].scores(model, [[1, 2, END], [3, END]], [[[4, END]], [[5, 6, END]]])
                assert sure.shape == (2, len(PARTS)) and gate.shape == (2,)
            tokens = logits[-1].argmax(-1, keepdim=True)
        return [*logits, *state.cache.keys, *state.cache.values, *model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(decode(None), decode(trained()[1])))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.booleans())
@hypothesis_settings(max_examples=30)
def test_any_split_into_steps_gives_the_same_confidence(parts, smeared):
    """Over a window of 8 and landmarks at every 4th, cached and uncached agree however the tokens
    come.
    """
    _, heads = trained(replace(SHAPE, previous_token=smeared))
    meta, length = heads["meta"], sum(parts)
    generator = torch.Generator().manual_seed(length)
    hidden = torch.randn(2, length, SHAPE.width, generator=generator)
    surprise = torch.randn(2, length, 2, generator=generator)
    state = meta.new_state(2, length)
    with torch.no_grad():
        assert close(
            torch.cat(
                [
                    meta(*piece, state=state)
                    for piece in zip(hidden.split(parts, 1), surprise.split(parts, 1))
                ],
                1,
            ),
            meta(hidden, surprise),
        )


@torch.no_grad()
def test_ragged_rows_and_selected_ones_go_on_as_if_alone():
    model, heads = trained()
    meta, rows = heads["meta"], [draw(1, length, seed=length) for length in (5, 17, 11)]
    hidden = [model.hidden(row) for row in rows]
    surprise = [surprise_of(model, row, h, row > 20) for row, h in zip(rows, hidden)]
    alone = [meta(*pair) for pair in zip(hidden, surprise)]
    positions = torch.full((3, 17), -1)
    for number, h in enumerate(hidden):
        positions[number, : h.shape[1]] = torch.arange(h.shape[1])
    together = [
        pad_sequence([part[0] for part in parts], batch_first=True) for parts in (hidden, surprise)
    ]
    state = meta.new_state(3, 40)
    first = meta(*together, state=state, positions=positions)
    assert all(close(first[number, : a.shape[1]], a[0]) for number, a in enumerate(alone))
    more = [
        torch.randn(4, 3, size, generator=torch.Generator().manual_seed(9))
        for size in (SHAPE.width, 2)
    ]
    chosen = [2, 0, 2, 1]  # candidates from a common prefix, in any order
    went_on = meta(*more, state=state.select(chosen))
    for number, row in enumerate(chosen):
        whole = [
            torch.cat([before[row], new[number : number + 1]], 1)
            for before, new in zip((hidden, surprise), more)
        ]
        assert close(went_on[number], meta(*whole)[0, -3:])
    assert state.cache.lengths.tolist() == [5, 17, 11]  # the original has not moved


@torch.no_grad()
@pytest.mark.parametrize("experts", [0, 4])
def test_untrained_heads_know_nothing(experts):
    """Every confidence is ½, the gate is undecided, and the inverse head is the decoder itself, to
    the bit.
    """
    shape = replace(SHAPE, experts=experts)
    model, heads, tokens = SAGE(shape, seed=1).eval(), ThinkingHeads(shape), draw(2, 20)
    assert heads.trained == 0
    hidden = model.hidden(tokens)
    assert (heads["meta"].confidence(heads["meta"](hidden, torch.ones(2, 20, 2))) == 0.5).all()
    assert (heads["gate"](hidden[:, -1], torch.ones(2)) == 0).all()
    assert torch.equal(model.logits(heads["inverse"](model, tokens)), model(tokens))


def test_an_own_decoder_begins_as_the_judged_one_and_learns_without_it():
    model, tokens = SAGE(SHAPE, seed=1), draw(2, 20)
    inverse = ThinkingHeads(SHAPE, own_decoder=True)["inverse"]
    assert not torch.equal(inverse(model, tokens), model.hidden(tokens))
    inverse.begin_as(model)
    assert torch.equal(inverse(model, tokens), model.hidden(tokens))
    inverse(model, tokens).sum().backward()
    learns = {name for name, p in inverse.named_parameters() if p.grad is not None}
    own = {name for name in learns if name.startswith("decoder.")}
    assert own and all(name.startswith("decoder.blocks.") for name in own)
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        inverse.decoder.blocks[0].feed_forward.down.weight.add_(1.0)
    assert not torch.equal(inverse(model, tokens), model.hidden(tokens))


def test_packed_documents_do_not_see_each_other():
    model, heads = trained()
    hidden, documents = torch.randn(1, 12, SHAPE.width), torch.tensor([[0] * 5 + [1] * 7])
    with torch.no_grad():
        surprise = torch.randn(1, 12, 2)
        whole = heads["meta"](hidden, surprise, documents)
        assert close(whole[:, 5:], heads["meta"](hidden[:, 5:], surprise[:, 5:])) and close(
            whole[:, :5], heads["meta"](hidden[:, :5], surprise[:, :5])
        )


@torch.no_grad()
def test_surprise_is_what_writing_a_token_said_of_it():
    model, tokens = SAGE(SHAPE, seed=1).eval(), draw(3, 15)
    own, hidden = draw(3, 15, seed=7, high=2).bool(), model.hidden(tokens)
    log_p = model.logits(hidden).log_softmax(-1)
    found = surprise_of(model, tokens, hidden, own)
    for row in range(3):
        for place in range(15):
            wanted = (
                [
                    log_p[row, place - 1, tokens[row, place]],
                    -(log_p[row, place - 1].exp() * log_p[row, place - 1]).sum(),
                ]
                if place and own[row, place]
                else [0.0, 0.0]
            )
            assert torch.allclose(found[row, place], torch.tensor(wanted), atol=1e-5)


# --------------------------------------------------------------------------------------------------
# Equation 13: the problem is masked.


def inverse_gradient(documents):
    """The gradient of log P_φ(C_i | Z, Y) with respect to each token's embedding, (T, D), where a
    packed row holds the problem, then plan, conclusion and constraint.
    """
    model, heads = trained()
    # 0 … 11 the problem, 12 … 22 plan and conclusion, 23 … 29 the constraint
    tokens = draw(1, 30, seed=3)
    seen = []

    def keep(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    model.embedding.register_forward_hook(keep)
    log_p = model.logits(heads["inverse"](model, tokens, documents)).log_softmax(-1)
    log_p[0, 22:29].gather(1, tokens[0, 23:30, None]).sum().backward()
    return seen[0].grad[0]


def test_the_problem_gets_exactly_no_gradient():
    gradient = inverse_gradient(torch.tensor([[0] * 12 + [1] * 18]))
    assert (gradient[:12] == 0).all()
    assert (
        (gradient[12:29] != 0).any(1).all()
    )  # every token of plan, conclusion and constraint counts
    assert (
        inverse_gradient(None)[:12] != 0
    ).any()  # the control: without the mask the same test would see it


@torch.no_grad()
def test_changing_the_problem_changes_no_score():
    model, heads = trained()
    documents, tokens = torch.tensor([[0] * 12 + [1] * 18]), draw(1, 30, seed=3)
    before = model.logits(heads["inverse"](model, tokens, documents))
    for seed in range(5):
        other = tokens.clone()
        other[:, :12] = draw(1, 12, seed=100 + seed)
        assert torch.equal(
            model.logits(heads["inverse"](model, other, documents))[:, 12:], before[:, 12:]
        )


@torch.no_grad()
@pytest.mark.parametrize("own_decoder", [False, True])
def test_scores_are_the_written_out_equation(own_decoder):
    """(1/|C|) Σ log P(C_i | Z, Y), one plain forward pass for each constraint; the prior is the
    same behind the conclusion's last token alone.
    """
    model, heads = trained(own_decoder=own_decoder)
    conclusions = [
        [1, 2, 3, 4, 5, END],
        [4, END],
        [7, 7, 8, 9, 10, 11, 12, 13, 14, 15, END],
        [9, END],
    ]
    constraints = [
        [[5, 6, END], [4, END]],
        [[2, END]],
        [[2, END], [20, 21, 22, 23, END], [5, 6, END]],
        [],
    ]

    def written_out(before, constraint):
        log_p = model.logits(
            heads["inverse"](model, torch.tensor([before + constraint]))
        ).log_softmax(-1)[0]
        return sum(
            log_p[len(before) - 1 + place, token].item() for place, token in enumerate(constraint)
        )

    ics, prior = heads["inverse"].scores(model, conclusions, constraints)
    for row, (conclusion, some) in enumerate(zip(conclusions, constraints)):
        assert ics[row] == pytest.approx(
            sum(written_out(conclusion, c) for c in some) / max(len(some), 1), abs=1e-4
        )
        assert prior[row] == pytest.approx(
            sum(written_out([END], c) for c in some) / max(len(some), 1), abs=1e-4
        )
    assert heads["inverse"].scores(model, [[END]], [[]]) == ([0.0], [0.0])
    assert heads["inverse"].scores(model, [[END]], [[[3, END]]])[0] == pytest.approx(
        heads["inverse"].scores(model, [[END]], [[[3, END]]])[1]
    )  # nothing said, nothing gained


@torch.no_grad()
def test_the_inverse_head_is_a_distribution():
    model, heads = trained()
    each = heads["inverse"].log_probs(
        model,
        [[5, 6, 7, END]],
        [0] * SHAPE.vocab_size,
        [[token] for token in range(SHAPE.vocab_size)],
    )
    assert sum(map(math.exp, each)) == pytest.approx(1, abs=1e-5)


def test_the_gate_is_equation_7():
    gate, generator = ThinkingGate(SHAPE), torch.Generator().manual_seed(0)
    hidden = torch.randn(5, SHAPE.width, generator=generator)
    entropy = torch.rand(5, generator=generator)
    expected = hidden @ gate.out.weight[0, :-1] + entropy * gate.out.weight[0, -1] + gate.out.bias
    assert torch.allclose(gate(hidden, entropy), expected, atol=1e-5)


def test_calibration_is_monotone_and_per_part():
    _, heads = trained()
    meta = heads["meta"]
    logits = torch.linspace(-4, 4, 9)[:, None].expand(-1, len(PARTS))
    with torch.no_grad():
        meta.temperature[1], meta.temperature[-1] = 2.0, float("inf")
        meta.offset[1], meta.offset[-1] = 1.0, -1.0
    sure = meta.confidence(logits)
    assert (sure[1:, :-1] > sure[:-1, :-1]).all() and torch.allclose(
        sure[:, -1], torch.sigmoid(torch.tensor(-1.0))
    )
    assert torch.allclose(sure[:, 1], torch.sigmoid(logits[:, 1] / 2 + 1))


# --------------------------------------------------------------------------------------------------
# In a checkpoint.


def saved(folder, heads, model=None, config=SHAPE):
    checkpoint.save_checkpoint(
        folder, Config(model=config), model or SAGE(config, seed=1), [], 1, heads=heads
    )
    return folder


def test_an_own_decoder_is_loaded_in_the_judged_ones_dtype(tmp_path):
    """In bfloat16 the inverse head's own decoder shares its caches with the model, and scores as in
    float32 but for rounding.
    """
    model, heads = trained(own_decoder=True)
    folder = saved(tmp_path / "run", heads, model)
    texts = [[3, 5, 7, 9], [4, 6, 9]], [[[8, 9], [2, 3, 9]], [[8, 9]]]
    figures = []
    for dtype in (torch.float32, torch.bfloat16):
        loaded, _, _ = checkpoint.load_run(folder, dtype)
        inverse = checkpoint.load_heads(folder, SHAPE, dtype=dtype)["inverse"]
        assert next(inverse.decoder.parameters()).dtype == dtype
        figures.append(torch.tensor(inverse.scores(loaded, *texts)))
    assert figures[0].abs().min() > 0.1
    torch.testing.assert_close(*figures, rtol=0.05, atol=0.05)


def test_heads_come_back_whole(tmp_path):
    model, heads = trained()
    with torch.no_grad():
        heads.tau.fill_(0.37)
        heads.trained.fill_(1)
        heads["meta"].temperature[0], heads["meta"].temperature[-1] = 2.0, float("inf")
        heads["meta"].offset.fill_(-0.2)
    again = checkpoint.load_heads(saved(tmp_path / "run", heads, model), SHAPE)
    assert again.tau == torch.tensor(0.37) and again.trained == 1
    assert all(
        torch.equal(a, b)
        for a, b in zip(heads.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_a_checkpoint_without_heads_says_so(tmp_path):
    value = nn.ModuleDict({"value": nn.Linear(SHAPE.width, 1)})  # what stage ppo leaves
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text("{}")
    for folder in (
        saved(tmp_path / "none", None),
        saved(tmp_path / "value", value),
        tmp_path / "qwen",
        tmp_path / "nowhere",
    ):
        with pytest.raises(
            UserError, match="has no thinking heads; train them with python heads.py"
        ):
            checkpoint.load_heads(folder, SHAPE)


def test_heads_of_another_width_or_damaged_ones_are_refused(tmp_path):
    run = saved(tmp_path / "run", trained()[1])
    with pytest.raises(
        UserError,
        match=r"wrong shape: .*meta.block.attention.q.weight is \(32, 32\), wanted \(32, 48\)",
    ):
        checkpoint.load_heads(run, replace(SHAPE, width=48))
    path = checkpoint.latest(run) / "heads.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "tau"}, path)
    with pytest.raises(UserError, match="missing: tau"):
        checkpoint.load_heads(run, SHAPE)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="damaged or cut short"):
        checkpoint.load_heads(run, SHAPE)


def test_constraints_as_text():
    request = "Find pita. rana is 17. bolo is true."
    assert constraint_texts({"goal": "pita", "rana": 17, "bolo": True}, request) == [
        "goal pita",
        "rana 17",
        "bolo true",
    ]
    assert constraint_texts(
        {"goal": "pita", "missing": "kemi", "change": 7, "line 1": "rana is 17"}, request
    ) == ["goal pita", "line 1 rana is 17"]  # 7 is no word of it
    assert (
        constraint_texts({"unsafe": False}, request)
        == constraint_texts({}, request)
        == ["Find pita.", "rana is 17.", "bolo is true."]
    )
    # a value may begin or end with a sign
    files = "Which files in /data/music match *.jpg?"
    assert constraint_texts({"folder": "/data/music", "pattern": "*.jpg", "a": "*.jp"}, files) == [
        "folder /data/music",
        "pattern *.jpg",
    ]
    assert constraint_texts({"where": ">97"}, "How many rows have notu above 97?") == [
        "How many rows have notu above 97?"
    ]
