"""A run as one Hugging Face folder, which transformers opens as Qwen2.

    python -m support.export out/32b/sage exported/ --dtype bfloat16

From a checkpoint of one process or of any number of ranks. The tensors lie in files of at most 5 GB
with an index; what SAGE adds to Qwen2.5 lies beside them, as `save_pretrained` says.
"""

import argparse

import torch

from support import settings
from support.checkpoint import load_run
from support.pretrained import save_pretrained


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.export")
    parser.add_argument("run", help="the folder of a run; its last checkpoint is taken")
    parser.add_argument("folder", help="where to write; a folder that is there is replaced")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    words = parser.parse_args()
    model, _, meta = load_run(words.run, getattr(torch, words.dtype))
    save_pretrained(model, words.folder)
    print(f"exported {words.run}, step {meta['step']}, to {words.folder} in {words.dtype}")


if __name__ == "__main__":
    settings.run_script(main)
