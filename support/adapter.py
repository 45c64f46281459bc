"""What training changed in published weights, as a small LoRA adapter (Hu et al. 2021).

    python -m support.export out/smol/reflected out/adapter --adapter-of smollm2
    python sample.py --think --model out/adapter --tools examples/weather.py --prompt "..."

A stage's change of each matrix, W − W₀, is replaced by the nearest matrix B A of a low rank (Eckart
and Young: its largest singular values). The folder is peft's: adapter_config.json, which names the
base model, and adapter_model.safetensors; what peft wrote is read, too. Where a model is named such
a folder may be: weights are the base's W₀ + (alpha / r) B A, all else is the base's. A third file,
sage.json, says that the adapter was written here: only such a one is replaced by the next export.
"""

import json
import math
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import parallel
from config import UserError
from support.published import ADAPTER_CONFIG
from support.tokenizer_folder import load_json
from support.weights import ADAPTER_MARK, open_safetensors, refuse_other_folder, written_aside

ADAPTER_WEIGHTS = "adapter_model.safetensors"

# The values of each key of peft's LoraConfig with which the sum is plain; peft has other sums, too.
# A key that is left out has peft's default, which is among these.
PLAIN = dict(
    peft_type=("LORA",),
    bias=("none", None),
    fan_in_fan_out=(False, None),
    use_dora=(False, None),
    rank_pattern=({}, None),
    alpha_pattern=({}, None),
    modules_to_save=(None, []),
    trainable_token_indices=(None,),
    layer_replication=(None,),
    lora_bias=(False, None),
    target_parameters=(None, []),
    alora_invocation_tokens=(None,),  # it acts on a part of the text alone
    use_qalora=(False, None),
    use_bdlora=(None, False),
    arrow_config=(None,),
    kasa_config=(None,),
    monteclora_config=(None,),
    velora_config=(None,),
    # pissa, olora, loftq and corda have taken something out of W₀ first
    init_lora_weights=(True, False, None, "gaussian", "eva", "orthogonal"),
)


# --------------------------------------------------------------------------------------------------
# Reading.


def adapter_factor(folder: Path) -> float:
    """alpha / r, by which an adapter's B A is multiplied. Raises UserError."""
    path = folder / ADAPTER_CONFIG
    try:
        c = load_json(path)
        faults = [
            f"{key} {c[key]!r}" for key, plain in PLAIN.items() if key in c and c[key] not in plain
        ]
        if faults:
            raise UserError(
                f"{path} asks for what is not built here: {', '.join(faults)}; wanted a plain LoRA "
                "adapter; merge it with peft (merge_and_unload), save that, and name its folder"
            )
        return c["lora_alpha"] / (math.sqrt(c["r"]) if c.get("use_rslora") else c["r"])
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise UserError(
            f"{path} cannot be read as the settings of a LoRA adapter "
            f"({type(error).__name__}: {error}); copy it anew"
        ) from None


@torch.no_grad()
def add_adapter(weights: dict[str, Tensor], folder: Path) -> None:
    """Add an adapter's updates to its base's weights, which go by transformers' names; to sharded
    ones their rows alone. Raises UserError before anything is added.
    """
    factor = adapter_factor(folder)
    path = folder / ADAPTER_WEIGHTS
    with open_safetensors(path) as file:
        parts = {name: file.get_tensor(name).float() for name in file.keys()}
    if not parts:
        raise UserError(f"{path} holds no tensor; copy it anew")
    pairs = []
    for name in parts:
        found = re.fullmatch(r"base_model\.model\.(.*)\.lora_[AB]\.weight", name)
        weight = weights.get(f"{found[1]}.weight") if found else None
        if weight is None:
            raise UserError(
                f"{path} holds {name}, for which the base has no matrix; wanted lora_A and lora_B "
                "of matrices of the base model"
            )
        a = parts.get(f"base_model.model.{found[1]}.lora_A.weight")
        b = parts.get(f"base_model.model.{found[1]}.lora_B.weight")
        if a is None or b is None:
            raise UserError(f"{path} holds {name} and lacks its other half; copy it anew")
        if (b.shape[0], a.shape[1]) != tuple(weight.shape) or b.shape[1] != a.shape[0]:
            raise UserError(
                f"{path} at {found[1]}: A is {tuple(a.shape)} and B {tuple(b.shape)}, the base's "
                f"matrix {tuple(weight.shape)}; this adapter belongs to another model"
            )
        if "lora_A" in name:  # each pair once
            pairs.append((weight, a, b))
    for weight, a, b in pairs:
        own = parallel.local(weight)
        update = factor * b[parallel.own_rows(weight)] @ a
        own.copy_(own.float() + update.to(own.device))


# --------------------------------------------------------------------------------------------------
# Writing.


def low_rank(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) whose product is the nearest matrix of that rank to a change
    (out, in); zeros fill them up where it has fewer singular values.
    """
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    held = min(rank, len(values))
    root = values[:held].sqrt()
    a = torch.zeros(rank, change.shape[1])
    b = torch.zeros(change.shape[0], rank)
    a[:held] = root[:, None] * right[:held]
    b[:, :held] = left[:, :held] * root
    return a, b


def in_adapter(name: str, weight: Tensor) -> bool:
    """Whether an adapter holds the changes of a weight: of the matrices of blocks alone."""
    return name.startswith("model.layers.") and weight.ndim == 2


def save_adapter(
    weights: dict[str, Tensor],
    start: dict[str, Tensor],
    folder: str | Path,
    *,
    base: str,
    rank: int,
    dtype: torch.dtype,
) -> float:
    """Write the change of matrices from those of `start`, both by transformers' names, at a rank
    and in a type. Only matrices of blocks count: embeddings and norms stay the base's.

    Returns the share that is kept of the squares of all differences. `base` is the base's path, or
    its repository. Raises UserError where no matrix has changed, and for a folder that holds
    anything but an earlier export.
    """
    updates: dict[str, Tensor] = {}
    kept = whole = 0.0
    for name, weight in weights.items():
        if not in_adapter(name, weight):
            continue
        change = (weight - start[name]).detach().float()  # (out, in)
        if not change.any():
            continue
        a, b = low_rank(change, rank)
        kept += (b @ a).square().sum().item()
        whole += change.square().sum().item()
        module = name.removesuffix(".weight")
        updates[f"base_model.model.{module}.lora_A.weight"] = a
        updates[f"base_model.model.{module}.lora_B.weight"] = b
    if not updates:
        raise UserError("no matrix of the model differs from its base's: there is nothing to write")
    scale = 1.0
    if dtype == torch.float8_e4m3fn:  # its values reach from 2⁻⁹ to 448, and updates are small
        largest = max(part.abs().max().item() for part in updates.values())
        scale = 2.0 ** math.floor(math.log2(torch.finfo(dtype).max / largest))
    updates = {key: (scale * part).to(dtype) for key, part in updates.items()}
    modules = {key.split(".")[-3] for key in updates}
    layers = {int(key.split(".")[4]) for key in updates}
    config = dict(
        peft_type="LORA",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        r=rank,
        lora_alpha=rank / scale**2,  # what B A is multiplied by, times r
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(modules),
        layers_to_transform=sorted(layers),
        inference_mode=True,
    )
    refuse_other_folder(Path(folder).expanduser())
    mark = dict(written_by="python -m support.export")
    with written_aside(Path(folder).expanduser()) as aside:
        # first, since it is what tells an unfinished export from another folder
        (aside / ADAPTER_MARK).write_text(json.dumps(mark), encoding="utf-8")
        (aside / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        save_file(updates, aside / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    return kept / whole
