from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.triton.server import TritonServer
from tests.support.moto_s3 import S3, set_credentials
from tests.support.moto_s3 import serving as serving_s3
from tests.support.registering import RegistryFixture
from tests.support.serving import serving


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryFixture]:
    with RegistryFixture.open(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def server(lab: RegistryFixture) -> Iterator[TritonServer]:
    """A live server on the lab's repository, in explicit mode."""
    with serving(lab.folder / "repository") as server:
        yield server


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3]:
    with serving_s3() as server:
        yield server


@pytest.fixture
def s3(_s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 API with one empty bucket, and credentials for it."""
    set_credentials(monkeypatch)
    _s3_server.reset()
    return _s3_server
