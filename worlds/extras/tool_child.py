"""What runs inside a ToolProcess (tool_process.py): it loads a module, describes its functions, and
calls them, one request per line.

Only the standard library is imported. What the tools print goes nowhere; requests and answers have
descriptors of their own.
"""

import importlib
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from worlds.extras.tool_schema import tool_of_function

LONGEST_ERROR = 300  # characters of what an exception says


def private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output under other numbers; under their own is nothing from now on."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    return requests, answers


def set_limits(limits: dict[str, int]) -> None:
    """Bound what this process may use; each limit binds what it starts, too."""
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory"],) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file"],) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits["open_files"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load_module(name: str) -> ModuleType:
    """A Python file, by its path, or a module that can be imported."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    sys.path.insert(0, str(path.parent))  # it may import what lies beside it
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def functions_of(module: ModuleType) -> dict[str, Callable]:
    """The public functions that a module defines itself, by name, in the file's order; of one that
    has `TOOLS`, a dict of functions, these.
    """
    if hasattr(module, "TOOLS"):
        return dict(module.TOOLS)
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__module__ == module.__name__
    }


def one_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    said = " ".join(str(error).split())
    return (said or type(error).__name__)[:LONGEST_ERROR]


def description_of(functions: dict[str, Callable]) -> dict[str, list]:
    """The tools of functions, and for each that cannot be one the line and what is missing."""
    tools = []
    problems = []
    for name, function in functions.items():
        try:
            tools.append(tool_of_function(function, name))
        except Exception as problem:  # whatever a user's file holds
            code = getattr(function, "__code__", None)
            problems.append([code.co_firstlineno if code else 0, one_line(problem)])
    return dict(tools=tools, problems=problems)


def result_of(function: Callable, arguments: dict[str, Any], longest: int) -> str:
    """The JSON text of what a function returns, or "error: ..." in one line."""
    try:
        result = function(**arguments)
    except BaseException as error:  # SystemExit and KeyboardInterrupt included
        return f"error: {one_line(error)}"
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        name = type(result).__name__
        return f"error: the tool returned a {name} that JSON cannot hold ({one_line(error)})"
    size = len(text.encode())
    if size > longest:
        return f"error: the tool returned {size:,} bytes; at most {longest:,} are taken"
    return text


def main() -> None:
    """Answer requests until there are no more.

    The first line holds the module and the limits, every other one a name and arguments. A call
    that outlives its limit ends this process, also where nobody is left to kill it.
    """
    requests, answers = private_streams()
    setup = json.loads(requests.readline())
    limits = setup["limits"]
    set_limits(limits)

    def answer(text: str) -> None:
        answers.write(json.dumps(text).encode() + b"\n")
        answers.flush()

    signal.alarm(limits["start_seconds"] + 1)
    try:
        functions = functions_of(load_module(setup["module"]))
    except BaseException as error:
        trace = error.__traceback__
        lines = []
        while trace:
            if trace.tb_frame.f_code.co_filename == setup["module"]:
                lines.append(trace.tb_lineno)
            trace = trace.tb_next
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 0)
        answer(json.dumps(dict(broken=[line, f"{type(error).__name__}: {one_line(error)}"])))
        return
    answer(json.dumps(description_of(functions)))
    signal.alarm(0)
    for request in requests:
        name, arguments = json.loads(request)
        signal.alarm(limits["seconds"] + 1)
        answer(result_of(functions[name], arguments, limits["output"]))
        signal.alarm(0)
