"""Experts (A.3): against transformers' Mixtral on the same weights, in gradients too; routing that
depends on a token alone; the two losses; and nothing at all where there are none.
"""

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import moe
from config import Config, Data, Model, Parallel, Train, UserError
from fast.decoding import compiled_step
from fast.graphs import StepGraph
from generate import generate, read_token
from model import SAGE, FeedForward, State, flops_per_token, parameters
from parallel import parallelise
from support import plan, settings as all_settings
from recorded import record
from support.pretrained import save_pretrained
from test_model import SHAPES, lively, tokens_of
from forked_script import run
from test_train import settings, weights_and_state

DENSE = SHAPES["toy"]
SHAPE = replace(DENSE, experts=4, experts_per_token=2)


def experts_of(config: Model, seed: int = 0) -> moe.Experts:
    """A layer's experts alone, with large weights, so that no two probabilities are close."""
    layer = moe.Experts(config, (FeedForward(config) for _ in range(config.experts)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return layer


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------------------
# The layer.


@pytest.mark.parametrize("k", [2, 3, 4])
def test_outputs_and_gradients_are_mixtrals(k):
    ours = experts_of(replace(SHAPE, experts_per_token=k))
    theirs = MixtralSparseMoeBlock(
        MixtralConfig(
            hidden_size=SHAPE.width,
            intermediate_size=SHAPE.feed_forward,
            num_local_experts=4,
            num_experts_per_tok=k,
            experts_implementation="eager",
        )
    )
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        for i, expert in enumerate(ours.experts):
            theirs.experts.gate_up_proj[i] = torch.cat([expert.gate.weight, expert.up.weight])
            theirs.experts.down_proj[i] = expert.down.weight
    x, weights = drawn(3, 7, SHAPE.width), drawn(3, 7, SHAPE.width, seed=1)
    xs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(given) for layer, given in zip((ours, theirs), xs)]
    assert outputs[1].abs().max() > 1
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(xs[0].grad, xs[1].grad, rtol=1e-5, atol=1e-5)
    close = dict(rtol=1e-5, atol=2e-5)  # sums over 21 tokens
    torch.testing.assert_close(ours.router.weight.grad, theirs.gate.weight.grad, **close)
    for i, expert in enumerate(ours.experts):
        both = torch.cat([expert.gate.weight.grad, expert.up.weight.grad])
        torch.testing.assert_close(both, theirs.experts.gate_up_proj.grad[i], **close)
        torch.testing.assert_close(
            expert.down.weight.grad, theirs.experts.down_proj.grad[i], **close
        )


def test_one_expert_per_token_is_weighted_by_its_probability():
    """Switch Transformer's equation 2; so the router has a gradient, which 1 would not give."""
    layer = experts_of(replace(SHAPE, experts_per_token=1))
    x = drawn(1, 9, SHAPE.width)
    p = (x[0] @ layer.router.weight.T).softmax(-1)
    for t in range(9):
        best = int(p[t].argmax())
        torch.testing.assert_close(layer(x)[0, t], p[t, best] * layer.experts[best](x[0, t]))
    layer(x).sum().backward()
    assert layer.router.weight.grad.abs().max() > 1e-2


@pytest.mark.parametrize("k", [2, 4])
def test_equal_experts_are_one_feed_forward(k):
    layer = experts_of(replace(SHAPE, experts_per_token=k))
    for expert in layer.experts:
        expert.load_state_dict(layer.experts[0].state_dict())
    x = drawn(2, 5, SHAPE.width)
    torch.testing.assert_close(layer(x), layer.experts[0](x), rtol=1e-5, atol=1e-5)


def test_an_idle_expert_has_a_gradient_of_zero():
    """Not none: ranks that sum up their gradients must have the same ones."""
    layer = experts_of(SHAPE)
    with torch.no_grad():  # the first input is 1, and speaks against the last two experts
        layer.router.weight[:, 0] = torch.tensor([50.0, 50.0, -50.0, -50.0])
    layer(torch.cat([torch.ones(1, 6, 1), drawn(1, 6, SHAPE.width - 1)], -1)).sum().backward()
    sizes = [expert.up.weight.grad.abs().max().item() for expert in layer.experts]
    assert min(sizes[:2]) > 0 and sizes[2:] == [0, 0]


# --------------------------------------------------------------------------------------------------
# The decoder.


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 2])
def test_routing_looks_at_one_token_alone(k):
    """Causal, each row of a batch as if alone, and cached decoding equals the full pass."""
    model = lively(replace(SHAPE, experts_per_token=k))
    tokens = tokens_of(3, 20)
    whole = model(tokens)
    other = tokens.clone()
    other[:, 11:] = (other[:, 11:] + 1) % 97
    torch.testing.assert_close(model(other)[:, :11], whole[:, :11], rtol=0, atol=2e-5)
    torch.testing.assert_close(model(tokens[1:2]), whole[1:2], rtol=0, atol=2e-5)
    state, outputs, start = State(model.config, 3, 20), [], 0
    for length in (7, 1, 1, 10, 1):
        outputs.append(model(tokens[:, start : start + length], state=state))
        start += length
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=0, atol=2e-5)


