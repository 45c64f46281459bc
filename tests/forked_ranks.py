"""Ranks for tests, without torchrun's start: a process that has imported everything once forks them
again and again.

    ranks = ForkedRanks()
    ranks.run(2, "test_sharded:count", 5)     the function's results, in the order of ranks

A rank that fails or is killed ends the others, as torchrun's agent would.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Ended(NamedTuple):
    """How a rank ended: exit status (−9: killed), what its function returned, what it wrote."""

    status: int
    result: object
    out: str
    err: str


class ForkedRanks:
    def __init__(self):
        self.parent = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def launch(self, world: int, function: str, *arguments) -> list[Ended]:
        """Run module:function in `world` ranks; 0: in one process that torchrun did not start."""
        self.parent.stdin.write(json.dumps([world, function, arguments]) + "\n")
        self.parent.stdin.flush()
        return [Ended(*ended) for ended in json.loads(self.parent.stdout.readline())]

    def run(self, world: int, function: str, *arguments) -> list:
        """As `launch`; the results, where all ranks ended well."""
        ended = self.launch(world, function, *arguments)
        assert not any(rank.status for rank in ended), "\n".join(rank.err for rank in ended)
        return [rank.result for rank in ended]

    def close(self) -> None:
        self.parent.stdin.close()
        self.parent.wait()


def be_rank(rank: int, world: int, port: int, job: tuple, folder: str) -> None:
    """In a child: run the job, leave its result in a file, and never return."""
    from config import UserError
    from support import ranks

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_WRONLY | os.O_CREAT, 0o644), number)
    if world:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world),
            MASTER_ADDR="localhost",
            MASTER_PORT=str(port),
            TORCHELASTIC_RUN_ID="test",
        )
    status = 1
    try:
        ranks.start()
        function, arguments = job
        module, name = function.split(":")
        result = getattr(import_module(module), name)(*arguments)
        Path(f"{folder}/{rank}.result").write_text(json.dumps(result))
        status = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_job(world: int, job: tuple, seconds: float = 100) -> list:
    """Fork the ranks, wait for them, and collect how they ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        children = {}
        for rank in range(max(world, 1)):
            child = os.fork()
            if child == 0:
                be_rank(rank, world, port, job, folder)
            children[child] = rank
        statuses = {}
        deadline = time.monotonic() + seconds
        while len(statuses) < len(children):
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                statuses[child] = os.waitstatus_to_exitcode(status)
                if statuses[child]:
                    deadline = min(deadline, time.monotonic() + 5)
            elif time.monotonic() > deadline:
                for late in children.keys() - statuses.keys():
                    os.kill(late, signal.SIGKILL)
                deadline += seconds
            else:
                time.sleep(0.01)
        ended = []
        for child, rank in children.items():
            texts = {}
            for name in ("result", "out", "err"):
                path = Path(f"{folder}/{rank}.{name}")
                texts[name] = path.read_text() if path.exists() else ""
            result = json.loads(texts["result"] or "null")
            ended.append([statuses[child], result, texts["out"], texts["err"]])
    return ended


def main() -> None:
    import support.openmp  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401  which torch's optimisers would import in every rank

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        world, function, arguments = json.loads(line)
        import_module(function.split(":")[0])
        answers.write(json.dumps(run_job(world, (function, arguments))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
