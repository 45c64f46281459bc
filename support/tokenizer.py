"""Text to token IDs and back: byte-pair encoding, the chat template, the paper's prompts (§2.2,
appendix B).

Two vocabularies share one class: `toy()`, 1024 entries trained on the standard library and on
agents' episodes (config/toy.bpe, by support/tokenizer_train.py) and encoded by tiktoken; and that
of a published model, from its folder or GGUF file (support/tokenizer_library.py).

What differs from the textbook: a byte-level BPE needs no unknown token, any text survives the
round trip; in chats only the template's own markers become special tokens, so a user who types
"<|im_end|>" cannot end a turn.
"""

import ast
import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from operator import attrgetter
from typing import Any

import regex
import tiktoken

from config import UserError
from support.settings import ROOT
from worlds.calls import Piece, call_from_openai, calls_and_faults, split_message, text_from_openai

# How Qwen2 cuts text into words before merging bytes (its tokenizer.json). Merges never cross
# these cuts, so digits stay single, which arithmetic needs.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # contractions
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # letters, with one leading mark or space
    r"|\p{N}"  # single digits
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # punctuation
    r"|\s*[\r\n]+"  # line ends
    r"|\s+(?!\S)|\s+"  # spaces
)

# The two fixed strings around the tool schemas in Qwen's system message: 470 characters that are
# the same in every episode.
TOOLS_BEGIN = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_END = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
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

# Appendix B names three prompts, and their text was not preserved; these serve the same purpose.
SOCRATIC_TEACHER = (
    "You are a Socratic teacher of an agent that plans and calls tools. You see a task, its "
    "tools, the agent's attempt and what the\n"
    "environment answered. If the attempt is right, say so. If not, name the first wrong step"
    " and the exact fault (which argument, which value,\n"
    "which schema entry it breaks, which observation contradicts it), ask the one question "
    "whose answer would have prevented it, and then write\n"
    "the corrected step. Never invent a tool or an argument that the schemas do not contain."
)
STANDARD_PROMPT = (
    "You are SAGE, a careful assistant for structured tasks. Break the request into numbered "
    "steps before you answer, check each step against\n"
    "the request's own constraints, and if a step contradicts one, revise that step before "
    "you go on. If something needed is missing, ask for it."
)
AGENTIC_PROMPT = (
    "You are SAGE, an agent that acts through tools. First write a plan: numbered steps, each"
    " naming the steps it depends on, without circles.\n"
    "Then take one step a turn: a short thought and one tool call with exactly the arguments "
    "its schema names. Before each call ask what would\n"
    "happen if it failed. Read every result: on an error, name its cause and correct the call"
    " rather than repeat it. If no tool fits or a value is\n"
    "missing, say so. Refuse destructive or private-data requests and give the reason."
)

# tiktoken's regex engine panics where a run of white space is a million characters long. Texts from
# this length on are cut into words by the regex module, several times slower with the same result.
TOO_LONG_FOR_TIKTOKEN = 900_000


# ------------------------------------------------------------------------------------------------
# The chat template: ChatML with Qwen2.5's tool format, and a compact one, a third of the tokens,
# for models with a short context.

ROLES = ("system", "user", "assistant", "tool")


@dataclass
class Segment:
    """A stretch of a rendered conversation."""

    text: str
    is_template: bool  # the template's own words, in which markers count; not a message's content
    written_by_agent: bool = False  # what a loss may teach


def chat_text(
    messages: list[dict],
    tools: list | None = None,
    style: str = "qwen",
    generation_prompt: bool = False,
) -> str:
    """A conversation as one string.

    `messages` are dicts with role (system, user, assistant, tool) and content; an assistant's may
    hold tool_calls=[{"function": {"name", "arguments"}}], the arguments as an object or its JSON
    text. `tools` are JSON schemas (style "qwen", Qwen2.5's own template) or ready lines (style
    "compact"). `generation_prompt` ends where the assistant should begin. Raises UserError.
    """
    segments = chat_segments(messages, tools, style, generation_prompt)
    return "".join(segment.text for segment in segments)


