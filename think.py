"""Thinking twice: the hybrid mode, Look-Ahead Simulation, Dual-Process selection and voting (paper
§4.2, §5.1–5.4; equations 7, 12, 14).

A step is one message: a plan, a thought and a call, or the answer. Mode "fast" (System 1) writes it
once. Mode "reason" (System 2) drafts n candidates, imagines for each what happens if the tool
fails, finds nothing or answers as expected, and commits to the one of least energy among those
that stay coherent. Mode "hybrid" writes fast, and reasons where the gate asks for it.

    γ = σ(w · [h ; H] + b) > τ                    equation 7: is a second thought needed?
    S(s) = mean of `success` over s's futures     good: S ≥ θ, and the futures' spread ≤ δ
    E(s) = −log P(s | h)/|s| − λ · ICS(s)         equation 14, with ICS of equation 13

In γ, h is the hidden state at the step's end and H the largest entropy of its tokens; in P(s | h),
h is the conversation before the step. Where nothing is good after the last round, the least energy
of all is taken; its `fate` says "fallback".

`Thinker.take_step` is the step as the paper tells it: one conversation, judged by whole forward
passes. fast/thinking.py takes the same steps for many episodes at once, with caches;
tests/test_think.py holds the two equal, token for token.

What differs from best-of-n with a reward model: what is not good enough is not only outvoted but
drawn again; with `critique`, after the rejected step and one line about what was wrong with it.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle

import torch
from torch import Tensor

from agent import EpisodeRow, Rollout, message_tokens, prompt_of, revision_prefix, uniforms_of
from config import Think
from generate import Conversations, Row, decode, pad
from mch import ThinkingHeads, closed, constraint_texts, surprise_of
from model import SAGE
from support.interrupts import time_limit
from support.tokenizer import Tokenizer
from worlds.base import LOOP, Task, loop_in, words_of
from worlds.faults import FAULT_KINDS, FAULT_TEXTS
from worlds.labels import PART_NAMES, PARTS
from worlds.calls import calls_and_faults, read_message

SUCCESS = PART_NAMES.index("success")
FAULTS_IMAGINED = [  # in training's words
    f"error: {FAULT_TEXTS[kind].train[0]}".format(key="id", value=1, new=2) for kind in FAULT_KINDS
]

NOTHING = "no result"
IMAGINED_CALLS = 4  # of one message; what tools would say to a fifth is not imagined

# --------------------------------------------------------------------------------- what is recorded


@dataclass
class Cost:
    """What a decision took: tokens through the decoder, forward FLOPs of decoder and heads, and
    seconds (of a batch: its even share).
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        tokens, flops = self.tokens + other.tokens, self.flops + other.flops
        return Cost(tokens, flops, self.seconds + other.seconds)


@dataclass
class Future:
    """One imagined continuation of a candidate: what the tool says, the agent's next step, and the
    head's `success` at its end.
    """

    kind: str
    observation: str
    next_step: str
    success: float


@dataclass(eq=False)
class Candidate:
    """One draft of a step, with the evidence for and against it. Where the step was not reasoned
    about, only its text and log-probabilities are there.
    """

    owner: int  # the conversation it was written for
    round: int  # how many rounds had been rejected before it was drawn
    tokens: list[int]
    log_probs: list[float]  # of its tokens after the episode so far, at temperature 1
    entropy: float  # the largest of its tokens' distributions at temperature 1, in nats
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
    # what `weigh` found against it, "" if it is good; then why another was chosen
    against: str = ""

    @property
    def log_prob(self) -> float:
        """log P(s | h)/|s|: mean nats per token."""
        return sum(self.log_probs) / max(len(self.log_probs), 1)


@dataclass
class Decision:
    """One step of the agent: how it was decided, and what came of it."""

    candidates: list[Candidate] = field(default_factory=list)
    chosen: Candidate | None = None
    reasoned: bool = False
    gate: float | None = None  # γ; None where the gate was not asked (modes fast and reason)
    critiques: list[str] = field(default_factory=list)  # of rejected rounds
    observations: list[str] = field(default_factory=list)  # the tools', one text per call
    loop: str = ""  # the loop that the episode is in after it, in words (worlds.base.loop_in)
    cost: Cost = field(default_factory=Cost)


