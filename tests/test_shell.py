"""The shell world: the real machine gives what the small one gives, the judge is not fooled, the paper's case."""

import random
from collections import Counter

import pytest

from sandboxed import need_sandbox  # noqa: F401  (a fixture for the whole module)
from worlds import Difficulty, Episode, draw
from worlds.sandbox import Sandbox
from worlds.shell import FAMILIES, Shell, bash, tree_of

HARD = Difficulty(chain=3, decoys=3, distractors=2, special=0.0)


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_real_bash_says_and_does_the_same(count, monkeypatch):
    """Every call of the expert, and every tempting wrong one, in the sandbox and in the small bash."""
    kinds: Counter = Counter()
    for index in range(count):
        task = draw("shell", 1, index, HARD)
        kinds[task.kind] += 1
        for wrong in (None, *range(3)):
            told = []
            for machine in (Shell.machine, Sandbox):
                with monkeypatch.context() as patch, Episode(task) as episode:
                    if machine is Sandbox:
                        episode.world.close()
                        patch.setattr(Shell, "machine", Sandbox)
                        episode.world = Shell(task)
                    for number, step in enumerate(task.solution):
                        last = number == len(task.solution) - 1
                        episode.step(step.wrong[wrong % len(step.wrong)] if wrong is not None and last and step.wrong else step.call)
                    told.append(([entry.said for entry in episode.log], episode.verify(task.answer), {p: f.data for p, f in episode.world.shell.tree().items()
                                                                                                    if not p.endswith((".tar", ".tgz"))}))
            assert told[0] == told[1], (task.request, wrong)
            assert told[0][1] == (wrong is None) or wrong is not None
    assert set(kinds) == {family.__name__ for families in FAMILIES.values() for family in families}


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
            left = [p for p, file in episode.world.shell.tree().items() if file.data is not None]
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
