"""An agent's episode: prompt, message, tool calls carried out, observations, and so on to the
verdict (paper §3.1.3, §6.5).

    rollouts(model, tokenizer, tasks)      an episode of each task, many at a time

An episode is a row of the decoding loop (generate.py). When the model ends a message, the row acts:
it carries out the message's calls in the task's world (worlds/base.py), and what the tools said
becomes forced tokens; or the message is the answer, and the world's verdict ends the episode.

What differs from the usual rollout of several turns: no row ever waits for another's turn to end,
nothing is computed twice, since the cache lives through the whole episode, and training sees the
very tokens that were sampled, not a text encoded anew.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch

import parallel
from config import UserError
from generate import Conversations, Row, decode
from model import SAGE
from support import ranks
from support.model_checks import note_window
from support.interrupts import time_limit
from support.tokenizer import Tokenizer, printable
from worlds.base import Entry, Episode, Task, failed, loop_in
from worlds.calls import read_message
from worlds.expert import invented
from worlds.tools import Fault

MAX_CALLS = 10  # of one episode, or SPARE_CALLS more than its solution has steps, if that is more
SPARE_CALLS = 4  # for an injected fault or two, a refused call, and one or two more
AGAIN = "again"  # the user's word after a failed attempt


@dataclass
class Rollout:
    """One episode as the model lived it. `action_mask` and `log_probs` run beside `tokens`.

    `ended` says why: "answer", "malformed" (zero tolerance), "invalid" (too many wrong calls),
    "time" (too long in its world), "turns" (too many calls), "loop" (the same failure again and
    again, where that ends an episode), "length" (no room left) or "raised" (a bug of ours).
    """

    task: Task
    tokens: list[int]  # the whole conversation: prompt, the model's messages, observations
    action_mask: list[bool]  # which tokens the model sampled, its messages' <|im_end|> included
    # of these, at the temperature they were drawn with (greedy ones at 1); 0 elsewhere
    log_probs: list[float]
    # the model's, without the <|im_end|>; of an answer without its thought
    messages: list[str] = field(default_factory=list)
    ended: str = ""
    verified: bool = False
    # (place in `log`, kind) of the faults that were injected
    faults: list[tuple[int, str]] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)  # the calls
    problem: str = ""  # the exception that was raised, if any
    called: list[int] = field(default_factory=list)  # calls in each of `messages`

    @property
    def invented(self) -> int:
        """Tools and arguments that no schema in force had (one each): the paper's hallucinated
        arguments.
        """
        return invented(self)

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
        """Whether the agent recovered from every injected fault that it met: of the two calls after
        the message that met it, one reached the same tool and did not fail. None where it met none.
        """
        return all(self.recovered_from(place) for place, _ in self.faults) if self.faults else None

    def recovered_from(self, place: int) -> bool:
        """Whether it did for the fault at this place of the log."""
        name = self.log[place].call["name"]
        # behind the message that met it, where the model has been told
        told = next(group[-1] + 1 for group in self.groups if place in group)
        return any(
            e.taken is not None and e.taken["name"] == name and not failed(e.observation)
            for e in self.log[told : told + 2]
        )


# ----------------------------------------------------------------------- what others say, as tokens


def prompt_of(task: Task, tokenizer: Tokenizer) -> list[int]:
    """A task's tools and request, up to where the model begins to write."""
    messages = [{"role": "user", "content": task.request}]
    style = task.difficulty.style
    return tokenizer.encode_chat(messages, task.shown_tools(), style, generation_prompt=True)[0]


def message_tokens(tokenizer: Tokenizer, style: str, role: str, *contents: str) -> list[int]:
    """What others say between two messages of the model's: from after the <|im_end|> of the one
    to where the next begins.
    """
    messages = [{"role": "assistant", "content": ""}]
    messages += [{"role": role, "content": content} for content in contents]
    # rendered behind an empty message of the model's: what follows its <|im_end|> is the others'
    tokens, action_mask = tokenizer.encode_chat(messages, None, style, generation_prompt=True)
    end = max(place for place, own in enumerate(action_mask) if own)
    return tokens[end + 1 :]


