"""The shell world: the judge is not fooled, sandboxes are used again only where it is safe, the
paper's case.
"""

import io
import random
import resource
import tarfile
from collections import Counter

import pytest

from sandboxed import need_sandbox  # noqa: F401  (a fixture for the whole module)
from worlds.base import Episode, failed
from worlds.difficulty import Difficulty
from worlds.tasks import draw_task
from worlds.extras.sandbox import File, Sandbox
from worlds.shell import SHELL_FAMILIES, Shell, bash_call, tree_of

HARD = Difficulty(chain=3, decoys=3, distractors=2, special=0.0)


def test_the_expert_and_its_wrong_versions():
    """Every call of the expert verifies; nine in ten tempting wrong ones spoil the task or tell
    something else.
    """
    kinds: Counter = Counter()
    spoilt = []
    for index in range(120):
        task = draw_task("shell", 1, index, HARD)
        kinds[task.kind] += 1
        with Episode(task) as right:
            heard = [right.step(step.call) for step in task.solution]
            assert right.verify(task.answer) and not any(map(failed, heard)), task.request
        for wrong in task.solution[-1].wrong:
            with Episode(task) as episode:
                said = [
                    episode.step(call)
                    for call in (*(step.call for step in task.solution[:-1]), wrong)
                ]
                spoilt.append(not episode.verify(task.answer) or said[-1] != heard[-1])
    assert sum(spoilt) > 0.9 * len(spoilt) > 100
    assert set(kinds) == {kind for families in SHELL_FAMILIES.values() for kind in families}


def test_a_sandbox_is_used_again_only_where_nothing_foreign_ran():
    """The same sandbox for the expert's next episode, filled anew; another one after a model's
    command, whatever it was.
    """
    first, second = (draw_task("shell", 2, index, HARD) for index in (0, 1))

    def played(task, *commands):
        with Episode(task) as episode:
            for call in [*map(bash_call, commands), *(step.call for step in task.solution)]:
                episode.step(call)
            return (
                episode.verify(task.answer),
                episode.world.sandbox.pid,
                episode.world.sandbox.process,
            )

    Shell.idle.__dict__.pop("sandboxes", None)
    right, pid, process = played(first)
    assert right and played(second)[:2] == (True, pid) and played(first)[:2] == (True, pid)
    right, again, process = played(second, "echo x > /tmp/left; (sleep 60 &); ls")
    assert (
        again == pid and right and process.poll() is not None
    )  # closed: a model's command ran in it
    right, other, _ = played(first)
    assert right and other != pid


def test_refilling_leaves_nothing_behind():
    with Sandbox({"a/b.txt": File(b"one")}) as sandbox:
        sandbox.run(
            "mkdir -p /tmp/x/y /dev/shm/z locked && echo 2 > locked/c && chmod 0 locked && "
            "echo x > /tmp/x/y/f && ln -s / root && touch '-rf' $'new\nline'"
        )
        sandbox.refill({"a/d.txt": File(b"two")})
        assert {path: file.data for path, file in sandbox.tree().items()} == {
            "a": None,
            "a/d.txt": b"two",
        }
        assert sandbox.tree("/tmp") == {} and sandbox.tree("/dev/shm") == {}
        assert (
            sandbox.run("cat a/d.txt; ulimit -u").output == "two" + sandbox.run("ulimit -u").output
        )


def test_the_papers_case():
    """Section 7.1: `-mtime 1` finds nothing; the day as a range does."""
    task = next(
        task
        for task in (draw_task("shell", 3, index) for index in range(500))
        if task.kind == "yesterday"
    )
    source, kind, today = task.constraints["from"], task.constraints["kind"], task.truth["today"]
    with Sandbox(tree_of(task.truth["files"], today)) as real:
        assert real.run(f"find {source} -name '*.{kind}' -mtime 1").output == ""
        assert real.run(f"find {source} -name '*.{kind}' -newermt yesterday").output == ""
        assert (
            real.run(
                f"find {source} -name '*.{kind}' "
                f"-newermt {task.constraints['day']} ! -newermt {today}"
            ).output.count("\n")
            >= 1
        )
    with Episode(task) as episode:
        assert episode.step(task.solution[0].wrong[0]) == "ok" and not episode.verify("done")
        assert episode.step(task.solution[0].call) == "ok" and episode.verify("done")


@pytest.mark.parametrize(
    "spoil",
    ["touch {a}/extra", "rm -r *", "echo x >> {path}", "cp {path} copy", "mv {path} renamed"],
)
def test_the_judge_looks_at_the_whole_tree(spoil):
    for index in range(40):
        task = draw_task("shell", 4, index, Difficulty(special=0.0))
        path = next(iter(task.truth["files"]))
        with Episode(task) as episode:
            for step in task.solution:
                episode.step(step.call)
            assert episode.verify(task.answer)
            episode.step(bash_call(spoil.format(a=path.split("/")[0], path=path)))
            left = [p for p, file in episode.world.open().tree().items() if file.data is not None]
            assert (
                not episode.verify(task.answer) or path not in left
            )  # a file that the task moved away cannot be spoilt


def test_doing_nothing_is_right_only_where_nothing_was_asked():
    rng = random.Random(5)
    for index in range(200):
        task = draw_task("shell", 5, index)
        with Episode(task) as episode:
            assert episode.verify(task.answer) == (task.answer != "done")
            assert (
                not episode.verify(rng.choice(["answer: -1", "", "ask: nothing", "done."]))
                or task.answer == "done"
            )


