"""The corpus, token files, the loader and packing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support import corpus
from support import token_files
from support.packing import PackedLoader, pack
from support import tokenizer
from config import Data, Model, UserError
from losses import IGNORE


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A small folder of text, and token files that go to a temporary place."""
    monkeypatch.setattr(token_files, "ROOT", tmp_path)
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(40):
        (folder / f"f{number}.py").write_text(
            f'"""Module {number}: prose."""\n\nx = {number}  # a comment\n' * 5
        )
    return folder


def test_python_kinds():
    source = '"""Doc."""\nx = "not doc"  # why\ndef f():\n    \'doc too\'\n    return 1\n'
    kinds = corpus.python_kinds(source)
    prose = "".join(c for c, kind in zip(source, kinds) if kind == corpus.PROSE)
    assert prose == '"""Doc."""# why\'doc too\''
    assert corpus.python_kinds("def (:\n  'x").tolist() == [corpus.CODE] * 11


def test_markdown_kinds():
    page = "Words.\n```\ncode\n```\nWords.\n"
    assert (
        "".join(c for c, kind in zip(page, corpus.markdown_kinds(page)) if kind == corpus.CODE)
        == "```\ncode\n```\n"
    )


def test_standard_library_is_half_prose():
    documents = list(corpus.documents())
    characters = sum(len(d.text) for d in documents)
    assert characters > 5_000_000 and all(len(d.kinds) == len(d.text) for d in documents)
    assert 0.4 < sum(int((d.kinds == corpus.PROSE).sum()) for d in documents) / characters < 0.6


def test_token_files_hold_the_text_and_its_kinds(text):
    toy = tokenizer.toy()
    train, held_out = token_files.token_files(
        Data(path=str(text), validation=0.3), toy, say=lambda _: None
    )
    whole = "".join(toy.decode(file.tokens) for file in (train, held_out))
    assert sorted(whole.split("<|endoftext|>"))[1:] == sorted(
        path.read_text() for path in text.iterdir()
    )
    prose = toy.decode(
        token for token, kind in zip(train.tokens, train.kinds) if kind == corpus.PROSE
    )
    assert "prose" in prose and "a comment" in prose and "x =" not in prose
    again, _ = token_files.token_files(
        Data(path=str(text), validation=0.3),
        toy,
        say=lambda _: pytest.fail("the files were made before"),
    )
    assert np.array_equal(again.tokens, train.tokens)
    (text / "f0.py").write_text("changed = True\n" * 50)
    changed, _ = token_files.token_files(
        Data(path=str(text), validation=0.3), toy, say=lambda _: None
    )
    assert changed.header["source"] != train.header["source"]


def test_kinds_survive_characters_of_several_bytes(text):
    (text / "f1.py").write_text('"""Größe 漢字 🙂."""\nx = "é"\n')
    toy = tokenizer.toy()
    tokens, kinds = token_files.tokenize_documents(
        [corpus.Document("a", t := (text / "f1.py").read_text(), corpus.python_kinds(t))], toy
    )
    assert (
        toy.decode(token for token, kind in zip(tokens[1:], kinds[1:]) if kind == corpus.PROSE)
        == '"""Größe 漢字 🙂."""\n'
    )  # one token ends the docstring and the line


@pytest.mark.parametrize(
    "damage, wanted",
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-4]),
            "holds .* bytes where its header promises",
        ),
        (lambda path: path.write_bytes(b"x" * 600), "is no token file"),
        (lambda path: path.unlink(), "no token file"),
    ],
)
def test_damaged_token_files(text, damage, wanted):
    toy = tokenizer.toy()
    train, _ = token_files.token_files(
        Data(path=str(text), validation=0.3), toy, say=lambda _: None
    )
    path = next((text.parent / "out").rglob("train.tokens"))
    del train
    damage(path)
    with pytest.raises(UserError, match=wanted):
        token_files.TokenFile(path, toy)


def test_token_file_of_another_tokenizer(text):
    toy = tokenizer.toy()
    token_files.token_files(Data(path=str(text), validation=0.3), toy, say=lambda _: None)
    other = tokenizer.Tokenizer("other", toy.ranks, {**toy.special, "<|more|>": toy.vocab_size})
    with pytest.raises(UserError, match="was made with tokenizer toy .* not other"):
        token_files.TokenFile(next((text.parent / "out").rglob("train.tokens")), other)


