"""The decoding loop, the only one: for continuations, for an agent's episodes (agent.py), and
for the candidates of a thinking step (think.py) alike.

    continuations = generate(model, prompts, tokens=100)

    conversations = Conversations(model, prompts, max_tokens)   the cache and the next logits
    decode(conversations, rows, stop)                           until every row has ended

Each iteration gives every row one token: a forced one, if somebody else is speaking (a tool's
observation), or else a sampled one. When a message ends, its Row decides what follows: nothing, or
forced tokens and then another message. Rows fork (`Conversations.select`), join, and end at
different times; nothing is computed twice, because the cache lives as long as the row.

What differs from nanoGPT's `generate`: rows of any lengths, forced tokens (as in nanochat's
engine), and each row draws from random numbers of its own, so that a continuation does not depend
on what else is in the batch. Shapes: B rows, T tokens, D width, V vocabulary.
"""

from collections import deque
from collections.abc import Callable
from copy import copy
from functools import partial

import torch
from torch import Tensor

from config import UserError
from fast.graphs import fastest_step
from losses import log_probs_of_logits
from model import SAGE, State
from support.model_checks import note_window

# --------------------------------------------------------------------------------- choosing a token


def choose_token(logits: Tensor, temperature: float, top_p: float, uniform: Tensor) -> Tensor:
    """The next token (B,) from logits (B, V): the likeliest at temperature 0, else a draw.

    The draw is from the smallest set of tokens that holds `top_p` of the probability. `uniform`
    (B,) in [0, 1) decides it: the first token at which the cumulative probability exceeds it.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_p == 1:  # without a sort, which would cost a quarter of a tiny model's step
        return inverse_cdf(probabilities, uniform)
    probabilities, order = probabilities.sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0)  # the token that crosses stays
    return order.gather(1, inverse_cdf(probabilities, uniform)[:, None]).squeeze(1)


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """Where the cumulative sum of each row of weights (B, V) exceeds a share `uniform` (B,) of its
    total.
    """
    cumulative = weights.cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
    return place.clamp(max=weights.shape[-1] - 1)


# -------------------------------------------------------------------------------- rows of the batch


class Row:
    """One sequence being continued; `action_mask` and `log_probs` run beside `tokens`.

    `tokens` begins with what has been read already (empty if the caller keeps that elsewhere); at
    most `room` tokens are appended, sampled or forced. `uniforms` are random numbers in [0, 1),
    one per sampled token; temperature 0 needs none.
    """

    def __init__(self, tokens: list[int], room: int, temperature: float, uniforms: list[float]):
        self.tokens = list(tokens)
        self.action_mask = [False] * len(tokens)  # which tokens the model sampled
        self.log_probs = [0.0] * len(tokens)  # of the sampled ones; 0 elsewhere
        self.entropies: list[float] = []  # of their distributions, as the log-probabilities'
        self.forced: deque[int] = deque()  # to be read before the model goes on
        self.room, self.temperature, self.uniforms = room, temperature, uniforms
        self.draws_used = 0  # of `uniforms`, one per sampled token
        self.show: Callable[[int], None] | None = None  # with each sampled token but the stop's
        self.ended = "" if room > 0 else "length"  # why; "" while the row goes on

    def append(self, token: int, log_prob: float, entropy: float, stop: list[int]) -> int:
        """Take the next token: a forced one, if there is any, instead of the sampled `token`.
        Returns the one that was taken.
        """
        self.room -= 1
        is_forced = bool(self.forced)
        if is_forced:
            token = self.forced.popleft()
        self.tokens.append(token)
        self.action_mask.append(not is_forced)
        self.log_probs.append(0.0 if is_forced else log_prob)
        if not is_forced:
            self.entropies.append(entropy)
            self.draws_used += 1
            if token in stop:
                self.message_ended()
            elif self.show:
                self.show(token)
        if not self.ended and self.room <= 0:
            self.end("length")
        return token

    def message_ended(self) -> None:
        """A stop token was sampled. An agent's row acts now and continues; this one ends."""
        self.end("stop")

    def end(self, why: str) -> None:
        self.ended = why


