"""The paper's theory, checked: theory.py's closed forms beside its simulations, over grids.

Each section makes claims of the paper into cells (support/cells.py says what a cell is, and when a
claim holds): what the printed formula gives, what is exact, what is simulated. Some cells break the
condition under which we expect the formula, to see whether that matters. Verdicts come from the
numbers alone. Nothing is trained, no GPU is needed.

    python theory.py                    the same as python bench/theory.py, seed 0
    python theory.py --draws 2000       tries it out; --out elsewhere leaves docs/ alone
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch, which theory imports

import numpy as np
import tyro
from numpy.random import Generator

from config import Natural, Range
from support import settings
from support.cells import Cell, Claim, Curve, Panel, as_columns, as_markdown, draw_panels, misses
from theory import (
    Check,
    aimed_gate_gain,
    checked_error,
    fano_bound,
    hybrid_cost,
    hybrid_success,
    inverse_problem,
    least_error,
    least_sensitivity,
    mutual_information,
    noisy_plans,
    reason,
    simulate_decoder,
    simulate_step,
    simulate_success,
    success_probability,
    uneven_errors,
)


@dataclass
class Theory:
    """How theory.py simulates."""

    seed: Natural = 0  # the same seed gives the same files
    # per cell; then the 99% interval of a share is at most ± 0.3 points
    draws: Annotated[int, Range(at_least=1000)] = 200_000
    out: str = "docs"  # folder of THEORY.md and theory_*.png


# --------------------------------------------------------------------------------------------------
# Equation 8, equation 9, theorem 1


def equation_8(rng: Generator, draws: int) -> list[Claim]:
    """(1 − ε)^T where all steps are alike, and where they are not; the product is exact in both."""
    cells = []
    for epsilon in (0.01, 0.05, 0.2):
        for T in (1, 5, 10, 20):
            right = simulate_success(rng, np.full((T, draws), epsilon))
            power, product = (1 - epsilon) ** T, success_probability([epsilon] * T)
            cells.append(Cell(f"ε = {epsilon}, T = {T}", power, right, exact=product))
    for T in (5, 20):
        rising = np.linspace(0, 0.2, T)  # mean 0.1
        uneven = rng.beta(0.5, 4.5, draws)  # mean 0.1
        for setting, errors, product in (
            ("ε_t from 0 to 0.2", np.tile(rising[:, None], draws), success_probability(rising)),
            ("tasks differ", np.tile(uneven, (T, 1)), success_probability(uneven_errors(T))),
        ):
            setting = f"{setting}, ε = 0.1 on average, T = {T}"
            right = simulate_success(rng, errors)
            cells.append(Cell(setting, 0.9**T, right, meets=False, exact=product))
    return [
        Claim(
            "Equation 8, P(success) ≈ (1 − ε)^T,",
            "Let ε be the average error rate per step … For large T, the success probability "
            "decays exponentially.",
            "(1 − ε)^T; exact is Π(1 − ε_t), the chain rule",
            "every step of every task errs with the same probability",
            cells,
            f"With ε = 0.1 on average and T = 20 it says {0.9**20:.3f}; simulated are "
            f"{cells[-2].mean:.3f} where steps become harder and {cells[-1].mean:.3f} where tasks "
            "differ. The latter is Jensen's inequality, E[(1 − ε)^T] ≥ (1 − E ε)^T, and no longer "
            "an exponential decay.",
        )
    ]


def equation_9(rng: Generator, draws: int) -> list[Claim]:
    """The error after a check, for steps that are alike and for tasks that differ."""
    cells = []
    for epsilon in (0.05, 0.3):
        for alpha, beta in ((0.9, 0.95), (0.5, 0.8), (0.3, 0.6)):
            for epsilon_r in (0.02, 0.3):
                check = Check(alpha, beta, epsilon_r)
                after = simulate_step(rng, rng.random(draws) < epsilon, check)
                setting = f"ε = {epsilon}, α = {alpha}, β = {beta}, ε_r = {epsilon_r}"
                cells.append(Cell(setting, checked_error(epsilon, check), after))
    own = rng.beta(0.5, 4.5, draws)  # a redraw is as hard as the draft was: ε_r = ε, task by task
    after = simulate_step(rng, rng.random(draws) < own, Check(0.9, 0.95, own))
    square = 0.1 * 1.5 / 6  # E ε² of Beta(0.5, 4.5)
    exact = 0.1 * (1 - 0.9) + 0.9 * square + (1 - 0.95) * (0.1 - square)
    setting = "tasks differ, ε = ε_r = 0.1 on average, α = 0.9, β = 0.95"
    formula = checked_error(0.1, Check(0.9, 0.95, 0.1))
    cells.append(Cell(setting, formula, after, meets=False, exact=exact))
    return [
        Claim(
            "Equation 9",
            "This process can be modeled as reducing the effective error rate to ε′",
            "ε′ = ε(1 − α) + εα·ε_r + (1 − ε)(1 − β)·ε_r",
            "ε, α, β and ε_r are the same for every step",
            cells,
            "Where tasks differ, a redraw tends to err where the draft did: "
            f"ε′ = {cells[-1].mean:.4f} instead of {cells[-1].formula:.4f}.",
        )
    ]


def theorem_1_condition(rng: Generator, draws: int) -> list[Claim]:
    """Points of the (α, β) plane, and whether checking helps there: ε′ − ε, simulated."""
    cells, decided_right, hurts, helps = [], 0, [], []
    for epsilon, epsilon_r in ((0.1, 0.1), (0.1, 0.3), (0.3, 0.1)):
        for alpha, beta in ((0.9, 0.9), (0.5, 0.8), (0.3, 0.6), (0.2, 0.7)):
            check = Check(alpha, beta, epsilon_r)
            before = rng.random(draws) < epsilon
            change = simulate_step(rng, before, check).astype(float) - before
            setting = f"ε = {epsilon}, ε_r = {epsilon_r}, α = {alpha}, β = {beta}"
            says = "≤" if alpha > 1 - beta else "≥"
            exact = checked_error(epsilon, check) - epsilon
            cell = Cell(setting, 0.0, change, says, meets=epsilon_r == epsilon, exact=exact)
            cells.append(cell)
            decided_right += (alpha > least_sensitivity(epsilon, check)) == (cell.mean < 0)
    for cell in cells:
        if not cell.agrees(len(cells)):
            (hurts if cell.relation == "≤" else helps).append(f"({cell.setting})")
    return [
        Claim(
            "Theorem 1, that checking helps iff α > 1 − β,",
            "if the MCH satisfies α > 1 − β (where β is specificity), then the probability of "
            "catastrophic failure is strictly minimized",
            "ε′ − ε ≤ 0 if α > 1 − β, else ≥ 0",
            "ε_r = ε",
            cells,
            f"α > 1 − β and yet checking hurts: {', '.join(hurts) or 'nowhere'}. α < 1 − β and yet "
            f"it helps: {', '.join(helps) or 'nowhere'}. The condition from equation 9, "
            "α/(1 − β) > [ε_r/(1 − ε_r)] / [ε/(1 − ε)], tells help from harm in "
            f"{decided_right} of {len(cells)} cells. If ε_r < ε, as the paper assumes, α > 1 − β "
            "is enough, but not needed. Nothing is minimised by it: ε′ falls with α and β to "
            "ε·ε_r at α = β = 1.",
        )
    ]


def theorem_1_variance(rng: Generator, draws: int) -> list[Claim]:
    """Variances over T steps: of the number of errors, and of whether there is one."""
    epsilon, check = 0.1, Check(0.8, 0.9, 0.05)
    after = checked_error(epsilon, check)
    spread = epsilon * (1 - epsilon) / 6  # Var ε of Beta(0.5, 4.5)
    cells = []
    for T in (5, 10, 20, 40):
        steps = rng.random((T, draws)) < epsilon
        errors = steps.sum(0)
        errors_after = sum(simulate_step(rng, wrong, check) for wrong in steps)
        errors_uneven = rng.binomial(T, rng.beta(0.5, 4.5, draws))
        failing = 1 - success_probability([epsilon] * T)
        line, line_after = T * epsilon * (1 - epsilon), T * after * (1 - after)
        curve = line + T * (T - 1) * spread
        for setting, count, mean, formula, exact in (
            ("number of errors", errors, T * epsilon, line, line),
            ("number of errors, checked", errors_after, T * after, line_after, line_after),
            ("number of errors, tasks differ", errors_uneven, T * epsilon, line, curve),
            ("failed (1) or not (0)", errors > 0, failing, line, failing * (1 - failing)),
        ):
            setting, meets = f"{setting}, T = {T}", exact == formula
            squares = (count - mean) ** 2  # their mean is the variance
            cells.append(Cell(setting, formula, squares, meets=meets, exact=exact))
    return [
        Claim(
            "Theorem 1, that the variance grows linearly with T,",
            "the variance of the failure distribution scales linearly with T",
            "T·ε(1 − ε); ε′ for ε where checked",
            "it is the number of errors that varies, and steps err independently",
            cells,
            "Where tasks differ, the variance is T·ε̄(1 − ε̄) + T(T − 1)·Var ε and grows with T². "
            "That of failing at all, P(1 − P) with P = 1 − (1 − ε)^T, is never over ¼ and falls to "
            "0. Checking leaves the growth linear, at "
            f"{after * (1 - after) / (epsilon * (1 - epsilon)):.2f} of its slope for "
            f"ε = {epsilon}, ε′ = {after:.4f}.",
        )
    ]


# --------------------------------------------------------------------------------------------------
# Equations 10 and 11


def equation_10(rng: Generator, draws: int) -> list[Claim]:
    """Gates that know nothing of errors, and gates that do."""
    epsilon, check = 0.2, Check(0.8, 0.9, 0.1)
    p, p_check = 1 - epsilon, 1 - checked_error(epsilon, check)
    cells = []
    for gate in ((0, 0), (0.14, 0.14), (0.5, 0.5), (1, 1), (0.5, 0.05), (0.7, 0), (0.05, 0.5)):
        rho = epsilon * gate[0] + (1 - epsilon) * gate[1]
        right = ~simulate_step(rng, rng.random(draws) < epsilon, check, gate)
        setting = f"fires at {gate[0]:.0%} of wrong, {gate[1]:.0%} of right steps, ρ = {rho:.2f}"
        formula = hybrid_success(p, p_check, rho)
        exact = formula + aimed_gate_gain(epsilon, check, gate)
        cells.append(Cell(setting, formula, right, meets=gate[0] == gate[1], exact=exact))
    fast, slow, rho = 0.584, 0.731, (1.4 - 1) / (3.8 - 1)  # the paper's table of modes (§6.4)
    # success over T steps to the power 1/T is that of one; a power mean is at most the mean, T = 1
    most = hybrid_success(fast, slow, rho)
    return [
        Claim(
            "Equation 10",
            "With the Hybrid Switch, the verified success probability becomes p′. Here, ρ is the "
            "probability of engaging Reasoning Mode.",
            "p′ = p + ρ·(p_check − p); exact adds ε(1 − ε)(g₁ − g₀)·[α(1 − ε_r) + (1 − β)ε_r]",
            "the gate fires independently of errors",
            cells,
            f"At ρ = 0.14 a gate that knows nothing of errors gives {cells[1].mean:.3f}, one that "
            f"fires at wrong steps only {cells[5].mean:.3f}; checking all steps gives "
            f"{cells[3].mean:.3f}. The paper's table has 58.4% fast, 73.1% slow, 71.8% hybrid. "
            f"With ρ = {rho:.2f} (lemma 1) the equation gives at most {most:.1%} between such fast "
            "and slow agents, whatever T: the table needs a gate that knows of errors, or another "
            "ρ.",
        )
    ]


def equation_11(rng: Generator, draws: int) -> list[Claim]:
    """Mean cost per step; steps are of uneven length, Gamma(4) with mean 1."""
    cells, kappa, rho = [], 3.8, (1.4 - 1) / (3.8 - 1)
    for share, ratio in ((0.05, 3.8), (rho, 3.8), (0.5, 3.8), (1.0, 3.8), (rho, 2.0)):
        cost = rng.gamma(4, 1 / 4, draws) * np.where(rng.random(draws) < share, ratio, 1)
        cells.append(Cell(f"ρ = {share:.3f}, κ = {ratio}", hybrid_cost(share, ratio), cost, "≤"))
    length = rng.gamma(4, 1 / 4, draws)
    cost = length * (1 + kappa * (rng.random(draws) < rho))
    setting = f"ρ = {rho:.3f}, κ = 3.8, the slow pass comes on top of the fast one"
    exact = 1 + rho * kappa
    cells.append(Cell(setting, hybrid_cost(rho, kappa), cost, "≤", meets=False, exact=exact))
    # P(Gamma(k) > 6) is a Poisson sum; of Gamma(4)/4, length beyond 1.5 has P(Gamma(5) > 6)
    rho_long, length_long = np.exp(-6) * (1 + 6 + 18 + 36), np.exp(-6) * (1 + 6 + 18 + 36 + 54)
    cost = length * np.where(length > 1.5, kappa, 1)
    setting = f"ρ = {rho_long:.3f}, κ = 3.8, the gate fires at the longest steps"
    exact = 1 + length_long * (kappa - 1)
    cells.append(Cell(setting, hybrid_cost(rho_long, kappa), cost, "≤", meets=False, exact=exact))
    episodes = rng.gamma(4, 1 / 4, (draws // 20 + 1, 20))
    episodes *= np.where(rng.random(episodes.shape) < rho, kappa, 1)
    dearer = (episodes.mean(1) > hybrid_cost(rho, kappa)).mean()
    return [
        Claim(
            "Equation 11 (lemma 1)",
            "The computational cost is bounded by … where ρ is the switching rate.",
            "C_fast·(1 + ρ(κ − 1))",
            "κ counts the fast pass that the gate has read, and the gate fires independently of "
            "length",
            cells,
            f"Then it is the mean itself, and no bound for an episode: {dearer:.0%} of simulated "
            f"episodes of 20 steps cost more. The paper's 1.4 means ρ = {rho:.3f}; its latencies, "
            f"1.2, 4.5 and 1.8 s, mean {(1.8 - 1.2) / (4.5 - 1.2):.3f}.",
        )
    ]


# --------------------------------------------------------------------------------------------------
# Equation 15


def equation_15(rng: Generator, draws: int) -> list[Claim]:
    """Four kinds of plans, and problems that are not equally likely."""
    cases = []
    for bits in (4, 8):
        for kind, amounts in (
            ("flipped", (0.05, 0.3)),
            ("erased", (0.2, 0.7)),
            ("confused", (0.2, 0.8)),
            ("forgotten", (2, 3)),
        ):
            for noise in amounts:
                amount = f"{noise} bits" if kind == "forgotten" else f"{noise:.0%}"
                joint = noisy_plans(kind, bits, noise) / 2**bits
                cases.append((f"D = {bits}, {kind}: {amount}", bits, joint, True))
    unlikely = np.diag(np.r_[0.9, np.full(255, 0.1 / 255)])  # Z = C
    cases.append(("D = 8, nothing lost, one problem has 90%", 8, unlikely, False))
    cells = []
    for setting, bits, joint, meets in cases:
        information = mutual_information(joint)
        wrong = simulate_decoder(rng, joint, draws)
        bound, least = fano_bound(information, bits), least_error(joint)
        setting = f"{setting}, I = {information:.2f}"
        cells.append(Cell(setting, bound, wrong, "≥", meets=meets, exact=least))
    slack = [cell.exact - cell.formula for cell in cells if cell.meets]
    return [
        Claim(
            "Equation 15 (theorem 5.1)",
            "For any task requiring D bits of logical depth, an agent without Inverse Reasoning is "
            "bounded by …",
            "P_err ≥ 1 − (I(C;Z) + 1)/D; exact is the best decoder's, 1 − Σ_z max_c P(c, z)",
            "all 2^D problems are equally likely",
            cells,
            f"The best decoder's error is {min(slack):.2f} to {max(slack):.2f} above the bound, "
            "which knows nothing of how Z was made: it holds with inverse reasoning as well. Each "
            "bit of I lowers it by 1/D, which is linear and not “exponentially with respect to "
            "plan length”.",
        )
    ]


# --------------------------------------------------------------------------------------------------
# Equations 19 to 24


def lemma_2_bias(rng: Generator, draws: int) -> list[Claim]:
    """The mean of four plans' estimates with several baselines, beside the exact gradient."""
    problem = inverse_problem(0)
    plans = rng.choice(6, (draws, 4), p=problem.pi)
    rewards = problem.reward[plans]  # (N, 4)
    own_mean = rewards.mean(1, keepdims=True)
    estimates = {
        "b = 0": problem.estimates(plans, 0.0),
        "b = J": problem.estimates(plans, problem.pi @ problem.reward),
        "b = best": problem.estimates(plans, problem.best_baseline()),
        "b = mean of the other three": problem.estimates(plans, (4 * own_mean - rewards) / 3),
        "b = mean of all four": problem.estimates(plans, own_mean),
        "b = 0, without ∇log P": problem.estimates(plans, 0.0) - problem.direct[plans],
    }
    direct = problem.pi @ problem.direct  # (θ,) the mean of what does not depend on b
    biased = {
        # a plan's own reward is a quarter of the mean, and takes a quarter of its score term away
        "b = mean of all four": direct + (problem.gradient - direct) * 3 / 4,
        "b = 0, without ∇log P": problem.gradient - direct,
    }
    cells = []
    for name, estimate in estimates.items():
        for i, formula in enumerate(problem.gradient):
            exact = biased.get(name, problem.gradient)[i]
            each = estimate.mean(1)[:, i]
            meets = name not in biased
            cells.append(Cell(f"{name}, θ_{i + 1}", formula, each, meets=meets, exact=exact))
    largest = max(cell.deviation for cell in cells if cell.meets)
    return [
        Claim(
            "Lemma 2 (equations 19 to 24)",
            "The gradient estimator is an unbiased estimator … the baseline does not introduce "
            "bias.",
            "∇J = E[(log P(C|Z) − b)·∇log π(Z|C) + ∇log P(C|Z)]",
            "b does not depend on the plan that it is for, and both terms are there",
            cells,
            f"The largest deviation from ∇J where it is met: {largest:.1f} standard errors.",
        )
    ]


