"""Text to token IDs and back: byte-pair encoding, the chat template, the paper's prompts.

The paper's §2.2 and appendix B. Two vocabularies:
- `toy()`: 1024 entries, trained by this file on the standard library and on agents' episodes
  (config/toy.bpe, one token per line), encoded by tiktoken.
- `qwen(folder)`: that of a folder of weights, from its tokenizer.json (or vocab.json +
  merges.txt), encoded by Hugging Face's `tokenizers`. A folder says how text is normalised, cut
  and merged; that library is what the files are written for, so the IDs are the model's own.
  tiktoken is five times faster, but merges by rank within one regular expression: GPT-2's cuts
  after digits one by one (SmolLM2), or merges in another order than that of the IDs, would need a
  second implementation here. What is not byte-level BPE is refused by name (`folder_spec`).

What differs from the textbook: a byte-level BPE needs no unknown token, any text survives the
round trip; in chats only the template's own markers become special tokens, so a user who types
"<|im_end|>" cannot end a turn.

    python -m support.tokenizer [episodes.jsonl]        trains config/toy.bpe anew; as it is here, with

    python -m worlds.teacher --tasks 3000 --out out/episodes.jsonl && python -m support.tokenizer out/episodes.jsonl
"""

import ast
import hashlib
import heapq
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from operator import itemgetter
from pathlib import Path

import regex
import tiktoken
import tokenizers

from support import corpus
from worlds import tools as toolbox
from config import UserError
from support.settings import ROOT

# How Qwen2 cuts text into words before merging bytes (its tokenizer.json): contractions; letters
# with one leading mark or space;
# single digits; punctuation; line ends; spaces. Merges never cross these cuts, so digits stay
# single, which arithmetic needs.
PATTERN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""

# The two fixed strings around the tool schemas in Qwen's system message, 470 characters that say
# the same in every episode.
TOOLS_BEGIN = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_END = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
MARKERS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
QWEN_SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<tool_call>": 151657,
    "</tool_call>": 151658,
}

# The worlds' made-up names are made of these. The toy vocabulary keeps each whole and never joins
# one with the mark before it, so that "(rubu",
# " rubu" and "\"rubu" all hold the tokens ru, bu: a small model copies names by copying tokens, and
# learns it many times sooner (docs/LOG.md).
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

# Appendix B names three prompts and its text was not preserved; these are ours, to the same
# purpose.
SOCRATIC_TEACHER = """You are a Socratic teacher of an agent that plans and calls tools. You see a task, its tools, the agent's attempt and what the
environment answered. If the attempt is right, say so. If not, name the first wrong step and the exact fault (which argument, which value,
which schema entry it breaks, which observation contradicts it), ask the one question whose answer would have prevented it, and then write
the corrected step. Never invent a tool or an argument that the schemas do not contain."""
STANDARD = """You are SAGE, a careful assistant for structured tasks. Break the request into numbered steps before you answer, check each step against
the request's own constraints, and if a step contradicts one, revise that step before you go on. If something needed is missing, ask for it."""
AGENTIC = """You are SAGE, an agent that acts through tools. First write a plan: numbered steps, each naming the steps it depends on, without circles.
Then take one step a turn: a short thought and one tool call with exactly the arguments its schema names. Before each call ask what would
happen if it failed. Read every result: on an error, name its cause and correct the call rather than repeat it. If no tool fits or a value is
missing, say so. Refuse destructive or private-data requests and give the reason."""


# tiktoken's regex engine panics where a run of white space is a million characters long. Texts from
# this length on are cut
# into words by the regex module instead, several times slower and with the same result.
LONG = 900_000


