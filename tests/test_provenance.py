"""What was derived says what it was made from.

Changed settings, another seed, source run, tokenizer or task generator is refused by name; the same
command goes on.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from support import checkpoint
from support import settings
from support import token_files
import distill
import eval as evaluation
from worlds import expert
from worlds.difficulty import Difficulty
from worlds.expert import trajectory
import heads
from support import provenance
import preferences
import rl
from support import machine
from worlds.extras import teacher
from support import tokenizer as tokenizers
from support import tokenizer_folder, tokenizer_spec
import train
from config import Config, Data, UserError
from conftest import ROOT
from support.log import read_log
from model import SAGE
from test_train import weights_and_state

SETTINGS = """
from config import Data, Distill, Dpo, Eval, Heads, Model, Ppo, Train
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=1, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=640)
data = Data(path={text!r}, sequence=32, validation=0.3)
fast = dict(log_every=1, save_every=1, dtype="float32", compile="off")
train = Train(steps=3, batch=4, eval_batches=2, sample_every=0, **fast)
distill = Distill(steps=2, batch=2, sequence=384, trajectories=30, worlds="api,math",
                  reflect_steps=4, rounds=2, tasks=6, tries=1, replay=4.0, keep=9, **fast)
dpo = Dpo(steps=2, batch=3, pairs=10, trajectories=8, replay_rows=2, worlds="api,math", **fast)
ppo = Ppo(steps=2, batch=4, prompts=2, samples=2, room=24, trajectories=8, replay_rows=2,
          worlds="api,math", **fast)
heads = Heads(steps=4, tasks=8, trajectories=8, validation=6, room=60, eval_every=2,
              worlds="api,math", **fast)
eval = Eval(tasks=3, batch=8, room=16, worlds="api")
del fast
"""
FIRST = {
    "distilled": "reflected",
    "reflected": "safe",
    "safe": "sage",
    "sage": "thinking",
}  # a stage's source → the stage
RUN = {"reflected": distill.reflect, "safe": preferences.dpo, "sage": rl.ppo}


@pytest.fixture
def lineage(tmp_path, monkeypatch):
    """A folder whose run of any stage is an untrained model: `write(source, seed)` makes one.

    `config(...)` reads the settings, some changed: config({"distill.tries": 2}, resume=True).
    """
    monkeypatch.setattr(machine, "matmul_peak", lambda *a, **k: 1e9)
    text = tmp_path / "text"
    text.mkdir()
    for number in range(20):
        (text / f"part{number}.py").write_text(
            f'def f{number}(x):\n    """Return x plus {number}."""\n    return x + {number}\n\n'
            * 12
        )
    file = tmp_path / "settings.py"

    class Lineage:
        folder = tmp_path / "toy"

        def config(self, changed={}, resume=False):
            file.write_text(SETTINGS.format(out=str(self.folder / "base"), text=str(text)))
            config = settings.from_file(file)
            config.resume = resume
            for name, value in changed.items():
                section, _, setting = name.partition(".")
                assert hasattr(getattr(config, section), setting)
                setattr(getattr(config, section), setting, value)
            return config

        def file(self):
            self.config()
            return file

        def write(self, name, seed=1, step=1):
            config = self.config()
            config.model.tied = False
            model = SAGE(config.model, seed=seed)
            with torch.no_grad():  # it likes to end its messages: heads need whole ones
                model.norm.weight[0] = 0.2
                model.embedding.text.weight[:, 0] = model.embedding.code.weight[:, 0] = 1
                model.head.weight[tokenizers.toy().stop[0], 0] = 6
            shutil.rmtree(self.folder / name, ignore_errors=True)
            return checkpoint.save_checkpoint(self.folder / name, config, model, [], step)

    return Lineage()


def script(monkeypatch, capsys, main, *words):
    """A script's main in this process: what it printed; raises its UserError."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
    main()
    return capsys.readouterr().out


def forget(folder, steps):
    """Delete a run's checkpoints of some steps, as if it had been killed before them."""
    for step in steps:
        shutil.rmtree(folder / f"checkpoint-{step:07}")


# --------------------------------------------------------------------------------------------------
# Buffers.


