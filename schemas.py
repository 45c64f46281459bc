"""JSON Schema: what a tool's parameters allow, judged in a process of its own.

`ask` is the whole interface: a schema and arguments as JSON text go in, faults come out. The verdicts are those of jsonschema-rs (a Rust
library); what is ours is the rule for keys that nobody lists, the older drafts' spellings, and the bounds.

- **Why a process.** Schemas and arguments come from strangers, and ten lines of schema can keep any library busy for a year: references that
  double, alternatives of alternatives, a pattern that backtracks. No library can be stopped from inside. The kernel can: it kills the process
  SECONDS after a question (an interval timer) and refuses it more than MEMORY bytes (a resource limit), whatever it is doing. The process
  starts with the first question and costs 0.1 s then; a question costs about 40 µs.
- **Invented keys.** Where a schema lists properties, through $ref, allOf, anyOf, oneOf, if/then/else and dependentSchemas too, and nothing
  says otherwise, a key that it does not list is wrong. Saying otherwise is `additionalProperties` or `unevaluatedProperties`; an object
  that lists nothing is free-form, alone or as one of several alternatives, except at the top: a tool without parameters takes no arguments.
  `Document.close` writes this into the schema as `unevaluatedProperties: false`. What passes obeys the schema as it was written as well.
- **Numbers.** 1.0 is no integer (the Berkeley leaderboard's rule), true is no number; 1 and 1.0 are equal. `multipleOf` is decimal.
- **Dialects.** Drafts 4, 6, 7, 2019-09 and 2020-12, by `$schema`; their older spellings (`items` as a list, `exclusiveMinimum: true`,
  `dependencies`, `id`) are also read where no `$schema` stands. `modern` translates them to 2020-12.
- **Patterns** are ECMA-262's, with \\d and \\w ASCII and $ the very end. A pattern that cannot be read is a fault of the schema.
- **Formats** that jsonschema-rs knows are checked: date-time, date, time, duration, email, hostname, ipv4, ipv6, uri, uuid, regex and a few
  more. Others say nothing.
- **References** lead into the schema itself or to the drafts' own meta-schemas. Nothing is ever fetched.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from jsonschema_rs import ValidationError, canonical

SECONDS = 0.5         # for one question; an ordinary schema takes a millisecond, the next time some microseconds
MEMORY = 128 << 20    # bytes of address space, of which Python and the library use 35 MB
LONGEST = 1_000_000   # characters of a schema or of arguments, each value counted as 16 more; the largest real schemas have 100 000
LONGEST_PROOF = 20_000  # characters of a schema of which it is asked whether anything can obey it; that takes 0.1 s
MOST_FAULTS = 100     # told of one call
TOO_LARGE = f"too large: at most {LONGEST} characters, each value counted as 16 more"

DIALECT = re.compile(r"https?://json-schema\.org/(draft-0[467]|draft/2019-09|draft/2020-12)/schema#?")
MAPS = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
SINGLE = {"not", "if", "then", "else", "items", "contains", "additionalProperties", "unevaluatedProperties", "unevaluatedItems",
          "propertyNames", "contentSchema", "additionalItems"}
# where the subschema is about an inner value, not about the same one; `contains`, `not` and `if` only ask, they demand nothing
INNER = {"properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "items", "prefixItems", "unevaluatedItems"}
IN_PLACE = {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas"}  # about the same value


class Malformed(Exception):
    """A schema that cannot be read or obeyed, with the reason."""


# ------------------------------------------------------------------------------------- older drafts, ECMA-262's patterns

TOKEN = re.compile(r"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|\\.|\[(?:\\.|[^\]\\])*\]|\{,", re.DOTALL)
CLASS_TOKEN = re.compile(r"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(?:\\[dwsDWS]|\\[pP]\{[^}]*\})-|-(?=\\[dwsDWSpP])|\\.|[\[&~]",
                         re.DOTALL)


def ecma(pattern: str) -> str:
    """A pattern in the spelling of jsonschema-rs, which reads ECMA-262's but for a few forms."""
    def plain(match: re.Match) -> str:
        token = match[0]
        if len(token) == 12 and token[:2] == "\\u":    # 😀 as two halves
            return json.loads('"' + token + '"')
        if token[0] == "[":
            if token == "[]":
                return "(?!)"
            return r"[\s\S]" if token == "[^]" else "[" + CLASS_TOKEN.sub(in_class, token[1:-1]) + "]"
        return {r"\0": r"\x00", "{,": r"\{,"}.get(token, token)

    def in_class(match: re.Match) -> str:
        token = match[0]
        if len(token) == 12 and token[:2] == "\\u":
            return plain(match)
        if token in "[&~":                             # operators of sets in Rust's classes
            return "\\" + token
        if token[-1] == "-" and token != r"\-":        # [\w-.]: no range can begin or end with a class
            return token[:-1] + r"\-"
        return {r"\0": r"\x00", r"\b": r"\x08"}.get(token, token)

    return TOKEN.sub(plain, pattern)


