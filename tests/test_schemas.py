"""schemas.py: unlisted keys are invented, dialects and patterns are read or refused, costs end.

The right verdicts are written out, or those of the library jsonschema, which shares no line with
jsonschema-rs.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import schemas
from worlds.calls import check_call
from worlds.tools import Fault, check_tools, openai_tools
from conftest import ROOT

X = {"type": "object", "properties": {"x": {"type": "integer"}}}
NULL = {"type": "null"}


def function(parameters):
    return {
        "type": "function",
        "function": {"name": "kemi", "description": "", "parameters": parameters},
    }


def check(parameters, arguments):
    return check_call({"name": "kemi", "arguments": arguments}, [function(parameters)])


def obj(inner, **more):
    """A tool with one argument p."""
    return {"type": "object", "properties": {"p": inner}, **more}


# ------------------------------------------------------------------------------------ invented keys

MODE = {
    "type": "object",
    "properties": {"mode": {"enum": ["a", "b"]}},
    "if": {"properties": {"mode": {"const": "a"}}, "required": ["mode"]},
    "then": {"properties": {"n": {"type": "integer"}}},
    "else": {"properties": {"m": {"type": "integer"}}},
}
KIDS = {"type": "array", "items": {"$ref": "#/$defs/T"}}
TREE = {"$defs": {"T": {"type": "object", "properties": {"v": {}, "kids": KIDS}}}}
CARD = {
    "type": "object",
    "properties": {"card": {}},
    "dependentSchemas": {"card": {"properties": {"zip": {}}, "required": ["zip"]}},
}
DISC = {
    "type": "object",
    "properties": {"kind": {"const": "disc"}, "r": {"type": "integer"}},
    "required": ["kind"],
}
BOX = {
    "type": "object",
    "properties": {"kind": {"const": "box"}, "w": {"type": "integer"}},
    "required": ["kind"],
}
SHAPES = [DISC, BOX]


@pytest.mark.parametrize(
    "schema, good, bad, where",
    [
        (obj(X), {"p": {"x": 1}}, {"p": {"x": 1, "hint": 2}}, "p.hint"),
        (
            obj({"$ref": "#/$defs/X"}, **{"$defs": {"X": X}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"$ref": "#/definitions/X"}, definitions={"X": X}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"$ref": "#/$defs/a~1b%20c"}, **{"$defs": {"a/b c": X}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"$ref": "#named"}, **{"$defs": {"X": {"$anchor": "named", **X}}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"$dynamicRef": "#named"}, **{"$defs": {"X": {"$dynamicAnchor": "named", **X}}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"$ref": "urn:x"}, **{"$defs": {"X": {"$id": "urn:x", **X}}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        ({"$ref": "#/$defs/X", "$defs": {"X": X}}, {"x": 1}, {"hint": 1}, "hint"),
        (
            obj({"$ref": "#/$defs/A"}, **{"$defs": {"A": {"$ref": "#/$defs/X"}, "X": X}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (obj({"anyOf": [X, NULL]}), {"p": None}, {"p": {"x": 1, "hint": 2}}, "p.hint"),
        (obj({"oneOf": [NULL, X], "default": None}), {"p": {"x": 1}}, {"p": {"hint": 2}}, "p.hint"),
        (
            obj({"anyOf": [{"$ref": "#/$defs/X"}, NULL]}, **{"$defs": {"X": X}}),
            {"p": {"x": 1}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"oneOf": SHAPES}),
            {"p": {"kind": "box", "w": 1}},
            {"p": {"kind": "box", "hint": 2}},
            "p.hint",
        ),
        (
            obj({"oneOf": SHAPES}),
            {"p": {"kind": "disc", "r": 1}},
            {"p": {"kind": "box", "w": 1, "r": 1}},
            "p.r",
        ),
        (
            obj({"allOf": [X, {"properties": {"y": {}}}]}),
            {"p": {"x": 1, "y": 2}},
            {"p": {"x": 1, "hint": 2}},
            "p.hint",
        ),
        (obj({"allOf": [{"type": "object"}, X]}), {"p": {"x": 1}}, {"p": {"hint": 2}}, "p.hint"),
        (
            obj({"$ref": "#/$defs/X", "properties": {"y": {}}}, **{"$defs": {"X": X}}),
            {"p": {"x": 1, "y": 2}},
            {"p": {"y": 1, "hint": 2}},
            "p.hint",
        ),
        (
            {"type": "object", "allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
            {"a": 1, "b": 2},
            {"hint": 1},
            "hint",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {}, "b": {}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            {"a": 1},
            {"a": 1, "hint": 1},
            "hint",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {}},
                "anyOf": [{"type": "object", "required": ["a"]}, {}],
            },
            {"a": 1},
            {"hint": 1},
            "hint",
        ),
        (
            obj({"type": "array", "items": {"$ref": "#/$defs/X"}}, **{"$defs": {"X": X}}),
            {"p": [{"x": 1}]},
            {"p": [{}, {"hint": 2}]},
            "p.1.hint",
        ),
        (
            obj({"type": "array", "prefixItems": [{}, X]}),
            {"p": [1, {"x": 1}]},
            {"p": [1, {"hint": 2}]},
            "p.1.hint",
        ),
        (
            obj({"type": "object", "additionalProperties": X}),
            {"p": {"any": {"x": 1}}},
            {"p": {"any": {"hint": 2}}},
            "p.any.hint",
        ),
        (
            obj({"type": "object", "patternProperties": {"^k": X}}),
            {"p": {"k1": {"x": 1}}},
            {"p": {"k1": {"hint": 2}}},
            "p.k1.hint",
        ),
        (
            obj({"type": "object", "properties": {"a": {}}, "patternProperties": {"^k": {}}}),
            {"p": {"a": 1, "k1": 2}},
            {"p": {"hint": 2}},
            "p.hint",
        ),
        (
            obj({"type": "array", "items": {"type": "array", "items": {"anyOf": [X, NULL]}}}),
            {"p": [[None]]},
            {"p": [[{"hint": 1}]]},
            "p.0.0.hint",
        ),
        (
            obj({"$ref": "#/$defs/T"}, **TREE),
            {"p": {"kids": [{"v": 1, "kids": []}]}},
            {"p": {"kids": [{"kids": [{"hint": 1}]}]}},
            "p.kids.0.kids.0.hint",
        ),
        (
            {"type": "object", "properties": {"v": {}, "next": {"$ref": "#"}}},
            {"next": {"v": 1}},
            {"next": {"next": {"hint": 1}}},
            "next.next.hint",
        ),
        (MODE, {"mode": "a", "n": 1}, {"mode": "a", "hint": 1}, "hint"),
        (MODE, {"mode": "b", "m": 1}, {"mode": "a", "m": 1}, "m"),
        (CARD, {"card": 1, "zip": 2}, {"card": 1, "zip": 2, "hint": 3}, "hint"),
        (CARD, {}, {"zip": 2}, "zip"),
        (obj(X, additionalProperties=True), {"p": {}, "more": 1}, {"p": {"hint": 1}}, "p.hint"),
        (obj({**X, "additionalProperties": False}), {"p": {"x": 1}}, {"p": {"hint": 1}}, "p.hint"),
        (
            obj({"type": "object", "propertyNames": {"pattern": "^k"}}),
            {"p": {"k1": 1}},
            {"p": {"hint": 1}},
            "p.hint",
        ),
        ({"type": "object", "properties": {"a": {}, "old": False}}, {"a": 1}, {"old": 1}, "old"),
        ({"type": "object", "properties": {}}, {}, {"hint": 1}, "hint"),
        ({"type": "object"}, {}, {"hint": 1}, "hint"),
        ({"type": "object", "additionalProperties": False}, {}, {"hint": 1}, "hint"),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                **obj({"type": "array", "items": [X]}),
            },
            {"p": [{"x": 1}]},
            {"p": [{"hint": 1}]},
            "p.0.hint",
        ),
    ],
)
def test_what_nobody_lists_is_invented(schema, good, bad, where):
    assert check_tools([function(schema)]) == [] == check(schema, good)
    assert [(fault.kind, fault.where) for fault in check(schema, bad)] == [("unexpected", where)]


@pytest.mark.parametrize(
    "schema, arguments",
    [
        (obj({"type": "object"}), {"p": {"any": 1}}),
        (obj({"type": "object", "properties": {}}), {"p": {"any": 1}}),
        (obj({}), {"p": {"any": {"deep": 1}}}),
        (obj({**X, "additionalProperties": True}), {"p": {"x": 1, "any": 2}}),
        (obj({**X, "additionalProperties": {"type": "string"}}), {"p": {"x": 1, "any": "s"}}),
        (obj({**X, "unevaluatedProperties": True}), {"p": {"any": 2}}),
        (obj({"allOf": [X, {"type": "object", "additionalProperties": True}]}), {"p": {"any": 1}}),
        (obj({"anyOf": [X, {"type": "object"}]}), {"p": {"any": 1}}),
        (obj({"anyOf": [X, True]}), {"p": {"any": 1}}),
        (
            obj(
                {"anyOf": [{"$ref": "#/$defs/X"}, {"$ref": "#/$defs/any"}]},
                **{"$defs": {"X": X, "any": {"type": "object"}}},
            ),
            {"p": {"any": 1}},
        ),
        (
            obj(
                {"$ref": "#/$defs/U"},
                **{
                    "$defs": {
                        "U": {
                            "oneOf": [
                                {**X, "required": ["x"]},
                                {"type": "object", "maxProperties": 1, "not": {"required": ["x"]}},
                            ]
                        }
                    }
                },
            ),
            {"p": {"any": 1}},
        ),
        (obj({"type": "object", "minProperties": 1}), {"p": {"any": 1}}),
        (obj({"type": "object", "required": ["a"]}), {"p": {"a": 1}}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"any": 1}),
        ({"type": "object", "patternProperties": {"^k": {}}}, {"k1": 1}),
    ],
)
def test_where_the_schema_says_otherwise_any_key_may_stand(schema, arguments):
    assert check_tools([function(schema)]) == [] == check(schema, arguments)


@pytest.mark.parametrize(
    "schema, arguments, expected",
    [
        (
            obj({"anyOf": [X, NULL]}),
            {"p": {"x": "s"}},
            [("type", "p.x must be integer, not string")],
        ),
        (obj({"anyOf": [X, NULL]}), {"p": 3}, [("type", "p must be object or null, not integer")]),
        (
            obj({"anyOf": [{**X, "required": ["x"]}, NULL]}),
            {"p": {"hint": 3}},
            [("unexpected", "unknown key p.hint; the schema has x"), ("missing", "missing p.x")],
        ),
        (
            obj({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            {"p": 1.0},
            [("type", "p must be integer or string, not number")],
        ),
        (
            obj({"type": ["integer", "null"]}),
            {"p": 1.0},
            [("type", "p must be integer, not number")],
        ),
        (
            obj({"oneOf": SHAPES}),
            {"p": {"kind": "box", "w": "s"}},
            [("type", "p.w must be integer, not string")],
        ),
        (
            obj({"oneOf": SHAPES}),
            {"p": {"kind": "box", "r": 1}},
            [("unexpected", "p.r does not go with the rest; there are kind, r, w")],
        ),
        (
            obj({"enum": ["a", None, True, 1]}),
            {"p": 2},
            [("value", "p must be a or null or true or 1, not 2")],
        ),
        (
            {"type": "object", "properties": {"a": {}}, "patternProperties": {"^k": {}}},
            {"hint": 1},
            [("unexpected", "unknown key hint; the schema has a, /^k/")],
        ),
        (
            {"type": "object"},
            {"hint": 1},
            [("unexpected", "unknown key hint; the schema has none")],
        ),
        (
            {"type": "object", "patternProperties": {"^k": {"type": "string"}}},
            {"k1": 1},
            [("type", "k1 must be string, not integer")],
        ),
    ],
)
def test_the_message_names_the_alternative_that_was_meant(schema, arguments, expected):
    assert [(fault.kind, fault.message) for fault in check(schema, arguments)] == expected


values = st.recursive(
    st.sampled_from([0, 1, 2.5, "s", True, None]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
leaves = st.sampled_from(
    [
        {},
        {"type": "integer"},
        {"type": "string"},
        {"type": "object"},
        {"enum": [1, "s", None]},
        {"required": ["a"]},
        {"$ref": "#/$defs/D"},
        {"minProperties": 1},
        True,
    ]
)


def larger(inner):
    some = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2),
            "anyOf": some,
            "allOf": some,
            "oneOf": some,
            "not": inner,
            "if": inner,
            "then": inner,
            "items": inner,
            "additionalProperties": inner,
            "dependentSchemas": st.dictionaries(st.sampled_from("ab"), inner, max_size=1),
        },
    )


shapes = st.recursive(leaves, larger, max_leaves=6)


@given(
    st.dictionaries(st.sampled_from("abc"), shapes, min_size=1, max_size=3),
    shapes.filter(lambda shape: "$ref" not in json.dumps(shape)),
    st.dictionaries(st.sampled_from("abcd"), values, max_size=3),
)
@settings(max_examples=600, deadline=None)
def test_what_passes_obeys_the_schema_as_it_was_written(properties, definition, arguments):
    schema = {"type": "object", "properties": properties, "$defs": {"D": definition}}
    if not check(schema, arguments):
        assert jsonschema.Draft202012Validator(schema).is_valid(arguments)


def test_a_closed_alternative_makes_nothing_right_that_was_wrong():
    """Each of the two takes {"x": 1} as written, and oneOf wants one; closed, only one takes it."""
    inner = [obj({"type": "object", "properties": {key: {}}}) for key in "xy"]
    schema = {"type": "object", "oneOf": inner}
    assert not jsonschema.Draft202012Validator(schema).is_valid({"p": {"x": 1}})
    assert check(schema, {"p": {"x": 1}})
    assert check({"type": "object", "anyOf": inner}, {"p": {"x": 1}}) == []


plain = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number", "string", "boolean"])},
    optional={"minimum": st.integers(-3, 0), "maximum": st.integers(0, 3)},
)
integer = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: type(value) is int
)
Strict = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=integer)


@given(
    st.dictionaries(st.sampled_from("abcd"), plain, max_size=4),
    st.data(),
    st.dictionaries(
        st.sampled_from("abcde"),
        st.integers(-5, 5) | st.sampled_from(["a", "z", True, 1.0, 2.5, None]),
        max_size=5,
    ),
)
@settings(max_examples=300, deadline=None)
def test_flat_calls_against_another_library(properties, data, arguments):
    names = st.sampled_from(sorted(properties)) if properties else st.nothing()
    schema = {
        "type": "object",
        "properties": properties,
        "required": data.draw(st.lists(names, unique=True)),
    }
    right = Strict({**schema, "additionalProperties": False}).is_valid(arguments)
    assert (check(schema, arguments) == []) == right


# ----------------------------------------------------------------------- schemas that no call obeys


@pytest.mark.parametrize(
    "schema, word",
    [
        ({"type": "object", "properties": {"q": {}}, "required": ["q", "site"]}, "requires site"),
        ({"type": "object", "required": ["q"]}, "requires q"),
        (
            obj({"type": "object", "properties": {"q": {}}, "required": ["site"]}),
            "/properties/p: it requires site",
        ),
        (
            {
                "type": "object",
                "allOf": [
                    {"properties": {"a": {}}, "required": ["a", "b"]},
                    {"properties": {"c": {}}},
                ],
            },
            "nothing can obey",
        ),
        (
            {
                "type": "object",
                "properties": {"q": {}},
                "anyOf": [{"required": ["x"]}, {"required": ["y"]}],
            },
            "nothing can obey",
        ),
        (
            {**obj({"type": "integer", "minimum": 3, "maximum": 2}), "required": ["p"]},
            "nothing can obey",
        ),
        ({**obj({"enum": ["a"], "type": "integer"}), "required": ["p"]}, "nothing can obey"),
        (
            {
                **obj(
                    {"$ref": "#/$defs/N"},
                    **{"$defs": {"N": {"allOf": [{"type": "string"}, {"type": "integer"}]}}},
                ),
                "required": ["p"],
            },
            "nothing can obey",
        ),
        (
            {**obj({"type": "array", "minItems": 3, "maxItems": 2}), "required": ["p"]},
            "nothing can obey",
        ),
        ({**obj({"enum": []}), "required": ["p"]}, "nothing can obey"),
        ({**obj(False), "required": ["p"]}, "nothing can obey"),
        (
            {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
            "nothing can obey",
        ),
        ({"type": "object", "properties": {}, "minProperties": 1}, "nothing can obey"),
        (obj({"$ref": "#/properties/p"}), "circle"),
        ({"type": "object", "anyOf": [{"$ref": "#"}]}, "circle"),
        (obj({"$ref": "#/$defs/none"}), "does not exist"),
        (obj({"type": "integr"}), "integr"),
        (obj({"required": "a"}), "required"),
        (obj({"properties": []}), "properties"),
        (obj({"multipleOf": 0}), "multipleOf"),
        (obj({"minLength": -1}), "minLength"),
        ({"type": "string"}, "of type object"),
        ([], "of type object"),
        (True, "of type object"),
        ("x", "of type object"),
        (3, "of type object"),
        (
            {"$schema": "http://json-schema.org/draft-03/schema#", "type": "object"},
            "draft 4, 6, 7, 2019-09 or 2020-12",
        ),
        ({"$schema": 7}, "$schema is 7"),
        (obj({"const": float("nan")}), "no JSON"),
        (obj({"const": {1, 2}}), "no JSON"),
        (obj({"const": "\ud800"}), ""),
        (obj({"$ref": "http://example.test/x"}), "not present"),
        (obj({"$ref": "file:///etc/passwd"}), "not present"),
    ],
)
def test_a_schema_that_cannot_be_used_is_named(schema, word):
    (fault,) = check_tools([function(schema)])
    assert (fault.kind, fault.where) == ("schema", "kemi")
    assert word in fault.message and len(fault.message) < 320
    assert [fault.kind for fault in check(schema, {})] == ["schema"]


def test_a_key_may_be_forbidden():
    """What generators write for a key that must not be there is no schema that nobody can obey."""
    for never in (False, {"not": {}}):
        schema = {"type": "object", "properties": {"a": {}, "b": never}}
        assert check_tools([function(schema)]) == [] == check(schema, {"a": 1})
        assert check(schema, {"b": 1})


def test_tools_of_other_formats_are_read():
    parameters = {"type": "object", "properties": {"name": {"type": "string"}}}
    said = {"name": "greet", "description": "says hello"}
    ours = [{"type": "function", "function": {**said, "parameters": parameters}}]
    mcp = {**said, "inputSchema": parameters, "annotations": {"readOnlyHint": True}}
    flat = {"type": "function", **said, "parameters": parameters, "strict": True}
    for found in (
        ours,
        [mcp],
        {"tools": [mcp]},
        {"jsonrpc": "2.0", "result": {"tools": [mcp]}},
        [ours[0]["function"]],
        [{**said, "input_schema": parameters}],
        [flat],
        [{"type": "function", "function": mcp}],
    ):
        assert openai_tools(found) == ours
    nothing = {"type": "object", "properties": {}}
    for bare in ({}, {"parameters": None}, {"inputSchema": None}):
        function = openai_tools([{"name": "now", **bare}])[0]["function"]
        assert function == {"name": "now", "parameters": nothing}
    for strange in ("x", None, 3, {"a": 1}, [3], [None, "x"], [{"function": 3}]):
        assert check_tools(openai_tools(strange))
    (fault,) = check_tools([{"type": "function", "function": mcp}])
    assert "inputSchema stands where parameters is wanted" in fault.message


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        None,
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"properties": {}},
        {"description": "none"},
        {"type": "object", "additionalProperties": False},
    ],
)
def test_a_tool_without_parameters_takes_no_arguments(parameters):
    assert check_tools([function(parameters)]) == [] == check(parameters, {})
    (fault,) = check(parameters, {"made_up": 1})
    assert (fault.kind, fault.where) == ("unexpected", "made_up")


def test_absent_parameters_are_no_parameters():
    bare = [{"type": "function", "function": {"name": "kemi"}}]
    (fault,) = check_call({"name": "kemi", "arguments": {"made_up": 1}}, bare)
    assert fault.kind == "unexpected"


# ---------------------------------------------------------------------- dialects, patterns, numbers

DRAFT4 = "http://json-schema.org/draft-04/schema#"
DRAFT7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("dialect", [None, DRAFT4, DRAFT7, DRAFT7.rstrip("#")])
@pytest.mark.parametrize(
    "inner, good, bad",
    [
        (
            {"type": "array", "items": [{"type": "number"}, {"type": "string"}]},
            [1, "a", None],
            ["a", 2],
        ),
        ({"type": "array", "items": [{"type": "number"}], "additionalItems": False}, [1], [1, 2]),
        (
            {"type": "array", "items": [{"type": "number"}], "additionalItems": {"type": "string"}},
            [1, "a"],
            [1, 2],
        ),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, 1, 0),
        ({"type": "integer", "maximum": 9, "exclusiveMaximum": True}, 8, 9),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": False}, 0, -1),
        (
            {"type": "object", "properties": {"a": {}, "b": {}}, "dependencies": {"a": ["b"]}},
            {"a": 1, "b": 2},
            {"a": 1},
        ),
        (
            {
                "type": "object",
                "properties": {"a": {}},
                "dependencies": {"a": {"properties": {"c": {}}, "required": ["c"]}},
            },
            {"a": 1, "c": 1},
            {"a": 1},
        ),
        ({"$ref": "#/definitions/A"}, 3, "x"),
        ({"$ref": "#/definitions/L/items/0"}, "x", 3),
    ],
)
def test_older_drafts(dialect, inner, good, bad):
    definitions = {"A": {"type": "integer"}, "L": {"type": "array", "items": [{"type": "string"}]}}
    schema = {**({"$schema": dialect} if dialect else {}), **obj(inner), "definitions": definitions}
    assert check_tools([function(schema)]) == [] == check(schema, {"p": good}) and check(
        schema, {"p": bad}
    )


def test_what_stands_beside_a_reference_counts_from_2019_on():
    beside = obj({"$ref": "#/definitions/A", "minimum": 5}, definitions={"A": {"type": "integer"}})
    assert check({"$schema": DRAFT7, **beside}, {"p": 1}) == [] != check(beside, {"p": 1})
    assert check({"$schema": "https://json-schema.org/draft/2019-09/schema", **beside}, {"p": 1})


@pytest.mark.parametrize(
    "pattern, good, bad",
    [
        (r"^\p{L}+$", "Größe", "a1"),
        (r"^\p{Script=Greek}+$", "αβ", "ab"),
        (r"^(?<year>\d{4})-(?<month>\d\d)$", "2024-01", "2024"),
        (r"^[\w-.]+$", "a-b.c", "a b"),
        (r"^[\d-x]+$", "1-x", "y"),
        (r"^[a-\d]$", "-", "b"),
        (r"^[\w\-]+$", "a-b", "a.b"),
        (r"^\u{1F600}$", "😀", "a"),
        (r"^\ud83d\ude00$", "😀", "a"),
        (r"^[\ud83d\ude00]$", "😀", "a"),
        (r"^\u0041\x42$", "AB", "ab"),
        (r"^\d{4}$", "2024", "2024\n"),
        (r"^\d$", "1", "٢"),
        (r"^\w+$", "abc_1", "Größe"),
        (r"^\s$", "\ufeff", "\x85"),
        (r"^\S$", "a", "\u00a0"),
        (r"^\/a\/$", "/a/", "a"),
        (r"^\cJ$", "\n", "J"),
        (r"^\0$", "\0", "0"),
        (r"^[\b]$", "\b", "b"),
        (r"^[^]$", "\n", "ab"),
        (r"^([]|a)$", "a", "b"),
        (r"^[[]$", "[", "]"),
        (r"^[a&&b]$", "&", "c"),
        (r"^[a~~b]$", "~", "c"),
        (r"^.$", "😀", "\u2028"),
        (r"^(?!x)\w$", "a", "x"),
        (r"^a(?=b)b$", "ab", "ac"),
        (r"(?<=a)b", "ab", "cb"),
        (r"(?<!a)b", "cb", "ab"),
        (r"^(a|b)\1$", "aa", "ab"),
        (r"^x{,3}$", "x{,3}", "xx"),
        (r"^\-\@\_$", "-@_", "a"),
        ("b", "abc", "xyz"),
        ("^#x y$", "#x y", "#"),
        (r"^\$\{a\}$", "${a}", "a"),
        (r"^[^\s@]+@[^\s@]+\.[^\s@]+$", "a@b.c", "a@b"),
        (r"^\+?[1-9]\d{1,14}$", "+4912345", "x"),
        ("^(?:[a-f0-9]{2}:){5}[a-f0-9]{2}$", "aa:bb:cc:dd:ee:ff", "aa"),
    ],
)
def test_patterns_of_ecma_262(pattern, good, bad):
    for schema, wrap in (
        (obj({"type": "string", "pattern": pattern}), lambda text: {"p": text}),
        ({"type": "object", "patternProperties": {pattern: {}}}, lambda text: {text: 1}),
        (
            {"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": {}},
            lambda text: {text: 1},
        ),
    ):
        assert check_tools([function(schema)]) == [] == check(schema, wrap(good)) and check(
            schema, wrap(bad)
        )


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "[a",
        "a**",
        r"\Z",
        r"\q",
        "(?<1>a)",
        "a{2,1}",
        r"\p{Nonsense}",
        "[b-a]",
        "(?P>a)",
        r"\k<none>",
    ],
)
def test_a_pattern_that_cannot_be_read_is_named(pattern):
    for schema in (
        obj({"pattern": pattern}),
        {"type": "object", "patternProperties": {pattern: {}}},
        obj({"anyOf": [{"pattern": pattern}, {}]}),
    ):
        (fault,) = check_tools([function(schema)])
        assert fault.kind == "schema" and "regex" in fault.message


@pytest.mark.parametrize(
    "schema, good, bad",
    [
        (
            {"multipleOf": 0.01},
            [0.07, 19.99, 4.35, 1.1, 0, 2**62 + 1, 1e300, -0.29],
            [0.075, 19.995],
        ),
        ({"multipleOf": 0.1}, [0.3, 1.1, 1e308], [0.35]),
        ({"multipleOf": 1e-300}, [1e300, 5], []),
        ({"multipleOf": 3}, [9007199254740993, 3.0], [9007199254740992, 3.5]),
        ({"type": "integer"}, [1, -(2**63), 2**63 - 1], [1.0, 1e300, True, "1", None]),
        ({"type": "number"}, [1, 1.0, 2**63 - 1], [True, "1", None]),
        ({"maximum": 2**53}, [2**53], [2**53 + 1]),
        ({"exclusiveMaximum": 10**400}, [2**63 - 1, 1e308], []),
        ({"enum": [1, "a"]}, [1, 1.0], [True, "1"]),
        ({"const": 2**53 + 1}, [2**53 + 1], [2.0**53]),
        (
            {"uniqueItems": True},
            [[1, True, "1"], [[1], [True]], [{"a": 1}, {"a": 2}]],
            [[1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]],
        ),
        ({"minLength": 2, "maxLength": 2}, ["😀😀", "äö"], ["😀", "abc"]),
        ({"format": "date"}, ["2024-02-29", 3], ["2025-02-30", "20250228", "2025-2-3"]),
        ({"format": "time"}, ["12:00:00Z", "12:00:00.5+01:00"], ["12:00", "25:00:00Z", "12:00:00"]),
        (
            {"format": "date-time"},
            ["2025-01-01T00:00:00Z", "2025-01-01t00:00:00.1+01:00"],
            ["2025-01-01", "2025-13-01T00:00:00Z", "2025-01-01 00:00:00Z", "tomorrow"],
        ),
        ({"format": "email"}, ["a@b.org"], ["a", "@", "a@"]),
        ({"format": "uri"}, ["https://a.b/c?d#e", "mailto:a@b"], ["a b", "/x", "//x"]),
        (
            {"format": "uuid"},
            ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
            ["2eb8aa08aa9811eab4aa73b441d16380", "x"],
        ),
        ({"format": "regex"}, ["a+"], ["("]),
        ({"format": "ipv4"}, ["1.2.3.4"], ["1.2.3.400", "01.2.3.4", "1.2.3"]),
        ({"format": "ipv6"}, ["::1"], ["1.2.3.4", ":::"]),
        ({"format": "made-up"}, ["x", 3], []),
    ],
)
def test_numbers_and_formats(schema, good, bad):
    for value in good:
        assert check(obj(schema), {"p": value}) == [], value
    for value in bad:
        assert check(obj(schema), {"p": value}), value


# ------------------------------------------------------------------------------------------- bounds


def ref(number):
    return {"$ref": f"#/$defs/d{number}"}


def chain(depth, keyword, width, end):
    """Definitions that each use the next one `width` times: width ** depth ways through them."""
    steps = {f"d{n}": {keyword: [ref(n + 1)] * width} for n in range(depth)}
    return {**steps, f"d{depth}": end}


def nested(depth, innermost, wrap):
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


START = {"type": "object", "properties": {"p": {"$ref": "#/$defs/d0"}}}
SLOW = "^(?=(a+)+$)(a|a)*\\1b$"
ATTACKS = {
    "doubling allOf": ({**START, "$defs": chain(60, "allOf", 2, {})}, {"p": 1}),
    "doubling anyOf": ({**START, "$defs": chain(60, "anyOf", 2, {"type": "string"})}, {"p": 1}),
    "doubling oneOf": ({**START, "$defs": chain(40, "oneOf", 3, {"type": "string"})}, {"p": 1}),
    "doubling unevaluated": (
        {
            **START,
            "$defs": {
                name: {**inner, "unevaluatedProperties": False}
                for name, inner in chain(40, "allOf", 2, X).items()
            },
        },
        {"p": {"x": 1}},
    ),
    "doubling if": (
        {
            **START,
            "$defs": {"d60": X}
            | {f"d{n}": {key: ref(n + 1) for key in ("if", "then", "else")} for n in range(60)},
        },
        {"p": 1},
    ),
    "doubling properties": (
        {
            **START,
            "$defs": {"d60": X}
            | {f"d{n}": {"properties": {key: ref(n + 1) for key in "xy"}} for n in range(60)},
        },
        {"p": {}},
    ),
    "recursive alternatives": (
        {**START, "$defs": {"d0": {"anyOf": [{"type": "array", "items": ref(0)}] * 8}}},
        {"p": nested(28, "x", lambda inner: [inner])},
    ),
    "product of alternatives": (
        obj(nested(3, {"type": "string"}, lambda inner: {"anyOf": [inner] * 20})),
        {"p": 1},
    ),
    "long chain": ({**START, "$defs": chain(3000, "allOf", 1, {})}, {"p": 1}),
    "pattern": (obj({"pattern": "^(a+)+$"}), {"p": "a" * 900_000 + "!"}),
    "pattern looking ahead": (obj({"pattern": "(?=.*a)(?:.*)*(x+x+)+y"}), {"p": "x" * 900_000}),
    "pattern referring back": (obj({"pattern": r"(.*)*(.*)\1\2(.*)\3z"}), {"p": "x" * 3000}),
    "pattern keys": (
        {"type": "object", "patternProperties": {SLOW: {}}},
        {"a" * n + "!": 1 for n in range(1, 900)},
    ),
    "many pattern keys": (
        {"type": "object", "patternProperties": {f"(?=.)(a|a)*{n}b$": {} for n in range(2000)}},
        {"a" * 30 + str(n): 1 for n in range(2000)},
    ),
    "property names": (
        {"type": "object", "propertyNames": {"pattern": SLOW}, "additionalProperties": True},
        {"a" * n + "!": 1 for n in range(1, 900)},
    ),
    "repeated repeats": (obj({"pattern": "((((a{1,100}){1,100}){1,100}){1,100})"}), {"p": "a"}),
    "large patterns": (
        obj({"allOf": [{"pattern": r"[\p{L}\p{N}]{%d}" % n} for n in range(200, 500)]}),
        {"p": "a"},
    ),
    "unique objects": (obj({"uniqueItems": True}), {"p": [{"id": n} for n in range(25_000)]}),
    "unique lists": (obj({"uniqueItems": True}), {"p": [[0] * 20 + [n] for n in range(2500)]}),
    "giant enum": (
        obj({"items": {"enum": [[0] * 8 + [n] for n in range(4000)]}}),
        {"p": [[0] * 8 + ["x"]] * 5000},
    ),
    "errors without end": (
        obj({"anyOf": [{"type": "array", "items": {"type": "string"}}] * 1000}),
        {"p": list(range(50_000))},
    ),
    "long value, many alternatives": (
        obj({"anyOf": [{"enum": ["a"]}] * 5000}),
        {"p": "x" * 900_000},
    ),
    "unknown keys": (
        {"type": "object", "allOf": [{"properties": {f"p{n}": {}}} for n in range(5000)]},
        {f"k{n}": 1 for n in range(30_000)},
    ),
    "contains": (
        obj({"contains": {"anyOf": [{"type": "string"}, {"minimum": 1e9}]}, "minContains": 50}),
        {"p": list(range(50_000))},
    ),
    "unevaluated items": (
        obj({"unevaluatedItems": False, "allOf": [{"contains": {"const": n}} for n in range(300)]}),
        {"p": list(range(50_000))},
    ),
    "dynamic circle": (
        obj(
            {"$dynamicRef": "#n"}, **{"$defs": {"x": {"$dynamicAnchor": "n", "$dynamicRef": "#n"}}}
        ),
        {"p": 1},
    ),
    "deep schema": (obj(nested(900, {}, lambda inner: {"allOf": [inner]})), {"p": 1}),
    "very deep schema": (obj(nested(50_000, {}, lambda inner: {"items": inner})), {"p": 1}),
    "folded schema": (obj(nested(60, {}, lambda inner: {"allOf": [inner, inner]})), {"p": 1}),
    "folded arguments": (obj({}), {"p": nested(30, 1, lambda inner: [inner, inner])}),
    "large schema": (obj({"properties": {"x" * 3_000_000: {}}}), {}),
    "many properties": (
        {"type": "object", "properties": {f"k{n}": {"anyOf": [X, NULL]} for n in range(3000)}},
        {"k1": {"hint": 1}},
    ),
    "many references": (
        {
            "type": "object",
            "properties": {f"k{n}": {"$ref": "#/$defs/d"} for n in range(8000)},
            "$defs": {"d": {"properties": {f"p{n}": {} for n in range(5000)}}},
        },
        {},
    ),
    "many required": (
        {
            "type": "object",
            "properties": {},
            "additionalProperties": True,
            "required": [f"k{n}" for n in range(30_000)],
        },
        {},
    ),
    "a million brackets": (obj({}), {"p": [[] for _ in range(300_000)]}),
    "satisfiability": (
        {
            "type": "object",
            "allOf": [
                {
                    "anyOf": [
                        {"properties": {f"p{n}": {"const": m}}, "required": [f"p{n}"]}
                        for m in range(6)
                    ]
                }
                for n in range(40)
            ],
        },
        {"p1": 1},
    ),
    "meta-schema": (
        obj({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
        {"p": {"properties": {f"k{n}": {"type": "integr"} for n in range(12_000)}}},
    ),
    "format": (obj({"format": "idn-hostname"}), {"p": "ä." * 400_000}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_costs_more_than_its_share(name):
    """Both judges end, though unbounded most take years or all memory; the next call is judged."""
    schema, arguments = ATTACKS[name]
    began = time.monotonic()
    found = [*check_tools([function(schema)]), *check(schema, arguments)]
    assert time.monotonic() - began < 15  # two seconds at most on a quiet machine
    assert all(isinstance(fault, Fault) and len(fault.message) < 500 for fault in found)
    assert len(found) <= schemas.MOST_FAULTS + 1
    assert [fault.kind for fault in check(obj(X), {"p": {"x": 1, "hint": 2}})] == ["unexpected"]
    status = open(f"/proc/{schemas.PROCESS.child.pid}/status").read()
    assert int(status.split("VmPeak:")[1].split()[0]) <= schemas.MEMORY >> 10


def test_the_memory_of_the_judging_process_is_bounded():
    """The kernel's own record of its peak. Without the limit, this one reaches gigabytes."""
    code = """if True:
        import resource, sys
        sys.path.insert(0, sys.argv[1])
        from support import schemas
        schema = {"type": "object", "properties": {"p": {"anyOf": [{"enum": ["a"]}] * 5000}}}
        assert "could not be checked" in schemas.ask(schema, {"p": "x" * 900_000})[0][1]
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    """
    run = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, check=True)
    assert int(run.stdout) <= schemas.MEMORY >> 10