@dataclass
class Thinking:
    """An episode with its decisions. `rollout` has log_probs at temperature 1; `reading` is the
    cost of reading the prompt and what tools said.
    """

    rollout: Rollout
    steps: list[Decision] = field(default_factory=list)
    reading: Cost = field(default_factory=Cost)

    @property
    def cost(self) -> Cost:
        return sum((step.cost for step in self.steps), self.reading)


class ThinkingEpisode(EpisodeRow):
    """An episode whose messages are decided step by step, with a record of the decisions."""

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        settings: Think,
        context: int,
        *,
        number: int = 0,
        seed: int = 0,
        faults: bool = True,
        tolerance: int = 2,
    ):
        prompt = prompt_of(task, tokenizer)
        room = min(settings.room, context - len(prompt))
        uniforms = uniforms_of(seed, number, settings.room)
        options = dict(room=room, faults=faults, tolerance=tolerance, loop=settings.loop)
        super().__init__(task, tokenizer, prompt, uniforms, **options)
        self.thinking = Thinking(self.rollout)
        self.name = f"{seed} {number}"
        self.patience = settings.patience

    @property
    def style(self) -> str:
        return self.task.difficulty.style

    def draws(self, round: int, place: int) -> list[float]:
        """Random numbers for candidate `place` of a round. Candidate 0 of round 0 takes those that
        agent.rollouts would, so that mode "fast" plays the same episodes.
        """
        if round == place == 0:
            return self.uniforms[self.draws_used :]
        name = f"{self.name} {len(self.thinking.steps)} {round} {place}"
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return torch.rand(self.room, generator=generator).tolist()

    def commit(self, decision: Decision) -> None:
        """Take the chosen message into the episode."""
        chosen = decision.chosen
        self.message_start = len(self.tokens)
        self.tokens += chosen.tokens
        self.action_mask += [True] * len(chosen.tokens)
        self.log_probs += chosen.log_probs
        self.draws_used += len(chosen.tokens)
        self.room -= len(chosen.tokens)
        self.thinking.steps.append(decision)

    def execute(self) -> list[int]:
        """Carry out the last message, as a rollout does: the tokens of what the tools said."""
        decision = self.thinking.steps[-1]
        calls_before = len(self.episode.log)
        if decision.chosen.ended:
            with time_limit(self.patience, "the tool"):
                self.message_ended()
            decision.observations = [entry.observation for entry in self.episode.log[calls_before:]]
            decision.loop = (
                loop_in(self.episode.log, self.loop or LOOP) if decision.observations else ""
            )
        observed = list(self.forced)[: self.room]
        self.forced.clear()
        self.tokens += observed
        self.action_mask += [False] * len(observed)
        self.log_probs += [0.0] * len(observed)
        self.room -= len(observed)
        if not self.ended and self.room == 0:
            self.end("length")
        return observed


# ------------------------------------------------------------------------ the rules, shared by both


def weigh(c: Candidate, s: Think) -> None:
    """Coherence, spread and energy of a candidate from its confidence, futures and ICS; `against`
    says why it is not good enough, if it is not.
    """
    success = [future.success for future in c.futures] or [c.confidence[SUCCESS]]
    c.coherence = sum(success) / len(success)
    c.spread = max(success) - min(success)
    c.energy = -c.log_prob - s.lam * (c.ics or 0.0)  # equation 14
    if not c.ended:
        c.against = "it does not end"
    elif c.coherence < s.theta:
        c.against = f"coherence {c.coherence:.2f}, wanted {s.theta:.2f}"
    elif c.spread > s.delta:
        c.against = f"unsteady: its futures differ by {c.spread:.2f}, allowed {s.delta:.2f}"


