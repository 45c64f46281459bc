"""heads.py as a user runs it, the labels of steps, and the losses and figures behind them."""

import importlib.util
import json
import random
import re
import shutil
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from support import checkpoint
from support import settings
from support.optimizers import make_optimizers
import heads as script
import labelled_steps
from support import tokenizer as tokenizers
from config import Heads
from conftest import ROOT
from worlds import WORLDS
from worlds.expert import call_message, solve_task
from losses import auroc, calibration_error
from labelled_steps import (
    conclusion_of,
    expert_example,
    negative_examples,
    own_example,
    pack_steps,
    own_examples,
)
from mch import (
    ThinkingHeads,
    calibrate,
    confidence_loss,
    constraint_texts,
    fit_logistic,
    surprise_of,
)
from model import SAGE
from agent import EpisodeRow, Rollout, prompt_of
from worlds.labels import PART_NAMES, PARTS, first_wrong_step, label_steps
from worlds.sql import sql_call
from forked_script import run
from test_train import KILL_IN_A_SAVE, weights_and_state
from worlds.calls import read_calls
from worlds.base import Episode
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, draw_task

TOY = tokenizers.toy()

# --------------------------------------------------------------------------------------------------
# Losses, calibration, figures.


def test_confidence_loss_is_binary_cross_entropy_over_known_labels():
    generator = torch.Generator().manual_seed(0)
    shape = (40, len(PARTS))
    logits = torch.randn(shape, generator=generator, requires_grad=True)
    labels = (torch.rand(shape, generator=generator) < 0.5).float()
    labels[torch.rand(shape, generator=generator) < 0.4] = float("nan")
    known = ~labels.isnan()
    loss = confidence_loss(logits, labels)
    assert torch.allclose(loss, F.binary_cross_entropy(torch.sigmoid(logits[known]), labels[known]))
    loss.backward()
    assert torch.allclose(
        logits.grad[known],
        ((torch.sigmoid(logits) - labels)[known] / known.sum()).detach(),
        atol=1e-7,
    )
    assert (logits.grad[~known] == 0).all()
    nothing = confidence_loss(logits, torch.full(shape, float("nan")))
    assert nothing == 0 and (torch.autograd.grad(nothing, logits)[0] == 0).all()


def test_logistic_regression_stands_where_its_gradient_is_zero():
    generator = torch.Generator().manual_seed(1)
    x, y = (
        torch.randn(300, 7, generator=generator),
        (torch.rand(300, generator=generator) < 0.3).float(),
    )
    w, b = fit_logistic(x, y, ridge=2.0)
    off = torch.sigmoid(x @ w + b) - y
    assert (x.T @ off + 2 * w).abs().max() < 1e-2 and off.sum().abs() < 1e-2


def test_calibration_finds_what_was_bent():
    """Labels drawn from σ(z/2.5 + 0.7) give back 2.5 and 0.7, and the calibrated head's error is
    that of chance.
    """
    generator = torch.Generator().manual_seed(2)
    z = 4 * torch.randn(40_000, generator=generator)
    y = (torch.rand(40_000, generator=generator) < torch.sigmoid(z / 2.5 + 0.7)).float()
    temperature, offset = calibrate(z, y)
    assert temperature == pytest.approx(2.5, abs=0.1) and offset == pytest.approx(0.7, abs=0.05)
    assert (
        calibration_error(torch.sigmoid(z / temperature + offset), y)
        < 0.01
        < 0.08
        < calibration_error(torch.sigmoid(z), y)
    )


def test_calibration_of_heads_that_cannot_be_calibrated():
    z = torch.linspace(-3, 3, 50)
    assert (
        calibrate(z, torch.ones(50))
        == calibrate(z, torch.zeros(50))
        == calibrate(z[:0], z[:0])
        == (1.0, 0.0)
    )
    temperature, offset = calibrate(z, (z < 0).float())  # the wrong way round: the base rate
    assert torch.allclose(torch.sigmoid(z / temperature + offset), torch.tensor(0.5))
    perfect = calibrate(z, (z > 0).float())
    assert 0 < perfect[0] < 1 and all(
        abs(value) < 1e6 for value in perfect
    )  # finite, though no slope is too steep


@pytest.mark.parametrize("levels", [3, 20, 10**9])
def test_auroc_counts_pairs(levels):
    generator = torch.Generator().manual_seed(levels % 97)
    scores, labels = (
        torch.randint(0, levels, (150,), generator=generator).double(),
        (torch.rand(150, generator=generator) < 0.3).float(),
    )
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[labels > 0].tolist()
        for n in scores[labels == 0].tolist()
    ]
    assert auroc(scores, labels) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auroc(scores.exp() if levels < 100 else scores * 2 + 1, labels) == pytest.approx(
        auroc(scores, labels)
    )


def test_auroc_of_one_class_is_undefined():
    assert all(
        value != value
        for value in (
            auroc(torch.rand(5), torch.ones(5)),
            auroc(torch.rand(5), torch.zeros(5)),
            auroc(torch.rand(0), torch.rand(0)),
        )
    )


