"""theory.py against enumeration and published formulas; support/cells.py's intervals and verdicts;
and that bench/theory.py notices a wrong formula.
"""

import importlib.util
import itertools
import math
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
import torch

import theory
from conftest import ROOT
from support.cells import Cell, Claim, misses
from support.intervals import wilson
from theory import Check

spec = importlib.util.spec_from_file_location("bench_theory", ROOT / "bench" / "theory.py")
bench = importlib.util.module_from_spec(spec)
sys.modules["bench_theory"] = bench  # dataclasses look their module up
spec.loader.exec_module(bench)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --------------------------------------------------------------------------------------------------
# Equations 8 to 11


def test_success_is_the_one_outcome_without_an_error():
    errors = [0.1, 0.25, 0.4, 0.05]
    total = {True: 0.0, False: 0.0}
    for outcome in itertools.product((True, False), repeat=4):  # right or wrong at each step
        chances = [1 - e if right else e for right, e in zip(outcome, errors)]
        total[all(outcome)] += math.prod(chances)
    assert theory.success_probability(errors) == pytest.approx(total[True])
    assert total[True] + total[False] == pytest.approx(1)


@pytest.mark.parametrize(("a", "b", "T"), [(0.5, 4.5, 20), (2, 3, 1), (1, 1, 7)])
def test_uneven_tasks_are_a_ratio_of_beta_functions(a, b, T):
    def log_beta(x, y):
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    expected = math.exp(log_beta(a, b + T) - log_beta(a, b))  # E[(1 − ε)^T] of Beta(a, b)
    assert theory.success_probability(theory.uneven_errors(T, a, b)) == pytest.approx(expected)
    assert expected > (1 - a / (a + b)) ** T or T == 1  # Jensen


def error_by_enumeration(epsilon: float, check: Check, gate=(1, 1)) -> float:
    """P(wrong) over all outcomes of draft, gate, verdict and redraw."""
    total = 0.0
    for wrong, asked, rejected, redrawn_wrong in itertools.product((True, False), repeat=4):
        rejects = check.alpha if wrong else 1 - check.beta
        chance = 1.0
        for happens, probability in (
            (wrong, epsilon),
            (asked, gate[0] if wrong else gate[1]),
            (rejected, rejects),
            (redrawn_wrong, check.epsilon_r),
        ):
            chance *= probability if happens else 1 - probability
        total += chance * (redrawn_wrong if asked and rejected else wrong)
    return total


def test_equation_9_10_and_the_aimed_gate_by_enumeration(rng):
    for _ in range(50):
        epsilon, alpha, beta, epsilon_r, on_wrong, on_right = rng.random(6)
        check, gate = Check(alpha, beta, epsilon_r), (on_wrong, on_right)
        checked = error_by_enumeration(epsilon, check)
        assert theory.checked_error(epsilon, check) == pytest.approx(checked)
        assert (alpha > theory.least_sensitivity(epsilon, check)) == (checked < epsilon)

        rho = epsilon * on_wrong + (1 - epsilon) * on_right
        blind = theory.hybrid_success(1 - epsilon, 1 - checked, rho)
        same = error_by_enumeration(epsilon, check, (rho, rho))
        assert blind == pytest.approx(1 - same)
        gain = theory.aimed_gate_gain(epsilon, check, gate)
        assert blind + gain == pytest.approx(1 - error_by_enumeration(epsilon, check, gate))


def test_the_theorems_condition_is_the_special_case():
    assert theory.least_sensitivity(0.2, Check(0, 0.7, 0.2)) == pytest.approx(0.3)  # 1 − β
    assert theory.least_sensitivity(0.2, Check(0, 0.7, 0.1)) < 0.3
    assert theory.least_sensitivity(0.2, Check(0, 0.7, 0.4)) > 0.3


@pytest.mark.parametrize("gate", [(1, 1), (0.7, 0.1)])
def test_the_simulated_step_is_the_enumerated_one_and_no_other(rng, gate):
    check, wrong = Check(0.8, 0.9, 0.1), rng.random(200_000) < 0.2
    after = theory.simulate_step(rng, wrong, check, gate)
    assert Cell("", error_by_enumeration(0.2, check, gate), after).agrees()
    for other in (Check(0.8, 0.9, 0.2), Check(0.7, 0.9, 0.1), Check(0.8, 0.3, 0.1)):
        assert not Cell("", error_by_enumeration(0.2, other, gate), after).agrees(100)


