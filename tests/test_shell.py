"""The shell world: the judge is not fooled, sandboxes are used again only where it is safe, the paper's case."""

import random
from collections import Counter

import pytest

from sandboxed import need_sandbox  # noqa: F401  (a fixture for the whole module)
from worlds import Difficulty, Episode, draw, failed
from worlds.sandbox import File, Sandbox
from worlds.shell import FAMILIES, Shell, bash, tree_of

HARD = Difficulty(chain=3, decoys=3, distractors=2, special=0.0)


def test_the_expert_and_its_wrong_versions():
    """Every call of the expert verifies; nine in ten tempting wrong ones spoil the task or tell something else."""
    kinds: Counter = Counter()
    spoilt = []
    for index in range(120):
        task = draw("shell", 1, index, HARD)
        kinds[task.kind] += 1
        with Episode(task) as right:
            heard = [right.step(step.call) for step in task.solution]
            assert right.verify(task.answer) and not any(map(failed, heard)), task.request
        for wrong in task.solution[-1].wrong:
            with Episode(task) as episode:
                said = [episode.step(call) for call in (*(step.call for step in task.solution[:-1]), wrong)]
                spoilt.append(not episode.verify(task.answer) or said[-1] != heard[-1])
    assert sum(spoilt) > 0.9 * len(spoilt) > 100
    assert set(kinds) == {family.__name__ for families in FAMILIES.values() for family in families}


def test_a_sandbox_is_used_again_only_where_nothing_foreign_ran():
    """The same sandbox for the expert's next episode, filled anew; another one after a model's command, whatever it was."""
    first, second = (draw("shell", 2, index, HARD) for index in (0, 1))

    def played(task, *commands):
        with Episode(task) as episode:
            for call in [*map(bash, commands), *(step.call for step in task.solution)]:
                episode.step(call)
            return episode.verify(task.answer), episode.world.sandbox.pid, episode.world.sandbox.process

    Shell.idle.__dict__.pop("sandboxes", None)
    right, pid, process = played(first)
    assert right and played(second)[:2] == (True, pid) and played(first)[:2] == (True, pid)
    right, again, process = played(second, "echo x > /tmp/left; (sleep 60 &); ls")
    assert again == pid and right and process.poll() is not None  # closed: a model's command ran in it
    right, other, _ = played(first)
    assert right and other != pid


def test_refilling_leaves_nothing_behind():
    with Sandbox({"a/b.txt": File(b"one")}) as sandbox:
        sandbox.run("mkdir -p /tmp/x/y /dev/shm/z locked && echo 2 > locked/c && chmod 0 locked && echo x > /tmp/x/y/f && ln -s / root && touch '-rf' $'new\nline'")
        sandbox.refill({"a/d.txt": File(b"two")})
        assert {path: file.data for path, file in sandbox.tree().items()} == {"a": None, "a/d.txt": b"two"}
        assert sandbox.tree("/tmp") == {} and sandbox.tree("/dev/shm") == {}
        assert sandbox.run("cat a/d.txt; ulimit -u").output == "two" + sandbox.run("ulimit -u").output


def test_the_papers_case():
    """Section 7.1: `-mtime 1` finds nothing; the day as a range does."""
    task = next(task for task in (draw("shell", 3, index) for index in range(500)) if task.kind == "yesterday")
    source, kind, today = task.constraints["from"], task.constraints["kind"], task.truth["today"]
    with Sandbox(tree_of(task.truth["files"], today)) as real:
        assert real.run(f"find {source} -name '*.{kind}' -mtime 1").output == ""
        assert real.run(f"find {source} -name '*.{kind}' -newermt yesterday").output == ""
        assert real.run(f"find {source} -name '*.{kind}' -newermt {task.constraints['day']} ! -newermt {today}").output.count("\n") >= 1
    with Episode(task) as episode:
        assert episode.step(task.solution[0].wrong[0]) == "ok" and not episode.verify("done")
        assert episode.step(task.solution[0].call) == "ok" and episode.verify("done")


@pytest.mark.parametrize("spoil", ["touch {a}/extra", "rm -r *", "echo x >> {path}", "cp {path} copy", "mv {path} renamed"])
def test_the_judge_looks_at_the_whole_tree(spoil):
    for index in range(40):
        task = draw("shell", 4, index, Difficulty(special=0.0))
        path = next(iter(task.truth["files"]))
        with Episode(task) as episode:
            for step in task.solution:
                episode.step(step.call)
            assert episode.verify(task.answer)
            episode.step(bash(spoil.format(a=path.split("/")[0], path=path)))
            left = [p for p, file in episode.world.open().tree().items() if file.data is not None]
            assert not episode.verify(task.answer) or path not in left  # a file that the task moved away cannot be spoilt


def test_doing_nothing_is_right_only_where_nothing_was_asked():
    rng = random.Random(5)
    for index in range(200):
        task = draw("shell", 5, index)
        with Episode(task) as episode:
            assert episode.verify(task.answer) == (task.answer != "done")
            assert not episode.verify(rng.choice(["answer: -1", "", "ask: nothing", "done."])) or task.answer == "done"


def test_other_tools_and_odd_commands():
    task = draw("shell", 6, 0)
    other = next(tool["function"] for tool in task.tools if tool["function"]["name"] != "bash")
    with Episode(task) as episode:
        assert episode.step({"name": other["name"], "arguments": {key: 1 for key in other["parameters"]["properties"]}}).startswith("error")
        for command in ("", " ", "\n\n", "|", "&& ls", "ls |", "'", '"', "\\", "$HOME", "`ls`", "((", "ls > ", "cat < ", "*" * 500, "ls " + "a/" * 500, "find -exec",
                        "find -size", "grep", "grep '['", "sort -k", "tar", "head -n x", "cd ..", "cat /etc/passwd", "echo " + "x" * 5000, "ls\0", "é ü", "\ud800"):
            said = episode.step(bash(command))
            assert isinstance(said, str) and len(said) < 1000
