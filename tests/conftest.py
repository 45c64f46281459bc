"""What all tests share: single-threaded torch, deterministic fuzzing, the folder of real benchmark
data.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # two spinning OpenMP threads on a loaded machine are slower than one
# Scripts allow float32 products to be rounded; with AMX oneDNN does so, from a size on, and what is
# equal up to rounding no longer looks so. So without AMX, here and in scripts that tests start.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pytest
import torch
from hypothesis import settings

from sandboxed import require_sandbox
from worlds.extras.sandbox import available
from worlds.shell import Shell

torch.set_num_threads(1)
settings.register_profile(
    "sage", deadline=None, derandomize=True
)  # the same examples every time: a failure can be repeated
settings.load_profile("sage")


@pytest.fixture(scope="module", autouse=True)
def full_precision() -> None:
    """Scripts that a module's tests have run leave matrix products at lower precision, and sums in
    order: the next module begins anew, whatever ran before it.
    """
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real benchmark data: $SAGE_DATA, or shared/data beside the checkout."""
    for folder in (os.environ.get("SAGE_DATA"), ROOT.parent / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip(
        "no benchmark data: set SAGE_DATA to a folder with bfcl/ and agentbench/ "
        "(docs/WORLDS.md, 'Real data')"
    )


if (
    not available()
):  # a test skips as soon as a command is run in the shell world, or fails where it must be there
    Shell.open = lambda self: require_sandbox()