def lemma_2_variance(rng: Generator, draws: int) -> list[Claim]:
    """What the mean reward and the best baseline do to the variance; of 100 random problems three
    that show both.
    """
    cells = []
    for seed in (0, 13, 49):
        problem = inverse_problem(seed)
        best = problem.best_baseline()
        for name, baseline in (("J", float(problem.pi @ problem.reward)), ("best", best)):
            one = problem.estimates(rng.choice(6, draws, p=problem.pi), baseline)
            squares = ((one - problem.gradient) ** 2).sum(1)  # their mean is the variance
            setting = f"problem {seed}, b = {name} = {baseline:.2f}"
            nearer = abs(baseline - best) < abs(best)
            without, exact = problem.variance(0.0), problem.variance(baseline)
            cells.append(Cell(setting, without, squares, "≤", meets=nearer, exact=exact))
    problems = [inverse_problem(seed) for seed in range(100)]
    raised = sum(one.variance(one.pi @ one.reward) > one.variance(0.0) for one in problems)
    return [
        Claim(
            "Lemma 2, that a baseline reduces variance,",
            "In our practical implementation, we use a baseline to reduce variance",
            "variance with b ≤ variance without",
            "b is nearer to the best baseline than 0 is",
            cells,
            f"The mean reward J, the usual choice, raises it in {raised} of 100 random problems.",
        )
    ]


