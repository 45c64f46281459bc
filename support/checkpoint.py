"""A run's checkpoints: weights, optimiser, random state and a readable meta.json.

    out/toy/base/checkpoint-0000500/{model,optimizer}.safetensors and meta.json

Each is written aside and renamed, so a run killed at any moment leaves the checkpoints it had.
Under torchrun, folders of shards (support/sharded.py) stand for the two files, and are written
while the run goes on. A run goes on from either, with any number of ranks.
"""

import contextlib
import json
import platform
import shlex
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import parallel
from support import ranks
from config import Config, Model, UserError
from mch import ThinkingHeads
from model import SAGE
from support import provenance, settings
from support import result_tables as results
from support.adapter import ADAPTER_WEIGHTS
from support.gguf_file import is_gguf
from support.pretrained import is_pretrained, read_pretrained_config
from support.published import ADAPTER_CONFIG, base_of, is_adapter
from support.tokenizer import Tokenizer
from support.tokenizer_folder import load_tokenizer
from support.weights import (
    Parallelise,
    allocate_model,
    aside_of,
    copy_own_weights,
    copy_rows,
    describe_tensors,
    open_safetensors,
    restore_folder,
    written_aside,
)

# format version of a run's folder, in meta.json; raised when older runs cannot be resumed
LAYOUT = 2
COMMANDS = {  # stage → how to make it
    "base": "python train.py {settings}",
    "distilled": "python distill.py {settings} --stage distill",
    "reflected": "python distill.py {settings} --stage reflect",
    "safe": "python rl.py {settings} --stage dpo",
    "sage": "python rl.py {settings} --stage ppo",
    "thinking": "python heads.py {settings}",
}


def command_of(stage: str) -> str:
    """How to make a stage, with the settings file and the --out of the command that runs, or the
    toy's file, where it has neither.
    """
    words = sys.argv[1:]
    given = [word for word in words[:1] if word.endswith(".py")]
    for place, word in enumerate(words):
        if word == "--out":
            given += words[place : place + 2]
        elif word.startswith("--out="):
            given.append(word)
    return COMMANDS[stage].format(settings=shlex.join(given or ["config/toy.py"]))


def save_checkpoint(
    folder: str | Path,
    config: Config,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    *,
    loader: dict | None = None,
    keep: int = 2,
    heads: nn.Module | None = None,
    **more,
) -> Path:
    """Write checkpoint `step` of a run, then delete all but the last `keep`. Returns its folder.

    Under torchrun it is written in the background, until `finish_saving`. `loader` is where the
    data stands. `heads` (a value head, or meta-cognitive heads) lie beside the decoder in
    heads.safetensors; `more` goes into meta.json.
    """
    finish_saving()
    parallel.reshard(model)
    folder = Path(folder)
    versions = dict(
        python=platform.python_version(),
        torch=torch.__version__,
        safetensors=safetensors.__version__,
    )
    meta = dict(
        layout=LAYOUT,
        step=step,
        loader=loader or {},
        settings=asdict(config),
        given=settings.not_default(config),
        commit=results.commit(),
        **more,
        versions=versions,
    )
    text = json.dumps(meta, indent=1)
    parts = dict(model=_parameters(model), optimizer=optimizer_state(optimizers))
    beside = {} if heads is None else _parameters(heads)
    target = folder / f"checkpoint-{step:07}"
    if ranks.launched():
        save_shards(target, parts, beside, text, keep=keep)
        return target
    with written_aside(target) as aside:
        for name, tensors in parts.items():
            save_file(tensors, aside / f"{name}.safetensors")
        write_unsharded(aside, beside, text)
    delete_all_but(keep, folder)
    return target


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().contiguous() for name, p in module.named_parameters()}