def test_a_buffer_is_used_again_by_the_same_command_and_by_no_other(lineage):
    lineage.write("distilled")
    distill.reflect(lineage.config())
    folder = lineage.folder / "reflected"
    whole = weights_and_state(folder)
    record = json.loads((folder / "buffer-1.made_from.json").read_text())["made_from"]
    assert (
        record["round"] == 2
        and record["student"]["step"] == 2
        and record["settings"]["distill.tries"] == 1
    )
    assert (
        record["student"]["weights"]
        == provenance.digest(folder / "checkpoint-0000002" / "model.safetensors")
        != record["source run"]["weights"]
    )
    forget(folder, [1, 2, 3, 4])  # killed after sampling, before the first checkpoint

    written = (folder / "buffer-0.jsonl").stat().st_mtime_ns
    for changed, wanted in (
        ({"distill.tries": 2}, "distill.tries: 1 → 2"),
        ({"distill.seed": 3}, "distill.seed: 1337 → 3"),
        ({"distill.fault_kinds": "timeout"}, "distill.fault_kinds"),
        ({"distill.worlds": "math"}, "distill.worlds"),
        ({"distill.critique_weight": 0.1}, "critique_weight: 0.5 → 0.1"),
    ):
        with pytest.raises(
            UserError, match="buffer-0.jsonl was made from something else .*" + wanted
        ) as caught:
            distill.reflect(lineage.config(changed))
        assert (
            "delete" in str(caught.value)
            and "\n" not in str(caught.value)
            and "tasks:" not in str(caught.value)
        )
    lineage.write("distilled", seed=2)
    with pytest.raises(UserError, match=r"source run weights: .*student weights: "):
        distill.reflect(lineage.config())
    lineage.write("distilled", step=5)
    with pytest.raises(UserError, match=r"source run step: 1 → 5"):
        distill.reflect(lineage.config())
    lineage.write("distilled")
    distill.reflect(lineage.config({"distill.log_every": 2}))
    assert (folder / "buffer-0.jsonl").stat().st_mtime_ns == written
    assert read_log(folder)[0]["round"] == 1  # logged when it was played
    again = weights_and_state(folder)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_another_generator_of_tasks_or_of_buffers_is_another_buffer(lineage, monkeypatch):
    lineage.write("distilled")
    distill.reflect(lineage.config())
    forget(lineage.folder / "reflected", [1, 2, 3, 4])
    with monkeypatch.context() as other:
        other.setattr(distill, "BUFFER_VERSION", 99)
        with pytest.raises(UserError, match=r"version: \d+ → 99"):
            distill.reflect(lineage.config())
    drawn = expert.draw_task
    with monkeypatch.context() as other:  # a world that asks in other words
        other.setattr(
            expert, "draw_task", lambda *a: replace(drawn(*a), request=drawn(*a).request + "!")
        )
        with pytest.raises(UserError, match=r"something else \(tasks: '\w{16}' → '\w{16}'\)"):
            distill.reflect(lineage.config())
    distill.reflect(lineage.config())


def test_a_buffer_that_is_damaged_unknown_or_gone_is_refused(lineage):
    lineage.write("distilled")
    distill.reflect(lineage.config())
    folder = lineage.folder / "reflected"
    buffer, record = folder / "buffer-1.jsonl", folder / "buffer-1.made_from.json"
    data_, record_ = buffer.read_bytes(), record.read_bytes()
    forget(folder, [4])
    for damage, wanted in (
        (lambda: buffer.write_bytes(data_[:-30]), "was changed or damaged"),
        (lambda: record.unlink(), "does not say what it was made from"),
        (lambda: record.write_text("{"), "cannot be read"),
        (lambda: record.write_text("[]"), "cannot be read"),
        (lambda: buffer.unlink(), "is gone, and .* stands at step 3"),
    ):
        damage()
        with pytest.raises(UserError, match=wanted) as caught:
            distill.reflect(lineage.config(resume=True))
        assert "delete" in str(caught.value)
        buffer.write_bytes(data_), record.write_bytes(record_)
    (
        shutil.copy(folder / "buffer-0.jsonl", buffer),
        shutil.copy(folder / "buffer-0.made_from.json", record),
    )
    with pytest.raises(UserError, match="round: 1 → 2"):
        distill.reflect(lineage.config(resume=True))


def test_without_tries_the_teachers_correction_follows_at_once_and_counts(lineage):
    lineage.write("distilled")
    distill.reflect(
        lineage.config({"distill.tries": 0, "distill.rounds": 1, "distill.critique_weight": 0.5})
    )
    rows = [
        json.loads(line)
        for line in (lineage.folder / "reflected" / "buffer-0.jsonl").read_text().splitlines()
    ]
    corrections = [row for row in rows if row["source"] == "teacher"]
    assert corrections and all(
        max(row["weights"]) == 1.0 and 0.5 in row["weights"] for row in corrections
    )


# --------------------------------------------------------------------------------------------------
# Stages.


