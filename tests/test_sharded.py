"""Weights and checkpoints of several ranks: each reads and writes its own rows, and what any number
of them wrote goes on with any other, to the bit.

The functions before the tests run in the ranks (forked_ranks.py). Their "training" is momentum on
gradients drawn by name, in sums that round the same for each element wherever it lies (AdamW's
vectorised loops do not): every number of ranks must give the same bits.
"""

import errno
import json
import os
import re
import resource
import signal
import sys
import threading
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

import parallel
from support import ranks
from config import Config, Model, Parallel, UserError
from forked_ranks import ForkedRanks
from model import SAGE
from support import checkpoint, sharded
from support.checkpoint import finish_saving
from support.gguf_file import gguf_name
from support.adapter import save_adapter
from support.pretrained import by_their_names, load_pretrained, save_pretrained, tensor_name
from support.weights import allocate_model
from test_gguf import write_gguf

# Nothing divides by 4, some not by 2; the smear of one key head lies on one rank alone.
SHAPE = Model(
    vocab_size=67,
    width=30,
    layers=2,
    heads=3,
    kv_heads=1,
    head_dim=10,
    feed_forward=37,
    context=64,
    prose_width=5,
    previous_token=True,
    tied=False,
)


def parallelise(model: SAGE) -> SAGE:
    return parallel.parallelise(model, Parallel())


def same_rows(model: SAGE, whole: SAGE) -> bool:
    """Whether each parameter here is this rank's rows of the whole one, and really sharded."""
    for (name, p), expected in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert isinstance(p, DTensor) and p.shape == expected.shape, name
        assert torch.equal(parallel.local(p), expected[parallel.own_rows(p)]), name
        assert torch.equal(p.full_tensor(), expected), name
    return True


# --------------------------------------------------------------------------------------------------
# What the ranks do.


def load_folders(folders: list[str]) -> bool:
    """Published weights, sharded and whole."""
    for folder in folders:
        for dtype in (torch.float32, torch.bfloat16):
            sharded = load_pretrained(folder, dtype, parallelise=parallelise)
            same_rows(sharded, load_pretrained(folder, dtype))
            assert sharded.dense
    return True


def begin() -> bool:
    for tied in (False, True):
        config = replace(SHAPE, tied=tied)
        model = allocate_model(config, torch.float32, "cpu", parallelise)
        parallel.initialise(model, seed=3)
        same_rows(model, SAGE(config, seed=3))
    return True


def load_mine(folder: str) -> bool:
    """Each rank a folder of its own, as if the machines' disks differed."""
    load_pretrained(Path(folder) / str(ranks.rank()), parallelise=parallelise)
    return True


def resident(key: str) -> int:
    """Bytes of this process, by their name in /proc."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+)", status)[1]) * 1024


def memory_to_load(folder: str) -> int:
    """Bytes that loading adds at its peak."""
    load_pretrained(
        f"{folder}/small", parallelise=parallelise
    )  # what is imported on the way is not the model's
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM, the peak, back
    model = load_pretrained(f"{folder}/large", parallelise=parallelise)
    peak = resident("VmHWM")
    assert model.dense
    return peak - before


class Halving(torch.optim.Optimizer):
    """Momentum ½; keeps what AdamW keeps: a count of steps, tensors of the parameter's shape."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            if not state:
                state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(p))
            state["step"] += 1
            state["exp_avg"].mul_(0.5).add_(p.grad)
            p.sub_(state["exp_avg"])


def learner(out: str, real: bool = False):
    """Model, heads and optimisers, of the last checkpoint or new; and the step they stand at."""
    sharding = parallelise if ranks.launched() else None
    last = (checkpoint.checkpoints(out) or [None])[-1]
    model = allocate_model(SHAPE, torch.float32, "cpu", sharding)
    heads = nn.Linear(5, 3)
    parallel.initialise(model, seed=1)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizers = [Halving(others), Halving(matrices)]
    if real:
        optimizers = [
            torch.optim.AdamW([dict(params=others[::2]), dict(params=others[1::2])], fused=True),
            torch.optim.SGD(matrices, lr=0.1, momentum=0.9),
        ]
    optimizers.append(torch.optim.AdamW(heads.parameters()))
    step = 0
    torch.manual_seed(7)
    nn.init.normal_(heads.weight)
    nn.init.normal_(heads.bias)
    if last:
        step = checkpoint.read_meta(last)[0]["step"]
        checkpoint.load_checkpoint(last, model, optimizers, heads)
    return model, heads, optimizers, step


