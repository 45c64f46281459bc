"""How much of the published benchmarks runs here, and is judged right when its own answer is given.

    python bench/published.py [folder]        five minutes; the folder holds agentbench/ and bfcl/
                                              (default: $SAGE_DATA or ../shared/data)

Files that the folder lacks are left out. Writes docs/results/worlds.json, group published/. Needs
bubblewrap for AgentBench OS.
"""

import os
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from support import result_tables as results  # noqa: E402
from config import UserError  # noqa: E402
from worlds.base import Episode  # noqa: E402
from worlds.extras.benchmarks import BFCL_FILES, agentbench_db, agentbench_os, bfcl  # noqa: E402


def record(name: str, value: int, n: int, note: str = "") -> None:
    print(f"{name:<60}{value:>6} of {n:<6}{note}")
    results.record(
        "worlds", f"published/{name}", value, n=n, note=note, command="python bench/published.py"
    )


def measure_db(folder: Path, file: str, name: str) -> None:
    hashes = noisy = changing = asking = 0
    for task in agentbench_db(folder, file):
        with Episode(task) as episode:
            if task.truth["changing"]:
                episode.step(task.solution[0].call)
                changing, hashes = changing + 1, hashes + episode.verify("done")
            else:
                call = {"name": "sql", "arguments": {"query": task.truth["published"]}}
                said = episode.step(call)
                asking, noisy = asking + 1, noisy + episode.verify(f"answer: {said}")
    record(
        f"AgentBench DB, {name}, changing: gold statement gives the hash",
        hashes,
        changing,
        "the others need MySQL's escapes, names or collation" if hashes < changing else "",
    )
    record(
        f"AgentBench DB, {name}, asking: published query gives the label",
        noisy,
        asking,
        "the published queries are broken or noisy",
    )


def measure_os(folder: Path, file: str, name: str) -> None:
    tasks, reasons = agentbench_os(folder, file)
    right = run = 0
    for task in tasks:
        try:
            with Episode(task) as episode:
                said = (
                    f"answer: {episode.step(task.solution[0].call)}"
                    if task.solution
                    else task.answer
                )
                run += 1
                right += episode.verify(task.answer or said) and not episode.verify(
                    "answer: 987654"
                )
        except UserError as reason:
            reasons[task.seed] = str(reason)
    place = re.compile(r"^\S+:[0-9]+: ")
    why = Counter(place.sub("", reason.splitlines()[0]) for reason in reasons.values())
    record(
        f"AgentBench OS, {name}: tasks that run",
        run,
        run + len(reasons),
        "; ".join(f"{count}: {reason}" for reason, count in why.items()),
    )
    record(
        f"AgentBench OS, {name}: own answer right, another wrong",
        right,
        run,
        "four have no example: their published answer is compared with itself; the official "
        "check of sizes takes no 4.0K"
        if name == "dev"
        else "",
    )


def measure_bfcl(folder: Path, name: str) -> None:
    right = refused = 0
    tasks = bfcl(folder, name)
    for task in tasks:
        calls = [step.call for step in task.solution]
        if name == "live_relevance":  # any call will do
            calls = [{"name": task.tools[0]["function"]["name"], "arguments": {}}]
        with Episode(task) as episode:
            for call in calls:
                episode.step(call)
            right += episode.verify(task.answer)
            refused += any(entry.faults for entry in episode.log) and name != "live_relevance"
    record(
        f"BFCL {name}: key's calls are right",
        right,
        len(tasks),
        f"{refused} of them break their own schemas" if refused else "",
    )


def main(folder: Path) -> None:
    for file, name in (("dev.jsonl", "dev"), ("standard.jsonl", "standard")):
        if (folder / "agentbench" / "dbbench" / file).is_file():
            measure_db(folder / "agentbench", file, name)
    for file, name in (("dev.json", "dev"), ("training_1000.json", "training")):
        if (folder / "agentbench" / "os" / file).is_file():
            measure_os(folder / "agentbench", file, name)
    for name in BFCL_FILES:
        if (folder / "bfcl" / f"BFCL_v4_{name}.json").is_file():
            measure_bfcl(folder / "bfcl", name)


if __name__ == "__main__":
    default = os.environ.get("SAGE_DATA", ROOT.parent / "shared" / "data")
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else default))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