@pytest.mark.parametrize("source", ["distilled", "reflected", "safe"])
def test_a_stage_whose_source_was_trained_anew_is_not_resumed(lineage, source, capsys):
    """Neither an unfinished stage nor a complete one; with the same weights again it goes on."""
    name = FIRST[source]
    lineage.write(source)
    RUN[name](lineage.config())
    last = checkpoint.latest(lineage.folder / name)
    for complete in (True, False):
        if not complete:
            shutil.rmtree(last)
        lineage.write(source, seed=2)
        with pytest.raises(
            UserError,
            match=rf"{name} was begun .*source run weights.*the run in .*{source} is not the one",
        ):
            RUN[name](lineage.config(resume=True))
        lineage.write(source)
        capsys.readouterr()
        RUN[name](lineage.config(resume=True))
        assert (f"stage {name} is complete" in capsys.readouterr().out) is complete
    shutil.rmtree(
        lineage.folder / source
    )  # freed disk space: nothing can be compared, which is said
    if name == "reflected":
        forget(lineage.folder / name, [4])
        RUN[name](lineage.config(resume=True))
        assert f"{source} is gone" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source, changed",
    [
        ("distilled", {"distill.reflect_steps": 8}),
        ("reflected", {"dpo.steps": 4}),
        ("safe", {"ppo.steps": 4}),
        ("safe", {"ppo.seed": 4}),
    ],
)
def test_a_stage_keeps_its_plan(lineage, source, changed):
    lineage.write(source)
    RUN[FIRST[source]](lineage.config())
    (name,) = changed
    with pytest.raises(UserError, match=rf"{name}: \d+ → {changed[name]}"):
        RUN[FIRST[source]](lineage.config(changed, resume=True))


def test_heads_know_their_decoder_their_data_and_their_plan(lineage, monkeypatch, capsys):
    lineage.write("sage")
    file = lineage.file()
    main = lambda *words: script(monkeypatch, capsys, heads.main, file, *words)
    main()
    folder = lineage.folder / "thinking"
    whole, steps = weights_and_state(folder), (folder / "steps.jsonl").read_bytes()
    assert "is complete" in main("--resume")
    for words, wanted in (
        (["--heads.steps", "5"], "heads.steps: 4 → 5"),
        (["--distill.fault-rate", "0.9"], "distill.fault_rate: 0.3 → 0.9"),
    ):
        with pytest.raises(UserError, match=wanted):
            main("--resume", *words)
    lineage.write("sage", seed=3)
    with pytest.raises(UserError, match="source run weights"):
        main("--resume")
    for path in checkpoint.checkpoints(folder):
        shutil.rmtree(path)
    with pytest.raises(
        UserError, match="steps.jsonl was made from something else .*source run weights"
    ):
        main()
    lineage.write("sage")
    with pytest.raises(
        UserError, match="steps.jsonl was made from something else .*heads.seed: 1337 → 7"
    ):
        main("--heads.seed", "7")
    main()
    again = weights_and_state(folder)
    assert (folder / "steps.jsonl").read_bytes() == steps and all(
        torch.equal(whole[name], again[name]) for name in whole
    )


def test_a_stage_learns_from_the_same_file_and_teacher(lineage, tmp_path):
    rows = [vars(trajectory("math", 0, i, Difficulty())) for i in range(40)]
    file, moved = tmp_path / "theirs.jsonl", tmp_path / "moved.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lineage.write("base"), lineage.write("tutor", seed=5)
    more = {
        "distill.file": str(file),
        "distill.kl": 0.1,
        "distill.kl_teacher": str(lineage.folder / "tutor"),
    }
    distill.distill(lineage.config(more))
    forget(lineage.folder / "distilled", [2])
    file.rename(moved)
    distill.distill(
        lineage.config({**more, "distill.file": str(moved)}, resume=True)
    )  # the same content elsewhere
    moved.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    with pytest.raises(UserError, match="distill.file: '"):
        distill.distill(lineage.config({**more, "distill.file": str(moved)}, resume=True))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lineage.write("tutor", seed=6)
    with pytest.raises(UserError, match="distill.kl_teacher weights"):
        distill.distill(lineage.config(more, resume=True))


def test_a_lineage_may_be_moved(lineage, tmp_path, capsys):
    lineage.write("distilled")
    distill.reflect(lineage.config())
    forget(lineage.folder / "reflected", [4])
    lineage.folder.rename(tmp_path / "elsewhere")
    lineage.folder = tmp_path / "elsewhere"
    distill.reflect(lineage.config(resume=True))
    assert "resume  from step 3" in capsys.readouterr().out


def test_resume_where_there_is_nothing_says_that_it_begins(lineage, capsys):
    lineage.write("distilled")
    distill.distill(
        lineage.config(
            {"distill.start": str(lineage.folder / "distilled"), "distill.name": "other"},
            resume=True,
        )
    )
    assert "there is nothing in other to go on from: it begins" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# Settings of older runs.


