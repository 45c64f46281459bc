"""The SAGE decoder (paper §2): Qwen2.5's block, with landmark attention and the split embedding.

What differs from the textbook decoder:
- split embedding (equation 4): two matrices, one for prose and one for code, mixed by a gate that
  reads the last four token IDs
- landmark attention (§2.3, attention.py): the last W tokens and every k-th before them; for T ≤ W
  ordinary causal attention
- depth-scaled initialisation (equation 1): projections into the residual stream start smaller the
  deeper the model
- optionally smeared keys: each key leans on the one before it, so that "what followed this token
  last time" takes one layer, not two

With E_code = E_text and keys unsmeared it *is* Qwen2.5, to the bit of its logits
(tests/test_qwen.py). The model knows nothing of devices, ranks or training. Shapes: B batch, T
tokens, D width, H query heads, K key-value heads, d head width, F feed-forward width, V vocabulary,
n new tokens of a cached step.

    python model.py     the sizes, and what they cost
"""

import sys
import zlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import LandmarkCache, Plan, check_documents, landmark_attention, written
from config import Model, UserError

_QWEN = Model(vocab_size=151_936, head_dim=128, rope_theta=1e6, norm_eps=1e-6, context=32_768)
SIZES = {  # Qwen2.5's published shapes
    "0.5B": replace(
        _QWEN, width=896, layers=24, heads=14, kv_heads=2, head_dim=64, feed_forward=4864
    ),
    "1.5B": replace(_QWEN, width=1536, layers=28, heads=12, kv_heads=2, feed_forward=8960),
    "3B": replace(_QWEN, width=2048, layers=36, heads=16, kv_heads=2, feed_forward=11_008),
    "7B": replace(
        _QWEN,
        width=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        feed_forward=18_944,
        vocab_size=152_064,
        tied=False,
        context=131_072,
    ),
    "14B": replace(
        _QWEN,
        width=5120,
        layers=48,
        heads=40,
        kv_heads=8,
        feed_forward=13_824,
        vocab_size=152_064,
        tied=False,
        context=131_072,
        norm_eps=1e-5,
    ),
    "32B": replace(
        _QWEN,
        width=5120,
        layers=64,
        heads=40,
        kv_heads=8,
        feed_forward=27_648,
        vocab_size=152_064,
        tied=False,
        context=131_072,
        norm_eps=1e-5,
    ),
}


class RMSNorm(nn.Module):
    """x · (mean(x²) + ε)^(-1/2) ⊙ g in float32 (equation 2)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def make_norm(config: Model) -> nn.Module:
    return (
        RMSNorm(config.width, config.norm_eps)
        if config.norm == "rms"
        else nn.LayerNorm(config.width, config.norm_eps)
    )


class Linear(nn.Linear):
    """x Wᵀ + b; for one row on a CPU under torch.compile as product and sum, which becomes a single
    loop over W at memory speed.
    """

    def forward(self, x: Tensor) -> Tensor:
        if (
            torch.compiler.is_compiling()
            and x.numel() == self.in_features
            and x.device.type == "cpu"
            and not self.training
        ):
            y = (self.weight * written(x.reshape(1, -1))).sum(-1)
            return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)
        return super().forward(x)


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of every position's angles, float32 (B, 1, T, d); the same angle stands at i and
    i + d/2, as in Qwen2.

    The first half of sin carries the minus of the turn.
    """
    frequencies = theta ** -(
        torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    )  # (d/2,)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, d/2)
    cos, sin = angles.cos(), angles.sin()
    return written(torch.cat([cos, cos], -1)), written(
        torch.cat([-sin, sin], -1)
    )  # or all heads of all layers would compute them anew


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+d/2}) of x (B, heads, T, d) by its position's angle."""
    left, right = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([right, left], -1) * sin.to(x.dtype)


