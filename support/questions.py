"""Published questions with their answers, from files in the formats of their authors (§6).

    gsm8k      gsm8k/test.jsonl, train.jsonl         {"question", "answer"}, at its end "#### 18"
    math500    math500/test.jsonl                    {"problem", "answer", "subject", "level"}
    mgsm       mgsm/mgsm_de.tsv, ...                 question TAB answer
    mmlu       mmlu/test/SUBJECT_test.csv, dev/      question,A,B,C,D,letter; no header
    mmlu_pro   mmlu_pro/test.jsonl, validation.jsonl {"question", "options", "answer", "category"}
    mmmlu      mmmlu/test/mmlu_DE-DE.csv, ...        header: Question,A,B,C,D,Answer,Subject
    gpqa       gpqa/gpqa_diamond.csv                 header: Question,Correct Answer,Incorrect ...

Where the files come from is in docs/EVALUATION.md. MMLU-Pro is published as parquet, which needs a
package of its own to read; here it is the JSON lines that `datasets` writes of it. GPQA's right
answer stands first in its file, so options are shuffled, by SHUFFLE_SEED and the question's number.

A file of another form is a UserError with file and line, what was found and what was expected.
"""

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from config import UserError
from support.graders import gsm8k_answer, last_number

LETTERS = "ABCDEFGHIJ"  # of options; MMLU-Pro has up to ten
SHUFFLE_SEED = 0  # of GPQA's options
MORE = "docs/EVALUATION.md says where each benchmark's files come from"
TO_JSONL = (
    "python -c \"import datasets; d = datasets.load_dataset('TIGER-Lab/MMLU-Pro'); "
    "[d[s].to_json(s + '.jsonl') for s in d]\""
)


@dataclass(frozen=True)
class Question:
    """A published question. `gold` is its answer as graders compare it: a number, a formula, or the
    letter of the right option.
    """

    source: str  # file:line
    text: str
    gold: str
    options: tuple[str, ...] = ()
    group: str = ""  # its subject or language
    solution: str = ""  # as the authors worked it out, for examples in a prompt

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]


@dataclass
class Questions:
    """A benchmark's questions, worked examples for prompts by group ("" for all groups), and the
    files they were read from.
    """

    tested: list[Question]
    files: list[Path]
    examples: dict[str, list[Question]] = field(default_factory=dict)

    def examples_for(self, question: Question) -> list[Question]:
        return self.examples.get(question.group) or self.examples.get("", [])


# ------------------------------------------------------------------------------------------- files


def wrong_form(path: Path, line: int, found: str, expected: str) -> UserError:
    """The error for a place in a file that is not as published."""
    return UserError(
        f"{path}:{line}: found {found}; expected {expected}; "
        f"take the file as its authors publish it ({MORE})"
    )


def existing(path: Path) -> Path:
    """The path of a file that must be there. Raises UserError."""
    if not path.is_file():
        raise UserError(
            f"{path} is not there; put it there, or name another folder of benchmark data with "
            f"--data or SAGE_DATA ({MORE})"
        )
    return path


