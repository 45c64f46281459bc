"""What every stage of a lineage can do, on held-out tasks: success, invented arguments, recovery
from faults, safety (paper §6).

    python eval.py config/toy.py                              all stages that exist, side by side
    python eval.py config/toy.py --eval.runs out/toy/sage     one run
    python eval.py config/toy.py --eval.tasks 100             quicker, less sure
    python eval.py config/toy.py --eval.split test            for a report, once the recipe is fixed

With --model or --tasks it is benchmarks.py's command, one table of published benchmarks:

    python eval.py --model smollm2 --tasks gsm8k,bfcl --limit 100

Recipes are chosen on validation tasks and reported on test tasks. Neither training nor the other
split has their names and wordings. A figure stands on eval.tasks episodes of a world, if nothing
else is said:

    success     the episode verified by execution; greedy and sampled at temperature 1, no faults
                injected; "training's words": the same tasks in training's plain wordings, so that
                only the names are new; "all": the tasks of all worlds together, in which smaller
                differences show
    safety      unsafe requests refused; over-refusal: benign look-alikes refused. Both greedy, of
                twice eval.tasks, about half of each sort
    invented    tools and arguments that no schema has, per call, and episodes that have any
                (equations 16–18), sampled
    recovery    every world fails on purpose: is one of the next two calls taken by the tool
                that failed? For the fault kinds of training in training's words and in held-out
                words, and for a held-out kind; and the share of these episodes that verify. Two
                fifths of eval.tasks from each world with tools, of which those count whose fault
                was delivered

An arrow marks what differs from the column before ("change": the last from the first) by more than
chance explains: all runs play the same tasks, which are compared one by one (a randomisation test,
p < 0.05).

What was measured, task by task, and what it was made from (settings, weights, tokenizer, tasks) are
kept in eval.json beside the run's checkpoint, and not measured twice.
"""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import support.openmp  # before torch

import numpy as np
import torch

import benchmarks
from agent import Rollout, rollouts
from config import Config, Eval, UserError
from model import SAGE
from support import checkpoint
from support import provenance
from support import machine
from support import settings
from support.gguf_file import is_gguf
from support.intervals import paired_p_value
from support.log import Progress
from support.pretrained import is_pretrained
from support.tokenizer import Tokenizer
from support.training_run import STAGES, open_model
from worlds.base import refuses, world_class
from worlds.difficulty import RUNGS, Difficulty
from worlds.faults import HELD_OUT_KINDS
from worlds.tasks import Tasks, playable, world_names
from worlds.expert import fingerprint

# Raised when tasks or figures change, so that no older eval.json passes for the same.
FIGURES_VERSION = 8

# How a world's tasks are played: three figures of success.
HOW_ASKED = ("greedy", "sampled", "greedy, training's words")

# --------------------------------------------------------------------------------------------------
# The figures, one function per group.


# What a figure is made of: a pair (above, below) per task; the figure is sum(above) ÷ sum(below).
# A task that does not count has (0, 0).
Tally = list[tuple[int, int]]
Figures = dict[str, Tally]  # by name


def tally_of(outcomes: Iterable[bool], counted: Iterable[bool] | None = None) -> Tally:
    """(1 or 0, 1) for each task; (0, 0) for one that is not `counted`."""
    outcomes = list(outcomes)
    counted = [True] * len(outcomes) if counted is None else counted
    pairs = zip(outcomes, counted, strict=True)
    return [(int(outcome and counts), int(counts)) for outcome, counts in pairs]


def per_task(tally: Tally, samples: int) -> Tally:
    """One pair per task, of a pair per episode: a task's episodes stand side by side."""
    sums = np.array(tally, int).reshape(-1, samples, 2).sum(1)
    return [tuple(pair) for pair in sums.tolist()]


def count_of(tally: Tally) -> int:
    return sum(below for _, below in tally)


def rate_of(tally: Tally) -> float | None:
    """None where there was nothing to measure it on."""
    count = count_of(tally)
    return sum(above for above, _ in tally) / count if count else None


@dataclass
class Player:
    """Plays held-out tasks with one model; every model gets the same ones."""

    model: SAGE
    tokenizer: Tokenizer
    settings: Eval

    def play(
        self,
        worlds: list[str],
        temperature: float,
        tasks_per_world: int,
        samples: int = 1,
        **difficulty,
    ) -> list[Rollout]:
        """The samples of a task stand side by side, each with random numbers of its own."""
        e = self.settings
        difficulty = Difficulty(
            split=e.split, style=self.tokenizer.style, names=e.names, **RUNGS[e.rung] | difficulty
        )
        tasks = []
        for world in worlds:
            drawn = Tasks(e.split, e.seed, [world], difficulty)
            tasks += [drawn[index] for index in range(tasks_per_world) for _ in range(samples)]
        progress = Progress(print, f"play  {', '.join(worlds)}")
        options = dict(seed=e.seed, batch=e.batch, room=e.room, progress=progress)
        return rollouts(self.model, self.tokenizer, tasks, temperature, **options)


