"""benchmarks.py and what it asks: the authors' files and what is said of other ones, their rules on
right and on corrupted answers, likelihoods against whole forward passes, votes, interruptions, the
table. What it plays is in test_played.py.
"""

import csv
import importlib.util
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmarks
from config import Benchmarks, Config, Model, UserError
from mch import ThinkingHeads
from model import SAGE
from support import answer_table, asked, checkpoint, graders, protocols, questions
from support import tokenizer as tokenizers
from support.asked import AnswerRow, Asked, chosen_by_vote
from support.graders import last_number, same_math, stated_letter
from support.measured import Stage
from support.protocols import OWN_MATH, PROTOCOLS, RULES

TOY = tokenizers.toy()
SHAPE = Model(
    vocab_size=1024,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    feed_forward=32,
    context=2048,
    window=64,  # shorter than the prompts: landmarks are at work
    landmark_stride=16,
)

# ------------------------------------------------------------------------------------------- files

TOWNS = ["Lisbon", "Oslo", "Hanoi", "Quito"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every benchmark, by hand: some questions of each in the authors' formats."""
    data = tmp_path_factory.mktemp("data")
    sums = [(f"What is {n} + {n + 1}?", 2 * n + 1) for n in range(6)]
    rows = [dict(question=q, answer=f"<<{q}>>{n}\n#### {n}") for q, n in sums]
    write_jsonl(data / "gsm8k/test.jsonl", rows)
    write_jsonl(data / "gsm8k/train.jsonl", rows[:3])
    fields = dict(solution="", level=1, unique_id="1")
    maths = [
        dict(problem=q, answer=f"\\frac{{{n}}}{{2}}", subject=f"Subject {n % 2}", **fields)
        for q, n in sums
    ]
    write_jsonl(data / "math500/test.jsonl", maths)
    for language in ("de", "zh"):
        write(data / f"mgsm/mgsm_{language}.tsv", "".join(f"{q}\t{n}\n" for q, n in sums))
    for subject in ("astronomy", "world_religions"):
        asked = [[f"Which town, {subject} {n}?", *TOWNS, "ABCD"[n]] for n in range(4)]
        write_csv(data / f"mmlu/test/{subject}_test.csv", asked)
        examples = [[f"{row[0]} (dev)", *row[1:]] for row in asked * 2]
        write_csv(data / f"mmlu/dev/{subject}_dev.csv", examples)
    header = ["", "Question", "A", "B", "C", "D", "Answer", "Subject"]
    body = [[str(n), f"Welche, {n}?\nUnd warum?", *TOWNS, "ABCD"[n], "law"] for n in range(4)]
    write_csv(data / "mmmlu/test/mmlu_DE-DE.csv", [header, *body])
    pro = [
        dict(
            question_id=n,
            question=f"Which, {n}?",
            options=[*TOWNS, "Lima", "N/A"],
            answer="ABCDE"[n],
            answer_index=n,
            cot_content=f"A: Let's think step by step. It is known. The answer is ({'ABCDE'[n]}).",
            category="law",
        )
        for n in range(5)
    ]
    write_jsonl(data / "mmlu_pro/test.jsonl", pro)
    write_jsonl(data / "mmlu_pro/validation.jsonl", pro)
    wrong = [f"Incorrect Answer {n}" for n in (1, 2, 3)]
    header = ["Record ID", "Question", *wrong, "Correct Answer", "High-level domain"]
    body = [[f"rec{n}", f"Why, {n}?", "b", "c", "d", "a ", "Physics"] for n in range(40)]
    write_csv(data / "gpqa/gpqa_diamond.csv", [header, *body])
    return data


def test_every_file_is_read_as_its_authors_write_it(folder):
    found = {name: load(folder) for name, load in protocols.LOADERS.items()}
    assert found["gsm8k"].tested[2].gold == "5" and len(found["gsm8k"].examples[""]) == 3
    assert found["math500"].tested[1].gold == "\\frac{3}{2}"
    assert {q.group for q in found["mgsm"].tested} == {"de", "zh"}
    mmlu = found["mmlu"]
    assert [q.gold for q in mmlu.tested] == list("ABCDABCD")
    assert mmlu.tested[4].options == tuple(TOWNS) and mmlu.tested[4].group == "world_religions"
    assert mmlu.examples_for(mmlu.tested[0])[0].text == "Which town, astronomy 0? (dev)"
    two = found["mmmlu"].tested[1]  # its question takes two lines, and so did the one before
    assert (two.text, two.gold, two.group) == ("Welche, 1?\nUnd warum?", "B", "DE-DE")
    assert two.source == "mmlu_DE-DE.csv:4"
    pro = found["mmlu_pro"]
    assert pro.tested[4].letters == "ABCDE" and pro.tested[4].gold == "E"
    assert pro.examples["law"][0].solution.startswith("Let's think")


def test_gpqa_is_shuffled_the_same_way_each_time(folder):
    first, again = questions.gpqa(folder).tested, questions.gpqa(folder).tested
    assert first == again
    assert {q.gold for q in first} == set("ABCD")
    for question in first:
        assert question.options[question.letters.index(question.gold)] == "a"
        assert sorted(question.options) == list("abcd")


GPQA_HEADER = "Question,Correct Answer," + ",".join(f"Incorrect Answer {n}" for n in (1, 2, 3))
LEVEL = '{"problem": "p", "answer": "1", "subject": "s", "level": "5"}'
TWO_OPTIONS = '{"question": "q", "options": ["a", "b", "N/A"], "answer": "C", "category": "x"}'
A_TO = "the right answer's letter, A to"
WRONG = {  # benchmark, file, its content, what the error says
    "no JSON": (
        "gsm8k",
        "test.jsonl",
        '{"question": "q", "answer": "#### 1"}\nq: 5\n',
        ":2: found 'q: 5'",
    ),
    "no field": (
        "gsm8k",
        "test.jsonl",
        '{"question": "q"}\n',
        ":1: found no answer among question",
    ),
    "no ####": (
        "gsm8k",
        "test.jsonl",
        '{"question": "q", "answer": "5"}\n',
        "expected #### and a number",
    ),
    "a list": ("gsm8k", "test.jsonl", "[1]\n", r":1: found \[1\]; expected a JSON object"),
    "level": ("math500", "test.jsonl", LEVEL, "level '5'; expected level: int"),
    "no tab": (
        "mgsm",
        "mgsm_de.tsv",
        "Wie?\t5\nWie? 5\n",
        ":2: found 'Wie. 5'; expected a question",
    ),
    "no number": ("mgsm", "mgsm_de.tsv", "Wie?\tviele\n", "a question, a tab, and a number"),
    "cells": ("mmlu", "test/law_test.csv", 'q,1,2,3,4,A\n"q",1,2,3,A\n', ":2: found 5 cells"),
    "header": (
        "mmlu",
        "test/law_test.csv",
        "q,A,B,C,D,answer\n",
        f":1: found 'answer'; expected {A_TO} D",
    ),
    "quotes": ("mmlu", "test/law_test.csv", 'q,1,2,3,4,A\n"q,1,2', "law_test.csv:2: found"),
    "column": ("mmmlu", "test/mmlu_X.csv", "Question,A,B,C,D,Subject\n", ":1: found no Answer in"),
    "short row": (
        "gpqa",
        "gpqa_diamond.csv",
        f"{GPQA_HEADER}\nq,a,b\n",
        ":2: found 3 cells; expected 5",
    ),
    "letter": ("mmlu_pro", "test.jsonl", TWO_OPTIONS, f"found 'C'; expected {A_TO} B"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_format_is_an_error_with_file_and_line(case, tmp_path):
    name, file, text, wanted = WRONG[case]
    path = write(tmp_path / name / file, text)
    with pytest.raises(UserError, match=wanted) as error:
        protocols.LOADERS[name](tmp_path)
    assert str(path) in str(error.value)
    assert "EVALUATION.md" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name, load in protocols.LOADERS.items():
        with pytest.raises(UserError, match=f"{name}.*is not there"):
            load(tmp_path)
    write(tmp_path / "mmlu_pro/data/test-0.parquet", "PAR1")
    with pytest.raises(UserError, match="only parquet files.*to_json"):
        questions.mmlu_pro(tmp_path)
    (tmp_path / "mgsm").mkdir()
    (tmp_path / "mgsm/mgsm_de.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="no UTF-8"):
        questions.mgsm(tmp_path)


# ------------------------------------------------------------------------------------------- rules


def test_numbers():
    for text, number in {
        "It is 1,080 dollars.": "1080",
        "$18.00": "18",
        "a −5 b": "-5",
        "2.50": "2.5",
        "উত্তর: ১৮": "18",
        "答案：１８ 美元。": "18",
        "คำตอบ: ๑๘": "18",
        "ten": "",
        # as simple-evals' expression finds them: signs that mean numbers are none
        "Die Fläche beträgt 25 m².": "25",
        "18 kg CO₂": "18",
        "合計は１，０８０．５０円": "1080.5",
        "3 and 4.": "4",
    }.items():
        assert last_number(text) == number, text
    assert graders.gsm8k_answer("#### 1,080.5\n#### 7") == "1080.5"
    assert graders.gsm8k_answer("the answer is 7") == ""


def test_letters():
    for text, letter in {
        "Answer: B": "B",
        "So the answer is (C). Not Answer: D": "C",
        "**Answer: D**": "D",
        "ANSWER：B": "B",
        "B": "B",
        "Let me see.\nC) Paris": "C",
        "A good question. It is B.": "",
        "Answer: Because": "",
        "Answer: E": "",  # no such option
        # as simple-evals and MMLU-Pro's authors read them
        "**Answer:** B": "B",
        "**Answer**: B": "B",
        "Answer: \\boxed{B}": "B",
        "Answer: $\\boxed{\\text{B}}$": "B",
        "**Answer: ** D": "D",
        "I think": "",
        # hours, if each run of spaces or lines were tried from each of its places
        "answer" + " " * 300_000: "",
        "\n" * 300_000: "",
        "B" + "\n" * 300_000: "B",
    }.items():
        assert stated_letter(text, "ABCD") == letter, text


EQUAL = {
    "\\frac12": "0.5",
    "\\dfrac{1}{2}": "1/2",
    "1\\frac{4}{5}": "\\frac{9}{5}",
    "x=5": "5",
    "3+2x": "2x + 3",
    "(x+1)^2": "x^2+2x+1",
    "1, -2": "-2,1",
    "\\$32,\\!348": "32348",
    "5.4 \\text{ cents}": "5.4",
    "\\text{(C)}": "(C)",
    "2\\sqrt{113}": "\\sqrt{452}",
    "90^\\circ": "90",
    "\\left( 3, \\frac{\\pi}{2} \\right)": "(3, \\pi/2)",
    "2^{-1}": "\\frac{1}{2}",
    "\\sqrt[3]{8}": "2",
    "(1+i)(1-i)": "2",
    "(0,9) \\cup (9,36)": "(0,9)\\cup(9,36)",
    ".5": "0.5",
}
UNEQUAL = {
    "(1,2)": "(2,1)",
    "(3,4)": "(3,4]",
    "52": "52_8",
    "7": "8",
    "11,\\! 111,\\! 111,\\! 101": "11,\\! 111,\\! 111,\\! 100",
    "": "",
    "x+1": "x+2",
    "1,2": "1,2,3",
    "1": "(1,2)",
    "9^{9^{9^9}}": "9^{9^{9^{9^9}}}",  # no value: too large, and found so at once
    "1/0": "2/0",
    "1.5\\cdot10^{308}(1+i)": "2",  # a finite value whose absolute value is not
    "__import__('os').getcwd()": "1",
    "\\frac{1}": "1",
    "(" * 5000: "1",
}


@pytest.mark.parametrize("answer", EQUAL)
def test_formulas_that_are_equal(answer):
    assert same_math(answer, EQUAL[answer]) and same_math(EQUAL[answer], answer)


@pytest.mark.parametrize("answer", UNEQUAL)
def test_formulas_that_are_not(answer):
    assert not same_math(answer, UNEQUAL[answer])


def said(rule: str, gold: str) -> str:
    """A text that ends with an answer, as its benchmark asks for it."""
    forms = dict(
        gsm8k=f"12 and 12 more.\n#### {gold}",
        number=f"12 and 12 more.\n{gold}",
        math=f"It is $12$, so \\boxed{{{gold}}}.",
        choice=f"It is none of the others.\nAnswer: {gold}",
    )
    return forms[rule]


def corrupted(question, others, draw: random.Random, rule: str) -> list[str]:
    """Wrong answers to a question: another's, the number + 1, another letter."""
    if rule == "choice":
        return [letter for letter in question.letters if letter != question.gold]
    other = question
    while graders.normal_math(other.gold) == graders.normal_math(question.gold):
        other = draw.choice(others)
    number = question.gold.replace(",", "")
    plain = re.fullmatch(r"-?\d+", number)
    return [other.gold, str(int(number) + 1)] if plain else [other.gold]


def check_rule(rule, name: str, tested: list) -> None:
    """All right answers are right, and at most one in a hundred of the corrupted ones is."""
    draw = random.Random(0)

    def verdict(text: str, question) -> bool:
        return rule.right(rule.read(text, question), question)

    refused = [q.source for q in tested if not verdict(said(name, q.gold), q)]
    assert not refused
    wrong = [(q, answer) for q in tested for answer in corrupted(q, tested, draw, name)]
    taken = [(q.source, q.gold, a) for q, a in wrong if verdict(said(name, a), q)]
    assert len(taken) <= 0.01 * len(wrong), taken
    assert not any(verdict("", q) or verdict("I do not know.", q) for q in tested)


@pytest.mark.parametrize("name", ["gsm8k", "math500", "mgsm"])
def test_published_answers_are_right_and_corrupted_ones_wrong(name, real_data):
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name} in the folder of benchmark data")
    found = protocols.LOADERS[name](real_data)
    rule = PROTOCOLS[name].rule
    check_rule(OWN_MATH if rule == "math" else RULES[rule], rule, found.tested)
    if name == "gsm8k":  # the authors' own solutions, too
        assert all(RULES["gsm8k"].read(q.solution, q) == q.gold for q in found.tested)


@pytest.mark.parametrize("name", ["mmlu", "mmlu_pro", "mmmlu", "gpqa"])
def test_the_right_letter_is_right_and_another_wrong(name, folder):
    check_rule(RULES["choice"], "choice", protocols.LOADERS[name](folder).tested)


def test_math_verify_on_published_answers(real_data):
    pytest.importorskip("math_verify")
    if not (real_data / "math500").is_dir():
        pytest.skip("no math500 in the folder of benchmark data")
    check_rule(RULES["math"], "math", questions.math500(real_data).tested)


def test_without_math_verify_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(UserError, match="pip install 'math-verify"):
        graders.math_verified("1", "1")


# ----------------------------------------------------------------------------------------- prompts


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage("random", SAGE(SHAPE, seed=3).eval(), TOY, {})


def test_mmlu_is_asked_as_by_its_authors(folder):
    found = questions.mmlu(folder)
    question = found.tested[5]
    shots = found.examples_for(question)[:1]
    assert protocols.prompt_text(question, shots, PROTOCOLS["mmlu"]) == (
        "The following are multiple choice questions (with answers) about world religions.\n\n"
        "Which town, world_religions 0? (dev)\n"
        "A. Lisbon\nB. Oslo\nC. Hanoi\nD. Quito\nAnswer: A\n\n"
        "Which town, world_religions 1?\n"
        "A. Lisbon\nB. Oslo\nC. Hanoi\nD. Quito\nAnswer:"
    )


def test_a_prompt_in_chat_has_examples_as_turns(folder, stage):
    found = questions.gsm8k(folder)
    p = replace(PROTOCOLS["gsm8k"], shots=1)
    tokens = protocols.prompt_of_question(
        found.tested[1], found.examples[""][:1], p, TOY, SHAPE.context
    )
    text = TOY.decode(tokens)
    assert text.count("<|im_start|>user") == 2
    assert "#### 1<|im_end|>" in text and text.endswith("<|im_start|>assistant\n")
    assert "\\boxed{}" in protocols.fill_in(PROTOCOLS["math500"].chat, found.tested[0])


def test_examples_that_leave_no_room_are_left_out(folder, stage):
    found = questions.mmlu(folder)
    p = replace(PROTOCOLS["mmlu"], room=8, scoring="generation")
    shots = found.examples_for(found.tested[0]) * 40
    tokens = protocols.prompt_of_question(found.tested[0], shots, p, TOY, SHAPE.context)
    kept = TOY.decode(tokens).count("(dev)")
    assert 1 < kept < 320 and len(tokens) + 8 <= SHAPE.context


def test_letters_and_options_take_no_room_for_an_answer(folder, stage):
    """What fits beside one token is there, though an answer by generation would have 512."""
    found = questions.mmlu(folder)
    shots = found.examples_for(found.tested[0])
    p = PROTOCOLS["mmlu"]
    whole = protocols.prompt_of_question(found.tested[0], shots, p, TOY, 10_000)
    for context, count in ((len(whole) + 1, len(shots)), (len(whole), len(shots) - 1)):
        tokens = protocols.prompt_of_question(found.tested[0], shots, p, TOY, context)
        assert TOY.decode(tokens).count("(dev)") == count
    generation = replace(p, scoring="generation")
    tokens = protocols.prompt_of_question(found.tested[0], shots, generation, TOY, len(whole) + 1)
    assert TOY.decode(tokens).count("(dev)") < len(shots)

    options = replace(p, scoring="options")
    question = found.tested[0]
    whole = protocols.prompt_of_question(question, shots, options, TOY, 10_000)
    longest = max(len(TOY.encode(option)) for option in question.options) + 1  # and a space
    for context, fits in ((len(whole) + longest, True), (len(whole) + longest - 1, False)):
        tokens = protocols.prompt_of_question(question, shots, options, TOY, context)
        assert (tokens == whole) is fits and len(tokens) + longest <= context


def test_a_plain_answer_ends_where_the_next_question_begins(stage):
    for prompt, ended in (("plain", "question"), ("chat", "")):
        row = AnswerRow(stage, replace(PROTOCOLS["gsm8k"], prompt=prompt), 99, 0.0, [])
        for token in TOY.encode("It is 5.\n\nQuestion: What"):
            if not row.ended:
                row.append(token, 0.0, 0.0, TOY.stop)
        assert row.ended == ended
        assert (row.text == "It is 5.\n\n") is (prompt == "plain")


# ------------------------------------------------------------------------------------- likelihoods


def forward_log_prob(model: SAGE, prompt: list[int], choice: list[int]) -> float:
    """log P(choice | prompt) by a forward pass over the whole text."""
    with torch.no_grad():
        log_p = model(torch.tensor([prompt + choice]))[0].float().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(choice) - 1)
    return sum(log_p[place, token].item() for place, token in zip(places, choice, strict=True))


@pytest.mark.parametrize("longest", [1, 5])
def test_likelihoods_are_those_of_whole_forward_passes(longest, stage):
    draw = random.Random(longest)
    prompts = [[draw.randrange(1000) for _ in range(size)] for size in (7, 150, 64)]
    choices = [
        [[draw.randrange(1000) for _ in range(draw.randint(1, longest))] for _ in range(count)]
        for count in (4, 2, 10)
    ]
    found = asked.choice_log_probs(stage, prompts, choices)
    for prompt, some, log_probs in zip(prompts, choices, found, strict=True):
        whole = [forward_log_prob(stage.model, prompt, choice) for choice in some]
        assert log_probs == pytest.approx(whole, abs=2e-4)


@pytest.mark.parametrize("scoring", ["letters", "options"])
def test_the_likeliest_choice_is_the_answer(scoring, folder, stage):
    tested = questions.mmlu(folder).tested[:3]
    p = replace(PROTOCOLS["mmlu"], scoring=scoring)
    prompts = [protocols.prompt_of_question(q, [], p, TOY, SHAPE.context) for q in tested]
    rows = asked.likelihood_rows(stage, p, list(map(Asked, range(3), tested, prompts)))
    for row, question, prompt in zip(rows, tested, prompts, strict=True):
        texts = question.options if scoring == "options" else question.letters
        each = [forward_log_prob(stage.model, prompt, TOY.encode(f" {text}")) for text in texts]
        if scoring == "options":
            each = [score / len(text) for score, text in zip(each, texts, strict=True)]
            assert "A." not in TOY.decode(prompt)
        assert row["log_probs"] == pytest.approx(each, abs=2e-4)
        assert row["answer"] == "ABCD"[each.index(max(each))]
        assert row["right"] == (row["answer"] == question.gold)


def test_flops_are_the_formula():
    """2 per weight and token, 4·H·d per pair and layer, 2·D·V per logit."""
    c = replace(SHAPE, window=2048, landmark_stride=64)
    stage = Stage("random", SAGE(c, seed=3).eval(), TOY, {})
    question = questions.Question("f:1", "q", "A", ("a", "b"))
    prompt = list(range(40))
    row = asked.likelihood_rows(stage, PROTOCOLS["mmlu"], [Asked(0, question, prompt)])[0]
    block = 32 * (2 * 2 + 2 * 1) * 16 + 3 * 32 * 32
    pairs = 40 * (40 / 2 + 20 / 64)  # each token sees half of the prompt on average
    low = 2 * c.layers * block * 40 + 4 * 2 * 16 * c.layers * 40 * 20 + 2 * 32 * 1024
    high = 2 * c.layers * block * 40 + 4 * 2 * 16 * c.layers * pairs + 2 * 32 * 1024
    assert low - 40 <= row["flops"] <= high + 40


# ------------------------------------------------------------------------------------------- votes


def samples_of(*answers: str, gains=None) -> list[dict]:
    gains = gains or [0.0] * len(answers)
    return [
        dict(answer=answer, right=answer == "7", log_prob=-1.0 - place / 10, gain=gain)
        for place, (answer, gain) in enumerate(zip(answers, gains, strict=True))
    ]


def test_votes():
    rule = RULES["gsm8k"]
    assert chosen_by_vote(samples_of("5", "7", "7", ""), rule, False)["answer"] == "7"
    assert chosen_by_vote(samples_of("", "", ""), rule, False) is None
    assert chosen_by_vote(samples_of("5", "7"), rule, False)["answer"] == "5"  # the likelier one
    four = samples_of("5", "5", "5", "7", gains=[-3.0, -2.0, -1.0, 4.0])
    assert chosen_by_vote(four, rule, False)["answer"] == "5"
    two_left = samples_of("5", "5", "7", "7", gains=[1.0, -2.0, 3.0, 4.0])
    assert chosen_by_vote(two_left, rule, True)["answer"] == "7"
    equal = samples_of("\\frac12", "5", "\\dfrac{1}{2}")
    assert chosen_by_vote(equal, RULES["math"], False)["answer"] == "\\frac12"


# ------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(tmp_path, folder):
    """Runs the command on a tiny random model, with heads in out/tiny/heads."""
    record = checkpoint.tokenizer_record(TOY)
    config, model, heads = Config(model=SHAPE), SAGE(SHAPE, seed=1), ThinkingHeads(SHAPE)
    with torch.no_grad():
        heads.trained.fill_(1)
    bare, full = tmp_path / "tiny/bare", tmp_path / "tiny/heads"
    checkpoint.save_checkpoint(bare, config, model, [], 1, tokenizer=record)
    checkpoint.save_checkpoint(full, config, model, [], 1, tokenizer=record, heads=heads)

    def run(tasks: str, *more: str, model: str = "bare") -> dict:
        words = f"--tasks {tasks} --model {tmp_path}/tiny/{model} --dtype float32 --room 12"
        words += f" --data {folder} --folder {tmp_path}/measured --grader own"
        return benchmarks.main([*words.split(), *more])

    def rows(name: str, model: str = "bare") -> list[dict]:
        path = tmp_path / "measured" / f"tiny {model}" / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()[1:]]

    run.rows = rows
    run.kept = tmp_path / "measured/tiny bare"
    return run


def test_no_task_is_an_error(command):
    with pytest.raises(UserError, match="--tasks names no benchmark"):
        command(",")


def test_one_command_one_table(command, capsys):
    results = command("gsm8k,math500,mgsm:zh,mmlu,mmlu_pro,mmmlu,gpqa", "--limit", "3")
    said = capsys.readouterr().out
    table = said[said.index("benchmark ") :]
    assert [line.split()[:3] for line in table.splitlines()[1:8]] == [
        ["gsm8k", "generation", "3"],
        ["math500", "generation", "3"],
        ["mgsm:zh", "generation", "3"],
        ["mmlu", "letters", "3"],
        ["mmlu_pro", "generation", "3"],
        ["mmmlu", "generation", "3"],
        ["gpqa", "generation", "3"],
    ]
    assert {row["group"] for row in command.rows("mgsm generation")} == {"zh"}
    stored = json.loads((command.kept / "mmlu letters.json").read_text())
    assert stored["figures"] == results["mmlu"]["figures"]
    assert stored["first_prompt"].endswith("Answer:") and "(dev)" in stored["first_prompt"]
    row = command.rows("gsm8k generation")[0]
    assert set(row["samples"][0]) >= {"text", "answer", "right", "ended", "tokens"}
    assert row["written"] <= 12 and row["flops"] > 0


def test_what_was_stopped_goes_on_and_batches_change_nothing(command, monkeypatch):
    options = ("--mode", "vote", "--votes", "3", "--limit", "5")
    rows_of = asked.generation_rows
    chunks = []

    def killed(*arguments, **named):
        if len(chunks) == 2:
            raise KeyboardInterrupt
        chunks.append(1)
        return rows_of(*arguments, **named)

    monkeypatch.setattr(asked, "generation_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        command("gsm8k", "--batch", "3", *options)
    before = command.rows("gsm8k vote@3")
    assert len(before) == 2

    numbers = []

    def counted(stage, p, a, some, **named):
        numbers.extend(number for number, _, _ in some)
        return rows_of(stage, p, a, some, **named)

    monkeypatch.setattr(asked, "generation_rows", counted)
    results = command("gsm8k", "--batch", "3", *options)
    assert len(numbers) == 3 and not {row["number"] for row in before} & set(numbers)
    after = command.rows("gsm8k vote@3")
    assert after[:2] == before

    # in one go and in other batches: the same texts
    again = command("gsm8k", "--batch", "16", *options, "--folder", str(command.kept.parent / "b"))
    path = command.kept.parent / "b" / "tiny bare" / "gsm8k vote@3.jsonl"
    others = [json.loads(line) for line in path.read_text().splitlines()[1:]]

    def texts(rows):
        return {row["number"]: [s["text"] for s in row["samples"]] for row in rows}

    assert texts(others) == texts(after)
    assert again["gsm8k"]["figures"]["right"] == results["gsm8k"]["figures"]["right"]
    assert len({text for some in texts(after).values() for text in some}) > 10

    # more questions: only the further ones
    numbers.clear()
    command("gsm8k", "--batch", "3", "--mode", "vote", "--votes", "3", "--limit", "6")
    assert len(numbers) == 1


def test_thinking_is_a_vote_of_those_that_tell_the_question_again(command):
    results = command("gsm8k", "--mode", "think", "--votes", "4", "--limit", "2", model="heads")
    assert results["gsm8k"]["how"] == "think@4"
    for row in command.rows("gsm8k think@4", "heads"):
        assert len({sample["gain"] for sample in row["samples"]}) > 1
    with pytest.raises(UserError, match="bare has no trained heads.*heads.py.*--mode vote"):
        command("gsm8k", "--mode", "think")


def test_mistakes_are_said_before_anything_is_measured(command, folder, tmp_path):
    for tasks, more, wanted in (
        ("gsm8", "", "no benchmark gsm8; did you mean gsm8k"),
        ("mgsm:dee", "", "mgsm has no dee; did you mean de"),
        ("gsm8k:de", "", "gsm8k has no groups; leave :de out"),
        ("gsm8k", "--scoring letters", "gsm8k has no options"),
        ("mmlu", "--scoring letters --mode vote", "likelihoods are always the same"),
        ("mmlu", "--prompt chat", "leave --prompt chat out"),
        ("gsm8k", "--shots 5", "gsm8k wants 5 worked examples.*has 3"),
        ("gpqa", "--shots 1", "--shots 0"),
    ):
        with pytest.raises(UserError, match=wanted):
            command(tasks, *more.split())
    write(tmp_path / "none/gsm8k/test.jsonl", "")
    with pytest.raises(UserError, match="holds no question"):
        command("gsm8k", "--data", str(tmp_path / "none"))
    if importlib.util.find_spec("math_verify") is None:
        with pytest.raises(UserError, match="pip install"):
            command("math500", "--grader", "math-verify")
    assert not command.kept.exists()


def test_a_question_longer_than_the_context_counts_as_wrong(command, folder, tmp_path, capsys):
    rows = [dict(question="a word " * 3000, answer="#### 1"), dict(question="q", answer="#### 2")]
    write_jsonl(tmp_path / "long/gsm8k/test.jsonl", rows)
    figures = command("gsm8k", "--data", str(tmp_path / "long"))["gsm8k"]["figures"]
    assert (figures["questions"], figures["too_long"]) == (2, 1)
    assert "1 are longer than the context, and count as wrong" in capsys.readouterr().out


class Scripted:
    """A text as if a model had written it."""

    def __init__(self, text: str):
        self.text, self.tokens, self.ended = text, [5, 6], "stop"
        self.log_probs = [-0.5, -0.5]


@pytest.mark.parametrize("right", [True, False])
def test_whoever_says_the_answers_gets_all_or_nothing(command, monkeypatch, right):
    tasks = "gsm8k,math500,mgsm,mmlu,mmlu_pro,mmmlu,gpqa"

    def scripted(stage, p, a, asked):
        wrong = {"choice": "Z", "math": "-99"}.get(p.rule, "-99")
        return [[Scripted(said(p.rule, q.gold if right else wrong))] for _, q, _ in asked]

    monkeypatch.setattr(asked, "written_answers", scripted)
    for task, result in command(tasks, "--scoring", "").items():
        if result["how"] == "generation":
            assert result["figures"]["right"] == (100 if right else 0), task
    results = command("mmlu", "--scoring", "generation")
    assert results["mmlu"]["figures"]["right"] == (100 if right else 0)
    assert results["mmlu"]["groups"]["astronomy"]["questions"] == 4


def test_disagreements_and_errors_are_shown():
    def row(number: int, right: bool, second: bool) -> dict:
        named = dict(source=f"test.jsonl:{number}", gold="52_8", answer="52", group="")
        return (
            dict(number=number, right=right, second=second, read=10, written=5, flops=1e9) | named
        )

    rows = [row(0, True, False), *(row(n, n < 30, n < 30) for n in range(1, 40))]
    figures = answer_table.figures_of_rows(rows)
    assert figures["right"] == 75 and figures["second"] == 72.5
    assert figures["standard_error"] == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 40))
    assert figures["interval"] == pytest.approx([59.8, 85.8], abs=0.1)
    assert [d["number"] for d in figures["disagreements"]] == [0]
    table = answer_table.table_of({"math500": dict(how="generation", figures=figures)})
    assert "the rules differ in 1, the first of them:" in table
    assert "test.jsonl:0: '52' for '52_8' is right by the first" in table


