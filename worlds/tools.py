"""Tools: finding a call in text, naming what is wrong with it, plans as graphs, the three kinds of
hard negatives, and slips.

A tool is a JSON-Schema function in Qwen's (OpenAI's) format; a call is {"name": ..., "arguments":
{...}}, written by the model as <tool_call>{"name": ..., "arguments": ...}</tool_call>. `check` is
the one judge of calls: training labels, rewards, the worlds and the hallucination audit all ask it.
Plans are section 4.1 of the paper, hard negatives section 3.1 ("Negative Constraint Sampling").

What differs from plain JSON Schema, because models invent rather than extend (schemas.py has the
rules in full, and the bounds on time and memory):
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
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support import schemas

LONGEST_CALL = schemas.LONGEST  # characters; a model that writes more is looping
DEEPEST = 32  # nesting of arguments; schemas in the wild reach 6
LARGEST = 2**63  # SQLite's and most APIs' integers end here


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a call or a plan.

    `kind` of a call's fault: syntax, unknown_tool, missing, unexpected, type, value, or schema (the
    tool itself is malformed);
    of a plan's: syntax, duplicate, unknown_step, circle, order, unfinished.
    """

    kind: str
    message: str  # one line for the agent: what was found, what was wanted
    where: str = ""  # the argument as a path ("filter.limit"), or the plan's step


def _line(problem: Any) -> str:
    """The first line of a message, short; a strange object's own text may fail too."""
    try:
        text = getattr(problem, "message", None) or str(problem) or type(problem).__name__
        return str(text).splitlines()[0][:120]
    except Exception:
        return type(problem).__name__


# ----------------------------------------------------------------------------------------------------------
# schemas


def tool(
    name: str, description: str, properties: dict[str, dict], required: list[str] | None = None
) -> dict:
    """A tool in Qwen's format from JSON-Schema properties; all of them are required unless
    `required` says otherwise.
    """
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


SCHEMA_KEYS = ("parameters", "inputSchema", "input_schema")  # OpenAI's, MCP's, Anthropic's name
WANTED_TOOL = '{"type": "function", "function": {"name": ..., "parameters": ...}}'
SHORT = {
    "integer": "int",
    "number": "num",
    "string": "str",
    "boolean": "bool",
    "object": "obj",
    "array": "list",
    "null": "null",
}


def compact(tool: dict) -> str:
    """One line for a tool, a third of Qwen's tokens: `description: kemi(rana, mode?) int, a|b`; "?"
    marks an optional argument.

    What a tool is for comes first, since that is what it is looked up by: a small model reads on
    from there to the name, and never back. Names stand
    side by side and their types behind, so that a signature is copied in one stretch.
    """

    def kind(schema: Any) -> str:
        if not isinstance(schema, dict):
            return "any"
        if isinstance(schema.get("enum"), list):
            return "|".join(map(schemas.said, schema["enum"]))
        if isinstance(schema.get("properties"), dict):
            return "{" + fields(schema) + "}"
        if isinstance(schema.get("items"), dict):
            return "[" + kind(schema["items"]) + "]"
        names = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
        return "|".join(SHORT.get(name, "any") for name in names)

    def fields(schema: dict) -> str:
        required = schema.get("required", [])
        return ", ".join(
            f"{key} {kind(inner)}{'' if key in required else '?'}"
            for key, inner in schema.get("properties", {}).items()
        )

    function = tool["function"]
    parameters = function.get("parameters") or {}
    names = [
        f"{key}{'' if key in parameters.get('required', []) else '?'}"
        for key in parameters.get("properties", {})
    ]
    types = [kind(inner) for inner in parameters.get("properties", {}).values()]
    signature = f"{function['name']}({', '.join(names)}) {', '.join(types)}".rstrip()
    return f"{function['description']}: {signature}" if function.get("description") else signature


