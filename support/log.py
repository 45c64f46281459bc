"""A run's log: the line on the terminal, log.jsonl, the same figures for TensorBoard, and the curve
drawn from them. docs/METRICS.md says what each figure means.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from support import ranks
from support import provenance


@dataclass
class Interval:
    """Speed, memory and balance of the steps since the last log line: the columns of all stages."""

    ms: float  # wall time per step
    tokens_per_second: float  # of all ranks
    peak_share: float  # of the devices' measured matrix peak
    mfu: float | None  # share of their published peak; None where that is not known
    memory_gib: float  # of the rank that used most
    reserved_gib: float | None  # on a GPU: the same with the allocator's cache
    data_wait: float  # share of the time that the slowest rank waited for data
    # with several ranks only:
    skew: float | None = None  # share of the time that ranks waited for the slowest's own work
    device_skew: float | None = None  # how much slower the slowest device is than the median
    slowest_rank: int | None = None  # the rank of that device

    def columns(self) -> str:
        """For the terminal."""
        share = f"{self.peak_share:4.0%} of peak" if self.mfu is None else f"{self.mfu:4.0%} MFU"
        text = (
            f"{self.ms:5.0f} ms  {self.tokens_per_second:7,.0f} tok/s  {share}  "
            f"{self.memory_gib:.1f} GiB  data {self.data_wait:.0%}"
        )
        if self.skew is None:
            return text
        slowest = f"{self.device_skew:.0%} (rank {self.slowest_rank})"
        return f"{text}  skew {self.skew:.0%}  device {slowest}"

    def record(self) -> dict[str, float]:
        """For log.jsonl."""
        digits = dict(ms=1, tokens_per_second=None)
        return {
            name: round(value, digits.get(name, 4))
            for name, value in asdict(self).items()
            if value is not None
        }


class Log:
    """A run's log: one line on the terminal in fixed columns, and the same figures in log.jsonl
    and, if asked for, in TensorBoard's file of events. Of several ranks, the first one writes.

    `first` is the step that a resumed run stands at.
    """

    def __init__(
        self, folder: str | Path, total: int, first: int = 0, *, tensorboard: bool = False
    ):
        self.path = Path(folder) / "log.jsonl"
        self.total = total  # steps
        self.first = first
        self.writes = ranks.rank() == 0
        self.events = None
        if self.writes:
            self.open_files(tensorboard)
        self.bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            dynamic_ncols=True,
            disable=not (self.writes and sys.stderr.isatty()),
        )

    def open_files(self, tensorboard: bool) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        # resumed: drop what a killed run logged past its last checkpoint; what step 0 has is of a
        # buffer that was played before there was one
        records = read_log(folder) if self.path.exists() else []
        kept = [record for record in records if record["step"] <= self.first]
        provenance.replace(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # events past the checkpoint are dropped here, too
            self.events = SummaryWriter(str(folder), purge_step=self.first + 1)

    def say(self, text: str) -> None:
        self.bar.write(text)

    def line(self, step: int, interval: Interval, **figures: float) -> None:
        """Log one interval: `figures` are shown in the order given (loss, lr, …)."""
        eta = int((self.total - step) * interval.ms / 1000)  # seconds
        shown = [
            f"{name} {value:.1e}" if name == "lr" else f"{name} {value:.3f}"
            for name, value in figures.items()
        ]
        self.say(
            f"{step:>6}/{self.total} {step / self.total:4.0%}  {'  '.join(shown)}  "
            f"{interval.columns()}  ETA {eta // 60}:{eta % 60:02}"
        )
        self.write(step=step, **interval.record(), **figures)

    def write(self, step: int, **figures: float | bool | None) -> None:
        """Figures of a step, for the files alone."""
        if not self.writes:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(dict(step=step, **figures)) + "\n")
        if self.events is not None:
            for name, value in figures.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self.events.add_scalar(name, value, step)
            self.events.flush()  # kept, if the run is killed now

    def close(self) -> None:
        self.bar.close()
        if self.events is not None:
            self.events.close()


class Progress:
    """Says at most once a minute how far a long piece of work is, and how long the rest may take.

    To be called with what is done and all there is to do.
    """

    def __init__(self, say: Callable[[str], None], what: str):
        self.say, self.what = say, what
        self.began = self.said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done and now - self.said >= 60:
            minutes = (now - self.began) / done * (total - done) / 60
            self.say(f"{self.what}  {done:,} of {total:,}, some {minutes:.0f} min left")
            self.said = now


def read_log(folder: str | Path) -> list[dict]:
    """The records of a run's log.jsonl, without a last line that a killed run left half-written."""
    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def draw_curve(
    folder: str | Path, title: str, left: str = "loss", right: str = "bits_per_byte"
) -> Path:
    """Draw two series of a run's log against its steps (the right one where it was logged) into
    loss.png; returns its path. A figure of all held-out text is no point of a line of parts.
    """
    from matplotlib.figure import Figure  # pyplot looks for a screen, and takes longer to import

    labels = {"loss": "training loss (nats per token)", "bits_per_byte": "held out (bits per byte)"}
    records = read_log(folder)
    series = {
        name: [(r["step"], r[name]) for r in records if name in r and r.get("part", True)]
        for name in (left, right)
    }
    whole = [(r["step"], r[right]) for r in records if right in r and not r.get("part", True)]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(*zip(*series[left]), color="tab:blue", label=labels.get(left, left))
    axis.set(xlabel="step", ylabel=labels.get(left, left), title=title)
    axes = [axis]
    if series[right] or whole:
        axes.append(axis.twinx())
        label = labels.get(right, right)
        axes[1].set_ylabel(label)
        if series[right]:
            axes[1].plot(*zip(*series[right]), "o-", color="tab:orange", label=label)
        if whole:
            axes[1].plot(*zip(*whole), "*", ms=11, color="tab:brown", label="held out, all of it")
    # below the axes, where it crosses no line
    handles = [line for a in axes for line in a.lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    for a in axes:
        a.spines["top"].set_visible(False)
    path = Path(folder) / "loss.png"
    figure.savefig(path, dpi=130)
    return path
