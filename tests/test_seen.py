"""What a run shows of itself: the columns of a log line, TensorBoard's file, a profiler's trace."""

import gzip
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import ROOT
from config import Config, UserError
from support import log, machine, ranks
from support.log import Interval, Log, read_log
from support.settings import validate
from support.training_run import Meter
from test_train import settings  # a fixture

PEAK = machine.Peak("cpu", torch.float32, "a device", measured=2e9)


# --------------------------------------------------------------------------------------------------
# The columns.


@pytest.mark.parametrize(
    "name, teraflops",
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_published_peaks(name, teraflops):
    peak = machine.published_peak(name, torch.bfloat16)
    assert peak == (teraflops and teraflops * 1e12)
    assert machine.published_peak(name, torch.float32) is None


def test_a_line_says_which_peak_it_divides_by(tmp_path):
    log = Log(tmp_path, 10)
    interval = Interval(100.0, 1000.4, 0.51, None, 3.25, None, 0.014)
    assert "  51% of peak  3.2 GiB  data 1%" in interval.columns()
    log.line(5, interval, loss=2.0)
    interval.mfu = 0.38
    assert "  38% MFU" in interval.columns() and "of peak" not in interval.columns()
    log.line(6, interval, loss=2.0)
    first, second = read_log(tmp_path)
    assert "mfu" not in first and "skew" not in first
    assert first["tokens_per_second"] == 1000 and first["peak_share"] == 0.51
    assert second["mfu"] == 0.38 and second["peak_share"] == 0.51


def test_an_interval_of_several_ranks(monkeypatch):
    """Memory and waiting are those of the worst rank; skew is the time lost to the slowest one."""
    others = iter([[(2.0, 1.0, 3.0, 4.0), (0.5, 0.5, 9.0, 9.5)], [0.5e9, 1.2e9]])
    monkeypatch.setattr(ranks, "gather", lambda mine: [mine, *next(others)])
    monkeypatch.setattr(machine, "memory_used", lambda device: (1.0, 2.0))
    monkeypatch.setattr(machine, "matmul_peak", lambda *a, **k: 1e9)
    meter = Meter(10, PEAK)
    meter.began -= 4.0
    meter.count(tokens=800, flops=2.4e9)
    seen = meter.interval(12)
    assert seen.ms == pytest.approx(2000, rel=0.1)
    assert seen.tokens_per_second == pytest.approx(200, rel=0.1)
    assert seen.peak_share == pytest.approx(2.4e9 / 4 / 3 / 2e9, rel=0.1)
    assert (seen.memory_gib, seen.reserved_gib) == (9.0, 9.5)
    assert seen.data_wait == pytest.approx(1 / 4, rel=0.1)
    assert seen.skew == pytest.approx((2.0 - 0.5) / 4, rel=0.1)
    assert seen.device_skew == 0.5 and seen.slowest_rank == 1
    assert "skew 37%  device 50% (rank 1)" in seen.columns()


def test_waiting_is_part_of_working_alone():
    meter = Meter(0, PEAK)
    with meter.waiting():
        pass
    waited = meter.waited
    with meter.alone():
        pass
    assert 0 < waited == meter.waited < meter.worked_alone
    assert meter.interval(1).skew is None  # of one rank


def test_waiting_for_others_is_not_working_alone(monkeypatch):
    waited = iter([9.0, 0.3])  # before the block, and in what it gathered
    monkeypatch.setattr(ranks, "seconds_waited", lambda: next(waited))
    meter = Meter(0, PEAK)
    with meter.alone():
        pass
    assert meter.worked_alone == pytest.approx(-0.3, abs=0.1)


def fresh_process(code):
    """What Python prints that runs this code in a process with nothing freed before."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_memory_of_a_process():
    code = """
import torch
from support import machine
before, _ = machine.memory_used("cpu")
ballast = torch.ones(1 << 26)  # 256 MiB
after, reserved = machine.memory_used("cpu")
print(after - before, reserved)
"""
    grown, reserved = fresh_process(code)
    assert float(grown) == pytest.approx(0.25, abs=0.05) and reserved == "None"


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    log = Log(tmp_path / "run", 10, tensorboard=True)
    log.write(step=1, loss=1.0)
    log.close()
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------
# TensorBoard, and the profiler.


def scalars(folder, name):
    """(step, value) of a figure, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_goes_on_where_a_killed_run_was_saved(tmp_path):
    log = Log(tmp_path, 10, tensorboard=True)
    for step in range(1, 7):
        log.write(step=step, loss=float(step), part=True, unknown=None)
    assert scalars(tmp_path, "loss")[-1] == (6, 6.0)  # nobody closed it
    files = list(tmp_path.glob("events.*"))
    os.truncate(files[0], files[0].stat().st_size - 7)  # killed as it wrote

    resumed = Log(tmp_path, 10, first=4, tensorboard=True)
    for step in range(5, 8):
        resumed.write(step=step, loss=10.0 + step)
    resumed.close()
    wanted = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 15.0), (6, 16.0), (7, 17.0)]
    assert scalars(tmp_path, "loss") == wanted
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path)] == wanted


