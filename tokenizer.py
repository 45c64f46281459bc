"""Text to token IDs and back: byte-pair encoding through tiktoken, the chat template, the paper's prompts (§2.2, appendix B).

Two vocabularies, one class:
- `toy()`: 1024 entries, trained by this file on the standard library and on agents' episodes (config/toy.bpe, one token a line).
- `qwen(folder)`: Qwen2.5's, from the tokenizer.json (or vocab.json + merges.txt) of a folder of weights.

What differs from the textbook: a byte-level BPE needs no unknown token, any text survives the round trip; in chats only the
template's own markers become special tokens, so a user who types "<|im_end|>" cannot end a turn.

    python tokenizer.py [episodes.jsonl]        trains config/toy.bpe anew; as it is here, with

    python teacher.py --tasks 3000 --out out/episodes.jsonl && python tokenizer.py out/episodes.jsonl
"""

import ast
import hashlib
import heapq
import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import regex
import tiktoken

import corpus
import tools as toolbox
from config import ROOT, UserError

# How Qwen2 cuts text into words before merging bytes (its tokenizer.json): contractions; letters with one leading mark or space;
# single digits; punctuation; line ends; spaces. Merges never cross these cuts, so digits stay single, which arithmetic needs.
PATTERN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""

# The two fixed strings around the tool schemas in Qwen's system message, 470 characters that say the same in every episode.
TOOLS_BEGIN = ("\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
               "You are provided with function signatures within <tools></tools> XML tags:\n<tools>")
TOOLS_END = ("\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
             '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>')
MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
QWEN_SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<tool_call>": 151657, "</tool_call>": 151658}

# The worlds' made-up names are made of these. The toy vocabulary keeps each whole and never joins one with the mark before it, so that "(rubu",
# " rubu" and "\"rubu" all hold the tokens ru, bu: a small model copies names by copying tokens, and learns it many times sooner (docs/LOG.md).
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

# Appendix B names three prompts and its text was not preserved; these are ours, to the same purpose.
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


