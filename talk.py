"""Conversations under way, many at a time, that can be copied, fed, let write, and asked how sure
they are (paper §4.2, §5.3).

    talk = Talk(model, heads, bills, most)           rows of decoder and head state with room for `most` tokens
    talk.read(texts)                                 what somebody else says
    talk.write(draws, temperatures, most, stop)      what the agent says
    talk.confide()                                   the confidence head's opinion of what was said last
    talk.select([0, 0, 0])                           one conversation as three with a common past: nothing is computed again

What differs from generate.py: rows go on over many messages, branch and come together again, and
every pass is put on its row's bill.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config import Model
from generate import choose, pad
from mch import Heads
from model import SAGE, State, flops_per_token


@dataclass
class Cost:
    """What a decision took: tokens through the decoder, forward floating-point operations of
    decoder and heads, seconds (of a batch: its even share).
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds
        )


def forward_flops(config: Model, tokens: int, length: float, logits: int) -> float:
    """Of a forward pass over `tokens` at a mean `length` of what they see, `logits` of them
    unembedded: 2 a weight that multiplies, 4·H·d a pair and layer.

    A third of what model.flops_per_token says of training.
    """
    return (
        tokens * flops_per_token(replace(config, vocab_size=0), length) / 3
        + logits * 2 * config.width * config.vocab_size
    )