def take_step(modules: list[nn.Module], optimizers: list, step: int) -> None:
    noise = torch.rand(()).item()  # from the random state, which a checkpoint restores
    for number, module in enumerate(modules):
        for name, p in module.named_parameters():
            generator = torch.Generator().manual_seed(
                zlib.crc32(f"{number} {name} {step}".encode())
            )
            p.grad = torch.zeros_like(p)
            gradient = torch.randn(p.shape, generator=generator) + noise
            parallel.local(p.grad).copy_(gradient[parallel.own_rows(p)])
    for optimizer in optimizers:
        optimizer.step()


def learn(out: str, last: int, weak: str = "", rank: int = 0, at: int = 0) -> list[str]:
    """Train up to a step, with a checkpoint of each. `weak`: what befalls a rank at a step."""
    if weak == "full large":  # torch.save's C++ hides what the disk says of a large tensor
        SHAPE.vocab_size = 8000
    config = Config(model=SHAPE, out=out)
    model, heads, optimizers, first = learner(out)
    for step in range(first + 1, last + 1):
        take_step([model, heads], optimizers, step)
        if weak and step == at and ranks.rank() == rank:
            finish_saving_alone()
            befall(weak)
        checkpoint.save_checkpoint(
            out, config, model, optimizers, step, loader=dict(at=step), heads=heads, kept={}
        )
    finish_saving()
    return [path.name for path in checkpoint.checkpoints(out)]


def finish_saving_alone() -> None:
    """Wait for the own part of the last checkpoint: only then does disaster strike the next."""
    for pending in checkpoint._pending:
        pending.result()


def befall(what: str) -> None:
    """Let this process meet its fate when it next writes or renames files of that name."""
    kind, name = what.split()
    if kind == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        return

    def strike(event, arguments) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY
        writes = writes or event == "open" and arguments[1] in ("w", "wb")
        if (writes or event == "os.rename") and str(arguments[0]).endswith(name):
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "the disk is broken")

    sys.addaudithook(strike)


def state_of_optimizers(out: str, begins: bool) -> dict:
    """Of AdamW and momentum, after one step or as a checkpoint holds it: hashes of all tensors."""
    model, heads, optimizers, step = learner(out, real=True)
    assert step == (0 if begins else 1)
    if begins:
        take_step([model, heads], optimizers, 1)
        config = Config(model=SHAPE, out=out)
        checkpoint.save_checkpoint(out, config, model, optimizers, 1, heads=heads)
        with torch.no_grad():  # what is being written is a copy
            before = [p.clone() for p in model.parameters()]
            for p in model.parameters():
                p.fill_(7)
        finish_saving()
        for p, kept in zip(model.parameters(), before):
            parallel.local(p).copy_(parallel.local(kept))
    tensors = dict(model.named_parameters()) | dict(heads.named_parameters(prefix="heads"))
    for number, optimizer in enumerate(optimizers):
        for index, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            for key, value in optimizer.state[p].items():
                assert isinstance(value, DTensor) == (isinstance(p, DTensor) and key != "step")
                tensors[f"{number}.{index}.{key}"] = value
    hashes = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        hashes[name] = zlib.crc32(whole.detach().numpy().tobytes())
    return hashes


def save_slowly(out: str) -> list:
    """Saves while the disk is stuck: what is there when saving has returned, and in the end."""
    go_on = threading.Event()
    write = sharded.write_shards

    def wait_and_write(*arguments) -> None:
        go_on.wait()
        write(*arguments)

    sharded.write_shards = wait_and_write
    model, heads, optimizers, _ = learner(out)
    checkpoint.save_checkpoint(out, Config(model=SHAPE, out=out), model, optimizers, 1, heads=heads)
    during = [path.name for path in Path(out).iterdir()], checkpoint.checkpoints(out)
    ranks.gather(None)  # the ranks talk while they write
    go_on.set()
    finish_saving()
    return [*during, [path.name for path in Path(out).iterdir()]]


