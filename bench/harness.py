"""The same weights, another harness: this project's benchmarks.py beside EleutherAI's lm-eval,
question by question.

    python bench/harness.py --lm-eval PYTHON                     everything, and records
    python bench/harness.py --lm-eval PYTHON --few 4 --dry       four questions of each task
    python bench/harness.py --lm-eval PYTHON --only theirs       one half; another call goes on

PYTHON is the interpreter of an environment with `pip install torch lm_eval transformers`. Both are
asked the same questions with the same tokens, decode greedily and compute in float32. lm-eval reads
the model from a folder that support/export.py writes, and puts its prompts together itself, from
task files that are written here in its own format (the template, delimiters and filters of its
gsm8k and its mgsm_direct):

    gsm8k        the shortest test questions behind one worked example; generation
    mgsm_de      the shortest German ones, no example; generation
    numbers      GSM8K's answer among three wrong ones; the likeliest letter
    formulas     MATH-500's answer among three wrong ones; the likeliest option
    solutions    GSM8K's worked solution, and the same words with wrong results; the likeliest text

The shortest ones, because two harnesses decode everything on a CPU. Wrong options are
bench/wrong_answers.py's. Texts are equal or not; where they differ, the two tokens at the first
place are weighed by our model: where their log-probabilities differ by less than NEAR_TIE, the
rounding of other sums decided. Records docs/results/harness.json.
"""

import argparse
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support.openmp  # before torch

import torch

import benchmarks
from generate import Conversations
from support import result_tables, settings
from support.graders import last_number
from support.measured import Stage, data_folder, open_stage
from support.protocols import LOADERS, prompt_of_question, resolved
from support.questions import LETTERS, Question, Questions, gsm8k, math500, mgsm
from wrong_answers import wrong_numbers, wrong_solution

SUBJECT = "harness"  # docs/results/harness.json
WORKER = Path(__file__).resolve().parent / "harness_worker.py"
NEAR_TIE = 1e-3  # nats between two tokens that rounding may exchange
PER_TOKEN = 1e-3  # nats per token that two log-likelihoods may differ by
ABOUT = "The following are multiple choice questions (with answers) about {{group}}.\n\n"
OPTIONS = "{% for o in options %}{{'ABCDEFGHIJ'[loop.index0]}}. {{o}}\n{% endfor %}"


@dataclass(frozen=True)
class Task:
    """A task in both harnesses: lm-eval's name, ours, and how ours is asked."""

    name: str
    ours: str
    questions: int
    scoring: str  # generation, letters or options
    shots: int = 0
    room: int = 0  # tokens that an answer may have


TASKS = [
    Task("gsm8k", "gsm8k", 100, "generation", shots=1, room=64),
    Task("mgsm_de", "mgsm:de", 50, "generation", room=64),
    Task("numbers", "mmlu_pro:numbers", 60, "letters"),
    Task("formulas", "mmlu_pro:formulas", 40, "options"),
    Task("solutions", "mmlu_pro:solutions", 40, "options"),
]


# --------------------------------------------------------------------------------------------------
# The questions, as files of both harnesses.


def shortest(questions: list[Question], count: int) -> list[Question]:
    """The questions of the fewest characters, in the order of their file."""
    chosen = sorted(range(len(questions)), key=lambda n: (len(questions[n].text), n))[:count]
    return [questions[n] for n in sorted(chosen)]


def with_options(question: Question, wrong: list[str], group: str, number: int) -> dict:
    """A question of multiple choice in MMLU-Pro's form, its options in an order of its own."""
    right = question.solution if group == "solutions" else question.gold
    options = [right, *wrong]
    random.Random(f"{group} {number}").shuffle(options)
    return dict(
        question=question.text,
        options=options,
        answer=LETTERS[options.index(right)],
        answer_index=options.index(right),
        category=group,
    )


