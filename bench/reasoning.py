"""Inverse reasoning, measured on tasks whose names and phrasings training has never seen (paper
§4.2, §5).

    python bench/reasoning.py out/toy/thinking                   one lineage's heads
    python bench/reasoning.py out/lineages/seed*/thinking        several: mean ± std over them
    python bench/reasoning.py out/toy/thinking --tasks 40 --dry  tries it out, records nothing
    python bench/reasoning.py out/problems/thinking --only plans

The confidence head (equation 6). On the agent's own steps, sampled with faults, how well each part
of the confidence vector tells right from wrong (AUROC), and how true its probabilities are
(expected calibration error, 15 bins of equal mass); AUROC also on hard negatives
against the expert's calls. Beside the head stand
    linear probe               logistic regression on the decoder's hidden state at the step's last
                               token, from the head's own training data
    probe and token figures    the same with the four figures of the step's tokens added
    mean, least log-probability, mean and largest entropy     of its tokens, no training at all
    gate                       1 − γ of equation 7, which was fitted to what the head rejects
all calibrated on the head's own validation data, with a temperature and an offset each. Differences
are of the same steps; their intervals come from drawing the tasks anew, with replacement, 2000
times (a paired bootstrap; steps of one task stay together). Pooled over worlds, `success` also
profits from knowing which world is hard: the figures of a single world do not.

The inverse head (§5.3). Of math tasks, how often it prefers the expert's plan, by inverse
consistency, to the same plan with one operator swapped for its opposite (where that, too, makes a
whole number above 0), and with one wrong sum; half is chance. The request says which operator is
right and never what a sum is: the second is a control, and whoever reads the request alone gets
half of it.
"""

import argparse
import json
import math
import operator
import random
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import numpy as np
import torch
from torch import Tensor

from config import Config, Heads, UserError
from heads import (
    consistency,
    evaluate_steps,
    negative_steps,
    own_steps,
    rejected,
    thinking_gate_values,
)
from labelled_steps import expert_examples, first_tasks, own_examples
from losses import auroc, calibration_error
from mch import ThinkingHeads, calibrate, closed, fit_logistic
from model import SAGE
from support import checkpoint, result_tables, settings
from support.tokenizer import Tokenizer
from think import constraint_tokens
from worlds.difficulty import Difficulty
from worlds.expert import solve_task
from worlds.labels import PART_NAMES, PARTS
from worlds.tasks import Tasks, seed_of, world_names

TOKENS = {
    "mean log-probability": ("mean_log_p", 1),
    "least log-probability": ("min_log_p", 1),
    "mean entropy": ("mean_entropy", -1),
    "largest entropy": ("max_entropy", -1),
}  # the surer, the higher
GOALS = {
    "head/success, own steps": "≥ 0.9",
    **{f"head/{part.name}, hard negatives": "≥ 0.95" for part in PARTS if part.negative},
}
SUCCESS = PART_NAMES.index("success")

Steps = dict[str, Tensor]  # what heads.evaluate_steps says of S steps


# --------------------------------------------------------------------------------------------------
# One run: its steps on held-out tasks, judged in several ways.