def test_calibration_error_by_hand():
    p, y = torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(p, y, bins=2) == pytest.approx((abs(0.15 - 0.5) + abs(0.85 - 1)) / 2)
    assert calibration_error(p, y, bins=4) == pytest.approx((0.1 + 0.8 + 0.2 + 0.1) / 4)
    assert calibration_error(p[:3], y[:3]) == pytest.approx(
        (0.1 + 0.8 + 0.2) / 3
    )  # fewer steps than bins
    assert calibration_error(p[:0], y[:0]) != calibration_error(p[:0], y[:0])
    # one probability for all, which is the share of positives: right in whatever order they come
    same = torch.full((300,), 0.5)
    assert calibration_error(same, torch.arange(300) // 150) == pytest.approx(0)


# --------------------------------------------------------------------------------------------------
# Labels.


def played(task, messages, faults=False):
    """A rollout that says these messages: texts, or calls."""
    texts = [
        message if isinstance(message, str) else f"<tool_call>{json.dumps(message)}</tool_call>"
        for message in messages
    ]
    rollout = Rollout(task, [], [], [])
    with Episode(task, faults) as episode:
        for text in texts:
            rollout.messages.append(text)
            calls, found = read_calls(text)
            if not calls and not found:
                rollout.verified, rollout.ended = episode.verify(text), "answer"
            else:
                episode.step(calls[0] if calls else text)
        rollout.log, rollout.faults = episode.log, episode.faults
    return rollout


SPOILT = {
    "type": [0.0, 1.0, None, None],
    "key": [1.0, 0.0, None, None],
    "logic": [1.0, 1.0, 0.0, None],
}  # a call that is refused has no logic
FOUR = ("syntax", "grounded", "logic", "success")


def four(labels):
    """A step's labels under the four parts that these tests are about."""
    by_name = dict(zip(PART_NAMES, labels, strict=True))
    return [by_name[name] for name in FOUR]


def judged(rollout):
    return [four(labels) for labels in label_steps(rollout)]


def some_task(world, calls, difficulty=Difficulty(), wanted=lambda task: True):
    return next(
        t
        for t in (draw_task(world, 0, i, difficulty) for i in range(500))
        if sum(s.call is not None for s in t.solution) == calls and wanted(t)
    )


def test_a_task_done_in_another_way_has_no_wrong_call():
    """One statement that finds and deletes: it verifies, and is not the plan's SELECT."""
    task = some_task("sql", 2, wanted=lambda t: t.answer == "done" and "DELETE" in str(t.solution))
    find, delete = (step.call["arguments"]["query"] for step in task.solution)
    call = sql_call(re.sub("'[^']*'$", f"({find})", delete))
    with Episode(task, faults=False) as episode:
        episode.step(call)
        assert episode.verify("done")
    rollout = Rollout(task, [], [], [], verified=True, ended="answer", log=episode.log)
    assert judged(rollout)[0] == [1.0, 1.0, None, 1.0]


@pytest.mark.parametrize("world", WORLDS)
def test_the_experts_steps_are_all_right_with_and_without_faults(world):
    for index in range(60):
        task = draw_task(world, 3, index, Difficulty(fault_rate=0.7))
        messages, episode = solve_task(task)
        rollout = Rollout(
            task, [], [], [], verified=True, ended="answer", faults=episode.faults, log=episode.log
        )
        assert judged(rollout) == [[1.0, 1.0, 1.0, 1.0]] * sum(
            m["role"] == "assistant" for m in messages
        )


def test_each_part_has_its_own_fault():
    task = some_task("api", 2, wanted=lambda t: all(t.solution[0].call["arguments"].values()))
    first, second = (step.call for step in task.solution)
    key = next(iter(first["arguments"]))
    wrong = next(call for call in task.wrong_calls(first))
    labels = judged(
        played(
            task,
            [
                {"name": "nosuch", "arguments": {}},  # names no tool: types cannot be told
                '<tool_call>{"name": "'
                + first["name"]
                + '", "arg</tool_call>',  # does not parse: nothing can be told
                {**first, "arguments": {**first["arguments"], "kxq": 1}},  # one argument too many
                {
                    **first,
                    "arguments": {k: v for k, v in first["arguments"].items() if k != key},
                },  # one too few
                wrong,
                first,
                first,
                second,
                task.answer,
            ],
        )
    )  # senseless; right; done already; right; the answer
    missing = (
        [0.0, 1.0, None, 1.0]
        if key
        in next(t for t in task.tools if t["function"]["name"] == first["name"])["function"][
            "parameters"
        ]["required"]
        else [1.0, 1.0, 0.0, 1.0]
    )
    assert labels == [
        [None, 0.0, None, 1.0],
        [0.0, None, None, 1.0],
        [1.0, 0.0, None, 1.0],
        missing,
        [1.0, 1.0, 0.0, 1.0],
        [1.0] * 4,
        [1.0, 1.0, 0.0, 1.0],
        [1.0] * 4,
        [1.0] * 4,
    ]
    assert judged(played(task, [first, "answer: 1"])) == [
        [1.0, 1.0, 1.0, 0.0],
        [1.0, 1.0, 0.0, 0.0],
    ]  # a right step of an episode that fails
    assert judged(played(task, [])) == []


def test_a_step_that_does_the_same_in_other_words_is_right():
    task = some_task(
        "sql",
        1,
        wanted=lambda t: (
            "COUNT(*)" in t.solution[0].call["arguments"]["query"]
            and "WHERE" in t.solution[0].call["arguments"]["query"]
        ),
    )
    call = task.solution[0].call
    same = {
        "name": call["name"],
        "arguments": {
            "query": call["arguments"]["query"].replace("COUNT(*)", "COUNT(*) + 0") + " AND 1=1"
        },
    }
    other = {
        "name": call["name"],
        "arguments": {"query": call["arguments"]["query"].split(" WHERE")[0]},
    }
    assert judged(played(task, [same, task.answer]))[0] == [1.0] * 4
    assert judged(played(task, [other, task.answer]))[0] == [1.0, 1.0, 0.0, 1.0] and task.fails(
        call, other
    )


def test_a_call_that_met_the_fault_counts_as_it_was_meant():
    task = some_task("api", 1, Difficulty(fault_rate=1.0, fault_kinds=("renamed",)))
    call = task.solution[0].call
    labels = judged(played(task, [call, call, "answer: 1"], faults=True))
    assert labels[0] == [1.0, 1.0, 1.0, 0.0]  # it could not know
    assert labels[1][:2] == [
        0.0,
        0.0,
    ]  # told, and still the old name: one argument is missing and one is not known
    assert judged(played(task, [task.wrong_calls(call)[0]], faults=True))[0][:3] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("place", [0, 1])
def test_the_first_wrong_step_is_found_and_the_experts_stands_in_its_place(place):
    """An expert's episode in which one call gets an argument too many, is tried again, and is
    right: only what comes up to the wrong message is kept.
    """
    task = some_task("api", 2)
    messages, _ = solve_task(task)
    call = messages[2 * place]["tool_calls"][0]["function"]
    spoilt = call_message(
        messages[2 * place]["content"], {**call, "arguments": {**call["arguments"], "kxq": 1}}
    )
    said = [
        *messages[: 2 * place],
        spoilt,
        {"role": "tool", "content": "error: unknown key kxq"},
        *messages[2 * place :],
    ]
    calls = [message["tool_calls"][0]["function"] for message in said if "tool_calls" in message]
    rollout = played(task, [*calls, task.answer])
    rollout.tokens, rollout.action_mask = TOY.encode_chat(
        [{"role": "user", "content": task.request}, *said], task.shown_tools(), "compact"
    )
    before, part, right = first_wrong_step(rollout, TOY)
    shown, _ = TOY.encode_chat(
        [{"role": "user", "content": task.request}, *messages[: 2 * place], spoilt],
        task.shown_tools(),
        "compact",
    )
    assert (
        before == shown[: len(before)]
        and TOY.decode(shown[len(before) :]).strip() == ""
        and part.name == "grounded"
    )
    wanted = TOY.encode_chat(
        [{"role": "user", "content": ""}, messages[2 * place]], None, "compact"
    )[0]
    end = len(wanted) - wanted[::-1].index(right[-1])  # a line break follows
    assert (
        right == wanted[end - len(right) : end]
        and right[-1] in TOY.stop
        and TOY.decode(right).count("<|im_end|>") == 1
    )
    rollout = played(task, [*(step.call for step in task.solution), task.answer])
    rollout.tokens, rollout.action_mask = TOY.encode_chat(
        [{"role": "user", "content": task.request}, *messages], task.shown_tools(), "compact"
    )
    assert first_wrong_step(rollout, TOY) is None


def expert_rows(task, seed):
    """The expert's episode and its hard negatives."""
    return [expert_example(task, TOY), *negative_examples(task, TOY, random.Random(seed))]


def test_hard_negatives_carry_the_label_of_what_was_spoilt():
    rows = [
        row
        for index in range(40)
        for row in expert_rows(draw_task("api", 1, index, Difficulty(fault_rate=0.3)), index)
    ]
    counts = Counter(row["source"] for row in rows)
    assert counts["expert"] == 40 and min(counts[kind] for kind in SPOILT) > 20
    for row in rows:
        (begin, end), last = row["steps"][-1]["span"], row["steps"][-1]
        text = TOY.decode(row["tokens"][begin : end + 1])
        assert text.endswith("<|im_end|>") and (row["tokens"][end] == TOY.stop[0])
        if row["source"] in SPOILT:
            assert (
                four(last["labels"]) == SPOILT[row["source"]]
                and "<tool_call>" in text
                and not row["verified"]
            )
            assert all(set(step["labels"]) == {None} for step in row["steps"][:-1])
            assert all(step["call"] for step in row["steps"][:-1])
        else:
            assert (
                all(four(step["labels"]) == [1.0, 1.0, 1.0, None] for step in row["steps"])
                and [step["call"] for step in row["steps"]].count(False) == 1
                and not last["call"]
            )


def test_an_own_episodes_steps_are_its_whole_messages():
    task = some_task("math", 0)
    said, end = TOY.encode("1. kemi = 2\nanswer: 5"), TOY.stop[0]
    prompt = TOY.encode_chat(
        [{"role": "user", "content": task.request}], None, "compact", generation_prompt=True
    )[0]
    row = own_example(
        Rollout(
            task,
            prompt + said + [end],
            [False] * len(prompt) + [True] * (len(said) + 1),
            [],
            ended="answer",
            verified=True,
        ),
        TOY,
    )
    assert row["steps"] == [
        dict(span=(len(prompt), len(prompt) + len(said)), call=False, labels=[1.0] * len(PARTS))
    ] and conclusion_of(row) == said + [end]
    cut = own_example(
        Rollout(
            task, prompt + said, [False] * len(prompt) + [True] * len(said), [], ended="length"
        ),
        TOY,
    )
    assert cut["steps"] == []


def test_an_episode_whose_verdict_came_too_late_is_left_out(monkeypatch):
    """Its answer is a whole message, and nobody knows whether it is right."""
    monkeypatch.setattr("worlds.api.Api.patience", 0.2)
    monkeypatch.setattr("worlds.api.Api.verify", lambda *_: time.sleep(60))
    task = draw_task("api", 0, 1)
    prompt = prompt_of(task, TOY)
    late = EpisodeRow(task, TOY, prompt, [], faults=False)
    for token in (*TOY.encode("answer: 5"), TOY.stop[0]):
        late.rollout.tokens.append(token)
        late.rollout.action_mask.append(True)
    late.message_ended()
    assert late.rollout.ended == "time"
    monkeypatch.setattr(labelled_steps, "rollouts", lambda *_, **__: [late.rollout])
    assert own_examples(None, TOY, [task], seed=0, batch=1, room=9) == []


def test_packing_finds_every_steps_last_token():
    rows = [row for index in range(6) for row in expert_rows(draw_task("api", 1, index), index)]
    steps = pack_steps(rows, settings.Model())
    packed, own, labels = steps.packed, steps.action_mask, steps.labels
    at, column = steps.rows, steps.columns
    ends = [(row, step) for row in rows for step in row["steps"]]
    assert (packed.tokens[at, column] == TOY.stop[0]).all() and len(ends) == len(labels)
    for r, c, known, (row, step) in zip(at.tolist(), column.tolist(), labels, ends):
        length = step["span"][1] + 1
        assert (
            packed.tokens[r, c + 1 - length : c + 1].tolist() == row["tokens"][:length]
            and rows[packed.documents[r, c]] is row
        )
        assert [None if v != v else v for v in known.tolist()] == step["labels"]
    for number, (row, (r, c)) in enumerate(
        zip(rows, packed.positions)
    ):  # what the agent wrote are the messages of its steps, no more
        assert packed.tokens[r, c : c + len(row["tokens"])][
            own[r, c : c + len(row["tokens"])]
        ].tolist() == conclusion_of(row)


def test_examined_figures_are_those_of_each_example_alone():
    model, heads = (
        SAGE(
            settings.Model(
                vocab_size=1024,
                width=32,
                layers=1,
                heads=2,
                kv_heads=1,
                head_dim=16,
                feed_forward=48,
                context=640,
            ),
            seed=3,
        ),
        ThinkingHeads(settings.Model(width=32, heads=2, kv_heads=1, head_dim=16, feed_forward=48)),
    )
    torch.nn.init.normal_(heads["meta"].out.weight, generator=torch.Generator().manual_seed(0))
    rows = [row for index in range(4) for row in expert_rows(draw_task("api", 1, index), index)]
    found, place = script.evaluate_steps(model, heads, rows, batch=5), 0
    with torch.no_grad():
        for number, row in enumerate(rows):
            tokens = torch.tensor([row["tokens"]])
            hidden = model.hidden(tokens)
            log_p = model.logits(hidden).log_softmax(-1)[0]
            mine = torch.zeros(1, len(row["tokens"]), dtype=torch.bool)
            for begin, end in (step["span"] for step in row["steps"]):
                mine[0, begin : end + 1] = True
            logits = heads["meta"](hidden, surprise_of(model, tokens, hidden, mine))[0]
            for step in row["steps"]:
                begin, end = step["span"]
                own = log_p[begin - 1 : end]
                taken, entropy = (
                    own.gather(1, tokens[0, begin : end + 1, None]),
                    -(own.exp() * own).sum(-1),
                )
                assert found["row"][place] == number and found["is_call"][place] == step["call"]
                for name, value in (
                    ("logits", logits[end]),
                    ("hidden", hidden[0, end]),
                    ("mean_log_p", taken.mean()),
                    ("min_log_p", taken.min()),
                    ("mean_entropy", entropy.mean()),
                    ("max_entropy", entropy.max()),
                ):
                    assert torch.allclose(found[name][place], value, atol=1e-4), name
                place += 1
    assert place == len(found["labels"])


def test_a_copied_decoder_learns_at_a_rate_of_its_own():
    """The new blocks by Muon and AdamW at theirs; every parameter that learns, exactly once."""
    shape = settings.Model(width=32, heads=2, kv_heads=1, head_dim=16, feed_forward=48)
    heads = ThinkingHeads(shape, own_decoder=True)
    c = Heads(learning_rate=4e-3, muon_learning_rate=0.01, decoder_learning_rate=3e-4)
    optimizers = make_optimizers(
        heads, c, torch.float32, "inverse.decoder.", c.decoder_learning_rate
    )
    rates = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                assert p not in rates
                rates[p] = type(optimizer).__name__, group["peak"]
    for name, p in heads.named_parameters():
        if not p.requires_grad:
            assert p not in rates
        elif name.startswith("inverse.decoder."):
            assert rates.pop(p) == ("AdamW", 3e-4)
        elif p.ndim == 2 and ".block." in name:
            assert rates.pop(p) == ("Muon", 0.01)
        else:
            assert rates.pop(p) == ("AdamW", 4e-3)
    assert not rates


@torch.no_grad()
def test_fitting_calibrates_sets_the_gate_and_its_threshold():
    """Where confidences tell everything, and hidden states tell the confidences."""
    generator = torch.Generator().manual_seed(4)
    rows = [dict(source="own") for _ in range(1600)]

    def steps():
        hidden = torch.randn(1600, 32, generator=generator)
        logits = torch.stack([3 * hidden[:, 0] + 1] * len(PARTS), 1)
        chances = torch.rand(logits.shape, generator=generator)
        labels = (chances < torch.sigmoid(logits / 2)).float()
        return dict(
            hidden=hidden,
            logits=logits,
            labels=labels,
            row=torch.arange(1600),
            is_call=torch.ones(1600, dtype=torch.bool),
            max_entropy=torch.rand(1600, generator=generator),
        )

    heads = ThinkingHeads(settings.Model(width=32, heads=2, kv_heads=1, head_dim=16))
    train, validation, greedy = steps(), steps(), steps()

    def fit(heads, train, validation, greedy):
        script.calibrate_parts(heads["meta"], validation, rows)
        script.fit_gate(heads, train, greedy, rho=0.14)
        own = torch.ones(1600, dtype=torch.bool)
        return script.gate_figures(heads, validation, greedy, own, rho=0.14)

    figures = fit(heads, train, validation, greedy)
    assert (
        heads.trained == 1
        and figures["switched"] == pytest.approx(0.14, abs=0.005)
        and figures["auroc_gate"] > 0.99
    )
    after = script.part_figures(heads["meta"].confidence(validation["logits"]), validation, rows)
    assert all(after[f"error_{part}"] < 0.06 for part in PART_NAMES) and heads["meta"].temperature[
        0
    ] == pytest.approx(2, abs=0.6)
    gamma = torch.sigmoid(heads["gate"](greedy["hidden"], greedy["max_entropy"]))
    assert (gamma > heads.tau).float().mean() == pytest.approx(figures["switched"])
    logits = validation["logits"]
    sure = {**validation, "logits": logits * 0 + 9, "labels": torch.ones_like(logits)}
    quiet = ThinkingHeads(settings.Model(width=32, heads=2, kv_heads=1, head_dim=16))
    figures = fit(quiet, sure, sure, sure)
    assert (
        figures["rejected"] == 0
        and figures["auroc_gate"] != figures["auroc_gate"]
        and quiet.tau == 0.5
        and figures["switched"] == 0
    )  # nothing to reject, nothing to fit

    # success is so rare that nearly every step is rejected: the gate tells the least sure of them
    rare = [{**each, "logits": each["logits"] - 8} for each in (train, validation, greedy)]
    for each in rare:
        each["labels"] = (each["hidden"][:, :1] > 1.6).float().expand(-1, len(PARTS))
    doubtful = ThinkingHeads(settings.Model(width=32, heads=2, kv_heads=1, head_dim=16))
    figures = fit(doubtful, *rare)
    # beside as many of the expert's steps, which are sure, it is judged on the agent's own alone
    sure_too = {name: torch.cat([rare[1][name], sure[name]]) for name in rare[1]}
    own = torch.arange(3200) < 1600
    beside = script.gate_figures(doubtful, sure_too, rare[2], own, rho=0.14)
    assert beside == pytest.approx(figures)
    assert figures["rejected"] > 0.9 and figures["auroc_gate"] > 0.95
    assert figures["switched"] == pytest.approx(0.14, abs=0.005)


# --------------------------------------------------------------------------------------------------
# bench/reasoning.py.


@pytest.fixture(scope="module")
def bench():
    path = ROOT / "bench" / "reasoning.py"
    module = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("bench_reasoning", path)
    )
    spec.loader.exec_module(module)
    return module


