"""The heads of inverse reasoning: confidence, inverse consistency, and the gate between thinking
fast and slow (paper §4.2, §5; equations 6, 7, 13).

    c = σ(W_meta · m_t + b)                            equation 6: how sure a step is, in four named parts
    γ = σ(w · [h_t ; H(p_t)])                          equation 7: whether the step deserves a second thought, at no cost
    ICS(C, Z, Y) = (1/|C|) Σ log P_φ(C_i | Z, Y)       equation 13: how well plan and conclusion let the task's constraints be told again

What differs from a verifier or a reward model as one usually builds it:
- no second network: each head is one extra block over the decoder's final hidden states, which were
  computed anyway
- the decoder is only read: attaching heads changes no next-token logit, to the bit
- the block's projections into the residual stream start at zero: untrained, the confidences are ½
  and the inverse head is the decoder itself
- the inverse head cannot cheat: the problem is not in its sequence at all, so nothing of it can
  leak into P_φ (a gradient test says so)

A step is one message of the agent, up to its <|im_end|>, where confidences and gate are read. Z and
Y together are the agent's own words of an episode, without the request and without what tools said.
Shapes as in model.py; N steps or conclusions. Nothing here knows of training or of tokenizers.
"""

import re
import zlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from config import Model
from losses import IGNORE, token_log_probs
from model import SAGE, Block, State, rotary
from worlds.labels import PARTS


