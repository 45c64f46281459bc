"""The paper's theory: each closed form, and a simulation of its process (§5, A.1, A.2).

    equations 8, 9      how long an agent stays right; a check with one revision (theorem 1)
    equations 10, 11    the hybrid's success and its cost (lemma 1)
    equation 15         Fano's bound and the best decoder (theorem 5.1)
    equations 19 to 24  the gradient of inverse reasoning and its baseline (lemma 2)
    equations 25 to 27  what more reasoning does to the uncertainty about the problem

A simulation draws what happens (an error, a verdict, a redraw) and never evaluates the formula.
bench/theory.py compares both over grids, in settings that meet a formula's condition and in some
that break it; docs/THEORY.md says which of the paper's claims hold. The published text lost its
equations and symbols; they are restored here.

    python theory.py            all comparisons: docs/THEORY.md and its pictures, within a minute
"""

import runpy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor


# --------------------------------------------------------------------------------------------------
# Equation 8: success over T steps


def success_probability(errors: np.ndarray) -> float:
    """Equation 8: P(success) = Π(1 − ε_t), "the product of the success probabilities of individual
    steps, conditioned on previous steps": ε_t (T,) is step t's error rate among those still right.
    """
    return float(np.prod(1 - np.asarray(errors)))


def uneven_errors(horizon: int, a: float = 0.5, b: float = 4.5) -> np.ndarray:
    """ε_t (T,) of tasks that differ, each with its own error rate from Beta(a, b), mean a/(a + b):
    a/(a + b + t) for t = 0, 1, … falls, since who is still right has an easy task.
    """
    return a / (a + b + np.arange(horizon))


def simulate_success(rng: Generator, errors: np.ndarray) -> np.ndarray:
    """Which of N tasks succeed, (N,), from the error rates (T, N) of their steps."""
    right = np.ones(errors.shape[1], bool)
    for epsilon in errors:
        right &= rng.random(len(right)) >= epsilon
    return right


# --------------------------------------------------------------------------------------------------
# Equation 9 and theorem 1: a check and one revision


class Check(NamedTuple):
    """α: the share of wrong steps that it rejects; β: of right ones that it accepts; ε_r: the error
    rate of the step drawn in a rejected one's place.
    """

    alpha: float
    beta: float
    epsilon_r: float


def checked_error(epsilon: float, check: Check) -> float:
    """Equation 9, "the effective error rate": ε′ = ε(1 − α) + εα·ε_r + (1 − ε)(1 − β)·ε_r."""
    alpha, beta, epsilon_r = check
    return epsilon * (1 - alpha) + (epsilon * alpha + (1 - epsilon) * (1 - beta)) * epsilon_r


def least_sensitivity(epsilon: float, check: Check) -> float:
    """The α above which ε′ < ε in equation 9: from α(1 − ε_r)ε > (1 − β)ε_r(1 − ε), it is
    (1 − β) · [ε_r/(1 − ε_r)] / [ε/(1 − ε)].

    That is the theorem's 1 − β if ε_r = ε. It is less if ε_r < ε, and more if ε_r > ε.
    """
    _, beta, epsilon_r = check
    return (1 - beta) * epsilon_r * (1 - epsilon) / ((1 - epsilon_r) * epsilon)


def simulate_step(
    rng: Generator, wrong: np.ndarray, check: Check, gate: tuple[float, float] = (1, 1)
) -> np.ndarray:
    """Which of N steps are wrong after a check and one revision; `wrong` (N,) says which were
    before. `gate`: the shares of the wrong and of the right steps that are checked at all.
    """
    checked = rng.random(len(wrong)) < np.where(wrong, *gate)
    rejected = rng.random(len(wrong)) < np.where(wrong, check.alpha, 1 - check.beta)
    redrawn_wrong = rng.random(len(wrong)) < check.epsilon_r
    return np.where(checked & rejected, redrawn_wrong, wrong)


# --------------------------------------------------------------------------------------------------
# Equations 10 and 11: the hybrid's success and cost


def hybrid_success(p: float, p_check: float, rho: float) -> float:
    """Equation 10, "the verified success probability": p′ = p + ρ·(p_check − p) of one step, with
    p_check = 1 − ε′ and ρ the share of steps in Reasoning Mode.
    """
    return p + rho * (p_check - p)


