"""Labelled steps: what heads.py learns from (paper §4.2, §5.2).

    rows, digest = read_data(stage)       the examples of steps.jsonl, sampled if it is not there
    steps = pack_steps(rows, model)       their tokens in packed rows, and where the steps end

An example is a conversation whose whole messages, the steps, are labelled. There are three kinds:
- own: the agent's episodes, sampled with faults and judged by execution
- expert: the expert's, whose steps are right
- hard negatives: the expert's up to a call that was spoilt in a known way (worlds/negatives.py)

Lines of use "contrast" are no examples but pairs (`contrast_pairs`).
"""

import itertools
import math
import random
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from agent import Rollout, rollouts
from config import Model, UserError
from losses import IGNORE
from mch import closed, constraint_texts
from model import SAGE
from support import provenance, ranks
from support.log import Progress
from support.packing import Packed, pack_short
from support.tokenizer import Tokenizer
from support.training_run import TrainingRun
from worlds.base import Task
from worlds.difficulty import Difficulty
from worlds.expert import call_message, solve_task
from worlds.labels import (
    NEGATIVE_FACTS,
    PARTS,
    Labels,
    StepFacts,
    encode_episode,
    label_steps,
    labels_of,
    message_spans,
)
from worlds.negatives import hard_negatives
from worlds.tasks import Tasks, seed_of, world_names

PIECE_BATCHES = 4  # batches of episodes that are kept together while the rest is played
STEPS_VERSION = 4  # of the data file; raised when the same decoder and tasks give another one

# --------------------------------------------------------------------------------------------------
# Labelled examples.


def labelled_example(
    source: str,
    task: Task,
    conversation: tuple[list[int], list[bool]],
    tokenizer: Tokenizer,
    *,
    labels: list[Labels],
    is_call: list[bool],
    verified: bool,
) -> dict:
    """A conversation (tokens, and which of them the agent wrote) with labelled steps, one for each
    whole message, as a line of the data file.
    """
    tokens, action_mask = conversation
    spans = message_spans(tokens, action_mask, tokenizer.stop)
    steps = [
        dict(span=span, call=call, labels=step_labels)
        for span, call, step_labels in zip(spans, is_call, labels, strict=True)
    ]
    return dict(
        source=source,
        world=task.world,
        kind=task.kind,
        seed=task.seed,
        verified=verified,
        constraints=constraint_texts(task.constraints, task.request),
        steps=steps,
        tokens=tokens,
    )


def own_example(episode: Rollout, tokenizer: Tokenizer) -> dict:
    """An episode of the agent's own. Steps are its whole messages; a message that was cut off is
    not a step.
    """
    labels = label_steps(episode)
    is_call = [True] * len(labels)
    if episode.ended == "answer":
        is_call[-1] = False
    return labelled_example(
        "own",
        episode.task,
        (episode.tokens, episode.action_mask),
        tokenizer,
        labels=labels,
        is_call=is_call,
        verified=episode.verified,
    )


def expert_example(task: Task, tokenizer: Tokenizer) -> dict | None:
    """The expert's episode, if it verified: its steps are right, but that it succeeds says nothing
    about the agent.
    """
    messages, episode = solve_task(task)
    if not episode.verified:
        return None
    is_call = ["tool_calls" in message for message in messages if message["role"] == "assistant"]
    return labelled_example(
        "expert",
        task,
        encode_episode(task, messages, tokenizer),
        tokenizer,
        labels=[labels_of(StepFacts(right=True))] * len(is_call),
        is_call=is_call,
        verified=True,
    )


def negative_examples(task: Task, tokenizer: Tokenizer, rng: random.Random) -> list[dict]:
    """Hard negatives of one call of the expert, played without faults: conversations that end with
    the spoilt call.

    The steps before it are unlabelled here; they are learnt from the expert's own episode.
    """
    messages, _ = solve_task(task, faults=False)
    call_places = [place for place, message in enumerate(messages) if "tool_calls" in message]
    if not call_places:
        return []
    place = rng.choice(call_places)
    content = messages[place]["content"]
    right = messages[place]["tool_calls"][0]["function"]
    steps_before = sum("tool_calls" in message for message in messages[:place])
    examples = []
    for kind, wrong in hard_negatives(right, task.tools, rng, task).items():
        spoilt = [*messages[:place], call_message(content, wrong)]
        unlabelled = [[None] * len(PARTS)] * steps_before
        examples.append(
            labelled_example(
                kind,
                task,
                encode_episode(task, spoilt, tokenizer),
                tokenizer,
                labels=[*unlabelled, labels_of(NEGATIVE_FACTS[kind])],
                is_call=[True] * (steps_before + 1),
                verified=False,
            )
        )
    return examples


def own_examples(
    model: SAGE, tokenizer: Tokenizer, tasks: list[Task], temperature: float = 1.0, **options
) -> list[dict]:
    """The agent's own episodes, labelled; `options` are those of agent.rollouts."""
    episodes = rollouts(model, tokenizer, tasks, temperature, **options)
    # an answer whose verdict did not come in time has no label
    judged = [episode for episode in episodes if episode.ended not in ("raised", "time")]
    return [own_example(episode, tokenizer) for episode in judged]


