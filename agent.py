"""Rollouts: the model acts in the worlds, many episodes at a time (paper §3.2, §3.4).

    rollouts(model, tokenizer, tasks)       each task's conversation as tokens, with which of them the model wrote and how likely they were

One loop, one token a row and step. A row that is writing draws its next token; a row whose tool has
answered is fed the answer's tokens while the others go on writing. When a message ends, its call is
checked and executed, or the episode is judged. Rows that are done make room for the next tasks once
they are half of the batch.

What differs from the usual rollout of several turns: no row ever waits for another's turn to end,
nothing is computed twice (the cache of keys and values lives through the whole episode), and
training sees the very tokens that were sampled, not a text encoded anew.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from config import UserError
from generate import choose, pad
from generate import step as plain_step
from model import SAGE, State
from support.model_checks import note_window
from support.runtime import time_limit
from support.tokenizer import Tokenizer
from worlds.tools import Fault, read
from worlds.base import Entry, Episode, Task, failed

TURNS = 10  # calls of one episode at most; the longest solution has 4, each may fail once or twice


@dataclass
class Rollout:
    """One episode as the model lived it. `action_mask`, `log_probs` run beside `tokens`."""

    task: Task
    tokens: list[int]  # the whole conversation: prompt, the model's messages, what tools said
    action_mask: list[
        bool
    ]  # which tokens the model drew itself, the <|im_end|> of its messages included
    log_probs: list[
        float
    ]  # of its own tokens under the distribution they were drawn from; 0 elsewhere
    messages: list[str] = field(default_factory=list)  # its own, without the <|im_end|>
    # "answer", "malformed" (zero tolerance), "invalid" (too many wrong calls), "time" (too long in
    # its world), "turns", "length", "raised" (a bug of ours)
    ended: str = ""
    verified: bool = False
    fault: tuple[int, str] | None = None  # (place in `log`, kind) of the fault that was injected
    log: list[Entry] = field(default_factory=list)  # its calls
    problem: str = ""  # what was raised, by the world or where it ended so
    called: list[int] = field(default_factory=list)  # entries of `log` that each of `messages` made

    @property
    def invented(self) -> int:
        """Tools and arguments that no schema in force had (one each): the paper's hallucinated
        arguments.
        """
        return sum(
            fault.kind in ("unknown_tool", "unexpected")
            for entry in self.log
            for fault in entry.faults
        )

    @property
    def invalid(self) -> int:
        """Calls that the check refused."""
        return sum(bool(entry.faults) for entry in self.log)

    @property
    def groups(self) -> list[list[int]]:
        """Places in `log` of each message's calls, none for the answer.

        Where nothing was counted, as in a log that no Row kept, each call is a message of its own.
        """
        ends = [0, *accumulate(self.called or [1] * len(self.log))]
        return [list(range(begin, end)) for begin, end in pairwise(ends)]

    @property
    def recovered(self) -> bool | None:
        """Whether one of the two calls after the injected fault was taken by the same tool.

        Without an error, that is. Calls of the message that met the fault do not count: they were
        written before it was told. None where no fault came.
        """
        if self.fault is None:
            return None
        place, _ = self.fault
        name = self.log[place].call["name"]
        told = next(group[-1] + 1 for group in self.groups if place in group)
        return any(
            e.taken is not None and e.taken["name"] == name and not failed(e.said)
            for e in self.log[told : told + 2]
        )


def message_tokens(tokenizer: Tokenizer, style: str, role: str, *contents: str) -> list[int]:
    """The tokens from the <|im_end|> of a message of the model's to its next: what others say."""
    messages = [{"role": "assistant", "content": ""}]
    messages += [{"role": role, "content": content} for content in contents]
    tokens, own = tokenizer.encode_chat(messages, None, style, generation_prompt=True)
    return tokens[len(own) - own[::-1].index(True) :]


AGAIN = "again"  # the user's word behind a failed attempt


def revision_prefix(tokenizer: Tokenizer, style: str, attempt: list[int], told: str) -> list[int]:
    """What a revision begins with: the failed attempt, "again", and what was wrong with it, in the
    model's own mouth.
    """
    end = [] if attempt[-1] in tokenizer.stop else tokenizer.stop[:1]
    return [
        *attempt,
        *end,
        *message_tokens(tokenizer, style, "user", AGAIN),
        *tokenizer.encode(f"{told}\n"),
    ]


def prompt_of(task: Task, tokenizer: Tokenizer) -> list[int]:
    """A task's tools and request, up to where the model begins to write."""
    return tokenizer.encode_chat(
        [{"role": "user", "content": task.request}],
        task.shown_tools(),
        task.difficulty.style,
        generation_prompt=True,
    )[0]


def check_room(prompts: list[list[int]], model: SAGE) -> None:
    """Raise UserError where the longest prompt leaves no room for an answer in the model's context."""
    longest = max(map(len, prompts), default=0)
    if longest + 2 > model.config.context:
        raise UserError(
            f"a prompt of {longest} tokens leaves no room in the model's context of {model.config.context}; use fewer or shorter tools, or raise model.context"
        )


