"""distill.py as a user runs it, and what its examples teach and mask."""

import copy
import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from support import checkpoint
from support import settings
import distill
import weighted_examples
from support import tokenizer as tokenizers
from support.log import read_log
from support.packing import PackedLoader
from support.training_run import TrainingRun
from config import Distill, Model
from worlds.critique import critique
from worlds.expert import trajectory
from model import SAGE
from agent import rollouts
from forked_script import run
from test_train import KILL_IN_A_SAVE, weights_and_state
from worlds.difficulty import Difficulty
from worlds.tasks import draw_task
from worlds.teacher_file import read_teacher_file

TOY = tokenizers.toy()
SETTINGS = """
from config import Data, Distill, Eval, Model, Train
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=2, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=640, previous_token=True)
distill = Distill(steps=4, batch=2, sequence=384, trajectories=40, reflect_steps=4, rounds=2,
                  tasks=10, tries=1, log_every=1, save_every=1, keep=4, dtype="float32",
                  worlds={worlds!r}{more})
eval = Eval(tasks=4, batch=8, room=24)
"""


@pytest.fixture
def lineage(tmp_path):
    """A settings file of a lineage whose base is an untrained tiny model; call it with further
    settings of stage distill. The shell world's sandbox takes seconds per stage.
    """

    def write(name="toy", more="", worlds="api,math"):
        out = tmp_path / name / "base"
        file = tmp_path / f"{name}.py"
        more = ", " + more if more else ""
        file.write_text(SETTINGS.format(out=str(out), worlds=worlds, more=more))
        config = settings.from_file(file)
        checkpoint.save_checkpoint(out, config, SAGE(config.model, seed=1), [], 1)
        return str(file), tmp_path / name

    return write


def test_corrections_mask_the_wrong_call_and_teach_the_right_one():
    row = next(
        vars(t) for t in (trajectory("api", 0, i, Difficulty()) for i in range(20)) if t.negatives
    )
    for negative in row["negatives"]:
        tokens, weights = weighted_examples.correction_example(row, negative, TOY, "compact", 0.0)
        taught = TOY.decode([token for token, weight in zip(tokens, weights) if weight])
        assert taught.startswith(f"{negative['kind']}: {negative['fault']}\n<tool_call>") and set(
            weights
        ) == {0.0, 1.0}
        assert (
            json.loads(taught.split("<tool_call>")[1].split("</tool_call>")[0]) == negative["right"]
        )
        assert json.dumps(negative["wrong"]["arguments"], separators=(",", ":")) in TOY.decode(
            tokens
        )


@pytest.mark.parametrize("world", ["api", "sql", "shell"])
def test_a_correction_shows_where_its_values_come_from(world):
    """The second call of a chain takes what the first one gave: a correction of it that begins at
    the request would teach to make values up.
    """
    later = 0
    for index in range(60):
        row = trajectory(world, 0, index, Difficulty(longer=1.0, fault_rate=0.3))
        row = vars(row) | {"negatives": row.negatives[-2:]}
        examples = weighted_examples.trajectory_examples(
            [row], Distill(correction=1.0), TOY, "compact"
        )
        for tokens, weights in examples[1:]:
            text = TOY.decode([token for token, weight in zip(tokens, weights) if weight < 1])
            taught = TOY.decode([token for token, weight in zip(tokens, weights) if weight == 1])
            call = json.loads(taught.split("<tool_call>")[1].split("</tool_call>")[0])
            later += "<tool_response>" in text
            numbers = [value for value in call["arguments"].values() if type(value) is int]
            for value in numbers if world == "api" else ():
                assert re.search(rf"\b{re.escape(str(value))}\b", text), (value, text)
            before = weighted_examples.before_call(row["messages"], call)
            results = sum(message["role"] == "tool" for message in before)
            assert text.count("<tool_response>") == results
    assert later > 20


