"""Published tasks that are played, not asked: function calls of the Berkeley leaderboard,
AgentBench's databases and shell, and test tasks of our worlds (§6).

    bfcl             every file at hand of its single turns; bfcl:simple, bfcl:live_multiple: one
    agentbench:db    dbbench/standard.jsonl, or else dev.jsonl: SQL
    agentbench:os    os/dev.json: bash, in the sandbox and nowhere else
    world:library    one of our worlds: WORLD_TASKS tasks, as many as --limit says if it says so

An episode is played greedily (agent.rollouts) or with second thoughts (fast/thinking.py, as the
paper's §4.2). The judges are the official ones, worlds/extras/benchmarks.py. An episode's costs are
counted as an answer's are (fast.thinking.forward_flops): all that it reads and writes, what tools
say too.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from agent import MAX_CALLS, Rollout, prompt_of, rollouts
from config import Benchmarks, Think, UserError
from fast.thinking import forward_flops, think
from mch import ThinkingHeads
from support import provenance
from support.asked import numbers_of, question_row, too_long_row
from support.measured import Stage, benchmark_folder
from support.questions import Question
from think import Thinking
from worlds import WORLDS
from worlds.base import Entry, Episode, Task
from worlds.difficulty import Difficulty
from worlds.expert import fingerprint
from worlds.tasks import Tasks, playable

# raised when rows change, so that no older ones pass for the same; and those of mode think
PLAYS_VERSION = 1
THINK_VERSION = 2
WORLD_TASKS = 300  # of a world, where --limit does not say; as many as eval.tasks
OS_ROUNDS = 8  # messages that AgentBench OS allows

# --------------------------------------------------------------------------------------------------
# Files: tasks by their numbers, and what they were read from.


class TaskFiles(NamedTuple):
    """A benchmark's tasks by number, and the files they were read from."""

    tasks: dict[int, Task]
    files: list[Path]


def bfcl_files(folder: Path) -> TaskFiles:
    """The leaderboard's files that are read here, as many as the folder has. Raises UserError."""
    from worlds.extras.benchmarks import BFCL_FILES, bfcl

    folder = folder / "bfcl"
    names = [name for name in BFCL_FILES if (folder / f"BFCL_v4_{name}.json").is_file()]
    names = names or [BFCL_FILES[0]]  # which is missed by name
    tasks = [task for name in names for task in bfcl(folder, name)]
    files = [path for name in names for path in sorted(folder.rglob(f"BFCL_v4_{name}.json"))]
    return TaskFiles(dict(enumerate(tasks)), files)


def db_files(folder: Path) -> TaskFiles:
    """AgentBench DB: the file whose figures are published, or else the one for development.
    Raises UserError.
    """
    from worlds.extras.benchmarks import agentbench_db

    folder = folder / "agentbench"
    standard = folder / "dbbench" / "standard.jsonl"
    file = standard if standard.is_file() else folder / "dbbench" / "dev.jsonl"
    return TaskFiles(dict(enumerate(agentbench_db(folder, file.name))), [file])


def os_files(folder: Path) -> TaskFiles:
    """AgentBench OS: the tasks that can be prepared here; a note says which cannot, and why.
    Raises UserError, also where there is no sandbox.
    """
    from worlds.extras.benchmarks import System, agentbench_os

    if why := System.why_unplayable():
        raise UserError(f"agentbench:os cannot be played: {why}")
    folder = folder / "agentbench"
    found, left_out = agentbench_os(folder)
    tasks = {}
    for task in found:
        try:
            System(task).close()
            tasks[task.seed] = task
        except UserError as reason:
            left_out[task.seed] = str(reason)
    for number, reason in sorted(left_out.items()):
        print(f"note    agentbench:os: task {number} cannot be played here: {reason}", flush=True)
    return TaskFiles(tasks, [folder / "os" / "dev.json"])


# --------------------------------------------------------------------------------------------------
# Verdicts.


def bfcl_verdicts(task: Task, rollout: Rollout) -> dict:
    """BFCL's verdict of the first message, as is official, and of the whole episode. A message in
    which a call does not parse, or which never ended, counts as one without calls.
    """

    def right(entries: list[Entry]) -> bool:
        calls = [entry.taken for entry in entries]
        if None in calls:  # as officially: a message that cannot be read calls nothing
            calls = []
        with Episode(task) as episode:
            for call in calls:
                episode.step(call)
            return episode.verify("")

    called = rollout.called[0] if rollout.called else 0
    return dict(official=right(rollout.log[:called]), whole=right(rollout.log))


