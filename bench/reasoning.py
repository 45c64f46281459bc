"""Inverse reasoning, measured on tasks whose names and phrasings training has never seen (paper
§4.2, §5).

    python bench/reasoning.py out/toy/thinking                   one lineage's heads
    python bench/reasoning.py out/lineages/seed*/thinking        several: mean ± std over them
    python bench/reasoning.py out/toy/thinking --tasks 40 --dry  tries it out, records nothing

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
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import numpy as np
import torch
from torch import Tensor

from support import checkpoint
from support import settings
from support import result_tables as results
from config import UserError
from heads import (
    consistency,
    evaluate_steps,
    negative_steps,
    own_steps,
    rejected,
    thinking_gate_values,
)
from labelled_steps import first_tasks, sample_examples
from losses import auroc, calibration_error
from mch import calibrate, fit_logistic
from worlds.labels import PART_NAMES, PARTS
from worlds.difficulty import Difficulty
from worlds.tasks import Tasks, seed_of, world_names

TOKENS = {
    "mean log-probability": ("mean_log_p", 1),
    "least log-probability": ("min_log_p", 1),
    "mean entropy": ("mean_entropy", -1),
    "largest entropy": ("max_entropy", -1),
}  # the surer, the higher
GOALS = {
    ("head", "success, own steps"): "≥ 0.9",
    **{("head", f"{part.name}, hard negatives"): "≥ 0.95" for part in PARTS if part.negative},
}


class Judged:
    """A lineage's held-out steps:

    `found` (heads.evaluate_steps), `rows` (their examples), `scores` and `probabilities` (S, P)
    of every way to judge them.
    """

    def __init__(self, run: Path, tasks: int, trajectories: int):
        model, config, _ = checkpoint.load_run(run)
        heads, data = checkpoint.load_heads(run, config.model), run / "steps.jsonl"
        tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)
        if not data.exists():
            raise UserError(
                f"{run} has no steps.jsonl, the data that its heads were trained on: without it "
                "there is nothing to train a probe on; make the run with "
                "python heads.py config/toy.py"
            )
        c, d, rows = (
            config.heads,
            config.distill,
            [json.loads(line) for line in data.read_text().splitlines()],
        )
        known, seen = (
            [row for row in rows if row["use"] == use] for use in ("train", "validation")
        )
        difficulty = Difficulty.of(d, babble=0.0, style=tokenizer.style)
        own, expert = (
            Tasks(purpose, 0, world_names(c.worlds), difficulty)
            for purpose in ("test", "test expert")
        )
        drawn = sample_examples(
            model,
            tokenizer,
            first_tasks(own, tasks),
            first_tasks(expert, trajectories),
            seed=seed_of(own.purpose, own.seed),
            batch=c.batch,
            room=c.room,
        )
        self.rows = [row for row in drawn if row["steps"]]
        train, validation, self.found = (
            evaluate_steps(model, heads, some) for some in (known, seen, self.rows)
        )
        calibrated = heads["meta"].confidence(self.found["logits"])
        self.scores, self.probabilities = {"head": calibrated}, {"head": calibrated}
        for name, look in (
            ("linear probe", lambda found: found["hidden"]),
            (
                "probe and token figures",
                lambda found: torch.cat(
                    [
                        found["hidden"],
                        *(
                            found[key][:, None]
                            for key in ("mean_log_p", "min_log_p", "mean_entropy", "max_entropy")
                        ),
                    ],
                    1,
                ),
            ),
        ):
            fits = []
            for part in range(len(PARTS)):
                told = ~train["labels"][:, part].isnan()
                fits.append(fit_logistic(look(train)[told], train["labels"][told, part]))
            self.add(
                name,
                *(
                    torch.stack([look(found) @ w + b for w, b in fits], 1)
                    for found in (validation, self.found)
                ),
                validation,
                seen,
            )
        for name, (key, sign) in TOKENS.items():
            self.add(
                name,
                *(
                    sign * found[key][:, None].expand(-1, len(PARTS))
                    for found in (validation, self.found)
                ),
                validation,
                seen,
            )
        gates = [
            1 - thinking_gate_values(heads, steps)[:, None].expand(-1, len(PARTS))
            for steps in (validation, self.found)
        ]
        self.add("gate", *gates, validation, seen)
        self.rejects = rejected(heads["meta"], self.found)  # (S,) of 0 and 1
        own = [row for row in self.rows if row["source"] == "own"]
        ics, prior = consistency(model, heads, own, tokenizer)
        verified = torch.tensor([float(row["verified"]) for row in own])
        self.inverse = {
            "ICS": auroc(ics, verified),
            "ICS over its prior": auroc(ics - prior, verified),
        }

    def add(
        self,
        name: str,
        before: Tensor,
        scores: Tensor,
        validation: dict[str, Tensor],
        seen: list[dict],
    ) -> None:
        """A further way to judge, calibrated by its scores `before` (S', P) of the own validation
        steps.
        """
        columns = []
        for number, part in enumerate(PARTS):
            own = own_steps(part, validation, seen)
            temperature, offset = calibrate(before[own, number], validation["labels"][own, number])
            columns.append(torch.sigmoid(scores[:, number] / temperature + offset))
        self.scores[name], self.probabilities[name] = scores, torch.stack(columns, 1)

    def subsets(self) -> dict[str, tuple[int, Tensor]]:
        """What is measured: name → (part, which steps (S,))."""
        some = {}
        for number, part in enumerate(PARTS):
            some[f"{part.name}, own steps"] = number, own_steps(part, self.found, self.rows)
            if part.negative:
                some[f"{part.name}, hard negatives"] = (
                    number,
                    negative_steps(part, self.found, self.rows),
                )
        success = PART_NAMES.index("success")
        row, own = self.found["row"], own_steps(PARTS[success], self.found, self.rows)
        some["success, last own step"] = (
            success,
            own & torch.cat([row[1:] != row[:-1], torch.ones(1, dtype=torch.bool)]),
        )
        for world in sorted({example["world"] for example in self.rows}):
            some[f"success, own steps of {world}"] = (
                success,
                own & torch.tensor([example["world"] == world for example in self.rows])[row],
            )
        return some


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
    judged: list[Judged], name: str, other: str, draws: int, seed: int = 0
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
            each.found["row"][inside]
        ]
        labels = each.found["labels"][inside, part].double().numpy()
        for into, weights in ((exact, np.ones((1, len(task)))), (drawn, times[:, task])):
            ours, theirs = (
                resampled(each.scores[way][inside, part].double().numpy(), labels, weights)
                for way in ("head", other)
            )
            into.append(ours - theirs)
    low, high = np.nanpercentile(np.mean(drawn, 0), [2.5, 97.5])
    return float(np.mean(exact)), float(low), float(high)


def measure_heads(runs: list[Path], tasks: int, trajectories: int, draws: int, note) -> None:
    """Every figure of the heads, mean over lineages; a lineage in which all labels of a subset are
    equal does not count there.
    """
    judged = [Judged(run, tasks, trajectories) for run in runs]

    def put(group: str, name: str, values: list[float], n: int, **more) -> str:
        values = [value for value in values if value == value]
        if not values:
            return f"{'n/a':>8}"
        mean = statistics.mean(values)
        note(
            f"{group}/{name}",
            round(mean, 3),
            spread=f"± {statistics.stdev(values):.3f} std" if len(values) > 1 else "",
            n=n,
            seeds=len(values),
            goal=GOALS.get((group, name), ""),
            **more,
        )
        return f"{mean:8.3f}"

    ways = list(judged[0].scores)
    print(f"{'AUROC':32}{'steps':>7}{'wrong':>7}" + "".join(f"{way:>26}" for way in ways))
    for name in judged[0].subsets():
        picked = [(each, *each.subsets()[name]) for each in judged if name in each.subsets()]
        labels = [each.found["labels"][inside, part] for each, part, inside in picked]
        wrong = [int((y == 0).sum()) for y in labels]
        amount = f"{np.mean([len(y) for y in labels]):.0f} steps, {np.mean(wrong):.0f} wrong"
        n = tasks if "own" in name else trajectories
        cells = [
            put(
                way,
                name,
                [
                    auroc(each.scores[way][inside, part], y)
                    for (each, part, inside), y in zip(picked, labels)
                ],
                n,
                unit="AUROC",
                note=amount,
            )
            for way in ways
        ]
        print(
            f"{name:32}{len(labels[0]):>7}{wrong[0]:>7}" + "".join(f"{cell:>26}" for cell in cells)
        )
        if name.endswith("own steps"):
            cells = [
                put(
                    way,
                    f"{name}, calibration",
                    [
                        calibration_error(each.probabilities[way][inside, part], y)
                        for (each, part, inside), y in zip(picked, labels)
                    ],
                    n,
                    unit="error",
                    note=amount,
                )
                for way in ways
            ]
            print(f"{'  calibration error':46}" + "".join(f"{cell:>26}" for cell in cells))
        for way in ways[1:] if all(0 < bad < len(y) for bad, y in zip(wrong, labels)) else ():
            value, low, high = difference(judged, name, way, draws)
            print(f"  head over {way:34}{value:+8.3f}   95% {low:+.3f} … {high:+.3f}")
            note(
                f"head over {way}/{name}",
                round(value, 3),
                spread=f"95% {low:+.3f} … {high:+.3f}",
                n=n,
                seeds=len(judged),
                unit="AUROC",
                note=f"paired bootstrap over tasks, {draws} draws",
            )
    for name in [name for name in judged[0].subsets() if " of " in name]:
        shares = [
            100 * each.rejects[each.subsets()[name][1]].mean().item()
            for each in judged
            if name in each.subsets()
        ]
        cell = put("rejected", name, shares, tasks, unit="%").strip()
        print(f"{name}: the head rejects {cell}%")
    for way in judged[0].inverse:
        scores = [each.inverse[way] for each in judged]
        cell = put("inverse", f"{way}, own episodes", scores, tasks, unit="AUROC").strip()
        print(f"{way}: AUROC of verified episodes {cell}")


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
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    measure_heads(
        a.runs,
        a.tasks,
        a.trajectories,
        a.draws,
        (lambda *words, **named: None)
        if a.dry
        else lambda *words, **named: results.record("reasoning", *words, **named),
    )


if __name__ == "__main__":
    settings.run_script(main)