# --------------------------------------------------------------------------------------------------
# Equations 25 to 27


def monotonicity(rng: Generator, draws: int) -> list[Claim]:
    """In expectation; as the theorem is printed; along each chain."""
    bits = reason(rng, draws)
    path, learned = np.diff(bits.path, axis=0), np.diff(bits.learned, axis=0)  # (T, N)
    fall, cross = -np.diff(bits.mean()), np.diff(bits.learned_mean)  # (T,)
    expected, information, each = [], [], []
    for t, share in enumerate(bits.rising()):
        step = f"step {t + 1}"
        expected.append(Cell(f"true posterior, {step}", 0.0, path[t], "≤", exact=-fall[t]))
        information.append(Cell(step, 0.0, -path[t], "≤", exact=fall[t]))
        each.append(Cell(step, 0.0, path[t] > 0, "≤", exact=share))
    for t, change in enumerate(learned):
        setting = f"learned head, step {t + 1}"
        expected.append(Cell(setting, 0.0, change, "≤", meets=False, exact=cross[t]))
    fresh, own, gained = bits.learned_mean, bits.training, fall.sum()
    return [
        Claim(
            "Equations 25 to 27, that uncertainty about C falls,",
            "increasing the log-likelihood is equivalent to minimizing the cross-entropy between "
            "the model distribution and the true data distribution",
            "uncertainty after a step − before it ≤ 0 (bits)",
            "it is the true posterior's, on average over chains",
            expected,
            "On average no true posterior becomes less certain by conditioning. A head that is "
            f"learnt can: on its 40 training pairs cross-entropy goes from {own[0]:.2f} to "
            f"{own[-1]:.2f} bits in five steps, on fresh chains from {fresh[0]:.2f} to "
            f"{fresh[-1]:.2f}.",
        ),
        Claim(
            "Theorem 1 of A.2, that mutual information does not rise,",
            "the mutual information is monotonically non-increasing with respect to t",
            "I(C; Z_1..t) − I(C; Z_1..t−1) ≤ 0 (bits)",
            "",
            information,
            "The sign is wrong. I = H(C) − H(C | Z_1..t) rises by what the entropy falls, here by "
            f"{gained:.2f} bits in five steps. The theorem's proof argues that H falls, too.",
        ),
        Claim(
            "The glossary, that each valid step lowers the entropy,",
            "a valid reasoning step must strictly decrease the conditional entropy of the problem "
            "context",
            "share of chains whose entropy rises at this step ≤ 0",
            "",
            each,
            "Evidence against what was likely raises it. In "
            f"{(path > 0).any(0).mean():.0%} of simulated chains that happens at one step or more, "
            "and all posteriors are true.",
        ),
    ]


