"""bench/report.py: what is compared with what, and what the page says of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import report
from config import UserError
from support.answer_table import figures_of_rows


def answers(right: list[bool]) -> dict:
    """What eval.py returns of a benchmark's questions."""
    rows = [
        dict(number=n, group="", answer="1", right=r, read=9, written=4, flops=2e9)
        | dict(question=f"what is {n}?")
        for n, r in enumerate(right)
    ]
    return dict(figures=figures_of_rows(rows), rows=rows, measured=["abc123, a machine, a day"])


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Three stages of 40 questions: the second is right in 20 more, the third in the same number
    but others; and one case.
    """
    right = {
        "first": [False] * 40,
        "second": [n < 20 for n in range(40)],
        "third": [n >= 20 for n in range(40)],
    }
    asked = []

    def main(words):
        given = dict(zip(words[::2], words[1::2]))
        asked.append((Path(given["--model"]).name, given["--mode"]))
        return {"gsm8k": answers(right[asked[-1][0]])}

    monkeypatch.setattr(report.benchmarks, "main", main)
    monkeypatch.setattr(report, "play_case", lambda model, case: [f"{case} by {Path(model).name}"])
    monkeypatch.setattr(report.checkpoint, "weights_identity", lambda folder: dict(run=folder.name))
    for name in right:
        (tmp_path / name / "checkpoint-0000001").mkdir(parents=True)
    return tmp_path, asked


def test_stages_are_compared_question_by_question(measured, monkeypatch):
    folder, asked = measured
    stages = [str(folder / name) for name in ("first", "second", "third")]
    report.main([*stages, "--tasks", "gsm8k", "--cases", "loop", "--folder", str(folder / "out")])
    assert asked == [("first", "fast"), ("second", "fast"), ("third", "fast")]
    found = json.loads((folder / "out" / "report.json").read_text())
    verdicts = {(o["before"], o["after"]): o for o in found["orderings"]}
    assert verdicts["first", "second"]["difference"] == 50
    assert verdicts["first", "second"]["verdict"] == "holds"
    assert verdicts["second", "third"]["difference"] == 0
    assert verdicts["second", "third"]["verdict"] == "not shown"
    low, high = (verdicts["second", "third"][end] for end in ("low", "high"))
    assert low < -20 and high > 20  # every question changed sides, which shares alone do not say
    assert verdicts["first", "third"]["verdict"] == "holds"
    page = (folder / "out" / "README.md").read_text()
    assert "| gsm8k | 0.0 ± 0.0 (40) | 50.0 ± 7.9 (40) | 50.0 ± 7.9 (40) | 97.04 | 96.74 |" in page
    assert "| loop | second | loop by second |" in page
    assert (folder / "out" / "benchmarks.png").stat().st_size > 1000
    assert "| abc123, a machine, a day | gsm8k (first); gsm8k (second); gsm8k (third) |" in page


def test_the_picture_has_no_frame(measured, monkeypatch):
    folder, _ = measured
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    report.main([str(folder / "first"), "--tasks", "gsm8k", "--cases", "", "--folder", str(folder)])
    (axes,) = drawn[0].axes
    assert not any(axes.spines[side].get_visible() for side in ("top", "right"))


def test_a_case_is_played_again_only_by_other_weights(measured, monkeypatch):
    folder, _ = measured
    played = []
    monkeypatch.setattr(report, "play_case", lambda model, case: played.append(case) or ["x"])
    words = [str(folder / "first"), "--tasks", "gsm8k", "--folder", str(folder / "out")]
    for cases in ("loop", "loop,monty", "loop,monty"):
        report.main([*words, "--cases", cases])
    assert played == ["loop", "monty"]
    monkeypatch.setattr(report.checkpoint, "weights_identity", lambda folder: dict(run="other"))
    report.main([*words, "--cases", "loop"])
    assert played == ["loop", "monty", "loop"]


def test_other_questions_of_one_number_are_not_compared():
    """A world's fifth task is in invented words for a toy, in English for a model that chats."""
    sides = []
    for name, words in (("toy", "Find pita."), ("chat", "Find the order.")):
        rows = [dict(question="the same", right=name == "chat"), dict(question=words, right=True)]
        rows = {"world:sql": dict(enumerate(rows))}
        sides.append(report.Measured(name, "fast", figures={}, rows=rows, origins={}))
    assert (found := report.compare("world:sql", *sides)).n == 1 and found.difference == 100
    for side in sides:
        del side.rows["world:sql"][0]
    assert report.compare("world:sql", *sides) is None


def test_a_fall_is_called_one(measured):
    folder, _ = measured
    stages = [str(folder / name) for name in ("second", "first")]
    report.main([*stages, "--tasks", "gsm8k", "--cases", "", "--folder", str(folder / "out")])
    (found,) = json.loads((folder / "out" / "report.json").read_text())["orderings"]
    assert found["difference"] == -50 and found["verdict"] == "fails"
    assert "Case studies" not in (folder / "out" / "README.md").read_text()


def test_mistakes_are_said_before_anything_is_measured(measured):
    folder, asked = measured
    for words, wanted in (
        ([str(folder / "first"), f"first={folder / 'second'}"], "two stages are named first"),
        ([str(folder / "first"), str(folder / "nowhere")], "no model .*nowhere"),
        ([str(folder / "first"), "--cases", "loop,recovry"], "no case 'recovry'; there are"),
    ):
        with pytest.raises(UserError, match=wanted):
            report.main(words)
    assert not asked


def test_what_could_not_be_played_is_tried_again(measured, monkeypatch):
    folder, _ = measured
    words = [str(folder / "first"), "--tasks", "gsm8k", "--folder", str(folder / "out")]
    for said, wanted in (("not played: no bwrap", "no bwrap"), ("moved | all\nof them", "moved")):
        monkeypatch.setattr(report, "play_case", lambda model, case: [said])
        report.main([*words, "--cases", "recovery"])
        assert wanted in (page := (folder / "out" / "README.md").read_text())
    assert "| recovery | first | moved \\| all of them |" in page


def test_a_text_with_other_line_ends_is_one_trace(monkeypatch):
    trace = dict(judgement=dict(outcome="done", seen="a\u2028b\x85c"))
    written = f"note\n{json.dumps(trace, ensure_ascii=False)}\n"
    done = subprocess.CompletedProcess([], 0, stdout=written, stderr="")
    monkeypatch.setattr(report.subprocess, "run", lambda *_, **__: done)
    assert report.play_case("m", "loop") == ["done: a\u2028b\x85c"]


def test_a_case_that_cannot_be_played_says_why(tmp_path):
    (said,) = report.play_case(str(tmp_path / "nowhere"), "loop")
    assert said.startswith("not played: ") and "nowhere" in said