class State:
    """What cached decoding remembers: keys and values, and for the embedding's gate the last few
    token IDs of each row.
    """

    def __init__(
        self,
        config: Model,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device="cpu",
    ):
        self.cache = LandmarkCache(
            config.layers,
            batch,
            config.kv_heads,
            config.head_dim,
            config.window,
            config.landmark_stride,
            max_tokens,
            dtype,
            device,
        )
        self.tokens = torch.full(
            (batch, config.gate_kernel - 1), -1, device=device
        )  # -1: before the beginning
        shape = (batch, config.kv_heads, 1, config.head_dim)
        self.last_keys = [
            torch.zeros(shape, dtype=dtype, device=device)
            for _ in range(config.layers if config.previous_token else 0)
        ]

    def select(self, rows: list[int] | Tensor) -> "State":
        """A copy of the chosen rows, in this order; [0] * n gives n candidates a common prefix."""
        copy, rows = (
            object.__new__(State),
            torch.as_tensor(rows, dtype=torch.int64, device=self.tokens.device),
        )
        copy.cache, copy.tokens, copy.last_keys = (
            self.cache.select(rows),
            self.tokens[rows],
            [k[rows] for k in self.last_keys],
        )
        return copy

    def tensors(self) -> list[Tensor]:
        """All that is remembered of a row, each (B, …)."""
        cache = self.cache
        return [self.tokens, cache.lengths, *self.last_keys, *cache.keys, *cache.values]

    @staticmethod
    def join(states: list["State"]) -> "State":
        """The rows of several states of one size, in this order, as one."""
        whole = states[0].select([])
        whole.tokens, whole.cache.lengths = (
            torch.cat([s.tokens for s in states]),
            torch.cat([s.cache.lengths for s in states]),
        )
        whole.last_keys = [torch.cat(keys) for keys in zip(*(s.last_keys for s in states))]
        whole.cache.keys, whole.cache.values = (
            [torch.cat(layer) for layer in zip(*layers)]
            for layers in ([s.cache.keys for s in states], [s.cache.values for s in states])
        )
        return whole


class Attention(nn.Module):
    """Grouped-query landmark attention with rotary positions; bias on q, k and v, none on the
    output (Qwen2).
    """

    def __init__(self, config: Model):
        super().__init__()
        self.config = config
        self.q = Linear(config.width, config.heads * config.head_dim)
        self.k = Linear(config.width, config.kv_heads * config.head_dim)
        self.v = Linear(config.width, config.kv_heads * config.head_dim)
        self.o = Linear(config.heads * config.head_dim, config.width, bias=False)
        if config.previous_token:
            self.smear = nn.Parameter(torch.zeros(config.kv_heads))

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        documents: Tensor | None,
        state: State | None,
        plan: Plan | None,
        layer: int,
    ) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (
            project(x).view(B, T, -1, self.config.head_dim).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )  # (B, H or K, T, d)
        if self.config.previous_token:
            k = self.smeared(k, documents, state, plan, layer)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if state is None:
            y = landmark_attention(
                q, k, v, self.config.window, self.config.landmark_stride, documents
            )
        else:
            y = state.cache.attend(layer, q, k, v, plan)
        return self.o(y.transpose(1, 2).reshape(B, T, -1))

    def smeared(
        self,
        k: Tensor,
        documents: Tensor | None,
        state: State | None,
        plan: Plan | None,
        layer: int,
    ) -> Tensor:
        """k_t + s·(k_{t−1} − k_t) with a learnt s a head, before rotation; a document's first key
        has nothing before it.
        """
        before = (
            torch.zeros_like(k[:, :, :1]) if state is None else state.last_keys[layer].to(k.dtype)
        )
        if k.shape[2] > 1:
            row = torch.cat([before, k], 2)  # (B, K, T + 1, d)
            before = row[:, :, :-1]
        if documents is not None:
            same = documents == F.pad(documents, (1, 0), value=-1)[:, :-1]
            before = before * same[:, None, :, None]
        smeared = k + self.smear[:, None, None].to(k.dtype) * (before - k)
        if state is not None and k.shape[2] == 1:
            state.last_keys[layer].copy_(torch.where(plan.padding, before, k))
        elif state is not None:
            last = (
                (~plan.padding).sum(2, keepdim=True).expand(-1, *k.shape[1:2], -1, k.shape[3])
            )  # padding is at the right: skip it
            state.last_keys[layer].copy_(row.gather(2, last))
        return smeared


class FeedForward(nn.Module):
    """(SiLU(x W_gate) ⊙ x W_up) W_down (equation 3), or for the baseline GELU(x W_up) W_down."""

    def __init__(self, config: Model):
        super().__init__()
        self.gate = (
            Linear(config.width, config.feed_forward, bias=False)
            if config.activation == "swiglu"
            else None
        )
        self.up = Linear(config.width, config.feed_forward, bias=False)
        self.down = Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(
            F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x)
        )


class Block(nn.Module):
    def __init__(self, config: Model):
        super().__init__()
        self.attention_norm, self.attention = make_norm(config), Attention(config)
        self.feed_forward_norm, self.feed_forward = make_norm(config), FeedForward(config)

    def forward(self, x: Tensor, *where) -> Tensor:
        x = x + self.attention(self.attention_norm(x), *where)
        return x + self.feed_forward(self.feed_forward_norm(x))


