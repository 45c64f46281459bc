"""A cache whose rows keep once what they have in common, and read it together.

Samples of one task, candidates of one step and their futures begin with the same conversation.
Copied for every row, its keys and values would also be read for every row, which is most of a
decoding step. Here the queries of all rows that share a past go through it as one matrix, and each
row reads by itself only what came after (Hydragen, arXiv 2402.05099):

    attention = w · attention over the past + (1 − w) · attention over the row's own keys
    w = σ(lse_past − lse_own)        lse: the log-sum-exp of the scores

    forked(cache)                 what each row has read is its past from now on, which the rows
                                  that are selected from it, however many, have in common
    pruned(cache)                 without the pasts that no row has any more
    with_common_pasts(caches)     for caches whose rows are about to be joined

A past is one level deep: what came after it is copied when a row is selected, a candidate's own
step for each of its futures, too. On a CPU, without gradients, where no token can leave the window;
elsewhere caches stay as they are. Legend as in attention.py; N pasts of at most P tokens, m queries
per key head.
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
    pasts: Tensor | None  # (g,), which past each group has; None: group i has past i


@dataclass
class ForkedPlan(StepPlan):
    """Its positions count from the end of a row's past."""

    groups: Groups | None = None  # None: shapes are static, so every row reads a copy of its past


def groups_of(past_of_row: Tensor, pasts: int) -> Groups:
    """The groups of rows with the pasts `past_of_row` (B,), numbers below `pasts`.

    One group per past, as large as the largest. Where that would leave more than half of the places
    empty, groups are smaller, and a past with many rows has several, each with a copy of its keys.
    """
    B = len(past_of_row)
    counts = past_of_row.bincount(minlength=pasts)  # (N,), rows of each past
    n = int(counts.max())
    even = n * pasts <= 2 * B
    if not even:
        n = -(-B // int((counts > 0).sum()))
    groups_per_past = torch.ones_like(counts) if even else -(-counts // n)  # (N,)
    # a past's rows take its places one after another, in the order of their numbers
    order = past_of_row.argsort(stable=True)
    row = torch.arange(B, device=order.device)
    first_row = counts.cumsum(0) - counts  # (N,), in that order
    first_group = groups_per_past.cumsum(0) - groups_per_past  # (N,)
    place = (first_group * n - first_row)[past_of_row[order]] + row
    places = torch.empty_like(order)
    places[order] = place
    rows = places.new_zeros(int(groups_per_past.sum()) * n)
    rows[places] = row
    if even:
        return Groups(rows, places, None)
    past = torch.arange(pasts, device=order.device)
    return Groups(rows, places, past.repeat_interleave(groups_per_past))


def partial_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d + bias) v over some of the keys, and the log-sum-exp of these scores.

    q (B, K, m, d), k and v (B, K, S, d), bias (B, 1, 1 or m, S) → (B, K, m, d) and, at least
    float32, (B, K, m, 1).
    """
    if q.dtype.itemsize == 2:  # twice as fast as what is below; in float32 half as fast
        mask = bias.expand(-1, -1, q.shape[2], -1)
        # what scaled_dot_product_attention runs on a CPU; that keeps the log-sum-exp to itself
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = flash(q, k, v, attn_mask=mask)
        return out, lse.unsqueeze(-1)
    shape = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.bmm(k, q.mT).mT.view(*shape[:-1], -1) * shape[-1] ** -0.5 + bias
    largest = scores.amax(-1, keepdim=True)
    p = (scores - largest).exp()
    total = p.sum(-1, keepdim=True)
    out = torch.bmm(p.flatten(0, 1), v).view(shape) / total
    return out, largest + total.log()


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
    out, lse = partial_attention(together.reshape(g, K, n * m, d), k, v, bias)

    def of_rows(x: Tensor) -> Tensor:  # (g, K, n·m, …) → (B, K, m, …)
        return x.reshape(g, K, n, m, -1).transpose(1, 2).reshape(g * n, K, m, -1)[groups.places]

    return of_rows(out), of_rows(lse)


def bias_of(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else very negative; not −inf, which without any key seen would give NaN."""
    hidden = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, hidden)


class ForkedCache(LandmarkCache):
    """A LandmarkCache whose rows hold only what came after their pasts; slot 0 is the first token
    after. Caches that are selected from this one have the same pasts.
    """

    def __init__(self, cache: LandmarkCache, pasts: Pasts, slots: int):
        """A cache of the same model as `cache`, with room for `slots` tokens behind the pasts. What
        it remembers of rows is set by `use`.
        """
        vars(self).update(vars(cache))  # sizes; nothing is allocated
        self.pasts = pasts
        self.ring = slots
        self.seen_from = torch.arange(slots, device=cache.lengths.device)  # (R,)
        # which tokens of the padded pasts there are
        token = torch.arange(pasts.keys[0].shape[2], device=cache.lengths.device)  # (P,)
        self.past_bias = bias_of(token < pasts.lengths[:, None, None, None], pasts.keys[0].dtype)

    @property
    def past_lengths(self) -> Tensor:
        """How many tokens each row's past has (B,)."""
        return self.pasts.lengths[self.past_of_row]

    def plan(self, positions: Tensor) -> ForkedPlan:
        own = torch.where(positions < 0, -1, positions - self.past_lengths[:, None])
        plan = super().plan(own)
        groups = None
        if not shapes_are_static():
            groups = groups_of(self.past_of_row, len(self.pasts.lengths))
        return ForkedPlan(
            own, plan.padding, plan.is_prompt, slots=plan.slots, seen=plan.seen, groups=groups
        )

    def seen_slots(self, positions: Tensor, newest: Tensor) -> Tensor:
        return super().seen_slots(positions, newest - self.past_lengths)

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
        past_bias = self.past_bias.clamp(min=torch.finfo(q.dtype).min).to(q.dtype)
        if plan.groups is None:
            past_of_row = self.past_of_row
            past, past_lse = partial_attention(
                queries, past_k[past_of_row], past_v[past_of_row], past_bias[past_of_row]
            )
        else:
            past, past_lse = attention_over_pasts(queries, past_k, past_v, past_bias, plan.groups)
        w = (past_lse - own_lse).sigmoid().to(q.dtype)
        return torch.lerp(own, past, w).reshape(B, H, n, d)

    @property
    def bytes(self) -> int:
        return super().bytes + sum(x.nbytes for x in [*self.pasts.keys, *self.pasts.values])

    def tensors(self) -> list[Tensor]:
        lengths, *kept = super().tensors()
        return [lengths, self.past_of_row, *kept]

    def use(self, tensors: list[Tensor]) -> None:
        """Go on with other memory, in the order of `tensors()`; the first two are (B,)."""
        lengths, self.past_of_row, *kept = tensors
        super().use([lengths, *kept])


