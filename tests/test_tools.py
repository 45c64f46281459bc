"""tools.py: every fault is named and none escapes, plans against the standard library's sorter,
hard negatives against the leaderboard's rule.
"""

import graphlib
import json
import random
import tracemalloc

import bfcl_rule
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worlds.calls import call_from_openai, check_call, read_calls, read_message, write_call
from worlds.negatives import hard_negatives, slip
from worlds.plans import Plan, read_plan
from worlds.tools import Fault, check_tools, compact_tool, make_tool

KEMI = make_tool(
    "kemi",
    "gives dolu",
    {
        "rana": {"type": "integer", "minimum": 1},
        "bolo": {"type": "string", "enum": ["slow", "fast"]},
        "when": {"type": "string", "format": "date"},
        "more": {"type": "object", "properties": {"x": {"type": "number"}}},
    },
    ["rana"],
)


def kinds(arguments, name="kemi"):
    return [fault.kind for fault in check_call({"name": name, "arguments": arguments}, [KEMI])]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"rana": 3}, []),
        ({"rana": 3, "bolo": "fast", "when": "2025-03-01", "more": {"x": 1}}, []),
        ({}, ["missing"]),
        ({"rana": "3"}, ["type"]),
        ({"rana": 3.0}, ["type"]),  # the leaderboard's rule, not JSON Schema's
        ({"rana": True}, ["type"]),
        ({"rana": 0}, ["value"]),
        ({"rana": 3, "bolo": "quick"}, ["value"]),
        ({"rana": 3, "when": "2025-02-30"}, ["value"]),
        ({"rana": 3, "limit": 1}, ["unexpected"]),
        ({"rana": 3, "more": {"x": 1, "y": 2}}, ["unexpected"]),
        ({"rano": 3}, ["unexpected", "missing"]),
        ({"rana": 2**63}, ["value"]),
        ({"rana": float("nan")}, ["value"]),
        ({"rana": {1, 2}}, ["syntax"]),
        ({1: 2}, ["syntax"]),
    ],
)
def test_each_fault_has_its_kind(arguments, expected):
    assert kinds(arguments) == expected


def test_messages_say_what_was_found_and_what_was_wanted():
    say = lambda call: check_call(call, [KEMI])[0].message
    assert (
        say({"name": "kemi", "arguments": {"rana": 1, "rano": 3}})
        == "unknown key rano; the schema has rana, bolo, when, more"
    )
    assert say({"name": "kemi", "arguments": {"rana": "3"}}) == "rana must be integer, not string"
    assert say({"name": "kemu", "arguments": {}}) == "no tool kemu; there are kemi"
    assert (
        say({"name": "kemi", "arguments": {"rana": 1, "more": {"x": "1"}}})
        == "more.x must be number, not string"
    )


def raw(arguments: str) -> str:
    return '{"name": "kemi", "arguments": ' + arguments + "}"


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "not JSON"),
        ("kemi(3)", "not JSON"),
        ("[1]", "keys name and arguments"),
        ('{"name": "kemi"}', "keys name and arguments"),
        ('{"name": 3, "arguments": {}}', "name must be a string"),
        ('{"name": "kemi", "arguments": "{}"}', "arguments must be an object"),
        (raw('{"rana": 1, "rana": 2}'), "stands twice"),
        (raw('{"rana": NaN}'), "NaN"),
        (raw('{"rana": -Infinity}'), "Infinity"),
        (raw('{"rana": 1e999}'), "no JSON number"),
        (raw('{"rana": ' + "9" * 5000 + "}"), "not JSON"),
        (raw('{"rana": ' + "9" * 30 + "}"), "64 bits"),
        (raw('{"bolo": "\\ud800"}'), "not valid Unicode"),
        (raw('{"\\udfff": 1}'), "no text"),
        (raw('{"more": ' + '{"x": ' * 40 + "1" + "}" * 40 + "}"), "deeper"),
        ("[" * 900_000, "deeper"),
        (raw('{"rana": ' + "[" * 5_000_000), "characters"),
        (raw('{"bolo": "' + "a" * 10_000_000 + '"}'), "characters"),
        (b'{"name": "kemi", "arguments": {"rana": 1}} \xff\xfe', "not JSON"),
    ],
)
def test_bad_text_is_a_named_fault(text, word):
    faults = check_call(text, [KEMI])
    assert (
        faults
        and faults[0].kind in ("syntax", "value")
        and word in faults[0].message
        and len(faults[0].message) < 250
    )


