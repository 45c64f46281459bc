"""Qwen2.5's folders in and out.

`load_pretrained(folder)` reads what transformers writes (config.json, one or many safetensors
files); `save_pretrained` writes it back, and a folder saved here opens in transformers as Qwen2.
What SAGE adds (E_code, the gate, the smear) lies beside it in sage.safetensors, which transformers
does not read.
"""

import functools
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import parallel
from support import ranks
from config import Model, UserError
from model import SAGE
from support import settings
from support.weights import (
    Parallelise,
    allocate_model,
    check_weights,
    copy_rows,
    open_safetensors,
    outline,
    restore_folder,
    written_aside,
)

# What Qwen does not have.
SAGE_ONLY = (
    "embedding.code",
    "embedding.ids",
    "embedding.convolution",
    "embedding.out",
    "attention.smear",
)


def tensor_name(name: str) -> str | None:
    """Qwen's name of our parameter; None for SAGE's own."""
    if any(own in name for own in SAGE_ONLY):
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
def note_once(text: str) -> None:
    """Say something on stderr, once per process however often a folder is read."""
    print(f"note: {text}", file=sys.stderr)


# ------------------------------------------------------------------------------------------------
# config.json.

# What config.json may say of these keys, where it has them; SAGE's block computes nothing else.
SUPPORTED = dict(
    hidden_act=("silu", "swish"),
    is_causal=(True,),  # False in embedding models: transformers 5 then drops the causal mask
    partial_rotary_factor=(1, None),  # some readers turn only a part of the head, transformers all
    per_layer_config=(None, {}),  # transformers 5: layers that differ
    auto_map=(None, {}),  # the folder brings its own modelling code
    transformers_weights=(None,),  # transformers 5: another file than model.safetensors
    fusion_config=(None, {}),  # transformers 5: matrices that are stored as one
    architectures=(None, [], ["Qwen2ForCausalLM"]),
)
# Keys that are read below; then keys without effect on logits (training, generation, origin).
READ_KEYS = """model_type vocab_size hidden_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim intermediate_size max_position_embeddings rope_theta
    rope_scaling rope_parameters
    rms_norm_eps tie_word_embeddings use_sliding_window sliding_window max_window_layers layer_types
    quantization_config quantization compression_config""".split()
HARMLESS_KEYS = """_name_or_path name_or_path transformers_version torch_dtype dtype
    initializer_range
    use_cache attention_dropout bos_token_id eos_token_id pad_token_id id2label label2id num_labels
    problem_type return_dict output_hidden_states output_attentions chunk_size_feed_forward
    is_encoder_decoder is_decoder attn_implementation _attn_implementation
    _attn_implementation_autoset use_mrope unsloth_version unsloth_fixed model_name
    """.split()


def read_pretrained_config(folder: Path) -> Model:
    """Our settings from a folder's config.json, each as transformers' Qwen2Config reads it.

    An unknown key is noted on stderr and otherwise ignored, as transformers does. Raises UserError
    where the file is missing, or asks for what SAGE's block does not compute.
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
        if faults := unsupported_settings(c):
            raise UserError(
                f"{path} asks for what is not built here: {'; '.join(faults)}; wanted a plain "
                "Qwen2ForCausalLM: unquantised, rotary positions unscaled, no sliding window"
            )
        model = Model(
            vocab_size=c["vocab_size"],
            width=c["hidden_size"],
            layers=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            kv_heads=_or_else(c.get("num_key_value_heads", 32), c["num_attention_heads"]),
            head_dim=_or_else(c.get("head_dim"), c["hidden_size"] // c["num_attention_heads"]),
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
    unknown = [key for key in c if c[key] and key not in {*SUPPORTED, *READ_KEYS, *HARMLESS_KEYS}]
    if unknown:
        note_once(
            f"{path} has settings that Qwen2 does not have, ignored here as by transformers: "
            + ", ".join(unknown)
        )
    return model


def _or_else(value, default):
    """The value, or the default for null."""
    return default if value is None else value


def rotary_settings(c: dict) -> dict:
    """The rotary settings of a config.json: both names may be there, transformers looks so."""
    return c.get("rope_scaling") or c.get("rope_parameters") or {}


def unsupported_settings(c: dict) -> list[str]:
    """What a Qwen2 config.json asks for and SAGE's block does not compute; empty: nothing."""
    given = {key: c[key] for key in SUPPORTED if key in c}
    faults = [f"{key} {value!r}" for key, value in given.items() if value not in SUPPORTED[key]]
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
        if key not in ("rope_theta", "rope_type", "type")
        and value not in SUPPORTED.get(key, (None,))
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