class SplitEmbedding(nn.Module):
    """e_t = g_t · E_text[x_t] + (1 − g_t) · E_code[x_t]; the gate g_t ∈ (0, 1) reads the last few
    token IDs (equation 4).
    """

    def __init__(self, config: Model):
        super().__init__()
        self.text = nn.Embedding(config.vocab_size, config.width)
        self.code = nn.Embedding(config.vocab_size, config.width)
        self.ids = nn.Embedding(config.vocab_size, config.gate_width)
        self.convolution = nn.Parameter(
            torch.ones(config.gate_kernel, config.gate_width)
        )  # depthwise: one weight a place and dimension
        self.out = nn.Linear(config.gate_width, 1)

    def gate_logits(
        self, tokens: Tensor, documents: Tensor | None = None, past: Tensor | None = None
    ) -> Tensor:
        """log g/(1 − g) of tokens (B, T) → (B, T);

        `past` (B, gate_kernel − 1) holds the IDs before them, −1 for none.
        """
        kernel = len(self.convolution)
        past = tokens.new_full((len(tokens), kernel - 1), -1) if past is None else past
        ids = torch.cat([past, tokens], 1).unfold(
            1, kernel, 1
        )  # (B, T, kernel), oldest first: causal by construction
        if (
            documents is not None
        ):  # packed: a document's first tokens must not see the document before
            own = (
                F.pad(documents, (kernel - 1, 0), value=-1).unfold(1, kernel, 1)
                == documents[..., None]
            )
            ids = ids.masked_fill(~own, -1)
        seen = self.ids(ids.clamp(min=0)) * (ids >= 0)[..., None]  # (B, T, kernel, gate_width)
        return self.out(F.silu((seen * self.convolution).sum(2))).squeeze(-1)

    def forward(self, tokens: Tensor, documents: Tensor | None, past: Tensor | None) -> Tensor:
        text, code = self.text(tokens), self.code(tokens)  # (B, T, D)
        gate = torch.sigmoid(self.gate_logits(tokens, documents, past)).unsqueeze(-1)
        return code + gate.to(text.dtype) * (
            text - code
        )  # written so that text = code gives exactly text, whatever the gate


class PlainEmbedding(nn.Module):
    """One matrix, for the baseline."""

    def __init__(self, config: Model):
        super().__init__()
        self.text = nn.Embedding(config.vocab_size, config.width)

    def forward(self, tokens: Tensor, documents: Tensor | None, past: Tensor | None) -> Tensor:
        return self.text(tokens)


def note_window(model: nn.Module, tokens: int) -> None:
    """Say on stderr, once per model, where `tokens` are not read as dense weights learnt to.

    Position 0 is a landmark, so the first pair that is not seen is key 1 and query 1 + window.
    """
    if not getattr(model, "dense", False):
        return
    c = model.config
    if c.landmark_stride > 1 and tokens > c.window + 1:
        model.dense = False
        print(
            f"note: a text of {tokens} tokens exceeds landmark attention's window of {c.window}; "
            "beyond it answers are not those of the dense attention Qwen2.5 was trained with; for "
            f"dense attention set the window to the context (sample.py --window {c.context}, "
            f"elsewhere --model.window {c.context})",
            file=sys.stderr,
        )


