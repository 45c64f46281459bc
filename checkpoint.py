"""Weights in and out: Qwen2.5's folders, and the checkpoints of our own runs.

- `load_qwen(folder)` reads what transformers writes (config.json, one or many safetensors files); `save_qwen` writes it back, and a
  folder saved here opens in transformers as Qwen2. What SAGE adds (E_code, the gate, the smear) lies beside it in sage.safetensors,
  which transformers does not look at. Tensor by tensor: memory never holds the model twice.
- `save` and `load` are a run's checkpoints: weights, optimiser, random state and a readable meta.json. Everything is written aside
  and renamed, so a run killed at any moment leaves the checkpoints it had.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

import config as settings
import provenance
import results
import tokenizer as tokenizers
from config import Config, Model, UserError
from mch import Heads
from model import SAGE
from tokenizer import Tokenizer

# ---------------------------------------------------------------------------------------------------------------------
# Qwen2.5 folders.

OWN = ("embedding.code", "embedding.ids", "embedding.convolution", "embedding.out", "attention.smear")  # what Qwen does not have


def qwen_name(name: str) -> str | None:
    """Qwen's name of our parameter; None for SAGE's own."""
    if any(own in name for own in OWN):
        return None
    for ours, theirs in (("blocks.", "model.layers."), ("attention_norm", "input_layernorm"), ("feed_forward_norm", "post_attention_layernorm"),
                         ("attention.", "self_attn."), ("feed_forward.", "mlp."), ("embedding.text", "model.embed_tokens"), ("head.", "lm_head.")):
        name = name.replace(ours, theirs)
    if "self_attn." in name or "mlp." in name:
        *front, last, kind = name.split(".")
        name = ".".join([*front, last + "_proj", kind])
    return "model." + name if name == "norm.weight" else name


def read_config(folder: Path) -> Model:
    """Our settings from a folder's config.json. Raises UserError where it is missing or asks for what Qwen2.5 does not have."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"no model at {folder}: wanted a folder with config.json and safetensors files")
    try:
        c = json.loads(path.read_text())
        rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
        if c.get("model_type") != "qwen2":
            raise UserError(f"{path} describes a {c.get('model_type')!r} model; only qwen2 (Qwen2, Qwen2.5) is read")
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise UserError(f"{path} asks for {rope.get('rope_type', rope.get('type'))!r} rotary scaling, which is not built; remove it to use the unscaled context")
        if c.get("use_sliding_window"):
            raise UserError(f"{path} asks for a sliding window; set use_sliding_window to false, landmark attention has its own window")
        return Model(vocab_size=c["vocab_size"], width=c["hidden_size"], layers=c["num_hidden_layers"], heads=c["num_attention_heads"],
                     kv_heads=c.get("num_key_value_heads", c["num_attention_heads"]), head_dim=c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"],
                     feed_forward=c["intermediate_size"], context=c.get("max_position_embeddings", 32_768),
                     rope_theta=float(c.get("rope_theta") or rope.get("rope_theta", 10_000.0)), norm_eps=c.get("rms_norm_eps", 1e-6), tied=c.get("tie_word_embeddings", False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as a Qwen2 config ({type(error).__name__}: {error}); copy it anew") from None


def open_safetensors(path: Path):
    """A safetensors file, opened; UserError where it is missing, truncated or no such file."""
    if not path.exists():
        raise UserError(f"{path} is missing, though its folder needs it; copy it from where the model came from, or delete a run's checkpoint that lacks it")
    try:
        return safetensors.safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it anew, or delete it if it is a run's checkpoint") from None


def weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor, from the index or from the files themselves."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            files = {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is no weight index ({type(error).__name__}: {error}); copy it anew") from None
        for path in sorted(set(files.values())):
            open_safetensors(path)  # every shard is looked at before memory is spent
        return files
    path = folder / "model.safetensors"
    if not path.exists():
        raise UserError(f"no weights in {folder}: wanted model.safetensors, or model.safetensors.index.json and its shards")
    with open_safetensors(path) as file:
        return {name: path for name in file.keys()}


def allocate(config: Model, dtype: torch.dtype, device: str) -> SAGE:
    """A model whose weights are allocated and not yet filled."""
    with torch.device("meta"):
        model = SAGE(config, seed=None).to(dtype)
    return model.to_empty(device=device)


@torch.no_grad()
def fill(model: SAGE, sources: dict[str, tuple[Path, str]], where: Path) -> None:
    """Copy tensors into parameters, one at a time. `sources` maps our name to (file, name in it). One error lists all that is wrong."""
    shapes: dict[Path, dict[str, tuple]] = {}
    for path in {path for path, _ in sources.values()}:
        with open_safetensors(path) as file:
            shapes[path] = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    own = dict(model.named_parameters())
    missing = [theirs for path, theirs in sources.values() if theirs not in shapes[path]]
    wrong = [f"{theirs} is {shapes[path][theirs]}, wanted {tuple(own[ours].shape)}" for ours, (path, theirs) in sources.items()
             if theirs in shapes[path] and shapes[path][theirs] != tuple(own[ours].shape)]
    extra = sorted({name for names in shapes.values() for name in names} - {theirs for _, theirs in sources.values()})
    complaint = "; ".join(f"{what}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}" for what, names in
                          (("missing", missing), ("wrong shape", wrong), ("not expected", extra)) if names)
    if complaint:
        raise UserError(f"the weights in {where} do not fit its config: {complaint}")
    for ours, (path, theirs) in sources.items():
        with open_safetensors(path) as file:  # opened anew for each: a mapping that stays open keeps what was read from it in memory
            try:
                own[ours].copy_(file.get_tensor(theirs))
            except SafetensorError as error:
                raise UserError(f"{path} is damaged at {theirs} ({error}); copy it anew") from None


def load_qwen(folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu", window: int = 4096, stride: int = 64) -> SAGE:
    """A SAGE with Qwen2.5's weights, and Qwen2.5's logits for texts up to `window` tokens.

    Where the folder has a sage.safetensors, E_code, gate and smear come from it; else E_code = E_text, and the gate is drawn
    but cannot matter. `window` and `stride` are landmark attention's W and k. Raises UserError naming file and remedy.
    """
    folder = Path(folder).expanduser()
    config = replace(read_config(folder), window=window, landmark_stride=stride)
    files, additions = weight_files(folder), folder / "sage.safetensors"
    own: set[str] = set()
    if additions.exists():
        with open_safetensors(additions) as file:
            own = set(file.keys())
            kernel, width = file.get_slice("embedding.convolution").get_shape() if "embedding.convolution" in own else (config.gate_kernel, config.gate_width)
        config = replace(config, previous_token=any("smear" in name for name in own), gate_kernel=kernel, gate_width=width)
    model = allocate(config, dtype, device)
    sources = {}
    for name, _ in model.named_parameters():
        if theirs := qwen_name(name):
            sources[name] = files.get(theirs, next(iter(files.values()))), theirs  # a name no file has is looked for in the first, and listed as missing
        elif own:
            sources[name] = additions, name
    if config.tied and "lm_head.weight" in files:  # some tools write the tied head too; it must then be what it is tied to
        raise UserError(f"{folder} ties its head to the embedding and yet holds lm_head.weight; set tie_word_embeddings to false in config.json, or remove the tensor")
    fill(model, sources, folder)
    if not own:
        model.initialise(seed=0, only=OWN)
    return model.eval()


def save_qwen(model: SAGE, folder: str | Path, shard_bytes: int = 5 << 30) -> None:
    """Write a model as a Qwen2 folder that transformers opens, and SAGE's own parameters beside it.

    Transformers sees Qwen's part alone: its logits are SAGE's only while E_code = E_text, the smear is 0 and texts fit the
    window. An existing folder is replaced once the new one is complete. Raises UserError.
    """
    c, folder = model.config, Path(folder).expanduser()
    if c.embedding != "split" or c.activation != "swiglu" or c.norm != "rms":
        raise UserError(f"only SAGE's own block can be a Qwen2 folder; this model has embedding {c.embedding!r}, activation {c.activation!r}, norm {c.norm!r}")
    config = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", vocab_size=c.vocab_size, hidden_size=c.width, num_hidden_layers=c.layers,
                  num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, intermediate_size=c.feed_forward, max_position_embeddings=c.context,
                  rope_theta=c.rope_theta, rms_norm_eps=c.norm_eps, tie_word_embeddings=c.tied, hidden_act="silu", use_sliding_window=False,
                  torch_dtype=str(next(model.parameters()).dtype).removeprefix("torch."))
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    shards, size = [{}], 0
    for name, tensor in tensors.items():
        if theirs := qwen_name(name):
            if size and size + tensor.nbytes > shard_bytes:
                shards.append({})
                size = 0
            shards[-1][theirs], size = tensor, size + tensor.nbytes
    with written_aside(folder) as aside:
        names = ["model.safetensors"] if len(shards) == 1 else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        for name, shard in zip(names, shards):
            save_file(shard, aside / name, metadata={"format": "pt"})
        if len(shards) > 1:
            index = dict(metadata=dict(total_size=sum(t.nbytes for s in shards for t in s.values())), weight_map={t: name for name, s in zip(names, shards) for t in s})
            (aside / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        save_file({name: tensor for name, tensor in tensors.items() if qwen_name(name) is None}, aside / "sage.safetensors", metadata={"format": "pt"})
        (aside / "config.json").write_text(json.dumps(config, indent=1))


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder that is written beside its place and put there, whole, when the block ends; on an error nothing is left and the old one stays.

    A full disk becomes a UserError, whichever writer met it.
    """
    aside, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in aside.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if getattr(error, "errno", None) in full or any(f"os error {code}" in str(error) for code in full):
            raise UserError(f"no room to write {folder} ({error}); what was there before is intact: free some space, and a run goes on with --resume") from None
        raise
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------------
# A run's own checkpoints: out/toy/base/checkpoint-0000500/{model,optimizer}.safetensors and meta.json.

def save(folder: str | Path, config: Config, model: nn.Module, optimizers: list[torch.optim.Optimizer], step: int, loader: dict, keep: int = 2,
         heads: nn.Module | None = None, **more) -> Path:
    """Write checkpoint `step` of a run, then delete all but the last `keep`. `more` goes into meta.json. Returns its folder.

    `heads` (a ModuleDict: a value head, a meta-cognitive head) lie beside the decoder in heads.safetensors.
    """
    folder = Path(folder)
    state = {"random": torch.get_rng_state()}
    for number, optimizer in enumerate(optimizers):
        for index, entries in optimizer.state_dict()["state"].items():
            state |= {f"{number}.{index}.{key}": value for key, value in entries.items() if isinstance(value, Tensor)}
    meta = dict(step=step, loader=loader, settings=asdict(config), given=settings.given(config),
                commit=results.commit(), **more,
                versions=dict(python=platform.python_version(), torch=torch.__version__, safetensors=safetensors.__version__))
    target = folder / f"checkpoint-{step:07}"
    with written_aside(target) as aside:
        save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, aside / "model.safetensors")
        if heads is not None:
            save_file({name: p.detach().contiguous() for name, p in heads.named_parameters()}, aside / "heads.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, aside / "optimizer.safetensors")
        (aside / "meta.json").write_text(json.dumps(meta, indent=1))
    for old in checkpoints(folder)[:-keep]:
        old.rename(old.with_suffix(".deleted"))  # half of a deleted one must not pass for a whole
    for old in folder.glob("checkpoint-*.deleted"):
        shutil.rmtree(old)
    return target


def checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(p for p in Path(folder).glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit())


def latest(folder: str | Path) -> Path:
    """The newest checkpoint of a run. Raises UserError when there is none."""
    found = checkpoints(folder)
    if not found:
        raise UserError(f"no checkpoint in {folder}; train one with python train.py config/toy.py, or name another run's folder")
    return found[-1]


def read_meta(checkpoint: Path) -> tuple[dict, Config]:
    """A checkpoint's meta.json, and the settings in it, whichever version of the code made it.

    Raises UserError where it is missing or damaged, naming the checkpoint to go on from.
    """
    path = checkpoint / "meta.json"
    try:
        meta = json.loads(path.read_text())
        if not isinstance(meta["step"], int):
            raise ValueError(f"its step is {meta['step']!r}")
        return meta, settings.restored(meta["settings"])
    except FileNotFoundError:
        problem = "it is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        problem = f"{type(error).__name__}: {error}"
    before = [other for other in checkpoints(checkpoint.parent) if other < checkpoint]
    remedy = f"there is no checkpoint before it: delete {checkpoint.parent} to begin anew"
    if before:
        remedy = f"delete {checkpoint} to go on from {before[-1].name}"
    raise UserError(f"{path} cannot be read ({problem}); {remedy}")


def gone(meta: dict) -> list[str]:
    """Settings of a run that this version of the code does not have, as "name = value"."""
    known, stored = settings.flat(asdict(Config())), settings.flat(meta["settings"])
    return [f"{name} = {value!r}" for name, value in stored.items() if name not in known]


def identity(folder: str | Path) -> dict | None:
    """Which weights lie in a folder: the `step` of a run's newest checkpoint (None for weights of
    Qwen2.5) and a hash; None where there are none."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        return dict(step=None, weights=provenance.digest(*files))
    if not (found := checkpoints(folder)):
        return None
    weights = found[-1] / "model.safetensors"
    open_safetensors(weights)  # missing or cut short: said so
    step = int(found[-1].name.removeprefix("checkpoint-"))
    return dict(step=step, weights=provenance.digest(weights))


def tokenizer_record(tokenizer: Tokenizer) -> dict:
    """What meta.json says of the tokenizer that a model learns with."""
    return dict(name=tokenizer.name, hash=tokenizer.hash)


def tokenizer_of(folder: str | Path, name: str | Path) -> Tokenizer:
    """The tokenizer `name`, if the model in a run's folder, or in one of Qwen2.5 weights, was
    trained with it.

    Raises UserError where it was another one, told by its hash. That a tokenizer belongs to
    weights which come without one is taken on trust, and printed.
    """
    folder, tokenizer = Path(folder).expanduser(), tokenizers.load(name)
    own, remedy = None, "name its own in data.tokenizer"
    if (folder / "config.json").exists():
        rows = read_config(folder).vocab_size
        if any((folder / file).exists() for file in ("tokenizer.json", "vocab.json")):
            own = tokenizer_record(tokenizers.load(folder))
            remedy = f"give --data.tokenizer {folder}"
        else:
            print(f"note    {folder} has weights and no tokenizer: that {tokenizer.name} is theirs "
                  "is taken on trust")
    else:
        meta, stored = read_meta(latest(folder))
        rows, own = stored.model.vocab_size, meta.get("tokenizer")
        if own is None and "data" in meta:  # an older run of train.py: its token files say it
            text = meta["data"]["train"]
            own = dict(name=text["tokenizer"], hash=text["tokenizer_hash"])
    if own and own["hash"] != tokenizer.hash:
        raise UserError(f"the model in {folder} was trained with tokenizer {own['name']} "
                        f"({own['hash']}), and data.tokenizer {name} is {tokenizer.name} "
                        f"({tokenizer.hash}); {remedy}")
    if tokenizer.vocab_size > rows:
        raise UserError(f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens, the model "
                        f"of {folder} {rows}; {remedy}")
    return tokenizer


def load(checkpoint: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer] = (), heads: nn.Module | None = None) -> None:
    """Fill a model, its heads, and optimisers with the random state, as far as they are given, from a checkpoint. Raises UserError."""
    for module, path in ((model, checkpoint / "model.safetensors"), (heads, checkpoint / "heads.safetensors")):
        if module is not None:
            fill(module, {name: (path, name) for name, _ in module.named_parameters()}, checkpoint)
    if optimizers:
        with open_safetensors(checkpoint / "optimizer.safetensors") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
        torch.set_rng_state(state.pop("random"))
        for number, optimizer in enumerate(optimizers):
            entries: dict[int, dict[str, Tensor]] = {}
            for name, tensor in state.items():
                which, index, key = name.split(".", 2)
                if int(which) == number:
                    entries.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict(dict(state=entries, param_groups=optimizer.state_dict()["param_groups"]))


def load_run(folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[SAGE, Config, dict]:
    """The newest model of a run, with its settings and meta. Raises UserError."""
    checkpoint = latest(folder)
    meta, config = read_meta(checkpoint)
    model = allocate(config.model, dtype, device)
    load(checkpoint, model)
    return model.eval(), config, meta


def load_heads(folder: str | Path, config: Model, device: str = "cpu") -> Heads:
    """The heads of a run's newest checkpoint for a decoder of the shape `config`, float32.

    Raises UserError where the run has none (a folder of Qwen2.5 weights never has, a run of rl.py may have a value head alone), where they
    are damaged, or where they were trained for another shape. Heads(config) are untrained ones, and say so in `trained`.
    """
    found = checkpoints(folder)
    path, names = found[-1] / "heads.safetensors" if found else Path(folder), []
    if path.is_file():
        with open_safetensors(path) as file:
            names = list(file.keys())
    if "trained" not in names:
        raise UserError(f"{folder} has no thinking heads; train them with python heads.py config/toy.py --heads.start {folder}, and name the run it writes")
    heads = Heads(config)
    fill(heads, {name: (path, name) for name, _ in heads.named_parameters()}, found[-1])
    return heads.to(device).eval()
