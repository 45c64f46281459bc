"""The preference and reinforcement losses beside trl's own trainer, torch's softmax, finite sums,
and the identities that define them.
"""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from support.pretrained import load_pretrained, tensor_name
from config import Model
from support.packing import pack
from losses import IGNORE, sum_per_document, token_log_probs
from preferences import dpo_loss
from rl import (
    explained_variance,
    generalized_advantages,
    group_advantages,
    kl_k2,
    kl_k3,
    kl_loss,
    leave_one_out,
    ppo_loss,
    mean_weights,
    value_loss,
    whiten,
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------------
# Log-probabilities.


@pytest.mark.parametrize("rows_a_chunk", [1, 7, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_entropy_equal_torchs(rows_a_chunk, temperature):
    hidden = torch.randn(5, 10, 16, generator=draws(), requires_grad=True)
    weight = torch.randn(33, 16, generator=draws(1), requires_grad=True)
    targets = torch.randint(0, 33, (5, 10), generator=draws(2))
    targets[0] = IGNORE
    targets[3, 5:] = IGNORE
    taught = targets != IGNORE
    there = Categorical(logits=(hidden @ weight.T) / temperature)
    upstream = torch.randn(2, 5, 10, generator=draws(3))
    wanted = [
        torch.where(taught, values, 0.0)
        for values in (there.log_prob(targets.clamp(min=0)), there.entropy())
    ]
    found = token_log_probs(
        hidden, weight, targets, chunk_elements=33 * rows_a_chunk, temperature=temperature
    )
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, atol=1e-5)
        assert (a[~taught] == 0).all()
    gradients = [
        torch.autograd.grad(sum((v * u).sum() for v, u in zip(values, upstream)), (hidden, weight))
        for values in (found, wanted)
    ]
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert (gradients[0][0][~taught] == 0).all()  # exactly


def test_log_probs_never_hold_all_logits():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    Largest.elements = max(Largest.elements, tensor.numel())
            return result

    hidden = torch.randn(512, 8, requires_grad=True)
    weight = torch.randn(1000, 8, requires_grad=True)
    with Largest():
        token_log_probs(hidden, weight, torch.randint(0, 1000, (512,)), chunk_elements=16_000)[
            0
        ].sum().backward()
    assert Largest.elements == 16_000


def test_no_own_token_at_all():
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    log_probs, entropy = token_log_probs(hidden, torch.randn(9, 4), torch.full((2, 3), IGNORE))
    (log_probs.sum() + entropy.sum()).backward()
    assert (log_probs == 0).all()
    assert (hidden.grad == 0).all()


def test_shares_and_sums_of_packed_documents():
    documents = torch.tensor([[0, 0, 0, 1, 1, -1], [2, 2, 2, 2, -1, -1]])
    own = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0]]).bool()
    assert sum_per_document(own.float(), documents, 3).tolist() == [2, 1, 4]
    third = 1 / 3
    assert torch.allclose(
        mean_weights(own, documents, "sequence"),
        torch.tensor([[0, third / 2, third / 2, 0, third, 0], [third / 4] * 4 + [0, 0]]),
    )
    assert torch.allclose(mean_weights(own, documents, "token"), own / 7)
    silent = torch.zeros_like(own)
    assert (mean_weights(silent, documents) == 0).all()


# --------------------------------------------------------------------------------------------------
# Direct Preference Optimization.


def test_dpo_begins_at_ln_2_with_half_beta_gradients():
    chosen, rejected = (
        torch.randn(6, generator=draws(seed), requires_grad=True) for seed in (0, 1)
    )
    loss, difference = dpo_loss(
        chosen, rejected, chosen.detach().clone(), rejected.detach().clone(), beta=0.1
    )
    loss.backward()
    assert abs(loss.item() - math.log(2)) < 1e-7
    assert (difference == 0).all()
    assert torch.allclose(chosen.grad, torch.full((6,), -0.05 / 6))
    assert torch.allclose(rejected.grad, torch.full((6,), 0.05 / 6))


def tiny_qwen(seed):
    transformers = pytest.importorskip(
        "transformers",
        reason="the reference model comes from transformers: pip install -e '.[test]'",
    )
    torch.manual_seed(seed)
    return transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
            intermediate_size=48,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    )


