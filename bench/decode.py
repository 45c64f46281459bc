"""Speed of decoding, one sequence and a batch of rows as rollouts need it, beside transformers'
`generate` with the same weights in the same run.

Greedy tokens must be the same; runs alternate. The first call of ours compiles and is not counted
(its time is printed).

    python bench/decode.py                              prints and records docs/results/trunk.json
    python bench/decode.py --only small --rounds 1 --tokens 20 --dry        tries it out in seconds
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch
import transformers

from fast.decoding import compiled_step
from generate import generate
from support import machine, result_tables
from support.pretrained import load_pretrained

PROMPT = 16  # tokens
PEER = "transformers generate"


@dataclass
class Case:
    """What is decoded: a shape of Qwen2, and how much of it."""

    config: transformers.Qwen2Config
    tokens: int
    rounds: int
    dtype: torch.dtype = torch.float32
    goal: str = ""  # of the compiled step, times the peer
    batch: int = 1


def shape(
    vocab_size: int, width: int, layers: int, heads: int, kv_heads: int, feed_forward: int
) -> transformers.Qwen2Config:
    return transformers.Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=feed_forward,
        tie_word_embeddings=True,
    )


def measure(name: str, case: Case, *, dry: bool) -> None:
    """Time a case; print it, and record it unless `dry`."""
    batch, tokens = case.batch, case.tokens
    torch.manual_seed(0)
    theirs = transformers.Qwen2ForCausalLM(case.config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.to(case.dtype).save_pretrained(folder)
        theirs = transformers.Qwen2ForCausalLM.from_pretrained(folder, dtype=case.dtype).eval()
        ours = load_pretrained(folder, case.dtype)
    prompt = torch.randint(1, case.config.vocab_size, (batch, PROMPT))

    @torch.no_grad()
    def peer() -> list[list[int]]:
        output = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
        return output[:, PROMPT:].tolist()

    runners = {PEER: peer, "eager": lambda: generate(ours, prompt.tolist(), tokens)}
    if machine.can_compile("cpu"):
        fast = compiled_step(ours)
        runners["compiled"] = lambda: generate(ours, prompt.tolist(), tokens, step=fast)
    outputs: dict[str, list[list[int]]] = {}
    times: dict[str, list[float]] = {runner: [] for runner in runners}
    for number in range(case.rounds + 1):
        for runner, call in runners.items():
            began = time.perf_counter()
            outputs[runner] = call()
            seconds = time.perf_counter() - began
            if number > 0:
                times[runner].append(seconds)
            elif runner == "compiled":
                print(f"  first compiled call: {seconds:.1f} s")

    weights = sum(p.numel() for p in theirs.parameters())
    label = f"{weights / 1e6:.1f}M {str(case.dtype).removeprefix('torch.')}"
    label += f", {batch} rows" if batch > 1 else ""
    threads = torch.get_num_threads()
    print(f"{name}: {label}, {tokens} tokens after a prompt of {PROMPT}, {threads} threads")
    wanted = torch.tensor(outputs[PEER])  # (B, T)
    for runner, seconds in times.items():
        rate = batch * tokens / statistics.median(seconds)
        step_ms = 1e3 * batch / rate
        ratios = [peers / mine for peers, mine in zip(times[PEER], seconds)]
        ratio = statistics.median(ratios)
        spread = f"min {min(ratios):.2f} max {max(ratios):.2f}"
        same = (torch.tensor(outputs[runner]) == wanted).float().mean().item()
        print(
            f"  {runner:22} {rate:8.1f} tokens/s  {step_ms:7.2f} ms per step  {ratio:6.2f} ×  "
            f"({spread})  {same:.0%} of tokens the same"
        )
        if runner != PEER and not dry:
            result_tables.record(
                "trunk",
                f"decoding speed/{label}, {runner}: times transformers' generate",
                round(ratio, 2),
                n=case.rounds,
                unit="×",
                spread=spread,
                goal=case.goal if runner == "compiled" else "",
                note=f"{rate:.0f} tokens/s, {step_ms:.2f} ms per step; "
                f"{same:.0%} of greedy tokens the same",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="small,toy,large,large16", help="which cases")
    parser.add_argument("--tokens", type=int, default=0, help="of each case; 0: its own number")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    small = shape(1024, 160, 5, 5, 1, 448)
    toy = shape(1024, 128, 4, 4, 2, 384)
    large = shape(16_384, 768, 12, 12, 4, 2304)
    cases = {
        "small": Case(small, 200, a.rounds, goal="≥ 8"),
        "toy": Case(toy, 200, a.rounds, batch=64),
        "large": Case(large, 60, a.rounds),
    }
    if machine.pick_dtype("auto", "cpu") == torch.bfloat16:
        cases["large16"] = Case(large, 60, a.rounds, torch.bfloat16, goal="≥ 2.2")
    else:  # without bf16 units the peer needs a second per token
        cases["large16"] = Case(large, 12, 2, torch.bfloat16, goal="≥ 2.2")
    for name in a.only.split(","):
        case = cases[name]
        case.tokens = a.tokens or case.tokens
        measure(name, case, dry=a.dry)


if __name__ == "__main__":
    main()
