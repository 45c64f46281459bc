"""Calls of tools: written, found in a model's text, and checked.

A call is {"name": ..., "arguments": {...}}, written by the model as
<tool_call>{"name": ..., "arguments": ...}</tool_call>. `check_call` is the one judge of calls:
training labels, rewards, the worlds and the hallucination audit all ask it.

What differs from plain JSON Schema, because models invent rather than extend (support/schemas.py
has the rules in full, and the bounds on time and memory):
- A key that no schema lists is wrong, wherever it stands, unless the schema says otherwise. A tool
  without parameters takes no arguments.
- 1.0 is no integer, true is no number; an integer serves for a number. (The rule of the Berkeley
  function-calling leaderboard.)
- Text that JSON tolerates and programs choke on is a fault: duplicate keys, NaN, integers beyond 64
  bits, lone surrogates, 10 MB of "[".
- Tags inside a call's strings are text, and a call that is only drafted in a thought is none.
"""

import json
import math
import re
from collections import Counter
from typing import Any

from support import schemas
from worlds.tools import Fault, check_tools, function_faults

LONGEST_CALL = schemas.LONGEST  # characters; a model that writes more is looping
DEEPEST = 32  # nesting of arguments; schemas in the wild reach 6
LONGEST_PATH = 200  # characters of the way to a value that a fault is about
LARGEST_INTEGER = 2**63  # SQLite's and most APIs' integers end here


def write_call(call: dict) -> str:
    """A call as the model writes it (Qwen's format)."""
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def value_text(value: Any) -> str:
    """A value in a sentence: JSON, but text without quotation marks."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------------------- from JSON text


def decode_call(call: Any) -> dict | Fault:
    """The call in a JSON text (or a dict, as it is), or the fault that keeps it from being one."""
    if isinstance(call, bytes):
        call = call.decode("utf-8", "replace")
    if isinstance(call, str):
        try:
            call = _json(call.strip().removeprefix("<tool_call>").removesuffix("</tool_call>"))
        except ValueError as problem:
            return Fault("syntax", f"the call is {problem}")
    return _wrong_shape(call) or _unsafe(call["arguments"]) or call


def _json(text: str) -> Any:
    """A JSON text's value: no key twice, no NaN. Raises ValueError whose text follows "is"."""

    def pairs(items: list[tuple[str, Any]]) -> dict:
        found = dict(items)
        if len(found) < len(items):
            ((key, _),) = Counter(key for key, _ in items).most_common(1)
            raise ValueError(f"the key {_whole(key[:60])} stands twice")
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON number")

    if len(text) > LONGEST_CALL:
        raise ValueError(f"{len(text)} characters long; at most {LONGEST_CALL} are read")
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST}") from None
    except ValueError as problem:
        raise ValueError(f"not JSON: {str(problem).splitlines()[0][:120]}") from None