def test_a_long_key_over_many_elements_takes_little_memory():
    """Each element's path in full would take 600 MB."""
    text = raw('{"' + "k" * 20_000 + '": [' + "1, " * 30_000 + "1e999]}")
    tracemalloc.start()
    faults = check_call(text, [KEMI])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert faults and most < 100e6, most


def test_calls_are_found_in_text():
    first, second = (
        {"name": "kemi", "arguments": {"rana": 1}},
        {"name": "kemi", "arguments": {"rana": 2, "bolo": "ä<tool>"}},
    )
    assert read_calls(f"plan\n{write_call(first)} and {write_call(second)}") == (
        [first, second],
        [],
    )
    assert read_calls("no call at all") == ([], [])
    calls, faults = read_calls(
        f"<tool_call>{{broken</tool_call>{write_call(first)}<tool_call>" + json.dumps(second)
    )
    assert (
        calls == [first]
        and [f.kind for f in faults] == ["syntax", "syntax"]
        and "not closed" in faults[1].message
    )
    assert read_calls(write_call(first).encode() + b"\xff") == ([first], [])


def test_many_open_tags_are_read_in_linear_time():
    calls, faults = read_calls("<tool_call>" * 20_000)
    assert not calls and len(faults) == 20_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                [
                    "type",
                    "properties",
                    "required",
                    "items",
                    "enum",
                    "$ref",
                    "pattern",
                    "name",
                    "function",
                    "parameters",
                    "arguments",
                    "anyOf",
                    "minimum",
                    "format",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.text() | st.binary() | json_values, json_values)
@settings(max_examples=300)
def test_nothing_escapes_from_calls(value, arguments):
    for call in (
        value,
        {"name": "kemi", "arguments": arguments},
        json.dumps({"name": "kemi", "arguments": arguments}),
    ):
        assert all(isinstance(fault, Fault) for fault in check_call(call, [KEMI]))
    if isinstance(value, (str, bytes)):
        wrapped = value.decode("latin-1") if isinstance(value, bytes) else value
        for text in (
            value,
            f"<tool_call>{wrapped}</tool_call>",
            wrapped + "</tool_call><tool_call>",
        ):
            calls, faults = read_calls(text)
            assert isinstance(calls, list) and all(
                fault.kind in ("syntax", "value") for fault in faults
            )


@given(json_values, json_values)
@settings(max_examples=300)
def test_nothing_escapes_from_schemas(schema, arguments):
    for toolbox in (
        schema,
        [schema],
        [{"type": "function", "function": schema}],
        [{"type": "function", "function": {"name": "kemi", "parameters": schema}}],
        [
            {
                "type": "function",
                "function": {
                    "name": "kemi",
                    "parameters": {"type": "object", "properties": {"a": schema}},
                },
            }
        ],
    ):
        faults = check_tools(toolbox)
        assert all(fault.kind == "schema" for fault in faults)
        found = check_call(
            {
                "name": "kemi",
                "arguments": arguments if isinstance(arguments, dict) else {"a": arguments},
            },
            toolbox,
        )
        assert all(isinstance(fault, Fault) for fault in found)