def word_tokenizer():
    """A tokenizer for trl's trainers, which want one: w0 … w63."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="w1", eos_token="w2", unk_token="w0"
    )


def pairs():
    """Prompts with two completions each, of uneven lengths."""
    ids = lambda count: torch.randint(3, 64, (count,), generator=generator).tolist()
    generator = draws(5)
    return [
        dict(prompt_ids=ids(p), chosen_ids=ids(c), rejected_ids=ids(r))
        for p, c, r in ((3, 4, 2), (7, 1, 6), (5, 5, 5))
    ]


def theirs(policy, reference, folder):
    """Loss, gradients and rewards of trl's DPOTrainer on the pairs."""
    trl = pytest.importorskip(
        "trl", reason="the independent DPO comes from trl: pip install -e '.[test]'"
    )
    from datasets import Dataset

    arguments = trl.DPOConfig(
        output_dir=str(folder),
        beta=0.3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(
        policy,
        reference,
        arguments,
        train_dataset=Dataset.from_list([dict(prompt="w3 w4", chosen=" w5", rejected=" w6")]),
        processing_class=word_tokenizer(),
    )
    loss = trainer.compute_loss(policy, trainer.data_collator(pairs()))
    loss.backward()
    return (
        loss.item(),
        {name: p.grad for name, p in policy.named_parameters()},
        {key: values[-1] for key, values in trainer._metrics["train"].items()},
    )


@pytest.mark.filterwarnings("ignore")
def test_dpo_is_trls(tmp_path):
    """The same weights, the same pairs: loss, margins and the gradient of every weight, though ours
    packs documents and theirs pads.
    """
    policy = tiny_qwen(1)
    reference = tiny_qwen(2)
    ours = []
    for number, model in enumerate((policy, reference)):
        model.save_pretrained(tmp_path / str(number))
        ours.append(load_pretrained(tmp_path / str(number)))
    examples = [
        (
            pair["prompt_ids"] + pair[side],
            [False] * len(pair["prompt_ids"]) + [True] * len(pair[side]),
        )
        for pair in pairs()
        for side in ("chosen_ids", "rejected_ids")
    ]
    packed = pack(examples, 32, Model())
    log_probs = []
    for model in ours:
        weight = model.embedding.text.weight
        values, _ = token_log_probs(
            model.hidden(packed.tokens, packed.documents), weight, packed.targets
        )
        log_probs += [sum_per_document(values, packed.documents, len(examples))]
    ours_loss, difference = dpo_loss(
        log_probs[0][::2],
        log_probs[0][1::2],
        log_probs[1][::2].detach(),
        log_probs[1][1::2].detach(),
        beta=0.3,
    )
    ours_loss.backward()
    loss, gradients, metrics = theirs(policy, reference, tmp_path)
    assert abs(ours_loss.item() - loss) < 1e-5
    assert abs(loss - math.log(2)) > 0.05
    assert abs(0.3 * difference.mean().item() - metrics["rewards/margins"]) < 1e-4
    assert (difference > 0).float().mean().item() == pytest.approx(metrics["rewards/accuracies"])
    compared = 0
    for name, p in ours[0].named_parameters():
        if name.startswith("embedding."):  # E_text and E_code share what is theirs' one matrix
            continue
        wanted = gradients[tensor_name(name)]
        assert torch.allclose(
            p.grad, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item() + 1e-7
        ), name
        compared += 1
    # a row read through the gate, and the tied head
    both = ours[0].embedding.text.weight.grad + ours[0].embedding.code.weight.grad
    wanted = gradients["model.embed_tokens.weight"]
    assert compared == 25
    assert torch.allclose(both, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


# --------------------------------------------------------------------------------------------------
# Advantages.


def by_definition(rewards, values, gamma, lam):
    """GAE as the paper's equation 16 writes it, an explicit double sum over one episode:

    A_t = Σ_l (γλ)^l · δ_{t+l}.
    """
    deltas = [
        r + gamma * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t]
        for t, r in enumerate(rewards)
    ]
    return [
        sum((gamma * lam) ** (l - t) * deltas[l] for l in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


@pytest.mark.parametrize("gamma, lam", [(1.0, 1.0), (0.99, 0.95), (1.0, 0.9), (0.9, 0.0)])
def test_advantages_equal_the_sum_of_deltas(gamma, lam):
    own = torch.rand(4, 23, generator=draws(), dtype=torch.float64) < 0.6
    rewards, values = (
        torch.randn(4, 23, generator=draws(seed), dtype=torch.float64) for seed in (1, 2)
    )
    advantages, returns = generalized_advantages(rewards, values, own, gamma=gamma, lam=lam)
    for row in range(4):
        wanted = by_definition(
            rewards[row][own[row]].tolist(), values[row][own[row]].tolist(), gamma, lam
        )
        assert torch.allclose(
            advantages[row][own[row]].double(), torch.tensor(wanted, dtype=torch.float64), atol=1e-5
        )
        assert torch.allclose(
            returns[row][own[row]], advantages[row][own[row]] + values[row][own[row]]
        )
    assert (advantages[~own] == 0).all()
    assert (returns[~own] == 0).all()


def test_whole_credit_returns_are_the_final_reward():
    own = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 0]]).bool()
    rewards = torch.zeros(1, 8)
    rewards[0, 6] = 0.75
    _, returns = generalized_advantages(
        rewards, torch.randn(1, 8, generator=draws()), own, gamma=1.0, lam=1.0
    )
    assert torch.allclose(returns, 0.75 * own)


