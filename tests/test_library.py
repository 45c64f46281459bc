"""The library world: every tool's schema, phrasing and value works, hostile arguments are bounded,
and what is held out stays held out.
"""

import json
import random
import re
import time
from collections import Counter
from dataclasses import replace

import pytest

from config import Distill
from weighted_examples import drawn_trajectories
from worlds.base import Episode, failed
from worlds.calls import check_call
from worlds.catalogue.everything import CATALOGUE
from worlds.catalogue.values import PHRASE, or_pasted
from worlds.difficulty import Difficulty
from worlds.expert import invented, negatives_of, solve_task
from worlds.faults import FAULT_KINDS, HELD_OUT_KINDS
from worlds.library import (
    CALL_LIMITS,
    WORDINGS,
    Library,
    LibraryDrawing,
    carry_out,
    draw_call,
    draw_next,
    entries_of,
    same_value,
    tool_of_entry,
)
from worlds.splits import SPLITS, split_of
from worlds.tasks import PURPOSES, Tasks, draw_task, world_names
from worlds.tools import check_tools


def drawing(split: str, seed: int = 0) -> LibraryDrawing:
    return LibraryDrawing(seed, Difficulty(split=split, names="english"))


def tasks(split: str, count: int, **knobs):
    knobs = {"chain": 3, **knobs}
    return [draw_task("library", 5, i, Difficulty(split=split, **knobs)) for i in range(count)]


# ---------------------------------------------------------------------------------- the catalogue


def test_there_is_enough_of_everything():
    assert len(CATALOGUE) >= 80
    assert len({entry.module for entry in CATALOGUE.values()}) >= 16
    for split in SPLITS:
        assert len(entries_of(split)) >= 14
        assert len({entry.module for entry in entries_of(split)}) >= 3
    assert sum(len(entries_of(split)) for split in SPLITS) == len(CATALOGUE)


def test_every_phrasing_is_one_tools_own():
    phrasings = [text for entry in CATALOGUE.values() for text in entry.phrasings]
    assert len(set(phrasings)) == len(phrasings)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_tool_is_whole(name):
    entry = CATALOGUE[name]
    tool = tool_of_entry(name)
    assert check_tools([tool]) == []
    properties = tool["function"]["parameters"]["properties"]
    assert all(schema["description"] for schema in properties.values())
    assert len(json.dumps(tool)) < 650  # characters: a prompt of three has some 400 tokens
    assert len(entry.phrasings) >= 8
    for text in (*entry.phrasings, entry.noun):
        assert set(re.findall(r"{(\w+)}", text)) <= set(properties)
    for phrasing in entry.phrasings:
        assert set(entry.required) <= set(entry.needed(phrasing)), phrasing


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_phrasing_fills_and_its_call_runs(name):
    """What the tool says is what the function returned when the task was drawn."""
    entry = CATALOGUE[name]
    for place, line in enumerate(entry.lines):
        alone = replace(entry, lines=(line,))
        call = draw_call(drawing(split_of(entry.module), place), alone)
        assert call is not None
        assert not re.search(r"[{}]\w+[}]", call.phrasing.format(**dict.fromkeys(call.texts, "")))
        assert check_call(dict(name=name, arguments=call.arguments), [tool_of_entry(name)]) == []
        assert json.loads(carry_out(dict(name=name, arguments=call.arguments))) == call.result


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_request_gives_every_value(name):
    """Texts, numbers and lists stand in the request as they are in the call, but for spelling."""
    entry = CATALOGUE[name]
    for seed in range(20):
        call = draw_call(drawing(split_of(entry.module), seed), entry)
        sentence = call.sentence()
        for key, text in call.texts.items():
            assert text[1:] in sentence  # its first letter may begin the sentence
            kind = entry.values[key]
            if kind.type in ("text", "words", "numbers"):
                values = call.arguments[key]
                for value in values if isinstance(values, list) else [values]:
                    assert str(value) in sentence


def test_modules_are_connected():
    """Many pairs of tools can follow each other, in every split."""
    for split in SPLITS:
        pairs = set()
        for seed in range(600):
            draw = drawing(split, seed)
            first = draw_call(draw, draw.rng.choice(entries_of(split)))
            second = draw_next(draw, [first])
            if second:
                pairs.add((first.entry.name, second.entry.name))
        assert len(pairs) >= 20, split


# --------------------------------------------------------------------------------------- the world