class Row:
    """An episode under way: its rollout, its world, and the tokens that are still to be fed."""

    def __init__(self, task: Task, tokens: list[int], faults: bool, chances: torch.Tensor):
        self.rollout = Rollout(task, list(tokens), [False] * len(tokens), [0.0] * len(tokens))
        self.episode = Episode(task, faults)
        self.queue: deque[int] = deque()
        self.prompt = self.start = len(
            tokens
        )  # where the episode begins, and the message that is being written
        self.chances, self.drawn = chances.tolist(), 0

    def end(self, why: str) -> None:
        self.rollout.ended, self.rollout.fault, self.rollout.log = (
            why,
            self.episode.fault,
            self.episode.log,
        )
        self.rollout.problem = self.rollout.problem or self.episode.problem
        self.episode.close()

    def act(self, tokenizer: Tokenizer, tolerance: int, zero_tolerance: bool) -> None:
        """Judge the message that has just ended: carry out its calls in order, or take the answer.

        A call behind one that was refused or is malformed is carried out all the same, as it would
        be in a message of its own; only the episode's end stops them. The answer's thought is cut.
        """
        r, written = self.rollout, self.rollout.tokens[self.start : -1]
        before, said = len(self.episode.log), []
        words, calls = read(tokenizer.pieces(written))
        r.messages.append(tokenizer.decode(written) if calls else words)
        try:
            if not calls:
                with self.in_world():
                    r.verified = bool(self.episode.verify(words))
                return self.end("time" if self.late else "answer")
            for text, call in calls:
                if isinstance(call, Fault):
                    said.append(f"error: {call.message}")
                    self.episode.log.append(Entry(text, [call], said[-1], None))
                else:
                    with self.in_world():
                        said.append(self.episode.step(call))
                if why := self.over(tolerance, zero_tolerance):
                    return self.end(why)
        except UserError:
            raise
        except Exception as error:  # a bug of ours costs its episode only
            r.problem = f"{type(error).__name__}: {error}"
            return self.end("raised")
        finally:
            r.called.append(len(self.episode.log) - before)
        self.queue.extend(message_tokens(tokenizer, r.task.difficulty.style, "tool", *said))

    @property
    def late(self) -> bool:
        """Whether the episode has spent its seconds in its world."""
        return self.episode.seconds >= self.episode.world.patience

    def in_world(self):
        """Interrupts the world once the episode's seconds are spent; what that raises the episode
        counts as a failure.
        """
        left = self.episode.world.patience - self.episode.seconds
        return time_limit(0 if left == float("inf") else max(left, 0.001), "the world")

    def over(self, tolerance: int, zero_tolerance: bool) -> str:
        """Why the episode ends with the call that was just made; "" where it goes on."""
        log = self.episode.log
        if zero_tolerance and {fault.kind for fault in log[-1].faults} & {"syntax", "unknown_tool"}:
            return "malformed"
        if sum(bool(entry.faults) for entry in log) >= tolerance:
            return "invalid"
        if self.late:
            return "time"
        return "turns" if len(log) >= TURNS else ""


@torch.no_grad()
def rollouts(
    model: SAGE,
    tokenizer: Tokenizer,
    tasks: list[Task],
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 64,
    faults: bool = True,
    tolerance: int = 2,
    zero_tolerance: bool = False,
    room: int = 384,
    prompts: list[list[int]] | None = None,
    step=plain_step,
) -> list[Rollout]:
    """One episode of every task, in order.

    `temperature` 0 is greedy. Task i draws from a generator of its own, seeded by `seed` and i, so
    its episode does not depend on the others. `tolerance` refused calls end an episode; with
    `zero_tolerance` the first one that does not parse or names no tool does (CodePPO's rule).
    `room` tokens may follow a prompt. `prompts` replaces the tasks' own beginnings (a revision
    begins after a failed attempt). Raises UserError for a prompt that leaves no room in the model's
    context.
    """
    was_training = model.training
    model.eval()
    prompts = prompts if prompts is not None else [prompt_of(task, tokenizer) for task in tasks]
    check_room(prompts, model)
    chances = lambda i: torch.rand(
        room, generator=torch.Generator().manual_seed(seed * 1_000_003 + i)
    )
    waiting = deque(enumerate(prompts))
    rows: list[Row] = []  # all that were begun, in the tasks' order

    def next_rows(most: int) -> list[Row]:
        """The next tasks' rows; their worlds are opened only now."""
        found = [
            Row(tasks[i], prompt, faults, chances(i))
            for i, prompt in (waiting.popleft() for _ in range(min(most, len(waiting))))
        ]
        rows.extend(found)
        return found

    play(
        model,
        tokenizer,
        next_rows,
        batch,
        min(max(map(len, prompts), default=0) + room, model.config.context),
        temperature,
        room,
        tolerance,
        zero_tolerance,
        step,
    )
    model.train(was_training)
    note_window(model, max((len(row.rollout.tokens) - 1 for row in rows), default=0))
    done = [row.rollout for row in rows]
    if broken := [r for r in done if r.problem]:
        first = broken[0]
        print(
            f"note    {len(broken)} of {len(done)} episodes count as failures since something was raised; the first, of "
            f"{first.task.world} (seed {first.task.seed}): {first.problem}",
            file=sys.stderr,
        )
    return done


