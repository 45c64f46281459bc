"""Speed of the worlds and of the sandbox, on one core; and a data set written by one process and by
two.

    python bench/worlds.py        about a minute; docs/results/worlds.json, group speed/

Tasks/s is drawing a task with its solution, steps/s is carrying out the solution's calls in
episodes that are already open (the check of the call, the fault injector and the world). A sandbox
call is one command in a sandbox that is open, a start is a new sandbox with twenty files.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.sched_setaffinity(
    0, {min(os.sched_getaffinity(0))}
)  # one core; the two processes below get their own

from support import result_tables as results  # noqa: E402
from worlds import WORLDS
from worlds.base import Episode, world_class
from worlds.difficulty import Difficulty
from worlds.tasks import draw_task  # noqa: E402
from worlds.extras.sandbox import File, Sandbox, available  # noqa: E402

ROUNDS = 5  # each figure: the median of five rounds, with their range


def record(name: str, figures: list[float], unit: str, goal: str = "", note: str = "") -> None:
    value, spread = (
        statistics.median(figures),
        f"min {min(figures):.4g} max {max(figures):.4g}" if len(figures) > 1 else "",
    )
    print(f"{name:<45}{value:>12.1f} {unit:<15}{spread}")
    results.record(
        "worlds", f"speed/{name}", round(value, 1), spread=spread, unit=unit, goal=goal, note=note
    )


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def carry_out(episodes: list, tasks: list) -> None:
    for task, episode in zip(tasks, episodes):
        for step in task.solution:
            episode.step(step.call)


for name in WORLDS:
    drawn, checked, bare = [], [], []
    for round_number in range(ROUNDS):
        seconds = timed(lambda: [draw_task(name, round_number, index) for index in range(400)])
        drawn.append(400 / seconds)
        tasks = [
            draw_task(name, round_number, index, Difficulty(special=0.0)) for index in range(400)
        ]
        calls = sum(step.call is not None for task in tasks for step in task.solution)
        if calls:  # math has none: its plan is its solution
            episodes = [Episode(task, faults=False) for task in tasks]
            checked.append(calls / timed(lambda: carry_out(episodes, tasks)))
            worlds = [world_class(name)(task) for task in tasks]
            bare.append(calls / timed(lambda: carry_out(worlds, tasks)))
            for instance in [*(episode.world for episode in episodes), *worlds]:
                instance.close()
    record(f"{name}, tasks drawn", drawn, "tasks/s")
    if checked:
        record(f"{name}, steps", checked, "steps/s", "≥ 20000")
        record(f"{name}, steps without check and faults", bare, "steps/s")

if available():
    files = {
        f"folder{number % 3}/file{number}.txt": File(b"some text\n" * 20) for number in range(20)
    }

    def milliseconds(action, count: int) -> list[float]:
        return [1000 * timed(action) for _ in range(count)]

    def start_and_end() -> None:
        with Sandbox(files):
            pass

    record("sandbox, start and end", milliseconds(start_and_end, 100), "ms")
    with Sandbox(files) as sandbox:
        record(
            "sandbox, call of a builtin (echo)",
            milliseconds(lambda: sandbox.run("echo hello"), 300),
            "ms",
            "≤ 10",
        )
        record(
            "sandbox, call with three programs",
            milliseconds(lambda: sandbox.run("find . -name '*.txt' | sort | wc -l"), 300),
            "ms",
            "≤ 10",
        )
        record("sandbox, reading the tree", milliseconds(sandbox.tree, 300), "ms")
else:
    print("no bubblewrap here: the sandbox is not measured")

os.sched_setaffinity(0, range(os.cpu_count()))
TASKS = 3000
with tempfile.TemporaryDirectory() as folder:

    def write(shards: int) -> None:
        """Write the data set with so many processes, each with its shard."""
        running = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "worlds.extras.teacher",
                    "--tasks",
                    str(TASKS),
                    "--out",
                    f"{folder}/{shards}-{shard}.jsonl",
                    "--shard",
                    f"{shard}/{shards}",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for shard in range(shards)
        ]
        if any(process.wait() for process in running):
            sys.exit("error: teacher.py failed")

    def indexes(shards: int) -> list[int]:
        return sorted(
            json.loads(line)["index"]
            for shard in range(shards)
            for line in Path(f"{folder}/{shards}-{shard}.jsonl").read_text().splitlines()
        )

    one, two = timed(lambda: write(1)), timed(lambda: write(2))
    if indexes(1) != indexes(2):
        sys.exit("error: two shards do not hold the same trajectories as one")
    size = Path(f"{folder}/1-0.jsonl").stat().st_size / TASKS
record(
    "data set, one process",
    [TASKS / one],
    "trajectories/s",
    note="with faults, three executed negatives a call and statistics",
)
record(
    "data set, two processes",
    [TASKS / two],
    "trajectories/s",
    note=f"{one / two:.2f} times one process",
)
record(
    "data set of 5 million, one core",
    [5e6 / (TASKS / one) / 3600],
    "hours",
    note=f"on paper, from the line above; {5e6 * size / 1e9:.0f} GB",
)
