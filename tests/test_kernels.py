"""The Triton kernels: in the interpreter against float64, and compiled for Hopper with the
installed Triton and the oldest supported one.

The interpreter's bf16 products are wrong (Triton 3.6 to 3.9), so it is asked for float32 and
float16 only; bf16 is compiled here and runs on a GPU.
"""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if not torch.cuda.is_available():
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.fail(
            "triton was imported before this file could ask for its interpreter; import it later, "
            "or set TRITON_INTERPRET=1",
            pytrace=False,
        )
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

from attention import LandmarkCache, definition, landmark_attention
from config import Model, UserError
from fast import attention as fast_attention
from fast import kernels

ROOT = Path(__file__).resolve().parents[1]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# small tiles, so that short rows meet every stretch of the walk: whole and partial landmark tiles,
# both edges, the middle
SQUARE = dict.fromkeys(kernels.TILES, (16, 16, 4, 1))
OBLONG = {
    (name, size, d): (32, 16, 4, 1) if name in ("forward", "dq") else (16, 32, 4, 1)
    for name, size, d in kernels.TILES
}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3}

pytestmark = pytest.mark.filterwarnings(
    "ignore:divide by zero|invalid value:RuntimeWarning"
)  # rows past the end are computed and not stored


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.cpu().double() - wanted).norm() / wanted.norm().clamp(min=1.0)).item()


@st.composite
def cases(draw, longest=70):
    T = draw(st.integers(1, longest))
    return dict(
        B=draw(st.integers(1, 2)),
        K=draw(st.integers(1, 2)),
        G=draw(st.integers(1, 3)),
        T=T,
        window=draw(st.one_of(st.just(1), st.integers(1, T + 10))),
        stride=draw(st.one_of(st.just(1), st.integers(1, 20))),
        dtype=draw(st.sampled_from([torch.float32, torch.float16])),
        packed=draw(st.booleans()),
        tma=draw(st.booleans()),
        tiles=draw(st.sampled_from([SQUARE, OBLONG])),
        seed=draw(st.integers(0, 999)),
    )


def compare_with_float64(
    B=1, K=1, G=1, T=64, window=16, stride=8, dtype=torch.float32, d=64, packed=False, tma=True,
    tiles=None, seed=0,
) -> None:  # fmt: skip
    """Output and gradients of a random case against the definition in float64, where there is no
    GPU as hardware with TMA takes it, through descriptors, or as hardware without.
    """
    generator = torch.Generator().manual_seed(seed)
    q, dout, k, v = (
        torch.randn(B, heads, T, d, generator=generator).to(dtype) for heads in (K * G, K * G, K, K)
    )
    documents = torch.rand(B, T, generator=generator).lt(0.1).cumsum(1).int() if packed else None
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    truth = definition(*wide, window, stride, documents=documents)
    truth = [truth.detach(), *torch.autograd.grad(truth, wide, dout.double())]
    q, dout, k, v = (x.to(DEVICE) for x in (q, dout, k, v))
    documents = None if documents is None else documents.to(DEVICE)
    has_tma = (lambda device: tma) if kernels.INTERPRETED else kernels.has_tma
    with mock.patch.object(kernels, "has_tma", has_tma):
        out, lse = kernels.forward(q, k, v, window, stride, documents, tiles)
        gradients = kernels.backward(dout, q, k, v, out, lse, window, stride, documents, tiles)
    errors = [relative(a, b) for a, b in zip([out, *gradients], truth)]
    assert max(errors) <= TOLERANCE[dtype], errors
    if dtype == torch.float32:
        assert errors[0] <= 2e-6, errors


@settings(max_examples=20)
@given(cases())
def test_kernels_equal_float64(case):
    compare_with_float64(**case)


@pytest.mark.slow
@settings(max_examples=200)
@given(cases(longest=200))
def test_kernels_equal_float64_over_many_shapes(case):
    compare_with_float64(**case)


@pytest.mark.parametrize(
    "case",
    [
        dict(T=1003, window=1000, stride=64),  # one landmark, for three queries
        dict(T=515, window=1, stride=64, G=8, packed=True),  # landmarks only
        dict(T=333, window=100, stride=1, B=2, dtype=torch.float16),  # every key is a landmark
        dict(T=517, window=129, stride=7, d=128, dtype=torch.float16),
        dict(T=401, window=64, stride=3, B=3, d=128, dtype=torch.float16, packed=True),
        dict(T=401, window=64, stride=3, B=3, dtype=torch.float16, packed=True, tma=False),
    ],
)
def test_shipped_tiles_equal_float64(case):
    """Rows of several of the tiles that a Hopper takes, odd lengths, windows from 1 to 1000."""
    compare_with_float64(**case)