def compare_run(out: str, straight: str) -> dict:
    """The last checkpoint of a run, read here, against a whole model's files."""
    sharding = parallelise if ranks.launched() else None
    model, config, meta = checkpoint.load_run(out, parallelise=sharding)
    whole = load_file(checkpoint.latest(straight) / "model.safetensors")
    for name, p in model.named_parameters():
        assert torch.equal(parallel.local(p), whole[name][parallel.own_rows(p)]), name
    assert config.model == SHAPE
    return dict(meta=meta["loader"], identity=checkpoint.weights_identity(out))


# --------------------------------------------------------------------------------------------------
# The tests.


@pytest.fixture(scope="module", name="ranks")
def forked_ranks():
    forked = ForkedRanks()
    yield forked
    forked.close()


run = partial("test_sharded:{}".format)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, ranks):
    """Six steps of one process that nothing befell."""
    out = tmp_path_factory.mktemp("straight") / "run"
    ranks.run(0, run("learn"), str(out), 6)
    return out


def whole_state(out, step=6):
    """A checkpoint of one process, as tensors and meta."""
    folder = out / f"checkpoint-{step:07}"
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= {f"{path.name} {name}": tensor for name, tensor in load_file(path).items()}
    meta = json.loads((folder / "meta.json").read_text())
    return tensors, meta


def assert_same_run(out, straight):
    """Both runs' sixth checkpoints are one process's, equal to the bit."""
    (ours, meta), (theirs, expected) = whole_state(out), whole_state(straight)
    assert ours.keys() == theirs.keys() and len(ours) > 60
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    for key in ("settings", "given"):
        meta[key] = expected[key] = None  # `out` differs
    assert meta == expected


def gguf_of(model: SAGE, path: Path) -> str:
    """A decoder as a GGUF file."""
    c = model.config
    words = {
        "block_count": c.layers,
        "context_length": c.context,
        "embedding_length": c.width,
        "feed_forward_length": c.feed_forward,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.kv_heads,
        "attention.key_length": c.head_dim,
        "attention.layer_norm_rms_epsilon": c.norm_eps,
    }
    tensors = {
        gguf_name(name): p.detach().numpy()
        for name, p in model.named_parameters()
        if tensor_name(name)
    }
    return str(write_gguf(path, c.family, words, tensors))


def test_ranks_read_their_rows_of_published_weights(tmp_path, ranks):
    folders = []
    for family in ("llama", "qwen3"):
        model = SAGE(replace(SHAPE, family=family), seed=5)
        folders.append(gguf_of(model, tmp_path / f"{family}.gguf"))
    save_pretrained(model, tmp_path / "qwen3")
    folders.append(str(tmp_path / "qwen3"))
    for number, (tied, own) in enumerate([(True, True), (False, True), (True, False)]):
        folder = tmp_path / str(number)
        shape = replace(SHAPE, tied=tied, previous_token=own)
        save_pretrained(SAGE(shape, seed=5), folder, shard_bytes=10_000)
        if not own:
            (folder / "sage.safetensors").unlink()
        assert len(list(folder.glob("model-*.safetensors"))) >= 4
        folders.append(str(folder))
    shape = replace(SHAPE, tied=True, previous_token=True)  # of folder 0, which is seed 5
    start, end = (by_their_names(SAGE(shape, seed=seed)) for seed in (5, 6))
    own = dict(base=str(tmp_path / "0"), rank=3, dtype=torch.bfloat16)
    save_adapter(end, start, tmp_path / "adapter", **own)
    folders.append(str(tmp_path / "adapter"))
    for world in (1, 2, 4):
        assert all(ranks.run(world, run("load_folders"), folders))


def test_ranks_take_memory_for_their_rows_alone(tmp_path, ranks):
    large = replace(SHAPE, vocab_size=2048, width=512, layers=8, heads=8, head_dim=64)
    large.feed_forward = 2048
    for name, shape in (("small", SHAPE), ("large", large)):
        save_pretrained(SAGE(shape, seed=5), tmp_path / name, shard_bytes=35_000_000)
        (tmp_path / name / "sage.safetensors").unlink()
    shards = list((tmp_path / "large").glob("*.safetensors"))
    size = sum(path.stat().st_size for path in shards)
    assert len(shards) == 4 and size > 120_000_000
    peaks = ranks.run(2, run("memory_to_load"), str(tmp_path))
    assert all(0.45 < peak / size <= 0.6 for peak in peaks), [peak / size for peak in peaks]


