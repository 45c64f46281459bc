"""Published weights in and out: folders of the families Qwen2, Qwen3, Llama and Mistral, and GGUF
files of them.

`load_pretrained(path)` reads what transformers writes (config.json, one or many safetensors files)
or one GGUF file (support/gguf_file.py), with or without a LoRA adapter (support/adapter.py);
`save_pretrained` writes a folder that transformers opens as the family it came from. What SAGE adds
(E_code, the gate, the smear) lies beside it in sage.safetensors, which transformers does not read.
What differs from family to family is the table FAMILIES; SmolLM2 and TinyLlama are Llamas.
"""

import functools
import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

import parallel
from support import ranks
from config import Model, UserError
from model import SAGE
from support import settings
from support.adapter import add_adapter
from support.gguf_file import LLAMA3_FACTORS, gguf_name, is_gguf, read_gguf_config
from support.published import ADAPTER_CONFIG, base_of, is_adapter
from support.weights import (
    Parallelise,
    allocate_model,
    check_weights,
    copy_rows,
    open_safetensors,
    outline,
    refuse_other_folder,
    restore_folder,
    written_aside,
)

# ------------------------------------------------------------------------------------------------
# What differs.


class Family(NamedTuple):
    """How transformers reads and names one `model_type`. The defaults are those of keys that a
    config.json leaves out.
    """

    architecture: str  # the class of transformers
    context: int  # default of max_position_embeddings
    kv_heads: int | None  # default of num_key_value_heads; None: as many as query heads
    head_dim: int | None = None  # default of head_dim; None: width / heads
    # keys of its own that change the computation: the one value that is built here, and exported
    fixed: dict[str, Any] = {}


FAMILIES = dict(
    qwen2=Family("Qwen2ForCausalLM", 32_768, 32, fixed=dict(use_sliding_window=False)),
    qwen3=Family(
        "Qwen3ForCausalLM",
        32_768,
        32,
        head_dim=128,
        fixed=dict(use_sliding_window=False, attention_bias=False),
    ),
    llama=Family("LlamaForCausalLM", 2048, None, fixed=dict(attention_bias=False, mlp_bias=False)),
    mistral=Family("MistralForCausalLM", 131_072, 8, fixed=dict(sliding_window=None)),
)

# What no published model has.
SAGE_ONLY = (
    "embedding.code",
    "embedding.ids",
    "embedding.convolution",
    "embedding.out",
    "attention.smear",
)


def tensor_name(name: str) -> str | None:
    """Transformers' name of our parameter, in all families; None for SAGE's own."""
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
        if not last.endswith("norm"):
            last += "_proj"
        name = ".".join([*front, last, kind])
    return "model." + name if name == "norm.weight" else name


def by_their_names(model: SAGE) -> dict[str, Tensor]:
    """A model's weights by transformers' names, without SAGE's own."""
    return {
        theirs: parameter
        for name, parameter in model.named_parameters()
        if (theirs := tensor_name(name))
    }


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
    truncate=(True, None),  # YaRN's: the pairs between which frequencies blend are whole numbers
    rope_interleaved=(False, None),  # pairs side by side; transformers reads all half a head apart
)
# Keys that are read below; then keys without effect on logits (training, generation, origin).
READ_KEYS = """model_type architectures vocab_size hidden_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim intermediate_size max_position_embeddings rope_theta
    rope_scaling rope_parameters original_max_position_embeddings
    rms_norm_eps tie_word_embeddings use_sliding_window sliding_window max_window_layers layer_types
    quantization_config quantization compression_config""".split()
HARMLESS_KEYS = """_name_or_path name_or_path transformers_version torch_dtype dtype
    initializer_range
    use_cache attention_dropout bos_token_id eos_token_id pad_token_id id2label label2id num_labels
    problem_type return_dict output_hidden_states output_attentions chunk_size_feed_forward
    is_encoder_decoder is_decoder attn_implementation _attn_implementation
    _attn_implementation_autoset use_mrope unsloth_version unsloth_fixed model_name
    pretraining_tp is_llama_config transformers.js_config""".split()


def _or_else(value, default):
    """The value, or the default for null."""
    return default if value is None else value


