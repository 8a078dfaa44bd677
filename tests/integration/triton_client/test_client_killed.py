"""A real tritonserver that goes away under load, and comes back on the same port."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton_client.real_models import place_doubling
from triton_client import AsyncTritonClient, TritonClient, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.triton

log = logging.getLogger(__name__)

DEADLINE = 2.0
SLACK = 2.0
THREADS, TASKS = 8, 32
PAUSE = 0.005
LOSSES = {"Unavailable", "NotReady", "DeadlineExceeded"}


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., TritonServer]:
    place_doubling(tmp_path)
    runtime = ensure_runtime(release("24.10"))

    def start(grpc_port: int = 0) -> TritonServer:
        return TritonServer.start(runtime, str(tmp_path), models=["doubling"], grpc_port=grpc_port)

    return start


def killed(server: TritonServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop(timeout=0)


def told_to_end(server: TritonServer) -> None:
    server.stop(timeout=15)


class Record:
    """What became of every call, and who was served by the server that came back."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0
        self.back = threading.Event()
        self.served: set[int] = set()
        self._numbers = iter(range(10**9))
        self._limit = time.monotonic() + 60

    @contextmanager
    def call(self, caller: int) -> Iterator[dict[str, Any]]:
        """Give a question, and take note of what becomes of it."""
        number, was_back, started = next(self._numbers), self.back.is_set(), time.monotonic()
        assert started < self._limit, f"the server is back, but not for all: {self.counts}"
        try:
            yield {"x": np.full((1 + number % 8, 3), number, np.float32)}
        except errors.TritonClientError as error:
            self.counts[type(error).__name__] += 1
        else:
            self.counts["answered"] += 1
            if was_back:
                self.served.add(caller)
        self.slowest = max(self.slowest, time.monotonic() - started)


def ask_from_thread(client: TritonClient, record: Record, caller: int) -> None:
    model = client.model("doubling")
    while caller not in record.served:
        with record.call(caller) as asked:
            answer = model.infer(asked, deadline=DEADLINE)
            np.testing.assert_array_equal(answer["y"], asked["x"] + asked["x"])
        time.sleep(PAUSE)


async def ask_from_task(client: AsyncTritonClient, record: Record, caller: int) -> None:
    model = await client.model("doubling")
    while caller not in record.served:
        with record.call(caller) as asked:
            answer = await model.infer(asked, deadline=DEADLINE)
            np.testing.assert_array_equal(answer["y"], asked["x"] + asked["x"])
        await asyncio.sleep(PAUSE)


def run_threads(url: str, record: Record, meanwhile: Callable[[], None]) -> None:
    with TritonClient(url) as client, ThreadPoolExecutor(THREADS) as pool:
        client.wait_until_ready()
        asking = [pool.submit(ask_from_thread, client, record, caller) for caller in range(THREADS)]
        meanwhile()
        for future in asking:
            future.result()


def run_tasks(url: str, record: Record, meanwhile: Callable[[], None]) -> None:
    async def run() -> None:
        async with AsyncTritonClient(url) as client, asyncio.TaskGroup() as group:
            await client.wait_until_ready()
            for caller in range(TASKS):
                group.create_task(ask_from_task(client, record, caller))
            await asyncio.to_thread(meanwhile)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("end", "losses"),
    [
        (killed, LOSSES),
        # A server that is ending denies that it has the model.
        (told_to_end, LOSSES | {"ModelNotFound"}),
    ],
    ids=["killed", "told to end"],
)
@pytest.mark.parametrize("run", [run_threads, run_tasks], ids=["threads", "tasks"])
def test_a_server_goes_under_load_and_comes_back(
    start: Callable[..., TritonServer],
    run: Callable[[str, Record, Callable[[], None]], None],
    end: Callable[[TritonServer], None],
    losses: set[str],
) -> None:
    record = Record()
    with ExitStack() as servers:
        first = servers.enter_context(start())
        first.wait_live()
        port = int(first.grpc_url.rpartition(":")[2])

        def go_and_come_back() -> None:
            time.sleep(1)
            end(first)
            time.sleep(0.5)
            servers.enter_context(start(grpc_port=port)).wait_live()
            record.back.set()

        run(first.grpc_url, record, go_and_come_back)
    log.info("%s; the slowest call took %.2f s", dict(record.counts), record.slowest)
    assert record.counts["answered"] > len(record.served)
    lost = set(record.counts) - {"answered"}
    assert lost
    assert lost <= losses
    assert record.slowest < DEADLINE + SLACK