def modern(schema: Any, alone: bool) -> Any:
    """A copy of a schema in draft 2020-12's spelling. `alone`: the keywords beside a $ref say nothing, as up to draft 7."""
    if not isinstance(schema, dict):
        return schema                                  # true, false, or nonsense that the meta-schema refuses
    if isinstance(schema.get("$ref"), str):
        moved = re.sub(r"/items/(?=\d)", "/prefixItems/", schema["$ref"]).replace("/additionalItems", "/items")
        schema = {"$ref": moved} if alone else {**schema, "$ref": moved}
    new = {}
    for keyword, value in schema.items():
        if keyword in MAPS and isinstance(value, dict):
            spell = ecma if keyword == "patternProperties" else str
            value = {spell(name): modern(inner, alone) for name, inner in value.items()}
        elif isinstance(value, list) and (keyword in LISTS or keyword == "items"):
            value = [modern(inner, alone) for inner in value]
        elif keyword in SINGLE:
            value = modern(value, alone)
        elif keyword == "pattern" and isinstance(value, str):
            value = ecma(value)
        new[keyword] = value
    return _renamed(new, alone)


def _renamed(schema: dict, alone: bool) -> dict:
    """The same with the keywords that changed their names, and with `wholeNumber` where an integer is wanted."""
    schema.pop("$schema", None)                        # one inside would switch the library to that dialect
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):
            excluded = schema.pop(exclusive)
            if excluded and inclusive in schema:
                schema[exclusive] = schema.pop(inclusive)
    if isinstance(schema.get("dependencies"), dict):
        for name, needs in schema.pop("dependencies").items():
            keyword = "dependentRequired" if isinstance(needs, list) else "dependentSchemas"
            schema.setdefault(keyword, {})[name] = needs if isinstance(needs, list) else modern(needs, alone)
    if alone and isinstance(schema.get("id"), str):
        schema["$id"] = schema.pop("id")
    if isinstance(schema.get("$id"), str) and schema["$id"].startswith("#"):
        schema["$anchor"] = schema.pop("$id")[1:]
    schema.pop("$recursiveAnchor", None)               # 2019-09's; both lead to the root of a schema that is one document
    if "$recursiveRef" in schema:
        schema["$ref"] = schema.pop("$recursiveRef")
    if schema.get("additionalProperties") is False:
        schema.setdefault("properties", {})            # without it the library tells of the object, not of its keys
    types = schema.get("type")
    if types == "integer" or isinstance(types, list) and "integer" in types and "number" not in types:
        schema["wholeNumber"] = True
    return schema


class WholeNumber:
    """Our keyword: a number is written without a point (JSON Schema alone calls 1.0 an integer)."""

    def __init__(self, parent: dict, value: Any, path: list) -> None:
        pass

    def validate(self, instance: Any) -> None:
        if isinstance(instance, float):
            raise ValueError("1.0 is no integer")


