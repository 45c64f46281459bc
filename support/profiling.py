"""A trace of a few steps: which operators ran when, and for how long.

    python train.py config/toy.py --profile 10:3

Rank 0 traces its 10th to 12th step since it was started, and writes trace-10-12.json.gz into the
run's folder, for https://ui.perfetto.dev. The file is named by the run's steps: after a resumption
from step 500 it is trace-510-512.json.gz.
"""

import tempfile
from pathlib import Path

from torch.autograd import DeviceType
from torch.profiler import profile, schedule

from support import ranks
from support import provenance
from support.log import Log

OPERATORS_SHOWN = 10


class StepTrace:
    """Traces a window of steps with torch.profiler; without a window does nothing.

    `window` is "first:count", in steps of this process; `step()` is called after each of them. The
    file is written when the window has ended, and not at all where the run ends before.
    """

    def __init__(self, window: str, log: Log):
        self.log = log
        self.profiler = None
        if not window or ranks.rank() > 0:
            return
        first, self.count = map(int, window.split(":"))
        last = log.first + first + self.count - 1
        if last > log.total:
            log.say(f"note    no trace: --profile {window} ends at step {last:,}, after the run")
            return
        # the step before the window warms the profiler up: its own start takes time
        window_of_steps = schedule(
            skip_first=first - 2, wait=0, warmup=1, active=self.count, repeat=1
        )
        self.path = log.path.parent / f"trace-{last - self.count + 1}-{last}.json.gz"
        self.profiler = profile(schedule=window_of_steps, on_trace_ready=self.finish)
        self.profiler.start()

    def step(self) -> None:
        """A step has ended."""
        if self.profiler is not None:
            self.profiler.step()

    def finish(self, profiler: profile) -> None:
        """Write the trace, and say where it is and what took longest."""
        self.profiler = None
        with tempfile.TemporaryDirectory() as scratch:
            aside = Path(scratch, "trace.json.gz")
            profiler.export_chrome_trace(str(aside))
            provenance.replace(self.path, aside.read_bytes())
        self.log.say(f"trace   {self.path}, for https://ui.perfetto.dev")
        for line in slowest_operators(profiler, self.count):
            self.log.say(line)


def slowest_operators(profiler: profile, steps: int) -> list[str]:
    """A small table by self time: a GPU's kernels, or else the CPU's operators."""
    events = [event for event in profiler.key_averages() if not event.is_user_annotation]
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    if kernels:
        rows = [(event.self_device_time_total, event) for event in kernels]
    else:
        rows = [(event.self_cpu_time_total, event) for event in events]
    rows.sort(key=lambda row: row[0], reverse=True)
    total = sum(microseconds for microseconds, _ in rows)
    what = "kernel" if kernels else "operator"
    table = [f"        {'ms per step':>11}  {'share':>5}  {'calls':>5}  {what}"]
    for microseconds, event in rows[:OPERATORS_SHOWN]:
        table.append(
            f"        {microseconds / 1e3 / steps:11.2f}  {microseconds / total:5.0%}  "
            f"{event.count / steps:5.0f}  {event.key[:60]}"
        )
    return table