def test_malformed_tools_are_named():
    bad = make_tool("kemi", "", {"rana": {"type": "integr"}})
    assert (
        check_tools([bad])[0].where == "kemi"
        and check_call({"name": "kemi", "arguments": {"rana": 1}}, [bad])[0].kind == "schema"
    )
    assert "two tools" in check_tools([KEMI, KEMI])[0].message
    assert (
        check_tools("kemi")[0].kind
        == "schema"
        == check_call({"name": "kemi", "arguments": {}}, None)[0].kind
    )
    assert check_tools([KEMI]) == []


def test_compact_line():
    assert (
        compact_tool(KEMI)
        == "gives dolu: kemi(rana, bolo?, when?, more?) int, slow|fast, str, {x num?}"
    )
    assert (
        compact_tool(make_tool("f", "", {"a": {"enum": [None, True, 1, "x"]}}))
        == "f(a) null|true|1|x"
    )
    for parameters in ({}, None, {"type": "object"}):
        assert (
            compact_tool(
                {
                    "type": "function",
                    "function": {"name": "f", "description": None, "parameters": parameters},
                }
            )
            == "f()"
        )


# -------------------------------------------------------------------------------------------- plans


@given(
    st.dictionaries(
        st.integers(1, 8),
        st.lists(st.integers(1, 8), max_size=3).map(tuple),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=500)
def test_circles_against_the_standard_library(edges):
    plan = Plan({number: ("go", after) for number, after in edges.items()})
    faults = plan.check()
    assert sorted((int(f.where)) for f in faults if f.kind == "unknown_step") == sorted(
        n for n, after in edges.items() for o in after if o not in edges
    )
    try:
        order = list(
            graphlib.TopologicalSorter(
                {n: [o for o in after if o in edges] for n, after in edges.items()}
            ).static_order()
        )
    except graphlib.CycleError:
        (circle,) = [f for f in faults if f.kind == "circle"]
        path = [int(n) for n in circle.message.split("circle ")[1].split(" → ")]
        assert path[0] == path[-1] and all(
            b in edges[a] for a, b in zip(path, path[1:])
        )  # a circle of edges that are in the plan
        assert f'"{path[-2]} after {path[-1]}"' in circle.message and int(circle.where) == path[-2]
    else:
        assert not [f for f in faults if f.kind == "circle"]
        if not faults:
            assert plan.respected(order) == []
            late = next(((n, o) for n, after in edges.items() for o in after), None)
            if late:  # the needed step moved behind the step that needs it
                moved = [n for n in order if n != late[1]] + [late[1]]
                assert "order" in {f.kind for f in plan.respected(moved)}


def test_plan_text():
    text = "Here is the plan:\n1. kemi for dolu: rana 17\n2. pasa (after 1)\n3. go (after 1, 2)"
    plan, faults = read_plan(text)
    assert not faults and plan.steps == {
        1: ("kemi for dolu: rana 17", ()),
        2: ("pasa", (1,)),
        3: ("go", (1, 2)),
    }
    assert read_plan(plan.write()) == (plan, [])
    assert [f.kind for f in read_plan("nothing")[1]] == ["syntax"]
    assert [f.kind for f in read_plan("1. a\n1. b\n2. c (after 7)\n3. d (after 3)")[1]] == [
        "duplicate",
        "unknown_step",
        "circle",
    ]
    assert [f.kind for f in plan.respected([2, 1, 4])] == ["order", "unknown_step", "unfinished"]


def test_a_line_of_many_spaces_is_read_at_once():
    """A pattern that tries every way to share them out would take days."""
    spaces = " " * 20_000
    plan, _ = read_plan(f"1. a{spaces}x\n2.{spaces}b{spaces}(after 1){spaces}\n3. (after 1)")
    assert plan.steps == {1: (f"a{spaces}x", ()), 2: ("b", (1,)), 3: ("", (1,))}


def test_a_plan_of_100_000_steps():
    steps = {n: ("go", (n - 1,) if n > 1 else ()) for n in range(1, 100_001)}
    assert Plan(steps).check() == [] and Plan(dict(reversed(steps.items()))).check() == []
    assert Plan({**steps, 1: ("go", (100_000,))}).check()[0].kind == "circle"


@given(st.text())
def test_nothing_escapes_from_plans(text):
    plan, _ = read_plan(text)
    plan.respected([1, 2, 3])


# ----------------------------------------------------------------------------------- hard negatives


def test_negatives_are_what_they_say():
    call = {"name": "kemi", "arguments": {"rana": 3, "bolo": "fast"}}
    for seed in range(200):
        wrong = hard_negatives(call, [KEMI], random.Random(seed))
        assert {f.kind for f in check_call(wrong["type"], [KEMI])} == {"type"}
        assert {f.kind for f in check_call(wrong["key"], [KEMI])} == {"unexpected"}
        assert check_call(wrong["logic"], [KEMI]) == [] and wrong["logic"] != call
    assert hard_negatives(
        {"name": "kemi", "arguments": {"rana": 3}}, [KEMI], random.Random(0)
    ) == hard_negatives({"name": "kemi", "arguments": {"rana": 3}}, [KEMI], random.Random(0))


def test_a_call_without_arguments_has_no_type_or_logic_negative():
    assert set(
        hard_negatives(
            {"name": "now", "arguments": {}}, [make_tool("now", "", {})], random.Random(0)
        )
    ) == {"key"}


def test_leaderboard_ground_truth_and_negatives(real_data):
    """1 140 ground-truth calls through `check`, and their negatives through a judge that shares no
    line with tools.py.
    """
    truths = negatives = agreed = 0
    for case, functions, answers in bfcl_rule.cases(real_data / "bfcl"):
        toolbox = [bfcl_rule.tool(function) for function in functions]
        assert check_tools(toolbox) == []
        for answer in answers:
            call = next(bfcl_rule.truths(answer, functions))
            function, allowed = (
                next(f for f in functions if f["name"] == call["name"]),
                next(iter(answer.values())),
            )
            truths += 1
            assert (
                check_call(call, toolbox) == [] and bfcl_rule.judge(function, allowed, call) == ""
            ), case
            for kind, negative in hard_negatives(call, toolbox, random.Random(case)).items():
                negatives += 1
                agreed += (
                    bfcl_rule.judge(function, allowed, negative)
                    == {"type": "type_error", "key": "unexpected_param", "logic": "value_error"}[
                        kind
                    ]
                )
    assert truths == 1140 and negatives >= 1000 and agreed >= 0.99 * negatives


@pytest.mark.parametrize(
    "call",
    [{"name": "kemi", "arguments": {"rana": 3, "bolo": "fast"}}, {"name": "now", "arguments": {}}],
)
def test_slips_are_refused_and_their_words_agree_with_them(call):
    """Of jsonschema as of the check; a made-up name stands in the words where the right one stood,
    and nowhere else.
    """
    toolbox = [KEMI, make_tool("now", "", {}), make_tool("tave", "", {"sepe": {"type": "integer"}})]
    words, found = "dolu: kemi(rana, bolo)\n1. now and kemi for dolu: rana 3", set()
    for seed in range(200):
        slipped = slip(
            words,
            call,
            toolbox,
            random.Random(seed),
            lambda used: next(n for n in ("rana", "zuzu") if n not in used),
        )
        if slipped is None:
            continue
        said, wrong = slipped
        fault = check_call(wrong, toolbox)[0].kind
        found.add(fault)
        if wrong["name"] != call["name"]:
            assert (
                fault == "unknown_tool"
                and wrong["arguments"] == call["arguments"]
                and said == words.replace(call["name"], "zuzu")
            )
            continue
        assert list(
            jsonschema.Draft202012Validator(
                {**KEMI["function"]["parameters"], "additionalProperties": False}
            ).iter_errors(wrong["arguments"])
        )
        gone, new = (
            set(call["arguments"]) - set(wrong["arguments"]),
            set(wrong["arguments"]) - set(call["arguments"]),
        )
        if gone and new:
            assert (
                fault == "unexpected"
                and new <= {"sepe", "zuzu"}
                and said == words.replace(gone.pop(), new.pop())
            )
        else:
            assert said == words
    assert found == (
        {"unknown_tool", "unexpected", "missing", "type"} if call["arguments"] else {"unknown_tool"}
    )


# ------------------------------------------------------------------------------------------ framing

TAGGED = st.lists(
    st.sampled_from(
        [
            "<tool_call>",
            "</tool_call>",
            "<think>",
            "</think>",
            '"',
            "\\",
            "\n",
            "{",
            "}",
            ":",
            ",",
            " ",
            "é🍸",
            "\u2028",
            "\x00",
        ]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    max_size=8,
).map("".join)
plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TAGGED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TAGGED, inner, max_size=3),
    max_leaves=6,
)
any_call = st.builds(
    lambda name, arguments: {"name": name, "arguments": arguments},
    TAGGED,
    st.dictionaries(TAGGED, plain_json, max_size=3),
)


