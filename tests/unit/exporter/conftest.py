from __future__ import annotations

from collections.abc import Iterator

import pytest

from .stores import S3, serving, set_credentials


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(_s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 API with one empty bucket, and credentials for it."""
    set_credentials(monkeypatch)
    _s3_server.reset()
    return _s3_server