def _encodes(text: str) -> bool:
    """Whether a text is free of lone surrogates."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced by U+FFFD."""
    if _encodes(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _wrong_shape(call: Any) -> Fault | None:
    """What keeps a JSON value from being a call at all."""
    wanted = "a call has the keys name and arguments"
    if not isinstance(call, dict):
        return Fault("syntax", f"{wanted}, found a {_whole(type(call).__name__[:98])}")
    if call.keys() != {"name", "arguments"}:
        found = f"the keys {', '.join(map(str, call))}"
        return Fault("syntax", f"{wanted}, found {_whole(found[:100])}")
    name = call["name"]
    arguments = call["arguments"]
    if not isinstance(name, str):
        return Fault("syntax", f"name must be a string, not {type(name).__name__}")
    if not _encodes(name):
        return Fault("syntax", "the name is not valid Unicode")
    if not isinstance(arguments, dict):
        return Fault("syntax", f"arguments must be an object, not {type(arguments).__name__}")
    return None


def _unsafe(arguments: dict) -> Fault | None:
    """The first value that no tool should be handed."""
    if all(_harmless(key, value) for key, value in arguments.items()):
        return None  # the common case, in a quarter of the time
    if not schemas.fits(arguments):
        return Fault("syntax", f"the arguments are {schemas.TOO_LARGE}")
    # a stack of our own instead of recursion, so that depth cannot hurt
    waiting: list[tuple[str, Any, int]] = [("", arguments, 0)]
    while waiting:
        where, value, depth = waiting.pop()
        if isinstance(value, (dict, list)):
            if depth >= DEEPEST:
                return Fault("syntax", f"the arguments are nested deeper than {DEEPEST}")
            if isinstance(value, dict):
                for key in value:
                    if not isinstance(key, str) or not _encodes(key):
                        return Fault("syntax", f"the key {key!r:.60} is no text")
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            before = f"{where}." if where else ""
            # cut, since each element keeps its path
            waiting += [(f"{before}{key}"[:LONGEST_PATH], v, depth + 1) for key, v in inner]
        elif isinstance(value, float) and not math.isfinite(value):
            return Fault("value", f"{where[:60]}: {value} is no JSON number", where)
        elif type(value) is int and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
            return Fault("value", f"{where[:60]}: the integer does not fit in 64 bits", where)
        elif isinstance(value, str) and not _encodes(value):
            return Fault("syntax", f"{where[:60]}: the text is not valid Unicode", where)
        elif not isinstance(value, (str, int, float, bool, type(None))):
            return Fault("syntax", f"{where[:60]}: {type(value).__name__} is no JSON value", where)
    return None


def _harmless(key: Any, value: Any) -> bool:
    """Whether an argument is ASCII text or an integer of 64 bits, under a name in ASCII."""
    if type(key) is not str or not key.isascii():
        return False
    if type(value) is str:
        return value.isascii() and len(value) <= LONGEST_CALL
    return type(value) is int and -LARGEST_INTEGER <= value < LARGEST_INTEGER


# ----------------------------------------------------------------------------- from a model's text

# A call in a text. First a frame whose strings are JSON's, so that tags within them are text: group
# 1 is what it frames. "<" and "\" outside of strings, and a string that JSON does not go on behind,
# end the attempt; so at most two attempts are under way at any place, and time is linear. Without
# such a frame, group 2 is what stands before the next tag, and group 3 that tag if it closes.
CALL_PATTERN = re.compile(
    r"<tool_call>(?:"
    r'((?:[^"<\\]++|"(?:[^"\\]++|\\.)*+"(?=\s*[]:,}]))*+)</tool_call>'
    r"|(.*?)(?:(</tool_call>)|(?=<tool_call>|</think>)|\Z))",
    re.DOTALL,
)
THOUGHT = re.compile("(</?think>)")

# Of a message: words (None), or what stands behind an opening tag, and whether it is closed.
Piece = tuple[str, bool | None]


def split_message(text: str) -> list[Piece]:
    """A message's text cut into words and calls; Tokenizer.pieces does it by the markers' IDs."""
    pieces: list[Piece] = []
    end = 0
    for match in CALL_PATTERN.finditer(text):
        pieces.append((text[end : match.start()], None))
        if match[1] is not None:
            pieces.append((match[1], True))
        else:
            pieces.append((match[2], match[3] is not None))
        end = match.end()
    pieces.append((text[end:], None))
    return pieces


def read_message(message: str | list[Piece]) -> tuple[str, list[tuple[str, dict | Fault]]]:
    """A message's words, up to its first call, and its calls in order: (as written, call or fault).

    What stands in <think>…</think>, or in a <think> that nothing closes, is neither; nor is what
    stands before a </think> that nothing opens, since templates put the <think> into the prompt.
    """
    words = ""
    calls: list[tuple[str, dict | Fault]] = []
    thinking = False
    for text, closed in split_message(message) if isinstance(message, str) else message:
        if closed is not None:  # a call; one that is not closed may run into the end of a thought
            body, tag, rest = (text, "", "") if closed else text.partition("</think>")
            if not thinking and closed:
                calls.append((body, decode_call(body)))
            elif not thinking:
                fault = Fault("syntax", "the call is not closed by </tool_call>")
                calls.append((body, fault))
            text = tag + rest
        for part in THOUGHT.split(text):
            if part == "<think>":
                thinking = True
            elif part == "</think>":
                if not thinking:
                    words = ""
                    calls = []
                thinking = False
            elif not thinking and not calls:
                words += part
    return words, calls


def read_calls(text: str | bytes) -> tuple[list[dict], list[Fault]]:
    """A model's calls in order, and a syntax fault for each that is none. Never raises."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    _, found = read_message(text)
    return calls_and_faults([call for _, call in found])


def calls_and_faults(found: list[dict | Fault]) -> tuple[list[dict], list[Fault]]:
    """What was read, sorted into calls and faults."""
    calls = [call for call in found if not isinstance(call, Fault)]
    faults = [fault for fault in found if isinstance(fault, Fault)]
    return calls, faults


# ------------------------------------------------------------------------- from OpenAI's messages


def call_from_openai(function: Any) -> dict | Fault:
    """The call in a message's OpenAI-style field, or its fault.

    Arguments may be an object, its JSON text, that text encoded once more, or nothing.
    """
    if not isinstance(function, dict):
        found = type(function).__name__
        return Fault("syntax", f"a call has the keys name and arguments, found a {found}")
    arguments = function.get("arguments")
    try:
        for _ in range(2):
            if isinstance(arguments, str) and arguments.strip():
                arguments = _json(arguments)
    except ValueError as problem:
        return Fault("syntax", f"the arguments are {problem}")
    if arguments is None or isinstance(arguments, str) and not arguments.strip():
        arguments = {}
    return decode_call({"name": function.get("name"), "arguments": arguments})


def text_from_openai(content: Any) -> str:
    """The text of a message's OpenAI-style content: a text, a list of parts, or nothing.

    Thoughts among the parts are left out; half a surrogate pair becomes U+FFFD. Raises ValueError
    for anything else.
    """
    if content is None:
        return ""
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("thinking", "reasoning"):
            continue
        text = part.get("text") if kind in ("text", "input_text", "output_text") else part
        if not isinstance(text, str):
            found = f"a part of type {kind!r}" if kind else f"a {type(text).__name__}"
            raise ValueError(f"content holds {found}; wanted text, or a list of parts of type text")
        texts.append(_whole(text))
    return "".join(texts)


# -------------------------------------------------------------------------------- against a schema

CALL_FAULTS = (  # in the order in which they are reported
    "syntax",
    "schema",
    "unknown_tool",
    "unexpected",
    "missing",
    "type",
    "value",
)


def check_call(call: Any, tools: list[dict]) -> list[Fault]:
    """What is wrong with a call (a dict, or its raw JSON text, bare or between the tags); empty if
    it is right. Never raises.
    """
    call = decode_call(call)
    return [call] if isinstance(call, Fault) else call_faults(call, tools)


def call_faults(call: dict, tools: list[dict]) -> list[Fault]:
    """The same for a call that `decode_call` has let through."""
    if not _searchable(tools):
        return check_tools(tools)
    for tool in tools:
        if tool["function"]["name"] == call["name"]:
            faults = function_faults(tool["function"], call["arguments"])
            return sorted(faults, key=lambda fault: (CALL_FAULTS.index(fault.kind), fault.where))
    names = ", ".join(tool["function"]["name"] for tool in tools)[:1000] or "none"
    wanted = " ".join(call["name"][:60].split())  # a fault is one line
    message = f"no tool {wanted}; there are {names}"
    return [Fault("unknown_tool", message, call["name"])]


def _searchable(tools: Any) -> bool:
    """Whether every tool of a list has a name."""
    return isinstance(tools, list) and all(
        isinstance(tool, dict)
        and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
        for tool in tools
    )
