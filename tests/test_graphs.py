"""Decoding through recorded steps is decoding: the same tokens as the plain step, for every batch
size, whatever was decoded before, and with rows that end, fork and join.

On a CPU a stand-in behaves as a CUDA graph does (tests/recorded.py). With -m gpu on a GPU the real
one runs.
"""

import copy
import dataclasses
import gc

import pytest
import torch

import generate as decoding
from agent import rollouts
from config import Model, Think
from fast.graphs import StepGraph, fastest_step, padded_size
from fast.thinking import think
from generate import Conversations, generate, read_token
from learnt import SHAPE, TASKS, TOY, agent
from model import SAGE
from recorded import record

# more tokens than the window: the ring turns over, and landmarks are read
WINDOWED = dataclasses.replace(SHAPE, vocab_size=96, window=12, landmark_stride=4, context=300)


def spread_out(shape: Model, seed: int = 0) -> SAGE:
    """A model whose distributions are far from uniform."""
    model = SAGE(shape, seed=seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    return model.eval()


def prompts_of(rows: int, seed: int, longest: int = 9) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator).tolist()
    return [torch.randint(0, 96, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def test_every_batch_size_gives_the_plain_steps_tokens():
    """One object serves all sizes, prompts and temperatures, growing and shrinking; rows end at
    different times.
    """
    model = spread_out(WINDOWED)
    graph = StepGraph(read_token, record)
    for rows in (1, 2, 3, 7, 64, 8, 33, 1):
        for temperature, top_p in ((0.0, 1.0), (1.0, 1.0), (0.8, 0.9)):
            prompts = prompts_of(rows, seed=rows)
            options = dict(temperature=temperature, top_p=top_p, stop=list(range(9)), seed=rows)
            plain = generate(model, prompts, 24, **options, step=read_token)
            assert generate(model, prompts, 24, **options, step=graph) == plain
            assert temperature == 0 or rows < 7 or len({len(row) for row in plain}) > 1
    assert set(graph.recordings) == {1, 8, 64}  # since memory last grew; 33 rows take that of 64
    assert [padded_size(rows) for rows in (5, 33, 64, 65, 129)] == [8, 64, 64, 128, 192]


GRAPH = StepGraph(read_token, record)  # one for all rollouts, as a training run has


@pytest.mark.parametrize("batch", [4, 12])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rollouts_are_the_same(batch, temperature):
    """Of an agent that has learnt to act: calls, forced observations, rows that are refilled.

    In float64: a recorded step reads a copy of its past for each row, and in float32 the last bit
    can decide a draw.
    """
    model = copy.deepcopy(agent()[0]).double()
    tasks = TASKS * 2
    options = dict(seed=3, batch=batch, room=130)
    plain = rollouts(model, TOY, tasks, temperature, **options, step=read_token)
    graphed = rollouts(model, TOY, tasks, temperature, **options, step=GRAPH)
    assert any(rollout.log for rollout in plain)
    for a, b in zip(plain, graphed, strict=True):
        assert (a.tokens, a.action_mask, a.ended) == (b.tokens, b.action_mask, b.ended)
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-9)


def test_an_untrained_models_rollouts_are_the_same():
    model = spread_out(dataclasses.replace(SHAPE, window=64, landmark_stride=16))
    plain = rollouts(model, TOY, TASKS, seed=1, batch=3, room=30, step=read_token)
    graph = StepGraph(read_token, record)
    graphed = rollouts(model, TOY, TASKS, seed=1, batch=3, room=30, step=graph)
    assert [a.tokens for a in plain] == [b.tokens for b in graphed]


@pytest.mark.parametrize("mode, tau", [("reason", 0.0), ("hybrid", 0.0), ("hybrid", 1.0)])
def test_thinking_is_the_same(monkeypatch, mode, tau):
    """Candidates and futures fork, are compared, and are written back: several states take turns
    in the graph's memory. With τ = 1 no step is doubted, and the same conversation goes on.
    """
    settings = Think(mode=mode, tau=tau, n=2, room=40, ahead=12)
    plain = think(*agent(), TOY, TASKS[:2], settings, seed=2)
    graph = StepGraph(read_token, record)
    monkeypatch.setattr(decoding, "fastest_step", lambda model, step: graph)
    graphed = think(*agent(), TOY, TASKS[:2], settings, seed=2)
    assert graph.recordings
    for a, b in zip(plain, graphed, strict=True):
        assert a.rollout.tokens == b.rollout.tokens
        assert a.rollout.log_probs == pytest.approx(b.rollout.log_probs, abs=1e-4)
        for ours, theirs in zip(a.steps, b.steps, strict=True):
            assert ours.reasoned == theirs.reasoned == (tau < 1)
            for c, d in zip(ours.candidates, theirs.candidates, strict=True):
                assert c.confidence == (d.confidence and pytest.approx(d.confidence, abs=1e-4))


@torch.no_grad()
def test_states_take_turns():
    """Two conversations that step alternately, a third that ended, one that reads on between steps:
    each goes on as if alone. Nothing but the one in the graph's memory is there.
    """
    model = spread_out(WINDOWED)
    graph = StepGraph(read_token, record)
    first, second = (Conversations(model, prompts_of(3, seed), 60) for seed in (1, 2))
    twins = [some.select([0, 1, 2]) for some in (first, second)]

    def step_all(conversations, step, times):
        for _ in range(times):
            for some in conversations:
                tokens = some.logits.argmax(-1, keepdim=True)
                positions = some.lengths[:, None].clone()
                positions[1] = -1  # a row that reads nothing
                some.advance(tokens, positions, None, step)

    for _ in range(3):
        step_all((first, second), graph, 2)
        step_all(twins, read_token, 2)
        generate(model, prompts_of(2, 3), 5, step=graph)
        for some in (first, second, *twins):
            some.read([[4, 5], [], [6]])
    for some, twin in zip((first, second), twins):
        torch.testing.assert_close(some.logits, twin.logits, atol=1e-3, rtol=1e-4)
        for mine, theirs in zip(some.tensors(), twin.tensors(), strict=True):
            if mine.dim() == 4 and mine.shape[2] > 1:  # the spare slot holds what nobody reads
                mine, theirs = mine[:, :, :-1], theirs[:, :, :-1]
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert graph.tenant() is None  # generate's, which is gone
    del first, second, some, mine
    gc.collect()
    assert graph.tenant() is None


@torch.no_grad()
def test_weights_may_change_in_place_or_move():
    model = spread_out(WINDOWED)
    graph = StepGraph(read_token, record)
    prompts = prompts_of(2, seed=4)
    generate(model, prompts, 8, step=graph)
    recorded = graph.recordings[2]
    for p in model.parameters():
        p.mul_(-1)  # as an optimiser does
    assert generate(model, prompts, 8, step=graph) == generate(model, prompts, 8, step=read_token)
    assert graph.recordings[2] is recorded
    for p in model.parameters():
        p.data = p.data * 0.9  # as a sharded model that is gathered again
    assert generate(model, prompts, 8, step=graph) == generate(model, prompts, 8, step=read_token)
    assert graph.recordings[2] is not recorded


def test_the_stand_in_is_as_strict_as_a_graph():
    """What a CUDA graph would freeze or refuse, the stand-in freezes or refuses."""
    model = spread_out(WINDOWED)
    prompts = prompts_of(1, seed=5)
    plain = generate(model, prompts, 12, step=read_token)

    def reads_back(model, state, tokens, positions):
        int(positions.max())
        return read_token(model, state, tokens, positions)

    def allocates(model, state, tokens, positions):
        return read_token(model, state, torch.tensor([[3]]), positions)

    def selects(model, state, tokens, positions):
        positions[positions >= 0]
        return read_token(model, state, tokens, positions)

    for faulty in (reads_back, allocates, selects):
        with pytest.raises(RuntimeError, match="a graph cannot"):
            generate(model, prompts, 12, step=StepGraph(faulty, record))

    calls = []

    def counts(model, state, tokens, positions):
        calls.append(1)
        hidden, logits = read_token(model, state, tokens, positions)
        return hidden, logits.roll(len(calls), -1)

    assert generate(model, prompts, 12, step=counts) != plain
    calls.clear()
    frozen = StepGraph(counts, record)
    generate(model, prompts, 12, step=frozen)
    assert calls == [1]  # Python ran when it was recorded, and never again


def test_a_cpu_takes_the_plain_step():
    assert fastest_step(spread_out(WINDOWED), read_token) is read_token


@torch.no_grad()
def test_memory_grows_with_the_batch_and_stays():
    model = spread_out(WINDOWED)
    graph = StepGraph(read_token, record)
    for rows, expected in ((3, 4), (1, 4), (9, 16), (5, 16)):
        generate(model, prompts_of(rows, seed=rows), 20, step=graph)
        assert len(graph.memory.tokens) == expected
    assert set(graph.recordings) == {8, 16}
    lengths = [len(prompt) for prompt in prompts_of(5, seed=5)]
    state = graph.memory.cache.lengths[:5].tolist()
    assert state == [length + 19 for length in lengths]


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cuda_graph_gives_the_plain_steps_tokens(compile, dtype):
    shape = dataclasses.replace(WINDOWED, width=128, head_dim=64)
    model = spread_out(shape).to("cuda", dtype)
    step = fastest_step(model, read_token, compile=compile)
    assert isinstance(step, StepGraph) and step is fastest_step(model, read_token, compile=compile)
    for rows in (1, 3, 64, 8, 1):
        prompts = prompts_of(rows, seed=rows)
        plain = Conversations(model, prompts, 60)
        graphed = Conversations(model, prompts, 60)
        tolerance = 2e-3 if dtype == torch.float32 else 0.1
        with torch.no_grad():
            for _ in range(24):
                tokens = plain.logits.argmax(-1, keepdim=True)
                positions = plain.lengths[:, None].clone()
                positions[0] = -1 if rows > 1 else positions[0]
                plain.advance(tokens, positions, None, read_token)
                graphed.advance(tokens, positions, None, step)
                error = (plain.logits - graphed.logits).float().norm()
                assert error <= tolerance * plain.logits.float().norm()
        assert torch.equal(plain.lengths, graphed.lengths)
    if dtype == torch.float32 and not compile:
        greedy = generate(model, prompts_of(7, seed=7), 40, step=read_token)
        assert generate(model, prompts_of(7, seed=7), 40) == greedy


@pytest.mark.gpu
def test_rollouts_on_a_gpu_are_the_same():
    model = SAGE(SHAPE).to("cuda")
    model.load_state_dict(agent()[0].state_dict())
    plain = rollouts(model, TOY, TASKS, 0.0, room=60, step=read_token)
    graphed = rollouts(model, TOY, TASKS, 0.0, room=60)
    assert [a.tokens for a in plain] == [b.tokens for b in graphed]
