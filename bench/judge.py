"""What the worlds promise, counted: the expert solves every task, chance solves none, and the hard
negatives fail where others judge.

    python bench/judge.py
        records docs/results/worlds.json, groups expert/, chance/, negatives/, leaderboard/

No figure here is a time. The leaderboard's files (BFCL) are read from $SAGE_DATA or ../shared/data
and left out if absent.
"""

import os
import random
import sys
from collections import Counter
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1]),
    str(Path(__file__).resolve().parents[1] / "tests"),
]

import bfcl_rule
from support import result_tables as results
from worlds.expert import invented, solve_task
from worlds.extras.chance import by_chance
from worlds.calls import check_call
from worlds.negatives import hard_negatives
from worlds import WORLDS
from worlds.base import world_class
from worlds.difficulty import Difficulty
from worlds.faults import FAULT_KINDS, HELD_OUT_KINDS
from worlds.tasks import draw_task

TASKS = 2000
FAMILIES = {  # what is varied: the knobs
    "default": Difficulty(),
    "one fault each": Difficulty(fault_rate=1.0),
    "one fault each, test names, wordings and kind": Difficulty(
        fault_rate=1.0, split="test", fault_kinds=(*FAULT_KINDS, *HELD_OUT_KINDS["test"])
    ),
    "widest knobs, faults at 0.5": Difficulty(
        tools=6, arguments=4, chain=4, decoys=3, distractors=2, fault_rate=0.5
    ),
}
RULE = {
    "type": "type_error",
    "key": "unexpected_param",
    "logic": "value_error",
}  # the leaderboard's families of errors are the paper's hard negatives


def measure_worlds() -> None:
    for name in WORLDS:
        for family, difficulty in FAMILIES.items():
            if difficulty.fault_rate and not world_class(name).faults:
                continue
            solved = made_up = met = 0
            for index in range(TASKS):
                _, episode = solve_task(draw_task(name, 0, index, difficulty))
                solved, made_up, met = (
                    solved + episode.verified,
                    made_up + invented(episode),
                    met + bool(episode.faults),
                )
            results.record(
                "worlds",
                f"expert/{name}, {family}",
                solved / TASKS * 100,
                unit="% verified",
                n=TASKS,
                goal="100",
                note=f"{met} met a fault, {made_up} invented arguments or tools",
            )
            print(
                f"{name:7} {family:42} {solved}/{TASKS} verified, "
                f"{met} met a fault, {made_up} invented"
            )
        for informed in (False, True):
            right = by_chance(name, TASKS, informed=informed)
            how = "values out of the request" if informed else "any values"
            results.record(
                "worlds",
                f"chance/{name}, random valid calls, {how}",
                right / TASKS * 100,
                unit="% verified",
                n=TASKS,
                goal="" if informed else "≤ 2",
                note="a policy that copies without reading" if informed else "",
            )
            print(f"{name:7} chance, {how:35} {right}/{TASKS} verified")


def measure_negatives() -> None:
    for name in WORLDS:
        calls, found = 0, Counter()
        for index in range(500):
            task = draw_task(name, 0, index)
            for step in task.solution:
                if step.call:
                    calls += 1
                    found.update(
                        hard_negatives(step.call, task.tools, random.Random(index), task).keys()
                    )
        if calls:
            share = sum(found.values()) / (3 * calls) * 100
            results.record(
                "worlds",
                f"negatives/{name}, found and failing when executed",
                share,
                unit="% of three a call",
                n=3 * calls,
                note=", ".join(f"{kind} {found[kind]}" for kind in RULE) + f" of {calls} calls",
            )
            print(f"{name:7} negatives {dict(found)} of {calls} calls")


def measure_leaderboard(folder: Path) -> None:
    first, further, rejected_first, rejected_further, judged = 0, 0, [], [], Counter()
    agreed = Counter()
    for case, functions, answers in bfcl_rule.cases(folder):
        toolbox = [bfcl_rule.tool(function) for function in functions]
        for answer in answers:
            allowed = next(iter(answer.values()))
            for place, call in enumerate(bfcl_rule.truths(answer, functions)):
                wrong = check_call(call, toolbox)
                if place:
                    further += 1
                    rejected_further += [case] if wrong else []
                    continue
                first += 1
                rejected_first += [case] if wrong else []
                if wrong:
                    continue
                function = next(f for f in functions if f["name"] == call["name"])
                for kind, negative in hard_negatives(call, toolbox, random.Random(case)).items():
                    verdict = bfcl_rule.judge(function, allowed, negative)
                    judged[kind] += 1
                    agreed[kind] += verdict == RULE[kind]
    results.record(
        "worlds",
        "leaderboard/ground-truth calls that pass check",
        first - len(rejected_first),
        n=first,
        goal="all",
        note=f"rejected: {', '.join(rejected_first)}" if rejected_first else "",
    )
    results.record(
        "worlds",
        "leaderboard/further allowed values that pass check",
        further - len(rejected_further),
        n=further,
        note=f"rejected: {', '.join(rejected_further)}; "
        "each breaks its own schema (type or enumeration)",
    )
    for kind in RULE:
        results.record(
            "worlds",
            f"leaderboard/{kind} negatives rejected as {RULE[kind]}",
            agreed[kind] / judged[kind] * 100,
            unit="%",
            n=judged[kind],
            goal="≥ 99",
            note="the rest are values that the answer key allows too"
            if agreed[kind] < judged[kind]
            else "",
        )
    print(
        f"leaderboard: {first - len(rejected_first)}/{first} answers pass, "
        f"{further - len(rejected_further)}/{further} further values; "
        f"negatives {dict(agreed)} of {dict(judged)}"
    )
    print(f"rejected: {rejected_first}, further {rejected_further}")


def main() -> None:
    measure_worlds()
    measure_negatives()
    for folder in (os.environ.get("SAGE_DATA"), results.ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "bfcl").is_dir():
            return measure_leaderboard(Path(folder) / "bfcl")
    print(
        "no benchmark data: set SAGE_DATA to a folder with bfcl/ to count the leaderboard's calls"
    )


if __name__ == "__main__":
    main()
