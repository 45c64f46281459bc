"""A decision trace as text for a terminal.

step_text(trace, step)      plan, candidates and their fates, the message, confidences as bars
TracePrinter().show(trace)  prints what is new in a trace that grows
"""

from support.tokenizer import printable
from support.trace_data import plan_tree, summary_of

ESCAPES = {
    "bold": "1",
    "faint": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "struck": "9;2",
}
ENDED = {  # Rollout.ended in words
    "answer": "answered",
    "invalid": "ended: too many calls that the schemas refuse",
    "turns": "ended: too many calls",
    "loop": "ended: the same failure again and again",
    "time": "ended: too long in its world",
    "length": "ended: no room left for tokens",
    "malformed": "ended: a call that does not parse",
    "raised": "ended: an error in our own code",
    "": "not finished",
}


def paint(text: str, style: str, coloured: bool) -> str:
    """A text that a terminal shows in a style, once it is `printable`."""
    text = printable(text)
    return f"\x1b[{ESCAPES[style]}m{text}\x1b[0m" if coloured and text else text


def clip(text: str, length: int) -> str:
    """A text in one line of at most `length` characters."""
    text = printable(text).replace("\n", "⏎")
    return text if len(text) <= length else text[: length - 1] + "…"


def bar(value: float, width: int = 10) -> str:
    filled = round(value * width)
    return "█" * filled + "░" * (width - filled)


# ------------------------------------------------------------------- phrases, also used by the page


def cost_line(cost: dict) -> str:
    return f"{cost['tokens']} tokens, {cost['flops'] / 1e9:.3g} GFLOP, {cost['seconds']:.2f} s"


def gate_line(trace: dict, step: dict) -> str:
    """γ beside τ; "" for a step whose gate was not asked."""
    if step["gate"] is None:
        return ""
    sign = ">" if step["gate"] > trace["tau"] else "≤"
    return f"{step['gate']:.3f} {sign} τ {trace['tau']:.3f}"


def verdict(trace: dict) -> str:
    """How the episode ended, in words."""
    if trace["ended"] == "answer" and trace["verified"] is not None:
        return "verified" if trace["verified"] else f"not verified, wanted: {trace['wanted']}"
    words = ENDED[trace["ended"]]
    if trace["ended"] == "length":
        room = trace["settings"]["room"]
        words += f" (the model's context is {trace['context']} tokens, the episode's share {room})"
    return words + (f" ({trace['problem']})" if trace["problem"] else "")


# --------------------------------------------------------------------------------------- the blocks


def tree_lines(plan: dict[str, list], at: str | None) -> list[str]:
    """The plan drawn as a tree, step `at` marked."""
    lines = []

    def draw(branch: tuple[str, list], joint: str, indent: str) -> None:
        number, needs = branch
        lines.append(f"{joint}{number}. {plan[number][0]}{'   ◀' if number == at else ''}")
        for other in needs[:-1]:
            draw(other, f"{indent}├─ ", f"{indent}│  ")
        for other in needs[-1:]:
            draw(other, f"{indent}└─ ", f"{indent}   ")

    for branch in plan_tree(plan):
        draw(branch, "", "")
    return lines


def candidate_lines(candidate: dict, coloured: bool) -> list[str]:
    """A candidate with its figures, the reason for its fate, and its imagined futures."""
    chosen = candidate["fate"] in ("committed", "fallback")
    fallback = candidate["fate"] == "fallback"
    figures = f"E {candidate['energy']:6.3f}  (log p {candidate['log_prob']:.3f}"
    if candidate["ics"] is not None:
        figures += f", ICS {candidate['ics']:.2f}"
    figures += f")  S {candidate['coherence']:.2f}, spread {candidate['spread']:.2f}"
    if candidate["times"] > 1:
        figures += f" ×{candidate['times']}"
    summary = paint(summary_of(candidate["text"]), "green" if chosen else "struck", coloured)
    lines = [f"   {'●' if chosen else '○'} {summary}  {paint(figures, 'faint', coloured)}"]
    if candidate["reason"]:
        why = "all were rejected, least energy of all: " if fallback else ""
        colour = "yellow" if chosen else "red"
        lines.append(paint(f"       {why}{candidate['reason']}", colour, coloured))
    for future in candidate["futures"]:
        observation = clip(future["observation"], 40)
        then = clip(summary_of(future["next_step"]), 50)
        line = f"       if {future['kind']:8} {observation} → {then}  {future['success']:.2f}"
        lines.append(paint(line, "faint", coloured))
    return lines


