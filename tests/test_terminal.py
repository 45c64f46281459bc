"""worlds/extras/terminal.py: one answer is read whole, and nothing of it answers the next call."""

import io
import os
import pty
import sys

import pytest

from worlds.tools import make_tool
from worlds.base import Episode
from worlds.extras.terminal import task_of

CALL = {"name": "look", "arguments": {}}


def answers(number):
    with Episode(task_of("?", [make_tool("look", "", {})], "qwen")) as episode:
        return [episode.step(CALL) for _ in range(number)]


@pytest.mark.parametrize(
    "typed, wanted",
    [
        ("sunny\nrain\n", ["sunny", "rain"]),
        (
            '{\n  "a": [1,\n\n',
            ['{\n  "a": [1,', "error: no answer"],
        ),  # an empty line ends what is not whole
        (
            '{\n  "a": {\n    "b": "}"\n  }\n}\nrain\n',
            ['{\n  "a": {\n    "b": "}"\n  }\n}', "rain"],
        ),
        ("[\r\n  1,\r\n  2\r\n]\r\nrain\n", ["[\r\n  1,\r\n  2\r\n]", "rain"]),
        ('{"a": 1}\nrain\n', ['{"a": 1}', "rain"]),
        (
            "{\n  temperature: 21\n}\n\nrain\n",
            ["{\n  temperature: 21\n}", "rain"],
        ),  # begins like JSON and is none
        ('{\n  "a": 1', ['{\n  "a": 1', "error: no answer"]),  # the input ends
        ("\nrain\n", ["error: no answer", "rain"]),
        ("[" * 100_000 + "\n", ["[" * 100_000, "error: no answer"]),
    ],
)
def test_an_answer_is_read_whole(monkeypatch, typed, wanted):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed, newline=""))
    assert answers(2) == wanted


def test_what_is_pasted_into_a_terminal_is_one_answer(monkeypatch, capsys):
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal, "r", buffering=1) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        os.write(keyboard, b"line one\n\nline two\n")
        assert answers(1) == ["line one\n\nline two"]
        os.write(keyboard, b'{"a":\n1}\n')
        assert answers(1) == ['{"a":\n1}']
    os.close(keyboard)
    assert "empty line ends" in capsys.readouterr().err  # the hint
