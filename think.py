"""Thinking twice: the hybrid mode, Look-Ahead Simulation, Dual-Process selection and voting (paper
§4.2, §5.1–5.4; equations 7, 12, 14).

    think(model, heads, tokenizer, tasks)            episodes of the worlds, with every step's candidates, their fates and what all of it cost
    votes_of(model, heads, tokenizer, rollouts)      finished episodes of a task as votes, for
    vote(votes)                                      one answer out of n, by several rules

A step is one message: a plan, a thought and one call, or the answer. Mode "fast" (System 1) writes
it once, as rollout.py does. Mode "reason" (System 2) drafts n candidates, imagines for each what
happens if the tool fails, finds nothing or answers as expected, and takes the one of least energy
among those that stay coherent. Mode "hybrid" writes fast and reasons where the gate says so.

    γ = σ(w · [h ; H]) > τ                        equation 7: is a second thought needed? (mch.Gate)
    S(s) = mean of `success` over s's futures     commit only if S ≥ θ and the spread over the futures ≤ δ
    E(s) = −log P(s | h)/|s| − λ · ICS(s)         equation 14; log P(Z, Y | C) is equation 12's objective, ICS equation 13's (mch.InverseConsistencyHead)

What differs from best-of-n with a reward model: candidates share their prefix's cache, nothing of
it is computed again; what is not good enough is not
only outvoted but drawn again, with `critique` told what was wrong with it; and everything is
counted: forward FLOPs, tokens and seconds of each single decision.
"""

import re
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from config import Think
from generate import pad
from mch import Heads, constraint_texts, surprise_of
from model import SAGE
from agent import Rollout, Row, revision_prefix, message_tokens, check_room, prompt_of
from support.runtime import time_limit
from worlds.labels import PART_NAMES, PARTS
from talk import Cost, Talk, forward_flops
from support.tokenizer import Tokenizer
from worlds.tools import read, sorted_out
from worlds.base import FAULT_KINDS, FAULT_TEXTS, Task

SUCCESS = PART_NAMES.index("success")
SAID = {  # what tools are imagined to say: training's words
    "error": [
        f"error: {FAULT_TEXTS[kind].train[0]}".format(key="id", value=1, new=2)
        for kind in FAULT_KINDS
    ],
    "empty": ["no result"],
}


# ------------------------------------------------------------------------------------------------------
# what is recorded


@dataclass
class Future:
    """One imagined continuation of a candidate: what the tool says, the agent's next step, and the
    head's `success` behind it.
    """

    kind: str
    said: str
    then: str
    success: float


@dataclass(eq=False)
class Candidate:
    """One draft of a step, with all that speaks for and against it.

    Nothing but text and log_probs is known where the step was not reasoned about.
    """

    row: int  # the conversation it was written for
    round: int  # 0: drawn at once; n: after n rounds of which nothing was good enough
    tokens: list[int]
    log_probs: list[float]  # of its tokens behind the episode so far, at temperature 1
    entropy: float  # the largest of the distributions its tokens were drawn from, in nats
    text: str
    ended: bool  # by <|im_end|>, not for want of room
    times: int = 1  # how often it was drawn
    confidence: list[float] | None = None  # in the order of worlds.labels.PARTS
    futures: list[Future] = field(default_factory=list)
    coherence: float = 0.0  # S
    spread: float = 0.0
    ics: float | None = None  # nats; None where λ = 0
    prior: float | None = None
    energy: float = 0.0
    fate: str = "rejected"  # "fast", "committed", "fallback", "rejected"
    reason: str = ""  # of the fate, in words

    @property
    def log_prob(self) -> float:
        """log P(s | h)/|s|: mean nats a token."""
        return sum(self.log_probs) / max(len(self.log_probs), 1)


@dataclass
class Step:
    """One message of the agent: how it was decided, and what came of it."""

    candidates: list[Candidate] = field(default_factory=list)
    chosen: Candidate | None = None
    reasoned: bool = False
    gate: float | None = None  # γ; None where nothing was asked (modes fast and reason)
    told: list[str] = field(default_factory=list)  # critiques of rejected rounds
    said: list[str] = field(default_factory=list)  # by the tools, one text per call
    cost: Cost = field(default_factory=Cost)