def test_a_resampled_auroc_is_that_of_the_steps_as_often_as_they_were_drawn(bench):
    generator = np.random.default_rng(0)
    scores, labels = (
        generator.integers(0, 12, 60).astype(float),
        (generator.random(60) < 0.4).astype(float),
    )
    weights = generator.integers(0, 4, (20, 60))
    for drawn, found in zip(weights, bench.resampled(scores, labels, weights)):
        assert found == pytest.approx(
            auroc(torch.from_numpy(scores.repeat(drawn)), torch.from_numpy(labels.repeat(drawn)))
        )
    assert np.isnan(bench.resampled(scores, labels, weights * labels.astype(int))).all()


def test_a_difference_and_its_interval(bench):
    """Of a head that is better, one that is as good, and over two lineages; tasks of three steps
    each, drawn together.
    """

    def judged(seed):
        generator = torch.Generator().manual_seed(seed)
        labels = (torch.rand(600, generator=generator) < 0.5).float()
        noise = torch.randn(600, 3, generator=generator)
        scores = {
            name: (strength * labels + noise[:, i])[:, None].expand(-1, len(PARTS))
            for i, (name, strength) in enumerate({"head": 2.0, "weak": 0.5, "equal": 2.0}.items())
        }
        found = dict(
            labels=labels[:, None].expand(-1, len(PARTS)),
            row=torch.arange(200).repeat_interleave(3),
            is_call=torch.ones(600, dtype=torch.bool),
        )
        rows = [dict(source="own", world="api", seed=number) for number in range(200)]
        return bench.HeldOut(rows, found, scores, scores, torch.zeros(600), {})

    success = PART_NAMES.index("success")
    lineages = [judged(1), judged(2)]
    value, low, high = bench.difference(lineages, "success, own steps", "weak", 300)
    exact = [
        auroc(each.scores["head"][:, success], each.steps["labels"][:, success])
        - auroc(each.scores["weak"][:, success], each.steps["labels"][:, success])
        for each in lineages
    ]
    assert value == pytest.approx(sum(exact) / 2) and 0 < low < value < high < 0.5
    _, low, high = bench.difference(lineages, "success, own steps", "equal", 300)
    assert low < 0 < high
    one = bench.difference(lineages[:1], "success, own steps", "weak", 300)
    assert one[2] - one[1] > 1.1 * (
        bench.difference(lineages, "success, own steps", "weak", 300)[2]
        - bench.difference(lineages, "success, own steps", "weak", 300)[1]
    )  # two say it surer


