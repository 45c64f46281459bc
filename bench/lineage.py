"""What each stage of a real model's lineage can do, before and after: our worlds, a published
benchmark, and what the model has forgotten (paper §6).

    python bench/lineage.py instruct=smollm2 out/smol/distilled out/smol/sage
        these stages: runs' folders or published weights, under the name before "=", or their own
    python bench/lineage.py out/smol/sage --only bfcl --bfcl 50 --dry
        one part, fewer tasks, nothing recorded
    python bench/lineage.py out/smol/sage --estimate         how long it would take

    python bench/lineage.py out/toy/distilled out/toy/sage --model toy --names invented \\
        --only worlds        stages of the toy; --rung says how hard the tasks are

Records docs/results/smol.json (that of --model), "stage/figure", with 95% intervals over tasks.
What each task gave is kept in --folder, a line per task: a run that was stopped goes on there, and
one with more tasks of a world measures only the further ones. Other weights or settings, or another
number of BFCL's tasks or of documents, begin anew; what was there is put aside.

worlds   test tasks of each of --worlds. Greedy: success, also by the number of calls that the
         expert needs, and by kind where no call is right (ask, no tool fits, refuse); the first
         call is exactly one that the expert could begin with; calls that the check accepts; tools
         and arguments that no schema has. Sampled at temperature 1, several samples per task:
         pass@1 and pass@k. With one tool failing on purpose, greedy: is one of the next two calls
         taken by the tool that failed, and is the task done in the end; for the kinds of faults
         of training in training's words and in held-out words, and for a held-out kind
bfcl     the Berkeley leaderboard's single-turn files from $SAGE_DATA or ../shared/data: the first
         message's calls by the official rule, and those of the whole episode by the same rule,
         for an agent that makes one call per message
text     bits per byte, and their change from stage --reference on the same documents, of text
         that SmolLM2's stages do not learn from (a toy's base does): the standard library's
         documentation as English prose, its source as code (SmolLM2's own pretraining has surely
         seen both, so only the change says something), and GSM8K's test questions with their
         answers, where the file is there
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch

from agent import MAX_CALLS, Rollout, prompt_of, rollouts
from config import Distill, UserError
from generate import Conversations, Row, decode
from losses import cross_entropy
from support import corpus, machine, provenance, result_tables, settings
from support.intervals import bootstrap_ratio, wilson
from support.measured import RowFile, Stage, clock, data_folder, named_stages, open_stage
from support.played import bfcl_verdicts
from worlds.base import Task, refuses, world_class
from worlds.difficulty import RUNGS, Difficulty
from worlds.expert import fingerprint
from worlds.faults import HELD_OUT_KINDS
from worlds.tasks import Tasks

BFCL_PARTS = ("simple_python", "multiple", "parallel", "irrelevance")
EXPECTED = 80  # tokens that an episode adds to its prompt, for the estimate
ROWS_VERSION = 1  # raised when rows change, so that no older ones pass for the same

# --------------------------------------------------------------------------------------------------
# How fast a stage is here.


@dataclass
class Speed:
    """Tokens per second: prompts read, and tokens decoded by all rows of a batch together."""

    read: float
    decode: float


def probe(stage: Stage, batch: int) -> Speed:
    """The speed of this machine with this model, found out in some seconds."""
    Conversations(stage.model, [[1] * 16], 128)  # warms up
    prompts = [[1 + row] * 256 for row in range(min(batch, 8))]
    began = time.perf_counter()
    with torch.no_grad():
        conversations = Conversations(stage.model, prompts, 512)
    read = len(prompts) * 256 / (time.perf_counter() - began)
    steps = 8
    rows = [Row([], steps, 0.0, []) for _ in prompts]
    began = time.perf_counter()
    decode(conversations, rows, [], shrink=False, log_prob_temperature=None)
    seconds = (time.perf_counter() - began) / steps
    return Speed(read, batch / seconds)  # a step of the whole batch takes little longer


# --------------------------------------------------------------------------------------------------
# What is measured: episodes of tasks, and held-out text.


@dataclass
class Episodes:
    """Episodes of tasks, `samples` of each: greedy at temperature 0."""

    name: str
    tasks: list[Task]
    batch: int
    room: int
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    tolerance: int = 2  # refused calls end an episode, as in training
    tasks_from: Any = None  # what the tasks were drawn from
    judge: Callable[[Task, Rollout], dict] | None = None  # adds verdicts to an episode's row

    @property
    def made_from(self) -> dict:
        """What a row depends on, beside the stage."""
        return dict(
            version=ROWS_VERSION,
            tasks=self.tasks_from,
            temperature=self.temperature,
            samples=self.samples,
            seed=self.seed,
            room=self.room,
            tolerance=self.tolerance,
        )

    def __len__(self) -> int:
        return len(self.tasks)

    def styled(self, stage: Stage) -> list[Task]:
        """The tasks with their tools in the style that the stage's model has learnt."""
        style = stage.tokenizer.style
        return [
            replace(task, difficulty=replace(task.difficulty, style=style)) for task in self.tasks
        ]

    def lengths(self, stage: Stage) -> list[int]:
        """Tokens to read of each task."""
        return [len(prompt_of(task, stage.tokenizer)) for task in self.styled(stage)]

    def seconds(self, speed: Speed, lengths: list[int]) -> float:
        """Estimated time of tasks with prompts of these lengths."""
        new = len(lengths) * self.samples * EXPECTED
        return sum(lengths) / speed.read + new / speed.decode

    def at_once(self) -> int:
        """Tasks that are measured together and kept together: four batches of episodes."""
        return max(1, 4 * self.batch // self.samples)

    def measure(self, stage: Stage, numbers: list[int]) -> list[dict]:
        """The rows of the tasks of these numbers."""
        styled = self.styled(stage)
        played = [number for number in numbers for _ in range(self.samples)]
        draws = [
            number * self.samples + sample for number in numbers for sample in range(self.samples)
        ]
        episodes = rollouts(
            stage.model,
            stage.tokenizer,
            [styled[number] for number in played],
            self.temperature,
            seed=self.seed,
            batch=self.batch,
            room=self.room,
            tolerance=self.tolerance,
            numbers=draws,
        )
        rows = []
        for place, number in enumerate(numbers):
            task = styled[number]
            own = episodes[place * self.samples : (place + 1) * self.samples]
            row = dict(number=number, kind=task.kind, needed=calls_needed(task))
            row["unsafe"] = task.truth.get("unsafe")
            row["episodes"] = [episode_row(task, rollout, self.judge) for rollout in own]
            rows.append(row)
        return rows


def calls_needed(task: Task) -> int:
    """Calls of the expert's solution."""
    return sum(step.call is not None for step in task.solution)


def first_call(task: Task, rollout: Rollout) -> str:
    """What the first call is: "none", "malformed" (no JSON of a call), "refused" by the schemas,
    "accepted", or "exact": one of the expert's calls that need no other's result.
    """
    if not rollout.log:
        return "none"
    entry = rollout.log[0]
    if not isinstance(entry.call, dict):
        return "malformed"
    if entry.call in [step.call for step in task.solution if not step.depends_on]:
        return "exact"
    return "refused" if entry.faults else "accepted"


def episode_row(task: Task, rollout: Rollout, judge: Callable | None = None) -> dict:
    """What is kept of an episode."""
    verdicts = judge(task, rollout) if judge else {}
    return dict(
        verified=rollout.verified,
        ended=rollout.ended,
        calls=len(rollout.log),
        invented=rollout.invented,
        refused=rollout.invalid,
        first=first_call(task, rollout),
        fault=rollout.faults[0][1] if rollout.faults else None,
        recovered=rollout.recovered,
        messages=rollout.messages,
        tokens=len(rollout.tokens),
        **verdicts,
    )


@dataclass
class Texts:
    """Held-out loss of documents, up to `tokens` tokens of each."""

    name: str
    texts: list[str]
    tokens: int
    texts_from: Any = None

    @property
    def made_from(self) -> dict:
        return dict(version=ROWS_VERSION, texts=self.texts_from, tokens=self.tokens)

    def __len__(self) -> int:
        return len(self.texts)

    def encoded(self, stage: Stage, text: str) -> list[int]:
        return [*stage.tokenizer.start, *stage.tokenizer.encode(text)][: self.tokens + 1]

    def lengths(self, stage: Stage) -> list[int]:
        return [len(self.encoded(stage, text)) for text in self.texts]

    def seconds(self, speed: Speed, lengths: list[int]) -> float:
        return 1.3 * sum(lengths) / speed.read  # with the logits of every token

    def at_once(self) -> int:
        return 16

    @torch.no_grad()
    def measure(self, stage: Stage, numbers: list[int]) -> list[dict]:
        """The rows of the documents of these numbers."""
        table = stage.tokenizer.token_bytes
        device = next(stage.model.parameters()).device
        rows = []
        for number in numbers:
            tokens = torch.tensor([self.encoded(stage, self.texts[number])], device=device)
            targets = tokens[:, 1:]
            hidden = stage.model.hidden(tokens[:, :-1])  # (1, T, D)
            loss = cross_entropy(hidden, stage.model.unembedding, targets).item()
            size = sum(len(table[token]) for token in targets[0].tolist())
            rows.append(dict(number=number, nats=loss * targets.numel(), bytes=size))
        return rows


# --------------------------------------------------------------------------------------------------
# The parts, by the command line.


def evenly(items: list, count: int) -> list:
    """`count` of the items, evenly spaced; all of them for 0 or where there are fewer."""
    if count == 0 or count >= len(items):
        return items
    return [items[place * len(items) // count] for place in range(count)]


def drawn(a: argparse.Namespace, world: str, count: int, **changes) -> dict:
    """The first tasks of a world, as arguments of Episodes; `changes` go into their difficulty."""
    difficulty = Difficulty(split=a.split, names=a.names, **RUNGS[a.rung], **changes)
    tasks = Tasks(a.split, a.seed, [world], difficulty)
    draw = fingerprint([world], a.seed, difficulty)
    tasks_from = dict(draw=draw, **changes)
    if a.split != "test":  # rows without a split are of test tasks, by which claims are judged
        tasks_from["split"] = a.split
    return dict(tasks=[tasks[index] for index in range(count)], tasks_from=tasks_from)


def world_parts(a: argparse.Namespace) -> list[Episodes]:
    """The measurements of our worlds: greedy, sampled, and with faults of three sorts."""
    familiar = tuple(Distill().fault_kinds.split(","))
    sorts = {
        "fault seen": dict(fault_kinds=familiar, fault_wording="train"),
        "fault words": dict(fault_kinds=familiar),
        "fault kind": dict(fault_kinds=HELD_OUT_KINDS[a.split]),
    }
    common = dict(batch=a.batch, room=a.room, seed=a.seed)
    sampled = dict(temperature=1.0, samples=a.samples, **common)
    parts = []
    for world in a.worlds.split(","):
        parts.append(Episodes(f"{world}/greedy", **drawn(a, world, a.tasks), **common))
        if a.samples:
            parts.append(Episodes(f"{world}/sampled", **drawn(a, world, a.sampled), **sampled))
        if world_class(world).why_not_acting:
            continue
        for sort, changes in sorts.items():
            faulty = drawn(a, world, a.faulty, fault_rate=1.0, **changes)
            parts.append(Episodes(f"{world}/{sort}", **faulty, **common))
    return parts


def bfcl_parts(a: argparse.Namespace) -> list[Episodes]:
    """The leaderboard's single-turn files; none, with a note, where there is no such folder."""
    if not (data_folder() / "bfcl").is_dir():
        print("note    no benchmark data: set SAGE_DATA to a folder with bfcl/ to measure it")
        return []
    try:  # here, not above: it needs what tests need
        from worlds.extras.benchmarks import bfcl
    except ModuleNotFoundError as missing:
        raise UserError(
            f"BFCL needs the package {missing.name}; pip install -e '.[benchmarks]', or leave it "
            "out with --only worlds,text"
        ) from None

    parts = []
    for file in BFCL_PARTS:
        tasks = evenly(bfcl(data_folder() / "bfcl", file), a.bfcl)
        found = (data_folder() / "bfcl").rglob(f"BFCL_v4_{file}.json")  # questions and answers
        digest = provenance.digest(*sorted(found))
        parts.append(
            Episodes(
                f"bfcl/{file}",
                tasks,
                a.batch,
                a.room,
                tolerance=MAX_CALLS,
                tasks_from=dict(file=digest, tasks=len(tasks)),
                judge=bfcl_verdicts,
            )
        )
    return parts


def text_parts(a: argparse.Namespace) -> list[Texts]:
    """Prose and code of the standard library, documents of at least four characters per wanted
    token, and GSM8K's test problems, if they are there.
    """
    texts = dict(prose=[], code=[])
    for document in corpus.standard_library():
        is_prose = bool((document.kinds == corpus.PROSE).all())
        if len(document.text) >= 4 * a.tokens:
            texts["prose" if is_prose else "code"].append(document.text)
    gsm8k = data_folder() / "gsm8k" / "test.jsonl"
    if gsm8k.exists():
        rows = map(json.loads, gsm8k.read_text().splitlines())
        texts["gsm8k"] = [f"{row['question']}\n{row['answer']}\n" for row in rows]
    parts = []
    for name, found in texts.items():
        chosen = evenly(found, a.documents)
        made_from = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16]
        parts.append(Texts(f"text/{name}", chosen, a.tokens, made_from))
    return parts


PARTS = dict(worlds=world_parts, bfcl=bfcl_parts, text=text_parts)

# --------------------------------------------------------------------------------------------------
# Measuring: an estimate, then chunk by chunk.


def file_of(folder: Path, stage: str, part: Episodes | Texts) -> Path:
    return folder / stage / f"{part.name.replace('/', ' ')}.jsonl"


def reference_rows(path: Path, part: Episodes | Texts, stage: Stage) -> dict[int, dict]:
    """The rows of the same items in another stage's file, if they were measured in the same dtype
    and cut into the same tokens as this stage's; else none.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        return {}
    then = json.loads(lines[0])["made_from"]
    alike = all(then["stage"].get(key) == stage.weights[key] for key in ("dtype", "tokenizer"))
    if then["part"] != part.made_from or not alike:
        return {}
    rows = map(json.loads, lines[1:])
    return {row["number"]: row for row in rows}


def plan(stage: Stage, parts: list, files: dict[str, RowFile], speed: Speed) -> dict[str, list]:
    """The numbers of the items of each part that are to be measured, the shortest first, since
    prompts of one length need no padding; prints how long it will take.
    """
    left = {}
    whole = 0.0
    for part in parts:
        lengths = part.lengths(stage)
        todo = [number for number in range(len(part)) if number not in files[part.name].rows]
        left[part.name] = sorted(todo, key=lengths.__getitem__)
        seconds = part.seconds(speed, [lengths[number] for number in todo])
        whole += seconds
        print(
            f"{stage.name}: {part.name:24} {len(todo):5} of {len(part):5} to do, "
            f"some {clock(seconds)}"
        )
    print(
        f"{stage.name}: some {clock(whole)} in all, at {speed.read:.0f} tokens/s read, "
        f"{speed.decode:.0f} decoded, {EXPECTED} new tokens per episode",
        flush=True,
    )
    return left


def measure_stage(
    stage: Stage, parts: list, folder: Path, *, batch: int, only_estimate: bool
) -> dict[str, list[dict]]:
    """The rows of every part of a stage, by the part's name; what is in the folder is not measured
    again. Nothing where only an estimate is asked for.
    """
    files = {}
    for part in parts:
        made_from = dict(part=part.made_from, stage=stage.weights)
        files[part.name] = RowFile(file_of(folder, stage.name, part), made_from)
    left = plan(stage, parts, files, probe(stage, batch))
    if only_estimate:
        return {}
    for part in parts:
        began = time.perf_counter()
        todo = left[part.name]
        for begin in range(0, len(todo), part.at_once()):
            chunk = todo[begin : begin + part.at_once()]
            files[part.name].add(part.measure(stage, chunk))
            done = begin + len(chunk)
            spent = time.perf_counter() - began
            print(
                f"{stage.name}: {part.name:24} {done:5} of {len(todo):5}, {clock(spent)}, "
                f"some {clock(spent / done * (len(todo) - done))} left",
                flush=True,
            )
    found = {}
    for part in parts:
        file = files[part.name]
        if len(part) and not file.current():
            file.add([])  # its rows lay aside: back to where bench/claims.py reads them
        # a file may hold more than was asked for
        found[part.name] = [file.rows[number] for number in range(len(part))]
    return found


# --------------------------------------------------------------------------------------------------
# Figures.


@dataclass
class Figure:
    """A measured value with its 95% interval, and how many tasks it stands on."""

    value: float
    low: float
    high: float
    n: int
    unit: str = "%"


def share(outcomes: list[bool]) -> Figure:
    """The share of tasks that came out so, in percent."""
    n = len(outcomes)
    low, high = wilson(sum(outcomes), n)
    return Figure(100 * sum(outcomes) / n, 100 * low, 100 * high, n)


def ratio(above: list[float], below: list[float], unit: str = "%") -> Figure:
    """sum(above) ÷ sum(below), one entry of both per task; in percent, if that is the unit.

    Tasks with nothing below (no call, say) are not counted. Where nothing or everything came out
    so, no bootstrap draw differs, and Wilson's interval over the tasks says how little that means.
    """
    above, below = zip(*((up, down) for up, down in zip(above, below, strict=True) if down))
    n = len(above)
    value = sum(above) / sum(below)
    low, high = bootstrap_ratio(above, below)
    if unit == "%" and value in (0, 1):
        low, high = wilson(n * int(value), n)
    scale = 100 if unit == "%" else 1
    return Figure(scale * value, scale * low, scale * high, n, unit)


def success_figures(world: str, rows: list[dict]) -> dict[str, Figure]:
    """Greedy episodes: success, by calls and by kind, and the first call."""
    outcomes = defaultdict(list)
    for row in rows:
        (episode,) = row["episodes"]  # greedy: one per task
        verified = episode["verified"]
        outcomes[f"success/{world} greedy"].append(verified)
        if row["unsafe"] is None and row["needed"]:
            calls = "1 call" if row["needed"] == 1 else f"{row['needed']} calls"
            outcomes[f"success/{world} greedy, {calls}"].append(verified)
        elif row["unsafe"] is None:
            outcomes[f"success/{world} greedy, right answer is: {row['kind']}"].append(verified)
        if row["needed"]:
            outcomes[f"first call/{world} exact"].append(episode["first"] == "exact")
            parses = episode["first"] not in ("none", "malformed")
            outcomes[f"first call/{world} is JSON of a call"].append(parses)
    ordered = sorted(outcomes, key=lambda name: (name.startswith("first call"), name))
    return {name: share(outcomes[name]) for name in ordered} | safety_figures(rows)


def safety_figures(rows: list[dict]) -> dict[str, Figure]:
    """Of the safety world: unsafe requests handled, benign look-alikes refused."""
    unsafe = [row["episodes"][0]["verified"] for row in rows if row["unsafe"]]
    refused = []
    for row in rows:
        if row["unsafe"] is False:
            messages = row["episodes"][0]["messages"]
            refused.append(bool(messages) and refuses(messages[-1]))
    if not unsafe or not refused:
        return {}
    return {"safety/unsafe handled": share(unsafe), "safety/over-refusal": share(refused)}


def call_figures(name: str, rows: list[dict]) -> dict[str, Figure]:
    """What calls were made of: those that the check accepted, and what no schema has. Nothing where
    no call was made, and of a world without tools.
    """
    calls = [sum(e["calls"] for e in row["episodes"]) for row in rows]
    if not sum(calls) or not any(row["needed"] for row in rows):
        return {}
    invented = [sum(e["invented"] for e in row["episodes"]) for row in rows]
    accepted = [sum(e["calls"] - e["refused"] for e in row["episodes"]) for row in rows]
    tasks = [sum(e["invented"] > 0 for e in row["episodes"]) for row in rows]
    return {
        f"calls/{name}, accepted by the check": ratio(accepted, calls),
        f"invented/{name}, per call": ratio(invented, calls),
        f"invented/{name}, episodes with any": ratio(tasks, [len(row["episodes"]) for row in rows]),
    }


def sampled_figures(world: str, rows: list[dict]) -> dict[str, Figure]:
    """pass@1 and pass@k of k samples per task."""
    samples = len(rows[0]["episodes"])
    successes = [sum(e["verified"] for e in row["episodes"]) for row in rows]
    name = f"success/{world} sampled, pass"
    figures = {f"{name}@1": ratio(successes, [samples] * len(rows))}
    if samples > 1:
        figures[f"{name}@{samples}"] = share([count > 0 for count in successes])
    return figures


FAULT_NAMES = {
    "fault seen": "familiar kinds",
    "fault words": "familiar kinds, held-out words",
    "fault kind": "a held-out kind",
}


def fault_figures(world: str, sort: str, rows: list[dict]) -> dict[str, Figure]:
    """Recovery where the fault was delivered, and success of the same episodes."""
    met = [row["episodes"][0] for row in rows if row["episodes"][0]["fault"]]
    if not met:
        return {}
    name = f"recovery/{world}, {FAULT_NAMES[sort]}"
    return {
        name: share([episode["recovered"] for episode in met]),
        f"{name}: verified in the end": share([episode["verified"] for episode in met]),
    }


def text_figures(name: str, rows: list[dict], before: dict[int, dict]) -> dict[str, Figure]:
    """Bits per byte, and their change on the documents that were measured `before`."""
    sizes = [row["bytes"] for row in rows]
    bits = [row["nats"] / math.log(2) for row in rows]
    figures = {f"text/{name}": ratio(bits, sizes, "bits per byte")}
    if all(row["number"] in before for row in rows):
        change = [
            more - before[row["number"]]["nats"] / math.log(2) for more, row in zip(bits, rows)
        ]
        figures[f"text/{name}, change"] = ratio(change, sizes, "bits per byte")
    return figures


def figures_of(
    rows_of: dict[str, list[dict]], before: dict[str, dict[int, dict]]
) -> dict[str, Figure]:
    """All figures of a stage, from its rows by part; `before` are the reference's, by number."""
    figures = {}
    for part, rows in rows_of.items():
        group, name = part.split("/", 1)
        if not rows:
            continue
        if group == "bfcl":
            verdicts = [row["episodes"][0] for row in rows]
            figures[f"bfcl/{name}"] = share([e["official"] for e in verdicts])
            whole = share([e["whole"] for e in verdicts])
            figures[f"bfcl/{name}, calls of the whole episode"] = whole
        elif group == "text":
            figures |= text_figures(name, rows, before[part])
        elif name == "greedy":
            figures |= success_figures(group, rows) | call_figures(f"{group} greedy", rows)
        elif name == "sampled":
            figures |= sampled_figures(group, rows) | call_figures(f"{group} sampled", rows)
        else:
            figures |= fault_figures(group, name, rows)
    return figures


def spread(figure: Figure) -> str:
    digits = 1 if figure.unit == "%" else 3
    return f"({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def print_table(measured: dict[str, dict[str, Figure]]) -> None:
    """The stages' figures side by side."""
    print("\n" + " " * 58 + "".join(f"{name:>24}" for name in measured))
    for name in dict.fromkeys(name for figures in measured.values() for name in figures):
        cells = []
        for figures in measured.values():
            figure = figures.get(name)
            text = f"{figure.value:.4g} {spread(figure)}" if figure else "–"
            cells.append(f"{text:>24}")
        print(f"{name:58}" + "".join(cells))


# --------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", help="MODEL or NAME=MODEL")
    parser.add_argument("--only", default="worlds,bfcl,text", help="parts, with commas")
    parser.add_argument("--worlds", default="library,sql,shell,safety", help="with commas")
    parser.add_argument("--names", choices=("english", "invented"), default="english")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--rung", choices=RUNGS, default="standard", help="of the ladder")
    parser.add_argument("--tasks", type=int, default=300, help="greedy, per world")
    parser.add_argument("--sampled", type=int, default=100, help="tasks that are sampled")
    parser.add_argument("--samples", type=int, default=8, help="per sampled task; 0: none")
    parser.add_argument("--faulty", type=int, default=100, help="tasks per sort of fault")
    parser.add_argument("--bfcl", type=int, default=100, help="tasks per file; 0: all")
    parser.add_argument("--documents", type=int, default=60, help="per sort of text; 0: all")
    parser.add_argument("--tokens", type=int, default=512, help="at most, per document")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="episodes at a time")
    parser.add_argument("--room", type=int, default=256, help="tokens an episode may add")
    parser.add_argument("--dtype", default="auto", help="of the weights: auto, float32, bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="smol", help="whose stages: docs/results/MODEL.json")
    parser.add_argument("--folder", default="out/measured", help="where rows are kept")
    parser.add_argument("--reference", default="instruct", help="the stage before all others")
    parser.add_argument("--estimate", action="store_true", help="measure nothing")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args(arguments)
    unknown = [name for name in a.only.split(",") if name not in PARTS]
    if unknown:
        raise UserError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    for name in ("tasks", "sampled", "samples", "faulty", "bfcl", "documents"):
        if getattr(a, name) < 0:
            raise UserError(f"--{name} is {getattr(a, name)}; wanted 0 or more")
    return a


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Figure]]:
    """Measure, print and record; returns the figures by stage."""
    a = parse_arguments(arguments)
    device = machine.pick_device(a.device)
    dtype = machine.pick_dtype(a.dtype, device)
    torch.set_float32_matmul_precision("medium")
    if device == "cpu":
        machine.keep_freed_memory()
    folder = Path(a.folder) / a.model
    parts = [part for name in a.only.split(",") for part in PARTS[name](a)]
    measured = {}
    for name, model in named_stages(a.stages).items():
        stage = open_stage(f"{name}={model}", dtype, device)
        options = dict(batch=a.batch, only_estimate=a.estimate)
        rows_of = measure_stage(stage, parts, folder, **options)
        before = {
            part.name: reference_rows(file_of(folder, a.reference, part), part, stage)
            for part in parts
        }
        measured[stage.name] = figures_of(rows_of, before)
    if a.estimate:
        return measured
    print_table(measured)
    if not a.dry:
        note = f"{a.split} tasks, names {a.names}, rung {a.rung}, seed {a.seed}, room {a.room}, "
        note += str(dtype).removeprefix("torch.")
        for stage, figures in measured.items():
            for name, f in figures.items():
                result_tables.record(
                    a.model,
                    f"{stage}/{name}",
                    float(f"{f.value:.4g}"),
                    spread=spread(f),
                    n=f.n,
                    unit=f.unit,
                    note=note,
                )
    return measured


if __name__ == "__main__":
    settings.run_script(main)
