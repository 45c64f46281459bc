"""bench/hybrid.py and its tables: which step is right, equation 9 from counted steps, survival,
paired intervals, bits per TeraFLOP.
"""

import argparse
import importlib.util
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent import rollouts
from bench import hybrid_tables
from config import Config, Think
from conftest import ROOT
from learnt import TASKS, TOY, agent
from mch import closed, constraint_texts
from think import bits_per_teraflop, conclusion, constraint_tokens, reasoning_bits
from worlds import WORLDS
from worlds.difficulty import Difficulty
from worlds.tasks import draw_task
from worlds.expert import solve_task
from worlds.calls import write_call

spec = importlib.util.spec_from_file_location("hybrid", ROOT / "bench" / "hybrid.py")
hybrid = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hybrid)


@pytest.mark.parametrize("world", WORLDS)
def test_the_experts_steps_are_right_and_spoilt_ones_are_not(world):
    for index in range(15):
        task = draw_task(world, 5, index, Difficulty())
        left = [step.call for step in task.solution if step.call]
        for message in solve_task(task, faults=False)[0]:
            if message["role"] != "assistant":
                continue
            if left:
                arguments = {**left[0]["arguments"], "extra": 1}
                wrong_tool = write_call({"name": "nosuchtool", "arguments": {}})
                wrong_arguments = write_call({**left[0], "arguments": arguments})
                for wrong in (wrong_tool, wrong_arguments, "answer: -1"):
                    assert hybrid.remaining_calls(wrong, task, left) is None
            calls = [write_call(call["function"]) for call in message.get("tool_calls", ())]
            left = hybrid.remaining_calls(message["content"] + "".join(calls), task, left)
            assert left is not None
        assert left == []


def test_equation_9_is_the_law_of_total_probability():
    """On the very steps that its constants were counted on it is exact: pooled over all rejected
    steps, ε_r is the error of what is taken instead.
    """
    rng = random.Random(0)
    steps = []
    for _ in range(500):
        first, accepted, revised = rng.random() < 0.6, rng.random() < 0.7, rng.random() < 0.5
        steps.append([first, accepted, first if accepted else revised])
    found = hybrid_tables.rates_of([steps[:200], steps[200:]])
    assert found["ε′"] == pytest.approx(sum(not taken for _, _, taken in steps) / 500)
    assert found["ε"] == pytest.approx(sum(not first for first, _, _ in steps) / 500)
    e, a, b, r = (found[name] for name in ("ε", "α", "β", "ε_r"))
    assert found["ε′"] == pytest.approx(e * (1 - a) + r * (e * a + (1 - e) * (1 - b)))


def test_equation_9_without_rejections_needs_no_error_of_revisions():
    assert hybrid_tables.rates_of([[[True, True, True], [False, True, False]]])["ε′"] == 0.5
    # no first draft is wrong, and the one that was rejected was replaced by a wrong one: 1 in 3
    always_right = [[True, True, True], [True, False, False], [True, True, True]]
    assert hybrid_tables.rates_of([always_right])["ε′"] == pytest.approx(1 / 3)


def test_reasoning_bits_by_hand():
    """ICS and prior of −1 and −1.5 − ln 2 nats, mean over 3 constraints of which one is not in the
    request: two constraints gain (0.5 + ln 2)·2/ln 2 bits.
    """
    task = replace(
        draw_task("api", 5, 0, Difficulty()),
        request="Move pita to luno.",
        constraints={"from": "pita", "to": "luno", "hidden": "secret"},
    )
    bits = reasoning_bits(task, -1 - (-1.5 - math.log(2)))
    assert bits == pytest.approx(2 * 0.5 / math.log(2) + 2)
    assert reasoning_bits(task, 0.0) == 0
    # two episodes: 6 bits for 3 TFLOP, whatever each of them took
    assert bits_per_teraflop([5.0, 1.0], [1e12, 2e12]) == pytest.approx(2.0)
    assert bits_per_teraflop([-1.0], [5e11]) == pytest.approx(-2.0)


def test_episodes_are_kept_with_the_bits_of_their_own_words():
    """The bench's figure beside the inverse head, asked constraint by constraint."""
    model, heads = agent()
    run = object.__new__(hybrid.Run)
    run.a = argparse.Namespace(batch=4)
    run.model, run.heads, run.tokenizer = model, heads, TOY
    settings = Think(mode="fast", room=120)
    (figures,) = run.episodes(TASKS[:1], settings)
    (thinking,) = run.think(TASKS[:1], settings)
    words = conclusion(thinking.rollout, TOY)
    total = 0.0
    for constraint in constraint_tokens(TASKS[0], TOY):
        (ics,), (prior,) = heads["inverse"].scores(model, [words], [[constraint]])
        total += (ics - prior) / math.log(2)
    assert abs(total) > 1e-3
    assert figures["bits"] == pytest.approx(total, rel=1e-3)
    assert figures["cost"]["flops"] == thinking.cost.flops


