"""A name that stands for several servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.triton_client.fake_name_server import FakeNameServer
from tests.unit.triton_client.fake_triton import Blocking, FakeTriton

if TYPE_CHECKING:
    from collections.abc import Iterator

X = np.ones((1, 2), np.float32)


@pytest.fixture
def servers() -> Iterator[tuple[FakeTriton, FakeTriton]]:
    first = FakeTriton()
    second = FakeTriton(address=f"127.0.0.2:{first.port}")
    yield first, second
    for server in (first, second):
        server.stop()


@pytest.fixture(params=["a name", "a list"])
def url(request: pytest.FixtureRequest, servers: tuple[FakeTriton, FakeTriton]) -> Iterator[str]:
    port = servers[0].port
    if request.param != "a name":
        yield f"ipv4:127.0.0.1:{port},127.0.0.2:{port}"
        return
    names = FakeNameServer("127.0.0.1", "127.0.0.2")
    yield names.target(port)
    names.close()


@pytest.fixture(params=["sync", "asyncio"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        blocking = Blocking(request.param, runner)
        yield blocking, blocking(url, timeout=20)
        blocking.close()


def test_calls_take_turns(servers: Any, client: Any) -> None:
    run, made = client
    model = run.run(made.model("m"))
    for _ in range(20):
        run.run(model.infer({"x": X}))
    counts = [len(server.requests) for server in servers]
    assert sum(counts) == 20
    assert min(counts) >= 5


def test_a_sequence_stays_with_one_server(servers: Any, client: Any) -> None:
    run, made = client
    model = run.run(made.model("m"))
    for _ in range(3):
        sequence = model.sequence()
        for step in range(4):
            run.run(sequence.infer({"x": X}, end=step == 3))
    assert sorted(len(server.requests) for server in servers) == [0, 12]


def test_a_server_that_is_gone_is_passed_over(servers: Any, client: Any) -> None:
    run, made = client
    model = run.run(made.model("m"))
    for _ in range(4):
        run.run(model.infer({"x": X}))
    servers[1].stop()
    before = len(servers[0].requests)
    for _ in range(20):
        np.testing.assert_array_equal(run.run(model.infer({"x": X}))["y"], X)
    assert len(servers[0].requests) - before >= 20