@given(st.lists(any_call, min_size=1, max_size=3))
@settings(max_examples=400)
def test_what_is_written_is_what_is_parsed(calls):
    """Whatever stands in the strings, tags of both kinds too; one call or several, side by side or
    with words between.
    """
    for between in ("\n", "", " and then "):
        assert read_calls(between.join(map(write_call, calls))) == (calls, [])


LOOK, DROP = (
    {"name": "look", "arguments": {"x": 1}},
    '<tool_call>{"name": "drop", "arguments": {}}</tool_call>',
)


@pytest.mark.parametrize(
    "thought",
    [
        f"<think>maybe {DROP}, no</think>",
        f"maybe {DROP}, no</think>",
        f"<think>{DROP}</think>{DROP}</think>",
        "<think>I could emit <tool_call> but not yet</think>",
        'I could emit <tool_call>{"name": "drop", but no</think>',
        f"<think>one {DROP}</think>\n<think>two {DROP}</think>",
        "<think>\n\n</think>",
        '<think>a call looks like "<tool_call>" and ends like "</tool_call>"</think>',
    ],
)
def test_a_call_drafted_in_a_thought_is_none(thought):
    assert read_calls(f"{thought}\n{write_call(LOOK)}") == ([LOOK], [])
    words, calls = read_message(f"{thought}\nanswer: 3")
    assert (words.strip(), calls) == ("answer: 3", [])


