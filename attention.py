"""Landmark attention (paper §2.3): a local window plus one landmark every `stride` tokens, and the
cache that goes with it.

    query i sees key j <= i   iff   i - j < window   or   j mod stride = 0

What differs from the textbook: the cited Landmark Attention paper gates blocks through a grouped
softmax and stays quadratic; this is the fixed pattern that SAGE's text describes, under one
softmax. For T <= window it *is* causal attention, so Qwen's outputs do not change. Token 0 is
always visible (the attention sink that long contexts need). Memory of a sequence is O(window +
T/stride) instead of O(T).

    visible               the mask
    definition            landmark attention with the mask written out: every other form equals it
    linear_memory         the same, one block of queries at a time
    landmark_attention    what the model calls: the same, by the fastest way (fast/attention.py)
    LandmarkCache         keys and values of the window and the landmarks, for decoding

Keys are counted from index 0 of the row and rotated before they come here. Legend: B batch, T
tokens, H query heads, K key-value heads, G = H / K queries that share a key, d head width, n new
tokens, R ring slots, M landmark slots.

    python bench/attention.py     speed and memory
    python bench/retrieval.py     facts that are asked for many windows later
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from config import Model
from fast.attention import SlotMask, cached_attention, fastest_attention, slot_mask
from support.model_checks import check_cache_room


def visible(query: Tensor, key: Tensor, window: int, stride: int) -> Tensor:
    """Whether the token at position `query` sees the one at position `key` (§2.3; integers that
    broadcast).
    """
    return (key <= query) & ((query - key < window) | (key % stride == 0))


def mask(
    queries: Tensor, keys: Tensor, window: int, stride: int, documents: Tensor | None = None
) -> Tensor:
    """Which keys, at positions (m,), each query, at positions (n,), of a row sees: bool (n, m).

    With `documents` (B, T), which tells packed documents apart: (B, n, m).
    """
    seen = visible(queries[:, None], keys, window, stride)  # (n, m)
    if documents is not None:
        seen = seen & (documents[:, queries, None] == documents[:, None, keys])  # (B, n, m)
    return seen


def masked_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v over the keys that each query sees; the softmax in at least float32.

    q (B, H, n, d); k and v (B, K, m, d), each shared by H / K heads of q; seen (n, m) or (B, n, m).
    Returns (B, H, n, d).
    """
    B, H, n, d = q.shape
    K, m = k.shape[1:3]
    grouped = q.reshape(B, K, -1, d)  # (B, K, G·n, d): heads that share keys, one below the other
    scores = (grouped @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * d**-0.5
    scores = scores.view(B, K, -1, n, m)  # (B, K, G, n, m)
    # not −inf: a row of padding may see nothing, and its softmax would be NaN
    scores = scores.masked_fill(~seen[..., None, None, :, :], -1e30)
    p = scores.softmax(-1).to(v.dtype).view(B, K, -1, m)  # (B, K, G·n, m)
    return (p @ v).view(B, H, n, d)


def definition(
    q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, *, documents: Tensor | None = None
) -> Tensor:
    """Landmark attention with its mask written out: O(T²) memory, at least float32, any T.

    Shapes as in `landmark_attention`. Differentiable twice.
    """
    index = torch.arange(q.shape[2], device=q.device)
    seen = mask(index, index, window, stride, documents)  # (T, T) or (B, T, T)
    wide = torch.promote_types(q.dtype, torch.float32)
    return masked_attention(q.to(wide), k.to(wide), v.to(wide), seen).to(q.dtype)


def linear_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    *,
    documents: Tensor | None = None,
    block: int = 128,
) -> Tensor:
    """The same without a (T, T) tensor: a block of queries needs only the landmarks and the window
    before it, so a block's scores are (block, window + block + T / stride).

    fast/attention.py does this walk with less arithmetic, and again backwards for the gradients.
    """
    T = q.shape[2]
    index = torch.arange(T, device=q.device)
    outputs = []
    for start in range(0, T, block):
        window_start = max(0, start - window + 1)  # of the block's first query
        queries = index[start : start + block]
        keys = torch.cat([index[:window_start:stride], index[window_start : start + block]])
        seen = mask(queries, keys, window, stride, documents)
        outputs.append(masked_attention(q[:, :, queries], k[:, :, keys], v[:, :, keys], seen))
    return torch.cat(outputs, 2)  # (B, H, T, d)


