"""Memory that loading Qwen2.5 weights needs: the peak over the model's own size, in a fresh process
that has loaded a tiny model before.

python bench/loading.py          prints and records docs/results/trunk.json
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers

from support import result_tables as results

LOAD = """
import sys, threading, torch
from support.qwen import load_qwen
def resident():
    status = open("/proc/self/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024
dtype = getattr(torch, sys.argv[2])
load_qwen(sys.argv[1] + "/tiny", dtype)
before, peak, done = resident(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], resident())
thread = threading.Thread(target=watch)
thread.start()
model = load_qwen(sys.argv[1] + "/large", dtype)
done.set()
thread.join()
print((peak[0] - before) / sum(p.nbytes for p in model.parameters()))
"""


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            for name, width, layers in (("tiny", 64, 2), ("large", 1024, 12)):
                config = transformers.Qwen2Config(
                    vocab_size=16_384,
                    hidden_size=width,
                    num_hidden_layers=layers,
                    num_attention_heads=8,
                    num_key_value_heads=2,
                    intermediate_size=4 * width,
                    tie_word_embeddings=True,
                )
                model = transformers.Qwen2ForCausalLM(config).to(getattr(torch, dtype))
                model.save_pretrained(f"{folder}/{name}", max_shard_size="200MB")
            size = sum(p.nbytes for p in model.parameters())
            run = subprocess.run(
                [sys.executable, "-c", LOAD, folder, dtype],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).resolve().parents[1],
            )
        ratio = float(run.stdout)
        print(
            f"{size / 1e6:.0f} MB of {dtype} weights in shards: loading peaked at {ratio:.3f} × "
            "the model with E_code"
        )
        results.record(
            "trunk",
            f"loading/{size / 1e6:.0f} MB of {dtype} weights: peak memory ÷ model",
            round(ratio, 3),
            unit="×",
            goal="≤ 1.15",
        )


if __name__ == "__main__":
    main()
