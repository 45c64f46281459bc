"""Batched, cached decoding: prompts of any lengths in, continuations out, one new token a row and
step.

Each row draws its random numbers from its own generator, so a prompt's continuation does not depend
on what else is in the batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from config import UserError
from model import SAGE, State
from support.model_checks import note_window


def pad(prompts: list[list[int]], device) -> tuple[Tensor, Tensor]:
    """Prompts as one batch, padded at the right: tokens (B, T) and positions (B, T), -1 in the
    padding.
    """
    longest = max(map(len, prompts))
    tokens = torch.tensor([p + [0] * (longest - len(p)) for p in prompts], device=device)
    positions = torch.tensor(
        [[*range(len(p))] + [-1] * (longest - len(p)) for p in prompts], device=device
    )
    return tokens, positions


def choose(logits: Tensor, temperature: float, top_p: float, chance: Tensor) -> Tensor:
    """The next token of each row from logits (B, V): the likeliest at temperature 0, else drawn
    from the smallest set that holds `top_p`.

    `chance` (B,) in [0, 1) decides: the draw is the first token at which the cumulative probability
    passes it.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_p == 1:  # sorting would cost a quarter of a tiny model's step
        return drawn(probabilities, chance).squeeze(1)
    probabilities, order = probabilities.sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(
        before >= top_p, 0
    )  # the token that crosses top_p stays
    return order.gather(1, drawn(probabilities, chance)).squeeze(1)


def drawn(weights: Tensor, chance: Tensor) -> Tensor:
    """Where the cumulative sum of each row of weights (B, V) passes `chance` (B,) of the whole:

    (B, 1).
    """
    cumulative = weights.cumsum(-1)
    return torch.searchsorted(cumulative, chance[:, None] * cumulative[:, -1:], right=True).clamp(
        max=weights.shape[-1] - 1
    )


def step(model: SAGE, state: State, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits (B, V) after one more token a row: tokens and positions (B, 1).

    What sample.py compiles.
    """
    return model(tokens, state=state, positions=positions)[:, -1]


@torch.inference_mode()
def generate(
    model: SAGE,
    prompts: list[list[int]],
    tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: list[int] = (),
    seed: int = 0,
    step: Callable[..., Tensor] = step,
    on_token: Callable[[int, int], Any] | None = None,
) -> list[list[int]]:
    """Continuations of B prompts (token IDs, none empty), each at most `tokens` long and cut before
    the first token in `stop`.

    temperature 0 is greedy. `seed` + row seeds each row's draws. `step` may be `compiled_step()`.
    `on_token(row, token)` is called as tokens come. Raises UserError for an empty prompt or one
    that leaves no room in the model's context.
    """
    longest = max(map(len, prompts), default=0)
    if not prompts or min(map(len, prompts)) == 0:
        raise UserError(
            "an empty prompt has nothing to continue; begin with at least one token, <|endoftext|> will do"
        )
    if longest + tokens > model.config.context:
        raise UserError(
            f"a prompt of {longest} tokens and {tokens} new ones exceed the model's context of {model.config.context}; shorten the prompt or ask for fewer"
        )
    model.eval()
    device = next(model.parameters()).device
    chances = torch.stack(
        [
            torch.rand(tokens, generator=torch.Generator().manual_seed(seed + row))
            for row in range(len(prompts))
        ]
    ).to(device)  # (B, tokens)
    state = State(
        model.config, len(prompts), longest + tokens, next(model.parameters()).dtype, device
    )
    batch, positions = pad(prompts, device)
    hidden = model.hidden(batch, state=state, positions=positions)  # (B, T, D)
    last = torch.tensor([len(p) - 1 for p in prompts], device=device)
    logits = model.logits(hidden[torch.arange(len(prompts), device=device), last])  # (B, V)
    where = (last + 1)[:, None]
    continuations: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    for number in range(tokens):
        chosen = choose(logits, temperature, top_p, chances[:, number])
        for row, token in enumerate(chosen.tolist()):
            if row in running:
                if token in stop:
                    running.discard(row)
                    continue
                continuations[row].append(token)
                if on_token:
                    on_token(row, token)
        if not running or number == tokens - 1:
            break
        logits = step(model, state, chosen[:, None], where)
        where = where + 1
    # a row's last token is read only where another was asked for behind it
    read = [len(p) + min(len(c), tokens - 1) for p, c in zip(prompts, continuations)]
    note_window(model, max(read))
    return continuations
