"""GGUF files, as llama.cpp reads them: one file with a model's settings and weights.

The weights are mostly quantised: a block of 32 or 256 numbers of a row shares a scale. They are
read a tensor at a time, of it the rows that are wanted, and become ordinary floats. The library
`gguf` reads the layout of the file and of every quantisation
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The tokenizer in it is read by
support/tokenizer_gguf.py.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from config import Model, UserError
from support import settings

# GGUF's architectures that are one of ours; Mistral and every other Llama-like model is "llama".
ARCHITECTURES = ("llama", "qwen2", "qwen3")

# GGUF's names of our parameters, part by part.
NAME_PARTS = (
    ("blocks.", "blk."),
    ("attention_norm", "attn_norm"),
    ("feed_forward_norm", "ffn_norm"),
    ("attention.o.", "attn_output."),
    ("attention.", "attn_"),
    ("feed_forward.", "ffn_"),
    ("embedding.text", "token_embd"),
    ("head.", "output."),
)
LLAMA3_FACTORS = "rope_freqs.weight"  # by how much each rotary wavelength is stretched


def gguf_name(name: str) -> str:
    """GGUF's name of our parameter, which must be one that other models have too."""
    for ours, theirs in NAME_PARTS:
        name = name.replace(ours, theirs)
    return "output_norm.weight" if name == "norm.weight" else name


