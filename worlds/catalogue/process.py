"""The process in which the catalogue's functions run: what an agent writes must not cost more than
a second, half a gigabyte and a page of text.

    run_tool("factorial", {"n": 5})        "120"
    run_tool("factorial", {"n": -5})       "error: n must be from 0 to 1000"

One process serves all calls, a line of JSON each way; the functions keep no state. A call that
takes too long is ended by the kernel with its process, and the next call starts another.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from worlds.catalogue.everything import ENTRIES

CALL_SECONDS = 1.0  # of computing; a task's own calls take less than a thousandth
CALL_MEMORY = 512 << 20  # bytes of address space
LONGEST_OBSERVATION = 2000  # characters

# ---------------------------------------------------------------------------------- the process


def observation_of(name: str, arguments: dict[str, Any]) -> str:
    """What a tool says: its result as JSON, or "error: ..."."""
    try:
        result = ENTRIES[name].function(**arguments)
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        text = f"error: {error}"
    except Exception as error:
        text = f"error: {type(error).__name__}: {error}"
    if len(text) > LONGEST_OBSERVATION:
        return f"error: more than {LONGEST_OBSERVATION} characters"
    return text.partition("\n")[0]


def serve() -> None:
    """Answer calls, one per line of standard input, until it ends."""
    resource.setrlimit(resource.RLIMIT_AS, (CALL_MEMORY, CALL_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        # unless it is called off, the timer's signal ends the process, in the midst of C code too
        signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)
        observation = observation_of(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(observation), flush=True)


# ------------------------------------------------------------------------------------- the caller

_lock = threading.Lock()
_running: dict[int, subprocess.Popen] = {}  # by the caller's own number: a fork needs its own


def run_tool(name: str, arguments: dict[str, Any]) -> str:
    """Call a tool of the catalogue; what it says, "error: ..." if it fails. Never raises."""
    with _lock:
        process = _running.pop(os.getpid(), None) or _start()
        try:
            process.stdin.write(json.dumps([name, arguments]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:  # an interrupt leaves half a call behind
            process.kill()
            raise
        if not line:
            process.kill()
            process.wait()
            return f"error: no result within {CALL_SECONDS:g} s"
        _running[os.getpid()] = process
        return json.loads(line)


def _start() -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-S", "-c", "from worlds.catalogue.process import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        env={"PYTHONPATH": root, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        text=True,
    )
