"""The SAGE decoder (paper §2): Qwen2.5's block, with landmark attention and the split embedding.

What differs from the textbook decoder:
- split embedding (equation 4): two matrices, one for prose and one for code, mixed by a small
  classifier that reads the last four token IDs
- landmark attention (§2.3, attention.py): the last W tokens and every k-th before them; for T ≤ W
  ordinary causal attention
- depth-scaled initialisation (equation 1): projections into the residual stream start smaller the
  deeper the model
- optionally smeared keys: each key leans on the one before it, so that "what followed this token
  last time" takes one layer, not two
- optionally experts for each feed-forward (A.3, moe.py)

For T ≤ W, with E_code = E_text and keys unsmeared, it *is* Qwen2.5 (tests/test_pretrained.py);
`family` makes it Qwen3, Llama or Mistral (tests/test_families.py). The model has no code for
devices, ranks or training. Shapes: B batch, T tokens, D width, H query heads, K key-value heads,
d head width, F feed-forward width, V vocabulary.

    python model.py     Qwen2.5's sizes, and what they cost
"""

import math
import zlib
from collections.abc import Iterator
from copy import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import LandmarkCache, StepPlan, landmark_attention
from config import Model
from fast.compiling import product_dtype
from fast.forked_cache import forked, pruned, with_common_pasts
from fast.shared_pasts import SharedPasts
from moe import Experts
from support.model_checks import check_tokens


class RMSNorm(nn.Module):
    """x · (mean(x²) + ε)^(-1/2) ⊙ g in float32 (equation 2)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def make_norm(config: Model) -> nn.Module:
    """Equation 2's norm, or GPT-2's for the baseline."""
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, config.norm_eps)


def rotary_frequencies(config: Model, device: torch.device) -> Tensor:
    """Radians per token of each pair, (d/2,): θ^(−2i/d), long wavelengths stretched by
    `rope_factor` where a model was pretrained on shorter texts (Llama 3.1, YaRN).
    """
    d = config.head_dim
    exponents = torch.arange(0, d, 2, device=device).float() / d  # (d/2,)
    frequencies = config.rope_theta**-exponents
    if config.rope_scaling == "none":
        return frequencies

    # kept 1: the frequency stays; 0: it is divided by rope_factor; linear in between. Llama 3 goes
    # by the turns that a pair makes within the context of pretraining, YaRN by the pair's number
    if config.rope_scaling == "llama3":
        turns = config.rope_context * frequencies / (2 * math.pi)
        kept = (turns - config.rope_low) / (config.rope_high - config.rope_low)
    else:
        scale = d / (2 * math.log(config.rope_theta))
        radians = config.rope_context / (2 * math.pi)
        fast_pair = max(math.floor(scale * math.log(radians / config.rope_high)), 0)
        slow_pair = min(math.ceil(scale * math.log(radians / config.rope_low)), d - 1)
        slow_pair = max(slow_pair, fast_pair + 0.001)
        pair = torch.arange(d // 2, device=device)
        kept = (slow_pair - pair) / (slow_pair - fast_pair)
    kept = kept.clamp(0, 1)
    return frequencies * (kept + (1 - kept) / config.rope_factor)


def rotary(positions: Tensor, config: Model) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles at positions (B, T), float32 (B, 1, T, d).

    The same angle stands at i and i + d/2, as in Qwen2; sin is negated in its first half.
    """
    frequencies = rotary_frequencies(config, positions.device)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, d/2)
    cos = angles.cos()
    sin = angles.sin()
    if config.rope_gain != 1.0:
        cos = cos * config.rope_gain
        sin = sin * config.rope_gain
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+d/2}) of x (B, heads, T, d) by its position's angle."""
    left, right = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([right, left], -1) * sin.to(x.dtype)


