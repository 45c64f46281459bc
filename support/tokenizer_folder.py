"""Tokenizers of Hugging Face folders, from tokenizer.json, or vocab.json and merges.txt, and the
files beside them; and the one place where a setting's name becomes a tokenizer (`load_tokenizer`).
"""

import json
from collections import Counter
from pathlib import Path

from config import UserError
from support.chat_template import TEMPLATE_TOKENS, ChatTemplate
from support.gguf_file import is_gguf
from support.published import base_of, published_file
from support.tokenizer import PATTERN, Tokenizer, toy
from support.tokenizer_gguf import gguf_tokenizer
from support.tokenizer_library import QWEN_SPECIAL, LibraryTokenizer
from support.tokenizer_spec import checked_spec, every_token

# The flags of an added token where a file leaves them out.
ADDED_TOKEN_FLAGS = dict(
    single_word=False, lstrip=False, rstrip=False, normalized=False, special=True
)


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


def marker_text(entry: str | dict | None) -> str | None:
    """The text of a special token in tokenizer_config.json, which may hold it with its flags."""
    return entry["content"] if isinstance(entry, dict) else entry


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


def template_of(folder: Path, config: dict) -> ChatTemplate | None:
    """The chat template of a folder whose tokenizer_config.json is `config`; None if it has none.

    Raises UserError where it has several and none is the default.
    """
    path = folder / "chat_template.jinja"
    if path.exists():
        program = path.read_text(encoding="utf-8", errors="replace")
    else:
        program = default_program(config.get("chat_template") or None, folder)
    if program is None:
        return None
    tokens = {name: marker_text(config[name]) for name in TEMPLATE_TOKENS if config.get(name)}
    return ChatTemplate(program, tokens, folder)


def default_program(found: str | list | None, folder: Path) -> str | None:
    """Of what tokenizer_config.json has as chat_template, the text that counts."""
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


def folder_tokenizer(folder: str | Path) -> LibraryTokenizer:
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
        spec = checked_spec(whole, source)
        return LibraryTokenizer(
            f"qwen:{folder.name}",  # of any family: token files and runs hold this name
            spec,
            source,
            eos_token=marker_text(config.get("eos_token")),
            eos=stop_tokens(folder, vocab_size=max(every_token(spec).values()) + 1),
            template=template_of(folder, config),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise UserError(
            f"{source} is no tokenizer file ({type(error).__name__}: {error}); copy it anew from "
            f"the model's repository"
        ) from None


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer that a setting names: "toy", or that of a folder or a GGUF file; of an adapter
    its base's.

    Raises UserError.
    """
    if str(name) == "toy":
        return toy()
    path = base_of(published_file(Path(name).expanduser()))
    return gguf_tokenizer(path) if is_gguf(path) else folder_tokenizer(path)