def least(candidates: list[Candidate]) -> Candidate:
    """The candidate of least energy among those that end; where none does, among all."""
    ended = [c for c in candidates if c.ended]
    return min(ended or candidates, key=lambda c: c.energy)


def decide(decision: Decision, candidates: list[Candidate], last: bool) -> bool:
    """Commit to the least energy among the good candidates; if none is good and nothing more will
    be drawn (`last`), among all. Returns whether the step is decided.
    """
    decision.reasoned, decision.candidates = True, candidates
    good = [c for c in candidates if not c.against]  # `weigh` found nothing against them
    if not good and not last:
        return False
    decision.chosen = chosen = least(good or candidates)
    for c in candidates:
        c.fate = "rejected"
        if not c.against and c is not chosen:
            c.against = f"energy {c.energy:.3f}, the chosen one has {chosen.energy:.3f}"
    chosen.fate = "committed" if good else "fallback"
    return True


def critique_best(decision: Decision) -> tuple[Candidate, str]:
    """The best of the rejected candidates, and a critique: the least part of its confidence, or
    `success` where a future has less, in the words that stage reflect teaches the agent to heed.
    """
    best = least(decision.candidates)
    part, confidence = min(zip(PARTS, best.confidence, strict=True), key=lambda pair: pair[1])
    if any(future.success < confidence for future in best.futures):
        part = PARTS[SUCCESS]
    return best, part.critique


def critique_prefix(
    episode: EpisodeRow, decision: Decision, tokenizer: Tokenizer, context: int
) -> tuple[list[int], str]:
    """What new candidates are written after (the best rejected one, "again", its critique), and
    the critique alone, for the decision to keep. Nothing and "", where the model's context has no
    room for that and all that the episode may still add.
    """
    best, critique = critique_best(decision)
    style = episode.task.difficulty.style
    prefix = revision_prefix(tokenizer, style, best.tokens, critique)
    if len(episode.tokens) + len(prefix) + episode.room > context:
        return [], ""
    return prefix, critique


def imagined_results(s: Think) -> list[tuple[str, str | None]]:
    """Kind and text of what the tool says in each future; None: what the model itself expects."""
    errors = cycle(FAULTS_IMAGINED)
    results = []
    for kind in filter(None, s.counterfactuals.split(",")):
        text = NOTHING if kind == "empty" else None
        results.append((kind, next(errors) if kind == "error" else text))
    return results