def test_settings_of_what_is_seen(monkeypatch):
    validate(Config(tensorboard=True, profile="10:3"))
    for window in ("10", "1:2", "0:4", "5:0", "a:b", "5:-1", "3:4:5"):
        with pytest.raises(UserError, match="wanted first:count, such as 10:3"):
            validate(Config(profile=window))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tensorboard\]'"):
        validate(Config(tensorboard=True))


def test_a_run_with_both(tmp_path, settings):
    words = [settings("run"), "--tensorboard", "--profile", "3:2"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "run"

    logged = [r for r in read_log(folder) if "loss" in r]
    for name in ("loss", "lr", "peak_share", "memory_gib", "data_wait"):
        wanted = [(record["step"], pytest.approx(record[name])) for record in logged]
        assert len(wanted) == 6 and scalars(folder, name) == wanted
    assert [step for step, _ in scalars(folder, "bits_per_byte")] == [2, 4, 6]
    assert all(0.05 < record["memory_gib"] < 4 for record in logged)
    assert all(0 < record["data_wait"] < 1 for record in logged)

    files = [path.name for path in folder.iterdir() if path.name.startswith("trace")]
    assert files == ["trace-3-4.json.gz"]
    trace = json.loads(gzip.decompress((folder / files[0]).read_bytes()))
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert names.count("ProfilerStep#2") and names.count("ProfilerStep#3")
    assert names.count("data") >= 2
    for wanted in ("aten::mm", "aten::_scaled_dot_product", "Optimizer.step#Muon", "Backward0"):
        assert any(wanted in name for name in names), wanted

    assert f"trace   {folder / files[0]}" in result.stdout
    table = re.findall(r"^ {8} +[\d.]+ +\d+% +\d+  (\S.*)$", result.stdout, re.MULTILINE)
    assert len(table) == 10 and "aten::mm" in table


def test_a_window_that_the_run_does_not_reach(tmp_path, capsys):
    from support.profiling import StepTrace

    log = Log(tmp_path, 10, first=5)
    trace = StepTrace("4:3", log)
    for _ in range(5):
        trace.step()
    assert "ends at step 11, after the run" in capsys.readouterr().out
    assert not list(tmp_path.glob("trace*"))


def test_freed_memory_is_kept_for_the_next_step():
    """What 20 steps free and ask for again, 24 MB each: pages come once, not in every step."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc is told")
    code = """
import resource
from support import machine
import torch
machine.keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(21):
    if step == 1:
        before = faults()
    parts = [torch.ones(1 << 20) for _ in range(6)]
    del parts
print(faults() - before)
"""
    (faults,) = fresh_process(code)
    assert int(faults) < 6144  # pages of one step


def test_long_work_says_how_far_it_is_once_a_minute(monkeypatch):
    """A fifth is done after two minutes, so eight are left; nothing in the first minute, and not
    again within the next.
    """
    clock, said = iter([0.0, 59.0, 120.0, 150.0, 190.0]), []
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    progress = log.Progress(said.append, "play")
    for done in (90, 200, 250, 316):
        progress(done, 1000)
    assert said == ["play  200 of 1,000, some 8 min left", "play  316 of 1,000, some 7 min left"]