def test_tool_tokens_change_nothing():
    """Three more of them in the middle: the same advantages at the model's own tokens."""
    own = torch.tensor([[1, 1, 0, 1, 1]]).bool()
    rewards = torch.tensor([[0.0, 0, 0, 0, 1]])
    values = torch.randn(1, 5, generator=draws())
    wider = lambda x: torch.cat(
        [
            x[:, :3],
            torch.randn(1, 3, generator=draws(9)).to(x.dtype)
            if x is not own
            else torch.zeros(1, 3, dtype=torch.bool),
            x[:, 3:],
        ],
        1,
    )
    plain, _ = generalized_advantages(rewards, values, own, gamma=0.9, lam=0.8)
    more, _ = generalized_advantages(wider(rewards), wider(values), wider(own), gamma=0.9, lam=0.8)
    assert torch.equal(plain[own], more[wider(own)])
    assert plain[own].unique().numel() == 4


def test_packed_episodes_do_not_see_each_other():
    own = torch.tensor([[1, 0, 1, 0, 1, 1, 0]]).bool()
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, -1]])
    rewards = torch.randn(1, 7, generator=draws())
    values = torch.randn(1, 7, generator=draws(1))
    steps = dict(gamma=0.9, lam=0.8)
    packed, _ = generalized_advantages(rewards, values, own, **steps, documents=documents)
    alone = [
        generalized_advantages(rewards[:, a:b], values[:, a:b], own[:, a:b], **steps)[0]
        for a, b in ((0, 4), (4, 7))
    ]
    assert torch.equal(packed, torch.cat(alone, 1))


def test_whitening_is_under_the_weights_it_is_given():
    values = torch.randn(3, 9, generator=draws(1)) * 7 + 3
    weights = torch.rand(3, 9, generator=draws())
    weights[weights < 0.4] = 0
    counted = weights > 0
    # what does not count is not even read
    values[0, 0] = math.nan
    weights[0, 0] = 0
    counted[0, 0] = False
    white = whiten(values, weights)
    assert np.average(white, weights=weights) == pytest.approx(0, abs=1e-6)
    variance = torch.cov(white[counted], correction=0, aweights=weights[counted])
    assert variance.item() == pytest.approx(1, abs=1e-5)
    assert (white[~counted] == 0).all()
    assert (whiten(torch.full((3, 9), 0.3), weights) == 0).all()
    assert (whiten(torch.ones(3, 9), torch.zeros(3, 9)) == 0).all()


