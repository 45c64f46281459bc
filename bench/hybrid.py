"""What second thoughts are worth: votes among n samples; fast, reason and hybrid with the curve
over τ; ablations; and whether equation 9 foretells the checked agent.

    votes       n sampled episodes of each task; which one each rule chooses (think.vote), for several n, with the paired difference from the majority
    modes       success and cost of fast, reason and hybrid; the hybrid at several rates of second thoughts, with the gate, a random gate and an entropy gate
    ablations   mode reason with another λ, n, without counterfactuals, with critique, without the head
    horizon     ε, α, β, ε_r measured on one half of the tasks; equation 9 and (1 − ε′)^T from them; beside it how long the agent really stays right on the other half

Held-out tasks, the same for all; each part of each run is kept in the run's folder and not measured
twice. Differences are means over tasks with the 95% interval of
10,000 paired bootstrap draws; several runs (one a seed) give mean ± standard deviation.

    python bench/hybrid.py --runs out/lineages/seed1/thinking,out/lineages/seed2/thinking,out/lineages/seed3/thinking
    python bench/hybrid.py --runs out/toy/thinking --tasks 8 --samples 4 --parts votes,modes --dry       tries it out, records and draws nothing
"""

import argparse
import json
import random
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import numpy as np
import torch

from support import checkpoint
from support import settings
from support import result_tables as results
from config import Eval, Think
from agent import rollouts
from fast.thinking import think
from think import Vote, vote, votes_of
from worlds.tools import check, parse
from worlds.base import Difficulty, Task, Tasks, same_answer

RATES = (0.1, 0.25, 0.5)  # of second thoughts, at which gates are compared
RULES = ("majority", "ICS-filtered", "head-weighted", "least energy", "oracle")
ABLATIONS = {
    **{f"λ = {lam:g}": dict(lam=lam) for lam in (0.0, 0.1, 1.0)},
    **{f"n = {n}": dict(n=n) for n in (1, 4)},
    "without counterfactuals": dict(counterfactuals=""),
    "with critique": dict(critique=True),
    "without the head": dict(
        counterfactuals="", theta=0.0, delta=1.0
    ),  # least energy of n, whatever the confidence
    "likelihood alone": dict(counterfactuals="", theta=0.0, delta=1.0, lam=0.0),
}
HORIZONS = range(1, 21)


# ------------------------------------------------------------------------------------------------------
# measuring one run


