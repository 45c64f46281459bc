"""Tables and pictures of bench/hybrid.py: success with intervals, votes by each rule, modes beside
their cost, ablations, and equation 9 from counted steps.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from config import Think
from support import result_tables
from support.intervals import paired_difference
from think import Vote, bits_per_teraflop, vote, winner

Pieces = dict[str, list]  # what was measured of one run, by name
# of one task, by agent ("plain", "checked"): episodes, each as [whether a step was right, …]
PlayedByBoth = dict[str, list[list[bool]]]
# by agent, and of their difference: "measured", "low", "high", "predicted", each over HORIZONS
Curves = dict[str, dict[str, np.ndarray]]

FAST_STEPS = "fast, other tasks"  # the piece of `modes` that thresholds come from
RULES = (
    "majority",
    "ICS-filtered",
    "contrast-filtered",
    "head-weighted",
    "likeliest",
    "least energy",
    "oracle",
)
HORIZONS = range(1, 21)  # steps
SHOWN_HORIZONS = (1, 3, 5, 10, 20)  # in the table
PAPER_VOTES = {"one sample": "78.9", "majority": "88.4", "ICS-filtered": "91.8"}  # math, n = 32
PAPER_SUCCESS = {"fast": "58.4", "reason": "73.1", "hybrid": "71.8"}
PAPER_COST = {"fast": "1.0", "reason": "3.8", "hybrid": "1.4"}

# ------------------------------------------------------------------------------------------- tables


def bootstrap(ours: list[list[float]], theirs: list[list[float]]) -> tuple[float, float, float]:
    """Mean of the paired differences in points, and its 95% interval over tasks and runs
    (support.intervals.paired_difference); [run][task] of each.
    """
    sides = [[[(value, 1.0) for value in run] for run in side] for side in (theirs, ours)]
    low, high = paired_difference(*sides)
    return 100 * float(np.mean(ours) - np.mean(theirs)), 100 * low, 100 * high


def percent(runs: list[list[float]]) -> list[float]:
    """Each run's mean, in percent."""
    return [100 * statistics.mean(run) for run in runs]


def success(runs: list[dict[str, list[dict]]], name: str) -> list[list[float]]:
    """Whether each episode of each run succeeded."""
    return [[float(episode["verified"]) for episode in run[name]] for run in runs]


def total(episodes: list[dict], quantity: str) -> float:
    return sum(episode["cost"][quantity] for episode in episodes)


def relative_cost(
    runs: list[dict[str, list[dict]]], name: str, base: str, quantity: str = "flops"
) -> list[float]:
    """Each run's cost of a variant, divided by that of another."""
    return [total(run[name], quantity) / total(run[base], quantity) for run in runs]


def share_of_steps(runs: list[dict[str, list[dict]]], name: str, quantity: str) -> float:
    """The share of a variant's steps that were "reasoned" or fell back ("fallback")."""
    shares = []
    for run in runs:
        steps = sum(episode["steps"] for episode in run[name])
        shares.append(sum(episode[quantity] for episode in run[name]) / steps)
    return statistics.mean(shares)


class Table:
    """Records of one part over several runs: printed, and kept unless the run is dry."""

    def __init__(self, a: argparse.Namespace, runs: int):
        self.a, self.runs = a, runs

    def row(self, name: str, values: list[float], unit: str = "%", note: str = "", **more) -> None:
        mean = statistics.mean(values)
        spread = f"± {np.std(values, ddof=1):.1f} std" if len(values) > 1 else ""
        print(f"  {name:44} {mean:8.2f} {unit:16} {spread:14} {note}")
        if not (self.a.dry or math.isnan(mean)):  # nan: there was nothing to count in some run
            row = dict(spread=spread, n=self.a.tasks, seeds=self.runs, unit=unit, note=note)
            result_tables.record("reasoning", name, round(mean, 2), **(row | more))

    def difference(
        self, name: str, ours: list[list[float]], theirs: list[list[float]], **more
    ) -> None:
        """The paired difference."""
        _, low, high = bootstrap(ours, theirs)
        points = [mine - other for mine, other in zip(percent(ours), percent(theirs))]
        note = f"95% interval {low:+.1f} to {high:+.1f}"
        if len(ours) == 1:  # of few tasks that differ a bootstrap is too sure
            won = sum(mine > other for mine, other in zip(ours[0], theirs[0], strict=True))
            lost = sum(mine < other for mine, other in zip(ours[0], theirs[0], strict=True))
            note += f"; {won} tasks won, {lost} lost"
        self.row(name, points, "points", note, **more)


