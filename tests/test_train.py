"""train.py and sample.py as a user runs them: a few real steps, exact resume after kill -9, bad
input, a full disk.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from support import checkpoint
from conftest import ROOT
from forked_script import run

SETTINGS = """
from config import Data, Model, Train
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=2, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=256, previous_token=True)
data = Data(path={text!r}, sequence=32, validation=0.3)
train = Train(steps=6, batch=4, log_every=1, eval_every=2, eval_batches=2, sample_every=4,
              save_every=1, keep=3, warmup=0.3, compile="off")
"""


@pytest.fixture
def settings(tmp_path):
    """A settings file for a tiny run on a small folder of text; call it with the name of the run's
    folder.
    """
    text = tmp_path / "text"
    text.mkdir()
    for number in range(30):
        function = 'def f{i}(x):\n    """Return x plus {more}."""\n    return x + {more}\n\n'
        functions = [function.format(i=i, more=i * number) for i in range(12)]
        (text / f"part{number}.py").write_text("".join(functions))

    def write(name):
        path = tmp_path / f"{name}.py"
        path.write_text(SETTINGS.format(out=str(tmp_path / name), text=str(text)))
        return str(path)

    return write


def weights_and_state(folder):
    last = checkpoint.latest(folder)
    return {
        **load_file(last / "model.safetensors"),
        **{f"optimizer {k}": v for k, v in load_file(last / "optimizer.safetensors").items()},
    }


KILL_IN_A_SAVE = """
from support import checkpoint
import os, signal
whole = checkpoint.save_file
def half(tensors, path, **more):
    whole(tensors, path, **more)
    if 'checkpoint-0000004' in str(path) and 'optimizer' in str(path):
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
"""


def test_six_steps_are_three_and_a_kill_in_a_save_and_three(tmp_path, settings):
    straight = run("train.py", settings("straight"))
    assert straight.returncode == 0, straight.stderr
    killed = run("train.py", settings("killed"), before=KILL_IN_A_SAVE)
    assert killed.returncode == -signal.SIGKILL
    assert [p.name for p in checkpoint.checkpoints(tmp_path / "killed")] == [
        "checkpoint-0000001",
        "checkpoint-0000002",
        "checkpoint-0000003",
    ]
    assert (
        tmp_path / "killed" / "checkpoint-0000004.tmp" / "optimizer.safetensors"
    ).exists()  # the half-written one, which nobody reads
    resumed = run("train.py", settings("killed"), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resume  from step 3" in resumed.stdout, resumed.stderr
    one = weights_and_state(tmp_path / "straight")
    two = weights_and_state(tmp_path / "killed")
    assert one.keys() == two.keys()
    assert len(one) > 60
    for name in one:
        assert torch.equal(one[name], two[name]), name
    numbers = [
        [
            {
                k: v
                for k, v in json.loads(line).items()
                if k in ("step", "loss", "bits_per_byte", "norm")
            }
            for line in open(tmp_path / name / "log.jsonl")
        ]
        for name in ("straight", "killed")
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 9
    assert one["embedding.text.weight"].std() > 0


REPEATED = """
import support.openmp
import torch
from support import machine
if not machine.can_compile("cpu"):
    raise SystemExit(77)
torch.set_num_threads(2)
machine.set_arithmetic("cpu")
from config import Model
from model import SAGE
torch.manual_seed(0)
shape = Model(width=32, layers=1, heads=1, kv_heads=1, feed_forward=48, context=256)
model = SAGE(shape).train()
tokens = torch.randint(50, (8, 256))
loss = torch.compile(lambda tokens: model(tokens).logsumexp(-1).mean())
seen = set()
for _ in range(10):
    model.zero_grad()
    loss(tokens).backward()
    seen.add(b"".join(p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None))
