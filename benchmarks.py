"""Published benchmarks and our worlds, asked and played: one command, one table (§6).

    python eval.py --tasks gsm8k,bfcl --limit 100              SmolLM2, 100 items of each
    python eval.py --model out/smol/sage --tasks mgsm:de       a run, one language
    python eval.py --tasks math500 --mode vote --votes 8       the majority of 8 samples
    python eval.py --model out/smol/thinking --tasks math500,world:sql --mode think

    asked   gsm8k, math500, mgsm, mmlu, mmlu_pro, mmmlu, gpqa      support/asked.py
    played  bfcl, agentbench:db, agentbench:os, world:library, ...  support/played.py

What differs from eval.py with a settings file, which compares the stages of a lineage by our own
tasks: any model, tasks that others published, one figure of each with its standard error.

What is wanted is checked before a model is opened. Every answer and episode is kept, a JSON line
each, below --folder; what was stopped goes on there. The FLOPs are counted, not measured: 2 per
multiplying weight and token, 4·H·d per pair of tokens and layer, 2·D·V per token whose logits are
needed; padding is not counted.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from config import Benchmarks, UserError
from mch import ThinkingHeads
from support import checkpoint, machine, provenance, settings
from support.answer_table import by_group, figures_of_rows, table_of
from support.asked import AskedBenchmark
from support.measured import RowFile, Stage, clock, open_stage
from support.played import PLAYS, PlayedBenchmark, play_name, played_benchmark
from support.pretrained import is_pretrained
from support.protocols import PROTOCOLS


def benchmark_of(task: str, a: Benchmarks) -> AskedBenchmark | PlayedBenchmark:
    """What a task names: "gsm8k", "mgsm:de", "world:sql". Raises UserError."""
    if task.partition(":")[0] in PROTOCOLS:
        return AskedBenchmark(task, a)
    if play_name(task):
        return played_benchmark(task, a)
    raise UserError(f"no benchmark {task}; {settings.nearest(task, [*PROTOCOLS, *PLAYS])}")


def load_thinking_heads(a: Benchmarks, stage: Stage, device: str) -> ThinkingHeads:
    """The heads that mode think asks; the stage's identity tells of them, too. Raises UserError
    where the model has none.
    """
    if is_pretrained(a.model) or not checkpoint.has_heads(a.model):
        raise UserError(
            f"--mode think asks thinking heads, and {stage.name} has no trained heads; train them "
            "with heads.py and name the run that it writes, or take --mode fast, or for questions "
            "--mode vote"
        )
    stage.weights["heads"] = provenance.digest(checkpoint.heads_file(a.model))
    dtype = next(stage.model.parameters()).dtype
    return checkpoint.load_heads(a.model, stage.model.config, device, dtype)


def measured_rows(
    task: str,
    benchmark: AskedBenchmark | PlayedBenchmark,
    stage: Stage,
    heads: ThinkingHeads | None,
    folder: Path,
) -> list[dict]:
    """A row per wanted item, in the order of asking; those that are in the folder are not measured
    again.
    """
    name = benchmark.name.replace(":", " ")
    kept = RowFile(folder / f"{name} {benchmark.how}.jsonl", benchmark.made_from(stage))
    todo = [number for number in benchmark.numbers if number not in kept.rows]
    began = time.perf_counter()
    for begin in range(0, len(todo), benchmark.at_once):
        numbers = todo[begin : begin + benchmark.at_once]
        kept.add(benchmark.measure(stage, heads, numbers))
        done = begin + len(numbers)
        spent = time.perf_counter() - began
        left = clock(spent / done * (len(todo) - done))
        said = f"{done} of {len(todo)}, {clock(spent)}, some {left} left"
        print(f"{stage.name}: {task} {benchmark.how:12} {said}", flush=True)
    return [kept.rows[number] for number in benchmark.numbers]


def main(arguments: list[str] | None = None) -> dict[str, dict]:
    """Measure, print and keep; returns the results by task, with their "rows"."""
    a = settings.benchmarks_from_command_line(arguments)
    wanted = {task: benchmark_of(task, a) for task in a.tasks.split(",") if task}
    if not wanted:
        raise UserError("--tasks names no benchmark; gsm8k,bfcl would be two")
    device = machine.pick_device(a.device)
    dtype = machine.pick_dtype(a.dtype, device)
    torch.set_float32_matmul_precision("medium")
    if device == "cpu":
        machine.keep_freed_memory()
    stage = open_stage(a.model, dtype, device)
    if not is_pretrained(a.model):  # out/toy/sage and out/smol/sage are two
        stage.name = " ".join(Path(a.model).parts[-2:])
    heads = load_thinking_heads(a, stage, device) if a.mode == "think" else None

    folder = Path(a.folder) / stage.name
    results, rows_of = {}, {}
    for task, benchmark in wanted.items():
        rows = rows_of[task] = measured_rows(task, benchmark, stage, heads, folder)
        results[task] = dict(
            how=benchmark.how,
            figures=figures_of_rows(rows),
            groups=by_group(rows),
            measured=sorted({row.get("measured", "an earlier version") for row in rows}),
            **benchmark.described(stage),
        )
        content = dict(settings=asdict(a), model=stage.weights, **results[task])
        file = folder / f"{task.replace(':', ' ')} {benchmark.how}.json"
        provenance.replace(file, json.dumps(content, indent=1, ensure_ascii=False))
    print(f"\n{table_of(results)}\n\nanswers and figures: {folder}")
    return {task: result | dict(rows=rows_of[task]) for task, result in results.items()}
