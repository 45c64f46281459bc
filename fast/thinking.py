"""The hybrid step of think.py for many episodes at once: the same steps, sooner.

    think(model, heads, tokenizer, tasks)          episodes, with every step's candidates and costs

Candidates and their futures share what the conversation has read (fast/forked_cache.py), equal
candidates are examined once, and nothing is computed twice. Every decision's forward FLOPs, tokens
and seconds are counted, head by head.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from agent import Rollout, check_prompts, message_tokens, note_problems, prompt_of, revision_prefix
from config import Model, Think, UserError
from generate import Conversations, Row, decode, pad
from losses import IGNORE, token_log_probs
from mch import ThinkingHeads
from model import SAGE, flops_per_token
from support.tokenizer import Tokenizer
from think import (
    SUCCESS,
    Candidate,
    Cost,
    Decision,
    Future,
    Thinking,
    ThinkingEpisode,
    candidate_of,
    conclusion,
    constraint_tokens,
    critique_prefix,
    decide,
    future_room,
    guessed_text,
    imagined_calls,
    imagined_results,
    last_word,
    message_of,
    response_opening,
    weigh,
)
from worlds.base import Task
from worlds.labels import PARTS


def forward_flops(config: Model, tokens: int, length: float, logits: int) -> float:
    """FLOPs of a forward pass over `tokens` that see `length` others on average, `logits` of them
    unembedded: a third of what model.flops_per_token counts for training.
    """
    blocks = tokens * flops_per_token(replace(config, vocab_size=0), length) / 3
    return blocks + logits * 2 * config.width * config.vocab_size


@contextmanager
def timed(costs: list[Cost]):
    """Put the seconds of the block on costs, evenly."""
    began = time.perf_counter()
    yield
    for cost in costs:
        cost.seconds += (time.perf_counter() - began) / len(costs)


class JudgedConversations(Conversations):
    """Conversations whose last step the confidence head can judge; a row's passes are its cost.

    The head reads only when it is asked, so that a step which stays fast costs nothing beyond
    itself: `hidden` (B, max + 1, D) and `surprise` (B, max + 1, 2) keep, by position, what it has
    to read; the last place swallows padding, position −1.
    """

    per_row = (*Conversations.per_row, "head_state", "hidden", "surprise", "costs")

    def __init__(
        self, model: SAGE, heads: ThinkingHeads, prompts, max_tokens: int, costs: list[Cost]
    ):
        weight, B = next(model.parameters()), len(prompts)
        self.heads, self.costs = heads, costs
        self.head_state = heads["meta"].new_state(B, max_tokens, weight.device)
        shape = (B, max_tokens + 1, model.config.width)
        self.hidden = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self.surprise = torch.zeros(B, max_tokens + 1, 2, device=weight.device)
        super().__init__(model, prompts, max_tokens)

    def feed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        hidden = super().feed(tokens, positions)
        rows = torch.arange(len(tokens), device=tokens.device)
        self.hidden[rows[:, None], positions] = hidden
        return hidden

    def advance(self, tokens: Tensor, positions: Tensor, surprise: Tensor, step) -> None:
        hidden, self.logits = step(self.model, self.state, tokens, positions)
        rows = torch.arange(len(tokens), device=tokens.device)
        self.hidden[rows, positions[:, 0]] = hidden
        self.surprise[rows, positions[:, 0]] = surprise

    def read(self, texts: list[list[int]]) -> None:
        super().read(texts)
        self.charge([len(text) for text in texts], [1] * len(texts))

    def read_own(self, texts: list[list[int]]) -> list[list[float]]:
        """Read the agent's own words, written elsewhere; their log-probabilities here."""
        tokens, positions = pad(texts, self.logits.device, self.lengths)
        rows = torch.arange(len(texts), device=tokens.device)
        before = self.hidden[rows, self.lengths - 1]  # (B, D), of what each text follows
        hidden = torch.cat([before[:, None], self.feed(tokens, positions)[:, :-1]], 1)
        targets = tokens.masked_fill(positions < 0, IGNORE)
        surprise = torch.stack(token_log_probs(hidden, self.model.unembedding, targets), -1)
        self.surprise[rows[:, None], positions] = surprise
        counts = [len(text) for text in texts]
        self.charge(counts, counts)
        log_probs = surprise[..., 0].tolist()
        return [row[:count] for row, count in zip(log_probs, counts)]

    def write(self, rows: list[Row], stop: list[int]) -> None:
        """Every row writes until it ends, and its last token is read."""
        decode(self, rows, stop, keep=True)
        counts = [len(row.tokens) for row in rows]
        self.charge(counts, counts)

    def confidence(self) -> Tensor:
        """The head's confidences (B, parts) at every row's last token."""
        meta, read = self.heads["meta"], self.head_state.cache.lengths
        unread = self.lengths - read  # (B,)
        positions = read[:, None] + torch.arange(int(unread.max()), device=read.device)
        positions = positions.masked_fill(positions >= self.lengths[:, None], -1)
        rows = torch.arange(len(read), device=read.device)
        hidden = self.hidden[rows[:, None], positions]
        surprise = self.surprise[rows[:, None], positions]
        logits = meta(hidden, surprise, None, self.head_state, positions)  # (B, T, parts)
        self.charge(unread.tolist(), [0] * len(rows), meta.config)
        return meta.confidence(logits[rows, unread - 1])

    def charge(self, tokens: list[int], logits: list[int], block: Model | None = None) -> None:
        """Put a pass on each row's cost: through the decoder, or through one `block` of a head."""
        lengths = self.lengths.tolist()
        for cost, count, unembedded, length in zip(self.costs, tokens, logits, lengths):
            cost.tokens += count if block is None else 0
            config = block or self.model.config
            cost.flops += forward_flops(config, count, length - count / 2, unembedded)