# --------------------------------------------------------------------------------------------------
# The script.

SETTINGS = """
from config import Heads, Model
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=1, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=640, previous_token=True)
heads = Heads(steps=6, tasks=12, trajectories=12, validation=10, room=60, log_every=1,
              eval_every=2, save_every=1, keep=4, dtype="float32")
"""


@pytest.fixture
def lineage(tmp_path):
    """A settings file of a lineage whose stage sage is an untrained tiny model that likes to end
    its messages.
    """

    def write(name="toy"):
        out, file = tmp_path / name / "base", tmp_path / f"{name}.py"
        file.write_text(SETTINGS.format(out=str(out)))
        config = settings.from_file(file)
        config.model.tied = False
        model = SAGE(config.model, seed=1)
        with torch.no_grad():
            model.norm.weight[0] = (
                # one direction of every hidden state is nearly constant, and speaks for <|im_end|>
                0.2
            )
            model.embedding.text.weight[:, 0] = model.embedding.code.weight[:, 0] = 1
            model.head.weight[TOY.stop[0], 0] = 6
        checkpoint.save_checkpoint(out.parent / "sage", config, model, [], 1)
        return str(file), tmp_path / name

    return write


@pytest.fixture
def call(monkeypatch, capsys):
    """heads.py in this process, which saves two seconds of importing: returns its exit status and
    what it printed.
    """
    precision = torch.get_float32_matmul_precision()

    def run_here(*words):
        monkeypatch.setattr(sys, "argv", ["heads.py", *words])
        status = 0
        try:
            settings.run_script(script.main)
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().out

    yield run_here
    torch.set_float32_matmul_precision(precision)


