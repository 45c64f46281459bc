"""What a tokenizer says, in one form: that of Hugging Face's tokenizer.json, checked.

A spec holds a byte-pair encoding (entries and merges), how text is normalised and cut before it,
and the added tokens. Two spellings of bytes in entries are understood:

    byte-level      every byte is a printable character (GPT-2, Qwen2, Llama 3, SmolLM2)
    SentencePiece   "▁" is a space, <0x0A> a byte that no entry holds (Llama 2, Mistral, TinyLlama)

Everything else is refused by name: read in half, it would give other IDs without a word.
"""

from operator import itemgetter
from pathlib import Path

import regex

from config import UserError

# What text can need: all bytes of UTF-8 but control characters and planes 4 to 11, where Unicode
# has no characters. SmolLM2 lacks 21 bytes outside of these; like its own library we leave them out
# of a text.
NEEDED_BYTES = {9, 10, 13, *range(32, 127), *range(128, 192), *range(194, 241), 243, 244}

UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


# ------------------------------------------------------------------------------------------------
# Bytes of entries.


def gpt2_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte: itself where it prints, else the next free
    character from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(hidden)}


ALPHABET = gpt2_alphabet()
BYTE_ENTRIES = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}


def is_sentencepiece(spec: dict) -> bool:
    """Whether a spec spells bytes as SentencePiece does."""
    return bool(spec["model"].get("byte_fallback"))


def entry_bytes(spec: dict, entry: str) -> bytes:
    """The bytes that an entry of a spec's vocabulary stands for."""
    if not is_sentencepiece(spec):
        return bytes(ALPHABET[character] for character in entry)
    return BYTE_ENTRIES.get(entry) or entry.replace("▁", " ").encode()


# ------------------------------------------------------------------------------------------------
# Reading a spec.


