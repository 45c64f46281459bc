"""Berkeley function calling for tests and benches: its cases, spoilt calls, and what the
leaderboard's own checker says of them.

Nothing here judges. The verdicts below were given by the leaderboard's own checker, run once beside
worlds/extras/benchmarks.py: simple_function_checker and ast_checker of
github.com/ShishirPatil/gorilla,
commit 6ea57973, which bfcl-eval 2026.3.23 in the registry holds too. `official` finds that checker
where it is installed (`pip install --no-deps bfcl-eval`), and a slow test repeats the comparison.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from worlds.base import Episode, Task
from worlds.extras.benchmarks import (
    bfcl,
    expected,
    json_schema,
    first_choices,
    right_arguments,
    wrong_with,
)

FILES = ("simple_python", "multiple", "parallel")


# --------------------------------------------------------------------------- the answer keys' calls


def cases(folder: Path) -> Iterator[tuple[str, list[dict], list[dict]]]:
    """(case, functions, [{name: {argument: [allowed values]}}]) of every case that has an
    answer."""
    for name in FILES:
        for task in bfcl(folder, name):
            yield f"{name}_{task.seed}", list(task.truth["functions"].values()), task.truth["key"]


def judge(function: dict, allowed: dict[str, list], call: dict) -> str:
    """The official family of a call's error, or "" of a right one."""
    return wrong_with(call, function, allowed)


def truths(answer: dict, functions: list[dict]) -> Iterator[dict]:
    """The calls that an answer allows: the first choice of every argument, then each further choice
    of each argument in turn.

    An argument that may be left out ("") is left out of the first, unless the schema requires it
    (simple_python_200).
    """
    ((name, allowed),) = answer.items()
    function = next(function for function in functions if function["name"] == name)
    first = right_arguments(allowed, function)
    yield {"name": name, "arguments": first}
    for argument, values in allowed.items():
        for value in values:
            if (
                value != ""
                and argument in function["parameters"]["properties"]
                and first_choices(value) != first.get(argument)
            ):
                yield {"name": name, "arguments": {**first, argument: first_choices(value)}}


def tool(function: dict) -> dict:
    return {"type": "function", "function": json_schema(function)}


# ------------------------------------------------------------------------------------- spoilt calls


def spoilt_values(value: Any) -> Iterator[tuple[str, Any]]:
    """(kind of spoiling, value): not all of them are wrong, that is for the checker to say."""
    yield from (
        ("as text", str(value)),
        ("in a list", [value]),
        ("in an object", {"value": value}),
        ("null", None),
        ("empty text", ""),
        ("empty list", []),
        ("empty object", {}),
        ("true", True),
        ("seven", 7),
        ("two and a half", 2.5),
    )
    if isinstance(value, bool):
        yield from (("negated", not value), ("as integer", int(value)))
    elif isinstance(value, int):
        yield from (("as float", float(value)), ("one more", value + 1))
    elif isinstance(value, float):
        yield from (
            ("as integer", int(value)),
            ("a bit more", value + 0.001),
            ("one more", value + 1),
        )
    elif isinstance(value, str):
        yield from (
            ("other case", value.swapcase()),
            ("without spaces", value.replace(" ", "")),
            ("punctuation", f" {value.replace(' ', '_')},./-^*"),
            ("other quotes", value.translate(str.maketrans("'\"", "\"'"))),
            ("quoted", f"'{value}'"),
            ("semicolon", value + ";"),
            ("newline", value + "\n"),
            ("one letter more", value + "x"),
            ("one letter less", value[:-1]),
        )
    elif isinstance(value, list):
        yield from (
            ("reversed", value[::-1]),
            ("an item less", value[1:]),
            ("an item more", [*value, *value[-1:]]),
            ("a null more", [*value, None]),
        )
    elif isinstance(value, dict):
        yield from (
            ("a key more", {**value, "invented": 1}),
            ("key in other case", {key.swapcase(): item for key, item in value.items()}),
        )
        for key in value:
            yield "a key less", {other: item for other, item in value.items() if other != key}
    if isinstance(value, (list, dict)):
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            for kind, spoilt in spoilt_values(item):
                inside = value.copy()
                inside[key] = spoilt
                yield f"inside: {kind.removeprefix('inside: ')}", inside


