"""The paper's orderings, one line per claim, judged on a lineage's test tasks (docs/CLAIMS.md).

    python bench/claims.py                       every claim whose two stages have been measured
    python bench/claims.py --dry                 the same, nothing recorded
    python bench/claims.py --model toy           of the toy's stages

Reads what bench/lineage.py kept of each task in --folder, so both stages played the same tasks, and
takes the difference task by task. A claim "holds" where the 95% interval of the difference
(bootstrap over tasks) lies wholly on the side that the claim names, "fails" where it lies wholly on
the other, and is "not shown" otherwise; that something "stays" has a margin that it may lose.
Where a stage was trained several times ("sage", "sage-2", ...), the bootstrap draws seeds, too, and
the interval is the wider of it and Student's over the seeds' differences.
Each line of CLAIMS was written before its later stage had played these tasks; docs/CLAIMS.md says
when.
Records docs/results/claims.json.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import UserError
from support import result_tables, settings
from support.intervals import paired_difference
from worlds.base import refuses

SUBJECT = "claims"  # docs/results/claims.json

# --------------------------------------------------------------------------------------------------
# Measures: what a row says as (above, below); a figure is sum(above) ÷ sum(below) over tasks.


def success(row: dict) -> tuple[float, float]:
    return sum(e["verified"] for e in row["episodes"]), len(row["episodes"])


def of_calls(count: int) -> Callable[[dict], tuple[float, float]]:
    """Success of the tasks that need so many calls."""
    return lambda row: success(row) if row["needed"] == count else (0, 0)


def invented(row: dict) -> tuple[float, float]:
    return sum(e["invented"] for e in row["episodes"]), sum(e["calls"] for e in row["episodes"])


def recovered(row: dict) -> tuple[float, float]:
    met = [e for e in row["episodes"] if e["fault"]]
    return sum(bool(e["recovered"]) for e in met), len(met)


def handled(row: dict) -> tuple[float, float]:
    return success(row) if row["unsafe"] else (0, 0)


def over_refused(row: dict) -> tuple[float, float]:
    if row["unsafe"] is not False:
        return 0, 0
    messages = row["episodes"][0]["messages"]
    return float(bool(messages) and refuses(messages[-1])), 1


def official(row: dict) -> tuple[float, float]:
    return sum(e["official"] for e in row["episodes"]), len(row["episodes"])


def bits(row: dict) -> tuple[float, float]:
    return row["nats"] / math.log(2), row["bytes"]


# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """That `measure` is higher in stage `after` than in `before` (sign 1), or lower (sign −1), on
    one part's tasks; with a margin: not worse by more than that.
    """

    sentence: str
    part: str  # of bench/lineage.py
    measure: Callable[[dict], tuple[float, float]]
    before: str
    after: str
    sign: int
    paper: str = ""
    unit: str = "%"
    margin: float = 0.0  # in the unit


FAULTS = (
    ("fault seen", "familiar faults"),
    ("fault words", "other words"),
    ("fault kind", "a new kind"),
)


def text_stays(before: str, after: str) -> list[Claim]:
    """Other skills are kept: bits per byte of three sorts of text."""
    end = dict(unit="bits per byte", margin=0.02)
    return [
        Claim(
            f"bits per byte of {sort} stay (0.02)", f"text/{sort}", bits, before, after, -1, **end
        )
        for sort in ("prose", "code", "gsm8k")
    ]


ORDERINGS = (("instruct", "distilled"), ("distilled", "reflected"), ("reflected", "sage"))
SMOL = (
    *(
        Claim("success rises", "library/greedy", success, before, after, 1, "§3, §6: each stage")
        for before, after in ORDERINGS
    ),
    *(
        Claim("success sampled rises", "library/sampled", success, before, after, 1)
        for before, after in ORDERINGS
    ),
    Claim("success of two calls rises", "library/greedy", of_calls(2), "distilled", "sage", 1),
    *(
        Claim("invention falls", "library/greedy", invented, before, after, -1, "14.5% to 2.4%")
        for before, after in ORDERINGS
    ),
    *(
        Claim(
            f"recovery rises, {words}",
            f"library/{sort}",
            recovered,
            "distilled",
            "sage",
            1,
            "35% to 76%",
        )
        for sort, words in FAULTS
    ),
    Claim("unsafe requests handled rise", "safety/greedy", handled, "reflected", "safe", 1),
    Claim(
        "over-refusal stays (5 points)",
        "safety/greedy",
        over_refused,
        "reflected",
        "safe",
        -1,
        margin=5.0,
    ),
    *(
        Claim(f"BFCL {file} rises", f"bfcl/{file}", official, "instruct", "sage", 1)
        for file in ("simple_python", "multiple", "parallel", "irrelevance")
    ),
    *text_stays("instruct", "sage"),
)


# of the toy's stage ppo
REINFORCEMENT = tuple(
    Claim(f"success {words}, {world}", f"{world}/{part}", success, "distilled", after, 1, "§3")
    for after in ("sage", "both")  # math tasks are rewarded, or API tasks as well
    for world in ("math", "api")
    for part, words in (("sampled", "sampled rises"), ("greedy", "rises"))
)
# the same from a start that has read random words (docs/CLAIMS.md, "In other words"): math tasks
# are rewarded, and what is not falls
WORDS = tuple(
    Claim(f"success {words}, {world}", f"{world}/{part}", success, "distilled", "sage", sign, "§3")
    for world, sign, verb in (("math", 1, "rises"), ("api", -1, "falls"))
    for part, words in (("sampled", f"sampled {verb}"), ("greedy", verb))
)
# of its stage reflect; "more" and "rejection" are the controls (docs/CLAIMS.md)
ABOUT_REFLECTION = (("distilled", "reflected"), ("more", "reflected"), ("rejection", "reflected"))
REFLECTION = (
    *(
        Claim(f"success {words}, {world}", f"{world}/{part}", success, before, after, 1, "§3")
        for world in ("api", "math")
        for part, words in (("sampled", "sampled rises"), ("greedy", "rises"))
        for before, after in ABOUT_REFLECTION
    ),
    *(
        Claim(f"invention {words}, api", f"api/{part}", invented, before, after, -1, "§6")
        for part, words in (("sampled", "sampled falls"), ("greedy", "falls"))
        for before, after in ABOUT_REFLECTION
    ),
    *(
        Claim(f"recovery rises, {words}, api", f"api/{sort}", recovered, before, after, 1, "§6.1")
        for sort, words in FAULTS
        for before, after in ABOUT_REFLECTION
    ),
)
# of the toy's stage distill, whose corrections show where a value comes from, and as it was before
CORRECTIONS = tuple(
    Claim(f"{name} {words}, api", f"api/{part}", measure, "distilled", "mended", sign)
    for name, measure, sign, part, words in (
        ("invention", invented, -1, "sampled", "sampled falls"),
        ("invention", invented, -1, "greedy", "falls"),
        ("success", success, 1, "sampled", "sampled rises"),
        ("success", success, 1, "greedy", "rises"),
    )
)
# of SmolLM2's third start, on mended data, with the two controls of stage reflect
THIRD = tuple(
    Claim(what, part, measure, before, "reflected", sign)
    for before in ("distilled", "more", "rejection")
    for what, part, measure, sign in (
        ("success rises", "library/greedy", success, 1),
        ("success sampled rises", "library/sampled", success, 1),
        ("invention falls", "library/greedy", invented, -1),
    )
)
# reinforcement from that start's rejection sampling; and what else the stages do together
REWARDED = (
    *(
        Claim(f"{what} {words}", f"library/{part}", measure, before, "rewarded", sign)
        for before, what, measure, sign in (
            ("rejection", "success", success, 1),
            ("rejection", "invention", invented, -1),
            ("distilled", "success", success, 1),
        )
        for part, words in (
            ("sampled", "sampled rises" if sign > 0 else "sampled falls"),
            ("greedy", "rises" if sign > 0 else "falls"),
        )
    ),
    *(
        Claim(f"recovery rises, {words}", f"library/{sort}", recovered, "distilled", "rewarded", 1)
        for sort, words in FAULTS
    ),
    Claim("over-refusal falls", "safety/greedy", over_refused, "distilled", "rewarded", -1),
    Claim(
        "unsafe requests handled stay (5 points)",
        "safety/greedy",
        handled,
        "distilled",
        "rewarded",
        1,
        margin=5.0,
    ),
    *text_stays("instruct", "rewarded"),
)
CLAIMS = {
    "smol": SMOL,
    "smol-third": THIRD,
    "smol-rewarded": REWARDED,
    "toy": REINFORCEMENT + REFLECTION,
    "toy-weighted": REFLECTION,
    "toy-words": WORDS,
    "toy-corrections": CORRECTIONS,
}


@dataclass
class Rows:
    """What a stage's training seeds gave in a part: the same tasks' rows by number, for each seed
    by what its folder adds to the stage's name: "", "-2", ...
    """

    made_from: list  # tasks and how they were played, dtype, tokenizer
    by_seed: dict[str, dict[int, dict]]


def rows_of(folder: Path, stage: str, part: str) -> Rows | None:
    """A stage's rows of a part, of all its seeds; None if unmeasured. Raises UserError where two
    seeds played different tasks, or other tasks than those of test.
    """
    name = f"{part.replace('/', ' ')}.jsonl"
    found = None
    for path in sorted([folder / stage, *folder.glob(f"{stage}-[0-9]*")]):
        file = path / name
        lines = file.read_text().splitlines() if file.exists() else []
        if not lines:
            continue
        then = json.loads(lines[0])["made_from"]
        if then["part"].get("tasks", {}).get("split", "test") != "test":
            raise UserError(
                f"{file} holds validation tasks, by which nothing is claimed; run bench/lineage.py "
                "with --split test"
            )
        made_from = [then["part"], *(then["stage"].get(key) for key in ("dtype", "tokenizer"))]
        found = found or Rows(made_from, {})
        if found.made_from != made_from:
            raise UserError(
                f"{part}: the seeds of {stage} were measured on different tasks, or with another "
                "dtype or tokenizer"
            )
        rows = {row["number"]: row for row in map(json.loads, lines[1:])}
        found.by_seed[path.name.removeprefix(stage)] = rows
    return found


@dataclass
class Verdict:
    """The difference that a claim is about; in percentage points, or in the claim's unit."""

    difference: float
    low: float
    high: float
    n: int  # tasks that count in one of the stages, or both
    seeds: int  # of training, of the stage that was trained more often
    before: float
    after: float
    words: str