def aimed_gate_gain(epsilon: float, check: Check, gate: tuple[float, float]) -> float:
    """What a gate that fires at a share g₁ of the wrong and g₀ of the right steps adds to p′ of
    equation 10 at ρ = εg₁ + (1 − ε)g₀: ε(1 − ε)(g₁ − g₀) · [α(1 − ε_r) + (1 − β)ε_r].

    Such a gate is equation 9 with αg₁ for α and (1 − β)g₀ for 1 − β, so that its p′ is
    p + εg₁·α(1 − ε_r) − (1 − ε)g₀·(1 − β)ε_r, where equation 10 has ρ in place of g₁ and g₀. With
    g₁ − ρ = (1 − ε)(g₁ − g₀) and ρ − g₀ = ε(g₁ − g₀) the difference is the gain. Its first factor,
    ε(1 − ε)(g₁ − g₀), is the covariance of "the gate fires" and "the step is wrong".
    """
    alpha, beta, epsilon_r = check
    covariance = epsilon * (1 - epsilon) * (gate[0] - gate[1])
    return covariance * (alpha * (1 - epsilon_r) + (1 - beta) * epsilon_r)


def hybrid_cost(rho: float, kappa: float) -> float:
    """Equation 11, "the computational cost is bounded by" C_fast · (1 + ρ(κ − 1)): per step, in
    units of C_fast, the mean cost of a fast step; κ is Reasoning Mode's in the same units.
    """
    return 1 + rho * (kappa - 1)


# --------------------------------------------------------------------------------------------------
# Equation 15: Fano's bound


def fano_bound(information: float, bits: float) -> float:
    """Equation 15, for "any task requiring D bits": P_err ≥ 1 − (I(C;Z) + 1)/D, all in bits."""
    return 1 - (information + 1) / bits


def noisy_plans(kind: str, bits: int, noise: float | int) -> np.ndarray:
    """P(Z | C), (2^D, plans), of problems C of D bits:

    flipped     each bit is wrong with probability `noise`
    erased      each bit is missing with probability `noise`
    confused    Z is another problem with probability `noise`, each alike
    forgotten   the last `noise` bits (an int) are missing
    """
    M, keep = 2**bits, 1 - noise
    if kind == "confused":
        return keep * np.eye(M) + noise / (M - 1) * (1 - np.eye(M))
    if kind == "forgotten":
        return np.kron(np.eye(2 ** (bits - noise)), np.ones((2**noise, 1)))
    flipped, erased = [[keep, noise], [noise, keep]], [[keep, noise, 0], [0, noise, keep]]
    table = np.ones((1, 1))
    for _ in range(bits):
        table = np.kron(table, dict(flipped=flipped, erased=erased)[kind])
    return table


def mutual_information(joint: np.ndarray) -> float:
    """I(C;Z) in bits of P(C, Z), (C, Z)."""
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    known = joint > 0
    return float((joint[known] * np.log2(joint[known] / independent[known])).sum())


def least_error(joint: np.ndarray) -> float:
    """The error of saying argmax_c P(c | Z), 1 − Σ_z max_c P(c, z): no decoder has less."""
    return 1 - float(joint.max(0).sum())


def simulate_decoder(rng: Generator, joint: np.ndarray, draws: int) -> np.ndarray:
    """Whether argmax_c P(c | Z) is wrong, (N,), for C and Z drawn from P(C, Z)."""
    edges = joint.ravel().cumsum()
    drawn = np.searchsorted(edges, rng.random(draws) * edges[-1], side="right")
    problem, plan = np.divmod(drawn, joint.shape[1])
    return joint.argmax(0)[plan] != problem


# --------------------------------------------------------------------------------------------------
# Equations 19 to 24: the gradient of inverse reasoning


class InverseProblem(NamedTuple):
    """A problem C with six plans Z, so that all can be enumerated; π and P share four θ."""

    pi: np.ndarray  # (Z,) π(Z | C)
    reward: np.ndarray  # (Z,) log P(C | Z) in nats
    score: np.ndarray  # (Z, θ) ∇log π(Z | C)
    direct: np.ndarray  # (Z, θ) ∇log P(C | Z)
    gradient: np.ndarray  # (θ,) ∇J

    def estimates(self, plans: np.ndarray, baseline: float | np.ndarray) -> np.ndarray:
        """(log P − b)·∇log π + ∇log P, (…, θ), of plans (…); b is one number, or one per plan."""
        return (self.reward[plans] - baseline)[..., None] * self.score[plans] + self.direct[plans]

    def variance(self, baseline: float) -> float:
        """Of one plan's estimate, summed over θ."""
        squares = (self.estimates(np.arange(6), baseline) ** 2).sum(1)
        return float(self.pi @ squares - (self.gradient**2).sum())

    def best_baseline(self) -> float:
        """The b of least variance: E[∇log π · g]/E[|∇log π|²] with g the estimate without baseline.
        The variance is a parabola in b: b reduces it iff it is nearer to this one than 0 is.
        """
        products = (self.score * self.estimates(np.arange(6), 0.0)).sum(1)
        return float(self.pi @ products / (self.pi @ (self.score**2).sum(1)))


