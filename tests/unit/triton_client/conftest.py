"""A fake Triton, a proxy that cuts connections, and either client in front of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.triton_client.fake_triton import Blocking, CuttingProxy, FakeTriton

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[FakeTriton]:
    server = FakeTriton()
    yield server
    server.stop()


@pytest.fixture
def proxy(server: FakeTriton) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sync", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Blocking]:
    with asyncio.Runner() as runner:
        blocking = Blocking(request.param, runner)
        yield blocking
        blocking.close()