def message_of(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """A message without its stop token."""
    return tokens[:-1] if tokens and tokens[-1] in tokenizer.stop else tokens


def calls_in(tokens: list[int], tokenizer: Tokenizer) -> list[dict]:
    """The well-formed calls in a message."""
    _, calls = read_message(tokenizer.pieces(message_of(tokens, tokenizer)))
    return calls_and_faults([call for _, call in calls])[0]


def guessed_text(tokens: list[int], tokenizer: Tokenizer, most: int) -> str:
    """What the model expects a tool to say, cut to `most` tokens. It is encoded anew for the cut:
    half a character becomes U+FFFD, which takes more tokens than were written.
    """
    text = tokenizer.decode(message_of(tokens, tokenizer))
    text = text.partition("</tool_response>")[0].rstrip("\n")
    return tokenizer.decode(tokenizer.encode_inside(text)[:most])


@cache
def future_room(tokenizer: Tokenizer, style: str, ahead: int) -> int:
    """The most tokens of a future: what tools say to IMAGINED_CALLS calls, and the step after."""
    known = [len(tokenizer.encode_inside(text)) for text in [*FAULTS_IMAGINED, NOTHING]]
    longest = max(ahead + 3, *known)  # a character that was cut is read as up to 3 tokens more
    frame = len(message_tokens(tokenizer, style, "tool", *[""] * IMAGINED_CALLS))
    return frame + IMAGINED_CALLS * longest + ahead


def imagined_calls(
    episode: EpisodeRow, c: Candidate, tokenizer: Tokenizer, s: Think, context: int
) -> int:
    """How many of a candidate's calls are imagined to be answered: none where it does not end, or
    where a future would not fit into the model's context.
    """
    if not c.ended:
        return 0
    style = episode.task.difficulty.style
    longest = len(episode.tokens) + len(c.tokens) + future_room(tokenizer, style, s.ahead)
    return 0 if longest > context else min(len(calls_in(c.tokens, tokenizer)), IMAGINED_CALLS)


def response_opening(tokenizer: Tokenizer, style: str) -> list[int]:
    """The tokens that open a tool's response: those before "0" and "1" differ as responses."""
    zero, one = (message_tokens(tokenizer, style, "tool", text) for text in "01")
    return zero[: next(place for place, (a, b) in enumerate(zip(zero, one)) if a != b)]


def candidate_of(row: Row, owner: int, round: int, tokenizer: Tokenizer) -> Candidate:
    """What a row has written, as a candidate for conversation `owner`."""
    text = tokenizer.decode(message_of(row.tokens, tokenizer))
    ended = row.tokens[-1] in tokenizer.stop
    return Candidate(owner, round, row.tokens, row.log_probs, max(row.entropies), text, ended)


def conclusion(rollout: Rollout, tokenizer: Tokenizer, more: list[int] = ()) -> list[int]:
    """Z and Y as the inverse head reads them: the agent's own words of an episode, closed by
    <|im_end|>.
    """
    words = [token for token, mine in zip(rollout.tokens, rollout.action_mask) if mine]
    return closed([*words, *more], tokenizer.stop[0])


def constraint_tokens(task: Task, tokenizer: Tokenizer) -> list[list[int]]:
    """C as the inverse head is asked for it."""
    texts = constraint_texts(task.constraints, task.request)
    return [[*tokenizer.encode(text), tokenizer.stop[0]] for text in texts]


# ------------------------------------------------------- the reference: one conversation at a time


class Thinker:
    """The hybrid step of §4.2 for one conversation: nothing is kept from call to call, and
    confidence, futures and inverse consistency come from forward passes over the whole text.
    """

    def __init__(self, model: SAGE, heads: ThinkingHeads, tokenizer: Tokenizer, settings: Think):
        self.model, self.heads, self.tokenizer, self.settings = model, heads, tokenizer, settings
        self.tau = settings.tau if settings.tau >= 0 else float(heads.tau)

    def take_step(self, episode: ThinkingEpisode) -> Decision:
        """The next message of an episode, and how it was decided."""
        s, decision = self.settings, Decision()

        # System 1: write it down; equation 7 says whether that will do
        if s.mode != "reason":
            fast = self.draft(episode, [], 0, 0)
            fast.fate = "fast"
            decision.candidates = [fast]
            decision.chosen = fast
            if s.mode == "hybrid":
                decision.gate = self.gamma(episode, fast)
            if s.mode == "fast" or decision.gate <= self.tau:
                return decision

        # System 2: n candidates, weighed; n more, if none is good enough. Place 0 of round 0 is the
        # fast draft again: same draws, same temperature
        pool: list[Candidate] = []
        for round in range(1 + s.resamples):
            prefix = []
            if round and s.critique:
                context = self.model.config.context
                prefix, critique = critique_prefix(episode, decision, self.tokenizer, context)
                if critique:
                    decision.critiques.append(critique)
            for place in range(s.n):
                candidate = self.draft(episode, prefix, round, place)
                self.examine(episode, candidate)
                weigh(candidate, s)
                pool.append(candidate)
            if decide(decision, pool, last=round == s.resamples):
                return decision

    def examine(self, episode: ThinkingEpisode, c: Candidate) -> None:
        """The evidence on a candidate: confidence (equation 6), futures, ICS (equation 13)."""
        s, tokenizer = self.settings, self.tokenizer
        tokens = episode.tokens + c.tokens
        mask = episode.action_mask + [True] * len(c.tokens)
        log_p, confidence = self.opinion(tokens, mask)
        c.log_probs = log_p[len(episode.tokens) :].tolist()
        c.confidence = confidence.tolist()
        calls = imagined_calls(episode, c, tokenizer, s, self.model.config.context)
        for kind, text in imagined_results(s) if calls else ():
            if text is None:
                opening = response_opening(tokenizer, episode.style)
                response = self.write(tokens + opening, s.ahead).tokens
                text = guessed_text(response, tokenizer, s.ahead)
            observed = message_tokens(tokenizer, episode.style, "tool", *[text] * calls)
            then = self.write(tokens + observed, s.ahead).tokens
            future = mask + [False] * len(observed) + [True] * len(then)
            success = self.opinion(tokens + observed + then, future)[1][SUCCESS].item()
            next_step = tokenizer.decode(message_of(then, tokenizer))
            ended = then[-1] in tokenizer.stop
            c.futures.append(Future(kind, text, next_step, success if ended else 0.0))
        if s.lam:
            words = [conclusion(episode.rollout, tokenizer, c.tokens)]
            constraints = [constraint_tokens(episode.task, tokenizer)]
            (c.ics,), (c.prior,) = self.heads["inverse"].scores(self.model, words, constraints)

    def draft(
        self, episode: ThinkingEpisode, prefix: list[int], round: int, place: int
    ) -> Candidate:
        """Candidate `place` of a round, written after the episode and a prefix."""
        s = self.settings
        temperature = s.temperature if round or place else s.fast_temperature
        draws = episode.draws(round, place)
        row = self.write(episode.tokens + prefix, episode.room, temperature, draws)
        return candidate_of(row, 0, round, self.tokenizer)

    def write(self, context: list[int], most: int, temperature=0.0, draws=()) -> Row:
        """At most `most` tokens after a context."""
        row = Row([], most, temperature, draws)
        conversation = Conversations(self.model, [context], len(context) + most)
        decode(conversation, [row], self.tokenizer.stop)
        return row

    def gamma(self, episode: ThinkingEpisode, fast: Candidate) -> float:
        """Equation 7, at the fast step's last token."""
        hidden = self.model.hidden(torch.tensor([episode.tokens + fast.tokens]))[:, -1]
        return torch.sigmoid(self.heads["gate"](hidden, torch.tensor([fast.entropy]))).item()

    def opinion(self, tokens: list[int], action_mask: list[bool]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (T,) in nats of the agent's own tokens, 0 at all others, and the
        confidences (parts,) at the last token.
        """
        row, mask = torch.tensor([tokens]), torch.tensor([action_mask])
        hidden = self.model.hidden(row)
        surprise = surprise_of(self.model, row, hidden, mask)
        confidence = self.heads["meta"].confidence(self.heads["meta"](hidden, surprise))
        return surprise[0, :, 0], confidence[0, -1]


@torch.no_grad()
def think_slowly(thinker: Thinker, task: Task, number: int = 0, seed: int = 0) -> Thinking:
    """One episode, as fast.thinking.think plays it as number `number` of its tasks."""
    s, context = thinker.settings, thinker.model.config.context
    episode = ThinkingEpisode(task, thinker.tokenizer, s, context, number=number, seed=seed)
    while not episode.ended:
        episode.commit(thinker.take_step(episode))
        episode.execute()
    return episode.thinking


# -------------------------------------------------------------------------------------------- votes


@dataclass(eq=False)
class Vote:
    """One finished episode of a task as a vote for its answer."""

    answer: str  # its last line, up to case, spaces and full stop; "" for none, and then no vote
    verified: bool
    success: float  # the head's, at the last token
    gain: float  # ICS − prior, in nats
    energy: float  # equation 14 of the whole episode


def last_word(rollout: Rollout) -> int:
    """The place of the last token that the agent wrote."""
    return max(place for place, own in enumerate(rollout.action_mask) if own)


def successes_of(model: SAGE, heads: ThinkingHeads, done: list[Rollout]) -> list[float]:
    """The confidence head's `success` at the agent's last token of each episode, from a forward
    pass over the whole of it.
    """
    device = next(model.parameters()).device
    tokens, _ = pad([r.tokens for r in done], device)  # (B, T)
    action_mask, _ = pad([list(map(int, r.action_mask)) for r in done], device)
    hidden = model.hidden(tokens)
    surprise = surprise_of(model, tokens, hidden, action_mask.bool())
    last = torch.tensor(list(map(last_word, done)), device=device)  # (B,)
    logits = heads["meta"](hidden, surprise)[torch.arange(len(done), device=device), last]
    return heads["meta"].confidence(logits)[:, SUCCESS].tolist()


def answer_of(rollout: Rollout) -> str:
    """The last line of an episode's answer, as verdicts compare it; "" where there is none."""
    if rollout.ended != "answer" or not rollout.messages[-1].strip():
        return ""
    return " ".join(words_of(rollout.messages[-1].strip().splitlines()[-1]))


@torch.no_grad()
def votes_of(
    model: SAGE,
    heads: ThinkingHeads,
    tokenizer: Tokenizer,
    done: list[Rollout],
    lam: float = Think.lam,
    *,
    batch: int = 32,
    successes: Callable[..., list[float]] = successes_of,
) -> list[Vote]:
    """Episodes, sampled at temperature 1, as votes: the confidence head reads each, and the inverse
    head each one's conclusion. `successes` is `successes_of` or what equals it.
    """
    votes = []
    for start in range(0, len(done), batch):
        some = done[start : start + batch]
        conclusions = [conclusion(r, tokenizer) for r in some]
        constraints = [constraint_tokens(r.task, tokenizer) for r in some]
        scores = heads["inverse"].scores(model, conclusions, constraints)
        for r, success, ics, prior in zip(some, successes(model, heads, some), *scores):
            energy = -sum(r.log_probs) / max(sum(r.action_mask), 1) - lam * ics
            votes.append(Vote(answer_of(r), r.verified, success, ics - prior, energy))
    return votes


def reasoning_bits(task: Task, gain: float) -> float:
    """Bits that an episode's own words tell about its task: `gain`, ICS − prior in nats per
    constraint (equation 13), summed over the constraints. Negative where they mislead.
    """
    return gain * len(constraint_texts(task.constraints, task.request)) / math.log(2)


def bits_per_teraflop(bits: list[float], flops: list[float]) -> float:
    """Reasoning-Bits per TeraFLOP of some episodes (paper, appendix E, whose formula is lost):
    their `bits` together, per 10¹² of the FLOPs that deciding them took.
    """
    return sum(bits) / (sum(flops) / 1e12)


def winner(votes: list[Vote], weight: Callable[[Vote], float]) -> Vote | None:
    """The vote of least energy for the answer of most weight."""
    votes = sorted(votes, key=lambda v: v.energy)  # a tie goes to the answer that comes first
    totals: Counter = Counter()
    for v in votes:
        totals[v.answer] += weight(v)
    best = max(totals, key=totals.get, default=None)
    return next((v for v in votes if v.answer == best), None)


def vote(votes: list[Vote], drop: float = 0.5) -> dict[str, Vote | None]:
    """Which of n episodes of one task each rule chooses; None where it has nothing to choose from.

    Energy breaks the ties of majorities. "ICS-filtered": the share `drop` with the least gain
    in inverse consistency does not vote (§6.3 filters, and does not say how many). "oracle" looks
    at the verdict: what a perfect rule would get.
    """
    answered = [v for v in votes if v.answer]
    by_gain = sorted(answered, key=lambda v: -v.gain)
    kept = by_gain[: len(by_gain) - int(drop * len(by_gain))]
    return {
        "one sample": votes[0] if votes else None,
        "majority": winner(answered, lambda v: 1.0),
        "ICS-filtered": winner(kept, lambda v: 1.0),
        "head-weighted": winner(answered, lambda v: v.success),
        "least energy": min(answered, key=lambda v: v.energy, default=None),
        "oracle": next((v for v in votes if v.verified), None),
    }
