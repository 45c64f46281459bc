"""Runs that torchrun launches, as they meet what happens to long ones: a process that dies, a
restart, SIGTERM, a second node, Slurm. On a CPU, with two processes.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from config import UserError
from conftest import ROOT
from support import checkpoint, ranks, rendezvous
from support.log import read_log

SETTINGS = """
from config import Data, Model, Train
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=1, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=64)
data = Data(path={text!r}, sequence=32, validation=0.3)
train = Train(steps=8, batch=2, accumulation=2, dtype="float32", compile="off", log_every=1,
              eval_every=100, sample_every=0, save_every=2, warmup=0.3)
"""

# What torchrun starts: train.py, but that something happens to one rank before its step `step`, in
# the first start of the run.
WRAPPER = """
import os, runpy, signal, sys
sys.path.insert(0, {root!r})
import support.openmp
import torch
from support import machine, training_run
rank = int(os.environ["RANK"])
first_start = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
machine.matmul_peak = lambda *a, **k: 1e9
apply_gradients = training_run.apply_gradients

def disturbed(optimizers, modules, c, step, folder):
    if first_start and {moment!r} in ((rank, step), ("any", step)):
        {event}
    return apply_gradients(optimizers, modules, c, step, folder)

training_run.apply_gradients = disturbed
{before}
sys.argv[0] = {root!r} + "/train.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
HANGS = "__import__('threading').Event().wait()"
TORCHRUN_IS_TOLD = "os.kill(os.getppid(), signal.SIGTERM)"


