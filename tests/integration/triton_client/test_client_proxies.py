"""Both clients behind real nginx and haproxy: what is lost there is lost by the client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton_client.fake_triton import fake_triton
from tests.integration.triton_client.real_models import place_doubling
from tests.support.proxies import grpc_haproxy, grpc_nginx
from triton_client import AsyncTritonClient, TritonClient, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BURST = 500
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """The port of a fake Triton."""
    with fake_triton() as port:
        yield port


def question(number: int) -> dict[str, np.ndarray]:
    return {"x": np.full(16, number, np.float32)}


async def burst_of_tasks(url: str, model_name: str = "m") -> Counter[str]:
    lost: Counter[str] = Counter()

    async def ask(model: Any, number: int) -> None:
        try:
            answer = await model.infer(question(number))
        except errors.TritonClientError as error:
            lost[str(error)] += 1
        else:
            assert (answer["y"] == number).all()

    async with AsyncTritonClient(url, timeout=TIMEOUT) as client:
        model = await client.model(model_name)
        for _ in range(2):  # the second one on connections that are open
            await asyncio.gather(*(ask(model, number) for number in range(BURST)))
    return lost


def burst_of_threads(url: str) -> Counter[str]:
    lost: Counter[str] = Counter()

    def ask(number: int) -> None:
        try:
            answer = model.infer(question(number))
        except errors.TritonClientError as error:
            lost[str(error)] += 1
        else:
            assert (answer["y"] == number).all()

    with TritonClient(url, timeout=TIMEOUT) as client, ThreadPoolExecutor(BURST) as pool:
        model = client.model("m")
        for _ in range(2):
            list(pool.map(ask, range(BURST)))
    return lost


@pytest.mark.parametrize(
    ("start", "settings"),
    [
        (grpc_nginx, ""),
        (grpc_nginx, "http2_max_concurrent_streams 10;"),
        # GOAWAY after every 20 requests: of a burst, most were never processed.
        (grpc_nginx, "keepalive_requests 20;"),
        (grpc_haproxy, ""),
        (grpc_haproxy, "tune.h2.max-concurrent-streams 10"),
    ],
    ids=["nginx", "nginx, 10 streams", "nginx, goaway", "haproxy", "haproxy, 10 streams"],
)
def test_no_call_of_a_burst_is_lost(
    start: Callable[..., Any], settings: str, upstream: int, tmp_path: Path
) -> None:
    with start(upstream, tmp_path, settings) as proxy:
        assert asyncio.run(burst_of_tasks(proxy.url)) == {}
        assert burst_of_threads(proxy.url) == {}


class Steady:
    """Calls without end, one after another, and what became of them."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.lost: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    def from_thread(self, model: Any) -> None:
        while not self.stop.is_set():
            with self._call("threads"):
                model.infer(question(7))

    async def from_tasks(self, url: str) -> None:
        async def ask() -> None:
            while not self.stop.is_set():
                with self._call("tasks"):
                    await model.infer(question(7))

        async with AsyncTritonClient(url, timeout=TIMEOUT) as client:
            model = await client.model("m")
            await asyncio.gather(*(ask() for _ in range(16)))

    @contextmanager
    def _call(self, kind: str) -> Iterator[None]:
        try:
            yield
        except errors.TritonClientError as error:
            self.lost[str(error)] += 1
        else:
            self.answered[kind] += 1


def test_no_call_is_lost_while_nginx_reloads(upstream: int, tmp_path: Path) -> None:
    steady = Steady()
    with (
        grpc_nginx(upstream, tmp_path, "keepalive_requests 100;") as proxy,
        TritonClient(proxy.url, timeout=TIMEOUT) as client,
        ThreadPoolExecutor(9) as pool,
    ):
        model = client.model("m")
        asking = [pool.submit(steady.from_thread, model) for _ in range(8)]
        asking.append(pool.submit(asyncio.run, steady.from_tasks(proxy.url)))
        for _ in range(4):
            time.sleep(0.5)
            proxy.reload()
        time.sleep(0.5)
        steady.stop.set()
        for future in asking:
            future.result()
    assert steady.lost == {}
    assert min(steady.answered["threads"], steady.answered["tasks"]) > 100


@pytest.mark.parametrize("start", [grpc_nginx, grpc_haproxy])
def test_long_streams(start: Callable[..., Any], upstream: int, tmp_path: Path) -> None:
    parameters = {"answers": 30, "pause": 0.1}

    async def count(url: str) -> list[int]:
        async with AsyncTritonClient(url, timeout=TIMEOUT) as client:
            model = await client.model("m")

            async def one(number: int) -> int:
                stream = model.stream(question(number), parameters=parameters)
                return len([answer async for answer in stream if (answer["y"] == number).all()])

            return await asyncio.gather(*(one(number) for number in range(10)))

    with start(upstream, tmp_path) as proxy:
        assert asyncio.run(count(proxy.url)) == [30] * 10
        with TritonClient(proxy.url, timeout=TIMEOUT) as client:
            model = client.model("m")
            assert len(list(model.stream(question(1), parameters=parameters))) == 30
            stream = model.stream(question(1), parameters={"answers": 1000, "pause": 0.1})
            next(stream)
            stream.close()
            assert model.ready()