def first_message(task: Task, rollout: Rollout) -> dict:
    """The leaderboard's rule: the first message's calls are the answer. `second` is the same rule
    on the calls of all messages, for an agent that makes one call per message.
    """
    verdicts = bfcl_verdicts(task, rollout)
    called = rollout.called[0] if rollout.called else 0
    calls = [entry.call for entry in rollout.log[:called]]
    answer = json.dumps(calls, ensure_ascii=False) if calls else ""
    gold = json.dumps(task.truth["key"], ensure_ascii=False)
    verdict = dict(gold=gold, answer=answer, right=verdicts["official"])
    return verdict | dict(second=verdicts["whole"])


def last_message(task: Task, rollout: Rollout) -> dict:
    """The world's own verdict on what was done, and on the message that ended the episode."""
    answer = rollout.messages[-1] if rollout.ended == "answer" else ""
    return dict(answer=answer, right=rollout.verified)


def in_os_rounds(task: Task, rollout: Rollout) -> dict:
    """The same, if it was said in as many messages as AgentBench OS allows."""
    verdict = last_message(task, rollout)
    return verdict | dict(right=verdict["right"] and len(rollout.messages) <= OS_ROUNDS)


# --------------------------------------------------------------------------------------------------
# Rows.


def costs_of_rollout(stage: Stage, rollout: Rollout) -> dict:
    """Tokens that an episode read (prompt and observations) and wrote, and its FLOPs."""
    config, mask = stage.model.config, rollout.action_mask
    prompt, written = mask.index(True), sum(mask)
    added = len(mask) - prompt
    flops = forward_flops(config, prompt, prompt / 2, 1)
    flops += forward_flops(config, added, prompt + added / 2, written)
    return dict(read=len(mask) - written, written=written, flops=flops)


def costs_of_thinking(thinking: Thinking) -> dict:
    """The same of an episode with second thoughts. `written` are all tokens through the decoder
    that the episode itself did not read: drafts, imagined results, what the inverse head reads.
    """
    mask = thinking.rollout.action_mask
    read = len(mask) - sum(mask)
    cost = thinking.cost
    return dict(read=read, written=cost.tokens - read, flops=cost.flops)


def question_of(task: Task) -> Question:
    """A task as a row names it; its group is its kind ("simple", not "simple_python")."""
    group = task.kind.removesuffix("_python")
    return Question(f"{group} {task.seed}", task.request, task.answer, group=group)


def transcript_of(stage: Stage, rollout: Rollout) -> dict:
    """All that was said behind the prompt, the calls and what came of them, why it ended."""
    begin = rollout.action_mask.index(True)
    text = stage.tokenizer.decode(rollout.tokens[begin:])
    calls = [dict(call=entry.call, observation=entry.observation) for entry in rollout.log]
    return dict(text=text, calls=calls, ended=rollout.ended)


# --------------------------------------------------------------------------------------------------
# A benchmark.


class Play(NamedTuple):
    """How a benchmark is played: `room` tokens may follow the prompt; `tolerance` refused calls
    end an episode, as MAX_CALLS of any kind do (or 4 more than the solution has).
    """

    files: Callable[[Path], TaskFiles] | None  # None: tasks are drawn
    judge: Callable[[Task, Rollout], dict]
    room: int
    tolerance: int = MAX_CALLS


WORLD = Play(None, last_message, room=384, tolerance=2)  # as eval.py plays the stages
PLAYS = {
    "bfcl": Play(bfcl_files, first_message, room=512),
    "agentbench:db": Play(db_files, last_message, room=1024),
    "agentbench:os": Play(os_files, in_os_rounds, room=1536),
    **{f"world:{world}": WORLD for world in WORLDS},
}


def play_name(task: str) -> str:
    """The name in PLAYS with which a task begins ("bfcl:simple": bfcl); "" where none does."""
    return next((name for name in PLAYS if f"{task}:".startswith(f"{name}:")), "")