def optimizer_state(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What optimisers remember, by "optimiser.parameter.name", and the random state."""
    state = {"random": torch.get_rng_state()}
    for number, optimizer in enumerate(optimizers):
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    state[f"{number}.{index}.{key}"] = value.contiguous()
    return state


def write_unsharded(aside: Path, heads: dict[str, Tensor], meta: str) -> None:
    """What one process writes of a checkpoint, however many ranks there are."""
    if heads:
        save_file(heads, aside / "heads.safetensors")
    (aside / "meta.json").write_text(meta)


def delete_all_but(keep: int, folder: Path) -> None:
    """Delete a run's checkpoints but the last `keep`."""
    for old in checkpoints(folder)[:-keep]:
        old.rename(old.with_suffix(".deleted"))  # half of a deleted one must not pass for a whole
    for old in folder.glob("checkpoint-*.deleted"):
        shutil.rmtree(old)


_writer = ThreadPoolExecutor(1, "checkpoint")  # writes while the run goes on
_pending: list[Future] = []


def finish_saving() -> None:
    """Wait for what is written in the background: before the next checkpoint, and before a run
    ends. Raises UserError on all ranks where one could not write.
    """
    with ranks.fail_together():
        while _pending:
            _pending.pop().result()


def save_shards(
    target: Path,
    parts: dict[str, dict[str, Tensor]],
    heads: dict[str, Tensor],
    meta: str,
    *,
    keep: int,
) -> None:
    """Begin to write a checkpoint from all ranks, and return as soon as training may change the
    weights. All must see one file system.

    Rank 0 puts it in its place when every rank has written its rows; until then, and after a
    failure on any of them, the checkpoints before it are as they were.
    """
    from support.sharded import copy_to_cpu, saving_group, write_shards

    first = ranks.rank() == 0
    placed = contextlib.ExitStack()
    with ranks.fail_together():
        if first:
            placed.enter_context(written_aside(target))
    parts = {name: copy_to_cpu(tensors) for name, tensors in parts.items()}
    heads = copy_to_cpu(heads)
    group = saving_group()

    def write() -> None:
        try:
            with placed:
                for name, tensors in parts.items():
                    write_shards(aside_of(target) / name, tensors, group)
                if first:
                    write_unsharded(aside_of(target), heads, meta)
            if first:
                delete_all_but(keep, target.parent)
        except (UserError, OSError) as error:
            problem = error if isinstance(error, UserError) else f"cannot write {target}: {error}"
            whole = checkpoints(target.parent)
            last = whole[-1].name if whole else "none"
            raise UserError(f"{problem}; the last whole checkpoint is {last}") from None

    _pending.append(_writer.submit(write))


def checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    for old in Path(folder).glob("checkpoint-*.old"):
        restore_folder(old.with_suffix(""))
    found = Path(folder).glob("checkpoint-*")
    complete = [path for path in found if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def latest(folder: str | Path) -> Path:
    """The newest checkpoint of a run. Raises UserError when there is none."""
    found = checkpoints(folder)
    if not found:
        stage = Path(folder).name
        command = command_of(stage if stage in COMMANDS else "base")
        raise UserError(
            f"no checkpoint in {folder}; train one with {command}, or name another run's folder"
        )
    return found[-1]


class OtherLayout(UserError):
    """A run's folder that another version of the project wrote."""


def refuse_other_layout(folder: Path, meta: dict) -> None:
    """Raise OtherLayout where a run's folder was written by another layout of the project."""
    layout = meta.get("layout", 1)
    if layout == LAYOUT:
        return
    stage = meta.get("stage", "base")
    age = "a newer" if isinstance(layout, int) and layout > LAYOUT else "an older"
    remedy = "delete it, and make it anew"
    if stage in COMMANDS:
        remedy += f" with {command_of(stage)}"
    raise OtherLayout(
        f"{folder} was written by {age} layout of this project (stage {stage}); {remedy}"
    )


def read_meta(checkpoint: Path) -> tuple[dict, Config]:
    """A checkpoint's meta.json, and the settings in it.

    Raises UserError where it is missing or damaged, naming the checkpoint to go on from, and where
    it was written by another layout of the project.
    """
    path = checkpoint / "meta.json"
    try:
        meta = json.loads(path.read_text())
        if not isinstance(meta["step"], int):
            raise ValueError(f"its step is {meta['step']!r}")
        refuse_other_layout(checkpoint.parent, meta)
        return meta, settings.from_dict(meta["settings"])
    except OtherLayout:
        raise
    except FileNotFoundError:
        problem = "it is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        problem = f"{type(error).__name__}: {error}"
    before = [other for other in checkpoints(checkpoint.parent) if other < checkpoint]
    remedy = f"there is no checkpoint before it: delete {checkpoint.parent} to begin anew"
    if before:
        remedy = f"delete {checkpoint} to go on from {before[-1].name}"
    raise UserError(f"{path} cannot be read ({problem}); {remedy}")


def unknown_settings(meta: dict) -> list[str]:
    """Settings of a run that this version of the code does not have, as "name = value"."""
    known = settings.flatten(asdict(Config()))
    stored = settings.flatten(meta["settings"])
    return [f"{name} = {value!r}" for name, value in stored.items() if name not in known]


def weights_identity(folder: str | Path) -> dict | None:
    """Which weights lie in a folder: the `step` of a run's newest checkpoint (None for published
    weights) and a hash; None where there are none. All ranks must ask; rank 0 reads.
    """
    finish_saving()
    with ranks.fail_together():
        identity = _read_identity(Path(folder)) if ranks.rank() == 0 else None
    return ranks.from_first(identity)


def _read_identity(folder: Path) -> dict | None:
    if is_gguf(folder):
        return dict(step=None, weights=provenance.digest(folder)) if folder.exists() else None
    if is_adapter(folder):
        base = _read_identity(base_of(folder))
        own = provenance.digest(folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS)
        return base and base | dict(adapter=own)
    if (folder / "config.json").exists():
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        return dict(step=None, weights=provenance.digest(*files))
    found = checkpoints(folder)
    if not found:
        return None
    weights = part_of(found[-1], "model")
    describe_tensors(weights)  # an error where it is missing or cut short
    step = int(found[-1].name.removeprefix("checkpoint-"))
    # .metadata holds a number of its own in each writing
    files = sorted(weights.glob("*.distcp")) if weights.is_dir() else [weights]
    return dict(step=step, weights=provenance.digest(*files))


def tokenizer_record(tokenizer: Tokenizer) -> dict:
    """What meta.json holds of the tokenizer that a model learns with."""
    return dict(name=tokenizer.name, hash=tokenizer.hash)


def tokenizer_of(folder: str | Path, name: str | Path) -> Tokenizer:
    """The tokenizer `name`, if the model of a run, or published as a folder or a GGUF file, was
    trained with it; that weights without a tokenizer belong to it is taken on trust, and
    printed.

    Raises UserError where the model's own has another hash.
    """
    folder = Path(folder).expanduser()
    tokenizer = load_tokenizer(name)
    own = None
    remedy = "name its own in data.tokenizer"
    if is_pretrained(folder):
        rows = read_pretrained_config(folder).vocab_size
        folder = base_of(folder)
        files = [folder / file for file in ("tokenizer.json", "vocab.json")]
        if is_gguf(folder) or any(file.exists() for file in files):
            own = tokenizer_record(load_tokenizer(folder))
            remedy = f"give --data.tokenizer {folder}"
        else:
            print(
                f"note    {folder} has weights and no tokenizer: that {tokenizer.name} is theirs "
                "is taken on trust"
            )
    else:
        meta, stored = read_meta(latest(folder))
        rows = stored.model.vocab_size
        own = meta.get("tokenizer")
        if own is None and "data" in meta:  # an older run of train.py: its token files say it
            text = meta["data"]["train"]
            own = dict(name=text["tokenizer"], hash=text["tokenizer_hash"])
    if own and own["hash"] != tokenizer.hash:
        raise UserError(
            f"the model in {folder} was trained with tokenizer {own['name']} "
            f"({own['hash']}), and data.tokenizer {name} is {tokenizer.name} "
            f"({tokenizer.hash}); {remedy}"
        )
    if tokenizer.vocab_size > rows:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, the model "
            f"of {folder} {rows}; {remedy}"
        )
    return tokenizer


def load_checkpoint(
    checkpoint: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer] = (),
    heads: nn.Module | None = None,
) -> None:
    """Fill a model, and its heads and optimisers where they are given, from a checkpoint; with
    optimisers the random state comes back, too. Raises UserError.
    """
    with ranks.fail_together():
        copy_own_weights(model, part_of(checkpoint, "model"), checkpoint)
        if heads is not None:
            copy_own_weights(heads, checkpoint / "heads.safetensors", checkpoint)
        if optimizers:
            load_optimizers(part_of(checkpoint, "optimizer"), optimizers)


