"""Whether the scorers of published questions take right answers and refuse wrong ones.

    python bench/scorers.py                         everything that the folder of data holds
    python bench/scorers.py --only gsm8k,bfcl       some of it
    python bench/scorers.py --dry                   records nothing

Each benchmark's own answers are given to its scorer, and plausible wrong ones (bench/
wrong_answers.py): numbers off by one, with the other sign, with swapped digits, another question's;
calls of another tool, without an argument, with a wrong one; statements that change another row or
write another value; nothing done at all. MATH is judged by two graders that share no line, ours and
the package math-verify; where they differ is listed. Records docs/results/scorers.json, groups
right/, wrong/ and graders/. The data lie in $SAGE_DATA or ../shared/data; AgentBench OS needs
bubblewrap.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import UserError
from support import result_tables, settings
from support.graders import math_verified, normal_math, same_math
from support.measured import data_folder
from support.protocols import RULES
from support.questions import Question, gsm8k, math500, mgsm
from worlds.base import Episode, Task
from worlds.extras.benchmarks import BFCL_FILES, agentbench_db, agentbench_os, bfcl
from worlds.extras.benchmarks import normal, said_answer
from wrong_answers import changed_literal, wrong_calls, wrong_numbers

SUBJECT = "scorers"  # docs/results/scorers.json
COMMAND = "python bench/scorers.py"
LISTED = 12  # of the answers that a scorer took wrongly, in a note


class Tally:
    """What a scorer said of one benchmark's right and wrong answers."""

    def __init__(self, name: str):
        self.name = name
        self.right: list[bool] = []
        self.wrong: dict[str, list[bool]] = defaultdict(list)  # kind → whether each was taken
        self.refused: list[str] = []
        self.taken: list[str] = []

    def add_right(self, taken: bool, what: str) -> None:
        self.right.append(taken)
        self.refused += [] if taken else [what]

    def add_wrong(self, kind: str, taken: bool, what: str) -> None:
        self.wrong[kind].append(taken)
        self.taken += [f"{kind}: {what}"] if taken else []

    def report(self, dry: bool, note: str = "", command: str = COMMAND) -> None:
        """Print and record: right answers taken, wrong ones taken, and by kind."""
        kinds = ", ".join(f"{kind} {sum(t)} of {len(t)}" for kind, t in self.wrong.items())
        wrong = [taken for of_kind in self.wrong.values() for taken in of_kind]
        refused = "; ".join(self.refused[:LISTED])
        listed = "; ".join(self.taken[:LISTED])
        rows = {
            f"right/{self.name}": (self.right, "100", "; ".join(filter(None, [note, refused]))),
            f"wrong/{self.name}": (wrong, "≤ 1", ". ".join(filter(None, [kinds, listed]))),
        }
        for name, (verdicts, goal, said) in rows.items():
            if not verdicts:
                continue
            share = 100 * sum(verdicts) / len(verdicts)
            print(f"{name:40} {share:8.3f}% of {len(verdicts):5}  {said}", flush=True)
            if not dry:
                n = len(verdicts)
                note = escaped(said)
                more = dict(unit="% taken", n=n, goal=goal, note=note, command=command)
                result_tables.record(SUBJECT, name, share, **more)


