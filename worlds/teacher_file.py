"""Trajectories of worlds/extras/teacher.py as stage distill reads them, each line checked once.

Lines that are broken, unverified, held out, of other worlds, or that cannot be rendered as they
were meant are counted by reason and left out.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from config import Distill, UserError
from support import settings
from support.tokenizer import chat_text
from worlds.english import other_splits_words
from worlds.splits import strangers
from worlds.tasks import world_names
from worlds.calls import call_from_openai, read_calls, text_from_openai
from worlds.tools import compact_tool


def read_teacher_file(c: Distill, say: Callable[[str], None], style: str = "compact") -> list[dict]:
    """The verified trajectories in the file distill.file, their tools as `style` shows them.

    Raises UserError where there is no file, or none of its lines is left.
    """
    path = Path(settings.absolute(c.file))
    if not path.exists():
        raise UserError(
            f"no file {path}; write one with python -m worlds.extras.teacher --out {c.file}, "
            "or leave distill.file empty"
        )
    rows = []
    refused = defaultdict(list)  # reason → numbers of the lines that have it
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            check_parts(row)
            reason = why_unfit(row, c, style) or why_unrenderable(row)
            if not reason:
                read_calls_of(row["messages"])
            if not reason and style == "compact":
                tools = row["tools"]
                row["tools"] = [t if isinstance(t, str) else compact_tool(t) for t in tools]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            reason = "broken"
        if reason:
            refused[reason].append(number)
        else:
            rows.append(row)
    if refused:
        count = sum(map(len, refused.values()))
        reasons = ", ".join(
            f"{len(lines)} {reason} (first line {lines[0]})" for reason, lines in refused.items()
        )
        say(f"        {count} of {count + len(rows)} lines of {path.name} are left out: {reasons}")
    if not rows:
        raise UserError(
            f"{path} holds no verified trajectory of the worlds {c.worlds} for training; "
            f"write some with python -m worlds.extras.teacher --out {c.file}"
        )
    return rows


def check_parts(row: dict) -> None:
    """Raise KeyError or TypeError where a part is missing that is read later."""
    missing = {"seed", "index"} - row.keys()
    for negative in row["negatives"]:
        missing |= {"kind", "fault", "wrong", "right"} - negative.keys()
    if missing:
        raise KeyError(*missing)


def read_calls_of(messages: list[dict]) -> None:
    """Calls in any of OpenAI's forms (worlds.calls.call_from_openai) become {name, arguments} with
    arguments as objects. The conversation can be rendered: why_unrenderable has said so.
    """
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["function"] = call_from_openai(call.get("function", call))


def why_unfit(row: dict, c: Distill, style: str) -> str:
    """Why a trajectory is not to be learnt from; "" if it is."""
    if not row["messages"] or row["tools"] is None:
        return "without messages or tools"
    if row["world"] not in world_names(c.worlds):
        return "of other worlds"
    if not row["verified"]:
        return "not verified"
    if row.get("difficulty", {}).get("split", "train") != "train":
        return "of a held-out split"
    if {*(row.get("fault") or "").split(", ")} - {"", *c.fault_kinds.split(",")}:
        return f"with the fault {row['fault']}, which distill.fault_kinds does not have"
    english = row.get("difficulty", {}).get("names") == "english"
    foreign = other_splits_words if english else strangers
    if foreign(json.dumps(row["negatives"]), "train"):  # as older versions drew them
        return "with held-out names in its negatives"
    if style == "qwen" and any(isinstance(tool, str) for tool in row["tools"]):
        return (
            "with tools as compact lines, where the model reads schemas "
            "(teacher.py --difficulty.style qwen)"
        )
    return ""


def why_unrenderable(row: dict) -> str:
    """Why a conversation cannot be rendered as it was meant; "" if it can."""
    try:
        chat_text(row["messages"], row["tools"])
    except UserError as problem:
        return str(problem)
    for number, message in enumerate(row["messages"]):
        text = text_from_openai(message.get("content"))
        if message["role"] == "assistant" and any(read_calls(text)):
            # its letters would be taught, not the markers
            return f"message {number} has a call in its content"
    return ""
