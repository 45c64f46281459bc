"""The worlds in English: words, tables and wordings belong to one split each, the expert solves
every task, wrong calls fail, and tasks of made-up names are what they always were.
"""

import itertools
import random
import re
from collections import Counter
from string import Formatter

import pytest

from config import UserError
from sandboxed import require_sandbox
from worlds import english
from worlds.base import Episode, world_class
from worlds.difficulty import Difficulty
from worlds.english import (
    FILE_KINDS_IN_ENGLISH,
    ENGLISH_TABLES,
    OTHER_TOOLS,
    WORDS,
    draw_word,
    other_splits_words,
    words_of_split,
)
from worlds.expert import fingerprint, invented, preference, solve_task, trajectory
from worlds.extras.chance import by_chance
from worlds.faults import FAULT_KINDS, FAULT_TEXTS, HELD_OUT_KINDS, Reaction, react
from worlds.negatives import hard_negatives
from worlds.phrasings import FAULT_PHRASINGS, PHRASINGS
from worlds.safety import ACTS, dangerous
from worlds.splits import SPLITS, split_of
from worlds.tasks import draw_task

SPEAKING = list(PHRASINGS)  # the worlds that have English
ACTING = [name for name in SPEAKING if name != "math"]


@pytest.fixture(autouse=True)
def sandbox_for_the_shell(request):
    if "shell" in request.node.name:
        require_sandbox()


def in_english(split: str = "train", **knobs) -> Difficulty:
    kinds = (*FAULT_KINDS, *HELD_OUT_KINDS[split])
    return Difficulty(names="english", split=split, fault_kinds=kinds, **knobs)


# ------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_words_enough(split):
    fewest = {"people": 25, "surnames": 15, "towns": 20, "companies": 12, "products": 20}
    fewest |= {"titles": 12, "topics": 20, "folders": 20, "arguments": 12, "renamings": 6}
    fewest |= {"documents": 10, "data": 6, "services": 7}
    assert fewest.keys() == WORDS.keys()
    for kind, least in fewest.items():
        assert len(words_of_split(kind, split)) >= least, kind
    assert sum(split_of(table.name) == split for table in ENGLISH_TABLES) >= 10
    assert sum(split_of(tool["function"]["name"]) == split for tool in OTHER_TOOLS) >= 10


def test_words_are_well_formed_and_in_no_other_word_of_another_split():
    for kind, words in WORDS.items():
        assert len(set(words)) == len(words) and all(word == word.strip() for word in words), kind
    for split in SPLITS:
        own = [
            word for kind in WORDS if kind != "renamings" for word in words_of_split(kind, split)
        ]
        own += [str(tool) for tool in OTHER_TOOLS if split_of(tool["function"]["name"]) == split]
        own += [line for kind in FILE_KINDS_IN_ENGLISH.values() for line in kind.lines]
        for word in own:
            assert not other_splits_words(word, split), word


def test_no_column_of_one_splits_tables_is_in_anothers():
    splits: dict[str, set[str]] = {}
    for table in ENGLISH_TABLES:
        columns = [table.key, table.label, *table.numbers, *table.second_numbers]
        assert len({*columns}) == len(columns) and len(table.numbers) == 4
        for name in (table.name, table.second, *columns):
            assert re.fullmatch(r"[a-z_]+", name)
            splits.setdefault(name, set()).add(split_of(table.name))
        for values in (*table.numbers.values(), *table.second_numbers.values()):
            assert len(values) >= 12
        assert table.kind in WORDS and table.label_kind in WORDS
    assert [name for name, of in splits.items() if len(of) > 1] == []
    assert (
        len({table.name for table in ENGLISH_TABLES} | {table.second for table in ENGLISH_TABLES})
        == 82
    )


def test_a_topic_stands_nowhere_but_where_it_is_put():
    """grep finds the word of a request in the file that mentions it, and in no other."""
    contents = [
        line for kind in FILE_KINDS_IN_ENGLISH.values() for line in (*kind.lines, kind.mention)
    ]
    for kind in ("people", "towns", "companies", "products", "topics"):
        contents += WORDS[kind]
    for topic in WORDS["topics"]:
        assert [text for text in contents if topic in text] == [topic]


def test_words_run_out_with_a_sentence():
    used: set[str] = set()
    drawn = {
        draw_word(random.Random(0), "people", "test", used)
        for _ in words_of_split("people", "test")
    }
    assert drawn == used == {*words_of_split("people", "test")}
    with pytest.raises(UserError, match="more people than the .* fewer distractors"):
        draw_word(random.Random(0), "people", "test", used)


# --------------------------------------------------------------------------------------- wordings


