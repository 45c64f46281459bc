"""What an agent thought, to be looked at: a decision trace as text for a terminal, as data, and as
one page that needs nothing but itself.

    data = record(thinking, model, heads, tokenizer, settings)      plain values: what json can hold
    step_text(data, step)                                           one step: plan, confidences as bars, candidates and their fates
    page(data)                                                      the same as HTML, tokens shaded by the split embedding's gate or by the head's attention

What differs from a log: it is made from the conversation's tokens by one further forward pass, so
that steps which stayed fast, and never asked
the head, are shown with its confidences too. That pass is nobody's cost.
"""

import codecs
import html
import json
import re
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from support import provenance
from attention import visible
from config import Think
from mch import ExtraBlock, ThinkingHeads, surprise_of
from model import SAGE, rotary, rotate
from think import Candidate, Thinking
from support.tokenizer import Tokenizer
from worlds.labels import PART_NAMES
from worlds.tools import Fault, Plan, read, read_plan
from worlds.base import failed

PROSE, CODE = (
    (88, 140, 222),
    (240, 150, 60),
)  # the gate's colours, blue and orange: told apart by every kind of eye
ENDINGS = {
    "answer": "answered",
    "invalid": "ended: too many calls that the schemas refuse",
    "turns": "ended: too many calls",
    "length": "ended: no room left for tokens",
    "malformed": "ended: a call that does not parse",
    "raised": "ended: the tool raised an error",
    "": "not finished",
}


def shade(gate: float) -> tuple[int, int, int]:
    """The colour of a gate value: orange for code (0), white for undecided, blue for prose (1)."""
    target, strength = (PROSE, 2 * gate - 1) if gate > 0.5 else (CODE, 1 - 2 * gate)
    return tuple(round(255 + (channel - 255) * strength) for channel in target)


def pieces_of(tokens: list[int], tokenizer: Tokenizer) -> list[str]:
    """The text of each token; a character of several tokens stands with its last."""
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [characters.decode(tokenizer.decode_bytes([token])) for token in tokens]


# ------------------------------------------------------------------------------------------------------
# what is shown


