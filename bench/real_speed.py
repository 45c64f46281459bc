"""Speed of a real model on this machine: reading a prompt and decoding, beside transformers'
`generate` and llama.cpp, and training.

    python bench/real_speed.py smollm2                       ours and transformers'
    python bench/real_speed.py smollm2 --llama PYTHON        and llama.cpp
    python bench/real_speed.py FOLDER --only train --dry     one part, nothing recorded

The model is published weights, by path or name. llama.cpp needs a GGUF file and decodes it as it
is, as a rule in four bits; the others hold the same weights in float32 or bfloat16. PYTHON is the
interpreter of an environment with `pip install xllamacpp`: llama.cpp and its server as a wheel.

In each round every contestant does the same once, so that a drift of the machine's speed hits all;
medians of the rounds are printed, the first round, which compiles, is not counted. All decode
greedily after one prompt. "Decoding" is the time from the first new token to the last; transformers
does not say when the first one came, so it generates one token as well, whose time is deducted.
Training is stage distill's step: next-token loss at a share of the tokens, with all weights and
with the upper half of the blocks, as tokens per second and as share of the matrix peak that was
measured in the same round.

Records docs/results/smol.json, groups speed/ and training/.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bar for each GGUF file it reads

import torch
import transformers

from config import UserError
from fast.decoding import compiled_step
from generate import Conversations, Row, decode
from losses import IGNORE, cross_entropy
from model import SAGE, flops_per_token
from support import machine, result_tables, settings
from support.gguf_file import is_gguf
from support.pretrained import load_pretrained
from support.published import model_path
from support.training_run import freeze_below

SUBJECT = "smol"  # docs/results/smol.json
TAUGHT = 0.15  # share of the tokens that a loss is taken of, as in packed episodes
WORKER = Path(__file__).resolve().parent / "llama_worker.py"

# --------------------------------------------------------------------------------------------------
# Decoding: each contestant takes prompts (B, T) and gives continuations and two times.


@dataclass
class Decoded:
    tokens: list[list[int]]  # the continuations, one per row
    read: float  # seconds from the prompt to the first new token
    decode: float  # seconds from there to the last


Contestant = Callable[[list[list[int]], int], Decoded]


def ours(model: SAGE, step=None) -> Contestant:
    """generate.py's loop with the plain step, or a compiled one."""

    @torch.inference_mode()
    def run(prompts: list[list[int]], tokens: int) -> Decoded:
        began = time.perf_counter()
        conversations = Conversations(model, prompts, len(prompts[0]) + tokens)
        first = time.perf_counter()
        rows = [Row([], tokens, 0.0, []) for _ in prompts]
        decode(conversations, rows, [], shrink=False, log_prob_temperature=None, step=step)
        ended = time.perf_counter()
        return Decoded([row.tokens for row in rows], first - began, ended - first)

    return run


def peer(path: Path, dtype: torch.dtype) -> Contestant:
    """transformers' generate."""
    where = dict(pretrained_model_name_or_path=path)
    if is_gguf(path):
        where = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=dtype).eval()

    @torch.inference_mode()
    def run(prompts: list[list[int]], tokens: int) -> Decoded:
        batch = torch.tensor(prompts)
        seconds = {}
        for count in (1, tokens):
            began = time.perf_counter()
            output = model.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                min_new_tokens=count,
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
            )
            seconds[count] = time.perf_counter() - began
        continuations = output[:, batch.shape[1] :].tolist()
        return Decoded(continuations, seconds[1], seconds[tokens] - seconds[1])

    return run


def llama(gguf: Path, python: str, context: int) -> Contestant:
    """llama.cpp in a process of its own; it takes one row."""
    words = [python, str(WORKER), str(gguf), str(torch.get_num_threads()), str(context)]
    worker = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    if not worker.stdout.readline():
        raise SystemExit(f"error: {' '.join(words)} did not start; is xllamacpp installed?")

    def run(prompts: list[list[int]], tokens: int) -> Decoded:
        print(json.dumps(dict(prompt=prompts[0], tokens=tokens)), file=worker.stdin, flush=True)
        answer = json.loads(worker.stdout.readline())
        return Decoded([answer["tokens"]], answer["read"], answer["decode"])

    return run


def contestants(a: argparse.Namespace, batch: int) -> dict[str, Contestant]:
    """Those that can take so many rows, by name."""
    found = {}
    for name in a.dtypes.split(","):
        dtype = getattr(torch, name)
        model = load_pretrained(a.model, dtype).eval()
        found[f"ours, plain loop, {name}"] = ours(model)
        if a.compile and machine.can_compile("cpu"):
            found[f"ours, compiled step, {name}"] = ours(model, compiled_step(model))
        found[f"transformers' generate, {name}"] = peer(a.model, dtype)
    if a.llama and batch == 1:
        context = a.prompt + a.tokens + 8
        found[f"llama.cpp, {a.model.stem.split('.')[-1]}"] = llama(a.model, a.llama, context)
    return found