def step_text(trace: dict, step: dict, coloured: bool = True) -> str:
    """One step, up to what the tool says."""
    reasoned = step["mode"] == "reason"
    gate = gate_line(trace, step)
    heading = f"── step {step['number']}: {'thought about' if reasoned else 'fast'}"
    heading += f"  gate {gate}" if gate else ""
    heading += f"  {cost_line(step['cost'])} "
    lines = [paint(heading, "bold", coloured).ljust(100, "─")]
    if trace["plan"] and (step["number"] == 1 or step["at"]):
        for line in tree_lines(trace["plan"], step["at"]):
            lines.append(paint(f"   {line}", "cyan" if "◀" in line else "faint", coloured))
    for candidate in step["candidates"] if reasoned else []:
        lines += candidate_lines(candidate, coloured)
    for critique in step["critiques"]:
        lines.append(paint(f"   critique: {critique}", "yellow", coloured))
    lines += [f"   {line}" for line in printable(step["text"]).splitlines()]
    bars = []
    for part, value in zip(trace["parts"], step["confidence"], strict=True):
        colour = "green" if value >= 0.5 else "red"
        bars.append(paint(f"{part} {bar(value)} {value:.2f}", colour, coloured))
    lines.append(f"   {'  '.join(bars)}")
    return "\n".join(lines)


def observation_text(step: dict, coloured: bool = True) -> str:
    """What the tool said to a step, and the loop that the episode is in, if it is in one."""
    said = paint(f"   ← {step['observation']}", "red" if step["failed"] else "green", coloured)
    return said + (paint(f"\n   {step['loop']}", "red", coloured) if step["loop"] else "")


def opening_text(trace: dict, coloured: bool = True) -> str:
    """What stands before the steps: the request and the note."""
    lines = [paint(trace["request"], "bold", coloured)]
    if trace["note"]:
        lines.append(paint(trace["note"], "yellow", coloured))
    return "\n".join(lines)


def closing_text(trace: dict, coloured: bool = True) -> str:
    """What stands behind them: how the episode ended, its cost, and of a case what this model did
    beside what the paper says of its own.
    """
    colour = {True: "green", False: "red", None: "yellow"}[trace["verified"]]
    lines = [paint(f"{verdict(trace)}  {cost_line(trace['cost'])}", colour, coloured)]
    if case := trace["judgement"]:
        ended = ENDED[trace["ended"]].removeprefix("ended: ")
        calls = f"{case['calls']} calls, {case['failed']} of them failed; {ended}"
        lines.append(f"this model   {case['outcome']}: {case['seen']} ({calls})")
        lines.append(f"the paper's  {case['paper']} (§{case['section']})")
    return "\n".join(lines)


class TracePrinter:
    """Prints a trace as it grows: at each call what it has not printed yet."""

    def __init__(self, coloured: bool):
        self.coloured = coloured
        self.steps = 0  # printed so far
        self.observed = 0  # number of the last step whose observation was printed

    def show(self, trace: dict) -> None:
        for step in trace["steps"][self.steps :]:
            if step["number"] == 1:
                print(opening_text(trace, self.coloured))
            print(step_text(trace, step, self.coloured), flush=True)
        self.steps = len(trace["steps"])
        for step in trace["steps"][self.observed :]:
            if step["observation"] is not None:
                print(observation_text(step, self.coloured), flush=True)
                self.observed = step["number"]
        if trace["ended"]:
            print(closing_text(trace, self.coloured))
