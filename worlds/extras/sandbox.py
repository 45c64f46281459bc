"""A sandbox for commands that a model writes: real bash behind bubblewrap, without network, without
the machine's files.

The paper "shifts the safety burden to the environment isolation layer" (section 10.1). This file is
that layer:

    with Sandbox({"docs/a.txt": File(b"hello")}) as sandbox:
        sandbox.run("wc -c < docs/a.txt")        Result(output="5\n", status=0)
        sandbox.tree()                           what the home folder holds now, read from outside

How it is built:
- One bubblewrap process is one sandbox: empty network, own processes, own users, /usr read-only,
  and a home folder that is a tmpfs of fixed size. Nothing of the machine is mounted writable, so
  nothing has to be cleaned up after it: when it ends, it is gone.
- A bash that is process 1 in there (so no signal from inside ends it) reads commands from a pipe
  and runs each in a bash of its own. Files stay from one command to the next; directories changed
  to, variables and background processes do not.
- The host neither trusts nor asks the inside: files go in as an archive that is unpacked inside,
  and are read out through /proc/PID/root, following no link; a signal to process 1 kills a command
  when its time or its output runs out.
- A caller that is root goes through setpriv first: the kernel exempts root from the limit on
  processes, and a fork bomb runs free.
- The clock is the machine's. What must not depend on the day a task runs is written with dates of
  its own (see worlds/shell.py).

What it does not bound: the *sum* of memory over processes (each has its limit, there are few, they
die with the call, and the kernel takes them first when memory runs out); a cgroup around the whole
program does. There is no system-call filter: a hole in the kernel is a hole here.

`python bench/sandbox.py` attacks it; docs/SANDBOX.md holds the table.
"""

import io
import json
import os
import secrets
import select
import shutil
import signal
import stat
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from config import UserError

# who a sandbox runs as when the caller is root: nobody else's number, so its processes are counted
# alone
USER = 64_999
HOME = "/home/agent"


@dataclass(frozen=True)
class Limits:
    """What one command may use. Sizes in bytes, times in seconds."""

    wall: float = 5.0  # from start to kill
    cpu: int = 5  # of one process
    memory: int = 256 << 20  # address space of one process
    processes: int = 32  # at a time, threads count; process 1 is among them
    file: int = 8 << 20  # longest file
    home: int = 16 << 20  # all files together; /tmp has a sixteenth of it
    open_files: int = 64
    output: int = 8192  # bytes kept of what a command prints; more kills it
    command: int = 32768  # longest command


@dataclass(frozen=True)
class File:
    """A file (its bytes), a folder (data None), or something else such as a link (data None, other
    says what). `modified` in Unix seconds.
    """

    data: bytes | None
    modified: int = 1_577_836_800  # 2020-01-01, UTC
    other: str = ""


# path below the home folder → what is there; folders may be left out where they hold something
Tree = Mapping[str, File]


@dataclass(frozen=True)
class Result:
    """What a command printed (both streams, in order), its exit status (137 if it was killed), and
    why the host stopped it, if it did.
    """

    output: str
    status: int
    stopped: str = ""


class SandboxDied(RuntimeError):
    """The sandbox is no longer there, or holds what cannot be read."""


def available() -> bool:
    """Whether bubblewrap is installed.

    There is no second way to run a command: without it, Sandbox() raises.
    """
    return shutil.which("bwrap") is not None and (
        os.geteuid() != 0 or shutil.which("setpriv") is not None
    )


def archive(tree: Tree) -> bytes:
    """The files as a tar archive, which keeps their times.

    It is unpacked inside, so that no path in it can reach the machine's files.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        # a folder, then at once what it holds: else tar forgets the folder's time
        for path, file in sorted(tree.items(), key=lambda item: PurePosixPath(item[0]).parts):
            entry = tarfile.TarInfo(path)
            data = file.data or b""
            entry.mtime = file.modified
            entry.mode = 0o755 if file.data is None else 0o644
            entry.size = len(data)
            entry.type = tarfile.DIRTYPE if file.data is None else tarfile.REGTYPE
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def command_line(
    limits: Limits, home: str, user: int, folders: Sequence[str], background: bool
) -> list[str]:
    """The bubblewrap command, with the supervisor as its process 1.

    /dev and the root are tmpfs too, of half the machine's memory: read-only, or they could be
    filled. /etc/alternatives holds names only: /usr/bin/awk is a link through there.
    """
    room = f"--size {limits.home // 16} --tmpfs"
    words = f"""
        --unshare-all --unshare-user --disable-userns --cap-drop ALL --uid {user} --gid {user}
        --die-with-parent --new-session --as-pid-1 --hostname sandbox --info-fd 2
        --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/sbin /sbin
        --symlink usr/lib /lib --symlink usr/lib64 /lib64
        --proc /proc --dev /dev {room} /dev/shm --remount-ro /dev {room} /tmp
        {" ".join(f"{room} {folder}" for folder in folders)}
        --ro-bind-try /etc/alternatives /etc/alternatives
        --size {limits.home} --tmpfs {home} --remount-ro / --chdir {home}
        --clearenv --setenv PATH /usr/sbin:/usr/bin:/sbin:/bin --setenv HOME {home}
        --setenv LC_ALL C --setenv TZ UTC0"""
    as_user = f"""setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs
        --bounding-set=-all --"""
    return [
        *(as_user.split() if os.geteuid() == 0 else []),
        "bwrap",
        *words.split(),
        *["bash", "--norc", "--noprofile", "-c", supervisor(limits, background)],
    ]


def supervisor(limits: Limits, background: bool) -> str:
    """Process 1: takes a token and a command, runs it, kills whatever it left behind, says token
    and exit status; until the pipe closes.

    - The first thing on the pipe is an archive of the home folder's files; it ends where the first
      command begins.
    - SIGUSR1 is the host's "enough": a signal reaches bash only while it waits.
    - Only the host can write a token that begins with "refill".
    - What a command started is killed until nothing else lives, so that everything it printed
      stands before the token.
    """
    kill_rest = ":" if background else "while kill -9 -1; do :; done"
    return f"""