def options_of(group: str, questions: list[Question], count: int) -> list[dict]:
    """Multiple choice made of the shortest questions that have enough wrong answers."""
    found = []
    draw = random.Random(0)
    for question in sorted(questions, key=lambda q: len(q.text)):
        wrong = [wrong_solution(question.solution)]
        if group != "solutions":
            other = draw.choice(questions).gold
            wrong = list(dict.fromkeys(wrong_numbers(question.gold, other).values()))[:3]
        if len(wrong) == (1 if group == "solutions" else 3):
            found.append(with_options(question, wrong, group, len(found)))
    return found[:count]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_our_files(data: Path, folder: Path, few: int) -> None:
    """The chosen questions as a folder of benchmark data, each in its authors' format."""
    counts = {task.name: few or task.questions for task in TASKS}
    grade = gsm8k(data)
    examples = sorted(grade.examples[""], key=lambda q: len(q.text + q.solution))
    for name, questions in dict(
        test=shortest(grade.tested, counts["gsm8k"]), train=examples[:1]
    ).items():
        rows = [dict(question=q.text, answer=q.solution) for q in questions]
        write_lines(folder / "gsm8k" / f"{name}.jsonl", rows)
    german = [q for q in mgsm(data).tested if q.group == "de"]
    lines = [f"{q.text}\t{q.gold}\n" for q in shortest(german, counts["mgsm_de"])]
    (folder / "mgsm").mkdir(parents=True, exist_ok=True)
    (folder / "mgsm" / "mgsm_de.tsv").write_text("".join(lines))
    sources = dict(numbers=grade.tested, formulas=math500(data).tested, solutions=grade.tested)
    rows = []
    for group, questions in sources.items():
        rows += options_of(group, questions, counts[group])
    write_lines(folder / "mmlu_pro" / "test.jsonl", rows)