@dataclass
class HeldOut:
    """Steps of held-out tasks, and what every way to judge them says, by the way's name."""

    rows: list[dict]  # the examples they stand in
    steps: Steps
    scores: dict[str, Tensor]  # (S, P), the higher the likelier right
    probabilities: dict[str, Tensor]  # (S, P), calibrated
    rejected: Tensor  # (S,), 1 where the head would reject the step
    inverse: dict[str, float]  # AUROC of verified episodes

    def subsets(self) -> dict[str, tuple[int, Tensor]]:
        """What is measured: name → (part, which steps (S,))."""
        some = {}
        for number, part in enumerate(PARTS):
            some[f"{part.name}, own steps"] = number, own_steps(part, self.steps, self.rows)
            if part.negative:
                spoilt = negative_steps(part, self.steps, self.rows)
                some[f"{part.name}, hard negatives"] = number, spoilt
        row, own = self.steps["row"], own_steps(PARTS[SUCCESS], self.steps, self.rows)
        is_last = torch.cat([row[1:] != row[:-1], torch.ones(1, dtype=torch.bool)])
        some["success, last own step"] = SUCCESS, own & is_last
        for world in sorted({example["world"] for example in self.rows}):
            inside = torch.tensor([example["world"] == world for example in self.rows])[row]
            some[f"success, own steps of {world}"] = SUCCESS, own & inside
        return some

    def tasks_of(self, inside: Tensor) -> set[tuple[str, int]]:
        """The tasks of some steps (S,)."""
        rows = [self.rows[number] for number in self.steps["row"][inside].tolist()]
        return {(row["world"], row["seed"]) for row in rows}


def held_out_examples(
    model: SAGE, tokenizer: Tokenizer, config: Config, tasks: int, trajectories: int
) -> list[dict]:
    """Sampled episodes of test tasks, and the expert's with hard negatives, as in heads.py."""
    worlds = world_names(config.heads.worlds)
    difficulty = Difficulty.of(config.distill, babble=0.0, style=tokenizer.style)
    own = Tasks("test", 0, worlds, difficulty)
    expert = Tasks("test expert", 0, worlds, difficulty)
    options = dict(
        seed=seed_of(own.purpose, own.seed), batch=config.heads.batch, room=config.heads.room
    )
    drawn = own_examples(model, tokenizer, first_tasks(own, tasks), **options)
    drawn += expert_examples(first_tasks(expert, trajectories), tokenizer)
    return [row for row in drawn if row["steps"]]


def hidden_states(steps: Steps) -> Tensor:
    return steps["hidden"]


def with_token_figures(steps: Steps) -> Tensor:
    """Hidden states (S, D) and the figures of the step's tokens: (S, D + 4)."""
    figures = [steps[key][:, None] for key, _ in TOKENS.values()]
    return torch.cat([steps["hidden"], *figures], 1)


def fitted_probe(features: Callable[[Steps], Tensor], train: Steps) -> Callable[[Steps], Tensor]:
    """A logistic regression on features for each part: a way to judge, steps → scores (S, P)."""
    fits = []
    for part in range(len(PARTS)):
        known = ~train["labels"][:, part].isnan()
        fits.append(fit_logistic(features(train)[known], train["labels"][known, part]))
    return lambda steps: torch.stack([features(steps) @ w + b for w, b in fits], 1)


def for_every_part(score: Tensor) -> Tensor:
    """One score (S,) of steps, for each part alike: (S, P)."""
    return score[:, None].expand(-1, len(PARTS))


def token_figure(key: str, sign: int, steps: Steps) -> Tensor:
    return for_every_part(sign * steps[key])


def ways_to_judge(heads: ThinkingHeads, train: Steps) -> dict[str, Callable[[Steps], Tensor]]:
    """What stands beside the confidence head, by name: steps → scores (S, P)."""
    ways = {
        "linear probe": fitted_probe(hidden_states, train),
        "probe and token figures": fitted_probe(with_token_figures, train),
    }
    for name, (key, sign) in TOKENS.items():
        ways[name] = partial(token_figure, key, sign)
    ways["gate"] = lambda steps: for_every_part(1 - thinking_gate_values(heads, steps))
    return ways


def calibrated(scores: Tensor, before: Tensor, validation: Steps, rows: list[dict]) -> Tensor:
    """Scores (S, P) as probabilities, by the scores `before` (S', P) of the own validation steps,
    whose examples are `rows`: a temperature and an offset for each part.
    """
    columns = []
    for number, part in enumerate(PARTS):
        own = own_steps(part, validation, rows)
        temperature, offset = calibrate(before[own, number], validation["labels"][own, number])
        columns.append(torch.sigmoid(scores[:, number] / temperature + offset))
    return torch.stack(columns, 1)