def expert_examples(tasks: list[Task], tokenizer: Tokenizer) -> list[dict]:
    """The expert's episodes, labelled, each with its hard negatives."""
    rows = []
    for task in tasks:
        if example := expert_example(task, tokenizer):
            rows.append(example)
        rows += negative_examples(task, tokenizer, random.Random(f"spoilt {task.seed}"))
    return rows


def first_tasks(tasks: Tasks, count: int) -> list[Task]:
    return [tasks[index] for index in range(count)]


def conclusion_of(row: dict) -> list[int]:
    """Z and Y of equation 13: the agent's own words of an example, without the request and without
    what tools said.
    """
    tokens = []
    for step in row["steps"]:
        first, last = step["span"]
        tokens += row["tokens"][first : last + 1]
    return tokens


def contrast_pairs(samples: list[dict]) -> list[dict]:
    """Pairs of conclusions for heads.py's `contrast_loss`: of each task every distinct wrong one,
    beside the right ones in turn; nothing where none is right. `samples` are own examples; a pair's
    `right` and `wrong` are token IDs.
    """
    by_task = defaultdict(list)
    for row in samples:
        by_task[row["world"], row["seed"]].append(row)
    pairs = []
    for rows in by_task.values():
        found = {tuple(conclusion_of(row)): row["verified"] for row in rows if row["steps"]}
        right = [list(words) for words, verified in found.items() if verified]
        wrong = [list(words) for words, verified in found.items() if not verified]
        task = {name: rows[0][name] for name in ("world", "seed", "constraints")}
        both = zip(itertools.cycle(right), wrong)
        pairs += [task | dict(right=good, wrong=bad) for good, bad in both]
    return pairs


@dataclass
class PackedSteps:
    """Examples as rows packed for a model, and where their S steps are."""

    packed: Packed
    action_mask: Tensor  # (R, T) the agent's own tokens
    rows: Tensor  # (S,) of each step's last token
    columns: Tensor  # (S,)
    labels: Tensor  # (S, len(PARTS)); NaN where unknown


def pack_steps(examples: list[dict], model: Model) -> PackedSteps:
    """Examples packed into rows as long as the longest of them."""
    conversations = []
    for example in examples:
        written = [False] * len(example["tokens"])
        for step in example["steps"]:
            first, last = step["span"]
            written[first : last + 1] = [True] * (last + 1 - first)
        conversations.append((example["tokens"], written))
    packed = pack_short(conversations, model)
    places, labels = [], []
    for example, (row, offset) in zip(examples, packed.positions, strict=True):
        for step in example["steps"]:
            places.append((row, offset + step["span"][1]))
            labels.append([math.nan if label is None else label for label in step["labels"]])
    rows, columns = torch.tensor(places).unbind(1)
    # targets are the next tokens, so a token is the agent's where the target before it counts
    action_mask = F.pad(packed.targets[:, :-1] != IGNORE, (1, 0))
    return PackedSteps(packed, action_mask, rows, columns, torch.tensor(labels))


# --------------------------------------------------------------------------------------------------
# The data file: every example is sampled once, and read again by a resumed run.


def report_sample(say, use: str, rows: list[dict], *, left_out: int, longest: int) -> None:
    own = [row for row in rows if row["source"] == "own"]
    steps = sum(len(row["steps"]) for row in own)
    verified = sum(row["verified"] for row in own)
    line = (
        f"{use:10}  {len(own)} own episodes with {steps} steps, {verified} verified; "
        f"{len(rows) - len(own)} of the expert's and hard negatives"
    )
    if left_out:
        line += f"; {left_out} without a whole message or over {longest} tokens, left out"
    say(line)


def play_in_pieces(
    stage: TrainingRun, file: Path, made_from: dict, use: str, tasks: list[Task], **options
) -> list[dict]:
    """The agent's own episodes, labelled. Beside `file` each piece of them is kept as it is done:
    playing is long, and a killed run goes on with the next piece.
    """
    c = stage.section
    size = PIECE_BATCHES * c.batch
    rows = []
    for first in range(0, len(tasks), size):
        numbers = range(len(tasks))[first : first + size]
        piece = file.with_name(f"{file.stem}-{use}-{first}{file.suffix}")
        origin = made_from | dict(use=use, episodes=[first, numbers.stop])
        if not ranks.from_first(piece.exists()):
            place = f"{first + 1} to {numbers.stop} of {len(tasks)}"
            stage.log.say(f"play        own episodes {place}, for {use}")
            played = own_examples(
                stage.player(),
                stage.tokenizer,
                [tasks[number] for number in numbers],
                numbers=list(numbers),
                batch=c.batch,
                room=c.room,
                progress=Progress(stage.log.say, "play      "),
                **options,
            )
            provenance.write_lines(piece, played, origin)
        pieces = file.with_name(f"{file.stem}-*")
        remedy = f"give the same command, or delete {pieces} to sample again"
        rows += provenance.read_lines(piece, origin, stage.defaults, remedy)
    return rows