# --------------------------------------------------------------------------------------------------
# Pictures: lines are closed forms, dots are simulations


def draw_errors(rng: Generator, draws: int) -> list[Panel]:
    """Equations 8 and 9 over T, equation 10 over ρ beside the best gate there is, and equation 11
    beside gates that do not fire independently of length.
    """
    T, some = np.arange(1, 31), np.array([1, 5, 10, 15, 20, 25, 30])
    check = Check(0.8, 0.9, 0.05)
    after = checked_error(0.1, check)
    steps = np.full((30, draws), 0.1)
    uneven = np.tile(rng.beta(0.5, 4.5, draws), (30, 1))
    right = np.array([~simulate_step(rng, rng.random(draws) < 0.1, check) for _ in T])
    success = [
        Curve("ε = 0.1", T, 0.9**T, "orange"),
        Curve("", some, [simulate_success(rng, steps[:t]).mean() for t in some], "orange", "o"),
        Curve(f"checked, ε′ = {after:.4f}", T, (1 - after) ** T, "blue"),
        Curve("", some, [right[:t].all(0).mean() for t in some], "blue", "o"),
        Curve(
            "tasks differ, ε = 0.1 on average",
            T,
            [success_probability(uneven_errors(t)) for t in T],
            "green",
        ),
        Curve("", some, [simulate_success(rng, uneven[:t]).mean() for t in some], "green", "o"),
    ]

    epsilon, check = 0.2, Check(0.8, 0.9, 0.1)
    rho, gates = np.linspace(0, 1, 11), []
    p, p_check = 1 - epsilon, 1 - checked_error(epsilon, check)
    wrong_first = np.minimum(1, rho / epsilon), np.maximum(0, (rho - epsilon) / (1 - epsilon))
    for label, ink, pairs in (
        ("fires at wrong steps first", "green", np.transpose(wrong_first)),
        ("independent of errors (equation 10)", "blue", np.transpose([rho, rho])),
    ):
        gains = [aimed_gate_gain(epsilon, check, pair) for pair in pairs]
        wrong = rng.random(draws) < epsilon
        dots = [1 - simulate_step(rng, wrong, check, pair).mean() for pair in pairs]
        gates.append(Curve(label, rho, hybrid_success(p, p_check, rho) + gains, ink))
        gates.append(Curve("", rho, dots, ink, "o"))

    kappa, length = 3.8, rng.gamma(4, 1 / 4, draws)
    fires, shorter = rng.random(draws), length.argsort().argsort() / draws  # share of the steps
    both = (length * (1 + kappa * (fires < share)) for share in rho)
    longest = (length * np.where(shorter > 1 - share, kappa, 1) for share in rho)
    alike = (length * np.where(fires < share, kappa, 1) for share in rho)
    costs = [Curve("equation 11", rho, hybrid_cost(rho, kappa), "blue")]
    for label, ink, steps in (
        ("independent of length", "blue", alike),
        ("fires at the longest steps", "green", longest),
        ("the slow pass on top of the fast one", "orange", both),
    ):
        costs.append(Curve(label, rho, [cost.mean() for cost in steps], ink, "o"))
    return [
        Panel("equations 8 and 9", "steps T", "P(success)", success, dict(ylim=(0, 1.05))),
        Panel("equation 10, ε = 0.2", "ρ, share of steps checked", "p′ of one step", gates),
        Panel("equation 11, κ = 3.8", "ρ, share of steps checked", "cost of a step", costs),
    ]


