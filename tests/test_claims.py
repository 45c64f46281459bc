"""bench/claims.py: what is compared, and when a claim holds, fails or is not shown."""

import json
import math
import shutil
import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "bench"))
import claims
from config import UserError
from support import result_tables
from support.intervals import paired_difference, paired_p_value, student


def keep(folder, stage, part, rows, tasks="the same", split="test", dtype="torch.float32"):
    """Rows as bench/lineage.py keeps them."""
    path = folder / stage / f"{part.replace('/', ' ')}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = dict(draw=tasks, split=split)
    weights = dict(run=stage, dtype=dtype, tokenizer="the same")
    header = dict(made_from=dict(part=dict(tasks=drawn), stage=weights))
    numbered = [dict(row, number=number) for number, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, [header, *numbered])) + "\n")


def episode(**changes):
    plain = dict(verified=False, calls=1, invented=0, fault=None, recovered=None, messages=[""])
    return dict(plain, **changes)


def task(*episodes, needed=1, unsafe=None):
    return dict(needed=needed, unsafe=unsafe, episodes=list(episodes))


def verified(*outcomes):
    return [task(episode(verified=outcome)) for outcome in outcomes]


SUCCESS = claims.Claim("success", "library/greedy", claims.success, "a", "b", 1)


def test_the_interval_of_a_paired_difference_is_the_normal_one():
    drawn = torch.rand(2, 300, generator=torch.Generator().manual_seed(0)).double()
    before, after = drawn[0], 0.8 * drawn[0] + 0.2 * drawn[1] + 0.05
    found = paired_difference(
        [[(value, 1.0) for value in before.tolist()]], [[(value, 1.0) for value in after.tolist()]]
    )
    difference = after - before
    half = 1.96 * difference.std().item() / math.sqrt(300)
    centre = difference.mean().item()
    assert found == pytest.approx((centre - half, centre + half), abs=0.002)
    # unpaired it would be several times as wide
    apart = 1.96 * math.sqrt((before.var() + after.var()).item() / 300)
    assert apart > 2 * half


def test_a_claim_holds_fails_or_is_not_shown(tmp_path):
    keep(tmp_path, "a", "library/greedy", verified(*[False] * 80, *[True] * 20))
    for outcomes, words in (
        ([True] * 20 + [False] * 60 + [True] * 20, "holds"),
        ([False] * 100, "fails"),
        ([True] * 2 + [False] * 79 + [True] * 19, "not shown"),
    ):
        keep(tmp_path, "b", "library/greedy", verified(*outcomes))
        found = claims.judge(SUCCESS, tmp_path)
        assert (found.words, found.n, found.before) == (words, 100, 20.0)
        assert found.difference == pytest.approx(100 * sum(outcomes) / 100 - 20)
        assert found.low <= found.difference <= found.high


def test_training_seeds_are_drawn_beside_tasks(tmp_path):
    """One seed solves all tasks, one none: tasks alone would leave no doubt about the half."""
    keep(tmp_path, "a", "library/greedy", verified(*[False] * 100))
    keep(tmp_path, "b", "library/greedy", verified(*[True] * 100))
    keep(tmp_path, "b-2", "library/greedy", verified(*[False] * 100))
    found = claims.judge(SUCCESS, tmp_path)
    assert (found.difference, found.n, found.seeds) == (50.0, 100, 2)
    # by Student 50 ± 635
    assert (found.low, found.high, found.words) == (-100.0, 100.0, "not shown")
    # with as many seeds before, each is compared with its own
    keep(tmp_path, "a-2", "library/greedy", verified(*[True] * 100))
    found = claims.judge(SUCCESS, tmp_path)
    assert (found.difference, found.low, found.high) == (0.0, -100.0, 100.0)
    keep(tmp_path, "b-3", "library/greedy", verified(*[False] * 100))
    with pytest.raises(UserError, match="trained with different seeds"):
        claims.judge(SUCCESS, tmp_path)
    keep(tmp_path, "b-3", "library/greedy", verified(*[False] * 100), tasks="others")
    with pytest.raises(UserError, match="the seeds of b were measured on different tasks"):
        claims.judge(SUCCESS, tmp_path)