class State:
    """What cached decoding carries from step to step: keys and values, each row's last token IDs
    (for the split embedding), and each layer's newest key (where keys are smeared).
    """

    def __init__(
        self,
        config: Model,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device="cpu",
    ):
        self.cache = LandmarkCache(config, batch, max_tokens, dtype, device)
        # −1: before the beginning
        self.tokens = torch.full((batch, config.prose_kernel - 1), -1, device=device)
        # of each layer, where keys are smeared: the newest key before smearing and rotation
        smeared_layers = config.layers if config.previous_token else 0
        shape = (batch, config.kv_heads, 1, config.head_dim)
        self.last_keys = [
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(smeared_layers)
        ]

    def push(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Remember each row's newest IDs, prose_kernel − 1 of them, up to the end of these tokens
        (B, T); returns those before them, which the split embedding's convolution reads.
        """
        before = self.tokens.clone()
        row = torch.cat([before, tokens], 1)
        count = (positions >= 0).sum(1, keepdim=True)  # padding is at the right
        last = count + torch.arange(before.shape[1], device=tokens.device)
        self.tokens.copy_(row.gather(1, last))
        return before

    def tensors(self) -> list[Tensor]:
        """All that is remembered of a row, each (B, …)."""
        return [self.tokens, *self.last_keys, *self.cache.tensors()]

    def use(self, tensors: list[Tensor]) -> None:
        """Replace all that is remembered by `tensors`, in the order of `tensors()`."""
        layers = len(self.last_keys)
        self.tokens = tensors[0]
        self.last_keys = tensors[1 : 1 + layers]
        self.cache.use(tensors[1 + layers :])

    def holding(self, tensors: list[Tensor]) -> "State":
        """A state like this one that holds these tensors instead, in the order of `tensors()`."""
        other = copy(self)
        other.cache = copy(self.cache)
        other.use(tensors)
        return other

    def select(self, rows: list[int] | Tensor) -> "State":
        """A copy of the chosen rows, in this order; [0] * n gives n candidates a common prefix."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.tokens.device)
        # four times as fast as x[rows]
        return self.holding([x.index_select(0, rows) for x in self.tensors()])

    @staticmethod
    def join(states: list["State"]) -> "State":
        """The rows of several states of one size, in this order, as one."""
        caches = with_common_pasts([state.cache for state in states])
        states = [state.with_cache(cache) for state, cache in zip(states, caches)]
        parts = zip(*(state.tensors() for state in states))
        return states[0].holding([torch.cat(rows) for rows in parts])

    def forked(self) -> "State":
        """The same; rows selected from it keep once what their row has read so far, where that is
        possible (fast/forked_cache.py).
        """
        cache = forked(self.cache)
        if cache is self.cache:
            return self
        other = self.with_cache(cache)
        other.tokens = self.tokens.clone()
        other.last_keys = [key.clone() for key in self.last_keys]
        return other

    def pruned(self) -> "State":
        """The same, without the pasts that no row has any more."""
        return self.with_cache(pruned(self.cache))

    def with_cache(self, cache: LandmarkCache) -> "State":
        other = copy(self)
        other.cache = cache
        return other


def positions_of(x: Tensor, state: State | None) -> Tensor:
    """Positions of x (B, T, …): 0, 1, … (1, T), or right behind what `state` holds (B, T)."""
    positions = torch.arange(x.shape[1], device=x.device)[None]
    return positions if state is None else positions + state.cache.lengths[:, None]


class Attention(nn.Module):
    """Grouped-query landmark attention with rotary positions. On q, k and v a bias (Qwen2), or a
    norm of each query and key (Qwen3), or neither (Llama); no bias on the output.
    """

    def __init__(self, config: Model, layer: int):
        super().__init__()
        self.config = config
        self.layer = layer  # whose keys and values in the cache are its own
        biased = config.family == "qwen2"
        self.q = nn.Linear(config.width, config.heads * config.head_dim, bias=biased)
        self.k = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=biased)
        self.v = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=biased)
        self.q_norm = None
        self.k_norm = None
        if config.family == "qwen3":
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.o = nn.Linear(config.heads * config.head_dim, config.width, bias=False)
        self.smear = nn.Parameter(torch.zeros(config.kv_heads)) if config.previous_token else None

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        documents: Tensor | None = None,
        state: State | None = None,
        plan: StepPlan | None = None,
        *,
        shared: SharedPasts | None = None,
    ) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        if shared is not None:  # x has each distinct past once; attention needs every place
            q, k, v = map(shared.everywhere, (q, k, v))
        B, T, _ = q.shape
        d = self.config.head_dim
        q = q.view(B, T, -1, d).transpose(1, 2)  # (B, H, T, d)
        k = k.view(B, T, -1, d).transpose(1, 2)  # (B, K, T, d)
        v = v.view(B, T, -1, d).transpose(1, 2)  # (B, K, T, d)
        if self.q_norm is not None:  # in the gains' dtype: products may be bfloat16
            q = self.q_norm(q.to(self.q_norm.weight.dtype)).to(v.dtype)
            k = self.k_norm(k.to(self.k_norm.weight.dtype)).to(v.dtype)
        if self.smear is not None:
            k = self.smeared(k, documents, state, plan)
        q, k = rotate(q, *rotation), rotate(k, *rotation)
        if state is None:
            stride = self.config.strides[self.layer]  # one landmark every so many tokens
            y = landmark_attention(q, k, v, self.config.window, stride, documents=documents)
        else:
            y = state.cache.attend(self.layer, q, k, v, plan)
        y = y.transpose(1, 2).reshape(B, T, -1)
        return self.o(y if shared is None else shared.once(y))

    def smeared(
        self,
        k: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        plan: StepPlan | None = None,
    ) -> Tensor:
        """k_t + s · (k_{t−1} − k_t) of keys (B, K, T, d) before rotation, with one learnt scalar s
        per head; k_{t−1} is 0 where t begins a document.
        """
        if state is None:
            newest = torch.zeros_like(k[:, :, :1])
        else:
            newest = state.last_keys[self.layer].to(k.dtype)  # (B, K, 1, d)
        row = torch.cat([newest, k], 2)  # (B, K, T + 1, d)
        before = row[:, :, :-1]
        if documents is not None:
            same = documents == F.pad(documents, (1, 0), value=-1)[:, :-1]  # (B, T)
            before = before * same[:, None, :, None]
        if state is not None:
            count = (~plan.padding).sum(2, keepdim=True)  # (B, 1, 1, 1), padding is at the right
            state.last_keys[self.layer].copy_(row.gather(2, count.expand_as(newest)))
        return k + self.smear[:, None, None].to(k.dtype) * (before - k)