class SAGE(nn.Module):
    """The decoder: `SAGE(config)(tokens)` maps token IDs (B, T) to next-token logits (B, T, V)."""

    dense = False  # weights of full attention (Qwen2.5's): the window changes answers

    def __init__(self, config: Model, seed: int | None = 0):
        """`seed` draws the weights;

        None leaves them as they are allocated, for a caller that fills them.
        """
        super().__init__()
        self.config = config
        self.embedding = (
            SplitEmbedding(config) if config.embedding == "split" else PlainEmbedding(config)
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = make_norm(config)
        self.head = None if config.tied else Linear(config.width, config.vocab_size, bias=False)
        if seed is not None:
            self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int, only: tuple[str, ...] = ("",)) -> None:
        """Equation 1: normal, cut at ±3σ, σ = 0.02; σ/√(2L) for the two projections that write into
        the residual stream.

        `only` names parts of parameters' names, where not all are to be drawn. Every parameter
        draws from its own generator, seeded by its name, so that a sharded model starts with the
        same weights as a whole one, and adding a part changes no other.
        """
        for name, p in self.named_parameters():
            if name == "embedding.code.weight" or not any(part in name for part in only):
                continue
            generator = torch.Generator(p.device).manual_seed(
                seed * 1_000_003 + zlib.crc32(name.encode())
            )
            if name.endswith(("norm.weight", "convolution")):
                p.fill_(1)
            elif name.endswith(
                ("bias", "smear", "embedding.out.weight")
            ):  # the gate starts undecided: ½ everywhere
                p.zero_()
            elif (
                name == "embedding.ids.weight"
            ):  # the classifier's own features; no residual stream to keep quiet
                nn.init.trunc_normal_(p, std=1.0, a=-3.0, b=3.0, generator=generator)
            else:
                std = (
                    0.02 / (2 * self.config.layers) ** 0.5
                    if name.endswith(("attention.o.weight", "feed_forward.down.weight"))
                    else 0.02
                )
                nn.init.trunc_normal_(p, std=std, a=-3 * std, b=3 * std, generator=generator)
        if self.config.embedding == "split":
            self.embedding.code.weight.copy_(
                self.embedding.text.weight
            )  # as when Qwen is loaded: training separates them

    def hidden(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Normalised hidden states (B, T, D) of token IDs (B, T).

        `documents` (B, T) tells packed sequences apart, -1 is padding: they do not see each
        other. Rows longer than the window must have been packed for this model (packing.pack). With
        a `state`, the tokens follow those it remembers, at `positions` (B, T), -1 for padding at
        the right; without positions, right behind. Raises UserError when the tokens are more than
        the model's context, and from `attention.check_documents`.
        """
        B, T = tokens.shape
        if T > self.config.context:
            raise UserError(
                f"{T} tokens are over the model's context of {self.config.context}; shorten the text or raise model.context"
            )
        if documents is not None and not torch.compiler.is_compiling():
            check_documents(documents, self.config.window, self.config.landmark_stride)
        if documents is None and not torch.compiler.is_compiling():
            note_window(self, T)
        past = None
        if positions is None:
            positions = torch.arange(T, device=tokens.device)[None] + (
                0 if state is None else state.cache.lengths[:, None]
            )  # (1 or B, T)
        if state is not None:
            past = state.tokens.clone()
            row = torch.cat([past, tokens], 1)
            count = (positions >= 0).sum(1, keepdim=True)
            state.tokens.copy_(
                row.gather(1, count + torch.arange(past.shape[1], device=tokens.device))
            )
        x = self.embedding(tokens, documents, past)
        cos, sin = rotary(positions, self.config.head_dim, self.config.rope_theta)
        plan = None if state is None else state.cache.plan(positions)
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin, documents, state, plan, layer)
        if state is not None:
            state.cache.advance(positions)
        return self.norm(x)

    @property
    def unembedding(self) -> Tensor:
        """The matrix (V, D) that maps hidden states to logits."""
        return self.embedding.text.weight if self.head is None else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, V)."""
        if self.head is not None:
            return self.head(hidden)
        weight = self.embedding.text.weight
        if (
            torch.compiler.is_compiling()
            and hidden.numel() == weight.shape[1]
            and hidden.device.type == "cpu"
            and not self.training
        ):
            return (
                (weight * written(hidden.reshape(1, -1))).sum(-1).view(*hidden.shape[:-1], -1)
            )  # as in Linear
        return F.linear(hidden, weight)

    def forward(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        return self.logits(self.hidden(tokens, documents, state, positions))


def parameters(config: Model, qwen: bool = False) -> int:
    """Parameters of a shape; with `qwen`, without SAGE's own (E_code, the gate, the smear), as
    Qwen2.5 would count them.
    """
    with torch.device("meta"):
        model = SAGE(
            replace(config, embedding="plain", previous_token=False) if qwen else config, seed=None
        )
    return sum(p.numel() for p in model.parameters())


def flops_per_token(config: Model, length: int) -> int:
    """Forward and backward floating-point operations a token: 6 a weight that multiplies and 12·H·d
    a pair of tokens and layer.

    As in PaLM's appendix B and nanoGPT, a dense sequence counts T pairs a token (the masked half is
    computed too); with landmark attention it is W + T/k.
    """
    matrices = (
        config.layers
        * (
            config.width * (2 * config.heads + 2 * config.kv_heads) * config.head_dim
            + (3 if config.activation == "swiglu" else 2) * config.width * config.feed_forward
        )
        + config.width * config.vocab_size
    )
    pairs = min(length, config.window + length / config.landmark_stride)
    return int(6 * matrices + 12 * config.layers * config.heads * config.head_dim * pairs)


if __name__ == "__main__":
    print(
        "size    D      L   H   K    d     F       V    head    Qwen's parameters   with SAGE's own   GFLOP/token at 4096"
    )
    for name, size in {"toy": Model(previous_token=True), **SIZES}.items():
        print(
            f"{name:5} {size.width:5} {size.layers:4} {size.heads:4} {size.kv_heads:3} {size.head_dim:4} {size.feed_forward:6} {size.vocab_size:7} "
            f"{'tied' if size.tied else 'own':>6}  {parameters(size, qwen=True):>18,} {parameters(size):>17,} {flops_per_token(size, 4096) / 1e9:>12.3f}"
        )
