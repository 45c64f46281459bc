"""Tokenizers of Hugging Face folders: Qwen2.5's, and any byte-level BPE (GPT-2, Llama 3, SmolLM2).

A folder says in tokenizer.json (or vocab.json + merges.txt) how text is normalised, cut and merged.
Hugging Face's `tokenizers` is the library that these files are written for, so it encodes here and
the IDs are the model's own. tiktoken is five times faster, but merges by rank within one regular
expression: SmolLM2's GPT-2 cut after single digits, or merges in another order than that of the
IDs, would need a second implementation. What is not byte-level BPE is refused by name
(`folder_spec`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import regex
import tokenizers

from config import UserError
from support.tokenizer import PATTERN, Segment, Tokenizer, markers_pattern, toy

# The special tokens of Qwen2's vocabulary files, which leave them unsaid.
QWEN_SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<tool_call>": 151657,
    "</tool_call>": 151658,
}

# What text can need: all bytes of UTF-8 but control characters and planes 4 to 11, where Unicode
# has no characters. SmolLM2 lacks 21 bytes outside of these; like its own library we leave them out
# of a text.
NEEDED_BYTES = {9, 10, 13, *range(32, 127), *range(128, 192), *range(194, 241), 243, 244}

# The flags of an added token where a file leaves them out.
ADDED_TOKEN_FLAGS = dict(
    single_word=False, lstrip=False, rstrip=False, normalized=False, special=True
)


# ------------------------------------------------------------------------------------------------
# Files.


def gpt2_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte: itself where it prints, else the next free
    character from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def load_json(path: Path) -> dict:
    """A JSON object from a file, in which no key stands twice. Raises ValueError, OSError."""

    def unique(pairs: list[tuple]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
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


def steps_in_order(step: dict | None, inner: str) -> list[dict]:
    """The steps of a normaliser, pre-tokeniser or decoder, sequences taken apart."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [found for part in step[inner] for found in steps_in_order(part, inner)]
    return [step]


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

    model = whole["model"]
    alphabet = gpt2_alphabet()
    if model.get("type", "BPE") != "BPE":
        refuse(f"holds a {model['type']} model")
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback"):
        if model.get(setting):
            refuse(f"sets {setting} to {model[setting]!r}")
    normalizer = steps_in_order(whole.get("normalizer"), "normalizers")
    for step in normalizer:
        if step["type"] not in ("NFC", "NFD", "NFKC", "NFKD"):
            refuse(f"has the normalizer {step['type']}")
    cuts = steps_in_order(whole.get("pre_tokenizer"), "pretokenizers")
    for step in cuts:
        if step["type"] not in ("ByteLevel", "Split", "Digits"):
            refuse(f"has the pre-tokenizer {step['type']}")
        if step["type"] == "Split" and step["behavior"] == "Removed":
            refuse("has a pre-tokenizer Split that removes text")
    if [step["type"] for step in cuts].count("ByteLevel") != 1:
        refuse("does not have one pre-tokenizer ByteLevel")
    for step in steps_in_order(whole.get("decoder"), "decoders"):
        if step["type"] != "ByteLevel":
            refuse(f"has the decoder {step['type']}")
    added = whole["added_tokens"]
    vocabulary = model["vocab"]
    names = {token["content"] for token in added}
    for entry in vocabulary.keys() - names:
        if not entry or set(entry) - alphabet.keys():
            refuse(f"has the token {entry!r}, which stands for no bytes")
    absent = [byte for character, byte in alphabet.items() if character not in vocabulary]
    missing = [byte for byte in absent if byte in NEEDED_BYTES]
    if missing:
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
    """The content of a tokenizer.json, put together from vocab.json and merges.txt.

    What these leave unsaid follows from the class that the folder names, or from its markers.
    Raises UserError for any class but Qwen2's and GPT-2's.
    """
    added = config.get("added_tokens_decoder") or {}
    listed = {entry["content"] for entry in added.values()}
    name = config.get("tokenizer_class") or side_file(folder, "config.json").get("model_type")
    if name is None and "<|im_start|>" in listed:
        name = "qwen2"
    prefix = bool(config.get("add_prefix_space"))
    vocabulary = load_json(folder / "vocab.json")
    if name in ("Qwen2Tokenizer", "Qwen2TokenizerFast", "qwen2"):
        normalizer = dict(type="NFC")
        special = QWEN_SPECIAL
        cuts = [
            dict(type="Split", pattern=dict(Regex=PATTERN), behavior="Isolated", invert=False),
            dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=False),
        ]
    elif name in ("GPT2Tokenizer", "GPT2TokenizerFast", "gpt2"):
        normalizer = None
        special = {m: vocabulary[m] for m in ("<|endoftext|>",) if m in vocabulary}
        cuts = [dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=True)]
    else:
        raise UserError(
            f"{folder} has vocab.json and merges.txt of the class {name!r}, whose rules are not "
            f"known here (Qwen2Tokenizer's and GPT2Tokenizer's are); save its tokenizer.json with "
            f"transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    tokens = [] if added else [dict(id=token, content=marker) for marker, token in special.items()]
    return dict(
        model=dict(vocab=vocabulary, merges=merges),
        normalizer=normalizer,
        pre_tokenizer=dict(type="Sequence", pretokenizers=cuts),
        added_tokens=tokens,
    )


def added_tokens(whole: dict, config: dict, folder: Path) -> list[dict]:
    """The added tokens of a tokenizer.json and of tokenizer_config.json and added_tokens.json
    beside it. Raises UserError where they disagree about an ID.
    """
    listed = list(whole.get("added_tokens") or ())
    for token, entry in (config.get("added_tokens_decoder") or {}).items():
        listed.append({**entry, "id": int(token)})
    for content, token in side_file(folder, "added_tokens.json").items():
        listed.append(dict(id=token, content=content, special=False))
    found: dict[str, dict] = {}
    for token in listed:
        flags = {flag: token.get(flag, default) for flag, default in ADDED_TOKEN_FLAGS.items()}
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
        if not isinstance(found, list):
            found = [found]
        wrong = [token for token in found if type(token) is not int or not 0 <= token < vocab_size]
        if wrong:
            raise UserError(
                f"{folder / name} says eos_token_id {wrong[0]!r}, which is none of the tokenizer's "
                f"{vocab_size:,} tokens; correct it"
            )
        return found
    return []


# ------------------------------------------------------------------------------------------------
# The tokenizer.


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
    longest = 1 << 21  # characters
    line_end = regex.compile(r"(?r)(?<=\S)\n(?=\S)")

    def __init__(self, spec: dict, folder: Path, source: Path, config: dict):
        self.name = f"qwen:{folder.name}"
        self.folder = folder
        self.source = source  # the file that errors name
        self.spec = spec
        model = spec["model"]
        alphabet = gpt2_alphabet()
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
        textual = [token for content, token in added.items() if content not in self.special]
        vocabulary = {
            entry: token
            for entry, token in model["vocab"].items()
            if entry not in self.special or entry == model["unk_token"]
        }
        vocabulary |= {token["content"]: token["id"] for token in textual}
        text_model = {**model, "vocab": vocabulary}
        changes = {"model": text_model, "added_tokens": textual, "post_processor": None}
        self.text_spec = {**spec, **changes}
        self.library = library_tokenizer(self.text_spec, source)
        steps = spec["pre_tokenizer"]["pretokenizers"]
        self.prefixes = any(step.get("add_prefix_space") for step in steps)

        eos = stop_tokens(folder, self.vocab_size)
        markers = ("<|endoftext|>", marker_text(config.get("eos_token")))
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
        tokens = []
        start = 0
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
        missing = [marker for marker in wanted if marker not in self.special]
        if missing:
            raise UserError(
                f"{self.source} has no {' '.join(missing)}, which conversations with tools are "
                f"framed by; give these names to unused special tokens in its added_tokens"
            )
        self.refuse_stripping(wanted)
        return super().encode_chat(messages, tools, style, generation_prompt)

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        segments = list(segments)
        written = [segment.text for segment in segments if segment.is_template]
        self.refuse_stripping(
            [marker for text in written for marker in self._special.findall(text)]
        )
        return super().encode_segments(segments)

    def refuse_stripping(self, markers: list[str]) -> None:
        """Refuse markers that take white space beside them away, which here would stay."""
        found = sorted(self.stripping & set(markers))
        if found:
            raise UserError(
                f"{self.source} sets lstrip, rstrip or single_word for {' '.join(found)}, which is "
                f"not built for conversations; set them to false there"
            )


def folder_tokenizer(folder: str | Path) -> FolderTokenizer:
    """The tokenizer of a folder with tokenizer.json, or with vocab.json and merges.txt.

    Raises UserError.
    """
    folder = Path(folder)
    source = folder / "tokenizer.json"
    config = side_file(folder, "tokenizer_config.json")
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


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer a setting names: "toy", or a folder's. Raises UserError."""
    return toy() if str(name) == "toy" else folder_tokenizer(Path(name).expanduser())
