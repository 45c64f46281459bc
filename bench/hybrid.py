"""What second thoughts are worth: votes among n samples; fast, reason and hybrid with the curve
over τ; ablations; and how far an agent gets whose steps are checked.

    votes       n sampled episodes of each task, and which one each rule chooses (think.vote), for
                several n, with the paired difference from the majority; and one rule more: votes
                filtered by the contrast of their inverse consistency (`Run.contrasts`)
    modes       success, cost and Reasoning-Bits per TeraFLOP of fast, reason and hybrid; the hybrid
                at several rates of second thoughts, with the gate, a random gate and an entropy
                gate
    ablations   mode reason with another λ, n, without counterfactuals, with critique, without the
                head
    horizon     ε, α, β, ε_r and the error ε′ that equation 9 makes of them, counted on one half of
                the tasks (on the same steps it is the law of total probability, and cannot fail);
                (1 − ε′)^T from it, and beside it how long the agent really stays right on the other

Held-out tasks, the same for all. What was measured of each run is kept in the run's folder, piece
by piece, and not measured twice. Differences are means over tasks with a 95% interval, a paired
bootstrap's, which draws tasks and, of several runs (one per seed), runs anew, or Student's over the
runs, whichever is wider; several runs give mean ± standard deviation.

    python bench/hybrid.py --runs out/seed1/thinking,out/seed2/thinking,out/seed3/thinking
    python bench/hybrid.py --tasks 8 --samples 4 --parts votes,modes --dry      tries it out
    python bench/hybrid.py --split validation --parts ablations --dry     for choosing settings
"""

import argparse
import hashlib
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import numpy as np
import torch

from agent import Rollout, rollouts
from config import Eval, Think, UserError
from fast.thinking import successes_sharing_prompts, think
from support import checkpoint, provenance, result_tables, settings
from support.intervals import paired_difference
from think import (
    Thinking,
    Vote,
    bits_per_teraflop,
    conclusion,
    constraint_tokens,
    reasoning_bits,
    vote,
    votes_of,
    winner,
)
from worlds.base import Task, same_answer
from worlds.difficulty import RUNGS, Difficulty
from worlds.expert import fingerprint
from worlds.tasks import Tasks
from worlds.calls import check_call, read_calls

Pieces = dict[str, list]  # what was measured, by name
Piece = tuple[str, Callable[[], list]]  # a name, and what measures it
# of one task, by agent ("plain", "checked"): episodes, each as [whether a step was right, …]
PlayedByBoth = dict[str, list[list[bool]]]
# by agent, and of their difference: "measured", "low", "high", "predicted", each over HORIZONS
Curves = dict[str, dict[str, np.ndarray]]

FAST_STEPS = "fast, other tasks"  # the piece of `modes` that thresholds come from
PIECES_VERSION = 1  # raised when what is kept changes, so that no older pieces pass for the same
RULES = (
    "majority",
    "ICS-filtered",
    "contrast-filtered",
    "head-weighted",
    "likeliest",
    "least energy",
    "oracle",
)
NEIGHBOURS = 3  # other tasks whose constraints a conclusion is asked for, to contrast its own
ABLATIONS = {
    "λ = 0": dict(lam=0.0),
    "λ = 0.1": dict(lam=0.1),
    "λ = 1": dict(lam=1.0),
    "n = 1": dict(n=1),
    "n = 4": dict(n=4),
    "without counterfactuals": dict(counterfactuals=""),
    "with critique": dict(critique=True),
    # least energy of n, whatever the confidence
    "without the head": dict(counterfactuals="", theta=0.0, delta=1.0),
    "likelihood alone": dict(counterfactuals="", theta=0.0, delta=1.0, lam=0.0),
}
HORIZONS = range(1, 21)  # steps
SHOWN_HORIZONS = (1, 3, 5, 10, 20)  # in the table
PAPER_VOTES = {"one sample": "78.9", "majority": "88.4", "ICS-filtered": "91.8"}  # math, n = 32
PAPER_SUCCESS = {"fast": "58.4", "reason": "73.1", "hybrid": "71.8"}
PAPER_COST = {"fast": "1.0", "reason": "3.8", "hybrid": "1.4"}