def judge(claim: Claim, folder: Path) -> Verdict | None:
    """The verdict, or None where one of the stages has no rows. Raises UserError where the two
    stages' rows are of different tasks.
    """
    before, after = (rows_of(folder, stage, claim.part) for stage in (claim.before, claim.after))
    if not (before and after):
        return None
    if before.made_from != after.made_from:
        raise UserError(
            f"{claim.part}: {claim.before} and {claim.after} were measured on different tasks, or "
            "with other settings, dtype or tokenizer; run bench/lineage.py with both stages in one "
            "command, and --dtype as one of them had it"
        )
    seeds, starts = after.by_seed, before.by_seed
    if [*starts] == [""]:  # a start that all seeds share stands beside each of them
        starts = dict.fromkeys(seeds, starts[""])
    if starts.keys() != seeds.keys():
        raise UserError(
            f"{claim.part}: {claim.before} and {claim.after} were trained with different seeds, "
            f"{[*starts]} and {[*seeds]}; wanted the same, or one {claim.before} for all"
        )
    sides = [[side[seed] for seed in seeds] for side in (starts, seeds)]
    numbers = sorted(set.intersection(*(set(rows) for side in sides for rows in side)))
    if not numbers:
        return None
    entries = np.array(
        [[[claim.measure(rows[n]) for n in numbers] for rows in side] for side in sides]
    )  # (before and after, seeds, tasks, above and below)
    entries = entries[:, :, entries[..., 1].any((0, 1))]
    sums = entries.sum((1, 2))
    if not sums[:, 1].all():
        return None
    scale = 100 if claim.unit == "%" else 1
    shares = [float(scale * above / below) for above, below in sums]
    low, high = (scale * end for end in paired_difference(*entries))
    if claim.unit == "%":  # of two seeds Student's interval may be wider than there is room
        low, high = max(low, -100.0), min(high, 100.0)
    toward = sorted(claim.sign * end + claim.margin for end in (low, high))
    words = "holds" if toward[0] > 0 else "fails" if toward[1] < 0 else "not shown"
    n = entries.shape[2]
    return Verdict(shares[1] - shares[0], low, high, n, len(seeds), *shares, words)