def steps_in_order(step: dict | None, inner: str) -> list[dict]:
    """The steps of a normaliser, pre-tokeniser or decoder, sequences taken apart."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [found for part in step[inner] for found in steps_in_order(part, inner)]
    return [step]


def sequence_of(steps: list[dict], inner: str) -> dict | None:
    """The steps as one; None where there are none."""
    return {"type": "Sequence", inner: steps} if steps else None


def checked_spec(whole: dict, source: Path) -> dict:
    """The parts of a tokenizer.json that decide about IDs, spelt one way.

    Truncation and padding are left out: a file may keep those of its last use, and transformers
    does not obey them either. Raises UserError for what is not understood.
    """
    model = whole["model"]
    if model.get("type", "BPE") != "BPE":
        refuse(source, f"holds a {model['type']} model")
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(setting):
            refuse(source, f"sets {setting} to {model[setting]!r}")
    normalizers = steps_in_order(whole.get("normalizer"), "normalizers")
    cuts = steps_in_order(whole.get("pre_tokenizer"), "pretokenizers")
    for step in cuts:
        if step["type"] == "Split" and step["behavior"] == "Removed":
            refuse(source, "has a pre-tokenizer Split that removes text")
    if model.get("byte_fallback"):
        check_sentencepiece(whole, normalizers, cuts, source)
    else:
        check_byte_level(whole, normalizers, cuts, source)
    names = {token["content"] for token in whole["added_tokens"]}
    if (
        model.get("unk_token") is not None
        and model["unk_token"] not in model["vocab"].keys() | names
    ):
        refuse(source, f"names an unknown token {model['unk_token']!r} that it does not hold")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    spelling = dict(byte_fallback=True) if model.get("byte_fallback") else {}
    return dict(
        model=dict(
            type="BPE",
            vocab=model["vocab"],
            merges=merges,
            unk_token=model.get("unk_token"),
            fuse_unk=model.get("fuse_unk", False),
            ignore_merges=model.get("ignore_merges", False),
            **spelling,
        ),
        normalizer=sequence_of(normalizers, "normalizers"),
        pre_tokenizer=sequence_of(cuts, "pretokenizers"),
        added_tokens=sorted(whole["added_tokens"], key=itemgetter("id")),
        post_processor=whole.get("post_processor"),
    )


def refuse(source: Path, what: str) -> None:
    raise UserError(
        f"{source} {what}; byte-level BPE (Qwen2, GPT-2, Llama 3, SmolLM2) and SentencePiece-like "
        f"BPE with byte_fallback (Llama 2, Mistral, TinyLlama) are read"
    )


def refuse_other_steps(source: Path, kind: str, steps: list[dict], known: tuple[str, ...]) -> None:
    for step in steps:
        if step["type"] not in known:
            refuse(source, f"has the {kind} {step['type']}")


def check_byte_level(whole: dict, normalizers: list, cuts: list, source: Path) -> None:
    """Refuse what a byte-level BPE does not have."""
    decoders = steps_in_order(whole.get("decoder"), "decoders")
    refuse_other_steps(source, "normalizer", normalizers, UNICODE_FORMS)
    refuse_other_steps(source, "pre-tokenizer", cuts, ("ByteLevel", "Split", "Digits"))
    refuse_other_steps(source, "decoder", decoders, ("ByteLevel",))
    if [step["type"] for step in cuts].count("ByteLevel") != 1:
        refuse(source, "does not have one pre-tokenizer ByteLevel")
    vocabulary = whole["model"]["vocab"]
    names = {token["content"] for token in whole["added_tokens"]}
    for entry in vocabulary.keys() - names:
        if not entry or set(entry) - ALPHABET.keys():
            refuse(source, f"has the token {entry!r}, which stands for no bytes")
    absent = [byte for character, byte in ALPHABET.items() if character not in vocabulary]
    missing = [byte for byte in absent if byte in NEEDED_BYTES]
    if missing:
        what = f"has no token for {len(missing)} bytes that text needs, 0x{missing[0]:02x} first"
        refuse(source, what)


def check_sentencepiece(whole: dict, normalizers: list, cuts: list, source: Path) -> None:
    """Refuse what a SentencePiece-like BPE with bytes to fall back on does not have."""
    model = whole["model"]
    decoders = steps_in_order(whole.get("decoder"), "decoders")
    known = ("Prepend", "Replace", *UNICODE_FORMS)
    refuse_other_steps(source, "normalizer", normalizers, known)
    refuse_other_steps(source, "pre-tokenizer", cuts, ("Metaspace", "Split", "Digits"))
    known = ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")
    refuse_other_steps(source, "decoder", decoders, known)
    for step in normalizers:
        if step["type"] == "Prepend" and step["prepend"] not in ("▁", " "):
            refuse(source, f"has a normalizer that prepends {step['prepend']!r}")
        if step["type"] == "Replace" and not marks_spaces(step):
            refuse(source, f"has a normalizer that replaces {step['pattern']}")
    for step in cuts:
        if step["type"] == "Metaspace" and step["replacement"] != "▁":
            refuse(source, f"writes spaces as {step['replacement']!r}")
    if not any(map(marks_spaces, [*normalizers, *cuts])):
        refuse(source, "writes spaces as ▁ neither in its normalizer nor by Metaspace")
    if model.get("ignore_merges"):
        refuse(source, "sets ignore_merges with byte_fallback")
    missing = [entry for entry in BYTE_ENTRIES if entry not in model["vocab"]]
    if missing:
        refuse(source, f"has no token for {len(missing)} bytes, {missing[0]} first")
    if "" in model["vocab"]:
        refuse(source, "has the token '', which stands for no bytes")


def marks_spaces(step: dict) -> bool:
    """Whether a step writes spaces as ▁."""
    if step["type"] == "Replace":
        return step["pattern"] == {"String": " "} and step["content"] == "▁"
    return step["type"] == "Metaspace"


def every_token(spec: dict) -> dict[str, int]:
    """The ID of every entry and added token, as the spec spells them."""
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    return {**spec["model"]["vocab"], **added}


# ------------------------------------------------------------------------------------------------
# Changing a spec: what is put before a text, and what rewrites it.


def prefix_of(spec: dict) -> str:
    """Before which texts a space is put: "always" (behind a marker, too), "first" or "never"."""
    for step in steps_in_order(spec["normalizer"], "normalizers"):
        if step["type"] == "Prepend":
            return "always"
    for step in steps_in_order(spec["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "ByteLevel" and step.get("add_prefix_space"):
            return "always"
        if step["type"] == "Metaspace":
            older = "always" if step.get("add_prefix_space", True) else "never"
            return step.get("prepend_scheme", older)
    return "never"


def without_prefix(spec: dict) -> dict:
    """The spec that puts no space before a text."""
    normalizers = [
        step
        for step in steps_in_order(spec["normalizer"], "normalizers")
        if step["type"] != "Prepend"
    ]
    cuts = []
    for step in steps_in_order(spec["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "ByteLevel":
            step = {**step, "add_prefix_space": False}
        elif step["type"] == "Metaspace":
            step = {**step, "add_prefix_space": False, "prepend_scheme": "never"}
        cuts.append(step)
    return {
        **spec,
        "normalizer": sequence_of(normalizers, "normalizers"),
        "pre_tokenizer": sequence_of(cuts, "pretokenizers"),
    }


def without_changes(spec: dict) -> dict:
    """The spec that changes no text: no prefix, no Unicode form, no added tokens."""
    spec = without_prefix(spec)
    normalizers = [
        step
        for step in steps_in_order(spec["normalizer"], "normalizers")
        if step["type"] not in UNICODE_FORMS
    ]
    return {**spec, "normalizer": sequence_of(normalizers, "normalizers"), "added_tokens": []}


def text_spec(spec: dict, markers: set[str]) -> dict:
    """The spec for text in which nothing is a marker: `markers` are neither added tokens nor
    entries, and nothing merges to one. The other added tokens are entries too, lest the library
    number them anew.
    """
    model = spec["model"]
    added = [token for token in spec["added_tokens"] if token["content"] not in markers]
    vocabulary = {
        entry: token
        for entry, token in model["vocab"].items()
        if entry not in markers or entry == model["unk_token"]
    }
    vocabulary |= {token["content"]: token["id"] for token in added}
    merges = [
        merge for merge in model["merges"] if not markers.intersection([*merge, "".join(merge)])
    ]
    model = {**model, "vocab": vocabulary, "merges": merges}
    return {**spec, "model": model, "added_tokens": added, "post_processor": None}


def spelt_by_text(spec: dict) -> set[str]:
    """The entries that ordinary text of a byte-level BPE is made of."""
    if is_sentencepiece(spec):  # its single entries are characters, and no marker is one
        return set()
    return {"".join(merge) for merge in spec["model"]["merges"]} | ALPHABET.keys()


def markers_of(spec: dict) -> dict[str, int]:
    """The added tokens that only a template may write: special ones and those that look like
    `<one>`; but not where ordinary text can spell them by merges.
    """
    spelt = spelt_by_text(spec)
    return {
        token["content"]: token["id"]
        for token in spec["added_tokens"]
        if token["content"] not in spelt
        and (token["special"] or regex.fullmatch(r"<\S+>", token["content"]))
    }