assert len(seen) == 1, len(seen)
"""


@pytest.mark.slow
def test_two_threads_repeat_themselves_to_the_bit():
    """A compiled step's gradients, again and again; without machine.set_arithmetic the embedding's
    differ
    every time, as its sums come in the order of whichever thread is first.
    """
    result = subprocess.run(
        [sys.executable, "-c", REPEATED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    if result.returncode == 77:
        pytest.skip("torch.compile needs a C++ compiler")
    assert result.returncode == 0, result.stderr


def test_a_run_prints_saves_and_draws(tmp_path, settings):
    result = run("train.py", settings("run"))
    assert result.returncode == 0, result.stderr
    for wanted in (
        "parameters",
        "4 sequences × 32 tokens × 1 accumulated = 128 tokens per step",
        "TFLOP",
        "tok/s",
        "of peak",
        "ETA",
        "held out:",
        "sample:",
        "bits per byte over all",
        "python sample.py --run",
    ):
        assert wanted in result.stdout, wanted
    assert len(checkpoint.checkpoints(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    meta = json.loads((checkpoint.latest(tmp_path / "run") / "meta.json").read_text())
    assert meta["step"] == 6
    assert meta["settings"]["model"]["width"] == 32
    assert meta["data"]["train"]["source"]
    assert meta["versions"]["torch"] == torch.__version__
    losses = [
        json.loads(line)["loss"]
        for line in open(tmp_path / "run" / "log.jsonl")
        if "loss" in json.loads(line)
    ]
    assert len(losses) == 6
    assert losses[-1] < losses[0]

    text = run(
        "sample.py",
        "--run",
        str(tmp_path / "run"),
        "--prompt",
        "def ",
        "--tokens",
        "20",
        "--seed",
        "3",
    )
    assert text.returncode == 0
    assert text.stdout.startswith("def ")
    assert "tokens/s" in text.stderr
    assert (
        text.stdout
        == run(
            "sample.py",
            "--run",
            str(tmp_path / "run"),
            "--prompt",
            "def ",
            "--tokens",
            "20",
            "--seed",
            "3",
        ).stdout
    )
    two = run(
        "sample.py",
        "--run",
        str(tmp_path / "run"),
        "--prompt",
        "def ",
        "--tokens",
        "20",
        "--samples",
        "2",
        "--chat",
    )
    assert two.returncode == 0
    assert "-" * 20 in two.stdout
    gate = run(
        "sample.py",
        "--run",
        str(tmp_path / "run"),
        "--prompt",
        "# prose\nx = 1",
        "--show-gate",
        "--picture",
        str(tmp_path / "gate.png"),
    )
    assert gate.returncode == 0
    assert re.sub("\x1b[^m]*m", "", gate.stdout).startswith("# prose\nx = 1\n")
    assert (tmp_path / "gate.png").exists()


def test_gate_labels_teach_the_gate(tmp_path, settings):
    """With weak labels the gate's own loss falls below what an undecided gate pays, ln 2."""
    result = run(
        "train.py",
        settings("run"),
        "--train.steps",
        "60",
        "--train.prose-weight",
        "1",
        "--train.save-every",
        "0",
    )
    assert result.returncode == 0, result.stderr
    assert (
        json.loads([line for line in open(tmp_path / "run" / "log.jsonl") if '"gate"' in line][-1])[
            "gate"
        ]
        < 0.55
    )


def test_baseline_runs_through_the_same_script(settings):
    result = run(
        "train.py",
        settings("run"),
        "--model.embedding",
        "plain",
        "--model.activation",
        "gelu",
        "--model.norm",
        "layer",
        "--train.optimizer",
        "adamw",
        "--train.steps",
        "3",
    )
    assert result.returncode == 0, result.stderr
    assert "plain embedding" in result.stdout, result.stderr


def test_training_starts_from_qwen_weights(tmp_path, settings):
    """Zero learning rate: after one step the run holds exactly what transformers saved."""
    import transformers

    theirs = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=1100,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=40,
            tie_word_embeddings=True,
            max_position_embeddings=64,
        )
    )
    theirs.save_pretrained(tmp_path / "qwen")
    result = run(
        "train.py",
        settings("run"),
        "--train.start",
        str(tmp_path / "qwen"),
        "--train.steps",
        "1",
        "--train.learning-rate",
        "0",
        "--train.muon-learning-rate",
        "0",
        "--train.sample-every",
        "0",
    )
    assert result.returncode == 0, result.stderr
    model, stored, _ = checkpoint.load_run(tmp_path / "run")
    assert stored.model.vocab_size == 1100
    assert stored.model.feed_forward == 40
    assert torch.equal(model.embedding.text.weight, theirs.model.embed_tokens.weight)
    assert torch.equal(
        model.blocks[1].feed_forward.down.weight, theirs.model.layers[1].mlp.down_proj.weight
    )