def escaped(text: str) -> str:
    """A note as a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


# --------------------------------------------------------------------------------------------------
# Numbers and formulas.


def said(rule: str, answer: str) -> str:
    """A text that ends with an answer, as its benchmark asks for it."""
    forms = dict(gsm8k=f"12 and 12.\n#### {answer}", number=f"12 and 12.\n{answer}")
    return forms[rule]


def another(question: Question, others: list[Question], draw: random.Random) -> str:
    """The answer of a question that has another one."""
    other = draw.choice(others)
    while normal_math(other.gold) == normal_math(question.gold):
        other = draw.choice(others)
    return other.gold


def measure_numbers(name: str, rule: str, tested: list[Question], dry: bool) -> None:
    """GSM8K or one language of MGSM."""
    tally, draw = Tally(name), random.Random(0)
    judge = RULES[rule]

    def taken(text: str, question: Question) -> bool:
        return judge.right(judge.read(text, question), question)

    for q in tested:
        tally.add_right(taken(said(rule, q.gold), q), q.source)
        for kind, answer in wrong_numbers(q.gold, another(q, tested, draw)).items():
            tally.add_wrong(kind, taken(said(rule, answer), q), f"{answer} for {q.gold}")
        tally.add_wrong("no answer", taken("I do not know.", q), q.source)
    if rule == "gsm8k":
        for q in tested:
            tally.add_right(taken(q.solution, q), f"solution of {q.source}")
    tally.report(dry, "each also within its authors' solution" if rule == "gsm8k" else "")


def measure_math(tested: list[Question], dry: bool) -> None:
    """MATH-500, by both graders, and where they differ."""
    graders: dict[str, Callable[[str, str], bool]] = {
        "MATH-500, own grader": same_math,
        "MATH-500, math-verify": math_verified,
    }
    tallies = {name: Tally(name) for name in graders}
    draw = random.Random(0)
    judged, differ = 0, []
    for q in tested:
        answers = {"right": q.gold, **wrong_numbers(q.gold, another(q, tested, draw))}
        for kind, answer in answers.items():
            verdicts = [grade(answer, q.gold) for grade in graders.values()]
            for tally, taken in zip(tallies.values(), verdicts, strict=True):
                if kind == "right":
                    tally.add_right(taken, q.source)
                else:
                    tally.add_wrong(kind, taken, f"`{answer}` for `{q.gold}`")
            judged += 1
            if verdicts[0] != verdicts[1]:
                who = "own" if verdicts[0] else "math-verify"
                differ.append(f"{q.source}, {kind}: only {who} takes `{answer}` for `{q.gold}`")
    for tally in tallies.values():
        tally.report(dry)
    note = "; ".join(differ)
    print(f"graders differ in {len(differ)} of {judged}: {note}", flush=True)
    if not dry:
        name = "graders/answers on which the two graders of MATH-500 differ"
        note = escaped(note)
        result_tables.record(SUBJECT, name, len(differ), n=judged, note=note, command=COMMAND)


# --------------------------------------------------------------------------------------------------
# Function calls.


def verdict(task: Task, calls: list[dict]) -> bool:
    """Whether a message of these calls is right."""
    with Episode(task) as episode:
        for call in calls:
            episode.step(call)
        return episode.verify(task.answer)


def measure_bfcl(folder: Path, name: str, dry: bool) -> None:
    tasks = bfcl(folder, name)
    tally = Tally(f"BFCL {name}")
    steps = [step.call for task in tasks for step in task.solution]
    strings = [v for call in steps for v in call["arguments"].values() if isinstance(v, str)]
    for task in tasks:
        calls = [step.call for step in task.solution]
        if calls:
            wrong = wrong_calls(calls, task.truth["functions"], strings)
        else:  # irrelevance: any call is wrong
            wrong = {
                "a call": [{"name": tool["function"]["name"], "arguments": {}}]
                for tool in task.tools[:1]
            }
        tally.add_right(verdict(task, calls), f"{name} {task.seed}")
        for kind, message in wrong.items():
            shown = json.dumps(message[-1:], ensure_ascii=False)[:80]
            tally.add_wrong(kind, verdict(task, message), f"{name} {task.seed} {shown}")
    tally.report(dry)


# --------------------------------------------------------------------------------------------------
# AgentBench.


def wrong_statements(task: Task, other: str) -> Iterator[tuple[str, list[str]]]:
    """Wrong ways to do a task that changes a table, as statements; `other` is another task's."""
    gold = task.truth["gold"]
    table = task.truth["tables"][0]["table_name"]
    yield "nothing done", []
    yield "another task's statement", [other]
    further = f'DELETE FROM "{table}" WHERE rowid = (SELECT min(rowid) FROM "{table}")'
    yield "a row deleted as well", [gold, further]
    for kind, place in (("first value changed", 0), ("last value changed", -1)):
        if statement := changed_literal(gold, place):
            yield kind, [statement]


def measure_db(folder: Path, file: str, dry: bool) -> None:
    tasks = agentbench_db(folder, file)
    name = file.removesuffix(".jsonl")
    changing, asking = (Tally(f"AgentBench DB {name}, {what}") for what in ("changing", "asking"))
    golds = [task.truth["gold"] for task in tasks if task.truth["changing"]]
    labels = [task.truth["label"] for task in tasks if not task.truth["changing"]]
    draw = random.Random(0)

    def taken(task: Task, statements: list[str], answer: str = "done") -> bool:
        with Episode(task) as episode:
            for statement in statements:
                episode.step({"name": "sql", "arguments": {"query": statement}})
            return episode.verify(answer)

    for task in tasks:
        if task.truth["changing"]:
            gold = task.truth["gold"]
            changing.add_right(taken(task, [gold]), f"task {task.seed}")
            other = draw.choice([statement for statement in golds if statement != gold])
            for kind, statements in wrong_statements(task, other):
                shown = f"task {task.seed} {statements[-1:]}"
                changing.add_wrong(kind, taken(task, statements), shown)
        else:
            label = task.truth["label"]
            asking.add_right(taken(task, [], task.answer), f"task {task.seed}")
            for kind, answer in wrong_labels(task, label, labels, draw):
                line = f"answer: {answer}"
                asking.add_wrong(kind, taken(task, [], line), f"task {task.seed} {answer}")
    changing.report(dry)
    asking.report(dry, "the label itself as the answer")