def measure_decoding(a: argparse.Namespace, batch: int) -> None:
    """Every contestant in every round; prints medians and records them."""
    running = contestants(a, batch)
    generator = torch.Generator().manual_seed(0)
    shape = (batch, a.prompt)
    prompts = torch.randint(100, 30_000, shape, generator=generator).tolist()
    read, decoded = defaultdict(list), defaultdict(list)
    outputs = {}
    for number in range(a.rounds + 1):
        for name, run in running.items():
            result = run(prompts, a.tokens)
            outputs[name] = result.tokens
            if number > 0:
                read[name].append(batch * a.prompt / result.read)
                # the first new token came with the prompt
                decoded[name].append(batch * (a.tokens - 1) / result.decode)
    rows = f"{batch} rows" if batch > 1 else "1 row"
    print(f"{rows}: a prompt of {a.prompt} tokens, {a.tokens} new ones, {a.rounds} rounds")
    reference = next(name for name in running if name.startswith("transformers"))
    for name in running:
        same = agreement(outputs[name], outputs[reference])
        print(
            f"  {name:34} {statistics.median(read[name]):8.0f} tokens/s read  "
            f"{statistics.median(decoded[name]):8.1f} decoded  "
            f"{same:4.0%} of the tokens as {reference}"
        )
        note = f"{same:.0%} of the greedy tokens as {reference}"
        record(a, f"speed/reading a prompt of {a.prompt}, {rows}: {name}", read[name], note)
        record(a, f"speed/decoding, {rows}: {name}", decoded[name], note)


def agreement(mine: list[list[int]], theirs: list[list[int]]) -> float:
    """The share of equal tokens."""
    return (torch.tensor(mine) == torch.tensor(theirs)).float().mean().item()


def record(a: argparse.Namespace, name: str, rates: list[float], note: str) -> None:
    if a.dry:
        return
    result_tables.record(
        SUBJECT,
        name,
        round(statistics.median(rates), 1),
        n=len(rates),
        unit="tokens/s",
        spread=f"{min(rates):.0f} to {max(rates):.0f}",
        note=note,
    )


# --------------------------------------------------------------------------------------------------
# Training.


def training_step(path: Path, trained_blocks: int, dtype: torch.dtype) -> Callable:
    """One optimiser step of stage distill on tokens and targets (B, T), as a function."""
    model = load_pretrained(path)
    if trained_blocks:
        freeze_below(model, trained_blocks)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5, fused=True)

    def step(tokens, targets) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = cross_entropy(model.hidden(tokens), model.unembedding, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_training(a: argparse.Namespace) -> None:
    """Tokens per second and share of the matrix peak, all weights and the upper half, in turns."""
    dtype = machine.pick_dtype("auto", "cpu")
    machine.set_arithmetic("cpu")
    machine.keep_freed_memory()
    shape = load_pretrained(a.model).config
    batch, length = a.batch, a.length
    tokens = torch.randint(100, shape.vocab_size, (batch, length + 1))
    taught = torch.rand(batch, length) < TAUGHT
    targets = tokens[:, 1:].where(taught, IGNORE)
    ways = {"all weights": 0, f"the upper {shape.layers // 2} blocks": shape.layers // 2}
    steps = {way: training_step(a.model, count, dtype) for way, count in ways.items()}
    rates, peaks = defaultdict(list), []
    for number in range(a.rounds + 1):
        for way, step in steps.items():
            began = time.perf_counter()
            step(tokens[:, :-1], targets)
            if number > 0:
                rates[way].append(batch * length / (time.perf_counter() - began))
        peaks.append(machine.matmul_peak("cpu", dtype, seconds=0.3))
    peak = statistics.median(peaks[1:])
    name = str(dtype).removeprefix("torch.")
    print(
        f"training, {batch} × {length} tokens, {TAUGHT:.0%} of them taught, {name}, AdamW; "
        f"matrix peak {peak / 1e9:.0f} GFLOP/s"
    )
    for way, count in ways.items():
        rate = statistics.median(rates[way])
        flops = flops_per_token(shape, length, trained_blocks=count, taught=TAUGHT)
        share = rate * flops / peak
        print(f"  {way:34} {rate:8.0f} tokens/s  {share:5.0%} of the peak")
        note = f"{share:.0%} of the {name} matrix peak, {peak / 1e9:.0f} GFLOP/s"
        record(a, f"training/{batch} × {length} tokens, {way}", rates[way], note)


# --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=model_path, help="published weights, by path or name")
    parser.add_argument("--llama", default="", help="a Python with xllamacpp")
    parser.add_argument("--only", default="one,rows,train", help="parts, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--tokens", type=int, default=64, help="new ones")
    parser.add_argument("--rows", type=int, default=16, help="of the part rows")
    parser.add_argument("--batch", type=int, default=4, help="rows of a training step")
    parser.add_argument("--length", type=int, default=512, help="tokens of such a row")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    if not a.dry and a.model != model_path("smollm2"):
        raise UserError(f"docs/BENCH.md has SmolLM2's speeds alone; measure {a.model} with --dry")
    if a.llama and not is_gguf(a.model):
        raise UserError(f"llama.cpp reads GGUF files, and {a.model} is none")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"{result_tables.machine()}, {torch.get_num_threads()} threads")
    for part in a.only.split(","):
        if part == "one":
            measure_decoding(a, 1)
        elif part == "rows":
            measure_decoding(a, a.rows)
        elif part == "train":
            measure_training(a)
        else:
            raise SystemExit(f"error: there is no part {part!r}; wanted one, rows, train")


if __name__ == "__main__":
    settings.run_script(main)