@pytest.mark.parametrize(
    "prepare, wanted",
    [
        (lambda folder: folder / "nowhere", "no such file or folder"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", "no file ends in"),
        (
            lambda folder: (folder / "latin.txt").write_bytes(b"caf\xe9") and folder / "latin.txt",
            "byte 3 is not UTF-8",
        ),
        (
            lambda folder: (folder / "blank.txt").write_text("") or folder / "blank.txt",
            "leaves no text for training",
        ),
    ],
)
def test_bad_text(text, prepare, wanted):
    with pytest.raises(UserError, match=wanted) as caught:
        token_files.token_files(Data(path=str(prepare(text))), tokenizer.toy(), say=lambda _: None)
    assert "\n" not in str(caught.value)


def row_of(count):
    """A stand-in for a token file whose tokens are their own places."""

    class Row:
        tokens, kinds = np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8)

    return Row


def test_loader_sees_every_example_once_an_epoch():
    loader = token_files.TokenLoader(row_of(1001), 10, 4, seed=3)
    starts = []
    while loader.epoch == 0:
        batch = loader.next()[0]
        if loader.epoch == 0:
            assert batch.shape == (4, 11) and (batch.diff(dim=1) == 1).all()
            starts += batch[:, 0].tolist()
    assert len(starts) == len(set(starts)) == 96  # 99 examples less the partial batch
    first = token_files.TokenLoader(row_of(1001), 10, 4, seed=3).next()[0][:, 0]
    assert not torch.equal(
        first, token_files.TokenLoader(row_of(1001), 10, 4, seed=4).next()[0][:, 0]
    )


def test_loader_goes_on_where_it_was():
    one, two = (token_files.TokenLoader(row_of(300), 10, 4, seed=3) for _ in range(2))
    for _ in range(11):  # into the second epoch
        one.next()
    two.restore(one.state())
    assert one.epoch == 1
    for _ in range(5):
        assert torch.equal(one.next()[0], two.next()[0])


def test_too_little_text_for_a_step():
    with pytest.raises(UserError, match="examples of 64; 8 are needed"):
        token_files.TokenLoader(row_of(100), 64, 8, seed=0)


@given(count=st.integers(2, 400), sequence=st.integers(1, 50), batch=st.integers(1, 5))
def test_in_order_targets_every_token_once(count, sequence, batch):
    targets = torch.cat(
        [t.flatten() for _, t in token_files.batches_in_order(row_of(count), sequence, batch)]
    )
    assert targets.tolist() == list(range(1, count))


SHAPES = [
    Model(window=window, landmark_stride=stride)
    for window, stride in ((24, 4), (23, 4), (5, 16), (1, 1))
]


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20), model=st.sampled_from(SHAPES))
def test_packing_keeps_every_example_whole_and_apart(lengths, model):
    """In rows longer than the window, each begins at a multiple of the landmark stride."""
    align = model.landmark_stride if model.window < 24 else 1
    examples = [
        ([100 * i + j for j in range(n)], [j % 3 != 0 for j in range(n)])
        for i, n in enumerate(lengths)
    ]
    if min(lengths) > 24:
        with pytest.raises(UserError, match="none of"):
            PackedLoader(examples, 24, 1, 0, model)
    packed = pack(examples, 24, model)
    for index, ((tokens, taught), (row, column)) in enumerate(zip(examples, packed.positions)):
        if len(tokens) > 24:
            assert (row, column) == (-1, -1)
            continue
        place = slice(column, column + len(tokens))
        assert column % align == 0 and packed.tokens[row, place].tolist() == tokens
        assert (packed.documents[row, place] == index).all() and (
            packed.documents == index
        ).sum() == len(tokens)
        assert packed.targets[row, place].tolist() == [
            tokens[j + 1] if j + 1 < len(tokens) and taught[j + 1] else IGNORE
            for j in range(len(tokens))
        ]
    assert (packed.targets[packed.documents == -1] == IGNORE).all()