def test_a_thought_that_never_ends_hides_all_behind_it():
    assert read_message(f"look.<think>hm {DROP}{write_call(LOOK)}") == ("look.", [])
    words, calls = read_message(f"first this.\n{write_call(LOOK)}<think>and {DROP}")
    assert words == "first this.\n" and [call for _, call in calls] == [LOOK]


@pytest.mark.parametrize(
    "text, found",
    [
        (
            f'<tool_call>{{"name": "a</tool_call>{write_call(LOOK)}',
            ["not JSON", LOOK],
        ),  # an open string swallows nothing
        (
            f'<tool_call>{{"name": "a</tool_call>{write_call(LOOK)}<tool_call>{{"x</tool_call>',
            ["not JSON", LOOK, "not JSON"],
        ),
        (
            f"{write_call(LOOK)}<tool_call>{{}} and so on</tool_call>{write_call(LOOK)}",
            [LOOK, "not JSON", LOOK],
        ),
        (f"<tool_call>{json.dumps(LOOK)}{write_call(LOOK)}", ["not closed", LOOK]),
        ("<tool_call></tool_call>", ["not JSON"]),
        ("</tool_call>", []),
        ("<tool_call>", ["not closed"]),
        (f"<tool_call>{json.dumps(LOOK)}{json.dumps(LOOK)}</tool_call>", ["not JSON: Extra data"]),
        (f"<tool_call>[{json.dumps(LOOK)}]</tool_call>", ["found a list"]),
        ('<tool_call>{"name": "\\ud83c", "arguments": {}}</tool_call>', ["not valid Unicode"]),
        (
            '<tool_call>{"name": "f", "arguments": {"a": ["x\\udf78"]}}</tool_call>',
            ["not valid Unicode"],
        ),
        (
            '<tool_call>{"name": "f", "arguments": {"a": "\ud83c"}}</tool_call>',
            ["not valid Unicode"],
        ),
        ('<tool_call>{"name": "f", "\\ud83c": 1, "\\ud83c": 2}</tool_call>', ["twice"]),
        (
            '<tool_call>{"name": "f", "arguments": {"a": "tab\there"}}</tool_call>',
            ["control character"],
        ),
        ('<tool_call>{"name": "f", "arguments": {"a": "\\x41"}}</tool_call>', ["escape"]),
    ],
)
def test_calls_and_faults_come_in_order(text, found):
    _, calls = read_message(text)
    assert len(calls) == len(found)
    for (_, call), wanted in zip(calls, found):
        assert call == wanted if isinstance(wanted, dict) else wanted in call.message
        assert (
            isinstance(call, dict) or call.message.encode()
        )  # and the fault itself can be written


