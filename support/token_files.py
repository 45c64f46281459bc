"""Token files, and the shuffled loader whose place is part of a checkpoint.

A token file is one line of JSON (which vocabulary, how many tokens, which tokenizer) padded to 512
bytes, then 32-bit token IDs: Qwen's 151 936 do not fit in 16. Beside it lies a file of kinds, one
byte per token: code or prose.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from support import ranks
from config import Data, UserError
from support import corpus, provenance
from support.settings import ROOT
from support.tokenizer import Tokenizer

HEADER_BYTES = 512


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
    first = json.dumps(header).ljust(HEADER_BYTES - 1).encode() + b"\n"
    provenance.replace(path, first + tokens.astype("<u4").tobytes())


class TokenFile:
    """A memory-mapped token file: `tokens` (N,) uint32 and `kinds` (N,) uint8.

    Raises UserError for a damaged file, and for one that another tokenizer made.
    """

    def __init__(self, path: str | Path, tokenizer: Tokenizer):
        path = Path(path)
        if not path.exists():
            raise UserError(f"no token file {path}; run python train.py, which makes it")
        with open(path, "rb") as file:
            first = file.read(HEADER_BYTES)
        try:
            self.header = json.loads(first)
            assert self.header["format"] == "sage-tokens-1"
        except (ValueError, KeyError, AssertionError):
            raise UserError(
                f"{path} is no token file (its first {HEADER_BYTES} bytes are no sage-tokens-1 "
                "header); delete it and run python train.py anew"
            ) from None
        h = self.header
        if h["tokenizer_hash"] != tokenizer.hash:
            raise UserError(
                f"{path} was made with tokenizer {h['tokenizer']} ({h['tokenizer_hash']}), "
                f"not {tokenizer.name} ({tokenizer.hash}); delete it and run python train.py anew, "
                "or name its tokenizer in data.tokenizer"
            )
        wanted = HEADER_BYTES + 4 * h["count"]
        found = path.stat().st_size
        if found != wanted:
            raise UserError(
                f"{path} holds {found:,} bytes where its header promises {wanted:,}; "
                "delete it and run python train.py anew"
            )
        kinds = path.with_suffix(".kinds")
        if not kinds.exists() or kinds.stat().st_size != h["count"]:
            raise UserError(
                f"{kinds} is missing or does not fit {path.name}; delete {path} and run python "
                "train.py anew"
            )
        self.tokens = np.memmap(path, "<u4", "r", HEADER_BYTES, (h["count"],))
        self.kinds = np.memmap(kinds, np.uint8, "r", 0, (h["count"],))


def tokenize_documents(
    documents: list[corpus.Document], tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """All documents' tokens in one row, <|endoftext|> before each, and each token's kind: that of
    most of its bytes.
    """
    tokens = []
    kinds = []
    for document in documents:
        ids = tokenizer.encode(document.text)
        # kinds are given per character, tokens are bytes: count the bytes of code before every
        # byte, then take differences at the tokens' edges
        widths = 1
        if not document.text.isascii():
            widths = [len(character.encode()) for character in document.text]
        code_before = np.concatenate([[0], np.cumsum(np.repeat(document.kinds, widths))])
        lengths = [len(tokenizer.token_bytes[token]) for token in ids]
        edges = np.concatenate([[0], np.cumsum(lengths, dtype=int)]).clip(max=len(code_before) - 1)
        is_code = 2 * np.diff(code_before[edges]) > np.diff(edges)
        tokens += [np.array([tokenizer.end_of_text], np.uint32), np.array(ids, np.uint32)]
        kinds += [np.zeros(1, np.uint8), is_code.astype(np.uint8)]
    return np.concatenate(tokens), np.concatenate(kinds)


def is_validation(name: str, share: float) -> bool:
    """Whether a document belongs to validation: by a hash of its name, so that the split never
    depends on order or on other files.
    """
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8 < share


def token_files(
    data: Data, tokenizer: Tokenizer, say: Callable[[str], None] = print
) -> tuple[TokenFile, TokenFile]:
    """The training and the validation token file of a data section, made at the first call and
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
    ranks.check_alike(
        "text",
        {data.path or "the standard library": folder.name},
        "copy the same files to every node, and use one version of Python",
    )
    paths = (folder / "train.tokens", folder / "validation.tokens")
    with ranks.fail_together():
        if ranks.rank() == 0 and not all(path.exists() for path in paths):
            write_token_files(data, tokenizer, paths, say)
    return TokenFile(paths[0], tokenizer), TokenFile(paths[1], tokenizer)