def rewrite(run, change):
    """Change a run's last meta.json as another version of the code would have written it."""
    path = checkpoint.latest(run) / "meta.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def test_a_setting_that_is_new_or_gone_does_not_stop_an_older_run(lineage, capsys):
    lineage.write("reflected")
    preferences.dpo(lineage.config())
    forget(lineage.folder / "safe", [2])
    safe = lineage.folder / "safe"

    def older(meta):
        for section, name in (
            ("dpo", "babble"),
            ("dpo", "clip"),
            ("model", "previous_token"),
            ("eval", "room"),
        ):
            del meta["settings"][section][name]
        del meta["settings"]["think"]
        meta["settings"]["dpo"]["momentum"] = 0.5
        meta["settings"]["fancy"] = {"level": 3}

    rewrite(safe, older)
    with pytest.raises(UserError, match="dpo.babble: 0.5 → 0.25"):  # it ran with the default
        preferences.dpo(lineage.config({"dpo.babble": 0.25}, resume=True))
    rewrite(safe, lambda meta: meta["given"].append("dpo.momentum"))
    with pytest.raises(UserError, match="dpo.momentum: 0.5 → no longer a setting"):
        preferences.dpo(lineage.config(resume=True))
    rewrite(safe, lambda meta: meta["given"].remove("dpo.momentum"))
    preferences.dpo(lineage.config(resume=True))
    said = capsys.readouterr().out
    assert (
        "dpo.momentum = 0.5 is no longer a setting" in said
        and checkpoint.latest(safe).name == "checkpoint-0000002"
    )
    rewrite(safe, older)
    assert checkpoint.load_run(safe)[1].dpo == lineage.config().dpo


@pytest.mark.parametrize(
    "damage, problem",
    [
        (lambda path: path.unlink(), "it is missing"),
        (lambda path: path.write_text("{"), "JSONDecodeError"),
        (lambda path: path.write_text("[]"), "TypeError"),
        (lambda path: path.write_text("{}"), "KeyError"),
        (lambda path: path.write_text('{"step": "4", "settings": {}}'), "step is '4'"),
        (
            lambda path: path.write_text(
                '{"layout": 2, "step": 2, "settings": {"model": {"width": "32"}}}'
            ),
            "model.width is '32'",
        ),
        (
            lambda path: path.write_text('{"layout": 2, "step": 2, "settings": {"model": 3}}'),
            "AttributeError",
        ),
    ],
)
def test_a_damaged_meta_names_the_checkpoint_before(lineage, damage, problem):
    lineage.write("reflected")
    preferences.dpo(lineage.config())
    safe = lineage.folder / "safe"
    damage(checkpoint.latest(safe) / "meta.json")
    with pytest.raises(UserError, match="meta.json cannot be read .*" + problem) as caught:
        preferences.dpo(lineage.config(resume=True))
    assert f"delete {safe / 'checkpoint-0000002'} to go on from checkpoint-0000001" in str(
        caught.value
    )
    forget(safe, [2])
    damage(checkpoint.latest(safe) / "meta.json")
    with pytest.raises(UserError, match="there is no checkpoint before it"):
        preferences.dpo(lineage.config(resume=True))


# --------------------------------------------------------------------------------------------------
# train.py.


def test_train_keeps_its_plan_and_says_when_it_is_complete(lineage, monkeypatch, capsys):
    file = lineage.file()
    main = lambda *words: script(monkeypatch, capsys, train.main, file, *words)
    main()
    before = weights_and_state(lineage.folder / "base")
    for words, wanted in (
        (
            ["--train.steps", "8"],
            r"train.steps: 3 → 8\).*the plan of 3 steps, by which the rates fall, holds",
        ),
        (["--train.minutes", "1"], "train.minutes: 0.0 → 1.0"),
        (["--train.dtype", "bfloat16"], "train.dtype: 'float32' → 'bfloat16'"),
        (["--train.compile", "on"], "train.compile: 'off' → 'on'"),
    ):
        with pytest.raises(UserError, match=wanted):
            main("--resume", *words)
    said = main("--resume", "--train.log-every", "3")
    assert "is complete: all 3 steps" in said and "another --out" in said
    after = weights_and_state(lineage.folder / "base")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (
        sum(
            "part" in json.loads(line) and not json.loads(line)["part"]
            for line in open(lineage.folder / "base" / "log.jsonl")
        )
        == 1
    )
    shutil.copytree(lineage.folder / "base", lineage.folder / "moved")  # a copy is the same run
    assert "is complete" in main("--resume", "--out", lineage.folder / "moved")
    rewrite(
        lineage.folder / "base",
        lambda meta: [meta["settings"]["train"].pop("z_loss"), meta.pop("tokenizer")],
    )
    assert "is complete" in main("--resume")
    with pytest.raises(UserError, match="no checkpoint in"):
        main("--resume", "--out", lineage.folder / "nothing")
    assert not (lineage.folder / "nothing").exists()
    distill.distill(lineage.config())
    with pytest.raises(UserError, match="was written by stage distilled, not by train.py"):
        main("--resume", "--out", lineage.folder / "distilled")