class Launcher:
    """Starts runs of train.py on the same text, each in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.text = folder / "text"
        self.text.mkdir()
        for number in range(20):
            function = 'def f{i}(x):\n    """Return x plus {more}."""\n    return x + {more}\n\n'
            functions = [function.format(i=i, more=i * number) for i in range(12)]
            (self.text / f"part{number}.py").write_text("".join(functions))

    def settings(self, name):
        path = self.folder / f"{name}.py"
        path.write_text(SETTINGS.format(out=str(self.folder / name), text=str(self.text)))
        return path

    def wrapper(self, name, *, event, moment, before=""):
        path = self.folder / name / "train.py"
        path.parent.mkdir(exist_ok=True)
        text = WRAPPER.format(root=str(ROOT), event=event, moment=moment, before=before)
        path.write_text(text)
        return path

    def command(self, name, *words, nodes=(), event="pass", moment=None, before=""):
        """A torchrun of two ranks, or of one of `nodes`."""
        wrapper = self.wrapper(name, event=event, moment=moment, before=before)
        script = [wrapper, self.settings(name)]
        torchrun = [sys.executable, "-m", "torch.distributed.run"]
        options = nodes or ["--nproc-per-node", "2", "--max-restarts", "1"]
        return list(map(str, [*torchrun, *options, *script, *words]))

    def run(self, name, *words, **more):
        return finish(start(self.command(name, *words, **more)))


def start(command, **more):
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **more},
        cwd=ROOT,
    )


def finish(process):
    """Exit status and output of a run; a hang ends the test."""
    try:
        output, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def figures(folder):
    """What a run logged of its training, but for times."""
    names = ("step", "loss", "gate", "norm", "lr", "bits_per_byte")
    return [{name: r[name] for name in names if name in r} for r in read_log(folder)]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    return Launcher(tmp_path_factory.mktemp("launched"))


@pytest.fixture(scope="module")
def undisturbed(launcher):
    """The figures of two ranks that nothing happens to."""
    status, output = launcher.run("undisturbed")
    assert status == 0, output
    found = figures(launcher.folder / "undisturbed")
    assert len(found) == 9
    for seen in read_log(launcher.folder / "undisturbed")[:-1]:
        assert 0 <= seen["skew"] < 1 and 0 <= seen["device_skew"] < 1
        assert seen["slowest_rank"] in (0, 1)
    assert "  skew " in output
    return found


# --------------------------------------------------------------------------------------------------
# A rank that dies.


def test_a_killed_rank_ends_the_run_with_one_message(launcher):
    nodes = ["--nproc-per-node", "2"]
    status, output = launcher.run("killed", nodes=nodes, event=KILLED, moment=(1, 6))
    assert status != 0
    assert "[rank" not in output  # no rank's traceback
    assert output.count("Traceback") == 1 and "ChildFailedError" in output  # torchrun's own
    assert "error:" not in output
    cause = output[output.index("Root Cause") :]
    assert re.search(r"rank +: 1 ", cause) and "Signal 9 (SIGKILL)" in cause
    # that of step 4 was begun, so that of step 2 is whole
    assert checkpoint.checkpoints(launcher.folder / "killed")


@pytest.mark.slow
def test_a_rank_that_waits_for_the_dead_ends_though_it_may_take_long_to_save(launcher):
    """One that hangs, as in NCCL, where it does not see that the other has died."""
    nodes = ["--nproc-per-node", "2", "--shutdown-timeout", "1000"]
    event = f"{HANGS} if rank == 0 else {KILLED}"
    status, output = launcher.run("hanging", nodes=nodes, event=event, moment=("any", 4))
    assert status != 0 and "[rank" not in output
    assert "Signal 9 (SIGKILL)" in output[output.index("Root Cause") :]


@pytest.mark.slow
def test_a_restarted_run_ends_as_an_undisturbed_one(launcher, undisturbed):
    """Also where rank 0 died, and the other is the first to be back."""
    status, output = launcher.run("restarted", event=KILLED, moment=(0, 6))
    assert status == 0, output
    assert re.search(r"^resume  from step [24]$", output, re.MULTILINE)
    assert "[rank" not in output and "Traceback" not in output
    assert figures(launcher.folder / "restarted") == undisturbed


@pytest.mark.slow
def test_a_run_restarts_before_its_first_checkpoint(launcher, undisturbed):
    status, output = launcher.run("early", event=KILLED, moment=(1, 1))
    assert status == 0, output
    assert figures(launcher.folder / "early") == undisturbed


def test_ranks_meet_though_the_store_is_full_of_the_dead(monkeypatch):
    """The names and answers of an earlier start are there already, and rank 0 is the last."""
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for rank in (1, 2):
        server.set(f"name of {rank}", f"dead {rank}")
        server.set(f"answer to dead {rank}", "dead 0")
        server.set(f"{rank} knows dead 0", "")
    store_of = {}
    came = threading.local()

    def of_torchrun(url, timeout):
        client = TCPStore("localhost", server.port, wait_for_workers=False)
        yield client, came.rank, 3

    monkeypatch.setattr(rendezvous, "rendezvous", of_torchrun)

    def come(rank):
        came.rank = rank
        store_of[rank], number, count = rendezvous.meet(timedelta(seconds=30))
        assert (number, count) == (rank, 3)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in (1, 2, 0)]
    for thread in threads:
        thread.start()
        thread.join(0.2)
    for thread in threads:
        thread.join(30)
    store_of[0].set("address", "alive")
    assert [store_of[rank].get("address") for rank in (1, 2)] == [b"alive", b"alive"]


def test_a_rank_that_does_not_come(monkeypatch):
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(rendezvous, "rendezvous", lambda url, timeout: iter([(store, 0, 3)]))
    with pytest.raises(UserError, match="ranks 1, 2 did not come within 0:00:00.100000"):
        rendezvous.meet(timedelta(seconds=0.1))


# --------------------------------------------------------------------------------------------------
# Ranks that do not fit together.


def test_versions_are_compared():
    ranks.check_versions(["2.13.0"] * 3)
    with pytest.raises(UserError, match=r"rank 0 has 2\.13\.0, rank 1 has 2\.11\.0"):
        ranks.check_versions(["2.13.0", "2.11.0"])


def test_settings_are_compared(monkeypatch):
    """So are the text and what a stage's data is made from."""
    monkeypatch.setattr(ranks, "gather", lambda mine: [mine, mine, mine | {"train.seed": 2}])
    with pytest.raises(UserError, match=r"rank 2 has other settings .*\(train.seed: 1 → 2\); x"):
        ranks.check_alike("settings", {"train.seed": 1, "out": "here"}, "x")


def test_mixed_versions_stop_all_ranks_with_one_message(launcher):
    faked = "if rank == 1: torch.__version__ = '2.11.0'"
    status, output = launcher.run("mixed", nodes=["--nproc-per-node", "2"], before=faked)
    assert status != 0
    assert output.count("error: the ranks run different versions of torch") == 1
    assert "rank 1 has 2.11.0" in output and "[rank" not in output


def test_what_runs_as_one_process_says_so_once():
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    status, output = finish(start([*torchrun, "--nproc-per-node", "2", "eval.py", "config/toy.py"]))
    assert status != 0
    assert output.count("error: this script runs as one process") == 1 and "[rank" not in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.stepz", "3"], "Unrecognized options: --train.stepz"),
        (["--train.accumulation", "3"], "train.accumulation 3 cannot be shared out over 2 ranks"),
    ],
)
def test_a_mistake_of_all_ranks_is_said_once(words, message):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    train = ["train.py", "config/toy.py", *words]
    status, output = finish(start([*torchrun, "--nproc-per-node", "2", *train]))
    assert status != 0
    assert output.count(message) == 1 and "[rank" not in output


