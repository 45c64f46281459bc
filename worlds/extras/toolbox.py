"""Toolbox world: somebody's own Python functions as tools, which really run (sample.py --tools).

The calls of the agent are checked against the functions' schemas, like in every world, and carried
out in a process with limits (tool_process.py). Nobody knows the right answer: such an episode is
never verified.
"""

from pathlib import Path

from config import UserError
from worlds.base import Task, World, unjudged_task
from worlds.extras.tool_process import ToolProcess


def tools_of_file(module: str | Path) -> list[dict]:
    """The functions of a Python file, or of a module, as tools in OpenAI's format.

    Raises UserError that names the file, the line and what is missing.
    """
    with ToolProcess(module) as process:
        return process.tools


def module_behind(path: Path, found: object, tools: list[dict]) -> Path | None:
    """The Python file that a list of tools names as "module", which is looked for beside it; None
    where it names none. Raises UserError where a tool is not among the file's functions.
    """
    if not isinstance(found, dict) or "module" not in found:
        return None
    module = path.parent / str(found["module"])
    there = [tool["function"]["name"] for tool in tools_of_file(module)]
    for tool in tools:
        name = tool["function"]["name"]
        if name not in there:
            raise UserError(
                f"{path} has a tool {name}, and {module} no such function; it has "
                f"{', '.join(there)}"
            )
    return module


def task_with_tools(request: str, tools: list[dict], module: str | Path, style: str) -> Task:
    """A request with tools that a Python file or module carries out."""
    truth = {"module": str(module)}
    return unjudged_task("toolbox.Toolbox", "own tools", request, tools, style=style, truth=truth)


class Toolbox(World):
    """One episode with a process of its own."""

    faults = ()
    patience = 60.0

    def __init__(self, task: Task):
        super().__init__(task)
        self.process = ToolProcess(task.truth["module"])

    def step(self, call: dict) -> str:
        return self.process.call(call["name"], call["arguments"])

    def verify(self, answer: str) -> bool:
        return False

    def close(self) -> None:
        self.process.close()