def is_gguf(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".gguf"


@dataclass
class StoredTensor:
    """Where a tensor lies in a GGUF file."""

    shape: tuple[int, ...]  # of its numbers, as torch orders dimensions
    kind: gguf.GGMLQuantizationType
    offset: int  # bytes from the file's begin
    layout: tuple[int, ...]  # shape of what is stored: rows of bytes, or of plain floats
    dtype: np.dtype  # of what is stored


@dataclass
class GGUFFile:
    """A GGUF file's settings, its tokenizer's too, and where its tensors lie."""

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def __getitem__(self, key: str) -> Any:
        """A setting of the architecture's own: "block_count" is llama.block_count."""
        return self.settings[f"{self.settings['general.architecture']}.{key}"]

    def get(self, key: str, default=None) -> Any:
        """The same, or the default where the file does not say it."""
        return self.settings.get(f"{self.settings['general.architecture']}.{key}", default)

    def rows(self, name: str, index: slice | np.ndarray | EllipsisType = ...) -> Tensor:
        """Some rows of a tensor as floats: of the file nothing else is read."""
        stored = self.tensors[name]
        # mapped anew for each: a mapping that stays open keeps what was read from it in memory
        whole = np.memmap(self.path, stored.dtype, "r", stored.offset, stored.layout)
        return torch.from_numpy(gguf.dequantize(np.array(whole[index]), stored.kind))


def open_gguf(path: str | Path) -> GGUFFile:
    """A GGUF file's settings and table of tensors. Raises UserError for one that is missing,
    damaged, cut short, or stored in a way that is not read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; wanted a model's .gguf file")
    stat = path.stat()
    return _open_gguf(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=2)  # SmolLM2's 100,000 strings take the library 3 s
def _open_gguf(path: Path, size: int, modified: int) -> GGUFFile:
    try:
        reader = gguf.GGUFReader(path)
        *_, last = reader.fields.values()
        if last.types[-1] == gguf.GGUFValueType.STRING and last.parts[-2][0] > last.parts[-1].size:
            raise ValueError(f"{last.name} is cut short")  # the library takes what is there
        found = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # the library lets numpy and Enum raise whatever they meet
        if "GGMLQuantizationType" in str(error):
            raise UserError(
                f"{path} holds a quantisation that the library gguf does not know ({error}); "
                f"{QUANTISATIONS}, or update the library: pip install -U gguf"
            ) from None
        raise UserError(
            f"{path} is no whole GGUF file ({size:,} bytes; {type(error).__name__}: {error}); "
            "copy it anew"
        ) from None
    if reader.byte_order != "I":
        raise UserError(f"{path} was written for a machine of the other byte order; copy another")
    if found.get("split.count", 1) > 1:
        raise UserError(
            f"{path} is one of {found['split.count']} parts of a model; "
            "merge them (llama.cpp: llama-gguf-split --merge FIRST OUT) and name the result"
        )
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(reversed(tensor.shape.tolist()))
        tensors[tensor.name] = StoredTensor(
            shape, tensor.tensor_type, tensor.data_offset, tensor.data.shape, tensor.data.dtype
        )
    refuse_unreadable(path, reader)
    return GGUFFile(path, found, tensors)


QUANTISATIONS = "wanted F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K or their like"


def refuse_unreadable(path: Path, reader: gguf.GGUFReader) -> None:
    """Raise UserError for quantisations that `gguf` names and cannot turn into floats."""
    first = {tensor.tensor_type: tensor for tensor in reversed(reader.tensors)}
    for kind, tensor in first.items():
        try:
            gguf.dequantize(np.array(tensor.data[:1]), kind)
        except NotImplementedError:
            raise UserError(
                f"{path} holds {tensor.name} as {kind.name}, a quantisation that the library gguf "
                f"cannot turn into floats; {QUANTISATIONS}"
            ) from None


# ------------------------------------------------------------------------------------------------
# Settings.


def read_gguf_config(path: str | Path) -> Model:
    """Our settings from a GGUF file's, as llama.cpp reads them. Raises UserError where it asks for
    what is not built here.
    """
    file = open_gguf(path)
    architecture = file.settings.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"{path} holds a model of the architecture {architecture!r}; "
            f"wanted one of {', '.join(ARCHITECTURES)} (Mistral's is llama)"
        )
    if faults := unsupported_in_gguf(file):
        raise UserError(f"{path} asks for what is not built here: {'; '.join(faults)}")
    try:
        heads = file["attention.head_count"]
        width = file["embedding_length"]
        model = Model(
            family=architecture,
            vocab_size=file.tensors["token_embd.weight"].shape[0],
            width=width,
            layers=file["block_count"],
            heads=heads,
            kv_heads=file.get("attention.head_count_kv", heads),
            head_dim=file.get("attention.key_length", width // heads),
            feed_forward=file["feed_forward_length"],
            context=file["context_length"],
            rope_theta=shortest_float(file.get("rope.freq_base", 10_000.0)),
            norm_eps=shortest_float(file["attention.layer_norm_rms_epsilon"]),
            tied="output.weight" not in file.tensors,
            **rotary_scaling(file),
        )
        settings.validate(model, "model.")
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"{path} lacks settings of a {architecture} model ({type(error).__name__}: {error}); "
            "copy it anew"
        ) from None
    return model


def shortest_float(x: float) -> float:
    """The number of which x, a float32, is the nearest: 1e-05 of 9.999999747378752e-06."""
    return float(str(np.float32(x)))


def unsupported_in_gguf(file: GGUFFile) -> list[str]:
    """What a GGUF file asks for and SAGE's block does not compute; empty: nothing."""
    faults = []
    if file.get("expert_count", 0):
        faults.append(f"{file.get('expert_count')} experts (a mixture)")
    if file.get("attention.causal", True) is False:
        faults.append("attention to both sides")
    window = file.get("attention.sliding_window")
    if window and window < file.get("context_length", math.inf):
        faults.append(f"a sliding window of {window} tokens")
    turned = file.get("rope.dimension_count")
    head_dim = file.get("attention.key_length")
    if head_dim is None and file.get("attention.head_count"):
        head_dim = file.get("embedding_length", 0) // file.get("attention.head_count")
    if turned and head_dim and turned != head_dim:
        faults.append(f"rotary positions in {turned} of a head's {head_dim} dimensions")
    kind = file.get("rope.scaling.type", "none")
    if kind not in ("none", "yarn") and file.get("rope.scaling.factor", 1.0) != 1.0:
        faults.append(f"{kind!r} rotary scaling")
    if file.get("rope.scale_linear", 1.0) not in (0.0, 1.0):
        faults.append("'linear' rotary scaling")
    return faults


def rotary_scaling(file: GGUFFile) -> dict[str, Any]:
    """The rotary scaling of a GGUF file, as settings of Model. Raises UserError."""
    if file.get("rope.scaling.type") == "yarn":
        factor = file["rope.scaling.factor"]
        return dict(
            rope_scaling="yarn",
            rope_factor=shortest_float(factor),
            rope_context=file["rope.scaling.original_context_length"],
            rope_low=shortest_float(file.get("rope.scaling.yarn_beta_slow", 1.0)),
            rope_high=shortest_float(file.get("rope.scaling.yarn_beta_fast", 32.0)),
            rope_gain=file.get("rope.scaling.yarn_attn_factor", 1.0) * (0.1 * math.log(factor) + 1),
        )
    if LLAMA3_FACTORS not in file.tensors:
        return {}

    # Llama 3's scaling is stored as factors alone; every published model has these settings
    factors = file.rows(LLAMA3_FACTORS)  # (d/2,)
    scaling = dict(
        rope_scaling="llama3",
        rope_factor=shortest_float(factors.max().item()),
        rope_context=8192,
        rope_low=1.0,
        rope_high=4.0,
    )
    d = 2 * len(factors)
    theta = file.get("rope.freq_base", 10_000.0)
    turns = 8192 / (2 * math.pi) * theta ** -(torch.arange(0, d, 2).float() / d)
    kept = ((turns - 1) / 3).clamp(0, 1)
    if (factors * (kept + (1 - kept) / scaling["rope_factor"]) - 1).abs().max() > 1e-3:
        raise UserError(
            f"{file.path} stretches rotary wavelengths by other factors ({LLAMA3_FACTORS}) than "
            "Llama 3's, of 8192 tokens and 1 to 4 turns; convert the model's own folder instead"
        )
    return scaling


# ------------------------------------------------------------------------------------------------
# Weights.


def describe_gguf(path: Path) -> dict[str, tuple]:
    """Shape of each tensor, and float32, in which they are read. Raises UserError."""
    return {name: (stored.shape, torch.float32) for name, stored in open_gguf(path).tensors.items()}


def read_gguf_rows(path: Path, name: str, rows: slice | EllipsisType) -> Tensor:
    """Some rows of a tensor as floats, in transformers' and our order. Raises UserError.

    llama.cpp stores Llama's q and k with the two partners of each rotary pair side by side; here
    they are half a head apart.
    """
    file = open_gguf(path)
    index = rows
    if file.settings["general.architecture"] == "llama" and (
        "attn_q." in name or "attn_k." in name
    ):
        heads = file.get("attention.head_count")
        if "attn_k." in name:
            heads = file.get("attention.head_count_kv", heads)
        stored = torch.arange(file.tensors[name].shape[0])
        ours = stored.view(heads, -1, 2).transpose(1, 2).reshape(-1)  # (heads, 2, d/2) → (rows,)
        index = ours[rows].numpy()
    try:
        return file.rows(name, index)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged at {name} ({error}); copy it anew") from None