def judge(run: Path, tasks: int, trajectories: int) -> HeldOut:
    """Play held-out tasks with a run's decoder and judge the steps. Raises UserError."""
    model, config, _ = checkpoint.load_run(run)
    heads = checkpoint.load_heads(run, config.model)
    tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)
    data = run / "steps.jsonl"
    if not data.exists():
        raise UserError(
            f"{run} has no steps.jsonl, the data that its heads were trained on: without it there "
            "is nothing to train a probe on; make the run with python heads.py config/toy.py"
        )
    seen = [json.loads(line) for line in data.read_text().splitlines()]
    validation_rows = [row for row in seen if row["use"] == "validation"]
    train = evaluate_steps(model, heads, [row for row in seen if row["use"] == "train"])
    validation = evaluate_steps(model, heads, validation_rows)
    rows = held_out_examples(model, tokenizer, config, tasks, trajectories)
    steps = evaluate_steps(model, heads, rows)

    confidence = heads["meta"].confidence(steps["logits"])
    scores, probabilities = {"head": confidence}, {"head": confidence}
    for name, way in ways_to_judge(heads, train).items():
        scores[name] = way(steps)
        before = way(validation)
        probabilities[name] = calibrated(scores[name], before, validation, validation_rows)

    own = [row for row in rows if row["source"] == "own"]
    ics, prior = consistency(model, heads, own, tokenizer)
    verified = torch.tensor([float(row["verified"]) for row in own])
    inverse = {"ICS": auroc(ics, verified), "ICS over its prior": auroc(ics - prior, verified)}
    return HeldOut(rows, steps, scores, probabilities, rejected(heads["meta"], steps), inverse)


# --------------------------------------------------------------------------------------------------
# The inverse head: right and wrong plans.

EQUATION = re.compile(r"= (\d+) ([-+*/]) (\d+)( up)? = (-?\d+)")
OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}
COMPUTED = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


def swapped_operator(equation: re.Match) -> str | None:
    """For "= 24 + 9 = 33" it is "= 24 - 9 = 15"; None where no whole number above 0 comes out."""
    a, sign, b = int(equation[1]), OPPOSITE[equation[2]], int(equation[3])
    if (sign == "/" and a % b) or (sign == "-" and a <= b):
        return None
    return f"= {a} {sign} {b} = {COMPUTED[sign](a, b)}"


def wrong_sum(equation: re.Match) -> str:
    """For "= 24 + 9 = 33" it is "= 24 + 9 = 34"."""
    before = equation[0].removesuffix(equation[5])
    return f"{before}{int(equation[5]) + 1}"


WRONG_PLANS = {"a swapped operator": swapped_operator, "a wrong sum": wrong_sum}


def spoilt_plan(
    plan: str, spoil: Callable[[re.Match], str | None], rng: random.Random
) -> str | None:
    """A plan with one of its equations spoilt; None where it has none that can be."""
    equations = list(EQUATION.finditer(plan))
    rng.shuffle(equations)
    for equation in equations:
        if spoilt := spoil(equation):
            return plan[: equation.start()] + spoilt + plan[equation.end() :]
    return None


def plans_found(run: Path, tasks: int) -> dict[str, list[bool]]:
    """By words and fault: in which test tasks of the math world the inverse head prefers the
    expert's plan to the spoilt one.
    """
    model, config, _ = checkpoint.load_run(run, torch.float32)
    inverse = checkpoint.load_heads(run, model.config)["inverse"]
    tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)

    def ended(text: str) -> list[int]:
        return closed(tokenizer.encode(text), tokenizer.stop[0])

    found = {}
    for wording, words in (("train", "training's words"), ("split", "other words")):
        shown = dict(request_wording=wording, names=config.distill.names, style=tokenizer.style)
        difficulty = Difficulty(split="test", **shown)
        drawn = Tasks("test", 0, ["math"], difficulty)
        rng = random.Random(0)
        for number in range(tasks):
            plan = solve_task(drawn[number])[0][-1]["content"]
            constraints = constraint_tokens(drawn[number], tokenizer)
            for fault, spoil in WRONG_PLANS.items():
                spoilt = spoilt_plan(plan, spoil, rng)
                if spoilt is None:
                    continue
                both = [ended(plan), ended(spoilt)]
                (right, wrong), _ = inverse.scores(model, both, [constraints, constraints])
                found.setdefault(f"{fault}, {words}", []).append(right > wrong)
    return found