def files_like(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match, sorted; at least one. Raises UserError."""
    found = sorted(folder.glob(pattern))
    return found or [existing(folder / pattern)]


def shown(value: object) -> str:
    """A value as errors show it: short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_of(path: Path) -> str:
    """A file's text. Raises UserError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong_form(path, 1, f"bytes that are no UTF-8 ({error})", "UTF-8 text") from None


def json_lines(path: Path, **fields: type | tuple) -> Iterator[tuple[int, dict]]:
    """Line number and record of each line, with these fields of these types. Raises UserError."""
    wanted = "a JSON object with " + ", ".join(fields)
    for number, line in enumerate(text_of(existing(path)).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise wrong_form(path, number, shown(line), wanted) from None
        if not isinstance(record, dict):
            raise wrong_form(path, number, shown(record), wanted)
        for name, kind in fields.items():
            if name not in record:
                raise wrong_form(path, number, f"no {name} among {', '.join(record)}", wanted)
            if not isinstance(record[name], kind):
                kinds = kind if isinstance(kind, tuple) else (kind,)
                names = " or ".join(k.__name__ for k in kinds)
                raise wrong_form(path, number, f"{name} {shown(record[name])}", f"{name}: {names}")
        yield number, record


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of its first line, and cells, of each row of a CSV file. Raises UserError."""
    reader = csv.reader(io.StringIO(text_of(existing(path)), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise wrong_form(path, line, str(error), "a row of comma-separated cells") from None
        if cells is None:
            return
        if cells:
            yield line, cells


def named_rows(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and the cells by name of each row below a CSV file's header. Raises UserError."""
    rows = table_rows(path)
    _, header = next(rows, (1, []))
    missing = [name for name in columns if name not in header]
    if missing:
        wanted = "a header with " + ", ".join(columns)
        raise wrong_form(path, 1, f"no {missing[0]} in {shown(header)}", wanted)
    for line, cells in rows:
        if len(cells) != len(header):
            raise wrong_form(path, line, f"{len(cells)} cells", f"{len(header)}, as in the header")
        yield line, dict(zip(header, cells, strict=True))


def letter_of(path: Path, line: int, found: str, options: int) -> str:
    """The letter of a right answer. Raises UserError where it names no option."""
    letter = found.strip()
    if len(letter) != 1 or letter not in LETTERS[:options]:
        wanted = f"the right answer's letter, A to {LETTERS[options - 1]}"
        raise wrong_form(path, line, shown(found), wanted)
    return letter


# -------------------------------------------------------------------------- numbers and formulas


def gsm8k_file(path: Path) -> list[Question]:
    """One file of GSM8K."""
    found = []
    for line, row in json_lines(path, question=str, answer=str):
        gold = gsm8k_answer(row["answer"])
        if not gold:
            raise wrong_form(path, line, f"answer {shown(row['answer'])}", "#### and a number")
        source = f"{path.name}:{line}"
        found.append(Question(source, row["question"], gold, solution=row["answer"]))
    return found


def gsm8k(folder: Path) -> Questions:
    """GSM8K's test questions; examples are its training questions, if they are there."""
    test, train = folder / "gsm8k" / "test.jsonl", folder / "gsm8k" / "train.jsonl"
    examples = {"": gsm8k_file(train)} if train.is_file() else {}
    return Questions(gsm8k_file(test), [test], examples)


def math500(folder: Path) -> Questions:
    """MATH-500, in groups by subject."""
    path = folder / "math500" / "test.jsonl"
    fields = dict(problem=str, answer=str, subject=str, level=int)
    found = [
        Question(f"{path.name}:{line}", row["problem"], row["answer"], group=row["subject"])
        for line, row in json_lines(path, **fields)
    ]
    return Questions(found, [path])


def mgsm(folder: Path) -> Questions:
    """MGSM, all languages whose files are there, in groups by language."""
    files = files_like(folder / "mgsm", "mgsm_*.tsv")
    found = []
    for path in files:
        language = path.stem.removeprefix("mgsm_")
        for line, text in enumerate(text_of(path).split("\n"), 1):
            cells = text.rstrip("\r").split("\t")
            if cells == [""]:
                continue
            if len(cells) != 2 or not last_number(cells[1]):
                raise wrong_form(path, line, shown(text), "a question, a tab, and a number")
            gold = last_number(cells[1])
            found.append(Question(f"{path.name}:{line}", cells[0], gold, group=language))
    return Questions(found, files)


# ----------------------------------------------------------------------------------- one of many


def mmlu_file(path: Path, subject: str) -> list[Question]:
    """One subject's file of MMLU."""
    found = []
    for line, cells in table_rows(path):
        if len(cells) != 6:
            wanted = "6: question, four options, letter"
            raise wrong_form(path, line, f"{len(cells)} cells, {shown(cells)}", wanted)
        question, *options, answer = cells
        gold = letter_of(path, line, answer, 4)
        found.append(Question(f"{path.name}:{line}", question, gold, tuple(options), subject))
    return found


def mmlu(folder: Path) -> Questions:
    """MMLU, in groups by subject; examples are each subject's five of dev/, if they are there."""
    files = files_like(folder / "mmlu" / "test", "*_test.csv")
    found, examples = [], {}
    for path in files:
        subject = path.stem.removesuffix("_test")
        found += mmlu_file(path, subject)
        dev = folder / "mmlu" / "dev" / f"{subject}_dev.csv"
        if dev.is_file():
            examples[subject] = mmlu_file(dev, subject)
    return Questions(found, files, examples)


def mmmlu(folder: Path) -> Questions:
    """MMMLU, all locales whose files are there, in groups by locale."""
    files = files_like(folder / "mmmlu" / "test", "mmlu_*.csv")
    found = []
    for path in files:
        locale = path.stem.removeprefix("mmlu_")
        for line, row in named_rows(path, "Question", *"ABCD", "Answer", "Subject"):
            gold = letter_of(path, line, row["Answer"], 4)
            options = tuple(row[letter] for letter in "ABCD")
            found.append(Question(f"{path.name}:{line}", row["Question"], gold, options, locale))
    return Questions(found, files)


def mmlu_pro_file(path: Path) -> list[Question]:
    """One file of MMLU-Pro. Options "N/A" are filling, and left out, as by its authors."""
    if not path.is_file() and list(path.parent.glob("**/*.parquet")):
        raise UserError(
            f"{path} is not there, only parquet files, which are not read here; write JSON lines "
            f"of them, where datasets is installed: {TO_JSONL}"
        )
    fields = dict(question=str, options=list, answer=str, category=str)
    found = []
    for line, row in json_lines(path, **fields):
        options = tuple(str(option) for option in row["options"] if option != "N/A")
        if not 2 <= len(options) <= len(LETTERS):
            raise wrong_form(path, line, f"{len(options)} options", f"2 to {len(LETTERS)}")
        gold = letter_of(path, line, row["answer"], len(options))
        solution = str(row.get("cot_content") or "").removeprefix("A: ")
        source = f"{path.name}:{line}"
        text, group = row["question"], row["category"]
        found.append(Question(source, text, gold, options, group, solution))
    return found


def mmlu_pro(folder: Path) -> Questions:
    """MMLU-Pro, in groups by category; examples are the validation questions, if they are there."""
    test = folder / "mmlu_pro" / "test.jsonl"
    validation = folder / "mmlu_pro" / "validation.jsonl"
    examples = defaultdict(list)
    for question in mmlu_pro_file(validation) if validation.is_file() else []:
        examples[question.group].append(question)
    return Questions(mmlu_pro_file(test), [test], dict(examples))


def gpqa(folder: Path) -> Questions:
    """GPQA diamond, in groups by high-level domain where the file has them."""
    path = folder / "gpqa" / "gpqa_diamond.csv"
    right, wrong = "Correct Answer", [f"Incorrect Answer {number}" for number in (1, 2, 3)]
    found = []
    for number, (line, row) in enumerate(named_rows(path, "Question", right, *wrong)):
        options = [row[name].strip() for name in (right, *wrong)]
        order = random.Random(f"{SHUFFLE_SEED} {number}").sample(range(4), 4)
        gold = LETTERS[order.index(0)]
        group = row.get("High-level domain", "")
        text, shuffled = row["Question"].strip(), tuple(options[place] for place in order)
        found.append(Question(f"{path.name}:{line}", text, gold, shuffled, group))
    return Questions(found, [path])
