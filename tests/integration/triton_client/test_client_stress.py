"""Many calls, at once and one after another: no answer is mixed up, nothing piles up."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton_client.real_models import MOST_ROWS, place_doubling
from triton_client import AsyncTritonClient, TritonClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.triton

log = logging.getLogger(__name__)

CALLS = 10_000
# By hand: STLAB_STRESS_CALLS=100000 pytest --log-cli-level=info --timeout=1200
LASTING_CALLS = int(os.environ.get("STLAB_STRESS_CALLS", "12000"))
WARM_UP = 3_000
CLIENTS = 200
MOST_GROWTH = 10 * 1024 * 1024
# Libraries of earlier tests in this process start threads of their own when they like; what leaks
# with calls or with the sixteen threads that make them is more than these.
MOST_OF_OTHERS = 4


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("repository")
    place_doubling(root)
    with TritonServer.start(
        ensure_runtime(release("24.10")), str(root), models=["doubling"]
    ) as started:
        started.wait_live()
        yield started.grpc_url


def question(number: int) -> dict[str, Any]:
    """Return rows that no other number has; some are more than one request takes."""
    rows = 2 * MOST_ROWS if number % 101 == 0 else 1 + number % MOST_ROWS
    start = np.arange(rows, dtype=np.float32)[:, np.newaxis] / 64
    return {"x": start + np.array([number, -number, 1], np.float32)}


def options(number: int) -> dict[str, Any]:
    """Return what is different in each call, so that what is kept of it would pile up."""
    return {"request_id": f"call-{number}", "deadline": 60 + number / 1000}


def answers(asked: dict[str, Any], answer: dict[str, Any]) -> bool:
    return np.array_equal(answer["y"], asked["x"] + asked["x"])


@dataclass(frozen=True)
class Holdings:
    """What this process holds."""

    memory: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            pages * os.sysconf("SC_PAGE_SIZE"),
            len(list(Path("/proc/self/task").iterdir())),
            len(list(Path("/proc/self/fd").iterdir())),
        )

    def assert_not_outgrown(self) -> None:
        """Wait until nothing is left that was not there; what is closed ends in its own time."""
        limit = time.monotonic() + 20
        while (now := self.now()) and time.monotonic() < limit:
            if now.threads <= self.threads and now.descriptors <= self.descriptors:
                break
            time.sleep(0.1)
        log.info("before %s, after %s", self, now)
        assert now.threads <= self.threads + MOST_OF_OTHERS
        assert now.descriptors <= self.descriptors + MOST_OF_OTHERS
        assert now.memory - self.memory < MOST_GROWTH


def from_threads(client: TritonClient, numbers: range) -> None:
    model = client.model("doubling")
    left = iter(numbers)  # one that threads may share

    def ask() -> None:
        for number in left:
            asked = question(number)
            assert answers(asked, model.infer(asked, **options(number)))

    with ThreadPoolExecutor(16) as pool:
        for asking in [pool.submit(ask) for _ in range(16)]:
            asking.result()


async def from_tasks(client: AsyncTritonClient, numbers: range) -> None:
    model = await client.model("doubling")
    left = iter(numbers)

    async def ask() -> None:
        for number in left:
            asked = question(number)
            assert answers(asked, await model.infer(asked, **options(number)))

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(ask())


def timed(what: str, function: Callable[[range], None], numbers: range) -> None:
    started = time.monotonic()
    function(numbers)
    log.info("%s: %.0f calls/s", what, len(numbers) / (time.monotonic() - started))


def test_threads_get_the_answers_to_their_own_questions(url: str) -> None:
    with TritonClient(url) as client:
        timed("threads", lambda numbers: from_threads(client, numbers), range(CALLS))


def test_tasks_get_the_answers_to_their_own_questions(url: str) -> None:
    async def ask(numbers: range) -> None:
        async with AsyncTritonClient(url) as client:
            await from_tasks(client, numbers)

    timed("tasks", lambda numbers: asyncio.run(ask(numbers)), range(CALLS))


def test_calls_from_threads_leave_nothing_behind(url: str) -> None:
    with TritonClient(url) as client:
        from_threads(client, range(WARM_UP))
        before = Holdings.now()
        numbers = range(WARM_UP, WARM_UP + LASTING_CALLS)
        timed("threads", lambda numbers: from_threads(client, numbers), numbers)
        before.assert_not_outgrown()


def test_calls_from_tasks_leave_nothing_behind(url: str) -> None:
    with asyncio.Runner() as runner:
        client = AsyncTritonClient(url)
        runner.run(from_tasks(client, range(WARM_UP)))
        before = Holdings.now()
        numbers = range(WARM_UP, WARM_UP + LASTING_CALLS)
        timed("tasks", lambda numbers: runner.run(from_tasks(client, numbers)), numbers)
        before.assert_not_outgrown()
        runner.run(client.close())


def test_closed_clients_leave_nothing_behind(url: str) -> None:
    def use(clients: int) -> None:
        for number in range(clients):
            with TritonClient(url) as client:
                asked = question(number)
                assert answers(asked, client.model("doubling").infer(asked))

    use(20)
    before = Holdings.now()
    use(CLIENTS)
    before.assert_not_outgrown()


def test_closed_clients_of_an_event_loop_leave_nothing_behind(url: str) -> None:
    async def use(clients: int) -> None:
        for number in range(clients):
            async with AsyncTritonClient(url) as client:
                asked = question(number)
                model = await client.model("doubling")
                assert answers(asked, await model.infer(asked))

    with asyncio.Runner() as runner:
        runner.run(use(20))
        before = Holdings.now()
        runner.run(use(CLIENTS))
        before.assert_not_outgrown()


def test_closed_event_loops_leave_nothing_behind(url: str) -> None:
    async def use() -> None:
        async with AsyncTritonClient(url) as client:
            await client.model("doubling")

    for _ in range(5):
        asyncio.run(use())
    before = Holdings.now()
    for _ in range(30):
        asyncio.run(use())
    before.assert_not_outgrown()


# The last one: the memory that it leaves free would hide what the others keep.
def test_tasks_may_all_ask_at_once(url: str) -> None:
    async def ask() -> None:
        async with AsyncTritonClient(url) as client:
            model = await client.model("doubling")
            asked = [question(number) for number in range(3000)]
            found = await asyncio.gather(*(model.infer(inputs) for inputs in asked))
            assert all(map(answers, asked, found))

    asyncio.run(ask())