def forked(cache: LandmarkCache) -> LandmarkCache:
    """The same cache, in which what each row has read is its past, for rows selected from it to
    share; the cache as it is where that cannot be, or would change nothing.

    Each row gets a past of its own: what rows of a forked cache share is copied for each.
    """
    lengths = cache.lengths
    impossible = lengths.device.type != "cpu" or cache.landmarks or torch.is_grad_enabled()
    if impossible or not len(lengths) or not lengths.all():
        return cache
    if cache.pasts is not None and torch.equal(cache.past_lengths, lengths):
        return cache
    return fork(cache)


def fork(cache: LandmarkCache) -> ForkedCache:
    """`forked`, whatever the cache."""
    lengths = cache.lengths
    row = torch.arange(len(lengths), device=lengths.device)
    if cache.pasts is not None:
        pasts, past_of_row, past_lengths = cache.pasts, cache.past_of_row, cache.past_lengths
    else:  # the empty ones
        nothing = [x[:, :, :0] for x in cache.keys]
        pasts, past_of_row, past_lengths = Pasts(nothing, nothing, lengths), row, lengths * 0

    # -- each row's past and its own tokens, one behind the other
    P = pasts.keys[0].shape[2]
    longest = int(lengths.max()) if len(lengths) else 0
    token = torch.arange(longest, device=lengths.device)
    from_past = token < past_lengths[:, None]  # (B, longest)
    # where each token stands in a row's past with its own slots behind
    source = torch.where(from_past, token, P + token - past_lengths[:, None])

    def whole(past: Tensor, own: Tensor) -> Tensor:
        both = torch.cat([past[past_of_row], own], 2)
        return both[row[:, None], :, source].transpose(1, 2).contiguous()  # (B, K, longest, d)

    keys = [whole(past, own) for past, own in zip(pasts.keys, cache.keys)]
    values = [whole(past, own) for past, own in zip(pasts.values, cache.values)]

    # -- and no own tokens yet
    slots = max(1, cache.max_tokens - int(lengths.min())) if len(lengths) else 1
    B, K, _, d = cache.keys[0].shape
    empty = [cache.keys[0].new_zeros(B, K, slots + 1, d) for _ in [*keys, *values]]
    other = ForkedCache(cache, Pasts(keys, values, lengths.clone()), slots)
    other.use([lengths.clone(), row, *empty])
    return other


def pruned(cache: LandmarkCache) -> LandmarkCache:
    """The same cache without the pasts that no row has any more."""
    if cache.pasts is None:
        return cache
    used, past_of_row = cache.past_of_row.unique(return_inverse=True)
    if len(used) == len(cache.pasts.lengths):
        return cache
    keys = [x[used] for x in cache.pasts.keys]
    values = [x[used] for x in cache.pasts.values]
    other = ForkedCache(cache, Pasts(keys, values, cache.pasts.lengths[used]), cache.ring)
    other.use([cache.lengths, past_of_row, *cache.keys, *cache.values])
    return other


def with_common_pasts(caches: list[LandmarkCache]) -> list[LandmarkCache]:
    """The same caches, all with the same pasts and number of slots, so that rows can be joined."""
    if all(cache.pasts is caches[0].pasts for cache in caches):
        return caches
    caches = [fork(cache) if cache.pasts is None else pruned(cache) for cache in caches]
    P = max(cache.pasts.keys[0].shape[2] for cache in caches)
    slots = max(cache.ring for cache in caches)
    every = [cache.pasts for cache in caches]
    pasts = Pasts(
        [torch.cat([longer(x, P) for x in layer]) for layer in zip(*(p.keys for p in every))],
        [torch.cat([longer(x, P) for x in layer]) for layer in zip(*(p.values for p in every))],
        torch.cat([p.lengths for p in every]),
    )
    joined = []
    first = 0
    for cache in caches:
        own = [longer(x, slots + 1) for x in [*cache.keys, *cache.values]]
        other = ForkedCache(cache, pasts, slots)
        other.use([cache.lengths, cache.past_of_row + first, *own])
        joined.append(other)
        first += len(cache.pasts.lengths)
    return joined


def longer(x: Tensor, slots: int) -> Tensor:
    """x (…, S, d) with zeros behind it, so that it has so many slots."""
    return x if x.shape[2] == slots else F.pad(x, (0, 0, 0, slots - x.shape[2]))