class Talk:
    """Conversations under way, a row each: what decoder and head remember, the logits of every next
    token, and on whose bill it goes.

    The head reads only when it is asked, so a step that stays fast costs nothing beyond itself:
    until then `hidden` keeps what it has to read.
    """

    def __init__(self, model: SAGE, heads: Heads, bills: list[Cost], most: int):
        p = next(model.parameters())
        self.model, self.heads, self.bills = model, heads, bills
        self.state, self.own = (
            State(model.config, len(bills), most, p.dtype, p.device),
            heads["meta"].new_state(len(bills), most, p.device),
        )
        self.hidden = torch.zeros(
            len(bills), most + 1, model.config.width, dtype=p.dtype, device=p.device
        )  # by position; the last place swallows padding, position −1
        self.surprise = torch.zeros(
            len(bills), most + 1, 2, device=p.device
        )  # of what the agent wrote, as mch.surprise_of has it
        self.logits = torch.zeros(
            len(bills), model.config.vocab_size, dtype=p.dtype, device=p.device
        )

    def select(self, rows: list[int]) -> "Talk":
        """A copy of the chosen rows, in this order; a row that is named n times becomes n
        candidates with a common prefix.
        """
        copy, index = (
            object.__new__(Talk),
            torch.tensor(rows, dtype=torch.int64, device=self.logits.device),
        )
        copy.model, copy.heads, copy.bills = (
            self.model,
            self.heads,
            [self.bills[row] for row in rows],
        )
        copy.state, copy.own, copy.hidden, copy.logits = (
            self.state.select(index),
            self.own.select(index),
            self.hidden.index_select(0, index),
            self.logits[index],
        )
        copy.surprise = self.surprise[index]
        return copy

    @staticmethod
    def join(talks: list["Talk"]) -> "Talk":
        """The rows of several, in this order, as one."""
        talks = [talk for talk in talks if talk.bills]
        if len(talks) == 1:
            return talks[0]
        whole = object.__new__(Talk)
        whole.model, whole.heads, whole.bills = (
            talks[0].model,
            talks[0].heads,
            [bill for talk in talks for bill in talk.bills],
        )
        whole.state, whole.own = (
            State.join([talk.state for talk in talks]),
            State.join([talk.own for talk in talks]),
        )
        whole.hidden, whole.surprise, whole.logits = (
            torch.cat(parts)
            for parts in zip(*((talk.hidden, talk.surprise, talk.logits) for talk in talks))
        )
        return whole

    def put(self, rows: list[int], others: "Talk") -> None:
        """Put the rows of another in the place of these."""
        index = torch.tensor(rows, device=self.logits.device)
        for mine, theirs in zip(self.tensors(), others.tensors()):
            mine.index_copy_(0, index, theirs)

    def tensors(self) -> list[Tensor]:
        """All that is remembered of a row, each (B, …)."""
        return [
            self.hidden,
            self.surprise,
            self.logits,
            *(
                x
                for state in (self.state, self.own)
                for x in (
                    state.tokens,
                    state.cache.lengths,
                    *state.last_keys,
                    *state.cache.keys,
                    *state.cache.values,
                )
            ),
        ]

    def free(self) -> list[int]:
        """How many tokens of each row still fit."""
        return (self.state.cache.max_tokens - self.state.cache.lengths).tolist()

    def feed(self, tokens: Tensor, positions: Tensor, surprise: Tensor | None = None) -> Tensor:
        """Tokens (B, T) into the decoder at positions (B, T), −1 in the padding at the right →
        hidden states (B, T, D); `surprise` (B, T, 2) of what the agent wrote.
        """
        hidden = self.model.hidden(tokens, state=self.state, positions=positions)
        rows = torch.arange(len(tokens), device=tokens.device)
        self.hidden[rows[:, None], positions] = hidden
        if surprise is not None:
            self.surprise[rows[:, None], positions] = surprise
        self.logits = self.model.logits(hidden[rows, ((positions >= 0).sum(1) - 1).clamp(min=0)])
        return hidden

    def read(self, texts: list[list[int]], judged: bool = False) -> list[list[float]]:
        """Feed each row its tokens; with `judged` they are the agent's own words, and their
        log-probabilities come back.
        """
        before = self.logits
        tokens, positions = pad(texts, self.logits.device)
        positions = torch.where(positions < 0, -1, positions + self.state.cache.lengths[:, None])
        hidden = self.feed(tokens, positions)
        log_probs: list[list[float]] = []
        if judged:
            log_p = (
                torch.cat([before[:, None], self.model.logits(hidden[:, :-1])], 1)
                .float()
                .log_softmax(-1)
            )  # (B, T, V)
            taken, entropies = (
                log_p.gather(2, tokens[..., None]).squeeze(2),
                -(log_p.exp() * log_p).sum(-1),
            )
            self.surprise[torch.arange(len(texts), device=tokens.device)[:, None], positions] = (
                torch.stack([taken, entropies], -1)
            )
            log_probs = [row[: len(text)] for row, text in zip(taken.tolist(), texts)]
        self.charge([len(text) for text in texts], [len(text) if judged else 1 for text in texts])
        return log_probs

    def write(
        self, draws: list[list[float]], temperatures: list[float], most: list[int], stop: list[int]
    ) -> list[tuple[list[int], list[float], float]]:
        """Let each row write until a token in `stop` or `most` tokens: its tokens (the stop
        included), their log-probabilities at temperature 1, the largest entropy.

        `draws` decide, one number a token, where the temperature is not 0.
        """
        device = self.logits.device
        written: list[tuple[list[int], list[float], list[float]]] = [
            ([], [], [0.0]) for _ in self.bills
        ]
        writing = [row for row, limit in enumerate(most) if limit > 0]
        while writing:
            log_p = self.logits.float().log_softmax(-1)  # (B, V)
            chosen, entropies = self.logits.argmax(-1), -(log_p.exp() * log_p).sum(-1)
            for temperature in {temperatures[row] for row in writing} - {0.0}:
                hot = [row for row in writing if temperatures[row] == temperature]
                chosen[hot] = choose(
                    self.logits[hot],
                    temperature,
                    1.0,
                    torch.tensor([draws[row][len(written[row][0])] for row in hot], device=device),
                )
            surprise = torch.stack(
                [log_p.gather(1, chosen[:, None]).squeeze(1), entropies], -1
            )  # (B, 2)
            fed, log_probs, entropies = chosen.tolist(), *surprise.T.tolist()
            for row in writing:
                for part, value in zip(written[row], (fed[row], log_probs[row], entropies[row])):
                    part.append(value)
            here = torch.zeros(len(most), dtype=torch.bool, device=device)
            here[writing] = True
            self.feed(
                chosen[:, None],
                torch.where(here, self.state.cache.lengths, -1)[:, None],
                surprise[:, None],
            )
            writing = [
                row for row in writing if fed[row] not in stop and len(written[row][0]) < most[row]
            ]
            if len(most) > 8 and 0 < 2 * len(writing) <= len(
                most
            ):  # the batch shrinks by halves: small batches are cheap anyway
                break
        counts = [len(tokens) for tokens, _, _ in written]
        self.charge(counts, counts)
        if writing:
            rest = self.select(writing)
            more = rest.write(
                [draws[row][counts[row] :] for row in writing],
                [temperatures[row] for row in writing],
                [most[row] - counts[row] for row in writing],
                stop,
            )
            for row, (tokens, log_probs, entropy) in zip(writing, more):
                (
                    written[row][0].extend(tokens),
                    written[row][1].extend(log_probs),
                    written[row][2].append(entropy),
                )
            self.put(writing, rest)
        return [(tokens, log_probs, max(entropies)) for tokens, log_probs, entropies in written]

    def confide(self) -> Tensor:
        """The head's confidences (B, 4) at every row's last token, from all that it has not read
        yet.
        """
        read, total = self.own.cache.lengths.clone(), self.state.cache.lengths
        positions = read[:, None] + torch.arange(int((total - read).max()), device=total.device)
        positions = positions.masked_fill(positions >= total[:, None], -1)
        rows = torch.arange(len(total), device=total.device)
        logits = self.heads["meta"](
            self.hidden[rows[:, None], positions],
            self.surprise[rows[:, None], positions],
            None,
            self.own,
            positions,
        )[rows, total - read - 1]
        self.charge((total - read).tolist(), [0] * len(total), self.heads["meta"].config)
        return self.heads["meta"].confidence(logits)

    def charge(self, tokens: list[int], logits: list[int], block: Model | None = None) -> None:
        """Put a pass on each row's bill: through the decoder, or through one `block` of a head."""
        for bill, count, unembedded, length in zip(
            self.bills, tokens, logits, self.state.cache.lengths.tolist()
        ):
            bill.tokens += count if block is None else 0
            bill.flops += forward_flops(
                block or self.model.config, count, length - count / 2, unembedded
            )