class Tokenizer:
    """A byte-level BPE with its special tokens and chat template; here encoded by tiktoken."""

    folder: Path | None = None  # where the vocabulary came from, and a chat template may lie

    def __init__(self, name: str, ranks: dict[bytes, int], special: dict[str, int]):
        self.encoding = tiktoken.Encoding(
            name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
        )
        self.name, self.ranks, self.special = name, ranks, special
        self.vocab_size = self.encoding.n_vocab  # rows the embedding needs: highest ID + 1
        self.end_of_text = special["<|endoftext|>"]
        self.start = [self.end_of_text]  # what stands before a plain text
        self.stop = [
            special[marker] for marker in ("<|im_end|>", "<|endoftext|>") if marker in special
        ]
        self._special = markers_pattern(special)

    @property
    def style(self) -> str:
        """How its models' prompts show tools, as `chat` names it:

        Qwen's format is for those who learnt it.
        """
        return "compact" if self.name == "toy" else "qwen"

    @cached_property
    def hash(self) -> str:
        """16 hex digits that two tokenizers share iff they map text to the same IDs."""
        content = repr((PATTERN, sorted(self.ranks.items()), sorted(self.special.items())))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """Token IDs of a text.

        With `special`, markers in it become special tokens; without, they are text like any other.
        Half a surrogate pair, which no UTF-8 can hold, becomes U+FFFD. Bytes, as a tool may print
        them, survive exactly: what is UTF-8 is encoded as text, whatever is not goes byte by byte.
        """
        if isinstance(text, bytes):
            parts = regex.split("([\udc80-\udcff]+)", text.decode("utf-8", "surrogateescape"))
            tokens = self.encode_exactly(parts[0])
            for stray, part in zip(parts[1::2], parts[2::2]):
                tokens += [self.byte_token(b) for b in stray.encode("utf-8", "surrogateescape")]
                tokens += self.encode_exactly(part)
            return tokens
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self.encode_marked(text) if special else self.encode_text(text)

    def encode_text(self, text: str) -> list[int]:
        """Token IDs of a text in which nothing is a marker."""
        if len(text) < LONG:
            return self.encoding.encode_ordinary(text)
        tokens = []
        for word in regex.finditer(PATTERN, text):
            tokens += self.encoding._encode_single_piece(word[0])
        return tokens

    def encode_exactly(self, text: str) -> list[int]:
        """Token IDs whose bytes are the text's, whatever the vocabulary normalises."""
        return self.encode_text(text)

    def encode_marked(self, text: str) -> list[int]:
        """Token IDs of a text in which markers are special tokens."""
        tokens, end = [], 0
        for marker in self._special.finditer(text):
            tokens += [*self.encode_text(text[end : marker.start()]), self.special[marker[0]]]
            end = marker.end()
        return tokens + self.encode_text(text[end:])

    def byte_token(self, byte: int) -> int:
        """The token of a single byte. Raises UserError where the vocabulary has none."""
        if bytes([byte]) not in self.ranks:
            raise UserError(
                f"tokenizer {self.name} has no token for byte 0x{byte:02x}; it cannot hold this text"
            )
        return self.ranks[bytes([byte])]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of token IDs; bytes that are no UTF-8 (half a character, say) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Bytes of token IDs, exactly; an ID that names nothing (Qwen pads its embedding past its
        vocabulary) gives none.
        """
        return b"".join(
            self.token_bytes[token] if token < len(self.token_bytes) else b"" for token in tokens
        )

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of every token ID."""
        table = [b""] * self.vocab_size
        for entry, token in [
            *self.ranks.items(),
            *((marker.encode(), token) for marker, token in self.special.items()),
        ]:
            table[token] = entry
        return table

    def pieces(self, message: list[int]) -> list[toolbox.Piece]:
        """A message's tokens, without its stop, cut into words and calls for tools.read.

        The markers' IDs tell a call from text that spells one. Only a message that has no such ID,
        as from a model or a vocabulary that never knew them, is cut by its text.
        """
        opening, closing = (self.special.get(tag) for tag in ("<tool_call>", "</tool_call>"))
        if opening not in message:
            return toolbox.pieces(self.decode(message))
        found, begin, inside = [], 0, False
        for place, token in enumerate(message):
            if token == opening or token == closing and inside:
                closed = token == closing if inside else None
                found.append((self.decode(message[begin:place]), closed))
                begin, inside = place + 1, token == opening
        return [*found, (self.decode(message[begin:]), False if inside else None)]

    def encode_chat(
        self,
        messages: list[dict],
        tools: list | None = None,
        style: str = "qwen",
        generation_prompt: bool = False,
    ) -> tuple[list[int], list[bool]]:
        """Token IDs of a conversation, and for each whether the assistant wrote it (what a loss may
        teach).

        Arguments as in `chat`. Only the template's own markers become special tokens. Text on both
        sides of a seam between template and content is encoded together, as Qwen's is, except where
        the assistant begins to write: there a sampler starts afresh, and training must cut where
        sampling cuts.
        """
        tokens, own, pending, pending_own = [], [], "", False

        def flush(marker: str = "", marker_own: bool = False) -> None:
            nonlocal pending
            piece = self.encode(pending)
            tokens.extend(piece), own.extend([pending_own] * len(piece))
            if marker:
                tokens.append(self.special[marker]), own.append(marker_own)
            pending = ""

        for segment in chat_segments(messages, tools, style, generation_prompt):
            if segment.own != pending_own:
                flush()
            pending_own, end = segment.own, 0
            for match in self._special.finditer(segment.text) if segment.template else ():
                pending += segment.text[end : match.start()]
                flush(match[0], segment.own)
                end = match.end()
            pending += segment.text[end:]
        flush()
        return tokens, own


