"""A decision trace as data: an episode, finished or not, with all that its steps were decided on.

    trace = trace_of(thinking, model, heads, tokenizer, settings)      what json.dumps can write

trace_text.py and trace_page.py show it. The confidences at each step's end, the tokens' gates and
the head's attention come from one further forward pass over the conversation, so that steps which
stayed fast, and never asked the head, have them too. That pass is on no step's cost.

Shapes: T tokens of the conversation, D width, H query heads, K key heads, d of each; S steps.
"""

import json
import re
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from agent import Rollout
from attention import visible
from config import Think
from mch import ExtraBlock, ThinkingHeads, surprise_of
from model import SAGE, rotary, rotate
from support.gate_picture import prose_shares, token_texts
from support.tokenizer import Tokenizer, replace_surrogates
from think import Candidate, Decision, Thinking
from worlds.base import failed
from worlds.labels import PART_NAMES
from worlds.calls import read_message
from worlds.plans import read_plan
from worlds.tools import Fault

# --------------------------------------------------------------------------------- what is computed


@torch.no_grad()
def attention_of(head: ExtraBlock, inputs: Tensor, places: list[int]) -> Tensor:
    """The attention (S, H, T) of a head's extra block at S places of one conversation; each row
    sums to 1.

    `inputs` (T, D) are what the block reads. This is the block's own attention written out, since
    its fast paths keep no probabilities.
    """
    attention, config, T = head.block.attention, head.config, len(inputs)
    here = torch.arange(T, device=inputs.device)
    x = head.block.attention_norm(inputs[None])
    q = attention.q(x).view(1, T, -1, config.head_dim).transpose(1, 2)  # (1, H, T, d)
    k = attention.k(x).view(1, T, -1, config.head_dim).transpose(1, 2)  # (1, K, T, d)
    if attention.q_norm is not None:
        q = attention.q_norm(q)
        k = attention.k_norm(k)
    if config.previous_token:
        k = attention.smeared(k)
    cos, sin = rotary(here[None], config)
    q = rotate(q, cos, sin)[0, :, places]  # (H, S, d)
    k = rotate(k, cos, sin)[0]  # (K, T, d)
    k = k.repeat_interleave(config.heads // config.kv_heads, 0)  # (H, T, d)
    seen = visible(
        here[places, None], here[None], config.window, config.strides[attention.layer]
    )  # (S, T)
    scores = q @ k.mT * config.head_dim**-0.5  # (H, S, T)
    return scores.masked_fill(~seen, -1e30).softmax(-1).transpose(0, 1)


def step_ends(rollout: Rollout, stop: list[int]) -> list[int]:
    """Where the last token of each of the agent's messages is."""
    ends = []
    last = len(rollout.tokens) - 1
    for place, (token, sampled) in enumerate(zip(rollout.tokens, rollout.action_mask)):
        if sampled and (token in stop or place == last or not rollout.action_mask[place + 1]):
            ends.append(place)
    return ends


# ---------------------------------------------------------------------------------- texts in tokens


def span_of(texts: list[str], begin: int, wanted: str) -> list[int]:
    """Which tokens, from `begin` on, hold a text: the first, and the one behind the last; twice
    `begin` where the text is not (all) there.
    """
    offset = "".join(texts[begin:]).find(wanted)
    if offset < 0 or not wanted:
        return [begin, begin]
    first = end = begin
    length = 0  # of texts[begin:end], in characters
    while length < offset + len(wanted):
        length += len(texts[end])
        end += 1
        if length <= offset:
            first = end
    return [first, end]


def observed_span(texts: list[str], begin: int, observations: list[str]) -> list[int]:
    """Which tokens, from `begin` on, hold all observations of a step, whatever is between them."""
    first = end = begin
    for number, observation in enumerate(observations):
        _, end = span_of(texts, end, "<tool_response>")  # what it says may be the template's, too
        start, end = span_of(texts, end, observation)
        if number == 0:
            first = start
    return [first, end]


# ---------------------------------------------------------------------------------- calls and plans


def summary_of(message: str) -> str:
    """A message in one line: its calls, or its last line where it has none."""
    words, calls = read_message(message)
    if not calls:
        return (words.strip().splitlines() or ["nothing"])[-1]
    summaries = []
    for _, call in calls:
        if isinstance(call, Fault):
            summaries.append(call.message)
            continue
        given = []
        for name, value in call["arguments"].items():
            given.append(f"{name}={json.dumps(value, ensure_ascii=False)}")
        summaries.append(f"{call['name']}({', '.join(given)})")
    return "; ".join(summaries)


MOST_PLANNED = 200  # steps of a plan that are drawn: a tree of thousands is no picture


def plan_lines(message: str) -> dict[str, list]:
    """The plan in a message, {number: [goal, numbers it comes after]}, from its lines of the form
    "2. goal (after 1)".
    """
    lines = [line for line in message.splitlines() if re.match(r"\s*\d+\. ", line)]
    plan, _ = read_plan("\n".join(lines[:MOST_PLANNED]))
    return {str(number): [goal, list(after)] for number, (goal, after) in plan.steps.items()}


def plan_step_of(message: str) -> str | None:
    """The number of the plan's step that a message is about ("2: rana is 5")."""
    numbers = re.findall(r"^[^\S\n]*+(\d+):", message, re.MULTILINE)
    return numbers[-1] if numbers else None


def plan_tree(plan: dict[str, list]) -> list[tuple[str, list]]:
    """A plan as a tree of (number, [branches]): at its roots the steps that no other waits for, and
    under each step those it needs. A step that is needed twice is expanded once.
    """
    expanded: set[str] = set()

    def branch(number: str) -> tuple[str, list]:
        if number in expanded:
            return number, []
        expanded.add(number)
        needs = [str(other) for other in plan[number][1]]
        return number, [branch(other) for other in needs if other in plan]

    needed = {str(other) for _, after in plan.values() for other in after}
    roots = [number for number in plan if number not in needed]
    return [branch(number) for number in roots or list(plan)[:1]]  # a circular plan has no root


# ------------------------------------------------------------------------------------------ records


def through_json(thing: Any, **options) -> Any:
    """A thing as JSON gives it back, without halves of surrogate pairs: what a tool says may have
    some, and neither a terminal nor a file can hold them.
    """
    text = json.dumps(thing, ensure_ascii=False)
    return json.loads(replace_surrogates(text), **options)


def candidate_record(c: Candidate) -> dict:
    return dict(
        text=c.text,
        round=c.round,
        times=c.times,
        log_prob=c.log_prob,
        ics=c.ics,
        prior=c.prior,
        confidence=c.confidence,
        coherence=c.coherence,
        spread=c.spread,
        energy=c.energy,
        fate=c.fate,
        reason=c.against,
        futures=[asdict(future) for future in c.futures],
    )


def step_record(number: int, decision: Decision, end: int, texts: list[str]) -> dict:
    """Step `number`, whose last token is at `end`, without what the head says there."""
    chosen, observations = decision.chosen, decision.observations
    return dict(
        number=number,
        mode="reason" if decision.reasoned else "fast",
        gate=decision.gate,
        entropy=chosen.entropy,
        text=chosen.text,
        call=summary_of(chosen.text),
        at=plan_step_of(chosen.text),
        candidates=[candidate_record(c) for c in decision.candidates],
        critiques=decision.critiques,
        observation="\n".join(observations) if observations else None,
        failed=any(map(failed, observations)),
        loop=decision.loop,
        wrote=[end + 1 - len(chosen.tokens), end + 1],
        observed=observed_span(texts, end + 1, observations),
        cost=asdict(decision.cost),
    )


@torch.no_grad()
def trace_of(
    thinking: Thinking,
    model: SAGE,
    heads: ThinkingHeads,
    tokenizer: Tokenizer,
    settings: Think,
    *,
    note: str = "",
) -> dict:
    """The trace of an episode as plain values, rounded to four places; `note` is shown above it."""
    rollout, task = thinking.rollout, thinking.rollout.task

    # what the model and the confidence head say of the conversation
    device = next(model.parameters()).device
    tokens = torch.tensor([rollout.tokens], device=device)  # (1, T)
    action_mask = torch.tensor([rollout.action_mask], device=device)  # (1, T)
    hidden = model.hidden(tokens)  # (1, T, D)
    surprise = surprise_of(model, tokens, hidden, action_mask)  # (1, T, 2)
    meta = heads["meta"]
    confidence = meta.confidence(meta(hidden, surprise))[0]  # (T, parts)
    ends = step_ends(rollout, tokenizer.stop)
    attention = []
    if ends:
        reads = meta.block_inputs(hidden, surprise)[0]  # (T, D)
        attention = attention_of(meta, reads, ends).mean(1)  # (S, T)

    # step by step
    texts = token_texts(rollout.tokens, tokenizer)
    steps, plan = [], {}
    for decision, end, looks in zip(thinking.steps, ends, attention):
        step = step_record(len(steps) + 1, decision, end, texts)
        step["confidence"] = confidence[end].tolist()
        step["attention"] = looks.tolist()
        steps.append(step)
        plan = plan or plan_lines(decision.chosen.text)

    # token by token
    gates = prose_shares(model, rollout.tokens)
    markers = set(tokenizer.special.values())
    shown_tokens = []
    for token, text, gate in zip(rollout.tokens, texts, gates, strict=True):
        shown_tokens.append([text, round(gate, 3), token in markers])

    judged = bool(task.answer)
    trace = dict(
        world=task.world,
        kind=task.kind,
        seed=task.seed,
        request=task.request,
        note=note,
        trained=bool(heads.trained),
        parts=list(PART_NAMES),
        tau=settings.tau if settings.tau >= 0 else float(heads.tau),
        plan=plan,
        steps=steps,
        ended=rollout.ended,
        problem=rollout.problem,
        verified=rollout.verified if judged and rollout.ended else None,
        wanted=task.answer if judged else None,
        cost=asdict(thinking.cost),
        reading=asdict(thinking.reading),
        context=model.config.context,
        length=len(rollout.tokens),
        tokens=shown_tokens,
        judgement=None,  # of a case study: worlds.extras.cases.judgement_of, once it has ended
    )
    found = through_json(trace, parse_float=lambda digits: round(float(digits), 4))
    # as they were given
    return found | through_json(dict(settings=asdict(settings), tools=task.tools))