@pytest.mark.parametrize(
    "dtype, group", [(torch.float32, 1), (torch.float32, 5), (torch.float16, 2)]
)
def test_decode_equals_the_full_forward(dtype, group):
    B, K, T, window, stride = 2, 2, 60, 20, 8
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(B, heads, T, 64, generator=generator).to(DEVICE, dtype)
        for heads in (K * group, K, K)
    )
    wanted = definition(*(x.double() for x in (q, k, v)), window, stride)
    shape = Model(layers=1, kv_heads=K, head_dim=64, window=window, landmark_stride=stride)
    cache = LandmarkCache(shape, B, T, dtype, DEVICE)
    done = 0
    for t in [0, 1, 15, 19, 20, 21, 40, 59]:  # before, at and after the ring is full
        positions = torch.arange(done, t + 1, device=DEVICE).expand(B, -1)
        cache.attend(0, *(x[:, :, done : t + 1] for x in (q, k, v)), cache.plan(positions))
        found = kernels.decode_attention(
            q[:, :, t : t + 1],
            cache.keys[0],
            cache.values[0],
            positions[:, -1],
            cache.ring,
            cache.keys[0].shape[2] - 1,  # without the spare
            stride,
            SQUARE,
        )
        cache.advance(positions)
        done = t + 1
        assert relative(found, wanted[:, :, t : t + 1].cpu()) <= TOLERANCE[dtype], t


@pytest.mark.parametrize(
    "dtype, T, d",
    [
        (torch.float32, 100, 64),
        (torch.float16, 300, 64),
        (torch.float32, 90, 128),
        (torch.float16, 200, 128),
    ],
)
def test_one_call_compiled_through_the_operator(dtype, T, d):
    """implementation="triton", the shipped tiles, a graph without a break, gradients through
    autograd.
    """
    generator = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(1, heads, T, d, generator=generator).to(DEVICE, dtype).requires_grad_()
        for heads in (2, 1, 1)
    )
    function = torch.compile(
        lambda *x: landmark_attention(*x, 60, 8, implementation="triton"),
        fullgraph=True,
        backend="aot_eager",
    )
    found = torch.autograd.grad(function(q, k, v).square().sum(), (q, k, v))
    wide = [x.detach().cpu().double().requires_grad_() for x in (q, k, v)]
    wanted = torch.autograd.grad(definition(*wide, 60, 8).square().sum(), wide)
    for a, b in zip(found, wanted):
        assert relative(a, b) <= TOLERANCE[dtype]


