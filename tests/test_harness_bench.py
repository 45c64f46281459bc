"""bench/harness.py and bench/wrong_answers.py: task files that give another harness our prompts,
wrong answers that are wrong, and comparisons that see what differs.
"""

import json
import sys
from types import SimpleNamespace

import jinja2
import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "bench"))
import harness
import wrong_answers
from support import protocols
from support.measured import Stage
from support import tokenizer as tokenizers
from support.questions import Question

TOY = tokenizers.toy()


def test_wrong_answers_are_other_answers():
    assert wrong_answers.wrong_numbers("18", "25") == {
        "off by one": "19",
        "sign": "-18",
        "digits swapped": "81",
        "another question's": "25",
    }
    assert wrong_answers.wrong_numbers("10.50", "1,000")["off by one"] == "11.50"
    assert wrong_answers.wrong_numbers("1,099", "7")["off by one"] == "1100"
    assert "sign" not in wrong_answers.wrong_numbers("0", "7")
    assert (
        wrong_answers.swapped_digits("100") == "" and wrong_answers.swapped_digits("210") == "201"
    )
    formula = wrong_answers.wrong_numbers("\\frac{3}{4}", "x+1")
    assert formula["off by one"] == "\\frac{3}{5}" and formula["sign"] == "-\\frac{3}{4}"
    assert "sign" not in wrong_answers.wrong_numbers("(1, 2)", "7")
    solution = "He has <<3*2=6>>6 eggs, 6 of them.\n#### 6"
    assert wrong_answers.wrong_solution(solution) == "He has <<3*2=7>>7 eggs, 7 of them.\n#### 7"


def test_wrong_calls_differ_in_one_thing_each():
    call = {"name": "f", "arguments": {"n": 3, "town": "Oslo", "days": [1, 2]}}
    functions = {
        name: {"name": name, "parameters": {"properties": {}, "required": ["n"]}} for name in "fg"
    }
    found = wrong_answers.wrong_calls([call], functions, ["Oslo", "Lima"])
    assert found["call missing"] == [] and len(found["call made twice"]) == 2
    assert found["another tool"][0]["name"] == "g"
    assert found["a number off by one"][0]["arguments"]["n"] == 4
    assert found["another case's text"][0]["arguments"]["town"] == "Lima"
    assert "n" not in found["argument missing"][0]["arguments"]
    assert all(message != [call] for message in found.values())


def test_changed_literals():
    statement = "UPDATE `t1` SET a = 'x' WHERE n = 41"
    assert wrong_answers.changed_literal(statement, 0) == "UPDATE `t1` SET a = 'xx' WHERE n = 41"
    assert wrong_answers.changed_literal(statement, -1) == "UPDATE `t1` SET a = 'x' WHERE n = 42"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few questions in their authors' formats."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        dict(
            question=f"What is {n} + {n}?",
            answer=f"It is <<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n}",
        )
        for n in range(12, 20)
    ]
    harness.write_lines(folder / "gsm8k/test.jsonl", rows)
    harness.write_lines(folder / "gsm8k/train.jsonl", rows[:2])
    fields = dict(subject="Algebra", level=1)
    maths = [
        dict(problem=row["question"], answer=f"{n + 12}", **fields) for n, row in enumerate(rows)
    ]
    harness.write_lines(folder / "math500/test.jsonl", maths)
    (folder / "mgsm").mkdir()
    (folder / "mgsm/mgsm_de.tsv").write_text("Was ist 1 + 1?\t2\nWas ist 12 + 12, Anna?\t24\n")
    return folder


