"""The tokenizer of a spec (support/tokenizer_spec.py), encoded by Hugging Face's `tokenizers`.

It is the library that these specs are written for, so the IDs are the model's own. tiktoken is five
times faster, but merges by rank within one regular expression: SmolLM2's GPT-2 cut after single
digits, or merges in another order than that of the IDs, would need a second implementation.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import regex
import tokenizers

from config import UserError
from support.chat_template import ChatTemplate
from support.tokenizer import QWEN_SYSTEM, Segment, Tokenizer, markers_pattern, replace_surrogates
from support.tokenizer_spec import (
    entry_bytes,
    every_token,
    is_sentencepiece,
    markers_of,
    prefix_of,
    text_spec,
    without_changes,
    without_prefix,
)

# The special tokens of Qwen2's vocabulary files, which leave them unsaid.
QWEN_SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<tool_call>": 151657,
    "</tool_call>": 151658,
}
# Where neither a chat template nor Qwen's markers say who speaks.
NEUTRAL_SYSTEM = "You are a helpful assistant."


def library_tokenizer(spec: dict, source: Path) -> tokenizers.Tokenizer:
    """Hugging Face's tokenizer of a spec. Raises UserError."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **spec}))
    except Exception as error:  # the library raises plain Exception
        raise UserError(
            f"{source} is no tokenizer file ({error}); copy it anew from the model's repository"
        ) from None