# ------------------------------------------------------------------------------- measuring one run


class Run:
    """A run's model with its heads, and the tasks it is given."""

    def __init__(self, folder: str, a: argparse.Namespace):
        self.folder, self.a = Path(settings.absolute(folder)), a
        dtype = getattr(torch, a.dtype)
        self.model, config, _ = checkpoint.load_run(self.folder, dtype)
        self.heads = checkpoint.load_heads(self.folder, self.model.config, dtype=dtype)
        self.tokenizer = checkpoint.tokenizer_of(self.folder, config.data.tokenizer)

        self.difficulty = Difficulty(
            split=a.split,
            request_wording=a.wording,
            names=config.distill.names,  # as the run has learnt them
            style=self.tokenizer.style,
            **RUNGS[a.rung],
        )

    def tasks(self, world: str, first: int = 0, more: int = 0) -> list[Task]:
        drawn = Tasks(self.a.split, Eval.seed, [world], self.difficulty)
        return [drawn[first + index] for index in range(self.a.tasks + more)]

    def settings(self, **changes) -> Think:
        """think.py's, with the room that the command line gives."""
        return Think(room=self.a.room, **changes)

    def think(self, tasks: list[Task], s: Think, gate=None, faults: bool = True) -> list[Thinking]:
        options = dict(batch=self.a.batch, faults=faults, gate=gate)
        return think(self.model, self.heads, self.tokenizer, tasks, s, **options)

    def judged(self, done: list[Rollout]) -> list[Vote]:
        minds = (self.model, self.heads, self.tokenizer)
        return votes_of(*minds, done, successes=successes_sharing_prompts)

    def episodes(self, tasks: list[Task], s: Think, gate=None) -> list[dict]:
        """One episode of each task, as the figures that are kept of it."""
        began = time.perf_counter()
        done = self.think(tasks, s, gate)
        played = [thinking.rollout for thinking in done]
        votes = self.judged(played)
        figures = []
        for thinking, judged in zip(done, votes, strict=True):
            steps = thinking.steps
            figures.append(
                dict(
                    verified=thinking.rollout.verified,
                    steps=len(steps),
                    reasoned=sum(step.reasoned for step in steps),
                    fallback=sum(step.chosen.fate == "fallback" for step in steps),
                    gates=[step.gate for step in steps if step.gate is not None],
                    entropies=[step.chosen.entropy for step in steps],
                    cost=asdict(thinking.cost),
                    bits=reasoning_bits(thinking.rollout.task, judged.gain),
                )
            )
        verified = sum(episode["verified"] for episode in figures) / len(figures)
        flops = sum(episode["cost"]["flops"] for episode in figures)
        seconds = time.perf_counter() - began
        print(
            f"    {s.mode:7} {verified:6.1%} verified, {flops / 1e9:8.1f} GFLOP, {seconds:.0f} s",
            flush=True,
        )
        return figures

    # -- the parts: of each, its pieces by name, in the order they are measured. `found` holds those
    # that are measured already

    def votes(self, world: str, found: Pieces) -> Iterator[Piece]:
        """n samples of each task, as votes; a piece has 256 samples, or one task."""
        tasks, n = self.tasks(world, more=NEIGHBOURS), self.a.samples
        together = max(1, 256 // n)
        for start in range(0, self.a.tasks, together):
            end = min(start + together, self.a.tasks)
            yield f"from task {start}", partial(self.vote_on, tasks, range(start, end))

    def vote_on(self, tasks: list[Task], numbers: range) -> list[list[dict]]:
        """The n votes of each numbered task, as the figures that are kept of them."""
        n = self.a.samples
        repeated = [number for number in numbers for _ in range(n)]
        options = dict(seed=numbers.start, room=self.a.room)
        played = [tasks[number] for number in repeated]
        done = rollouts(self.model, self.tokenizer, played, 1.0, **options)
        neighbours = [tasks[number + 1 : number + 1 + NEIGHBOURS] for number in repeated]
        contrasts = self.contrasts(done, neighbours)
        votes = [
            asdict(judged) | dict(contrast=contrast)
            for judged, contrast in zip(self.judged(done), contrasts, strict=True)
        ]
        return [votes[first : first + n] for first in range(0, len(votes), n)]

    def contrasts(
        self, done: list[Rollout], neighbours: list[list[Task]], batch: int = 32
    ) -> list[float]:
        """For each episode, in nats, ≤ 0: the log of its own task's share in Σ exp(ICS − prior)
        over that task and its neighbours.

        The contrastive form of equation 13 (InfoNCE, van den Oord et al. 2018): a conclusion gains
        nothing by making constraints likely that are any task's.
        """
        shares = []
        batch //= 1 + NEIGHBOURS  # of so many tasks' constraints each
        for start in range(0, len(done), batch):
            conclusions, constraints = [], []
            for rollout, others in zip(done[start : start + batch], neighbours[start:]):
                for task in (rollout.task, *others):
                    conclusions.append(conclusion(rollout, self.tokenizer))
                    constraints.append(constraint_tokens(task, self.tokenizer))
            ics, prior = self.heads["inverse"].scores(self.model, conclusions, constraints)
            gains = (torch.tensor(ics) - torch.tensor(prior)).view(-1, 1 + NEIGHBOURS)
            shares += gains.log_softmax(1)[:, 0].tolist()
        return shares

    def modes(self, world: str, found: Pieces) -> Iterator[Piece]:
        """fast, reason, hybrid as the heads came, and three gates at several rates; their
        thresholds are quantiles over other tasks' fast steps (FAST_STEPS).
        """
        tasks = self.tasks(world)
        for mode in ("fast", "reason", "hybrid"):
            yield mode, partial(self.episodes, tasks, self.settings(mode=mode))

        if not self.a.rates:
            return
        others = self.tasks(world, first=100_000)
        asked_in_vain = self.settings(mode="hybrid", tau=1.0)  # the gate is never obeyed
        yield FAST_STEPS, partial(self.episodes, others, asked_in_vain)
        steps = found[FAST_STEPS]  # `kept` has put it there before it asks for the next piece
        gates = [gate for episode in steps for gate in episode["gates"]]
        entropies = np.array([entropy for episode in steps for entropy in episode["entropies"]])

        def entropy_gate(hidden, entropy):
            return 1 - torch.exp(-entropy)

        for rate in self.a.rates:
            generator = torch.Generator().manual_seed(0)

            def random_gate(hidden, entropy, generator=generator):
                return torch.rand(len(entropy), generator=generator)

            tau = float(np.quantile(gates, 1 - rate))
            yield f"gate {rate}", partial(self.episodes, tasks, self.settings(tau=tau))
            tau = float(np.quantile(1 - np.exp(-entropies), 1 - rate))
            yield (
                f"entropy {rate}",
                partial(self.episodes, tasks, self.settings(tau=tau), entropy_gate),
            )
            yield (
                f"random {rate}",
                partial(self.episodes, tasks, self.settings(tau=1 - rate), random_gate),
            )

    def ablations(self, world: str, found: Pieces) -> Iterator[Piece]:
        tasks = self.tasks(world)
        for name, changes in {"whole": {}, **ABLATIONS}.items():
            yield name, partial(self.episodes, tasks, self.settings(mode="reason", **changes))

    def horizon(self, world: str, found: Pieces) -> Iterator[Piece]:
        """Of each episode without faults, its steps up to the first wrong one: [right] of a plain
        agent's; and [first draft right, accepted, taken step right] with a check and one revision.
        """
        tasks = self.tasks(world)
        plain = self.settings(mode="fast", fast_temperature=1.0)
        checked = self.settings(mode="reason", fast_temperature=1.0, n=1, lam=0.0, resamples=1)
        yield "plain", partial(self.steps_of, tasks, plain, checked=False)
        yield "checked", partial(self.steps_of, tasks, checked, checked=True)

    def steps_of(self, tasks: list[Task], s: Think, *, checked: bool) -> list[list[list[bool]]]:
        done = self.think(tasks, s, faults=False)
        return [judged_steps(thinking, checked=checked) for thinking in done]


def judged_steps(thinking: Thinking, *, checked: bool) -> list[list[bool]]:
    """An episode's steps up to the first wrong one, as Run.horizon has them."""
    task = thinking.rollout.task
    left = [step.call for step in task.solution if step.call]
    steps = []
    for decision in thinking.steps:
        chosen = decision.chosen
        left_after_draft = remaining_calls(decision.candidates[0].text, task, left)
        left = remaining_calls(chosen.text, task, left)
        if checked:
            accepted = chosen.round == 0 and chosen.fate == "committed"
            steps.append([left_after_draft is not None, accepted, left is not None])
        else:
            steps.append([left is not None])
        if left is None:
            break
    return steps


def remaining_calls(text: str, task: Task, left: list[dict]) -> list[dict] | None:
    """What is left of a solution's calls after a message, if it is right; None if it is wrong.

    An answer is right when nothing is left and it is the one that was wanted.
    """
    calls, faults = read_calls(text)
    if not calls and not faults:
        refused = task.answer.startswith("refuse") and text.startswith("refuse")
        correct = same_answer(text, task.answer) or refused
        return [] if correct and not left else None
    if faults or any(check_call(call, task.tools) for call in calls):
        return None
    left = list(left)
    for call in calls:
        if call in left:
            left.remove(call)
        elif left and not task.fails(left[0], call):
            del left[0]
        else:
            return None
    return left


def where(world: str, a: argparse.Namespace) -> str:
    """A world as the tables name it: behind its words and its rung where they are not the usual."""
    words = "training's words, " if a.wording == "train" else ""
    return words + (world if a.rung == "standard" else f"{a.rung} {world}")


def kept(run: Run, part: str, world: str) -> Pieces:
    """A part's measurements, each piece kept in the run's folder as soon as it is made, and not
    made twice with the same sizes, of the same tasks.
    """
    a = run.a
    sizes = dict(version=PIECES_VERSION, tasks=a.tasks, seed=Eval.seed, room=a.room)
    sizes["settings"] = asdict(Think())
    files = [file for file in checkpoint.latest(run.folder).rglob("*") if file.suffix != ".json"]
    sizes["weights"] = provenance.digest(*sorted(file for file in files if file.is_file()))
    sizes["draw"] = fingerprint([world], Eval.seed, run.difficulty)  # other words, other tasks
    if a.dtype != "float32":
        sizes["dtype"] = a.dtype
    if part == "votes":
        sizes |= dict(samples=a.samples, neighbours=NEIGHBOURS)
    if part == "modes":  # whose seconds are those of so many episodes together
        sizes["batch"] = a.batch
    # in the name, so that a try with fewer tasks leaves the larger one where it is
    tag = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:8]
    path = run.folder / "reasoning" / f"{part} {where(world, a)} {a.split} {tag}.json"
    found: Pieces = json.loads(path.read_text())["found"] if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    print(f"  {run.folder.parent.name}/{run.folder.name}: {part}, {world}", flush=True)
    asked = []  # a file may hold more, of further rates
    for name, measure in getattr(run, part)(world, found):
        asked.append(name)
        if name not in found:
            found[name] = measure()
            provenance.replace(path, json.dumps(dict(sizes=sizes, found=found)))
    return {name: found[name] for name in asked}


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
        interval = f"95% interval {low:+.1f} to {high:+.1f}"
        self.row(name, points, "points", interval, **more)