@pytest.mark.parametrize(
    "mean, success, failure",
    [
        ("sequence", 1.0, -1.0),  # half of the weight each
        ("token", math.sqrt(7.5), -math.sqrt(1 / 7.5)),  # 160 tokens against 1200
    ],
)
def test_short_successes_beside_long_failures(mean, success, failure):
    """Four of 40 tokens, four of 300: centred where the loss averages, whichever mean that is."""
    lengths = torch.tensor([40] * 4 + [300] * 4)
    action_mask = torch.arange(300) < lengths[:, None]
    documents = torch.arange(8)[:, None].expand(8, 300).masked_fill(~action_mask, -1)
    weights = mean_weights(action_mask, documents, mean)
    rewards = leave_one_out(torch.tensor([[1.0] * 4 + [0.0] * 4])).flatten()
    advantages, _ = generalized_advantages(
        torch.zeros(8, 300).scatter(1, lengths[:, None] - 1, rewards[:, None]),
        torch.zeros(8, 300),
        action_mask,
        gamma=1,
        lam=1,
    )
    white = whiten(advantages, weights)
    assert torch.allclose(white[:4, :40], torch.tensor(success))
    assert torch.allclose(white[4:], torch.tensor(failure))
    loss, _ = ppo_loss(torch.zeros(8, 300), torch.zeros(8, 300), white, weights)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_group_advantages_are_those_of_the_episodes_that_count():
    nan = math.nan
    found = group_advantages(
        torch.tensor(
            [
                [1.0, 0, 0, 0],
                [0.1, 0.1, 0.1, 0.1],
                [1, 0, nan, nan],
                [nan, 1, 1, 0],
                [nan, nan, 1, nan],
                [0.3, nan, 0.3, 0.3],
                [nan] * 4,
            ]
        )
    )
    third = math.sqrt(1 / 3)
    wanted = torch.tensor(
        [
            [1.5, -0.5, -0.5, -0.5],  # (1 − ¼)/½ and −¼/½
            [0.0, 0, 0, 0],
            [math.sqrt(0.5), -math.sqrt(0.5), 0, 0],
            [0, third, third, -2 * third],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
        ]
    )
    assert torch.allclose(found, wanted, atol=1e-3)
    assert (found[[1, 4, 5, 6]] == 0).all()
    trl = pytest.importorskip(
        "trl.trainer.utils",
        reason="the independent deviation comes from trl: pip install -e '.[test]'",
    )
    rewards = torch.randn(50, 8, generator=draws())
    rewards[torch.rand(50, 8, generator=draws(1)) < 0.5] = nan
    theirs = (rewards - rewards.nanmean(1, keepdim=True)) / (
        trl.nanstd(rewards, dim=1, keepdim=True) + 1e-4
    )
    assert torch.allclose(group_advantages(rewards), theirs.nan_to_num(), atol=1e-5)


def test_explained_variance_is_under_the_losss_weights():
    returns = torch.randn(4, 9, generator=draws())
    values = torch.randn(4, 9, generator=draws(1))
    weights = torch.rand(4, 9, generator=draws(2)).mul(2).sub(1).clamp(min=0)
    both = np.cov(
        np.stack([(returns - values).flatten(), returns.flatten()]),
        aweights=weights.flatten(),
        ddof=0,
    )
    assert explained_variance(values, returns, weights) == pytest.approx(
        1 - both[0, 0] / both[1, 1], abs=1e-5
    )
    assert explained_variance(returns + 3, returns, weights) == pytest.approx(1)
    assert math.isnan(explained_variance(values, torch.full((4, 9), 0.1), weights))
    # an episode of two tokens that is foretold, one of four that is not
    two = torch.tensor([[1.0, -1, 0, 0, 0, 0]])
    weights = torch.tensor([[0.25, 0.25, 0.125, 0.125, 0.125, 0.125]])
    assert explained_variance(
        two, two + torch.tensor([[0.0, 0, 1, -1, 1, -1]]), weights
    ) == pytest.approx(0.5)


def test_leave_one_out_by_hand_and_without_bias():
    nan = math.nan
    found = leave_one_out(
        torch.tensor([[1.0, 0, 0, 0], [0.3, 0.3, 0.3, 0.3], [-1, nan, 1, 0], [2, nan, nan, nan]])
    )
    assert torch.allclose(
        found,
        torch.tensor([[1, -1 / 3, -1 / 3, -1 / 3], [0, 0, 0, 0], [-1.5, 0, 1.5, 0], [0, 0, 0, 0]]),
        atol=1e-6,
    )
    # all pairs of two samples of a three-armed bandit, exactly
    logits = torch.randn(3, generator=draws(), dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(0)
    worth = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64)
    exact = torch.autograd.grad((log_p.exp() * worth).sum(), logits, retain_graph=True)[0]
    pairs = [(a, b) for a in range(3) for b in range(3)]
    rewards = leave_one_out(worth[torch.tensor(pairs)])
    estimate = sum(
        (log_p[a] + log_p[b]).exp().detach()
        * (rewards[i, 0] * log_p[a] + rewards[i, 1] * log_p[b])
        / 2
        for i, (a, b) in enumerate(pairs)
    )
    assert torch.allclose(torch.autograd.grad(estimate, logits)[0], exact)


# --------------------------------------------------------------------------------------------------
# Proximal Policy Optimization.


def policy_batch():
    logits = torch.randn(3, 8, 5, generator=draws(), requires_grad=True)
    actions = torch.randint(0, 5, (3, 8), generator=draws(1))
    own = torch.rand(3, 8, generator=draws(2)) < 0.6
    advantages = torch.randn(3, 8, generator=draws(3)) * own
    documents = torch.arange(3)[:, None].expand(3, 8)
    return logits, actions, own, advantages, mean_weights(own, documents)