def test_escaped_pairs_are_one_character():
    (call,) = read_calls(
        r'<tool_call>{"name": "f", "arguments": {"a": "\ud83c\udf78 caf\u00e9"}}</tool_call>'
    )[0]
    assert call["arguments"]["a"] == "🍸 café"


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 100_000,
        "<tool_call>{" * 100_000,
        '<tool_call>\\"' * 100_000,
        '<tool_call>{"a":' * 100_000,
        "<tool_call>" + "[" * 10_000_000,
        '<tool_call>{"a": "' + "x" * 10_000_000,
        "<think>" * 100_000,
        "</think>" * 100_000,
        "<tool_call></think>" * 100_000,
        '<tool_call>"a"' + " " * 10_000_000,
        "<tool_call>" + '"",' * 3_000_000,
    ],
)
def test_hostile_text_ends(text):
    """In a second or two; where reading were quadratic, in hours."""
    assert read_calls(text)[0] == []


@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}', json.dumps('{"a": 1}')])
def test_arguments_come_in_every_dress(arguments):
    assert call_from_openai({"name": "f", "arguments": arguments}) == {
        "name": "f",
        "arguments": {"a": 1},
    }


@pytest.mark.parametrize("arguments", [None, "", " \n", "null", "{}", {}, '""'])
def test_no_arguments_are_none(arguments):
    assert (
        call_from_openai({"name": "f", "arguments": arguments})
        == {"name": "f", "arguments": {}}
        == call_from_openai({"name": "f"})
    )


@pytest.mark.parametrize(
    "function, word",
    [
        ({"name": "f", "arguments": [1]}, "list"),
        ({"name": "f", "arguments": 3}, "int"),
        ({"name": "f", "arguments": "{a: 1}"}, "arguments are not JSON"),
        ({"name": "f", "arguments": json.dumps(json.dumps(json.dumps({})))}, "str"),
        ({"name": None, "arguments": {}}, "name"),
        ({"name": {"f": 1}}, "name"),
        ({}, "name"),
        ("f", "str"),
        (None, "NoneType"),
        ({"name": "f", "arguments": '{"a": 1, "a": 2}'}, "twice"),
        ({"name": "f", "arguments": "[" * 100_000}, "deeper"),
        ({"name": "f", "arguments": '{"a": "\\ud83c"}'}, "Unicode"),
        ({"name": "f", "arguments": "1" * 2_000_000}, "characters"),
    ],
)
def test_what_is_no_call_in_the_field_is_named(function, word):
    assert word in call_from_openai(function).message
