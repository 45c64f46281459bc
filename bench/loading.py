"""Memory and time that loading Qwen2.5 weights takes: in one process, by rows in two ranks, and by
transformers' from_pretrained, each in processes of their own, in turns. On a CPU from_pretrained
leaves the weights in the file, mapped; so it is timed with a copy into memory too, which is where
ours lie when load_pretrained returns.

    python bench/loading.py          prints and records docs/results/trunk.json

The folder is made for it: Qwen2.5-3B's layers, 14 of them, with a vocabulary of 32,768, in 4 shards
of bfloat16, all of it in the page cache. (Qwen's own 151,936 tokens make E_code, which no file
holds, a sixth of a model of this size; here it is 6%.)

Memory is VmHWM, the peak of what is resident, set back just before loading, over what was resident
then: an upper bound, for it counts pages of the file that are mapped at the time as well. A tiny
folder is loaded before, so that what is imported on the way does not count. RssAnon, memory of the
process's own, has no peak in /proc; it is read at the end, and shows whether the weights lie in
memory or still in the file.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import parallel
from support import ranks
from config import Parallel
from support import result_tables as results
from support.pretrained import load_pretrained, save_pretrained
from support.qwen_sizes import SIZES
from support.weights import allocate_model

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
SHAPE = replace(SIZES["3B"], layers=14, vocab_size=32_768)
TINY = replace(SHAPE, layers=1, width=64, heads=2, kv_heads=1, head_dim=32, feed_forward=64)


def resident(key: str) -> int:
    """Bytes of this process, by their name in /proc: VmRSS, VmHWM or RssAnon."""
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {key} in /proc/self/status")


def load(way: str, folder: str):
    if way in ("mapped", "copied"):
        from transformers import Qwen2ForCausalLM

        model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        if way == "copied":
            for p in model.parameters():
                p.data = p.data.clone()
        return model
    parallelise = partial(parallel.parallelise, c=Parallel()) if way == "ranks" else None
    return load_pretrained(folder, torch.bfloat16, parallelise=parallelise)


def measure(way: str, folder: str) -> None:
    """In a process of its own: load once, and print what it took, from all ranks."""
    ranks.start()
    load(way, f"{folder}/tiny")
    before = resident("VmRSS")
    own = resident("RssAnon")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    began = time.perf_counter()
    model = load(way, f"{folder}/large")  # kept until it has been measured
    seconds = time.perf_counter() - began
    peak = resident("VmHWM") - before
    own = resident("RssAnon") - own
    found = ranks.gather(dict(seconds=seconds, peak=peak, own=own))
    print(json.dumps({key: max(rank[key] for rank in found) for key in found[0]}))


def run(way: str, folder: str) -> dict:
    """What one loading took, in a fresh process or in two ranks; the worse rank's figures."""
    command = [sys.executable]
    if way == "ranks":
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [__file__, way, folder]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def make_folder(shape, folder: Path) -> int:
    """Random weights in 4 shards; returns the files' size in bytes."""
    model = allocate_model(shape, torch.bfloat16, "cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.02)
    size = sum(p.nbytes for p in model.parameters())
    save_pretrained(model, folder, shard_bytes=int(size / 3.9))
    (folder / "sage.safetensors").unlink()  # Qwen's folders have none: E_code = E_text
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
        return
    ways = {
        "one": "one process",
        "ranks": "two ranks",
        "mapped": "from_pretrained",
        "copied": "from_pretrained, copied into memory",
    }
    figures = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        make_folder(TINY, Path(folder) / "tiny")
        size = make_folder(SHAPE, Path(folder) / "large")
        shards = len(list((Path(folder) / "large").glob("*.safetensors")))
        print(f"{size / 1e9:.2f} GB in {shards} shards")
        for number in range(ROUNDS):
            for way in ways:
                found = run(way, folder)
                figures[way].append(found)
                print(
                    f"{ways[way]:36} {found['seconds']:6.2f} s; peak {found['peak'] / size:.3f} × "
                    f"the file, own memory at the end {found['own'] / size:.3f} ×",
                    flush=True,
                )
    goals = dict(one="≤ 1.15", ranks="≤ 0.6 per rank")
    file = f"{size / 1e9:.2f} GB of bfloat16 in {shards} shards"
    for way, name in ways.items():
        own = statistics.median(found["own"] for found in figures[way])
        peak = statistics.median(found["peak"] for found in figures[way])
        results.record(
            "trunk",
            f"loading/peak memory ÷ file, {name}",
            round(peak / size, 3),
            spread=f"median of {ROUNDS}",
            unit="×",
            goal=goals.get(way, ""),
            note=f"{file}; own memory at the end {own / size:.2f} ×",
        )
    for way, name in ways.items():
        seconds = [found["seconds"] for found in figures[way]]
        results.record(
            "trunk",
            f"loading/time, {name}",
            round(statistics.median(seconds), 2),
            spread=f"median of {ROUNDS}, {min(seconds):.2f} to {max(seconds):.2f}",
            unit="s",
        )


if __name__ == "__main__":
    main()
