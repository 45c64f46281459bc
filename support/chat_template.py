"""A model's own chat template, rendered as transformers does it; no message can forge a marker.

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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config import UserError
from support.tokenizer import Segment, Tokenizer

# The markers that a template may ask for by these names.
TEMPLATE_TOKENS = [f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


class GenerationTag(Extension):
    """`{% generation %}` only marks what the assistant writes: the inside is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """JSON as transformers writes it into prompts; Jinja's own filter escapes <, > and quotes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


@dataclass
class ChatTemplate:
    """A chat template of a folder or a GGUF file."""

    program: str  # in Jinja's language
    tokens: dict[str, str]  # of TEMPLATE_TOKENS, those that the model has
    source: Path  # what errors name

    def render(self, messages: list[dict], now: datetime) -> str:
        """A conversation as the template writes it, up to where the assistant should begin.

        Raises UserError with the template's own words.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_raise_exception, strftime_now=now.strftime)
        try:
            return environment.from_string(self.program).render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self.tokens,
            )
        except Exception as error:  # a template is somebody's program: it may raise anything
            words = " ".join(str(error).split())
            raise UserError(
                f"the chat template of {self.source} cannot write this conversation "
                f"({type(error).__name__}: {words}); leave --chat out, or correct the template"
            ) from None

    def segments(self, messages: list[dict]) -> list[Segment]:
        """A rendered conversation in pieces: the template's words, and contents.

        Raises UserError where they cannot be told apart.
        """
        now = datetime.now()
        whole = self.render(messages, now)
        contents = {secrets.token_hex(16): message["content"] for message in messages}
        hidden = [{**m, "content": word} for m, word in zip(messages, contents)]
        # text, word, text, …: what lies between the words is the template's
        parts = re.split(f"({'|'.join(contents)})", self.render(hidden, now))
        for filling in (contents, {word: text.strip() for word, text in contents.items()}):
            pieces = [
                Segment(filling.get(part, part), is_template=part not in filling) for part in parts
            ]
            if "".join(piece.text for piece in pieces) == whole:  # many templates strip contents
                return pieces
        raise UserError(
            f"the chat template of {self.source} rewrites messages, so their words cannot be told "
            f"from its own markers; leave --chat out, or word the prompt plainly"
        )

    def default_system(self) -> str | None:
        """The system message that a ChatML template writes where a conversation has none.

        None where it writes none, or another one every day.
        """
        user = dict(role="user", content=secrets.token_hex(16))
        written = set()
        for day in (datetime(2001, 2, 3), datetime(2012, 11, 10)):
            try:
                before, _, _ = self.render([user], day).partition(user["content"])
            except UserError:
                return None
            turn = re.search(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", before, re.DOTALL)
            written.add(turn[1] if turn else None)
        return written.pop() if len(written) == 1 else None


def prompt_tokens(tokenizer: Tokenizer, messages: list[dict]) -> list[int]:
    """Token IDs of a conversation up to where the assistant begins.

    In the model's own template, or in ours where it has none. A template that refuses a system
    message gets the conversation without it. Raises UserError.
    """
    template = tokenizer.template
    if template is None:
        return tokenizer.encode_chat(messages, generation_prompt=True)[0]
    try:
        pieces = template.segments(messages)
    except UserError:
        if messages[0]["role"] != "system":
            raise
        pieces = template.segments(messages[1:])
    return tokenizer.encode_segments(pieces)
