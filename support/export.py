"""A run as one Hugging Face folder, which transformers opens as the family it came from.

    python -m support.export out/32b/sage exported/ --dtype bfloat16
    python -m support.export smollm2 exported/              a GGUF file as such a folder

From a checkpoint of one process or of any number of ranks. The tensors lie in files of at most 5 GB
with an index; what SAGE adds to the family lies beside them, as `save_pretrained` says.
"""

import argparse

import torch

from support import settings
from support.checkpoint import load_run
from support.pretrained import is_pretrained, load_pretrained, save_pretrained


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.export")
    parser.add_argument(
        "run", help="a run, of which the last checkpoint is taken, or published weights"
    )
    parser.add_argument("folder", help="where to write; a folder that is there is replaced")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    words = parser.parse_args()
    run = settings.absolute_model(words.run)
    dtype = getattr(torch, words.dtype)
    if is_pretrained(run):
        model = load_pretrained(run, dtype)
        which = words.run
    else:
        model, _, meta = load_run(run, dtype)
        which = f"{words.run}, step {meta['step']},"
    save_pretrained(model, words.folder)
    print(f"exported {which} to {words.folder} in {words.dtype}")


if __name__ == "__main__":
    settings.run_script(main)