def inverse_problem(seed: int) -> InverseProblem:
    """Equation 19, J(θ) = E_{Z∼π}[log P(C | Z)], with its exact gradient, by summing over all Z;
    both distributions are softmaxes of random linear functions of θ, C is one of three problems.
    """
    normal = dict(generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plan_weights, problem_weights = torch.randn(6, 4, **normal), torch.randn(6, 3, 4, **normal)
    theta = torch.randn(4, **normal).requires_grad_()

    def log_pi(theta: Tensor) -> Tensor:
        return (plan_weights @ theta).log_softmax(0)  # (Z,)

    def log_p(theta: Tensor) -> Tensor:
        return (problem_weights @ theta).log_softmax(1)[:, 0]  # (Z,)

    objective = (log_pi(theta).exp() * log_p(theta)).sum()
    (gradient,) = torch.autograd.grad(objective, theta)
    score, direct = (torch.autograd.functional.jacobian(f, theta) for f in (log_pi, log_p))
    parts = log_pi(theta).exp(), log_p(theta), score, direct, gradient
    return InverseProblem(*(part.detach().numpy() for part in parts))


# --------------------------------------------------------------------------------------------------
# Equations 25 to 27: more reasoning, less uncertainty?


class Chain(NamedTuple):
    """Eight problems C and five reasoning steps Z_t of one bit, each with a P(Z_t = 1 | C)."""

    prior: np.ndarray  # (C,)
    ones: np.ndarray  # (T, C)

    def joint(self, t: int) -> np.ndarray:
        """P(C, Z_1..t), (C, 2^t): a column is a chain, its bits read as a number."""
        table = self.prior[:, None]
        for one in self.ones[:t]:
            table = np.stack([table * (1 - one[:, None]), table * one[:, None]], 2).reshape(8, -1)
        return table

    def draw(self, rng: Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Problems (N,), and after each step the column of the chain drawn for each (T + 1, N)."""
        problems = rng.choice(8, count, p=self.prior)
        columns = [np.zeros(count, int)]
        for one in self.ones:
            columns.append(2 * columns[-1] + (rng.random(count) < one[problems]))
        return problems, np.array(columns)


class Uncertainty(NamedTuple):
    """Bits that it takes to name C after t = 0 to T steps: enumerated (T + 1,), of drawn chains
    (T + 1, N).
    """

    entropies: list[np.ndarray]  # of each chain's true posterior, (2^t,)
    probabilities: list[np.ndarray]  # of each chain, (2^t,)
    path: np.ndarray  # the true posterior's entropy
    learned: np.ndarray  # −log₂ P_φ(C | Z_1..t) of a learned head
    learned_mean: np.ndarray  # its mean, the cross-entropy
    training: np.ndarray  # the same on the pairs that it was learnt from

    def mean(self) -> np.ndarray:
        """Equation 25's H(C | Z_1..t), (T + 1,)."""
        pairs = zip(self.probabilities, self.entropies)
        return np.array([probabilities @ entropies for probabilities, entropies in pairs])

    def rising(self) -> np.ndarray:
        """The share of chains whose entropy rises at step t, (T,)."""
        shares = []
        for t, probabilities in enumerate(self.probabilities[1:]):
            rises = self.entropies[t + 1] > np.repeat(self.entropies[t], 2)
            shares.append(probabilities[rises].sum())
        return np.array(shares)


def reason(rng: Generator, draws: int) -> Uncertainty:
    """Five noisy steps about problems of which the first has probability ½; the head's
    P_φ(C | Z_1..t) are counts of 40 training pairs, each count begun at 0.1.
    """
    ones = np.random.default_rng(3).uniform(0.1, 0.9, (5, 8))
    chain = Chain(np.r_[0.5, np.full(7, 0.5 / 7)], ones)
    pairs, pair_columns = chain.draw(np.random.default_rng(0), 40)
    problems, columns = chain.draw(rng, draws)
    found = []
    for t, (column, pair_column) in enumerate(zip(columns, pair_columns)):
        joint = chain.joint(t)  # (C, 2^t)
        posterior = joint / joint.sum(0)
        entropies = -(posterior * np.log2(posterior)).sum(0)
        counts = np.full(joint.shape, 0.1)
        np.add.at(counts, (pairs, pair_column), 1)
        cost = -np.log2(counts / counts.sum(0))
        of_drawn, of_pairs = cost[problems, column], cost[pairs, pair_column].mean()
        probabilities, cross = joint.sum(0), (joint * cost).sum()
        found.append((entropies, probabilities, entropies[column], of_drawn, cross, of_pairs))
    entropies, probabilities, *curves = zip(*found)
    return Uncertainty(entropies, probabilities, *map(np.array, curves))


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parent / "bench" / "theory.py"), run_name="__main__")