def test_many_tools_that_each_take_long_end_together():
    slow = ATTACKS["doubling unevaluated"][0]
    toolbox = [
        {"type": "function", "function": {"name": f"t{n}", "parameters": slow}} for n in range(100)
    ]
    began = time.monotonic()
    faults = check_tools(toolbox)
    assert time.monotonic() - began < 15 and len(faults) < 10
    assert "t0" in faults[0].message and "could not be checked" in faults[-1].message


def test_an_ordinary_large_schema_is_no_attack():
    """135 kB of what generators write, as the largest real tools have it."""
    model = {"$ref": "#/$defs/M"}
    field = {
        "anyOf": [model, {"type": "array", "items": model}, NULL],
        "default": None,
        "description": "word " * 8,
    }
    schema = {
        "type": "object",
        "properties": {f"field{n}": field for n in range(700)},
        "$defs": {"M": X},
    }
    assert len(json.dumps(schema)) > 120_000 and check_tools([function(schema)]) == []
    (fault,) = check(schema, {"field3": [{"x": 1, "hint": 1}], "field699": None})
    assert (fault.kind, fault.where) == ("unexpected", "field3.0.hint")


def test_no_reference_is_fetched():
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/x"
        for schema in (
            obj({"$ref": url}),
            obj({"$dynamicRef": url}),
            {"$id": url, **obj({"$ref": "y"})},
            {"$schema": url, "type": "object"},
        ):
            assert [fault.kind for fault in check(schema, {"p": 1})] == ["schema"]
    finally:
        server.shutdown()
    assert asked == []