def markers_pattern(markers: Iterable[str]) -> regex.Pattern:
    """Finds any of the markers, the longest first; nothing where there are none."""
    longest_first = sorted(markers, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)) or r"(?!)")


# ---------------------------------------------------------------------------------------------------------------------
# The chat template: ChatML with Qwen2.5's tool format, and a compact one for models whose context
# is dear.


@dataclass
class Segment:
    text: str
    template: bool  # the template's own words, in which markers count; not a message's content
    own: bool  # written by the assistant


ROLES = ("system", "user", "assistant", "tool")


def plain(messages: list[dict]) -> list[tuple[str, str, list[dict]]]:
    """Role, text and calls {"name", "arguments"} of each message of an OpenAI-style history.

    Raises UserError that names the message and the field that cannot be rendered.
    """
    if not isinstance(messages, list):
        raise UserError(f"messages are a {type(messages).__name__}; wanted a list of messages")
    found = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            what = f"role {role!r}" if isinstance(message, dict) else f"a {type(message).__name__}"
            raise UserError(f"message {number} has {what:.60}; wanted a role of {', '.join(ROLES)}")
        content = message.get("content")
        if content is None and role in ("system", "user"):
            raise UserError(f"message {number} ({role}) has no content")
        try:
            text = toolbox.given_text(content)
        except ValueError as problem:
            raise UserError(f"message {number} ({role}): {problem}") from None
        found.append((role, text, calls_of(message, f"message {number} ({role})")))
    return found


def calls_of(message: dict, name: str) -> list[dict]:
    """The calls of a message, also in OpenAI's field of 2023, function_call. Raises UserError."""
    field = "tool_calls" if message.get("tool_calls") else "function_call"
    entries = message.get(field) or []
    entries = [entries] if field == "function_call" and entries else entries
    if entries and message["role"] != "assistant":
        raise UserError(f"{name} has {field}; only the assistant calls tools")
    if not isinstance(entries, list):
        raise UserError(f"{name}: {field} is a {type(entries).__name__}; wanted a list of calls")
    functions = [e.get("function", e) if isinstance(e, dict) else e for e in entries]
    calls, faults = toolbox.sorted_out([toolbox.given_call(function) for function in functions])
    if faults:
        raise UserError(f"{name}: {field}: {faults[0].message}")
    return calls


def chat_segments(
    messages: list[dict], tools: list | None, style: str, generation_prompt: bool
) -> list[Segment]:
    """The pieces of a rendered conversation; see `chat`."""
    if style not in ("qwen", "compact"):
        raise UserError(f"chat style is {style!r}; wanted 'qwen' or 'compact'")
    if not isinstance(tools or [], list):
        raise UserError(f"tools are a {type(tools).__name__}; wanted a list of schemas or lines")
    compact, parts, history = style == "compact", [], plain(messages)

    def template(text: str, own: bool = False) -> None:
        parts.append(Segment(text, True, own))

    def content(text: str, own: bool = False) -> None:
        parts.append(Segment(text, False, own))

    system = history[0][1] if history and history[0][0] == "system" else None
    if (
        tools or system is not None or not compact
    ):  # Qwen always has a system message; the compact style only where it says something
        template("<|im_start|>system\n")
        content(
            system
            if system is not None
            else ""
            if compact
            else "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        )
        if tools:
            template("<tools>" if compact else TOOLS_BEGIN)
            for tool in tools:
                content(
                    "\n" + (tool if isinstance(tool, str) else json.dumps(tool, ensure_ascii=False))
                )
            template("\n</tools>" if compact else TOOLS_END)
        template("<|im_end|>\n")
    break_ = "" if compact else "\n"
    colon, comma = (":", ",") if compact else (": ", ", ")
    for index, (role, text, calls) in enumerate(history):
        if role == "tool":  # consecutive results share one user turn
            if index == 0 or history[index - 1][0] != "tool":
                template("<|im_start|>user")
            template("\n<tool_response>" + break_)
            content(text)
            template(break_ + "</tool_response>")
            if index + 1 == len(history) or history[index + 1][0] != "tool":
                template("<|im_end|>\n")
        elif role == "assistant":
            template("<|im_start|>assistant\n")
            content(text, own=True)
            for number, call in enumerate(calls):
                separator = "\n" if not compact and (number or text) else ""
                template(f"{separator}<tool_call>{break_}", own=True)
                content(json.dumps(call, ensure_ascii=False, separators=(comma, colon)), own=True)
                template(f"{break_}</tool_call>", own=True)
            template("<|im_end|>", own=True)
            template("\n")
        elif not (role == "system" and index == 0):
            template(f"<|im_start|>{role}\n")
            content(text)
            template("<|im_end|>\n")
    if generation_prompt:
        template("<|im_start|>assistant\n")
    return parts


def chat(
    messages: list[dict],
    tools: list | None = None,
    style: str = "qwen",
    generation_prompt: bool = False,
) -> str:
    """A conversation as one string.

    `messages` are dicts with role (system, user, assistant, tool) and content; an assistant's may
    hold tool_calls=[{"function": {"name", "arguments"}}], the arguments as an object or its JSON
    text. `tools` are JSON schemas (style "qwen", Qwen2.5's own template) or ready lines (style
    "compact", a third of the tokens). `generation_prompt` ends where the assistant should begin.
    Raises UserError.
    """
    return "".join(
        segment.text for segment in chat_segments(messages, tools, style, generation_prompt)
    )


# ---------------------------------------------------------------------------------------------------------------------
# The two vocabularies.

TOY = ROOT / "config" / "toy.bpe"


@cache
def toy() -> Tokenizer:
    """The toy vocabulary:

    256 bytes, then merges, then the markers, and Qwen's two tool strings as one token each.
    """
    if not TOY.exists():
        raise UserError(f"no vocabulary at {TOY}; make it with python -m support.tokenizer")
    entries = [
        ast.literal_eval(line) for line in TOY.read_text().splitlines() if line.startswith("b")
    ]
    markers = [*MARKERS, TOOLS_BEGIN, TOOLS_END]
    return Tokenizer(
        "toy",
        {entry: rank for rank, entry in enumerate(entries)},
        {marker: len(entries) + i for i, marker in enumerate(markers)},
    )


def gpt2_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte: itself where it prints, else the next free
    character from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(hidden)
    }