def slots(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("world", PHRASINGS)
def test_everything_can_be_said_in_many_ways(world):
    phrasings = PHRASINGS[world]
    assert phrasings.keys() >= world_class(world).wordings.keys()
    for what, some in phrasings.items():
        assert len(some.train) >= 8 and min(len(some.validation), len(some.test)) >= 4, what
        texts = [*some.train, *some.validation, *some.test]
        assert len(set(texts)) == len(texts), what


def test_faults_can_be_said_in_many_ways_and_are_read_as_meant():
    """Whatever the names; and no English text reads like another kind's."""
    assert FAULT_PHRASINGS.keys() == FAULT_TEXTS.keys()
    names = {"key": "query", "new": "full_query", "value": 17}
    for kind, some in FAULT_PHRASINGS.items():
        held_out = kind not in FAULT_KINDS
        assert len(some.train) >= (0 if held_out else 8)
        for split in SPLITS:
            texts = getattr(some, split)
            assert len(texts) >= 4 or (held_out and not texts)
            for text in texts:
                new = "full_query" if kind == "renamed" else 421
                found = react("error: " + text.format(**names | {"new": new}))
                wanted = {slot: str({**names, "new": new}[slot]) for slot in slots(text)}
                assert found == Reaction(kind, **wanted), text


@pytest.mark.parametrize("name", SPEAKING)
@pytest.mark.parametrize("split", SPLITS)
def test_training_words_ask_for_the_same_english_tasks(name, split):
    for index in range(30):
        own = draw_task(name, 1, index, in_english(split))
        plain = draw_task(name, 1, index, in_english(split, request_wording="train"))
        assert (own.tools, own.solution, own.answer) == (plain.tools, plain.solution, plain.answer)
        assert own.constraints.keys() == plain.constraints.keys()
        for key, value in own.constraints.items():
            # of the math world: a sentence of the request, in its words
            if key.startswith("line "):
                assert value in own.request
            else:
                assert value == plain.constraints[key]
        assert (own.request == plain.request) == (split == "train")


# ------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "name, count",
    [
        *((name, 200) for name in SPEAKING if name != "shell"),
        ("shell", 50),
        pytest.param("shell", 200, marks=pytest.mark.slow),
    ],
)
def test_the_expert_solves_every_english_task(name, count, split):
    """Faults, slips and distractors included; and no word of another split is seen."""
    kinds = Counter()
    for index in range(count):
        knobs = {"fault_rate": 0.5, "distractors": index % 3, "chain": 3, "decoys": index % 4}
        task = draw_task(name, 1, index, in_english(split, **knobs))
        slips = index % 4 == 3
        messages, episode = solve_task(task, slips=slips)
        assert episode.verified, task.request
        assert slips or invented(episode) == 0
        kinds[task.kind] += 1
        shown = str([task.request, task.tools, messages])
        assert not other_splits_words(shown, split), other_splits_words(shown, split)
    assert len(kinds) >= (2 if name == "math" else 8)


@pytest.mark.parametrize("name", ACTING)
def test_english_negatives_go_wrong_when_executed(name):
    found: Counter = Counter()
    for index in range(15):
        task = draw_task(name, 1, index, in_english(special=0.0, chain=3))
        for step in task.solution:
            negatives = hard_negatives(step.call, task.tools, random.Random(index), task)
            found.update(calls=1, **dict.fromkeys(negatives, 1))
            for wrong in negatives.values():
                assert task.fails(step.call, wrong), wrong
    assert min(found.values()) >= 0.95 * found["calls"] > 5, found


@pytest.mark.parametrize("name", ACTING)
def test_chance_is_not_enough_in_english(name):
    assert by_chance(name, 100, difficulty=in_english()) <= 2


def test_a_word_of_another_split_is_found(monkeypatch):
    """Each kind of word, put where it does not belong."""
    everything = {kind: lambda _, kind=kind: WORDS[kind] for kind in WORDS}
    monkeypatch.setattr(english, "words_of_split", lambda kind, split: everything[kind](split))
    foreign = set()
    for name in ("sql", "safety"):
        for index in range(100):
            task = draw_task(name, 1, index, in_english(fault_rate=1.0))
            messages, _ = solve_task(task, slips=True)
            foreign |= other_splits_words(str([task.request, messages]), "train")
    for kind in ("people", "surnames", "towns", "topics", "folders", "arguments", "documents"):
        words = {f"{word}_" if kind == "documents" else word for word in WORDS[kind]}
        assert foreign & words, kind


def test_safety_has_look_alikes_in_english():
    """Unsafe calls are dangerous by rule, benign ones are not, and preferences say so."""
    kinds = set()
    for index in range(300):
        task = draw_task("safety", 2, index, in_english(SPLITS[index % 3]))
        kinds.add(task.kind)
        complying = task.truth.get("complies")
        assert not any(dangerous(step.call) for step in task.solution)
        if complying and task.truth["family"] != "hidden":
            assert dangerous(complying), complying
        pair = preference(task)
        for side in ("chosen", "rejected"):
            with Episode(task) as episode:
                for message in [*pair["prompt"], *pair[side]]:
                    for call in message.get("tool_calls", ()):
                        episode.step(call["function"])
                last = pair[side][-1]
                said = "answer: done" if last.get("tool_calls") else last["content"]
                assert episode.verify(said) == (side == "chosen")
    families = [*ACTS["english"].unsafe, "hidden"]
    assert kinds == {
        f"{way} {some}" for way, some in itertools.product(("unsafe", "benign"), families)
    }


def test_what_is_missing_may_be_asked_for_in_spoken_words():
    """ "ask: online players" where the column is called online_players."""
    tasks = (draw_task("sql", 0, i, Difficulty(names="english", special=1.0)) for i in range(200))
    task = next(task for task in tasks if task.answer.startswith("ask:") and "_" in task.answer)
    with Episode(task) as episode:
        assert episode.verify(task.answer.replace("_", " "))
        assert not episode.verify("ask: another")


def test_the_api_world_has_no_english():
    with pytest.raises(UserError, match="api world has invented names only.*all but api"):
        draw_task("api", 0, 0, in_english())


def test_an_english_trajectory_can_be_drawn_again():
    made = trajectory("sql", 0, 3, in_english("test"))
    assert made.difficulty["names"] == "english"
    assert made == trajectory("sql", made.seed, made.index, Difficulty(**made.difficulty))


# Of the expert's first 20 tasks of seed 3 as they were before there was English: whoever changes a
# world, the check or the expert on purpose records them anew.
FINGERPRINTS = {
    "api": "cb806982f3259367",
    "sql": "0a5f8675acae9e5a",
    "shell": "21f395c868baeedf",
    "math": "08b827a7ec45a1cd",
    "safety": "9a05d17555b03cd3",
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_made_up_tasks_are_what_they_were(name):
    assert fingerprint([name], 3, Difficulty()) == FINGERPRINTS[name]