def test_a_stream_that_the_proxy_ends_is_a_typed_error(upstream: int, tmp_path: Path) -> None:
    with (
        grpc_nginx(upstream, tmp_path, "grpc_read_timeout 1s;") as proxy,
        TritonClient(proxy.url, timeout=TIMEOUT) as client,
    ):
        model = client.model("m")
        stream = model.stream(question(1), parameters={"answers": 2, "pause": 5.0})
        started = time.monotonic()
        with pytest.raises((errors.Unavailable, errors.ServerError)):
            list(stream)
        assert time.monotonic() - started < TIMEOUT / 2
        np.testing.assert_array_equal(model.infer(question(3))["y"], question(3)["x"])


@pytest.mark.parametrize(
    ("start", "options"),
    [(grpc_nginx, {"settings": "keepalive_timeout 1s;"}), (grpc_haproxy, {"timeout": "1s"})],
    ids=["nginx", "haproxy"],
)
def test_connections_that_were_closed_for_being_idle(
    start: Callable[..., Any], options: dict[str, str], upstream: int, tmp_path: Path
) -> None:
    async def ask(url: str) -> None:
        async with AsyncTritonClient(url, timeout=TIMEOUT, retries=0) as client:
            model = await client.model("m")
            for pause in (0.0, 1.5, 1.0, 2.0):
                await asyncio.sleep(pause)
                answer = await model.infer(question(3))
                np.testing.assert_array_equal(answer["y"], question(3)["x"])

    with start(upstream, tmp_path, **options) as proxy:
        asyncio.run(ask(proxy.url))
        with TritonClient(proxy.url, timeout=TIMEOUT, retries=0) as client:
            model = client.model("m")
            for pause in (0.0, 1.5, 1.0, 2.0):
                time.sleep(pause)
                np.testing.assert_array_equal(model.infer(question(3))["y"], question(3)["x"])


@pytest.mark.parametrize(
    ("start", "settings"),
    [(grpc_nginx, "large_client_header_buffers 4 32k;"), (grpc_haproxy, "tune.bufsize 65536")],
    ids=["nginx", "haproxy"],
)
def test_large_headers(
    start: Callable[..., Any], settings: str, upstream: int, tmp_path: Path
) -> None:
    large = {"x-large": "a" * 17_000}
    with (
        start(upstream, tmp_path, settings) as proxy,
        TritonClient(proxy.url, timeout=TIMEOUT, headers=large) as client,
    ):
        np.testing.assert_array_equal(client.model("m").infer(question(3))["y"], question(3)["x"])

    async def refused(url: str) -> None:
        async with AsyncTritonClient(url, timeout=TIMEOUT, headers=large) as client:
            await client.metadata()

    folder = tmp_path / "defaults"
    folder.mkdir()
    with start(upstream, folder) as proxy:  # which takes no such header, and says so
        started = time.monotonic()
        with pytest.raises(errors.TritonClientError):
            asyncio.run(refused(proxy.url))
        with (
            TritonClient(proxy.url, timeout=TIMEOUT, headers=large) as client,
            pytest.raises(errors.TritonClientError),
        ):
            client.metadata()
        assert time.monotonic() - started < TIMEOUT
        with TritonClient(proxy.url, timeout=TIMEOUT) as client:
            assert client.model("m").ready()


def test_a_tensor_that_is_too_large_for_the_proxy(upstream: int, tmp_path: Path) -> None:
    x = np.zeros(1 << 19, np.float32)  # 2 MB; nginx takes one by default
    with (
        grpc_nginx(upstream, tmp_path) as proxy,
        TritonClient(proxy.url, timeout=TIMEOUT) as client,
    ):
        model = client.model("m")
        with pytest.raises(errors.TritonClientError, match="413"):
            model.infer({"x": x})
        np.testing.assert_array_equal(model.infer(question(3))["y"], question(3)["x"])
    folder = tmp_path / "larger"
    folder.mkdir()
    with (
        grpc_nginx(upstream, folder, "client_max_body_size 0;") as proxy,
        TritonClient(proxy.url, timeout=TIMEOUT) as client,
    ):
        np.testing.assert_array_equal(client.model("m").infer({"x": x})["y"], x)


@pytest.mark.triton
def test_a_real_server_behind_nginx(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    place_doubling(repository)
    with TritonServer.start(
        ensure_runtime(release("24.10")), str(repository), models=["doubling"]
    ) as server:
        server.wait_live()
        port = int(server.grpc_url.rpartition(":")[2])

        async def burst(url: str) -> None:
            async with AsyncTritonClient(url, timeout=TIMEOUT) as client:
                await client.wait_until_ready()
                model = await client.model("doubling")
                asked = [np.full((1, 3), number, np.float32) for number in range(BURST)]
                found = await asyncio.gather(*(model.infer({"x": x}) for x in asked))
                for x, answer in zip(asked, found, strict=True):
                    np.testing.assert_array_equal(answer["y"], x + x)

        with grpc_nginx(port, tmp_path, "keepalive_requests 50;") as proxy:
            asyncio.run(burst(proxy.url))
