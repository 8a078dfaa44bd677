"""A real server for the tests in this folder."""

from __future__ import annotations

import pytest

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import Runtime, ensure_runtime


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The embedded server of the default release, installed once."""
    with pytest.MonkeyPatch.context() as patch:
        # Undone before a test runs: the session outlives this folder.
        patch.setattr("exporter.triton.runtime.find_tritonserver", lambda: None)
        return ensure_runtime(release(DEFAULT_RELEASE))
