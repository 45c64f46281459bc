"""bench/gpu.py without a GPU: a toy's run of every section, FlexAttention's mask from its blocks,
and what a case does about contestants that fail, hang or take the process with them.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "bench"))  # not before the root: both have an attention.py
import gpu  # asks for Triton's interpreter where there is no GPU: before all that imports Triton
import cases
from attention import definition, mask
from support import result_tables, settings
from torch.nn.attention.flex_attention import create_block_mask

STAMP = ["device", "torch", "triton", "driver", "transformers", "commit", "machine", "date"]


# The toy's run
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    """What `python bench/gpu.py --tiny` prints, and the file it writes."""
    folder = tmp_path_factory.mktemp("bench")
    run = subprocess.run(
        [sys.executable, ROOT / "bench" / "gpu.py", "--tiny", "--minutes", "30", "--out", folder],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (file,) = folder.glob("gpu-*.jsonl")
    return run.stdout, file


@pytest.mark.slow
def test_the_toy_run_measures_every_section(toy_run):
    printed, file = toy_run
    records = {}
    for line in file.read_text().splitlines():
        record = json.loads(line)
        assert record["name"] not in records and record["name"] in printed
        assert all(record[key] for key in [*STAMP, "command"])
        records[record["name"]] = record
    scale = gpu.toy_scale("cpu")
    every = [f"{case.section}/{name}" for case in gpu.all_cases(scale) for name in case.names]
    assert sorted(records) == sorted(every)
    if torch.cuda.is_available():
        return
    failed = {name: record["failed"] for name, record in records.items() if "failed" in record}
    assert len(failed) == 5 + 3  # SDPA cuDNN, FlexAttention's backward pass, CUDA graphs
    assert "SDPA cuDNN" in " ".join(failed)
    assert failed["kernels/decode, 256 tokens, landmark, CUDA graph"].endswith("need a GPU")
    for name, record in records.items():
        if name in failed:
            continue
        assert record["value"] > 0 and record["unit"] and record["n"] > 0, name
        assert record["spread"].startswith("min ") and record["also"]["ms"] > 0, name
        section = name.split("/")[0]
        if section in ("kernels", "steps"):
            limit = "bandwidth" if "decode" in name else "matrix peak"
            assert record["also"][f"share of the {limit}"] > 0, name
    assert {name.split("/")[0] for name in records if name not in failed} == {"roof", *gpu.SECTIONS}
    # contestants compute the same, from the same weights
    difference = "largest difference from ours"
    for kind in ("packed", "mask"):
        name = f"kernels/forward, 256 tokens, FlexAttention, {kind}"
        assert records[name]["also"][difference] < 1e-5
    ours, theirs = (
        records[f"steps/toy, 2 × 96, {name}"]["also"]["loss"] for name in ("eager", "transformers")
    )
    assert ours == pytest.approx(theirs, abs=0.02)  # the peer's has one prediction less
    assert records["steps/toy, 2 × 96, compiled"]["also"]["planned GiB"] > 0
    for batch in scale.batches:
        assert records[f"decoding/toy, {batch} rows, eager"]["also"]["tokens as transformers'"] == 1
    assert "--stage distill" in records["lineage/distilled"]["command"]


@pytest.mark.slow
def test_a_run_enters_the_results(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr(result_tables, "FOLDER", tmp_path)
    count = gpu.enter(toy_run[1])
    entered = json.loads((tmp_path / "gpu.json").read_text())
    assert len(entered) == count > 15
    table = result_tables.list_table("gpu", "steps/")
    assert "| toy, 2 × 96, compiled |" in table and "of the matrix peak" in table


def test_what_found_no_time_is_said_and_is_the_rest(tmp_path, capsys):
    scale = gpu.toy_scale("cpu")
    path = tmp_path / "run.jsonl"
    case = next(case for case in gpu.all_cases(scale) if case.section == "steps")
    gpu.measure_all([case], scale, 0.0, path, {"commit": "one"})
    assert capsys.readouterr().out.count("left out: no time") == 3
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["failed"] for record in records] == ["left out: no time"] * 3
    assert not gpu.is_measured(case, path, "one")
    for record in records[:2]:
        record["value"] = record.pop("failed")
    records[2]["failed"] = "out of memory"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert gpu.is_measured(case, path, "one") and not gpu.is_measured(case, path, "two")
    assert not gpu.is_measured(case, tmp_path / "none.jsonl", "one")


def test_the_lineage_is_what_its_scripts_take():
    scales = [gpu.Scale("cuda"), gpu.toy_scale("cpu")]
    for command in [command for scale in scales for command in scale.lineage.values()]:
        script, *options = shlex.split(command)
        assert (ROOT / script).exists()
        settings.from_command_line(["config/small.py", *options])


# FlexAttention's mask
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "T, window, stride", [(512, 200, 16), (700, 130, 64), (1024, 256, 8), (300, 1000, 32)]
)
def test_the_mask_from_blocks_is_the_mask_from_pairs(T, window, stride, packed):
    found, seen = gpu.flex_mask(T, window, stride, packed, "cpu")
    columns = T + (-(-T // stride) if packed else 0)
    wanted = create_block_mask(seen, None, None, T, columns, device="cpu")
    assert found.seq_lengths == wanted.seq_lengths and found.BLOCK_SIZE == wanted.BLOCK_SIZE
    for kind in ("kv", "full_kv", "q", "full_q"):
        counts = getattr(found, f"{kind}_num_blocks")
        assert torch.equal(counts, getattr(wanted, f"{kind}_num_blocks")), kind
        # of the lists only as many entries count
        place = torch.arange(getattr(found, f"{kind}_indices").shape[-1])
        listed = [getattr(m, f"{kind}_indices").long() for m in (found, wanted)]
        for blocks in listed:
            blocks.masked_fill_(place >= counts[..., None], -1)
        assert torch.equal(*listed), kind


@pytest.mark.parametrize("packed", [True, False])
def test_flex_attention_sees_the_same_pairs(packed):
    scale = gpu.toy_scale("cpu")
    shape = scale.attention
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, heads, 300, 64, generator=generator) for heads in (2, 1, 1))
    wanted = definition(q, k, v, shape.window, shape.landmark_stride)
    torch.compiler.set_stance("force_eager")
    try:
        found = gpu.flex(scale, 300, packed)(q, k, v)
    finally:
        torch.compiler.set_stance("default")
    torch.testing.assert_close(found, wanted)
    index = torch.arange(300)
    pairs = 2 * int(mask(index, index, shape.window, shape.landmark_stride).sum())
    assert gpu.visible_pairs(shape, 300) == pytest.approx(pairs)


# Cases
# --------------------------------------------------------------------------------------------------


def records_of(measure, names, tmp_path, seconds=60.0):
    """What a case's function reports, by the figures' names without the section."""
    limits = dict(turns=2, seconds=1.0, patience=0.3, deadline=time.monotonic() + seconds)
    bench = cases.Bench("cpu", roof={"bandwidth": 100.0}, **limits)
    case = cases.Case("s", "what", 1, names, measure)
    records = list(cases.results(case, bench, tmp_path / "log"))
    assert sorted(record["name"] for record in records) == sorted(f"s/{name}" for name in names)
    return {record["name"][2:]: record for record in records}


def test_a_contestant_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    def compiler():
        try:
            time.sleep(60)
        except TimeoutError as error:
            raise RuntimeError("the compiler failed") from error

    def failing_later():
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("second time\nand more")
        return 1.0

    calls = []

    def measure(bench):
        with bench.contestant("raises"):
            raise NotImplementedError("no such backend\n  on this device\n  and a long story")
        with bench.contestant("hangs"):
            compiler()
        with bench.contestant("one", "two"):
            raise torch.OutOfMemoryError("Tried to allocate 80 GiB")
        clocks = {"fine": lambda: 0.5, "later": failing_later}
        for name, times in bench.in_turns(clocks).items():
            bench.figure(name, times, 3.0, "things/s", bytes_read=10, colour="red")

    names = ["raises", "hangs", "one", "two", "fine", "later", "forgotten"]
    found = records_of(measure, names, tmp_path)
    assert found["raises"]["failed"] == "NotImplementedError: no such backend on this device"
    assert found["hangs"]["failed"] == "did not finish within 0.3 s"
    assert found["one"]["failed"] == found["two"]["failed"] == "out of memory"
    assert found["later"]["failed"] == "ValueError: second time and more"
    assert found["forgotten"]["failed"].startswith("its process ended")
    assert found["fine"] == dict(
        name="s/fine",
        value=6.0,
        unit="things/s",
        spread="min 6 max 6",
        n=2,
        also={"ms": 500.0, "share of the bandwidth": 0.2, "colour": "red"},
    )
    assert "a long story" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "end, reason",
    [
        ("os._exit(7)", "its process ended with 7"),
        ("raise SystemError('no driver')", "SystemError: no driver"),
    ],
)
def test_a_case_that_ends_leaves_a_reason(end, reason, tmp_path):
    def measure(bench):
        bench.figure("first", [1.0], 1.0, "things/s")
        exec(end)

    found = records_of(measure, ["first", "second"], tmp_path)
    assert found["first"]["value"] == 1 and found["second"]["failed"] == reason


def test_a_case_is_ended_when_the_time_is_over_with_all_that_it_started(tmp_path):
    def measure(bench):
        child = subprocess.Popen(["sleep", "600"])
        (tmp_path / "pid").write_text(str(child.pid))
        bench.figure("first", [1.0], 1.0, "things/s")
        child.wait()

    found = records_of(measure, ["first", "second"], tmp_path, seconds=3.0)
    assert found["second"]["failed"] == "the time was over"
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    for _ in range(100):  # until whoever inherited the child has noticed
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"the child is still there: {status.read_text()}")


def test_what_is_ready_before_the_end_has_a_figure(tmp_path):
    """A compiler that would take all that is left of the time is given up, for the rest's turns."""

    def measure(bench):
        clocks = {"ready": lambda: 0.5}
        with bench.contestant("compiling", patience=100.0):
            time.sleep(60)
        for name, times in bench.in_turns(clocks).items():
            bench.figure(name, times, 1.0, "things/s")

    found = records_of(measure, ["ready", "compiling"], tmp_path, seconds=cases.RESERVE + 0.5)
    assert found["compiling"]["failed"] == cases.TIME_OVER
    assert found["ready"]["value"] == 2.0
