"""A cache whose rows keep once what they have in common, and read it together.

Samples of one task, candidates of one step and the futures of a candidate begin with the same
tokens. Copied for every row, these keys and values would also be read for every row, which is most
of a decoding step. Here the queries of all rows that share a past go through it as one matrix, and
each row reads by itself only what came after (Hydragen, arXiv 2402.05099).

    forked(cache)                 what every row has read is its past from now on, which the rows
                                  that are selected from it, however many, have in common
    with_common_pasts(caches)     for caches whose rows are about to be joined

    softmax over all keys = the past's mean of values and the own keys' one, weighted by their
    parts of the normaliser, e^lse_past : e^lse_own

On a CPU, and where no token can leave the window; elsewhere caches stay as they are. Legend as in
attention.py; N pasts of at most P tokens, m queries per key head.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attention import LandmarkCache, StepPlan
from fast.compiling import shapes_are_static


class Pasts(NamedTuple):
    """Keys and values (N, K, P, d) of each layer, and how many of the P tokens (N,) each past has.
    Nobody writes to them.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor


class Groups(NamedTuple):
    """Rows by their past: g groups of n places, each of rows that have the same."""

    rows: Tensor  # (g·n,), the row at each place; any where there is none
    places: Tensor  # (B,), where each row stands
    pasts: Tensor | None  # (g,), which past each group has; None: the first the first, and so on


@dataclass
class ForkedPlan(StepPlan):
    """Its positions count from the end of a row's past."""

    groups: Groups | None = None  # None: shapes are static, so every row reads a copy of its past


def groups_of(past_of_row: Tensor, pasts: int) -> Groups:
    """The groups of rows with the pasts `past_of_row` (B,), of which there are so many.

    One group per past, as large as the largest; or, where more than half of the places would be
    empty, smaller ones, of which a past has none or several, and a copy for each.
    """
    B = len(past_of_row)
    counts = past_of_row.bincount(minlength=pasts)  # (N,)
    n = int(counts.max())
    even = n * pasts <= 2 * B
    if not even:
        n = -(-B // int((counts > 0).sum()))
    groups = torch.ones_like(counts) if even else -(-counts // n)  # (N,)
    # a past's rows take its places one after another, in the order of their numbers
    order = past_of_row.argsort(stable=True)
    number = torch.arange(B, device=order.device)
    first_row, first_group = (x.cumsum(0) - x for x in (counts, groups))  # (N,)
    place = (first_group * n - first_row)[past_of_row[order]] + number
    places = torch.empty_like(order)
    places[order] = place
    rows = places.new_zeros(int(groups.sum()) * n)
    rows[places] = number
    whose = None if even else torch.arange(pasts, device=order.device).repeat_interleave(groups)
    return Groups(rows, places, whose)


def partial_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d + bias) v over some of the keys, and the logarithm of its normaliser.

    q (B, K, m, d), k and v (B, K, S, d), bias (B, 1, 1 or m, S) → (B, K, m, d) and, at least
    float32, (B, K, m, 1).
    """
    mask = bias.expand(-1, -1, q.shape[2], -1)
    # what scaled_dot_product_attention runs on a CPU; that returns no normaliser
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
    return out, lse.unsqueeze(-1)


def attention_over_pasts(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, groups: Groups
) -> tuple[Tensor, Tensor]:
    """`partial_attention` of q (B, K, m, d) over their rows' pasts, k and v (N, K, P, d), bias
    (N, 1, 1, P).
    """
    B, K, m, d = q.shape
    if groups.pasts is not None:
        k, v, bias = k[groups.pasts], v[groups.pasts], bias[groups.pasts]
    g = len(k)
    together = q[groups.rows].view(g, -1, K, m, d).transpose(1, 2)  # (g, K, n, m, d)
    n = together.shape[2]
    found = partial_attention(together.reshape(g, K, n * m, d), k, v, bias)

    def of_rows(x: Tensor) -> Tensor:  # (g, K, n·m, …) → (B, K, m, …)
        return x.view(g, K, n, m, -1).transpose(1, 2).reshape(g * n, K, m, -1)[groups.places]

    return of_rows(found[0]), of_rows(found[1])


def bias_of(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else very negative; not −inf, which without any key seen would give NaN."""
    hidden = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, hidden)


