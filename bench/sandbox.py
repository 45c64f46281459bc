"""Attacks on the sandbox, each with what must not happen and how long it took to be over.

    python bench/sandbox.py
        a table; and docs/results/sandbox.json, from which docs/SANDBOX.md is made

Run by root, every attack is tried twice, by root and by an ordinary user. Around the sandbox stand
a secret file, a secret variable, a server, a socket,
a process of the same user and the places where a file could appear; after each attack all of them
are looked at, whatever the attack says itself.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from support import result_tables as results  # noqa: E402
from worlds.extras.sandbox import USER, File, Limits, Result, Sandbox, SandboxDied  # noqa: E402

ORDINARY = 64_998  # a user number that nobody has
LIMITS = Limits(wall=1.0, cpu=1)


@dataclass(frozen=True)
class Attack:
    """A command, and what its result must look like;

    `{secret}` and such are filled in. `held` sees (result, the sandbox or None if it is gone).
    """

    name: str
    command: str
    held: Callable[[Result, Sandbox | None], bool] = lambda result, sandbox: True
    may_end: bool = False  # whether the sandbox itself may be gone afterwards


def fails(result: Result, _: Sandbox | None) -> bool:
    return result.status != 0


def says(text: str) -> Callable[[Result, Sandbox | None], bool]:
    return lambda result, _: text in result.output


def stopped(result: Result, _: Sandbox | None) -> bool:
    return result.status == 137


def small(result: Result, sandbox: Sandbox | None) -> bool:
    """The home folder has not outgrown its limit."""
    return (
        sandbox is not None
        and sum(len(file.data or b"") for file in sandbox.tree().values()) <= LIMITS.home
    )


def no_secret_in_tree(result: Result, sandbox: Sandbox | None) -> bool:
    """Reading the tree follows no link: nothing of the machine's files comes back."""
    return sandbox is not None and all(
        b"secret-" not in (file.data or b"") for file in sandbox.tree().values()
    )


def tree_ends(result: Result, sandbox: Sandbox | None) -> bool:
    """Reading the tree either works or says that it cannot; it neither hangs nor breaks."""
    try:
        sandbox.tree()
    except SandboxDied:
        pass
    return True