exec 2>/dev/null
ulimit -c 0 -n {limits.open_files} -u {limits.processes} || exit 1
ulimit -f {limits.file // 1024} -v {limits.memory // 1024} || exit 1
echo 1000 > /proc/self/oom_score_adj
tar -xf - || exit 1
trap 'kill -9 -1' USR1
while IFS= read -r -d '' token && IFS= read -r -d '' command; do
    if [[ $token = refill* ]]; then
        chmod -R u+rwX . /tmp /dev/shm; find . /tmp /dev/shm -mindepth 1 -delete; tar -xf -
        printf '\\0%s %d\\n' "$token" $?
        continue
    fi
    {{ ulimit -t {limits.cpu}; exec bash --norc --noprofile -c "$command"; }} </dev/null 2>&1 &
    wait $!; status=$?
    [ $status = 138 ] && {{ wait $!; status=$?; }}
    {kill_rest}
    printf '\\0%s %d\\n' "$token" $status
done"""


class Sandbox:
    """A running sandbox with its home folder. Close it, or use `with`. It ends with the thread that
    started it.

    For tasks that were written for a container of their own (worlds/extras/benchmarks.py): `home`
    and `user` may be others (user 0 looks like root and may do nothing more), `folders` are further
    writable places, `background` lets processes live on from one command to the next.

    Raises UserError if bubblewrap is missing or may not start; SandboxDied from any call once the
    sandbox is gone.
    """

    def __init__(
        self,
        tree: Tree | None = None,
        limits: Limits = Limits(),
        *,
        home: str = HOME,
        user: int = 1000,
        folders: Sequence[str] = (),
        background: bool = False,
    ):
        if not available():
            raise UserError(
                "bubblewrap is not installed, and commands of a model run nowhere else; "
                "install it: apt-get install bubblewrap (and util-linux, for root)"
            )
        self.limits = limits
        self.process = subprocess.Popen(
            command_line(limits, home, user, folders, background),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            bufsize=0,
        )
        self.pid = 0
        # the info about process 1, or bubblewrap's complaint; `exec` in there closes its end
        said = self.process.stderr.read()
        try:
            self.pid = json.loads(said)["child-pid"]
        except (ValueError, KeyError):
            self.close()
            raise UserError(
                f"bubblewrap did not start: {said.decode(errors='replace').strip()}; "
                "it needs unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone, "
                "kernel.apparmor_restrict_unprivileged_userns)"
            ) from None
        self.home = f"/proc/{self.pid}/root{home}"
        try:
            self.process.stdin.write(archive(tree or {}))
            self.run(":")
        except (BrokenPipeError, SandboxDied):
            self.close()
            size = sum(len(file.data or b"") for file in (tree or {}).values())
            raise UserError(
                f"the sandbox could not be filled with {len(tree or {})} files of {size} bytes; "
                f"at most {limits.file} bytes fit into a file and {limits.home} into all"
            ) from None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refill(self, tree: Tree) -> None:
        """Empty the home folder and whatever else can be written, and fill it anew: a fifth of the
        time that another sandbox takes.

        Only for sandboxes in which nothing ran that was not written here: what a model ran may have
        changed more than files.
        """
        self.send("refill", b"", archive(tree))
        wanted = {path for path, file in tree.items() if file.data is not None}
        found = {path for path, file in self.tree().items() if file.data is not None}
        if found != wanted:
            raise SandboxDied(f"{len(found)} files stand where {len(wanted)} were put")

    def run(self, command: str) -> Result:
        """Run one bash command in the home folder and wait until it and everything it started is
        gone. A failing command does not raise.
        """
        code = command.encode("utf-8", errors="surrogatepass")
        if b"\0" in code:
            return Result("bash: a command cannot hold a NUL byte\n", 126)
        if len(code) > self.limits.command:
            return Result(
                f"bash: a command of {len(code)} bytes; at most {self.limits.command} are taken\n",
                126,
            )
        return self.send("", code)

    def send(self, kind: str, code: bytes, more: bytes = b"") -> Result:
        """Hand process 1 a command, or with kind "refill" an archive, and read what it says until
        it is done.
        """
        if self.process.poll() is not None:
            raise SandboxDied("the sandbox is gone")
        token = kind + secrets.token_hex(8)
        try:
            with suppress(BrokenPipeError):  # a sandbox that is gone shows when we read
                self.process.stdin.write(token.encode() + b"\0" + code + b"\0" + more)
            return self.read_result(token)
        except BaseException:  # interrupted: what is left must not become the next one's result
            self.close()
            raise

    def read_result(self, token: str) -> Result:
        """What process 1 says of the command sent with `token`, stopped at the limits. Raises
        SandboxDied where the pipe ends, or where a kill goes unanswered.
        """
        end = b"\0" + token.encode() + b" "
        output = self.process.stdout.fileno()
        kept = b""
        tail = b""
        stopped = ""
        deadline = time.monotonic() + self.limits.wall
        while not (end in tail and tail.endswith(b"\n")):
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            new = os.read(output, 65536) if ready else b""
            if (ready and not new) or (not ready and stopped):
                raise SandboxDied("the sandbox is gone")
            kept = (kept + tail[:-64])[: self.limits.output + 1]
            # the token's line is shorter than 64 bytes, and may arrive in two pieces
            tail = tail[-64:] + new
            reason = ""
            if not ready:
                reason = f"killed after {self.limits.wall:g} s"
            elif len(kept) > self.limits.output:
                reason = f"killed after {self.limits.output} bytes of output"
            if reason and not stopped:
                stopped = reason
                deadline = time.monotonic() + 2.0
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGUSR1)
            elif stopped and time.monotonic() > deadline and end not in tail:
                raise SandboxDied("the sandbox is gone")  # whatever still arrives
        printed, status = tail.split(end)
        kept += printed
        if len(kept) > self.limits.output:
            stopped = stopped or f"cut after {self.limits.output} bytes of output"
        output_text = kept[: self.limits.output].decode("utf-8", errors="replace")
        status_code = 137 if stopped.startswith("killed") else int(status.split()[0])
        return Result(output_text, status_code, stopped)

    def tree(self, folder: str = "", most: int = 4096) -> dict[str, File]:
        """What the home folder, or another one, holds: at most `most` entries and `limits.home`
        bytes, read from outside without following a link.

        Raises SandboxDied beyond that: a sparse file may claim more than all of the memory.
        """
        found: dict[str, File] = {}
        left = self.limits.home

        def visit(folder: int, prefix: str, depth: int) -> None:
            for name in sorted(os.listdir(folder)):
                about = os.stat(name, dir_fd=folder, follow_symlinks=False)
                path, modified = prefix + name, int(about.st_mtime)
                if len(found) >= most or depth > 32:
                    raise SandboxDied(
                        f"the folder holds more than {most} entries, or folders more than 32 deep"
                    )
                if stat.S_ISDIR(about.st_mode):
                    found[path] = File(None, modified)
                    visit_opened(name, folder, path + "/", depth + 1)
                elif stat.S_ISREG(about.st_mode):
                    found[path] = File(content(name, folder), modified)
                else:
                    link = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(about.st_mode) else ""
                    found[path] = File(
                        None,
                        modified,
                        other=f"link to {link}" if link else "neither file nor folder",
                    )

        def visit_opened(name: str, folder: int | None, prefix: str, depth: int) -> None:
            opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                visit(opened, prefix, depth)
            finally:
                os.close(opened)

        def content(name: str, folder: int) -> bytes:
            nonlocal left
            with open(
                os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb"
            ) as file:
                data = file.read(left + 1)
            left -= len(data)
            if left < 0:
                raise SandboxDied(f"the folder holds more than {self.limits.home} bytes")
            return data

        # while bubblewrap is there, the number of process 1 is nobody else's
        if self.process.poll() is not None:
            raise SandboxDied("the sandbox is gone")
        try:
            visit_opened(f"/proc/{self.pid}/root{folder}" if folder else self.home, None, "", 0)
        except OSError as error:
            raise SandboxDied(f"the folder cannot be read: {error}") from None
        return found

    def close(self) -> None:
        """End the sandbox and everything in it; the home folder is gone."""
        try:
            if self.pid and self.process.poll() is None:
                # with process 1 all others die, and bubblewrap ends once they are gone
                os.kill(self.pid, signal.SIGKILL)
                self.process.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
        self.process.wait()