def landmark_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    stride: int,
    *,
    documents: Tensor | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Attention of every query over its window and the landmarks before it (§2.3).

    q (B, H, T, d); k and v (B, K, T, d), H a multiple of K, rotated already; documents (B, T)
    integers or None: tokens see only their own document, whose first token stands at a multiple of
    `stride` when T > window. Returns (B, H, T, d). Raises UserError for shapes, dtypes, devices or
    settings that do not fit, and for an `implementation` that cannot take them.
    """
    return fastest_attention(q, k, v, window, stride, documents, implementation)


# The cache
# --------------------------------------------------------------------------------------------------


@dataclass
class StepPlan:
    """Where the new tokens of one forward pass go in the cache and what they see, found once for
    all layers (`LandmarkCache.plan`).
    """

    positions: Tensor  # (B, n), −1 in the padding
    padding: Tensor  # (B, 1, n, 1), True in the padding
    is_prompt: bool = False  # several tokens per row, and nothing is cached yet
    slots: Tensor | None = None  # one token per row: where its keys and values go (`flat_slots`)
    seen: SlotMask | None = None  # one token per row: which slots it sees


class LandmarkCache:
    """Keys and values of all layers: a ring of the last `window` tokens, and the landmarks of the
    whole history.

    Each layer holds keys and values (B, K, R + M + 1, d): slot p mod R is the ring's place of
    position p, slot R + p / stride is its place among the landmarks, and the last slot is a spare
    that swallows what must not be kept (padding), so that every shape is static and a decoding step
    compiles. `lengths` (B,) counts the tokens of each row that are in the cache.
    """

    pasts = None  # what rows have in common, where it is kept once (fast/forked_cache.py)

    def __init__(
        self,
        config: Model,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device="cpu",
    ):
        self.window, self.stride = config.window, config.strides[0]  # every layer has the same
        self.max_tokens = max_tokens
        self.ring = min(self.window, max_tokens)
        self.landmarks = 0 if max_tokens <= self.window else -(-max_tokens // self.stride)
        shape = (batch, config.kv_heads, self.ring + self.landmarks + 1, config.head_dim)
        empty = torch.zeros(shape, dtype=dtype, device=device)
        self.keys = [empty.clone() for _ in range(config.layers)]
        self.values = [empty.clone() for _ in range(config.layers)]
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        # The first position that reads a slot. Of slot p of the ring: p, whose token is the first
        # written there. Of landmark i: i · stride + window, when the ring has lost it; before that
        # its copy in the ring is read, and both would count it twice. Ascending, so slots in use
        # come first.
        ring = torch.arange(self.ring)
        landmarks = self.window + self.stride * torch.arange(self.landmarks)
        self.seen_from = torch.cat([ring, landmarks]).to(device)  # (R + M,)

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        tensors = [*self.keys, *self.values, self.lengths, self.seen_from]
        return sum(x.nbytes for x in tensors)

    def plan(self, positions: Tensor) -> StepPlan:
        """Where new tokens at `positions` (B, n) int64 go and what they see, in every layer alike.

        Each row's tokens follow its cached ones; −1 is padding, at the right.
        """
        padding = (positions < 0)[:, None, :, None]  # (B, 1, n, 1)
        if positions.shape[1] > 1:
            return StepPlan(positions, padding, is_prompt=not self.lengths.any())
        seen = slot_mask(
            self.seen_from, positions, ring=self.ring, stride=self.stride, dtype=self.keys[0].dtype
        )
        return StepPlan(positions, padding, slots=self.flat_slots(positions), seen=seen)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, plan: StepPlan) -> Tensor:
        """Attention of n new tokens over the cache and themselves; writes their keys and values.

        q (B, H, n, d); k and v (B, K, n, d). Returns (B, H, n, d), zero at padding. Call
        advance(positions) once after the last layer.
        """
        if q.shape[2] == 1:  # a decoding step
            self.write(layer, k, v, plan.slots)
            return self.read_one(layer, q, plan).masked_fill(plan.padding, 0)

        # NaN · 0 is NaN: padding must be gone before any product
        q, k, v = (x.masked_fill(plan.padding, 0) for x in (q, k, v))
        if plan.is_prompt:  # a prompt; padding at its right is in nobody's past
            out = landmark_attention(q, k, v, self.window, self.stride)
            self.write(layer, k, v, self.flat_slots(plan.positions))
            return out.masked_fill(plan.padding, 0)

        newest = self.lengths - 1  # (B,)
        # 256 tokens at a time bound the scores' memory: (256, used slots + 256) per head
        chunks = zip(*(x.split(256, 2) for x in (q, k, v)), plan.positions.split(256, 1))
        outputs = []
        for q, k, v, positions in chunks:
            out = self.chunk(layer, q, k, v, positions=positions, newest=newest, plan=plan)
            outputs.append(out)
            self.write(layer, k, v, self.flat_slots(positions))
            newest = newest + (positions >= 0).sum(1)
        return torch.cat(outputs, 2).masked_fill(plan.padding, 0)

    def slots(self, positions: Tensor) -> Tensor:
        """Where keys and values of tokens at `positions` (B, n) go: (B, n), or with landmarks
        (B, 2n), each token's place in the ring and then among the landmarks.

        Padding, and what the ring would lose at once, go to the spare slot.
        """
        spare = self.ring + self.landmarks
        kept = positions >= 0
        recent = kept & (positions > positions.amax(1, keepdim=True) - self.ring)
        in_ring = torch.where(recent, positions % self.ring, spare)  # (B, n)
        if not self.landmarks:
            return in_ring
        place = self.ring + positions // self.stride
        landmark = torch.where(kept & (positions % self.stride == 0), place, spare)  # (B, n)
        return torch.cat([in_ring, landmark], 1)

    def flat_slots(self, positions: Tensor) -> Tensor:
        """`slots` of tokens at `positions` (B, n) for each of K heads, in a layer's keys flattened
        to (B·K·slots, d), as `index_put_` wants them: (B·K·n,), or with landmarks (B·K·2n,).
        """
        B, K, allocated, _ = self.keys[0].shape
        offset = torch.arange(0, B * K * allocated, allocated, device=positions.device)  # (B·K,)
        return (offset.view(B, K, 1) + self.slots(positions)[:, None]).flatten()

    def write(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """Put keys and values (B, K, n, d) into their `flat_slots`."""
        d = k.shape[3]
        for store, new in ((self.keys[layer], k), (self.values[layer], v)):
            if self.landmarks:
                new = torch.cat([new, new], 2)  # (B, K, 2n, d)
            store.view(-1, d).index_put_((slots,), new.to(store.dtype).reshape(-1, d))

    def chunk(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        positions: Tensor,
        newest: Tensor,
        plan: StepPlan,
    ) -> Tensor:
        """Several tokens per row against the cache as it was before them, and each other.

        q (B, H, n, d), positions (B, n), newest (B,) the last cached ones → (B, H, n, d).
        """
        used = int((self.seen_from <= positions.max()).sum())  # nobody sees a later slot
        k = torch.cat([self.keys[layer][:, :, :used].to(q.dtype), k], 2)  # (B, K, used + n, d)
        v = torch.cat([self.values[layer][:, :, :used].to(q.dtype), v], 2)
        cached = self.seen_slots(positions, newest)[..., :used]  # (B, n, used)
        among = visible(positions[:, :, None], positions[:, None, :], self.window, self.stride)
        among = among & (positions >= 0)[:, None]  # (B, n, n)
        return self.read_several(layer, q, k, v, seen=torch.cat([cached, among], -1), plan=plan)

    # fast/forked_cache.py overrides `plan` and the next three: its rows have pasts in common.

    def read_one(self, layer: int, q: Tensor, plan: StepPlan) -> Tensor:
        """One token per row, q (B, H, 1, d), over the cache, in which it stands already."""
        return cached_attention(q, self.keys[layer], self.values[layer], plan.seen)

    def read_several(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, seen: Tensor, plan: StepPlan
    ) -> Tensor:
        """Several tokens per row, q (B, H, n, d), over the keys (B, K, m, d) that are `seen`."""
        return masked_attention(q, k, v, seen)

    def seen_slots(self, positions: Tensor, newest: Tensor) -> Tensor:
        """Which slots tokens at `positions` (B, n) see while the newest token in the ring is at
        `newest` (B,): bool (B, n, R + M).
        """
        slot = torch.arange(self.ring, device=positions.device)
        # the position in each slot: the newest one that is ≡ slot mod R; < 0: nothing yet
        held = newest[:, None] - (newest[:, None] - slot) % self.ring  # (B, R)
        distance = positions[:, :, None] - held[:, None]  # (B, n, R)
        in_ring = (held[:, None] >= 0) & (distance < self.window)
        if not self.landmarks:
            return in_ring
        landmark = torch.arange(self.landmarks, device=positions.device) * self.stride  # (M,)
        beyond_window = positions[:, :, None] - landmark >= self.window  # (B, n, M)
        written = landmark <= newest[:, None, None]
        return torch.cat([in_ring, beyond_window & written], -1)

    def advance(self, positions: Tensor) -> None:
        """Count the tokens at `positions` (B, n) as cached: once per forward pass, after the last
        layer. Raises UserError past max_tokens.
        """
        self.lengths += (positions >= 0).sum(1)
        check_cache_room(self.lengths, self.max_tokens)

    def tensors(self) -> list[Tensor]:
        """All that is remembered of a row, each (B, …)."""
        return [self.lengths, *self.keys, *self.values]

    def use(self, tensors: list[Tensor]) -> None:
        """Go on with other memory, in the order of `tensors()`."""
        layers = len(self.keys)
        self.lengths = tensors[0]
        self.keys = tensors[1 : 1 + layers]
        self.values = tensors[1 + layers :]
