"""The leak audit: what a stage shows a model holds nothing that belongs to another split, and no
two purposes share a task.

Each part of a stage is walked as the stage itself makes it (the very token lists that are learnt
from, or what an episode puts before the model), decoded and read: made-up names, wordings of
requests and faults, words that only held-out wordings have, kinds of faults, seeds. A clumsy agent
acts where a stage lets the model act, so that refusals, critiques and revisions occur, too. Then
each leak that was once there is put back, and the audit has to find it.
"""

import itertools
import json
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from support import replay, settings
import distill
import weighted_examples
import eval as evaluation
from worlds.expert import solve_task, trajectory
import labelled_steps
import preferences
import rl
from worlds.extras import teacher
from worlds import teacher_file
import think
from worlds.faults import HELD_OUT_KINDS
from worlds.english import draw_argument_name, other_splits_words
from worlds.phrasings import FAULT_PHRASINGS, PHRASINGS
from worlds.splits import Wordings
from clumsy import TOY, Played
from config import Model
from worlds import ALL_WORLDS
from worlds.base import Task, world_class
from worlds.difficulty import Difficulty
from worlds.faults import FAULT_KINDS, FAULT_TEXTS
from worlds.splits import BABBLE, SPLITS, strangers
from worlds.tasks import PURPOSES, Tasks

TASKS = 300  # of each stage


# --------------------------------------------------------------------------------------------------
# what may not be seen


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", text).lower()))


def wordings(names: str) -> list[Wordings]:
    if names == "english":
        texts = [FAULT_PHRASINGS, *PHRASINGS.values()]
        return [some for of_one in texts for some in of_one.values()]
    return [
        *FAULT_TEXTS.values(),
        *(some for name in ALL_WORLDS for some in world_class(name).wordings.values()),
    ]


class Held:
    """What only the splits other than `split` may show."""

    def __init__(self, split: str, names: str = "invented"):
        self.split = split
        self.strangers = other_splits_words if names == "english" else strangers
        others = [other for other in SPLITS if other != split]
        texts = [
            text for some in wordings(names) for other in others for text in getattr(some, other)
        ]
        if (
            split != "train"
        ):  # validation and test may be told in training's words (request_wording, fault_wording)
            train = {text for some in wordings(names) for text in some.train}
            texts = [text for text in texts if text not in train]
        allowed = [
            text
            for some in wordings(names)
            for other in {split, "train"}
            for text in getattr(some, other)
        ]
        self.words = set().union(*map(words_of, texts)) - set().union(*map(words_of, allowed))
        if names == "english":  # English itself cannot be held out
            self.words = set()
        self.patterns = [(text, words_of(text), re.compile(self.sentence(text))) for text in texts]

    @staticmethod
    def sentence(text: str) -> str:
        """A whole sentence in these words, whatever its slots hold."""
        body = re.sub(r"\\\{\w+\\\}", r"[^\\n.?!]+?(?:\\.\\w+)?", re.escape(text))
        return rf"(?:^|[.?!:\"] |\n|error: ){body}(?:$|[ \n\"])"

    def complaints(self, text: str) -> Iterator[str]:
        there = words_of(text)
        yield from (f"name {name}" for name in self.strangers(text, self.split))
        yield from (f"word {word}" for word in there & self.words)
        for wording, words, pattern in self.patterns:
            if words <= there and pattern.search(text):
                yield f"wording {wording}"


# ------------------------------------------------------------------------------------------ what
# each stage's parts show

CONFIG = settings.from_file("config/toy.py")
EVERY = "all"


STYLE = "compact"  # how the stages' tokenizer shows tools
NAMES = "invented"  # whose words the tasks are made of


def stage(section, name: str, folder=None) -> SimpleNamespace:
    """What the stages' data functions ask of a stage."""
    quiet = SimpleNamespace(say=lambda *_: None, write=lambda *_, **__: None)
    drawn_as = type(CONFIG.distill)(**{**vars(CONFIG.distill), "names": NAMES})
    shape = SimpleNamespace(model=Model(context=4096), distill=drawn_as)
    model = SimpleNamespace(config=Model(context=4096))
    return SimpleNamespace(
        section=section,
        tokenizer=TOY,
        style=STYLE,
        name=name,
        kept={},
        defaults={},
        log=quiet,
        config=shape,
        model=model,
        player=lambda: model,
        first=0,
        folder=folder,
        source=folder,
        steps=1,
    )