def openai_tools(found: Any) -> Any:
    """The tools of a file as a list in OpenAI's format; what is none stays, for check_tools to
    name.

    Also read: functions without {"type": "function"} around them, MCP's tools/list ({"tools":
    [{"name", "inputSchema"}]}, with or without {"result": ...} around it) and Anthropic's
    `input_schema`. Absent or null parameters become those of a tool without arguments.
    """
    for key in ("result", "tools"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    if not isinstance(found, list):
        return found
    tools = []
    for entry in found:
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            tools.append(entry)
            continue
        found_schemas = [function[key] for key in SCHEMA_KEYS if function.get(key) is not None]
        described = {key: function[key] or "" for key in ("name", "description") if key in function}
        parameters = next(iter(found_schemas), {"type": "object", "properties": {}})
        tools.append({"type": "function", "function": {**described, "parameters": parameters}})
    return tools


def check_tools(tools: Any) -> list[Fault]:
    """What is wrong with a list of tools, as faults of kind "schema"; empty if nothing is.

    Ends within a second or so: what was not checked by then is a fault.
    """
    if not isinstance(tools, list):
        return [Fault("schema", f"tools must be a list, not {type(tools).__name__}")]
    faults, names, began = [], set(), time.monotonic()
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            faults.append(Fault("schema", f"tool {place} must be {WANTED_TOOL}", str(place)))
        elif name in names:
            faults.append(Fault("schema", f"two tools are called {name[:60]}", name))
        elif time.monotonic() - began > schemas.VERDICT_SECONDS:
            late = f"tools from {name[:60]} on could not be checked within {schemas.VERDICT_SECONDS} s"
            return [*faults, Fault("schema", late, name)]
        else:
            names.add(name)
            faults += _judged(function, None)
    return faults


def _judged(function: dict, arguments: dict | None) -> list[Fault]:
    """What is wrong with a function's schema, or else with arguments; None: only the schema."""
    name = function["name"]
    others = [key for key in SCHEMA_KEYS if key in function]
    if others and "parameters" not in others:
        found = [("schema", f"{others[0]} stands where parameters is wanted", "")]
    else:
        found = schemas.ask(function.get("parameters"), arguments)
    return [
        Fault(kind, f"the schema of {name[:60]} cannot be used: {message}", name)
        if kind == "schema"
        else Fault(kind, message, where)
        for kind, message, where in found
    ]


# ------------------------------------------------------------------------------------------------------------
# calls

# A call in a text. First a frame whose strings are JSON's, so that tags within them are text: group
# 1 is what it frames. "<" and "\" outside of strings, and a string that JSON does not go on behind,
# end the attempt; so at most two attempts are under way at any place, and time is linear. Without
# such a frame, group 2 is what stands before the next tag, and group 3 that tag if it closes.
CALL = re.compile(
    r"<tool_call>(?:"
    r'((?:[^"<\\]++|"(?:[^"\\]++|\\.)*+"(?=\s*[]:,}]))*+)</tool_call>'
    r"|(.*?)(?:(</tool_call>)|(?=<tool_call>|</think>)|\Z))",
    re.DOTALL,
)
THOUGHT = re.compile("(</?think>)")

# Of a message: words (None), or what stands behind an opening tag, and whether it is closed.
Piece = tuple[str, bool | None]


def write(call: dict) -> str:
    """A call as the model writes it (Qwen's format)."""
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(text: str) -> str:
    """The text with surrogate pairs joined and lone halves replaced by U+FFFD."""
    if _encodes(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shape(call: Any) -> Fault | None:
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        found = (
            f"the keys {', '.join(map(str, call))}"
            if isinstance(call, dict)
            else f"a {type(call).__name__}"
        )
        wanted = "a call has the keys name and arguments"
        return Fault("syntax", f"{wanted}, found {_whole(found[:100])}")
    if not isinstance(call["name"], str):
        return Fault("syntax", f"name must be a string, not {type(call['name']).__name__}")
    if not _encodes(call["name"]):
        return Fault("syntax", "the name is not valid Unicode")
    if not isinstance(call["arguments"], dict):
        return Fault(
            "syntax", f"arguments must be an object, not {type(call['arguments']).__name__}"
        )
    return None


def _unsafe(arguments: dict) -> Fault | None:
    """The first value that no tool should be handed; walks without recursion, so depth cannot hurt
    it.
    """
    if all(
        type(key) is str
        and key.isascii()
        and (
            type(value) is str
            and value.isascii()
            or type(value) is int
            and -LARGEST <= value < LARGEST
        )
        for key, value in arguments.items()
    ):
        return None  # the common case, a quarter of the time
    if not schemas.fits(arguments):
        return Fault("syntax", f"the arguments are {schemas.TOO_LARGE}")
    waiting: list[tuple[str, Any, int]] = [("", arguments, 0)]
    while waiting:
        where, value, depth = waiting.pop()
        if isinstance(value, (dict, list)):
            if depth >= DEEPEST:
                return Fault("syntax", f"the arguments are nested deeper than {DEEPEST}")
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            if isinstance(value, dict):
                if bad := next(
                    (key for key in value if not isinstance(key, str) or not _encodes(key)), None
                ):
                    return Fault("syntax", f"the key {bad!r:.60} is no text")
            waiting += [(f"{where}.{key}" if where else str(key), v, depth + 1) for key, v in inner]
        elif isinstance(value, float) and not math.isfinite(value):
            return Fault("value", f"{where[:60]}: {value} is no JSON number", where)
        elif type(value) is int and not -LARGEST <= value < LARGEST:
            return Fault("value", f"{where[:60]}: the integer does not fit in 64 bits", where)
        elif isinstance(value, str) and not _encodes(value):
            return Fault("syntax", f"{where[:60]}: the text is not valid Unicode", where)
        elif not isinstance(value, (str, int, float, bool, type(None))):
            return Fault("syntax", f"{where[:60]}: {type(value).__name__} is no JSON value", where)
    return None


def _json(text: str) -> Any:
    """A JSON text's value: no key twice, no NaN. Raises ValueError whose text follows "is"."""

    def pairs(items: list[tuple[str, Any]]) -> dict:
        if len(found := dict(items)) < len(items):
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
        raise ValueError(f"not JSON: {_line(problem)}") from None


def decode(call: Any) -> dict | Fault:
    """The call in a JSON text (or a dict, taken as it is), or the fault that keeps it from being
    one.
    """
    if isinstance(call, bytes):
        call = call.decode("utf-8", "replace")
    if isinstance(call, str):
        try:
            call = _json(call.strip().removeprefix("<tool_call>").removesuffix("</tool_call>"))
        except ValueError as problem:
            return Fault("syntax", f"the call is {problem}")
    return _shape(call) or _unsafe(call["arguments"]) or call


def pieces(text: str) -> list[Piece]:
    """A message's text cut into words and calls; Tokenizer.pieces does it by the markers' IDs."""
    found, end = [], 0
    for match in CALL.finditer(text):
        framed = match[1] is not None
        call = (match[1], True) if framed else (match[2], match[3] is not None)
        found += [(text[end : match.start()], None), call]
        end = match.end()
    return [*found, (text[end:], None)]


def read(message: str | list[Piece]) -> tuple[str, list[tuple[str, dict | Fault]]]:
    """A message's words, up to its first call, and its calls in order: (as written, call or fault).

    What stands in <think>…</think>, or in a <think> that nothing closes, is neither; nor is what
    stands before a </think> that nothing opens, since templates put the <think> into the prompt.
    """
    words, calls, thinking = "", [], False
    for text, closed in pieces(message) if isinstance(message, str) else message:
        if closed is not None:
            body, tag, rest = (text, "", "") if closed else text.partition("</think>")
            if not thinking:
                open_ = Fault("syntax", "the call is not closed by </tool_call>")
                calls.append((body, decode(body) if closed else open_))
            text = tag + rest
        for part in THOUGHT.split(text):
            if part == "<think>":
                thinking = True
            elif part == "</think>":
                if not thinking:
                    words, calls = "", []
                thinking = False
            elif not thinking and not calls:
                words += part
    return words, calls


def parse(text: str | bytes) -> tuple[list[dict], list[Fault]]:
    """A model's calls in order, and a syntax fault for each that is none. Never raises."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return sorted_out([call for _, call in read(text)[1]])


def sorted_out(found: list[dict | Fault]) -> tuple[list[dict], list[Fault]]:
    """Calls, and faults."""
    return (
        [call for call in found if not isinstance(call, Fault)],
        [call for call in found if isinstance(call, Fault)],
    )


def given_call(function: Any) -> dict | Fault:
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
    nothing = arguments is None or isinstance(arguments, str) and not arguments.strip()
    return decode({"name": function.get("name"), "arguments": {} if nothing else arguments})


def given_text(content: Any) -> str:
    """The text of a message's OpenAI-style content: a text, a list of parts, or nothing.

    Thoughts among the parts are left out; half a surrogate pair becomes U+FFFD. Raises ValueError
    for anything else.
    """
    texts = []
    for part in content if isinstance(content, list) else ["" if content is None else content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("thinking", "reasoning"):
            continue
        text = part.get("text") if kind in ("text", "input_text", "output_text") else part
        if not isinstance(text, str):
            found = f"a part of type {kind!r}" if kind else f"a {type(text).__name__}"
            raise ValueError(f"content holds {found}; wanted text, or a list of parts of type text")
        texts.append(_whole(text))
    return "".join(texts)


def _broken(tools: Any) -> bool:
    """Whether a list of tools cannot even be searched by name."""
    return not isinstance(tools, list) or not all(
        isinstance(t, dict)
        and isinstance(t.get("function"), dict)
        and isinstance(t["function"].get("name"), str)
        for t in tools
    )


KINDS = (
    "syntax",
    "schema",
    "unknown_tool",
    "unexpected",
    "missing",
    "type",
    "value",
)  # in the order in which they are told


def check(call: Any, tools: list[dict]) -> list[Fault]:
    """What is wrong with a call (a dict, or its raw JSON text, bare or between the tags); empty if
    it is right. Never raises.
    """
    call = decode(call)
    return [call] if isinstance(call, Fault) else faults_of(call, tools)


def faults_of(call: dict, tools: list[dict]) -> list[Fault]:
    """The same for a call that `decode` has let through."""
    if _broken(tools):
        return check_tools(tools)
    function = next((t["function"] for t in tools if t["function"]["name"] == call["name"]), None)
    if function is None:
        names = ", ".join(tool["function"]["name"] for tool in tools)[:1000]
        message = f"no tool {call['name'][:60]}; there are {names}"
        return [Fault("unknown_tool", message, call["name"])]
    faults = _judged(function, call["arguments"])
    return sorted(faults, key=lambda fault: (KINDS.index(fault.kind), fault.where))


# ------------------------------------------------------------------------------------------------------------
# plans

LINE = re.compile(r"\s*(\d{1,6})[.:)]?\s+(.*?)\s*(?:\(after ([\d, ]+)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class Plan:
    """Numbered steps, each with the steps it depends on:

    {number: (goal, numbers)}. Written one a line: `2. goal (after 1)`.
    """

    steps: dict[int, tuple[str, tuple[int, ...]]]

    def write(self) -> str:
        """The plan as the model writes it."""
        return "\n".join(
            f"{number}. {goal}" + (f" (after {', '.join(map(str, after))})" if after else "")
            for number, (goal, after) in self.steps.items()
        )

    def check(self) -> list[Fault]:
        """Steps that are named but missing, and the edge that closes a circle; empty if the plan is
        a directed acyclic graph.
        """
        faults = [
            Fault(
                "unknown_step",
                f"step {number} comes after step {other}, which is not in the plan",
                str(number),
            )
            for number, (_, after) in self.steps.items()
            for other in after
            if other not in self.steps
        ]
        path: dict[int, None] = {}  # the steps being visited, each needed by the one before it
        done: set[int] = set()
        for start in self.steps:
            waiting = [
                (start, "enter")
            ]  # a stack of our own: a plan of 100 000 steps must not exhaust Python's
            while waiting:
                number, act = waiting.pop()
                if act == "leave":
                    del path[number]
                    done.add(number)
                elif number not in done:
                    path[number] = None
                    waiting.append((number, "leave"))
                    for other in self.steps[number][1]:
                        if other in path:
                            order = list(path)
                            circle = " → ".join(map(str, [*order[order.index(other) :], other]))
                            return [
                                *faults,
                                Fault(
                                    "circle",
                                    f'"{number} after {other}" closes the circle {circle}',
                                    str(number),
                                ),
                            ]
                        if other in self.steps and other not in done:
                            waiting.append((other, "enter"))
        return faults

    def respected(self, order: list[int]) -> list[Fault]:
        """Where an execution (step numbers in the order they were done) breaks the plan; empty if
        it followed it to the end.
        """
        faults, done = [], set()
        for number in order:
            if number not in self.steps:
                faults.append(
                    Fault("unknown_step", f"step {number} is not in the plan", str(number))
                )
                continue
            if early := [other for other in self.steps[number][1] if other not in done]:
                faults.append(
                    Fault(
                        "order",
                        f"step {number} was done before step {early[0]}, which it needs",
                        str(number),
                    )
                )
            done.add(number)
        return faults + [
            Fault("unfinished", f"step {number} was never done", str(number))
            for number in self.steps
            if number not in done
        ]


def read_plan(text: str) -> tuple[Plan, list[Fault]]:
    """The plan in a text (lines that do not begin with a number are passed over) with all that is
    wrong with it. Never raises.
    """
    steps: dict[int, tuple[str, tuple[int, ...]]] = {}
    faults = []
    for line in text.splitlines():
        if not (match := LINE.fullmatch(line)):
            continue
        number = int(match[1])
        if number in steps:
            faults.append(
                Fault("duplicate", f"step {number} stands twice in the plan", str(number))
            )
            continue
        steps[number] = match[2], tuple(int(n) for n in re.findall(r"\d{1,6}", match[3] or ""))
    if not steps:
        faults.append(Fault("syntax", "no plan: no line begins with a step's number"))
    plan = Plan(steps)
    return plan, faults + plan.check()


# ---------------------------------------------------------------------------------------------------
# hard negatives

INVENTED = (
    "limit",
    "format",
    "verbose",
    "id",
    "mode",
    "user",
    "timeout",
    "strict",
)  # keys that models like to make up


def hard_negatives(
    call: dict, tools: list[dict], rng: random.Random, task: Any = None
) -> dict[str, dict]:
    """Three wrong versions of a correct call (paper section 3.1): {"type": ..., "key": ...,
    "logic": ...}.

    "type" gives an argument a value of another type, "key" adds an argument that the schema does
    not have, "logic" obeys the schema and makes no sense here (the world's own traps first, then
    swapped or shifted values). With `task` (a worlds.Task whose solution holds the call) each is
    executed and kept only if it goes wrong there; without, "type" and "key" are wrong by `check`. A
    kind is absent where the call has none: no argument to spoil, or no spoilt version that fails.
    """
    function = next(t["function"] for t in tools if t["function"]["name"] == call["name"])
    properties = function.get("parameters", {}).get("properties", {})
    allows = (
        task.allows if task is not None else lambda name: True
    )  # a made-up name must not be one that is held out
    candidates = {
        "type": _wrong_types(call["arguments"], rng),
        "key": _wrong_keys(call["arguments"], properties, rng, allows),
        "logic": _wrong_values(call["arguments"], properties, rng),
    }
    negatives = {}
    for kind, fault in (("type", "type"), ("key", "unexpected"), ("logic", None)):
        wrong_calls = [
            {"name": call["name"], "arguments": arguments} for arguments in candidates[kind]
        ]
        if kind == "logic" and task is not None:
            wrong_calls = [*rng.sample(traps := task.wrong_calls(call), len(traps)), *wrong_calls]
        for wrong in wrong_calls:
            kinds = {found.kind for found in check(wrong, tools)}
            if (
                kinds == ({fault} if fault else set())
                and wrong != call
                and (task is None or task.fails(call, wrong))
            ):
                negatives[kind] = wrong
                break
    return negatives


def slip(
    content: str, call: dict, tools: list[dict], rng: random.Random, name: Callable[[set[str]], str]
) -> tuple[str, dict] | None:
    """The same words and call as if the schemas had been misread; None where the check would accept
    the call.

    The tool or an argument goes by another name in words and call alike, an argument is missing,
    one is too many, or one is of another type. `name` draws a name that is not in a set.
    """
    schemas = {
        t["function"]["name"]: t["function"].get("parameters", {}).get("properties", {})
        for t in tools
    }
    arguments, own = call["arguments"], schemas[call["name"]]
    foreign = sorted({key for properties in schemas.values() for key in properties} - {*own})
    made_up = name({*schemas, *own, *foreign})
    kind = rng.choices(("tool", "argument", "missing", "more", "type"), (3, 3, 1, 1, 1))[0]
    key = rng.choice(list(arguments) or [""])
    old = new = None
    if kind == "tool":
        old, new = call["name"], made_up
        wrong = {**call, "name": new}
    elif not arguments:
        return None
    elif kind == "argument":
        old, new = key, rng.choice(foreign) if foreign and rng.random() < 0.5 else made_up
        wrong = {
            **call,
            "arguments": {new if k == key else k: value for k, value in arguments.items()},
        }
    elif kind == "missing":
        wrong = {**call, "arguments": {k: value for k, value in arguments.items() if k != key}}
    elif kind == "more":
        wrong = {**call, "arguments": {**arguments, made_up: arguments[key]}}
    else:
        wrong = {**call, "arguments": _wrong_types(arguments, rng)[0]}
    return (
        (re.sub(rf"\b{re.escape(old)}\b", new, content) if old else content, wrong)
        if check(wrong, tools)
        else None
    )


def _wrong_types(arguments: dict, rng: random.Random) -> list[dict]:
    """The arguments with one value of another type each, numbers as strings first (the paper's own
    example).
    """

    def other(value: Any) -> Any:
        if type(value) in (int, float, bool):
            return str(value).lower()
        return rng.randrange(10, 100) if isinstance(value, str) else str(value)

    keys = rng.sample(list(arguments), len(arguments))
    keys.sort(key=lambda key: isinstance(arguments[key], str))
    return [{**arguments, key: other(arguments[key])} for key in keys]


def _wrong_keys(
    arguments: dict, properties: dict, rng: random.Random, allows: Callable[[str], bool]
) -> list[dict]:
    """The arguments with one more each: a misspelt twin of a real one, or one of the keys that
    models like to make up.
    """
    invented = rng.sample(INVENTED, len(INVENTED))
    if properties:
        key = rng.choice(list(properties))
        twins = [key[:-1] + letter for letter in rng.sample("aeiou", 5)]
        place = rng.randrange(2)
        invented[place:place] = [twin for twin in twins if twin != key and allows(twin)][:1]
    value = rng.choice(list(arguments.values())) if arguments else rng.randrange(10, 100)
    return [{**arguments, key: value} for key in invented if key and key not in properties]


def _wrong_values(arguments: dict, properties: dict, rng: random.Random) -> list[dict]:
    """The arguments with values of the right types that are not the right ones: swapped, off by
    one, another choice, a past date.
    """

    def other(key: str, value: Any) -> Any:
        choices = [choice for choice in properties.get(key, {}).get("enum", []) if choice != value]
        if choices:
            return rng.choice(choices)
        if isinstance(value, bool):
            return not value
        if isinstance(value, (int, float)):
            return value + rng.choice((-1, 1))
        if isinstance(value, str):
            year = re.search(r"\b(1[89]|20)\d\d\b", value)
            return (
                value.replace(year[0], str(int(year[0]) - 100))
                if year
                else " ".join([*value.split()[:-1], "xx" + value[-1:]])
            )
        if isinstance(value, list):
            return [other("", value[0]), *value[1:]] if value else [0]
        if isinstance(value, dict):
            return {k: other("", v) for k, v in value.items()}
        return value

    keys = rng.sample(list(arguments), len(arguments))
    swapped = [
        {**arguments, a: arguments[b], b: arguments[a]}
        for a in keys
        for b in keys
        if a < b and type(arguments[a]) is type(arguments[b]) and arguments[a] != arguments[b]
    ]
    changed = [{**arguments, key: other(key, arguments[key])} for key in keys]
    return [*swapped[:1], *changed, *swapped[1:]] if rng.random() < 0.5 else [*changed, *swapped]