class BatchedThinker:
    """Takes the steps of many conversations at once. `gate` maps hidden states (N, D) and largest
    entropies (N,) to values γ (N,); equation 7 by default.
    """

    def __init__(
        self,
        model: SAGE,
        heads: ThinkingHeads,
        tokenizer: Tokenizer,
        settings: Think,
        gate: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.model, self.heads, self.tokenizer, self.settings = model, heads, tokenizer, settings
        self.gate = gate or (lambda hidden, entropy: torch.sigmoid(heads["gate"](hidden, entropy)))
        self.tau = settings.tau if settings.tau >= 0 else float(heads.tau)

    def take_step(
        self, conversations: JudgedConversations, episodes: list[ThinkingEpisode]
    ) -> list[Decision]:
        """One step of every conversation, which then stands after the message decided for it."""
        s = self.settings
        decisions = [Decision() for _ in episodes]
        everyone = list(range(len(episodes)))
        conversations.costs = [decision.cost for decision in decisions]
        undrafted = conversations  # where further candidates begin
        doubted = everyone if s.mode == "reason" else []

        # System 1
        with timed(conversations.costs):
            if s.mode != "fast":
                conversations.share()  # what candidates and their futures begin with
            if s.mode == "hybrid":
                undrafted = conversations.select(everyone)
            if s.mode != "reason":
                drafts = self.draft(conversations, episodes, everyone, [0] * len(episodes), 0)
                for decision, fast in zip(decisions, drafts):
                    fast.fate = "fast"
                    decision.candidates = [fast]
                    decision.chosen = fast
            if s.mode == "hybrid":
                doubted = self.who_is_doubted(conversations, decisions)
        if not doubted:
            return decisions

        # System 2: pools of candidates, each a conversation of its own
        pools: list[tuple[JudgedConversations, list[Candidate]]] = []
        pending = doubted
        with timed([decisions[i].cost for i in doubted]):
            undrafted = undrafted.select(doubted)
            undrafted.confidence()  # the head reads once what all candidates begin with
            for round in range(1 + s.resamples):
                start = undrafted.select([doubted.index(i) for i in pending])
                pool, candidates = self.candidates(
                    conversations, start, episodes, decisions, pending=pending, round=round
                )
                self.examine(pool, candidates, episodes)
                pools.append((pool, candidates))
                undecided = []
                for i in pending:
                    mine = [c for _, candidates in pools for c in candidates if c.owner == i]
                    if not decide(decisions[i], mine, last=round == s.resamples):
                        undecided.append(i)
                pending = undecided
                if not pending:
                    break
            for pool, candidates in pools:
                places = [p for p, c in enumerate(candidates) if decisions[c.owner].chosen is c]
                rows = [candidates[place].owner for place in places]
                conversations.put(rows, pool.select(places))
        return decisions

    def who_is_doubted(
        self, conversations: JudgedConversations, decisions: list[Decision]
    ) -> list[int]:
        """Equation 7: which fast steps deserve a second thought, from what they left behind."""
        rows = torch.arange(len(decisions), device=conversations.hidden.device)
        hidden = conversations.hidden[rows, conversations.lengths - 1]  # (B, D)
        entropy = [decision.chosen.entropy for decision in decisions]
        gammas = self.gate(hidden, torch.tensor(entropy, device=hidden.device)).tolist()
        for decision, gamma in zip(decisions, gammas):
            decision.gate = gamma
        return [i for i, gamma in enumerate(gammas) if gamma > self.tau]

    def draft(
        self,
        conversations: JudgedConversations,
        episodes: list[ThinkingEpisode],
        owners: list[int],
        places: list[int],
        round: int,
    ) -> list[Candidate]:
        """Every row writes a message: for episodes[owners[k]], candidate places[k] of a round."""
        s = self.settings
        rows = []
        for owner, place in zip(owners, places):
            episode = episodes[owner]
            temperature = s.temperature if round or place else s.fast_temperature
            draws = episode.draws(round, place)
            rows.append(Row([], episode.room, temperature, draws))
        conversations.write(rows, self.tokenizer.stop)
        return [candidate_of(row, i, round, self.tokenizer) for i, row in zip(owners, rows)]

    def candidates(
        self,
        conversations: JudgedConversations,
        start: JudgedConversations,
        episodes: list[ThinkingEpisode],
        decisions: list[Decision],
        *,
        pending: list[int],
        round: int,
    ) -> tuple[JudgedConversations, list[Candidate]]:
        """n candidates of a round for each pending conversation, equal ones as one: a row each.

        `start` holds the pending conversations. In mode hybrid the fast step is the first candidate
        of round 0.
        """
        s = self.settings
        fast = [decisions[i].chosen for i in pending] if round == 0 and s.mode == "hybrid" else []
        places = range(1 if fast else 0, s.n)
        owners = [i for i in pending for _ in places]
        numbers = [*places] * len(pending)
        starts = [row for row in range(len(pending)) for _ in places]
        pool = start.select(starts)
        if round and s.critique:
            self.tell_critiques(
                start, [episodes[i] for i in pending], [decisions[i] for i in pending]
            )
            writers = start.select(starts)
            drafts = self.draft(writers, episodes, owners, numbers, round)
            # the step goes into the episode without what provoked it, and is judged there
            for candidate, log_probs in zip(drafts, pool.read_own([c.tokens for c in drafts])):
                candidate.log_probs = log_probs
        else:
            drafts = self.draft(pool, episodes, owners, numbers, round)
        if fast:
            written = conversations.select(pending)
            written.head_state = start.head_state  # which has read what candidates begin with
            pool = Conversations.join([written, pool])
            drafts = fast + drafts
        return merge_repeats(pool, drafts)

    def tell_critiques(
        self,
        conversations: JudgedConversations,
        episodes: list[ThinkingEpisode],
        decisions: list[Decision],
    ) -> None:
        """Every conversation reads the critique of its best rejected candidate, if it has room."""
        context = self.model.config.context
        prefixes = []
        for episode, decision in zip(episodes, decisions):
            prefix, critique = critique_prefix(episode, decision, self.tokenizer, context)
            prefixes.append(prefix)
            if critique:
                decision.critiques.append(critique)
        told = [row for row, prefix in enumerate(prefixes) if prefix]
        if told:
            these = conversations.select(told)
            these.read([prefixes[row] for row in told])
            conversations.put(told, these)

    def examine(
        self,
        pool: JudgedConversations,
        candidates: list[Candidate],
        episodes: list[ThinkingEpisode],
    ) -> None:
        """The evidence on each candidate (equations 6 and 13, Look-Ahead Simulation), weighed."""
        for candidate, confidence in zip(candidates, pool.confidence().tolist()):
            candidate.confidence = confidence
        self.look_ahead(pool, candidates, episodes)
        if self.settings.lam:
            self.invert(pool, candidates, episodes)
        for candidate in candidates:
            weigh(candidate, self.settings)

    def look_ahead(
        self,
        pool: JudgedConversations,
        candidates: list[Candidate],
        episodes: list[ThinkingEpisode],
    ) -> None:
        """Look-Ahead Simulation: after each candidate that calls a tool, what the tool might say,
        what the agent would write then, and the head's `success` there.

        Each of a candidate's calls is imagined to give the same observation. A step that does not
        end within `ahead` tokens counts 0.
        """
        s, tokenizer, context = self.settings, self.tokenizer, self.model.config.context
        results = imagined_results(s)
        calls = [imagined_calls(episodes[c.owner], c, tokenizer, s, context) for c in candidates]
        acting = [row for row, number in enumerate(calls) if number]
        if not results or not acting:
            return
        style = episodes[candidates[acting[0]].owner].style  # everybody's: `think` asks for that
        expected = [""] * len(acting)
        if any(text is None for _, text in results):
            expected = self.expected(pool.select(acting), style)
        owners, kinds, texts, observed = [], [], [], []
        for row, guess in zip(acting, expected):
            for kind, text in results:
                owners.append(row)
                kinds.append(kind)
                said = guess if text is None else text
                texts.append(said)
                observed.append(message_tokens(tokenizer, style, "tool", *[said] * calls[row]))
        future = pool.select(owners)
        future.read(observed)
        rows = [Row([], s.ahead, 0.0, []) for _ in owners]
        future.write(rows, tokenizer.stop)
        confidence = future.confidence()[:, SUCCESS].tolist()
        for owner, kind, text, row, success in zip(owners, kinds, texts, rows, confidence):
            next_step = tokenizer.decode(message_of(row.tokens, tokenizer))
            success = success if row.ended == "stop" else 0.0
            candidates[owner].futures.append(Future(kind, text, next_step, success))

    def expected(self, pool: JudgedConversations, style: str) -> list[str]:
        """What the model itself expects a tool to say to each row's call."""
        pool.read([response_opening(self.tokenizer, style)] * len(pool))
        rows = [Row([], self.settings.ahead, 0.0, []) for _ in range(len(pool))]
        pool.write(rows, self.tokenizer.stop)
        return [guessed_text(row.tokens, self.tokenizer, self.settings.ahead) for row in rows]

    def invert(
        self,
        pool: JudgedConversations,
        candidates: list[Candidate],
        episodes: list[ThinkingEpisode],
    ) -> None:
        """Equation 13 for each candidate: Z and Y are the agent's own words so far and its own."""
        inverse, tokenizer = self.heads["inverse"], self.tokenizer
        conclusions = [
            conclusion(episodes[c.owner].rollout, tokenizer, c.tokens) for c in candidates
        ]
        of_episode = {
            i: constraint_tokens(episodes[i].task, tokenizer) for i in {c.owner for c in candidates}
        }
        constraints = [of_episode[c.owner] for c in candidates]
        scores = inverse.scores(self.model, conclusions, constraints)
        paid: set[int] = set()  # episodes whose prior is counted: their candidates share it
        for number, (c, ics, prior) in enumerate(zip(candidates, *scores)):
            c.ics = ics
            c.prior = prior
            asked = sum(map(len, constraints[number]))
            cost = pool.costs[number]
            read = [len(conclusions[number])]
            if c.owner not in paid:
                read.append(1)  # the prior is read behind one token
                paid.add(c.owner)
            for given in read:
                cost.tokens += given + asked
                cost.flops += forward_flops(self.model.config, given + asked, given, asked)
                cost.flops += forward_flops(inverse.config, given + asked, given, 0)


def merge_repeats(
    pool: JudgedConversations, drafts: list[Candidate]
) -> tuple[JudgedConversations, list[Candidate]]:
    """Equal drafts of one conversation as one, which counts its `times`; a row each."""
    rows: dict[tuple, int] = {}  # of the first of equal drafts
    for row, draft in enumerate(drafts):
        first = rows.setdefault((draft.owner, *draft.tokens), row)
        if first != row:
            drafts[first].times += 1
    if len(rows) < len(drafts):
        pool = pool.select([*rows.values()])
    return pool, [drafts[row] for row in rows.values()]


def spare_room(tokenizer: Tokenizer, style: str, s: Think) -> int:
    """The most tokens that a cache holds beyond an episode's own: a future's, or those of a
    rejected step and its critique.
    """
    future = future_room(tokenizer, style, s.ahead)
    if not s.critique:
        return future
    step = [-1] * s.room  # any tokens that do not end
    critiques = [revision_prefix(tokenizer, style, step, part.critique) for part in PARTS]
    return max(future, *map(len, critiques))


@torch.no_grad()
def think(
    model: SAGE,
    heads: ThinkingHeads,
    tokenizer: Tokenizer,
    tasks: list[Task],
    settings: Think | None = None,
    *,
    seed: int = 0,
    batch: int = 16,
    faults: bool = True,
    tolerance: int = 2,
    numbers: list[int] | None = None,
    gate: Callable[[Tensor, Tensor], Tensor] | None = None,
    watch: Callable[[Thinking], None] = lambda thinking: None,
) -> list[Thinking]:
    """One episode of every task, in order, `batch` of them together; each draws its own random
    numbers, which `numbers` (0, 1, … if None) choose, so it does not depend on the others.

    `tolerance` refused calls end an episode. Mode "fast" gives agent.rollouts' episodes, token for
    token. `watch` is called with an episode whenever a message or an observation was added. Raises
    UserError for a prompt that leaves no room in the model's context, and for several chat styles.
    """
    s = settings or Think()
    thinker = BatchedThinker(model, heads, tokenizer, s, gate)
    check_prompts([prompt_of(task, tokenizer) for task in tasks], model)
    if len({task.difficulty.style for task in tasks}) > 1:
        raise UserError("tasks of several chat styles cannot be thought about together")
    context = model.config.context
    done: list[Thinking] = []
    for start in range(0, len(tasks), batch):
        episodes = []
        for place in range(start, min(start + batch, len(tasks))):
            number = place if numbers is None else numbers[place]
            options = dict(number=number, seed=seed, faults=faults, tolerance=tolerance)
            episodes.append(ThinkingEpisode(tasks[place], tokenizer, s, context, **options))
        done += [episode.thinking for episode in episodes]
        longest = max(len(episode.tokens) + episode.room for episode in episodes)
        spare = spare_room(tokenizer, episodes[0].style, s)
        reading = [episode.thinking.reading for episode in episodes]
        with timed(reading):
            conversations = JudgedConversations(
                model, heads, [e.tokens for e in episodes], longest + spare, reading
            )
        while episodes:
            decisions = thinker.take_step(conversations, episodes)
            observed = []
            for episode, decision in zip(episodes, decisions):
                episode.commit(decision)
                watch(episode.thinking)
                observed.append(episode.execute())
                watch(episode.thinking)
            alive = [row for row, episode in enumerate(episodes) if not episode.ended]
            if 0 < len(alive) < len(episodes):
                conversations = conversations.select(alive)
            episodes = [episodes[row] for row in alive]
            if episodes:
                conversations.costs = [episode.thinking.reading for episode in episodes]
                with timed(conversations.costs):
                    conversations.read([observed[row] for row in alive])
    note_problems([thinking.rollout for thinking in done])
    return done


def successes_sharing_prompts(
    model: SAGE, heads: ThinkingHeads, done: list[Rollout]
) -> list[float]:
    """think.successes_of, sooner: the prompt that samples of one task share is read once."""
    begun = [r.action_mask.index(True) for r in done]
    prompts = [tuple(r.tokens[:first]) for r, first in zip(done, begun)]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    longest = max(len(r.tokens) for r in done)
    costs = [Cost() for _ in places]
    read = JudgedConversations(model, heads, list(map(list, places)), longest, costs)
    read.confidence()  # the head, too, reads them once
    read.share()
    episodes = read.select([places[prompt] for prompt in prompts])
    ends = [last_word(r) + 1 for r in done]
    episodes.read_own([r.tokens[first:end] for r, first, end in zip(done, begun, ends)])
    for row, (r, end) in enumerate(zip(done, ends)):  # what tools said surprises nobody
        own = torch.tensor(r.action_mask[:end], device=episodes.surprise.device)
        episodes.surprise[row, :end] *= own[:, None]
    return episodes.confidence()[:, SUCCESS].tolist()