def test_any_number_of_ranks_begins_with_the_same_weights(ranks):
    for world in (1, 2, 4):
        assert all(ranks.run(world, run("begin")))


def test_two_ranks_then_four_then_one_are_one_run(tmp_path, ranks, straight):
    out = tmp_path / "run"
    two = ranks.run(2, run("learn"), str(out), 2)
    assert two[0] == two[1] == ["checkpoint-0000001", "checkpoint-0000002"]
    last = out / "checkpoint-0000002"
    files = {str(path.relative_to(last)) for path in last.rglob("*") if path.is_file()}
    shards = {f"{part}/__{rank}_0.distcp" for part in ("model", "optimizer") for rank in (0, 1)}
    index = {"model/.metadata", "optimizer/.metadata"}
    assert files == shards | index | {"heads.safetensors", "meta.json"}
    four = ranks.run(4, run("learn"), str(out), 4)
    assert four[0] == ["checkpoint-0000003", "checkpoint-0000004"]
    first = ranks.run(1, run("learn"), str(out), 5)
    assert first == [["checkpoint-0000004", "checkpoint-0000005"]]
    assert (out / "checkpoint-0000005" / "model" / "__0_0.distcp").exists()
    ranks.run(0, run("learn"), str(out), 6)
    assert_same_run(out, straight)
    assert not list(out.glob("*.tmp")) + list(out.glob("*.deleted"))


def test_ranks_go_on_from_one_process(tmp_path, ranks, straight):
    out = tmp_path / "run"
    ranks.run(0, run("learn"), str(out), 3)
    ranks.run(2, run("learn"), str(out), 5)
    ranks.run(0, run("learn"), str(out), 6)
    assert_same_run(out, straight)


def test_the_state_of_torchs_optimizers_comes_back(tmp_path, ranks):
    """To ranks of another number, and to one process; with the checkpoint of either."""
    for begins, others in ((2, (0, 1, 4)), (0, (3,))):
        out = str(tmp_path / str(begins))
        found = ranks.run(begins, run("state_of_optimizers"), out, True)
        for world in others:
            found += ranks.run(world, run("state_of_optimizers"), out, False)
        assert len(found[0]) > 90
        assert all(hashes == found[0] for hashes in found)


def test_a_run_goes_on_while_its_checkpoint_is_written(tmp_path, ranks):
    for during, whole, end in ranks.run(2, run("save_slowly"), str(tmp_path / "run")):
        assert during == ["checkpoint-0000001.tmp"] and not whole and end == ["checkpoint-0000001"]


def test_runs_are_read_whole_or_by_rows(tmp_path, ranks, straight):
    out, again = tmp_path / "run", tmp_path / "again"
    ranks.run(2, run("learn"), str(out), 6)
    ranks.run(2, run("learn"), str(again), 6)
    readers = [ranks.run(world, run("compare_run"), str(out), str(straight)) for world in (0, 2, 4)]
    found = [answer for answers in readers for answer in answers]
    assert all(answer == found[0] for answer in found)
    assert found[0]["meta"] == dict(at=6) and found[0]["identity"]["step"] == 6
    assert checkpoint.weights_identity(again) == found[0]["identity"]
    (again / "checkpoint-0000006" / "model" / "__1_0.distcp").rename(again / "elsewhere")
    with pytest.raises(UserError, match="__1_0.distcp is missing; put them back, or delete"):
        checkpoint.weights_identity(again)
    meta = again / "checkpoint-0000006" / "meta.json"
    (again / "elsewhere").rename(again / "checkpoint-0000006" / "model" / "__1_0.distcp")
    meta.write_text(meta.read_text().replace('"feed_forward": 37', '"feed_forward": 38'))
    with pytest.raises(UserError, match="do not fit its config: wrong shape") as caught:
        checkpoint.load_run(again)
    assert str(caught.value).count("wanted") == 2 * 3  # gate, up and down of both layers
    for where in (out, straight):
        save_pretrained(
            checkpoint.load_run(where)[0], tmp_path / where.parent.name, shard_bytes=10_000
        )
    files = [path.name for path in (tmp_path / tmp_path.name).iterdir()]
    assert len(files) > 6
    for name in files:
        one, two = (tmp_path / where.parent.name / name for where in (out, straight))
        assert one.read_bytes() == two.read_bytes(), name


