"""Every stage, killed -9 at random moments of its writing and begun again, ends with the weights of
a run that nobody disturbed."""

import subprocess
import sys

import pytest
import torch

from support import checkpoint
from support import settings
from conftest import ROOT
from model import SAGE
from test_train import weights_and_state
from support.tokenizer import toy

SETTINGS = """
from config import Data, Distill, Dpo, Heads, Model, Ppo, Train
out = {out!r}
model = Model(vocab_size=1024, width=32, layers=1, heads=2, kv_heads=1, head_dim=16,
              feed_forward=48, context=640)
data = Data(path={text!r}, sequence=32, validation=0.3)
fast = dict(log_every=1, save_every=1, dtype="float32", compile="off")
train = Train(steps=4, batch=4, eval_every=2, eval_batches=2, sample_every=0, **fast)
distill = Distill(steps=3, batch=2, sequence=384, trajectories=30, worlds="api,math",
                  reflect_steps=4, rounds=2, tasks=6, tries=1, replay=4.0, **fast)
dpo = Dpo(steps=3, batch=3, pairs=10, trajectories=8, replay_rows=2, worlds="api,math", **fast)
ppo = Ppo(steps=3, batch=4, prompts=2, samples=2, room=24, trajectories=8, replay_rows=2,
          worlds="api,math", **fast)
heads = Heads(steps=4, tasks=8, trajectories=8, validation=6, room=60, eval_every=2,
              worlds="api,math", start={ender!r}, **fast)
del fast
"""

# Runs the whole lineage in children of this process, which has imported everything once. A child
# kills itself at the `moment`-th time that it opens for writing, renames, makes or removes a file
# or folder of the lineage.
LINEAGE = """
import os, random, signal, sys
root, file, folder = sys.argv[1:4]
seed, kills = map(int, sys.argv[4:])
sys.path.insert(0, root)
import support.openmp
import torch
torch.set_num_threads(1)
import config, distill, heads, rl, train
from support import checkpoint, machine
machine.matmul_peak = lambda *a, **k: 1e9
rl.reward = lambda episode, c: float(sum(episode.tokens) % 5)

def lineage():
    for script, name in ((train, "base"), (distill, ""), (rl, ""), (heads, "")):
        resume = ["--resume"] if not name or checkpoint.checkpoints(f"{folder}/{name}") else []
        sys.argv = ["script", file, *resume]
        script.main()

def watch(moment):
    seen = [0]
    def hook(event, arguments):
        counts = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove")
        if event == "open" and isinstance(arguments[2], int):
            counts = arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if counts and str(arguments[0]).startswith(folder):
            seen[0] += 1
            if seen[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

moments = random.Random(seed)
for number in range(kills + 1):
    child = os.fork()
    if child == 0:
        if number < kills:
            watch(moments.randint(1, 40))
        lineage()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    if not os.WIFSIGNALED(status):
        sys.exit(f"attempt {number} ended with {os.waitstatus_to_exitcode(status)}")
print("killed", number)
"""


@pytest.fixture
def lineage(tmp_path):
    """Trains a tiny lineage in a folder of its own, killed so many times; returns the folder."""
    text = tmp_path / "text"
    text.mkdir()
    for number in range(30):
        (text / f"part{number}.py").write_text(
            f'def f{number}(x):\n    """Return x plus {number}."""\n    return x + {number}\n\n'
            * 12
        )

    def make(name, seed, kills):
        file, folder = tmp_path / f"{name}.py", tmp_path / name
        file.write_text(
            SETTINGS.format(out=str(folder / "base"), text=str(text), ender=str(tmp_path / "ender"))
        )
        if not (
            tmp_path / "ender"
        ).exists():  # a model that likes to end its messages: heads need whole ones
            config = settings.from_file(file)
            config.model.tied = False
            model = SAGE(config.model, seed=1)
            with torch.no_grad():
                model.norm.weight[0] = 0.2
                model.embedding.text.weight[:, 0] = model.embedding.code.weight[:, 0] = 1
                model.head.weight[toy().stop[0], 0] = 6
            checkpoint.save_checkpoint(tmp_path / "ender", config, model, [], 1)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                LINEAGE,
                str(ROOT),
                str(file),
                str(folder),
                str(seed),
                str(kills),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return folder, int(done.stdout.split()[-1])

    return make


def test_a_lineage_that_was_killed_again_and_again_is_the_same(lineage):
    straight, _ = lineage("straight", 0, 0)
    killed, times = lineage("killed", 1, 12)
    assert times > 5
    for stage in ("base", "distilled", "reflected", "safe", "sage", "thinking"):
        one, two = weights_and_state(straight / stage), weights_and_state(killed / stage)
        assert one.keys() == two.keys() and all(
            torch.equal(one[name], two[name]) for name in one
        ), stage
        assert not list((killed / stage).glob("*.deleted")), stage
    for name in ("reflected/buffer-0.jsonl", "reflected/buffer-1.jsonl", "thinking/steps.jsonl"):
        assert (straight / name).read_bytes() == (killed / name).read_bytes()