def test_a_slow_machine_takes_fewer_steps_and_says_so(tmp_path, settings):
    result = run(
        "train.py",
        settings("run"),
        "--train.steps",
        "1000000",
        "--train.minutes",
        "0.02",
        "--train.save-every",
        "0",
        "--train.sample-every",
        "0",
        "--train.eval-every",
        "1000000",
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"\d+ steps instead of 1000000, to end within 0.02 minutes", result.stdout), (
        result.stderr
    )
    meta = json.loads((checkpoint.latest(tmp_path / "run") / "meta.json").read_text())
    assert meta["step"] == meta["settings"]["train"]["steps"] < 1_000_000


TWO_MORE_STEPS = """
from support import checkpoint
read_meta = checkpoint.read_meta
def planned(path):
    meta, stored = read_meta(path)
    stored.train.steps = meta["step"] + 2
    return meta, stored
checkpoint.read_meta = planned
"""


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, settings):
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "train.py",
            settings("run"),
            "--train.steps",
            "100000",
            "--train.save-every",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.time() + 120
    while not (log.exists() and log.read_text().count("\n") > 3) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "go on with python" in out, err
    assert "--resume" in out, err
    step = json.loads((checkpoint.latest(tmp_path / "run") / "meta.json").read_text())["step"]
    again = run(
        "train.py",
        settings("run"),
        "--resume",
        "--train.steps",
        "100000",
        "--train.save-every",
        "0",
        before=TWO_MORE_STEPS,
    )
    assert again.returncode == 0, again.stderr
    assert f"resume  from step {step}" in again.stdout, again.stderr


# every file ends after 60,000 bytes, as on a disk that fills up
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
"""


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, settings):
    assert run("train.py", settings("run"), "--train.save-every", "3").returncode == 0
    for path in checkpoint.checkpoints(tmp_path / "run")[1:]:
        shutil.rmtree(path)
    before = weights_and_state(tmp_path / "run")
    full = run("train.py", settings("run"), "--resume", before=FULL_DISK)
    assert full.returncode == 1, full.stderr
    assert full.stderr.splitlines()[-1].startswith("error: no room to write"), full.stderr
    assert [p.name for p in (tmp_path / "run").iterdir() if p.is_dir()] == ["checkpoint-0000003"]
    after = weights_and_state(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert run("train.py", settings("run"), "--resume").returncode == 0


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["--resume"], "no checkpoint in"),
        (["--data.path", "/nowhere/at/all"], "no such file or folder"),
        (["--data.sequence", "4096"], "sequence 4096 is over model.context 256"),
        (["--data.tokenizer", "/nowhere"], "no tokenizer in /nowhere"),
        (["--model.vocab-size", "512"], "has 1024 tokens, model.vocab_size is 512"),
        (["--train.batch", "5000"], "examples of 32; 5000 are needed"),
        (
            ["--train.learning-rate", "1e30", "--train.steps", "30", "--train.save-every", "1"],
            "lower train.learning_rate or train.muon_learning_rate. Last good checkpoint",
        ),
        (["--train.device", "cuda:7"], "device 'cuda:7' cannot be used"),
        (["--train.beta1", "2"], "train.beta1 is 2.0"),
    ],
)
def test_bad_input_is_one_line_and_a_status(settings, words, wanted):
    result = run("train.py", settings("run"), *words)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1, result.stderr
    assert last.startswith("error: "), result.stderr
    assert wanted in last, result.stderr
    assert "Traceback" not in result.stderr


def test_resume_with_other_settings_is_refused(tmp_path, settings):
    assert run("train.py", settings("run")).returncode == 0
    optimizer = run(
        "train.py",
        settings("run"),
        "--resume",
        "--train.optimizer",
        "adamw",
        "--train.log-every",
        "2",
    )
    assert optimizer.returncode == 1
    assert "train.optimizer: 'muon' → 'adamw'" in optimizer.stderr
    assert "log_every" not in optimizer.stderr
    changed = run("train.py", settings("run"), "--resume", "--model.rope-theta", "5e5")
    assert changed.returncode == 1
    assert "model.rope_theta: 10000.0 → 500000.0" in changed.stderr
    shutil.rmtree(checkpoint.latest(tmp_path / "run"))
    again = run("train.py", settings("run"))
    assert again.returncode == 1
    assert "holds a run at step 5 of 6; go on with --resume" in again.stderr
    (checkpoint.latest(tmp_path / "run") / "meta.json").write_text("{")
    broken = run("train.py", settings("run"), "--resume")
    assert broken.returncode == 1
    assert "meta.json cannot be read" in broken.stderr