def part_of(checkpoint: Path, name: str) -> Path:
    """Where the model or the optimiser of a checkpoint lies: a folder of shards, or a file."""
    shards = checkpoint / name
    return shards if shards.is_dir() else checkpoint / f"{name}.safetensors"


def load_optimizers(path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    """Fill optimisers, each rank its rows, and the random state. Raises UserError."""
    parameters = [
        [p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers
    ]
    tensors: dict[str, Tensor] = {}
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, (shape, dtype) in describe_tensors(path).items():
        if name == "random":
            tensors[name] = torch.get_rng_state()
            continue
        number, index, key = name.split(".", 2)
        number, index = int(number), int(index)
        p = parameters[number][index].detach()
        if shape == p.shape:
            tensors[name] = torch.empty_like(p, dtype=dtype)  # sharded as p is
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
        states[number].setdefault(index, {})[key] = tensors[name]
    copy_rows(path, tensors)
    torch.set_rng_state(tensors["random"])
    for optimizer, state in zip(optimizers, states):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict(dict(state=state, param_groups=groups))


def load_run(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    parallelise: Parallelise | None = None,
) -> tuple[SAGE, Config, dict]:
    """The newest model of a run, with its settings and meta. Raises UserError, on all ranks alike.

    Of a model that `parallelise` shards, each rank reads its own rows alone.
    """
    with ranks.fail_together():
        checkpoint = latest(folder)
        meta, config = read_meta(checkpoint)
    model = allocate_model(config.model, dtype, device, parallelise)
    load_checkpoint(checkpoint, model)
    return model, config, meta


def heads_file(folder: str | Path) -> Path | None:
    """Where the heads of a run's newest checkpoint lie; None where it has none."""
    found = checkpoints(folder)
    path = found[-1] / "heads.safetensors" if found else None
    return path if path and path.is_file() else None


def has_heads(folder: str | Path) -> bool:
    """Whether a run's newest checkpoint has trained thinking heads. Raises UserError for a file of
    them that is damaged.
    """
    path = heads_file(folder)
    if path is None:
        return False
    with open_safetensors(path) as file:
        return "trained" in file.keys()


def load_heads(
    folder: str | Path, config: Model, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> ThinkingHeads:
    """The heads of a run's newest checkpoint for a decoder of the shape `config`, float32; `dtype`
    is that decoder's, and of the inverse head's own one, which shares caches with it.

    Raises UserError where the run has none (published weights never have, a run of rl.py
    may have a value head alone), where they are damaged, or where they were trained for another
    shape. ThinkingHeads(config) are untrained ones, and say so in `trained`.
    """
    if not has_heads(folder):
        raise UserError(
            f"{folder} has no thinking heads; train them with {command_of('thinking')} "
            f"--heads.start {folder}, and name the run it writes"
        )
    path = heads_file(folder)
    with safetensors.safe_open(path, "pt") as file:
        own_decoder = any(name.startswith("inverse.decoder.") for name in file.keys())
    heads = ThinkingHeads(config, own_decoder=own_decoder)
    copy_own_weights(heads, path, path.parent)
    if own_decoder:
        heads["inverse"].decoder.to(dtype)
    return heads.to(device)
