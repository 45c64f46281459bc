"""Packed rows longer than the window: in every stage a document is read as if it stood alone."""

import sys
from dataclasses import replace

import pytest
import torch

from support import checkpoint
from support import settings
from support.packing import pack
import distill
import heads as heads_script
import preferences
import rl
from support import tokenizer as tokenizers
from support.model_checks import check_documents
from config import Config, Distill, Dpo, Heads, Model, Ppo, UserError
from mch import ExtraBlock
from model import SAGE

TOY = tokenizers.toy()
SHAPE = dict(
    vocab_size=1024,
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    feed_forward=48,
    context=640,
)


def lively(model, seed=1):
    """A model in which it shows what attention sees, and that likes to end its messages."""
    model = SAGE(model, seed=seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5 if p.ndim == 2 else 1)
        model.norm.weight[0] = 0.2
        model.embedding.text.weight[:, 0] = model.embedding.code.weight[:, 0] = 1
        model.head.weight[TOY.stop[0], 0] = 6
    return model


@pytest.fixture
def lineage(tmp_path):
    """Settings of stages that start from an untrained model; rows are many windows long."""
    model = Model(**SHAPE, window=16, landmark_stride=8, previous_token=True, tied=False)
    every = dict(
        steps=1,
        sequence=512,
        dtype="float32",
        compile="off",
        worlds="math,safety",
        start=str(tmp_path / "first"),
    )
    config = Config(
        out=str(tmp_path / "base"),
        model=model,
        distill=Distill(
            batch=3,
            trajectories=24,
            reflect_start=every["start"],
            reflect_steps=1,
            rounds=1,
            tasks=12,
            tries=1,
            **every,
        ),
        dpo=Dpo(batch=8, pairs=20, trajectories=24, replay_rows=2, **every),
        ppo=Ppo(batch=4, prompts=4, samples=4, room=60, trajectories=24, replay_rows=2, **every),
        heads=Heads(
            batch=16, tasks=12, trajectories=12, validation=8, solutions=4, room=60, **every
        ),
    )
    checkpoint.save_checkpoint(tmp_path / "first", config, lively(model), [], 1)
    return config


def documents_of(row):
    """First token and length of each document of a packed row, padding left out."""
    whose, lengths = row.unique_consecutive(return_counts=True)
    starts = lengths.cumsum(0) - lengths
    return [
        (start, length)
        for number, start, length in zip(*(x.tolist() for x in (whose, starts, lengths)))
        if number >= 0
    ]


@pytest.fixture
def compared(monkeypatch):
    """Compares what decoder and heads compute of packed rows with that of each document alone.

    Fills a dictionary: by what computed and which function asked, the differences of documents
    that are longer than the window and do not begin their row.
    """
    found = {}

    def watch(of, method):
        whole = getattr(of, method)

        def compare(self, inputs, documents=None, state=None, positions=None, **shared):
            out = whole(self, inputs, documents, state, positions, **shared)
            if documents is not None:
                differences = found.setdefault(
                    (type(self).__name__, sys._getframe(1).f_code.co_name), []
                )
                with torch.no_grad():
                    for row in range(len(inputs)):
                        for start, length in documents_of(documents[row]):
                            if start and length > self.config.window:
                                here = slice(start, start + length)
                                alone = whole(self, inputs[row : row + 1, here])[0]
                                differences.append((out[row, here] - alone).abs().max().item())
            return out

        monkeypatch.setattr(of, method, compare)

    watch(SAGE, "hidden")
    watch(ExtraBlock, "transform")
    return found


@pytest.fixture
def without_chance(monkeypatch):
    """What makes every stage show several documents in a row, and a step to learn from."""

    def some_short(*given, completion=preferences.completion):
        tokens, own = completion(*given)
        return (tokens, own) if given[0].seed % 2 else (tokens[-70:], own[-70:])

    def loud(shape, seed, heads=heads_script.ThinkingHeads, **more):
        # as they begin, the heads' blocks give back what they are given
        made = heads(shape, seed, **more)
        for name, p in made.named_parameters():
            if name.endswith(("attention.o.weight", "feed_forward.down.weight")):
                torch.nn.init.normal_(p, std=0.5, generator=torch.Generator().manual_seed(1))
        return made

    monkeypatch.setattr(preferences, "completion", some_short)
    monkeypatch.setattr(rl, "reward", lambda episode, c: float(sum(episode.tokens) % 5))
    monkeypatch.setattr(heads_script, "ThinkingHeads", loud)