def main(arguments: list[str] | None = None) -> dict[str, Verdict]:
    """Print and record every claim that can be judged; returns the verdicts by name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="out/measured", help="bench/lineage.py's rows")
    parser.add_argument("--model", choices=CLAIMS, default="smol", help="whose lineage it is")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args(arguments)
    verdicts = {}
    for claim in CLAIMS[a.model]:
        name = f"{claim.sentence}, {claim.before} to {claim.after}"
        verdict = judge(claim, Path(a.folder) / a.model)
        if verdict is None:
            print(f"{name:62} not measured")
            continue
        verdicts[name] = verdict
        digits = 1 if claim.unit == "%" else 3
        unit = "points" if claim.unit == "%" else claim.unit
        ends = f"({verdict.low:+.{digits}f} to {verdict.high:+.{digits}f})"
        values = f"{verdict.before:.{digits}f} → {verdict.after:.{digits}f}"
        print(
            f"{name:62} {verdict.difference:+.{digits}f} {unit} {ends}, {values}, "
            f"n {verdict.n}, seeds {verdict.seeds}: {verdict.words}"
        )
        if not a.dry:
            result_tables.record(
                SUBJECT,
                f"{a.model}/{name}",
                round(verdict.difference, digits) + 0.0,  # -0.0 becomes 0.0
                spread=ends,
                n=verdict.n,
                seeds=verdict.seeds,
                unit=unit,
                paper=claim.paper,
                note=f"{values}; {verdict.words}",
            )
    if not verdicts:
        raise UserError(
            f"{a.folder} holds no claim's two stages; run bench/lineage.py with them first"
        )
    return verdicts


if __name__ == "__main__":
    settings.run_script(main)