class ExtraBlock(nn.Module):
    """One more of the decoder's blocks, with its own norms and its own cache, over the decoder's
    final hidden states.
    """

    def __init__(self, config: Model):
        super().__init__()
        self.config = replace(config, layers=1)
        self.block = Block(self.config, layer=0)

    def new_state(self, batch: int, max_tokens: int, device="cpu") -> State:
        """An empty cache for `batch` rows of at most `max_tokens`;

        `.select(rows)` copies rows of it, as with the decoder's.
        """
        return State(self.config, batch, max_tokens, torch.float32, device)

    def after(
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
            positions = torch.arange(hidden.shape[1], device=hidden.device)[None] + (
                0 if state is None else state.cache.lengths[:, None]
            )
        plan = None if state is None else state.cache.plan(positions)
        rotation = rotary(positions, self.config.head_dim, self.config.rope_theta)
        x = self.block(hidden.float(), rotation, documents, state, plan)
        if state is not None:
            state.cache.advance(positions)
        return x


@torch.no_grad()
def surprise_of(model: SAGE, tokens: Tensor, hidden: Tensor, own: Tensor) -> Tensor:
    """What writing each token said of it, (B, T, 2): its log-probability and the entropy of the
    distribution it came from, in nats at temperature 1.

    tokens (B, T), the decoder's hidden states (B, T, D) of them, `own` (B, T) which of them the
    agent wrote; 0, 0 for all others and for the first.
    While decoding, these numbers are there anyway.
    """
    wanted = torch.where(own[:, 1:], tokens[:, 1:], IGNORE)
    weight = model.unembedding
    return F.pad(torch.stack(token_log_probs(hidden[:, :-1], weight, wanted), -1), (0, 0, 1, 0))


class MetaCognitiveHead(ExtraBlock):
    """Equation 6: c = σ(W_meta · m_t + b), m_t the extra block's output. Read at the last token of
    a step.

    The block reads, beside each hidden state, how surprising the agent's own token was: a hidden
    state says what comes next, hardly how likely the token was that
    has just been written, and one block cannot work that out (on the toy, AUROC of logic on hard
    negatives 0.80 without these two numbers, 1.00 with them).
    """

    def __init__(self, config: Model):
        super().__init__(config)
        self.surprise = nn.Linear(2, config.width, bias=False)
        self.out = nn.Linear(config.width, len(PARTS))
        # set by calibration; parameters without a gradient, so that they are saved with the weights
        self.temperature = nn.Parameter(torch.ones(len(PARTS)), requires_grad=False)
        self.offset = nn.Parameter(torch.zeros(len(PARTS)), requires_grad=False)

    def seen(self, hidden: Tensor, surprise: Tensor) -> Tensor:
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
        """Logits (B, T, 4) in the order of PARTS."""
        return self.out(self.after(self.seen(hidden, surprise), documents, state, positions))

    def confidence(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities (…, 4) of logits (…, 4): σ(logit / temperature + offset)."""
        return torch.sigmoid(logits / self.temperature + self.offset)


class InverseConsistencyHead(ExtraBlock):
    """Equation 13's P_φ(C_i | Z, Y): the decoder reads plan and conclusion and then a constraint's
    text, one own block corrects its hidden states, its unembedding says how likely each token was.
    """

    def forward(
        self,
        model: SAGE,
        tokens: Tensor,
        documents: Tensor | None = None,
        states: tuple[State, State] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) for `model.logits`, of tokens (B, T): conclusions, each followed
        by a constraint. `states` are the decoder's and this head's.
        """
        decoder, own = states or (None, None)
        hidden = model.hidden(tokens, documents, decoder, positions)
        return self.after(hidden, documents, own, positions).to(hidden.dtype)

    @torch.no_grad()
    def scores(
        self, model: SAGE, conclusions: list[list[int]], constraints: list[list[list[int]]]
    ) -> tuple[list[float], list[float]]:
        """ICS of each conclusion, and its prior: the same with nothing but the conclusion's last
        token to go by. In nats, ≤ 0.

        Mean over a conclusion's constraints of the *sum* of log P_φ over the constraint's tokens; 0
        where there are no constraints. ICS − prior is the gain that is the conclusion's own doing:
        what is likely anyway scores 0. Conclusions and constraints are token IDs, none empty, each
        with the same last token (<|im_end|>), which says "that was all": alone it is the empty
        conclusion.
        """
        asked = [(row, constraint) for row, some in enumerate(constraints) for constraint in some]
        if not asked:
            return [0.0] * len(conclusions), [0.0] * len(conclusions)
        told = self.log_probs(
            model, conclusions, [row for row, _ in asked], [constraint for _, constraint in asked]
        )
        ends = list(dict.fromkeys(conclusion[-1] for conclusion in conclusions))
        cases = list(
            dict.fromkeys((conclusions[row][-1], tuple(constraint)) for row, constraint in asked)
        )  # candidates of one task share their constraints
        anyway = dict(
            zip(
                cases,
                self.log_probs(
                    model,
                    [[end] for end in ends],
                    [ends.index(end) for end, _ in cases],
                    [list(constraint) for _, constraint in cases],
                ),
            )
        )
        ics, prior = [0.0] * len(conclusions), [0.0] * len(conclusions)
        for (row, constraint), log_p in zip(asked, told):
            ics[row] += log_p / len(constraints[row])
            prior[row] += anyway[conclusions[row][-1], tuple(constraint)] / len(constraints[row])
        return ics, prior

    def log_probs(
        self,
        model: SAGE,
        conclusions: list[list[int]],
        rows: list[int],
        constraints: list[list[int]],
    ) -> list[float]:
        """log P_φ(constraints[i] | conclusions[rows[i]]).

        Each conclusion is read once; its constraints go on from copies of its cache.
        """
        device, longest = (
            next(model.parameters()).device,
            max(map(len, conclusions)) + max(map(len, constraints)),
        )
        states = (
            State(model.config, len(conclusions), longest, next(model.parameters()).dtype, device),
            self.new_state(len(conclusions), longest, device),
        )

        def padded(texts: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
            """Tokens (N, T), places (N, T) from 0, −1 in the padding at the right, and lengths
            (N,).
            """
            lengths = torch.tensor([len(text) for text in texts], device=device)
            place = torch.arange(int(lengths.max()), device=device)[None].expand(len(texts), -1)
            return (
                pad_sequence(
                    [torch.tensor(text, device=device) for text in texts], batch_first=True
                ),
                place.masked_fill(place >= lengths[:, None], -1),
                lengths,
            )

        tokens, places, lengths = padded(conclusions)
        last = self(model, tokens, None, states, places)[
            torch.arange(len(conclusions), device=device), lengths - 1
        ]  # (N, D)
        tokens, places, _ = padded(constraints)  # (M, T)
        here = torch.tensor(rows, device=device)
        after = self(
            model,
            tokens,
            None,
            tuple(state.select(here) for state in states),
            torch.where(places < 0, -1, places + lengths[here, None]),
        )  # (M, T, D)
        before = torch.cat(
            [last[here, None], after[:, :-1]], 1
        )  # what each token was foretold from
        log_p = (
            model.logits(before).float().log_softmax(-1).gather(2, tokens[..., None]).squeeze(2)
        )  # (M, T)
        return log_p.masked_fill(places < 0, 0).sum(1).tolist()


class Gate(nn.Module):
    """Equation 7:

    γ = σ(w · [h_t ; H(p_t)] + b), from what the fast pass leaves behind: no further forward pass.
    """

    def __init__(self, config: Model):
        super().__init__()
        self.out = nn.Linear(config.width + 1, 1)

    def forward(self, hidden: Tensor, entropy: Tensor) -> Tensor:
        """Logits (N,) of "the head would reject this step", from the decoder's hidden state (N, D)
        at the step's last token and `entropy` (N,).

        `entropy` is the *largest* entropy in nats of the distributions from which the step's tokens
        were drawn (temperature 1): one uncertain
        name among thirty certain tokens is what goes wrong, and a mean would drown it.
        """
        return self.out(torch.cat([hidden.float(), entropy.float()[:, None]], -1)).squeeze(-1)


class Heads(nn.ModuleDict):
    """All three: heads["meta"], heads["inverse"], heads["gate"];

    `tau` is the gate's threshold (Reasoning Mode iff γ > τ), `trained` 0 until heads.py has been
    here.
    """

    @torch.no_grad()
    def __init__(self, config: Model, seed: int = 0):
        super().__init__(
            dict(
                meta=MetaCognitiveHead(config),
                inverse=InverseConsistencyHead(config),
                gate=Gate(config),
            )
        )
        self.tau = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.trained = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        for name, p in self.named_parameters():
            if name.endswith(
                ("out.weight", "attention.o.weight", "feed_forward.down.weight", "bias")
            ):
                p.zero_()
            elif p.ndim == 2:
                std = (
                    0.5 if "surprise" in name else 0.02
                )  # surprises are few and must be heard beside hidden states of size 1
                nn.init.trunc_normal_(
                    p,
                    std=std,
                    a=-3 * std,
                    b=3 * std,
                    generator=torch.Generator().manual_seed(
                        seed * 1_000_003 + zlib.crc32(name.encode())
                    ),
                )


def constraint_texts(constraints: dict, request: str) -> list[str]:
    """C as the inverse head is asked for it: "rana 17", "goal pita", for each of a task's
    constraints (worlds.Task.constraints); where none is left, the request's sentences.

    Only those whose value stands in the request: that rana is missing, that a request is unsafe, or
    how a sentence of the math world is to be taken ("kind 1 turned more") would give the answer
    away. True and False are written as true and false.
    """
    written = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in constraints.items()
    }
    said = [
        f"{name} {value}"
        for name, value in written.items()
        if not name.startswith("kind ")
        and re.search(rf"\b{re.escape(value.lower())}\b", request.lower())
    ]
    return said or [
        sentence for sentence in re.split(r"(?<=[.?!])\s+", request.strip()) if sentence
    ]
