"""Tokenizers of GGUF files, llama.cpp's one-file format: the vocabulary, markers and chat template
stand in the file's metadata, and a name says how text is cut.

The metadata become a spec as of a tokenizer.json (support/tokenizer_spec.py). A cut whose name is
not in PRE_TOKENIZERS is refused: another one would give other IDs without a word. Two things that a
tokenizer.json says are missing there, and are read as llama.cpp reads them:

- SentencePiece's merges are not listed: whatever two entries join to a third merge, those of the
  highest score first.
- A SentencePiece vocabulary puts its space before a text and behind every marker.

Unlike llama.cpp we keep Qwen's normal form NFC, as the model's own tokenizer.json says.
"""

from dataclasses import dataclass
from pathlib import Path

from gguf import TokenType

from config import UserError
from support.chat_template import TEMPLATE_TOKENS, ChatTemplate
from support.gguf_file import open_gguf
from support.tokenizer import PATTERN
from support.tokenizer_library import LibraryTokenizer
from support.tokenizer_spec import checked_spec

# ------------------------------------------------------------------------------------------------
# How text is cut, by the name in tokenizer.ggml.pre.


@dataclass(frozen=True)
class PreTokenizer:
    """A way to cut text before its bytes are merged."""

    cuts: list[dict]  # one after the other, each within the cuts of those before it
    normalizer: dict | None = None
    whole_words_first: bool = False  # a cut that is an entry is taken whole, merges or not
    begins_text: bool = False  # whether bos_token stands before a text where the file does not say


def split_at(pattern: str) -> dict:
    return dict(type="Split", pattern=dict(Regex=pattern), behavior="Isolated", invert=False)


BYTES = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
GPT2_WORDS = {**BYTES, "use_regex": True}  # cuts by GPT-2's pattern first
SINGLE_DIGITS = dict(type="Digits", individual_digits=True)
LLAMA3_PATTERN = PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # digits in threes
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

GPT2 = PreTokenizer([GPT2_WORDS])
SMOLLM = PreTokenizer([SINGLE_DIGITS, GPT2_WORDS])
QWEN2 = PreTokenizer([split_at(PATTERN), BYTES], normalizer=dict(type="NFC"))
LLAMA3 = PreTokenizer([split_at(LLAMA3_PATTERN), BYTES], whole_words_first=True, begins_text=True)
TEKKEN = PreTokenizer([split_at(TEKKEN_PATTERN), BYTES], whole_words_first=True, begins_text=True)
# What llama.cpp does with files that name no cut of their own.
DEFAULT = PreTokenizer(
    [
        split_at(r"[\p{P}\$\+<=>\^~\|]+"),
        GPT2_WORDS,
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


# ------------------------------------------------------------------------------------------------
# The metadata.


def added_tokens_of(tokens: list[str], kinds: list[int]) -> list[dict]:
    """The added tokens of a vocabulary, as in a tokenizer.json."""
    special = {TokenType.CONTROL, TokenType.UNKNOWN}
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    return [
        dict(id=number, content=token, special=kind in special, **flags)
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in special or kind == TokenType.USER_DEFINED
    ]


def byte_level(facts: dict, pre: PreTokenizer) -> dict:
    """What a tokenizer.json would say of a byte-level BPE: its model, normal form and cuts."""
    return dict(
        model=dict(merges=facts["merges"], ignore_merges=pre.whole_words_first),
        normalizer=pre.normalizer,
        pre_tokenizer=dict(type="Sequence", pretokenizers=pre.cuts),
    )


def sentencepiece(facts: dict, source: Path) -> dict:
    """The same of a SentencePiece vocabulary."""
    tokens = facts["tokens"]
    normalizers = [dict(type="Replace", pattern=dict(String=" "), content="▁")]
    if facts.get("add_space_prefix", True):
        normalizers.insert(0, dict(type="Prepend", prepend="▁"))
    return dict(
        model=dict(
            merges=facts.get("merges") or merges_by_score(facts, source),
            byte_fallback=True,
            fuse_unk=True,
            unk_token=tokens[facts.get("unknown_token_id", 0)],
        ),
        normalizer=dict(type="Sequence", normalizers=normalizers),
        pre_tokenizer=None,
    )


def merges_by_score(facts: dict, source: Path) -> list[list[str]]:
    """Every pair of entries that joins to an entry, the joint one's highest score first.

    Of the pairs that join to the same entry, the one with the longer left part is first, as in the
    tokenizer.json files that transformers makes of such vocabularies. Raises UserError.
    """
    scores = {
        token: score
        for token, score, kind in zip(
            facts["tokens"], facts["scores"], facts["token_type"], strict=True
        )
        if kind == TokenType.NORMAL
    }
    if len(set(scores.values())) == 1 and len(scores) > 1:
        raise UserError(
            f"{source} gives every token the same score, so the order of its merges is lost; "
            f"convert the model anew from its tokenizer.model"
        )
    merges = []
    for token in sorted(scores, key=scores.get, reverse=True):
        for place in range(len(token) - 1, 0, -1):
            left = token[:place]
            right = token[place:]
            if left in scores and right in scores:
                merges.append([left, right])
    return merges


def begin_with(token: str, number: int) -> dict:
    """The post-processor that puts a token before every text."""
    begin = dict(SpecialToken=dict(id=token, type_id=0))
    first = dict(Sequence=dict(id="A", type_id=0))
    second = dict(Sequence=dict(id="B", type_id=0))
    return dict(
        type="TemplateProcessing",
        single=[begin, first],
        pair=[begin, first, second],
        special_tokens={token: dict(id=token, ids=[number], tokens=[token])},
    )


# ------------------------------------------------------------------------------------------------
# The tokenizer.


def gguf_tokenizer(path: str | Path) -> LibraryTokenizer:
    """The tokenizer of a GGUF file. Raises UserError."""
    path = Path(path)
    metadata = open_gguf(path).settings
    prefix = "tokenizer.ggml."
    facts = {
        key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)
    }
    if not facts.get("tokens"):
        raise UserError(f"{path} holds no tokenizer; name a GGUF file with tokenizer.ggml.tokens")
    try:
        return tokenizer_of_facts(facts, metadata.get("tokenizer.chat_template"), path)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the tokenizer in {path} cannot be read ({type(error).__name__}: {error}); convert "
            f"the model anew"
        ) from None