def winners_of(samples: list[dict]) -> dict[str, Vote | None]:
    """What each rule of `think.vote` chooses among one task's votes, and two rules more. Likeliest:
    least energy with λ = 0. Contrast-filtered: as ICS-filtered, by `Run.contrasts`.

    λ·gain is λ·ICS up to the prior's share, which is the same for all episodes of a task.
    """
    votes = [Vote(**{field.name: s[field.name] for field in fields(Vote)}) for s in samples]
    answered = [(v, s["contrast"]) for v, s in zip(votes, samples, strict=True) if v.answer]
    by_contrast = [v for v, _ in sorted(answered, key=lambda pair: -pair[1])]
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
    for n in sorted({min(n, n_most) for n in (4, 8, 16, n_most)}):
        verified: dict[str, list[list[float]]] = {rule: [] for rule in RULES}  # a list per run
        for run in runs:
            chosen = [winners_of(samples[:n]) for samples in run]
            for rule in RULES:
                winners = [by_rule[rule] for by_rule in chosen]
                verified[rule].append([float(v is not None and v.verified) for v in winners])
        for rule in RULES:
            paper_value = paper.get(rule, "") if n == 32 else ""
            table.row(f"vote/{world} {rule} of {n}", percent(verified[rule]), paper=paper_value)
        for rule in ("ICS-filtered", "contrast-filtered", "head-weighted", "least energy"):
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


