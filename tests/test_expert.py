"""expert.py: whole trajectories, reactions that come from the text alone, critiques that name the
true fault, preference pairs.
"""

import itertools
import random
import re
from collections import Counter

import pytest

import weighted_examples
from worlds.calls import value_text
from worlds.critique import critique
from worlds.expert import preference, solve_task, trajectory
from worlds.faults import react
from support import tokenizer
from worlds.calls import check_call, read_calls
from worlds.negatives import hard_negatives
from conftest import ROOT
from worlds.plans import read_plan
from clumsy import clumsy, prompt_of
from worlds import ALL_WORLDS, WORLDS
from worlds.base import Episode, failed, same_answer, world_class
from worlds.difficulty import Difficulty
from worlds.faults import (
    ENDINGS,
    FAULT_KINDS,
    FAULT_TEXTS,
    HELD_OUT_KINDS,
    OPENINGS,
    SLOTS,
    fault_text,
)
from worlds.splits import BABBLE, SPLITS, SYLLABLES
from worlds.tasks import draw_task
from worlds.__main__ import main as show

CALLING = [name for name in WORLDS if world_class(name).faults]


@pytest.mark.parametrize("name", WORLDS)
def test_trajectories_are_whole(name):
    for index in range(30):
        made = trajectory(name, 0, index, Difficulty(fault_rate=0.5, special=0.2))
        task = draw_task(name, 0, index, Difficulty(fault_rate=0.5, special=0.2))
        assert made.verified and made.invented == 0
        assert made.messages[0] == {"role": "user", "content": task.request} and made.messages[-1][
            "content"
        ].endswith(task.answer)
        roles = [m["role"] for m in made.messages[1:]]
        assert roles[::2] == ["assistant"] * len(roles[::2]) and roles[1::2] == ["tool"] * len(
            roles[1::2]
        )
        if (
            task.solution
        ):  # the plan is a graph without circles, and the steps are done in an order that it allows
            plan, faults = read_plan(made.messages[1]["content"].split("\n1:")[0])
            done = [
                int(m["content"].splitlines()[-1].split(":")[0])
                for m in made.messages
                if m.get("tool_calls")
            ]
            assert not faults and (plan.respected(done) == [] or name == "math")


@pytest.mark.parametrize("style", ["compact", "qwen"])
def test_trajectories_fit_the_chat_template(style):
    for name in WORLDS:
        made = trajectory(name, 0, 2, Difficulty(style=style))
        text = tokenizer.chat_text(made.messages, made.tools, style)
        calls, faults = read_calls(
            text.split("<|im_start|>user", 1)[1]
        )  # after the system message, whose own example is no call
        assert not faults and calls == [
            call["function"] for m in made.messages for call in m.get("tool_calls", ())
        ]
        assert all(isinstance(tool, str if style == "compact" else dict) for tool in made.tools)


def test_reactions_come_from_the_text_alone():
    """Whatever stands around a fault's core: 5 × 6 openings and endings."""
    for kind, texts in FAULT_TEXTS.items():
        new = "bolo" if kind == "renamed" else 421
        wanted = {"renamed": {"bolo": 17, "miru": True}, "type": {"rana": "17", "miru": True}}.get(
            kind,
            {"rana": 17, "miru": True}
            if kind in ("timeout", "locked")
            else {"rana": 421, "miru": True},
        )
        for text in (*texts.train, *texts.validation, *texts.test):
            for opening, ending in itertools.product(OPENINGS, ENDINGS):
                said = f"error: {opening}{text}{ending}".format(key="rana", value=17, new=new)
                assert react(said).change({"rana": 17, "miru": True}) == wanted, said
    assert (
        react("error: no such file") is None
        and react("error: nothing found") is None
        and react("42") is None
    )


def test_the_words_for_testing_are_never_used_in_training():
    rng = random.Random(0)
    for kind in FAULT_KINDS:
        for split in ("validation", "test"):
            held_out = getattr(FAULT_TEXTS[kind], split)
            assert {fault_text(kind, split, rng) for _ in range(50)} == {
                f"error: {core}" for core in held_out
            }
            assert not any(
                core in fault_text(kind, "train", rng, 0.3) for _ in range(300) for core in held_out
            )
    for split, kinds in HELD_OUT_KINDS.items():
        for kind in kinds:
            assert [other for other in SPLITS if getattr(FAULT_TEXTS[kind], other)] == [split]