class Tokenizer:
    """A tiktoken `Encoding` with its special tokens, Unicode normal form and chat template."""

    def __init__(self, name: str, ranks: dict[bytes, int], special: dict[str, int], normal_form: str = ""):
        self.encoding = tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
        self.name, self.ranks, self.special, self.normal_form = name, ranks, special, normal_form
        self.vocab_size = self.encoding.n_vocab  # rows the embedding needs: highest ID + 1
        self.end_of_text = special["<|endoftext|>"]
        self.stop = [special[marker] for marker in ("<|im_end|>", "<|endoftext|>") if marker in special]
        self._special = regex.compile("|".join(regex.escape(s) for s in sorted(special, key=len, reverse=True)))

    @cached_property
    def hash(self) -> str:
        """16 hex digits that two tokenizers share iff they map text to the same IDs."""
        content = repr((PATTERN, sorted(self.ranks.items()), sorted(self.special.items()), self.normal_form))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """Token IDs of a text. With `special`, markers in it become special tokens; without, they are text like any other."""
        if isinstance(text, bytes):  # arbitrary bytes, as a tool may print: whatever is not UTF-8 goes byte by byte
            return self.encoding._encode_bytes(text)
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        return self.encoding.encode(text, allowed_special="all") if special else self.encoding.encode_ordinary(text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of token IDs; bytes that are no UTF-8 (half a character, say) become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Bytes of token IDs, exactly; an ID that names nothing (Qwen pads its embedding past its vocabulary) gives none."""
        return b"".join(self.token_bytes[token] if token < len(self.token_bytes) else b"" for token in tokens)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of every token ID."""
        table = [b""] * self.vocab_size
        for entry, token in [*self.ranks.items(), *((marker.encode(), token) for marker, token in self.special.items())]:
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

    def encode_chat(self, messages: list[dict], tools: list | None = None, style: str = "qwen", generation_prompt: bool = False) -> tuple[list[int], list[bool]]:
        """Token IDs of a conversation, and for each whether the assistant wrote it (what a loss may teach).

        Arguments as in `chat`. Only the template's own markers become special tokens. Text on both sides of a seam between
        template and content is encoded together, as Qwen's is, except where the assistant begins to write: there a
        sampler starts afresh, and training must cut where sampling cuts.
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
                pending += segment.text[end:match.start()]
                flush(match[0], segment.own)
                end = match.end()
            pending += segment.text[end:]
        flush()
        return tokens, own


# ---------------------------------------------------------------------------------------------------------------------
# The chat template: ChatML with Qwen2.5's tool format, and a compact one for models whose context is dear.

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


def chat_segments(messages: list[dict], tools: list | None, style: str, generation_prompt: bool) -> list[Segment]:
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
    if tools or system is not None or not compact:  # Qwen always has a system message; the compact style only where it says something
        template("<|im_start|>system\n")
        content(system if system is not None else "" if compact else "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
        if tools:
            template("<tools>" if compact else TOOLS_BEGIN)
            for tool in tools:
                content("\n" + (tool if isinstance(tool, str) else json.dumps(tool, ensure_ascii=False)))
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


def chat(messages: list[dict], tools: list | None = None, style: str = "qwen", generation_prompt: bool = False) -> str:
    """A conversation as one string.

    `messages` are dicts with role (system, user, assistant, tool) and content; an assistant's may hold
    tool_calls=[{"function": {"name", "arguments"}}], the arguments as an object or its JSON text.
    `tools` are JSON schemas (style "qwen", Qwen2.5's own template) or ready lines (style "compact",
    a third of the tokens). `generation_prompt` ends where the assistant should begin. Raises
    UserError.
    """
    return "".join(segment.text for segment in chat_segments(messages, tools, style, generation_prompt))


# ---------------------------------------------------------------------------------------------------------------------
# The two vocabularies.

TOY = ROOT / "config" / "toy.bpe"


@cache
def toy() -> Tokenizer:
    """The toy vocabulary: 256 bytes, then merges, then the markers, and Qwen's two tool strings as one token each."""
    if not TOY.exists():
        raise UserError(f"no vocabulary at {TOY}; make it with python tokenizer.py")
    entries = [ast.literal_eval(line) for line in TOY.read_text().splitlines() if line.startswith("b")]
    markers = [*MARKERS, TOOLS_BEGIN, TOOLS_END]
    return Tokenizer("toy", {entry: rank for rank, entry in enumerate(entries)}, {marker: len(entries) + i for i, marker in enumerate(markers)})


def gpt2_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte: itself where it prints, else the next free character from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def qwen(folder: str | Path) -> Tokenizer:
    """Qwen2.5's tokenizer from a folder with tokenizer.json, or with vocab.json and merges.txt. Raises UserError."""
    folder = Path(folder)
    try:
        if (folder / "tokenizer.json").exists():
            source = folder / "tokenizer.json"
            whole = json.loads(source.read_text(encoding="utf-8"))
            vocabulary, merges = whole["model"]["vocab"], whole["model"]["merges"]
            special = {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
            normal_form = (whole.get("normalizer") or {}).get("type", "")
            patterns = {step["pattern"]["Regex"] for step in (whole.get("pre_tokenizer") or {}).get("pretokenizers", []) if step.get("type") == "Split"}
            if patterns - {PATTERN}:
                raise UserError(f"{source} cuts text by another pattern than Qwen2's: {patterns}; only Qwen2 and Qwen2.5 folders are read")
        elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            source = folder / "vocab.json"
            vocabulary = json.loads(source.read_text(encoding="utf-8"))
            merges = [line for line in (folder / "merges.txt").read_text(encoding="utf-8").split("\n") if line and not line.startswith("#version")]
            settings = folder / "tokenizer_config.json"
            added = json.loads(settings.read_text()).get("added_tokens_decoder", {}) if settings.exists() else {}
            special = {entry["content"]: int(token) for token, entry in added.items()} or QWEN_SPECIAL
            normal_form = "NFC"  # Qwen2's, which these two files do not state
        else:
            raise UserError(f"no tokenizer in {folder}: wanted tokenizer.json, or vocab.json and merges.txt; copy them from the model's repository")
        # tiktoken merges by rank and HF by the list of merges; they agree iff merged tokens are numbered in the order of their merges.
        order = [vocabulary["".join(merge.split(" ") if isinstance(merge, str) else merge)] for merge in merges]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is no tokenizer file ({type(error).__name__}: {error}); copy it anew from the model's repository") from None
    alphabet = gpt2_alphabet()
    try:
        ranks = {bytes(alphabet[c] for c in entry): rank for entry, rank in vocabulary.items() if entry not in special}
    except KeyError as error:
        raise UserError(f"{source}: a token holds {error}, which stands for no byte; only byte-level BPE is read") from None
    if order != sorted(order):
        raise UserError(f"{source} numbers its tokens in another order than its merges; tiktoken cannot encode with it")
    if "<|endoftext|>" not in special:
        raise UserError(f"{source} has no <|endoftext|> token; only Qwen2 and Qwen2.5 folders are read")
    return Tokenizer(f"qwen:{folder.name}", ranks, special, normal_form)


def load(name: str | Path) -> Tokenizer:
    """The tokenizer a setting names: "toy", or Qwen's in a folder."""
    return toy() if str(name) == "toy" else qwen(Path(name).expanduser())


# ---------------------------------------------------------------------------------------------------------------------
# Training a byte-level BPE: merge the most frequent neighbours, again and again.

def train(texts: Iterable[str], entries: int, syllables: Iterable[str] = ()) -> list[bytes]:
    """The first `entries` tokens of a byte-level BPE: 256 bytes, then one merge after another (Sennrich et al. 2016).

    `syllables` (a consonant and a vowel each) are merged before all others, and none with a single mark or space before it. Deterministic: of
    equally frequent pairs the smaller bytes win. The counts of pairs are kept up to date word by word, so that a merge costs only the
    words it changes.
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
                    parts[position:position + 2] = [merged]
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
    """Train config/toy.bpe on the standard library and on conversations, if a file of them is given (a line of JSON each: messages, tools).

    Conversations are a twentieth of the text and count five times: a call then costs half the tokens, and Python hardly more.
    """
    texts = [document.text for document in corpus.documents()]
    conversations = []
    for line in Path(sys.argv[1]).read_text().splitlines() if len(sys.argv) > 1 else ():
        row = json.loads(line)
        conversations.append("".join(s.text for s in chat_segments(row["messages"], row["tools"], "compact", False)))
    markers = [*MARKERS, TOOLS_BEGIN, TOOLS_END]
    between = regex.compile("|".join(map(regex.escape, markers)))  # the markers are tokens already: the merges shall not learn their letters
    vocabulary = train((piece for text in texts + conversations * 5 for piece in between.split(text)), 1024 - len(markers), SYLLABLES)
    aside = TOY.with_suffix(".tmp")
    aside.write_text("# The toy vocabulary: one token a line, its rank is its place; made by tokenizer.py\n" + "".join(f"{entry!r}\n" for entry in vocabulary))
    aside.replace(TOY)
    for name, sample in (("Python", "".join(texts[:200])), ("conversations", "".join(conversations[:200]))):
        if sample:
            print(f"{name}: {len(sample.encode()) / len(toy().encode(sample, special=True)):.2f} bytes a token")
    print(f"{TOY}: {len(vocabulary)} tokens and {len(markers)} markers")


if __name__ == "__main__":
    main()