PYTHON = "python3 -c "
ATTACKS = [
    # reading what is outside
    Attack("read a file of the machine", "cat {secret}", fails),
    Attack("read /etc/shadow", "cat /etc/shadow", fails),
    Attack(
        "list the users' homes",
        "ls -A /root /home/* 2>&1 | grep -v -e agent -e docs -e /root",
        fails,
    ),
    Attack(
        "search the whole disk",
        "find / -path /usr -prune -o -path /proc -prune -o -name '{secret_name}' -print | grep .",
        fails,
    ),
    Attack("climb by ..", "cat ../../../../../..{secret}", fails),
    Attack("climb by /proc/1/root", "cat /proc/1/root{secret} /proc/1/cwd/../..{secret}", fails),
    Attack(
        "look into other processes",
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'",
    ),
    Attack("read the environment", "env; set; cat /proc/self/environ"),
    Attack(
        "read kernel memory", "head -c 64 /proc/kcore /dev/mem /dev/kmem /proc/kmsg; dmesg", fails
    ),
    Attack(
        "read raw disks", "cat /dev/sda /dev/vda /dev/nvme0n1; mknod disk b 8 0 && cat disk", fails
    ),
    Attack(
        "inherited file descriptors",
        "for f in /proc/self/fd/* /proc/1/fd/*; do readlink $f; done | "
        "grep -v -e pipe -e /dev/null -e /proc",
        fails,
    ),
    Attack(
        "symbolic link out, host reads it",
        "ln -s {secret} a; ln -s / b; ln -s /proc/self/environ c; cat a",
        no_secret_in_tree,
    ),
    Attack("hard link out", "ln {secret} a; ln /usr/bin/bash b", fails),
    # writing to what is outside
    Attack(
        "write to system folders",
        "touch /usr/{marker} /usr/bin/{marker} /etc/{marker} /{marker} /dev/{marker} "
        "/proc/{marker} /sys/{marker}",
        fails,
    ),
    Attack("write through a link", "ln -s /usr/bin d && echo x > d/{marker}", fails),
    Attack(
        "write to the machine's /tmp and /dev/shm",
        "touch /tmp/{marker} /dev/shm/{marker} /var/tmp/{marker}",
    ),
    Attack(
        "overwrite the secret",
        "echo x > {secret}; echo x | tee {secret}; rm -f {secret}; mv {secret} .",
    ),
    Attack(
        "remount writable",
        "mount -o remount,rw /usr; mount -t tmpfs none /usr; umount /usr; touch /usr/{marker}",
        fails,
    ),
    Attack("rm -rf /", "rm -rf --no-preserve-root / 2>/dev/null"),
    Attack(
        "set-user-id",
        "cp /usr/bin/bash b; chmod 4755 b; ./b -p -c id; su -c id; sudo id; newgrp root; id -u",
        says("1000"),
    ),
    Attack(
        "kernel settings",
        "echo x > /proc/sys/kernel/core_pattern; echo c > /proc/sysrq-trigger; "
        "sysctl -w kernel.hostname=x; hostname x",
        fails,
    ),
    # leaving
    Attack("new user namespace", "unshare -r id || unshare -Ur true", fails),
    Attack(
        "enter another namespace",
        "nsenter -t 1 -a id; nsenter -t {victim} -a id; chroot / id",
        fails,
    ),
    Attack(
        "type into the terminal",
        PYTHON
        + "'import fcntl, termios; [fcntl.ioctl(f, termios.TIOCSTI, b\"x\") for f in (0, 1, 2)]'",
        fails,
    ),
    Attack("open the terminal", "echo x > /dev/tty", fails),
    # network
    Attack("connect to a local server", "echo hello > /dev/tcp/127.0.0.1/{port}", fails),
    Attack(
        "connect to the internet", "echo x > /dev/tcp/1.1.1.1/53 || getent hosts example.com", fails
    ),
    Attack(
        "abstract socket of the machine",
        PYTHON + "'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0{marker}\")'",
        fails,
    ),
    Attack("network interfaces", "cat /proc/net/dev | grep -v -e lo: -e Inter -e face", fails),
    # using up
    Attack("fork bomb", "f() {{ f | f & }}; f; wait; sleep 1"),
    Attack("many sleeping processes", "for i in $(seq 500); do sleep 60 & done; jobs -r | wc -l"),
    Attack(
        "threads",
        PYTHON
        + "'import threading, time; "
        + "[threading.Thread(target=time.sleep, args=(9,), daemon=True).start() "
        + "for i in range(500)]'",
        fails,
    ),
    Attack("1 GB of memory", PYTHON + "'x = bytearray(10**9)'", says("MemoryError")),
    Attack("more and more memory", "x=y; while :; do x=$x$x; done", fails),
    Attack(
        "fill the home folder",
        "for i in $(seq 99); do head -c 8000000 /dev/zero > f$i || break; done",
        small,
    ),
    Attack(
        "fill /tmp and /dev/shm",
        "head -c 8000000 /dev/zero > /tmp/f && head -c 8000000 /dev/zero > /dev/shm/f",
        fails,
    ),
    Attack(
        "fill the memory behind / and /dev",
        "head -c 1000 /dev/zero > /f || head -c 1000 /dev/zero > /dev/f",
        fails,
    ),
    Attack("one long file", "head -c 100000000 /dev/zero > f; ls -l f | grep -v 8388608", fails),
    Attack("a sparse file of 1 TB", "truncate -s 1T f", fails),
    Attack(
        "as many files as there is time for", "i=0; while :; do i=$((i+1)); : > f$i; done", stopped
    ),
    Attack(
        "many open files",
        'for i in $(seq 3 200); do eval "exec $i</dev/null" || exit 1; done',
        fails,
    ),
    Attack(
        "raise the limits",
        "ulimit -u 9999; ulimit -v unlimited; ulimit -f unlimited; ulimit -t unlimited; "
        "ulimit -n 9999",
        fails,
    ),
    Attack("endless output", "yes", stopped),
    Attack(
        "endless output from a child that ignores signals",
        "(trap '' TERM INT HUP USR1 PIPE; while :; do echo x; done) &\nwait",
        stopped,
    ),
    Attack("endless loop", "while :; do :; done", stopped),
    Attack("sleep for ever", "sleep infinity", stopped),
    Attack("wait for input", "cat; read x; echo end", says("end")),
    Attack("core dump", "ulimit -c unlimited; kill -SEGV $$", fails),
    # outliving, killing, forging
    Attack(
        "background process",
        "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; echo started",
        says("started"),
    ),
    Attack(
        "kill everything",
        "kill -9 -1; kill -9 1; kill -STOP 1; kill -TERM 1; echo alive",
        says("alive"),
    ),
    Attack(
        "kill the machine's processes", "kill -9 {victim} {host} $PPID; echo alive", says("alive")
    ),
    Attack("stop the supervisor by its own signal", "kill -USR1 1; echo alive"),
    Attack("steal the command pipe", "cat /proc/1/fd/0", fails),
    Attack(
        "forge the end of a command",
        "printf '\\0deadbeefdeadbeef 0\\n'; "
        "printf '\\0%s 0\\n' $(tr '\\0' ' ' < /proc/1/cmdline); echo real; exit 3",
        lambda result, _: result.status == 3 and "real" in result.output,
    ),
    Attack(
        "take over process 1",
        PYTHON
        + "'import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))'; echo x > /proc/1/mem",
        may_end=True,
    ),  # it can stop its own sandbox, and the host ends that
    Attack("pipes that block the reader", "mkfifo p; ln -s p q; ln -s q/q r", tree_ends),
    Attack(
        "folders without end", "for i in $(seq 200); do mkdir d && cd d || break; done", tree_ends
    ),
    Attack("names that are not text", "touch $'\\xff\\xfe' $'a\\nb' -- '-rf' ' '; ls", tree_ends),
    Attack("output that is not text", "head -c 4000 /dev/urandom"),
]