def write_token_files(
    data: Data, tokenizer: Tokenizer, paths: tuple[Path, Path], say: Callable[[str], None]
) -> None:
    """Make the training and the validation token file."""
    name = data.path or "the standard library"
    say(f"reading {name} (once; about half a minute)")
    parts = split_documents(data)
    for path, part, purpose in zip(paths, parts, ("training", "validation")):
        if not any(document.text for document in part):
            raise UserError(
                f"{name} leaves no text for {purpose}; give --data.path more text, or another "
                f"--data.validation than {data.validation}"
            )
        text = "\0".join(document.text for document in part)
        source = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        write_tokens(path, *tokenize_documents(part, tokenizer), tokenizer, source)


def split_documents(data: Data) -> tuple[list[corpus.Document], list[corpus.Document]]:
    """The documents of a data section for training, and those for validation."""
    documents = []
    size = 0
    for document in corpus.documents(data.path):
        if data.max_bytes and size >= data.max_bytes:
            break
        documents.append(document)
        size += len(document.text.encode())
    if len({document.name for document in documents}) == 1:  # one file: its end is held out
        whole = documents[0]
        cut = int(len(whole.text) * (1 - data.validation))
        return (
            [corpus.Document(whole.name, whole.text[:cut], whole.kinds[:cut])],
            [corpus.Document(whole.name, whole.text[cut:], whole.kinds[cut:])],
        )
    training = [d for d in documents if not is_validation(d.name, data.validation)]
    validation = [d for d in documents if is_validation(d.name, data.validation)]
    return training, validation


class TokenLoader:
    """Shuffled batches of T + 1 neighbouring tokens; every epoch cuts the row at another offset and
    draws another order.

    `state()` is the whole place in the data: a loader that `restore`s it goes on with the very next
    batch.
    """

    def __init__(self, file: TokenFile, sequence: int, batch: int, seed: int):
        self.file = file
        self.sequence = sequence
        self.batch = batch
        self.seed = seed
        self.examples = (len(file.tokens) - 1) // sequence - 1  # one is lost to the offset
        if self.examples < batch:
            raise UserError(
                f"{len(file.tokens):,} tokens make {max(self.examples, 0)} examples of {sequence}; "
                f"{batch} are needed for one step: give more text, or a smaller "
                "--train.batch or --data.sequence"
            )
        self.restore(dict(epoch=0, cursor=0))

    def state(self) -> dict[str, int]:
        return dict(epoch=self.epoch, cursor=self.cursor)

    def restore(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]
        self.cursor = state["cursor"]
        generator = np.random.default_rng([self.seed, self.epoch])
        self.offset = int(generator.integers(self.sequence))
        self.order = generator.permutation(self.examples)

    def next(self) -> tuple[Tensor, Tensor]:
        """Tokens (B, T + 1) int64 and kinds (B, T + 1) uint8; the last partial batch of an epoch
        is left out.
        """
        if self.cursor + self.batch > self.examples:
            self.restore(dict(epoch=self.epoch + 1, cursor=0))
        chosen = self.order[self.cursor : self.cursor + self.batch]
        self.cursor += self.batch
        starts = self.offset + chosen * self.sequence
        places = starts[:, None] + np.arange(self.sequence + 1)  # (B, T + 1)
        tokens = torch.from_numpy(self.file.tokens[places].astype(np.int64))
        return tokens, torch.from_numpy(self.file.kinds[places])


def batches_in_order(file: TokenFile, sequence: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every token of a file once as a target, in order: yields inputs and targets (≤ B, ≤ T); the
    last batch may be smaller.
    """
    whole = (len(file.tokens) - 1) // sequence
    for start in range(0, whole, batch):
        rows = np.arange(start, min(start + batch, whole))
        places = rows[:, None] * sequence + np.arange(sequence + 1)  # (B, T + 1)
        tokens = torch.from_numpy(file.tokens[places].astype(np.int64))
        yield tokens[:, :-1], tokens[:, 1:]
    rest = torch.from_numpy(file.tokens[whole * sequence :].astype(np.int64))[None]
    if rest.shape[1] > 1:
        yield rest[:, :-1], rest[:, 1:]
