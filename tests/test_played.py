"""What benchmarks.py plays: the command on a tiny random model, verdicts on scripted episodes,
costs, interruptions, second thoughts, mistakes.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import benchmarks
import eval as evaluation
import learnt
from agent import EpisodeRow, Rollout, prompt_of, rollouts
from config import Benchmarks, Config, Model, Think, UserError
from fast.thinking import think
from mch import ThinkingHeads
from model import SAGE
from sandboxed import require_sandbox
from support import checkpoint, played
from support import tokenizer as tokenizers
from support.measured import Stage
from support.played import (
    PLAYS,
    WorldBenchmark,
    costs_of_rollout,
    costs_of_thinking,
    played_benchmark,
)
from test_evaluate import write, write_jsonl
from test_lineage_bench import bfcl_folder
from worlds.base import Task
from worlds.calls import write_call
from worlds.extras.benchmarks import System

TOY = tokenizers.toy()
SHAPE = Model(
    vocab_size=1024,
    width=32,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=16,
    feed_forward=32,
    context=1024,
    window=64,
    landmark_stride=16,
)

# ------------------------------------------------------------------------------------------- files

TOWNS = dict(
    table_name="towns",
    table_info=dict(
        columns=[dict(name="name"), dict(name="people")], rows=[["Oslo", 7], ["Quito", 28]]
    ),
)
DB = [
    dict(description="How many people has Oslo?", type=["other"], table=TOWNS, label=["7"]),
    dict(description="Which town has 28?", type=["other"], table=TOWNS, label=["Quito"]),
    dict(
        description="Add Lima, 100.",
        type=["INSERT"],
        table=TOWNS,
        label=["INSERT INTO towns VALUES ('Lima', '100')"],
        answer_md5="",
    ),
]
OS = [
    dict(description="How many?", evaluation=dict(match="3"), labels=["count"]),
    dict(
        description="Make a file.",
        evaluation=dict(check=[dict(code="test -f made")], example="touch made"),
        labels=["files"],
    ),
    dict(description="Never.", create=dict(init="exit 3"), evaluation=dict(match="3")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Some tasks of each benchmark, by hand, in the authors' formats."""
    data = bfcl_folder(tmp_path_factory.mktemp("data"))
    write_jsonl(data / "agentbench/dbbench/dev.jsonl", DB)
    write(data / "agentbench/os/dev.json", json.dumps(OS))
    return data


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs of one random model: without heads, and with heads that doubt nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    record = checkpoint.tokenizer_record(TOY)
    config, model, heads = Config(model=SHAPE), SAGE(SHAPE, seed=1), ThinkingHeads(SHAPE)
    with torch.no_grad():
        heads.trained.fill_(1)
        heads.tau.fill_(1.0)
    checkpoint.save_checkpoint(folder / "bare", config, model, [], 1, tokenizer=record)
    checkpoint.save_checkpoint(folder / "sure", config, model, [], 1, tokenizer=record, heads=heads)
    with torch.no_grad():
        heads.tau.fill_(0.0)
    saved = dict(tokenizer=record, heads=heads)
    checkpoint.save_checkpoint(folder / "doubting", config, model, [], 1, **saved)
    return folder


@pytest.fixture
def command(tmp_path, folder, runs):
    """Runs the command on the tiny model."""

    def run(tasks: str, *more: str, model: str = "bare") -> dict:
        words = f"--tasks {tasks} --model {runs}/{model} --dtype float32 --room 24"
        words += f" --data {folder} --folder {tmp_path}/measured"
        return benchmarks.main([*words.split(), *more])

    def rows(name: str, model: str = "bare", kept: str = "measured") -> list[dict]:
        path = tmp_path / kept / f"{runs.name} {model}" / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()[1:]]

    run.rows, run.kept = rows, tmp_path / "measured"
    return run


# ------------------------------------------------------------------------------- scripted episodes


def solution_of(task: Task, one_by_one: bool = False) -> list[str]:
    """The messages of the task's own solution: its calls, all at once or one per message, then the
    answer.
    """
    calls = [write_call(step.call) for step in task.solution if step.call]
    messages = calls if one_by_one else ["".join(calls)] * bool(calls)
    return [*messages, task.answer or "done"]