@torch.no_grad()
def test_generate_writes_what_the_full_pass_says():
    """With the plain step, and with the one that a CUDA graph would record."""
    model = lively(SHAPE)
    prompts = [tokens_of(1, n, seed=n)[0].tolist() for n in (5, 2)]
    rows = generate(model, prompts, 8, temperature=0.0, stop=set())
    graph = StepGraph(read_token, capture=record)
    assert generate(model, prompts, 8, temperature=0.0, stop=set(), step=graph) == rows
    for prompt, written in zip(prompts, rows):
        row = list(prompt)
        for token in written:
            assert token == int(model(torch.tensor([row]))[0, -1].argmax())
            row.append(token)


@torch.no_grad()
def test_a_compiled_step_equals_the_plain_one(monkeypatch):
    """In one graph: every expert then reads every token, and most count 0."""
    whole = torch.compile
    eager = lambda f, **given: whole(
        f, fullgraph=given["fullgraph"], dynamic=False, backend="eager"
    )
    monkeypatch.setattr(torch, "compile", eager)
    model = lively(SHAPE)
    step = compiled_step(model)
    for rows in (1, 3):
        tokens = tokens_of(rows, 6)
        states = [State(model.config, rows, 8) for _ in range(2)]
        for state in states:
            model(tokens[:, :5], state=state)
        at = torch.full((rows, 1), 5)
        plain = read_token(model, states[0], tokens[:, 5:], at)[1]
        compiled = step(model, states[1], tokens[:, 5:], at)[1]
        torch.testing.assert_close(compiled, plain, rtol=0, atol=2e-5)


def gradients(model: SAGE, k: int) -> list[torch.Tensor]:
    routers = moe.find_routers(model)
    with moe.router_logits(routers) as logits:
        loss = model(tokens_of(2, 16)).logsumexp(-1).mean()
    assert [x.shape for x in logits] == [(32, 4)] * model.config.layers
    (loss + moe.routing_loss(logits, k, Train(steps=10, balance_weight=1.0), 5)).backward()
    assert len(logits) == model.config.layers  # backward's own forward passes are not heard
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_recomputed_activations_change_no_gradient(mode):
    """Of both losses together, to the bit."""
    plain = gradients(lively(SHAPE), 2)
    again = gradients(parallelise(lively(SHAPE), Parallel(activation_checkpointing=mode)), 2)
    assert len(plain) == len(again) > 60
    assert all(torch.equal(a, b) for a, b in zip(plain, again))


# --------------------------------------------------------------------------------------------------
# The losses.


@pytest.mark.parametrize("k", [1, 2, 3])
def test_balance_is_mixtrals_over_k(k):
    logits = drawn(50, 6).requires_grad_()
    theirs = load_balancing_loss_func((logits,), 6, k) / k
    ours = moe.balance_loss(logits, k)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
    assert moe.expert_load(logits, k).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 2])
def test_an_even_load_costs_one_and_pulls_nowhere(k):
    """Each of four experts first as often as every other: f and P are uniform."""
    logits = torch.stack([torch.arange(4.0).roll(i) for i in range(4)]).requires_grad_()
    loss = moe.balance_loss(logits, k)
    assert moe.expert_load(logits, k).tolist() == [0.25] * 4
    assert loss.item() == pytest.approx(1, abs=1e-6)
    step = logits.detach() - 0.1 * torch.autograd.grad(loss, logits)[0]
    assert moe.balance_loss(step, k).item() == pytest.approx(1, abs=1e-6)
    collapsed = torch.tensor([[40.0, 40.0, 0.0, 0.0]]).expand(8, 4)  # all tokens take the same two
    assert moe.balance_loss(collapsed, 2).item() == pytest.approx(2)  # N / k


def test_a_balance_loss_near_one_or_below_proves_nothing():
    """A.3 takes the least of the loss for an even load. It is not: probabilities may be all but
    uniform while every token takes the same expert, and the loss may be under 1.
    """
    tilted = torch.tensor([[1e-3, 0.0, 0.0, 0.0]]).expand(8, 4)
    assert moe.balance_loss(tilted, 1).item() == pytest.approx(1, abs=1e-3)
    assert moe.expert_load(tilted, 1).tolist() == [1, 0, 0, 0]
    # three tokens barely prefer the first, one strongly the second
    torn = torch.tensor([[0.51, 0.49]] * 3 + [[0.01, 0.99]]).log()
    assert moe.balance_loss(torn, 1).item() < 0.9


def test_the_z_loss_is_the_square_of_the_logarithm_and_warms_up():
    logits = drawn(20, 5)
    written_out = sum(math_log_sum_exp(row) ** 2 for row in logits.tolist()) / 20
    assert moe.router_z_loss(logits).item() == pytest.approx(written_out, rel=1e-6)
    # it moves logits together, so by itself it leaves the choice as it is
    level = logits - logits.logsumexp(-1, keepdim=True)
    assert moe.router_z_loss(level).item() < 1e-10
    c = Train(steps=100, balance_weight=0.0, router_z_loss=0.5, router_z_warmup=0.2)
    weights = [moe.routing_loss([logits], 2, c, step).item() for step in (1, 10, 20, 100)]
    assert weights == pytest.approx([written_out * w for w in (0.025, 0.25, 0.5, 0.5)])
    c = replace(c, router_z_warmup=0.0)
    assert moe.routing_loss([logits], 2, c, 1).item() == pytest.approx(0.5 * written_out)