# What the settings of each kind of rotary scaling may be.
ROTARY_KEYS = dict(
    default=(),
    llama3=("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    yarn=(
        *("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
        "original_max_position_embeddings",
    ),
)


def rotary_settings(c: dict) -> dict:
    """The rotary settings of a config.json: both names may be there, transformers looks so."""
    return c.get("rope_scaling") or c.get("rope_parameters") or {}


def rotary_kind(rope: dict) -> str:
    """default, llama3, yarn, or the name of what is not built here."""
    return rope.get("rope_type", rope.get("type", "default"))


def rotary_from(c: dict, family: Family) -> dict[str, Any]:
    """The rotary part of Model's settings, with transformers' defaults."""
    rope = rotary_settings(c)
    theta = rope.get("rope_theta", c.get("rope_theta", 10_000.0))
    kind = rotary_kind(rope)
    if kind == "default":
        return dict(rope_theta=theta)
    context = c.get("max_position_embeddings", family.context)
    context = rope.get("original_max_position_embeddings", context)
    scaling = dict(
        rope_theta=theta,
        rope_scaling=kind,
        rope_factor=rope["factor"],
        rope_context=c.get("original_max_position_embeddings", context),
    )
    if kind == "llama3":
        return scaling | dict(rope_low=rope["low_freq_factor"], rope_high=rope["high_freq_factor"])
    gain = rope.get("attention_factor")
    if gain is None:
        gain = yarn_gain(rope["factor"])
        if rope.get("mscale") and rope.get("mscale_all_dim"):
            whole = yarn_gain(rope["factor"], rope["mscale_all_dim"])
            gain = yarn_gain(rope["factor"], rope["mscale"]) / whole
    return scaling | dict(
        rope_low=rope.get("beta_slow") or 1.0,
        rope_high=rope.get("beta_fast") or 32.0,
        rope_gain=gain,
    )


def yarn_gain(factor: float, strength: float = 1.0) -> float:
    """YaRN's attention factor (arXiv:2309.00071)."""
    return 0.1 * strength * math.log(factor) + 1.0


def unsupported_settings(c: dict) -> list[str]:
    """What a config.json asks for and SAGE's block does not compute; empty: nothing."""
    family = FAMILIES[c["model_type"]]
    supported = SUPPORTED | dict(architectures=(None, [], [family.architecture]))
    for key, value in family.fixed.items():
        if "sliding_window" not in key:
            supported[key] = (value,)
    given = {key: c[key] for key in supported if key in c}
    faults = [f"{key} {value!r}" for key, value in given.items() if value not in supported[key]]
    for key in ("quantization_config", "compression_config", "quantization"):
        if c.get(key):
            method = c[key].get("quant_method") or f"{c[key].get('bits', '?')} bits"
            faults.append(f"quantised weights ({key}: {method})")
            break
    rope = rotary_settings(c)
    kind = rotary_kind(rope)
    if nested := [key for key, value in rope.items() if isinstance(value, dict)]:
        faults.append(f"rotary settings for each layer type ({', '.join(nested)})")
    elif kind not in ROTARY_KEYS:
        faults.append(f"{kind!r} rotary scaling")
    elif rest := {
        key: value
        for key, value in rope.items()
        if key not in ("rope_theta", "rope_type", "type", *ROTARY_KEYS[kind])
        and value not in SUPPORTED.get(key, (None,))
    }:
        faults.append(f"rotary settings {rest}")
    return faults + sliding_windows(c, family)


def sliding_windows(c: dict, family: Family) -> list[str]:
    """The sliding windows that a config.json asks for, as faults."""
    if "sliding_window" in family.fixed:  # Mistral has one unless it says null
        window = c.get("sliding_window", 4096)
        if window is None or window >= c.get("max_position_embeddings", family.context):
            return []
        return [
            f"a sliding window of {window} tokens (for texts up to {window} tokens set "
            f"sliding_window to null and max_position_embeddings to {window})"
        ]
    layers = c["num_hidden_layers"]
    kinds = c.get("layer_types") or ["full_attention"] * layers
    if c.get("use_sliding_window"):  # which layers then slide, versions differ on
        return ["a sliding window (set use_sliding_window to false where no layer slides)"]
    if kinds != ["full_attention"] * layers:
        named = ", ".join(sorted(set(map(str, kinds)))) or "none"
        return [f"sliding windows or other attention ({layers} layers of {named})"]
    return []


def read_pretrained_config(path: Path) -> Model:
    """Our settings from a GGUF file, or from a folder's config.json as transformers reads it; an
    adapter's are its base's.

    An unknown key is noted on stderr and otherwise ignored, as transformers does. Raises UserError
    where the file is missing, or asks for what SAGE's block does not compute.
    """
    path = base_of(path)
    if is_gguf(path):
        return read_gguf_config(path)
    folder = path
    path = folder / "config.json"
    if (folder / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{folder} holds a whole model and a LoRA adapter ({ADAPTER_CONFIG}): transformers "
            "with peft adds the one to the other; move the adapter into a folder of its own"
        )
    if not path.exists():
        files = ", ".join(sorted(found.name for found in folder.glob("*.gguf")))
        raise UserError(
            f"no model at {folder}: wanted a folder with config.json and safetensors files"
            + (f", or the path of a GGUF file ({files} in it)" if files else "")
        )
    try:
        c = json.loads(path.read_text(encoding="utf-8"))
        if c.get("model_type") not in FAMILIES:
            raise UserError(
                f"{path} describes a {c.get('model_type')!r} model; wanted one of "
                f"{', '.join(FAMILIES)} (SmolLM2 and TinyLlama are llama)"
            )
        name = c["model_type"]
        family = FAMILIES[name]
        if faults := unsupported_settings(c):
            raise UserError(
                f"{path} asks for what is not built here: {'; '.join(faults)}; wanted a plain "
                f"{family.architecture}: unquantised, rotary positions plain or scaled by llama3 "
                "or yarn, no sliding window"
            )
        heads = c["num_attention_heads"]
        model = Model(
            family=name,
            vocab_size=c["vocab_size"],
            width=c["hidden_size"],
            layers=c["num_hidden_layers"],
            heads=heads,
            kv_heads=_or_else(c.get("num_key_value_heads", family.kv_heads), heads),
            head_dim=_or_else(c.get("head_dim", family.head_dim), c["hidden_size"] // heads),
            feed_forward=c["intermediate_size"],
            context=c.get("max_position_embeddings", family.context),
            norm_eps=c.get("rms_norm_eps", 1e-6),
            tied=c.get("tie_word_embeddings", False),
            **rotary_from(c, family),
        )
        settings.validate(model, "model.")
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{path} cannot be read as a model's config ({type(error).__name__}: {error}); "
            "copy it anew"
        ) from None
    known = {*SUPPORTED, *READ_KEYS, *HARMLESS_KEYS, *family.fixed}
    unknown = [key for key in c if c[key] and key not in known]
    if unknown:
        note_once(
            f"{path} has settings that {family.architecture} does not have, ignored here as by "
            f"transformers: {', '.join(unknown)}"
        )
    return model


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
        suffixes = (".bin", ".pt", ".pth")
        other = sorted(path.name for path in folder.glob("*") if path.suffix in suffixes)
        hint = "; {} is not read: load it with transformers, then save_pretrained"
        whole_files = sorted(folder.glob("*.gguf"))
        raise UserError(
            f"no weights in {folder}: wanted model.safetensors, "
            "or model.safetensors.index.json and its shards"
            + (hint.format(", ".join(other[:4])) if other else "")
            + (f"; to read its GGUF file name that: {whole_files[0]}" if whole_files else "")
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
    """Raise UserError for weights that are quantised, or not named as transformers names those of
    its causal language models.
    """
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
                f"the tensors in {folder} have other names than a causal language model's: "
                f"{name}, wanted model.{found[2]}; save the whole causal language model, "
                "without a wrapper, by its own save_pretrained"
            )


def is_pretrained(path: str | Path) -> bool:
    """Whether a path is a folder of published weights or of an adapter of theirs (or means to be),
    or a GGUF file, not a run of ours.
    """
    path = Path(path).expanduser()
    if is_gguf(path):
        return True
    restore_folder(path)
    return any((path / name).exists() for name in ("config.json", ADAPTER_CONFIG))


def load_pretrained(
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    window: int = Model.window,
    stride: int = Model.landmark_stride,
    parallelise: Parallelise | None = None,
) -> SAGE:
    """A SAGE with published weights, and their own model's logits for texts up to `window` tokens.

    Where a folder has a sage.safetensors, E_code, gate and smear come from it; else E_code =
    E_text, and the gate is drawn but cannot matter. `window` and `stride` are landmark attention's
    W and k. Of a model that `parallelise` shards, each rank reads its own rows alone. Raises
    UserError naming file and remedy, on all ranks alike.
    """
    path = Path(path).expanduser()
    with ranks.fail_together():
        base = base_of(path)
        config, sources = plan_gguf_reading(base) if is_gguf(base) else plan_reading(base)
    config = replace(config, window=window, landmark_stride=stride)
    model = allocate_model(config, dtype, device, parallelise)
    parameters = dict(model.named_parameters())
    with ranks.fail_together():
        for name, (file, theirs) in sources.items():
            copy_rows(file, {theirs: parameters[name]})
        if is_adapter(path):
            add_adapter(by_their_names(model), path)
    if len(sources) < len(parameters):
        parallel.initialise(model, seed=0, only=SAGE_ONLY)
    model.dense = True
    return model


def plan_gguf_reading(path: Path) -> tuple[Model, dict[str, tuple[Path, str]]]:
    """The same as `plan_reading` of a GGUF file. Raises UserError."""
    config = read_gguf_config(path)
    parameters = dict(outline(config, torch.float32).named_parameters())
    sources = {name: (path, gguf_name(name)) for name in parameters if tensor_name(name)}
    check_weights(parameters, sources, path, ignored=[LLAMA3_FACTORS])
    return config, sources


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
    """The shape of a model by the keys of config.json, which all families share."""
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


def rotary_scaling_keys(c: Model) -> dict:
    """A model's rotary scaling by the keys of config.json."""
    if c.rope_scaling == "none":
        return {}
    rope = dict(
        rope_type=c.rope_scaling,
        factor=c.rope_factor,
        original_max_position_embeddings=c.rope_context,
    )
    if c.rope_scaling == "llama3":
        rope |= dict(low_freq_factor=c.rope_low, high_freq_factor=c.rope_high)
    else:
        rope |= dict(beta_slow=c.rope_low, beta_fast=c.rope_high, attention_factor=c.rope_gain)
    return dict(rope_scaling=rope)


def save_pretrained(
    model: SAGE, folder: str | Path, shard_bytes: int = 5 << 30, more: dict[str, dict] | None = None
) -> None:
    """Write a model as a folder that transformers opens as its family, and SAGE's own parameters
    beside it; with `more` files of JSON by name, the tokenizer's.

    Transformers sees the family's part alone: its logits are SAGE's only while E_code = E_text, the
    smear is 0 and texts fit the window. An earlier export is replaced once the new one is complete;
    another folder that is not empty is refused. Raises UserError.
    """
    c = model.config
    if c.experts:
        raise UserError(
            f"this model has {c.experts} experts for each feed-forward (model.experts), and a "
            f"{c.family} folder has a place for one; only a dense model can be exported"
        )
    if c.embedding != "split" or c.activation != "swiglu" or c.norm != "rms":
        raise UserError(
            f"only SAGE's own block can be a {c.family} folder; this model has "
            f"embedding {c.embedding!r}, activation {c.activation!r}, norm {c.norm!r}"
        )
    family = FAMILIES[c.family]
    config = dict(
        architectures=[family.architecture],
        model_type=c.family,
        **config_shape(c),
        **rotary_scaling_keys(c),
        **family.fixed,
        hidden_act="silu",
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
    refuse_other_folder(Path(folder).expanduser())
    names = ["model.safetensors"]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    with written_aside(Path(folder).expanduser()) as aside:
        # first, since it is what tells an unfinished export from another folder
        save_file(own, aside / "sage.safetensors", metadata={"format": "pt"})
        for name, shard in zip(names, shards):
            save_file(shard, aside / name, metadata={"format": "pt"})
        if len(shards) > 1:
            total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
            weight_map = {theirs: name for name, shard in zip(names, shards) for theirs in shard}
            index = dict(metadata=dict(total_size=total), weight_map=weight_map)
            (aside / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        for name, content in {"config.json": config, **(more or {})}.items():
            text = json.dumps(content, indent=1, ensure_ascii=False)
            (aside / name).write_text(text, encoding="utf-8")