@pytest.mark.parametrize(
    "what, rank, whole",
    [
        ("kill model/__1_0.distcp", 1, [1, 2]),
        ("kill optimizer/__1_0.distcp", 1, [1, 2]),
        ("kill optimizer/.metadata.tmp", 0, [1, 2]),
        ("kill meta.json", 0, [1, 2]),
        ("kill checkpoint-0000003.tmp", 0, [1, 2]),  # all is written, and not yet in its place
        ("kill checkpoint-0000001", 0, [1, 2, 3]),  # it is in its place, the old one not yet gone
    ],
)
def test_a_rank_killed_in_a_save_leaves_whole_checkpoints(
    tmp_path, ranks, straight, what, rank, whole
):
    out = tmp_path / "run"
    ended = ranks.launch(2, run("learn"), str(out), 6, what, rank, 3)
    assert ended[rank].status == -signal.SIGKILL, ended
    assert ended[1 - rank].status != 0
    found = [path.name for path in checkpoint.checkpoints(out)]
    assert found == [f"checkpoint-{step:07}" for step in whole]
    ranks.run(2, run("learn"), str(out), 5)
    ranks.run(0, run("learn"), str(out), 6)
    assert_same_run(out, straight)


@pytest.mark.parametrize(
    "what, rank, wanted",
    [
        ("full small", 0, r"no room to write \S+checkpoint-0000003"),
        ("full large", 1, r"no room to write \S+checkpoint-0000003"),
        ("fail optimizer/__1_0.distcp", 1, "the disk is broken"),
        ("fail meta.json", 0, "the disk is broken"),
    ],
)
def test_a_disk_that_fails_one_rank_stops_all_with_one_message(tmp_path, ranks, what, rank, wanted):
    out = tmp_path / "run"
    ended = ranks.launch(2, run("learn"), str(out), 4, what, rank, 3)
    for one in ended:
        assert one.status == 1 and one.err.startswith("error: "), one.err
        assert one.err == ended[0].err and one.err.count("\n") == 1
        assert re.search(wanted, one.err), one.err
        assert "the last whole checkpoint is checkpoint-0000002" in one.err
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint-0000001",
        "checkpoint-0000002",
    ]
    if what != "full large":
        assert ranks.run(2, run("learn"), str(out), 3)[0][-1] == "checkpoint-0000003"


def break_copy(folder, how):
    """Make a folder of weights wrong in one way; what its message must hold."""
    shards = sorted(folder.glob("model-*.safetensors"))
    if how == "missing":
        shards[1].unlink()
        return [f"{shards[1]} is missing"]
    if how == "cut short":
        shards[1].write_bytes(shards[1].read_bytes()[:-50])
        return [f"{shards[1]} is damaged or cut short"]
    wanted = []
    for shard in shards:  # all that differs is listed, in however many files it is
        tensors = load_file(shard)
        for name, tensor in list(tensors.items()):
            if name.endswith("layernorm.weight"):
                tensors[name] = tensor[:-1].clone()
                wanted.append(f"{name} is (29,), wanted (30,)")
            if name.endswith("bias"):
                tensors[name + "_else"] = tensors.pop(name)
                wanted += [name, name + "_else"]
        save_file(tensors, shard, metadata={"format": "pt"})
    assert len(wanted) == 4 + 2 * 6
    return wanted


@pytest.mark.parametrize("how", ["missing", "cut short", "other shapes and names"])
def test_weights_that_are_wrong_for_one_rank_stop_all(tmp_path, ranks, how):
    for number in range(2):
        save_pretrained(SAGE(SHAPE, seed=5), tmp_path / str(number), shard_bytes=10_000)
    wanted = break_copy(tmp_path / "1", how)
    ended = ranks.launch(2, run("load_mine"), str(tmp_path))
    for rank in ended:
        assert rank.status == 1 and rank.err.startswith("error: "), rank.err
        assert rank.err == ended[0].err and rank.err.count("\n") == 1
        assert rank.err.endswith("(rank 1 of 2)\n")
        assert all(words in rank.err for words in wanted), rank.err