ENDS = """
import sys
sys.path.insert(0, {root!r})
from config import UserError
from support import ranks, settings

class Late:
    def __del__(self):
        print("Python is torn down")

late = Late()

def main():
    ranks.start()
    print("the end", end="")
    {ending}

settings.run_script(main, many_ranks=True)
"""


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        ("pass", 0, "the end"),
        ("raise UserError('a mistake')", 1, "error: a mistake"),
        ("raise OSError('a full disk')", 1, "error: a full disk"),
        ("raise SystemExit(130)", 130, "the end"),
    ],
)
def test_a_rank_ends_before_python_is_torn_down(ending, status, said):
    """A thread of gloo that drops a tensor meanwhile would abort the process."""
    alone = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", TORCHELASTIC_RUN_ID="one")
    alone |= dict(MASTER_ADDR="localhost", MASTER_PORT=str(free_port()))
    script = ENDS.format(root=str(ROOT), ending=ending)
    found, output = finish(start([sys.executable, "-c", script], **alone))
    assert found == status
    assert "the end" in output and said in output and "torn down" not in output


# --------------------------------------------------------------------------------------------------
# SIGTERM.


def test_sigterm_saves_and_ends_and_the_run_goes_on(launcher, undisturbed):
    status, output = launcher.run("stopped", event=TORCHRUN_IS_TOLD, moment=(1, 3))
    assert status != 0
    step = int(re.search(r"^stopped at step (\d), saved ", output, re.MULTILINE)[1])
    assert 3 <= step < 8
    assert "go on with torchrun … " in output and "[rank" not in output
    folder = launcher.folder / "stopped"
    assert checkpoint.latest(folder).name == f"checkpoint-000000{step}"
    status, output = launcher.run("stopped", "--resume")
    assert status == 0, output
    assert f"resume  from step {step}" in output
    assert figures(folder) == undisturbed


# --------------------------------------------------------------------------------------------------
# Several nodes, and Slurm.


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def two_nodes(*more):
    """torchrun's options for each of two nodes, which are both this machine."""
    endpoint = f"localhost:{free_port()}"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "a run"]
    return ["--nnodes", "2", "--nproc-per-node", "1", *meeting, *more]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [None, (0, 6), (1, 6)])
def test_two_nodes(launcher, undisturbed, moment):
    """Also when a process of one of them dies: torchrun counts restarts only there."""
    name = f"two-nodes-{moment and moment[0]}"
    command = launcher.command(
        name, nodes=two_nodes("--max-restarts", "1"), event=KILLED, moment=moment
    )
    nodes = [start(command), start(command)]
    for status, output in map(finish, nodes):
        assert status == 0, output
        assert "[rank" not in output
    assert figures(launcher.folder / name) == undisturbed


@pytest.mark.slow
def test_a_node_whose_process_dies_ends_the_other(launcher):
    """The other says one line, unless its torchrun has missed that of the first node before."""
    command = launcher.command("lost-node", nodes=two_nodes(), event=KILLED, moment=(1, 4))
    ended = [finish(node) for node in [start(command), start(command)]]
    for status, output in ended:
        assert status != 0 and "[rank" not in output
    said = sum(output.count("error: another rank has ended (") for _, output in ended)
    missed = sum("RendezvousConnectionError" in output for _, output in ended)
    assert said + missed >= 1 and said <= 1


# the batch script, of which torchrun (in srun's place) is a child
SLURM_TELLS = 'os.kill(int(open(f"/proc/{os.getppid()}/stat").read().split()[3]), signal.SIGTERM)'
SRUN = """#!/usr/bin/env bash
# A node that is this machine: options away, then the command, to which signals are handed on.
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then echo localhost; else echo "$@" >> {requeued}; fi
"""


@pytest.mark.slow
def test_slurms_script(launcher, undisturbed):
    """With stand-ins for Slurm's two commands: near the limit the run is saved and queued again;
    begun again, it goes on.
    """
    tools = launcher.folder / "tools"
    tools.mkdir()
    requeued = tools / "requeued"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL.format(requeued=requeued))):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = dict(
        PATH=f"{tools}:{os.environ['PATH']}",
        SCRIPT=str(launcher.wrapper("slurm", event=SLURM_TELLS, moment=(0, 4))),
        SLURM_SUBMIT_DIR=str(ROOT),
        SLURM_JOB_NODELIST="node1",
        SLURM_NNODES="1",
        SLURM_GPUS_ON_NODE="2",
    )

    def job(number):
        command = ["bash", str(ROOT / "docs" / "slurm.sh"), str(launcher.settings("slurm"))]
        return finish(start(command, **environment, SLURM_JOB_ID=number))

    status, output = job("7")
    assert status == 0 and requeued.read_text() == "requeue 7\n", output
    assert "stopped at step" in output
    status, output = job("8")
    assert status == 0 and requeued.read_text() == "requeue 7\n", output
    assert figures(launcher.folder / "slurm") == undisturbed


def test_slurms_script_is_bash():
    script = str(ROOT / "docs" / "slurm.sh")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