@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_solves_every_family(split):
    kinds = (*FAULT_KINDS, *HELD_OUT_KINDS[split])
    found = set()
    for knobs in (
        dict(special=0.2),
        dict(special=0.0, fault_rate=1.0, fault_kinds=kinds),
        dict(special=0.5, tools=6, decoys=3, distractors=2),
    ):
        for task in tasks(split, 300, **knobs):
            messages, episode = solve_task(task)
            assert (episode.verified, invented(episode)) == (True, 0), task.request
            found.add((task.kind, len(task.solution)))
    wanted = {("call", 1), ("chain", 2), ("chain", 3), ("pair", 2), ("ask", 0), ("none", 0)}
    assert wanted <= found


@pytest.mark.parametrize("longer", [0.0, 0.5, 1.0])
def test_as_many_tasks_as_wanted_are_longer(longer):
    found = tasks("train", 300, special=0.0, chain=2, longer=longer)
    share = sum(len(task.solution) == 2 for task in found) / len(found)
    assert share == pytest.approx(longer, abs=0.09)  # three standard errors
    settings = Distill(longer=longer, renamed=0.3)
    assert (Difficulty.of(settings).longer, Difficulty.of(settings).renamed) == (longer, 0.3)


def test_half_of_the_texts_of_a_tool_may_be_pasted():
    kind = or_pasted(PHRASE)
    rng = random.Random(0)
    drawn = [kind.draw(rng) for _ in range(400)]
    pasted = [text for text in drawn if " " not in text]  # a phrase has several words
    assert len(pasted) == pytest.approx(200, abs=30)
    assert len({re.sub(r"[a-z0-9]+", "", text.lower()) for text in pasted}) > 8  # many forms
    for text in drawn:
        written = {kind.write(rng, text) for _ in range(30)}
        assert (text in written) == (text in pasted)  # alone, or in quotation marks
        assert f'"{text}"' in written
        assert kind.fits(text) or not any(map(str.isalpha, text))


@pytest.mark.parametrize("split", SPLITS)
def test_every_hard_negative_fails(split):
    kinds = {"type": 0, "key": 0, "logic": 0}
    calls = 0
    for task in tasks(split, 80, special=0.0):
        calls += len(task.solution)
        for negative in negatives_of(task):
            kinds[negative["kind"]] += 1
            assert task.fails(negative["right"], negative["wrong"])
    assert all(count >= 0.97 * calls for count in kinds.values()), (kinds, calls)


@pytest.mark.parametrize("split", SPLITS)
def test_related_requests_share_their_tools(split):
    kinds = Counter()
    for task in tasks(split, 60):
        found = [Library.related(task, number) for number in (1, 2, 3)]
        assert found == [Library.related(task, number) for number in (1, 2, 3)]
        found = [related for related in found if related]
        assert len({t.request for t in [task, *found]}) == 1 + len(found)
        for related in found:
            assert related.tools == task.tools
            messages, episode = solve_task(related, faults=False)
            assert episode.verified and not invented(episode)
            kinds[related.kind] += 1
    assert set(kinds) == {"call", "chain", "pair", "ask", "none"}
    assert kinds.total() > 100  # few tools allow few chains