def revision_prefix(
    tokenizer: Tokenizer, style: str, attempt: list[int], critique: str
) -> list[int]:
    """What a revision begins with: the failed attempt, the user's "again", and the critique as the
    first line of the model's own message.
    """
    end = [] if attempt[-1] in tokenizer.stop else tokenizer.stop[:1]
    again = message_tokens(tokenizer, style, "user", AGAIN)
    return [*attempt, *end, *again, *tokenizer.encode_inside(f"{critique}\n")]


# -------------------------------------------------------------------------------------- the episode


class EpisodeRow(Row):
    """An episode under way: a row of the decoding loop, and the task's world beside it.

    It ends at `tolerance` refused calls; with `zero_tolerance` at the first call that does not
    parse or names an unknown tool; with `loop` > 0 at so many failures of one kind in a row.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        prompt: list[int],
        uniforms: list[float],
        *,
        room: int = 384,
        temperature: float = 1.0,
        faults: bool = True,
        tolerance: int = 2,
        zero_tolerance: bool = False,
        loop: int = 0,
    ):
        super().__init__(prompt, room, temperature, uniforms)
        self.task, self.tokenizer = task, tokenizer
        self.tolerance, self.zero_tolerance, self.loop = tolerance, zero_tolerance, loop
        self.episode = Episode(task, faults)
        self.rollout = Rollout(task, self.tokens, self.action_mask, self.log_probs)
        self.message_start = len(prompt)

    def message_ended(self) -> None:
        """Act on the message that has just ended: carry out its calls, or take it as the answer."""
        message = self.tokens[self.message_start : -1]
        text, calls = read_message(self.tokenizer.pieces(message))
        self.rollout.messages.append(self.tokenizer.decode(message) if calls else text)
        calls_before = len(self.episode.log)
        observations: list[str] = []
        try:
            if calls:
                self.carry_out(calls, observations)
            else:
                self.answer(text)
        except UserError:
            raise
        except Exception as error:  # a bug of ours costs its episode only
            self.rollout.problem = f"{type(error).__name__}: {error}"
            self.end("raised")
        self.rollout.called.append(len(self.episode.log) - calls_before)
        if not self.ended:
            style = self.task.difficulty.style
            self.forced.extend(message_tokens(self.tokenizer, style, "tool", *observations))
        self.message_start = len(self.tokens) + len(self.forced)

    def answer(self, text: str) -> None:
        """Have the world judge the answer; its thought has been cut off."""
        with self.limited():
            verified = bool(self.episode.verify(text))
        self.rollout.verified = verified and not self.out_of_time
        self.end("time" if self.out_of_time else "answer")

    def carry_out(self, calls: list[tuple[str, dict | Fault]], observations: list[str]) -> None:
        """Carry out a message's calls in order and append what the tools say, while it goes on.

        A call after a refused one is carried out all the same, as it would be in a message of its
        own.
        """
        for text, call in calls:
            if isinstance(call, Fault):
                observations.append(f"error: {call.message}")
                self.episode.log.append(Entry(text, [call], observations[-1], None))
            else:
                with self.limited():
                    observations.append(self.episode.step(call))
            if why := self.over():
                return self.end(why)

    def over(self) -> str:
        """Why the episode ends with the call that was just made; "" if it goes on."""
        log = self.episode.log
        malformed = {fault.kind for fault in log[-1].faults} & {"syntax", "unknown_tool"}
        if self.zero_tolerance and malformed:
            return "malformed"
        if sum(bool(entry.faults) for entry in log) >= self.tolerance:
            return "invalid"
        if self.out_of_time:
            return "time"
        if self.loop and loop_in(log, self.loop):
            return "loop"
        most = max(MAX_CALLS, len(self.task.solution) + SPARE_CALLS)
        return "turns" if len(log) >= most else ""

    @property
    def out_of_time(self) -> bool:
        """Whether the episode has spent the seconds that its world grants."""
        return self.episode.seconds >= self.episode.world.patience

    def limited(self):
        """A context that interrupts the world once the episode's seconds are spent; the episode
        counts the exception as a failure.
        """
        left = self.episode.world.patience - self.episode.seconds
        return time_limit(max(left, 0.001), "the world")

    def end(self, why: str) -> None:
        self.episode.close()  # what it raises becomes `problem`, which is read below
        self.ended = self.rollout.ended = why
        self.rollout.faults, self.rollout.log = self.episode.faults, self.episode.log
        self.rollout.problem = self.rollout.problem or self.episode.problem
        self.rollout.verified &= not self.rollout.problem


def check_prompts(prompts: list[list[int]], model: SAGE) -> None:
    """Raise UserError where the longest prompt leaves no room for an answer in the context."""
    longest = max(map(len, prompts), default=0)
    if longest + 2 > model.config.context:
        raise UserError(
            f"a prompt of {longest} tokens leaves no room in the model's context of "
            f"{model.config.context}; use fewer or shorter tools, or raise model.context"
        )


def uniforms_of(seed: int, number: int, room: int) -> list[float]:
    """The random numbers of episode `number`, one per token: its own, whatever else is played."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**64)
    return torch.rand(room, generator=generator).tolist()


