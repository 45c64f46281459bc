"""The dry run: its memory beside what torch's profiler, one H100 and torchtitan measured, its FLOPs
beside torch's counter and a count of the mask, and what it says when a run does not fit.
"""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from attention import mask
from config import Config, Data, DryRun, Model, Parallel, Train, UserError
from conftest import ROOT
from model import SAGE, flops_per_token
from support import plan, settings
from support.qwen_sizes import SIZES

# odd numbers of rows, so that two ranks do not hold the same
TINY = Config(
    model=Model(vocab_size=1023, width=64, layers=2, heads=2, kv_heads=1, feed_forward=96),
    data=Data(sequence=96),
    train=Train(batch=2, accumulation=4, optimizer="adamw", sample_every=0),
    plan=DryRun(ranks=2),
)


def changed(config, **sections):
    """A copy with some settings of some sections changed."""
    parts = {name: replace(getattr(config, name), **new) for name, new in sections.items()}
    return replace(config, **parts)


def gib(found):
    return sum(found.peak.values()) / 2**30


# --------------------------------------------------------------------------------------------------
# Arithmetic.


@pytest.mark.parametrize("length", [1, 7, 16, 17, 96, 130])
@pytest.mark.parametrize("window,stride", [(16, 8), (16, 5), (1, 1), (4096, 64), (24, 100)])
def test_visible_keys_are_those_of_the_mask(length, window, stride):
    places = torch.arange(length)
    pairs = mask(places, places, window, stride).sum().item()
    assert plan.mean_visible_keys(length, window, stride) * length == pytest.approx(pairs, abs=1e-6)


