"""Weights in and out: Qwen2.5's folders, and the checkpoints of our own runs.

- `load_qwen(folder)` reads what transformers writes (config.json, one or many safetensors files);
  `save_qwen` writes it back, and a folder saved here opens in transformers as Qwen2. What SAGE adds
  (E_code, the gate, the smear) lies beside it in sage.safetensors, which transformers does not look
  at. Tensor by tensor: memory never holds the model twice.
- `save` and `load` are a run's checkpoints: weights, optimiser, random state and a readable
  meta.json. Everything is written aside
  and renamed, so a run killed at any moment leaves the checkpoints it had.
"""

import contextlib
import errno
import functools
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from support import settings
from support import provenance
from support import result_tables as results
from support import tokenizer as tokenizers
from config import Config, Model, UserError
from mch import ThinkingHeads
from model import SAGE
from support.tokenizer import Tokenizer

# ---------------------------------------------------------------------------------------------------------------------
# Qwen2.5 folders.

OWN = (
    "embedding.code",
    "embedding.ids",
    "embedding.convolution",
    "embedding.out",
    "attention.smear",
)  # what Qwen does not have


def qwen_name(name: str) -> str | None:
    """Qwen's name of our parameter; None for SAGE's own."""
    if any(own in name for own in OWN):
        return None
    for ours, theirs in (
        ("blocks.", "model.layers."),
        ("attention_norm", "input_layernorm"),
        ("feed_forward_norm", "post_attention_layernorm"),
        ("attention.", "self_attn."),
        ("feed_forward.", "mlp."),
        ("embedding.text", "model.embed_tokens"),
        ("head.", "lm_head."),
    ):
        name = name.replace(ours, theirs)
    if "self_attn." in name or "mlp." in name:
        *front, last, kind = name.split(".")
        name = ".".join([*front, last + "_proj", kind])
    return "model." + name if name == "norm.weight" else name


@functools.cache
def note(text: str) -> None:
    """Say something on stderr, once per process however often a folder is read."""
    print(f"note: {text}", file=sys.stderr)


# What config.json may say of these keys, where it has them; SAGE's block computes nothing else.
BUILT = dict(
    hidden_act=("silu", "swish"),
    is_causal=(True,),  # False in embedding models: transformers 5 then drops the causal mask
    partial_rotary_factor=(1, None),  # some readers turn only a part of the head, transformers all
    per_layer_config=(None, {}),  # transformers 5: layers that differ
    auto_map=(None, {}),  # the folder brings its own modelling code
    transformers_weights=(None,),  # transformers 5: another file than model.safetensors
    fusion_config=(None, {}),  # transformers 5: matrices that are stored as one
    architectures=(None, [], ["Qwen2ForCausalLM"]),
)
# Read below. And without effect on logits: training, generation, labels, by what it was saved.
READ = """model_type vocab_size hidden_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim intermediate_size max_position_embeddings rope_theta
    rope_scaling rope_parameters
    rms_norm_eps tie_word_embeddings use_sliding_window sliding_window max_window_layers layer_types
    quantization_config quantization compression_config""".split()
HARMLESS = """_name_or_path name_or_path transformers_version torch_dtype dtype initializer_range
    use_cache attention_dropout bos_token_id eos_token_id pad_token_id id2label label2id num_labels
    problem_type return_dict output_hidden_states output_attentions chunk_size_feed_forward
    is_encoder_decoder is_decoder attn_implementation _attn_implementation
    _attn_implementation_autoset use_mrope unsloth_version unsloth_fixed model_name
    """.split()