# ------------------------------------------------------------------------------------------------------ invented keys

def subschemas(schema: dict) -> Iterator[tuple[str, Any]]:
    """The schemas inside a schema, each with the keyword that it stands under."""
    for keyword, value in schema.items():
        if keyword in MAPS and isinstance(value, dict):
            yield from ((keyword, inner) for inner in value.values())
        elif keyword in LISTS and isinstance(value, list):
            yield from ((keyword, inner) for inner in value)
        elif keyword in SINGLE:
            yield keyword, value


class Document:
    """A whole schema (in 2020-12's spelling) and which keys it lists where."""

    def __init__(self, root: dict) -> None:
        self.root = root
        self.anchors: dict[str, dict] = {}
        self.lists: dict[tuple[int, bool], dict[str, None] | None] = {}  # of each schema: the keys it lists; None while being asked
        self.freed: set[int] = set()
        waiting = [root]
        while waiting:
            schema = waiting.pop()
            for name in (schema.get("$anchor"), schema.get("$dynamicAnchor"), schema.get("$id")):
                if isinstance(name, str):
                    self.anchors.setdefault(name, schema)
            waiting += [inner for _, inner in subschemas(schema) if isinstance(inner, dict)]

    def at(self, path: list[str | int]) -> Any:
        """What stands at a path from the root; None if nothing does."""
        found = self.root
        for step in path:
            if isinstance(found, list) and str(step).isdigit():
                step = int(step)
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def target(self, reference: Any) -> Any:
        """The schema that a reference leads to; None if that is not in this document."""
        if not isinstance(reference, str):
            return None
        base, _, fragment = reference.partition("#")
        if base and base not in self.anchors or fragment and not fragment.startswith("/"):
            return self.anchors.get(fragment or base)
        if base:
            return self.anchors[base] if not fragment else None
        return self.at([unquote(step).replace("~1", "/").replace("~0", "~") for step in fragment.split("/")[1:]])

    def beside(self, schema: dict) -> Iterator[Any]:
        """The schemas that speak about the same value, alternatives excepted."""
        yield from (self.target(schema[keyword]) for keyword in ("$ref", "$dynamicRef") if keyword in schema)
        yield from (inner for keyword, inner in subschemas(schema) if keyword in ("allOf", "if", "then", "else", "dependentSchemas"))

    def listed(self, schema: Any, alternatives: bool = True) -> dict[str, None]:
        """The keys that a schema lists for its own value (patterns as /pattern/). Raises Malformed for a circle of references."""
        if not isinstance(schema, dict):
            return {}
        asked = id(schema), alternatives
        if asked in self.lists:
            if self.lists[asked] is None:
                raise Malformed("its references lead in a circle")
            return self.lists[asked]
        self.lists[asked] = None
        names = dict.fromkeys(schema.get("properties") or ())
        names |= dict.fromkeys(f"/{pattern}/" for pattern in schema.get("patternProperties") or ())
        either = [inner for keyword, inner in subschemas(schema) if keyword in ("anyOf", "oneOf")] if alternatives else []
        for inner in (*self.beside(schema), *either):
            names |= self.listed(inner, alternatives)
        self.lists[asked] = names
        return names

    def close(self, schema: Any, top: bool = False) -> None:
        """Refuse, from here down, the keys that nobody lists."""
        if not isinstance(schema, dict):
            return
        if self.listed(schema) or top:
            if not top:
                self.free(schema)
            if not {"additionalProperties", "unevaluatedProperties"} & schema.keys():
                schema["unevaluatedProperties" if IN_PLACE & schema.keys() else "additionalProperties"] = False
                schema.setdefault("properties", {})
        self.close_inside(schema)

    def close_inside(self, schema: dict) -> None:
        for keyword, inner in list(subschemas(schema)):
            if keyword in INNER:
                self.close(inner)
            elif keyword not in ("not", "if", "contains") and isinstance(inner, dict):
                self.close_inside(inner)

    def free(self, schema: Any) -> None:
        """Let each alternative that lists nothing take any key, unless the keys are listed outside of the alternatives."""
        if not isinstance(schema, dict) or id(schema) in self.freed or self.listed(schema, alternatives=False):
            return
        self.freed.add(id(schema))
        for inner in self.beside(schema):
            self.free(inner)
        for keyword in ("anyOf", "oneOf"):
            for place, inner in enumerate(schema.get(keyword, ())):
                if self.listed(inner):
                    self.free(inner)
                elif inner is True:
                    schema[keyword][place] = {"additionalProperties": True}
                elif isinstance(inner, dict) and "unevaluatedProperties" not in inner:
                    inner.setdefault("additionalProperties", True)


