"""Speed of decoding, one sequence and a batch of rows as rollouts need it, beside transformers'
`generate` with the same weights in the same run.

Greedy tokens must be the same; runs alternate. The first call of ours compiles and is not counted
(its time is printed).

    python bench/decode.py           prints and records docs/results/trunk.json
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import transformers

from support import checkpoint
from support import result_tables as results
from support import runtime
from fast.decoding import compiled_step
from generate import generate


def measure(
    name: str,
    config: transformers.Qwen2Config,
    dtype: torch.dtype,
    tokens: int,
    rounds: int,
    goal: str,
    batch: int = 1,
) -> None:
    torch.manual_seed(0)
    theirs = transformers.Qwen2ForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.to(dtype).save_pretrained(folder)
        theirs = transformers.Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        ours = checkpoint.load_qwen(folder, dtype)
    prompt = torch.randint(1, config.vocab_size, (batch, 16))

    def peer() -> list[list[int]]:
        with torch.no_grad():
            return theirs.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
            )[:, 16:].tolist()

    runners = {
        "transformers generate": peer,
        "eager": lambda: generate(ours, prompt.tolist(), tokens),
    }
    if runtime.can_compile("cpu"):
        fast = compiled_step(ours)
        runners["compiled"] = lambda: generate(ours, prompt.tolist(), tokens, step=fast)
    outputs, times = {}, {runner: [] for runner in runners}
    for round_ in range(rounds + 1):
        for runner, call in runners.items():
            start = time.perf_counter()
            outputs[runner] = call()
            if round_:
                times[runner].append(time.perf_counter() - start)
            elif runner == "compiled":
                print(f"  first compiled call: {time.perf_counter() - start:.1f} s")
    weight = sum(p.numel() for p in theirs.parameters())
    label = f"{weight / 1e6:.1f}M {str(dtype).removeprefix('torch.')}" + (
        f", {batch} rows" if batch > 1 else ""
    )
    print(
        f"{name}: {label}, {tokens} tokens after a prompt of 16, {torch.get_num_threads()} threads"
    )
    for runner, seconds in times.items():
        rate = batch * tokens / statistics.median(seconds)
        ratios = [b / s for b, s in zip(times["transformers generate"], seconds)]
        same = sum(
            a == b
            for ours_, theirs_ in zip(outputs[runner], outputs["transformers generate"])
            for a, b in zip(ours_, theirs_)
        ) / (batch * tokens)
        print(
            f"  {runner:22} {rate:8.1f} tok/s  {1e3 * batch / rate:7.2f} ms a step  {statistics.median(ratios):6.2f} ×  (min {min(ratios):.2f} max {max(ratios):.2f})  {same:.0%} of tokens the same"
        )
        if runner != "transformers generate":
            results.record(
                "trunk",
                f"decoding speed/{label}, {runner}: times transformers' generate",
                round(statistics.median(ratios), 2),
                n=rounds,
                unit="×",
                spread=f"min {min(ratios):.2f} max {max(ratios):.2f}",
                goal=goal if runner == "compiled" else "",
                note=f"{rate:.0f} tokens/s, {1e3 * batch / rate:.2f} ms a step; {same:.0%} of greedy tokens the same",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="small,toy,large,large16", help="which cases")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    small = transformers.Qwen2Config(
        vocab_size=1024,
        hidden_size=160,
        num_hidden_layers=5,
        num_attention_heads=5,
        num_key_value_heads=1,
        intermediate_size=448,
        tie_word_embeddings=True,
    )
    large = transformers.Qwen2Config(
        vocab_size=16_384,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        intermediate_size=2304,
        tie_word_embeddings=True,
    )
    toy = transformers.Qwen2Config(
        vocab_size=1024,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=384,
        tie_word_embeddings=True,
    )
    units = (
        runtime.pick_dtype("auto", "cpu") == torch.bfloat16
    )  # without bf16 units the peer needs a second a token
    cases = {
        "small": (small, torch.float32, 200, rounds, "≥ 8"),
        "toy": (toy, torch.float32, 200, rounds, "", 64),
        "large": (large, torch.float32, 60, rounds, ""),
        "large16": (large, torch.bfloat16, 60 if units else 12, rounds if units else 2, "≥ 2.2"),
    }
    for name in arguments.only.split(","):
        measure(name, *cases[name])


if __name__ == "__main__":
    main()