def read_config(folder: Path) -> Model:
    """Our settings from a folder's config.json, each as transformers' Qwen2Config reads it.

    A key that nothing here knows is told on stderr and otherwise ignored, as transformers does.
    Raises UserError where the file is missing, or asks for what SAGE's block does not compute.
    """
    path = folder / "config.json"
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} is a LoRA adapter (adapter_config.json), not a whole model; merge it into "
            "its base model (peft: merge_and_unload), save that, and name its folder"
        )
    if not path.exists():
        raise UserError(
            f"no model at {folder}: wanted a folder with config.json and safetensors files"
        )
    try:
        c = json.loads(path.read_text(encoding="utf-8"))
        if c.get("model_type") != "qwen2":
            raise UserError(
                f"{path} describes a {c.get('model_type')!r} model; "
                "only qwen2 (Qwen2, Qwen2.5) is read"
            )
        if faults := unbuilt(c):
            raise UserError(
                f"{path} asks for what is not built here: {'; '.join(faults)}; wanted a plain "
                "Qwen2ForCausalLM: unquantised, rotary positions unscaled, no sliding window"
            )
        model = Model(
            vocab_size=c["vocab_size"],
            width=c["hidden_size"],
            layers=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            kv_heads=or_else(c.get("num_key_value_heads", 32), c["num_attention_heads"]),
            head_dim=or_else(c.get("head_dim"), c["hidden_size"] // c["num_attention_heads"]),
            feed_forward=c["intermediate_size"],
            context=c.get("max_position_embeddings", 32_768),
            rope_theta=rotary_settings(c).get("rope_theta", c.get("rope_theta", 10_000.0)),
            norm_eps=c.get("rms_norm_eps", 1e-6),
            tied=c.get("tie_word_embeddings", False),
        )
        settings.validate(model, "model.")
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{path} cannot be read as a Qwen2 config ({type(error).__name__}: {error}); "
            "copy it anew"
        ) from None
    unknown = [key for key in c if c[key] and key not in {*BUILT, *READ, *HARMLESS}]
    if unknown:
        note(
            f"{path} has settings that Qwen2 does not have, ignored here as by transformers: "
            + ", ".join(unknown)
        )
    return model


def or_else(value, default):
    """The value, or the default for null."""
    return default if value is None else value


def rotary_settings(c: dict) -> dict:
    """The rotary settings of a config.json: both names may be there, transformers looks so."""
    return c.get("rope_scaling") or c.get("rope_parameters") or {}


def unbuilt(c: dict) -> list[str]:
    """What a Qwen2 config.json asks for and SAGE's block does not compute; empty: nothing."""
    given = {key: c[key] for key in BUILT if key in c}
    faults = [f"{key} {value!r}" for key, value in given.items() if value not in BUILT[key]]
    for key in ("quantization_config", "compression_config", "quantization"):
        if c.get(key):
            method = c[key].get("quant_method") or f"{c[key].get('bits', '?')} bits"
            faults.append(f"quantised weights ({key}: {method})")
            break
    rope = rotary_settings(c)
    if nested := [key for key, value in rope.items() if isinstance(value, dict)]:
        faults.append(f"rotary settings for each layer type ({', '.join(nested)})")
    elif (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
        faults.append(f"{kind!r} rotary scaling")
    elif rest := {
        key: value
        for key, value in rope.items()
        if key not in ("rope_theta", "rope_type", "type") and value not in BUILT.get(key, (None,))
    }:
        faults.append(f"rotary settings {rest}")
    layers = c["num_hidden_layers"]
    kinds = c.get("layer_types") or ["full_attention"] * layers
    if c.get("use_sliding_window"):  # which layers then slide, versions differ on
        faults.append("a sliding window (set use_sliding_window to false where no layer slides)")
    elif kinds != ["full_attention"] * layers:
        named = ", ".join(sorted(set(map(str, kinds)))) or "none"
        faults.append(f"sliding windows or other attention ({layers} layers of {named})")
    return faults


def open_safetensors(path: Path):
    """A safetensors file, opened; UserError where it is missing, truncated or no such file."""
    if not path.exists():
        raise UserError(
            f"{path} is missing, though its folder needs it; copy it from where the model came from, or delete a run's checkpoint that lacks it"
        )
    try:
        return safetensors.safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or cut short ({error}); copy it anew, or delete it if it is a run's checkpoint"
        ) from None


def weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor: model.safetensors where it is, else the index's shards.

    The order is transformers'; where a folder has both and they are not the same file, that is told
    on stderr. Raises UserError for files that are missing or hold other things than such weights.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    files: dict[str, Path] = {}
    if index.exists():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {name: folder / file for name, file in weight_map.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{index} is no weight index ({type(error).__name__}: {error}); copy it anew"
            ) from None
    if whole.exists():
        if set(files.values()) - {whole}:
            note(
                f"{folder} has two sets of weights, {whole.name} and the shards of {index.name}; "
                f"{whole.name} is read, as transformers does; delete the one that is not meant"
            )
        files = {}
        paths = [whole]
    elif files:
        paths = sorted(set(files.values()))
    else:
        suffixes = (".bin", ".pt", ".pth", ".gguf")
        other = sorted(path.name for path in folder.glob("*") if path.suffix in suffixes)
        hint = "; {} is not read: load it with transformers, then save_pretrained"
        raise UserError(
            f"no weights in {folder}: wanted model.safetensors, "
            "or model.safetensors.index.json and its shards"
            + (hint.format(", ".join(other[:4])) if other else "")
        )
    held: dict[str, Path] = {}
    for path in paths:  # every file is looked at before memory is spent
        with open_safetensors(path) as file:
            held |= {name: path for name in file.keys()}
    if not held:
        raise UserError(f"the weights in {folder} hold no tensor; copy the folder anew")
    refuse_foreign_names(folder, held)
    return files | held  # a file's own word counts more than the index's