# of each part, what makes its table and what draws what that returns
PARTS = {
    "votes": (votes_table, None),
    "modes": (modes_table, draw_modes),
    "ablations": (ablations_table, None),
    "horizon": (horizon_table, draw_horizon),
}


def shares(text: str) -> list[float]:
    """Numbers between 0 and 1, with commas. Raises ValueError, which argparse puts in words."""
    found = [float(part) for part in text.split(",") if part]
    if not all(0 < share < 1 for share in found):
        raise ValueError
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="out/toy/thinking", help="folders, with commas")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--room", type=int, default=384)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--worlds", default="math,api")
    parser.add_argument("--rung", choices=RUNGS, default="standard", help="how hard the tasks are")
    parser.add_argument(
        "--wording", choices=("split", "train"), default="split", help="train: training's words"
    )
    parser.add_argument(
        "--split", choices=("validation", "test"), default="test", help="validation: with --dry"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the decoders"
    )
    parser.add_argument(
        "--rates",
        type=shares,
        default="0.1,0.25,0.5",
        help='of second thoughts, at which gates are compared; "": none are',
    )
    parser.add_argument("--dry", action="store_true", help="record and draw nothing")
    a = parser.parse_args()
    if a.split == "validation" and not a.dry:
        raise UserError("what validation tasks show is for choosing, not for recording: add --dry")
    parts = a.parts.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UserError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if min(a.tasks, a.samples) < 1:
        raise UserError(f"--tasks {a.tasks} --samples {a.samples}: wanted at least 1 of each")
    torch.set_float32_matmul_precision("medium")
    runs = [Run(folder, a) for folder in a.runs.split(",")]
    table = Table(a, len(runs))
    panels = []
    for part in parts:
        for world in a.worlds.split(","):
            found = [kept(run, part, world) for run in runs]
            title = where(world, a)
            print(f"\n{part}, {title}: {a.tasks} {a.split} tasks, {len(runs)} runs")
            tabulate, draw = PARTS[part]
            shown = tabulate(table, title, found)
            if draw and (part != "modes" or a.rates):  # which shows gates
                panels.append((draw, title, shown))
    if panels and not a.dry:
        picture(panels, result_tables.ROOT / "docs" / "hybrid.png")
        print("drawn: docs/hybrid.png")
        print("python -m support.result_tables puts the records into the tables")


if __name__ == "__main__":
    settings.run_script(main)
