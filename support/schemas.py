"""JSON Schema: what a tool's parameters allow, judged in a process of its own.

`ask` is the whole interface: a schema and arguments go in, faults come out. The verdicts are those
of jsonschema-rs (a Rust library). What is ours is the rule about keys that nobody lists, the older
drafts' spellings, and the bounds.

- **A process.** Schemas and arguments come from strangers, and ten lines of schema keep any library
  busy for a year: references that double, alternatives of alternatives, a pattern that backtracks.
  No library can be stopped from inside, but the kernel can stop it: it ends the process
  VERDICT_SECONDS after a question (an interval timer) and refuses it more than MEMORY (a resource
  limit), whatever it is doing. The process starts with the first question (0.1 s); a
  question costs about 30 µs, and 40 µs more where the schema is new.
- **Invented keys.** A key that the schema does not list is wrong wherever keys are listed: by
  `properties` or `patternProperties`, also through $ref, allOf, anyOf, oneOf, if/then/else and
  dependentSchemas, unless one of these says otherwise with `additionalProperties` or
  `unevaluatedProperties`. An object that lists nothing is free-form, alone or as one of several
  alternatives; but a tool without parameters takes no arguments. `SchemaDocument.close` writes
  this rule into the schema as `unevaluatedProperties: false`. It only refuses more: what passes
  also obeys the schema as it was written.
- **Numbers.** 1.0 is no integer (the Berkeley leaderboard's rule) and true is no number; 1 and 1.0
  are equal. `multipleOf` is decimal.
- **Dialects.** Drafts 4, 6, 7, 2019-09 and 2020-12, told by `$schema`; older spellings (`items` as
  a list, `exclusiveMinimum: true`, `dependencies`) are read without it as well.
- **Patterns** are ECMA-262's: \\d and \\w are ASCII, $ is the very end; only \\b is Unicode's. A
  pattern that cannot be read (also one with \\k<name>) is a fault of the schema.
- **Formats** that jsonschema-rs knows are checked: date-time, date, time, duration, email,
  hostname, ipv4, ipv6, uri, uuid, regex and a few more. Other names of formats say nothing.
- **References** lead into the schema or to the 2020-12 meta-schema. Nothing is ever fetched.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from jsonschema_rs import ValidationError, canonical

_HERE = Path(__file__).resolve().parents[1]  # not support.settings': the child is to stay small
VERDICT_SECONDS = 0.5  # of a processor, for one question
PATIENCE = 4  # times as long by the clock: a verdict must not depend on how busy a machine is
MEMORY = 128 << 20  # bytes of address space; Python and the library take 35 MB of it
LONGEST = 1_000_000  # characters, and 16 more for each value; real schemas reach 100 000
LONGEST_PROOF = 20_000  # characters of a schema that is asked whether anything obeys it: 0.1 s
MOST_FAULTS = 100  # told of one call
TOO_LARGE = f"too large: at most {LONGEST} characters, each value counted as 16 more"

DIALECT = re.compile(
    r"https?://json-schema\.org/(draft-0[467]|draft/2019-09|draft/2020-12)/schema#?"
)
MAPS = {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
SINGLE = {
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "additionalItems",
    "propertyNames",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contentSchema",
}
# These speak about the same value, the next ones about an inner one.
IN_PLACE = {
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "then",
    "else",
    "dependentSchemas",
}
INNER = {
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "items",
    "prefixItems",
    "unevaluatedItems",
}
ASKS = {"not", "if", "contains"}  # subschemas that demand nothing: inside them no key is refused

Told = tuple[str, str, str]  # a fault: kind, message, where


class MalformedSchema(Exception):
    """A schema that cannot be read or obeyed, with the reason."""


# ------------------------------------------------------------ ECMA-262's patterns, older drafts

PAIR = r"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}"  # 😀 as two halves
TOKEN = re.compile(PAIR + r"|\\.|\[(?:\\.|[^\]\\])*\]|\{,", re.DOTALL)
TOKEN_IN_CLASS = re.compile(
    PAIR + r"|(?:\\[dwsDWS]|\\[pP]\{[^}]*\})-|-(?=\\[dwsDWSpP])|\\.|[\[&~]", re.DOTALL
)
SPELT = {r"\0": r"\x00", "{,": r"\{,", "[]": "(?!)", "[^]": r"[\s\S]"}
SPELT_IN_CLASS = {r"\0": r"\x00", r"\b": r"\x08", "[": r"\[", "&": r"\&", "~": r"\~"}


def ecma(pattern: str) -> str:
    """A pattern with the few forms of ECMA-262 respelt that jsonschema-rs does not read."""

    def character(token: str) -> str:
        return json.loads(f'"{token}"') if re.fullmatch(PAIR, token) else token

    def in_class(match: re.Match) -> str:
        token = match[0]
        if token.endswith("-") and token != r"\-":  # [\w-.]: no range begins or ends with a class
            return token[:-1] + r"\-"
        return SPELT_IN_CLASS.get(token) or character(token)

    def outside(match: re.Match) -> str:
        token = match[0]
        if token.startswith("[") and token not in SPELT:
            return "[" + TOKEN_IN_CLASS.sub(in_class, token[1:-1]) + "]"
        return SPELT.get(token) or character(token)

    return TOKEN.sub(outside, pattern)


def modern(schema: Any, alone: bool) -> Any:
    """A copy in draft 2020-12's spelling; `alone`: what is beside a $ref is void, as to draft 7."""
    if not isinstance(schema, dict):
        return schema  # true, false, or nonsense that the meta-schema refuses
    if isinstance(schema.get("$ref"), str):
        moved = re.sub(r"/items/(?=\d)", "/prefixItems/", schema["$ref"])
        moved = moved.replace("/additionalItems", "/items")
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
    rename(new, alone)
    mark(new)
    return new