# ------------------------------------------------------------------------------------------------------------ verdicts

@dataclass
class Judge:
    document: Document                                 # closed
    closed: jsonschema_rs.Validator
    written: jsonschema_rs.Validator                   # as it was


def _wanted_unlisted(document: Document, node: Any) -> str:
    """The commonest reason: a key is required that is not listed."""
    missing = [key for key in _list(node.get("required")) if key not in document.listed(node)] if isinstance(node, dict) else []
    return f": it requires {', '.join(map(str, missing))[:60]}, which it does not list" if missing else ""


def refuse_impossible(document: Document) -> None:
    """Raise Malformed for a schema, or an object in one of its properties, that provably no value obeys; most often a key is required and not listed."""
    if jsonschema_rs.canonicalize(document.root, offline=True).satisfiability() == canonical.Satisfiability.NO:
        raise Malformed(f"nothing can obey it{_wanted_unlisted(document, document.root)}")
    for pointer in canonical.find_unsatisfiable(document.root, offline=True):
        node = document.target("#" + pointer)
        if re.fullmatch(r"(/properties/[^/]+)+", pointer) and document.listed(node):  # {"not": {}} forbids a key, as is its right
            raise Malformed(f"nothing can obey {pointer}{_wanted_unlisted(document, node)}")


@lru_cache(maxsize=256)  # worlds repeat their schemas; whatever this holds is bounded by MEMORY
def prepared(text: bytes) -> Judge:
    """A schema, ready to judge. Raises Malformed or the library's errors for one that cannot be read or that no arguments obey."""
    schema = json.loads(text)
    if schema is None:
        schema = {}
    if not isinstance(schema, dict) or "object" not in (schema.get("type", "object"), *_list(schema.get("type"))):
        raise Malformed(f"parameters must be a schema of type object, not {str(schema)[:60]}")
    dialect = schema.get("$schema", "https://json-schema.org/draft/2020-12/schema")
    if not isinstance(dialect, str) or not (match := DIALECT.fullmatch(dialect)):
        raise Malformed(f"$schema is {str(dialect)[:60]}; wanted draft 4, 6, 7, 2019-09 or 2020-12")
    written = modern(schema, alone=match[1].startswith("draft-"))
    settings = dict(validate_formats=True, offline=True, keywords={"wholeNumber": WholeNumber})
    as_written = jsonschema_rs.Draft202012Validator(written, **settings)
    document = Document(written)
    document.close(written, top=True)
    closed = jsonschema_rs.Draft202012Validator(written, **settings)
    if len(text) <= LONGEST_PROOF:
        refuse_impossible(document)
    return Judge(document, closed, as_written)


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(message: str) -> str:
    """A message of the library's, which begins with the value and ends with the reason."""
    line = " ".join(message.splitlines())
    return line if len(line) <= 160 else f"{line[:50]} ... {line[-100:]}"


UNFIT = "unfit"  # a key that an alternative lists which does not hold: told only if nothing else is, since whatever keeps it from holding is


