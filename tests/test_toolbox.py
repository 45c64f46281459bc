"""Python files as tools: their schemas beside transformers' own, and what happens to calls that
hang, print, raise, return too much, or kill their process.
"""

import json
import os
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Any, Literal, TypedDict, Union

import pytest
from transformers.utils import get_json_schema

from config import Sample, UserError
from conftest import ROOT
from sample import task_for
from support.interrupts import time_limit
from worlds.base import Episode
from worlds.extras.tool_process import ToolLimits, ToolProcess
from worlds.extras.tool_schema import tool_of_function
from worlds.extras.toolbox import tools_of_file

HOSTILE = '''
import os, sys, subprocess, threading, time


def add(a: int, b: float = 1.0) -> float:
    """Add.

    a: the first
    b: the second
    """
    print("noise" * 1000, flush=True)
    os.write(1, b'"noise"\\n')
    os.write(2, b"noise")
    return a + b


def hang() -> int:
    """Hang."""
    while True:
        pass


def power(n: int) -> int:
    """Compute for long, within C."""
    return len(str(9**n))


def text(n: int) -> str:
    """Return much."""
    return "x" * n


def fail(reason: str) -> str:
    """Raise."""
    raise KeyError(reason)


def leave(status: int) -> str:
    """Ask to exit."""
    sys.exit(status)


def slow(seconds: float) -> str:
    """Answer, but late."""
    time.sleep(seconds)
    return "late"


def crash() -> str:
    """End the process."""
    os._exit(3)


def odd(kind: str) -> str:
    """Return what JSON has no value for."""
    return {"set": {1}, "nan": float("nan"), "half": "\\ud800", "self": threading}[kind]


def deep() -> list:
    """Return a list within lists."""
    found = []
    for _ in range(100_000):
        found = [found]
    return found


def write(n: int) -> str:
    """Write a long file."""
    with open(os.environ["HOME"] + "/long", "wb") as file:
        file.write(bytes(n))
    return "written"


def start_another() -> int:
    """Start a process that would live for long."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid
'''


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE)
    with ToolProcess(path, ToolLimits(seconds=1)) as process:
        yield process


# --------------------------------------------------------------------------------------------------
# Schemas.


def plain(town: str, days: int, share: float, dry: bool = False) -> str:
    """Say what the weather
    will be.

    Args:
        town: where
        days: how many
        share: of what
        dry: without rain
    """


def nested(lists: list[list[int]], either: int | str, maybe: str | None = None) -> str:
    """Take what is nested.

    Args:
        lists: of lists
        either: one or the other
        maybe: or not
    """


def choices(unit: Literal["km", "mi"], table: dict[str, float], old: Union[int, None]) -> str:
    """Choose.

    Args:
        unit: of length
        table: by name
        old: an older spelling
    """


def without() -> None:
    """Take nothing."""


@pytest.mark.parametrize("function", [plain, nested, choices, without])
def test_schemas_are_those_of_transformers(function):
    theirs = get_json_schema(function)["function"]
    ours = tool_of_function(function)["function"]
    assert ours["name"] == theirs["name"]
    assert ours["description"].split() == theirs["description"].split()
    properties = theirs["parameters"]["properties"]
    for key, schema in properties.items():
        schema.pop("nullable", None)  # OpenAPI's word, no JSON Schema's
        found = dict(ours["parameters"]["properties"][key])
        if isinstance(found.get("type"), list) and "null" in found["type"]:
            found["type"] = found["type"][0]  # theirs says it by nullable
        assert found == schema, key
    assert ours["parameters"]["required"] == theirs["parameters"].get("required", [])


class Tree(TypedDict):
    inner: "list[Tree]"


def test_bare_lists_and_dicts_are_any():
    def bare(rows: typing.List, table: typing.Dict) -> int:
        """Count."""

    properties = tool_of_function(bare)["function"]["parameters"]["properties"]
    assert properties == {"rows": {"type": "array"}, "table": {"type": "object"}}


def test_tools_have_the_names_that_the_file_gives_them(tmp_path):
    """Of a dict TOOLS its keys; what is no function is named with what is there."""
    code = "def _now() -> str:\n    'Say when.'\n    return 'now'\n"
    path = tmp_path / "clock.py"
    path.write_text(f"{code}TOOLS = {{'now': _now}}\n")
    with ToolProcess(path) as process:
        assert [tool["function"]["name"] for tool in process.tools] == ["now"]
        assert process.call("now", {}) == '"now"'
    path.write_text("TOOLS = {'hammer': 3}\n")
    with ToolProcess(path) as process, pytest.raises(UserError, match="hammer is 3; wanted a func"):
        process.tools


