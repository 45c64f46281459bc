"""The sandbox: what it refuses, what it bounds, what it leaves behind (nothing), and the table of
attacks.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config import UserError
from support.interrupts import time_limit
from sandboxed import need_sandbox  # noqa: F401  (a fixture for the whole module)
from worlds.extras import sandbox
from worlds.extras.sandbox import File, Limits, Sandbox, SandboxDied

ROOT = Path(__file__).resolve().parents[1]


def attacks():
    """bench/sandbox.py as a module (its name is taken by worlds/extras/sandbox.py)."""
    spec = importlib.util.spec_from_file_location("attacks", ROOT / "bench" / "sandbox.py")
    module = sys.modules["attacks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("who", ["root", "an ordinary user"])
def test_every_attack_is_held(who):
    if who == "root" and os.geteuid() != 0:
        pytest.skip("these tests do not run as root")
    bench = attacks()
    as_is = who == "root" or os.geteuid() != 0
    reached = {
        name: harm
        for name, (harm, _) in (
            bench.attempt_all() if as_is else bench.attempt_all_as_ordinary_user()
        ).items()
        if harm
    }
    assert not reached and len(bench.ATTACKS) >= 25


def test_the_surroundings_notice_harm():
    """The judge of the attacks is not blind: without a sandbox each of these is seen."""
    bench = attacks()
    for command in (
        "cat {secret}",
        "echo x > {secret}",
        "rm {secret}",
        "kill -9 {victim}",
        "echo x > /dev/tcp/127.0.0.1/{port}",
        "touch /tmp/{marker}",
    ):
        around = bench.Surroundings()
        try:
            done = subprocess.run(
                ["bash", "-c", command.format(**around.words())], capture_output=True, text=True
            )
            time.sleep(0.05)  # a killed process is waited for, a connection accepted
            assert around.harm(sandbox.Result(done.stdout, done.returncode)), command
        finally:
            (Path("/tmp") / around.marker).unlink(missing_ok=True)
            around.secret.touch()
            around.close()


@pytest.mark.parametrize("calls", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_nothing_is_left_behind(calls):
    below = attacks().processes_below
    places = [Path("/tmp"), Path("/dev/shm"), Path("/var/tmp")]

    def state() -> tuple:
        return (
            len(os.listdir("/proc/self/fd")),
            below(os.getpid()),
            [len(list(place.iterdir())) for place in places[1:]],
            len(Path("/proc/self/mountinfo").read_text().splitlines()),
        )

    before = state()
    for number in range(calls // 20):
        with Sandbox({"a": File(b"x")}) as one:
            for _ in range(19):
                assert one.run("sleep 100 & cat a; echo y >> a").status == 0
        with Sandbox() as one:
            assert one.run("echo $$").status == 0
    assert state() == before


def test_a_sandbox_ends_with_its_program():
    code = """
import time
from worlds.extras.sandbox import Sandbox
s = Sandbox()
print(s.process.pid, s.pid, flush=True)
time.sleep(60)
"""
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    pids = [int(word) for word in program.stdout.readline().split()]
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail("the sandbox outlived the program that had started it")


def test_without_bubblewrap_it_refuses(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="apt-get install bubblewrap"):
        Sandbox()


def test_a_bubblewrap_that_may_not_start_is_quoted(monkeypatch, tmp_path):
    for name in ("bwrap", "setpriv"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="No permissions to create new namespace"):
        Sandbox()


def test_files_go_in_and_come_out_with_their_times():
    tree = {
        ".": File(None, 1_500_000_000),
        "a": File(None, 1_500_000_001),
        "a/b": File(None, 1_500_000_002),
        "a/b/c.txt": File(b"\0\xff", 1_500_000_003),
        "empty": File(b"", 1_500_000_004),
        "two words": File(b"x" * 100_000, 1_500_000_005),
    }
    with Sandbox(tree) as one:
        assert one.tree() == {path: file for path, file in tree.items() if path != "."}
        assert one.run("stat -c %Y . a a/b/c.txt").output == "1500000000\n1500000001\n1500000003\n"
        one.run("ln -s /etc/passwd link; mkfifo pipe; rm empty; mkdir new")
        after = one.tree()
        assert (
            after["link"].other == "link to /etc/passwd"
            and after["pipe"].other
            and "empty" not in after
            and after["new"].data is None
        )


def test_a_tree_that_does_not_fit():
    with pytest.raises(UserError, match="at most"):
        Sandbox({"large": File(b"x" * (9 << 20))})


def test_a_command_has_its_own_shell_and_shares_the_files():
    with Sandbox() as one:
        assert one.run("x=1; mkdir d; cd d; touch here; exit 3").status == 3
        assert one.run("echo $x; pwd; ls d") == sandbox.Result("\n/home/agent\nhere\n", 0)
        assert one.run("echo out; echo err >&2; echo out").output == "out\nerr\nout\n"
        with Sandbox() as other:
            assert other.run("ls").output == ""


def test_limits_are_told():
    with Sandbox(limits=Limits(wall=0.3, output=100)) as one:
        assert one.run("sleep 5") == sandbox.Result("", 137, "killed after 0.3 s")
        assert one.run("yes | head -c 100").stopped == ""
        cut = one.run("yes | head -c 150")
        assert len(cut.output) == 100 and cut.stopped
        assert one.run("yes").stopped == "killed after 100 bytes of output"
        assert one.run("echo 'a\0b'").status == 126 and "NUL" in one.run("\0").output
        assert one.run("x" * 40_000).status == 126
        assert (
            one.run("echo '\ud800'").status == 0
        )  # a lone surrogate from JSON is a few bytes like any others
        assert one.run("echo still here").output == "still here\n"


def test_an_interrupted_command_leaves_nothing_to_the_next():
    with Sandbox() as one:
        with pytest.raises(TimeoutError), time_limit(0.3, "the command"):
            one.run("echo before; sleep 1; echo after")
        with pytest.raises(SandboxDied):
            one.run("echo next")


def test_a_sandbox_that_is_gone_says_so():
    one = Sandbox()
    one.close()
    with pytest.raises(SandboxDied):
        one.tree()
    with pytest.raises(SandboxDied):
        one.run("echo x")
    one.close()


@pytest.mark.parametrize(
    "command", ["for i in $(seq 60); do mkdir d && cd d; done", "touch $(seq 5000)"]
)
def test_a_tree_too_large_to_read_says_so(command):
    with Sandbox() as one:
        one.run(command)
        with pytest.raises(SandboxDied, match="more than"):
            one.tree()