def test_the_stage_runs_resumes_to_the_bit_and_leaves_the_decoder_alone(lineage, call):
    file, folder = lineage()
    status, said = call(file)
    assert status == 0 and "validation" in said and "n/a" in said
    last = checkpoint.latest(folder / "thinking")
    before, after = (
        load_file(checkpoint.latest(folder / "sage") / "model.safetensors"),
        load_file(last / "model.safetensors"),
    )
    assert before.keys() == after.keys() and all(
        torch.equal(before[name], after[name]) for name in before
    )
    config = checkpoint.read_meta(last)[1]
    heads, fresh = (
        checkpoint.load_heads(folder / "thinking", config.model),
        ThinkingHeads(config.model, seed=1337),
    )
    assert heads.trained == 1
    assert all(
        not torch.equal(p, q)
        for (name, p), q in zip(heads.named_parameters(), fresh.parameters())
        if "block" in name and name.endswith(("q.weight", "o.weight", "down.weight"))
    )
    records = [
        json.loads(line) for line in (folder / "thinking" / "log.jsonl").read_text().splitlines()
    ]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5, 6] and [
        r["step"] for r in records if "error_success" in r
    ] == [2, 4, 6]
    assert {"tau", "auroc_gate", "ics", "prior", "spoilt_logic"} <= records[-1].keys()
    rows = [
        json.loads(line) for line in (folder / "thinking" / "steps.jsonl").read_text().splitlines()
    ]
    seeds = {
        use: {row["seed"] for row in rows if row["use"] == use} for use in ("train", "validation")
    }
    assert min(map(len, seeds.values())) > 10 and not seeds["train"] & seeds["validation"]
    assert {row["source"] for row in rows} == {"own", "expert", "type", "key", "logic"}

    again, other = lineage("again")
    killed = run("heads.py", again, before=KILL_IN_A_SAVE)  # in the middle of step 4's save
    assert (
        killed.returncode != 0
        and checkpoint.latest(other / "thinking").name == "checkpoint-0000003"
    ), killed.stderr
    assert call(again, "--resume")[0] == 0
    assert (other / "thinking" / "steps.jsonl").read_bytes() == (
        folder / "thinking" / "steps.jsonl"
    ).read_bytes()
    one, two = weights_and_state(folder / "thinking"), weights_and_state(other / "thinking")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            heads.state_dict().values(),
            checkpoint.load_heads(other / "thinking", config.model).state_dict().values(),
        )
    )
    assert "stage thinking is complete" in call(again, "--resume")[1]


