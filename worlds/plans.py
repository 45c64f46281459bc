"""Plans: numbered steps that form a directed acyclic graph (paper section 4.1).

1. kemi for dolu: rana 17
2. pita for nolu: dolu (after 1)
"""

import re
from dataclasses import dataclass

from worlds.tools import Fault

# each in time that grows with a line's length, which is the model's to choose
PLAN_LINE = re.compile(r"\s*(\d{1,6})[.:)]?\s+(.*)", re.DOTALL)
AFTER = re.compile(r"\(after ([\d, ]+)\)\Z")


@dataclass(frozen=True)
class Plan:
    """Numbered steps, each with the steps it depends on."""

    steps: dict[int, tuple[str, tuple[int, ...]]]  # number: (goal, numbers of earlier steps)

    def write(self) -> str:
        """The plan as the model writes it."""
        lines = []
        for number, (goal, after) in self.steps.items():
            behind = f" (after {', '.join(map(str, after))})" if after else ""
            lines.append(f"{number}. {goal}{behind}")
        return "\n".join(lines)

    def check(self) -> list[Fault]:
        """Steps that are named but missing, and the edge that closes a circle.

        Empty if the plan is a directed acyclic graph.
        """
        faults = []
        for number, (_, after) in self.steps.items():
            for other in after:
                if other not in self.steps:
                    missing = f"step {number} comes after step {other}, which is not in the plan"
                    faults.append(Fault("unknown_step", missing, str(number)))
        circle = self._circle()
        if circle:
            number, other = circle[-2:]
            written = " → ".join(map(str, circle))
            message = f'"{number} after {other}" closes the circle {written}'
            faults.append(Fault("circle", message, str(number)))
        return faults

    def _circle(self) -> list[int]:
        """The first circle that a depth-first search meets, its first step again at the end."""
        path: dict[int, None] = {}  # the steps being visited, each needed by the one before it
        done: set[int] = set()
        for start in self.steps:
            # a stack of our own: a plan of 100 000 steps must not exhaust Python's
            waiting = [(start, "enter")]
            while waiting:
                number, act = waiting.pop()
                if act == "leave":
                    del path[number]
                    done.add(number)
                elif number not in done:
                    path[number] = None
                    waiting.append((number, "leave"))
                    for other in self.steps[number][1]:
                        if other in path:
                            order = list(path)
                            return [*order[order.index(other) :], other]
                        if other in self.steps and other not in done:
                            waiting.append((other, "enter"))
        return []

    def respected(self, order: list[int]) -> list[Fault]:
        """Where an execution (step numbers in the order they were done) breaks the plan.

        Empty if it followed the plan to the end.
        """
        faults = []
        done: set[int] = set()
        for number in order:
            if number not in self.steps:
                message = f"step {number} is not in the plan"
                faults.append(Fault("unknown_step", message, str(number)))
                continue
            early = [other for other in self.steps[number][1] if other not in done]
            if early:
                message = f"step {number} was done before step {early[0]}, which it needs"
                faults.append(Fault("order", message, str(number)))
            done.add(number)
        for number in self.steps:
            if number not in done:
                faults.append(Fault("unfinished", f"step {number} was never done", str(number)))
        return faults


def read_plan(text: str) -> tuple[Plan, list[Fault]]:
    """The plan in a text and all that is wrong with it. Never raises.

    Lines that do not begin with a number are passed over.
    """
    steps: dict[int, tuple[str, tuple[int, ...]]] = {}
    faults = []
    for line in text.splitlines():
        match = PLAN_LINE.fullmatch(line)
        if not match:
            continue
        number = int(match[1])
        if number in steps:
            message = f"step {number} stands twice in the plan"
            faults.append(Fault("duplicate", message, str(number)))
            continue
        goal, after = match[2].rstrip(), ()
        if behind := AFTER.search(goal):
            goal = goal[: behind.start()].rstrip()
            after = tuple(int(digits) for digits in re.findall(r"\d{1,6}", behind[1]))
        steps[number] = goal, after
    if not steps:
        faults.append(Fault("syntax", "no plan: no line begins with a step's number"))
    plan = Plan(steps)
    return plan, faults + plan.check()