def load_json(path: Path) -> dict:
    """A JSON object from a file; a key that stands twice is an error. Raises ValueError,
    OSError.
    """

    def unique(pairs: list[tuple]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(
                key for key, count in Counter(key for key, _ in pairs).items() if count > 1
            )
            raise ValueError(f"{twice!r} stands twice")
        return found

    content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def side_file(folder: Path, name: str) -> dict:
    """A JSON object beside the vocabulary; empty where there is no such file. Raises UserError."""
    try:
        return load_json(folder / name) if (folder / name).exists() else {}
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"{folder / name} cannot be read ({error}); copy it anew from the model's repository"
        ) from None


def flat(step: dict | None, inner: str) -> list[dict]:
    """The steps of a normaliser, pre-tokeniser or decoder in order, sequences taken apart."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [found for part in step[inner] for found in flat(part, inner)]
    return [step]


# What text can need: all bytes of UTF-8 but control characters and planes 4 to 11, where Unicode
# has no characters.
# SmolLM2 lacks 21 bytes outside of these; like its own library we leave them out of a text.
NEEDED_BYTES = {9, 10, 13, *range(32, 127), *range(128, 192), *range(194, 241), 243, 244}


def folder_spec(whole: dict, source: Path) -> dict:
    """The parts of a tokenizer.json that decide about IDs, spelt one way.

    Truncation and padding are left out: a file may keep those of its last use, and transformers
    does not obey them either. Raises UserError for what is not understood.
    """

    def refuse(what: str) -> None:
        raise UserError(
            f"{source} {what}; only byte-level BPE is read (Qwen2, GPT-2, Llama 3, SmolLM2 and "
            f"their like)"
        )

    model, alphabet = whole["model"], gpt2_alphabet()
    if model.get("type", "BPE") != "BPE":
        refuse(f"holds a {model['type']} model")
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback"):
        if model.get(setting):
            refuse(f"sets {setting} to {model[setting]!r}")
    normalizer = flat(whole.get("normalizer"), "normalizers")
    for step in normalizer:
        if step["type"] not in ("NFC", "NFD", "NFKC", "NFKD"):
            refuse(f"has the normalizer {step['type']}")
    cuts = flat(whole.get("pre_tokenizer"), "pretokenizers")
    for step in cuts:
        if step["type"] not in ("ByteLevel", "Split", "Digits"):
            refuse(f"has the pre-tokenizer {step['type']}")
        if step["type"] == "Split" and step["behavior"] == "Removed":
            refuse("has a pre-tokenizer Split that removes text")
    if [step["type"] for step in cuts].count("ByteLevel") != 1:
        refuse("does not have one pre-tokenizer ByteLevel")
    for step in flat(whole.get("decoder"), "decoders"):
        if step["type"] != "ByteLevel":
            refuse(f"has the decoder {step['type']}")
    added = whole["added_tokens"]
    vocabulary, names = model["vocab"], {token["content"] for token in added}
    for entry in vocabulary.keys() - names:
        if not entry or set(entry) - alphabet.keys():
            refuse(f"has the token {entry!r}, which stands for no bytes")
    if missing := [
        byte
        for character, byte in alphabet.items()
        if byte in NEEDED_BYTES and character not in vocabulary
    ]:
        refuse(f"has no token for {len(missing)} bytes that text needs, 0x{missing[0]:02x} first")
    if model.get("unk_token") is not None and model["unk_token"] not in vocabulary.keys() | names:
        refuse(f"names an unknown token {model['unk_token']!r} that it does not hold")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return dict(
        model=dict(
            type="BPE",
            vocab=vocabulary,
            merges=merges,
            unk_token=model.get("unk_token"),
            fuse_unk=model.get("fuse_unk", False),
            ignore_merges=model.get("ignore_merges", False),
        ),
        normalizer=dict(type="Sequence", normalizers=normalizer) if normalizer else None,
        pre_tokenizer=dict(type="Sequence", pretokenizers=cuts),
        added_tokens=sorted(added, key=itemgetter("id")),
        post_processor=whole.get("post_processor"),
    )


def spec_of_parts(folder: Path, config: dict) -> dict:
    """A tokenizer.json of vocab.json and merges.txt: what they leave unsaid is known by the class
    that the folder names, or by its markers. Raises UserError for any but Qwen2's and GPT-2's.
    """
    added = config.get("added_tokens_decoder") or {}
    listed = {entry["content"] for entry in added.values()}
    name = config.get("tokenizer_class") or side_file(folder, "config.json").get("model_type")
    if name is None and "<|im_start|>" in listed:
        name = "qwen2"
    prefix = bool(config.get("add_prefix_space"))
    vocabulary = load_json(folder / "vocab.json")
    if name in ("Qwen2Tokenizer", "Qwen2TokenizerFast", "qwen2"):
        normalizer, default = dict(type="NFC"), QWEN_SPECIAL
        cuts = [
            dict(type="Split", pattern=dict(Regex=PATTERN), behavior="Isolated", invert=False),
            dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=False),
        ]
    elif name in ("GPT2Tokenizer", "GPT2TokenizerFast", "gpt2"):
        normalizer = None
        default = {m: vocabulary[m] for m in ("<|endoftext|>",) if m in vocabulary}
        cuts = [dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=True)]
    else:
        raise UserError(
            f"{folder} has vocab.json and merges.txt of the class {name!r}, whose rules are not "
            f"known here (Qwen2Tokenizer's and GPT2Tokenizer's are); save its tokenizer.json with "
            f"transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    tokens = [] if added else [dict(id=token, content=marker) for marker, token in default.items()]
    return dict(
        model=dict(vocab=vocabulary, merges=merges),
        normalizer=normalizer,
        pre_tokenizer=dict(type="Sequence", pretokenizers=cuts),
        added_tokens=tokens,
    )


# The flags of an added token where a file leaves them out.
ADDED = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)


def added_tokens(whole: dict, config: dict, folder: Path) -> list[dict]:
    """The added tokens of a tokenizer.json, and those that tokenizer_config.json and
    added_tokens.json beside it name besides. Raises UserError where they disagree about an ID.
    """
    listed = list(whole.get("added_tokens") or ())
    for token, entry in (config.get("added_tokens_decoder") or {}).items():
        listed.append({**entry, "id": int(token)})
    for content, token in side_file(folder, "added_tokens.json").items():
        listed.append(dict(id=token, content=content, special=False))
    found: dict[str, dict] = {}
    for token in listed:
        flags = {flag: token.get(flag, default) for flag, default in ADDED.items()}
        entry = dict(id=token["id"], content=token["content"], **flags)
        known = found.setdefault(entry["content"], entry)
        if known["id"] != entry["id"]:
            raise UserError(
                f"{folder} gives {entry['content']!r} two IDs, {known['id']} and {entry['id']}; "
                f"copy its files anew from one model"
            )
    return list(found.values())


def library_tokenizer(spec: dict, source: Path) -> tokenizers.Tokenizer:
    """Hugging Face's tokenizer of a spec. Raises UserError."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **spec}))
    except Exception as error:  # the library raises plain Exception
        raise UserError(
            f"{source} is no tokenizer file ({error}); copy it anew from the model's repository"
        ) from None