def test_babble_says_nothing():
    """None of its words can be a name, or belongs to a text that is kept for testing (and to none
    of training's), or to an opening or ending; without its slots a fault's text is the same for all
    kinds.
    """
    wordings = [
        *FAULT_TEXTS.values(),
        *(some for name in ALL_WORLDS for some in world_class(name).wordings.values()),
    ]

    def words(texts) -> set[str]:
        return set(re.findall(r"\w+", re.sub(r"\{\w+\}", "", " ".join(texts)).lower()))

    held_out = words(text for some in wordings for text in (*some.validation, *some.test))
    held_out -= words(text for some in wordings for text in some.train)
    assert not set(BABBLE) & (held_out | words([*OPENINGS, *ENDINGS]))
    assert not any(re.fullmatch(f"(?:{'|'.join(SYLLABLES)})+", word) for word in BABBLE)
    allowed = {*BABBLE, *re.findall(r"\w+", " ".join(["error", *OPENINGS, *ENDINGS]))}
    for kind, slots in SLOTS.items():
        for seed in range(50):
            text = fault_text(kind, "train", random.Random(seed), babble=1.0)
            assert (
                re.findall(r"\{(\w+)\}", text) == slots.split()
                and set(re.findall(r"\w+", re.sub(r"\{\w+\}", "", text))) <= allowed
            )
    texts = [fault_text("type", "train", random.Random(seed), babble=0.3) for seed in range(1000)]
    assert (
        200
        < sum(set(re.findall(r"\w+", text.replace("{key}", ""))) <= allowed for text in texts)
        < 400
    )


@pytest.mark.parametrize("name", CALLING)
def test_a_slip_is_refused_and_then_put_right(name):
    made, kinds = 0, set()
    for index in range(80):
        task = draw_task(name, 0, index, Difficulty(fault_rate=0.3, babble=0.5))
        plain, (messages, episode) = solve_task(task)[0], solve_task(task, slips=True)
        slips = [place for place, message in enumerate(messages) if message.get("slip")]
        assert (
            episode.verified and len(slips) <= 1 and not any("slip" in message for message in plain)
        )
        assert [
            m.get("tool_calls") for m in messages if not m.get("slip") and m["role"] == "assistant"
        ] == [
            m.get("tool_calls") for m in plain if m["role"] == "assistant"
        ]  # nothing else differs
        for place in slips:
            made += 1
            wrong = messages[place]["tool_calls"][0]["function"]
            refused = next(entry for entry in episode.log if entry.call == wrong)
            kinds |= {fault.kind for fault in refused.faults}
            assert (
                refused.faults
                and messages[place + 1]["content"] == f"error: {refused.faults[0].message}"
                and messages[place + 2]["role"] == "assistant"
            )
    assert made > 30 and {"unknown_tool", "unexpected", "type", "missing"} <= kinds


# ---------------------------------------------------------------------------------------- critiques


def attempt(task, calls: list, answer: str) -> str:
    with Episode(task) as episode:
        for call in calls:
            episode.step(call)
        assert not episode.verify(answer)
        return critique(task, episode, answer)


@pytest.mark.parametrize("name", CALLING)
def test_a_critique_names_the_fault_of_every_negative(name):
    told = 0
    for index in range(60):
        task = draw_task(name, 2, index, Difficulty(special=0.0))
        plan = [step.call for step in task.solution]
        for place, right in enumerate(plan):
            for kind, wrong in hard_negatives(
                right, task.tools, random.Random(index), task
            ).items():
                with Episode(task) as episode:
                    for call in [*plan[:place], wrong]:
                        episode.step(call)
                    if episode.verify("answer: 0"):
                        continue
                    said = critique(task, episode, "answer: 0")
                told += 1
                faults = check_call(wrong, task.tools)
                if faults:
                    assert said == faults[0].message
                else:
                    changed = [
                        k
                        for k in {*right["arguments"], *wrong["arguments"]}
                        if right["arguments"].get(k) != wrong["arguments"].get(k)
                    ]
                    assert said.startswith(f"step {place + 1}:") and (
                        any(k in said for k in changed) or wrong["name"] in said
                    ), said
    assert told > 60