def test_survival_of_equal_steps_is_a_power():
    alive = hybrid_tables.survival([[True]] * 9 + [[False]])
    for place, share in enumerate(alive):
        assert share == pytest.approx(0.9 ** (place + 1))
    assert hybrid_tables.survival([[True, True, False]])[:3].tolist() == [1.0, 1.0, 0.0]


def test_survival_is_that_of_sessions_of_drawn_episodes():
    """The recursion beside sessions played out, with episodes of several lengths."""
    episodes = [[True] * 3, [True, False], [True], [False], [True] * 6, [True] * 4 + [False]]
    rng = random.Random(1)
    alive = [0] * len(hybrid_tables.HORIZONS)
    for _ in range(20_000):
        session = []
        while False not in session and len(session) < hybrid_tables.HORIZONS[-1]:
            session += rng.choice(episodes)
        right = session.index(False) if False in session else len(session)
        for place, horizon in enumerate(hybrid_tables.HORIZONS):
            alive[place] += right >= horizon
    for count, chance in zip(alive, hybrid_tables.survival(episodes), strict=True):
        assert count / 20_000 == pytest.approx(chance, abs=0.015)


def test_intervals_are_paired():
    """The same task on both sides cancels: a gain of one task in ten has an interval of its own
    noise, not of the tasks'.
    """
    theirs = [float(i % 2) for i in range(200)]
    ours = [1.0 if i % 20 == 0 else value for i, value in enumerate(theirs)]
    mean, low, high = hybrid_tables.bootstrap([ours], [theirs])
    assert mean == pytest.approx(5.0)
    assert 1.5 < low < 5 < high < 9
    assert hybrid_tables.bootstrap([theirs], [theirs]) == (0.0, 0.0, 0.0)


def test_a_run_is_asked_in_the_style_and_names_that_it_has_learnt(monkeypatch):
    config = Config()
    config.distill.names = "english"
    model, tokenizer = SimpleNamespace(config=None), SimpleNamespace(style="qwen")
    monkeypatch.setattr(hybrid.checkpoint, "load_run", lambda *_: (model, config, None))
    monkeypatch.setattr(hybrid.checkpoint, "load_heads", lambda *_, dtype: None)
    monkeypatch.setattr(hybrid.checkpoint, "tokenizer_of", lambda *_: tokenizer)
    asked = SimpleNamespace(
        split="test", wording="split", rung="standard", tasks=1, dtype="float32"
    )
    (task,) = hybrid.Run("run", asked).tasks("library")
    assert (task.difficulty.style, task.difficulty.names) == ("qwen", "english")


def sample(answer, **figures):
    """A vote as `Run.vote_on` keeps it."""
    return dict(answer=answer, verified=False, success=0.5, gain=0.0, energy=0.0, contrast=0.0) | (
        figures
    )


def test_the_likeliest_is_least_energy_without_inverse_consistency():
    """−log P of two episodes is 0.30 and 0.31, their ICS −40 and −20 with one prior: energy turns
    them round.
    """
    likely, consistent = (
        sample(answer, gain=ics + 45.0, energy=surprise - Think.lam * ics)
        for answer, surprise, ics in (("1", 0.30, -40.0), ("2", 0.31, -20.0))
    )
    chosen = hybrid_tables.winners_of([likely, consistent])
    assert chosen["likeliest"].answer == "1" and chosen["least energy"].answer == "2"
    assert hybrid_tables.winners_of([])["likeliest"] is None


def test_the_half_of_least_contrast_has_no_vote():
    """Three samples of four say 1, and two of those fit their neighbours' constraints better; of an
    odd number the one in the middle votes.
    """
    votes = [sample("1", contrast=-5.0), sample("1", contrast=-4.0)]
    votes += [sample("2", contrast=-0.1), sample("1", contrast=-3.0, energy=1.0)]
    chosen = hybrid_tables.winners_of(votes)
    assert chosen["majority"].answer == "1" and chosen["contrast-filtered"].answer == "2"
    votes += [sample("1", contrast=-2.0, energy=2.0)]
    assert hybrid_tables.winners_of(votes)["contrast-filtered"].answer == "1"
    assert hybrid_tables.winners_of([sample("")])["contrast-filtered"] is None