class Mind:
    """A run's model with its heads, and the tasks it is given."""

    def __init__(self, run: str, a: argparse.Namespace):
        self.run, self.a = Path(settings.absolute(run)), a
        self.model, config, _ = checkpoint.load_run(self.run)
        self.heads = checkpoint.load_heads(self.run, self.model.config)
        self.tokenizer = checkpoint.tokenizer_of(self.run, config.data.tokenizer)

    def tasks(self, world: str, first: int = 0, **more) -> list[Task]:
        drawn = Tasks("test", Eval.seed, [world], Difficulty(**more))
        return [drawn[first + index] for index in range(self.a.tasks)]

    def episodes(
        self, tasks: list[Task], settings: Think, gate=None, faults: bool = True
    ) -> list[dict]:
        """One episode of each task, as the figures that are kept of it."""
        began = time.perf_counter()
        done = think(
            self.model,
            self.heads,
            self.tokenizer,
            tasks,
            settings,
            batch=self.a.batch,
            faults=faults,
            gate=gate,
        )
        print(
            f"    {settings.mode:7} {sum(t.rollout.verified for t in done) / len(done):6.1%} verified, {sum(t.cost.flops for t in done) / 1e9:8.1f} GFLOP, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        return [
            dict(
                verified=t.rollout.verified,
                steps=len(t.steps),
                reasoned=sum(s.reasoned for s in t.steps),
                fallback=sum(s.chosen.fate == "fallback" for s in t.steps),
                gates=[s.gate for s in t.steps if s.gate is not None],
                entropies=[s.chosen.entropy for s in t.steps],
                cost=asdict(t.cost),
            )
            for t in done
        ]

    def votes(self, world: str) -> list[list[dict]]:
        """n samples of each task, as votes."""
        tasks, a = self.tasks(world), self.a
        found = []
        for start in range(0, len(tasks), max(1, 64 // a.samples)):
            some = tasks[start : start + max(1, 64 // a.samples)]
            done = rollouts(
                self.model,
                self.tokenizer,
                [task for task in some for _ in range(a.samples)],
                1.0,
                seed=start,
                room=a.room,
            )
            judged = votes_of(self.model, self.heads, self.tokenizer, done)
            found += [
                [asdict(v) for v in judged[i * a.samples : (i + 1) * a.samples]]
                for i in range(len(some))
            ]
        return found

    def modes(self, world: str) -> dict[str, list[dict]]:
        """fast, reason, hybrid as the heads came, and three gates at several rates; their
        thresholds are quantiles over other tasks' fast steps.
        """
        tasks = self.tasks(world)
        asked = self.episodes(self.tasks(world, first=100_000), Think(mode="hybrid", tau=1.0))
        found = {
            mode: self.episodes(tasks, Think(mode=mode)) for mode in ("fast", "reason", "hybrid")
        }
        gates = {
            "gate": (None, [g for e in asked for g in e["gates"]]),
            "entropy": (
                lambda hidden, entropy: 1 - torch.exp(-entropy),
                [1 - np.exp(-h) for e in asked for h in e["entropies"]],
            ),
        }
        for rate in RATES:
            for name, (gate, values) in gates.items():
                found[f"{name} {rate}"] = self.episodes(
                    tasks, Think(tau=float(np.quantile(values, 1 - rate))), gate
                )
            generator = torch.Generator().manual_seed(0)
            found[f"random {rate}"] = self.episodes(
                tasks,
                Think(tau=1 - rate),
                lambda hidden, entropy: torch.rand(len(entropy), generator=generator),
            )
        return found

    def ablations(self, world: str) -> dict[str, list[dict]]:
        found = {"whole": self.episodes(self.tasks(world), Think(mode="reason"))}
        return found | {
            name: self.episodes(self.tasks(world), Think(mode="reason", **changes))
            for name, changes in ABLATIONS.items()
        }

    def horizon(self, world: str) -> dict[str, list[list]]:
        """Of each episode without faults, its steps up to the first wrong one:

        [right] as sampled; and [first draft right, accepted, taken step right] with a check and one
        revision.
        """
        tasks = self.tasks(world)
        plain = think(
            self.model,
            self.heads,
            self.tokenizer,
            tasks,
            Think(mode="fast", fast_temperature=1.0),
            batch=self.a.batch,
            faults=False,
        )
        checked = think(
            self.model,
            self.heads,
            self.tokenizer,
            tasks,
            Think(mode="reason", fast_temperature=1.0, n=1, lam=0.0, resamples=1),
            batch=self.a.batch,
            faults=False,
        )
        found: dict[str, list[list]] = {"plain": [], "checked": []}
        for name, done in (("plain", plain), ("checked", checked)):
            for t in done:
                left, steps = [step.call for step in t.rollout.task.solution if step.call], []
                for step in t.steps:
                    first, taken = (
                        right(step.candidates[0].text, t.rollout.task, left),
                        right(step.chosen.text, t.rollout.task, left),
                    )
                    steps.append(
                        [
                            first is not None,
                            step.chosen.round == 0 and step.chosen.fate == "committed",
                            taken is not None,
                        ]
                        if name == "checked"
                        else [taken is not None]
                    )
                    if taken is None:
                        break
                    left = taken
                found[name].append(steps)
        return found


def right(text: str, task: Task, left: list[dict]) -> list[dict] | None:
    """What is left of a solution's calls after a message, if it is right;

    None if it is wrong. An answer is right when nothing is left and it is the one that was wanted.
    """
    calls, faults = parse(text)
    if not calls and not faults:
        return (
            []
            if not left
            and (
                same_answer(text, task.answer)
                or task.answer.startswith("refuse")
                and text.startswith("refuse")
            )
            else None
        )
    if faults or any(check(call, task.tools) for call in calls):
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


def kept(mind: Mind, part: str, world: str):
    """A part's measurements, from the run's folder if they were made there with the same sizes."""
    a, newest = mind.a, checkpoint.latest(mind.run)
    path = mind.run / "reasoning" / f"{part}-{world}.json"
    sizes = dict(
        tasks=a.tasks,
        checkpoint=newest.name,
        seed=Eval.seed,
        settings=asdict(Think()),
        **(dict(samples=a.samples, room=a.room) if part == "votes" else {}),
    )
    if path.exists() and (stored := json.loads(path.read_text()))["sizes"] == sizes:
        return stored["found"]
    print(f"  {mind.run.parent.name}/{mind.run.name}: {part}, {world}", flush=True)
    found = getattr(mind, part)(world)
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(dict(sizes=sizes, found=found)))
    aside.replace(path)
    return found


# ------------------------------------------------------------------------------------------------------
# tables


def bootstrap(
    ours: list[float], theirs: list[float], draws: int = 10_000
) -> tuple[float, float, float]:
    """Mean of the paired differences in points, and the 95% interval of its bootstrap over tasks."""
    difference = 100 * (np.array(ours, dtype=float) - np.array(theirs, dtype=float))
    means = difference[
        np.random.default_rng(0).integers(0, len(difference), (draws, len(difference)))
    ].mean(1)
    return difference.mean(), *np.quantile(means, (0.025, 0.975))


def spread(values: list[float]) -> str:
    return f"± {statistics.stdev(values):.1f} std" if len(values) > 1 else ""


class Table:
    """Records of one part over several runs: printed, and kept unless the run is dry."""

    def __init__(self, a: argparse.Namespace, runs: int):
        self.a, self.runs = a, runs

    def row(self, name: str, values: list[float], unit: str = "%", note: str = "", **more) -> None:
        print(f"  {name:44} {statistics.mean(values):8.2f} {unit:16} {spread(values):14} {note}")
        if not self.a.dry:
            results.record(
                "reasoning",
                name,
                round(statistics.mean(values), 2),
                spread=spread(values),
                n=self.a.tasks,
                seeds=self.runs,
                unit=unit,
                note=note,
                **more,
            )

    def against(
        self, name: str, ours: list[list[float]], theirs: list[list[float]], **more
    ) -> None:
        """The paired difference, tasks of all runs together."""
        mean, low, high = bootstrap(
            [x for run in ours for x in run], [x for run in theirs for x in run]
        )
        self.row(
            name,
            [100 * (statistics.mean(o) - statistics.mean(t)) for o, t in zip(ours, theirs)],
            "points",
            f"95% interval {low:+.1f} to {high:+.1f}",
            **more,
        )


def votes_table(table: Table, world: str, runs: list[list[list[dict]]]) -> None:
    paper = (
        {"one sample": "78.9", "majority": "88.4", "ICS-filtered": "91.8"}
        if world == "math"
        else {}
    )
    table.row(
        f"vote/{world} one sample",
        [
            100 * statistics.mean(float(v["verified"]) for samples in run for v in samples)
            for run in runs
        ],
        note=f"mean of {table.a.samples}",
        paper=paper.get("one sample", ""),
    )
    for n in sorted({min(n, table.a.samples) for n in (4, 8, 16, table.a.samples)}):
        chosen = [[vote([Vote(**v) for v in samples[:n]]) for samples in run] for run in runs]
        right_ = {
            rule: [
                [float(found[rule] is not None and found[rule].verified) for found in run]
                for run in chosen
            ]
            for rule in RULES
        }
        for rule in RULES:
            table.row(
                f"vote/{world} {rule} of {n}",
                [100 * statistics.mean(run) for run in right_[rule]],
                paper=paper.get(rule, "") if n == 32 else "",
            )
        for rule in ("ICS-filtered", "head-weighted", "least energy"):
            table.against(
                f"vote/{world} {rule} − majority of {n}",
                right_[rule],
                right_["majority"],
                goal="≥ 3.4" if n == 32 and rule != "least energy" else "",
            )


def total(run: list[dict], what: str) -> float:
    return sum(e["cost"][what] for e in run)


def modes_table(table: Table, world: str, runs: list[dict[str, list[dict]]]) -> None:
    paper = {
        "fast": ("58.4", "1.0"),
        "reason": ("73.1", "3.8"),
        "hybrid": ("71.8", "1.4"),
    }  # success, cost
    success = lambda name: [[float(e["verified"]) for e in run[name]] for run in runs]
    for name in runs[0]:
        rate = statistics.mean(
            sum(e["reasoned"] for e in run[name]) / sum(e["steps"] for e in run[name])
            for run in runs
        )
        table.row(
            f"hybrid/{world} {name}: success",
            [100 * statistics.mean(run) for run in success(name)],
            note=f"{rate:.0%} of the steps thought about",
            paper=paper.get(name, ("",))[0],
        )
        table.row(
            f"hybrid/{world} {name}: FLOPs",
            [total(run[name], "flops") / total(run["fast"], "flops") for run in runs],
            "× fast",
            paper=paper.get(name, ("", ""))[1],
        )
        if name in paper:
            table.row(
                f"hybrid/{world} {name}: seconds",
                [total(run[name], "seconds") / total(run["fast"], "seconds") for run in runs],
                "× fast",
                note=f"{table.a.batch} episodes together",
            )
    for name in ("reason", "hybrid"):
        gained = [
            place
            for place, (fast, other) in enumerate(zip(runs[0]["fast"], runs[0][name]))
            if other["verified"] and not fast["verified"]
        ]
        print(
            f"  {name} succeeds where fast fails (python sample.py --think --world {world} --task …): {', '.join(map(str, gained[:20])) or 'nowhere'}"
        )
        table.against(f"hybrid/{world} {name} − fast", success(name), success("fast"))
    for rate in RATES:
        for other in ("random", "entropy"):
            table.against(
                f"hybrid/{world} gate − {other} gate at {rate}",
                success(f"gate {rate}"),
                success(f"{other} {rate}"),
            )
    best = max(
        RATES,
        key=lambda rate: (
            statistics.mean(map(statistics.mean, success(f"gate {rate}")))
            >= 0.98 * statistics.mean(map(statistics.mean, success("reason"))),
            -rate,
        ),
    )
    for name, note in (
        ("hybrid", "τ as the heads came"),
        (f"gate {best}", "the least rate that keeps 98% on these tasks, or else the least"),
    ):
        table.row(
            f"hybrid/{world} {name} of reason's success",
            [
                100 * statistics.mean(o) / max(statistics.mean(t), 1e-9)
                for o, t in zip(success(name), success("reason"))
            ],
            goal="≥ 98",
            note=note,
        )
        table.row(
            f"hybrid/{world} {name} of reason's cost",
            [100 * total(run[name], "flops") / total(run["reason"], "flops") for run in runs],
            goal="≤ 40",
        )


def ablations_table(table: Table, world: str, runs: list[dict[str, list[dict]]]) -> None:
    success = lambda name: [[float(e["verified"]) for e in run[name]] for run in runs]
    for name in runs[0]:
        fallback = statistics.mean(
            sum(e["fallback"] for e in run[name]) / sum(e["steps"] for e in run[name])
            for run in runs
        )
        cost = statistics.mean(
            total(run[name], "flops") / total(run["whole"], "flops") for run in runs
        )
        table.row(
            f"ablation/{world} {name}",
            [100 * statistics.mean(run) for run in success(name)],
            note=f"{cost:.2f} × the FLOPs, {fallback:.0%} of the steps fell back",
        )
        if name != "whole":
            table.against(f"ablation/{world} {name} − whole", success(name), success("whole"))


def rates_of(episodes: list[list[list[bool]]]) -> dict[str, float]:
    """ε, α, β, ε_r and equation 9's ε′ from checked steps [first right, accepted, taken right];

    NaN where there was nothing to count.
    """
    steps = [step for episode in episodes for step in episode]
    mean = lambda values: float(np.mean(values)) if len(values) else float("nan")
    e, a, b = (
        mean([not f for f, _, _ in steps]),
        mean([not ok for f, ok, _ in steps if not f]),
        mean([ok for f, ok, _ in steps if f]),
    )
    r = mean([not taken for _, ok, taken in steps if not ok])
    return {
        "ε": e,
        "α": a,
        "β": b,
        "ε_r": r,
        "ε′": e * (1 - a) + (e * a + (1 - e) * (1 - b)) * (0.0 if r != r else r),
    }


def survival(episodes: list[list[bool]], draws: int, rng: random.Random) -> list[float]:
    """The share of sessions, made of episodes drawn one after another, that are still right after T
    steps, for T in HORIZONS.
    """
    alive = [0] * len(HORIZONS)
    for _ in range(draws):
        length, fine = 0, True
        while fine and length < HORIZONS[-1]:
            for ok in rng.choice(episodes):
                if not ok:
                    fine = False
                    break
                length += 1
        for place, horizon in enumerate(HORIZONS):
            alive[place] += length >= horizon
    return [count / draws for count in alive]


def horizon_table(table: Table, world: str, runs: list[dict[str, list]]) -> dict[str, np.ndarray]:
    """Constants from the even tasks, survival on the odd ones; the interval is over 200 bootstrap
    draws of the odd tasks. Returns what the picture shows.
    """
    halves = [{name: (run[name][::2], run[name][1::2]) for name in run} for run in runs]
    pooled = {
        name: tuple([e for h in halves for e in h[name][half] if e] for half in (0, 1))
        for name in ("plain", "checked")
    }
    constants = [rates_of(h["checked"][0]) for h in halves]
    for name in ("ε", "α", "β", "ε_r", "ε′"):
        table.row(
            f"equation 9/{world} {name}",
            [100 * c[name] for c in constants],
            note=""
            if name != "ε′"
            else "foretold for the checked agent's step, from the four above",
        )
    whole = rates_of(pooled["checked"][0])
    plain_error = float(np.mean([not ok for e in pooled["plain"][0] for (ok,) in e]))
    table.row(
        f"equation 9/{world} ε′ measured",
        [
            100 * float(np.mean([not taken for e in h["checked"][1] for _, _, taken in e]))
            for h in halves
        ],
        note="on the other half",
    )
    rng, shown = random.Random(0), {}
    for name, episodes, error in (
        ("plain", [[ok for (ok,) in e] for e in pooled["plain"][1]], plain_error),
        ("checked", [[taken for _, _, taken in e] for e in pooled["checked"][1]], whole["ε′"]),
    ):
        draws = np.array(
            [survival(rng.choices(episodes, k=len(episodes)), 200, rng) for _ in range(200)]
        )
        shown[name], shown[f"{name} low"], shown[f"{name} high"] = (
            np.array(survival(episodes, 5000, rng)),
            *np.quantile(draws, (0.025, 0.975), 0),
        )
        shown[f"{name} foretold"] = (1 - error) ** np.array(HORIZONS)
        inside = (shown[f"{name} foretold"] >= shown[f"{name} low"]) & (
            shown[f"{name} foretold"] <= shown[f"{name} high"]
        )
        for horizon in (1, 5, 10, 20):
            place = HORIZONS.index(horizon)
            table.row(
                f"equation 9/{world} {name}, {horizon} steps",
                [100 * shown[name][place]],
                note=f"95% {100 * shown[f'{name} low'][place]:.1f} to {100 * shown[f'{name} high'][place]:.1f}; foretold {100 * shown[f'{name} foretold'][place]:.1f}",
            )
        table.row(
            f"equation 9/{world} {name}: horizons inside",
            [100 * float(inside.mean())],
            note="share of the horizons 1–20 at which the formula is within the measured interval",
            goal="100",
        )
    return shown


def picture(
    world: str,
    modes: list[dict[str, list[dict]]] | None,
    horizon: dict[str, np.ndarray] | None,
    path: Path,
) -> None:
    """What each gate gains over fast against its cost; and how long the plain and the checked agent
    stay right, measured and foretold.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1,
        bool(modes) + bool(horizon),
        figsize=(5.5 * (bool(modes) + bool(horizon)), 4),
        layout="constrained",
        squeeze=False,
    )
    panels = iter(axes[0])
    if modes:
        axis = next(panels)
        verified = lambda name: [float(e["verified"]) for run in modes for e in run[name]]

        def points(names: list[str]) -> tuple[list[float], list[float], np.ndarray]:
            """Cost, gain over fast on the same tasks, and its 95% interval's reach below and above,
            (2, names).
            """
            gains = [bootstrap(verified(name), verified("fast")) for name in names]
            cost = [
                statistics.mean(
                    total(run[name], "flops") / total(run["fast"], "flops") for run in modes
                )
                for name in names
            ]
            return (
                cost,
                [mean for mean, _, _ in gains],
                np.maximum(0, [(mean - low, high - mean) for mean, low, high in gains]).T,
            )

        for name, colour, style in (
            ("gate", "tab:blue", "o-"),
            ("entropy", "tab:green", "s--"),
            ("random", "tab:gray", "^:"),
        ):
            cost, gain, reach = points(["fast", *(f"{name} {rate}" for rate in RATES), "reason"])
            axis.errorbar(
                cost,
                gain,
                reach,
                fmt=style,
                color=colour,
                markersize=4,
                elinewidth=0.8,
                capsize=2,
                label={"gate": "equation 7's gate"}.get(name, f"{name} gate"),
            )
        for name, place in (("fast", (4, -12)), ("reason", (-42, 6))):
            (cost,), (gain,), _ = points([name])
            axis.annotate(name, (cost, gain), textcoords="offset points", xytext=place)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set(
            xlabel="forward FLOPs, × fast",
            ylabel="points over fast, with 95% intervals",
            title=f"hybrid mode, {world} tasks",
        )
        axis.legend(frameon=False)
    if horizon:
        axis = next(panels)
        for name, colour in (("plain", "tab:orange"), ("checked", "tab:blue")):
            axis.fill_between(
                HORIZONS,
                100 * horizon[f"{name} low"],
                100 * horizon[f"{name} high"],
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
            axis.plot(
                HORIZONS,
                100 * horizon[name],
                "o",
                color=colour,
                markersize=4,
                label=f"{name}, measured",
            )
            axis.plot(
                HORIZONS,
                100 * horizon[f"{name} foretold"],
                "-",
                color=colour,
                label={"plain": "(1 − ε)$^T$", "checked": "(1 − ε′)$^T$, equation 9"}[name],
            )
        axis.set(
            xlabel="steps",
            ylabel="still right (%)",
            title="how far an agent gets",
            ylim=(0, 100),
            xticks=(1, 5, 10, 15, 20),
        )
        axis.legend(frameon=False)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", default="out/toy/thinking", help="folders, with commas: one a seed"
    )
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--room", type=int, default=384)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--parts", default="votes,modes,ablations,horizon")
    parser.add_argument("--vote-worlds", default="math,api")
    parser.add_argument("--world", default="api", help="of the other parts")
    parser.add_argument("--dry", action="store_true", help="record and draw nothing")
    a = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    minds = [Mind(run, a) for run in a.runs.split(",")]
    table, shown = Table(a, len(minds)), {}
    for part in a.parts.split(","):
        for world in a.vote_worlds.split(",") if part == "votes" else [a.world]:
            found = [kept(mind, part, world) for mind in minds]
            print(f"\n{part}, {world}: {a.tasks} tasks, {len(minds)} runs")
            shown[part] = (
                dict(
                    votes=votes_table,
                    modes=modes_table,
                    ablations=ablations_table,
                    horizon=horizon_table,
                )[part](table, world, found),
                found,
            )
    if not a.dry and {"modes", "horizon"} & shown.keys():
        picture(
            a.world,
            shown["modes"][1] if "modes" in shown else None,
            shown["horizon"][0] if "horizon" in shown else None,
            results.ROOT / "docs" / "hybrid.png",
        )
        print(
            "drawn: docs/hybrid.png; python -m support.result_tables puts the records into the tables"
        )


if __name__ == "__main__":
    main()
