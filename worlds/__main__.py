"""Show what the agent faces: tasks of a world with the expert's solution, in colour.

python -m worlds --show shell
python -m worlds --show api --tasks 2 --seed 3 --difficulty.chain 4 --difficulty.fault-rate 1
"""

import os
import sys
from dataclasses import dataclass, field

import tyro

from config import UserError
from support.settings import run_script
from worlds import WORLDS
from worlds.base import Episode, Task, failed
from worlds.critique import critique, refuses
from worlds.difficulty import Difficulty
from worlds.expert import Trajectory, trajectory
from worlds.tasks import Tasks
from worlds.tools import compact_tool

COLOURS = {"user": "1", "plan": "36", "call": "33", "good": "32", "bad": "31", "faint": "2"}


@dataclass
class ShowSettings:
    """Print tasks with the expert's solution."""

    show: str = "api"  # a world's name
    tasks: int = 3
    seed: int = 0
    negatives: bool = True  # also the three hard negatives of the first call, with their faults
    purpose: str = "show"  # whose tasks: tasks.PURPOSES; "validation" has other names and words
    difficulty: Difficulty = field(default_factory=lambda: Difficulty(fault_rate=0.5))


def show_text(text: str, colour: str) -> None:
    """Print a text, in colour where the terminal has colours."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[{COLOURS[colour]}m{text}\033[0m"
    print(text)


def show_task(task: Task, index: int) -> None:
    """A task's heading and tools."""
    show_text(f"\n── {task.world} {index}: {task.kind} " + "─" * 60, "faint")
    for tool in task.tools:
        show_text(f"  {compact_tool(tool)}", "faint")


def show_message(message: dict) -> None:
    """A message of the user, the expert or a tool."""
    content = message["content"]
    if message["role"] == "tool":
        show_text(f"  ← {content}", "bad" if failed(content) else "good")
        return
    if content:
        show_text(content, "user" if message["role"] == "user" else "plan")
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = [f"{key}={value!r}" for key, value in function["arguments"].items()]
        show_text(f"  → {function['name']}({', '.join(arguments)})", "call")


def show_verdict(task: Task, made: Trajectory) -> None:
    """Whether the expert's episode verified, and what the request demands."""
    show_text("verified" if made.verified else "NOT VERIFIED", "good" if made.verified else "bad")
    constraints = [f"{key} {value}" for key, value in task.constraints.items()]
    show_text(f"constraints: {', '.join(constraints)}", "faint")


def show_negatives(task: Task, made: Trajectory) -> None:
    """The first call's hard negatives, and what is wrong with doing nothing."""
    for negative in made.negatives[:3]:
        wrong = negative["wrong"]["arguments"]
        show_text(f"  hard negative, {negative['kind']:5}: {wrong}  {negative['fault']}", "faint")
    if not refuses(task.answer):
        with Episode(task, faults=False) as nothing:
            why = critique(task, nothing, "answer: 0")
        show_text(f"  critique of doing nothing: {why}", "faint")


def main(arguments: list[str] | None = None) -> None:
    settings = tyro.cli(ShowSettings, args=arguments, description=__doc__)
    if settings.show not in WORLDS:
        raise UserError(f"there is no world {settings.show!r}; there are {', '.join(WORLDS)}")
    tasks = Tasks(settings.purpose, settings.seed, [settings.show], settings.difficulty)
    for index in range(settings.tasks):
        task = tasks[index]
        made = trajectory(*tasks.arguments(index))
        show_task(task, index)
        for message in made.messages:
            show_message(message)
        show_verdict(task, made)
        if settings.negatives:
            show_negatives(task, made)


if __name__ == "__main__":
    run_script(main)