# ------------------------------------------------------------------------------------------------
# The weights.


def weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor: model.safetensors where it is, else the index's shards.

    The order is transformers'; where a folder has both and they are not the same file, a note on
    stderr says so. Raises UserError for files that are missing or hold anything else.
    """
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
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
            note_once(
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


def is_pretrained(folder: str | Path) -> bool:
    """Whether a folder is one of Qwen2.5 weights (or means to be), not a run of ours."""
    folder = Path(folder).expanduser()
    restore_folder(folder)
    return any((folder / name).exists() for name in ("config.json", "adapter_config.json"))


def load_pretrained(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    window: int = Model.window,
    stride: int = Model.landmark_stride,
    parallelise: Parallelise | None = None,
) -> SAGE:
    """A SAGE with Qwen2.5's weights, and Qwen2.5's logits for texts up to `window` tokens.

    Where the folder has a sage.safetensors, E_code, gate and smear come from it; else E_code =
    E_text, and the gate is drawn but cannot matter. `window` and `stride` are landmark attention's
    W and k. Of a model that `parallelise` shards, each rank reads its own rows alone. Raises
    UserError naming file and remedy, on all ranks alike.
    """
    folder = Path(folder).expanduser()
    with ranks.fail_together():
        config, sources = plan_reading(folder)
    config = replace(config, window=window, landmark_stride=stride)
    model = allocate_model(config, dtype, device, parallelise)
    parameters = dict(model.named_parameters())
    with ranks.fail_together():
        for name, (path, theirs) in sources.items():
            copy_rows(path, {theirs: parameters[name]})
    if len(sources) < len(parameters):
        parallel.initialise(model, seed=0, only=SAGE_ONLY)
    model.dense = True
    return model.eval()


def plan_reading(folder: Path) -> tuple[Model, dict[str, tuple[Path, str]]]:
    """The shape of a folder's model, and for each parameter that is read the file and the name in
    it. Everything is compared before memory is spent. Raises UserError.
    """
    restore_folder(folder)
    config = read_pretrained_config(folder)
    files = weight_files(folder)
    additions = folder / "sage.safetensors"
    own: set[str] = set()
    if additions.exists():
        with open_safetensors(additions) as file:
            own = set(file.keys())
            kernel = config.prose_kernel
            width = config.prose_width
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
    parameters = dict(outline(config, torch.float32).named_parameters())
    somewhere = next(iter(files.values()))  # a name no file has is listed as missing there
    sources = {}
    for name in parameters:
        theirs = tensor_name(name)
        if theirs:
            sources[name] = (files.get(theirs, somewhere), theirs)
        elif own:
            sources[name] = (additions, name)
    check_weights(parameters, sources, folder, paths=set(files.values()), ignored=ignored)
    return config, sources


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


def config_shape(c: Model) -> dict:
    """The shape of a model by the keys of Qwen2's config.json."""
    return dict(
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
    )


def save_pretrained(model: SAGE, folder: str | Path, shard_bytes: int = 5 << 30) -> None:
    """Write a model as a Qwen2 folder that transformers opens, and SAGE's own parameters beside it.

    Transformers sees Qwen's part alone: its logits are SAGE's only while E_code = E_text, the smear
    is 0 and texts fit the window. An existing folder is replaced once the new one is complete.
    Raises UserError.
    """
    c = model.config
    if c.embedding != "split" or c.activation != "swiglu" or c.norm != "rms":
        raise UserError(
            "only SAGE's own block can be a Qwen2 folder; this model has "
            f"embedding {c.embedding!r}, activation {c.activation!r}, norm {c.norm!r}"
        )
    config = dict(
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        **config_shape(c),
        hidden_act="silu",
        use_sliding_window=False,
        torch_dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
    )
    own = {}
    shards = [{}]
    size = 0  # bytes in the last shard
    for name, parameter in model.named_parameters():
        tensor = parameter.detach()
        theirs = tensor_name(name)
        if theirs is None:
            own[name] = tensor
            continue
        if size and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][theirs] = tensor
        size += tensor.nbytes
    names = ["model.safetensors"]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    with written_aside(Path(folder).expanduser()) as aside:
        for name, shard in zip(names, shards):
            save_file(shard, aside / name, metadata={"format": "pt"})
        if len(shards) > 1:
            total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
            weight_map = {theirs: name for name, shard in zip(names, shards) for theirs in shard}
            index = dict(metadata=dict(total_size=total), weight_map=weight_map)
            (aside / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        save_file(own, aside / "sage.safetensors", metadata={"format": "pt"})
        (aside / "config.json").write_text(json.dumps(config, indent=1))