def begin(model: SAGE, rows: list[Row], limit: int) -> tuple[State, Tensor, Tensor]:
    """Read the rows' prompts: their state with room for `limit` tokens, the logits (B, V) of what
    comes next, and its position (B, 1).
    """
    parameter = next(model.parameters())
    state = State(model.config, len(rows), limit, parameter.dtype, parameter.device)
    tokens, positions = pad([row.rollout.tokens for row in rows], parameter.device)
    last = (positions >= 0).sum(1) - 1
    return (
        state,
        model.logits(
            model.hidden(tokens, state=state, positions=positions)[
                torch.arange(len(rows), device=parameter.device), last
            ]
        ),
        (last + 1)[:, None],
    )


def play(
    model: SAGE,
    tokenizer: Tokenizer,
    next_rows: Callable[[int], list[Row]],
    batch: int,
    limit: int,
    temperature: float,
    room: int,
    tolerance: int,
    zero_tolerance: bool,
    step,
) -> None:
    """Play episodes to their ends, at most `batch` at a time, none longer than `limit` tokens;
    `next_rows(n)` gives up to n that are still to be begun.

    When half of the rows are done they make room for others, so a few long episodes do not keep the
    rest waiting; when no others are left the batch shrinks by halves.
    """
    device = next(model.parameters()).device
    rows = next_rows(batch)
    if not rows:
        return
    state, logits, where = begin(model, rows, limit)
    while True:
        chances = torch.tensor(
            [0.0 if row.rollout.ended else row.chances[row.drawn] for row in rows], device=device
        )
        chosen = choose(logits, temperature, 1.0, chances)  # (B,)
        log_probs = (
            (logits.float() / (temperature or 1.0))
            .log_softmax(-1)
            .gather(1, chosen[:, None])
            .squeeze(1)
            .tolist()
        )
        fed = chosen.tolist()
        for index, row in enumerate(rows):
            r = row.rollout
            if r.ended:
                continue
            writing = not row.queue
            if not writing:
                fed[index] = row.queue.popleft()
            (
                r.tokens.append(fed[index]),
                r.action_mask.append(writing),
                r.log_probs.append(log_probs[index] if writing else 0.0),
            )
            row.drawn += writing
            if writing and fed[index] in tokenizer.stop:
                row.act(tokenizer, tolerance, zero_tolerance)
                row.start = len(r.tokens) + len(row.queue)
            if not r.ended and (len(r.tokens) - row.prompt >= room or len(r.tokens) >= limit):
                row.end("length")
        alive = [index for index, row in enumerate(rows) if not row.rollout.ended]
        fresh = next_rows(batch - len(alive)) if 2 * len(alive) <= len(rows) else []
        if not alive and not fresh:
            return
        chosen = torch.tensor(fed, device=device)
        if fresh or 2 * len(alive) <= len(rows) and len(rows) > 8:  # small batches are cheap anyway
            rows, chosen, where, state = (
                [rows[i] for i in alive],
                chosen[alive],
                where[alive],
                state.select(alive),
            )
        if rows:
            ended = torch.tensor([bool(row.rollout.ended) for row in rows], device=device)
            logits = step(
                model, state, chosen[:, None], where.masked_fill(ended[:, None], -1)
            )  # -1: nothing is kept of a row that is done
            where = where + 1
        if fresh:
            begun = begin(model, fresh, limit)
            state, logits, where = (
                (
                    State.join([state, begun[0]]),
                    torch.cat([logits, begun[1]]),
                    torch.cat([where, begun[2]]),
                )
                if rows
                else begun
            )
            rows = rows + fresh


def episode_rates(done: list[Rollout]) -> dict[str, float]:
    """Rates over episodes: success, refused calls, invented arguments per call and per task,
    recovery from injected faults.
    """
    calls = sum(len(r.log) for r in done)
    met = [r for r in done if r.fault is not None]
    rates = dict(
        success=sum(r.verified for r in done) / len(done),
        calls=calls / len(done),
        invented_per_call=sum(r.invented for r in done) / max(calls, 1),
        invented_per_task=sum(r.invented > 0 for r in done) / len(done),
        invalid_per_call=sum(r.invalid for r in done) / max(calls, 1),
        tokens=sum(sum(r.action_mask) for r in done) / len(done),
    )
    if met:
        rates |= dict(
            faults=len(met),
            recovery=sum(bool(r.recovered) for r in met) / len(met),
            success_after_fault=sum(r.verified for r in met) / len(met),
        )
    return rates | {
        f"ended_{why}": count / len(done)
        for why, count in sorted(Counter(r.ended for r in done).items())
    }