def test_a_stop_in_the_calibration_loses_one_step(lineage, call, monkeypatch):
    """It takes minutes on a real model, and the last step's checkpoint is written behind it."""
    file, folder = lineage()
    few = ("--heads.steps", "3", "--heads.save-every", "0")

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "calibrate_parts", stopped)
        assert call(file, *few)[0] == 130
    assert checkpoint.latest(folder / "thinking").name == "checkpoint-0000002"
    # how often the log evaluates is no part of what the run is
    assert call(file, *few, "--resume", "--heads.eval-every", "1")[0] == 0
    again, other = lineage("again")
    assert call(again, *few)[0] == 0
    one, two = weights_and_state(folder / "thinking"), weights_and_state(other / "thinking")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_gate_that_cannot_be_fitted_is_said_to_be_none(lineage, call, monkeypatch):
    monkeypatch.setattr(script, "doubted", lambda head, steps, rho: torch.zeros(len(steps["row"])))
    status, said = call(lineage()[0], "--heads.steps", "2")
    assert status == 0
    assert "the head would reject none of the training steps: there is no gate to fit" in said


def test_a_play_that_was_killed_goes_on_with_the_next_piece(lineage, call, monkeypatch):
    """Twelve tasks in pieces of four: stopped in the third, it plays the first two no more."""
    played = []

    def counted(*words, numbers, **options):
        played.append(numbers)
        if len(played) == 3:
            raise KeyboardInterrupt
        return own_examples(*words, numbers=numbers, **options)

    monkeypatch.setattr(labelled_steps, "own_examples", counted)
    file, folder = lineage()
    words = (file, "--heads.batch", "1", "--heads.steps", "2")
    assert call(*words)[0] == 130
    pieces = sorted(path.name for path in (folder / "thinking").glob("steps-*.jsonl"))
    assert pieces == ["steps-train-0.jsonl", "steps-train-4.jsonl"]
    assert call(*words)[0] == 0
    first, last = list(range(4)), list(range(8, 12))
    assert played[0] == first and played[2] == played[3] == last and played.count(first) == 3
    whole, other = lineage("again")
    assert call(whole, *words[1:])[0] == 0
    kept, again = ((each / "thinking" / "steps.jsonl").read_bytes() for each in (folder, other))
    assert kept == again and not list((folder / "thinking").glob("steps-*"))


