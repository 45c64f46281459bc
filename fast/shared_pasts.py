"""Places of packed rows with the same token after the same past, computed once.

Samples of one task begin with the same prompt, and so do the two answers of a preference. At such
places a decoder's states are equal, so projections and feed-forwards, nearly all of the cost, are
computed for the distinct pasts alone; attention is given every place. tests/test_shared_pasts.py
holds states and gradients equal to those without, but for rounding.

    shared = shared_pasts(tokens, documents)
    hidden = model.hidden(tokens, documents, shared=shared)     # (R, T, D), as without `shared`

A place's past is its document's tokens up to and including it: of the documents [a b c] and
[a b d], six places have four pasts, a, ab, abc, abd. R rows of T places, U distinct pasts.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class SharedPasts(NamedTuple):
    number: Tensor  # (R, T), which of the U distinct pasts stands at each place
    first: Tensor  # (U,), where each stands first, in the flattened rows

    def once(self, x: Tensor) -> Tensor:
        """(R, T, …) → (1, U, …): the value at the place where each past stands first."""
        return x.flatten(0, 1).index_select(0, self.first)[None]

    def everywhere(self, x: Tensor) -> Tensor:
        """(1, U, …) → (R, T, …): at each place the value of its past."""
        return x[0].index_select(0, self.number.flatten()).unflatten(0, self.number.shape)


def shared_pasts(tokens: Tensor, documents: Tensor) -> SharedPasts:
    """The pasts of packed rows (R, T). Padding (document −1) is one past: nothing reads what is
    computed there.
    """
    numbers: dict[tuple[int, int], int] = {}  # (number of the past before, token) → its own
    first: list[int] = []
    rows = []
    for row, (row_tokens, row_documents) in enumerate(zip(tokens.tolist(), documents.tolist())):
        row_numbers: list[int] = []
        for place, (token, document) in enumerate(zip(row_tokens, row_documents)):
            goes_on = place > 0 and row_documents[place - 1] == document
            before = row_numbers[-1] if goes_on else -1  # −1: a document begins
            key = (before, token) if document >= 0 else (-1, -1)
            number = numbers.setdefault(key, len(numbers))
            if number == len(first):
                first.append(row * len(row_tokens) + place)
            row_numbers.append(number)
        rows.append(row_numbers)
    device = tokens.device
    return SharedPasts(torch.tensor(rows, device=device), torch.tensor(first, device=device))