class PlayedBenchmark:
    """A benchmark's tasks, as the command line wants them played. Raises UserError where it asks
    for what only questions have.
    """

    def __init__(self, task: str, a: Benchmarks):
        self.settings = a
        self.name = play_name(task)
        self.group = task.removeprefix(self.name).removeprefix(":")
        self.play = PLAYS[self.name]
        self.room = a.room or self.play.room
        self.how = "episodes" if a.mode == "fast" else a.mode
        if a.mode == "vote":
            raise UserError(
                f"--mode vote counts answers that agree, and {self.name} is played: what episodes "
                "did is not compared; take --mode fast or think"
            )
        for name, given in dict(scoring=a.scoring, prompt=a.prompt, shots=a.shots >= 0).items():
            if given:
                raise UserError(f"{self.name} is played, not asked; leave --{name} out")
        self.at_once = a.batch if a.mode == "fast" else max(1, a.batch // Think().n)

    def task(self, stage: Stage, number: int) -> Task:
        """A task, with its tools in the style that the model has learnt."""
        raise NotImplementedError

    def tasks_from(self, stage: Stage) -> str:
        """A hash of what the tasks are made from."""
        raise NotImplementedError

    def made_from(self, stage: Stage) -> dict:
        """What a row depends on."""
        made_from = dict(
            version=PLAYS_VERSION,
            tasks=self.tasks_from(stage),
            stage=stage.weights,
            room=self.room,
            tolerance=self.play.tolerance,
            seed=self.settings.seed,
        )
        if self.settings.mode == "think":
            made_from["think"] = asdict(Think()) | dict(version=THINK_VERSION)
        return made_from

    def measure(self, stage: Stage, heads: ThinkingHeads | None, numbers: list[int]) -> list[dict]:
        """The rows of the tasks of these numbers."""
        fitting, rows = {}, []
        for number in numbers:
            task = self.task(stage, number)
            length = len(prompt_of(task, stage.tokenizer))
            if length + 2 <= stage.model.config.context:
                fitting[number] = task
            else:
                rows.append(too_long_row(number, question_of(task), length))
        episodes = self.episodes(stage, heads, fitting)
        for (number, task), (rollout, costs) in zip(fitting.items(), episodes, strict=True):
            row = question_row(number, question_of(task), **costs)
            rows.append(row | self.play.judge(task, rollout) | transcript_of(stage, rollout))
        return rows

    def episodes(
        self, stage: Stage, heads: ThinkingHeads | None, tasks: dict[int, Task]
    ) -> list[tuple[Rollout, dict]]:
        """An episode of each task, and its costs; with second thoughts where there are heads."""
        played = stage.model, stage.tokenizer, list(tasks.values())
        options = dict(
            seed=self.settings.seed,
            batch=self.at_once,
            tolerance=self.play.tolerance,
            numbers=list(tasks),
        )
        if heads:
            model, tokenizer, some = played
            thoughts = think(model, heads, tokenizer, some, Think(room=self.room), **options)
            return [(thinking.rollout, costs_of_thinking(thinking)) for thinking in thoughts]
        done = rollouts(*played, temperature=0.0, room=self.room, **options)
        return [(rollout, costs_of_rollout(stage, rollout)) for rollout in done]

    def described(self, stage: Stage) -> dict:
        """What a result says beside its figures: limits, and the first task's prompt."""
        first = prompt_of(self.task(stage, self.numbers[0]), stage.tokenizer)
        protocol = dict(room=self.room, tolerance=self.play.tolerance, calls=MAX_CALLS)
        return dict(protocol=protocol, first_prompt=stage.tokenizer.decode(first))


class FileBenchmark(PlayedBenchmark):
    """Tasks of published files. Raises UserError for files that are missing or of another form,
    without the package that reads them, and without a sandbox where one is needed.
    """

    def __init__(self, task: str, a: Benchmarks):
        super().__init__(task, a)
        try:
            self.found = self.play.files(benchmark_folder(a.data))
        except ModuleNotFoundError as missing:
            raise UserError(
                f"{self.name} needs the package {missing.name}; pip install -e '.[benchmarks]'"
            ) from None
        if not self.found.tasks:
            raise UserError(f"{self.found.files[0]} holds no task that can be played here")
        groups = {n: question_of(task).group for n, task in self.found.tasks.items()}
        self.numbers = numbers_of(self.name, self.group, groups, a)

    def task(self, stage: Stage, number: int) -> Task:
        task = self.found.tasks[number]
        style = stage.tokenizer.style
        return replace(task, difficulty=replace(task.difficulty, style=style))

    def tasks_from(self, stage: Stage) -> str:
        return provenance.digest(*self.found.files)


class WorldBenchmark(PlayedBenchmark):
    """Tasks drawn from one of our worlds. Raises UserError where it cannot be played here."""

    def __init__(self, task: str, a: Benchmarks):
        super().__init__(task, a)
        if self.group:
            raise UserError(f"{self.name} has no groups; leave :{self.group} out")
        self.worlds = playable([self.name.removeprefix("world:")])
        self.numbers = list(range(a.limit or WORLD_TASKS))

    def difficulty(self, stage: Stage) -> Difficulty:
        """In English for a model that has learnt to speak it."""
        style = stage.tokenizer.style
        speaks_english = style == "qwen" and self.name != "world:api"  # which has invented names
        names = "english" if speaks_english else "invented"
        return Difficulty(split=self.settings.split, style=style, names=names)

    def task(self, stage: Stage, number: int) -> Task:
        a = self.settings
        return Tasks(a.split, a.seed, self.worlds, self.difficulty(stage))[number]

    def tasks_from(self, stage: Stage) -> str:
        return fingerprint(self.worlds, self.settings.seed, self.difficulty(stage))


def played_benchmark(task: str, a: Benchmarks) -> PlayedBenchmark:
    """The benchmark that a task names: "bfcl", "bfcl:simple", "world:sql". Raises UserError."""
    kind = WorldBenchmark if PLAYS[play_name(task)] is WORLD else FileBenchmark
    return kind(task, a)