def test_earlier_requests_are_left_out_until_the_conversation_fits():
    c = Distill(worlds="library", names="english", requests=6, trajectories=30, correction=0.0)
    rows = weighted_examples.drawn_trajectories(c, "compact")
    whole = weighted_examples.trajectory_examples(
        rows, dataclasses.replace(c, sequence=9999), TOY, "compact"
    )
    c.sequence = sorted(len(tokens) for tokens, _ in whole)[10]  # 19 are longer
    examples = weighted_examples.trajectory_examples(rows, c, TOY, "compact")
    shortened = 0
    for row, (tokens, weights), (all_tokens, all_weights) in zip(rows, examples, whole):
        alone = weighted_examples.trajectory_examples([row | {"earlier": []}], c, TOY, "compact")[0]
        assert len(tokens) <= max(c.sequence, len(alone[0]))
        if len(all_tokens) <= c.sequence:
            assert tokens == all_tokens
        else:  # the latest requests are left, and the one that the row is about
            last = len(row["messages"][-1]["content"])
            assert TOY.decode(tokens)[-last:] == TOY.decode(all_tokens)[-last:]
            shortened += len(alone[0]) < len(tokens) < len(all_tokens)
    assert shortened > 5


def test_a_slip_is_masked_and_its_correction_taught():
    made = next(
        t
        for t in (trajectory("api", 0, i, Difficulty(), slips=True) for i in range(20))
        if any(m.get("slip") for m in t.messages)
    )
    tokens, weights = weighted_examples.teacher_example(
        made.messages, made.tools, TOY, "compact", 0.1
    )
    assert tokens == TOY.encode_chat(made.messages, made.tools, "compact")[0] and set(weights) == {
        0.0,
        0.1,
        1.0,
    }
    (wrong,) = (
        m["content"]
        + "<tool_call>"
        + json.dumps(m["tool_calls"][0]["function"], separators=(",", ":"))
        for m in made.messages
        if m.get("slip")
    )
    assert (
        TOY.decode([token for token, weight in zip(tokens, weights) if weight == 0.0])
        == f"{wrong}</tool_call><|im_end|>"
    )
    rest = [m for m in made.messages if m["role"] == "assistant" and not m.get("slip")]
    assert TOY.decode(
        [token for token, weight in zip(tokens, weights) if weight == 1.0]
    ) == TOY.decode(
        [
            t
            for message in rest
            for t, own in zip(*TOY.encode_chat([message], None, "compact"))
            if own
        ]
    )


def test_equation_5_weighs_critique_and_revision_and_masks_the_attempt():
    task = draw_task("math", 0, 0)
    model = SAGE(
        Model(
            vocab_size=1024,
            width=32,
            layers=1,
            heads=2,
            kv_heads=1,
            head_dim=16,
            feed_forward=48,
            context=640,
        ),
        seed=3,
    )
    attempt = rollouts(model, TOY, [task], room=20)[0]
    told = weighted_examples.criticise(attempt).critique
    revised = TOY.encode("answer: 5") + [TOY.special["<|im_end|>"]]
    tokens, weights = weighted_examples.revision_example(
        attempt.tokens,
        told,
        revised,
        [True] * len(revised),
        tokenizer=TOY,
        style="compact",
        weight=1.5,
        critique_weight=0.4,
    )
    assert tokens[: len(attempt.tokens)] == attempt.tokens and not any(
        weights[: len(attempt.tokens)]
    )
    assert TOY.decode([t for t, w in zip(tokens, weights) if abs(w - 0.6) < 1e-9]) == f"{told}\n"
    assert TOY.decode([t for t, w in zip(tokens, weights) if w == 1.5]) == "answer: 5<|im_end|>"
    assert "again<|im_end|>" in TOY.decode(tokens)


def test_a_complaint_is_the_experts_critique():
    """Of a rollout that only answers wrongly, as of an episode that the expert sees."""
    from worlds.base import Episode

    task = next(t for t in (draw_task("api", 0, i) for i in range(20)) if t.solution)
    attempt = rollouts(
        SAGE(
            Model(
                vocab_size=1024,
                width=32,
                layers=1,
                heads=2,
                kv_heads=1,
                head_dim=16,
                feed_forward=48,
                context=640,
            )
        ),
        TOY,
        [task],
        room=10,
    )[0]
    with Episode(task) as episode:
        assert weighted_examples.criticise(attempt).critique == critique(task, episode, "")


