"""A folder's own chat template, rendered as transformers does it, and encoded so that no message can forge a marker.

A template is a Jinja program that writes messages and markers into one string, in which nothing tells a marker from a user
who typed it. So it is rendered twice: once with the messages, once with an unguessable word in place of each content. The
second says which stretches the template wrote: markers there become special tokens, contents are text. Where filling the
words in does not give the first string back (a template that shortens, escapes or looks into contents), that is an error.

Rendering happens in Jinja's immutable sandbox, which keeps a template from the file system; its running time is not bounded.
"""

import json
import secrets
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config import UserError
from tokenizer import Segment, Tokenizer, marker_text, side_file

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, which only mark what the assistant writes: the inside is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def source_of(folder: Path) -> str | None:
    """The text of a folder's chat template; None where it has none. Raises UserError where none of several is the default."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8", errors="replace")
    found = side_file(folder, "tokenizer_config.json").get("chat_template") or None
    try:
        named = {"default": found} if found is None or isinstance(found, str) else {t["name"]: t["template"] for t in found}
    except (TypeError, KeyError):
        raise UserError(f"chat_template in {folder}/tokenizer_config.json is neither a text nor a list of named ones; copy the file anew") from None
    if "default" not in named:
        raise UserError(f"{folder}/tokenizer_config.json has the chat templates {', '.join(sorted(named))} and none called default; "
                        "rename the one to be used")
    return named["default"]


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """JSON as transformers writes it into prompts; Jinja's own filter would escape <, > and quotes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> None:
    raise TemplateError(message)


def render(source: str, folder: Path, messages: list[dict], now: datetime) -> str:
    """A conversation as a template writes it, up to where the assistant should begin. Raises UserError with the template's own words."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=now.strftime)
    config = side_file(folder, "tokenizer_config.json")
    special = {name: marker_text(config[name]) for name in SPECIAL if config.get(name) is not None}
    try:
        return environment.from_string(source).render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **special)
    except Exception as error:  # a template is somebody's program: it may raise anything
        raise UserError(f"the chat template of {folder} cannot write this conversation ({type(error).__name__}: {error}); leave --chat out, or correct the template") from None


def segments(folder: Path, source: str, messages: list[dict]) -> list[Segment]:
    """A rendered conversation in pieces: the template's words, and contents. Raises UserError where they cannot be told apart."""
    now = datetime.now()
    whole = render(source, folder, messages, now)
    words = [secrets.token_hex(16) for _ in messages]
    pieces = [Segment(render(source, folder, [{**m, "content": word} for m, word in zip(messages, words)], now), True, False)]
    for word, message in zip(words, messages):
        pieces = [part for piece in pieces for part in (between(piece.text, word, message["content"]) if piece.template else [piece])]
    for strip in (False, True):  # many templates strip contents
        filled = [Segment(piece.text.strip() if strip and not piece.template else piece.text, piece.template, False) for piece in pieces]
        if "".join(piece.text for piece in filled) == whole:
            return filled
    raise UserError(f"the chat template of {folder} rewrites messages, so their words cannot be told from its own markers; leave --chat out, or word the prompt plainly")


def between(text: str, word: str, content: str) -> list[Segment]:
    """A template's text, split at a word that stands for a content."""
    first, *rest = text.split(word)
    return [Segment(first, True, False), *(piece for part in rest for piece in (Segment(content, False, False), Segment(part, True, False)))]


def prompt_tokens(tokenizer: Tokenizer, messages: list[dict]) -> list[int]:
    """Token IDs of a conversation up to where the assistant begins, in the folder's own template, or in ours where it has none.

    A template that refuses a system message gets the conversation without it. Raises UserError.
    """
    source = source_of(tokenizer.folder) if tokenizer.folder else None
    if source is None:
        return tokenizer.encode_chat(messages, generation_prompt=True)[0]
    try:
        pieces = segments(tokenizer.folder, source, messages)
    except UserError:
        if messages[0]["role"] != "system":
            raise
        pieces = segments(tokenizer.folder, source, messages[1:])
    return tokenizer.encode_segments(pieces)