def test_cost_ends_and_the_papers_rate():
    assert theory.hybrid_cost(0, 3.8) == 1
    assert theory.hybrid_cost(1, 3.8) == pytest.approx(3.8)
    assert theory.hybrid_cost(1 / 7, 3.8) == pytest.approx(1.4)


# --------------------------------------------------------------------------------------------------
# Equation 15


def binary_entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@pytest.mark.parametrize(
    ("kind", "noise", "information", "error"),
    [
        ("flipped", 0.1, 5 * (1 - binary_entropy(0.1)), 1 - 0.9**5),
        ("erased", 0.3, 5 * 0.7, 1 - 0.85**5),
        ("forgotten", 2, 3, 1 - 2**-2),
        ("confused", 0.2, 5 - binary_entropy(0.2) - 0.2 * math.log2(31), 0.2),
    ],
)
def test_channels_have_their_textbook_capacity_and_error(kind, noise, information, error):
    table = theory.noisy_plans(kind, 5, noise)
    assert table.sum(1) == pytest.approx(np.ones(32))
    assert theory.mutual_information(table / 32) == pytest.approx(information)
    assert theory.least_error(table / 32) == pytest.approx(error)


def test_no_decoder_errs_less_and_none_is_below_fanos_bound(rng):
    for _ in range(200):
        joint = rng.dirichlet(np.full(5, 0.2), 8) / 8  # eight problems, equally likely
        least = theory.least_error(joint)
        assert least >= theory.fano_bound(theory.mutual_information(joint), 3) - 1e-12
    joint = rng.dirichlet(np.ones(12)).reshape(4, 3)
    errors = []
    for decoder in itertools.product(range(4), repeat=3):  # all 64: a problem for each plan
        errors.append(1 - sum(joint[problem, plan] for plan, problem in enumerate(decoder)))
    assert theory.least_error(joint) == pytest.approx(min(errors))


def test_the_simulated_decoder_draws_from_the_table(rng):
    joint = theory.noisy_plans("erased", 4, 0.4) / 16
    wrong = theory.simulate_decoder(rng, joint, 200_000)
    assert Cell("", 1 - 0.8**4, wrong).agrees()
    assert not Cell("", 1 - 0.79**4, wrong).agrees(100)


# --------------------------------------------------------------------------------------------------
# Equations 19 to 24