@dataclass
class Thinking:
    """An episode with its decisions.

    `rollout` is as rollout.py has it, its log_probs at temperature 1; `reading` is the prompt's
    cost.
    """

    rollout: Rollout
    steps: list[Step] = field(default_factory=list)
    reading: Cost = field(default_factory=Cost)

    @property
    def cost(self) -> Cost:
        return sum((step.cost for step in self.steps), self.reading)


# ------------------------------------------------------------------------------------------------------
# an episode's line


class Line(Row):
    """An episode under way that thinks: rollout.Row, which executes what it writes, with a record
    of the decisions.
    """

    def __init__(
        self,
        task: Task,
        tokens: list[int],
        faults: bool,
        number: int,
        seed: int,
        settings: Think,
        limit: int,
    ):
        super().__init__(
            task,
            tokens,
            faults,
            torch.rand(
                settings.room, generator=torch.Generator().manual_seed(seed * 1_000_003 + number)
            ),
        )
        self.thinking, self.name, self.limit = (
            Thinking(self.rollout),
            f"{seed} {number}",
            min(len(tokens) + settings.room, limit),
        )

    @property
    def left(self) -> int:
        """Tokens that the episode may still have."""
        return self.limit - len(self.rollout.tokens)

    def draws(self, round: int, place: int) -> list[float]:
        """The numbers that decide what a candidate says; those of the first one are a rollout's."""
        if round == place == 0:
            return self.chances[self.drawn :]
        name = f"{self.name} {len(self.thinking.steps)} {round} {place}"
        return torch.rand(
            self.left, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))
        ).tolist()

    def say(self, step: Step) -> None:
        """Take the step's message into the episode."""
        r, chosen = self.rollout, step.chosen
        self.start = len(r.tokens)
        r.tokens += chosen.tokens
        r.action_mask += [True] * len(chosen.tokens)
        r.log_probs += chosen.log_probs
        self.drawn += len(chosen.tokens)
        self.thinking.steps.append(step)

    def hear(self, tokenizer: Tokenizer, patience: float) -> list[int]:
        """Have the last step's message executed, as in a rollout: the tokens of what tools said."""
        r, step, calls = self.rollout, self.thinking.steps[-1], len(self.episode.log)
        if step.chosen.ended:
            with time_limit(patience, "the tool"):
                self.act(tokenizer, 2, False)
            step.said = [entry.said for entry in self.episode.log[calls:]]
        said = list(self.queue)[: self.left]
        self.queue.clear()
        r.tokens += said
        r.action_mask += [False] * len(said)
        r.log_probs += [0.0] * len(said)
        if not r.ended and self.left == 0:
            self.end("length")
        return said


# ------------------------------------------------------------------------------------------------------
# the hybrid step