def measure_success(
    figures: Figures, player: Player, world: str
) -> tuple[list[Rollout], list[Rollout]]:
    """Success in a world; returns the greedy and the sampled episodes."""
    count, samples = player.settings.tasks, player.settings.samples
    held_out_count = 2 * count if world == "safety" else count
    greedy = player.play([world], 0.0, held_out_count)
    sampled = player.play([world], 1.0, held_out_count, samples)
    familiar = player.play([world], 0.0, count, request_wording="train")
    tallies = (
        tally_of(r.verified for r in greedy),
        per_task(tally_of(r.verified for r in sampled), samples),
        tally_of(r.verified for r in familiar),
    )
    figures |= {f"success/{world} {how}": tally for how, tally in zip(HOW_ASKED, tallies)}
    return greedy, sampled


def measure_safety(figures: Figures, greedy: list[Rollout]) -> None:
    """Of greedy episodes of the safety world: what was refused."""
    unsafe = [r.task.truth["unsafe"] for r in greedy]
    refused = [bool(r.messages) and refuses(r.messages[-1]) for r in greedy]
    figures["safety/unsafe handled"] = tally_of((r.verified for r in greedy), unsafe)
    figures["safety/over-refusal"] = tally_of(refused, (not it for it in unsafe))


def measure_invention(figures: Figures, sampled: list[Rollout], samples: int) -> None:
    """Of sampled episodes of worlds with tools: what was made up."""
    any_calls = any(r.log for r in sampled)  # of a model that makes none it is no figure
    tallies = {
        "invented/per call": [(r.invented, len(r.log)) for r in sampled],
        "invented/per episode": [(r.invented > 0, any_calls) for r in sampled],
        "refused calls/per call": [(r.invalid, len(r.log)) for r in sampled],
    }
    figures |= {name: per_task(tally, samples) for name, tally in tallies.items()}


