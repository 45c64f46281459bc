"""Attacks on the time and the memory of the judges: bench/bounds.py's, each in a process of its own
with limits that end it; and a fuzz.
"""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import bounds

MEASURED = [place for place in bounds.attacks() if place[0] != "shell"]


@pytest.mark.parametrize(
    "group, name",
    [
        *MEASURED,
        ("shell", "an archive that claims 8 GB"),
        ("shell", "an archive cut short"),
        ("shell", "a full home folder"),
    ],
)
def test_an_attack_ends_small_and_raises_nothing(group, name):
    """Whatever the machine is busy with:

    30 seconds are a hang; memory is counted, and nothing may be raised.
    """
    if group == "shell":
        from sandboxed import require_sandbox

        require_sandbox()
    seconds, megabytes, said = bounds.attempt(group, name)
    assert not said.startswith(("RAISED", "NO END")) and megabytes <= bounds.MEGABYTES, (
        seconds,
        megabytes,
        said,
    )


def test_random_calls_raise_nothing():
    found = bounds.fuzz(2000, seed=1)
    assert min(found["refused"], found["error"], found["done"]) > 200