class LibraryTokenizer(Tokenizer):
    """A model's own BPE, encoded by Hugging Face's `tokenizers`.

    Added tokens are markers, which only a template may write, or part of all text, as in the
    library (`markers_of` says which). Round trips are exact up to the spec's own normal form and
    prefix space, to control characters that it has no token for, and to "▁", which is
    SentencePiece's space; `encode` of bytes is exact or refuses.
    """

    # The library's regex engine panics after ten million steps back, and an encoding takes 160
    # bytes of memory per character: a longer text is cut at the last line end between two lines,
    # where Qwen's and GPT-2's patterns cut too. A line longer than that is cut inside: its IDs may
    # then differ from those of the whole, and its text still returns.
    longest = 1 << 21  # characters
    line_end = regex.compile(r"(?r)(?<=\S)\n(?=\S)")

    def __init__(
        self,
        name: str,
        spec: dict,
        source: Path,
        *,
        eos_token: str | None = None,
        eos: Iterable[int] = (),
        template: ChatTemplate | None = None,
    ):
        """`source` is the file that errors name; `eos_token` the marker and `eos` the IDs that end
        a text, as far as the model's files say.
        """
        self.name = name
        self.source = source
        self.spec = spec
        self.template = template
        self.special = markers_of(spec)
        self._special = markers_pattern(self.special)
        added = {token["content"]: token for token in spec["added_tokens"]}
        self.ranks = {
            entry_bytes(spec, entry): token
            for entry, token in spec["model"]["vocab"].items()
            if entry not in added
        }
        self.stripping = {
            content
            for content, token in added.items()
            if token["lstrip"] or token["rstrip"] or token["single_word"]
        }
        self.check_ids()
        self.vocab_size = max(every_token(spec).values()) + 1
        self.text_spec = text_spec(spec, set(self.special))
        self.library = library_tokenizer(self.text_spec, source)
        self.prefix = prefix_of(spec)

        named = [self.special.get(marker) for marker in ("<|endoftext|>", eos_token)]
        ends = [token for token in (*named, *eos) if token is not None]
        if not ends:
            raise UserError(
                f"{source} has no <|endoftext|> and names no other end-of-text token; add "
                f"eos_token_id to generation_config.json beside it, or to a GGUF file's metadata"
            )
        self.end_of_text = ends[0]
        self.start = self.before_text() or [self.end_of_text]
        turn = [self.special[marker] for marker in ("<|im_end|>",) if marker in self.special]
        self.stop = list(dict.fromkeys([*turn, self.end_of_text, *eos]))
        del self.marked  # some 100 MB; made again when asked for

    def check_ids(self) -> None:
        """Refuse IDs that two tokens share, or that the library would not give."""
        tokens = every_token(self.spec)
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

    # -- the spec in the forms that are asked for: with markers; behind other text; unchanged

    @cached_property
    def marked(self) -> tokenizers.Tokenizer:
        """The tokenizer as the library reads it, markers and all."""
        return library_tokenizer(self.spec, self.source)

    @cached_property
    def inside(self) -> tokenizers.Tokenizer:
        """For text that goes on where other text stands: it gets no prefix space."""
        if self.prefix == "never":
            return self.library
        return library_tokenizer(without_prefix(self.text_spec), self.source)

    @cached_property
    def exact(self) -> tokenizers.Tokenizer:
        """Without what changes text: normal form, prefix space, added tokens."""
        return library_tokenizer(without_changes(self.text_spec), self.source)

    @cached_property
    def hash(self) -> str:
        model = self.spec["model"]
        added = {token["content"] for token in self.spec["added_tokens"]}
        # some files list added tokens among the entries, too, which changes no ID
        entries = {entry: token for entry, token in model["vocab"].items() if entry not in added}
        spec = {**self.spec, "model": {**model, "vocab": entries}}
        content = json.dumps([spec, sorted(self.special)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def token_bytes(self) -> list[bytes]:
        table = [b""] * self.vocab_size
        added = {token["content"]: token["id"] for token in self.spec["added_tokens"]}
        for entry, token in self.spec["model"]["vocab"].items():
            if entry not in added:
                table[token] = entry_bytes(self.spec, entry)
        for content, token in added.items():
            if is_sentencepiece(self.spec) and content not in self.special:
                content = content.replace("▁", " ")
            table[token] = content.encode()
        return table

    @cached_property
    def system(self) -> str:
        """The system message of conversations that begin without one: the chat template's own."""
        default = self.template.default_system() if self.template else None
        if default is not None:
            return default
        return QWEN_SYSTEM if QWEN_SPECIAL.keys() <= self.special.keys() else NEUTRAL_SYSTEM

    def before_text(self) -> list[int]:
        """What the spec's post-processor puts before a text. Raises UserError if any after."""
        bare = self.marked.encode("a", add_special_tokens=False).ids
        framed = self.marked.encode("a").ids
        if framed[-len(bare) :] != bare:
            raise UserError(
                f"{self.source} has a post-processor {self.spec['post_processor']['type']} that "
                f"puts tokens after a text; only tokens before it are understood"
            )
        return framed[: -len(bare)]

    # -- files

    def decoder(self) -> dict:
        """How the library makes text of entries, which a spec leaves out: no ID depends on it."""
        if not is_sentencepiece(self.spec):
            return dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True)
        steps = [
            dict(type="Replace", pattern=dict(String="▁"), content=" "),
            dict(type="ByteFallback"),
            dict(type="Fuse"),
        ]
        if self.prefix != "never":
            steps.append(dict(type="Strip", content=" ", start=1, stop=0))
        return dict(type="Sequence", decoders=steps)

    def folder_files(self) -> dict[str, dict]:
        """The files that make a Hugging Face folder of weights speak: the tokenizer, its markers
        and chat template, and the tokens that end what a model writes. Name → JSON.
        """
        names = {token: marker for marker, token in self.special.items()}
        named = dict(self.template.tokens) if self.template else {}
        named.setdefault("eos_token", names.get(self.stop[0], names.get(self.end_of_text)))
        config = dict(
            tokenizer_class="PreTrainedTokenizerFast",
            clean_up_tokenization_spaces=False,
            **{name: marker for name, marker in named.items() if marker is not None},
        )
        if self.template:
            config["chat_template"] = self.template.program
        return {
            "tokenizer.json": dict(version="1.0", **self.spec, decoder=self.decoder()),
            "tokenizer_config.json": config,
            "generation_config.json": dict(eos_token_id=self.stop),
        }

    # -- text

    def ids(self, library: tokenizers.Tokenizer, text: str) -> list[int]:
        """Token IDs by one of the library tokenizers. Raises UserError where it panics."""
        tokens = []
        start = 0
        while start < len(text):
            end = len(text)
            if end - start > self.longest and self.prefix == "never":
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

    def encode_inside(self, text: str) -> list[int]:
        return self.ids(self.inside, replace_surrogates(text))

    def encode_exactly(self, text: str) -> list[int]:
        if is_sentencepiece(self.spec):  # "▁" itself would return as a space
            parts = regex.split("(▁+)", text)
        else:
            parts = [text]
        tokens = self.ids(self.exact, parts[0])
        for marks, part in zip(parts[1::2], parts[2::2]):
            tokens += [self.byte_token(byte) for byte in marks.encode()]
            tokens += self.ids(self.exact, part)
        if self.decode_bytes(tokens) != text.encode():
            for byte in text.encode():
                self.byte_token(byte)  # names the first that is missing
        return tokens

    # -- conversations

    def encode_chat(
        self,
        messages: list[dict],
        tools: list | None = None,
        style: str = "qwen",
        generation_prompt: bool = False,
    ) -> tuple[list[int], list[bool]]:
        wanted = ["<|im_start|>", "<|im_end|>"]
        missing = [marker for marker in wanted if marker not in self.special]
        if missing:
            raise UserError(
                f"{self.source} has no {' '.join(missing)}, which conversations are framed by; "
                f"give these names to unused special tokens in its added_tokens"
            )
        return super().encode_chat(messages, tools, style, generation_prompt)

    def encode_segments(
        self, segments: Iterable[Segment], before: list[int] | None = None
    ) -> list[int]:
        segments = list(segments)
        written = [segment.text for segment in segments if segment.is_template]
        self.refuse_stripping(
            [marker for text in written for marker in self._special.findall(text)]
        )
        return super().encode_segments(segments, before)

    def encode_after(self, previous: int | None, text: str) -> list[int]:
        behind_marker = self.prefix == "always" and previous in self.special.values()
        if previous is None or behind_marker:
            return self.encode(text)
        return self.encode_inside(text)

    def refuse_stripping(self, markers: list[str]) -> None:
        """Refuse markers that take white space beside them away, which here would stay."""
        found = sorted(self.stripping & set(markers))
        if found:
            raise UserError(
                f"{self.source} sets lstrip, rstrip or single_word for {' '.join(found)}, which is "
                f"not built for conversations; set them to false there"
            )