def test_documents_may_be_a_slice():
    """As a batch's first T columns are: rows further apart than T."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, heads, 40, 64, generator=generator) for heads in (2, 1, 1))
    documents = (torch.arange(100, dtype=torch.int32) // 17).expand(2, -1).contiguous()[:, :40]
    wanted = definition(q, k, v, 9, 4, documents=documents)
    q, k, v, documents = (x.to(DEVICE) for x in (q, k, v, documents))
    found = landmark_attention(q, k, v, 9, 4, documents=documents, implementation="triton")
    torch.testing.assert_close(found.cpu(), wanted)


def test_what_the_kernels_do_not_take():
    x = torch.zeros(1, 2, 8, 32)
    with pytest.raises(UserError, match="64 or 128, not 32"):
        landmark_attention(x, x, x, 4, 2, implementation="triton")
    x = torch.zeros(1, 2, 8, 64, dtype=torch.float64)
    with pytest.raises(UserError, match="not torch.float64"):
        landmark_attention(x, x, x, 4, 2, implementation="triton")


def test_a_fallback_is_told_once(monkeypatch):
    """What auto does on a GPU for a head width that no kernel has."""
    x = torch.zeros(1, 2, 40, 24)
    monkeypatch.setattr(
        fast_attention,
        "refusal",
        lambda name, q, window, documents: "it needs head width 64 or 128, not 24",
    )
    fast_attention.say_once.cache_clear()

    class OnGpu:  # choose_implementation reads nothing else of q
        shape = x.shape
        dtype = x.dtype
        requires_grad = False
        is_cuda = True
        device = torch.device("cuda")

    with pytest.warns(UserWarning, match="head width 64 or 128, not 24") as told:
        assert fast_attention.choose_implementation(OnGpu, 8) == "blocked"
        assert fast_attention.choose_implementation(OnGpu, 8) == "blocked"
    assert len(told) == 1


@pytest.fixture(scope="module")
def bench():
    """bench/attention.py as a module (its name is taken by attention.py)."""
    specification = importlib.util.spec_from_file_location(
        "bench_attention", ROOT / "bench" / "attention.py"
    )
    module = sys.modules["bench_attention"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_cpu_bench_runs_at_a_tiny_size(bench, capsys, monkeypatch):
    """It names every backend, and records nothing."""
    several = bench.seconds
    monkeypatch.setattr(bench, "seconds", lambda call: several(call, repeats=0))
    before = (ROOT / "docs" / "results" / "attention.json").read_bytes()
    bench.cpu((96,), window=32, record=False)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("blocked", "SDPA causal (dense)", "SDPA with the mask"))
    assert (ROOT / "docs" / "results" / "attention.json").read_bytes() == before


# Compiled for Hopper
# --------------------------------------------------------------------------------------------------


def compiled(words: list[str], packages: str | None = None) -> list[dict]:
    """What bench/hopper.py prints, in a process without the interpreter and, with `packages`,
    another Triton.
    """
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("TRITON_INTERPRET", "PYTHONPATH")
    }
    if packages:
        environment["PYTHONPATH"] = packages
    run = subprocess.run(
        [sys.executable, ROOT / "bench" / "hopper.py", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


# Instructions to local memory that a configuration may have, of thousands. At d = 128 the fastest
# tiles measured fill the registers; what they spill lies between the loops, except in the forward
# kernel with documents.
SPILLS = {
    "forward bf16 d128 packed": 160,
    "landmark bf16 d128 plain": 240,
    "landmark bf16 d128 packed": 240,
    "landmark bf16 d64 packed": 16,
    "window bf16 d128 plain": 160,
    "window bf16 d128 packed": 160,
}
# Tiles that each kernel loads in its loops (five over keys, two or three over queries), and outside
# of them: each must be a copy by TMA, those in loops once for every stage of the pipeline.
TILES_MOVED = {
    "forward": (5 * 2, 2),
    "dq": (5 * 2, 4),
    "landmark": (2 * 2, 2),
    "window": (3 * 2, 4),
}


def check_compiled(records: list[dict]) -> None:
    for record in records:
        kernel, kind, d, packing, target, _, _, _, stages, _ = record["name"].split()
        hopper = target == "sm_90"
        assert record["shared"] <= (227 if hopper else 99) * 1024, record
        if hopper and kernel != "decode":
            in_loops, outside = TILES_MOVED[kernel]
            assert record["tma"] == in_loops * int(stages) + outside, record
        if kind == "fp32":  # there for correctness: its products need no pipeline and may spill
            continue
        limit = SPILLS.get(f"{kernel} {kind} {d} {packing}", 0) if hopper else 256
        assert record["spills"] <= limit, record
        # decoding has 16 rows of queries at most, wgmma needs 64: memory is its roof, and mma.sync
        # is enough
        assert record["wgmma" if hopper and kernel != "decode" else "mma"] > 0, record
        if not hopper or kernel == "decode":
            assert record["cp_async"] > 0, record
            assert record["tma"] == 0, record


@pytest.fixture(scope="session")
def triton_3_6() -> str:
    """A folder with Triton 3.6.0, the oldest supported, fetched once through pip."""
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        / "sage-readable"
        / "triton-3.6.0"
    )
    if not (folder / "triton" / "__init__.py").exists():
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                folder,
                "triton==3.6.0",
            ],
            capture_output=True,
            text=True,
        )
        if run.returncode:
            (pytest.fail if os.environ.get("SAGE_REQUIRE_TRITON_3_6") else pytest.skip)(
                "Triton 3.6.0 could not be fetched: " + run.stderr.strip().splitlines()[-1]
            )
    return str(folder)


def test_forward_compiles_for_hopper_and_for_older_hardware():
    """One configuration, seconds; the slow test below compiles all of them with both versions of
    Triton.
    """
    records = compiled(["forward", "bf16", "d128", "plain"])
    assert len(records) == 2
    check_compiled(records)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["installed", "3.6.0"])
def test_every_configuration_compiles_for_hopper_and_for_older_hardware(version, request):
    packages = None if version == "installed" else request.getfixturevalue("triton_3_6")
    # float16 shares bf16's tiles and compiles to the same instructions
    with ThreadPoolExecutor(2) as pool:
        records = sum(pool.map(lambda kind: compiled([kind], packages), ("bf16", "fp32")), [])
    assert {record["triton"] for record in records} == {
        kernels.triton.__version__ if version == "installed" else version
    }
    # targets × widths × dtypes × (kernels with documents and without, decode)
    assert len(records) == 2 * 2 * 2 * (2 * 4 + 1)
    check_compiled(records)