def delete_pieces(file: Path) -> None:
    """What play_in_pieces kept, once all of it is in the file."""
    if ranks.rank() == 0:
        for piece in file.parent.glob(f"{file.stem}-*"):
            piece.unlink()


def sample_data(stage: TrainingRun, file: Path, made_from: dict) -> None:
    """Write the data, one example or pair per line; `use` says what it is for.

    train         the confidence head; verified episodes also the inverse head
    validation    calibration and the closing table
    greedy        the gate's threshold: episodes as the fast mode plays them
    inverse       the expert's solutions, for the inverse head alone
    contrast      a right and a wrong sample of the agent's own, for the inverse head alone
    """
    c = stage.section
    began = time.perf_counter()
    worlds = world_names(c.worlds)
    in_random_words = Difficulty.of(stage.config.distill, style=stage.style)
    difficulty = replace(in_random_words, babble=0.0)

    def tasks_for(purpose: str, count: int) -> list[Task]:
        return first_tasks(Tasks(purpose, c.seed, worlds, difficulty), count)

    def sample(
        use: str, purpose: str, count: int, expert: list[Task], temperature: float = 1.0
    ) -> list[dict]:
        options = dict(temperature=temperature, seed=seed_of(purpose, c.seed))
        tasks = tasks_for(purpose, count)
        rows = play_in_pieces(stage, file, made_from, use, tasks, **options)
        rows += expert_examples(expert, stage.tokenizer)
        kept = [row for row in rows if row["steps"] and len(row["tokens"]) <= c.sequence]
        report_sample(stage.log.say, use, kept, left_out=len(rows) - len(kept), longest=c.sequence)
        return [dict(use=use, **row) for row in kept]

    expert = tasks_for("heads expert", c.trajectories)
    rows = sample("train", "heads", c.tasks, expert)
    expert = tasks_for("heads calibration expert", c.validation)
    rows += sample("validation", "heads calibration", c.validation, expert)
    rows += sample("greedy", "heads threshold", c.validation, [], temperature=0.0)

    solved = 0
    for task in tasks_for("heads inverse", c.solutions):
        if example := expert_example(task, stage.tokenizer):
            rows.append(dict(use="inverse", **example))
            solved += 1
    stage.log.say(f"inverse     {solved} of the expert's episodes, for the inverse head alone")

    further = Tasks("heads inverse", c.seed, worlds, in_random_words)
    numbers = range(c.solutions, c.solutions + c.contrast)  # of tasks that are not drawn above
    drawn = [further[number] for number in numbers]
    tasks = [task for task in drawn for _ in range(c.contrast_samples)]
    seed = seed_of("heads inverse", c.seed)
    samples = play_in_pieces(stage, file, made_from, "contrast", tasks, seed=seed)
    pairs = contrast_pairs([row for row in samples if len(row["tokens"]) <= c.sequence])
    rows += [dict(use="contrast", **pair) for pair in pairs]
    stage.log.say(
        f"contrast    {len(pairs)} pairs of a right and a wrong one among {len(samples)} samples"
    )

    provenance.write_lines(file, rows, made_from)
    seconds = time.perf_counter() - began
    stage.log.say(f"data        {len(rows):,} examples in {file.name}, {seconds:.0f} s")


def read_data(stage: TrainingRun) -> tuple[list[dict], str]:
    """The examples, sampled first if they are not there yet, and the digest of their file.

    Raises UserError where the file is not the one that this run has learnt from so far.
    """
    file = stage.folder / "steps.jsonl"
    made_from = {**stage.made_from, "version": STEPS_VERSION}
    if not ranks.from_first(file.exists()):
        sample_data(stage, file, made_from)
    delete_pieces(file)
    # a run that has taken steps learnt from the old file: both must go
    anew = stage.folder if stage.first else file
    remedy = f"give the same command, or delete {anew} to sample again"
    rows = provenance.read_lines(file, made_from, stage.defaults, remedy)
    digest = provenance.digest(file)
    if stage.kept.get("data", digest) != digest:
        raise UserError(
            f"{file} is not the one that the steps up to {stage.first} learnt from; "
            f"put that one back, or delete {stage.folder} to begin anew"
        )
    return rows, digest


def retelling(
    conclusion: list[int], constraint: str, tokenizer: Tokenizer
) -> tuple[list[int], list[bool]]:
    """A conclusion (masked), with a constraint behind it (taught), as the inverse head reads it."""
    stop = tokenizer.stop[0]
    words = closed(conclusion, stop)
    told = [*tokenizer.encode(constraint), stop]
    return words + told, [False] * len(words) + [True] * len(told)


def constraint_examples(
    row: dict, tokenizer: Tokenizer, prior: float, rng: random.Random
) -> list[tuple[list[int], list[bool]]]:
    """What the inverse head learns from a verified episode: its conclusion beside each of its
    constraints. With probability `prior` the conclusion is empty.
    """
    return [
        retelling([] if rng.random() < prior else conclusion_of(row), text, tokenizer)
        for text in row["constraints"]
    ]


def count_labels(row: dict) -> int:
    """Known labels of an example."""
    return sum(label is not None for step in row["steps"] for label in step["labels"])