def test_an_inverse_head_with_a_decoder_of_its_own_is_kept_with_the_run(lineage, call):
    file, folder = lineage()
    assert call(file, "--heads.inverse", "decoder", "--heads.steps", "2")[0] == 0
    model, config, _ = checkpoint.load_run(folder / "thinking")
    own = checkpoint.load_heads(folder / "thinking", config.model)["inverse"].decoder
    moved = {
        name
        for (name, p), q in zip(own.named_parameters(), model.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert moved and all(name.startswith("blocks.") for name in moved)


def own_sample(seed, words, verified, said=True):
    """An own example whose agent wrote `words`, behind a prompt of one token."""
    steps = [dict(span=[1, len(words)], call=False, labels=[None] * len(PARTS))]
    return dict(
        world="math",
        seed=seed,
        verified=verified,
        constraints=["Rana has 3 pears.", "Pita has 5."],
        steps=steps if said else [],
        tokens=[9, *words],
    )


def test_every_distinct_wrong_conclusion_stands_beside_a_right_one_of_its_task():
    samples = [
        own_sample(1, [20], True),
        own_sample(1, [20], True),  # twice the same: once
        own_sample(1, [21], True),
        own_sample(1, [30], False),
        own_sample(2, [40], True),  # nothing wrong
        own_sample(3, [50], False),  # nothing right
        own_sample(1, [31], False),
        own_sample(1, [31], False),
        own_sample(1, [32], False),
        own_sample(1, [33], False, said=False),  # no whole message
    ]
    pairs = labelled_steps.contrast_pairs(samples)
    assert [(pair["right"], pair["wrong"]) for pair in pairs] == [
        ([20], [30]),
        ([21], [31]),
        ([20], [32]),
    ]
    assert all(pair["constraints"] == samples[0]["constraints"] for pair in pairs)


def test_contrast_is_bradley_and_terrys_loss_of_the_scores():
    """Packed side by side, each sample's ICS is what `scores` says of it alone, and the loss is
    binary cross-entropy with the logit ICS(right) − ICS(wrong).
    """
    shape = settings.from_file(ROOT / "config" / "toy.py").model
    model, heads = SAGE(shape, seed=1), ThinkingHeads(shape, seed=1)
    with torch.no_grad():
        for p in heads["inverse"].parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    two, one = ["Rana has 3 pears.", "How many?"], ["Pita wants 17 of them, no more."]
    pairs = [
        dict(constraints=two, right=TOY.encode("3 + 4"), wrong=TOY.encode("3 times 4 is 12")),
        dict(constraints=one, right=TOY.encode("seventeen"), wrong=TOY.encode("7")),
    ]
    loss, tokens = script.contrast_loss(model, heads, pairs, TOY)
    loss.backward()
    assert all(p.grad is not None for p in heads["inverse"].parameters())

    end = TOY.stop[0]
    given = [[*pair[side], end] for pair in pairs for side in ("right", "wrong")]
    asked = [[[*TOY.encode(text), end] for text in texts] for texts in (two, two, one, one)]
    ics = torch.tensor(heads["inverse"].scores(model, given, asked)[0]).view(2, 2)
    margin = ics[:, 0] - ics[:, 1]
    assert margin.abs().min() > 0.01
    wanted = F.binary_cross_entropy_with_logits(margin, torch.ones(2), reduction="sum")
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    texts = [(*words, *text) for words, some in zip(given, asked, strict=True) for text in some]
    pasts = {text[:end] for text in texts for end in range(1, len(text) + 1)}
    assert tokens == len(pasts) + 1  # padding is one more


def test_the_stage_learns_from_pairs_of_tasks_that_no_other_example_is_of(
    lineage, call, monkeypatch
):
    def half_verified(model, tokenizer, tasks, **options):
        rows = own_examples(model, tokenizer, tasks, **options)
        return [row | dict(verified=number % 2 == 0) for number, row in enumerate(rows)]

    monkeypatch.setattr(labelled_steps, "own_examples", half_verified)
    file, folder = lineage()
    words = ("--heads.worlds", "math", "--heads.solutions", "8", "--heads.contrast", "10")
    words += ("--heads.steps", "6", "--heads.decay", "0.5")  # the last three have pairs
    status, said = call(file, *words, "--heads.contrast-samples", "4")
    assert status == 0 and "pairs of a right and a wrong one among 40 samples" in said
    thinking = folder / "thinking"
    rows = [json.loads(line) for line in (thinking / "steps.jsonl").read_text().splitlines()]
    pairs = [row for row in rows if row["use"] == "contrast"]
    further = Tasks("heads inverse", 1337, ["math"], Difficulty(babble=0.5))
    drawn = {task.seed: task for task in map(further.__getitem__, range(8, 18))}
    for pair in pairs:
        task = drawn[pair["seed"]]
        assert pair["constraints"] == constraint_texts(task.constraints, task.request)
        assert pair["right"] != pair["wrong"]
    others = {row["seed"] for row in rows if row["use"] != "contrast"}
    assert len(pairs) >= 3 and not {pair["seed"] for pair in pairs} & others
    logged = [json.loads(line) for line in (thinking / "log.jsonl").read_text().splitlines()]
    losses = {record["step"]: record["contrast"] for record in logged if "contrast" in record}
    assert [*losses] == [4, 5, 6]

    whole = weights_and_state(thinking)
    for step in (5, 6):
        shutil.rmtree(thinking / f"checkpoint-{step:07}")
    assert call(file, *words, "--heads.contrast-samples", "4", "--resume")[0] == 0
    again = weights_and_state(thinking)
    assert all(torch.equal(whole[name], again[name]) for name in whole)

    file, folder = lineage("few")
    status, _ = call(file, *words, "--heads.contrast", "1", "--heads.decay", "0.9")
    assert re.search(r"has \d pairs of a right and a wrong sample for the 5 steps of the", status)
    shutil.rmtree(folder / "thinking")
    status, _ = call(file, *words, "--heads.decay", "0")
    assert "sample for the 0 steps of the decay, each to be seen once: raise heads.decay" in status


@pytest.mark.parametrize(
    "words, wanted",
    [
        (
            ["--heads.start", "out/nosuch"],
            "there is no run; make it first, or name a run's folder as start",
        ),
        (
            ["--heads.steps", "60"],
            "for 60 steps, each to be seen once; delete the file, and lower heads.steps",
        ),
        (
            ["--heads.sequence", "20"],
            "has 0 own episodes for training, 0 for validation and 0 greedy ones with a whole",
        ),
        (["--heads.validation", "0"], "heads.validation is 0; wanted at least 1"),
        (["--heads.rho", "1.5"], "heads.rho is 1.5; wanted at least 0 and at most 1"),
        (["--resume"], "was written by stage train, not thinking"),
    ],
)
def test_bad_input(lineage, call, words, wanted):
    file, folder = lineage()
    if words == ["--resume"]:
        shutil.copytree(folder / "sage", folder / "thinking")
    status, _ = call(file, *words)
    assert wanted.replace("FILE", file) in status
    assert status.startswith("error: ") and "\n" not in status


# --------------------------------------------------------------------------------------------------
# Several calls in one message.


def test_a_message_is_labelled_by_its_worst_call_and_the_first_wrong_one_is_found():
    """Both right calls in one message are right; a made-up argument in one of them spoils the
    message, and the expert's next message stands in its place.
    """
    task = some_task("api", 2)
    first, second = (step.call for step in task.solution)
    spoilt = {**second, "arguments": {**second["arguments"], "kxq": 1}}
    message = lambda *calls: call_message("", *calls)

    def said(*groups):
        """An episode whose messages make these calls, then the answer."""
        messages = []
        with Episode(task, False) as episode:
            for calls in groups:
                messages += [
                    message(*calls),
                    *({"role": "tool", "content": episode.step(call)} for call in calls),
                ]
            rollout = Rollout(
                task,
                [],
                [],
                [],
                verified=episode.verify(task.answer),
                ended="answer",
                log=episode.log,
                called=[*map(len, groups), 0],
            )
        messages.append({"role": "assistant", "content": task.answer})
        rollout.tokens, rollout.action_mask = TOY.encode_chat(
            [{"role": "user", "content": task.request}, *messages], task.shown_tools(), "compact"
        )
        return rollout

    right = said([first, second])
    assert judged(right) == [[1.0] * 4, [1.0] * 4] and first_wrong_step(right, TOY) is None
    row = own_example(right, TOY)
    assert [step["call"] for step in row["steps"]] == [True, False]
    wrong = said([first, spoilt, second])
    assert judged(wrong) == [[1.0, 0.0, None, 1.0], [1.0] * 4]
    expected = solve_task(task, faults=False)[0]
    for episode, done in ((wrong, 0), (said([first], [spoilt, second]), 1)):
        before, part, instead = first_wrong_step(episode, TOY)
        assert (
            part.name == "grounded"
            and TOY.decode(before).count("kxq") == 1
            and TOY.decode(before).endswith("<|im_end|>")
        )
        assert json.dumps(
            expected[2 * done]["tool_calls"][0]["function"], separators=(",", ":")
        ) in TOY.decode(instead)
    assert judged(said([first, {"name": "nosuch", "arguments": {}}, second]))[0] == [
        None,
        0.0,
        None,
        1.0,
    ]


def test_a_spoilt_plan_has_one_fault(bench):
    """A swapped operator comes with the sum that it makes, a wrong sum with the right operator."""
    tasks = Tasks("test", 0, ["math"], Difficulty(split="test"))
    rng = random.Random(0)
    spoilt_lines = {"a swapped operator": [], "a wrong sum": []}
    for number in range(40):
        plan = solve_task(tasks[number])[0][-1]["content"]
        for fault, lines in spoilt_lines.items():
            spoilt = bench.spoilt_plan(plan, bench.WRONG_PLANS[fault], rng)
            if spoilt is None:  # "3 + 9" has no difference above 0
                assert fault == "a swapped operator"
                continue
            pairs = zip(plan.split("\n"), spoilt.split("\n"), strict=True)
            ((before, after),) = [pair for pair in pairs if pair[0] != pair[1]]
            lines.append((before, after))
    for fault, lines in spoilt_lines.items():
        assert len(lines) > 20
        for before, after in lines:
            (a, sign, b, said), (c, other, d, result) = map(equation_in, (before, after))
            assert (a, b) == (c, d) and said != result
            true = {"+": c + d, "-": c - d, "*": c * d, "/": c / d}[other]
            assert (sign != other, result == true) == (fault == "a swapped operator",) * 2
    assert bench.spoilt_plan("1. kefu = 13\nanswer: 13", bench.swapped_operator, rng) is None


def equation_in(line):
    """Its two numbers, the sign between them, and what they are said to make."""
    a, sign, b, result = re.search(r"= (\d+) (.) (\d+)(?: up)? = (-?\d+)", line).groups()
    return int(a), sign, int(b), int(result)
