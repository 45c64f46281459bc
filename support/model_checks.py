"""What the model refuses, and what it only notes: checks that read the input before a forward pass.

They read data, so a compiled or captured function leaves them out: it may not branch on data.
"""

import math
import sys

import torch.nn.functional as F
from torch import Tensor, nn

from config import Model, UserError
from fast.compiling import shapes_are_static


def check_tokens(model: nn.Module, tokens: Tensor, documents: Tensor | None) -> None:
    """Raise UserError where tokens (B, T) are more than the model's context, or its packed rows
    were made for another model; note where the window changes the answers.
    """
    T = tokens.shape[1]
    config = model.config
    if T > config.context:
        raise UserError(
            f"{T} tokens are over the model's context of {config.context}; shorten the text or "
            "raise model.context"
        )
    if shapes_are_static():
        return
    if documents is None:
        note_window(model, T)
    else:
        check_documents(documents, config)


def document_alignment(config: Model, length: int) -> int:
    """Documents in packed rows of `length` tokens begin at multiples of this.

    Landmarks are counted from the row's first token: elsewhere, in rows longer than the window, a
    document would see other tokens than when it stands alone.
    """
    return math.lcm(*config.strides) if length > config.window else 1


def check_documents(documents: Tensor, config: Model) -> None:
    """Raise UserError where packed documents (B, T), padding -1, do not begin where landmarks do
    (`document_alignment`).
    """
    alignment = document_alignment(config, documents.shape[1])
    if alignment == 1:
        return
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0)) & (documents >= 0)
    begins[:, ::alignment] = False
    if begins.any():
        row, column = begins.nonzero()[0].tolist()
        raise UserError(
            f"packed rows of {documents.shape[1]} tokens are longer than the window of "
            f"{config.window}, and the document at token {column} of row {row} does not begin at a "
            f"multiple of landmark_stride {alignment}; pack them for this model's config, or into "
            "rows no longer than its window"
        )


def note_window(model: nn.Module, tokens: int) -> None:
    """Say on stderr, once per model, where `tokens` are not read as dense weights learnt to.

    Position 0 is a landmark, so the first pair that is not seen is key 1 and query 1 + window.
    """
    if not getattr(model, "dense", False):
        return
    config = model.config
    if max(config.strides) > 1 and tokens > config.window + 1:
        model.dense = False
        print(
            f"note: a text of {tokens} tokens exceeds landmark attention's window of "
            f"{config.window}; beyond it answers are not those of the dense attention that these "
            "weights were trained with; for dense attention set the window to the context "
            f"(sample.py --window {config.context}, elsewhere --model.window {config.context})",
            file=sys.stderr,
        )


def check_cache_room(lengths: Tensor, max_tokens: int) -> None:
    """Raise UserError where a row of a cache has more tokens than it was made for.

    A compiled or captured step does not look; its caller counts.
    """
    if shapes_are_static():
        return
    longest = int(lengths.max())
    if longest > max_tokens:
        raise UserError(
            f"the cache was made for {max_tokens} tokens per row and a row now has {longest}; "
            "make it with a larger max_tokens"
        )
