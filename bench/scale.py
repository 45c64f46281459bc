"""The post-training scripts on Qwen2.5-0.5B's shape: two steps of every stage from random weights
of that shape, with seconds and peak memory.

Every stage starts from a folder as Hugging Face publishes it (config.json and safetensors, written
here by transformers), through `--<section>.start`. The words are the toy's, of a vocabulary of
151,936; stage ppo's rewards are drawn by lot; rows and episodes are short, so that a CPU can
follow: the memory is weights, gradients and AdamW's moments, four times 2 GB.

    python bench/scale.py                    prints and records docs/results/posttraining.json; some
                                             20 GB of memory, a quarter of an hour of two cores
    python bench/scale.py --tiny             a shape of nothing in a minute, records nothing
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
import transformers

from support import settings
from support import result_tables as results

# random weights earn nothing, and a step without a difference is skipped
LUCK = "import rl; rl.reward = lambda episode, c: float(sum(episode.tokens) % 2); rl.main()"
SHORT = ["--{}.steps", "2", "--{}.log-every", "1", "--{}.batch", "2", "--{}.optimizer", "adamw"]
STAGES = {  # stage -> script, section and what makes it short
    "distill": (
        "distill.py",
        "distill",
        [
            "--distill.sequence",
            "384",
            "--distill.trajectories",
            "16",
            "--distill.worlds",
            "api,safety",
        ],
    ),
    "dpo": (
        "rl.py",
        "dpo",
        [
            "--dpo.pairs",
            "8",
            "--dpo.replay-rows",
            "1",
            "--dpo.trajectories",
            "8",
            "--dpo.worlds",
            "api",
        ],
    ),
    "ppo": (
        "rl.py",
        "ppo",
        ["--ppo.prompts", "2", "--ppo.samples", "2", "--ppo.worlds", "safety", "--ppo.room", "16"],
    ),
}


def weights(folder: Path, tiny: bool) -> int:
    """Random weights of the shape, written by transformers; returns how many there are."""
    m = settings.from_file("config/05b.py").model
    size = (
        dict(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=128,
            vocab_size=2048,
        )
        if tiny
        else dict(
            hidden_size=m.width,
            num_hidden_layers=m.layers,
            num_attention_heads=m.heads,
            num_key_value_heads=m.kv_heads,
            intermediate_size=m.feed_forward,
            vocab_size=m.vocab_size,
        )
    )
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            **size,
            tie_word_embeddings=m.tied,
            rope_theta=m.rope_theta,
            rms_norm_eps=m.norm_eps,
            max_position_embeddings=m.context,
        )
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = weights(Path(folder) / "qwen", given.tiny)
        print(f"{count:,} parameters", flush=True)
        for stage, (script, section, short) in STAGES.items():
            began = time.perf_counter()
            words = [
                sys.executable,
                *(["-c", LUCK] if stage == "ppo" else [str(ROOT / script)]),
                "config/05b.py",
                "--out",
                f"{folder}/run/base",
                "--stage",
                stage,
                "--data.tokenizer",
                "toy",
                f"--{section}.start",
                f"{folder}/qwen",
                f"--{section}.save-every",
                "0",
                *(word.format(section) for word in SHORT),
                *short,
            ]
            process = subprocess.Popen(words, cwd=ROOT)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"error: {script} --stage {stage} ended with {process.returncode}")
            gigabytes, seconds = used.ru_maxrss / 2**20, time.perf_counter() - began
            print(
                f"{stage}: {gigabytes:.1f} GiB at most, {seconds:.0f} s with reading and writing",
                flush=True,
            )
            if not given.tiny:
                results.record(
                    "posttraining",
                    f"0.5B shape, 2 steps/{stage}: peak memory",
                    round(gigabytes, 1),
                    n=1,
                    unit="GiB",
                    note=f"{count:,} random weights, {seconds:.0f} s with reading and writing",
                )


if __name__ == "__main__":
    main()
