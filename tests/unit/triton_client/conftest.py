"""A hostile Triton, a proxy that cuts connections, and either client in front of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.triton_client.hostile_server import Blocking, CuttingProxy, HostileServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[HostileServer]:
    server = HostileServer()
    yield server
    server.stop()


@pytest.fixture
def proxy(server: HostileServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sync", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Blocking]:
    with asyncio.Runner() as runner:
        blocking = Blocking(request.param, runner)
        yield blocking
        blocking.close()