# --------------------------------------------------------------------------------------------------
# Differences, by a paired bootstrap.


def resampled(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of scores (S,) with labels (S,) for each draw of weights (N, S): how often each step
    was drawn; NaN where a class is absent.
    """
    level = np.unique(scores, return_inverse=True)[1]
    sums = [
        np.stack([np.bincount(level, row * of, level.max() + 1) for row in weights])
        for of in (labels, 1 - labels)
    ]  # (N, levels) of positives, of negatives
    positive, negative = sums
    below = negative.cumsum(1) - negative / 2  # negatives under each level, those on it by half
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def difference(
    judged: list[HeldOut], name: str, other: str, draws: int, seed: int = 0
) -> tuple[float, float, float]:
    """By how much the head's AUROC exceeds another's, mean over lineages, and the 95% interval over
    tasks drawn anew (the same draw for every lineage).
    """
    tasks = sorted({(row["world"], row["seed"]) for each in judged for row in each.rows})
    number = {task: place for place, task in enumerate(tasks)}
    times = np.random.default_rng(seed).multinomial(
        len(tasks), [1 / len(tasks)] * len(tasks), draws
    )  # (N, tasks): how often each is drawn
    exact, drawn = [], []
    for each in judged:
        part, inside = each.subsets()[name]
        task = np.array([number[row["world"], row["seed"]] for row in each.rows])[
            each.steps["row"][inside]
        ]
        labels = each.steps["labels"][inside, part].double().numpy()
        ours, theirs = (each.scores[way][inside, part].double().numpy() for way in ("head", other))

        def gap(weights, ours=ours, theirs=theirs, labels=labels):
            return resampled(ours, labels, weights) - resampled(theirs, labels, weights)

        exact.append(gap(np.ones((1, len(task)))))
        drawn.append(gap(times[:, task]))
    low, high = np.nanpercentile(np.mean(drawn, 0), [2.5, 97.5])
    return float(np.mean(exact)), float(low), float(high)


# --------------------------------------------------------------------------------------------------
# The figures.


@dataclass
class Record:
    """A figure, one value per run; NaN where all labels are equal, which does not count."""

    name: str
    values: list[float]
    n: int  # tasks
    unit: str
    note: str = ""
    spread: str = ""  # empty: the deviation over the runs
    digits: int = 3

    def keep(self, seeds: int) -> None:
        known = [value for value in self.values if not math.isnan(value)]
        if not known:
            return
        spread = f"± {statistics.stdev(known):.{self.digits}f} std" if len(known) > 1 else ""
        result_tables.record(
            "reasoning",
            self.name,
            round(statistics.mean(known), self.digits),
            spread=self.spread or spread,
            n=self.n,
            seeds=seeds if self.spread else len(known),
            unit=self.unit,
            goal=GOALS.get(self.name, ""),
            note=self.note,
        )

    def line(self) -> str:
        known = [value for value in self.values if not math.isnan(value)]
        mean = f"{statistics.mean(known):8.3f}" if known else f"{'n/a':>8}"
        return f"{self.name:68}{mean} {self.unit:6} {self.spread:28} {self.note}"


def records_of(judged: list[HeldOut], name: str, draws: int) -> Iterator[Record]:
    """The figures of one subset of steps."""
    picked = [(each, *each.subsets()[name]) for each in judged if name in each.subsets()]
    labels = [each.steps["labels"][inside, part] for each, part, inside in picked]
    wrong = [int((y == 0).sum()) for y in labels]
    note = f"{np.mean([len(y) for y in labels]):.0f} steps, {np.mean(wrong):.0f} wrong"
    n = round(statistics.mean(len(each.tasks_of(inside)) for each, _, inside in picked))
    for way in judged[0].scores:
        pairs = list(zip(picked, labels, strict=True))
        values = [auroc(each.scores[way][inside, part], y) for (each, part, inside), y in pairs]
        yield Record(f"{way}/{name}", values, n, "AUROC", note)
        if name.endswith("own steps"):
            values = [
                calibration_error(each.probabilities[way][inside, part], y)
                for (each, part, inside), y in pairs
            ]
            yield Record(f"{way}/{name}, calibration", values, n, "error", note)
        if way != "head" and all(0 < bad < len(y) for bad, y in zip(wrong, labels)):
            value, low, high = difference(judged, name, way, draws)
            spread = f"95% {low:+.3f} … {high:+.3f}"
            how = f"paired bootstrap over tasks, {draws} draws"
            yield Record(f"head over {way}/{name}", [value], n, "AUROC", how, spread)
    if " of " in name:  # of one world
        shares = [100 * each.rejected[inside].mean().item() for each, _, inside in picked]
        yield Record(f"rejected/{name}", shares, n, "%", note)


def records_of_steps(judged: list[HeldOut], draws: int) -> Iterator[Record]:
    """The figures of every subset of steps, and how inverse consistency tells episodes apart."""
    for name in judged[0].subsets():
        yield from records_of(judged, name, draws)
    for way in judged[0].inverse:
        values = [each.inverse[way] for each in judged]
        whole = [sum(row["source"] == "own" for row in each.rows) for each in judged]
        n = round(statistics.mean(whole))  # episodes with a whole message
        yield Record(f"inverse/{way}, own episodes", values, n, "AUROC")


def and_pairs(c: Heads) -> str:
    return f" and pairs of {c.contrast:,} tasks' samples" if c.contrast else ""


def records_of_plans(runs: list[Path], tasks: int) -> Iterator[Record]:
    """How often the right plan is preferred, one value per run."""
    found = [plans_found(run, tasks) for run in runs]
    settings_of = [checkpoint.read_meta(checkpoint.latest(run))[1].heads for run in runs]
    sizes = {f"heads of {c.solutions:,} solutions" + and_pairs(c) for c in settings_of}
    if len(sizes) > 1:
        raise UserError(
            f"{' and '.join(sorted(sizes))} are not the same but for their seeds; name runs of one "
            "size"
        )
    heads = sizes.pop()
    for name in found[0]:
        values = [100 * statistics.mean(each[name]) for each in found]
        n = len(found[0][name])
        yield Record(f"plans/{heads}: right over {name}", values, n, "%", digits=1)


def parts(text: str) -> set[str]:
    """What --only names."""
    chosen = set(text.split(","))
    if unknown := chosen - {"steps", "plans"}:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; wanted steps, plans")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders that heads.py has written, one a lineage"
    )
    parser.add_argument(
        "--tasks", type=int, default=900, help="of the agent's own episodes, the worlds in turn"
    )
    parser.add_argument(
        "--trajectories", type=int, default=450, help="of the expert, with hard negatives"
    )
    parser.add_argument("--plans", type=int, default=150, help="tasks of the math world")
    parser.add_argument("--only", type=parts, default="steps,plans", help="steps, plans")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    records = []
    if "steps" in a.only:
        records += records_of_steps(
            [judge(run, a.tasks, a.trajectories) for run in a.runs], a.draws
        )
    if "plans" in a.only:
        records += records_of_plans(a.runs, a.plans)
    for record in records:
        print(record.line())
        if not a.dry:
            record.keep(len(a.runs))


if __name__ == "__main__":
    settings.run_script(main)
