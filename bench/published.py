"""How much of the published benchmarks runs here, and is judged right when its own answer is given.

    python bench/published.py [folder]        five minutes; the folder holds agentbench/ and bfcl/ (default: $SAGE_DATA or ../shared/data)

Writes docs/results/worlds.json, group published/. Needs bubblewrap for AgentBench OS.
"""

import os
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import results  # noqa: E402
from config import UserError  # noqa: E402
from worlds import Episode  # noqa: E402
from worlds.benchmarks import BFCL_FILES, agentbench_db, agentbench_os, bfcl  # noqa: E402


def record(name: str, value: int, n: int, note: str = "") -> None:
    print(f"{name:<60}{value:>6} of {n:<6}{note}")
    results.record("worlds", f"published/{name}", value, n=n, note=note, command="python bench/published.py")


def main(folder: Path) -> None:
    tasks = agentbench_db(folder / "agentbench")
    hashes = noisy = changing = 0
    for task in tasks:
        with Episode(task) as episode:
            said = episode.step({"name": "sql", "arguments": {"query": task.truth["published"] or task.solution[0].call["arguments"]["query"]}})
            changing += task.truth["hash"] is not None
            hashes += task.truth["hash"] is not None and episode.verify("done")
            noisy += task.truth["hash"] is None and episode.verify(said)
    record("AgentBench DB, changing: gold statement gives the hash", hashes, changing)
    record("AgentBench DB, asking: published query gives the label", noisy, len(tasks) - changing, "the published queries are broken or noisy")

    for file, name in (("dev.json", "dev"), ("training_1000.json", "training")):
        tasks, reasons = agentbench_os(folder / "agentbench", file)
        right = run = 0
        for task in tasks:
            try:
                with Episode(task) as episode:
                    said = episode.step(task.solution[0].call) if task.solution else task.truth["match"]
                    run += 1
                    right += episode.verify(f"answer: {said}") and not episode.verify("answer: 987654")
            except UserError as reason:
                reasons[task.seed] = str(reason)
        why = Counter(reason.splitlines()[0] for reason in reasons.values())
        record(f"AgentBench OS, {name}: tasks that run", run, run + len(reasons), "; ".join(f"{count}: {reason}" for reason, count in why.items()))
        record(f"AgentBench OS, {name}: own answer right, another wrong", right, run,
               "four have no example: their published answer is compared with itself (tests/test_benchmarks.py looks at what they do)" if name == "dev" else "")

    for name in BFCL_FILES:
        tasks = bfcl(folder / "bfcl", name)
        right = 0
        for task in tasks:
            with Episode(task) as episode:
                for step in task.solution:
                    episode.step(step.call)
                right += episode.verify(task.answer) and not any(entry.faults for entry in episode.log)
        record(f"BFCL {name}: key's calls pass check and judge", right, len(tasks))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SAGE_DATA", ROOT.parent / "shared" / "data")))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
