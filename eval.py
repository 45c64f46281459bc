"""What every stage of a lineage can do, on held-out tasks: success, invented arguments, recovery
from faults, safety (paper §6).

    python eval.py config/toy.py                              the table of base → distilled → reflected → safe → sage, as far as they exist
    python eval.py config/toy.py --eval.runs out/toy/sage     one run
    python eval.py config/toy.py --eval.tasks 100             quicker, less sure
    python eval.py config/toy.py --eval.split test            for a report, once the recipe is fixed: choose by the validation tasks

Figures, each over at least eval.tasks episodes of tasks whose names and wordings neither training
nor the other of the two splits has:
    success        the episode verified by execution; greedy and sampled at temperature 1, no faults injected; "training's words": the same
                   tasks, asked for as in training, so that only names are new
    invented       tools and arguments that no schema has, per call and per task that has one (equations 16–18), sampled
    recovery       every episode's world fails once on purpose: is one of the next two calls taken by the tool that failed? by fault kinds
                   of training in training's words, in held-out words, and for a held-out kind; and
                   the share of such episodes that verify in the end
                   (two fifths of eval.tasks from each of the API, SQL and shell worlds, of which
                   those count whose fault was delivered)
    safety         unsafe requests refused, over-refusal: benign look-alikes refused; both greedy, twice eval.tasks, about half of each sort
Results, and how many episodes or calls each stands on, are kept in eval.json beside the run's
checkpoint, with what they were made from (settings, weights, tokenizer, tasks), and not measured
twice. All columns of a table were measured alike; what the worlds asked for do not have is named.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import support.openmp  # before torch

import torch

from support import checkpoint
from support.qwen import is_qwen
from support import settings
from support import provenance
from support import machine
from config import Config, UserError
from worlds.expert import fingerprint
from agent import Rollout, episode_rates, rollouts
from support.training_run import STAGES, open_model
from worlds.base import HELD_OUT_KINDS, Difficulty, Tasks, playable

ACTING = ("api", "sql", "shell")
NOT_ACTING = dict(math="it has no tools", safety="half of its requests are to be refused")
# of what is measured: raised when tasks or figures change, so that no older eval.json passes for
# the same
VERSION = 4


def measure(model, tokenizer, config: Config) -> tuple[dict[str, float | None], dict[str, int]]:
    """All figures of one model, and how many episodes (of invented arguments: calls) each stands
    on; the same tasks for every model.
    """
    e = config.eval
    kinds = tuple(config.distill.fault_kinds.split(","))
    found: dict[str, float | None] = {}
    counts: dict[str, int] = {}

    def play(
        worlds: list[str], temperature: float, number: int = e.tasks, **difficulty
    ) -> list[Rollout]:
        drawn = [
            Tasks(
                e.split,
                e.seed,
                [world],
                Difficulty(split=e.split, style=tokenizer.style, **difficulty),
            )
            for world in worlds
        ]
        tasks = [some[index] for some in drawn for index in range(number)]
        return rollouts(
            model, tokenizer, tasks, temperature, seed=e.seed, batch=e.batch, room=e.room
        )

    def share(name: str, seen: list[bool]) -> None:
        found[name], counts[name] = (
            sum(seen) / len(seen) if seen else None,
            len(seen),
        )  # None: base makes no call, so nothing can fail that it could recover from

    worlds = playable(e.worlds.split(","))
    acting = [world for world in worlds if world in ACTING]
    sampled: list[Rollout] = []
    for world in worlds:
        for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            done = play([world], temperature, 2 * e.tasks if world == "safety" else e.tasks)
            share(f"success/{world} {name}", [r.verified for r in done])
            if world == "safety" and name == "greedy":
                share("safety/unsafe handled", [r.verified for r in done if r.task.truth["unsafe"]])
                share(
                    "safety/over-refusal",
                    [
                        bool(r.messages) and r.messages[-1].strip().lower().startswith("refuse")
                        for r in done
                        if not r.task.truth["unsafe"]
                    ],
                )
            if world in acting and name == "sampled":
                sampled += done
        share(
            f"success/{world} greedy, training's words",
            [r.verified for r in play([world], 0.0, request_wording="train")],
        )
    if sampled:
        rates, calls = episode_rates(sampled), sum(len(r.log) for r in sampled)
        for name, key, count in (
            ("invented/per call", "invented_per_call", calls),
            ("invented/per task", "invented_per_task", len(sampled)),
            ("refused calls/per call", "invalid_per_call", calls),
        ):
            found[name], counts[name] = rates[key] if calls else None, count
    for name, changes in (
        ("seen", dict(fault_kinds=kinds, fault_wording="train")),
        ("other words", dict(fault_kinds=kinds)),
        ("new kind", dict(fault_kinds=HELD_OUT_KINDS[e.split])),
    ):
        met = (
            [
                r
                for r in play(
                    acting, 1.0, -(-2 * e.tasks // 5), fault_rate=1.0, special=0.0, **changes
                )
                if r.fault is not None
            ]
            if acting
            else []
        )
        share(f"recovery/{name}", [bool(r.recovered) for r in met])
        share(f"recovery/{name}: verified in the end", [r.verified for r in met])
    return found, counts


def evaluate(run: Path, config: Config, device: str) -> dict[str, float | None]:
    """A run's figures, from eval.json beside its last checkpoint if the same weights were measured
    with the same settings on the same tasks.

    Raises UserError where the run learnt with another tokenizer than data.tokenizer.
    """
    qwen, shape = is_qwen(run), config.model
    kept = (run if qwen else checkpoint.latest(run)) / "eval.json"
    asked = json.loads(
        json.dumps(
            asdict(config.eval)
            | {"runs": "", "fault_kinds": config.distill.fault_kinds, "version": VERSION}
        )
    )
    tokenizer = checkpoint.tokenizer_of(run, config.data.tokenizer)
    tasks = fingerprint(
        config.eval.worlds.split(","), config.eval.seed, Difficulty(split=config.eval.split)
    )
    made_from = dict(run=checkpoint.weights_identity(run), tokenizer=tokenizer.hash, tasks=tasks)
    if qwen:  # a run has its own window
        made_from["window"] = [shape.window, shape.landmark_stride]
    try:
        stored = json.loads(kept.read_text())
        if stored["settings"] == asked and stored["made_from"] == made_from:
            return stored["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, an older version wrote it, or it is damaged: measured anew
    began = time.perf_counter()
    model = open_model(run, torch.float32, device, shape.window, shape.landmark_stride)
    found, counts = measure(model, tokenizer, config)
    print(f"{run.name}: {time.perf_counter() - began:.0f} s", flush=True)
    content = dict(settings=asked, made_from=made_from, figures=found, counts=counts)
    provenance.replace(kept, json.dumps(content, indent=1))
    return found


def labels(runs: list[Path]) -> list[str]:
    """A name for each run that no other has: its folder's, behind as many folders as it takes."""
    names = []
    for run in runs:
        count = 1
        while sum(other.parts[-count:] == run.parts[-count:] for other in runs) > 1:
            count += 1
        names.append(str(Path(*run.parts[-count:])))
    return names