def draw_plane(rng: Generator, draws: int) -> list[Panel]:
    """Theorem 1's condition and equation 9's, over the plane of false alarms and found errors."""
    panels, alarms = [], np.linspace(0, 1, 101)
    for epsilon, epsilon_r in ((0.1, 0.3), (0.3, 0.1)):
        least = [least_sensitivity(epsilon, Check(0, 1 - x, epsilon_r)) for x in alarms]
        least = np.minimum(least, 1)
        helped, hurt = [], []
        for x in np.linspace(0.1, 0.9, 9):
            for alpha in np.linspace(0.05, 0.95, 10):
                wrong = rng.random(draws // 10) < epsilon
                after = simulate_step(rng, wrong, Check(alpha, 1 - x, epsilon_r))
                (helped if after.mean() < wrong.mean() else hurt).append((x, alpha))
        area = "α < 1 − β, yet it helps" if epsilon_r < epsilon else "α > 1 − β, yet it hurts"
        curves = [
            Curve(area, alarms, alarms, "orange", upper=least),
            Curve("α = 1 − β (theorem 1)", alarms, alarms, "grey", "--"),
            Curve("ε′ = ε (equation 9)", alarms, least, "black"),
            Curve("simulated: helps", *zip(*helped), "blue", "o"),
            Curve("simulated: hurts", *zip(*hurt), "red", "x"),
        ]
        title = f"does a check help? ε = {epsilon}, ε_r = {epsilon_r}"
        axes = dict(xlim=(0, 1), ylim=(0, 1.6), yticks=(0, 0.25, 0.5, 0.75, 1))
        labels = "1 − β, false alarms", "α, errors found"
        panels.append(Panel(title, *labels, curves, axes, legend="upper right"))
    return panels


def draw_information(rng: Generator, draws: int) -> list[Panel]:
    """Equation 15 beside three kinds of plans, and equation 25 along chains."""
    decoders = []
    for kind, ink, most in (
        ("flipped", "orange", 0.5),
        ("erased", "green", 1),
        ("confused", "blue", 1),
    ):
        joints = [noisy_plans(kind, 6, most * x**2) / 64 for x in np.linspace(0, 0.98, 25)]
        bits = [mutual_information(joint) for joint in joints]
        dots = [simulate_decoder(rng, joint, draws // 10).mean() for joint in joints[::3]]
        decoders.append(Curve(f"best decoder, {kind}", bits, [*map(least_error, joints)], ink))
        decoders.append(Curve("", bits[::3], dots, ink, "o"))
    bits = np.linspace(0, 5, 51)
    decoders.append(Curve("equation 15", bits, fano_bound(bits, 6), "black", "--"))

    found, t = reason(rng, 100), np.arange(6)
    knowing = [Curve("", t, path, "grey", ":") for path in found.path.T[:5]]
    knowing[0].label = "true posterior, five chains"
    knowing.append(Curve("true posterior, on average", t, found.mean(), "blue"))
    knowing.append(Curve("learned head, fresh chains", t, found.learned_mean, "red", "--"))
    knowing.append(Curve("learned head, training pairs", t, found.training, "orange", "-."))
    return [
        Panel("equation 15, D = 6 bits", "I(C;Z), bits", "P(error)", decoders),
        Panel(
            "equation 25",
            "reasoning steps t",
            "uncertainty about C, bits",
            knowing,
            dict(ylim=(0, 4.2)),
        ),
    ]


# --------------------------------------------------------------------------------------------------
# The page

SECTIONS = [
    equation_8,
    equation_9,
    theorem_1_condition,
    theorem_1_variance,
    equation_10,
    equation_11,
    equation_15,
    lemma_2_bias,
    lemma_2_variance,
    monotonicity,
]
PICTURES = {
    "theory_errors.png": (
        draw_errors,
        "Success over steps; success and cost over the share checked",
    ),
    "theory_plane.png": (draw_plane, "Where a check helps, by two conditions and simulated"),
    "theory_information.png": (draw_information, "Fano's bound; bits about the problem"),
}


def check_all(theory: Theory) -> list[Claim]:
    """All claims; each section has draws of its own."""
    claims = []
    for number, section in enumerate(SECTIONS):
        claims += section(np.random.default_rng([theory.seed, number]), theory.draws)
    return claims


def theory_page(claims: list[Claim], theory: Theory) -> str:
    """docs/THEORY.md."""
    missed, count, chance = misses(claims)
    lines = [
        "# The paper's theory, checked",
        "",
        f"Written by `python theory.py --seed {theory.seed} --draws {theory.draws}`; the same seed "
        "gives the same page with the same numpy. The formulas and the simulations are in "
        f"theory.py, the grids in bench/theory.py; {theory.draws:,} draws per cell. Nothing here "
        "was measured on a model.",
        "",
        "*formula*: what the paper's formula says; *exact*: the true value by our own closed form "
        "or by enumeration; *simulated*: the mean of the draws. *agrees*: the interval leaves room "
        "for the formula (for =, ≤ or ≥); *inside*: the exact value is in it. A 99% interval "
        "misses once in a hundred times, so a verdict takes wider ones, which hold for all cells "
        "of a claim together in 99 of 100 cases (each misses in 1% / cells; where only they leave "
        "room, the table says “at 99% of all cells”). A claim holds if all cells agree; it holds "
        "under its condition if all that meet it agree and some other does not; else it does not "
        f"hold. Of {count} exact values {missed} are outside their own 99% interval; "
        f"{count / 100:.1f} would be expected, and were all draws independent, {missed} or more in "
        f"{chance:.0%} of cases.",
        "",
    ]
    rows = [["claim", "verdict", "cells"]]
    rows += [[claim.name.strip(","), claim.verdict, claim.counts] for claim in claims]
    lines.append(as_markdown(rows))
    for claim in claims:
        lines += ["", f"## {claim.name.strip(',')}", "", f"> {claim.paper}", ""]
        lines += [f"Formula: {claim.formula}.", "", as_markdown(claim.table()), ""]
        lines += [f"**{claim.sentence}** {claim.remark}"]
    lines += ["", "## Pictures", "", "Lines are closed forms, dots are simulations."]
    for name, (_, caption) in PICTURES.items():
        lines += ["", f"![{caption}]({name})"]
    return "\n".join(lines) + "\n"


def main() -> None:
    theory = tyro.cli(Theory, description=__doc__.splitlines()[0])
    settings.validate(theory, "--")
    folder = settings.ROOT / theory.out
    folder.mkdir(parents=True, exist_ok=True)
    claims = check_all(theory)
    for claim in claims:
        print(f"{as_columns(claim.table())}\n{claim.sentence} {claim.remark}\n")
    (folder / "THEORY.md").write_text(theory_page(claims, theory))
    for number, (name, (draw, _)) in enumerate(PICTURES.items(), len(SECTIONS)):
        panels = draw(np.random.default_rng([theory.seed, number]), theory.draws)
        draw_panels(panels, folder / name)
    print(f"written: THEORY.md, {', '.join(PICTURES)} in {settings.shown_path(folder)}")


if __name__ == "__main__":
    settings.run_script(main)