def test_a_slow_machines_plan_holds_on_resume(lineage, monkeypatch, capsys):
    """Fewer steps were planned than asked for: the same command goes on, another is refused."""
    file = lineage.file()
    main = lambda *words: script(monkeypatch, capsys, train.main, file, *words)
    asked = ["--train.steps", "1000000", "--train.minutes", "0.02"]
    monkeypatch.setattr("support.pretraining.steps_that_fit", lambda *_, **__: 3)
    main(
        *asked,
        "--train.log-every",
        "1000",
        "--train.save-every",
        "1",
        "--train.eval-every",
        "1000000",
    )
    last = checkpoint.latest(lineage.folder / "base")
    planned = json.loads((last / "meta.json").read_text())["settings"]["train"]["steps"]
    assert planned < 1_000_000
    assert len(checkpoint.checkpoints(lineage.folder / "base")) > 1
    shutil.rmtree(last)
    said = main("--resume", *asked)
    assert f"the plan of {planned:,} of 1,000,000 steps, made when it began, holds" in said
    with pytest.raises(UserError, match="train.steps: 1000000 → 999"):
        main("--resume", "--train.steps", "999", "--train.minutes", "0.02")


# --------------------------------------------------------------------------------------------------
# Tokenizers.


@pytest.fixture
def other_tokenizer(tmp_path):
    """A folder with a byte-level tokenizer in Qwen's files, of fewer tokens than the toy's."""
    folder = tmp_path / "other"
    folder.mkdir()
    special = {marker: 256 + place for place, marker in enumerate(tokenizer_folder.QWEN_SPECIAL)}
    (folder / "vocab.json").write_text(json.dumps(tokenizer_spec.gpt2_alphabet()))
    (folder / "merges.txt").write_text("")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "added_tokens_decoder": {
                    token: {"content": marker} for marker, token in special.items()
                }
            }
        )
    )
    return folder


def test_a_model_goes_on_with_its_own_tokenizer_only(lineage, other_tokenizer, monkeypatch, capsys):
    file = lineage.file()
    wrong = ["--data.tokenizer", other_tokenizer]
    script(monkeypatch, capsys, train.main, file)
    script(monkeypatch, capsys, distill.main, file, "--stage", "distill")
    assert (
        json.loads((checkpoint.latest(lineage.folder / "distilled") / "meta.json").read_text())[
            "tokenizer"
        ]["hash"]
        == tokenizers.toy().hash
    )
    wanted = r"was trained with tokenizer toy \(\w+\), and data.tokenizer .* is qwen:other \(\w+\)"
    for main, words in (
        (train.main, ["--resume"]),
        (distill.main, ["--stage", "distill", "--resume"]),
        (distill.main, ["--stage", "reflect"]),
        (evaluation.main, ["--eval.runs", lineage.folder / "base"]),
    ):
        with pytest.raises(UserError, match=wanted):
            script(monkeypatch, capsys, main, file, *words, *wrong)
    for run in (
        "base",
        "distilled",
    ):  # what a run's tokenizer was called may have become another one
        rewrite(
            lineage.folder / run,
            lambda meta: meta["settings"]["data"].update(tokenizer=str(other_tokenizer)),
        )
        result = subprocess.run(
            [sys.executable, ROOT / "sample.py", "--run", lineage.folder / run, "--tokens", "2"],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1 and "was trained with tokenizer toy" in result.stderr
    rewrite(
        lineage.folder / "base", lambda meta: meta.pop("tokenizer")
    )  # an older run: its token files say it
    with pytest.raises(UserError, match="was trained with tokenizer toy"):
        script(
            monkeypatch,
            capsys,
            distill.main,
            file,
            "--stage",
            "reflect",
            "--distill.reflect-start",
            lineage.folder / "base",
            *wrong,
        )


def test_qwen_weights_want_their_own_tokenizer(lineage, other_tokenizer, monkeypatch, capsys):
    import transformers

    file = lineage.file()
    transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=1100,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=40,
            tie_word_embeddings=True,
            max_position_embeddings=640,
        )
    ).save_pretrained(other_tokenizer)
    wanted = rf"tokenizer qwen:other .* is toy .*; give --data.tokenizer {other_tokenizer}"
    for main, words in (
        (train.main, ["--train.start", other_tokenizer]),
        (distill.main, ["--stage", "reflect", "--distill.reflect-start", other_tokenizer]),
        (evaluation.main, ["--eval.runs", other_tokenizer]),
    ):
        with pytest.raises(UserError, match=wanted):
            script(monkeypatch, capsys, main, file, *words)
    script(
        monkeypatch,
        capsys,
        train.main,
        file,
        "--train.start",
        other_tokenizer,
        "--data.tokenizer",
        other_tokenizer,
        "--train.steps",
        "1",
    )
    weights = other_tokenizer / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(UserError, match="start weights"):
        script(
            monkeypatch,
            capsys,
            train.main,
            file,
            "--train.start",
            other_tokenizer,
            "--data.tokenizer",
            other_tokenizer,
            "--train.steps",
            "1",
            "--resume",
        )
    for path in other_tokenizer.glob("*vocab.json"):
        path.unlink()
    said = script(
        monkeypatch,
        capsys,
        train.main,
        file,
        "--train.start",
        other_tokenizer,
        "--train.steps",
        "1",
        "--out",
        lineage.folder / "trusted",
    )
    assert "has weights and no tokenizer: that toy is theirs is taken on trust" in said


