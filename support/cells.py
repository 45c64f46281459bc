"""Claims beside simulations: what a cell is, when a claim holds, how it is written (theory.py).

A claim is a formula of the paper and cells: one setting each, with what the formula says there, the
exact value where the formula is not meant to be it or is not it, and the draws of a simulation. A
cell agrees unless the interval of the draws' mean contradicts it.

One 99% interval in a hundred misses the truth. So a claim's verdict is taken from wider intervals,
which hold for all of its cells at once in 99 of 100 claims (Bonferroni: each misses in 1% / cells).
A claim holds if all of its cells agree; it holds under its condition if all cells that meet it
agree and some other does not; else it does not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from math import comb, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

from support.intervals import wilson

MISS = 0.01  # how often a 99% interval misses
ROUNDING = 1e-12  # what float64 may be off where all draws are the same
# Okabe and Ito's colours, which colour-blind readers can tell apart
INKS = dict(
    blue="#0072B2",
    orange="#E69F00",
    green="#009E73",
    red="#D55E00",
    grey="#777777",
    black="#000000",
)


@dataclass
class Cell:
    """One setting: what the paper's formula says, and what a simulation found."""

    setting: str
    formula: float
    draws: np.ndarray  # (N,), yes or no, or numbers; only their mean and variance are kept
    relation: str = "="  # the claim: the true mean is "=", "≤" or "≥" the formula
    meets: bool = True  # whether the claim's condition is met here
    exact: float | None = None  # the true mean; None: the formula's value

    def __post_init__(self) -> None:
        self.are_shares = self.draws.dtype == bool
        self.count = len(self.draws)
        self.mean = float(self.draws.mean())
        self.variance = float(self.draws.var())  # of one draw
        self.draws = self.draws[:0]
        if self.exact is None:
            self.exact = self.formula

    def interval(self, cells: int = 1) -> tuple[float, float]:
        """The mean's interval that misses in MISS / cells of all cases: Wilson's for shares, else
        the normal one.
        """
        z = NormalDist().inv_cdf(1 - MISS / cells / 2)
        if self.are_shares:
            return wilson(round(self.mean * self.count), self.count, z)
        half = z * sqrt(self.variance / self.count)
        return self.mean - half, self.mean + half

    def agrees(self, cells: int = 1) -> bool:
        """Whether the interval leaves room for what the formula says."""
        low, high = self.interval(cells)
        above = self.relation == "≥" or low <= self.formula + ROUNDING
        below = self.relation == "≤" or high >= self.formula - ROUNDING
        return above and below

    def exact_inside(self, cells: int = 1) -> bool:
        low, high = self.interval(cells)
        return low - ROUNDING <= self.exact <= high + ROUNDING

    @property
    def deviation(self) -> float:
        """How far the mean is from the exact value, in standard errors."""
        return abs(self.mean - self.exact) / max(sqrt(self.variance / self.count), ROUNDING)


@dataclass
class Claim:
    """A claim of the paper, where it stands, and the cells that decide it."""

    name: str
    paper: str  # the sentence it belongs to; symbols that the published text lost are restored
    formula: str
    condition: str  # what `Cell.meets` stands for
    cells: list[Cell]
    remark: str = ""  # what else the numbers say

    def contradicting(self) -> list[Cell]:
        """Cells whose interval, wide enough for all cells at once, excludes the formula."""
        return [cell for cell in self.cells if not cell.agrees(len(self.cells))]

    @property
    def verdict(self) -> str:
        contradicting = self.contradicting()
        if any(cell.meets for cell in contradicting):
            return "does not hold"
        return f"holds if {self.condition}" if contradicting else "holds"

    @property
    def counts(self) -> str:
        """The numbers behind the verdict."""
        contradicting, parts = self.contradicting(), []
        for meets, where in ((True, "cells that meet the condition"), (False, "that break it")):
            count = sum(cell.meets == meets for cell in self.cells)
            against = sum(cell.meets == meets for cell in contradicting)
            if count:
                parts.append(f"{against} of {count} {where if self.condition else 'cells'}")
        inside = sum(cell.exact_inside(len(self.cells)) for cell in self.cells)
        confirmed = f"{inside} of {len(self.cells)} exact values confirmed"
        return f"contradicted in {' and '.join(parts)}, {confirmed}"

    @property
    def sentence(self) -> str:
        return f"{self.name} {self.verdict}: {self.counts}."

    def table(self) -> list[list[str]]:
        """Its cells as rows of text, the header first."""
        conditional = any(not cell.meets for cell in self.cells)
        header = ["setting", "condition"] if conditional else ["setting"]
        rows = [[*header, "formula", "agrees", "exact", "simulated", "99% interval", "inside"]]
        for cell in self.cells:
            low, high = cell.interval()
            row = [cell.setting]
            if conditional:
                row.append("met" if cell.meets else "broken")
            row += [f"{cell.relation} {cell.formula:.4f}", self.answer(cell.agrees)]
            row += [f"{cell.exact:.4f}", f"{cell.mean:.4f}", f"{low:.4f} to {high:.4f}"]
            rows.append([*row, self.answer(cell.exact_inside)])
        return rows

    def answer(self, question) -> str:
        """A cell's answer for its own interval, and for the wider one where that is another."""
        if question():
            return "yes"
        return "at 99% of all cells" if question(len(self.cells)) else "no"


def misses(claims: list[Claim]) -> tuple[int, int, float]:
    """Exact values outside their own 99% interval; of how many; and how often there would be so
    many or more if all were true and their draws independent.
    """
    cells = [cell for claim in claims for cell in claim.cells]
    missed, N = sum(not cell.exact_inside() for cell in cells), len(cells)
    fewer = sum(comb(N, k) * MISS**k * (1 - MISS) ** (N - k) for k in range(missed))
    return missed, N, 1 - fewer


def as_columns(rows: list[list[str]]) -> str:
    """Rows of text, aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: list[list[str]]) -> str:
    """Rows of text as a table of Markdown."""
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------
# Pictures


@dataclass
class Curve:
    """A line, dots, or with `upper` the area between `y` and it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    ink: str  # of INKS
    style: str = "-"  # of matplotlib
    upper: Sequence[float] | None = None


@dataclass
class Panel:
    """What its axes are, and what is drawn on them."""

    title: str
    xlabel: str
    ylabel: str
    curves: list[Curve]
    axes: dict = field(default_factory=dict)  # more for matplotlib's Axes.set
    legend: str = "best"  # where


def draw_panels(panels: list[Panel], path: Path) -> None:
    """Panels side by side, as a PNG of 128 colours, which is far smaller than one of all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image  # matplotlib needs it, too

    size = (4.6 * len(panels), 3.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axis, panel in zip(axes[0], panels):
        for curve in panel.curves:
            look = dict(color=INKS[curve.ink], label=curve.label or None)
            if curve.upper is not None:
                axis.fill_between(curve.x, curve.y, curve.upper, alpha=0.35, linewidth=0, **look)
            else:
                axis.plot(curve.x, curve.y, curve.style, markersize=4.5, linewidth=1.6, **look)
        axis.set(xlabel=panel.xlabel, ylabel=panel.ylabel, **panel.axes)
        axis.set_title(panel.title, fontsize=10)
        axis.legend(frameon=False, fontsize=8, loc=panel.legend)
        axis.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    Image.open(picture).convert("RGB").quantize(128).save(path, optimize=True)
