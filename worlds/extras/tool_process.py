"""Functions of a Python module as tools that really run, in a process with limits.

    with ToolProcess("examples/weather.py") as process:
        process.tools                                        their schemas (tool_schema.py)
        process.call("climate", {"town": "Oslo", "month": 7})    JSON, or "error: ..."

Two kinds of code meet here. The module is the user's own, or ours (worlds/catalogue): it is trusted
as any program that one starts, may read files and use the network, and keeps its state from call to
call. The arguments are a model's: whatever they make a function do, it ends within seconds and
bytes. So a call runs in another process, of which time, memory, files and output are bounded, and
which is killed with all that it started when the time is up. Commands that a model writes are
another matter: these run in a sandbox alone (sandbox.py).
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config import UserError

PROJECT = str(Path(__file__).resolve().parents[2])
CHILD = f"""
import sys
sys.path.insert(0, {PROJECT!r})
from worlds.extras.tool_child import main
main()
"""


@dataclass(frozen=True)
class ToolLimits:
    """What one call may use. Sizes in bytes, times in seconds."""

    seconds: int = 5  # from call to kill
    start_seconds: int = 20  # for the module to load
    memory: int = 1 << 30  # address space
    file: int = 8 << 20  # longest file that it may write
    open_files: int = 64
    output: int = 8192  # longest result


class ToolProcess:
    """A module's functions in a process of their own; started by the first use, and anew after a
    call that ended it.

    `module` is the path of a Python file, or the name of a module. Raises UserError where it cannot
    be loaded, or a public function of it cannot be a tool.
    """

    def __init__(self, module: str | Path, limits: ToolLimits = ToolLimits()):
        self.module = str(module)
        if self.module.endswith(".py"):
            path = Path(module).expanduser().resolve()
            if not path.is_file():
                raise UserError(f"no file {path}; wanted a Python file whose functions are tools")
            self.module = str(path)
        self.limits = limits
        self.process: subprocess.Popen | None = None
        self._tools: list[dict] = []

    def __enter__(self) -> "ToolProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tools(self) -> list[dict]:
        """The module's functions as tools, in OpenAI's format."""
        self.start()
        return self._tools

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that all it starts can be killed with it
            bufsize=0,
        )
        setup = dict(module=self.module, limits=asdict(self.limits))
        answer = self.ask(setup, self.limits.start_seconds, longest=1 << 20)
        if answer is None:
            self.close()
            raise UserError(
                f"{self.module} did not load within {self.limits.start_seconds} s and "
                f"{self.limits.memory >> 20} MiB; what it does when it is imported must be quick"
            )
        found = json.loads(answer)
        if "broken" in found:
            self.close()
            line, problem = found["broken"]
            raise UserError(f"{self.module}:{line}: cannot be loaded ({problem}); correct the file")
        if found["problems"]:
            self.close()
            line, problem = found["problems"][0]
            raise UserError(
                f"{self.module}:{line}: {problem}; or begin the function's name with _, if it is "
                "not to be a tool"
            )
        if not found["tools"]:
            self.close()
            raise UserError(
                f"{self.module} has no public function; wanted functions with hints and docstrings"
            )
        self._tools = found["tools"]

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What a function returns for a model's arguments, as JSON text; "error: ..." in one line
        where it raises, takes too long, or returns what is too long or not JSON.
        """
        try:
            self.start()
            request = [name, arguments]
            answer = self.ask(request, self.limits.seconds, longest=8 * self.limits.output)
        except UserError as problem:  # killed by the call before, and does not load again
            if not self._tools:
                raise
            return f"error: {problem}"
        except BaseException:  # interrupted: its answer must not become the next call's
            self.close()
            raise
        if answer is not None:
            return answer
        late = self.process.poll() is None
        self.close()
        if late:
            return f"error: {name} took longer than {self.limits.seconds} s, and was stopped"
        return f"error: {name} ended its process (too much memory, or a crash)"

    def ask(self, request: Any, seconds: float, longest: int) -> str | None:
        """The answer to a request; None where none came in time, or the process ended."""
        deadline = time.monotonic() + seconds
        line = json.dumps(request).encode() + b"\n"
        answer = b""
        reading = self.process.stdout.fileno()
        writing = self.process.stdin.fileno()
        os.set_blocking(writing, False)
        while not answer.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            ready, free, _ = select.select([reading], [writing] if line else [], [], left)
            if not ready and not free:
                return None
            try:
                if free:
                    line = line[os.write(writing, line[:65536]) :]
                    continue
                new = os.read(reading, 65536)
            except (BrokenPipeError, ConnectionResetError):
                new = b""
            if not new or len(answer) > longest:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=1)
                return None
            answer += new
        return json.loads(answer)

    def close(self) -> None:
        """End the process and all that it started."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None