def test_what_a_function_must_have():
    def no_hint(start, end: int):
        """Count."""

    def no_docstring(start: int):
        pass

    def no_json(when: set) -> int:
        """Count."""

    def positional(start: int, /) -> int:
        """Count."""

    def unknown(start: "Nowhere") -> int:  # noqa: F821
        """Count."""

    def bytes_choice(start: Literal[b"a"]) -> int:
        """Count."""

    def itself(start: Tree) -> int:
        """Count."""

    for function, words in (
        (bytes_choice, "argument start: .*Literal.* has no values in JSON"),
        (itself, "argument start: its type contains itself"),
        (3, "wanted a function"),
        (no_hint, "argument start has no type hint; write start: str"),
        (no_docstring, "no_docstring has no docstring"),
        (no_json, "argument when: set has no values in JSON; wanted int"),
        (positional, "cannot be given by its name"),
        (unknown, "its hints cannot be read"),
    ):
        with pytest.raises(ValueError, match=words):
            tool_of_function(function)


@pytest.mark.parametrize(
    "text, words",
    [
        ("def f(x):\n    '''Do.'''\n", r"tools.py:1: function f: argument x has no type hint"),
        ("\ndef f(x: int): pass\n", r"tools.py:2: function f has no docstring"),
        ("x = 1\n", "has no public function"),
        ("x = 1\ny = (\n", r"tools.py:2: cannot be loaded \(SyntaxError"),
        ("import os\n\nos.nosuch\n", r"tools.py:3: cannot be loaded \(AttributeError"),
        ("import nosuch_library\n", r"tools.py:1: cannot be loaded \(ModuleNotFoundError"),
        ("while True: pass\n", "did not load within 1 s"),
        ("import sys\nsys.exit(3)\n", r"tools.py:2: cannot be loaded \(SystemExit"),
        ("import os\nos._exit(3)\n", "did not load"),
        ("x = bytearray(1 << 40)\n", r"tools.py:1: cannot be loaded \(MemoryError"),
    ],
)
def test_a_file_that_holds_no_tools(tmp_path, text, words):
    path = tmp_path / "tools.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        ToolProcess(path, ToolLimits(start_seconds=1)).start()
    with pytest.raises(UserError, match="no file"):
        tools_of_file(tmp_path / "nosuch.py")


# --------------------------------------------------------------------------------------------------
# Calls.


def test_what_a_call_may_do(hostile):
    assert hostile.call("add", {"a": 1}) == "2.0"  # whatever it prints
    assert hostile.call("add", {"a": 1, "b": 0.5}) == "1.5"
    assert hostile.call("text", {"n": 5}) == '"xxxxx"'
    process = hostile.process.pid
    for call, words in (
        (("text", {"n": 10_000_000}), "error: the tool returned 10,000,002 bytes; at most 8,192"),
        (("text", {"n": 1 << 40}), "error: MemoryError"),
        (("fail", {"reason": "two\nlines"}), r"error: 'two\nlines'"),
        (("leave", {"status": 3}), "error: 3"),
        (("odd", {"kind": "set"}), "error: the tool returned a set that JSON cannot hold"),
        (("odd", {"kind": "nan"}), "error: the tool returned a float that JSON cannot hold"),
        (("odd", {"kind": "half"}), "error: the tool returned a str that JSON cannot hold"),
        (("odd", {"kind": "self"}), "error: the tool returned a module that JSON cannot hold"),
        (("deep", {}), "error: the tool returned a list that JSON cannot hold"),
        (("write", {"n": 1 << 30}), "error: "),
    ):
        said = hostile.call(*call)
        assert said.startswith(words) and "\n" not in said, said
    assert hostile.process.pid == process  # none of these ends it
    assert os.path.getsize(Path(os.environ["HOME"]) / "long") <= 8 << 20


@pytest.mark.parametrize("call", [("hang", {}), ("power", {"n": 10**9})])
def test_a_call_that_takes_too_long_is_stopped(hostile, call):
    began = time.monotonic()
    assert hostile.call(*call) == f"error: {call[0]} took longer than 1 s, and was stopped"
    assert time.monotonic() - began < 10
    assert hostile.call("add", {"a": 1}) == "2.0"