def their_task(task: Task, folder: Path, start: str) -> dict:
    """A task's file for lm-eval; what it says of gsm8k is what lm-eval's own says, but for the
    number of examples and of tokens. `start` is the text of the model's start token, which our
    plain prompts begin with.
    """
    files = dict(test=str(folder / f"{task.name}.jsonl"))
    config = dict(task=task.name, dataset_path="json", test_split="test", description=start)
    config |= dict(metadata=dict(version=1.0), num_fewshot=task.shots)
    metric = dict(metric="exact_match", aggregation="mean", higher_is_better=True)
    last = dict(function="regex", group_select=-1, regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
    flexible = dict(name="flexible-extract", filter=[last, dict(function="take_first")])
    if task.scoring == "generation":
        config |= dict(
            output_type="generate_until",
            doc_to_text="Question: {{question}}\nAnswer:",
            doc_to_target="{{answer}}",
            generation_kwargs=dict(
                until=["Question:", "</s>", "<|im_end|>"],
                do_sample=False,
                temperature=0.0,
                max_gen_toks=task.room,
            ),
        )
    if task.name == "gsm8k":
        files["train"] = str(folder / f"{task.name}_train.jsonl")
        first = dict(function="regex", regex_pattern=r"#### (\-?[0-9\.\,]+)")
        strict = dict(name="strict-match", filter=[first, dict(function="take_first")])
        ignored = [",", "\\$", "(?s).*#### ", "\\.$"]
        config |= dict(
            fewshot_split="train",
            fewshot_config=dict(sampler="first_n"),
            filter_list=[strict, flexible],
            metric_list=[dict(metric, ignore_case=True, regexes_to_ignore=ignored)],
        )
    elif task.name == "mgsm_de":
        config |= dict(
            filter_list=[flexible],
            metric_list=[dict(metric, ignore_case=True, ignore_punctuation=True)],
        )
    else:
        letters = task.scoring == "letters"
        listed = OPTIONS if letters else ""
        config |= dict(
            output_type="multiple_choice",
            doc_to_text=ABOUT + "Question: {{question}}\n" + listed + "Answer:",
            doc_to_choice="letters" if letters else "options",
            doc_to_target="answer_index",
            metric_list=[
                dict(metric=name, aggregation="mean", higher_is_better=True)
                for name in ("acc", "acc_bytes")
            ],
        )
    return config | dict(dataset_kwargs=dict(data_files=files))


def write_their_files(ours: Path, folder: Path, start: str) -> None:
    """Task files for lm-eval (JSON, which is YAML), and the same questions as its documents."""
    for task in TASKS:
        name, _, group = task.ours.partition(":")
        found = LOADERS[name](ours)
        rows = []
        for number, q in enumerate(found.tested):
            if group not in ("", q.group):
                continue
            row = dict(number=number, question=q.text, answer=q.solution or q.gold)
            if q.options:
                index = q.letters.index(q.gold)
                row |= dict(options=list(q.options), letters=list(q.letters), answer_index=index)
                row |= dict(group=q.group)
            rows.append(row)
        write_lines(folder / f"{task.name}.jsonl", rows)
        if task.shots:
            shots = [dict(question=q.text, answer=q.solution) for q in found.examples[""]]
            write_lines(folder / f"{task.name}_train.jsonl", shots)
        config = their_task(task, folder.resolve(), start)
        (folder / f"{task.name}.yaml").write_text(json.dumps(config, indent=1))


# --------------------------------------------------------------------------------------------------
# Both harnesses.


def our_arguments(task: Task, a: argparse.Namespace) -> list[str]:
    """The command line of benchmarks.py."""
    words = ["--model", a.model, "--tasks", task.ours, "--data", str(a.folder / "data")]
    words += ["--folder", str(a.folder / "ours"), "--dtype", "float32", "--batch", str(a.batch)]
    words += ["--prompt", "plain", "--shots", str(task.shots), "--scoring", task.scoring]
    return words + (["--room", str(task.room)] if task.room else [])


def run_ours(a: argparse.Namespace) -> None:
    """benchmarks.py's rows of every task; those that are there are kept."""
    for task in a.tasks:
        benchmarks.main(our_arguments(task, a))


def run_theirs(a: argparse.Namespace) -> None:
    """lm-eval's rows of every task, in <folder>/theirs.json."""
    weights = a.folder / "weights"
    if not (weights / "config.json").exists():
        export = [sys.executable, "-m", "support.export", a.model, str(weights)]
        subprocess.run(export, cwd=settings.ROOT, check=True)
    words = [a.lm_eval, str(WORKER), str(weights), str(a.folder / "lm_eval")]
    words += [str(a.folder / "theirs.json"), str(a.batch), *(task.name for task in a.tasks)]
    if subprocess.run(words).returncode:
        raise SystemExit(f"error: {' '.join(words[:2])} failed; is lm_eval installed there?")


# --------------------------------------------------------------------------------------------------
# Question by question.


@dataclass
class Pair:
    """A question's two rows, and our prompt's tokens."""

    question: Question
    prompt: list[int]
    ours: dict  # a row of benchmarks.py
    theirs: dict[str, dict]  # filter → a row of lm-eval

    @property
    def their_row(self) -> dict:
        return next(iter(self.theirs.values()))


def pairs_of(task: Task, a: argparse.Namespace, stage: Stage, theirs: list[dict]) -> list[Pair]:
    """The questions that both harnesses have answered."""
    words = settings.benchmarks_from_command_line(our_arguments(task, a))
    name = task.ours.partition(":")[0]
    protocol = resolved(name, words)
    found: Questions = LOADERS[name](a.folder / "data")
    path = a.folder / "ours" / stage.name / f"{name} {task.scoring}.jsonl"
    lines = path.read_text().splitlines()[1:]  # below what they were made from
    rows = {row["number"]: row for row in map(json.loads, lines)}
    by_number: dict[int, dict[str, dict]] = {}
    for row in theirs:
        by_number.setdefault(row["doc"]["number"], {})[row["filter"]] = row
    pairs = []
    for number, of_filter in by_number.items():
        if number in rows:
            question = found.tested[number]
            shots = found.examples_for(question)[: protocol.shots]
            context = stage.model.config.context
            prompt = prompt_of_question(question, shots, protocol, stage.tokenizer, context)
            pairs.append(Pair(question, prompt, rows[number], of_filter))
    return pairs


def as_number(text: str) -> Decimal | str:
    """A number that an extraction found, whatever its commas, dollar sign and final point; a text
    that is none as it is, and "" for lm-eval's "[invalid]".
    """
    plain = text.replace(",", "").replace("$", "").rstrip(".")
    try:
        return Decimal(plain)
    except InvalidOperation:
        return "" if text == "[invalid]" else plain


@torch.no_grad()
def first_difference(stage: Stage, prompt: list[int], ours: str, theirs: str) -> tuple[str, float]:
    """Where two continuations of a prompt part, in words; and how much likelier the first one's
    token is there by our model, in nats (nan where one only ends sooner).
    """
    encode = stage.tokenizer.encode_inside
    left, right = encode(ours), encode(theirs)
    same = 0
    while same < min(len(left), len(right)) and left[same] == right[same]:
        same += 1
    if same == min(len(left), len(right)):
        return f"one ends after {same} tokens", math.nan
    read = Conversations(stage.model, [[*prompt, *left[:same]]], len(prompt) + same + 1)
    log_probs = read.logits[0].float().log_softmax(-1)
    gap = (log_probs[left[same]] - log_probs[right[same]]).item()
    words = [repr(stage.tokenizer.decode([token])) for token in (left[same], right[same])]
    return f"token {same}: {words[0]} here, {words[1]} there", gap


@dataclass
class Compared:
    """A task's figures, each a list with a value per question, and its differences in words."""

    figures: dict[str, list[bool]]
    differences: list[str]
    gaps: list[float]  # nats per token between log-likelihoods
    unexplained: int = 0


def compare_texts(task: Task, pairs: list[Pair], stage: Stage) -> Compared:
    """Written answers: prompts, texts, extracted answers, verdicts."""
    same: dict[str, list[bool]] = {}
    differences, unexplained = [], 0
    for pair in pairs:
        mine, other = pair.ours["samples"][0], pair.their_row["resps"][0][0]
        equal = {"prompt's tokens": pair.prompt == pair.their_row["tokens"]["prompt"]}
        equal["text"] = mine["text"] == other
        readings = {}
        for name, row in pair.theirs.items():
            answer, right = pair.ours["answer"], pair.ours["right"]
            if task.name == "gsm8k" and name == "flexible-extract":
                answer, right = last_number(mine["text"]), pair.ours["second"]
            found = row["filtered_resps"][0]
            equal[f"answer, {name}"] = as_number(answer) == as_number(found)
            equal[f"verdict, {name}"] = right == bool(row["exact_match"])
            readings[name] = (answer, found)
        for key, value in equal.items():
            same.setdefault(key, []).append(value)
        if all(equal.values()):
            continue
        which = ", ".join(key for key, value in equal.items() if not value)
        if equal["text"] and equal["prompt's tokens"]:
            wrong = {key.split(", ")[1] for key, value in equal.items() if not value}
            read = "; ".join(
                f"{name}: {readings[name][0]!r} here, {readings[name][1]!r} there"
                for name in sorted(wrong)
            )
            why = f"the same text read by other rules: {read}"
        else:
            where, gap = first_difference(stage, pair.prompt, mine["text"], other)
            near = abs(gap) < NEAR_TIE
            unexplained += not near
            why = f"{where}, {gap:+.1e} nats apart" + (": rounding" if near else "")
        differences.append(f"{pair.question.source} ({which}): {why}")
    return Compared(same, differences, [], unexplained)


def compare_likelihoods(task: Task, pairs: list[Pair], stage: Stage) -> Compared:
    """Chosen options: tokens, log-likelihoods, choices, verdicts."""
    same: dict[str, list[bool]] = {}
    differences, gaps = [], []
    unexplained = 0
    encode = stage.tokenizer.encode_inside
    for pair in pairs:
        row, question = pair.their_row, pair.question
        options = question.options if task.scoring == "options" else tuple(question.letters)
        sizes = [len(o.encode()) if task.scoring == "options" else 1 for o in options]
        mine = pair.ours["log_probs"]  # per byte of the option, where options are scored
        other = [float(response[0][0]) / s for response, s in zip(row["resps"], sizes)]
        tokens = row["tokens"]
        ours = [encode(f" {option}") for option in options]
        apart = [
            abs(x - y) * s / len(some)
            for x, y, s, some in zip(mine, other, sizes, tokens["continuations"], strict=True)
        ]
        gaps += apart
        chosen = max(range(len(options)), key=other.__getitem__)
        verdict = row["acc_bytes" if task.scoring == "options" else "acc"]
        equal = {
            "prompt's tokens": pair.prompt == tokens["prompt"],
            "options' tokens": ours == tokens["continuations"],
            f"log P within {PER_TOKEN:g} per token": max(apart) <= PER_TOKEN,
            "choice": pair.ours["answer"] == question.letters[chosen],
            "verdict": pair.ours["right"] == bool(verdict),
        }
        for key, value in equal.items():
            same.setdefault(key, []).append(value)
        if not all(equal.values()):
            which = ", ".join(key for key, value in equal.items() if not value)
            split = [t for t, u in zip(options, zip(ours, tokens["continuations"])) if u[0] != u[1]]
            why = f"log P per token up to {max(apart):.1e} apart"
            if split:
                why += f"; {split[0]!r} has other tokens"
            unexplained += not split
            differences.append(f"{question.source} ({which}): {why}")
    return Compared(same, differences, gaps, unexplained)


# --------------------------------------------------------------------------------------------------


def perplexities(pairs: list[Pair]) -> tuple[float, float]:
    """Perplexity per token of the right solutions, by ours and by theirs."""
    sums, tokens = [0.0, 0.0], 0
    for pair in pairs:
        right = pair.question.letters.index(pair.question.gold)
        size = len(pair.question.options[right].encode())
        sums[0] += pair.ours["log_probs"][right] * size
        sums[1] += float(pair.their_row["resps"][right][0][0])
        tokens += len(pair.their_row["tokens"]["continuations"][right])
    return math.exp(-sums[0] / tokens), math.exp(-sums[1] / tokens)


def report(task: Task, found: Compared, pairs: list[Pair], version: str, dry: bool) -> None:
    """Print a task's figures and differences, and record them."""

    def record(name: str, value: float, unit: str, **more) -> None:
        print(f"{name:55} {value:10.4g} {unit:14} {more.get('note', '')}")
        if not dry:
            command = "python bench/harness.py --lm-eval PYTHON"
            more |= dict(unit=unit, n=len(pairs), command=command)
            result_tables.record(SUBJECT, name, value, **more)

    for name, values in found.figures.items():
        share = 100 * sum(values) / len(values)
        record(f"{task.name}/same {name}", share, "%", goal="≥ 99")
    if task.scoring == "generation":
        answered = sum(bool(pair.ours["answer"]) for pair in pairs)
        stopped = sum(pair.ours["samples"][0]["ended"] != "length" for pair in pairs)
        record(f"{task.name}/with an answer, here", answered, "texts")
        record(f"{task.name}/ended before the limit, here", stopped, "texts")
    else:
        name, goal = f"{task.name}/greatest difference of log P", f"≤ {PER_TOKEN:g}"
        record(name, max(found.gaps), "nats per token", goal=goal)
    right = sum(pair.ours["right"] for pair in pairs)
    record(f"{task.name}/right, here", right, "questions")
    if task.name == "solutions":
        here, there = perplexities(pairs)
        record(f"{task.name}/perplexity of right solutions, here", here, "per token")
        record(f"{task.name}/perplexity of right solutions, lm-eval", there, "per token")
    note = "; ".join(found.differences).replace("|", "\\|")
    record(f"differences/{task.name}", len(found.differences), "questions", note=note)
    record(f"unexplained/{task.name}", found.unexplained, "questions", note=f"lm-eval {version}")


def compare(a: argparse.Namespace, stage: Stage) -> None:
    """Compare what both have answered."""
    theirs = json.loads((a.folder / "theirs.json").read_text())
    for task in a.tasks:
        if task.name not in theirs["tasks"]:
            print(f"{task.name:10} not answered by lm-eval yet")
            continue
        pairs = pairs_of(task, a, stage, theirs["tasks"][task.name])
        how: Callable = compare_texts if task.scoring == "generation" else compare_likelihoods
        report(task, how(task, pairs, stage), pairs, theirs["version"], a.dry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lm-eval", default="", help="a Python with lm_eval")
    parser.add_argument("--model", default="smollm2", help="published weights, by path or name")
    parser.add_argument("--tasks", default="", help="with commas; empty: all")
    parser.add_argument("--only", default="ours,theirs,compare", help="parts, with commas")
    parser.add_argument("--few", type=int, default=0, help="questions of each task; 0: all")
    parser.add_argument("--batch", type=int, default=25, help="questions answered together")
    parser.add_argument("--folder", type=Path, default=Path("out/harness"))
    parser.add_argument("--dry", action="store_true", help="record nothing")
    a = parser.parse_args()
    wanted = [name for name in a.tasks.split(",") if name] or [task.name for task in TASKS]
    a.tasks = [task for task in TASKS if task.name in wanted]
    if a.few:
        a.folder = a.folder.with_name(f"{a.folder.name}-{a.few}")
    parts = a.only.split(",")
    stage = open_stage(a.model, torch.float32, "cpu")
    stage.model.eval()
    start = stage.tokenizer.decode(stage.tokenizer.start)
    write_our_files(data_folder(), a.folder / "data", a.few)
    write_their_files(a.folder / "data", a.folder / "lm_eval", start)
    if "ours" in parts:
        run_ours(a)
    if "theirs" in parts:
        run_theirs(a)
    if "compare" in parts:
        compare(a, stage)


if __name__ == "__main__":
    settings.run_script(main)