def told(error: ValidationError, document: Document) -> Iterator[tuple[str, str, str]]:
    """The library's error as (kind, message, where), one for each missing or unexpected key."""
    where = ".".join(map(str, error.instance_path))
    path, place, kind = where + "." if where else "", where or "arguments", error.kind
    match kind.name:
        case "required":
            yield "missing", f"missing {path}{kind.property}", path + kind.property
        case "additionalProperties" | "unevaluatedProperties":
            known = document.listed(document.at(error.schema_path[:-1]))
            for key in kind.unexpected:
                what = f"unknown key {path}{key[:60]}; the schema has" if key not in known else f"{path}{key[:60]} does not go with the rest; there are"
                yield UNFIT if key in known else "unexpected", f"{what} {', '.join(known)[:300] or 'none'}", path + key
        case "propertyNames":
            yield "unexpected", f"{place}: no key may be called {_said(kind.error.instance)[:60]}", where
        case "falseSchema":
            yield "unexpected", f"{place} is not allowed", where
        case "type" | "wholeNumber":
            wanted = kind.types if kind.name == "type" else ["integer"]
            yield "type", f"{place} must be {' or '.join(wanted)}, not {_type(error.instance)}", where
        case "enum":
            yield "value", f"{place} must be {' or '.join(map(_said, kind.options))}, not {_said(error.instance):.60}"[:200], where
        case "anyOf" | "oneOf" if hasattr(kind, "context"):
            yield from _of_alternatives(error, where, place, document)
        case _:
            yield "value", f"{place}: {_short(error.message)}", where


def _of_alternatives(error: ValidationError, where: str, place: str, document: Document) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the one alternative that was meant, as far as the value's type and its constant parts tell."""
    def misses(branch: list[ValidationError], depth: int, *names: str) -> bool:
        return any(inner.kind.name in names and len(inner.instance_path) == len(error.instance_path) + depth for inner in branch)

    fitting = [branch for branch in error.kind.context if not misses(branch, 0, "type", "wholeNumber")]
    if error.kind.context and not fitting:
        here = [inner.kind for branch in error.kind.context for inner in branch if inner.instance_path == error.instance_path]
        types = dict.fromkeys(name for kind in here for name in (kind.types if kind.name == "type" else ["integer"] * (kind.name == "wholeNumber")))
        yield "type", f"{place} must be {' or '.join(types)}, not {_type(error.instance)}", where
        return
    meant = [branch for branch in fitting if not misses(branch, 1, "const")] if len(fitting) > 1 else fitting
    if len(meant) == 1 and meant[0]:
        for inner in meant[0]:
            yield from told(inner, document)
    else:
        yield "value", f"{place}: {_short(error.message)}", where


def faults_in(validator: jsonschema_rs.Validator, value: Any, document: Document) -> list[tuple[str, str, str]]:
    found = islice((fault for error in validator.iter_errors(value) for fault in told(error, document)), MOST_FAULTS)
    faults = list(dict.fromkeys(found))
    fit = [fault for fault in faults if fault[0] != UNFIT]
    return fit or [("unexpected", message, where) for _, message, where in faults]


def judge(schema: bytes, arguments: bytes) -> list[tuple[str, str, str]]:
    """(kind, message, where) of all that is wrong with the schema, or else with arguments (null: there are none to judge)."""
    try:
        found = prepared(schema)
    except MemoryError:
        raise
    except BaseException as problem:  # whatever a stranger's schema can trip over is its own fault; Rust's panics are no Exceptions
        place = "/".join(map(str, getattr(problem, "instance_path", ())))
        return [("schema", _short(getattr(problem, "message", str(problem)) or type(problem).__name__) + (f" (at {place[:60]})" if place else ""), "")]
    value = json.loads(arguments)
    if value is None:
        return []
    return faults_in(found.closed, value, found.document) or faults_in(found.written, value, found.document)


# -------------------------------------------------------------------------------------------------- a process of its own