@torch.no_grad()
def rollouts(
    model: SAGE,
    tokenizer: Tokenizer,
    tasks: list[Task],
    temperature: float = 1.0,
    *,
    seed: int = 0,
    batch: int = 64,
    faults: bool = True,
    tolerance: int = 2,
    zero_tolerance: bool = False,
    room: int = 384,
    prompts: list[list[int]] | None = None,
    numbers: list[int] | None = None,
    step=None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Rollout]:
    """One episode of every task, in order, at most `batch` at a time, shared out over the ranks.

    Temperature 0 is greedy. `room` tokens may follow a prompt. `prompts` replaces the tasks' own
    beginnings (a revision begins after a failed attempt). `tolerance` refused calls end an episode,
    with `zero_tolerance` the first one that does not parse or names an unknown tool (CodePPO's
    rule). `numbers` (0, 1, … if None) choose the episodes' random numbers. `step` is decode's.
    `progress` is told now and then how many episodes of how many have ended on this rank.
    Raises UserError for a prompt that leaves no room in the model's context.
    """
    prompts = [prompt_of(task, tokenizer) for task in tasks] if prompts is None else prompts
    check_prompts(prompts, model)
    limit = min(max(map(len, prompts), default=0) + room, model.config.context)
    waiting = deque(ranks.share(range(len(tasks))))
    count = len(waiting)
    rows: list[EpisodeRow] = []  # all that were begun, in the tasks' order

    def begin(most: int) -> list[EpisodeRow]:
        """The next tasks' rows; their worlds are opened only now."""
        if progress:
            progress(sum(bool(row.ended) for row in rows), count)
        fresh = []
        while waiting and len(fresh) < most:
            number = waiting.popleft()
            prompt = prompts[number]
            row = EpisodeRow(
                tasks[number],
                tokenizer,
                prompt,
                uniforms_of(seed, number if numbers is None else numbers[number], room),
                room=min(room, limit - len(prompt)),
                temperature=temperature,
                faults=faults,
                tolerance=tolerance,
                zero_tolerance=zero_tolerance,
            )
            fresh.append(row)
        rows.extend(fresh)
        return fresh

    with parallel.gathered(model):
        if first := begin(batch):
            conversations = Conversations.of_prompts(model, [row.tokens for row in first], limit)
            options = dict(refill=begin, log_prob_temperature=temperature or 1.0, step=step)
            decode(conversations, first, tokenizer.stop, **options)
    note_window(model, max((len(row.tokens) - 1 for row in rows), default=0))
    done = ranks.collect(row.rollout for row in rows)
    note_problems(done)
    return done


def note_problems(done: list[Rollout]) -> None:
    """Say on stderr how many episodes failed because something was raised, and what was first."""
    if broken := [rollout for rollout in done if rollout.problem]:
        task = broken[0].task
        print(
            f"note    {len(broken)} of {len(done)} episodes count as failures since something was "
            f"raised; the first, of {task.world} (seed {task.seed}): "
            f"{printable(broken[0].problem)}",
            file=sys.stderr,
        )


def episode_rates(done: list[Rollout]) -> dict[str, float]:
    """Means over episodes: success, calls, invented and refused calls, the model's tokens, how
    episodes ended; where faults were met, recovery from them.
    """
    calls = sum(len(r.log) for r in done)
    met = [r for r in done if r.faults]
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
