"""Show what the agent faces: `python -m worlds --show shell` prints tasks of a world with the
expert's solution, in colour.

python -m worlds --show api --tasks 2 --seed 3 --difficulty.chain 4 --difficulty.fault-rate 1 --difficulty.decoys 2
"""

import os
import sys
from dataclasses import dataclass, field

import tyro

from worlds import tools as toolbox
from config import UserError
from support.settings import run_script
from worlds.expert import critique, trajectory
from worlds.base import WORLDS, Difficulty, Episode, Tasks, failed

COLOURS = {"user": "1", "plan": "36", "call": "33", "said": "32", "error": "31", "faint": "2"}


@dataclass
class Settings:
    """Print tasks with the expert's solution."""

    show: str = "api"  # api, sql, shell, math or safety
    tasks: int = 3
    seed: int = 0
    negatives: bool = (
        True  # also the three hard negatives of the first call, and what is wrong with each
    )
    purpose: str = "show"  # whose tasks: worlds.PURPOSES; "validation" has other names and words
    difficulty: Difficulty = field(default_factory=lambda: Difficulty(fault_rate=0.5))


def main(arguments: list[str] | None = None) -> None:
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    if settings.show not in WORLDS:
        raise UserError(f"there is no world {settings.show!r}; there are {', '.join(WORLDS)}")
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(text: str, colour: str) -> None:
        print(f"\033[{COLOURS[colour]}m{text}\033[0m" if coloured else text)

    tasks = Tasks(settings.purpose, settings.seed, [settings.show], settings.difficulty)
    for index in range(settings.tasks):
        task, made = tasks[index], trajectory(*tasks.arguments(index))
        say(f"\n── {task.world} {index}: {task.kind} " + "─" * 60, "faint")
        for tool in task.tools:
            say(f"  {toolbox.compact(tool)}", "faint")
        for message in made.messages:
            content = message["content"]
            if message["role"] == "tool":
                say(f"  ← {content}", "error" if failed(content) else "said")
                continue
            if content:
                say(content, "user" if message["role"] == "user" else "plan")
            for call in message.get("tool_calls", ()):
                say(
                    "  → {name}({0})".format(
                        ", ".join(f"{k}={v!r}" for k, v in call["function"]["arguments"].items()),
                        **call["function"],
                    ),
                    "call",
                )
        say("verified" if made.verified else "NOT VERIFIED", "said" if made.verified else "error")
        say(
            "constraints: "
            + ", ".join(f"{key} {value}" for key, value in task.constraints.items()),
            "faint",
        )
        for negative in made.negatives[:3] if settings.negatives else ():
            say(
                f"  hard negative, {negative['kind']:5}: {negative['wrong']['arguments']}  {negative['fault']}",
                "faint",
            )
        if settings.negatives and not task.answer.startswith("refuse"):
            with Episode(task, faults=False) as nothing:
                say(f"  critique of doing nothing: {critique(task, nothing, 'answer: 0')}", "faint")


if __name__ == "__main__":
    run_script(main)