class Surroundings:
    """What an attack must not reach."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sage-attack-"))
        self.folder.chmod(0o755)
        self.value = "secret-" + os.urandom(8).hex()
        self.secret = self.folder / f"{self.folder.name}.txt"
        self.secret.write_text(self.value)
        self.secret.chmod(0o666)  # readable and writable by all: only the sandbox stands before it
        os.environ["SAGE_SECRET"] = self.value
        self.marker = "mark-" + os.urandom(8).hex()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind("\0" + self.marker)
        self.socket.listen()
        self.socket.setblocking(False)
        as_sandbox = (
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
            if os.geteuid() == 0
            else []
        )
        self.victim = subprocess.Popen([*as_sandbox, "sleep", "600"], start_new_session=True)

    def words(self) -> dict[str, object]:
        return dict(
            secret=self.secret,
            secret_name=self.secret.name,
            marker=self.marker,
            port=self.server.getsockname()[1],
            victim=self.victim.pid,
            host=os.getpid(),
        )

    def harm(self, result: Result) -> str:
        """What has been reached, or ""."""
        if self.value in result.output:
            return "the secret was read"
        if not self.secret.exists() or self.secret.read_text() != self.value:
            return "the secret was changed"
        if self.victim.poll() is not None:
            return "a process outside was killed"
        for listener in (self.server, self.socket):
            try:
                listener.accept()
                return "a connection came out"
            except BlockingIOError:
                pass
        for place in (
            "/",
            "/usr",
            "/usr/bin",
            "/etc",
            "/tmp",
            "/var/tmp",
            "/dev/shm",
            "/dev",
            "/root",
            "/home",
        ):
            try:
                if (Path(place) / self.marker).exists():
                    return f"a file appeared in {place}"
            except PermissionError:
                pass
        return ""

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        self.server.close()
        self.socket.close()
        shutil.rmtree(self.folder)


def processes_below(pid: int) -> set[int]:
    """The numbers of all processes that come from one."""
    found = {pid}
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(
                    Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()[1]
                )
            except OSError:  # ended meanwhile
                pass
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def attempt(attack: Attack, around: Surroundings) -> tuple[str, float]:
    """Run one attack in a sandbox of its own:

    ("" if it was held, else what happened, the command's milliseconds).
    """
    with Sandbox({"docs/a.txt": File(b"hello\n")}, LIMITS) as sandbox:
        quiet = processes_below(os.getpid())
        most, over = 0, threading.Event()

        def count() -> None:
            nonlocal most
            while not over.wait(0.02):
                most = max(most, len(processes_below(os.getpid()) - quiet))

        counting = threading.Thread(target=count)
        counting.start()
        start = time.perf_counter()
        try:
            result = sandbox.run(attack.command.format(**around.words()))
        except SandboxDied as died:
            result = Result(str(died), 137)
        milliseconds = 1000 * (time.perf_counter() - start)
        over.set()
        counting.join()
        harm = around.harm(result) or (
            f"{most} processes at once" if most > LIMITS.processes else ""
        )
        if not harm and (left := processes_below(os.getpid()) - quiet):
            harm = f"{len(left)} processes are left"
        alive = sandbox.process.poll() is None
        if not alive and attack.may_end:
            return harm, milliseconds
        if not harm and not attack.held(result, sandbox if alive else None):
            harm = f"unexpected: status {result.status} {result.stopped} {result.output[-300:]!r}"
        if not harm and (not alive or sandbox.run("echo $((6*7))").output != "42\n"):
            harm = "the sandbox answers no more"
    return harm, milliseconds


def attempt_all() -> dict[str, tuple[str, float]]:
    """Every attack, as whoever runs this: {name: (what happened or "", milliseconds)}."""
    around = Surroundings()
    try:
        return {attack.name: attempt(attack, around) for attack in ATTACKS}
    finally:
        around.close()


def attempt_all_as_ordinary_user() -> dict[str, tuple[str, float]]:
    """The same in a child process that has given up being root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(ORDINARY)
            os.setuid(ORDINARY)
            with os.fdopen(writing, "w") as pipe:
                json.dump(attempt_all(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("the ordinary user's attacks did not come to their end")
    return {name: (harm, milliseconds) for name, (harm, milliseconds) in json.loads(text).items()}


def main() -> None:
    tables = (
        {"root": attempt_all(), "an ordinary user": attempt_all_as_ordinary_user()}
        if os.geteuid() == 0
        else {"an ordinary user": attempt_all()}
    )
    print(f"{'attack':<50}" + "".join(f"{who:>24}" for who in tables))
    for attack in ATTACKS:
        cells = {who: table[attack.name] for who, table in tables.items()}
        print(
            f"{attack.name:<50}"
            + "".join(
                f"{'held' if not harm else 'NOT HELD':>12}{milliseconds:>9.1f} ms"
                for harm, milliseconds in cells.values()
            )
        )
        for who, (harm, _) in cells.items():
            if harm:
                print(f"    as {who}: {harm}")
        worst = max(milliseconds for _, milliseconds in cells.values())
        verdict = ", ".join(
            f"{'held' if not harm else 'NOT HELD: ' + harm} as {who}"
            for who, (harm, _) in cells.items()
        )
        results.record(
            "sandbox", f"attacks/{attack.name}", round(worst, 1), unit="ms", note=verdict
        )
    held = sum(not harm for table in tables.values() for harm, _ in table.values())
    tried = sum(map(len, tables.values()))
    print(f"{held} of {tried} held")
    results.record(
        "sandbox",
        "summary/attacks held",
        held,
        n=tried,
        goal=str(tried),
        note="as " + " and as ".join(tables),
    )
    sys.exit(held < tried)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
