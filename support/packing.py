"""Packing: short examples side by side in long rows, each attending to itself alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config import Model, UserError
from losses import IGNORE
from support.model_checks import document_alignment

# Examples at a time: packing looks through all rows for a place, which among thousands takes
# minutes.
PACKED_TOGETHER = 256

# Token IDs, and for each whether it is taught, or how much.
Example = tuple[list[int], list[bool] | list[float]]


@dataclass
class Packed:
    """Rows of whole documents, each unaware of its neighbours."""

    tokens: Tensor  # (R, T) int64
    targets: Tensor  # (R, T) int64, the next token where it is taught, IGNORE elsewhere
    weights: Tensor  # (R, T) float32, how much each target counts; 0 where nothing is taught
    documents: Tensor  # (R, T) int64, number of the example; -1 in padding
    # (row, column) where each example begins; (-1, -1) for one that was too long
    positions: list[tuple[int, int]]

    def to(self, device: str) -> "Packed":
        tensors = self.tokens, self.targets, self.weights, self.documents
        return Packed(*(tensor.to(device) for tensor in tensors), self.positions)


def pack(examples: list[Example], sequence: int, model: Model) -> Packed:
    """Pack examples into rows of `sequence` tokens for a model of this shape.

    Longest first, each into the first row that has room. In rows longer than the model's window
    every document begins at a multiple of its landmark stride: landmarks are counted from the row's
    first token, so they are then the same tokens as when the document stands alone. An example
    longer than a row is left out, and its place says so.
    """
    align = document_alignment(model, sequence)
    fitting = [index for index, (ids, _) in enumerate(examples) if len(ids) <= sequence]
    order = sorted(fitting, key=lambda index: -len(examples[index][0]))

    places = [(-1, -1)] * len(examples)
    filled: list[int] = []  # tokens in each row
    for index in order:
        length = len(examples[index][0])
        starts = [-(-used // align) * align for used in filled]  # rounded up
        row = next((r for r, start in enumerate(starts) if start + length <= sequence), None)
        if row is None:
            row = len(filled)
            filled.append(0)
            starts.append(0)
        places[index] = (row, starts[row])
        filled[row] = starts[row] + length

    tokens = torch.zeros(len(filled), sequence, dtype=torch.int64)  # (R, T)
    targets = torch.full_like(tokens, IGNORE)
    weights = torch.zeros(tokens.shape)
    documents = torch.full_like(tokens, -1)
    for index in order:
        row, column = places[index]
        ids = torch.tensor(examples[index][0])
        taught = torch.tensor(examples[index][1], dtype=torch.float32)
        end = column + len(ids)
        tokens[row, column:end] = ids
        targets[row, column : end - 1] = torch.where(taught[1:] > 0, ids[1:], IGNORE)
        weights[row, column : end - 1] = taught[1:]
        documents[row, column:end] = index
    return Packed(tokens, targets, weights, documents, places)


def pack_short(examples: list[Example], model: Model) -> Packed:
    """Examples in rows as short as the longest of them: attention's cost is a row's square. Rows
    stand in the order of their first examples, so that samples of one task are mostly near.
    """
    packed = pack(examples, max(len(tokens) for tokens, _ in examples), model)
    padding = packed.documents < 0
    order = packed.documents.masked_fill(padding, len(examples)).amin(1).argsort()  # (R,)
    place = order.argsort().tolist()  # where each row goes
    return Packed(
        packed.tokens[order],
        packed.targets[order],
        packed.weights[order],
        packed.documents[order],
        [(place[row], column) for row, column in packed.positions],
    )


class PackedLoader:
    """Shuffled batches of packed rows, each epoch in another order; `state()` is the whole place in
    the data, as with TokenLoader.
    """

    def __init__(self, examples: list[Example], sequence: int, batch: int, seed: int, model: Model):
        fitting = [example for example in examples if len(example[0]) <= sequence]
        if not fitting:
            raise UserError(
                f"none of {len(examples)} examples fits in rows of {sequence} tokens; give the "
                "stage longer ones (its setting sequence)"
            )
        begins = range(0, len(fitting), PACKED_TOGETHER)
        packs = [
            pack(fitting[begin : begin + PACKED_TOGETHER], sequence, model) for begin in begins
        ]
        rows = sum(len(packed.tokens) for packed in packs)
        if rows < batch:
            raise UserError(
                f"{len(examples)} examples fill {rows} rows of {sequence} tokens; {batch} are "
                "needed for one step: give more examples, or a smaller batch"
            )
        self.tensors = [
            torch.cat([packed.tokens for packed in packs]),
            torch.cat([packed.targets for packed in packs]),
            torch.cat([packed.weights for packed in packs]),
            torch.cat([packed.documents for packed in packs]),
        ]
        self.batch = batch
        self.seed = seed
        self.restore(dict(epoch=0, cursor=0))

    def state(self) -> dict[str, int]:
        return dict(epoch=self.epoch, cursor=self.cursor)

    def restore(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]
        self.cursor = state["cursor"]
        generator = np.random.default_rng([self.seed, self.epoch])
        self.order = torch.from_numpy(generator.permutation(len(self.tensors[0])))

    def taught(self) -> float:
        """The share of all places, padding included, whose targets count."""
        return (self.tensors[2] > 0).float().mean().item()

    def next(self) -> list[Tensor]:
        """tokens, targets, weights, documents, each (B, T); the last partial batch of an epoch is
        left out.
        """
        if self.cursor + self.batch > len(self.order):
            self.restore(dict(epoch=self.epoch + 1, cursor=0))
        rows = self.order[self.cursor : self.cursor + self.batch]
        self.cursor += self.batch
        return [tensor[rows] for tensor in self.tensors]