@torch.no_grad()
def attention_of(head: ExtraBlock, inputs: Tensor, places: list[int]) -> Tensor:
    """Where a head's extra block looks from some places of one conversation: (S, H, T), each row of
    a head sums to 1.

    `inputs` (T, D) are what the block reads. The block's own attention, written out, since the fast
    paths keep no probabilities.
    """
    a, c, T = head.block.attention, head.config, len(inputs)
    x = head.block.attention_norm(inputs[None])
    q, k = (
        project(x).view(1, T, -1, c.head_dim).transpose(1, 2) for project in (a.q, a.k)
    )  # (1, H or K, T, d)
    if c.previous_token:
        k = a.smeared(k)
    here = torch.arange(T, device=inputs.device)
    cos, sin = rotary(here[None], c.head_dim, c.rope_theta)
    q, k = (
        rotate(q, cos, sin)[0, :, places],
        rotate(k, cos, sin)[0].repeat_interleave(c.heads // c.kv_heads, 0),
    )  # (H, S, d), (H, T, d)
    seen = visible(here[places, None], here[None], c.window, a.stride)  # (S, T)
    return (q @ k.mT * c.head_dim**-0.5).masked_fill(~seen, -1e30).softmax(-1).transpose(0, 1)


@torch.no_grad()
def record(
    thinking: Thinking,
    model: SAGE,
    heads: ThinkingHeads,
    tokenizer: Tokenizer,
    settings: Think,
    note: str = "",
) -> dict:
    """An episode, finished or not, with all that its steps were decided on, as plain values.

    `note` is said at its beginning.
    """
    r, task = thinking.rollout, thinking.rollout.task
    tokens = torch.tensor([r.tokens], device=next(model.parameters()).device)
    hidden = model.hidden(tokens)
    known = surprise_of(model, tokens, hidden, torch.tensor([r.action_mask], device=tokens.device))
    confidence = heads["meta"].confidence(heads["meta"](hidden, known))[0]
    gates = (
        torch.sigmoid(model.embedding.prose_logits(tokens))[0].tolist()
        if model.config.embedding == "split"
        else [0.5] * len(r.tokens)
    )
    ends = []  # the last token of each step
    for place, own in enumerate(r.action_mask):
        if own and (
            place + 1 == len(r.action_mask)
            or not r.action_mask[place + 1]
            or r.tokens[place] in tokenizer.stop
        ):
            ends.append(place)
    looks = (
        attention_of(heads["meta"], heads["meta"].block_inputs(hidden, known)[0], ends).mean(1).tolist()
        if ends
        else []
    )
    pieces, steps, plan = pieces_of(r.tokens, tokenizer), [], {}
    for number, (step, end) in enumerate(zip(thinking.steps, ends)):
        plan = plan or plan_of(step.chosen.text)
        steps.append(
            dict(
                number=number + 1,
                mode="reason" if step.reasoned else "fast",
                gate=step.gate,
                entropy=step.chosen.entropy,
                text=step.chosen.text,
                call=called(step.chosen.text),
                at=at_of(step.chosen.text),
                confidence=confidence[end].tolist(),
                candidates=[shown(c) for c in step.candidates],
                critiques=step.critiques,
                observation="\n".join(step.observations) if step.observations else None,
                failed=any(map(failed, step.observations)),
                wrote=[end + 1 - len(step.chosen.tokens), end + 1],
                observed=observed_span(pieces, end + 1, step.observations),
                attention=looks[number],
                cost=asdict(step.cost),
            )
        )
    judged = bool(task.answer)
    data = dict(
        world=task.world,
        kind=task.kind,
        seed=task.seed,
        request=task.request,
        tools=task.tools,
        note=note,
        settings=asdict(settings),
        trained=bool(heads.trained),
        parts=list(PART_NAMES),
        tau=settings.tau if settings.tau >= 0 else float(heads.tau),
        plan=plan,
        steps=steps,
        ended=r.ended,
        problem=r.problem,
        verified=r.verified if judged and r.ended else None,
        wanted=task.answer if judged else None,
        cost=asdict(thinking.cost),
        reading=asdict(thinking.reading),
        context=model.config.context,
        length=len(r.tokens),
        tokens=[
            [piece, round(gate, 3), bool(token in tokenizer.special.values())]
            for piece, gate, token in zip(pieces, gates, r.tokens)
        ],
    )
    return json.loads(json.dumps(data), parse_float=lambda number: round(float(number), 4))


def found(pieces: list[str], begin: int, text: str) -> list[int]:
    """Which tokens from `begin` on hold a text: the first and the one behind the last; none where
    it is not (all) there.
    """
    ends = [0]
    for piece in pieces[begin:]:
        ends.append(ends[-1] + len(piece))
    start = "".join(pieces[begin:]).find(text)
    if start < 0 or not text:
        return [begin, begin]
    return [
        begin + max(i for i, end in enumerate(ends) if end <= start),
        begin + next(i for i, end in enumerate(ends) if end >= start + len(text)),
    ]


def observed_span(pieces: list[str], begin: int, said: list[str]) -> list[int]:
    """Which tokens from `begin` on hold what the tools said, from the first text to the last."""
    spans = [[begin, begin]]
    for text in said:
        spans.append(found(pieces, spans[-1][1], text))
    return [spans[min(1, len(said))][0], spans[-1][1]]


def shown(c: Candidate) -> dict:
    """A candidate as plain values."""
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
        reason=c.reason,
        futures=[asdict(future) for future in c.futures],
    )


def called(message: str) -> str:
    """The calls of a message in a line, or its last line where it has none."""

    def line(call: dict | Fault) -> str:
        if isinstance(call, Fault):
            return call.message
        arguments = call["arguments"].items()
        given = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments)
        return f"{call['name']}({', '.join(given)})"

    words, calls = read(message)
    last = (words.strip().splitlines() or ["nothing"])[-1]
    return "; ".join(line(call) for _, call in calls) or last


def plan_of(message: str) -> dict:
    """The plan in a message, {number:

    [goal, numbers it comes after]}; only lines as plans have them, "2. goal (after 1)".
    """
    plan, _ = read_plan(
        "\n".join(line for line in message.splitlines() if re.match(r"\s*\d+\. ", line))
    )
    return {str(number): [goal, list(after)] for number, (goal, after) in plan.steps.items()}


def at_of(message: str) -> str | None:
    """The number of the plan's step that a message is about ("2: rana is 5")."""
    found = re.findall(r"^\s*(\d+):", message, re.MULTILINE)
    return found[-1] if found else None