def scripted(monkeypatch, messages_of) -> None:
    """Lets an agent play that writes messages_of(task)."""

    def episodes(model, tokenizer, tasks, *, temperature, **options) -> list[Rollout]:
        assert temperature == 0.0
        done = []
        for task in tasks:
            limits = dict(room=10_000, temperature=0.0, tolerance=options["tolerance"])
            row = EpisodeRow(task, TOY, prompt_of(task, TOY), [], **limits)
            for message in messages_of(task):
                while row.forced:
                    row.append(0, 0.0, 0.0, TOY.stop)
                for token in [*TOY.encode(message, special=True), TOY.stop[0]]:
                    row.append(token, 0.0, 0.0, TOY.stop)
            if not row.ended:
                row.end("length")
            done.append(row.rollout)
        return done

    monkeypatch.setattr(played, "rollouts", episodes)


def test_whoever_does_the_right_thing_gets_all_and_whoever_does_not_nothing(command, monkeypatch):
    tasks = "bfcl,agentbench:db,world:api,world:math"
    scripted(monkeypatch, solution_of)
    for task, result in command(tasks, "--limit", "8").items():
        assert result["figures"]["right"] == 100, task
    groups = json.loads((next(command.kept.iterdir()) / "bfcl episodes.json").read_text())["groups"]
    assert groups.keys() == {"simple", "multiple", "parallel", "irrelevance"}

    scripted(monkeypatch, lambda task: ["I do not know."])
    wrong = command(tasks, "--limit", "8", "--folder", str(command.kept / "wrong"))
    assert wrong["bfcl"]["groups"]["irrelevance"]["right"] == 100  # no call is right there
    assert wrong["bfcl"]["figures"]["right"] == 25
    assert wrong["agentbench:db"]["figures"]["right"] == 0
    assert wrong["world:math"]["figures"]["right"] == 0


def test_the_leaderboard_judges_the_first_message(command, monkeypatch, capsys):
    scripted(monkeypatch, lambda task: solution_of(task, one_by_one=True))
    figures = command("bfcl:parallel")["bfcl:parallel"]["figures"]
    assert (figures["right"], figures["second"], figures["questions"]) == (0, 100, 2)
    assert "the rules differ in 2" in capsys.readouterr().out
    row = command.rows("bfcl episodes")[0]
    first, second = row["calls"]
    assert json.loads(row["answer"]) == [first["call"]] != [second["call"]]
    assert first["observation"] == "ok" and row["ended"] == "answer"
    assert json.loads(row["gold"])[0]["area"]


def test_the_shell_is_the_sandbox_and_rounds_are_counted(command, monkeypatch, capsys):
    require_sandbox()
    scripted(monkeypatch, solution_of)
    figures = command("agentbench:os")["agentbench:os"]["figures"]
    assert (figures["right"], figures["questions"]) == (100, 2)
    assert "task 2 cannot be played here: preparing the task failed" in capsys.readouterr().out

    looking = write_call(dict(name="bash", arguments=dict(command="ls")))
    scripted(monkeypatch, lambda task: [*[looking] * 7, *solution_of(task)])
    figures = command("agentbench:os", "--seed", "1")["agentbench:os"]["figures"]
    assert figures["right"] == 50  # the answer is the eighth message, or behind a call the ninth


def test_the_api_world_is_played_in_invented_words_by_a_model_that_chats():
    """It has no others; the worlds that have are played in English."""
    chats = SimpleNamespace(tokenizer=SimpleNamespace(style="qwen"))
    for world, names in (("api", "invented"), ("sql", "english")):
        played = played_benchmark(f"world:{world}", Benchmarks(limit=1))
        assert played.difficulty(chats).names == names
        assert played.task(chats, 0).request and played.tasks_from(chats)


def test_published_solutions_are_right(command, monkeypatch, real_data):
    """Of the files as they are published, where they are."""
    scripted(monkeypatch, solution_of)
    more = ("--data", str(real_data), "--limit", "24")
    results = command("bfcl,agentbench:db", *more)
    assert results["bfcl"]["figures"]["right"] == 100
    rows = command.rows("agentbench db episodes")
    changing = [row for row in rows if row["group"] in ("INSERT", "UPDATE", "DELETE")]
    assert len(changing) > 8 and all(row["right"] for row in changing)


# ------------------------------------------------------------------------------------- the command