def winners_of(samples: list[dict]) -> dict[str, Vote | None]:
    """What each rule of `think.vote` chooses among one task's votes, and two rules more. Likeliest:
    least energy with λ = 0. Contrast-filtered: as ICS-filtered, by `Run.contrasts` of
    bench/hybrid.py.

    λ·gain is λ·ICS up to the prior's share, which is the same for all episodes of a task.
    """
    votes = [Vote(**{field.name: s[field.name] for field in fields(Vote)}) for s in samples]
    answered = [(v, s["contrast"]) for v, s in zip(votes, samples, strict=True) if v.answer]
    by_contrast = [v for v, _ in sorted(answered, key=lambda pair: -(pair[1] or 0.0))]
    better_half = by_contrast[: len(by_contrast) - len(by_contrast) // 2]
    return vote(votes) | {
        "contrast-filtered": winner(better_half, lambda v: 1.0),
        "likeliest": min(by_contrast, key=lambda v: v.energy + Think.lam * v.gain, default=None),
    }


def votes_table(table: Table, world: str, found: list[Pieces]) -> None:
    runs = [sum(pieces.values(), []) for pieces in found]  # [run][task][sample]
    n_most = table.a.samples
    paper = PAPER_VOTES if world.endswith("math") else {}
    every = [[float(v["verified"]) for samples in run for v in samples] for run in runs]
    more = dict(note=f"mean of {n_most}", paper=paper.get("one sample", ""))
    table.row(f"vote/{world} one sample", percent(every), **more)
    contrasted = runs[0][0][0]["contrast"] is not None
    rules = [rule for rule in RULES if contrasted or rule != "contrast-filtered"]
    for n in sorted({min(n, n_most) for n in (4, 8, 16, n_most)}):
        verified: dict[str, list[list[float]]] = {rule: [] for rule in rules}  # a list per run
        for run in runs:
            chosen = [winners_of(samples[:n]) for samples in run]
            for rule in rules:
                winners = [by_rule[rule] for by_rule in chosen]
                verified[rule].append([float(v is not None and v.verified) for v in winners])
        for rule in rules:
            paper_value = paper.get(rule, "") if n == 32 else ""
            table.row(f"vote/{world} {rule} of {n}", percent(verified[rule]), paper=paper_value)
        for rule in ("ICS-filtered", "contrast-filtered", "head-weighted", "least energy"):
            if rule not in rules:
                continue
            goal = "≥ 3.4" if n == 32 and rule in ("ICS-filtered", "head-weighted") else ""
            name = f"vote/{world} {rule} − majority of {n}"
            table.difference(name, verified[rule], verified["majority"], goal=goal)
        name = f"vote/{world} least energy − likeliest of {n}"
        table.difference(name, verified["least energy"], verified["likeliest"])


def modes_table(table: Table, world: str, runs: list[Pieces]) -> list[Pieces]:
    """Returns what the picture shows."""
    # -- success and cost of each
    for name in runs[0]:
        if name == FAST_STEPS:
            continue
        note = f"{share_of_steps(runs, name, 'reasoned'):.0%} of the steps thought about"
        more = dict(note=note, paper=PAPER_SUCCESS.get(name, ""))
        table.row(f"hybrid/{world} {name}: success", percent(success(runs, name)), **more)
        cost = relative_cost(runs, name, "fast")
        table.row(f"hybrid/{world} {name}: FLOPs", cost, "× fast", paper=PAPER_COST.get(name, ""))
        if name in PAPER_COST:
            seconds = relative_cost(runs, name, "fast", "seconds")
            note = f"{table.a.batch} episodes together"
            table.row(f"hybrid/{world} {name}: seconds", seconds, "× fast", note=note)

    # -- what a unit of compute tells about the task; measuring it is on no episode's cost
    for name in PAPER_COST:
        values = []
        for run in runs:
            bits = [episode["bits"] for episode in run[name]]
            flops = [episode["cost"]["flops"] for episode in run[name]]
            values.append(bits_per_teraflop(bits, flops))
        mean_bits = statistics.mean(episode["bits"] for run in runs for episode in run[name])
        note = f"{mean_bits:.2f} bits an episode"
        table.row(f"reasoning bits/{world} {name}", values, "bits/TFLOP", note=note)

    # -- against fast, and the gate against others
    for name in ("reason", "hybrid"):
        gained = []
        for number, (fast, other) in enumerate(zip(runs[0]["fast"], runs[0][name])):
            if other["verified"] and not fast["verified"]:
                gained.append(str(number))
        print(
            f"  {name} succeeds where fast fails, {table.a.split} tasks: "
            f"{', '.join(gained[:20]) or 'none'}"
        )
        ours, theirs = success(runs, name), success(runs, "fast")
        table.difference(f"hybrid/{world} {name} − fast", ours, theirs)
    for rate in table.a.rates:
        for other in ("random", "entropy"):
            ours, theirs = success(runs, f"gate {rate}"), success(runs, f"{other} {rate}")
            table.difference(f"hybrid/{world} gate − {other} gate at {rate}", ours, theirs)

    # -- the least rate that keeps what reason has
    reason = percent(success(runs, "reason"))
    notes = {"hybrid": "τ as the heads came"}
    if table.a.rates:
        wanted = 0.98 * statistics.mean(reason)
        shares = {
            rate: statistics.mean(percent(success(runs, f"gate {rate}"))) for rate in table.a.rates
        }
        enough = [rate for rate, share in shares.items() if share >= wanted]
        best = min(enough or table.a.rates)
        notes[f"gate {best}"] = "the least rate that keeps 98% on these tasks, or else the least"
    for name, note in notes.items():
        pairs = zip(percent(success(runs, name)), reason)
        kept_share = [100 * mine / max(other, 1e-7) for mine, other in pairs]
        more = dict(goal="≥ 98", note=note)
        table.row(f"hybrid/{world} {name} of reason's success", kept_share, **more)
        cost = [100 * ratio for ratio in relative_cost(runs, name, "reason")]
        table.row(f"hybrid/{world} {name} of reason's cost", cost, goal="≤ 40")
    return runs


def ablations_table(table: Table, world: str, runs: list[Pieces]) -> None:
    for name in runs[0]:
        fallback = share_of_steps(runs, name, "fallback")
        cost = statistics.mean(relative_cost(runs, name, "whole"))
        note = f"{cost:.2f} × the FLOPs, {fallback:.0%} of the steps fell back"
        table.row(f"ablation/{world} {name}", percent(success(runs, name)), note=note)
        if name != "whole":
            ours, theirs = success(runs, name), success(runs, "whole")
            table.difference(f"ablation/{world} {name} − whole", ours, theirs)


# --------------------------------------------------------------------------------------- equation 9


def mean_or_nan(values: list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def rates_of(episodes: list[list[list[bool]]]) -> dict[str, float]:
    """ε, α, β, ε_r and ε′ from checked steps [first right, accepted, taken right]; NaN where there
    was nothing to count. ε_r is the error of what is taken for a rejected draft, be it that draft.
    """
    steps = [step for episode in episodes for step in episode]
    epsilon = mean_or_nan([not first for first, _, _ in steps])
    alpha = mean_or_nan([not accepted for first, accepted, _ in steps if not first])
    beta = mean_or_nan([accepted for first, accepted, _ in steps if first])
    epsilon_r = mean_or_nan([not taken for _, accepted, taken in steps if not accepted])
    # equation 9 makes it of the four; on the steps they were counted on it is just the share
    checked = mean_or_nan([not taken for _, _, taken in steps])
    return {"ε": epsilon, "α": alpha, "β": beta, "ε_r": epsilon_r, "ε′": checked}


def survival(episodes: list[list[bool]]) -> np.ndarray:
    """The chance that a session, made of episodes drawn one after another, is still right after T
    steps, for T in HORIZONS: an episode has T right steps, or all of it is right and the next ones
    have the rest.
    """
    alive = [1.0]
    for horizon in HORIZONS:
        chance = 0.0
        for episode in episodes:
            if len(episode) >= horizon and all(episode[:horizon]):
                chance += 1.0
            elif all(episode):  # the next episodes have the rest
                chance += alive[horizon - len(episode)]
        alive.append(chance / len(episodes))
    return np.array(alive[1:])


def measured_survival(tasks: list[PlayedByBoth]) -> Curves:
    """Survival of the plain and the checked agent over HORIZONS, and by how much the latter's is
    higher, each with its 95% interval over 1000 bootstrap draws of the tasks. A task has the
    episodes that all runs of an agent played of it.
    """

    def together(drawn: list[PlayedByBoth]) -> dict[str, np.ndarray]:
        alive = {
            name: survival([episode for task in drawn for episode in task[name]])
            for name in ("plain", "checked")
        }
        return alive | {"checked − plain": alive["checked"] - alive["plain"]}

    rng = random.Random(0)
    draws = [together(rng.choices(tasks, k=len(tasks))) for _ in range(1000)]
    curves = {}
    for name, measured in together(tasks).items():
        low, high = np.quantile(np.array([draw[name] for draw in draws]), (0.025, 0.975), 0)
        curves[name] = dict(measured=measured, low=low, high=high)
    return curves


def horizon_table(table: Table, world: str, runs: list[Pieces]) -> Curves:
    """Constants from the even tasks, survival on the odd ones. Returns what the picture shows, for
    the plain and the checked agent.
    """
    # -- the constants, and the checked step's error on the other half
    constants = [rates_of(run["checked"][::2]) for run in runs]
    for name in ("ε", "α", "β", "ε_r", "ε′"):
        note = "the checked agent's step, which equation 9 takes apart" if name == "ε′" else ""
        values = [100 * rates[name] for rates in constants]
        table.row(f"equation 9/{world} {name}", values, note=note, n=len(runs[0]["checked"][::2]))
    errors = []
    for run in runs:
        taken = [step[2] for episode in run["checked"][1::2] for step in episode]
        errors.append(100 * (1 - float(np.mean(taken))))
    half = len(runs[0]["checked"][1::2])
    table.row(f"equation 9/{world} ε′ measured", errors, note="on the other half", n=half)

    # -- how far each agent gets: for each task the episodes of all runs, an episode as [right, …]
    even = {}
    tasks = [{} for _ in range(half)]
    for name in ("plain", "checked"):
        even[name] = [episode for run in runs for episode in run[name][::2] if episode]
        for task, *played in zip(tasks, *(run[name][1::2] for run in runs), strict=True):
            task[name] = [[step[-1] for step in episode] for episode in played if episode]
    tasks = [task for task in tasks if task["plain"] and task["checked"]]
    plain_error = mean_or_nan([not right for episode in even["plain"] for (right,) in episode])
    error = {"plain": plain_error, "checked": rates_of(even["checked"])["ε′"]}
    shown = measured_survival(tasks)
    for name in error:
        shown[name]["predicted"] = (1 - error[name]) ** np.array(HORIZONS)
    for name, curve in shown.items():
        unit = "%" if name in error else "points"
        for horizon in SHOWN_HORIZONS:
            at = {key: 100 * values[HORIZONS.index(horizon)] for key, values in curve.items()}
            note = f"95% {at['low']:.1f} to {at['high']:.1f}"
            note += f"; predicted {at['predicted']:.1f}" if "predicted" in at else ""
            row = f"equation 9/{world} {name}, {horizon} steps"
            table.row(row, [at["measured"]], unit=unit, note=note, n=len(tasks))
    for name in error:
        curve = shown[name]
        inside = (curve["predicted"] >= curve["low"]) & (curve["predicted"] <= curve["high"])
        note = "share of the horizons 1–20 at which the formula is within the measured interval"
        row = f"equation 9/{world} {name}: horizons inside"
        table.row(row, [100 * float(inside.mean())], note=note, goal="100", n=len(tasks))
    return shown


# ------------------------------------------------------------------------------------------ picture


def draw_modes(axis, world: str, runs: list[dict[str, list[dict]]]) -> None:
    """What each gate gains over fast, with 95% intervals, against its cost."""

    def point(name: str) -> tuple[float, float, float, float]:
        """Cost, gain over fast on the same tasks, and how far its interval reaches down and up."""
        ours, theirs = success(runs, name), success(runs, "fast")
        mean, low, high = bootstrap(ours, theirs)
        cost = statistics.mean(relative_cost(runs, name, "fast"))
        return cost, mean, max(0, mean - low), max(0, high - mean)

    labels = {"gate": "equation 7's gate", "entropy": "entropy gate", "random": "random gate"}
    colours = {"gate": "tab:blue", "entropy": "tab:green", "random": "tab:gray"}
    styles = {"gate": "o-", "entropy": "s--", "random": "^:"}
    for name, label in labels.items():
        rates = [mode.removeprefix("gate ") for mode in runs[0] if mode.startswith("gate ")]
        variants = ["fast", *(f"{name} {rate}" for rate in rates), "reason"]
        cost, gain, below, above = zip(*map(point, variants))
        look = dict(fmt=styles[name], color=colours[name], label=label)
        look |= dict(markersize=4, elinewidth=0.8, capsize=2)
        axis.errorbar(cost, gain, (below, above), **look)
    for name, offset in (("fast", (4, -12)), ("reason", (-42, 6))):
        axis.annotate(name, point(name)[:2], textcoords="offset points", xytext=offset)
    axis.axhline(0, color="black", linewidth=0.5)
    axis.set(
        xlabel="forward FLOPs, × fast",
        ylabel="points over fast, with 95% intervals",
        title=f"hybrid mode, {world} tasks",
    )
    axis.legend(frameon=False)


def draw_horizon(axis, world: str, curves: Curves) -> None:
    """How long the plain and the checked agent stay right, measured and predicted."""
    colours = {"plain": "tab:orange", "checked": "tab:blue"}
    formulas = {"plain": "(1 − ε)$^T$", "checked": "(1 − ε′)$^T$, equation 9"}
    for name in ("plain", "checked"):
        curve = curves[name]
        percents = {key: 100 * values for key, values in curve.items()}
        colour = colours[name]
        band = dict(color=colour, alpha=0.2, linewidth=0)
        axis.fill_between(HORIZONS, percents["low"], percents["high"], **band)
        dots = dict(color=colour, markersize=4, label=f"{name}, measured")
        axis.plot(HORIZONS, percents["measured"], "o", **dots)
        axis.plot(HORIZONS, percents["predicted"], "-", color=colour, label=formulas[name])
    axis.set(
        xlabel="steps",
        ylabel="still right (%)",
        title=f"how far an agent gets, {world} tasks",
        ylim=(0, 100),
        xticks=(1, 5, 10, 15, 20),
    )
    axis.legend(frameon=False)


def picture(panels: list[tuple[Callable, str, Any]], path: Path) -> None:
    """A figure of panels side by side: what draws each on an axis, its world, and what it shows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (5.5 * len(panels), 4)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axis, (draw, world, shown) in zip(axes[0], panels):
        draw(axis, world, shown)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