def test_contrast_is_the_share_of_the_own_tasks_constraints():
    """Beside the sum written out: of each task alone its ICS less its prior, then one softmax."""
    model, heads = agent()
    run = object.__new__(hybrid.Run)
    run.model, run.heads, run.tokenizer = model, heads, TOY
    tasks = [draw_task("math", 0, index) for index in range(6)]
    done = rollouts(model, TOY, tasks[:2], 1.0, room=20)
    neighbours = [tasks[1:4], tasks[2:5]]
    for rollout, others, contrast in zip(done, neighbours, run.contrasts(done, neighbours)):
        words = [token for token, own in zip(rollout.tokens, rollout.action_mask) if own]
        gains = []
        for task in (rollout.task, *others):
            texts = constraint_texts(task.constraints, task.request)
            asked = [[*TOY.encode(text), TOY.stop[0]] for text in texts]
            told = closed(words, TOY.stop[0])
            (ics,), (prior,) = heads["inverse"].scores(model, [told], [asked])
            gains.append(ics - prior)
        expected = gains[0] - math.log(sum(map(math.exp, gains)))
        assert contrast == pytest.approx(expected, abs=1e-3) and contrast < 0


@pytest.mark.parametrize("part, pieces, batches", [("votes", 2, 2), ("modes", 13, 26)])
def test_what_was_stopped_goes_on_at_its_next_batch(tmp_path, monkeypatch, part, pieces, batches):
    """Stopped at every batch in turn and called again, it measures none twice, and what it gives is
    what it gives in one go.
    """
    model, heads = agent()
    options = argparse.Namespace(
        split="test", wording="split", rung="standard", batch=2, neighbours=3
    )
    options.__dict__.update(tasks=3, samples=100, room=60, dtype="float32")
    options.rates = [0.1, 0.25, 0.5]
    monkeypatch.setattr(hybrid.checkpoint, "latest", lambda folder: folder / "checkpoint-1")

    def run_in(name):
        run = object.__new__(hybrid.Run)
        run.folder, run.a = tmp_path / name, options
        weights = run.folder / "checkpoint-1" / "model.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_text("weights")
        run.model, run.heads, run.tokenizer = model, heads, TOY
        run.difficulty = Difficulty(split="test", style=TOY.style)
        return run

    measured = []

    def told(self, tasks, *settings):
        measured.append(settings)
        if stop and len(measured) == stop:
            raise KeyboardInterrupt
        drawn = random.Random(repr(settings[:2])).random()  # another for each batch of a piece
        return [dict(drawn=drawn, gates=[0.1], entropies=[0.2])] * len(tasks)

    monkeypatch.setattr(hybrid.Run, "episodes", told)
    monkeypatch.setattr(hybrid.Run, "vote_on", told)
    stop = 0
    whole = hybrid.kept(run_in("whole"), part, "api")
    assert (len(whole), len(measured)) == (pieces, batches)

    stop = 2  # one more batch is kept, then it is stopped in the next
    for kept in range(1, batches):
        measured.clear()
        with pytest.raises(KeyboardInterrupt):
            hybrid.kept(run_in("stopped"), part, "api")
        assert len(measured) == 2
    stop = 0
    measured.clear()
    assert hybrid.kept(run_in("stopped"), part, "api") == whole
    assert len(measured) == 1

    # a try with fewer tasks, or with other weights, leaves it where it is
    options.tasks = 2
    assert hybrid.kept(run_in("stopped"), part, "api") != whole
    options.tasks = 3
    measured.clear()
    assert hybrid.kept(run_in("stopped"), part, "api") == whole
    assert not measured
    run = run_in("stopped")
    (run.folder / "checkpoint-1" / "heads.safetensors").write_text("further heads")
    hybrid.kept(run, part, "api")
    assert len(measured) == batches

    # without gates to compare, the modes alone
    options.rates = []
    run = run_in("modes alone")
    found = hybrid.kept(run, part, "api")
    assert len(found) == (3 if part == "modes" else pieces)
    # also where gates have been compared before
    assert [*hybrid.kept(run_in("stopped"), part, "api")] == [*found]


# --------------------------------------------------------------------------------------------------
# The tables, beside figures worked out by hand.


@pytest.fixture
def rows(monkeypatch):
    """What tables record: name → (value, what stands beside it)."""
    found = {}
    monkeypatch.setattr(
        hybrid_tables.result_tables,
        "record",
        lambda subject, name, value, **beside: found.update({name: (value, beside)}),
    )
    return found