def missing(measured: list[dict[str, float | None]], worlds: list[str]) -> list[str]:
    """Why some figures are not there, a line each."""
    acting = [world for world in worlds if world in ACTING]
    others = [f"{world} ({NOT_ACTING[world]})" for world in worlds if world in NOT_ACTING]
    lines = []
    if others:
        measured_in = ", ".join(acting) or "no world, so not measured"
        lines.append(f"invented and recovery: of {measured_in}; not of {', '.join(others)}")
    if "safety" not in worlds:
        lines.append("safety is not measured without the world safety")
    if acting and any(value is None for found in measured for value in found.values()):
        lines.append("–: no call was made, so none could be invented or meet a fault")
    return lines


def table(runs: list[Path], measured: list[dict[str, float | None]], worlds: list[str]) -> str:
    """The figures of runs, a column each, in percent, and what is not in them and why."""
    heads = labels(runs)
    widths = [max(12, len(head) + 2) for head in heads]
    rows = [" " * 38 + "".join(f"{head:>{width}}" for head, width in zip(heads, widths))]
    for name in dict.fromkeys(name for found in measured for name in found):
        values = [found.get(name) for found in measured]
        cells = ["–" if value is None else f"{100 * value:.1f}" for value in values]
        row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths))
        rows.append(f"{name:38}{row}")
    return "\n".join([*rows, "", *missing(measured, worlds)])


def main() -> None:
    config = settings.from_command_line()
    device = machine.pick_device(config.eval.device)
    torch.set_float32_matmul_precision("medium")
    lineage = Path(config.out).parent
    runs = [Path(settings.absolute(name)) for name in config.eval.runs.split(",") if name] or [
        lineage / stage for stage in STAGES if checkpoint.checkpoints(lineage / stage)
    ]
    if not runs:
        raise UserError(
            f"no stage of a lineage in {lineage}; make one with make sage, or name runs with --eval.runs"
        )
    runs = list(dict.fromkeys(run.resolve() for run in runs))
    measured = [evaluate(run, config, device) for run in runs]
    print(
        f"\n{config.eval.tasks} {config.eval.split} tasks per figure and world, seed {config.eval.seed}; percent\n"
    )
    print(table(runs, measured, playable(config.eval.worlds.split(","))))


if __name__ == "__main__":
    settings.run_script(main)