def test_one_table_of_what_is_asked_and_played(command, folder, runs, capsys, monkeypatch):
    write_jsonl(folder / "gsm8k/test.jsonl", [dict(question="1 + 1?", answer="#### 2")] * 3)
    words = "eval.py --tasks gsm8k,bfcl,bfcl:simple,agentbench:db,world:safety --limit=2 --room 24"
    words += f" --model {runs}/bare --data {folder} --folder {command.kept}"
    monkeypatch.setattr(sys, "argv", words.split())
    evaluation.main()
    said = capsys.readouterr().out
    table = said[said.index("benchmark ") :].splitlines()
    assert "± s.e." in table[0]
    assert [line.split()[:3] for line in table[1:6]] == [
        ["gsm8k", "generation", "2"],
        ["bfcl", "episodes", "2"],
        ["bfcl:simple", "episodes", "2"],
        ["agentbench:db", "episodes", "2"],
        ["world:safety", "episodes", "2"],
    ]
    for row in command.rows("world safety episodes"):
        assert row["ended"] and row["flops"] > 0 and 0 < row["written"] <= 24 < row["read"]
    stored = command.kept / f"{runs.name} bare" / "agentbench db episodes.json"
    result = json.loads(stored.read_text())
    assert "sql" in result["first_prompt"] and result["protocol"]["room"] == 24
    assert result["figures"]["questions"] == 2


def test_a_settings_file_is_still_the_stages_command(monkeypatch):
    called = []
    monkeypatch.setattr(evaluation, "compare_stages", lambda: called.append("stages"))
    monkeypatch.setattr(benchmarks, "main", lambda: called.append("benchmarks"))
    for words in ("config/toy.py --eval.tasks 9", "--tasks=gsm8k", "--model smollm2", ""):
        monkeypatch.setattr(sys, "argv", ["eval.py", *words.split()])
        evaluation.main()
    assert called == ["stages", "benchmarks", "benchmarks", "stages"]


@pytest.mark.parametrize("task", ["gsm8k", "world:api"])
def test_what_was_killed_goes_on_and_batches_change_nothing(command, folder, task, capsys):
    """kill -9 in the middle of a write: a row that was kept is not measured again."""
    write_jsonl(folder / "gsm8k/test.jsonl", [dict(question="1 + 1?", answer="#### 2")] * 5)
    options = (task, "--limit", "5", "--batch")
    name = "gsm8k generation" if task == "gsm8k" else "world api episodes"
    child = os.fork()
    if child == 0:  # writes the second chunk aside, and never puts it in its place
        try:
            rename, calls = Path.replace, []

            def killed(self, target):
                calls.append(target)
                if len(calls) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(self, target)

            Path.replace = killed
            command(*options, "2")
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    before = command.rows(name)
    assert len(before) == 2

    capsys.readouterr()
    command(*options, "2")
    assert "3 of 3" in capsys.readouterr().out  # and not 5 of 5
    after = command.rows(name)
    assert after[:2] == before and len(after) == 5
    command(*options, "16", "--folder", str(command.kept.parent / "whole"))
    whole = command.rows(name, kept="whole")
    assert sorted(map(what_was_said, after)) == sorted(map(what_was_said, whole))


def what_was_said(row: dict) -> tuple:
    """A row but for log-probabilities, whose last digits depend on the batch."""
    texts = [sample["text"] for sample in row.get("samples", [])] or row["text"]
    return row["number"], texts, row["right"], row["read"], row["written"], row["flops"]


def test_heads_that_doubt_nothing_change_nothing(command):
    """Think with the gate shut: the same episodes as fast."""
    fast = command("world:api", "--limit", "4")
    sure = command("world:api", "--limit", "4", "--mode", "think", model="sure")
    assert (fast["world:api"]["how"], sure["world:api"]["how"]) == ("episodes", "think")
    for one, other in zip(
        command.rows("world api episodes"), command.rows("world api think", "sure"), strict=True
    ):
        for key in ("number", "text", "calls", "right", "read", "written", "ended"):
            assert one[key] == other[key], key