def test_all_stages_run_and_resume_to_the_bit(lineage):
    file, folder = lineage(worlds="api,shell")
    whole = run("distill.py", file)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert [p.name for p in sorted(folder.iterdir())] == ["base", "distilled", "reflected"]
    buffer = [
        json.loads(line)
        for line in (folder / "reflected" / "buffer-1.jsonl").read_text().splitlines()
    ]
    assert {row["source"] for row in buffer} >= {"teacher", "replay"} and all(
        len(row["tokens"]) == len(row["weights"]) for row in buffer
    )
    again, other = lineage("again", worlds="api,shell")
    # in the middle of step 4's save, of stage distill
    killed = run("distill.py", again, before=KILL_IN_A_SAVE)
    assert killed.returncode != 0
    assert checkpoint.latest(other / "distilled").name == "checkpoint-0000003"
    resumed = run("distill.py", again, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    # and once more from within stage reflect's second round
    shutil.rmtree(other / "reflected" / "checkpoint-0000004")
    assert run("distill.py", again, "--resume").returncode == 0
    for stage in ("distilled", "reflected"):
        one, two = weights_and_state(folder / stage), weights_and_state(other / stage)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    table = run("eval.py", file)
    assert (
        table.returncode == 0
        and "success/api greedy" in table.stdout
        and "reflected" in table.stdout
    ), table.stderr


@pytest.mark.parametrize(
    "more, words, wanted",
    [
        (
            "",
            ["--stage", "reflect"],
            "there is no run; make it with python distill.py FILE --stage distill",
        ),
        ("", ["--stage", "dpo"], "this script has distill and reflect"),
        ("file='nosuch.jsonl'", ["--stage", "distill"], "no file"),
        ("", ["--stage", "distill", "--distill.sequence", "32"], "32 tokens"),
        ("", ["--stage", "distill", "--distill.slips", "15"], "slips is 15.0; wanted at least 0"),
        ("", ["--stage", "distill", "--distill.fault-rate", "2"], "fault_rate is 2.0"),
        (
            "start='out/nosuch'",
            ["--stage", "distill"],
            "there is no run; make it first, or name a run's folder as start",
        ),
    ],
)
def test_bad_input(lineage, more, words, wanted):
    file, _ = lineage("bad", more)
    result = run("distill.py", file, *words)
    wanted = wanted.replace("FILE", file)
    assert result.returncode == 1 and wanted in result.stderr and result.stderr.count("\n") == 1, (
        result.stderr
    )


def test_a_foreign_stage_folder_is_refused(lineage):
    file, folder = lineage()
    shutil.copytree(folder / "base", folder / "distilled")
    assert "go on with --resume, or delete" in run("distill.py", file, "--stage", "distill").stderr
    assert (
        "was written by stage train, not distilled"
        in run("distill.py", file, "--stage", "distill", "--resume").stderr
    )


@pytest.mark.parametrize(
    "stage, former, command",
    [
        ("reflected", "reflected", "python distill.py config/smol.py --stage reflect"),
        (None, "base", "python train.py config/smol.py"),
    ],
)
def test_a_folder_of_an_older_layout_is_refused_in_one_sentence(
    lineage, monkeypatch, stage, former, command
):
    """The remedy names the settings file of the command that runs."""
    monkeypatch.setattr("sys.argv", ["rl.py", "config/smol.py", "--stage", "ppo"])
    _, folder = lineage()
    shutil.copytree(folder / "base", old := folder / "old")
    meta_file = checkpoint.latest(old) / "meta.json"
    meta = json.loads(meta_file.read_text())
    assert meta.pop("layout") == checkpoint.LAYOUT
    meta_file.write_text(json.dumps(meta | ({"stage": stage} if stage else {})))
    wanted = (
        f"{old} was written by an older layout of this project (stage {former}); "
        f"delete it, and make it anew with {command}"
    )
    with pytest.raises(settings.UserError) as refused:
        checkpoint.load_run(old)
    assert str(refused.value) == wanted
    meta_file.write_text(json.dumps(meta | {"layout": checkpoint.LAYOUT + 1}))
    with pytest.raises(settings.UserError, match="was written by a newer layout of this project"):
        checkpoint.load_run(old)


@pytest.mark.parametrize(
    "words, folder, command",
    [
        ("rl.py config/smol.py --stage ppo --resume", "safe", "rl.py config/smol.py --stage dpo"),
        (
            "rl.py config/smol.py --out a/base",
            "safe",
            "rl.py config/smol.py --out a/base --stage dpo",
        ),
        ("heads.py --resume --out=a/base", "sage", "rl.py --out=a/base --stage ppo"),
        ("train.py config/smol.py --resume", "mine", "train.py config/smol.py"),
        ("sample.py --think", "thinking", "heads.py config/toy.py"),
    ],
)
def test_a_missing_run_is_made_by_the_settings_that_run(
    tmp_path, monkeypatch, words, folder, command
):
    """Such as that of the source, which is gone, of a stage that is resumed."""
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(settings.UserError) as refused:
        checkpoint.load_run(tmp_path / folder)
    assert f"train one with python {command}, or name" in str(refused.value)


def test_broken_lines_of_a_teachers_file_are_counted_and_passed_over(lineage, tmp_path):
    good = [vars(trajectory("math", 0, i, Difficulty())) for i in range(30)]
    lines = [json.dumps(row) for row in good]
    lines[3] = lines[3][:50]
    lines[5] = "[" * 100_000  # deeper than a reader of JSON goes
    lines[7] = json.dumps({**good[7], "verified": False})
    (tmp_path / "theirs.jsonl").write_text("\n".join(lines) + "\n")
    file, folder = lineage("t", f"file={str(tmp_path / 'theirs.jsonl')!r}")
    result = run("distill.py", file, "--stage", "distill")
    assert result.returncode == 0, result.stderr
    assert (
        "3 of 30 lines of theirs.jsonl" in result.stdout
        and "2 broken (first line 4), 1 not verified (first line 8)" in result.stdout
        and "27 verified trajectories" in result.stdout
    )


def test_without_failures_reflection_is_rejection_sampling(lineage):
    """An untrained model always fails: without failures and the expert's revisions of them
    only the replayed episodes are left.
    """
    file, folder = lineage(more="failures=False")
    start = f"--distill.reflect-start={folder / 'base'}"
    result = run("distill.py", file, "--stage", "reflect", start)
    assert result.returncode == 0, result.stderr
    rows = (folder / "reflected" / "buffer-0.jsonl").read_text().splitlines()
    assert {json.loads(row)["source"] for row in rows} == {"replay"}


def test_an_empty_buffer_is_an_error(lineage):
    file, folder = lineage()
    assert run("distill.py", file, "--stage", "distill").returncode == 0
    (folder / "reflected").mkdir()
    (folder / "reflected" / "buffer-0.jsonl").write_text("")
    result = run("distill.py", file, "--stage", "reflect")
    assert result.returncode == 1 and "buffer-0.jsonl is empty" in result.stderr


def test_distilling_logits_pulls_towards_the_teacher(lineage):
    """With the teacher's own weights to begin with, the divergence and its gradient are zero: the
    run equals one without it.
    """
    file, folder = lineage("kl", "kl=1.0, kl_teacher='base', prompt_weight=0.0")
    text = (folder.parent / "kl.py").read_text().replace("'base'", repr(str(folder / "base")))
    (folder.parent / "kl.py").write_text(text)
    plain, other = lineage("plain", "prompt_weight=0.0")
    for each in (file, plain):
        assert run("distill.py", each, "--stage", "distill", "--distill.steps", "1").returncode == 0
    one, two = (checkpoint.load_run(f / "distilled")[0] for f in (folder, other))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one.parameters(), two.parameters()))


