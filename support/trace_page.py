"""A decision trace as one HTML page: no script, no other file, nothing from the network.

    page_of(trace)      trace.html beside this file, filled in; every value in it is escaped

Tokens can be shaded by the split embedding's gate, or by where the confidence head looks at a
step's end: CSS variables on each token (--g; --a1, --a2, …) and radio buttons choose among them.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from support.gate_picture import shade
from support.trace_data import plan_tree, summary_of
from support.trace_text import clip, cost_line, gate_line, verdict

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(clip=clip, cost=cost_line, summary=summary_of)
LEAST_SHARE = 0.001  # of a step's attention; less is not shown


def token_views(trace: dict) -> list[dict]:
    """Each token's text, its CSS variables, and what a pointer over it says."""
    peaks = {step["number"]: max(step["attention"]) for step in trace["steps"]}
    views = []
    for place, (text, gate, marker) in enumerate(trace["tokens"]):
        variables = [f"--g:rgb{shade(gate)}"]
        title = [f"gate {gate:.2f}"]
        for step in trace["steps"]:
            number, attention = step["number"], step["attention"]
            share = attention[place] if place < len(attention) else 0.0
            if share >= LEAST_SHARE:
                strength = (share / peaks[number]) ** 0.5
                variables.append(f"--a{number}:{strength:.2f}")
                title.append(f"attention at step {number} {share:.1%}")
        view = dict(text=text, style=";".join(variables), title=", ".join(title), marker=marker)
        views.append(view)
    return views


def step_view(trace: dict, step: dict, tokens: list[dict]) -> dict:
    """What the template shows of a step beside the step itself."""
    return dict(
        step=step,
        gate=gate_line(trace, step),
        confidence=list(zip(trace["parts"], step["confidence"], strict=True)),
        wrote=tokens[slice(*step["wrote"])],
        observed=tokens[slice(*step["observed"])],
    )


def page_of(trace: dict) -> str:
    """The trace as a page."""
    tokens = token_views(trace)
    steps = trace["steps"]
    settings = trace["settings"] | {"tau": round(trace["tau"], 4)}
    page = TEMPLATES.get_template("trace.html").render(
        trace=trace,
        steps=[step_view(trace, step, tokens) for step in steps],
        prompt=tokens[: steps[0]["wrote"][0]] if steps else [],
        tree=plan_tree(trace["plan"]),
        reasoned=sum(step["mode"] == "reason" for step in steps),
        verdict=verdict(trace),
        settings=", ".join(f"{name} {value}" for name, value in settings.items()),
        scale=", ".join(f"rgb{shade(quarter / 4)}" for quarter in range(5)),
    )
    return page.strip() + "\n"