def test_the_first_step_is_reinforce():
    """The ratio is exactly 1, nothing is clipped, and the gradient is −Σ w·A·∇log π; where the
    model wrote nothing it is exactly zero.
    """
    logits, actions, own, advantages, weights = policy_batch()
    log_probs = logits.log_softmax(-1).gather(2, actions[..., None]).squeeze(2)
    loss, clipped = ppo_loss(log_probs, log_probs.detach(), advantages, weights, clip=0.2)
    assert torch.equal(torch.exp(log_probs - log_probs.detach()), torch.ones(3, 8))
    assert clipped == 0
    found = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    wanted = torch.autograd.grad(-(weights * advantages * log_probs).sum(), logits)[0]
    assert torch.allclose(found, wanted, atol=1e-7)
    assert (found[~own] == 0).all()
    assert found[own].abs().min() > 0


def test_the_clip_stops_what_has_gone_far_enough():
    """By its four cases: a ratio beyond 1 ± clip has no gradient where the advantage pushes it
    further, and the whole one where it pulls back.
    """
    old = torch.zeros(1, 4)
    new = torch.tensor([[0.5, -0.5, 0.5, -0.5]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    weights = torch.full((1, 4), 0.25)
    loss, clipped = ppo_loss(new, old, advantages, weights, clip=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(-0.25 * (1.2 - 0.8 - math.exp(0.5) + math.exp(-0.5)))
    assert clipped == 0.5
    assert torch.allclose(
        new.grad, torch.tensor([[0, 0, 0.25 * math.exp(0.5), -0.25 * math.exp(-0.5)]])
    )


def test_a_higher_clip_lets_unlikely_tokens_rise_further():
    """Clip-higher: upwards the gradient lives to 1 + clip_high, downwards to 1 − clip."""
    old = torch.zeros(1, 3)
    new = torch.tensor([1.25, 1.3, 0.75]).log()[None].requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, -1.0]])
    weights = torch.full((1, 3), 1 / 3)
    loss, clipped = ppo_loss(new, old, advantages, weights, clip=0.2, clip_high=0.28)
    loss.backward()
    assert loss.item() == pytest.approx(-(1.25 + 1.28 - 0.8) / 3)
    assert clipped == pytest.approx(2 / 3)
    assert torch.allclose(new.grad, torch.tensor([[-1.25 / 3, 0, 0]]))


def test_value_loss_is_squared_error_near_the_old_value():
    old = torch.zeros(1, 3)
    returns = torch.tensor([[0.1, 1.0, 0.0]])
    weights = torch.tensor([[0.5, 0.5, 0.0]])
    new = torch.tensor([[0.15, 0.9, 5.0]], requires_grad=True)
    loss = value_loss(new, old, returns, weights, clip=0.2)
    loss.backward()
    # the second counts as if it were at 0.2, and pulls no more
    assert loss.item() == pytest.approx(0.25 * 0.05**2 + 0.25 * 0.8**2)
    assert torch.allclose(new.grad, torch.tensor([[0.5 * 0.05, 0.0, 0.0]]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind, mean", [("grpo", "sequence"), ("bnpo", "token")])
def test_the_clipped_loss_is_trls(tmp_path, kind, mean):
    """Loss, every gradient (with a KL term) and clip fraction of trl's GRPOTrainer, either mean."""
    trl = pytest.importorskip(
        "trl", reason="the independent policy loss comes from trl: pip install -e '.[test]'"
    )
    from datasets import Dataset

    policy = tiny_qwen(1)
    generator = draws(5)
    policy.save_pretrained(tmp_path / "policy")
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        beta=0.0,
        epsilon=0.2,
        num_generations=2,
        per_device_train_batch_size=2,
        loss_type=kind,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        policy,
        lambda **_: [0.0, 0.0],
        arguments,
        train_dataset=Dataset.from_list([dict(prompt="w3 w4")] * 4),
        processing_class=word_tokenizer(),
    )
    trainer.current_gradient_accumulation_steps = 1
    lengths = [4, 6, 2]
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).long()
    prompts, completions = (
        torch.randint(3, 64, (3, count), generator=generator) for count in (4, 6)
    )
    advantages = torch.randn(3, generator=generator)
    old = torch.randn(3, 6, generator=generator) * 0.3 - 4
    reference = old + torch.randn(3, 6, generator=generator) * 0.3
    inputs = dict(
        prompt_ids=prompts,
        prompt_mask=torch.ones_like(prompts),
        completion_ids=completions,
        completion_mask=mask,
        advantages=advantages,
        old_per_token_logps=old,
        ref_per_token_logps=reference,
    )
    policy.train()
    wanted = trainer._compute_loss(policy, inputs)
    trainer.beta = 0.3
    trainer._compute_loss(policy, inputs).backward()
    ours = load_pretrained(tmp_path / "policy")
    examples = [
        ([*p.tolist(), *c[:n].tolist()], [False] * 4 + [True] * n)
        for p, c, n in zip(prompts, completions, lengths)
    ]
    packed = pack(examples, 20, Model())
    new, _ = token_log_probs(
        ours.hidden(packed.tokens, packed.documents), ours.embedding.text.weight, packed.targets
    )
    action_mask = packed.targets != IGNORE
    weights = mean_weights(action_mask, packed.documents, mean)
    sampled = torch.zeros_like(new)
    referred = torch.zeros_like(new)
    for (row, column), n, *each in zip(packed.positions, lengths, old, reference):
        sampled[row, column + 3 : column + 3 + n], referred[row, column + 3 : column + 3 + n] = (
            values[:n] for values in each
        )
    loss, clipped = ppo_loss(
        new, sampled, advantages[packed.documents.clamp(min=0)] * action_mask, weights, clip=0.2
    )
    (loss + 0.3 * kl_loss(new, sampled, referred, weights)).backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert abs(wanted.item()) > 0.01
    if mean == "token":  # theirs is always over tokens
        assert clipped.item() == pytest.approx(
            trainer._metrics["train"]["clip_ratio/region_mean"][-1]
        )
        assert clipped > 0.1
    for name, p in ours.named_parameters():
        if not name.startswith("embedding."):  # E_text and E_code share what is theirs' one matrix
            theirs_gradient = dict(policy.named_parameters())[tensor_name(name)].grad
            assert torch.allclose(
                p.grad,
                theirs_gradient,
                rtol=1e-3,
                atol=1e-4 * theirs_gradient.abs().max().item() + 1e-7,
            ), name


