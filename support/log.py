"""A run's log: the line on the terminal, log.jsonl, and the curve drawn from it."""

import json
import sys
from pathlib import Path

from tqdm import tqdm

import parallel
from support import provenance


class Log:
    """A run's log: one line on the terminal in fixed columns, and the same numbers in log.jsonl;
    of the first rank alone.
    """

    def __init__(self, folder: str | Path, total: int, first: int = 0):
        self.path = Path(folder) / "log.jsonl"
        self.total = total  # steps
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if parallel.rank() > 0:
            pass
        elif first == 0:
            self.path.write_text("")
        else:  # resumed: drop what a killed run logged past its last checkpoint
            records = read_log(folder) if self.path.exists() else []
            kept = [record for record in records if record["step"] <= first]
            provenance.replace(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty() or parallel.rank() > 0,
        )

    def say(self, text: str) -> None:
        self.bar.write(text)

    def line(
        self,
        step: int,
        milliseconds: float,
        tokens_per_second: float,
        peak_share: float,
        **numbers: float,
    ) -> None:
        """Log one interval: `numbers` are shown in the order given (loss, lr, …)."""
        eta = int((self.total - step) * milliseconds / 1000)  # seconds
        figures = [
            f"{name} {value:.1e}" if name == "lr" else f"{name} {value:.3f}"
            for name, value in numbers.items()
        ]
        self.say(
            f"{step:>6}/{self.total} {step / self.total:4.0%}  {'  '.join(figures)}  "
            f"{milliseconds:5.0f} ms  {tokens_per_second:7,.0f} tok/s  "
            f"{peak_share:4.0%} of peak  ETA {eta // 60}:{eta % 60:02}"
        )
        self.write(
            step=step,
            ms=round(milliseconds, 1),
            tokens_per_second=round(tokens_per_second),
            peak_share=round(peak_share, 4),
            **numbers,
        )

    def write(self, **numbers: float) -> None:
        if parallel.rank() > 0:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(numbers) + "\n")


def read_log(folder: str | Path) -> list[dict]:
    """The records of a run's log.jsonl, without a last line that a killed run left half-written."""
    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def draw_curve(
    folder: str | Path, title: str, left: str = "loss", right: str = "bits_per_byte"
) -> Path:
    """Draw two series of a run's log against its steps (the right one where it was logged) into
    loss.png; returns its path.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = {"loss": "training loss (nats per token)", "bits_per_byte": "held out (bits per byte)"}
    records = read_log(folder)
    series = {name: [(r["step"], r[name]) for r in records if name in r] for name in (left, right)}
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.plot(*zip(*series[left]), color="tab:blue", label=labels.get(left, left))
    axis.set(xlabel="step", ylabel=labels.get(left, left), title=title)
    axes = [axis]
    if series[right]:
        axes.append(axis.twinx())
        axes[1].plot(*zip(*series[right]), "o-", color="tab:orange", label=labels.get(right, right))
        axes[1].set_ylabel(labels.get(right, right))
    axis.legend(handles=[line for a in axes for line in a.lines], frameon=False)
    for a in axes:
        a.spines["top"].set_visible(False)
    path = Path(folder) / "loss.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
