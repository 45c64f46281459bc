"""A run as one Hugging Face folder, which transformers opens as the family it came from.

    python -m support.export out/32b/sage exported/ --dtype bfloat16
    python -m support.export smollm2 exported/              a GGUF file as such a folder
    python -m support.export out/smol/reflected out/adapter --adapter-of smollm2

The last one writes the change alone, as an adapter of a low rank (support/adapter.py); an adapter
named as the run is merged with its base.

From a checkpoint of one process or of any number of ranks. The tensors lie in files of at most 5 GB
with an index; what SAGE adds to the family lies beside them, as `save_pretrained` says. Tokenizer,
chat template and end tokens are those of the published weights that the run began with; the toy
tokenizer, which Hugging Face does not know, is left out with a note.
"""

import argparse
from pathlib import Path

import torch

from config import UserError
from model import SAGE
from support import settings
from support.adapter import ADAPTER_WEIGHTS, in_adapter, save_adapter
from support.checkpoint import load_run, tokenizer_of
from support.pretrained import by_their_names, is_pretrained, load_pretrained, save_pretrained
from support.published import PUBLISHED
from support.tokenizer_library import LibraryTokenizer

WHOLE = ("float32", "bfloat16")  # types of a whole model's weights
ADAPTERS = ("float8_e4m3fn",)  # and, beside these, of an adapter's


def tokenizer_files(run: str | Path, name: str | Path) -> dict[str, dict]:
    """The files of the tokenizer `name` of a run or of published weights; none, with a note, where
    it is not here or has no such files.
    """
    try:
        tokenizer = tokenizer_of(run, name)
    except UserError as error:
        print(f"note    no tokenizer is written: {error}")
        return {}
    if not isinstance(tokenizer, LibraryTokenizer):
        print(f"note    no tokenizer is written: {tokenizer.name} has no Hugging Face files")
        return {}
    return tokenizer.folder_files()


def export_adapter(model: SAGE, words: argparse.Namespace) -> None:
    """Write what a run has changed in the weights it began with. Raises UserError."""
    pattern = dict(window=model.config.window, stride=model.config.landmark_stride)
    base = load_pretrained(settings.absolute_model(words.adapter_of), **pattern)
    if words.rank < 1:
        raise UserError(f"--rank is {words.rank}; wanted at least 1")
    if model.config != base.config:
        raise UserError(
            f"{words.run} and {words.adapter_of} are models of two shapes; name the weights that "
            "the run began with"
        )
    entry = PUBLISHED.get(words.adapter_of)
    name = entry.repository if entry else settings.absolute_model(words.adapter_of)
    weights, start = by_their_names(model), by_their_names(base)
    kept = save_adapter(
        weights, start, words.folder, base=name, rank=words.rank, dtype=getattr(torch, words.dtype)
    )
    left_out = [
        name
        for name, weight in weights.items()
        if not (in_adapter(name, weight) or torch.equal(weight, start[name]))
    ]
    if left_out:
        print(f"note    not of the blocks' matrices, so left out: {', '.join(left_out)}")
    size = (Path(words.folder).expanduser() / ADAPTER_WEIGHTS).stat().st_size
    print(
        f"wrote {words.folder}: rank {words.rank}, {size / 1e6:.1f} MB, "
        f"{kept:.0%} of the change's square"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.export")
    parser.add_argument(
        "run", help="a run, of which the last checkpoint is taken, or published weights"
    )
    parser.add_argument("folder", help="where to write; an earlier export is replaced")
    parser.add_argument("--dtype", choices=[*WHOLE, *ADAPTERS], default="float32")
    parser.add_argument("--adapter-of", help="write the change from these weights alone")
    parser.add_argument("--rank", type=int, default=16, help="of an adapter")
    words = parser.parse_args()
    if words.dtype not in WHOLE and not words.adapter_of:
        raise UserError(f"--dtype {words.dtype} is for adapters; wanted {' or '.join(WHOLE)}")
    run = settings.absolute_model(words.run)
    dtype = torch.float32 if words.adapter_of else getattr(torch, words.dtype)
    if is_pretrained(run):
        model = load_pretrained(run, dtype)
        which = words.run
        name = run
    else:
        model, config, meta = load_run(run, dtype)
        which = f"{words.run}, step {meta['step']},"
        name = config.data.tokenizer
    if words.adapter_of:
        export_adapter(model, words)
        return
    save_pretrained(model, words.folder, more=tokenizer_files(run, name))
    print(f"exported {which} to {words.folder} in {words.dtype}")


if __name__ == "__main__":
    settings.run_script(main)