def test_critiques_of_everything_else():
    task = next(
        t
        for i in range(99)
        if len(
            (
                t := draw_task(
                    "api", 0, i, Difficulty(special=0.0, fault_rate=1.0, fault_kinds=("renamed",))
                )
            ).solution
        )
        == 2
    )
    first, second = [step.call for step in task.solution]
    clean = next(
        t
        for i in range(99)
        if len((t := draw_task("api", 0, i, Difficulty(special=0.0))).solution) == 2
    )
    assert "is missing" in attempt(clean, [clean.solution[0].call], "answer: 0")
    assert "last step" in attempt(clean, [s.call for s in clean.solution], "answer: 0")
    assert re.search(
        r"after \".+\": \w+ instead of \w+",
        attempt(task, [first], "answer: 0") + attempt(task, [first, first], "answer: 0"),
    )
    assert "is missing" in attempt(
        clean, [{"name": first["name"], "arguments": {}}, first], "answer: 0"
    )  # put right, so not to blame
    off = {
        **first,
        "arguments": {
            key: value + 1 if type(value) is int else value
            for key, value in first["arguments"].items()
        },
    }
    assert re.fullmatch(
        r"step 1: \w+ is \d+, not \d+",
        attempt(clean, [{"name": first["name"], "arguments": {}}, off], "answer: 0"),
    )  # the wrong number is
    assert "last step" in attempt(
        clean, [{**first, "arguments": {"x": 1}}, first, second], "answer: 0"
    )
    hidden = next(t for i in range(99) if (t := draw_task("safety", 0, i)).kind == "unsafe hidden")
    assert "nobody asked for" in attempt(
        hidden, [hidden.solution[0].call, hidden.truth["complies"]], hidden.answer
    )
    assert "not JSON" in attempt(clean, ["{oops"], "answer: 0")
    for kind, word in (("ask", "is not given, so ask"), ("none", "no tool fits")):
        special = next(
            t
            for i in range(99)
            if (t := draw_task("api", 0, i, Difficulty(special=1.0))).kind == kind
        )
        assert word in attempt(special, [], "answer: 0")
    unsafe = next(t for i in range(99) if (t := draw_task("safety", 0, i)).kind == "unsafe destroy")
    assert "destroys the whole system" in attempt(
        unsafe, [unsafe.truth["complies"]], "answer: done"
    )
    benign = next(t for i in range(99) if (t := draw_task("safety", 0, i)).kind == "benign destroy")
    assert "is missing" in attempt(
        benign, [], "refuse: not safe"
    ) or "nothing here is dangerous, so answer" in attempt(benign, [], "refuse: not safe")
    sums = next(t for i in range(99) if (t := draw_task("math", 0, i)).kind == "trap")
    pair = next(
        t for i in range(99) if "; " in (t := draw_task("library", 0, i)).answer and t.solution
    )
    both = [step.call for step in pair.solution]
    said = attempt(pair, both, f"answer: {pair.answer.rpartition('; ')[2]}")
    assert said == 'the last line must be "answer:" and what the steps gave'
    lines = "\n".join(f"{n}. {step.goal}" for n, step in enumerate(sums.solution, 1))
    for message in (lines, f"{lines}\nanswer: 0"):  # all lines are right
        said = attempt(sums, [], message)
        assert said == 'the last line must be "answer:" and what the last step gave'
    done = next(
        t for i in range(99) if (t := draw_task("sql", 0, i)).answer == "done" and t.solution
    )
    with Episode(done, faults=False) as episode:  # and then the room was used up
        for step in done.solution:
            episode.step(step.call)
        assert critique(done, episode, "1: and") == "every step was done, so say done"
    assert attempt(sums, [], f"1. x = 3\nanswer: {sums.truth['tempting']}").startswith(
        "line 1 should be"
    )


def test_a_line_that_only_begins_right_is_named():
    """ "baze = 210" for "baze = 21"."""
    task = next(t for t in (draw_task("math", 0, i) for i in range(9)) if len(t.solution) > 1)
    lines = [step.goal for step in task.solution]
    with Episode(task) as episode:
        said = critique(task, episode, "\n".join([f"{lines[0]}0", *lines[1:], "answer: 1"]))
    assert said == f"line 1 should be {lines[0]}"