def branches(plan: dict) -> list[tuple[str, list]]:
    """A plan as a tree: the steps that nothing waits for, and under each those it needs, (number,
    [the same again]); a step that is needed twice stands in full once.
    """
    known: set[str] = set()

    def grow(number: str) -> tuple[str, list]:
        fresh, _ = number not in known, known.add(number)
        return number, [
            grow(str(other)) for other in plan[number][1] if str(other) in plan
        ] if fresh else []

    needed = {str(other) for _, after in plan.values() for other in after}
    return [grow(number) for number in plan if number not in needed] or [
        grow(number) for number in list(plan)[:1]
    ]  # a plan that is a circle has no end to begin from


# ------------------------------------------------------------------------------------------------------
# in a terminal


COLOURS = {
    "bold": "1",
    "faint": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
    "struck": "9;2",
}


def paint(text: str, colour: str, coloured: bool) -> str:
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if coloured and text else text


def bar(value: float, width: int = 10) -> str:
    return "█" * round(value * width) + "░" * (width - round(value * width))


def cost_line(cost: dict) -> str:
    return f"{cost['tokens']} tokens, {cost['flops'] / 1e9:.3g} GFLOP, {cost['seconds']:.2f} s"


def tree_lines(plan: dict, at: str | None) -> list[str]:
    """The plan drawn as a tree; the step at hand is marked."""
    lines = []

    def draw(branch: tuple[str, list], indent: str, joint: str) -> None:
        number, under = branch
        lines.append(f"{indent}{joint}{number}. {plan[number][0]}{'   ◀' if number == at else ''}")
        indent += {"├─ ": "│  ", "└─ ": "   ", "": ""}[joint]
        for place, other in enumerate(under):
            draw(other, indent, "└─ " if place + 1 == len(under) else "├─ ")

    for branch in branches(plan):
        draw(branch, "", "")
    return lines


def step_text(data: dict, step: dict, coloured: bool = True) -> str:
    """One step for the terminal, up to what the tool says."""

    def p(words: str, colour: str) -> str:
        return paint(words, colour, coloured)

    gate = (
        ""
        if step["gate"] is None
        else f"  gate {step['gate']:.3f} {'>' if step['gate'] > data['tau'] else '≤'} τ {data['tau']:.3f}"
    )
    lines = [
        p(
            f"── step {step['number']}: {'thought about' if step['mode'] == 'reason' else 'fast'}{gate}  {cost_line(step['cost'])} ",
            "bold",
        ).ljust(100, "─")
    ]
    if data["plan"] and (step["number"] == 1 or step["at"]):
        lines += [
            p(f"   {line}", "cyan" if "◀" in line else "faint")
            for line in tree_lines(data["plan"], step["at"])
        ]
    for candidate in step["candidates"] if step["mode"] == "reason" else []:
        chosen = candidate["fate"] in ("committed", "fallback")
        ics = "" if candidate["ics"] is None else f", ICS {candidate['ics']:.2f}"
        often = f" ×{candidate['times']}" if candidate["times"] > 1 else ""
        figures = f"E {candidate['energy']:6.3f}  (log p {candidate['log_prob']:.3f}{ics})  S {candidate['coherence']:.2f} ± {candidate['spread'] / 2:.2f}{often}"
        lines.append(
            ("   ● " if chosen else "   ○ ")
            + p(called(candidate["text"]), "green" if chosen else "struck")
            + "  "
            + p(figures, "faint")
        )
        if candidate["reason"]:
            lines.append(
                p(
                    f"       {'all were rejected, least energy of all: ' if candidate['fate'] == 'fallback' else ''}{candidate['reason']}",
                    "yellow" if chosen else "red",
                )
            )
        lines += [
            p(
                f"       if {future['kind']:8} {clip(future['observation'], 40)} → {clip(called(future['next_step']), 50)}  {future['success']:.2f}",
                "faint",
            )
            for future in candidate["futures"]
        ]
    lines += [p(f"   critique: {critique}", "yellow") for critique in step["critiques"]]
    lines += [f"   {line}" for line in step["text"].splitlines()]
    lines.append(
        "   "
        + "  ".join(
            p(f"{part} {bar(value)} {value:.2f}", "green" if value >= 0.5 else "red")
            for part, value in zip(data["parts"], step["confidence"])
        )
    )
    return "\n".join(lines)


def observation_text(step: dict, coloured: bool = True) -> str:
    """What the tool said to a step."""
    return paint(f"   ← {step['observation']}", "red" if step["failed"] else "green", coloured)