def test_samples_are_counted_beside_their_vote():
    base = dict(group="", answer="7", right=True, read=1, written=1, flops=1.0)
    rows = [
        base | dict(samples=[dict(right=True, ended="stop"), dict(right=False, ended="length")])
        for _ in range(4)
    ]
    figures = answer_table.figures_of_rows(rows)
    assert (figures["right"], figures["one_sample"], figures["any_sample"]) == (100, 50, 100)
    assert figures["cut_short"] == 50
    unasked = dict(group="", answer="", right=False, read=0, written=0, flops=0.0, too_long=True)
    figures = answer_table.figures_of_rows([*rows, *[unasked] * 4])
    assert (figures["right"], figures["one_sample"], figures["any_sample"]) == (50, 25, 50)
    wrong = [dict(row, samples=[dict(right=False, ended="stop")] * 2) for row in rows]
    interval = answer_table.figures_of_rows(wrong)["one_sample_interval"]
    assert interval == pytest.approx([0, 49], abs=0.1)  # 0 of 4 questions, by Wilson's


def test_the_protocols_are_whole():
    assert PROTOCOLS.keys() == protocols.LOADERS.keys()
    for name, p in PROTOCOLS.items():
        assert p.rule in RULES and "{question}" in p.chat and "{question}" in p.plain, name
        resolved = protocols.resolved(name, Benchmarks())
        assert resolved == p
        voted = protocols.resolved(name, Benchmarks(mode="vote"))
        assert (voted.scoring, voted.prompt) == ("generation", "chat")