def texts_of(examples) -> list[str]:
    return [TOY.decode(tokens) for tokens, _ in examples]


def replayed(section, name: str) -> list[str]:
    rows = replay.teacher_rows(stage(section, name), f"{type(section).__name__.lower()} replay")
    return [TOY.decode(row.tolist()) for row in rows.tensors[0]]


def shown(part: str, count: int, folder, played: Played) -> list[str]:
    """The texts that a part of a stage shows, of `count` tasks."""
    distill_, dpo, ppo, heads_ = (
        type(section)(**{**vars(section), "worlds": EVERY})
        for section in (CONFIG.distill, CONFIG.dpo, CONFIG.ppo, CONFIG.heads)
    )
    distill_.names = dpo.names = ppo.names = NAMES
    distill_.tasks, distill_.replay = count // 3, 2.0
    ppo.replay_rows = 4  # an option that the toy does not use
    dpo.pairs = dpo.trajectories = ppo.trajectories = count
    heads_.contrast = count // 8
    heads_.tasks, heads_.trajectories, heads_.solutions, heads_.validation = (
        count // 2,
        count // 4,
        count // 4,
        count // 4,
    )
    if part == "distill":
        distill_.trajectories, distill_.slips = count, 0.5
        rows = weighted_examples.drawn_trajectories(distill_, STYLE)
        assert {row["fault"] for row in rows} - {None} <= set(FAULT_KINDS)
        return texts_of(weighted_examples.trajectory_examples(rows, distill_, TOY, STYLE))
    if part == "reflect":
        texts = []
        for number in range(2):
            file = folder / f"buffer-{number}.jsonl"
            distill.write_buffer(stage(distill_, "reflected", folder), number, file, {})
            texts += [
                TOY.decode(row["tokens"])
                for row in map(json.loads, file.read_text().splitlines())
                if "tokens" in row
            ]
        return texts
    if part == "dpo":
        pairs, _ = preferences.preference_pairs(dpo, TOY, STYLE)
        return texts_of(completion for pair in pairs for completion in pair)
    if part in ("dpo replay", "ppo replay"):
        return replayed(dpo, "safe") if part == "dpo replay" else replayed(ppo, "sage")
    if part == "ppo":
        ppo.prompts, ppo.samples = count // 2, 1
        return [
            TOY.decode(episode.tokens)
            for step in (1, 2)
            for episode in rl.draw_episodes(stage(ppo, "sage"), step)
        ]
    if part == "heads":
        file = folder / "steps.jsonl"
        labelled_steps.sample_data(stage(heads_, "thinking", folder), file, {})
        texts = []
        for row in map(json.loads, file.read_text().splitlines()):
            if row.get("use") in ("train", "inverse", "contrast"):
                tokens = row["tokens"] if "tokens" in row else row["right"] + row["wrong"]
                texts.append(TOY.decode(tokens) + "\n" + "\n".join(row["constraints"]))
        return texts
    assert part == "teacher"
    made = [
        row
        for _, row in teacher.trajectories(
            teacher.TeacherSettings(
                worlds=EVERY, difficulty=Difficulty(fault_rate=0.3, names=NAMES)
            ),
            iter(range(count)),
            None,
        )
    ]
    assert {row.fault for row in made} - {None} <= set(FAULT_KINDS)
    return [json.dumps([row.messages, row.tools, row.negatives, row.answer]) for row in made]


STAGE_PARTS = ("distill", "reflect", "dpo", "dpo replay", "ppo", "ppo replay", "heads", "teacher")