def read_token(
    model: SAGE, state: State, tokens: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """One more token per row: tokens and positions (B, 1), −1 for a row that reads nothing.

    Returns hidden states (B, D) and next-token logits (B, V). This is what is compiled, and what a
    GPU runs as a CUDA graph (fast/graphs.py).
    """
    hidden = model.hidden(tokens, state=state, positions=positions)[:, -1]
    return hidden, model.logits(hidden)


def pad(texts: list[list[int]], device, behind: Tensor | int = 0) -> tuple[Tensor, Tensor]:
    """Texts as one batch, padded at the right: tokens and positions (B, T), −1 in the padding. Each
    row's positions follow the `behind` (B,) tokens that it has already.
    """
    longest = max(map(len, texts))
    tokens = torch.zeros(len(texts), longest, dtype=torch.int64)
    positions = torch.full((len(texts), longest), -1)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        positions[row, : len(text)] = torch.arange(len(text))
    behind = torch.as_tensor(behind, device=device).view(-1, 1)  # (B, 1)
    positions = positions.to(device)
    return tokens.to(device), torch.where(positions < 0, -1, positions + behind)


def cache_size(max_tokens: int, window: int) -> int:
    """`max_tokens` rounded up, so that a step that was compiled or recorded for one size serves
    conversations of many lengths; not past the window, beyond which a cache needs landmarks.
    """
    rounded = -(-max_tokens // 128) * 128
    return rounded if max_tokens > window else min(rounded, window)


class Conversations:
    """B sequences under way: what the decoder remembers of each, and the logits of its next token.

    There is room for `max_tokens` tokens per row. `per_row` names the attributes with one entry per
    row (a State, a tensor (B, …) or a list): `select`, `join` and `put` go by it, and a subclass
    adds its own.
    """

    per_row = ("state", "logits")

    def __init__(self, model: SAGE, prompts: list[list[int]], max_tokens: int):
        weight = next(model.parameters())
        self.model, self.max_tokens = model, max_tokens
        slots = cache_size(max_tokens, model.config.window)
        self.state = State(model.config, len(prompts), slots, weight.dtype, weight.device)
        self.logits = torch.zeros(0, device=weight.device)  # until `read`: only says the device
        self.read(prompts)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> Tensor:
        """Tokens read so far (B,)."""
        return self.state.cache.lengths

    def read(self, texts: list[list[int]]) -> None:
        """Append a text, none empty, to every row, all at once: prompts, or what a tool said."""
        self.feed(*pad(texts, self.logits.device, self.lengths))

    def feed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens (B, T) at positions (B, T), −1 for right padding → hidden states (B, T, D)."""
        hidden = self.model.hidden(tokens, state=self.state, positions=positions)
        last = ((positions >= 0).sum(1) - 1).clamp(min=0)  # (B,)
        rows = torch.arange(len(tokens), device=tokens.device)
        self.logits = self.model.logits(hidden[rows, last])  # (B, V)
        return hidden

    def advance(self, tokens: Tensor, positions: Tensor, surprise: Tensor | None, step) -> None:
        """One token per row, by `read_token` or what equals it.

        `surprise` (B, 2), log-probabilities and entropies of the sampled tokens, is ignored here;
        fast/thinking.py's subclass keeps it for the confidence head.
        """
        _, self.logits = step(self.model, self.state, tokens, positions)

    @staticmethod
    def of_prompts(
        model: SAGE, prompts: list[list[int]], max_tokens: int, *, share: bool = True
    ) -> "Conversations":
        """The conversations of `prompts`; equal ones (samples of one task) are read once. With
        `share` their cache is kept once, too: not for a compiled step, which would be compiled
        anew for every length of a shared prompt.
        """
        places = {}  # prompt → its row
        for prompt in prompts:
            places.setdefault(tuple(prompt), len(places))
        whole = Conversations(model, list(map(list, places)), max_tokens)
        if len(places) == len(prompts):
            return whole
        if share:
            whole.share()
        return whole.select([places[tuple(prompt)] for prompt in prompts])

    def share(self) -> None:
        """Keep once, for rows selected from now on, what they begin with."""
        self.state = self.state.forked()

    def select(self, rows: list[int]) -> "Conversations":
        """A copy of the chosen rows, in this order; [0, 0, 0] gives one row three futures."""
        chosen = copy(self)
        index = torch.tensor(rows, dtype=torch.int64, device=self.logits.device)
        for name in self.per_row:
            part = getattr(self, name)
            if isinstance(part, State):
                part = part.select(index)
            elif isinstance(part, Tensor):
                part = part.index_select(0, index)
            else:
                part = [part[row] for row in rows]
            setattr(chosen, name, part)
        return chosen

    @staticmethod
    def join(several: list["Conversations"]) -> "Conversations":
        """The rows of several, in this order."""
        several = [some for some in several if len(some)]
        if len(several) == 1:
            return several[0]
        whole = copy(several[0])
        for name in whole.per_row:
            parts = [getattr(some, name) for some in several]
            if isinstance(parts[0], State):
                setattr(whole, name, State.join(parts))
            elif isinstance(parts[0], Tensor):
                setattr(whole, name, torch.cat(parts))
            else:
                setattr(whole, name, [item for part in parts for item in part])
        return whole

    def put(self, rows: list[int], others: "Conversations") -> None:
        """Overwrite these rows with the others' rows, which were selected from them, in place."""
        # what a forked row holds continues its past, so both must have the same pasts
        assert self.state.cache.pasts is others.state.cache.pasts
        index = torch.tensor(rows, dtype=torch.int64, device=self.logits.device)
        for mine, theirs in zip(self.tensors(), others.tensors(), strict=True):
            mine.index_copy_(0, index, theirs)

    def tensors(self) -> list[Tensor]:
        """All tensors kept per row, each (B, …)."""
        found = []
        for name in self.per_row:
            part = getattr(self, name)
            if isinstance(part, State):
                found += part.tensors()
            elif isinstance(part, Tensor):
                found.append(part)
        return found


# ----------------------------------------------------------------------------------------- the loop


def sample_rows(logits: Tensor, rows: list[Row], top_p: float) -> Tensor:
    """A token (B,) for each row at the row's temperature, from logits (B, V)."""
    temperatures = {row.temperature for row in rows if not row.ended}
    if temperatures == {0.0}:
        return logits.argmax(-1)
    drawing = [bool(row.temperature) and not row.ended for row in rows]
    uniforms = [row.uniforms[row.draws_used] if draws else 0.0 for row, draws in zip(rows, drawing)]
    uniform = torch.tensor(uniforms, device=logits.device)  # (B,)
    if len(temperatures) == 1:
        (temperature,) = temperatures
        return choose_token(logits, temperature, top_p, uniform)
    chosen = logits.argmax(-1)
    for temperature in temperatures - {0.0}:
        same = [index for index, row in enumerate(rows) if row.temperature == temperature]
        chosen[same] = choose_token(logits[same], temperature, top_p, uniform[same])
    return chosen


def surprise_at(logits: Tensor, chosen: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of chosen tokens (B,) and entropies, in nats, of logits (B, V): (B, 2)."""
    return torch.stack(log_probs_of_logits(logits, chosen, temperature), -1)


def take_tokens(
    conversations: Conversations,
    rows: list[Row],
    stop: list[int],
    *,
    top_p: float,
    log_prob_temperature: float | None,
) -> tuple[Tensor, Tensor | None]:
    """Give every living row its next token; those tokens (B,), and the sampled ones' surprise
    (B, 2), if log-probabilities are recorded.
    """
    chosen = sample_rows(conversations.logits, rows, top_p)  # (B,)
    surprise = None
    log_probs = entropies = [0.0] * len(rows)
    if log_prob_temperature is not None:
        surprise = surprise_at(conversations.logits, chosen, log_prob_temperature)  # (B, 2)
        log_probs, entropies = surprise.T.tolist()
    sampled = chosen.tolist()
    taken = list(sampled)
    for index, row in enumerate(rows):
        if not row.ended:
            taken[index] = row.append(sampled[index], log_probs[index], entropies[index], stop)
    if taken != sampled:  # some were forced
        chosen = torch.tensor(taken, device=chosen.device)
    return chosen, surprise


@torch.no_grad()
def decode(
    conversations: Conversations,
    rows: list[Row],
    stop: list[int],
    *,
    refill: Callable[[int], list[Row]] | None = None,
    keep: bool = False,
    shrink: bool = True,
    top_p: float = 1.0,
    log_prob_temperature: float | None = 1.0,
    step: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> None:
    """Continue each row until it has ended; `rows` stand beside the conversations' rows.

    Rows that have ended stay, reading nothing, until half of the batch has ended. Then `refill(n)`
    gives up to n new rows in their places, or `shrink` leaves them out of a batch of more than 8
    (False for a compiled step, which wants a constant size). With `keep` the conversations are all
    there at the end, each having read its last token (the `logits` of those that ended early mean
    nothing). `log_prob_temperature` is that of the recorded log-probabilities; None records none.
    `step` is `read_token` or what equals it, by default the fastest on this device.
    """
    step = step or fastest_step(conversations.model, read_token)
    sampling = dict(top_p=top_p, log_prob_temperature=log_prob_temperature)
    while rows:
        # -- one token per row
        was_alive = [not row.ended for row in rows]
        tokens, surprise = take_tokens(conversations, rows, stop, **sampling)  # (B,), (B, 2)

        # -- rows end, and others take their places
        alive = [index for index, row in enumerate(rows) if not row.ended]
        half_empty = 2 * len(alive) <= len(rows)
        shrinking = half_empty and shrink and len(rows) > 8
        fresh = refill(len(rows) - len(alive)) if refill and half_empty else []
        if not (alive or fresh or keep):
            return
        if not keep and (fresh or shrinking):
            conversations = conversations.select(alive)
            conversations.state = conversations.state.pruned()
            tokens = tokens[alive]
            surprise = None if surprise is None else surprise[alive]
            rows = [rows[index] for index in alive]
        # with `keep` a row reads the token that ended it, too
        reading = was_alive if keep else [not row.ended for row in rows]

        # -- the decoder reads the tokens
        if rows:
            positions = conversations.lengths.clone()
            if not all(reading):
                positions = positions.where(torch.tensor(reading, device=tokens.device), -1)
            conversations.advance(tokens[:, None], positions[:, None], surprise, step)
        if fresh:
            prompts = [row.tokens for row in fresh]
            model, max_tokens = conversations.model, conversations.max_tokens
            new = Conversations.of_prompts(model, prompts, max_tokens)
            conversations = Conversations.join([conversations, new])
            rows = rows + fresh
        if keep and not alive:
            return
        if keep and shrinking:  # the living go on in a smaller batch, and are copied back into this
            rest = conversations.select(alive)
            decode(rest, [rows[i] for i in alive], stop, keep=True, step=step, **sampling)
            conversations.put(alive, rest)
            return


@torch.inference_mode()
def generate(
    model: SAGE,
    prompts: list[list[int]],
    tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    *,
    stop: list[int] = (),
    seed: int = 0,
    step: Callable[..., tuple[Tensor, Tensor]] | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Continuations of prompts (token IDs, none empty), each at most `tokens` long and cut before
    the first token in `stop`.

    Temperature 0 is greedy. `seed` + row seeds each row's draws. `step` is decode's.
    `on_token(row, token)` is called as tokens come. Raises UserError for an empty prompt or one
    that leaves no room in the model's context.
    """
    longest = max(map(len, prompts), default=0)
    if not prompts or min(map(len, prompts)) == 0:
        raise UserError(
            "an empty prompt has nothing to continue; begin with at least one token, "
            "<|endoftext|> will do"
        )
    if longest + tokens > model.config.context:
        raise UserError(
            f"a prompt of {longest} tokens and {tokens} new ones exceed the model's context of "
            f"{model.config.context}; shorten the prompt or ask for fewer"
        )
    rows = []
    for number in range(len(prompts)):
        generator = torch.Generator().manual_seed(seed + number)
        uniforms = torch.rand(tokens, generator=generator).tolist()
        rows.append(Row([], tokens, temperature, uniforms))
        if on_token:
            rows[-1].show = partial(on_token, number)
    if tokens > 0:
        plain = step in (None, read_token)
        conversations = Conversations.of_prompts(model, prompts, longest + tokens, share=plain)
        options = dict(shrink=False, top_p=top_p, log_prob_temperature=None, step=step)
        decode(conversations, rows, stop, **options)
    continuations = [row.tokens[:-1] if row.ended == "stop" else row.tokens for row in rows]
    # a row's last token is read only where another was sampled after it
    read = [len(p) + min(len(c), tokens - 1) for p, c in zip(prompts, continuations)]
    note_window(model, max(read))
    return continuations