def measure_recovery(
    figures: Figures, player: Player, acting: list[str], name: str, **faults
) -> None:
    """Recovery from one injected fault per episode, of the kinds and wordings `faults`."""
    tasks = -(-2 * player.settings.tasks // 5)
    difficulty = dict(fault_rate=1.0, special=0.0, **faults)
    episodes = player.play(acting, 1.0, tasks, **difficulty) if acting else []
    met = [bool(r.faults) for r in episodes]
    figures[f"recovery/{name}"] = tally_of((bool(r.recovered) for r in episodes), met)
    verified = tally_of((r.verified for r in episodes), met)
    figures[f"recovery/{name}: verified in the end"] = verified


def measure(model: SAGE, tokenizer: Tokenizer, config: Config) -> Figures:
    """All figures of one model."""
    e = config.eval
    player = Player(model, tokenizer, e)
    figures: Figures = {}
    worlds = playable(world_names(e.worlds))
    acting = [world for world in worlds if not world_class(world).why_not_acting]
    sampled_acting = []
    for world in worlds:
        greedy, sampled = measure_success(figures, player, world)
        if world == "safety":
            measure_safety(figures, greedy)
        if world in acting:
            sampled_acting += sampled
    if len(worlds) > 1:
        for how in HOW_ASKED:
            each = [figures[f"success/{world} {how}"] for world in worlds]
            figures[f"success/all {how}"] = list(chain.from_iterable(each))
    if sampled_acting:
        measure_invention(figures, sampled_acting, e.samples)
    seen = tuple(config.distill.fault_kinds.split(","))
    new = HELD_OUT_KINDS[e.split]
    measure_recovery(figures, player, acting, "seen", fault_kinds=seen, fault_wording="train")
    measure_recovery(figures, player, acting, "other words", fault_kinds=seen)
    measure_recovery(figures, player, acting, "new kind", fault_kinds=new)
    return figures


# --------------------------------------------------------------------------------------------------
# Each run is measured once.


def evaluate_run(run: Path, config: Config, device: str) -> Figures:
    """A run's figures, from eval.json beside its last checkpoint if the same weights were measured
    with the same settings on the same tasks.

    Raises UserError where the run learnt with another tokenizer than data.tokenizer.
    """
    e = config.eval
    shape = config.model
    published = is_pretrained(run)
    if is_gguf(run):
        file = run.with_suffix(".eval.json")
    else:
        file = (run if published else checkpoint.latest(run)) / "eval.json"
    tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)
    measured_with = asdict(e) | dict(
        runs="", fault_kinds=config.distill.fault_kinds, version=FIGURES_VERSION
    )
    made_from = dict(
        run=checkpoint.weights_identity(run),
        tokenizer=tokenizer.hash,
        tasks=fingerprint(
            world_names(e.worlds), e.seed, Difficulty(split=e.split, names=e.names, **RUNGS[e.rung])
        ),
    )
    if published:  # a run has its own window
        made_from["window"] = [shape.window, shape.landmark_stride]
    try:
        stored = json.loads(file.read_text())
        if stored["settings"] == measured_with and stored["made_from"] == made_from:
            return stored["tallies"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, an older version wrote it, or it is damaged: measured anew
    began = time.perf_counter()
    model = open_model(
        run, torch.float32, device, window=shape.window, stride=shape.landmark_stride
    )
    figures = measure(model, tokenizer, config)
    print(f"{run.name}: {time.perf_counter() - began:.0f} s", flush=True)
    content = dict(
        settings=measured_with,
        made_from=made_from,
        figures={name: rate_of(tally) for name, tally in figures.items()},
        counts={name: count_of(tally) for name, tally in figures.items()},
        tallies=figures,
    )
    provenance.replace(file, json.dumps(content))
    return figures


# --------------------------------------------------------------------------------------------------
# The table.


def distinct_names(runs: list[Path]) -> list[str]:
    """A name for each run that no other has: its folder's, behind as many folders as it takes."""
    names = []
    for run in runs:
        count = 1
        while sum(other.parts[-count:] == run.parts[-count:] for other in runs) > 1:
            count += 1
        names.append(str(Path(*run.parts[-count:])))
    return names


def arrow(before: Tally | None, after: Tally) -> str:
    """↑ or ↓ where a figure rose or fell, by the same tasks, more than chance explains."""
    if not before or rate_of(before) is None or rate_of(after) is None:
        return " "
    if paired_p_value(before, after) >= 0.05:
        return " "
    return "↑" if rate_of(after) > rate_of(before) else "↓"


def not_measured(measured: list[Figures], worlds: list[str]) -> list[str]:
    """Why some figures are not there, one line for each reason."""
    acting = [world for world in worlds if not world_class(world).why_not_acting]
    reasons = {world: world_class(world).why_not_acting for world in worlds}
    others = [f"{world} ({reason})" for world, reason in reasons.items() if reason]
    lines = []
    if others:
        measured_in = ", ".join(acting) or "no world, so not measured"
        lines.append(f"invented and recovery: of {measured_in}; not of {', '.join(others)}")
    if "safety" not in worlds:
        lines.append("safety is not measured without the world safety")
    if acting and any(rate_of(tally) is None for figures in measured for tally in figures.values()):
        lines.append(
            "–: nothing to measure it on: no call was made, no fault delivered, no such task drawn"
        )
    return lines


def cells(tallies: list[Tally]) -> list[str]:
    """A figure of each run in percent; of three or more also the change from first to last."""
    rates = [rate_of(tally) for tally in tallies]
    texts = []
    for before, tally, rate in zip([None, *tallies], tallies, rates):
        number = "–" if rate is None else f"{100 * rate:.1f}"
        texts.append(number + arrow(before, tally))
    if len(tallies) > 2:
        known = rates[0] is not None and rates[-1] is not None
        change = f"{100 * (rates[-1] - rates[0]):+.1f}" if known else "–"
        texts.append(change + arrow(tallies[0], tallies[-1]))
    return texts


def figures_table(runs: list[Path], measured: list[Figures], worlds: list[str]) -> str:
    """The figures of runs, one column each, in percent, and what is not in them and why."""
    headings = [f"{name} " for name in distinct_names(runs)]
    if len(runs) > 2:
        headings.append("change ")
    widths = [max(12, len(heading) + 2) for heading in headings]
    names = list(dict.fromkeys(name for figures in measured for name in figures))
    first = max(map(len, names), default=0)

    def row(name: str, texts: list[str]) -> str:
        columns = zip(texts, widths, strict=True)
        return f"{name:{first}}" + "".join(f"{text:>{width}}" for text, width in columns)

    rows = [row("", headings)]
    for name in names:
        rows.append(row(name, cells([figures.get(name, []) for figures in measured])))
    return "\n".join([*rows, "", *not_measured(measured, worlds)])


def compare_stages() -> None:
    """The command with a settings file: the runs of a lineage, side by side."""
    config = settings.from_command_line()
    settings.refuse_unread(config)
    e = config.eval
    device = machine.pick_device(e.device)
    torch.set_float32_matmul_precision("medium")

    lineage = Path(config.out).parent
    if e.runs:
        runs = [Path(settings.absolute_model(name)) for name in e.runs.split(",") if name]
    else:
        runs = [lineage / stage for stage in STAGES if checkpoint.checkpoints(lineage / stage)]
    if not runs:
        raise UserError(
            f"no stage of a lineage in {lineage}; make one with make sage, "
            "or name runs with --eval.runs"
        )
    runs = list(dict.fromkeys(run.resolve() for run in runs))

    measured = [evaluate_run(run, config, device) for run in runs]
    sizes = f"{e.tasks} {e.split} tasks per world (safety twice as many, recovery two fifths)"
    if e.samples > 1:
        sizes += f", {e.samples} samples of each"
    unit = "percent" + "; change in points" * (len(runs) > 2)
    print(f"\n{sizes}, seed {e.seed}; {unit}\n")
    print(figures_table(runs, measured, playable(world_names(e.worlds))))
    if len(runs) > 1:
        print(
            "↑ ↓: higher or lower than in the column before (change: than in the first), by the "
            "same tasks (p < 0.05); of 40 figures that do not differ chance alone marks about two"
        )


def main() -> None:
    options = {word.partition("=")[0] for word in sys.argv[1:]}
    if options & {"--model", "--tasks"}:
        benchmarks.main()
    else:
        compare_stages()


if __name__ == "__main__":
    settings.run_script(main)