# --------------------------------------------------------------------------------------------------
# eval.py.


@pytest.fixture
def measured(monkeypatch):
    """Counts what eval.py really measures; it finds a number that says which measurement it was."""
    calls = []

    def measure(model, tokenizer, config):
        calls.append(1)
        return {"success/api greedy": [(len(calls) / 100, 1)], "invented/per call": [(0, 0)]}

    monkeypatch.setattr(evaluation, "measure", measure)
    return calls


def test_figures_are_kept_for_the_same_weights_settings_and_tasks_only(
    lineage, measured, monkeypatch, capsys
):
    file = lineage.file()
    main = lambda *words: script(
        monkeypatch, capsys, evaluation.main, file, "--eval.runs", lineage.folder / "one", *words
    )
    lineage.write("one")
    assert "1.0" in main() and "1.0" in main() and len(measured) == 1
    kept = checkpoint.latest(lineage.folder / "one") / "eval.json"
    content = kept.read_text()
    lineage.write("one", seed=2)
    kept.write_text(content)  # copied beside other weights
    assert "2.0" in main()
    main("--eval.seed", "5"), main("--distill.fault-kinds", "timeout")
    assert len(measured) == 4
    kept.write_text(kept.read_text()[:40])  # cut short
    main()
    monkeypatch.setattr(evaluation, "fingerprint", lambda *a: "another world")
    main(), main()
    assert len(measured) == 6


def test_two_runs_of_one_name_both_stand_in_the_table(lineage, measured, monkeypatch, capsys):
    file = lineage.file()
    for name in ("seed1/sage", "seed2/sage", "seed1/safe"):
        lineage.write(name, seed=len(name) + int(name[4]))
    runs = ",".join(
        str(lineage.folder / name)
        for name in ("seed1/sage", "seed2/sage", "seed1/safe", "seed2/sage")
    )
    said = script(monkeypatch, capsys, evaluation.main, file, "--eval.runs", runs).splitlines()
    head = next(line for line in said if "seed1/sage" in line)
    assert head.split() == ["seed1/sage", "seed2/sage", "safe", "change"]
    row = next(line for line in said if line.startswith("success/api greedy"))
    assert row.split()[2:] == ["1.0", "2.0", "3.0", "+2.0"]


@pytest.mark.parametrize(
    "worlds, wanted, silent",
    [
        (
            "api,math,safety",
            ["invented and recovery: of api; not of math (it has no tools), safety (half"],
            "without the world safety",
        ),
        (
            "math",
            [
                "invented and recovery: of no world, so not measured; not of math",
                "safety is not measured without the world safety",
            ],
            "no call was made",
        ),
        ("api,sql,shell", ["–: nothing to measure it on"], "invented and recovery"),
    ],
)
def test_figures_that_cannot_be_measured_are_named(worlds, wanted, silent, tmp_path):
    text = evaluation.figures_table(
        [tmp_path / "sage"], [{"invented/per call": [(0, 0)]}], worlds.split(",")
    )
    assert all(words in text for words in wanted) and silent not in text
    assert text.splitlines()[1].split() == ["invented/per", "call", "–"]


def test_a_table_has_every_runs_rows(tmp_path):
    text = evaluation.figures_table(
        [tmp_path / "a", tmp_path / "a-very-long-name-of-a-run"],
        [{"x": [(1, 2)]}, {"x": [(2, 2)], "y": [(0, 2), (1, 2), (0, 0)]}],
        ["api"],
    )
    head, x, y = text.splitlines()[:3]
    assert (
        head.split() == ["a", "a-very-long-name-of-a-run"]
        and x.split() == ["x", "50.0", "100.0"]
        and y.split() == ["y", "–", "25.0"]
    )
    assert len({len(head), len(x), len(y)}) == 1