def main() -> None:
    """Answer questions (three lines: seconds, schema, arguments) with one line each until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    while seconds := sys.stdin.buffer.readline():
        schema, arguments = sys.stdin.buffer.readline(), sys.stdin.buffer.readline()
        signal.setitimer(signal.ITIMER_REAL, float(seconds))  # nobody handles the signal, so that the kernel ends the process
        try:
            answer = judge(schema, arguments)
        except RecursionError:
            answer = [("value", "the arguments are nested too deeply for the schema", "")]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(answer), flush=True)


class Process:
    """The judging process, started when it is needed; one for each process of ours, used by one thread at a time."""

    def __init__(self) -> None:
        self.child: subprocess.Popen | None = None
        self.owner = 0
        self.lock = threading.Lock()

    def answer(self, schema: str, arguments: str) -> list | None:
        """The answer to a question, or None if there was none within SECONDS and MEMORY."""
        deadline = time.monotonic() + SECONDS
        with self.lock:
            fresh = False
            while not fresh:                           # an old child may die of what earlier schemas hold: asked once more of a new one
                fresh = self.child is None or self.owner != os.getpid()
                if fresh:
                    self.start()
                try:
                    self.child.stdin.write(f"{max(deadline - time.monotonic(), 0.01)}\n{schema}\n{arguments}\n".encode())
                    self.child.stdin.flush()
                    if line := self.child.stdout.readline():
                        return json.loads(line)
                except BrokenPipeError:
                    pass
                except BaseException:                  # interrupted: the answer that is still to come must not be taken for the next one
                    self.stop()
                    raise
                if self.stop() == -signal.SIGALRM:
                    break
        return None

    def start(self) -> None:
        self.child = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                      start_new_session=True)  # Ctrl-C is for us alone
        self.owner = os.getpid()
        if self.child.stdout.readline() != b"ready\n":
            self.stop()
            raise RuntimeError(f"the process that judges calls does not start; run {sys.executable} {__file__} to see why")

    def stop(self) -> int:
        """End the child; how it ended (a negative signal, or its exit status)."""
        child, self.child = self.child, None
        child.kill()
        child.stdout.close()
        with suppress(BrokenPipeError):                # what it never read
            child.stdin.close()
        return child.wait()


PROCESS = Process()


def fits(thing: Any) -> bool:
    """Whether JSON of this is at most LONGEST. What is held twice counts twice, so that no structure folded into itself is ever unfolded."""
    waiting, room = [thing], LONGEST
    while waiting and room >= 0:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        room -= 16 * len(inner) + sum(len(text) for text in (value if isinstance(value, dict) else (value,)) if isinstance(text, str))
        waiting += inner if room >= 0 else ()
    return room >= 0


def ask(schema: Any, arguments: dict | None) -> list[tuple[str, str, str]]:
    """(kind, message, where) of all that is wrong with arguments under a schema, or with the schema itself. Ends in time; never raises.

    kind is missing, unexpected, type or value, or schema if that is to blame. Arguments None: only the schema is looked at.
    """
    if not fits(schema):
        return [("schema", f"it is {TOO_LARGE}", "")]
    if not fits(arguments):
        return [("value", f"the arguments are {TOO_LARGE}", "")]
    try:
        texts = json.dumps(schema, allow_nan=False), json.dumps(arguments)
    except (TypeError, ValueError, RecursionError) as problem:  # of the schema; tools.decode has looked at the arguments
        return [("schema", f"it is no JSON: {_short(str(problem))}", "")]
    answer = PROCESS.answer(*texts)
    if answer is None:                                 # which of the two is to blame cannot be known; mostly it is the longer one
        limits = f"could not be checked within {SECONDS} s and {MEMORY >> 20} MB"
        return [("schema", f"it {limits}", "") if len(texts[0]) > len(texts[1]) else ("value", f"the arguments {limits}", "")]
    return [tuple(fault) for fault in answer]


if __name__ == "__main__":
    main()