def test_an_interrupted_call_does_not_answer_the_next(hostile):
    for started in (True, False):
        if started:
            hostile.start()
        with pytest.raises(TimeoutError), time_limit(0.3 if started else 0.001, "the tool"):
            hostile.call("slow", {"seconds": 0.6})
        time.sleep(0.5)
        assert hostile.call("add", {"a": 1}) == "2.0"
        hostile.close()


def test_a_call_that_ends_its_process(hostile):
    assert hostile.call("crash", {}).startswith("error: crash ended its process")
    assert hostile.call("add", {"a": 1}) == "2.0"


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_what_a_tool_starts_ends_with_it(hostile):
    child = int(hostile.call("start_another", {}))
    own = hostile.process.pid
    assert alive(child)
    hostile.close()
    assert wait_until(lambda: not alive(child) and not alive(own))
    hostile.close()  # twice does no harm


def test_it_ends_with_who_started_it(tmp_path):
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE)
    code = f"""
from worlds.extras.tool_process import ToolLimits, ToolProcess
process = ToolProcess({str(path)!r}, ToolLimits(seconds=2))
process.start()
print(process.process.pid, flush=True)
process.call("hang", {{}})
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    child = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not alive(child))


# --------------------------------------------------------------------------------------------------
# The examples.


def first_calls() -> list[tuple[str, str, dict[str, Any], str]]:
    return [
        ("weather.py", "temperature", {"town": "Lisbon", "month": "July"}, "28"),
        ("weather.py", "to_fahrenheit", {"celsius": 28}, "82.4"),
        ("agenda.json", "appointments", {"day": "2027-03-05"}, "[]"),
        ("agenda.json", "appointments", {"day": "5 March"}, "error: Invalid isoformat string"),
        ("shop.py", "pieces_left", {"item": "kettle"}, "3"),
        ("shop.py", "price_of", {"item": "cup", "pieces": 3}, "12.0"),
        ("shop.py", "sell", {"item": "tray", "pieces": 1}, "error: 0 of tray are left"),
        ("shop.py", "pieces_left", {"thing": "cup"}, "error: "),
    ]


@pytest.mark.parametrize("file, name, arguments, wanted", first_calls())
def test_the_examples_run(file, name, arguments, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENDA", str(tmp_path / "agenda.json"))
    sample = Sample(tools=str(ROOT / "examples" / file), prompt="?")
    with Episode(task_for(sample, "qwen")) as episode:
        assert episode.step({"name": name, "arguments": arguments}).startswith(wanted)


def test_an_agenda_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENDA", str(tmp_path / "agenda.json"))
    entry = {"day": "2027-03-05", "at": "12:30"}
    sample = Sample(tools=str(ROOT / "examples/agenda.json"), prompt="?")
    for call, wanted in (
        ({"name": "add_appointment", "arguments": {**entry, "what": "lunch"}}, '"added: '),
        ({"name": "add_appointment", "arguments": {**entry, "what": "tea"}}, "error: "),
        ({"name": "appointments", "arguments": {"day": "20270305"}}, '["12:30 lunch"]'),
        ({"name": "cancel_appointment", "arguments": entry}, '"removed: '),
        ({"name": "appointments", "arguments": {"day": "2027-03-05"}}, "[]"),
    ):
        with Episode(task_for(sample, "qwen")) as episode:
            assert episode.step(call).startswith(wanted)


def test_a_list_of_tools_names_what_its_file_lacks(tmp_path):
    tools = json.loads((ROOT / "examples/agenda.json").read_text())
    tools["tools"][0]["function"]["name"] = "nosuch"
    tools["module"] = str(ROOT / "examples/agenda.py")
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    with pytest.raises(UserError, match="a tool nosuch, and .*agenda.py no such function"):
        task_for(Sample(tools=str(tmp_path / "tools.json")), "qwen")


def test_a_file_that_does_not_load_again_costs_the_call_only(tmp_path):
    path = tmp_path / "once.py"
    code = "import os\ndef die() -> str:\n    'End.'\n    os._exit(1)\n"
    path.write_text(code)
    with ToolProcess(path) as process:
        assert process.tools and "ended its process" in process.call("die", {})
        path.write_text("raise ValueError('twice')\n")
        assert process.call("die", {}).startswith("error: ")


def test_a_tool_may_be_called_long_after_the_start(tmp_path):
    path = tmp_path / "idle.py"
    path.write_text("def ask() -> str:\n    'Ask.'\n    return 'yes'\n")
    with ToolProcess(path, ToolLimits(start_seconds=1)) as process:
        assert process.tools
        child = process.process.pid
        time.sleep(2.5)
        assert process.call("ask", {}) == '"yes"' and process.process.pid == child