def test_the_other_harness_is_given_our_prompts(data, tmp_path):
    """Its templates, rendered as it renders them, are the texts that benchmarks.py encodes."""
    harness.write_our_files(data, tmp_path / "data", few=3)
    harness.write_their_files(tmp_path / "data", tmp_path / "theirs", "<start>")
    arguments = SimpleNamespace(model="smollm2", folder=tmp_path, batch=1)
    for task in harness.TASKS:
        config = json.loads((tmp_path / "theirs" / f"{task.name}.yaml").read_text())
        lines = (tmp_path / "theirs" / f"{task.name}.jsonl").read_text().splitlines()
        assert config["dataset_kwargs"]["data_files"]["test"].endswith(f"{task.name}.jsonl")
        name = task.ours.partition(":")[0]
        words = harness.settings.benchmarks_from_command_line(
            harness.our_arguments(task, arguments)
        )
        protocol = protocols.resolved(name, words)
        assert (protocol.scoring, protocol.shots) == (task.scoring, config["num_fewshot"])
        found = harness.LOADERS[name](tmp_path / "data")
        template = jinja2.Template(config["doc_to_text"], keep_trailing_newline=True)
        assert lines
        for row in map(json.loads, lines):
            question = found.tested[row["number"]]
            shots = found.examples_for(question)[: protocol.shots]
            text = config["description"]
            for shot in shots:  # few-shot examples: target_delimiter " ", fewshot_delimiter
                asked = template.render(question=shot.text)
                text += f"{asked} {jinja2.Template('{{answer}}').render(answer=shot.solution)}\n\n"
            text += template.render(**row)
            assert text == "<start>" + protocols.prompt_text(question, shots, protocol)
            if task.scoring != "generation":
                options = row[config["doc_to_choice"]]
                assert len(options) == len(question.options)
                assert question.letters[row["answer_index"]] == question.gold


def test_numbers_are_compared_whatever_their_form():
    assert harness.as_number("$1,080.") == harness.as_number("1080.0")
    assert harness.as_number("[invalid]") == harness.as_number("") == ""
    assert harness.as_number("18") != harness.as_number("19")


def written(text: str, answer: str, response: str, found: str, prompt: list[int]) -> harness.Pair:
    """A question of mgsm_de that was answered by both; lm-eval found it right."""
    question = Question("mgsm_de.tsv:1", "Was?", "18", group="de")
    ours = dict(samples=[dict(text=text)], answer=answer, right=answer == "18")
    row = dict(tokens=dict(prompt=prompt), resps=[[response]], filtered_resps=[found])
    return harness.Pair(question, [5, 6], ours, {"flexible-extract": row | dict(exact_match=1.0)})


def test_texts_that_differ_are_seen(monkeypatch):
    stage = Stage("none", None, TOY, {})
    gaps = {"rounding": 1e-5, "other": 0.7}
    monkeypatch.setattr(harness, "first_difference", lambda *a: ("token 3", gaps[why]))
    task = next(task for task in harness.TASKS if task.name == "mgsm_de")
    why = "rounding"
    same = written("It is 18.", "18", "It is 18.", "18.", [5, 6])
    found = harness.compare_texts(task, [same], stage)
    assert not found.differences and all(map(all, found.figures.values()))
    read = written("It is 18...", "18", "It is 18...", "..", [5, 6])
    found = harness.compare_texts(task, [read], stage)
    assert "other rules" in found.differences[0] and not found.unexplained
    other = written("It is 9.", "9", "It is 18.", "18.", [5, 6])
    assert harness.compare_texts(task, [other], stage).unexplained == 0
    why = "other"
    assert harness.compare_texts(task, [same, other], stage).unexplained == 1
    shifted = written("It is 18.", "18", "It is 18.", "18.", [5, 7])
    found = harness.compare_texts(task, [shifted], stage)
    assert found.figures["prompt's tokens"] == [False] and found.unexplained == 1


def test_likelihoods_that_differ_are_seen():
    task = next(task for task in harness.TASKS if task.name == "formulas")
    question = Question("test.jsonl:1", "How many?", "A", options=("18", "81"))
    tokens = [TOY.encode_inside(" 18"), TOY.encode_inside(" 81")]
    lengths = [len(some) for some in tokens]

    def pair(theirs: list[float]) -> harness.Pair:
        ours = dict(log_probs=[-1.0, -2.0], answer="A", right=True)  # per byte: two each
        row = dict(resps=[[[str(x), "False"]] for x in theirs], acc_bytes=1.0)
        row |= dict(tokens=dict(prompt=[5], continuations=tokens))
        return harness.Pair(question, [5], ours, {"none": row})

    stage = Stage("none", None, TOY, {})
    found = harness.compare_likelihoods(task, [pair([-2.0, -4.0])], stage)
    assert not found.differences and max(found.gaps) == 0
    found = harness.compare_likelihoods(task, [pair([-2.0 - 0.01 * lengths[0], -4.0])], stage)
    assert found.unexplained == 1 and max(found.gaps) == pytest.approx(0.01)
    found = harness.compare_likelihoods(task, [pair([-5.0, -4.0])], stage)
    assert found.figures["choice"] == [False]