def spoilt_calls(answer: dict, functions: list[dict]) -> Iterator[tuple[str, dict]]:
    """(kind, call) of the calls that an answer allows and of thousands around them."""
    calls = list(truths(answer, functions))
    for call in calls:
        yield "allowed", call
    call = calls[0]
    name, arguments = call["name"], call["arguments"]
    yield "another name", {"name": name + "x", "arguments": arguments}
    yield "no arguments", {"name": name, "arguments": {}}
    yield "an argument more", {"name": name, "arguments": {**arguments, "invented": 1}}
    for key, value in arguments.items():
        rest = {other: item for other, item in arguments.items() if other != key}
        yield "an argument less", {"name": name, "arguments": rest}
        yield "an argument renamed", {"name": name, "arguments": {**rest, key.upper() + "_": value}}
        for kind, spoilt in spoilt_values(value):
            yield kind, {"name": name, "arguments": {**arguments, key: spoilt}}


def spoilt_messages(task: Task) -> Iterator[tuple[str, list[dict]]]:
    """(kind, calls) of whole answers: in another order, one too few or too many, one twice for
    another."""
    calls = [step.call for step in task.solution]
    if not calls:
        return
    yield "as the key has it", calls
    yield "backwards", calls[::-1]
    yield "turned by one", calls[1:] + calls[:1]
    yield "none", []
    yield "the first missing", calls[1:]
    yield "the first twice", calls[:1] + calls
    yield "the first instead of the last", calls[:-1] + calls[:1]
    (name, allowed), *_ = expected(task.truth["key"])
    for call in truths({name: allowed}, list(task.truth["functions"].values())):
        yield "another value, backwards", [*calls[1:][::-1], call]


def trials(tasks: list[Task]) -> Iterator[tuple[str, Task, dict | None, list[dict]]]:
    """(kind, task, answer, calls): one call for one answer of the key, or, where answer is None, a
    message for the whole task."""
    for task in tasks:
        for answer in task.truth["key"]:
            for kind, call in spoilt_calls(answer, list(task.truth["functions"].values())):
                yield kind, task, answer, [call]
        for kind, calls in spoilt_messages(task):
            yield f"message: {kind}", task, None, calls


def verdict(task: Task, answer: dict | None, calls: list[dict]) -> str:
    """What worlds/extras/benchmarks.py says of a trial: "" or the family of the error."""
    if answer is None:
        with Episode(task) as episode:
            for call in calls:
                episode.step(call)
            return "" if episode.verify("done") else "wrong calls"
    ((name, allowed),) = answer.items()
    return wrong_with(calls[0], task.truth["functions"][name], allowed)


# ----------------------------------------------------------------------------- the official checker


def official() -> Callable[[Task, dict | None, list[dict]], str] | None:
    """`verdict` by the installed leaderboard, or None without it; "crash" where the checker itself
    raises.

    Its table of models, which imports every vendor's client, is replaced by one model whose
    function names keep their dots.
    """
    try:
        import bfcl_eval  # noqa: F401
    except ImportError:
        return None
    table = ModuleType("bfcl_eval.constants.model_config")
    table.MODEL_CONFIG_MAPPING = {"any": type("Config", (), {"underscore_to_dot": False})}
    sys.modules.setdefault(table.__name__, table)
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker, simple_function_checker

    def run(check: Callable, *parts: Any) -> str:
        try:
            result = check(*parts)
        except Exception:
            return "crash"
        return "" if result["valid"] else family(result["error_type"])

    def official_verdict(task: Task, answer: dict | None, calls: list[dict]) -> str:
        functions = task.truth["functions"]
        said = [{call["name"]: call["arguments"]} for call in calls]
        if answer is not None:
            function = functions[next(iter(answer))]
            return run(simple_function_checker, function, said[0], answer, Language.PYTHON, "any")
        offered, key = list(functions.values()), task.truth["key"]
        error = run(ast_checker, offered, said, key, Language.PYTHON, task.kind, "any")
        return "wrong calls" if error else ""

    return official_verdict


