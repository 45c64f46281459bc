"""The heads of inverse reasoning: confidence, inverse consistency, and the gate between thinking
fast and slow (paper §4.2, §5; equations 6, 7, 13), with the loss of the first and the gate's fit.

    c = σ(W_meta · m_t + b)                        equation 6: confidence in a step, in named parts
    γ = σ(w · [h_t ; H(p_t)] + b)                  equation 7: whether to think about it again
    ICS(C, Z, Y) = (1/|C|) Σ log P_φ(C_i | Z, Y)   equation 13: how well the task's constraints can
                                                   be told again from plan and conclusion

h_t is the decoder's hidden state at the step's last token, m_t that of an extra block after it, H
the entropy of a next-token distribution p (the gate gets the largest of the step's). C are the
task's constraints, Z and Y the agent's plan and conclusion.

What differs from a verifier or a reward model as one usually builds it:
- no second network: two heads are one extra block each over the decoder's hidden states, the gate
  is linear; only the inverse head needs another pass of the decoder, or, where one block is too
  little to tell a word problem again, a decoder of its own (`own_decoder`)
- the decoder is only read: attaching heads changes no next-token logit, to the bit
- outputs start at zero: untrained, confidences are ½, and the inverse head is the decoder itself
- the inverse head cannot cheat: the problem is not in its sequence at all, so nothing of it can
  leak into P_φ (a gradient test says so)

A step is one message of the agent, up to its <|im_end|>, where confidences and gate are read. Z and
Y together are the agent's own words of an episode, without the request and without what tools said.
Shapes as in model.py; N steps or conclusions. There is no training loop and no tokenizer here.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import Model
from fast.shared_pasts import SharedPasts
from generate import pad
from losses import IGNORE, token_log_probs
from model import SAGE, Block, State, positions_of, rotary
from parallel import unsharded
from worlds.labels import PARTS


class ExtraBlock(nn.Module):
    """One more of the decoder's blocks, with its own norms and its own cache, over the decoder's
    final hidden states.
    """

    def __init__(self, config: Model):
        super().__init__()
        # it stands on the decoder's last layer, and has its landmarks
        self.config = replace(config, layers=1, landmark_stride=config.strides[-1])
        self.block = Block(self.config, layer=0)

    def new_state(self, batch: int, max_tokens: int, device="cpu") -> State:
        """An empty cache for `batch` rows of at most `max_tokens` tokens."""
        return State(self.config, batch, max_tokens, torch.float32, device)

    def transform(
        self,
        hidden: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """The block over hidden states (B, T, D) of `SAGE.hidden` → (B, T, D), float32; documents,
        state and positions as there.
        """
        if positions is None:
            positions = positions_of(hidden, state)
        plan = None if state is None else state.cache.plan(positions)
        rotation = rotary(positions, self.config)
        x = self.block(hidden.float(), rotation, documents, state, plan)
        if state is not None:
            state.cache.advance(positions)
        return x


# --------------------------------------------------------------------------------------------------
# Confidence (equation 6)


@torch.no_grad()
def surprise_of(model: SAGE, tokens: Tensor, hidden: Tensor, action_mask: Tensor) -> Tensor:
    """How surprising each token was when it was sampled, (B, T, 2): its log-probability and the
    entropy of the distribution it came from, in nats at temperature 1.

    tokens (B, T), the decoder's hidden states (B, T, D) of them, `action_mask` (B, T) which of them
    the agent wrote; 0, 0 for all others and for the first. In decoding the sampler has computed
    both already.
    """
    targets = torch.where(action_mask[:, 1:], tokens[:, 1:], IGNORE)
    surprise = torch.stack(token_log_probs(hidden[:, :-1], model.unembedding, targets), -1)
    return F.pad(surprise, (0, 0, 1, 0))  # (B, T, 2): the first token has none


class MetaCognitiveHead(ExtraBlock):
    """Equation 6: c = σ(W_meta · m_t + b), m_t the extra block's output, read at the last token of
    a step.

    The block's input is each hidden state and how surprising the agent's own token was. A hidden
    state predicts what comes next, but hardly says how likely the token was that has just been
    written, and one block cannot work that out (on the toy, AUROC of logic on hard negatives is
    0.80 without these two numbers, 1.00 with them).
    """

    def __init__(self, config: Model):
        super().__init__(config)
        self.surprise = nn.Linear(2, config.width, bias=False)
        self.out = nn.Linear(config.width, len(PARTS))
        # set by calibration; parameters without a gradient, so that they are saved with the weights
        self.temperature = nn.Parameter(torch.ones(len(PARTS)), requires_grad=False)
        self.offset = nn.Parameter(torch.zeros(len(PARTS)), requires_grad=False)

    def block_inputs(self, hidden: Tensor, surprise: Tensor) -> Tensor:
        """What the block reads (B, T, D): hidden states (B, T, D) and `surprise` (B, T, 2) as
        `surprise_of` has it.
        """
        return hidden.float() + self.surprise(surprise)

    def forward(
        self,
        hidden: Tensor,
        surprise: Tensor,
        documents: Tensor | None = None,
        state: State | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, parts) in the order of PARTS."""
        inputs = self.block_inputs(hidden, surprise)
        return self.out(self.transform(inputs, documents, state, positions))

    def confidence(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities (…, parts) of logits (…, parts): σ(z / temperature + offset)."""
        return torch.sigmoid(logits / self.temperature + self.offset)


def confidence_loss(logits: Tensor, labels: Tensor, count: int | None = None) -> Tensor:
    """Mean over known labels of −[y·log c + (1 − y)·log(1 − c)], c = σ(z), of logits z and labels y
    (…, parts), NaN where a label is missing. The sum is divided by `count`, where it is given: the
    known labels of a batch of which these are a part.

    Each part is one Bernoulli's likelihood, so the loss is least where c is the part's probability.
    ∂/∂z = (c − y)/known: a missing label's gradient is exactly zero, and 0 is the loss where
    nothing is known.
    """
    known = ~labels.isnan()
    targets = labels.nan_to_num().float()
    each = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    total = each.masked_fill(~known, 0).sum()
    return total / (known.sum().clamp(min=1) if count is None else max(count, 1))


def fit_logistic(features: Tensor, labels: Tensor, ridge: float = 1.0) -> tuple[Tensor, Tensor]:
    """w (F,) and b of the σ(w·x + b) that makes labels (N,) in [0, 1] likeliest from features
    (N, F), with ½·ridge·|w|² against it.

    Convex, so there is one answer and nothing to tune; found by L-BFGS in float64.
    """
    x, y = features.double(), labels.double()
    w = x.new_zeros(x.shape[1]).requires_grad_()
    b = x.new_zeros(()).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [w, b],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        misfit = F.binary_cross_entropy_with_logits(x @ w + b, y, reduction="sum")
        total = (misfit + 0.5 * ridge * w.square().sum()) / len(y)
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return w.detach().to(features.dtype), b.detach().to(features.dtype)


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Temperature and offset for σ(z/temperature + offset) from logits and labels (N,) that
    training has not seen (Platt 1999).

    Logistic regression on the one feature z. Platt's targets (n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2) keep
    the slope finite where a head makes no mistake. A head that orders its steps the wrong way round
    gets an infinite temperature: its confidence is the base rate. (1, 0) where a class is absent.
    """
    positive = labels.sum()
    negative = len(labels) - positive
    if not positive or not negative:
        return 1.0, 0.0
    targets = torch.where(labels > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    slope, offset = fit_logistic(logits[:, None], targets, ridge=0.0)
    if slope <= 0:
        return float("inf"), torch.logit(targets.mean()).item()
    return 1 / slope.item(), offset.item()


# --------------------------------------------------------------------------------------------------
# Inverse consistency (equation 13); its loss is the cross-entropy of the constraints


class InverseConsistencyHead(ExtraBlock):
    """Equation 13's P_φ(C_i | Z, Y): the decoder reads plan and conclusion and then a constraint's
    text, one extra block corrects its hidden states, and its unembedding gives the probability of
    each of the constraint's tokens.

    With `own_decoder` another decoder of the same shape reads them, which begins as a copy of the
    judged one (`begin_as`) and whose blocks learn with the extra one.
    """

    def __init__(self, config: Model, own_decoder: bool = False):
        super().__init__(config)
        self.decoder = None
        if own_decoder:
            self.decoder = SAGE(config).requires_grad_(False)
            self.decoder.blocks.requires_grad_(True)

    @torch.no_grad()
    def begin_as(self, model: SAGE) -> None:
        """Make its own decoder, if it has one, a copy of `model`."""
        if self.decoder is not None:
            for copy, p in zip(self.decoder.parameters(), model.parameters(), strict=True):
                copy.copy_(unsharded(p))

    def forward(
        self,
        model: SAGE,
        tokens: Tensor,
        documents: Tensor | None = None,
        states: tuple[State | None, State | None] = (None, None),
        positions: Tensor | None = None,
        *,
        shared: SharedPasts | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) for `model.logits`, of tokens (B, T): conclusions, each followed
        by a constraint. `states` are the reading decoder's and the block's; `shared` spares the
        decoder what is read twice (fast/shared_pasts.py).
        """
        decoder_state, block_state = states
        reader = model if self.decoder is None else self.decoder
        hidden = reader.hidden(tokens, documents, decoder_state, positions, shared=shared)
        return self.transform(hidden, documents, block_state, positions).to(hidden.dtype)

    @torch.no_grad()
    def scores(
        self, model: SAGE, conclusions: list[list[int]], constraints: list[list[list[int]]]
    ) -> tuple[list[float], list[float]]:
        """ICS of each conclusion, and its prior: the same given nothing but the conclusion's last
        token. In nats, ≤ 0.

        Mean over a conclusion's constraints of the *sum* of log P_φ over the constraint's tokens; 0
        where there are no constraints. ICS − prior is the gain that is the conclusion's own doing:
        what is likely anyway scores 0. Conclusions and constraints are token IDs, none empty, each
        with the same last token (<|im_end|>), which ends a text: alone it is the empty conclusion.
        """
        nothing = tuple(conclusions[0][-1:])  # <|im_end|> alone: the empty conclusion
        given = [tuple(words) for words in conclusions]
        asked = [[tuple(text) for text in some] for some in constraints]
        # each pair once: samples of one task have much in common
        pairs = dict.fromkeys(
            (words, text)
            for own, some in zip(given, asked, strict=True)
            for text in some
            for words in (own, nothing)
        )
        if not pairs:
            return [0.0] * len(given), [0.0] * len(given)
        distinct = dict.fromkeys(words for words, _ in pairs)
        row_of = {words: row for row, words in enumerate(distinct)}
        rows = [row_of[words] for words, _ in pairs]
        texts = [list(text) for _, text in pairs]
        each = self.log_probs(model, [list(words) for words in distinct], rows, texts)
        log_p = dict(zip(pairs, each, strict=True))

        def mean(words: tuple[int, ...], some: list[tuple[int, ...]]) -> float:
            return sum(log_p[words, text] for text in some) / max(len(some), 1)

        ics = [mean(words, some) for words, some in zip(given, asked)]
        return ics, [mean(nothing, some) for some in asked]

    def log_probs(
        self,
        model: SAGE,
        conclusions: list[list[int]],
        rows: Sequence[int],
        constraints: list[list[int]],
    ) -> list[float]:
        """log P_φ(constraints[i] | conclusions[rows[i]]).

        Each conclusion is read once; its constraints continue from its cache.
        """
        weight = next(model.parameters())
        device = weight.device
        N, longest = len(conclusions), max(map(len, conclusions)) + max(map(len, constraints))
        decoder_state = State(model.config, N, longest, weight.dtype, device)
        block_state = self.new_state(N, longest, device)

        tokens, positions = pad(conclusions, device)  # (N, T) each
        lengths = (positions >= 0).sum(1)  # (N,)
        hidden = self(model, tokens, None, (decoder_state, block_state), positions)
        last = hidden[torch.arange(N, device=device), lengths - 1]  # (N, D)

        index = torch.tensor(rows, device=device)
        states = decoder_state.forked().select(index), block_state.forked().select(index)
        tokens, positions = pad(constraints, device, lengths[index])  # (M, T) each
        hidden = self(model, tokens, None, states, positions)  # (M, T, D)
        # a constraint's first token is predicted from the conclusion's last hidden state
        before = torch.cat([last[index, None], hidden[:, :-1]], 1)
        targets = tokens.masked_fill(positions < 0, IGNORE)
        log_p, _ = token_log_probs(before, model.unembedding, targets)  # (M, T)
        return log_p.sum(1).tolist()


def closed(words: list[int], end: int) -> list[int]:
    """An agent's words as the inverse head reads them: with <|im_end|>, the token `end`, last."""
    return words if words[-1:] == [end] else [*words, end]


def constraint_texts(constraints: dict, request: str) -> list[str]:
    """C as the inverse head is asked for it: "rana 17", "goal pita", for each of a task's
    constraints (worlds.base.Task.constraints); where none is left, the request's sentences.

    Only those whose value stands in the request: that rana is missing or that a request is unsafe
    would give the answer away. True and False are written as true and false.
    """
    texts = []
    for name, value in constraints.items():
        value = str(value).lower() if isinstance(value, bool) else str(value)
        if re.search(rf"(?<!\w){re.escape(value.lower())}(?!\w)", request.lower()):
            texts.append(f"{name} {value}")
    sentences = re.split(r"(?<=[.?!])\s+", request.strip())
    return texts or [sentence for sentence in sentences if sentence]


# --------------------------------------------------------------------------------------------------
# The gate between fast and slow (equation 7). It is fitted by `fit_logistic`.


class ThinkingGate(nn.Module):
    """Equation 7: γ = σ(w · [h_t ; H(p_t)] + b), from what the fast pass leaves behind: no further
    forward pass.
    """

    def __init__(self, config: Model):
        super().__init__()
        self.out = nn.Linear(config.width + 1, 1)

    def forward(self, hidden: Tensor, entropy: Tensor) -> Tensor:
        """Logits (N,) of "the head would reject this step" (heads.py, `doubted`), from the
        decoder's hidden state (N, D) at the step's last token and `entropy` (N,).

        `entropy` is the *largest* entropy in nats of the distributions from which the step's tokens
        were drawn (temperature 1): one uncertain name among thirty certain tokens is what goes
        wrong, and a mean would drown it.
        """
        return self.out(torch.cat([hidden.float(), entropy.float()[:, None]], -1)).squeeze(-1)


class ThinkingHeads(nn.ModuleDict):
    """All three: heads["meta"], heads["inverse"], heads["gate"].

    `tau` is the gate's threshold (Reasoning Mode iff γ > τ), `trained` is 0 until heads.py has
    trained them. `own_decoder`: the inverse head's.
    """

    @torch.no_grad()
    def __init__(self, config: Model, seed: int = 0, own_decoder: bool = False):
        super().__init__(
            dict(
                meta=MetaCognitiveHead(config),
                inverse=InverseConsistencyHead(config, own_decoder),
                gate=ThinkingGate(config),
            )
        )
        self.tau = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.trained = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        zero = ("out.weight", "attention.o.weight", ".down.weight", "bias")
        for name, p in self.named_parameters():
            if name.startswith("inverse.decoder."):
                continue  # becomes a copy (begin_as)
            if name.endswith(zero):
                p.zero_()
            elif p.ndim == 2:
                # two surprises must count beside the many dimensions of a hidden state
                std = 0.5 if "surprise" in name else 0.02
                name_seed = seed * 1_000_003 + zlib.crc32(name.encode())
                generator = torch.Generator().manual_seed(name_seed)
                nn.init.trunc_normal_(p, std=std, a=-3 * std, b=3 * std, generator=generator)
