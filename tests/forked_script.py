"""Scripts as a user runs them, without the seconds that importing takes: a process that has
imported everything forks once for each run.

    done = run("rl.py", file, "--stage", "dpo")      done.returncode, done.stdout, done.stderr

The fork then ends as any Python process does; what it changes stays its own.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What a fork does: `before`, then the script as __main__.
FORK = """
import runpy, sys
sys.argv = {words!r}
{before}
runpy.run_path({script!r}, run_name="__main__")
"""


@cache
def parent() -> subprocess.Popen:
    """The process that forks, one for each process of the tests."""
    started = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(started.stdin.close)
    return started


def run(*words: str, before: str = "") -> subprocess.CompletedProcess:
    """Run a script; `before` is Python to execute in its process first."""
    code = FORK.format(words=list(words), before=before, script=str(ROOT / words[0]))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        wanted = dict(code=code, out=str(out), err=str(err), environment=dict(os.environ))
        parent().stdin.write(json.dumps(wanted) + "\n")
        parent().stdin.flush()
        status = parent().stdout.readline()
        assert status, "the process that forks has ended; its error stands above"
        return subprocess.CompletedProcess(words, int(status), out.read_text(), err.read_text())


def serve() -> dict:
    """Fork for each line that comes; returns in a fork, with what it is to do."""
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            return wanted
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def become(wanted: dict) -> None:
    """Take over the output files and the environment of a run."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(wanted["out"], os.O_WRONLY | os.O_CREAT)
    err = os.open(wanted["err"], os.O_WRONLY | os.O_CREAT)
    for number, file in enumerate((nothing, out, err)):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(wanted["environment"])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    # what the scripts import on their way, and themselves
    import matplotlib.backends.backend_agg, matplotlib.figure
    import torch._dynamo
    import distill, eval, heads, rl, sample, train

    wanted = serve()
    become(wanted)
    exec(compile(wanted["code"], "<run>", "exec"), {"__name__": "__main__"})
