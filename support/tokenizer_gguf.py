"""Tokenizers of GGUF files, llama.cpp's one-file format: the vocabulary, merges and markers stand
in the file's metadata, and a name says how text is cut.

The metadata become what a tokenizer.json would say, and one class encodes both
(support/tokenizer_folder.py). A cut that is not in PRE_TOKENIZERS is refused by name: another cut
would give other IDs without a word.
"""

from pathlib import Path

import gguf

from config import UserError
from support.tokenizer import PATTERN
from support.tokenizer_folder import FolderTokenizer, folder_spec

LLAMA3_PATTERN = PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # digits in threes
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_at(pattern: str) -> dict:
    return dict(type="Split", pattern=dict(Regex=pattern), behavior="Isolated", invert=False)


def to_bytes(use_regex: bool) -> dict:
    """The last cut: by GPT-2's pattern, or not at all, and then bytes as characters."""
    return dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=use_regex)


DIGITS = dict(type="Digits", individual_digits=True)
GPT2 = dict(cuts=[to_bytes(use_regex=True)])
SMOLLM = dict(cuts=[DIGITS, to_bytes(use_regex=True)])
LLAMA3 = dict(cuts=[split_at(LLAMA3_PATTERN), to_bytes(use_regex=False)], whole_words_first=True)
QWEN2 = dict(cuts=[split_at(PATTERN), to_bytes(use_regex=False)], normalizer="NFC")
TEKKEN = dict(cuts=[split_at(TEKKEN_PATTERN), to_bytes(use_regex=False)], whole_words_first=True)
# What llama.cpp does with files that were made before they named a pre-tokenizer.
DEFAULT = dict(
    cuts=[
        split_at(r"[\p{P}\$\+<=>\^~\|]+"),
        to_bytes(use_regex=True),
        split_at(r"\p{N}+"),
        split_at("[0-9][0-9][0-9]"),
    ]
)
PRE_TOKENIZERS = {
    "default": DEFAULT,
    "gpt-2": GPT2,
    "smollm": SMOLLM,
    "starcoder": SMOLLM,
    "refact": SMOLLM,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "llama-bpe": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "tekken": TEKKEN,
}


def gguf_metadata(path: Path) -> dict:
    """The metadata of a GGUF file. Raises UserError."""
    if not path.exists():
        raise UserError(f"no file {path}")
    try:
        reader = gguf.GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, TypeError, OSError, OverflowError) as error:
        raise UserError(
            f"{path} is no whole GGUF file ({type(error).__name__}: {error}); copy it anew"
        ) from None


def gguf_tokenizer(path: str | Path) -> FolderTokenizer:
    """The tokenizer of a GGUF file. Raises UserError."""
    path = Path(path)
    metadata = gguf_metadata(path)
    facts = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in metadata.items()
        if name.startswith("tokenizer.ggml.")
    }
    tokens = facts.get("tokens")
    model = facts.get("model")
    if not tokens or model is None:
        raise UserError(f"{path} holds no tokenizer; copy a GGUF file with tokenizer.ggml.tokens")
    if model != "gpt2":
        raise UserError(f"{path} holds a tokenizer {model!r}; gpt2 is read")
    name = facts.get("pre")
    if name not in PRE_TOKENIZERS:
        raise UserError(
            f"{path} cuts text by the pre-tokenizer {name!r}, which is not known here; known are "
            f"{', '.join(PRE_TOKENIZERS)}"
        )
    pre_tokenizer = PRE_TOKENIZERS[name]
    kinds = facts.get("token_type") or [gguf.TokenType.NORMAL] * len(tokens)
    special = {gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN}
    added = [
        dict(
            id=number,
            content=token,
            single_word=False,
            lstrip=False,
            rstrip=False,
            normalized=False,
            special=kind in special,
        )
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in special or kind == gguf.TokenType.USER_DEFINED
    ]
    vocabulary = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != gguf.TokenType.UNUSED
    }
    form = pre_tokenizer.get("normalizer")
    whole = dict(
        model=dict(
            type="BPE",
            vocab=vocabulary,
            merges=facts["merges"],
            ignore_merges=pre_tokenizer.get("whole_words_first", False),
        ),
        normalizer=dict(type=form) if form else None,
        pre_tokenizer=dict(type="Sequence", pretokenizers=pre_tokenizer["cuts"]),
        added_tokens=added,
    )
    config = {}
    if "eos_token_id" in facts:
        config["eos_token"] = tokens[facts["eos_token_id"]]
    return FolderTokenizer(folder_spec(whole, path), path, path, config)