def math_log_sum_exp(row):
    return torch.tensor(row, dtype=torch.float64).exp().sum().log().item()


# --------------------------------------------------------------------------------------------------
# Counts, settings, files.


def test_none_by_default():
    """A dense model has no name of the experts', and the same weights as before there were any."""
    assert Model().experts == 0
    model = SAGE(DENSE)
    assert not moe.find_routers(model)
    assert not [name for name in model.state_dict() if "expert" in name or "router" in name]
    same = SAGE(SHAPE).state_dict()  # each parameter draws by its own name
    shared = [name for name in model.state_dict() if ".feed_forward." not in name]
    assert len(shared) > 20
    assert all(torch.equal(model.state_dict()[name], same[name]) for name in shared)


def test_projections_into_the_residual_stream_start_small():
    model = SAGE(replace(SHAPE, width=128, feed_forward=256))
    deviations = {name: p.std().item() for name, p in model.named_parameters() if "experts" in name}
    for name, deviation in deviations.items():
        wanted = 0.02 / (2 * SHAPE.layers) ** 0.5 if name.endswith("down.weight") else 0.02
        assert deviation == pytest.approx(0.9866 * wanted, rel=0.03), name


@pytest.mark.parametrize("k", [1, 2, 4])
def test_parameters_and_flops_are_counted(k):
    shape = replace(SHAPE, experts_per_token=k)
    one = 3 * shape.width * shape.feed_forward
    routers = shape.layers * shape.width * 4
    assert parameters(shape) == parameters(DENSE) + 3 * shape.layers * one + routers
    active = parameters(shape) - moe.idle_parameters(shape)
    assert active == parameters(DENSE) + (k - 1) * shape.layers * one + routers
    more = (k - 1) * shape.layers * one + routers
    assert flops_per_token(shape, 9) == flops_per_token(DENSE, 9) + 6 * more


def test_the_dry_run_counts_what_an_even_load_takes(capsys):
    shape = replace(SHAPE, embedding="plain", context=64)
    train = Train(batch=2, steps=10, optimizer="adamw", dtype="float32", sample_every=0)
    config = Config(model=shape, data=Data(sequence=64), train=train)
    found = plan.trace(config)
    pairs = 14 * shape.heads * shape.head_dim * shape.layers * plan.mean_visible_keys(64, 4096, 64)
    assert found.flops == pytest.approx(flops_per_token(shape, 0) + pairs)
    plan.report(config)
    total = parameters(shape)
    said = f"{total:,} parameters, 3 layers × 32, of which a token uses "
    assert said + f"{total - moe.idle_parameters(shape):,}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(experts=1), "model.experts is 1; wanted 0"),
        (dict(experts=4, experts_per_token=5), "model.experts_per_token is 5; wanted at most 4"),
        (dict(experts=4, experts_per_token=0), "model.experts_per_token is 0"),
    ],
)
def test_impossible_numbers_of_experts(given, says):
    with pytest.raises(UserError, match=re.escape(says)):
        all_settings.validate(Config(model=Model(**given)))


def test_what_is_refused():
    with pytest.raises(UserError, match="train.compile is 'on' with 4 experts"):
        all_settings.validate(Config(model=SHAPE, train=Train(compile="on"), data=Data()))
    with pytest.raises(UserError, match="only a dense model can be exported"):
        save_pretrained(SAGE(SHAPE), "nowhere")


def test_six_steps_are_three_and_three(tmp_path, settings):
    """To the bit, with recomputed activations; and the log has the load."""
    words = ["--model.experts", "4", "--parallel.activation-checkpointing", "full"]
    stop = "import moe\nwhole = moe.routing_loss\ndef dying(logits, k, c, step):\n"
    stop += "    if step == 4: sys.exit('stopped')\n    return whole(logits, k, c, step)\n"
    straight = run("train.py", settings("straight"), *words)
    assert straight.returncode == 0, straight.stderr
    assert "idle at each token, 4 experts" in straight.stdout
    lines = (tmp_path / "straight" / "log.jsonl").read_text().splitlines()
    loads = [entry for entry in map(json.loads, lines) if "least_load" in entry]
    assert len(loads) == 6
    assert all(0 <= entry["least_load"] <= 1 <= entry["most_load"] <= 2 for entry in loads)
    stopped = run("train.py", settings("two"), *words, before=stop + "moe.routing_loss = dying")
    assert "stopped" in stopped.stderr
    resumed = run("train.py", settings("two"), *words, "--resume")
    assert resumed.returncode == 0 and "from step 3" in resumed.stdout, resumed.stderr
    one, two = weights_and_state(tmp_path / "straight"), weights_and_state(tmp_path / "two")
    assert one.keys() == two.keys() and any("router" in name for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)