def test_flops_are_those_that_torch_counts():
    """Matrix products of a real step under torch's own counter, which the trace agrees with."""
    shape = replace(TINY.model, embedding="plain", window=32, landmark_stride=8)
    config = changed(replace(TINY, model=shape), plan=dict(ranks=1), train=dict(dtype="float32"))
    T, layers = config.data.sequence, shape.layers
    with FlopCounterMode(display=False) as counter:
        plan.take_steps(config, SAGE(shape), 1, torch.float32, plan.Ledger())
    counts = counter.get_flop_counts()["Global"]
    # those of bmm are attention's, on a CPU
    products = counts[torch.ops.aten.mm] + counts[torch.ops.aten.addmm]
    tokens = config.train.batch * T
    assert products == flops_per_token(shape, 0) * tokens

    index = torch.arange(T)
    pairs = mask(index, index, shape.window, shape.landmark_stride).sum().item()
    pair = shape.heads * shape.head_dim * layers * pairs / T  # per token
    assert plan.visible_flops_per_token(shape, T) == pytest.approx(products / tokens + 12 * pair)
    found = plan.trace(config)
    # 4 forward, 10 backward: attention's own backward computes the scores again
    assert found.flops == pytest.approx(products / tokens + 14 * pair)

    whole = plan.trace(changed(config, parallel=dict(activation_checkpointing="full")))
    # all that a block's backward needs: not what its last product, `down`, gives
    again = flops_per_token(replace(shape, feed_forward=shape.feed_forward * 2 // 3), 0) / 6
    again -= shape.width * shape.vocab_size
    assert whole.flops - found.flops == pytest.approx(2 * again + 4 * pair)


# --------------------------------------------------------------------------------------------------
# Memory.


def test_the_ledger_adds_up_storages():
    ledger = plan.Ledger()
    with ledger:
        a = torch.zeros(100)  # 400 bytes
        b = a.view(10, 10) + 1
        ledger.phase = "loss"
        c = torch.zeros(200)
        del b
        c.untyped_storage().resize_(0)
        c.untyped_storage().resize_(4000)
        ledger.phase = "optimiser"
        d = a[5:].to(torch.float64)
        del c
    assert [change for _, change, _ in ledger.entries] == [
        400,
        400,
        800,
        -400,
        -800,
        4000,
        760,
        -4000,
    ]
    peak, phase = ledger.peak()
    assert phase == "optimiser"
    assert sum(peak.values()) == 400 + 4000 + 760
    assert peak[plan.WORKING_COPIES] == 4000
    assert ledger.peak([plan.WORKING_COPIES])[1] == "loss"
    ledger.tag(plan.GRADIENTS, [d], {"x": a})
    assert ledger.sums()[plan.GRADIENTS] == 1160
    assert torch.UntypedStorage.resize_ is ledger.resize  # what was patched is put back


@pytest.mark.parametrize("accumulate", ["whole", "sharded"])
def test_each_rank_keeps_its_rows_of_12_bytes(accumulate):
    """Master weights and AdamW's two moments to the byte. Rank 0 holds the longest part: rows that
    do not divide are rounded up.
    """
    found = plan.trace(changed(TINY, parallel=dict(accumulate=accumulate)))
    model = SAGE(TINY.model, seed=None)
    sizes = [-(-len(p) // 2) * p[0].numel() for p in model.parameters()]
    counters = 4 * len(sizes)  # AdamW's step, one float32 per tensor
    N = sum(p.numel() for p in model.parameters())
    assert (found.parameters, found.own, found.tensors) == (N, sum(sizes), len(sizes))
    assert found.state[plan.PARAMETERS] == 4 * sum(sizes)
    assert found.state[plan.OPTIMISER] == 8 * sum(sizes) + counters
    left = sum(found.state.values()) - 12 * sum(sizes) - counters
    assert left == 2 * 97 * 8 + 2 * 96  # the step's tokens and kinds
    assert 0 < 12 * sum(sizes) - 12 * N / 2 < 1e-3 * 12 * N


def test_what_settings_do_to_the_peak():
    """Each in the direction that its comment says."""
    many = changed(TINY, model=dict(layers=4), data=dict(sequence=512))
    none, selective, full = (
        plan.trace(changed(many, parallel=dict(activation_checkpointing=mode)))
        for mode in ("none", "selective", "full")
    )
    assert none.peak[plan.ACTIVATIONS] > selective.peak[plan.ACTIVATIONS]
    assert selective.peak[plan.ACTIVATIONS] > full.peak[plan.ACTIVATIONS]
    assert none.flops < selective.flops < full.flops

    sharded = plan.trace(changed(many, parallel=dict(accumulate="sharded")))
    assert none.peak[plan.WHOLE_GRADIENTS] > 1.5 * sharded.peak[plan.WHOLE_GRADIENTS]

    offloaded = plan.trace(changed(many, parallel=dict(accumulate="sharded", offload=True)))
    assert not set(offloaded.peak) & set(plan.SHARED_OUT)
    assert offloaded.host == pytest.approx(16 * sharded.own, rel=0.02)
    assert gib(offloaded) < gib(sharded)


def test_the_peak_is_what_a_real_step_takes():
    """torch's profiler sees every allocation of the same step on real tensors. The trace's
    attention keeps what torch's keeps.
    """
    shape = Model(
        vocab_size=4096, width=256, layers=4, heads=4, head_dim=64, feed_forward=768, window=1024
    )
    config = Config(
        model=shape,
        data=Data(sequence=1024),
        train=Train(batch=2, accumulation=2, optimizer="adamw", dtype="float32"),
    )
    model = SAGE(shape)
    parameters = sum(p.nbytes for p in model.parameters())
    with torch.profiler.profile(profile_memory=True) as profile:
        plan.take_steps(config, model, 2, torch.float32, plan.Ledger())
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    taken = top = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        assert event.device_type() == DeviceType.CPU
        taken += event.nbytes()
        top = max(top, taken)
    found = plan.trace(config)
    assert sum(found.peak.values()) == pytest.approx(parameters + top, rel=0.03)


def test_the_h100s_memory():
    """34 GiB for 0.5B at 4 × 4096 (docs/BENCH.md), before the loss had larger chunks."""
    config = Config(
        model=SIZES["0.5B"], data=Data(sequence=4096), train=Train(batch=4, optimizer="adamw")
    )
    assert gib(plan.trace(config)) == pytest.approx(34, rel=0.05)


@pytest.mark.slow
def test_more_of_the_h100s_memory():
    """51 GiB for 1.5B at 2 × 4096, not compiled, and 80 are not enough for 1 × 16384."""
    config = Config(
        model=SIZES["1.5B"], data=Data(sequence=4096), train=Train(batch=2, optimizer="adamw")
    )
    assert gib(plan.trace(config)) == pytest.approx(51, rel=0.05)
    long = changed(config, data=dict(sequence=16_384), train=dict(batch=1))
    assert plan.trace(long).needed > 79 * 2**30


@pytest.mark.slow
def test_torchtitans_memory(monkeypatch):
    """Qwen3-32B, 8 ranks, 2 × 4096, all of a block computed again: 81.85 GiB reserved
    (pytorch/torchtitan, pull request 1690, compiled), where all logits are held at once.
    """
    shape = replace(
        SIZES["32B"], heads=64, feed_forward=25_600, vocab_size=151_936, embedding="plain"
    )
    config = Config(
        model=shape,
        data=Data(sequence=4096),
        train=Train(batch=2, accumulation=8, optimizer="adamw", sample_every=0),
        parallel=Parallel(activation_checkpointing="full", accumulate="sharded"),
        plan=DryRun(ranks=8),
    )
    chunked = plan.trace(config)
    monkeypatch.setattr(plan, "cross_entropy", whole_cross_entropy)
    found = plan.trace(config)
    # the peak is in a block's backward: whether logits are whole or in chunks does not show
    assert gib(found) == pytest.approx(gib(chunked), rel=0.01)
    # live tensors are less than what the allocator has reserved for them
    assert 0.85 < gib(found) / 81.85 < 0.9
    assert found.needed / 2**30 == pytest.approx(81.85, rel=0.05)


def whole_cross_entropy(hidden, weight, targets, z_loss):
    logits = torch.nn.functional.linear(hidden, weight).float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


# --------------------------------------------------------------------------------------------------
# What is printed.


def test_the_table(capsys):
    plan.report(TINY)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert lines[-1].startswith("fits ")
    text = "\n".join(lines)
    for word in ("parameters", "GFLOP per token", "tokens/s", "GPU-hours", "per checkpoint"):
        assert word in text


def test_what_would_fit_is_traced(capsys, monkeypatch):
    """The settings that are named are those whose own trace fits, and those before do not."""
    monkeypatch.setattr(plan, "OUTSIDE_TORCH", 0)
    small = changed(TINY, data=dict(sequence=512), train=dict(accumulation=8))
    full = changed(small, parallel=dict(accumulate="sharded", activation_checkpointing="full"))
    needed = plan.trace(full).needed
    plan.report(changed(small, plan=dict(memory=needed / 2**30 * 1.001)))
    lines = capsys.readouterr().out.splitlines()
    tried = lines[lines.index(next(x for x in lines if x.startswith("too large"))) + 1 :]
    assert [line.split()[0] for line in tried] == [
        "--parallel.accumulate",
        "--parallel.activation-checkpointing",
        "--parallel.activation-checkpointing",
    ]
    assert ["fits" in line for line in tried] == [False, False, True]

    plan.report(changed(full, plan=dict(memory=needed / 2**30 * 0.5)))
    tried = capsys.readouterr().out.splitlines()
    assert any("--train.batch 1 --train.accumulation 16" in line for line in tried)
    assert any("--plan.ranks 4" in line for line in tried)


def test_samples_gather_all_weights():
    """In bfloat16, on every rank, beside what each keeps: with many ranks that is the peak."""
    many = changed(
        TINY,
        model=dict(vocab_size=256, width=256, feed_forward=1024, layers=12),
        data=dict(sequence=8),
        train=dict(accumulation=64),
        plan=dict(ranks=64),
        parallel=dict(accumulate="sharded"),
    )
    found = plan.trace(changed(many, train=dict(sample_every=1)))
    assert found.phase == plan.SAMPLES
    assert found.peak[plan.WORKING_COPIES] == pytest.approx(2 * found.parameters, rel=0.15)
    assert plan.trace(many).phase != plan.SAMPLES


@pytest.mark.parametrize(
    "options,message",
    [
        (["--plan.ranks", "0"], "plan.ranks is 0; wanted at least 1"),
        (["--plan.mfu", "0"], "plan.mfu is 0.0; wanted at most 1 and above 0"),
        (["--plan.mfu", "1.5"], "plan.mfu is 1.5; wanted at most 1 and above 0"),
        (["--plan.memory", "0"], "plan.memory is 0.0; wanted above 0"),
        (["--plan.ranks", "3"], "4 passes of a step .* over 3 ranks .* such as 6"),
    ],
)
def test_bad_settings(options, message):
    words = ["--train.accumulation", "4", "--data.sequence", "64", *options]
    with pytest.raises(UserError, match=message):
        plan.report(settings.from_command_line(words))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [8, 16, 64])
def test_32b(ranks):
    """The whole command, at full size: the state of each rank is 12·N/W bytes."""
    run = subprocess.run(
        [sys.executable, "train.py", "config/32b.py", "--dry-run", "--plan.ranks", str(ranks)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    beyond = re.search(r"after a step ([+-][\d,]+) bytes", run.stdout)[1]
    assert 0 <= int(beyond.replace(",", "")) < 10_000
    assert ("\ntoo large" in run.stdout) == (ranks == 8)