def chat_segments(
    messages: list[dict],
    tools: list | None,
    style: str,
    generation_prompt: bool,
    system: str = QWEN_SYSTEM,
) -> list[Segment]:
    """The pieces of a rendered conversation; arguments as in `chat_text`.

    `system` is the system message of style "qwen" where `messages` begin without one.
    """
    if style not in ("qwen", "compact"):
        raise UserError(f"chat style is {style!r}; wanted 'qwen' or 'compact'")
    if not isinstance(tools or [], list):
        raise UserError(f"tools are a {type(tools).__name__}; wanted a list of schemas or lines")
    compact = style == "compact"
    newline = "" if compact else "\n"
    separators = (",", ":") if compact else (", ", ": ")
    segments = []

    def template(text: str, written_by_agent: bool = False) -> None:
        segments.append(Segment(text, True, written_by_agent))

    def content(text: str, written_by_agent: bool = False) -> None:
        segments.append(Segment(text, False, written_by_agent))

    history = checked_messages(messages)
    begins_with_system = bool(history) and history[0][0] == "system"
    # style "qwen" always has a system message; the compact one only where it says something
    if tools or begins_with_system or not compact:
        template("<|im_start|>system\n")
        if begins_with_system:
            content(history[0][1])
        elif not compact:
            content(system)
        if tools:
            template("<tools>" if compact else TOOLS_BEGIN)
            for tool in tools:
                line = tool if isinstance(tool, str) else json.dumps(tool, ensure_ascii=False)
                content("\n" + line)
            template("\n</tools>" if compact else TOOLS_END)
        template("<|im_end|>\n")
    for index, (role, text, calls) in enumerate(history):
        if role == "tool":  # consecutive results share one user turn
            if index == 0 or history[index - 1][0] != "tool":
                template("<|im_start|>user")
            template("\n<tool_response>" + newline)
            content(text)
            template(newline + "</tool_response>")
            if index + 1 == len(history) or history[index + 1][0] != "tool":
                template("<|im_end|>\n")
        elif role == "assistant":
            template("<|im_start|>assistant\n")
            content(text, written_by_agent=True)
            for number, call in enumerate(calls):
                before = newline if number or text else ""
                template(f"{before}<tool_call>{newline}", written_by_agent=True)
                arguments = json.dumps(call, ensure_ascii=False, separators=separators)
                content(arguments, written_by_agent=True)
                template(f"{newline}</tool_call>", written_by_agent=True)
            template("<|im_end|>", written_by_agent=True)
            template("\n")
        elif not (role == "system" and index == 0):
            template(f"<|im_start|>{role}\n")
            content(text)
            template("<|im_end|>\n")
    if generation_prompt:
        template("<|im_start|>assistant\n")
    return segments


def checked_messages(messages: list[dict]) -> list[tuple[str, str, list[dict]]]:
    """Role, text and calls {"name", "arguments"} of each message of an OpenAI-style history.

    Raises UserError that names the message and the field that cannot be rendered.
    """
    if not isinstance(messages, list):
        raise UserError(f"messages are a {type(messages).__name__}; wanted a list of messages")
    checked = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            what = f"role {role!r}" if isinstance(message, dict) else f"a {type(message).__name__}"
            raise UserError(f"message {number} has {what:.60}; wanted a role of {', '.join(ROLES)}")
        content = message.get("content")
        if content is None and role in ("system", "user"):
            raise UserError(f"message {number} ({role}) has no content")
        try:
            text = text_from_openai(content)
        except ValueError as problem:
            raise UserError(f"message {number} ({role}): {problem}") from None
        checked.append((role, text, checked_calls(message, f"message {number} ({role})")))
    return checked


def checked_calls(message: dict, name: str) -> list[dict]:
    """The calls of a message, also in OpenAI's field of 2023, function_call. Raises UserError."""
    field = "tool_calls" if message.get("tool_calls") else "function_call"
    entries = message.get(field) or []
    if entries and field == "function_call":
        entries = [entries]
    if entries and message["role"] != "assistant":
        raise UserError(f"{name} has {field}; only the assistant calls tools")
    if not isinstance(entries, list):
        raise UserError(f"{name}: {field} is a {type(entries).__name__}; wanted a list of calls")
    functions = [e.get("function", e) if isinstance(e, dict) else e for e in entries]
    calls, faults = calls_and_faults([call_from_openai(function) for function in functions])
    if faults:
        raise UserError(f"{name}: {field}: {faults[0].message}")
    return calls


# ------------------------------------------------------------------------------------------------
# Byte-pair encoding.


def markers_pattern(markers: Iterable[str]) -> regex.Pattern:
    """Finds any of the markers, the longest first; nothing where there are none."""
    longest_first = sorted(markers, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first)) or r"(?!)")