def test_the_process_is_replaced_when_it_is_gone():
    right, wrong = {"p": {"x": 1}}, {"p": {"x": "s"}}
    assert check(obj(X), right) == []
    os.kill(schemas.PROCESS.child.pid, signal.SIGKILL)
    schemas.PROCESS.child.wait()
    assert check(obj(X), right) == [] and [fault.kind for fault in check(obj(X), wrong)] == ["type"]


def test_an_interrupted_question_leaves_no_answer_behind(monkeypatch):
    assert check(obj(X), {}) == []

    class Interrupted:
        def __init__(self, stream):
            self.close = stream.close

        def readline(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(schemas.PROCESS.child, "stdout", Interrupted(schemas.PROCESS.child.stdout))
    with pytest.raises(KeyboardInterrupt):
        check(obj(X), {"p": {"hint": 1}})
    assert check(obj(X), {}) == []  # not the answer to the question before


def test_an_interrupted_start_leaves_nothing_ready_behind(monkeypatch):
    """A time limit may ring while a new child is waited for."""
    schemas.PROCESS.stop()
    wait_for = subprocess.Popen

    class Interrupted(subprocess.Popen):
        def __init__(self, *words, **more):
            super().__init__(*words, **more)
            monkeypatch.setattr(schemas.subprocess, "Popen", wait_for)
            self.stdout, stream = SimpleNamespace(close=lambda: stream.close()), self.stdout
            self.stdout.readline = self.ring

        def ring(self):
            raise TimeoutError

    monkeypatch.setattr(schemas.subprocess, "Popen", Interrupted)
    with pytest.raises(TimeoutError):
        check(obj(X), {"p": {"start": 1}})
    assert check(obj(X), {}) == [] and check(obj(X), {"p": {"x": "s"}})


def wrong_ones(questions):
    return [bool(check(obj(X), arguments)) for arguments in questions]


def test_threads_and_forks_get_their_own_answers():
    questions = [{"p": {"x": n if n % 2 else "s"}} for n in range(200)]
    right = [n % 2 == 0 for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda arguments: bool(check(obj(X), arguments)), questions)
        assert list(asked) == right
    if (child := os.fork()) == 0:
        os._exit(wrong_ones(questions) != right)
    assert wrong_ones(questions) == right
    assert os.waitpid(child, 0)[1] == 0