def test_costs_of_fast_and_of_thinking_are_one_count():
    """Of an agent that calls tools, without second thoughts: the same tokens; of the FLOPs only the
    logits behind each observation differ, which thinking counts with the observation.
    """
    model, heads = learnt.agent()
    stage = Stage("learnt", model, TOY, {})
    tasks = learnt.TASKS[: learnt.KNOWN]
    options = dict(faults=False, batch=2)
    fast = rollouts(model, TOY, tasks, 0.0, **options)
    thoughts = think(model, heads, TOY, tasks, Think(mode="fast"), **options)
    assert sum(len(rollout.log) for rollout in fast) >= 3
    for rollout, thinking in zip(fast, thoughts, strict=True):
        assert rollout.tokens == thinking.rollout.tokens
        one, other = costs_of_rollout(stage, rollout), costs_of_thinking(thinking)
        assert (one["read"], one["written"]) == (other["read"], other["written"])
        assert one["read"] + one["written"] == len(rollout.tokens)
        observed = sum(count > 0 for count in rollout.called)
        logits = observed * 2 * model.config.width * model.config.vocab_size
        assert other["flops"] - one["flops"] == pytest.approx(logits, rel=0.01)


def test_second_thoughts_are_counted(command):
    fast = command("world:api", "--limit", "2", model="doubting")["world:api"]["figures"]
    thought = command("world:api", "--limit", "2", "--mode", "think", model="doubting")
    thought = thought["world:api"]["figures"]
    assert thought["written"] > 3 * fast["written"] and thought["gflops"] > 3 * fast["gflops"]


def test_words_are_those_of_the_model():
    """English for a model with Qwen's chat, invented ones for the toy; the same tools' style."""
    benchmark = played_benchmark("world:sql", Benchmarks(limit=3))
    assert isinstance(benchmark, WorldBenchmark) and benchmark.numbers == [0, 1, 2]
    requests = {}
    for style, names in (("qwen", "english"), ("compact", "invented")):
        stage = SimpleNamespace(tokenizer=SimpleNamespace(style=style))
        task = benchmark.task(stage, 0)
        assert (task.difficulty.style, task.difficulty.names) == (style, names)
        assert task.difficulty.split == "test"
        requests[style] = task.request
    assert len(set(requests.values())) == 2


def test_a_task_longer_than_the_context_counts_as_wrong(command, tmp_path, capsys):
    long = [DB[0] | dict(description="a word " * 2000), DB[1]]
    write_jsonl(tmp_path / "long/agentbench/dbbench/standard.jsonl", long)
    figures = command("agentbench:db", "--data", str(tmp_path / "long"))["agentbench:db"]["figures"]
    assert (figures["questions"], figures["too_long"]) == (2, 1)
    assert "1 are longer than the context, and count as wrong" in capsys.readouterr().out


def test_mistakes_are_said_before_anything_is_played(command, folder, tmp_path, monkeypatch):
    for task, more, wanted in (
        ("bfc", "", "no benchmark bfc; did you mean bfcl"),
        ("world:libary", "", "no benchmark world:libary; did you mean world:library"),
        ("bfcl:simpel", "", "bfcl has no simpel; did you mean simple"),
        ("world:api:chain", "", "world:api has no groups; leave :chain out"),
        ("bfcl", "--mode vote", "--mode vote counts answers.*take --mode fast or think"),
        ("bfcl", "--shots 0", "bfcl is played, not asked; leave --shots out"),
        ("world:sql", "--scoring letters", "leave --scoring out"),
        ("world:api", "--mode think", "bare has no trained heads.*heads.py"),
        ("bfcl", f"--data {tmp_path}", "BFCL_v4_simple_python.json is not there"),
        ("agentbench:db", f"--data {tmp_path}", "dev.jsonl is not there"),
    ):
        with pytest.raises(UserError, match=wanted):
            command(task, *more.split())
    write_jsonl(tmp_path / "wrong/agentbench/dbbench/dev.jsonl", [DB[0], dict(description="?")])
    with pytest.raises(UserError, match="dev.jsonl:2 is not the published format.*'type' is a req"):
        command("agentbench:db", "--data", str(tmp_path / "wrong"))
    monkeypatch.setattr(System, "why_unplayable", lambda: "there is no bubblewrap")
    with pytest.raises(UserError, match="agentbench:os cannot be played: there is no bubblewrap"):
        command("agentbench:os")
    monkeypatch.delitem(sys.modules, "worlds.extras.benchmarks")
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(UserError, match="bfcl needs the package jsonschema; pip install"):
        command("bfcl")
    assert not command.kept.exists()


def test_every_play_is_whole():
    for name, play in PLAYS.items():
        assert play.room >= 256 and play.tolerance >= 2, name
        assert (play.files is None) == name.startswith("world:"), name