def clip(text: str, length: int) -> str:
    text = text.replace("\n", "⏎")
    return text if len(text) <= length else text[: length - 1] + "…"


def opening_text(data: dict, coloured: bool = True) -> str:
    """What stands before the steps."""
    return "\n".join(
        [
            paint(data["request"], "bold", coloured),
            *([paint(data["note"], "yellow", coloured)] if data["note"] else []),
        ]
    )


def closing_text(data: dict, coloured: bool = True) -> str:
    """What stands behind them: how the episode ended, and its cost."""
    return paint(
        f"{verdict(data)}  {cost_line(data['cost'])}",
        {True: "green", False: "red", None: "yellow"}[data["verified"]],
        coloured,
    )


def verdict(data: dict) -> str:
    """How the episode ended, in words."""
    if data["ended"] == "answer" and data["verified"] is not None:
        return "verified" if data["verified"] else f"not verified, wanted: {data['wanted']}"
    full = (
        f" (the model's context is {data['context']} tokens, the episode's share {data['settings']['room']})"
        if data["ended"] == "length"
        else ""
    )
    return ENDINGS[data["ended"]] + full + (f" ({data['problem']})" if data["problem"] else "")


# ------------------------------------------------------------------------------------------------------
# as a page

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6878; --line: #dfe3ea; --paper: #fff; --back: #f5f6f9; --good: #18794e; --bad: #c62a2f; --warn: #ad5700; --blue: #2f6feb; --look: 47 111 235 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #313845; --paper: #1b202a; --back: #12161d; --good: #3dd68c; --bad: #ff6369; --warn: #ffb224; --blue: #70a6ff; --look: 112 166 255 } }
* { box-sizing: border-box } body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 60px } h1 { font-size: 21px; margin: 0 0 6px; line-height: 1.35 }
.chips { display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0 } .chip { padding: 1px 10px; border-radius: 99px; border: 1px solid var(--line); background: var(--paper); font-size: 13px; color: var(--soft) }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--warn) } .soft { color: var(--soft) } .note { color: var(--warn); margin: 6px 0 }
details.step, details.prompt { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; margin: 12px 0 } details.step > *, details.prompt > * { padding: 0 18px }
details.reason { border-left: 4px solid var(--blue) } summary { cursor: pointer; padding: 10px 18px !important; display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap }
summary::before { content: "▸"; color: var(--soft); width: .8em } details[open] > summary::before { content: "▾" } summary b { white-space: nowrap } summary code { overflow-wrap: anywhere }
code, pre, .text { font: 13px/1.65 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace } .text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 6px 0 14px }
.own { border-left: 3px solid var(--blue); padding-left: 12px; align-self: start } .t { border-radius: 2px } .mark { opacity: .45; font-size: 11px }
.columns { display: grid; grid-template-columns: minmax(0, 1fr) 250px; gap: 26px } @media (max-width: 720px) { .columns { grid-template-columns: 1fr } }
.bars { display: grid; grid-template-columns: auto 1fr auto; gap: 4px 10px; align-items: center; font-size: 13px; margin: 8px 0 14px } .bar { height: 8px; border-radius: 4px; background: var(--line); overflow: hidden }
.bar i { display: block; height: 100%; background: var(--good) } .bar i.low { background: var(--bad) } .bar i.plain { background: var(--blue) }
h2 { font-size: 12px; letter-spacing: .05em; text-transform: uppercase; color: var(--soft); margin: 12px 0 4px; font-weight: 600 }
ul.plan, ul.plan ul { list-style: none; margin: 0; padding-left: 18px; border-left: 1px solid var(--line); font-size: 13px } ul.plan { padding-left: 10px } ul.plan li { margin: 3px 0 } li.at > span { color: var(--blue); font-weight: 600 }
.wide { overflow-x: auto; padding-bottom: 8px !important } table { border-collapse: collapse; width: 100%; font-size: 13px } th { text-align: left; color: var(--soft); font-weight: 500; white-space: nowrap } th, td { padding: 5px 12px 5px 0; vertical-align: top; border-bottom: 1px solid var(--line) }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } th.n { text-align: right } tr.rejected td > code { text-decoration: line-through; color: var(--soft) } td .why { display: block; font-size: 12px }
td details { font-size: 12px } td details summary { padding: 2px 0 !important; gap: 6px; color: var(--soft) } td details ul { margin: 2px 0 4px; padding-left: 18px }
.said { margin: 0 18px 14px; padding: 6px 12px !important; border-radius: 8px; background: var(--back); overflow-wrap: anywhere } footer { color: var(--soft); font-size: 13px; margin-top: 22px }
.shades { position: sticky; top: 0; z-index: 1; background: var(--back); padding: 8px 0; display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 13px; border-bottom: 1px solid var(--line) } .shades label { cursor: pointer }
.scale { display: inline-block; width: 90px; height: 10px; border-radius: 3px; vertical-align: -1px }
body:has(#gate:checked) .t { background: var(--g); color: #111 } body:has(#gate:checked) .mark { opacity: .8 }
"""


def escape(value: object) -> str:
    return html.escape(str(value))


def bars_html(names: list[str], values: list[float]) -> str:
    return (
        '<div class="bars">'
        + "".join(
            f'<span>{escape(name)}</span><span class="bar"><i class="{"low" if value < 0.5 else ""}" style="width:{100 * value:.0f}%"></i></span><span>{value:.2f}</span>'
            for name, value in zip(names, values)
        )
        + "</div>"
    )


def tree_html(plan: dict, at: str | None) -> str:
    def item(branch: tuple[str, list]) -> str:
        number, under = branch
        inner = f"<ul>{''.join(map(item, under))}</ul>" if under else ""
        return f"<li{' class=at' if number == at else ''}><span>{number}. {escape(plan[number][0])}</span>{inner}</li>"

    return f'<ul class="plan">{"".join(map(item, branches(plan)))}</ul>'


def tokens_html(data: dict, begin: int, end: int) -> str:
    """Tokens as spans, each with its colour of the gate and its share of every step's attention."""
    spans = []
    for place in range(begin, end):
        piece, gate, marker = data["tokens"][place]
        looks = [
            (step["number"], step["attention"][place])
            for step in data["steps"]
            if place < len(step["attention"]) and step["attention"][place] >= 0.001
        ]
        style = f"--g:rgb{shade(gate)}" + "".join(
            f";--a{number}:{(look / max(data['steps'][number - 1]['attention'])) ** 0.5:.2f}"
            for number, look in looks
        )
        title = f"gate {gate:.2f}" + "".join(
            f", attention at step {number} {look:.1%}" for number, look in looks
        )
        spans.append(
            f'<span class="t{" mark" if marker else ""}" style="{style}" title="{title}">{escape(piece)}</span>'
        )
    return "".join(spans)


def candidates_html(step: dict, parts: list[str]) -> str:
    rows = []
    for c in step["candidates"]:
        ics = "–" if c["ics"] is None else f"{c['ics']:.2f}"
        reason = (
            "all were rejected; least energy of all. " if c["fate"] == "fallback" else ""
        ) + c["reason"]
        futures = "".join(
            f"<li>if {escape(f['kind'])}: <code>{escape(clip(f['observation'], 60))}</code> → <code>{escape(clip(called(f['next_step']), 70))}</code> <b>{f['success']:.2f}</b></li>"
            for f in c["futures"]
        )
        sure = ", ".join(f"{part} {value:.2f}" for part, value in zip(parts, c["confidence"]))
        often = f" <span class=soft>×{c['times']}</span>" if c["times"] > 1 else ""
        again = (
            f" <span class=soft>after {c['round']} rejection{'s' * (c['round'] > 1)}</span>"
            if c["round"]
            else ""
        )
        rows.append(
            f'<tr class="{c["fate"]}"><td><code title="{escape(c["text"])}">{escape(called(c["text"]))}</code>{often}{again}<span class="why {"warn" if c["fate"] == "fallback" else "bad"}">{escape(reason)}</span>'
            + (
                f"<details><summary>imagined futures</summary><ul>{futures}</ul></details>"
                if futures
                else ""
            )
            + f'</td><td class=n>{c["energy"]:.3f}</td><td class=n>{c["log_prob"]:.3f}</td><td class=n>{ics}</td><td class=n title="{escape(sure)}">{c["coherence"]:.2f}</td><td class=n>{c["spread"]:.2f}</td>'
            f'<td class="{"bad" if c["fate"] == "rejected" else "warn" if c["fate"] == "fallback" else "good"}">{c["fate"]}</td></tr>'
        )
    return (
        '<div class="wide"><h2>candidates</h2><table><tr><th>call or answer</th><th class=n>energy</th><th class=n>log p a token</th><th class=n>ICS</th><th class=n>coherence</th><th class=n>spread</th><th>fate</th></tr>'
        + "".join(rows)
        + "</table></div>"
    )


def step_html(data: dict, step: dict) -> str:
    gate = (
        ""
        if step["gate"] is None
        else f"γ {step['gate']:.3f} {'&gt;' if step['gate'] > data['tau'] else '≤'} τ {data['tau']:.3f}"
    )
    reasoned = step["mode"] == "reason"
    told = "".join(
        f'<p class="warn">critique, then drawn anew: {escape(words)}</p>' for words in step["critiques"]
    )
    plan = f"<h2>plan</h2>{tree_html(data['plan'], step['at'])}" if data["plan"] else ""
    gate_bar = (
        f'<h2>gate</h2><div class="bars"><span>γ</span><span class="bar"><i class="plain" style="width:{100 * step["gate"]:.0f}%"></i></span><span>{step["gate"]:.3f}</span></div>'
        if step["gate"] is not None
        else ""
    )
    heard = tokens_html(data, *step["observed"]) or escape(step["observation"])
    said = (
        ""
        if step["observation"] is None
        else f'<div class="said"><span class="soft">the tool said</span> <code class="{"bad" if step["failed"] else "good"}">{heard}</code></div>'
    )
    return (
        f'<details class="step {step["mode"]}" open><summary><b>step {step["number"]}</b><span class="chip">{"reasoned" if reasoned else "fast"}</span><code>{escape(clip(step["call"], 90))}</code>'
        f'<span class="soft">{gate}</span><span class="soft">{escape(cost_line(step["cost"]))}</span></summary>'
        f'<div class="columns"><div class="text own">{tokens_html(data, *step["wrote"])}</div><div><h2>confidence</h2>{bars_html(data["parts"], step["confidence"])}{gate_bar}{plan}</div></div>'
        f"{told}{candidates_html(step, data['parts']) if reasoned else ''}{said}</details>"
    )


def page(data: dict) -> str:
    """The trace as one HTML page: no script, no other file, nothing from the network."""
    shades = "<span>the head's attention at step</span>" * bool(data["steps"]) + "".join(
        f'<label><input type="radio" name="shade" id="look{step["number"]}">{step["number"]}</label>'
        for step in data["steps"]
    )
    looks = "".join(
        f"body:has(#look{step['number']}:checked) .t {{ background: rgb(var(--look) / calc(.7 * var(--a{step['number']}, 0))) }}\n"
        for step in data["steps"]
    )
    scale = ", ".join(f"rgb{shade(value / 4)}" for value in range(5))
    good = {True: "good", False: "bad", None: "warn"}[data["verified"]]
    chips = "".join(
        f'<span class="chip">{escape(words)}</span>'
        for words in (
            f"{data['world']}: {data['kind']}",
            f"mode {data['settings']['mode']}",
            f"{sum(step['mode'] == 'reason' for step in data['steps'])} of {len(data['steps'])} steps reasoned about",
            cost_line(data["cost"]),
        )
    )
    prompt = (
        f'<details class="prompt"><summary><b>prompt</b><span class="soft">what the agent reads first</span></summary><div class="text">{tokens_html(data, 0, data["steps"][0]["wrote"][0])}</div></details>'
        if data["steps"]
        else ""
    )
    settings = ", ".join(
        f"{name} {value}"
        for name, value in (data["settings"] | {"tau": round(data["tau"], 4)}).items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"><title>{escape(clip(data["request"], 60))}</title>'
        f"<style>{STYLE}{looks}</style></head><body><main><h1>{escape(data['request'])}</h1>"
        + (f'<p class="note">{escape(data["note"])}</p>' if data["note"] else "")
        + f'<div class="chips"><span class="chip {good}">{escape(verdict(data))}</span>{chips}</div>'
        f'<div class="shades"><span class="soft">shade tokens by</span><label><input type="radio" name="shade" id="none" checked> nothing</label>'
        f'<label><input type="radio" name="shade" id="gate"> the embedding\'s gate <span class="scale" style="background:linear-gradient(90deg, {scale})"></span> code … prose</label>{shades}</div>'
        f"{prompt}{''.join(step_html(data, step) for step in data['steps'])}<footer>{escape(settings)}</footer></main></body></html>\n"
    )


def save(text: str, path: str | Path) -> None:
    """Write a file aside and put it in its place, whole."""
    provenance.replace(Path(path).expanduser(), text)
