"""A folder's own chat template, rendered as transformers does it; no message can forge a marker.

A template is a Jinja program that writes messages and markers into one string, in which a marker
and a user who typed it look alike. So it is rendered twice: once with the messages, once with an
unguessable word in place of each content. The second shows which stretches the template wrote:
markers there become special tokens, contents are text. Where filling the words in does not give
the first string back (a template that shortens, escapes or looks into contents), that is an error.

Rendering happens in Jinja's immutable sandbox, which keeps a template from the file system; its
running time is not bounded.
"""

import json
import re
import secrets
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config import UserError
from support.tokenizer import Segment, Tokenizer
from support.tokenizer_folder import marker_text, side_file

# What tokenizer_config.json names and a template may ask for.
TEMPLATE_TOKENS = [f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


class GenerationTag(Extension):
    """`{% generation %}` only marks what the assistant writes: the inside is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def template_source(folder: Path) -> str | None:
    """The text of a folder's chat template; None where it has none.

    Raises UserError where it has several and none is the default.
    """
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8", errors="replace")
    found = side_file(folder, "tokenizer_config.json").get("chat_template") or None
    if found is None or isinstance(found, str):
        return found
    try:
        named = {entry["name"]: entry["template"] for entry in found}
    except (TypeError, KeyError):
        raise UserError(
            f"chat_template in {folder}/tokenizer_config.json is neither a text nor a list of "
            f"named ones; copy the file anew"
        ) from None
    if "default" not in named:
        raise UserError(
            f"{folder}/tokenizer_config.json has the chat templates {', '.join(sorted(named))} and "
            f"none called default; rename the one to be used"
        )
    return named["default"]


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """JSON as transformers writes it into prompts; Jinja's own filter escapes <, > and quotes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def render_template(source: str, folder: Path, messages: list[dict], now: datetime) -> str:
    """A conversation as a template writes it, up to where the assistant should begin.

    Raises UserError with the template's own words.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise_exception, strftime_now=now.strftime)
    config = side_file(folder, "tokenizer_config.json")
    special = {
        name: marker_text(config[name]) for name in TEMPLATE_TOKENS if config.get(name) is not None
    }
    try:
        return environment.from_string(source).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **special
        )
    except Exception as error:  # a template is somebody's program: it may raise anything
        words = " ".join(str(error).split())
        raise UserError(
            f"the chat template of {folder} cannot write this conversation "
            f"({type(error).__name__}: {words}); leave --chat out, or correct the template"
        ) from None


def template_segments(folder: Path, source: str, messages: list[dict]) -> list[Segment]:
    """A rendered conversation in pieces: the template's words, and contents.

    Raises UserError where they cannot be told apart.
    """
    now = datetime.now()
    whole = render_template(source, folder, messages, now)
    contents = {secrets.token_hex(16): message["content"] for message in messages}
    hidden = [{**m, "content": word} for m, word in zip(messages, contents)]
    # text, word, text, …: what lies between the words is the template's
    parts = re.split(f"({'|'.join(contents)})", render_template(source, folder, hidden, now))
    for filling in (contents, {word: text.strip() for word, text in contents.items()}):
        pieces = [
            Segment(filling.get(part, part), is_template=part not in filling) for part in parts
        ]
        if "".join(piece.text for piece in pieces) == whole:  # many templates strip contents
            return pieces
    raise UserError(
        f"the chat template of {folder} rewrites messages, so their words cannot be told from its "
        f"own markers; leave --chat out, or word the prompt plainly"
    )


def prompt_tokens(tokenizer: Tokenizer, messages: list[dict]) -> list[int]:
    """Token IDs of a conversation up to where the assistant begins.

    In the folder's own template, or in ours where it has none. A template that refuses a system
    message gets the conversation without it. Raises UserError.
    """
    source = template_source(tokenizer.folder) if tokenizer.folder else None
    if source is None:
        return tokenizer.encode_chat(messages, generation_prompt=True)[0]
    try:
        pieces = template_segments(tokenizer.folder, source, messages)
    except UserError:
        if messages[0]["role"] != "system":
            raise
        pieces = template_segments(tokenizer.folder, source, messages[1:])
    return tokenizer.encode_segments(pieces)