def rename(schema: dict, alone: bool) -> None:
    """Give a schema's own keywords, where they have changed, their names of 2020-12."""
    schema.pop("$schema", None)  # one inside would switch the library to that dialect
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if isinstance(schema.get("dependencies"), dict):
        for name, needs in schema.pop("dependencies").items():
            if isinstance(needs, list):
                schema.setdefault("dependentRequired", {})[name] = needs
            else:
                schema.setdefault("dependentSchemas", {})[name] = modern(needs, alone)
    if alone and isinstance(schema.get("id"), str):
        schema["$id"] = schema.pop("id")
    if isinstance(schema.get("$id"), str) and schema["$id"].startswith("#"):
        schema["$anchor"] = schema.pop("$id")[1:]
    schema.pop("$recursiveAnchor", None)  # in a schema that is one document both mean the root
    if "$recursiveRef" in schema:
        schema["$ref"] = schema.pop("$recursiveRef")


def mark(schema: dict) -> None:
    """Add what the library needs to judge and to tell as we do."""
    if schema.get("additionalProperties") is False:
        schema.setdefault("properties", {})  # else the fault is told of the object, not of its keys
    types = schema.get("type") if isinstance(schema.get("type"), list) else [schema.get("type")]
    if "integer" in types and "number" not in types:
        schema["wholeNumber"] = True


class WholeNumber:
    """Our keyword: a number has no point in it. (To JSON Schema alone 1.0 is an integer.)"""

    def __init__(self, parent: dict, value: Any, path: list) -> None:
        pass

    def validate(self, instance: Any) -> None:
        if isinstance(instance, float):
            raise ValueError(f"{instance} is no integer")


# ---------------------------------------------------------------------------------- invented keys


def subschemas(schema: dict) -> Iterator[tuple[str, Any]]:
    """The schemas inside a schema, each with the keyword that it stands under."""
    for keyword, value in schema.items():
        if keyword in MAPS and isinstance(value, dict):
            yield from ((keyword, inner) for inner in value.values())
        elif keyword in LISTS and isinstance(value, list):
            yield from ((keyword, inner) for inner in value)
        elif keyword in SINGLE:
            yield keyword, value