def test_only_a_start_is_shared_by_seeds(tmp_path):
    """One model trained later beside three starts says nothing of three seeds; nor does the second
    seed beside the first.
    """
    for name in ("a", "a-2", "a-3", "b"):
        keep(tmp_path, name, "library/greedy", verified(True, False))
    with pytest.raises(UserError, match="trained with different seeds"):
        claims.judge(SUCCESS, tmp_path)
    for name in ("a", "a-3"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(UserError, match="trained with different seeds"):
        claims.judge(SUCCESS, tmp_path)


def test_two_seeds_that_agree_leave_what_tasks_leave_open(tmp_path):
    """Student's interval of equal differences is a point; that of the tasks stands."""
    outcomes = [True] * 40 + [False] * 60
    for name, shares in (("a", [False] * 100), ("b", outcomes)):
        keep(tmp_path, name, "library/greedy", verified(*shares))
        keep(tmp_path, f"{name}-2", "library/greedy", verified(*shares))
    found = claims.judge(SUCCESS, tmp_path)
    assert found.low == pytest.approx(30.4, abs=1.5) and found.high == pytest.approx(49.6, abs=1.5)


def test_students_interval_is_the_published_one():
    """Student's own data of 1908, hours of sleep gained by ten patients: R's t.test, whose manual
    shows them, has 0.70 to 2.46; the quantile of nine values is 2% larger.
    """
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    low, high = student(gained)
    assert 0.68 < low < 0.7001 and 2.4599 < high < 2.48
    assert student(gained[:2]) == pytest.approx((1.8 - 12.706 * 0.6, 1.8 + 12.706 * 0.6))


@pytest.mark.parametrize("won, lost, equal", [(6, 0, 94), (5, 0, 95), (14, 4, 10), (9, 9, 0)])
def test_the_randomisation_test_is_mcnemars(won, lost, equal):
    """Exact: of the tasks that differ each half goes either way (McNemar 1947)."""
    before = [(0, 1)] * won + [(1, 1)] * lost + [(1, 1)] * equal
    after = [(1, 1)] * won + [(0, 1)] * lost + [(1, 1)] * equal
    differ = won + lost
    tail = sum(math.comb(differ, count) for count in range(min(won, lost) + 1)) / 2**differ
    assert paired_p_value(before, after, 40_000) == pytest.approx(min(1, 2 * tail), abs=0.006)


def test_the_randomisation_test_keeps_a_tasks_calls_together():
    """Ten tasks of three calls each, all invented or none: ten things differ, not thirty."""
    before, after = [(3, 3)] * 4 + [(0, 3)] * 6, [(0, 3)] * 10
    assert paired_p_value(before, after) == pytest.approx(2 / 2**4, abs=0.01)
    nothing = [(0, 0)] * 5
    assert paired_p_value(before + nothing, after + nothing) == pytest.approx(2 / 2**4, abs=0.01)


def test_what_must_stay_has_a_margin(tmp_path):
    refusing = [task(episode(messages=["Refuse: no."]), unsafe=False)]
    serving = [task(episode(messages=["done"]), unsafe=False), task(episode(), unsafe=True)]
    claim = claims.Claim("stays", "safety/greedy", claims.over_refused, "a", "b", -1, margin=5.0)
    keep(tmp_path, "a", "safety/greedy", serving * 200)
    keep(tmp_path, "b", "safety/greedy", serving * 198 + 2 * [*refusing, serving[1]])
    found = claims.judge(claim, tmp_path)
    assert (found.words, found.n, found.after) == ("holds", 200, 1.0)  # unsafe ones do not count
    keep(tmp_path, "b", "safety/greedy", 100 * [*refusing, serving[1]] + serving * 100)
    assert claims.judge(claim, tmp_path).words == "fails"


def test_each_measure_counts_its_own_tasks():
    met = episode(fault="renamed", recovered=True, calls=3, invented=1)
    row = task(met, episode(verified=True), needed=2)
    assert claims.success(row) == (1, 2)
    assert claims.of_calls(2)(row) == (1, 2) and claims.of_calls(1)(row) == (0, 0)
    assert claims.invented(row) == (1, 4)
    assert claims.recovered(row) == (1, 1)
    assert claims.handled(row) == (0, 0) == claims.over_refused(row)
    assert claims.handled(task(episode(verified=True), unsafe=True)) == (1, 1)
    assert claims.bits(dict(nats=math.log(2) * 8, bytes=4)) == pytest.approx((8, 4))


def test_different_tasks_are_not_compared_and_missing_stages_are_left_out(tmp_path):
    assert claims.judge(SUCCESS, tmp_path) is None
    with pytest.raises(UserError, match="run bench/lineage.py"):
        claims.main(["--folder", str(tmp_path), "--dry"])
    keep(tmp_path, "a", "library/greedy", verified(True, False))
    keep(tmp_path, "b", "library/greedy", verified(True, False), tasks="others")
    with pytest.raises(UserError, match="different tasks"):
        claims.judge(SUCCESS, tmp_path)
    keep(tmp_path, "b", "library/greedy", verified(True, False), dtype="torch.bfloat16")
    with pytest.raises(UserError, match="settings, dtype or tokenizer"):
        claims.judge(SUCCESS, tmp_path)
    keep(tmp_path, "b", "library/greedy", [])
    assert claims.judge(SUCCESS, tmp_path) is None


def test_validation_tasks_are_claimed_nothing_by(tmp_path):
    for name in ("a", "b"):
        keep(tmp_path, name, "library/greedy", verified(True, False), split="validation")
    with pytest.raises(UserError, match="holds validation tasks"):
        claims.judge(SUCCESS, tmp_path)


def test_verdicts_are_recorded_beside_what_they_stand_on(tmp_path, monkeypatch):
    monkeypatch.setattr(result_tables, "FOLDER", tmp_path / "results")
    rows = tmp_path / "smol"
    keep(rows, "instruct", "library/greedy", verified(*[False] * 50))
    keep(rows, "distilled", "library/greedy", verified(*[True] * 30, *[False] * 20))
    claims.main(["--folder", str(tmp_path), "--model", "smol"])
    (first, *_) = result_tables.records_of("claims", ["smol/"])
    assert first["name"] == "smol/success rises, instruct to distilled"
    assert (first["value"], first["n"], first["unit"]) == (60.0, 50, "points")
    assert first["note"] == "0.0 → 60.0; holds"