def wrong_labels(
    task: Task, label: list, labels: list[list], draw: random.Random
) -> Iterator[tuple[str, str]]:
    """Wrong answers to a task that asks: another's label, a cell of another row, a number off by
    one, an item more or less.
    """

    def normals(values: list) -> set[str]:
        return {normal(value) for value in values}

    def as_answer(values: list) -> str:
        return str(values[0]) if len(values) == 1 else json.dumps(values, ensure_ascii=False)

    other = draw.choice([some for some in labels if normals(some) != normals(label)])
    yield "another task's label", as_answer(other)
    cells = [cell for row in task.truth["tables"][0]["table_info"]["rows"] for cell in row]
    cells = [str(cell) for cell in cells if normal(cell) not in normals(label) and str(cell)]
    if cells:
        cell = draw.choice(cells)
        yield "a cell of another row", cell
        yield "a cell more", as_answer([*label, cell])
    if len(label) > 1 and normals(label[1:]) != normals(label):
        yield "an item less", as_answer(label[1:])
    if len(label) == 1:
        wrong = wrong_numbers(normal(label[0]), as_answer(other))
        yield from ((kind, wrong[kind]) for kind in ("off by one", "sign") if kind in wrong)


def measure_os(folder: Path, file: str, dry: bool, most: int) -> None:
    """AgentBench OS: wrong answers after the example has been run, as far as the right one is taken
    then; `most` tasks, drawn, or all for 0.
    """
    tasks, left_out = agentbench_os(folder, file)
    tally = Tally(f"AgentBench OS {file.removesuffix('.json')}")
    why = Counter()
    draw = random.Random(0)
    chosen = sorted(draw.sample(range(len(tasks)), min(most, len(tasks)))) if most else None
    answers: list[str] = ["yes", "42"]
    for task in [tasks[n] for n in chosen] if chosen else tasks:
        try:
            with Episode(task) as episode:
                output = episode.step(task.solution[0].call) if task.solution else ""
                right = task.answer or f"answer: {output}"
                taken = episode.verify(right)
                tally.add_right(taken, f"task {task.seed}")
                answer = said_answer(right).strip()
                other = draw.choice([text for text in answers if text != answer])
                for kind, wrong in wrong_texts(answer, other).items():
                    passed = taken and episode.verify(f"answer: {wrong}")
                    tally.add_wrong(
                        kind, passed, f"task {task.seed} {wrong[:40]} for {answer[:40]}"
                    )
                answers.append(answer)
        except UserError as reason:
            why[str(reason).splitlines()[0][:60]] += 1
    skipped = len(left_out) + sum(why.values())
    notes = [f"{len(chosen)} drawn of {len(tasks)}"] if chosen and len(chosen) < len(tasks) else []
    notes += [f"{skipped} cannot run here"] if skipped else []
    drawn = f" --os-tasks {most}" if most else ""
    tally.report(dry, "; ".join(notes), COMMAND + drawn)


def wrong_texts(answer: str, other: str) -> dict[str, str]:
    """Wrong answers to a task of AgentBench OS, most of which ask for a number or a name."""
    found = {"another task's": other, "another number": "987654", "no answer": ""}
    if answer.lstrip("-").isdigit():
        numbers = wrong_numbers(answer, other)
        found |= {kind: text for kind, text in numbers.items() if kind != "another question's"}
    return {kind: text for kind, text in found.items() if text != answer}


# --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="gsm8k, mgsm, math500, bfcl, db, os; with commas"
    )
    parser.add_argument("--os-tasks", type=int, default=0, help="of each file, drawn; 0: all")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    data = data_folder()
    if not data.is_dir():
        raise UserError(f"{data} is not there; name the folder of benchmark data in SAGE_DATA")
    only = a.only.split(",") if a.only else ["gsm8k", "mgsm", "math500", "bfcl", "db", "os"]
    if "gsm8k" in only and (data / "gsm8k").is_dir():
        measure_numbers("GSM8K", "gsm8k", gsm8k(data).tested, a.dry)
    if "mgsm" in only and (data / "mgsm").is_dir():
        of_language = defaultdict(list)
        for q in mgsm(data).tested:
            of_language[q.group].append(q)
        for language, tested in of_language.items():
            measure_numbers(f"MGSM {language}", "number", tested, a.dry)
    if "math500" in only and (data / "math500").is_dir():
        measure_math(math500(data).tested, a.dry)
    for name in BFCL_FILES if "bfcl" in only else ():
        if (data / "bfcl" / f"BFCL_v4_{name}.json").is_file() and name != "live_relevance":
            measure_bfcl(data / "bfcl", name, a.dry)
    for file in ("dev.jsonl", "standard.jsonl") if "db" in only else ():
        if (data / "agentbench" / "dbbench" / file).is_file():
            measure_db(data / "agentbench", file, a.dry)
    for file in ("dev.json", "training_1000.json") if "os" in only else ():
        if (data / "agentbench" / "os" / file).is_file():
            measure_os(data / "agentbench", file, a.dry, a.os_tasks)


if __name__ == "__main__":
    settings.run_script(main)
