"""What the tests that need bubblewrap share: without it they skip with one clear line, and fail
where SAGE_REQUIRE_SANDBOX=1 says it must be there.
"""

import os

import pytest

from worlds.extras import sandbox


def require_sandbox() -> None:
    """Skip, or fail, the test that calls this where there is no bubblewrap."""
    if not sandbox.available():
        why = (
            "no bubblewrap here (apt-get install bubblewrap): "
            "nothing that runs a model's commands was tested"
        )
        if os.environ.get("SAGE_REQUIRE_SANDBOX") == "1":
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(autouse=True)
def need_sandbox() -> None:
    """Imported into a module, for all of its tests."""
    require_sandbox()
