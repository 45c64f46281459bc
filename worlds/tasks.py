"""Drawing tasks: which purposes there are, and the endless tasks of each.

Every purpose for which tasks are drawn (a stage's tasks, its replay, a test, ...) has one split and
seeds of its own: no two purposes share a task, by construction.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from config import UserError
from worlds import ALL_WORLDS
from worlds.base import Task, world_class
from worlds.difficulty import Difficulty

# ---------------------------------------------------------------------------------------- purposes

PURPOSES = {  # what tasks are drawn for -> the split of their names and words
    "show": "train",  # python -m worlds
    "teacher": "train",  # teacher.py's data sets
    "distill": "train",  # the trajectories that stage distill learns from
    "reflect": "train",  # the student's own attempts ...
    "reflect replay": "train",  # ... and the teacher's episodes beside them
    "dpo": "train",
    "dpo replay": "train",
    "ppo": "train",
    "ppo replay": "train",
    "heads": "train",  # the agent's own episodes that the heads learn from ...
    "heads expert": "train",  # ... the expert's, and hard negatives of them
    "heads inverse": "train",  # ... and the expert's again, for the inverse head alone
    "heads calibration": "validation",
    "heads calibration expert": "validation",
    "heads threshold": "validation",
    "validation": "validation",  # where recipes and settings are chosen
    "test": "test",  # what is reported; looked at once a recipe is fixed
    "test expert": "test",  # hard negatives by which the heads are judged
}


def seed_of(purpose: str, seed: int) -> int:
    """The seed with which a run of seed `seed` ≥ 0 draws the tasks of a purpose.

    One-to-one, and so is `draw_task`'s step from it to each task's own seed: tasks of two purposes,
    or of two runs, have different seeds. Raises UserError for an unknown purpose.
    """
    if purpose not in PURPOSES:
        raise UserError(
            f"tasks are drawn for no purpose {purpose!r}; there are {', '.join(PURPOSES)}"
        )
    return seed * len(PURPOSES) + list(PURPOSES).index(purpose)


# ------------------------------------------------------------------------------------------- worlds


def world_names(setting: str) -> list[str]:
    """The worlds that a setting names: "all" (ALL_WORLDS), "all but math", or names with commas,
    which take turns. Raises UserError for an exception that is no world, and where none is left.
    """
    if setting == "all":
        return list(ALL_WORLDS)
    if setting.startswith("all but "):
        left_out = setting.removeprefix("all but ").split(",")
        for name in left_out:
            world_class(name)
        left = [name for name in ALL_WORLDS if name not in left_out]
        if not left:
            raise UserError(f"{setting!r} leaves no world; there are {', '.join(ALL_WORLDS)}")
        return left
    return setting.split(",")


def playable(names: Sequence[str]) -> list[str]:
    """The worlds that can be acted in on this machine; one line says what is left out.

    Raises UserError for an unknown world, and where none is left.
    """
    reasons = {name: world_class(name).why_unplayable() for name in names}
    left = [name for name in names if not reasons[name]]
    for name, why in reasons.items():
        if why and not left:
            raise UserError(f"the {name} world cannot be played: {why}")
        if why:
            _say_once(f"the {name} world is left out: {why}")
    return left


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -------------------------------------------------------------------------------------------- tasks

MOST_TASKS = 2**32  # of one seed; an index is the lower half of a task's own seed


def draw_task(world: str, seed: int, index: int, difficulty: Difficulty = Difficulty()) -> Task:
    """Task number `index` of a seed.

    The same arguments give the same task, so a data set's line can be rebuilt as a task.
    """
    if not 0 <= index < MOST_TASKS:
        raise UserError(
            f"task {index} of the world {world}: wanted a number from 0 to {MOST_TASKS - 1}"
        )
    return world_class(world).sample(seed * MOST_TASKS + index, difficulty)


@dataclass(frozen=True)
class Tasks:
    """The tasks of one purpose and run, endless: `tasks[index]`.

    Worlds take turns, as far as they can be played on this machine.
    """

    purpose: str  # one of PURPOSES
    seed: int  # of the run
    worlds: Sequence[str]
    difficulty: Difficulty  # its split becomes the purpose's

    def __post_init__(self) -> None:
        object.__setattr__(self, "worlds", playable(self.worlds))

    def arguments(self, index: int) -> tuple[str, int, int, Difficulty]:
        """The arguments of `draw_task` for task number `index`."""
        world = self.worlds[index % len(self.worlds)]
        seed = seed_of(self.purpose, self.seed)  # which says what is wrong with an unknown purpose
        difficulty = replace(self.difficulty, split=PURPOSES[self.purpose])
        return world, seed, index, difficulty

    def __getitem__(self, index: int) -> Task:
        return draw_task(*self.arguments(index))