STAGES = [
    (distill.distill, [("SAGE", "loss_of")]),
    (distill.reflect, [("SAGE", "loss_of")]),
    (preferences.dpo, [("SAGE", "taught_log_probs")]),
    (rl.ppo, [("SAGE", "evaluate_policy"), ("SAGE", "taught_log_probs")]),
    (
        heads_script.main,
        [
            ("SAGE", "read_steps"),
            ("SAGE", "forward"),
            ("MetaCognitiveHead", "forward"),
            ("InverseConsistencyHead", "forward"),
        ],
    ),
]


@pytest.mark.parametrize("stage, askers", STAGES)
def test_documents_in_a_stages_rows_are_as_if_alone(
    lineage, compared, without_chance, monkeypatch, stage, askers
):
    if stage is heads_script.main:
        monkeypatch.setattr(settings, "from_command_line", lambda: lineage)
        stage()
    else:
        stage(lineage)
    assert set(compared) == set(askers)
    for asker, differences in compared.items():
        assert differences and max(differences) < 1e-4, (asker, differences)


# --------------------------------------------------------------------------------------------------
# The refusal.

LONG = [
    torch.randint(0, 1000, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    for n in (131, 109, 97)
]
NARROW = Model(**SHAPE, window=64, landmark_stride=16, tied=False)


def test_rows_that_were_packed_for_another_model_are_refused():
    """Packed for another a document sees other landmarks than alone, packed for it the same."""
    examples = [(tokens, [True] * len(tokens)) for tokens in LONG]
    model = lively(NARROW).eval()
    for wrong in (
        Model(),
        Model(window=64, landmark_stride=8),
        Model(window=512, landmark_stride=16),
    ):
        packed = pack(examples, 512, wrong)
        with pytest.raises(
            UserError,
            match=r"512 tokens .* window of 64, .* at token \d+ of row 0 .* landmark_stride 16",
        ):
            model.hidden(packed.tokens, packed.documents)
    packed = pack(examples, 512, NARROW)
    with torch.no_grad():
        hidden = model.hidden(packed.tokens, packed.documents)
        assert [column for _, column in packed.positions] == [0, 144, 256]
        for (row, column), tokens in zip(packed.positions, LONG):
            alone = model.hidden(torch.tensor([tokens]))[0]
            assert (hidden[row, column : column + len(tokens)] - alone).abs().max() < 1e-5


@pytest.mark.parametrize(
    "documents, window, fits",
    [
        ([0, 0, 0, 0, 0, 1, 1, 1], 8, True),  # a row of one window: landmarks change nothing
        ([0, 0, 0, 0, 0, 1, 1, 1], 7, False),
        ([0, 0, 0, -1, 1, 1, 1, 1], 4, True),
        ([-1, 0, 0, 0, 1, 1, 1, 1], 4, False),
        ([0, 0, 0, 0, 1, 1, -1, -1], 4, True),  # padding may begin anywhere
        ([0, 0, 0, 0, 1, 1, 2, -1], 4, False),
    ],
)
def test_where_documents_may_begin(documents, window, fits):
    rows = torch.tensor([[0] * 8, documents])
    if fits:
        check_documents(rows, replace(NARROW, window=window, landmark_stride=4))
        return
    with pytest.raises(UserError, match="of row 1 does not begin"):
        check_documents(rows, replace(NARROW, window=window, landmark_stride=4))


def test_a_teacher_with_other_landmarks_is_refused(lineage, tmp_path):
    teacher = Model(**SHAPE, window=16, landmark_stride=32, tied=False)
    config = Config(out=str(tmp_path / "teacher"), model=teacher)
    checkpoint.save_checkpoint(tmp_path / "teacher", config, lively(teacher), [], 1)
    lineage.distill.kl, lineage.distill.kl_teacher = 1.0, str(tmp_path / "teacher")
    with pytest.raises(UserError, match="landmark_stride 32"):
        distill.distill(lineage)


def test_the_check_leaves_a_compiled_step_whole():
    model = lively(NARROW)
    packed = pack([(tokens, [True] * len(tokens)) for tokens in LONG], 256, NARROW)
    found = torch._dynamo.explain(lambda tokens, documents: model.hidden(tokens, documents).sum())(
        packed.tokens, packed.documents
    )
    assert found.graph_break_count == 0, [reason.reason for reason in found.break_reasons]