class FeedForward(nn.Module):
    """SwiGLU, (SiLU(x W_gate) ⊙ x W_up) W_down (equation 3), or for the baseline
    GELU(x W_up) W_down.
    """

    def __init__(self, config: Model):
        super().__init__()
        self.gate = None
        if config.activation == "swiglu":
            self.gate = nn.Linear(config.width, config.feed_forward, bias=False)
        self.up = nn.Linear(config.width, config.feed_forward, bias=False)
        self.down = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(F.gelu(self.up(x)))
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), over x (B, T, D).

    `rotation` is cos and sin of the tokens' positions (`rotary`), `documents` (B, T) tells packed
    sequences apart, `state` and `plan` are there in cached decoding (`LandmarkCache.plan`). With
    `shared`, x (1, U, D) are the tokens of distinct pasts; rotation and documents are those of all
    places (B, T).
    """

    def __init__(self, config: Model, layer: int):
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = make_norm(config)
        if config.experts:
            experts = (FeedForward(config) for _ in range(config.experts))
            self.feed_forward = Experts(config, experts)
        else:
            self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        documents: Tensor | None = None,
        state: State | None = None,
        plan: StepPlan | None = None,
        *,
        shared: SharedPasts | None = None,
    ) -> Tensor:
        x = x + self.attention(
            self.attention_norm(x), rotation, documents, state, plan, shared=shared
        )
        return x + self.feed_forward(self.feed_forward_norm(x))


class SplitEmbedding(nn.Module):
    """e_t = g_t · E_text[x_t] + (1 − g_t) · E_code[x_t]; g_t ∈ (0, 1), how much of the text at t is
    prose, is read from the last few token IDs (equation 4).
    """

    def __init__(self, config: Model):
        super().__init__()
        self.text = nn.Embedding(config.vocab_size, config.width)
        self.code = nn.Embedding(config.vocab_size, config.width)
        self.ids = nn.Embedding(config.vocab_size, config.prose_width)
        # depthwise: one weight per place and dimension
        self.convolution = nn.Parameter(torch.ones(config.prose_kernel, config.prose_width))
        self.out = nn.Linear(config.prose_width, 1)

    def prose_logits(
        self, tokens: Tensor, documents: Tensor | None = None, before: Tensor | None = None
    ) -> Tensor:
        """log g/(1 − g) of tokens (B, T) → (B, T).

        `before` (B, prose_kernel − 1) holds the IDs before them, −1 for none.
        """
        kernel = len(self.convolution)
        if before is None:
            before = tokens.new_full((len(tokens), kernel - 1), -1)
        # (B, T, kernel), oldest first: causal by construction
        ids = torch.cat([before, tokens], 1).unfold(1, kernel, 1)
        if documents is not None:  # what comes before a packed document is not its own
            whose = F.pad(documents, (kernel - 1, 0), value=-1).unfold(1, kernel, 1)
            ids = ids.masked_fill(whose != documents[..., None], -1)
        features = self.ids(ids.clamp(min=0)) * (ids >= 0)[..., None]  # (B, T, kernel, prose_width)
        return self.out(F.silu((features * self.convolution).sum(2))).squeeze(-1)

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, before: Tensor | None = None
    ) -> Tensor:
        text, code = self.text(tokens), self.code(tokens)  # (B, T, D)
        g = torch.sigmoid(self.prose_logits(tokens, documents, before)).unsqueeze(-1)  # (B, T, 1)
        # text = code gives exactly text, whatever g is
        return torch.lerp(code, text, g.to(text.dtype))


class PlainEmbedding(nn.Module):
    """One matrix, for the baseline."""

    def __init__(self, config: Model):
        super().__init__()
        self.text = nn.Embedding(config.vocab_size, config.width)

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, before: Tensor | None = None
    ) -> Tensor:
        return self.text(tokens)


class SAGE(nn.Module):
    """The decoder: `SAGE(config)(tokens)` maps token IDs (B, T) to next-token logits (B, T, V)."""

    dense = False  # True for weights of full attention (Qwen2.5's), whose answers a window changes

    def __init__(self, config: Model, seed: int | None = 0):
        """`seed` draws the weights; None leaves them as they are allocated, for a caller that fills
        them.
        """
        super().__init__()
        self.config = config
        split = config.embedding == "split"
        self.embedding = SplitEmbedding(config) if split else PlainEmbedding(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = make_norm(config)
        self.head = None
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if seed is not None:
            self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw every parameter; E_code then begins as a copy of E_text."""
        for p, values in self.initial_values(seed):
            p.copy_(values)
        if self.config.embedding == "split":
            # as when Qwen is loaded: training separates them
            self.embedding.code.weight.copy_(self.embedding.text.weight)

    def initial_values(
        self, seed: int, only: tuple[str, ...] = ("",)
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Equation 1: normal, cut at ±3σ, σ = 0.02; σ/√(2L) for the two projections that write into
        the residual stream.

        Yields each parameter but E_code with its values, if its name contains one of `only` (each
        contains ""). Each draws from its own generator, seeded by its name, so that a sharded model
        starts with the same weights as a whole one, and adding a part changes no other.
        """
        into_residual = ("attention.o.weight", ".down.weight")
        for name, p in self.named_parameters():
            if name == "embedding.code.weight" or not any(part in name for part in only):
                continue
            values = torch.empty(p.shape, dtype=p.dtype, device=p.device)
            std = 0.02
            if name.endswith(into_residual):
                std = 0.02 / (2 * self.config.layers) ** 0.5
            elif name == "embedding.ids.weight":
                std = 1.0  # the classifier's own features: no residual stream to keep quiet
            if name.endswith(("norm.weight", "convolution")):
                values.fill_(1)
            elif name.endswith(("bias", "smear", "embedding.out.weight")):
                values.zero_()  # the smear is off; the mixture is undecided, ½ everywhere
            else:
                name_seed = seed * 1_000_003 + zlib.crc32(name.encode())
                generator = torch.Generator(p.device).manual_seed(name_seed)
                nn.init.trunc_normal_(values, std=std, a=-3 * std, b=3 * std, generator=generator)
            yield p, values

    def hidden(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        positions: Tensor | None = None,
        shared: SharedPasts | None = None,
    ) -> Tensor:
        """Normalised hidden states (B, T, D) of token IDs (B, T).

        `documents` (B, T) tells packed sequences apart, -1 is padding: they do not see each other.
        Rows longer than the window must have been packed for this model (support/packing.py). With
        a `state`, the tokens follow those it holds, at `positions` (B, T), -1 for padding at the
        right; without positions, right behind. `shared` (fast/shared_pasts.py) spares the tokens
        that have the same past. Raises UserError from `check_tokens`.
        """
        check_tokens(self, tokens, documents)
        if positions is None:
            positions = positions_of(tokens, state)
        before = plan = None
        if state is not None:
            before = state.push(tokens, positions)
            plan = state.cache.plan(positions)
        x = self.embedding(tokens, documents, before)
        dtype = product_dtype(x)  # as every layer wants them
        cos, sin = rotary(positions, self.config)
        rotation = cos.to(dtype), sin.to(dtype)
        if shared is not None:
            x = shared.once(x)
        for block in self.blocks:
            x = block(x, rotation, documents, state, plan, shared=shared)
        if state is not None:
            state.cache.advance(positions)
        x = self.norm(x)
        return x if shared is None else shared.everywhere(x)

    @property
    def unembedding(self) -> Tensor:
        """The matrix (V, D) that maps hidden states to logits."""
        return self.embedding.text.weight if self.head is None else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, V)."""
        return F.linear(hidden, self.unembedding)

    def forward(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        return self.logits(self.hidden(tokens, documents, state, positions))


def parameters(config: Model, qwen: bool = False) -> int:
    """Parameters of a shape; with `qwen`, without SAGE's own (E_code, its classifier, the smear),
    as Qwen2.5 would count them.
    """
    if qwen:
        config = replace(config, embedding="plain", previous_token=False)
    with torch.device("meta"):
        model = SAGE(config, seed=None)
    return sum(p.numel() for p in model.parameters())


def flops_per_token(
    config: Model, length: int, *, trained_blocks: int = 0, taught: float = 1.0
) -> int:
    """Forward and backward floating-point operations per token: 6 per multiplying weight, and
    12·H·d per pair of tokens and layer.

    As in PaLM's appendix B and nanoGPT, a dense sequence counts T pairs per token (the masked half
    is computed too); landmark attention counts W + T/k. Where only the last `trained_blocks` learn,
    those below only go forward, a third of the cost, and the output matrix (V, D), here `table`,
    gets no gradient, two thirds. Logits are computed for a share `taught` of the tokens.
    """
    attention = config.width * (2 * config.heads + 2 * config.kv_heads) * config.head_dim
    matrices = 3 if config.activation == "swiglu" else 2
    feed_forward = matrices * config.width * config.feed_forward
    if config.experts:  # those that a token takes, and the router
        feed_forward = config.experts_per_token * feed_forward + config.width * config.experts
    block = attention + feed_forward
    table = 6 * config.width * config.vocab_size * taught
    if trained_blocks:
        table *= 2 / 3
    total = table
    for layer, stride in enumerate(config.strides):
        pairs = min(length, config.window + length / stride)
        cost = 6 * block + 12 * config.heads * config.head_dim * pairs
        frozen = trained_blocks and layer < config.layers - trained_blocks
        total += cost / 3 if frozen else cost
    return int(total)


if __name__ == "__main__":
    from support.qwen_sizes import SIZES

    print("size    D      L   H   K    d     F       V    head    Qwen's parameters   ", end="")
    print("with SAGE's own   GFLOP/token at 4096")
    for name, c in {"toy": Model(previous_token=True), **SIZES}.items():
        print(
            f"{name:5} {c.width:5} {c.layers:4} {c.heads:4} {c.kv_heads:3} {c.head_dim:4} "
            f"{c.feed_forward:6} {c.vocab_size:7} {'tied' if c.tied else 'own':>6}  "
            f"{parameters(c, qwen=True):>18,} {parameters(c):>17,} "
            f"{flops_per_token(c, 4096) / 1e9:>12.3f}"
        )