def test_lines_that_cannot_be_rendered_are_reported_and_left_out(tmp_path):
    """OpenAI's own form is read; what would be taught wrong is named, line and message."""
    user, call = {"role": "user", "content": "go"}, {"name": "kemi", "arguments": '{"rana": 3}'}
    assistant = lambda **more: [user, {"role": "assistant", "content": "", **more}]
    conversations = [
        assistant(tool_calls=[{"id": "1", "function": call}]),
        assistant(tool_calls=[{"function": {**call, "arguments": "{rana: 3}"}}]),
        [{"role": "developer", "content": "x"}, user],
        assistant(content='<tool_call>{"name": "kemi", "arguments": {}}</tool_call>'),
        assistant(content=[{"type": "text", "text": "answer: 5"}]),
        ["go"],
    ]
    lines = [
        dict(
            messages=messages,
            tools=["gives: kemi(rana) int"],
            verified=True,
            world="api",
            negatives=[],
            seed=0,
            index=0,
        )
        for messages in conversations
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = []
    rows = read_teacher_file(Distill(file=str(tmp_path / "t.jsonl")), said.append)
    read = assistant(tool_calls=[{"id": "1", "function": {**call, "arguments": {"rana": 3}}}])
    assert [row["messages"] for row in rows] == [read, conversations[4]]
    assert "4 of 6 lines" in said[0] and all(
        f"(first line {number})" in said[0] for number in (2, 3, 4, 6)
    ), said
    assert all(
        words in said[0]
        for words in (
            "arguments",
            "developer",
            "message 1 has a call in its content",
            "message 0 has a str",
        )
    ), said
    tokens, weights = weighted_examples.teacher_example(
        rows[0]["messages"], rows[0]["tools"], TOY, "compact", 0.0
    )
    assert (
        TOY.decode([t for t, w in zip(tokens, weights) if w])
        == '<tool_call>{"name":"kemi","arguments":{"rana":3}}</tool_call><|im_end|>'
    )


def test_a_teachers_file_in_openais_form_keeps_its_corrections(tmp_path):
    """Arguments as JSON in text, and null for no calls: the same examples as of our own form."""
    rows = [vars(trajectory("api", 0, index, Difficulty())) for index in range(30)]
    rows = [row for row in rows if row["verified"]]
    file = tmp_path / "t.jsonl"
    c = Distill(file=str(file), correction=1.0, worlds="api")
    examples = []
    for openai in (False, True):
        for message in [message for row in rows for message in row["messages"]]:
            if openai and message["role"] == "assistant":
                message.setdefault("tool_calls", None)
                for call in message["tool_calls"] or ():
                    arguments = json.dumps(call["function"]["arguments"])
                    call["function"]["arguments"] = "" if arguments == "{}" else arguments
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        read = read_teacher_file(c, print)
        examples.append(weighted_examples.trajectory_examples(read, c, TOY, "compact"))
    assert examples[0] == examples[1] and len(examples[0]) > len(rows) + 10


def test_calls_in_every_form_of_openais_are_read(tmp_path):
    """Nothing for no arguments, text of a text, a call that is no part of "function"."""
    user = {"role": "user", "content": "go"}
    calls = [
        {"function": {"name": "kemi", "arguments": ""}},
        {"function": {"name": "kemi", "arguments": json.dumps('{"rana": 3}')}},
        {"name": "kemi", "arguments": {"rana": 3}},
    ]
    file = tmp_path / "t.jsonl"
    lines = [
        dict(
            messages=[user, {"role": "assistant", "content": "", "tool_calls": [call]}],
            tools=["gives: kemi(rana) int"],
            **dict(verified=True, world="api", negatives=[], seed=0, index=index),
        )
        for index, call in enumerate(calls)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = read_teacher_file(Distill(file=str(file)), print)
    read = [row["messages"][1]["tool_calls"][0]["function"] for row in rows]
    rana = dict(name="kemi", arguments={"rana": 3})
    assert read == [dict(name="kemi", arguments={}), rana, rana]


@pytest.mark.parametrize("part", ["index", "negatives", "fault", "tools"])
def test_a_teachers_line_without_a_part_is_left_out(tmp_path, part):
    rows = [vars(trajectory("api", 0, index, Difficulty())) for index in range(30)]
    whole, broken = [row for row in rows if row["negatives"] and row["verified"]][:2]
    if part == "fault":
        del broken["negatives"][0]["fault"]
    else:
        broken[part] = [{"name": "kemi"}] if part == "tools" else None
        if part == "index":
            del broken["index"]
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(whole) + "\n" + json.dumps(broken) + "\n")
    said = []
    (row,) = read_teacher_file(Distill(file=str(file)), said.append)
    assert row["index"] == whole["index"] and "1 broken (first line 2)" in said[0]


def test_a_name_is_one_stages_folder(lineage):
    result = run("distill.py", lineage()[0], "--distill.name", "x")
    assert result.returncode == 1 and "is one stage's folder" in result.stderr


def test_rows_longer_than_the_context_are_refused_before_anything_is_drawn(lineage):
    result = run("distill.py", lineage()[0], "--stage", "distill", "--distill.sequence", "1024")
    assert result.returncode == 1
    assert "distill.sequence is 1024, and the model of" in result.stderr
    assert "reads at most 640 tokens; lower it" in result.stderr


def test_the_control_without_failures_says_nothing_of_revisions(lineage):
    file, folder = lineage("t", "failures=False")
    for stage in ("distill", "reflect"):
        done = run("distill.py", file, "--stage", stage)
        # an untrained model succeeds nowhere; the expert's episodes fill the buffer
        assert done.returncode == 0, done.stderr
    assert "of the failures revised" not in done.stdout
    assert not any("revised" in record for record in read_log(folder / "reflected"))


def test_only_the_last_blocks_learn(lineage):
    file, folder = lineage("top", "trained_blocks=1")
    assert run("distill.py", file, "--stage", "distill").returncode == 0
    before = dict(checkpoint.load_run(folder / "base")[0].named_parameters())
    for name, after in checkpoint.load_run(folder / "distilled")[0].named_parameters():
        learns = name.startswith(("blocks.1.", "norm."))
        assert torch.equal(before[name], after) != learns, name
    result = run("distill.py", file, "--stage", "reflect", "--distill.trained-blocks", "3")
    assert result.returncode == 1 and "trained_blocks is 3, and the model has 2" in result.stderr


def test_a_weight_above_one_counts_even_where_all_have_it(lineage):
    """Equation 5's w multiplies the gradient of a batch that holds one kind of example, too."""
    config = settings.from_file(lineage()[0])
    config.distill.batch, config.distill.sequence = 1, 32
    gradients = []
    for weight in (1.0, 2.0):
        config.distill.name = f"weight-{weight:.0f}"
        stage = TrainingRun(config, "distilled", "base", 1, config.distill)

        def update(step, stage=stage):
            gradients.append(torch.cat([p.grad.flatten() for p in stage.model.parameters()]))
            return 0.0

        stage.update = update
        examples = [(list(range(40, 60)), [weight] * 20)]
        distill.learn(stage, PackedLoader(examples, 32, 1, 0, stage.model.config), 0, 1)
    assert torch.allclose(gradients[1], 2 * gradients[0], rtol=1e-4, atol=1e-8)
    assert gradients[0].abs().max() > 1e-4


def test_the_rates_fall_once_validation_tasks_succeed_often_enough(lineage, monkeypatch):
    """Enough at step 8 of 20: with three tenths for the fall, the stage ends at step 11; stopped on
    the way and resumed, it ends there too, with the same weights.
    """
    file, folder = lineage("t", "eval_every=4, enough=0.5, decay=0.3, warmup=0.1")
    found = {4: 0.4, 8: 0.5}
    monkeypatch.setattr(distill, "validation_success", lambda stage, step: found[step])
    config = settings.from_file(file)
    config.distill.steps = 20
    distill.distill(copy.deepcopy(config))
    rates = {record["step"]: record["lr"] for record in read_log(folder / "distilled")}
    peak = config.distill.learning_rate
    assert max(rates) == 11 and rates[8] == pytest.approx(peak) and rates[9] < 0.8 * peak
    assert rates[11] == pytest.approx(config.distill.final * peak)

    saved = checkpoint.checkpoints(folder / "distilled")
    assert [path.name[-2:] for path in saved] == ["08", "09", "10", "11"]
    whole = weights_and_state(folder / "distilled")
    for path in saved[2:]:
        shutil.rmtree(path)
    config.resume = True
    distill.distill(copy.deepcopy(config))
    again = weights_and_state(folder / "distilled")
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_validation_is_by_world_and_says_what_entropy_is_left(lineage, monkeypatch):
    """An untrained model draws nearly evenly from 1,024 tokens: ln 1024 = 6.93 nats each."""
    file, folder = lineage("t", "eval_every=2, eval_tasks=3, learning_rate=0.0")
    config = settings.from_file(file)
    config.distill.steps = 2
    config.distill.muon_learning_rate = 0.0
    played = []

    def watched(model, tokenizer, tasks, **options):
        played.extend(tasks)
        return rollouts(model, tokenizer, tasks, **options)

    monkeypatch.setattr(distill, "rollouts", watched)
    distill.distill(config)
    (record,) = [r for r in read_log(folder / "distilled") if "success_api" in r]
    assert record["step"] == 2
    assert len(played) == 6 and {task.difficulty.split for task in played} == {"validation"}
    assert {task.difficulty.fault_rate for task in played} == {0.0}
    assert record["success_api"] == record["success_math"] == 0.0
    assert record["entropy_api"] == pytest.approx(6.93, abs=0.1)
    assert record["entropy_math"] == pytest.approx(6.93, abs=0.1)


def test_each_stage_starts_from_the_stage_before_unless_told(lineage, tmp_path):
    """distill.start is stage distill's alone: published weights are where a lineage begins."""
    config = settings.from_file(lineage("elsewhere")[0])
    other = str(tmp_path / "elsewhere" / "base")
    checkpoint.save_checkpoint(other, config, SAGE(config.model, seed=5), [], 1)
    file, folder = lineage("t", f"start={other!r}")
    for stage in ("distill", "reflect"):
        assert run("distill.py", file, "--stage", stage).returncode == 0
    first = checkpoint.checkpoints(folder / "reflected")[0]
    source = checkpoint.read_meta(first)[0]["made_from"]["source run"]
    assert source == checkpoint.weights_identity(folder / "distilled")
    result = run(
        "distill.py", file, "--stage=reflect", "--distill.name=b", "--distill.reflect-start", other
    )
    assert f"from {other} to" in result.stdout and result.returncode == 0


def test_a_resumed_stage_compiles_as_it_began(lineage, monkeypatch):
    """Whatever is left of it; and a stage decides for itself, not for the one after it."""
    config = settings.from_file(lineage()[0])
    config.distill.save_every = 2
    decided = []
    monkeypatch.setattr(
        distill.machine,
        "compiled",
        lambda function, setting, *_: decided.append(setting) or function,
    )
    for long in (True, False):  # enough steps to repay compiling, and not
        monkeypatch.setattr(
            "support.machine.should_compile",
            lambda setting, *_, long=long: long if setting == "auto" else setting == "on",
        )
        distill.distill(copy.deepcopy(config))
        folder = Path(config.out).parent / "distilled"
        shutil.rmtree(folder / "checkpoint-0000004")
        config.resume = True
    assert decided == ["on", "on"] and config.distill.compile == "auto"


@pytest.mark.slow
def test_fewer_steps_where_the_time_is_short(lineage):
    """The plan is kept: a run that is stopped and resumed ends where it would have ended."""
    words = ["--stage", "distill", "--distill.steps", "100000", "--distill.minutes"]
    file, folder = lineage("short")
    result = run("distill.py", file, *words, "0.001")
    assert result.returncode == 0, result.stderr
    planned = int(re.search(r"on this machine: ([\d,]+) steps", result.stdout)[1].replace(",", ""))
    meta, _ = checkpoint.read_meta(checkpoint.latest(folder / "distilled"))
    assert 1 <= planned < 100 and meta["step"] == meta["kept"]["steps"] == planned
    result = run("distill.py", file, *words, "5", "--resume")
    assert f"complete: all {planned} steps" in result.stdout