def audit(parts, count: int, folder, patch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is wrong with what some parts show, and seeds that they share."""
    complaints, seeds = [], {}
    held, drawn = Held("train", NAMES), set()
    for name in ALL_WORLDS:
        plain = world_class(name).sample.__func__

        def sample(cls, seed, difficulty, plain=plain):
            drawn.add(seed)
            return plain(cls, seed, difficulty)

        patch.setattr(world_class(name), "sample", classmethod(sample))
    played = Played()
    for module in (distill, rl, labelled_steps):
        patch.setattr(module, "rollouts", played)
    for part in parts:
        drawn.clear()
        texts = shown(part, count, folder, played)
        assert len(texts) >= count // 4
        seeds[part] = frozenset(drawn)
        complaints += [
            f"{part}: {complaint}" for text in texts for complaint in held.complaints(text)
        ]
    trained = [episode for episode in played.episodes if episode.task.difficulty.split == "train"]
    met = {kind for episode in trained for _, kind in episode.faults}
    complaints += [f"fault {kind}" for kind in met - {*FAULT_KINDS}]
    for one, other in itertools.combinations(seeds, 2):
        if both := seeds[one] & seeds[other]:
            complaints.append(f"{one} and {other} share {len(both)} tasks")
    return complaints


# --------------------------------------------------------------------------------------------------
# tests


def test_no_stage_shows_what_is_held_out(tmp_path, monkeypatch):
    assert audit(STAGE_PARTS, TASKS, tmp_path, monkeypatch) == []


def in_english(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys.modules[__name__], "NAMES", "english")
    patch.setattr(sys.modules[__name__], "EVERY", ",".join(PHRASINGS))


def test_no_stage_shows_what_is_held_out_in_english(tmp_path, monkeypatch):
    in_english(monkeypatch)
    assert audit(STAGE_PARTS, 120, tmp_path, monkeypatch) == []


def test_a_second_thought_imagines_nothing_that_is_held_out():
    held = Held("train")
    assert [
        complaint for text in think.FAULTS_IMAGINED for complaint in held.complaints(text)
    ] == []


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("names", ["invented", "english"])
def test_what_is_measured_shows_nothing_of_the_other_held_out_split(split, names):
    held = Held(split, names)
    for name in ALL_WORLDS if names == "invented" else PHRASINGS:
        kinds = (*FAULT_KINDS, *HELD_OUT_KINDS[split])
        difficulty = Difficulty(fault_rate=0.7, fault_kinds=kinds, split=split, names=names)
        tasks = Tasks(split, 0, [name], difficulty)
        for index in range(400 if names == "invented" else 150):
            messages, episode = solve_task(tasks[index])
            text = json.dumps([tasks[index].request, tasks[index].tools, messages])
            assert list(held.complaints(text)) == []
            assert {kind for _, kind in episode.faults} <= {*kinds}


def test_purposes_share_no_task():
    """Drawn for the toy's own seed and counts."""
    seen: dict[int, str] = {}
    for purpose in PURPOSES:
        tasks = Tasks(purpose, 1337, list(ALL_WORLDS), Difficulty())
        for index in range(0, 40_000, 997):
            assert seen.setdefault(tasks[index].seed, purpose) == purpose


@pytest.mark.parametrize("style", ["compact", "qwen"])
def test_every_stage_and_the_test_show_tools_as_the_tokenizer_has_it(style, tmp_path, monkeypatch):
    """A lineage from Qwen's weights learns, acts and is measured in Qwen's own format."""
    monkeypatch.setattr(sys.modules[__name__], "STYLE", style)
    seen: dict[str, set[str]] = {}
    played = Played()
    for module in (distill, rl, labelled_steps, evaluation):
        monkeypatch.setattr(module, "rollouts", played)
    for name in ALL_WORLDS:
        plain = world_class(name).sample.__func__

        def sample(cls, seed, difficulty, plain=plain):
            seen[part].add(difficulty.style)
            return plain(cls, seed, difficulty)

        monkeypatch.setattr(world_class(name), "sample", classmethod(sample))
    for part in [part for part in STAGE_PARTS if part != "teacher"]:
        seen[part] = set()
        shown(part, 40, tmp_path, played)
    seen[part := "eval"] = set()
    config = settings.from_file("config/toy.py")
    config.eval.tasks = 5
    evaluation.measure(None, SimpleNamespace(style=style), config)
    assert seen == {part: {style} for part in seen} and len(seen) == len(STAGE_PARTS)


# ---------------------------------------------------------------------------------- each leak, put
# back, must be found


def any_name(rng, split, used, names, draw=draw_argument_name) -> str:
    return draw(rng, rng.choice(SPLITS), used, names)


def requests_of_other_words(patch):
    for name in ("sql", "shell", "math"):
        texts = {
            what: Wordings(some.train + some.test, some.validation, some.test)
            for what, some in world_class(name).wordings.items()
        }
        for what, some in texts.items():
            patch.setitem(world_class(name).wordings, what, some)


LEAKS = {  # what was once so: (how it is put back, where it shows, what the audit says)
    "ppo replays the tasks that it is rewarded on": (
        lambda patch: patch.setattr(
            replay, "Tasks", lambda purpose, *rest: Tasks(purpose.removesuffix(" replay"), *rest)
        ),
        ("ppo", "ppo replay"),
        "ppo and ppo replay share",
    ),
    "ppo draws the tasks of stage distill": (
        lambda patch: patch.setattr(
            rl,
            "Tasks",
            lambda purpose, *rest: Tasks("distill" if purpose == "ppo" else purpose, *rest),
        ),
        ("distill", "ppo"),
        "distill and ppo share",
    ),
    "hard negatives draw any name": (
        lambda patch: patch.setattr(Task, "allows", lambda task, name: True),
        ("distill",),
        "distill: name",
    ),
    "slips draw any name": (
        lambda patch: patch.setattr("worlds.expert.draw_argument_name", any_name),
        ("distill",),
        "distill: name",
    ),
    "faults draw any name": (
        lambda patch: patch.setattr("worlds.faults.draw_argument_name", any_name),
        ("ppo",),
        "ppo: name",
    ),
    "babble holds a test's words": (
        lambda patch: patch.setattr("worlds.faults.BABBLE", [*BABBLE, *["outdated"] * 50]),
        ("distill",),
        "distill: word",
    ),
    "requests babble a test's words": (
        lambda patch: patch.setattr("worlds.splits.BABBLE", ["compute", "determine"]),
        ("distill",),
        "distill: word",
    ),
    "a teacher's file has the held-out fault": (
        lambda patch: patch.setattr(teacher_file, "why_unfit", lambda *_: ""),
        ("file",),
        "word",
    ),
    "training asks in a test's words": (requests_of_other_words, ("distill",), "distill: wording"),
    "training's faults speak a test's words": (
        lambda patch: patch.setattr(
            "worlds.faults.fault_text", lambda kind, *_: f"error: {FAULT_TEXTS[kind].test[0]}"
        ),
        ("dpo replay",),
        "dpo replay: wording",
    ),
}


def read_file(tmp_path, patch) -> list[str]:
    """What stage distill makes of a teacher's file with every split's episodes and faults in it."""
    rows = []
    for purpose, kinds in (
        ("teacher", FAULT_KINDS),
        ("validation", ("denied",)),
        ("test", ("expired",)),
    ):
        tasks = Tasks(
            purpose,
            0,
            ["api"],
            Difficulty(fault_rate=1.0, special=0.0, fault_kinds=kinds, split=PURPOSES[purpose]),
        )
        rows += [trajectory(*tasks.arguments(index)) for index in range(30)]
    file = tmp_path / "teacher.jsonl"
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    section = type(CONFIG.distill)(**{**vars(CONFIG.distill), "file": str(file)})
    found = teacher_file.read_teacher_file(section, lambda *_: None)
    held = Held("train")
    return [
        complaint
        for row in found
        for complaint in held.complaints(json.dumps([row["messages"], row["tools"]]))
    ]


CLEAN: dict[tuple, list[str]] = {}  # what the audit finds where nothing is put back


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_put_back_is_found(name, tmp_path, monkeypatch):
    put_back, parts, wanted = LEAKS[name]
    if parts == ("file",):
        assert read_file(tmp_path, monkeypatch) == []
        put_back(monkeypatch)
        assert any(wanted in complaint for complaint in read_file(tmp_path, monkeypatch))
        return
    # few negatives are shown, and fewer with a made-up name
    count = 1200 if "negatives" in name else 200
    if (parts, count) not in CLEAN:
        with monkeypatch.context() as clean:
            CLEAN[parts, count] = audit(parts, count, tmp_path, clean)
    assert CLEAN[parts, count] == []
    put_back(monkeypatch)
    complaints = audit(parts, count, tmp_path, monkeypatch)
    assert any(complaint.startswith(wanted) for complaint in complaints), complaints[:5]