def test_kl_loss_on_old_draws_by_enumeration():
    """Drawn from an older policy, its gradient is that of KL(π ‖ π_ref); k2 alone has another."""
    logits = torch.randn(6, generator=draws(), requires_grad=True, dtype=torch.float64)
    log_p = logits.log_softmax(0)
    log_old, log_q = (
        torch.randn(6, generator=draws(seed), dtype=torch.float64).log_softmax(0) for seed in (1, 2)
    )
    gradient = lambda loss: torch.autograd.grad(loss, logits, retain_graph=True)[0]
    wanted = gradient(
        torch.distributions.kl_divergence(Categorical(logits=log_p), Categorical(logits=log_q))
    )
    assert torch.allclose(
        gradient(kl_loss(log_p, log_old, log_q, log_old.exp())), wanted, atol=1e-12
    )
    assert not torch.allclose(
        gradient((log_old.exp() * kl_k2(log_p, log_q)).sum()), wanted, atol=1e-2
    )


def test_kl_estimates_by_enumeration():
    """Over all outcomes of a categorical:

    E[k1] = E[k3] = KL; ∇E of k2 as a loss on fixed samples = ∇KL, of k1 zero, of k3 something else.
    """
    logits = torch.randn(6, generator=draws(), requires_grad=True, dtype=torch.float64)
    log_p = logits.log_softmax(0)
    log_q = torch.randn(6, generator=draws(1), dtype=torch.float64).log_softmax(0)
    exact = torch.distributions.kl_divergence(Categorical(logits=log_p), Categorical(logits=log_q))
    # how often each outcome is drawn: samples are data, no gradient flows through them
    chance = log_p.exp().detach()
    assert torch.allclose((chance * kl_k3(log_p, log_q)).sum(), exact)
    assert torch.allclose((chance * (log_p - log_q)).sum(), exact)
    gradient = lambda loss: torch.autograd.grad(loss, logits, retain_graph=True)[0]
    wanted = gradient(exact)
    assert torch.allclose(gradient((chance * kl_k2(log_p, log_q)).sum()), wanted, atol=1e-12)
    assert wanted.abs().max() > 0.05
    assert torch.allclose(
        gradient((chance * (log_p - log_q)).sum()), torch.zeros(6, dtype=torch.float64), atol=1e-12
    )
    assert not torch.allclose(gradient((chance * kl_k3(log_p, log_q)).sum()), wanted, atol=1e-2)
    assert (kl_k3(log_p, log_q) >= 0).all()