class FolderTokenizer(Tokenizer):
    """A folder's own byte-level BPE, encoded by Hugging Face's `tokenizers`.

    Added tokens are markers, which only a template may write, where they are special or look like
    `<one>`; but not where ordinary text can spell them by merges. The others (runs of spaces, say)
    are part of all text, as in the library. Round trips are exact up to the folder's own normal
    form and prefix space, and to control characters that it has no token for; `encode` of bytes
    is exact or refuses.
    """

    # The library's regex engine panics after ten million steps back, and an encoding takes 160
    # bytes of memory per character: a longer text is cut at the last line end between two lines,
    # where Qwen's and GPT-2's patterns cut too. A line longer than that is cut inside: its IDs may
    # then differ from those of the whole, and its text still returns.
    longest = 1 << 21
    line_end = regex.compile(r"(?r)(?<=\S)\n(?=\S)")

    def __init__(self, spec: dict, folder: Path, source: Path, config: dict):
        self.name, self.folder, self.source, self.spec = f"qwen:{folder.name}", folder, source, spec
        alphabet, model = gpt2_alphabet(), spec["model"]
        added = {token["content"]: token for token in spec["added_tokens"]}
        self.ranks = {
            bytes(alphabet[character] for character in entry): token
            for entry, token in model["vocab"].items()
            if entry not in added
        }
        spelt = {"".join(merge) for merge in model["merges"]} | alphabet.keys()
        self.special = {
            content: token["id"]
            for content, token in added.items()
            if content not in spelt and (token["special"] or regex.fullmatch(r"<\S+>", content))
        }
        self.stripping = {
            content
            for content, token in added.items()
            if token["lstrip"] or token["rstrip"] or token["single_word"]
        }
        self._special = markers_pattern(self.special)
        self.check_ids()
        self.vocab_size = max(self.every_token().values()) + 1

        # For text: no markers, not even as entries of the vocabulary; and the other added tokens
        # as entries, lest the library number them anew.
        plain = [token for content, token in added.items() if content not in self.special]
        vocabulary = {
            entry: token
            for entry, token in model["vocab"].items()
            if entry not in self.special or entry == model["unk_token"]
        }
        vocabulary |= {token["content"]: token["id"] for token in plain}
        model = {**model, "vocab": vocabulary}
        self.text_spec = {**spec, "model": model, "added_tokens": plain, "post_processor": None}
        self.library = library_tokenizer(self.text_spec, source)
        steps = spec["pre_tokenizer"]["pretokenizers"]
        self.prefixes = any(step.get("add_prefix_space") for step in steps)

        eos = stop_tokens(folder, self.vocab_size)
        markers = "<|endoftext|>", marker_text(config.get("eos_token"))
        named = [self.special.get(marker) for marker in markers]
        ends = [token for token in (*named, *eos) if token is not None]
        if not ends:
            raise UserError(
                f"{source} has no <|endoftext|>, and neither tokenizer_config.json nor "
                f"generation_config.json beside it names an end-of-text token; add eos_token_id "
                f"to generation_config.json"
            )
        self.end_of_text = ends[0]
        self.start = self.before_text() or [self.end_of_text]
        turn = [self.special[marker] for marker in ("<|im_end|>",) if marker in self.special]
        self.stop = list(dict.fromkeys([*turn, self.end_of_text, *eos]))
        del self.marked  # some 100 MB; made again when asked for

    def every_token(self) -> dict[str, int]:
        """The ID of every entry and added token, as the files spell them."""
        added = {token["content"]: token["id"] for token in self.spec["added_tokens"]}
        return {**self.spec["model"]["vocab"], **added}

    def check_ids(self) -> None:
        """Refuse IDs that two tokens share, or that the library would not give."""
        tokens = self.every_token()
        shared = [token for token, count in Counter(tokens.values()).items() if count > 1]
        if shared:
            names = [content for content, token in tokens.items() if token == shared[0]]
            raise UserError(
                f"{self.source} gives the ID {shared[0]} to {names}; copy it anew from the model's "
                f"repository"
            )
        for token in self.spec["added_tokens"]:
            found = self.marked.token_to_id(token["content"])
            if found != token["id"]:
                raise UserError(
                    f"{self.source} gives {token['content']!r} the ID {token['id']}, but the "
                    f"tokenizers library reads it as {found} (it numbers added tokens on from the "
                    f"vocabulary); renumber it"
                )

    @cached_property
    def marked(self) -> tokenizers.Tokenizer:
        """The folder's tokenizer as the library reads it, markers and all."""
        return library_tokenizer(self.spec, self.source)

    @cached_property
    def exact(self) -> tokenizers.Tokenizer:
        """The same without what changes text: normal form, prefix space, added tokens."""
        cuts = [
            {**step, "add_prefix_space": False} if step["type"] == "ByteLevel" else step
            for step in self.spec["pre_tokenizer"]["pretokenizers"]
        ]
        steps = dict(type="Sequence", pretokenizers=cuts)
        changes = {"normalizer": None, "added_tokens": [], "pre_tokenizer": steps}
        return library_tokenizer({**self.text_spec, **changes}, self.source)

    @cached_property
    def hash(self) -> str:
        content = json.dumps([self.spec, sorted(self.special)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def token_bytes(self) -> list[bytes]:
        table = [b""] * self.vocab_size
        for entry, token in self.ranks.items():
            table[token] = entry
        for token in self.spec["added_tokens"]:
            table[token["id"]] = token["content"].encode()
        return table

    def before_text(self) -> list[int]:
        """What the folder's post-processor puts before a text. Raises UserError if any after."""
        bare = self.marked.encode("a", add_special_tokens=False).ids
        framed = self.marked.encode("a").ids
        if framed[-len(bare) :] != bare:
            raise UserError(
                f"{self.source} has a post-processor {self.spec['post_processor']['type']} that "
                f"puts tokens after a text; only tokens before it are understood"
            )
        return framed[: -len(bare)]

    def ids(self, library: tokenizers.Tokenizer, text: str) -> list[int]:
        """Token IDs by one of the folder's library tokenizers. Raises UserError where it panics."""
        tokens, start = [], 0
        while start < len(text):
            end = len(text)
            if end - start > self.longest and not self.prefixes:
                seam = self.line_end.search(text, start + 1, start + self.longest)
                end = seam.end() if seam else start + self.longest
            try:
                tokens += library.encode(text[start:end], add_special_tokens=False).ids
            except BaseException as error:
                if type(error).__name__ != "PanicException":  # Rust's, which is no Exception
                    raise
                raise UserError(
                    f"the pre-tokenizer of {self.source} fails on a text of {end - start:,} "
                    f"characters ({error}); leave that text out"
                ) from None
            start = end
        return tokens

    def encode_text(self, text: str) -> list[int]:
        return self.ids(self.library, text)

    def encode_marked(self, text: str) -> list[int]:
        return self.ids(self.marked, text)

    def encode_exactly(self, text: str) -> list[int]:
        tokens = self.ids(self.exact, text)
        if self.decode_bytes(tokens) != text.encode():
            for byte in text.encode():
                self.byte_token(byte)  # names the first that is missing
        return tokens

    def encode_chat(
        self,
        messages: list[dict],
        tools: list | None = None,
        style: str = "qwen",
        generation_prompt: bool = False,
    ) -> tuple[list[int], list[bool]]:
        wanted = ["<|im_start|>", "<|im_end|>"]
        if tools or any(message.get("tool_calls") for message in messages):
            wanted += ["<tool_call>", "</tool_call>"]
        if missing := [marker for marker in wanted if marker not in self.special]:
            raise UserError(
                f"{self.source} has no {' '.join(missing)}, which conversations with tools are "
                f"framed by; give these names to unused special tokens in its added_tokens"
            )
        self.refuse_stripping(wanted)
        return super().encode_chat(messages, tools, style, generation_prompt)

    def encode_segments(self, segments: list[Segment]) -> list[int]:
        """Token IDs of a conversation; only template text holds markers, and what stands between
        two of them is encoded as one.
        """
        tokens, pending = [], ""
        for segment in segments:
            end = 0
            for marker in self._special.finditer(segment.text) if segment.template else ():
                self.refuse_stripping([marker[0]])
                pending += segment.text[end : marker.start()]
                tokens += [*self.encode(pending), self.special[marker[0]]]
                pending, end = "", marker.end()
            pending += segment.text[end:]
        return tokens + self.encode(pending)

    def refuse_stripping(self, markers: list[str]) -> None:
        """Refuse markers that take white space beside them away, which here would stay."""
        if found := sorted(self.stripping & set(markers)):
            raise UserError(
                f"{self.source} sets lstrip, rstrip or single_word for {' '.join(found)}, which is "
                f"not built for conversations; set them to false there"
            )


def marker_text(entry: str | dict | None) -> str | None:
    """The text of a special token in tokenizer_config.json, which may hold it with its flags."""
    return entry["content"] if isinstance(entry, dict) else entry


def stop_tokens(folder: Path, vocab_size: int) -> list[int]:
    """The IDs that end a generation, from generation_config.json, or else config.json.

    Raises UserError.
    """
    for name in ("generation_config.json", "config.json"):
        found = side_file(folder, name).get("eos_token_id")
        if found is None:
            continue
        found = found if isinstance(found, list) else [found]
        wrong = [token for token in found if type(token) is not int or not 0 <= token < vocab_size]
        if wrong:
            raise UserError(
                f"{folder / name} says eos_token_id {wrong[0]!r}, which is none of the tokenizer's "
                f"{vocab_size:,} tokens; correct it"
            )
        return found
    return []


def qwen(folder: str | Path) -> FolderTokenizer:
    """The tokenizer of a folder with tokenizer.json, or with vocab.json and merges.txt.

    Raises UserError.
    """
    folder = Path(folder)
    source, config = folder / "tokenizer.json", side_file(folder, "tokenizer_config.json")
    try:
        if source.exists():
            whole = load_json(source)
        elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            source = folder / "vocab.json"
            whole = spec_of_parts(folder, config)
        else:
            raise UserError(
                f"no tokenizer in {folder}: wanted tokenizer.json, or vocab.json and merges.txt; "
                f"copy them from the model's repository"
            )
        whole["added_tokens"] = added_tokens(whole, config, folder)
        spec = folder_spec(whole, source)
        return FolderTokenizer(spec, folder, source, config)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise UserError(
            f"{source} is no tokenizer file ({type(error).__name__}: {error}); copy it anew from "
            f"the model's repository"
        ) from None


def load(name: str | Path) -> Tokenizer:
    """The tokenizer a setting names: "toy", or a folder's."""
    return toy() if str(name) == "toy" else qwen(Path(name).expanduser())


# ---------------------------------------------------------------------------------------------------------------------
# Training a byte-level BPE: merge the most frequent neighbours, again and again.


def train(texts: Iterable[str], entries: int, syllables: Iterable[str] = ()) -> list[bytes]:
    """The first `entries` tokens of a byte-level BPE: 256 bytes, then one merge after another
    (Sennrich et al. 2016).

    `syllables` (a consonant and a vowel each) are merged before all others, and none with a single
    mark or space before it. Deterministic: of equally frequent pairs the smaller bytes win. The
    counts of pairs are kept up to date word by word, so that a merge costs only the words it
    changes.
    """
    first = [syllable.encode() for syllable in syllables]
    words = Counter(word for text in texts for word in regex.findall(PATTERN, text))
    whole = re.compile(b"|".join([*first, b"."]), re.DOTALL)
    pieces = [(whole.findall(word.encode()), count) for word, count in sorted(words.items())]
    counts: Counter = Counter()  # pair -> how often it stands in the text
    where = defaultdict(set)  # pair -> words that hold it
    for index, (parts, count) in enumerate(pieces):
        for pair in zip(parts, parts[1:]):
            counts[pair] += count
            where[pair].add(index)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    vocabulary = [bytes([b]) for b in range(256)] + first
    known, kept_whole = set(vocabulary), set(first)
    while len(vocabulary) < entries and queue:
        negative, pair = heapq.heappop(queue)
        if -negative != counts[pair]:  # the count has changed since: ask again later
            if counts[pair] > 0:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        merged = pair[0] + pair[1]
        if pair[1] in kept_whole and len(pair[0]) == 1 and not pair[0].isalpha():
            continue
        if merged not in known:  # two pairs can spell the same token
            vocabulary.append(merged)
            known.add(merged)
        changed = set()
        for index in where.pop(pair):
            parts, count = pieces[index]
            for old in zip(parts, parts[1:]):
                counts[old] -= count
                changed.add(old)
            position = 0
            while position < len(parts) - 1:
                if (parts[position], parts[position + 1]) == pair:
                    parts[position : position + 2] = [merged]
                position += 1
            for new in zip(parts, parts[1:]):
                counts[new] += count
                where[new].add(index)
                changed.add(new)
        for old in changed:
            if counts[old] > 0:
                heapq.heappush(queue, (-counts[old], old))
    return vocabulary


def main() -> None:
    """Train config/toy.bpe on the standard library and on conversations, if a file of them is given
    (a line of JSON each: messages, tools).

    Conversations are a twentieth of the text and count five times: a call then costs half the
    tokens, and Python hardly more.
    """
    texts = [document.text for document in corpus.documents()]
    conversations = []
    for line in Path(sys.argv[1]).read_text().splitlines() if len(sys.argv) > 1 else ():
        row = json.loads(line)
        conversations.append(
            "".join(s.text for s in chat_segments(row["messages"], row["tools"], "compact", False))
        )
    markers = [*MARKERS, TOOLS_BEGIN, TOOLS_END]
    between = regex.compile(
        "|".join(map(regex.escape, markers))
    )  # the markers are tokens already: the merges shall not learn their letters
    vocabulary = train(
        (piece for text in texts + conversations * 5 for piece in between.split(text)),
        1024 - len(markers),
        SYLLABLES,
    )
    aside = TOY.with_suffix(".tmp")
    aside.write_text(
        "# The toy vocabulary: one token a line, its rank is its place; made by tokenizer.py\n"
        + "".join(f"{entry!r}\n" for entry in vocabulary)
    )
    aside.replace(TOY)
    for name, sample in (
        ("Python", "".join(texts[:200])),
        ("conversations", "".join(conversations[:200])),
    ):
        if sample:
            print(
                f"{name}: {len(sample.encode()) / len(toy().encode(sample, special=True)):.2f} bytes a token"
            )
    print(f"{TOY}: {len(vocabulary)} tokens and {len(markers)} markers")


if __name__ == "__main__":
    main()