class ForkedCache(LandmarkCache):
    """A LandmarkCache whose rows hold only what came after their pasts; slot 0 is the first token
    after. Caches that are selected from this one have the same pasts.
    """

    def __init__(self, cache: LandmarkCache, pasts: Pasts, slots: int):
        """A cache as `cache` is, with room for `slots` tokens behind the pasts. What is remembered
        of its rows comes by `use`.
        """
        vars(self).update(vars(cache))
        self.pasts = pasts
        self.ring = slots
        self.seen_from = torch.arange(slots, device=cache.lengths.device)  # (R,)
        # which tokens of the padded pasts there are
        kept = torch.arange(pasts.keys[0].shape[2], device=cache.lengths.device)
        self.past_bias = bias_of(kept < pasts.lengths[:, None, None, None], pasts.keys[0].dtype)

    @property
    def begun(self) -> Tensor:
        """How many tokens each row's past has (B,)."""
        return self.pasts.lengths[self.past_of_row]

    def plan(self, positions: Tensor) -> ForkedPlan:
        own = torch.where(positions < 0, -1, positions - self.begun[:, None])
        groups = None
        if not shapes_are_static():
            groups = groups_of(self.past_of_row, len(self.pasts.lengths))
        return ForkedPlan(**vars(super().plan(own)), groups=groups)

    def seen_slots(self, positions: Tensor, newest: Tensor) -> Tensor:
        return super().seen_slots(positions, newest - self.begun)

    def read_one(self, layer: int, q: Tensor, plan: ForkedPlan) -> Tensor:
        S = plan.seen.bias.shape[-1]
        k, v = self.keys[layer][:, :, :S], self.values[layer][:, :, :S]
        return self.read(layer, q.to(k.dtype), k, v, bias=plan.seen.bias, plan=plan)

    def read_several(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, seen: Tensor, plan: ForkedPlan
    ) -> Tensor:
        return self.read(layer, q, k, v, bias=bias_of(seen, q.dtype), plan=plan)

    def read(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor, plan: ForkedPlan
    ) -> Tensor:
        """Attention of q (B, H, n, d) over each row's past, and over own keys and values
        (B, K, S, d) with bias (B, n, S) → (B, H, n, d).
        """
        B, H, n, d = q.shape
        K = k.shape[1]
        queries = q.reshape(B, K, -1, d)  # (B, K, G·n, d): heads that share keys, one below another
        own, own_lse = partial_attention(queries, k, v, bias.repeat(1, H // K, 1)[:, None])
        past_k, past_v = self.pasts.keys[layer].to(q.dtype), self.pasts.values[layer].to(q.dtype)
        if plan.groups is None:
            row = self.past_of_row
            past, past_lse = partial_attention(
                queries, past_k[row], past_v[row], self.past_bias[row]
            )
        else:
            past, past_lse = attention_over_pasts(
                queries, past_k, past_v, self.past_bias, plan.groups
            )
        share = (past_lse - own_lse).sigmoid().to(q.dtype)  # the past's, of the whole normaliser
        return torch.lerp(own, past, share).view(B, H, n, d)

    @property
    def bytes(self) -> int:
        return super().bytes + sum(x.nbytes for x in [*self.pasts.keys, *self.pasts.values])

    def tensors(self) -> list[Tensor]:
        lengths, *kept = super().tensors()
        return [lengths, self.past_of_row, *kept]

    def use(self, tensors: list[Tensor]) -> None:
        lengths, self.past_of_row, *kept = tensors  # (B,) both
        super().use([lengths, *kept])


def forked(cache: LandmarkCache) -> LandmarkCache:
    """The same cache, in which what each row has read is its past, for rows selected from it to
    share; the cache as it is where that cannot be.
    """
    lengths, row = cache.lengths, torch.arange(len(cache.lengths), device=cache.lengths.device)
    if lengths.is_cuda or cache.landmarks or not lengths.all():
        return cache
    if cache.pasts:
        begun, past_of_row, pasts = cache.begun, cache.past_of_row, cache.pasts
        if torch.equal(begun, lengths):
            return cache
    else:  # none yet, that is empty ones
        begun, past_of_row = torch.zeros_like(lengths), row
        nothing = [x[:, :, :0] for x in cache.keys]
        pasts = Pasts(nothing, nothing, begun)

    # -- each row's past and its own tokens, one behind the other
    P = pasts.keys[0].shape[2]
    t = torch.arange(int(lengths.max()), device=lengths.device)
    place = torch.where(t < begun[:, None], t, P + t - begun[:, None])  # (B, longest)
    place = place.clamp(max=P + cache.ring)  # behind a row's end: anything

    def whole(past: Tensor, own: Tensor) -> Tensor:
        both = torch.cat([past[past_of_row], own], 2)
        return both[row[:, None], :, place].transpose(1, 2).contiguous()  # (B, K, longest, d)

    keys = [whole(*both) for both in zip(pasts.keys, cache.keys)]
    values = [whole(*both) for both in zip(pasts.values, cache.values)]

    # -- and no own tokens yet
    slots = cache.max_tokens - int(lengths.min())
    B, K, _, d = cache.keys[0].shape
    empty = cache.keys[0].new_zeros(B, K, slots + 1, d)
    other = ForkedCache(cache, Pasts(keys, values, lengths.clone()), slots)
    other.use([lengths, row, *(empty.clone() for _ in [*keys, *values])])
    return other


def with_common_pasts(caches: list[LandmarkCache]) -> list[LandmarkCache]:
    """The same caches, all with the same pasts and as many slots, so that their rows can be joined.
    Pasts that no row has any more are left out.
    """
    if all(cache.pasts is caches[0].pasts for cache in caches):
        return caches
    caches = [cache if cache.pasts else forked(cache) for cache in caches]
    P = max(cache.pasts.keys[0].shape[2] for cache in caches)
    slots = max(cache.ring for cache in caches)
    count, rows, keys, values, lengths = 0, [], [], [], []
    for cache in caches:
        used, row = cache.past_of_row.unique(return_inverse=True)
        rows.append(row + count)
        count += len(used)
        keys.append([longer(x[used], P) for x in cache.pasts.keys])
        values.append([longer(x[used], P) for x in cache.pasts.values])
        lengths.append(cache.pasts.lengths[used])
    pasts = Pasts(
        [torch.cat(parts) for parts in zip(*keys)],
        [torch.cat(parts) for parts in zip(*values)],
        torch.cat(lengths),
    )
    joined = []
    for cache, row in zip(caches, rows):
        own = [longer(x, slots + 1) for x in [*cache.keys, *cache.values]]
        joined.append(ForkedCache(cache, pasts, slots))
        joined[-1].use([cache.lengths, row, *own])
    return joined


def longer(x: Tensor, slots: int) -> Tensor:
    """x (…, S, d) with zeros behind it, so that it has so many slots."""
    return F.pad(x, (0, 0, 0, slots - x.shape[2]))
