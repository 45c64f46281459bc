"""Landmark attention (paper §2.3): a local window plus one landmark every `stride` tokens, and the cache that goes with it.

    query i sees key j <= i   iff   i - j < window   or   j mod stride = 0

What differs from the textbook: the cited Landmark Attention paper gates blocks through a grouped softmax and stays quadratic; this is the
fixed pattern that SAGE's text describes, under one softmax. For T <= window it *is* causal attention, so Qwen's outputs do not change.
Token 0 is always visible (the attention sink that long contexts need). Memory of a sequence is O(window + T/stride) instead of O(T).

    definition      explicit mask, any T: what every other path is compared with
    causal          torch's scaled_dot_product_attention, exact when T <= window
    short           CPU training at small T: three matrix products and a softmax that keeps its probabilities
    blocked         linear memory on any device: blocks of queries against their window and the landmarks before it
    triton          kernels.py: the same on a GPU, at its speed

Keys are counted from index 0 of the row and rotated before they come here. Legend: B batch, T tokens, H query heads, K key-value heads,
G = H / K queries that share a key, d head width, n new tokens, R ring slots, M landmark slots, C queries in a block.

    python bench/attention.py     speed and memory          python bench/retrieval.py     needle test
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from config import UserError


def visible(query: Tensor, key: Tensor, window: int, stride: int) -> Tensor:
    """The mask: whether the token at position `query` sees the one at position `key` (integers that broadcast; §2.3)."""
    return (key <= query) & ((query - key < window) | (key % stride == 0))


def mask(T: int, window: int, stride: int, documents: Tensor | None, device) -> Tensor:
    """Who sees whom in whole rows: bool (T, T), or (B, 1, 1, T, T) when `documents` (B, T) tells packed documents apart."""
    index = torch.arange(T, device=device)
    seen = visible(index[:, None], index[None, :], window, stride)
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None, :])[:, None, None]
    return seen


def definition(q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + mask) v with the mask written out, in at least float32: O(T²) memory, differentiable twice, any T."""
    B, H, T, d = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    grouped = q.to(wide).view(B, k.shape[1], -1, T, d)                             # (B, K, G, T, d)
    scores = grouped @ k.to(wide).unsqueeze(2).mT / d**0.5                         # (B, K, G, T, T)
    scores = scores.masked_fill(~mask(T, window, stride, documents, q.device), float("-inf"))
    return (scores.softmax(-1) @ v.to(wide).unsqueeze(2)).view(B, H, T, d).to(q.dtype)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full causal attention by torch: what landmark attention is when T <= window."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class Short(torch.autograd.Function):
    """Attention whose forward keeps the probabilities (B, H, T, T), so that backward is four matrix products.

    torch's CPU attention recomputes them tile by tile, which at a few hundred tokens costs more than half of a training step.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        B, H, T, d = q.shape
        K = k.shape[1]
        q = q.reshape(B * K, H // K * T, d) * d**-0.5                              # queries that share keys stand below each other
        k, v = k.reshape(B * K, T, d), v.reshape(B * K, T, d)
        scores = torch.bmm(q, k.mT).view(B, K, H // K, T, T) + bias
        probabilities = torch.softmax(scores, -1, dtype=q.dtype).view(B * K, -1, T)
        ctx.save_for_backward(q, k, v, probabilities)
        ctx.heads = K
        return torch.bmm(probabilities, v).view(B, H, T, d)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        q, k, v, probabilities = ctx.saved_tensors
        B, H, T, d = gradient.shape
        K = ctx.heads
        gradient = gradient.reshape(B * K, -1, d)
        dv = torch.bmm(probabilities.mT, gradient).view(B, K, T, d)
        dp = torch.bmm(gradient, v.mT)
        ds = torch._softmax_backward_data(dp, probabilities, -1, q.dtype)          # p (dp − Σ p dp)
        dq = (torch.bmm(ds, k) * d**-0.5).view(B, H, T, d)
        dk = torch.bmm(ds.mT, q).view(B, K, T, d)                                  # q already carries 1/√d
        return dq, dk, dv, None


def short(q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None) -> Tensor:
    """Landmark attention for training at small T on a CPU; memory O(T²) a head, traces under torch.compile without a break."""
    seen = mask(q.shape[2], window, stride, documents, q.device)
    return Short.apply(q, k, v, torch.zeros((), dtype=q.dtype, device=q.device).masked_fill(~seen, float("-inf")))


def blocked(q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None) -> Tensor:
    B, H, T, d = q.shape
    K, C = k.shape[1], 128
    outputs = []
    for start in range(0, T, C):
        stop, first = min(start + C, T), max(0, start - window + 1)
        index = torch.cat([torch.arange(0, first, stride, device=q.device), torch.arange(first, stop, device=q.device)])
        seen = visible(torch.arange(start, stop, device=q.device)[:, None], index, window, stride)
        if documents is not None:
            seen = seen & (documents[:, start:stop, None] == documents[:, None, index])[:, None, None]
        scores = (q[:, :, start:stop].reshape(B, K, -1, d) @ k[:, :, index].mT).float().view(B, K, H // K, stop - start, -1) * d**-0.5
        p = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(q.dtype)
        outputs.append((p.view(B, K, -1, len(index)) @ v[:, :, index]).view(B, H, -1, d))
    return torch.cat(outputs, 2)


def choose(q: Tensor, k: Tensor, window: int, documents: Tensor | None = None) -> str:
    """The implementation that "auto" takes for these tensors."""
    T = q.shape[2]
    if q.device.type == "cpu" and T <= 1024:
        return "short"
    if T <= window and documents is None:
        return "causal"
    return "blocked"


def landmark_attention(q: Tensor, k: Tensor, v: Tensor, window: int, stride: int, documents: Tensor | None = None,
                       implementation: str = "auto") -> Tensor:
    """Attention of every query over its window and the landmarks before it.

    q (B, H, T, d); k and v (B, K, T, d), H a multiple of K, rotated already; documents (B, T) integers or None: tokens see only their own
    document. Returns (B, H, T, d). Raises UserError for shapes, dtypes, devices or settings that do not fit.
    """
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    B, H, T, d = q.shape
    if k.shape != v.shape or k.shape[0] != B or k.shape[2:] != (T, d) or H % k.shape[1]:
        raise UserError(f"attention needs q (B, H, T, d), k and v (B, K, T, d) with H a multiple of K; found {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    if window < 1 or stride < 1:
        raise UserError(f"window and stride must be at least 1; found window={window}, stride={stride}")
    name = choose(q, k, window, documents) if implementation == "auto" else implementation
    if name == "causal":
        return causal(q, k, v)
    return {"definition": definition, "short": short, "blocked": blocked}[name](q, k, v, window, stride, documents)


class LandmarkCache:
    """Keys and values of all layers of a batch: a ring of the last `window` tokens and the landmarks of the whole history.

    Each layer holds keys and values (B, K, R + M + 1, d): slot p mod R is the ring's place of position p, slot R + p / stride is its place
    among the landmarks, and the last slot is a spare that swallows what must not be kept (padding), so that every shape is static and a
    decoding step compiles. `lengths` (B,) counts the tokens of each row that are in the cache.
    """

    def __init__(self, layers: int, batch: int, kv_heads: int, head_dim: int, window: int, stride: int, max_tokens: int,
                 dtype: torch.dtype = torch.float32, device="cpu"):
        self.window, self.stride, self.max_tokens = window, stride, max_tokens
        self.ring = min(window, max_tokens)
        self.landmarks = 0 if max_tokens <= window else -(-max_tokens // stride)
        shape = (batch, kv_heads, self.ring + self.landmarks + 1, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return sum(x.nbytes for x in [*self.keys, *self.values, self.lengths])

    def seen(self, newest: Tensor, query: Tensor) -> Tensor:
        """Which slots the tokens at positions `query` (B, n) see when the ring's newest token is at `newest` (B,): bool (B, n, R + M)."""
        slot = torch.arange(self.ring, device=query.device)
        position = newest[:, None] - (newest[:, None] - slot) % self.ring                                      # (B, R), negative: never written
        near = (position[:, None] >= 0) & (query[:, :, None] - position[:, None] < self.window)                # (B, n, R)
        landmark = torch.arange(self.landmarks, device=query.device) * self.stride
        far = (query[:, :, None] - landmark >= self.window) & (landmark <= newest[:, None, None])              # (B, n, M)
        return torch.cat([near, far], -1)

    def write(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> None:
        """Put keys and values (B, K, n, d) of tokens at `positions` (B, n) in place; padding and what the ring would lose at once go to the spare."""
        spare = self.ring + self.landmarks
        kept = (positions >= 0) & (positions > positions.amax(1, keepdim=True) - self.ring)
        slots = [torch.where(kept, positions % self.ring, spare)]
        if self.landmarks:
            slots.append(torch.where((positions >= 0) & (positions % self.stride == 0), self.ring + positions // self.stride, spare))
        index = torch.cat(slots, 1)[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])                    # (B, K, n or 2n, d)
        for store, new in ((self.keys[layer], k), (self.values[layer], v)):
            store.scatter_(2, index, torch.cat([new] * len(slots), 2).to(store.dtype))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
        """Attention of n new tokens over the cache and themselves; writes their keys and values.

        q (B, H, n, d); k and v (B, K, n, d); positions (B, n) int64, each row's tokens follow its cached ones, -1 = padding at the right.
        Returns (B, H, n, d), zero at padding. Call advance(positions) once after the last layer.
        """
        padding = (positions < 0)[:, None, :, None]
        q, k, v = (x.masked_fill(padding, 0) for x in (q, k, v))                  # NaN · 0 is NaN: padding must be gone before any product
        if q.shape[2] == 1:
            self.write(layer, k, v, positions)
            return self.step(layer, q, positions).masked_fill(padding, 0)
        if not self.lengths.any():                                                # a fresh prompt: right padding is in nobody's past
            output = landmark_attention(q, k, v, self.window, self.stride)
            self.write(layer, k, v, positions)
            return output.masked_fill(padding, 0)
        outputs, newest = [], self.lengths - 1
        for q, k, v, p in zip(*(x.split(256, 2) for x in (q, k, v)), positions.split(256, 1)):
            outputs.append(self.chunk(layer, q, k, v, p, newest))
            self.write(layer, k, v, p)
            newest = newest + (p >= 0).sum(1)
        return torch.cat(outputs, 2).masked_fill(padding, 0)

    def step(self, layer: int, q: Tensor, positions: Tensor) -> Tensor:
        """One token a row, already written: static shapes, no branch on data, so that it compiles. q (B, H, 1, d) -> (B, H, 1, d)."""
        B, H, _, d = q.shape
        slots = self.ring + self.landmarks
        k, v = self.keys[layer][:, :, :slots], self.values[layer][:, :, :slots]                                 # (B, K, R + M, d)
        q = q.view(B, k.shape[1], -1, d).to(k.dtype)                                                            # (B, K, G, d)
        seen = self.seen(positions[:, 0], positions)[:, None]                                                   # (B, 1, 1, R + M)
        # Inductor turns product-and-sum into one vectorised loop over memory; eager torch would build the product, so it multiplies matrices
        by_hand = torch.compiler.is_compiling() and q.device.type == "cpu" and B == 1
        scores = (q[:, :, :, None] * k[:, :, None]).sum(-1) if by_hand else q @ k.mT                            # (B, K, G, R + M)
        scores = (scores.float() * d**-0.5).masked_fill(~seen, -1e30)                                           # finite: a padding row has nothing to see
        p = scores.softmax(-1).to(v.dtype)
        output = (p[..., None] * v[:, :, None]).sum(-2) if by_hand else p @ v                                   # (B, K, G, d)
        return output.view(B, H, 1, d)

    def chunk(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, newest: Tensor) -> Tensor:
        """Several tokens a row against the cache as it was before them, and each other. q (B, H, n, d), newest (B,) -> (B, H, n, d)."""
        B, H, n, d = q.shape
        slots = self.ring + self.landmarks
        k = torch.cat([self.keys[layer][:, :, :slots].to(q.dtype), k], 2)                                       # (B, K, R + M + n, d)
        v = torch.cat([self.values[layer][:, :, :slots].to(q.dtype), v], 2)
        among = visible(positions[:, :, None], positions[:, None, :], self.window, self.stride) & (positions >= 0)[:, None]
        seen = torch.cat([self.seen(newest, positions), among], -1)[:, None, None]                              # (B, 1, 1, n, R + M + n)
        scores = (q.reshape(B, k.shape[1], -1, d) @ k.mT).float().view(B, k.shape[1], -1, n, k.shape[2]) * d**-0.5
        p = scores.masked_fill(~seen, -1e30).softmax(-1).to(v.dtype)
        return (p.view(B, k.shape[1], -1, k.shape[2]) @ v).view(B, H, n, d)

    def advance(self, positions: Tensor) -> None:
        """Count the tokens at `positions` (B, n) as cached: once per forward, after the last layer has attended."""
        self.lengths += (positions >= 0).sum(1)

    def select(self, rows: list[int] | Tensor) -> "LandmarkCache":
        """A copy of the chosen rows in this order, for candidates that share a prefix: select([0] * n) repeats the first row."""
        copy = object.__new__(LandmarkCache)
        copy.__dict__.update(self.__dict__)
        copy.keys, copy.values = ([x[rows].clone() for x in store] for store in (self.keys, self.values))
        copy.lengths = self.lengths[rows].clone()
        return copy
