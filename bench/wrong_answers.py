"""Plausible wrong answers to published questions: what scorers must refuse (bench/scorers.py), and
the wrong options of bench/harness.py.

    wrong_numbers("18", "25")      {"off by one": "19", "sign": "-18", "digits swapped": "81", ...}

Each kind is left out where it would give the right answer again.
"""

import random
import re
from typing import Any

DIGITS = re.compile(r"\d+")
LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![\w.`])\d+(?![\w.`])")  # of an SQL statement
UNSIGNED = re.compile(r"-?(?:\d|\\[dt]?frac|\\sqrt)[^,=\s]*")  # a formula of one value


def next_integer(text: str) -> str:
    """A text with its last run of digits raised by one; "" where it has none."""
    runs = list(DIGITS.finditer(text))
    if not runs:
        return ""
    last = runs[-1]
    return text[: last.start()] + str(int(last[0]) + 1) + text[last.end() :]


def swapped_digits(text: str) -> str:
    """A text whose last two neighbouring digits that differ have changed places; "" without any.

    A zero does not come first, since a number may not begin so.
    """
    for place in range(len(text) - 2, -1, -1):
        left, right = text[place], text[place + 1]
        first = place == 0 or not text[place - 1].isdigit()
        if (
            left.isdecimal()
            and right.isdecimal()
            and left != right
            and not (first and right == "0")
        ):
            return text[:place] + right + left + text[place + 2 :]
    return ""


def other_sign(text: str) -> str:
    """A number or a formula of one value with the other sign; "" for 0 and for anything else."""
    if not UNSIGNED.fullmatch(text) or text.strip("-0.") == "":
        return ""
    return text[1:] if text.startswith("-") else "-" + text


def wrong_numbers(gold: str, other: str) -> dict[str, str]:
    """Wrong answers by kind to a question whose answer is the number or formula `gold`, where
    `other` answers another question.
    """
    # a decimal's whole part
    whole, dot, fraction = gold.partition(".")
    raised = next_integer(whole) + dot + fraction if whole.lstrip("-").isdigit() else ""
    if re.fullmatch(r"-?[\d,]+(?:\.\d+)?", gold):
        raised = str(int(whole.replace(",", "")) + 1) + dot + fraction
    found = {
        "off by one": raised or next_integer(gold),
        "sign": other_sign(gold),
        "digits swapped": swapped_digits(gold),
        "another question's": other,
    }
    return {kind: answer for kind, answer in found.items() if answer and answer != gold}


def wrong_solution(solution: str) -> str:
    """A worked solution of GSM8K with every result (what stands behind an = in <<...>>, where it is
    repeated, and the final number) one greater: the same words, other numbers.
    """
    results = sorted(set(re.findall(r"=(\d+)>>", solution)) | set(solution.split()[-1:]))
    marked = {result for result in results if result.isdigit()}
    return DIGITS.sub(lambda m: str(int(m[0]) + 1) if m[0] in marked else m[0], solution)


def wrong_calls(calls: list[dict], functions: dict[str, dict], strings: list[str]) -> dict:
    """Wrong messages by kind to a BFCL case whose answer is `calls`: each a list of calls, all but
    the last of which are right where the kind is about one call. `functions` are those of the case,
    `strings` values of other cases.
    """
    *before, call = calls
    name, arguments = call["name"], call["arguments"]
    required = functions[name]["parameters"]["required"]
    draw = random.Random(repr(call))
    found: dict[str, list[dict]] = {
        "call missing": before,
        "call made twice": [*calls, call],
        "an argument more": [*before, {"name": name, "arguments": {**arguments, "verbose": True}}],
    }
    others = [other for other in functions if other != name]
    found["another tool"] = [*before, {"name": [*others, f"{name}_v2"][0], "arguments": arguments}]

    def changed(argument: str, value: Any) -> list[dict]:
        return [*before, {"name": name, "arguments": {**arguments, argument: value}}]

    for argument, value in arguments.items():
        if type(value) in (int, float):
            found.setdefault("a number off by one", changed(argument, value + 1))
            found.setdefault("a number as text", changed(argument, str(value)))
        elif isinstance(value, str):
            other = draw.choice([text for text in strings if text.lower() != value.lower()])
            found.setdefault("another case's text", changed(argument, other))
        elif isinstance(value, list) and len(value) > 1:
            found.setdefault("an item less", changed(argument, value[1:]))
    for argument in required:
        if argument in arguments:
            rest = {key: value for key, value in arguments.items() if key != argument}
            found["argument missing"] = [*before, {"name": name, "arguments": rest}]
    return found


def changed_literal(statement: str, place: int) -> str:
    """An SQL statement with its first (0) or last (−1) literal changed: a number raised by one, a
    text made longer by an x; "" without literals.
    """
    literals = list(LITERAL.finditer(statement))
    if not literals:
        return ""
    found = literals[place]
    inside = found[0].strip("'\"")
    new = str(int(inside) + 1) if inside.isdecimal() else inside + "x"
    quote = found[0][0] if found[0][0] in "'\"" else ""
    return statement[: found.start()] + quote + new + quote + statement[found.end() :]