def test_preference_pairs():
    kinds = set()
    for index in range(200):
        task = draw_task("safety", 0, index)
        pair = preference(task)
        kinds.add(task.kind)
        for side in ("chosen", "rejected"):
            with Episode(task) as episode:
                for message in [*pair["prompt"], *pair[side]]:
                    for call in message.get("tool_calls", ()):
                        episode.step(call["function"])
                assert episode.verify(
                    pair[side][-1]["content"]
                    if not pair[side][-1].get("tool_calls")
                    else "answer: done"
                ) == (side == "chosen")
    assert len(kinds) == 8 and preference(draw_task("api", 0, 0)) is None


@pytest.mark.parametrize("name", WORLDS)
def test_the_world_can_be_looked_at(name, capsys):
    show(["--show", name, "--tasks", "4", "--difficulty.fault-rate", "1"])
    said = capsys.readouterr().out
    assert said.count("verified") == 4 and "NOT" not in said and "\033" not in said


def test_the_episode_in_the_documents_is_what_the_command_prints(capsys):
    text = (ROOT / "docs" / "WORLDS.md").read_text()
    command = re.search("`python -m worlds (--show api [^`]+)`", text)
    show(command[1].split())
    printed = capsys.readouterr().out.strip().partition("\n")[2]
    assert f"```\n{printed}\n```" in text


@pytest.mark.parametrize("name", WORLDS)
def test_a_critique_says_nothing_false(name):
    """Whatever went wrong, and in whatever order: a right answer is not blamed, a step that was
    done is not missed, what is refused was refused.
    """
    kinds = Counter()
    for index in range(250):
        task = draw_task(name, 7, index, Difficulty(fault_rate=0.4, chain=3))
        played = clumsy(task, prompt_of(task), index)
        if played.verified:
            continue  # nobody asks what was wrong with it
        said = weighted_examples.criticise(played).critique
        refused = [
            entry.observation.removeprefix("error: ")
            for entry in played.log
            if failed(entry.observation)
        ]
        taken = [entry.taken for entry in played.log if entry.taken]
        answered = same_answer(played.messages[-1], task.answer)
        if said in refused:
            kinds["refused"] += 1
        elif blamed := re.fullmatch(r"step (\d+) is missing: .*", said, re.DOTALL):
            assert task.solution[int(blamed[1]) - 1].call not in taken, said
            kinds["missing"] += 1
        elif re.match(r"the (answer is|last line must be) |line \d+ should be ", said):
            assert not answered, (said, task.answer, played.messages[-1])
            gave = [entry.observation for entry in played.log if entry.taken]
            if "what the last step gave" in said:
                assert task.answer.removeprefix("answer: ") in gave[-1]
            kinds["answer"] += 1
        elif blamed := re.fullmatch(r"step (\d+) was done before step (\d+), which it needs", said):
            first, second = (
                taken.index(task.solution[int(number) - 1].call) for number in blamed.groups()
            )
            assert first < second
            kinds["order"] += 1
        elif said.startswith("nobody asked for "):
            assert said.removeprefix("nobody asked for ") in [
                value_text(entry.call) for entry in played.log if entry.taken
            ]
            kinds["surplus"] += 1
        elif blamed := re.fullmatch(r"step \d+: \w+ is the tool for this, not (\w+)", said):
            assert blamed[1] in [call["name"] for call in taken], said
            kinds["tool"] += 1
        elif blamed := re.fullmatch(r"step \d+: (\w+) is (.+), not (.+)", said, re.DOTALL):
            assert blamed[3] in [value_text(call["arguments"].get(blamed[1])) for call in taken], (
                said
            )
            kinds["value"] += 1
        else:
            kinds["other"] += 1
    assert len(kinds) >= (1 if name == "math" else 3), kinds


@pytest.mark.parametrize("name", CALLING)
def test_of_an_attempt_that_went_right_in_the_end_only_the_refused_call_is_named(name):
    named = 0
    for index in range(60):
        task = draw_task(name, 11, index, Difficulty(special=0.0))
        if not task.solution or not task.solution[0].call["arguments"]:
            continue
        plan = [step.call for step in task.solution]
        key = next(iter(plan[0]["arguments"]))
        short = {
            **plan[0],
            "arguments": {
                other: value for other, value in plan[0]["arguments"].items() if other != key
            },
        }
        with Episode(task) as episode:
            said = [episode.step(call) for call in [short, *plan]]
            if failed(said[0]) and episode.verify(task.answer):
                assert (
                    critique(task, episode, task.answer)
                    == said[0].removeprefix("error: ")
                    == f"missing {key}"
                )
                named += 1
    assert named > 20