class SchemaDocument:
    """A whole schema in 2020-12's spelling, and which keys it lists where."""

    def __init__(self, root: dict) -> None:
        self.root = root
        self.named: dict[str, dict] = {}  # by $anchor, $dynamicAnchor or $id
        self.lists: dict[tuple[int, bool], dict[str, None] | None] = {}  # None while being asked
        self.freed: set[int] = set()
        waiting = [root]
        while waiting:
            schema = waiting.pop()
            for keyword in ("$anchor", "$dynamicAnchor", "$id"):
                if isinstance(schema.get(keyword), str):
                    self.named.setdefault(schema[keyword], schema)
            waiting += [inner for _, inner in subschemas(schema) if isinstance(inner, dict)]

    def at(self, path: list[str | int]) -> Any:
        """What stands at a path from the root; None if nothing does."""
        found = self.root
        for step in path:
            try:
                found = found[int(step) if isinstance(found, list) else step]
            except (KeyError, IndexError, TypeError, ValueError):
                return None
        return found

    def target(self, reference: Any) -> Any:
        """The schema that a reference leads to; None if that is not in this document."""
        if not isinstance(reference, str):
            return None
        base, _, fragment = reference.partition("#")
        if base or fragment and not fragment.startswith("/"):
            return self.named.get(fragment or base)
        steps = fragment.split("/")[1:]
        return self.at([unquote(step).replace("~1", "/").replace("~0", "~") for step in steps])

    def beside(self, schema: dict) -> Iterator[Any]:
        """The schemas that speak about the same value, alternatives excepted."""
        yield from (self.target(schema[key]) for key in ("$ref", "$dynamicRef") if key in schema)
        yield from (
            inner
            for keyword, inner in subschemas(schema)
            if keyword in IN_PLACE and keyword not in ("anyOf", "oneOf")
        )

    def listed(self, schema: Any, alternatives: bool = True) -> dict[str, None]:
        """The keys that a schema lists for its own value, patterns as /pattern/.

        With `alternatives` also those of anyOf and oneOf. Raises MalformedSchema for a circle.
        """
        if not isinstance(schema, dict):
            return {}
        asked = id(schema), alternatives
        if asked not in self.lists:
            self.lists[asked] = None
            names = dict.fromkeys(schema.get("properties", ()))
            patterns = schema.get("patternProperties", ())
            names |= dict.fromkeys(f"/{pattern}/" for pattern in patterns)
            parts = list(self.beside(schema))
            if alternatives:
                parts += [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
            for part in parts:
                names |= self.listed(part, alternatives)
            self.lists[asked] = names
        if self.lists[asked] is None:
            raise MalformedSchema("its references lead in a circle")
        return self.lists[asked]

    def close(self, schema: Any, top: bool = False) -> None:
        """Refuse the keys that nobody lists, in a schema about one value and inside of it."""
        if not isinstance(schema, dict):
            return
        if self.listed(schema) and not top:
            self.free(schema)
        if self.listed(schema) or top:
            if not {"additionalProperties", "unevaluatedProperties"} & schema.keys():
                # the same without in-place parts, but faster and told better
                alone = not IN_PLACE & schema.keys()
                schema["additionalProperties" if alone else "unevaluatedProperties"] = False
                mark(schema)
        self.close_inside(schema)

    def close_inside(self, schema: dict) -> None:
        for keyword, inner in list(subschemas(schema)):
            if keyword in INNER:
                self.close(inner)
            elif keyword not in ASKS and isinstance(inner, dict):
                self.close_inside(inner)

    def free(self, schema: Any) -> None:
        """Let alternatives that list nothing take any key, unless keys are listed beside them."""
        if not isinstance(schema, dict) or id(schema) in self.freed:
            return
        self.freed.add(id(schema))
        if self.listed(schema, alternatives=False):
            return
        for part in self.beside(schema):
            self.free(part)
        for either in (schema.get("anyOf", []), schema.get("oneOf", [])):
            for place, inner in enumerate(either):
                if self.listed(inner):
                    self.free(inner)
                elif inner is True:
                    either[place] = {"additionalProperties": True}
                elif isinstance(inner, dict) and "unevaluatedProperties" not in inner:
                    inner.setdefault("additionalProperties", True)


# --------------------------------------------------------------------------------------- verdicts


@dataclass
class Prepared:
    """A schema that is ready to judge."""

    document: SchemaDocument
    closed: jsonschema_rs.Validator  # with our rule about keys
    written: jsonschema_rs.Validator  # as it came


@lru_cache(maxsize=256)  # worlds repeat their schemas; MEMORY bounds what this holds
def prepared(text: bytes) -> Prepared:
    """A schema from its JSON. Raises MalformedSchema, or the library's errors."""
    schema = json.loads(text)
    if schema is None:
        schema = {}
    types = schema.get("type", "object") if isinstance(schema, dict) else None
    if types != "object" and not (isinstance(types, list) and "object" in types):
        raise MalformedSchema(f"parameters must be a schema of type object, not {str(schema)[:60]}")
    dialect = str(schema.get("$schema", "https://json-schema.org/draft/2020-12/schema"))
    if not (match := DIALECT.fullmatch(dialect)):
        raise MalformedSchema(
            f"$schema is {dialect[:60]}; wanted draft 4, 6, 7, 2019-09 or 2020-12"
        )
    schema = modern(schema, alone=match[1].startswith("draft-"))
    settings = dict(validate_formats=True, offline=True, keywords={"wholeNumber": WholeNumber})
    written = jsonschema_rs.Draft202012Validator(schema, **settings)
    document = SchemaDocument(schema)
    document.close(schema, top=True)
    closed = jsonschema_rs.Draft202012Validator(schema, **settings)
    if len(text) <= LONGEST_PROOF:
        refuse_impossible(document)
    return Prepared(document, closed, written)


def refuse_impossible(document: SchemaDocument) -> None:
    """Raise MalformedSchema if provably no value obeys the schema, or an object in its properties.

    Most often a key is required that is not listed. Other properties that nothing obeys stay: a
    schema such as {"not": {}} forbids a key, which is its right.
    """
    whole = jsonschema_rs.canonicalize(document.root, offline=True)
    impossible = [""] if whole.satisfiability() == canonical.Satisfiability.NO else []
    impossible += [
        pointer
        for pointer in canonical.find_unsatisfiable(document.root, offline=True)
        if re.fullmatch(r"(/properties/[^/]+)+", pointer)
        and document.listed(document.target("#" + pointer))
    ]
    if impossible:
        schema = document.target("#" + impossible[0])
        unlisted = [key for key in schema.get("required", ()) if key not in document.listed(schema)]
        reason = f": it requires {', '.join(unlisted)[:60]} and does not list that"
        raise MalformedSchema(
            f"nothing can obey {impossible[0] or 'it'}{reason if unlisted else ''}"
        )


def type_of(value: Any) -> str:
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return names.get(type(value), "null")


def said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(message: str) -> str:
    """A message of the library's, which begins with the value and ends with the reason."""
    line = " ".join(message.splitlines())
    return line if len(line) <= 160 else f"{line[:50]} ... {line[-100:]}"


# A key that only an alternative lists which does not hold. It is told as unexpected if nothing else
# is wrong; else what keeps the alternative from holding is the fault.
UNFIT = "unfit"


def faults_of_error(error: ValidationError, document: SchemaDocument) -> Iterator[Told]:
    """The library's error as ours, one for each missing or unexpected key."""
    where = ".".join(map(str, error.instance_path))
    path, place, kind = where + "." if where else "", where or "arguments", error.kind
    match kind.name:
        case "required":
            yield "missing", f"missing {path}{kind.property}", path + kind.property
        case "additionalProperties" | "unevaluatedProperties":
            known = document.listed(document.at(error.schema_path[:-1]))
            names = ", ".join(known)[:300] or "none"
            for key in kind.unexpected:
                name = path + key[:60]
                if key in known:
                    yield UNFIT, f"{name} does not go with the rest; there are {names}", path + key
                else:
                    message = f"unknown key {name}; the schema has {names}"
                    yield "unexpected", message, path + key
        case "propertyNames":
            name = said(kind.error.instance)[:60]
            yield "unexpected", f"{place}: no key may be called {name}", path + name
        case "falseSchema":
            yield "unexpected", f"{place} is not allowed", where
        case "type" | "wholeNumber":
            yield wrong_type(error, wanted_types(kind))
        case "enum":
            choices = " or ".join(map(said, kind.options))
            message = f"{place} must be {choices}, not {said(error.instance):.60}"
            yield "value", message[:200], where
        case "anyOf" | "oneOf":
            yield from faults_of_alternatives(error, document)
        case _:
            yield "value", f"{place}: {shortened(error.message)}", where


def wanted_types(kind: Any) -> list[str]:
    if kind.name == "wholeNumber":
        return ["integer"]
    return kind.types if kind.name == "type" else []


def wrong_type(error: ValidationError, wanted: list[str]) -> Told:
    where = ".".join(map(str, error.instance_path))
    types = " or ".join(dict.fromkeys(wanted))
    message = f"{where or 'arguments'} must be {types}, not {type_of(error.instance)}"
    return "type", message, where


def faults_of_alternatives(error: ValidationError, document: SchemaDocument) -> Iterator[Told]:
    """What is wrong with the alternative that was meant, by the value's type and its constants."""
    branches, depth = error.kind.context, len(error.instance_path)

    def misses(branch: list[ValidationError], below: int, *names: str) -> bool:
        return any(
            inner.kind.name in names and len(inner.instance_path) == depth + below
            for inner in branch
        )

    fitting = [branch for branch in branches if not misses(branch, 0, "type", "wholeNumber")]
    meant = [branch for branch in fitting if not misses(branch, 1, "const")]
    if not fitting:
        wanted = [
            name
            for branch in branches
            for inner in branch
            if len(inner.instance_path) == depth
            for name in wanted_types(inner.kind)
        ]
        yield wrong_type(error, wanted)
    elif len(meant) == 1 and meant[0]:
        for inner in meant[0]:
            yield from faults_of_error(inner, document)
    else:
        where = ".".join(map(str, error.instance_path))
        yield "value", f"{where or 'arguments'}: {shortened(error.message)}", where


def faults_of_value(
    validator: jsonschema_rs.Validator, value: Any, document: SchemaDocument
) -> list[Told]:
    every = (
        fault
        for error in validator.iter_errors(value)
        for fault in faults_of_error(error, document)
    )
    faults = list(dict.fromkeys(islice(every, MOST_FAULTS)))
    fit = [fault for fault in faults if fault[0] != UNFIT]
    return fit or [("unexpected", message, where) for _, message, where in faults]


def judge_arguments(schema: bytes, arguments: bytes) -> list[Told]:
    """All that is wrong with the schema, or else with the arguments (null: none to judge)."""
    try:
        found = prepared(schema)
    except MemoryError:
        raise
    except BaseException as problem:  # what a schema trips over; Rust's panics are no Exceptions
        message = shortened(getattr(problem, "message", str(problem)) or type(problem).__name__)
        place = "/".join(map(str, getattr(problem, "instance_path", ())))[:60]
        return [("schema", message + (f" (at {place})" if place else ""), "")]
    value = json.loads(arguments)
    if value is None:
        return []
    return faults_of_value(found.closed, value, found.document) or faults_of_value(
        found.written, value, found.document
    )


# ---------------------------------------------------------------------------- a process of its own


def main() -> None:
    """Answer questions, three lines each (seconds, schema, arguments), with one line each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    while seconds := sys.stdin.buffer.readline():
        schema, arguments = sys.stdin.buffer.readline(), sys.stdin.buffer.readline()
        # either signal ends us, nobody handles it
        signal.setitimer(signal.ITIMER_PROF, float(seconds))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * float(seconds))
        try:
            answer = judge_arguments(schema, arguments)
        except RecursionError:
            answer = [("value", "the arguments are nested too deeply for the schema", "")]
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(answer), flush=True)


class Process:
    """The judging process: started when it is needed, replaced when it has died."""

    def __init__(self) -> None:
        self.child: subprocess.Popen | None = None
        self.owner = 0  # a process that we fork needs a child of its own
        self.lock = threading.Lock()

    def answer(self, schema: str, arguments: str) -> list | None:
        """The answer to a question; None if there was none within VERDICT_SECONDS and MEMORY."""
        fresh = False
        with self.lock:
            while not fresh:  # an old child may die of what it holds: then a new one is asked
                fresh = self.child is None or self.owner != os.getpid()
                if fresh:
                    self.start()
                try:
                    self.child.stdin.write(f"{VERDICT_SECONDS}\n{schema}\n{arguments}\n".encode())
                    self.child.stdin.flush()
                    if line := self.child.stdout.readline():
                        return json.loads(line)
                except BrokenPipeError:
                    pass
                except BaseException:  # interrupted: the answer to come is not the next question's
                    self.stop()
                    raise
                if self.stop() in (-signal.SIGPROF, -signal.SIGALRM):
                    return None
        return None

    def start(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "support.schemas"],
            cwd=_HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # Ctrl-C is for us alone
        self.owner = os.getpid()
        try:
            ready = self.child.stdout.readline() == b"ready\n"
        except BaseException:  # interrupted: "ready" is not the next question's answer
            self.stop()
            raise
        if not ready:
            self.stop()
            raise RuntimeError(
                "the process that judges calls does not start; to see why, run "
                f"{sys.executable} -m support.schemas in {_HERE}"
            )

    def stop(self) -> int:
        """End the child; how it ended (its exit status, or minus a signal)."""
        child, self.child = self.child, None
        child.kill()
        child.stdout.close()
        with suppress(BrokenPipeError):  # what it never read
            child.stdin.close()
        return child.wait()


PROCESS = Process()


def fits(thing: Any) -> bool:
    """Whether JSON of this is at most LONGEST. A part that is referred to twice counts twice, so a
    circular structure ends, too.
    """
    waiting, room = [thing], LONGEST
    while waiting and room >= 0:
        value = waiting.pop()
        inner: Any = ()
        if isinstance(value, dict):
            inner = value.values()
            room -= sum(len(key) for key in value if isinstance(key, str))
        elif isinstance(value, (list, tuple)):
            inner = value
        elif isinstance(value, str):
            room -= len(value)
        room -= 16 * len(inner)
        waiting += inner if room >= 0 else ()
    return room >= 0


def ask(schema: Any, arguments: dict | None) -> list[Told]:
    """All that is wrong with a schema, or else with arguments; None: only the schema is judged.

    A fault's kind is missing, unexpected, type or value, or "schema" if that is to blame. Ends
    within about VERDICT_SECONDS, whatever it is given. Raises RuntimeError where the process that
    judges cannot start.
    """
    if not fits(schema):
        return [("schema", f"it is {TOO_LARGE}", "")]
    if not fits(arguments):
        return [("value", f"the arguments are {TOO_LARGE}", "")]
    try:
        schema_text = json.dumps(schema, allow_nan=False)
        arguments_text = json.dumps(arguments)  # calls.decode_call has looked at these
    except (TypeError, ValueError, RecursionError) as problem:
        return [("schema", f"it is no JSON: {shortened(str(problem))}", "")]
    answer = PROCESS.answer(schema_text, arguments_text)
    if answer is not None:
        return [tuple(fault) for fault in answer]
    limits = f"could not be checked within {VERDICT_SECONDS} s and {MEMORY >> 20} MB"
    if len(schema_text) > len(arguments_text):  # which is to blame cannot be known: the longer one
        return [("schema", f"it {limits}", "")]
    return [("value", f"the arguments {limits}", "")]


if __name__ == "__main__":
    main()