def test_a_vote_is_each_rules_choice(rows):
    """Three samples say x, which is wrong and cannot be told again; one says y, which is right."""
    wrong = sample("x", success=0.9, gain=-3.0, energy=1.0, contrast=-0.2)
    right = sample("y", verified=True, success=0.2, gain=5.0, energy=0.5, contrast=-0.3)
    table = hybrid_tables.Table(argparse.Namespace(dry=False, tasks=2, samples=4), 1)
    hybrid_tables.votes_table(
        table, "math", [{"task": [[wrong, wrong, right, wrong], [right] * 4]}]
    )
    assert rows["vote/math one sample"][0] == 62.5  # five of eight
    assert rows["vote/math majority of 4"][0] == 50
    assert rows["vote/math ICS-filtered of 4"][0] == 100
    assert rows["vote/math contrast-filtered of 4"][0] == 50
    assert rows["vote/math head-weighted of 4"][0] == 50
    assert rows["vote/math least energy of 4"][0] == 100
    difference, beside = rows["vote/math ICS-filtered − majority of 4"]
    assert difference == 50 and beside["n"] == 2 and "0.0 to +100.0" in beside["note"]
    assert beside["note"].endswith("1 tasks won, 0 lost")


def test_without_neighbours_nothing_is_filtered_by_contrast(rows):
    table = hybrid_tables.Table(argparse.Namespace(dry=False, tasks=1, samples=4), 1)
    samples = [sample("x", verified=True, contrast=None), sample("y", gain=-1.0, contrast=None)]
    hybrid_tables.votes_table(table, "math", [{"task": [samples * 2]}])
    assert rows["vote/math ICS-filtered of 4"][0] == 100
    assert not [name for name in rows if "contrast" in name]


def test_ablations_are_beside_the_whole(rows):
    def episodes(verified, flops):
        cost = dict(flops=flops, seconds=1.0, tokens=1)
        return [dict(verified=v, cost=cost, steps=2, reasoned=2, fallback=1) for v in verified]

    whole, less = episodes([1, 1, 0, 1], 4e9), episodes([1, 0, 0, 1], 1e9)
    table = hybrid_tables.Table(argparse.Namespace(dry=False, tasks=4), 1)
    hybrid_tables.ablations_table(table, "api", [{"whole": whole, "without": less}])
    assert rows["ablation/api whole"][0] == 75 and rows["ablation/api without"][0] == 50
    assert rows["ablation/api without"][1]["note"].startswith("0.25 × the FLOPs, 50% of the steps")
    assert rows["ablation/api without − whole"][0] == -25


def test_the_horizons_interval_draws_tasks_and_not_episodes(rows):
    """Three runs that play every task alike know no more of other tasks than one run."""
    rng = random.Random(0)
    step = lambda: rng.choice([[True, True, True], [False, True, False], [False, False, True]])
    episodes = [[step() for _ in range(rng.randint(1, 4))] for _ in range(40)]
    one = {"plain": [[[all(step[-1] for step in e)]] for e in episodes], "checked": episodes}
    ends = []
    for runs in ([one], [one, one, one]):
        table = hybrid_tables.Table(argparse.Namespace(dry=False, tasks=40), len(runs))
        curves = hybrid_tables.horizon_table(table, "api", runs)
        ends.append([curves["checked"][end].tolist() for end in ("low", "measured", "high")])
        assert rows["equation 9/api checked, 1 steps"][1]["n"] == 20
    for one, three in zip(*ends, strict=True):
        assert one == pytest.approx(three)
    assert ends[0][0][0] < ends[0][1][0] < ends[0][2][0]


def test_what_a_check_gains_is_of_the_same_tasks(rows):
    """The checked agent goes wrong one step later in every task; nothing is ever wholly right."""
    counts = [0, 2, 0, 4] * 10  # right steps of the plain one
    plain = [[[True]] * n + [[False]] for n in counts]
    checked = [[[True, True, True]] * (n + 1) + [[False, False, False]] for n in counts]
    table = hybrid_tables.Table(argparse.Namespace(dry=False, tasks=40), 1)
    curves = hybrid_tables.horizon_table(table, "api", [{"plain": plain, "checked": checked}])
    for steps, gain in {1: 0, 3: 50, 5: 50, 10: 0}.items():  # of the odd tasks: 2 or 4, 3 or 5
        value, beside = rows[f"equation 9/api checked − plain, {steps} steps"]
        assert (value, beside["unit"]) == (gain, "points")
    third = hybrid_tables.HORIZONS.index(3)
    low, high = (curves["checked − plain"][end][third] for end in ("low", "high"))
    assert 0.2 < low < 0.5 < high < 0.8
