"""A real server for the tests in this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import Runtime, ensure_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """The embedded server of the default release, installed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exporter.triton.runtime.find_tritonserver", lambda: None)
        yield ensure_runtime(release(DEFAULT_RELEASE))
