"""Token files, the shuffled loader whose place is part of a checkpoint, and packing of short
sequences with document masks.

A token file is one line of JSON (what vocabulary, how many tokens, which tokenizer) padded to 512
bytes, then 32-bit token IDs: Qwen's 151 936 do not fit in 16. Beside it lies a file of kinds, one
byte a token: code or prose.
"""

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from support import corpus
from support import provenance
from config import Data, Model, UserError
from support.settings import ROOT
from losses import IGNORE
from support.model_checks import document_alignment
from support.tokenizer import Tokenizer

HEADER = 512


def write_tokens(
    path: Path, tokens: np.ndarray, kinds: np.ndarray, tokenizer: Tokenizer, source: str
) -> None:
    """Write a token file and its kinds, aside and renamed.

    `source` is a hash of the text it was made from.
    """
    header = dict(
        format="sage-tokens-1",
        vocabulary=tokenizer.vocab_size,
        count=len(tokens),
        tokenizer=tokenizer.name,
        tokenizer_hash=tokenizer.hash,
        source=source,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    provenance.replace(path.with_suffix(".kinds"), kinds.astype(np.uint8).tobytes())
    first = json.dumps(header).ljust(HEADER - 1).encode() + b"\n"
    provenance.replace(path, first + tokens.astype("<u4").tobytes())


class TokenFile:
    """A memory-mapped token file:

    `tokens` (N,) uint32 and `kinds` (N,) uint8; refuses a file that does not fit the tokenizer.
    """

    def __init__(self, path: str | Path, tokenizer: Tokenizer):
        path = Path(path)
        if not path.exists():
            raise UserError(f"no token file {path}; run python train.py, which makes it")
        with open(path, "rb") as file:
            first = file.read(HEADER)
        try:
            self.header = json.loads(first)
            assert self.header["format"] == "sage-tokens-1"
        except (ValueError, KeyError, AssertionError):
            raise UserError(
                f"{path} is no token file (its first {HEADER} bytes are no sage-tokens-1 header); delete it and run python train.py anew"
            ) from None
        if self.header["tokenizer_hash"] != tokenizer.hash:
            raise UserError(
                f"{path} was made with tokenizer {self.header['tokenizer']} ({self.header['tokenizer_hash']}), not {tokenizer.name} ({tokenizer.hash}); "
                "delete it and run python train.py anew, or name its tokenizer in data.tokenizer"
            )
        wanted, found = HEADER + 4 * self.header["count"], path.stat().st_size
        if found != wanted:
            raise UserError(
                f"{path} holds {found:,} bytes where its header promises {wanted:,}; delete it and run python train.py anew"
            )
        kinds = path.with_suffix(".kinds")
        if not kinds.exists() or kinds.stat().st_size != self.header["count"]:
            raise UserError(
                f"{kinds} is missing or does not fit {path.name}; delete {path} and run python train.py anew"
            )
        self.tokens = np.memmap(path, "<u4", "r", HEADER, (self.header["count"],))
        self.kinds = np.memmap(kinds, np.uint8, "r", 0, (self.header["count"],))


def tokenize(
    documents: list[corpus.Document], tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """All documents' tokens in one row, <|endoftext|> before each, and each token's kind: that of
    most of its bytes.
    """
    tokens, kinds = [], []
    for document in documents:
        ids = tokenizer.encode(document.text)
        # kinds are known by character, tokens are bytes: count the bytes of code before every byte,
        # then take differences
        widths = (
            1
            if document.text.isascii()
            else [len(character.encode()) for character in document.text]
        )
        code_before = np.concatenate([[0], np.cumsum(np.repeat(document.kinds, widths))])
        edges = np.concatenate(
            [[0], np.cumsum([len(tokenizer.token_bytes[token]) for token in ids], dtype=int)]
        ).clip(max=len(code_before) - 1)
        kinds += [
            np.zeros(1, np.uint8),
            (2 * np.diff(code_before[edges]) > np.diff(edges)).astype(np.uint8),
        ]
        tokens += [np.array([tokenizer.end_of_text], np.uint32), np.array(ids, np.uint32)]
    return np.concatenate(tokens), np.concatenate(kinds)


def held_out(name: str, share: float) -> bool:
    """Whether a document belongs to validation: by a hash of its name, so that the split never
    depends on order or on other files.
    """
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8 < share


def prepare(
    data: Data, tokenizer: Tokenizer, say: Callable[[str], None] = print
) -> tuple[TokenFile, TokenFile]:
    """The training and the held-out token file of a data section, made at the first call and
    found again after. Raises UserError.

    They are found by a hash of all that they are made from: names and contents of the files (one
    of the same name, size and time may hold another text), the tokenizer, the settings, and the
    code that reads them: reading once too often costs half a minute.
    """
    files = corpus.files(data.path)
    made_from = [
        sorted((name, provenance.digest(path)) for name, path in files.items()),
        tokenizer.hash,
        data.validation,
        data.max_bytes,
        platform.python_version(),
        provenance.digest(corpus.__file__, __file__),
    ]
    folder = ROOT / "out" / "data" / hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]
    paths = folder / "train.tokens", folder / "validation.tokens"
    if not all(path.exists() for path in paths):
        say(f"reading {data.path or 'the standard library'} (once; about half a minute)")
        documents, size = [], 0
        for document in corpus.documents(data.path):
            if data.max_bytes and size >= data.max_bytes:
                break
            documents.append(document)
            size += len(document.text.encode())
        if len({document.name for document in documents}) == 1:  # one file: its end is held out
            whole = documents[0]
            cut = int(len(whole.text) * (1 - data.validation))
            parts = (
                [corpus.Document(whole.name, whole.text[:cut], whole.kinds[:cut])],
                [corpus.Document(whole.name, whole.text[cut:], whole.kinds[cut:])],
            )
        else:
            parts = [
                [d for d in documents if held_out(d.name, data.validation) is wanted]
                for wanted in (False, True)
            ]
        for path, part, purpose in zip(paths, parts, ("training", "validation")):
            if sum(len(d.text) for d in part) == 0:
                raise UserError(
                    f"{data.path or 'the standard library'} leaves no text for {purpose}; give --data.path more text, or another --data.validation than {data.validation}"
                )
            source = hashlib.sha256(
                "\0".join(d.text for d in part).encode(errors="surrogatepass")
            ).hexdigest()[:16]
            write_tokens(path, *tokenize(part, tokenizer), tokenizer, source)
    return TokenFile(paths[0], tokenizer), TokenFile(paths[1], tokenizer)


class Loader:
    """Shuffled batches of T + 1 neighbouring tokens; every epoch cuts the row at another offset and
    draws another order.

    Ranks share the order and take turns in it, so they never see the same example. `state()` is the
    whole place in the data: a loader that `restore`s it goes on with the very next batch.
    """

    def __init__(
        self, file: TokenFile, sequence: int, batch: int, seed: int, rank: int = 0, ranks: int = 1
    ):
        self.file, self.sequence, self.batch, self.seed, self.rank, self.ranks = (
            file,
            sequence,
            batch,
            seed,
            rank,
            ranks,
        )
        self.examples = (len(file.tokens) - 1) // sequence - 1  # one is lost to the offset
        if self.examples < batch * ranks:
            raise UserError(
                f"{len(file.tokens):,} tokens make {max(self.examples, 0)} examples of {sequence}; {batch * ranks} are needed for one step: "
                "give more text, or a smaller --train.batch or --data.sequence"
            )
        self.restore(dict(epoch=0, cursor=0))

    def state(self) -> dict[str, int]:
        return dict(epoch=self.epoch, cursor=self.cursor)

    def restore(self, state: dict[str, int]) -> None:
        self.epoch, self.cursor = state["epoch"], state["cursor"]
        generator = np.random.default_rng([self.seed, self.epoch])
        self.offset, self.order = (
            int(generator.integers(self.sequence)),
            generator.permutation(self.examples),
        )

    def next(self) -> tuple[Tensor, Tensor]:
        """Tokens (B, T + 1) int64 and kinds (B, T + 1) uint8; the last partial batch of an epoch
        goes to the next.
        """
        if self.cursor + self.batch * self.ranks > self.examples:
            self.restore(dict(epoch=self.epoch + 1, cursor=0))
        mine = self.order[
            self.cursor + self.rank : self.cursor + self.batch * self.ranks : self.ranks
        ]
        self.cursor += self.batch * self.ranks
        places = (self.offset + mine * self.sequence)[:, None] + np.arange(
            self.sequence + 1
        )  # (B, T + 1)
        return torch.from_numpy(self.file.tokens[places].astype(np.int64)), torch.from_numpy(
            self.file.kinds[places]
        )


def in_order(file: TokenFile, sequence: int, batch: int):
    """Every token of a file once as a target, in order: yields inputs and targets (≤ B, ≤ T); the
    last batch may be smaller.
    """
    whole = (len(file.tokens) - 1) // sequence
    for start in range(0, whole, batch):
        places = np.arange(start, min(start + batch, whole))[:, None] * sequence + np.arange(
            sequence + 1
        )
        tokens = torch.from_numpy(file.tokens[places].astype(np.int64))
        yield tokens[:, :-1], tokens[:, 1:]
    rest = torch.from_numpy(file.tokens[whole * sequence :].astype(np.int64))[None]
    if rest.shape[1] > 1:
        yield rest[:, :-1], rest[:, 1:]


@dataclass
class Packed:
    """Rows of whole documents, each unaware of its neighbours."""

    tokens: Tensor  # (R, T) int64
    targets: Tensor  # (R, T) int64, the next token where it is taught, IGNORE elsewhere
    weights: Tensor  # (R, T) float32, how much each target counts; 0 where nothing is taught
    documents: Tensor  # (R, T) int64, number of the example; -1 in padding
    positions: list[
        tuple[int, int]
    ]  # (row, column) where each example begins; (-1, -1) for one that was too long


def pack(
    examples: list[tuple[list[int], list[bool] | list[float]]],
    sequence: int,
    model: Model,
    padding: int = 0,
) -> Packed:
    """Pack examples into rows of `sequence` tokens for a model of this shape.

    An example is its token IDs, and for each whether it is taught, or how much. Longest first,
    each into the first row that has room. In rows longer than the model's window every document
    begins at a multiple of its landmark stride: landmarks are counted from the row's first token,
    so they are then the same tokens as when the document stands alone. An example longer than a
    row is left out, and its place says so. Raises UserError when none fits.
    """
    align = document_alignment(model, sequence)
    order = sorted(
        (i for i, (tokens, _) in enumerate(examples) if len(tokens) <= sequence),
        key=lambda i: -len(examples[i][0]),
    )
    if not order:
        raise UserError(
            f"none of {len(examples)} examples fits in {sequence} tokens; raise data.sequence"
        )
    filled, places = [], [(-1, -1)] * len(examples)
    for index in order:
        length = len(examples[index][0])
        row = next(
            (r for r, used in enumerate(filled) if -(-used // align) * align + length <= sequence),
            None,
        )
        if row is None:
            row = len(filled)
            filled.append(0)
        column = -(-filled[row] // align) * align
        places[index], filled[row] = (row, column), column + length
    tokens = torch.full((len(filled), sequence), padding)
    targets, documents, weights = (
        torch.full_like(tokens, IGNORE),
        torch.full_like(tokens, -1),
        torch.zeros(tokens.shape),
    )
    for index in order:
        (row, column), (ids, taught) = places[index], examples[index]
        ids, taught = torch.tensor(ids), torch.tensor(taught, dtype=torch.float32)
        tokens[row, column : column + len(ids)] = ids
        targets[row, column : column + len(ids) - 1] = torch.where(taught[1:] > 0, ids[1:], IGNORE)
        weights[row, column : column + len(ids) - 1] = taught[1:]
        documents[row, column : column + len(ids)] = index
    return Packed(tokens, targets, weights, documents, places)


class Rows:
    """Shuffled batches of packed rows, each epoch in another order; `state()` is the whole place in
    the data, as with Loader.

    Examples are packed `together` at a time: packing looks through all rows for a place, which
    among thousands takes minutes.
    """

    def __init__(
        self,
        examples: list[tuple[list[int], list[bool] | list[float]]],
        sequence: int,
        batch: int,
        seed: int,
        model: Model,
        together: int = 256,
    ):
        groups = [examples[start : start + together] for start in range(0, len(examples), together)]
        fitting = [group for group in groups if any(len(tokens) <= sequence for tokens, _ in group)]
        packs = [pack(group, sequence, model) for group in fitting]
        if sum(len(p.tokens) for p in packs) < batch:
            raise UserError(
                f"{len(examples)} examples fill {sum(len(p.tokens) for p in packs)} rows of {sequence} tokens; {batch} are needed for one step: "
                "give more examples, or a smaller batch"
            )
        self.tensors = [
            torch.cat([getattr(p, name) for p in packs])
            for name in ("tokens", "targets", "weights", "documents")
        ]
        self.batch, self.seed = batch, seed
        self.restore(dict(epoch=0, cursor=0))

    def state(self) -> dict[str, int]:
        return dict(epoch=self.epoch, cursor=self.cursor)

    def restore(self, state: dict[str, int]) -> None:
        self.epoch, self.cursor = state["epoch"], state["cursor"]
        self.order = torch.from_numpy(
            np.random.default_rng([self.seed, self.epoch]).permutation(len(self.tensors[0]))
        )

    def next(self) -> list[Tensor]:
        """tokens, targets, weights, documents, each (B, T); the last partial batch of an epoch is
        left out.
        """
        if self.cursor + self.batch > len(self.order):
            self.restore(dict(epoch=self.epoch + 1, cursor=0))
        rows = self.order[self.cursor : self.cursor + self.batch]
        self.cursor += self.batch
        return [tensor[rows] for tensor in self.tensors]