def test_renamed_tools_are_the_same_tasks():
    own = {entry.name: set(entry.values) for entry in entries_of("train")}
    seen = Counter()
    for plain, task in zip(tasks("train", 60), tasks("train", 60, renamed=1.0), strict=True):
        assert (task.request, task.truth["results"]) == (plain.request, plain.truth["results"])
        assert not check_tools(task.tools)
        shown = {tool["function"]["name"]: tool["function"]["parameters"] for tool in task.tools}
        assert len(shown) == len(task.tools)
        for step in task.solution:
            assert step.call["arguments"].keys() <= shown[step.call["name"]]["properties"].keys()
            assert step.goal.startswith(f"{step.call['name']}: ")
        for some in [task, *filter(None, (Library.related(task, number) for number in (1, 2)))]:
            assert some.tools == task.tools
            _, episode = solve_task(some, faults=False)
            assert episode.verified and not invented(episode)
        seen["own names"] += sum(name in own for name in shown)
        seen["own keys"] += sum(
            key in own.get(name, ()) for name in shown for key in shown[name]["properties"]
        )
        seen["tools"] += len(shown)
    assert seen["own names"] < 0.4 * seen["tools"] and seen["own keys"] < 0.4 * seen["tools"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_measured_keeps_its_names(split):
    assert [t.tools for t in tasks(split, 20, renamed=1.0)] == [t.tools for t in tasks(split, 20)]


def test_a_conversation_holds_several_requests():
    c = Distill(worlds="library,math", trajectories=20, requests=4, names="english", babble=0.0)
    asked = Counter()
    for row in drawn_trajectories(c, "qwen"):
        texts = [m["content"] for m in row["earlier"] if m["role"] == "user"]
        assert len(set(texts)) == len(texts) and row["messages"][0]["content"] not in texts
        assert row["earlier"][-1:] == [] or row["earlier"][-1]["role"] == "assistant"
        asked[row["world"]] += len(texts)
    assert asked["library"] > 20 and not asked["math"]


def test_an_answer_is_grounded():
    """The right words without the call do not count, nor another value with it."""
    for task in tasks("train", 60, special=0.0):
        with Episode(task) as idle, Episode(task) as busy:
            for step in task.solution:
                busy.step(step.call)
            assert not idle.verify(task.answer)
            assert busy.verify(task.answer)
            assert not busy.verify("answer: something else")
            assert not busy.verify(task.answer.removeprefix("answer: "))


@pytest.mark.parametrize(
    "said, wanted, same",
    [
        ("54", 54.0, True),
        ("54.0000001", 54.0, True),
        ("54.01", 54.0, False),
        ('"Tuesday"', "Tuesday", True),
        (" Tuesday. ", "Tuesday", True),
        ("tuesday", "Tuesday", False),
        ("3", "3", True),
        ("[1, 2.0]", [1, 2], True),
        ("[2, 1]", [1, 2], False),
        ("1, 2", [1, 2], False),
        ("true", 1, False),
        ("NaN", 1.0, False),
        ("[" * 100_000, [1], False),
        ("9" * 5000, 9, False),
        ("9" * 400, 9.0, False),
        ("5140844.", 5140844, True),
        ("5140845", 5140844, False),
        ("5140844.0", 5140844, True),
        ("[1, 2].", [1, 2], True),
    ],
)
def test_answers_are_compared_by_value(said, wanted, same):
    assert same_value(said, wanted) is same


HOSTILE = [
    ("factorial", {"n": 10**9}),
    ("factorial", {"n": -1}),
    ("ways_to_choose", {"n": 2**62, "k": 2**61}),
    ("longest_shared_part", {"first": "a" * 1900, "second": "a" * 1900}),
    ("similarity", {"first": "ab" * 900, "second": "ba" * 900}),
    ("find_emails", {"text": "a" * 3900}),
    ("find_emails", {"text": "a" * 10**6}),
    ("add_days", {"start": "2024-01-01", "days": 2**62}),
    ("shift_letter", {"letter": "a", "steps": 2**62}),
    ("rotate_list", {"entries": ["a", "b"], "steps": 2**62}),
    ("in_groups", {"entries": ["a", "b"], "size": 2**70}),
    ("all_pairs", {"players": ["a"] * 700}),
    ("doublings_needed", {"start": 5e-324, "goal": 1e300}),
    ("yearly_growth", {"start": 1e-300, "end": 1e15, "years": 1}),
    ("savings_after", {"amount": 1e300, "percent": 1000.0, "years": 200}),
    ("new_words", {"old": "a b " * 450, "new": "b a " * 450}),
    ("similar_words", {"word": "ab" * 900, "known": ["ba" * 900]}),
    ("mask_digits", {"text": "1" * 3900, "shown": -(2**62)}),
    ("address_after", {"address": "10.0.0.1", "steps": 2**62}),
    ("round_to", {"number": 1e300, "places": 3}),
    ("nearest_fraction", {"number": 1e-300, "largest": 2**62}),
    ("add_fractions", {"first": "1e999999999", "second": "1/3"}),
    ("json_value", {"document": "[" * 3000, "key": "a"}),
    ("utc_offset", {"zone": "../../etc/passwd", "day": "2024-01-01"}),
    ("convert_time", {"time": "", "source": "", "target": "\0"}),
    ("split_command", {"command": "'"}),
    ("largest", {"values": [1.0], "count": 2**62}),
    ("count_addresses", {"network": "::/0"}),
    ("shorten", {"text": "a b", "width": -5}),
    ("wrap_lines", {"text": "a " * 1900, "width": 1}),
    ("pairs_with_sum", {"values": [1] * 1200, "total": 2}),
]


@pytest.mark.parametrize("name, arguments", HOSTILE)
def test_hostile_arguments_are_bounded(name, arguments):
    """In seconds and bytes, with a word, and the next call works."""
    began = time.monotonic()
    observation = carry_out({"name": name, "arguments": arguments})
    assert len(observation.encode()) <= CALL_LIMITS.output + 100
    assert "\n" not in observation
    assert time.monotonic() - began < 30  # generous: a call's two seconds and a start
    assert carry_out({"name": "factorial", "arguments": {"n": 5}}) == "120"


def test_every_tool_takes_any_valid_value():
    """Values of the right types from nowhere: an observation in one line, never an exception."""
    rng = random.Random(0)
    texts = ("", "a", "\n", "é☂", "-1", "2024-02-30", "[]", "%", "{x}", "\ud83d\ude00")
    for name in CATALOGUE:
        properties = tool_of_entry(name)["function"]["parameters"]["properties"]
        for _ in range(6):
            values = {
                "string": rng.choice(texts),
                "integer": rng.choice((0, -1, 1, 2**63 - 1, -(2**63))),
                "number": rng.choice((0, -1.5, 1e300, 5e-324)),
                "array": [],
            }
            arguments = {
                key: schema["enum"][0] if "enum" in schema else values[schema["type"]]
                for key, schema in properties.items()
            }
            observation = carry_out({"name": name, "arguments": arguments})
            assert "\n" not in observation
            assert failed(observation) or json.loads(observation) is not None


# --------------------------------------------------------------------------------------- held out


def leaks(split: str, count: int) -> list[str]:
    """What tasks of a split show of other splits: tools, and pieces of 12 letters and more that
    only the others' phrasings have.
    """
    mine = {entry.name for entry in entries_of(split)}
    foreign = [entry for entry in CATALOGUE.values() if entry.name not in mine]
    names = re.compile("|".join(rf"\b{entry.name}\b" for entry in foreign if "_" in entry.name))
    own = " ".join(text for entry in entries_of(split) for text in entry.phrasings)
    texts = [text for entry in foreign for text in entry.phrasings]
    for some in WORDINGS.values():
        own += " ".join(getattr(some, split))
        texts += [text for other in SPLITS if other != split for text in getattr(some, other)]
    pieces = [max(re.split(r"{\w+}", text), key=len).strip() for text in texts]
    pieces = [piece for piece in pieces if len(piece) >= 12 and piece not in own]
    assert len(pieces) > 100
    found = []
    for task in tasks(split, count, distractors=1, fault_rate=0.3):
        shown = {tool["function"]["name"] for tool in task.tools}
        messages, _ = solve_task(task, slips=True)
        text = json.dumps([task.request, task.tools, messages, negatives_of(task)])
        found += [*(shown - mine), *names.findall(text)]
        found += [piece for piece in pieces if piece in task.request]
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_shows_no_others_tools_or_words(split):
    assert leaks(split, 400) == []


def test_a_leak_is_found(monkeypatch):
    every = list(CATALOGUE.values())
    monkeypatch.setattr("worlds.library.entries_of", lambda split: every)
    assert leaks("train", 40) != []


def test_purposes_share_no_task():
    seen = {}
    for purpose in PURPOSES:
        drawn = Tasks(purpose, 1337, ["library"], Difficulty())
        for index in range(0, 40_000, 997):
            assert seen.setdefault(drawn[index].seed, purpose) == purpose


def test_all_worlds_means_those_in_invented_words():
    assert "library" not in world_names("all")
    assert world_names("all") == ["api", "sql", "shell", "math", "safety"]
    assert world_names("library,api") == ["library", "api"]


def test_what_no_tool_of_the_prompt_does_none_can_stand_in_for():
    """The day of the year of 31 January says how long January is."""
    stand_in = {"calendar": "datetime", "datetime": "calendar"}
    seen = 0
    for index in range(400):
        task = draw_task("library", 0, index, Difficulty(split="test", special=1.0))
        if task.answer == "no tool fits" and task.constraints:
            asked = CATALOGUE[task.constraints["goal"]].module
            shown = {CATALOGUE[tool["function"]["name"]].module for tool in task.tools}
            assert not shown & {asked, stand_in.get(asked)}, task.request
            seen += asked in stand_in
    assert seen