# What quantisers add beside, or put in the place of, a matrix's `.weight`
QUANTISED = re.compile(
    r"[._](qweight|qzeros|scales?|g_idx|weight_scale(_\w+)?|(in|out)put_scale|absmax|quant_map|"
    r"quant_state\S*|SCB|weight_format|weight_packed|weight_shape|weight_zero_point|weight_g_idx|"
    r"biases|codebooks|codes|\w*qdata|q_weight|q_scale\w*|q_groups|q_invperm|trellis|W_q|_data|"
    r"_scale|zeros|zero_point|scale_inv|centroids|indices)$"
)


def refuse_foreign_names(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError for weights that are quantised, or not named as Qwen2ForCausalLM's are."""
    if scaled := [name for name in names if QUANTISED.search(name)]:
        raise UserError(
            f"the weights in {folder} are quantised ({', '.join(sorted(scaled)[:3])} …); "
            "wanted float32, float16 or bfloat16 ones, so name the folder they were made from"
        )
    if "model.embed_tokens.weight" in names:
        return
    for name in names:
        found = re.fullmatch(r"(.*?)(embed_tokens\.weight|layers\.0\.self_attn\.q_proj\.\S+)", name)
        if found and found[1] != "model.":
            raise UserError(
                f"the tensors in {folder} have other names than Qwen2ForCausalLM's: "
                f"{name}, wanted model.{found[2]}; save the whole causal language model, "
                "without a wrapper, by its own save_pretrained"
            )


def allocate(config: Model, dtype: torch.dtype, device: str) -> SAGE:
    """A model whose weights are allocated and not yet filled."""
    with torch.device("meta"):
        model = SAGE(config, seed=None).to(dtype)
    return model.to_empty(device=device)


@torch.no_grad()
def fill(
    model: nn.Module,
    sources: dict[str, tuple[Path, str]],
    where: Path,
    paths: Iterable[Path] = (),
    ignored: Iterable[str] = (),
) -> None:
    """Copy tensors into parameters, one at a time. `sources` maps our name to (file, name in it).

    Raises UserError, one that lists all that is wrong: tensors that are missing, of another shape,
    not of floats, or that the files (those of `paths` too) hold beside the sources and `ignored`.
    """
    shapes: dict[Path, dict[str, tuple]] = {}
    kinds: dict[str, str] = {}
    for path in {*paths, *(path for path, _ in sources.values())}:
        with open_safetensors(path) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            shapes[path] = {name: tuple(part.get_shape()) for name, part in slices.items()}
            kinds |= {name: part.get_dtype() for name, part in slices.items()}
    own = dict(model.named_parameters())
    missing = [theirs for path, theirs in sources.values() if theirs not in shapes[path]]
    wrong = [
        f"{theirs} is {shapes[path][theirs]}, wanted {tuple(own[ours].shape)}"
        for ours, (path, theirs) in sources.items()
        if theirs in shapes[path] and shapes[path][theirs] != tuple(own[ours].shape)
    ]
    extra = sorted(
        {name for names in shapes.values() for name in names}
        - {theirs for _, theirs in sources.values()}
    )
    extra = [name for name in extra if name not in ignored]
    quantised = [
        f"{theirs} is {kinds[theirs]}, wanted F32, F16 or BF16"
        for _, theirs in sources.values()
        if kinds.get(theirs, "F32") not in ("F64", "F32", "F16", "BF16")
    ]
    complaint = "; ".join(
        f"{what}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
        for what, names in (
            ("missing", missing),
            ("quantised", quantised),
            ("wrong shape", wrong),
            ("not expected", extra),
        )
        if names
    )
    if complaint:
        raise UserError(f"the weights in {where} do not fit its config: {complaint}")
    for ours, (path, theirs) in sources.items():
        with (
            open_safetensors(path) as file
        ):  # opened anew for each: a mapping that stays open keeps what was read from it in memory
            try:
                own[ours].copy_(file.get_tensor(theirs))
            except SafetensorError as error:
                raise UserError(f"{path} is damaged at {theirs} ({error}); copy it anew") from None


def is_qwen(folder: str | Path) -> bool:
    """Whether a folder is one of Qwen2.5 weights (or means to be), not a run of ours."""
    folder = Path(folder).expanduser()
    restore(folder)
    return any((folder / name).exists() for name in ("config.json", "adapter_config.json"))


def load_qwen(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    window: int = Model.window,
    stride: int = Model.landmark_stride,
) -> SAGE:
    """A SAGE with Qwen2.5's weights, and Qwen2.5's logits for texts up to `window` tokens.

    Where the folder has a sage.safetensors, E_code, gate and smear come from it; else E_code =
    E_text, and the gate is drawn but cannot matter. `window` and `stride` are landmark attention's
    W and k. Raises UserError naming file and remedy.
    """
    folder = Path(folder).expanduser()
    restore(folder)
    config = replace(read_config(folder), window=window, landmark_stride=stride)
    files, additions = weight_files(folder), folder / "sage.safetensors"
    own: set[str] = set()
    if additions.exists():
        with open_safetensors(additions) as file:
            own = set(file.keys())
            kernel, width = config.prose_kernel, config.prose_width
            if "embedding.convolution" in own:
                kernel, width = file.get_slice("embedding.convolution").get_shape()
        smeared = any("smear" in name for name in own)
        config = replace(config, previous_token=smeared, prose_kernel=kernel, prose_width=width)
    ignored = [name for name in files if name.endswith("rotary_emb.inv_freq")]  # θ says it
    if config.tied and "lm_head.weight" in files:
        if not equal_tensors(files, "lm_head.weight", "model.embed_tokens.weight"):
            raise UserError(
                f"{folder} ties its head to the embedding (tie_word_embeddings in config.json) and "
                "holds another lm_head.weight; set the key to false, or remove the tensor"
            )
        ignored.append("lm_head.weight")
    if not config.tied and "lm_head.weight" not in files:
        raise UserError(
            f"{folder} has no lm_head.weight, and its config.json does not tie the head to the "
            "embedding; set tie_word_embeddings to true if they are one matrix, or copy it anew"
        )
    model = allocate(config, dtype, device)
    somewhere = next(iter(files.values()))  # a name no file has is listed as missing there
    sources = {}
    for name, _ in model.named_parameters():
        if theirs := qwen_name(name):
            sources[name] = files.get(theirs, somewhere), theirs
        elif own:
            sources[name] = additions, name
    fill(model, sources, folder, set(files.values()), ignored)
    if not own:
        model.initialise(seed=0, only=OWN)
    model.dense = True
    return model.eval()


def equal_tensors(files: dict[str, Path], one: str, other: str, rows: int = 4096) -> bool:
    """Whether two matrices are equal in shape, type and every value, read `rows` at a time."""
    if other not in files:
        return False
    with open_safetensors(files[one]) as first, open_safetensors(files[other]) as second:
        a, b = first.get_slice(one), second.get_slice(other)
        if (a.get_shape(), a.get_dtype()) != (b.get_shape(), b.get_dtype()):
            return False
        starts = range(0, a.get_shape()[0], rows)
        parts = (slice(start, start + rows) for start in starts)
        return all(torch.equal(a[part], b[part]) for part in parts)


def save_qwen(model: SAGE, folder: str | Path, shard_bytes: int = 5 << 30) -> None:
    """Write a model as a Qwen2 folder that transformers opens, and SAGE's own parameters beside it.

    Transformers sees Qwen's part alone: its logits are SAGE's only while E_code = E_text, the smear
    is 0 and texts fit the
    window. An existing folder is replaced once the new one is complete. Raises UserError.
    """
    c, folder = model.config, Path(folder).expanduser()
    if c.embedding != "split" or c.activation != "swiglu" or c.norm != "rms":
        raise UserError(
            f"only SAGE's own block can be a Qwen2 folder; this model has embedding {c.embedding!r}, activation {c.activation!r}, norm {c.norm!r}"
        )
    config = dict(
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        intermediate_size=c.feed_forward,
        max_position_embeddings=c.context,
        rope_theta=c.rope_theta,
        rms_norm_eps=c.norm_eps,
        tie_word_embeddings=c.tied,
        hidden_act="silu",
        use_sliding_window=False,
        torch_dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
    )
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    shards, size = [{}], 0
    for name, tensor in tensors.items():
        if theirs := qwen_name(name):
            if size and size + tensor.nbytes > shard_bytes:
                shards.append({})
                size = 0
            shards[-1][theirs], size = tensor, size + tensor.nbytes
    with written_aside(folder) as aside:
        names = (
            ["model.safetensors"]
            if len(shards) == 1
            else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        )
        for name, shard in zip(names, shards):
            save_file(shard, aside / name, metadata={"format": "pt"})
        if len(shards) > 1:
            index = dict(
                metadata=dict(total_size=sum(t.nbytes for s in shards for t in s.values())),
                weight_map={t: name for name, s in zip(names, shards) for t in s},
            )
            (aside / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        save_file(
            {name: tensor for name, tensor in tensors.items() if qwen_name(name) is None},
            aside / "sage.safetensors",
            metadata={"format": "pt"},
        )
        (aside / "config.json").write_text(json.dumps(config, indent=1))


def restore(folder: Path) -> None:
    """Put back what a writer of `folder` had moved away when it was killed.

    FOLDER.old exists only between the renames of `written_aside`, and is always a whole version.
    """
    old = folder.with_name(folder.name + ".old") if folder.name else folder
    if not folder.exists() and old.exists():
        with contextlib.suppress(FileNotFoundError):  # another reader was quicker
            old.rename(folder)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder that is written beside its place and put there, whole, when the block ends.

    Killed at any moment it leaves a whole version: in FOLDER, or between the two renames in
    FOLDER.old, whence the next reader or writer puts it back (`restore`). FOLDER.tmp never counts.
    On an error nothing is left and the old version stays. Raises UserError for a full disk,
    whichever writer met it, and where FOLDER is a file.
    """
    folder = folder.resolve()
    aside, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    if folder.is_file():
        raise UserError(f"{folder} is a file; wanted a folder to write to, name another")
    restore(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():  # replaced already, when a writer was killed
        old.rename(aside)
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in [*aside.iterdir(), aside]:
            sync(path)
        while True:
            if folder.exists():
                folder.rename(old)
            try:
                aside.rename(folder)
                break
            except OSError as error:  # a reader may have put the old version back in between
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        sync(folder.parent)
    except BaseException as error:
        restore(folder)
        shutil.rmtree(aside, ignore_errors=True)
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if getattr(error, "errno", None) in full or any(
            f"os error {code}" in str(error) for code in full
        ):
            raise UserError(
                f"no room to write {folder} ({error}); what was there before is intact: free some space, and a run goes on with --resume"
            ) from None
        raise
    if old.exists():
        old.rename(aside)  # so that what is half deleted is never called .old
        shutil.rmtree(aside, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------------
# A run's own checkpoints: out/toy/base/checkpoint-0000500/{model,optimizer}.safetensors and
# meta.json.


def save(
    folder: str | Path,
    config: Config,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    loader: dict,
    keep: int = 2,
    heads: nn.Module | None = None,
    **more,
) -> Path:
    """Write checkpoint `step` of a run, then delete all but the last `keep`. `more` goes into
    meta.json. Returns its folder.

    `heads` (a ModuleDict: a value head, a meta-cognitive head) lie beside the decoder in
    heads.safetensors.
    """
    folder = Path(folder)
    state = {"random": torch.get_rng_state()}
    for number, optimizer in enumerate(optimizers):
        for index, entries in optimizer.state_dict()["state"].items():
            state |= {
                f"{number}.{index}.{key}": value
                for key, value in entries.items()
                if isinstance(value, Tensor)
            }
    meta = dict(
        layout=LAYOUT,
        step=step,
        loader=loader,
        settings=asdict(config),
        given=settings.not_default(config),
        commit=results.commit(),
        **more,
        versions=dict(
            python=platform.python_version(),
            torch=torch.__version__,
            safetensors=safetensors.__version__,
        ),
    )
    target = folder / f"checkpoint-{step:07}"
    with written_aside(target) as aside:
        save_file(
            {name: p.detach().contiguous() for name, p in model.named_parameters()},
            aside / "model.safetensors",
        )
        if heads is not None:
            save_file(
                {name: p.detach().contiguous() for name, p in heads.named_parameters()},
                aside / "heads.safetensors",
            )
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            aside / "optimizer.safetensors",
        )
        (aside / "meta.json").write_text(json.dumps(meta, indent=1))
    for old in checkpoints(folder)[:-keep]:
        old.rename(old.with_suffix(".deleted"))  # half of a deleted one must not pass for a whole
    for old in folder.glob("checkpoint-*.deleted"):
        shutil.rmtree(old)
    return target


def checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    for old in Path(folder).glob("checkpoint-*.old"):
        restore(old.with_suffix(""))
    return sorted(
        p for p in Path(folder).glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()
    )


def latest(folder: str | Path) -> Path:
    """The newest checkpoint of a run. Raises UserError when there is none."""
    found = checkpoints(folder)
    if not found:
        raise UserError(
            f"no checkpoint in {folder}; train one with python train.py config/toy.py, or name another run's folder"
        )
    return found[-1]


# Of a run's folder, in meta.json; raised when folders of an earlier one cannot be gone on with.
# 2: stage distill is what were stages amplify and vary.
LAYOUT = 2
COMMANDS = {  # stage → how to make it
    "base": "python train.py config/toy.py",
    "distilled": "python distill.py config/toy.py --stage distill",
    "reflected": "python distill.py config/toy.py --stage reflect",
    "safe": "python rl.py config/toy.py --stage dpo",
    "sage": "python rl.py config/toy.py --stage ppo",
    "thinking": "python heads.py config/toy.py",
}
FORMER_STAGES = {"amplified": ("amplify", "distilled"), "varied": ("vary", "distilled")}


class OtherLayout(UserError):
    """A run's folder that another version of the project wrote."""


def refuse_other_layout(folder: Path, meta: dict) -> None:
    """Raise OtherLayout where a run's folder was written by another layout of the project."""
    layout = meta.get("layout", 1)
    if layout == LAYOUT:
        return
    former, stage = FORMER_STAGES.get(meta.get("stage"), (None, meta.get("stage", "base")))
    age = "a newer" if isinstance(layout, int) and layout > LAYOUT else "an older"
    remedy = f"make it anew with {COMMANDS[stage]}" if stage in COMMANDS else "make it anew"
    raise OtherLayout(
        f"{folder} was written by {age} layout of this project (stage {former or stage}); {remedy}"
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


def gone(meta: dict) -> list[str]:
    """Settings of a run that this version of the code does not have, as "name = value"."""
    known, stored = settings.flatten(asdict(Config())), settings.flatten(meta["settings"])
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
            print(
                f"note    {folder} has weights and no tokenizer: that {tokenizer.name} is theirs "
                "is taken on trust"
            )
    else:
        meta, stored = read_meta(latest(folder))
        rows, own = stored.model.vocab_size, meta.get("tokenizer")
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


def load(
    checkpoint: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer] = (),
    heads: nn.Module | None = None,
) -> None:
    """Fill a model, its heads, and optimisers with the random state, as far as they are given, from
    a checkpoint. Raises UserError.
    """
    for module, path in (
        (model, checkpoint / "model.safetensors"),
        (heads, checkpoint / "heads.safetensors"),
    ):
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
            optimizer.load_state_dict(
                dict(state=entries, param_groups=optimizer.state_dict()["param_groups"])
            )


def load_run(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[SAGE, Config, dict]:
    """The newest model of a run, with its settings and meta. Raises UserError."""
    checkpoint = latest(folder)
    meta, config = read_meta(checkpoint)
    model = allocate(config.model, dtype, device)
    load(checkpoint, model)
    return model.eval(), config, meta


def load_heads(folder: str | Path, config: Model, device: str = "cpu") -> ThinkingHeads:
    """The heads of a run's newest checkpoint for a decoder of the shape `config`, float32.

    Raises UserError where the run has none (a folder of Qwen2.5 weights never has, a run of rl.py
    may have a value head alone), where they are damaged, or where they were trained for another
    shape. ThinkingHeads(config) are untrained ones, and say so in `trained`.
    """
    found = checkpoints(folder)
    path, names = found[-1] / "heads.safetensors" if found else Path(folder), []
    if path.is_file():
        with open_safetensors(path) as file:
            names = list(file.keys())
    if "trained" not in names:
        raise UserError(
            f"{folder} has no thinking heads; train them with python heads.py config/toy.py --heads.start {folder}, and name the run it writes"
        )
    heads = ThinkingHeads(config)
    fill(heads, {name: (path, name) for name, _ in heads.named_parameters()}, found[-1])
    return heads.to(device).eval()