def family(error: str) -> str:
    """The family of an official error type: "type_error:nested" -> "type_error",
    "simple_function_checker:missing_required" -> "missing_required"."""
    first, last = error.split(":")
    if first in ("dict_checker", "list_dict_checker"):
        return "value_error"
    return first if first.endswith("_error") else last


# File: (crc32 of its answers, trials, right ones, crc32 of the verdicts as 1 and 0), by the
# official checker.
OFFICIAL = {
    "simple_python": (535434959, 26741, 6406, 3459320216),
    "multiple": (3647005846, 12982, 3283, 1561409251),
    "parallel": (4247810799, 31038, 5436, 1440442713),
    "parallel_multiple": (3056825981, 35395, 6876, 734918867),
    "live_simple": (3635964101, 16440, 4288, 3304717518),
    "live_multiple": (2827130989, 66102, 19270, 2765664326),
    "live_parallel": (1729918051, 1896, 483, 154493611),
    "live_parallel_multiple": (2696230822, 2375, 623, 3808499025),
}


VERDICTS = [  # (type of the argument, allowed values, value, verdict)
    # strings
    ("string", ["name = 'x'"], 'name = "x"', ""),
    ("string", ['say "hi"'], "say 'hi'", ""),
    ("string", ["it's"], "its", "value_error"),
    ("string", ["April 1, 2024"], "april 1 2024", ""),
    ("string", ["New York, NY"], "new-york_ny.", ""),
    ("string", ["a/b"], "ab", ""),
    ("string", ["x^2*y"], "X2Y", ""),
    ("string", ["a;b"], "ab", "value_error"),
    ("string", ["a:b"], "a b", "value_error"),
    ("string", ["a b"], "a\tb", "value_error"),
    ("string", ["a b"], "a\nb", "value_error"),
    ("string", ["x", ""], "", ""),
    ("string", ["x"], "", "value_error"),
    ("string", ["x", ""], " .-", ""),
    ("string", ["3"], 3, "type_error"),
    ("string", ["x", None], None, "type_error"),
    ("string", [None, "x"], None, ""),
    ("string", [None, "x"], "x", ""),
    ("string", ["Über"], "über", ""),
    ("string", ["x"], ["x"], "type_error"),
    ("string", [5], 5, ""),
    ("string", [5], "5", "value_error"),
    ("string", [True], True, ""),
    ("string", ["x", 5], 5, "type_error"),
    ("string", [], "x", "value_error"),
    ("string", [""], "x", "value_error"),
    # numbers and booleans
    ("float", [12.0], 12, ""),
    ("float", [12.0], "12", "type_error"),
    ("float", [12], 12, ""),
    ("float", [12], 12.0, ""),
    ("float", [0.1], 0.1000001, "value_error"),
    ("float", ["", 0.5], 0.5, ""),
    ("float", [12.0], True, "type_error"),
    ("integer", [12], 12.0, "type_error"),
    ("integer", [12], 12, ""),
    ("integer", [1], True, "type_error"),
    ("integer", [True], 1, ""),
    ("integer", [True], True, ""),
    ("integer", ["n"], "n", ""),
    ("integer", ["n"], "N", "value_error"),
    ("integer", ["n"], 3, "value_error"),
    ("integer", [5, ""], "", "type_error"),
    ("integer", ["", 5], 5, ""),
    ("integer", [5.0], 5.0, ""),
    ("integer", [5.0], 5, ""),
    ("boolean", [True], True, ""),
    ("boolean", [True], 1, "type_error"),
    ("boolean", [True], "true", "type_error"),
    ("boolean", ["True"], "True", ""),
    ("boolean", ["True"], True, "value_error"),
    ("boolean", [1], True, ""),
    ("boolean", [False, ""], False, ""),
    ("float", [None, ""], None, ""),
    ("integer", [5, None], None, "type_error"),
    # any
    ("any", ["x"], "X", ""),
    ("any", [5], 5, ""),
    ("any", [5], 5.0, "type_error"),
    ("any", [5], "5", "value_error"),
    ("any", ["x"], 5, "type_error"),
    ("any", [[1, 2]], [1, 2], ""),
    ("any", [{"a": [1]}], {"a": 1}, "value_error"),
    # lists
    ("array of float", [[12.0, 15.0]], [12, 15], "type_error"),
    ("array of float", [[12.0, 15.0]], [12.0, 15.0], ""),
    ("array of float", [[12, 15]], [12, 15], ""),
    ("array of float", [[12, 15]], [12.0, 15.0], ""),
    ("array of float", [[1.0], ""], [1], ""),
    ("array of float", ["", [1.0]], [1], ""),
    ("array of integer", [[1, 2]], [1.0, 2], "type_error"),
    ("array of integer", [[1, 2]], [2, 1], "value_error"),
    ("array of integer", [[1, 2]], [1, 2, 2], "value_error"),
    ("array of integer", [[1, 2]], [True, 2], "type_error"),
    ("array of integer", [[1, 2], ["n"]], ["n"], ""),
    ("array of integer", [[1, 2], ["n"]], ["N"], ""),
    ("array of integer", [[1, 2], ["n"]], [1, "n"], "value_error"),
    ("array of string", [["it's", "B c"]], ['IT"S', "b,c"], ""),
    ("array of string", [["a"], ["b"]], ["b"], ""),
    ("array of string", [["a"]], ["A "], ""),
    ("array of string", [["a"]], "a", "type_error"),
    ("array of string", ["a"], "a", ""),
    ("array of string", ["a"], "A", "value_error"),
    ("array of string", ["a"], ["a"], "value_error"),
    ("array of string", [["a"], ""], [], ""),
    ("array of string", [["a"]], [], "value_error"),
    ("array of string", [[]], [], ""),
    ("array of string", [], ["a"], "type_error"),
    ("array of string", [], [], "type_error"),
    ("array of string", [""], ["a"], "value_error"),
    ("array of string", [""], [], ""),
    ("array of string", [["a", 5]], ["a", 5], "type_error"),
    ("array of string", [[5, "a"]], [5, "a"], ""),
    ("array of any", [["a"]], ["A"], ""),
    ("array of any", [[1]], [1], ""),
    ("array of any", [[1, "a"]], [1, "a"], ""),
    ("array of any", [["a", 1]], ["a", 1], "type_error"),
    ("array of array", [[["A b"]]], [["A b"]], ""),
    ("array of array", [[["A b"]]], [["a b"]], "value_error"),
    ("array of array", [[[1.0]]], [[1]], ""),
    ("tuple of integer", [[1, 2]], [1, 2], ""),
    ("tuple of float", [[1.0, 2.0]], [1, 2], "type_error"),
    ("tuple of float", [[1.0, 2.0]], [1.0, 2.0], ""),
    ("array of boolean", [[True]], [1], "type_error"),
    ("array of boolean", [[True]], [True], ""),
    # objects
    ("dict", [{"a": [1], "b": ["x", ""]}], {"a": 1}, ""),
    ("dict", [{"a": [1], "b": ["x", ""]}], {"a": 1, "b": "X"}, ""),
    ("dict", [{"a": [1], "b": ["x"]}], {"a": 1}, "value_error"),
    ("dict", [{"a": [1]}], {"a": 1, "b": 2}, "value_error"),
    ("dict", [{"a": [1]}], {}, "value_error"),
    ("dict", [{"a": ["", 1]}], {}, ""),
    ("dict", [{"a": [1.5, 2]}], {"a": 2.0}, ""),
    ("dict", [{"a": [1]}], {"a": True}, ""),
    ("dict", [{"a": [1]}], {"A": 1}, "value_error"),
    ("dict", [{"a": ["x y"]}], {"a": "X-Y"}, ""),
    ("dict", [{"a": [["X y"]]}], {"a": ["X y"]}, ""),
    ("dict", [{"a": [["X y"]]}], {"a": ["x y"]}, "value_error"),
    ("dict", [{"a": [{"b": [1]}]}], {"a": {"b": 1}}, "value_error"),
    ("dict", [{"a": [{"b": [1]}]}], {"a": {"b": [1]}}, ""),
    ("dict", [{"a": [{"b": 1}]}], {"a": {"b": 1}}, ""),
    ("dict", [{"a": [1]}, {"a": [2]}], {"a": 2}, ""),
    ("dict", [{"a": [1]}, ""], {}, "value_error"),
    ("dict", ["", {"a": [1]}], {"a": 1}, ""),
    ("dict", ["point"], "point", ""),
    ("dict", ["point"], "Point", "value_error"),
    ("dict", [{"a": [1]}], "a", "type_error"),
    ("dict", [{"a": [1]}], [{"a": 1}], "type_error"),
    ("dict", [{"a": ["it's"]}], {"a": 'it"s'}, ""),
    # lists of objects
    ("array of dict", [[{"a": [1]}, {"a": [2]}]], [{"a": 1}, {"a": 2}], ""),
    ("array of dict", [[{"a": [1]}, {"a": [2]}]], [{"a": 2}, {"a": 1}], "value_error"),
    ("array of dict", [[{"a": [1, 2]}]], [{"a": 2}], ""),
    ("array of dict", [[{"a": [1]}, {"a": [2]}]], [{"a": 1}], "value_error"),
    ("array of dict", [[{"a": [1]}], [{"a": [2]}]], [{"a": 2}], ""),
    ("array of dict", [[{"a": [1], "b": [2, ""]}]], [{"a": 1}], ""),
    ("array of dict", [[{"a": [1], "b": [2]}]], [{"a": 1}], "value_error"),
    ("array of dict", [[{"a": [1]}], ""], [], ""),
    ("array of dict", [[{"a": ["X"]}]], [{"a": "x."}], ""),
    ("array of dict", [[{"a": [1]}]], {"a": 1}, "type_error"),
    ("array of dict", [[{"a": [1]}]], ["a"], "type_error"),
]
CALLS = [  # (required, {argument: allowed values}, arguments, verdict): a is an integer, b a string
    (["a"], {"a": [1], "b": ["x", ""]}, {"a": 1}, ""),
    (["a"], {"a": [1], "b": ["x"]}, {"a": 1}, "missing_optional"),
    (["a"], {"a": [1], "b": ["x", ""]}, {"b": "x"}, "missing_required"),
    (["a"], {"a": [1], "b": ["x", ""]}, {"a": 1, "c": 1}, "unexpected_param"),
    (["a"], {"a": [1]}, {"a": 1, "b": "x"}, "unexpected_param"),
    ([], {"a": [1, ""], "b": [""]}, {}, ""),
    (["b"], {"b": ["x", ""]}, {}, "missing_required"),
    (["b"], {"b": ["x", ""]}, {"b": ""}, ""),
    ([], {"a": [1], "c": [2, ""]}, {"a": 1}, ""),
    ([], {"a": [1], "c": [2, ""]}, {"a": 1, "c": 2}, "unexpected_param"),
    ([], {"a": [1], "c": [2]}, {"a": 1}, "missing_optional"),
    (["a", "b"], {"a": [1], "b": ["x"]}, {"a": 2}, "missing_required"),
    (["a"], {"a": [1], "b": ["x"]}, {"A": 1}, "missing_required"),
    ([], {"a": [1], "b": ["x"]}, {"a": 1, "b": 3}, "type_error"),
    ([], {"a": [""], "b": ["x"]}, {"b": "x", "a": 7}, "value_error"),
]

# (the one argument's allowed values in each expected call, its values in the calls made, whether
# that is right): parallel calls.
MESSAGES = [
    ([[1], [2]], [2, 1], True),
    ([[1, 2], [1]], [1, 2], False),
    ([[1, 2], [1]], [2, 1], True),
    ([[1], [1, 2]], [2, 1], True),
    ([[1], [1, 2]], [1, 2], True),
    ([[1], [1]], [1], False),
    ([[1], [1]], [1, 1], True),
    ([[1], [1]], [1, 1, 1], False),
    ([[1], [2]], [1, 1], False),
    ([[1], [2]], [], False),
    ([[1], [2], [3]], [3, 1, 2], True),
    ([[1, 2], [2, 3], [3, 1]], [1, 2, 3], True),
    ([[1, 2], [2, 3], [3, 1]], [2, 1, 3], True),
    ([[1, 2], [2, 3], [1]], [2, 3, 1], True),
    ([[1, 2], [2, 3], [1]], [1, 3, 2], False),
]