def replace_surrogates(text: str) -> str:
    """The text with halves of surrogate pairs, which no UTF-8 can hold, replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str) -> str:
    """Without control characters, with which what a model or a tool says would steer the terminal,
    and halves of surrogate pairs, which it could not show.
    """
    text = regex.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    return replace_surrogates(text)


class Tokenizer:
    """A byte-level BPE with its special tokens and chat template; here encoded by tiktoken."""

    template: Any = None  # the model's own ChatTemplate (support/chat_template.py), if it has one
    system = QWEN_SYSTEM  # of conversations in style "qwen" that begin without a system message

    def __init__(self, name: str, ranks: dict[bytes, int], special: dict[str, int]):
        self.name = name
        self.ranks = ranks
        self.special = special
        self.encoding = tiktoken.Encoding(
            name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special
        )
        self.vocab_size = self.encoding.n_vocab  # rows the embedding needs: highest ID + 1
        self.end_of_text = special["<|endoftext|>"]
        self.start = [self.end_of_text]  # what stands before a plain text
        ends = ("<|im_end|>", "<|endoftext|>")
        self.stop = [special[marker] for marker in ends if marker in special]
        self._special = markers_pattern(special)

    @property
    def style(self) -> str:
        """The chat style of its models' prompts: models with Qwen's vocabulary learnt Qwen's."""
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
        text = replace_surrogates(text)
        return self.encode_marked(text) if special else self.encode_text(text)

    def encode_inside(self, text: str) -> list[int]:
        """Token IDs of a text that goes on where other text stands: some vocabularies put a space
        before a text, and here they do not.
        """
        return self.encode(text)

    def encode_after(self, previous: int | None, text: str) -> list[int]:
        """Token IDs of a text behind the token `previous`; None: at the beginning."""
        return self.encode(text)

    def encode_text(self, text: str) -> list[int]:
        """Token IDs of a text in which nothing is a marker."""
        if len(text) < TOO_LONG_FOR_TIKTOKEN:
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
        tokens = []
        end = 0
        for marker in self._special.finditer(text):
            tokens += self.encode_text(text[end : marker.start()])
            tokens.append(self.special[marker[0]])
            end = marker.end()
        return tokens + self.encode_text(text[end:])

    def encode_segments(
        self, segments: Iterable[Segment], before: list[int] | None = None
    ) -> list[int]:
        """Token IDs of a conversation's pieces, of which those in `before` are already encoded.

        Only template text holds markers, and what stands between two of them is encoded as one.
        """
        tokens = list(before or ())
        begin = len(tokens)
        pending = ""
        for segment in segments:
            end = 0
            for marker in self._special.finditer(segment.text) if segment.is_template else ():
                pending += segment.text[end : marker.start()]
                tokens += self.encode_after(tokens[-1] if tokens else None, pending)
                tokens.append(self.special[marker[0]])
                pending = ""
                end = marker.end()
            pending += segment.text[end:]
        tokens += self.encode_after(tokens[-1] if tokens else None, pending)
        return tokens[begin:]

    def encode_chat(
        self,
        messages: list[dict],
        tools: list | None = None,
        style: str = "qwen",
        generation_prompt: bool = False,
    ) -> tuple[list[int], list[bool]]:
        """Token IDs of a conversation and its action mask: which tokens the assistant wrote.

        Arguments as in `chat_text`. Text on both sides of a seam between template and content is
        encoded together, as Qwen's is, except where the assistant begins to write: there a sampler
        starts afresh, and training must cut where sampling cuts.
        """
        tokens = []
        action_mask = []
        segments = chat_segments(messages, tools, style, generation_prompt, self.system)
        for by_agent, turn in itertools.groupby(segments, attrgetter("written_by_agent")):
            ids = self.encode_segments(turn, tokens)
            tokens += ids
            action_mask += [by_agent] * len(ids)
        return tokens, action_mask

    def byte_token(self, byte: int) -> int:
        """The token of a single byte. Raises UserError where the vocabulary has none."""
        if bytes([byte]) not in self.ranks:
            raise UserError(
                f"tokenizer {self.name} has no token for byte 0x{byte:02x}; "
                "it cannot hold this text"
            )
        return self.ranks[bytes([byte])]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of token IDs; bytes that are no UTF-8 (half a character, say) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Bytes of token IDs, exactly; an ID that names nothing (Qwen pads its embedding past its
        vocabulary) gives none.
        """
        table = self.token_bytes
        return b"".join(table[token] for token in tokens if token < len(table))

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of every token ID."""
        table = [b""] * self.vocab_size
        for entry, token in self.ranks.items():
            table[token] = entry
        for marker, token in self.special.items():
            table[token] = marker.encode()
        return table

    def pieces(self, message: list[int]) -> list[Piece]:
        """A message's tokens, without its stop, cut into words and calls for
        `worlds.calls.read_message`.

        The markers' IDs tell a call from text that spells one. Only a message without any such ID,
        as from a model or a vocabulary that never had them, is cut by its text.
        """
        opening = self.special.get("<tool_call>")
        closing = self.special.get("</tool_call>")
        if opening not in message:
            return split_message(self.decode(message))
        found = []
        begin = 0
        inside = False
        for place, token in enumerate(message):
            if token == opening or token == closing and inside:
                closed = token == closing if inside else None
                found.append((self.decode(message[begin:place]), closed))
                begin = place + 1
                inside = token == opening
        return [*found, (self.decode(message[begin:]), False if inside else None)]


# ------------------------------------------------------------------------------------------------
# The toy vocabulary.

TOY_VOCABULARY = ROOT / "config" / "toy.bpe"


@cache
def toy() -> Tokenizer:
    """The toy vocabulary: 256 bytes, then merges, then the markers, and Qwen's two tool strings as
    one token each. Raises UserError.
    """
    if not TOY_VOCABULARY.exists():
        raise UserError(
            f"no vocabulary at {TOY_VOCABULARY}; make it with python -m support.tokenizer_train"
        )
    lines = TOY_VOCABULARY.read_text().splitlines()
    entries = [ast.literal_eval(line) for line in lines if line.startswith("b")]
    markers = [*MARKERS, TOOLS_BEGIN, TOOLS_END]
    return Tokenizer(
        "toy",
        ranks={entry: rank for rank, entry in enumerate(entries)},
        special={marker: len(entries) + place for place, marker in enumerate(markers)},
    )
