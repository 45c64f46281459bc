"""What second thoughts are worth: votes among n samples; fast, reason and hybrid with the curve
over τ; ablations; and how far an agent gets whose steps are checked.

    votes       n sampled episodes of each task, and which one each rule chooses (think.vote), for
                several n, with the paired difference from the majority; and one rule more: votes
                filtered by the contrast of their inverse consistency (`Run.contrasts`;
                --neighbours 0: without it)
    modes       success, cost and Reasoning-Bits per TeraFLOP of fast, reason and hybrid; the hybrid
                at several rates of second thoughts, with the gate, a random gate and an entropy
                gate
    ablations   mode reason with another λ, n, without counterfactuals, with critique, without the
                head
    horizon     ε, α, β, ε_r and the error ε′ that equation 9 makes of them, counted on one half of
                the tasks (on the same steps it is the law of total probability, and cannot fail);
                (1 − ε′)^T from it, and beside it how long the agent really stays right on the other

Held-out tasks, the same for all. What was measured of each run is kept in the run's folder, batch
by batch, and not measured twice. Differences are means over tasks with a 95% interval, a paired
bootstrap's, which draws tasks and, of several runs (one per seed), runs anew, or Student's over the
runs, whichever is wider; several runs give mean ± standard deviation. Tables and
picture are made in bench/hybrid_tables.py.

    python bench/hybrid.py --runs out/seed1/thinking,out/seed2/thinking,out/seed3/thinking
    python bench/hybrid.py --tasks 8 --samples 4 --parts votes,modes --dry      tries it out
    python bench/hybrid.py --split validation --parts ablations --dry     for choosing settings

Of SmolLM2 give --batch 8 and --dtype bfloat16: in mode reason each episode has 8 candidates with up
to 3 futures each, and 8 episodes together take 7 to 10 GB.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import numpy as np
import torch

from agent import Rollout, rollouts
from bench.hybrid_tables import (
    FAST_STEPS,
    Pieces,
    Table,
    ablations_table,
    draw_horizon,
    draw_modes,
    horizon_table,
    modes_table,
    picture,
    votes_table,
)
from config import Eval, Think, UserError
from fast.thinking import successes_sharing_prompts, think
from support import checkpoint, provenance, result_tables, settings
from think import Thinking, Vote, conclusion, constraint_tokens, reasoning_bits, votes_of
from worlds.base import Task, same_answer
from worlds.difficulty import RUNGS, Difficulty
from worlds.expert import fingerprint
from worlds.tasks import Tasks
from worlds.calls import check_call, read_calls

# a name, and what measures it, a few tasks each; together they give one list
Piece = tuple[str, list[Callable[[], list]]]
Gate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # as fast.thinking takes it

PIECES_VERSION = 1  # raised when what is kept changes, so that no older pieces pass for the same
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

    def think(self, tasks: list[Task], s: Think, **options) -> list[Thinking]:
        minds = (self.model, self.heads, self.tokenizer)
        return think(*minds, tasks, s, batch=self.a.batch, **options)

    def judged(self, done: list[Rollout]) -> list[Vote]:
        minds = (self.model, self.heads, self.tokenizer)
        return votes_of(*minds, done, successes=successes_sharing_prompts)

    def in_batches(
        self,
        tasks: list[Task],
        s: Think,
        gate_of: Callable[[int], Gate | None] = lambda first: None,
    ) -> list[Callable[[], list]]:
        """What plays one episode of each task, a batch at a time; `gate_of` makes the gate of the
        batch that begins with task `first`.
        """
        firsts = range(0, len(tasks), self.a.batch)
        return [
            partial(self.episodes, tasks[first : first + self.a.batch], s, first, gate_of(first))
            for first in firsts
        ]

    def episodes(
        self, tasks: list[Task], s: Think, first: int = 0, gate: Gate | None = None
    ) -> list[dict]:
        """One episode of each task, as the figures that are kept of it. The random numbers are
        those of tasks `first`, `first` + 1, …
        """
        began = time.perf_counter()
        done = self.think(tasks, s, gate=gate, numbers=list(range(first, first + len(tasks))))
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
        tasks, n = self.tasks(world, more=self.a.neighbours), self.a.samples
        together = max(1, 256 // n)
        for start in range(0, self.a.tasks, together):
            end = min(start + together, self.a.tasks)
            yield f"from task {start}", [partial(self.vote_on, tasks, range(start, end))]

    def vote_on(self, tasks: list[Task], numbers: range) -> list[list[dict]]:
        """The n votes of each numbered task, as the figures that are kept of them."""
        n = self.a.samples
        repeated = [number for number in numbers for _ in range(n)]
        options = dict(seed=numbers.start, room=self.a.room)
        played = [tasks[number] for number in repeated]
        done = rollouts(self.model, self.tokenizer, played, 1.0, **options)
        contrasts: list[float | None] = [None] * len(done)
        if more := self.a.neighbours:
            neighbours = [tasks[number + 1 : number + 1 + more] for number in repeated]
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
        together = 1 + len(neighbours[0])
        batch = max(1, batch // together)  # of so many tasks' constraints each
        for start in range(0, len(done), batch):
            conclusions, constraints = [], []
            for rollout, others in zip(done[start : start + batch], neighbours[start:]):
                for task in (rollout.task, *others):
                    conclusions.append(conclusion(rollout, self.tokenizer))
                    constraints.append(constraint_tokens(task, self.tokenizer))
            ics, prior = self.heads["inverse"].scores(self.model, conclusions, constraints)
            gains = (torch.tensor(ics) - torch.tensor(prior)).view(-1, together)
            shares += gains.log_softmax(1)[:, 0].tolist()
        return shares

    def modes(self, world: str, found: Pieces) -> Iterator[Piece]:
        """fast, reason, hybrid as the heads came, and three gates at several rates; their
        thresholds are quantiles over other tasks' fast steps (FAST_STEPS).
        """
        tasks = self.tasks(world)
        for mode in ("fast", "reason", "hybrid"):
            yield mode, self.in_batches(tasks, self.settings(mode=mode))

        if not self.a.rates:
            return
        others = self.tasks(world, first=100_000)
        asked_in_vain = self.settings(mode="hybrid", tau=1.0)  # the gate is never obeyed
        yield FAST_STEPS, self.in_batches(others, asked_in_vain)
        steps = found[FAST_STEPS]  # `kept` has put it there before it asks for the next piece
        gates = [gate for episode in steps for gate in episode["gates"]]
        entropies = np.array([entropy for episode in steps for entropy in episode["entropies"]])

        def entropy_gate(hidden, entropy):
            return 1 - torch.exp(-entropy)

        def random_gate(first: int) -> Gate:
            generator = torch.Generator().manual_seed(first)
            return lambda hidden, entropy: torch.rand(len(entropy), generator=generator)

        for rate in self.a.rates:
            doubtful = self.settings(tau=float(np.quantile(gates, 1 - rate)))
            yield f"gate {rate}", self.in_batches(tasks, doubtful)
            uncertain = self.settings(tau=float(np.quantile(1 - np.exp(-entropies), 1 - rate)))
            yield (f"entropy {rate}", self.in_batches(tasks, uncertain, lambda first: entropy_gate))
            yield (
                f"random {rate}",
                self.in_batches(tasks, self.settings(tau=1 - rate), random_gate),
            )

    def ablations(self, world: str, found: Pieces) -> Iterator[Piece]:
        tasks = self.tasks(world)
        for name, changes in {"whole": {}, **ABLATIONS}.items():
            yield name, self.in_batches(tasks, self.settings(mode="reason", **changes))

    def horizon(self, world: str, found: Pieces) -> Iterator[Piece]:
        """Of each episode without faults, its steps up to the first wrong one: [right] of a plain
        agent's; and [first draft right, accepted, taken step right] with a check and one revision.
        """
        tasks = self.tasks(world)
        plain = self.settings(mode="fast", fast_temperature=1.0)
        checked = self.settings(mode="reason", fast_temperature=1.0, n=1, lam=0.0, resamples=1)
        yield "plain", [partial(self.steps_of, tasks, plain, checked=False)]
        yield "checked", [partial(self.steps_of, tasks, checked, checked=True)]

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
    """A part's measurements, kept in the run's folder as they are made, and not made twice with
    the same sizes, of the same tasks.
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
        sizes |= dict(samples=a.samples, neighbours=a.neighbours)
    if part == "modes":  # whose seconds are those of so many episodes together
        sizes["batch"] = a.batch
    # in the name, so that a try with fewer tasks leaves the larger one where it is
    tag = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:8]
    path = run.folder / "reasoning" / f"{part} {where(world, a)} {a.split} {tag}.json"
    read = json.loads(path.read_text()) if path.exists() else dict(found={})
    found: Pieces = read["found"]
    begun: Pieces = read.get("begun", {})  # of a piece that is not whole, what was measured
    path.parent.mkdir(exist_ok=True)
    print(f"  {run.folder.parent.name}/{run.folder.name}: {part}, {world}", flush=True)
    asked = []  # a file may hold more, of further rates
    for name, measures in getattr(run, part)(world, found):
        asked.append(name)
        if name in found:
            continue
        parts = begun.setdefault(name, [])
        for measure in measures[len(parts) :]:
            parts.append(measure())
            provenance.replace(path, json.dumps(dict(sizes=sizes, found=found, begun=begun)))
        found[name] = [item for some in begun.pop(name) for item in some]
        provenance.replace(path, json.dumps(dict(sizes=sizes, found=found)))
    return {name: found[name] for name in asked}


# --------------------------------------------------------------------------------------- the script

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
    parser.add_argument(
        "--neighbours",
        type=int,
        default=3,
        help="other tasks whose constraints contrast with a conclusion's own; 0: none",
    )
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
    if a.neighbours < 0:
        raise UserError(f"--neighbours {a.neighbours}: wanted 0 or more")
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