def test_the_gradient_is_that_of_finite_differences():
    """J written out anew in numpy, with the same random numbers."""
    normal = dict(generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    plan_weights, problem_weights, theta = (
        torch.randn(*shape, **normal).numpy() for shape in ((6, 4), (6, 3, 4), (4,))
    )

    def objective(theta):
        pi = np.exp(plan_weights @ theta)
        p = np.exp(problem_weights @ theta)  # (Z, C)
        return pi / pi.sum() @ np.log(p[:, 0] / p.sum(1))

    steps = 1e-5 * np.eye(4)
    slopes = [(objective(theta + step) - objective(theta - step)) / 2e-5 for step in steps]
    assert theory.inverse_problem(5).gradient == pytest.approx(slopes, abs=1e-8)


@pytest.mark.parametrize("baseline", [0.0, -1.3, 20.0])
def test_any_constant_baseline_leaves_the_mean_alone(baseline):
    problem = theory.inverse_problem(1)
    mean = problem.pi @ problem.estimates(np.arange(6), baseline)
    assert mean == pytest.approx(problem.gradient)
    each = problem.estimates(np.arange(6), baseline)
    spread = problem.pi @ ((each - mean) ** 2).sum(1)
    assert problem.variance(baseline) == pytest.approx(spread)


def test_the_best_baseline_is_best_and_a_plans_own_reward_is_biased():
    problem = theory.inverse_problem(2)
    best = problem.best_baseline()
    least = problem.variance(best)
    assert all(problem.variance(best + step) > least for step in (-1, -0.01, 0.01, 1))
    assert problem.variance(2 * best) == pytest.approx(problem.variance(0.0))  # the parabola

    pairs = np.array(list(itertools.product(range(6), repeat=2)))  # two plans, all 36 ways
    chances = problem.pi[pairs].prod(1)
    rewards = problem.reward[pairs]
    for baseline, share in ((rewards.mean(1, keepdims=True), 1 / 2), (rewards[:, ::-1], 1)):
        mean = chances @ problem.estimates(pairs, baseline).mean(1)
        direct = problem.pi @ problem.direct
        assert mean == pytest.approx(direct + share * (problem.gradient - direct))


# --------------------------------------------------------------------------------------------------
# Equations 25 to 27


def entropy(p: np.ndarray) -> float:
    return -float((p * np.log2(p)).sum())


def test_expected_entropy_never_rises_but_some_chains_do(rng):
    for _ in range(30):
        chain = theory.Chain(rng.dirichlet(np.ones(8)), rng.uniform(0.05, 0.95, (5, 8)))
        conditional = []
        for t in range(6):
            joint = chain.joint(t)
            assert joint.shape == (8, 2**t)
            conditional.append(entropy(joint) - entropy(joint.sum(0)))  # H(C, Z) − H(Z)
        assert all(np.diff(conditional) <= 1e-12)


def test_uncertainty_by_walking_every_chain():
    found = theory.reason(np.random.default_rng(1), 1000)
    ones = np.random.default_rng(3).uniform(0.1, 0.9, (5, 8))
    rising, mean = np.zeros(5), np.zeros(6)
    for bits in itertools.product((0, 1), repeat=5):
        posterior, before = np.r_[0.5, np.full(7, 0.5 / 7)], None
        chance = 1.0
        mean[0] += entropy(posterior) / 32
        for t, bit in enumerate(bits):
            before = entropy(posterior)
            likelihood = ones[t] if bit else 1 - ones[t]
            chance *= posterior @ likelihood
            posterior = posterior * likelihood / (posterior @ likelihood)
            following = 2.0 ** (4 - t)  # chains that share this beginning
            rising[t] += chance * (entropy(posterior) > before) / following
            mean[t + 1] += chance * entropy(posterior) / following
    assert found.rising() == pytest.approx(rising)
    assert found.mean() == pytest.approx(mean)


def test_drawn_chains_follow_the_table(rng):
    chain = theory.Chain(np.full(8, 1 / 8), rng.uniform(0.1, 0.9, (5, 8)))
    problems, columns = chain.draw(rng, 100_000)
    counts = np.zeros((8, 4))
    np.add.at(counts, (problems, columns[2]), 1)
    expected = chain.joint(2) * 100_000
    assert ((counts - expected) ** 2 / expected).sum() < 65  # χ² with 31 degrees: 65 in 3 of 10,000


# --------------------------------------------------------------------------------------------------
# Intervals and verdicts


def test_a_99_percent_interval_misses_once_in_a_hundred(rng):
    for draw in (lambda: rng.random(2000) < 0.03, lambda: rng.gamma(4, 0.25, 2000)):
        mean = 0.03 if draw().dtype == bool else 1.0
        missed = sum(not Cell("", mean, draw()).agrees() for _ in range(3000))
        assert 12 <= missed <= 52, missed  # of 30; 4 standard deviations and some skew
        missed = sum(not Cell("", mean, draw()).agrees(20) for _ in range(3000))
        assert missed <= 10, missed  # of 1.5


def test_wilsons_interval_solves_its_equation():
    cell = Cell("", 0.5, np.arange(500) < 7)
    for p in cell.interval():
        deviation = abs(7 / 500 - p) / math.sqrt(p * (1 - p) / 500)
        assert deviation == pytest.approx(2.5758, abs=1e-4)
    z = NormalDist().inv_cdf(1 - 0.01 / 20 / 2)
    assert cell.interval(20) == wilson(7, 500, z)
    assert Cell("", 0.0, np.zeros(500, bool)).interval()[0] == 0


def test_verdicts(rng):
    near, far = rng.random(10_000) < 0.5, rng.random(10_000) < 0.6

    def verdict(*cells):
        return Claim("", "", "", "it is so", list(cells)).verdict

    assert verdict(Cell("", 0.5, near)) == "holds"
    assert verdict(Cell("", 0.5, far)) == "does not hold"
    assert verdict(Cell("", 0.5, near), Cell("", 0.5, far, meets=False)) == "holds if it is so"
    assert verdict(Cell("", 0.5, near), Cell("", 0.5, near, meets=False)) == "holds"
    assert verdict(Cell("", 0.5, far, "≥")) == "holds"
    assert verdict(Cell("", 0.5, far, "≤")) == "does not hold"
    assert verdict(Cell("", 0.7, far, "≥")) == "does not hold"


def test_a_cell_that_only_its_own_interval_excludes_does_not_decide():
    draws = np.arange(10_000) < 5000
    formula = 0.5 + 3 * 0.005  # three standard errors away
    cells = [Cell("", formula, draws)] + [Cell("", 0.5, draws)] * 49
    claim = Claim("", "", "", "", cells)
    assert not cells[0].agrees() and claim.verdict == "holds"
    assert misses([claim])[:2] == (1, 50)
    assert misses([claim])[2] == pytest.approx(1 - 0.99**50)
    assert any("at 99% of all cells" in row for row in claim.table())


# --------------------------------------------------------------------------------------------------
# bench/theory.py


def claims() -> list[Claim]:
    return bench.check_all(bench.Theory(seed=1, draws=20_000))


@pytest.fixture(scope="module")
def right_claims() -> list[Claim]:
    return claims()


def test_the_page_says_what_other_draws_say(right_claims):
    """docs/THEORY.md's verdicts, from another seed and a tenth of the draws."""
    page = (ROOT / "docs" / "THEORY.md").read_text()
    for claim in right_claims:
        assert f"| {claim.name.strip(',')} | {claim.verdict} |" in page
        assert all(cell.exact_inside(len(claim.cells)) for cell in claim.cells), claim.name
    for picture in bench.PICTURES:
        assert picture in page
        assert (ROOT / "docs" / picture).stat().st_size < 60_000


def test_a_seed_gives_one_page():
    settings = bench.Theory(seed=1, draws=2000)
    first, second = (bench.theory_page(bench.check_all(settings), settings) for _ in range(2))
    other = bench.theory_page(bench.check_all(bench.Theory(seed=2, draws=2000)), settings)
    assert first == second != other


WRONG = {
    "success_probability": lambda errors: 1 - sum(errors),  # what is only so for small T·ε
    "checked_error": lambda e, c: e * (1 - c.alpha) + e * c.alpha * c.epsilon_r,  # no false alarms
    "hybrid_success": lambda p, p_check, rho: p + rho * p_check,
    "aimed_gate_gain": lambda epsilon, check, gate: 0.0,
    "hybrid_cost": lambda rho, kappa: 1 + rho * (kappa - 1) / 2,
    "fano_bound": lambda information, bits: 1 - information / bits,  # without the bit of slack
    "least_error": lambda joint: 1 - joint.max(1).sum(),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_noticed(monkeypatch, right_claims, name):
    """A claim does not hold that did, or an exact value is outside all cells' intervals."""

    def failures(found):
        refuted = {claim.name for claim in found if claim.verdict == "does not hold"}
        cells = [(claim, cell) for claim in found for cell in claim.cells]
        outside = {c.name for c, cell in cells if not cell.exact_inside(len(c.cells))}
        return refuted, outside

    refuted, outside = failures(right_claims)
    assert len(refuted) == 2 and not outside
    monkeypatch.setattr(bench, name, WRONG[name])
    refuted_now, outside_now = failures(claims())
    assert refuted_now > refuted or outside_now


def test_a_biased_gradient_is_noticed(monkeypatch):
    right = theory.inverse_problem

    def wrong(seed):
        problem = right(seed)
        return problem._replace(score=problem.score + 0.05)  # E[∇log π] is 0 no more

    assert bench.lemma_2_bias(np.random.default_rng(0), 20_000)[0].verdict.startswith("holds if")
    monkeypatch.setattr(bench, "inverse_problem", wrong)
    assert bench.lemma_2_bias(np.random.default_rng(0), 20_000)[0].verdict == "does not hold"


def test_the_command_writes_page_and_pictures(tmp_path):
    command = [sys.executable, "theory.py", "--draws", "1000", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"THEORY.md", *bench.PICTURES}
    assert "Equation 9 holds if" in run.stdout
    command[3] = "10"
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "--draws is 10; wanted at least 1000" in run.stderr