def test_other_tools_and_odd_commands():
    task = draw_task("shell", 6, 0)
    other = next(tool["function"] for tool in task.tools if tool["function"]["name"] != "bash")
    with Episode(task) as episode:
        assert episode.step(
            {
                "name": other["name"],
                "arguments": {key: 1 for key in other["parameters"]["properties"]},
            }
        ).startswith("error")
        for command in (
            "",
            " ",
            "\n\n",
            "|",
            "&& ls",
            "ls |",
            "'",
            '"',
            "\\",
            "$HOME",
            "`ls`",
            "((",
            "ls > ",
            "cat < ",
            "*" * 500,
            "ls " + "a/" * 500,
            "find -exec",
            "find -size",
            "grep",
            "grep '['",
            "sort -k",
            "tar",
            "head -n x",
            "cd ..",
            "cat /etc/passwd",
            "echo " + "x" * 5000,
            "ls\0",
            "é ü",
            "\ud800",
        ):
            said = episode.step(bash_call(command))
            assert isinstance(said, str) and len(said) < 1000


# ----------------------------------------------------------------------------------------- archives


def archive_task():
    return next(
        task
        for task in (draw_task("shell", 3, index) for index in range(200))
        if task.kind == "archive"
    )


@pytest.mark.parametrize(
    "command, right",
    [
        ("tar -cf {b}.tar {a}", True),
        ("tar -cf {b}.tar ./{a}", True),
        ("tar --format=pax -cf {b}.tar {a}/*", True),
        ("tar -czf {b}.tar {a}", True),
        ("tar -cf {b}.tar {a}/*.{kind}", False),
        ("tar -cf {b}.tar -C {a} .", False),
        ("tar -cf {b}.tar {a}; cp {b}.tar again.tar", False),
        ("tar -cf {b}.tar {a}; head -c 700 {b}.tar > c; mv c {b}.tar", False),
        ("tar -czf {b}.tar {a}; head -c 60 {b}.tar > c; mv c {b}.tar", False),
        ("touch {b}.tar", False),
        ("mkdir {b}.tar", False),
        ("ln -s {a} {b}.tar", False),
        ("mkfifo {b}.tar", False),
        ("head -c 9000 /dev/zero > {b}.tar", False),
    ],
)
def test_an_archive_is_judged_by_what_tar_finds_in_it(command, right):
    task = archive_task()
    a, b = task.constraints["from"], task.constraints["to"]
    kind = next(iter(task.truth["files"])).split(".")[-1]
    with Episode(task, faults=False) as episode:
        episode.step(bash_call(command.format(a=a, b=b, kind=kind)))
        assert (episode.verify("done"), episode.problem) == (right, "")


def old_header(name: bytes, kind: bytes, size: bytes, more: dict[int, bytes] = {}) -> bytes:
    """A header of GNU tar's old format, by the offsets of its manual ("Basic Tar Format", struct
    oldgnu_header).
    """
    block = bytearray(512)
    for at, text in {
        0: name,
        100: b"0000644\0",
        124: size,
        136: b"00000000000\0",
        148: b" " * 8,
        156: kind,
        257: b"ustar  \0",
        **more,
    }.items():
        block[at : at + len(text)] = text
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def zeros(mode: str, size: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        entry = tarfile.TarInfo("zeros")
        entry.size = size
        tar.addfile(entry, io.BytesIO(bytes(size)))
    return packed.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        old_header(
            b"x", b"S", b"00000000000\0", {386: b"00000000000\0" * 2, 483: b"77777777777\0"}
        ),
        zeros("w:gz", 60_000_000),
        zeros("w:bz2", 60_000_000),
        b"".join(old_header(b"m%d" % number, b"0", b"00000000000\0") for number in range(1900)),
        b"".join(old_header(b"x", b"L", b"00000000001\0") + b"y" * 512 for _ in range(900)),
        old_header(b"x", b"0", b"\xff" * 12),
        old_header(b"x", b"0", b"77777777777\0"),
        old_header(b"../../../tmp/x", b"0", b"00000000000\0"),
        old_header(b"/etc/passwd", b"2", b"00000000000\0", {157: b"/etc/passwd"}),
        b"\x1f\x8b",
        b"",
    ],
    ids=[
        "claims 8 GB",
        "gzip of 60 MB",
        "bzip2 of 60 MB",
        "many members",
        "names of names",
        "size below zero",
        "size of 8 GB",
        "above home",
        "a link",
        "no gzip",
        "empty",
    ],
)
def test_a_hostile_archive_is_no_right_one(data):
    """Through the episode as an agent would do it: none verifies, none raises, and the host grows
    by less than the archive claims.
    """
    task, before = archive_task(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Episode(task, faults=False) as episode:
        episode.step(bash_call(f": > {task.constraints['to']}.tar"))
        for start in range(0, len(data), 1500):
            text = "".join(f"\\{byte:03o}" for byte in data[start : start + 1500]).replace(
                "%", "%%"
            )
            assert (
                episode.step(bash_call(f"printf '{text}' >> {task.constraints['to']}.tar")) == "ok"
            )
            if start > 60_000:
                break
        assert (episode.verify("done"), episode.problem) == (False, "")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_no_sandbox_is_started_where_nothing_is_run():
    task = next(
        task for task in (draw_task("shell", 6, index) for index in range(50)) if not task.solution
    )
    with Episode(task) as episode:
        assert (
            episode.verify(task.answer)
            and not episode.verify("done")
            and episode.world.sandbox is None
        )


def test_episodes_share_nothing():
    task = draw_task("shell", 6, 0)
    with Episode(task, faults=False) as first, Episode(task, faults=False) as second:
        assert first.step(bash_call("echo left > here; echo left > /tmp/there; sleep 60 &")) == "ok"
        assert second.step(
            bash_call(
                "cat here /tmp/there; ps 2>/dev/null | grep -c sleep; ls /proc | grep -c '^[0-9]'"
            )
        ).startswith("cat: here: No such file")