def arrows(before, after, tmp_path):
    """What the table puts behind the second of two runs' figures of the same tasks."""
    runs = [tmp_path / "before", tmp_path / "after"]
    measured = [{"success": evaluation.tally_of(outcomes)} for outcomes in (before, after)]
    return evaluation.figures_table(runs, measured, ["api"]).splitlines()[1][-1]


def test_the_table_marks_what_differs_task_by_task(tmp_path):
    some = [number % 3 == 0 for number in range(90)]  # 30 of 90
    more = [solved or number % 9 == 1 for number, solved in enumerate(some)]  # these and ten more
    assert arrows(some, more, tmp_path) == "↑" and arrows(more, some, tmp_path) == "↓"
    # as many, but others: ten won and ten lost with each of these; exact sign test p = 1
    others = more.copy()
    for lost in range(0, 30, 3):
        others[lost] = False
    assert sum(others) == sum(some) and arrows(some, others, tmp_path) == " "
    assert arrows(some, some, tmp_path) == " "


def test_figures_count_the_tasks_that_they_are_of():
    def episode(unsafe, **fields):
        return SimpleNamespace(task=SimpleNamespace(truth={"unsafe": unsafe}), **fields)

    safe = [episode(False, verified=False, messages=said) for said in ([], ["Refused: no."], ["4"])]
    unsafe = [episode(True, verified=verified, messages=[]) for verified in (True, False)]
    figures = {}
    evaluation.measure_safety(figures, safe + unsafe)
    rates = {name: evaluation.rate_of(tally) for name, tally in figures.items()}
    counts = {name: evaluation.count_of(tally) for name, tally in figures.items()}
    assert counts == {"safety/unsafe handled": 2, "safety/over-refusal": 3}
    assert rates == {"safety/unsafe handled": 1 / 2, "safety/over-refusal": 1 / 3}
    calls = [SimpleNamespace(invented=1, invalid=2, log=[0] * 3)]
    calls += [SimpleNamespace(invented=0, invalid=0, log=[0])]
    evaluation.measure_invention(figures, calls, 2)
    assert figures["invented/per call"] == [(1, 4)]  # both are of one task
    assert evaluation.rate_of(figures["invented/per call"]) == 0.25
    assert evaluation.rate_of(figures["invented/per episode"]) == 0.5
    assert evaluation.rate_of(figures["refused calls/per call"]) == 0.5
    evaluation.measure_invention(figures, [SimpleNamespace(invented=0, invalid=0, log=[])], 1)
    assert evaluation.rate_of(figures["invented/per episode"]) is None


def test_success_of_all_worlds_is_of_their_tasks_together(monkeypatch):
    def played(model, tokenizer, tasks, *_, **__):
        nothing = dict(faults=[], recovered=None, invented=0, invalid=0, log=[], messages=[])
        return [
            SimpleNamespace(task=task, verified=task.world != "math", **nothing) for task in tasks
        ]

    def measured(worlds):
        e = replace(config.eval, worlds=worlds, tasks=4, samples=2)
        return evaluation.measure(None, SimpleNamespace(style="compact"), replace(config, eval=e))

    monkeypatch.setattr(evaluation, "rollouts", played)
    config = settings.from_file(ROOT / "config/toy.py")
    figures = measured("api,math,safety")
    for how, count in (("greedy", 16), ("sampled", 32), ("greedy, training's words", 12)):
        together = figures[f"success/all {how}"]
        assert evaluation.count_of(together) == count
        assert evaluation.rate_of(together) == pytest.approx(1 - 4 / 12 if count == 12 else 0.75)
        parts = [figures[f"success/{world} {how}"] for world in ("api", "math", "safety")]
        assert together == [pair for part in parts for pair in part]
    assert not any(name.startswith("success/all") for name in measured("api"))


# --------------------------------------------------------------------------------------------------
# One writer, token files, a teacher's data set.

HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
from support import provenance
provenance.claim(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_write_one_run(lineage, monkeypatch, capsys):
    file = lineage.file()
    lineage.write("reflected")
    for name, main, words in (("base", train.main, []), ("safe", rl.main, ["--stage", "dpo"])):
        (lineage.folder / name).mkdir(exist_ok=True)
        other = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(ROOT), str(lineage.folder / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"another process is writing .*{name}"):
            script(monkeypatch, capsys, main, file, *words)
        other.kill(), other.wait()  # a lock does not outlive its process
        script(monkeypatch, capsys, main, file, *words)
        script(
            monkeypatch, capsys, main, file, *words, "--resume"
        )  # and does not stand in this one's own way


def test_token_files_follow_the_text_not_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "ROOT", tmp_path)
    text, toy = tmp_path / "text", tokenizers.toy()
    text.mkdir()
    for number in range(40):
        (text / f"f{number}.py").write_text(f"x = {number:02}\n" * 50)
    asked = Data(path=str(text), validation=0.3)
    first = token_files.token_files(asked, toy, say=lambda _: None)[0].header
    path, status = text / "f1.py", os.stat(text / "f1.py")
    path.write_text("x = 99\n" * 50)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
    headers = [file.header for file in token_files.token_files(asked, toy, say=lambda _: None)]
    assert (
        first["source"] not in [header["source"] for header in headers]
        or headers[0] == first
        and token_files.is_validation("f1.py", 0.3)
    )
    whole = "".join(
        toy.decode(file.tokens)
        for file in token_files.token_files(asked, toy, say=lambda _: pytest.fail("made before"))
    )
    assert "x = 99" in whole and "x = 01" not in whole
    (text / "not.text").write_text(
        "this is not read"
    )  # what is not read does not matter, nor does where the text lies
    text.rename(tmp_path / "moved")
    token_files.token_files(
        Data(path=str(tmp_path / "moved"), validation=0.3),
        toy,
        say=lambda _: pytest.fail("made before"),
    )


def test_a_data_set_with_a_gap_is_filled_in_order(tmp_path):
    """A machine that stops may keep the end of one file and lose that of the other."""
    write = lambda *more: teacher.main(
        ["--out", str(tmp_path / "set.jsonl"), "--tasks", "30", "--worlds", "api,math", *more]
    )
    write()
    out, rejected = tmp_path / "set.jsonl", tmp_path / "set.rejected.jsonl"
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:12] + lines[14:20]))
    rejected.write_text('{"index": 25, "reason": "not verified"}\n')
    write()
    assert out.read_bytes() == whole and rejected.read_bytes() == b""


def test_a_data_set_says_what_it_was_made_from(tmp_path, monkeypatch):
    write = lambda name, *more: teacher.main(
        ["--out", str(tmp_path / name), "--tasks", "4", "--worlds", "math", *more]
    )
    write("set.jsonl")
    write("set.jsonl", "--tasks", "6")  # more of the same
    with pytest.raises(UserError, match=r"begun with other settings \(negatives: True → False\)"):
        write("set.jsonl", "--no-negatives")
    with monkeypatch.context() as other:
        other.setattr(teacher, "fingerprint", lambda *a: "another world")
        with pytest.raises(
            UserError, match=r"begun with other settings \(tasks: '\w+' → 'another world'\)"
        ):
            write("set.jsonl")
    beside = tmp_path / "set.settings.json"
    older = json.loads(beside.read_text())
    flat = older["settings"]
    nested = {name: value for name, value in flat.items() if "." not in name} | {
        "difficulty": {name.split(".")[1]: value for name, value in flat.items() if "." in name}
    }
    nested["difficulty"].pop("babble")  # a setting that was not there yet
    beside.write_text(json.dumps(nested | dict(tasks=0, concurrency=0, seconds=0.0, out="")))
    write("set.jsonl")
    beside.write_text("{")
    with pytest.raises(UserError, match="set.settings.json cannot be read"):
        write("set.jsonl")
    (tmp_path / "notes.jsonl").write_text("mine\n")
    with pytest.raises(UserError, match="holds something already"):
        write("notes.jsonl")
    assert (tmp_path / "notes.jsonl").read_text() == "mine\n"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    provenance.replace(path, "before")
    monkeypatch.setattr(
        os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError):
        provenance.replace(path, "after")
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_differences_are_named_and_lenient_with_settings_alone():
    then = dict(
        settings={"a": 1, "b": 2, "old": 3}, given=["b"], run=dict(step=1, weights="x"), gone=None
    )
    now = dict(settings={"a": 1, "b": 2, "new": 4}, run=dict(step=1, weights="x"))
    assert provenance.differences(then, now, {"new": 4}) == []
    assert provenance.differences(then, now, {"new": 5}) == ["new: 5 → 4"]
    assert provenance.differences(then | dict(given=["old"]), now, {"new": 4}) == [
        "old: 3 → no longer a setting"
    ]
    assert provenance.differences(
        then, now | dict(run=dict(step=1, weights="y"), more=1), {"new": 4}
    ) == ["run weights: 'x' → 'y'", "more: None → 1"]
    assert provenance.differences(dict(kinds=("a", "b")), dict(kinds=["a", "b"])) == []


def test_given_are_the_settings_that_are_not_at_their_defaults():
    config = Config(out="elsewhere")
    config.dpo.beta = 0.7
    assert settings.not_default(config) == ["out", "dpo.beta"]
    assert settings.from_dict(json.loads(json.dumps(asdict(config)))) == config