class Thinker:
    """Model, heads and settings that decide steps.

    `gate` maps hidden states (N, D) and largest entropies (N,) to values (N,); by default equation
    7.
    """

    def __init__(
        self,
        model: SAGE,
        heads: Heads,
        tokenizer: Tokenizer,
        settings: Think,
        gate: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.model, self.heads, self.tokenizer, self.settings = model, heads, tokenizer, settings
        self.gate = gate or (lambda hidden, entropy: torch.sigmoid(heads["gate"](hidden, entropy)))
        self.tau = settings.tau if settings.tau >= 0 else float(heads.tau)

    def step(self, talk: Talk, lines: list[Line]) -> tuple[Talk, list[Line], list[Step]]:
        """One step of every conversation.

        Back come the conversations behind their chosen steps, with their lines and steps in the
        same order.
        """
        s, steps, everyone = self.settings, [Step() for _ in lines], [*range(len(lines))]
        talk.bills, began = [step.cost for step in steps], time.perf_counter()
        before = (
            talk.select(everyone) if s.mode == "hybrid" else talk
        )  # what further candidates go on from
        if s.mode != "reason":  # System 1
            for step, candidate in zip(
                steps, self.draft(talk, lines, everyone, [0] * len(lines), 0)
            ):
                step.candidates, step.chosen, candidate.fate = [candidate], candidate, "fast"
        slow = {
            "fast": lambda: [],
            "reason": lambda: everyone,
            "hybrid": lambda: self.doubted(talk, steps),
        }[s.mode]()
        began = share(began, talk.bills)
        pool, pooled, open_ = [], [], slow
        for round in range(1 + s.resamples):  # System 2
            if open_:
                new, candidates = self.candidates(talk, before, lines, steps, open_, round)
                self.weigh(new, candidates, lines)
                pool, pooled = [Talk.join([*pool, new])], pooled + candidates
                open_ = [
                    i
                    for i in open_
                    if not self.commit(
                        steps[i], [c for c in pooled if c.row == i], last=round == s.resamples
                    )
                ]
        quick = [i for i in everyone if i not in slow]
        if slow:
            talk = Talk.join(
                [talk.select(quick), pool[0].select([pooled.index(steps[i].chosen) for i in slow])]
            )
            share(began, [steps[i].cost for i in slow])
        return talk, [lines[i] for i in quick + slow], [steps[i] for i in quick + slow]

    def doubted(self, talk: Talk, steps: list[Step]) -> list[int]:
        """Equation 7: the conversations whose fast step deserves a second thought, from what the
        fast pass has left behind.
        """
        hidden = talk.hidden[
            torch.arange(len(steps), device=talk.hidden.device), talk.state.cache.lengths - 1
        ]
        entropy = torch.tensor([step.chosen.entropy for step in steps], device=hidden.device)
        for step, gamma in zip(steps, self.gate(hidden, entropy).tolist()):
            step.gate = gamma
        return [i for i, step in enumerate(steps) if step.gate > self.tau]

    def draft(
        self, talk: Talk, lines: list[Line], rows: list[int], places: list[int], round: int
    ) -> list[Candidate]:
        """Every row of `talk` writes a message: for lines[rows[k]], as candidate number places[k]
        of a round.
        """
        s = self.settings
        written = talk.write(
            [lines[i].draws(round, place) for i, place in zip(rows, places)],
            [s.temperature if round or place else s.fast_temperature for place in places],
            [min(lines[i].left, free) for i, free in zip(rows, talk.free())],
            self.tokenizer.stop,
        )
        return [
            Candidate(
                i,
                round,
                tokens,
                log_probs,
                entropy,
                self.text(tokens),
                tokens[-1] in self.tokenizer.stop,
            )
            for i, (tokens, log_probs, entropy) in zip(rows, written)
        ]

    def written(self, tokens: list[int]) -> list[int]:
        """A message without its stop."""
        return tokens[:-1] if tokens[-1:] and tokens[-1] in self.tokenizer.stop else tokens

    def text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(self.written(tokens))

    def calls(self, tokens: list[int]) -> list[dict]:
        """The well-formed calls in a message."""
        _, calls = read(self.tokenizer.pieces(self.written(tokens)))
        return sorted_out([call for _, call in calls])[0]

    def candidates(
        self,
        talk: Talk,
        before: Talk,
        lines: list[Line],
        steps: list[Step],
        open_: list[int],
        round: int,
    ) -> tuple[Talk, list[Candidate]]:
        """n candidates for each open conversation, equal ones as one: a row each.

        The fast step is the first, if there was one.
        """
        s = self.settings
        fast = [steps[i].chosen for i in open_] if round == 0 and s.mode == "hybrid" else []
        places = range(len(fast) > 0, s.n)
        rows, numbers = (
            [i for i in open_ for _ in places],
            [place for _ in open_ for place in places],
        )
        if round and s.critique:
            asked = before.select(open_)
            asked.read([self.critique(lines[i], steps[i]) for i in open_])
            drafts = self.draft(
                asked.select([open_.index(i) for i in rows]), lines, rows, numbers, round
            )
            new = before.select(
                rows
            )  # the step goes into the episode without what provoked it, and is judged there
            for candidate, log_probs in zip(
                drafts, new.read([candidate.tokens for candidate in drafts], judged=True)
            ):
                candidate.log_probs = log_probs
        else:
            new = before.select(rows)
            drafts = self.draft(new, lines, rows, numbers, round)
        if fast:
            new, drafts = Talk.join([talk.select(open_), new]), fast + drafts
        first: dict[tuple, int] = {}
        for place, candidate in enumerate(drafts):
            if (same := first.setdefault((candidate.row, *candidate.tokens), place)) != place:
                drafts[same].times += 1
        return new if len(first) == len(drafts) else new.select([*first.values()]), [
            drafts[place] for place in first.values()
        ]

    def critique(self, line: Line, step: Step) -> list[int]:
        """What stands before new candidates: the best of the rejected ones, "again", and what is
        wrong with it, in the words that stage reflect teaches the agent to heed.
        """
        best = least(step.candidates)
        confidence = min(best.confidence)
        part = PARTS[best.confidence.index(confidence)]
        if any(future.success < confidence for future in best.futures):
            part = PARTS[SUCCESS]
        step.told.append(part.critique)
        return revision_prefix(
            self.tokenizer, line.rollout.task.difficulty.style, best.tokens, part.critique
        )

    def weigh(self, talk: Talk, candidates: list[Candidate], lines: list[Line]) -> None:
        """Equations 6, 13 and 14, and Look-Ahead Simulation: what speaks for each candidate, and
        `reason`, why it is not good enough, if it is not.
        """
        s = self.settings
        for candidate, confidence in zip(candidates, talk.confide().tolist()):
            candidate.confidence = confidence
        self.look_ahead(talk, candidates, lines)
        if s.lam:
            self.invert(talk, candidates, lines)
        for c in candidates:
            success = [future.success for future in c.futures] or [c.confidence[SUCCESS]]
            c.coherence, c.spread = sum(success) / len(success), max(success) - min(success)
            c.energy = -c.log_prob - s.lam * (c.ics or 0.0)
            if not c.ended:
                c.reason = "it does not end"
            elif c.coherence < s.theta:
                c.reason = f"coherence {c.coherence:.2f}, wanted {s.theta:.2f}"
            elif c.spread > s.delta:
                c.reason = f"unsteady: its futures differ by {c.spread:.2f}, allowed {s.delta:.2f}"

    def look_ahead(self, talk: Talk, candidates: list[Candidate], lines: list[Line]) -> None:
        """Look-Ahead Simulation: behind each candidate that calls a tool, what the tool might say
        and what the agent would do then, with the head's `success` there.

        Of a candidate with several calls each is imagined to be told the same. A step that does not
        end within `ahead` tokens counts 0.
        """
        s, kinds = (
            self.settings,
            [kind for kind in self.settings.counterfactuals.split(",") if kind],
        )
        calls = [len(self.calls(c.tokens)) if c.ended else 0 for c in candidates]
        acting = [row for row, number in enumerate(calls) if number]
        if not kinds or not acting:
            return
        styles = {row: lines[candidates[row].row].rollout.task.difficulty.style for row in acting}
        expected = (
            self.expected(talk.select(acting), styles[acting[0]]) if "expected" in kinds else []
        )
        said = [
            expected[place]
            if kind == "expected"
            else SAID[kind][kinds[:number].count(kind) % len(SAID[kind])]
            for place in range(len(acting))
            for number, kind in enumerate(kinds)
        ]
        rows = [row for row in acting for _ in kinds]
        future = talk.select(rows)
        future.read(
            [
                message_tokens(self.tokenizer, styles[row], "tool", *[text] * calls[row])
                for row, text in zip(rows, said)
            ]
        )
        written = future.write(
            [[]] * len(said), [0.0] * len(said), [s.ahead] * len(said), self.tokenizer.stop
        )
        for number, (success, (tokens, _, _)) in enumerate(
            zip(future.confide()[:, SUCCESS].tolist(), written)
        ):
            ended = tokens[-1] in self.tokenizer.stop
            candidates[acting[number // len(kinds)]].futures.append(
                Future(
                    kinds[number % len(kinds)],
                    said[number],
                    self.text(tokens),
                    success if ended else 0.0,
                )
            )

    def expected(self, talk: Talk, style: str) -> list[str]:
        """What the model itself expects a tool to say to each row's call."""
        zero, one = (message_tokens(self.tokenizer, style, "tool", text) for text in "01")
        cut = next(place for place, (a, b) in enumerate(zip(zero, one)) if a != b)
        talk.read([zero[:cut]] * len(talk.bills))
        stop = [zero[cut + 1], *self.tokenizer.stop]
        written = talk.write(
            [[]] * len(talk.bills),
            [0.0] * len(talk.bills),
            [self.settings.ahead] * len(talk.bills),
            stop,
        )
        return [
            self.tokenizer.decode(token for token in tokens if token not in stop)
            for tokens, _, _ in written
        ]

    def invert(self, talk: Talk, candidates: list[Candidate], lines: list[Line]) -> None:
        """Equation 13 for each candidate:

        Z and Y are the agent's own words so far and the candidate.
        """
        conclusions = [
            conclusion(lines[c.row].rollout, self.tokenizer, c.tokens) for c in candidates
        ]
        constraints = {
            i: constraint_tokens(lines[i].rollout.task, self.tokenizer)
            for i in {c.row for c in candidates}
        }
        scores = self.heads["inverse"].scores(
            self.model, conclusions, [constraints[c.row] for c in candidates]
        )
        for bill, c, words, ics, prior in zip(talk.bills, candidates, conclusions, *scores):
            c.ics, c.prior = ics, prior
            asked = sum(map(len, constraints[c.row]))
            for config, unembedded in (
                (self.model.config, asked),
                (self.heads["inverse"].config, 0),
            ):
                bill.flops += forward_flops(config, len(words) + asked, len(words), unembedded)
            bill.tokens += len(words) + asked

    def commit(self, step: Step, candidates: list[Candidate], last: bool) -> bool:
        """Equation 14 among the candidates that are good enough; if none is and nothing more will
        be drawn, among all, and the trace says so.
        """
        step.reasoned, step.candidates = True, candidates
        good = [c for c in candidates if not c.reason]
        if not good and not last:
            return False
        step.chosen = least(good or candidates)
        step.chosen.fate = "committed" if good else "fallback"
        for c in candidates:
            c.fate = c.fate if c is step.chosen else "rejected"
            c.reason = c.reason or (
                ""
                if c is step.chosen
                else f"energy {c.energy:.3f}, the chosen one has {step.chosen.energy:.3f}"
            )
        return True


def share(began: float, bills: list[Cost]) -> float:
    """Put the seconds since `began` on bills, evenly; what the clock says now."""
    now = time.perf_counter()
    for bill in bills:
        bill.seconds += (now - began) / len(bills)
    return now


def least(candidates: list[Candidate]) -> Candidate:
    """The candidate of least energy; one that does not end only where none does."""
    return min([c for c in candidates if c.ended] or candidates, key=lambda c: c.energy)


def conclusion(rollout: Rollout, tokenizer: Tokenizer, more: list[int] = ()) -> list[int]:
    """Z and Y as the inverse head reads them: the agent's own words of an episode, closed by
    <|im_end|>.
    """
    words = [token for token, own in zip(rollout.tokens, rollout.action_mask) if own] + list(more)
    return words if words[-1:] == tokenizer.stop[:1] else [*words, tokenizer.stop[0]]


def constraint_tokens(task: Task, tokenizer: Tokenizer) -> list[list[int]]:
    """C as the inverse head is asked for it."""
    return [
        [*tokenizer.encode(text), tokenizer.stop[0]]
        for text in constraint_texts(task.constraints, task.request)
    ]


@torch.no_grad()
def think(
    model: SAGE,
    heads: Heads,
    tokenizer: Tokenizer,
    tasks: list[Task],
    settings: Think | None = None,
    seed: int = 0,
    batch: int = 16,
    faults: bool = True,
    gate: Callable[[Tensor, Tensor], Tensor] | None = None,
    watch: Callable[[Thinking], None] = lambda thinking: None,
) -> list[Thinking]:
    """One episode of every task, in order, `batch` of them together; each draws its own random
    numbers, so it does not depend on the others.

    In mode "fast" it is rollout.rollouts' episode, token for token. `watch` is called with an
    episode whenever it has said or heard something. Raises UserError for a
    prompt that leaves no room in the model's context.
    """
    s = settings or Think()
    model.eval(), heads.eval()
    thinker, prompts = (
        Thinker(model, heads, tokenizer, s, gate),
        [prompt_of(task, tokenizer) for task in tasks],
    )
    check_room(prompts, model)
    done: list[Thinking] = []
    for start in range(0, len(tasks), batch):
        numbers = range(start, min(start + batch, len(tasks)))
        lines = [
            Line(tasks[i], prompts[i], faults, i, seed, s, model.config.context) for i in numbers
        ]
        done += [line.thinking for line in lines]
        # an episode, and what is only imagined behind it: a result and a step, or a critique and a
        # new candidate
        talk = Talk(
            model,
            heads,
            [line.thinking.reading for line in lines],
            max(line.limit for line in lines) + 2 * s.ahead + 128,
        )
        began = time.perf_counter()
        talk.read([prompts[i] for i in numbers])
        share(began, talk.bills)
        while lines:
            talk, lines, steps = thinker.step(talk, lines)
            said = []
            for line, step in zip(lines, steps):
                line.say(step)
                watch(line.thinking)
                said.append(line.hear(tokenizer, s.patience))
                watch(line.thinking)
            alive = [row for row, line in enumerate(lines) if not line.rollout.ended]
            if alive:
                talk = talk if len(alive) == len(lines) else talk.select(alive)
                began = time.perf_counter()
                talk.read([said[row] for row in alive])
                share(began, talk.bills)
            lines = [lines[row] for row in alive]
    return done


# ------------------------------------------------------------------------------------------------------
# votes


@dataclass(eq=False)
class Vote:
    """One finished episode of a task as a vote for its answer."""

    # its last line, up to case, spaces and full stop; "" where it has none, and then it does not
    # vote
    answer: str
    verified: bool
    success: float  # the head's, at its last word
    gain: float  # ICS − prior, in nats
    energy: float  # equation 14 of the whole episode


@torch.no_grad()
def votes_of(
    model: SAGE,
    heads: Heads,
    tokenizer: Tokenizer,
    done: list[Rollout],
    lam: float = Think.lam,
    batch: int = 32,
) -> list[Vote]:
    """Episodes, sampled at temperature 1, as votes: one forward pass over each for the head, one
    over its conclusion for the inverse head.
    """
    votes = []
    for start in range(0, len(done), batch):
        some = done[start : start + batch]
        tokens, _ = pad([r.tokens for r in some], next(model.parameters()).device)
        last = torch.tensor(
            [max(place for place, own in enumerate(r.action_mask) if own) for r in some],
            device=tokens.device,
        )
        hidden, own = (
            model.hidden(tokens),
            pad([list(map(int, r.action_mask)) for r in some], tokens.device)[0].bool(),
        )
        confidence = heads["meta"].confidence(
            heads["meta"](hidden, surprise_of(model, tokens, hidden, own))[
                torch.arange(len(some), device=tokens.device), last
            ]
        )
        scores = heads["inverse"].scores(
            model,
            [conclusion(r, tokenizer) for r in some],
            [constraint_tokens(r.task, tokenizer) for r in some],
        )
        for r, success, ics, prior in zip(some, confidence[:, SUCCESS].tolist(), *scores):
            line = (
                (r.messages[-1].strip().lower().splitlines() or [""])[-1]
                if r.ended == "answer"
                else ""
            )
            votes.append(
                Vote(
                    " ".join(re.findall(r"\w+|[^\w\s]", line.rstrip(". "))),
                    r.verified,
                    success,
                    ics - prior,
                    -sum(r.log_probs) / max(sum(r.action_mask), 1) - lam * ics,
                )
            )
    return votes


def vote(votes: list[Vote], drop: float = 0.5) -> dict[str, Vote | None]:
    """Which of n episodes of one task each rule chooses; None where it has nothing to choose from.

    Majorities' ties are broken by energy. "ICS-filtered" is the paper's: the share `drop` with the
    least gain in inverse consistency does not vote.
    "oracle" knows the answer: what a perfect rule would get.
    """
    answered = [v for v in votes if v.answer]
    kept = sorted(answered, key=lambda v: -v.gain)[: len(answered) - int(drop * len(answered))]

    def most(some: list[Vote], weight: Callable[[Vote], float]) -> Vote | None:
        totals: Counter = Counter()
        for v in sorted(some, key=lambda v: v.energy):  # insertion order breaks ties
            totals[v.answer] += weight(v)
        best = max(totals, key=totals.get, default=None)
        return min((v for v in some if v.answer == best), key=lambda v: v.energy, default=None)

    return {
        "one sample": votes[0] if votes else None,
        "majority": most(answered, lambda v: 1),
        "ICS-filtered": most(kept, lambda v: 1),
        "head-weighted": most(answered, lambda v: v.success),
        "least energy": min(answered, key=lambda v: v.energy, default=None),
        "oracle": next((v for v in votes if v.verified), None),
    }