def tokenizer_of_facts(facts: dict, program: str | None, path: Path) -> LibraryTokenizer:
    """The tokenizer of what stands under tokenizer.ggml, and the chat template's program."""
    tokens = facts["tokens"]
    kinds = facts.setdefault("token_type", [TokenType.NORMAL] * len(tokens))
    name = facts.get("pre")
    model = facts.get("model")
    if model == "llama":
        whole = sentencepiece(facts, path)
        begins_text = True
    elif model != "gpt2":
        raise UserError(f"{path} holds a tokenizer of the kind {model!r}; read are gpt2 and llama")
    elif name not in PRE_TOKENIZERS:
        raise UserError(
            f"{path} cuts text by the pre-tokenizer {name!r}, which is not known here; known are "
            f"{', '.join(PRE_TOKENIZERS)}"
        )
    else:
        whole = byte_level(facts, PRE_TOKENIZERS[name])
        begins_text = PRE_TOKENIZERS[name].begins_text
    whole["model"]["vocab"] = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != TokenType.UNUSED  # rows that only fill up the embedding
    }
    whole["added_tokens"] = added_tokens_of(tokens, kinds)
    if facts.get("add_eos_token"):
        raise UserError(f"{path} sets add_eos_token; only tokens before a text are understood")
    begin = facts.get("bos_token_id")
    if facts.get("add_bos_token", begins_text) and begin is not None:
        whole["post_processor"] = begin_with(tokens[begin], begin)

    names = {f"{word}_token": word for word in ("bos", "eos")}
    names |= dict(unk_token="unknown", sep_token="seperator", pad_token="padding")
    special = {
        name: tokens[facts[f"{names[name]}_token_id"]]
        for name in TEMPLATE_TOKENS
        if f"{names.get(name)}_token_id" in facts
    }
    ends = [
        facts[f"{word}_token_id"] for word in ("eos", "eot", "eom") if f"{word}_token_id" in facts
    ]
    return LibraryTokenizer(
        f"gguf:{path.stem}",
        checked_spec(whole, path),
        path,
        eos_token=special.get("eos_token"),
        eos=ends,
        template=ChatTemplate(program, special, path) if program else None,
    )
