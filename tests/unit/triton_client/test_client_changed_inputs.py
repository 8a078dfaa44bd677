"""Arrays that the caller changes as soon as a call is under way: what was given is what arrives."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from triton_client import AsyncTritonClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

COUNT = 12


def sent(server: Any) -> list[set[float]]:
    """Return the numbers that each request held, in the order in which they came."""
    return [
        set(np.frombuffer(request.raw_input_contents[0], np.float32).tolist())
        for request in server.requests
    ]


def overwritten(
    url: str, x: np.ndarray, call: Callable[[Any], Callable[[], Any]]
) -> dict[str, np.ndarray]:
    """Make a call from a task, overwrite what it sends once it has started, and await it."""

    async def run() -> Any:
        async with AsyncTritonClient(url, timeout=20) as client:
            task = asyncio.create_task(call(await client.model("m"))())
            await asyncio.sleep(0)
            x[:] = 2
            return await task

    return asyncio.run(run())


@pytest.mark.parametrize("rows", [3, 1_000_000], ids=["a small tensor", "a large tensor"])
def test_a_call_that_is_awaited(server: Any, rows: int) -> None:
    server.calls["ModelConfig"] = lambda *_: service_pb2.ModelConfigResponse()
    x = np.ones((rows, 2), np.float32)
    answer = overwritten(server.url, x, lambda model: lambda: model.infer({"x": x}))
    assert (answer["y"] == 1).all()


def test_a_batch_that_is_cut(server: Any) -> None:
    x = np.ones((41, 2), np.float32)
    answer = overwritten(server.url, x, lambda model: lambda: model.infer({"x": x}))
    assert (answer["y"] == 1).all()
    assert len(server.requests) == 11


def test_a_second_attempt_sends_what_the_first_one_did(server: Any, proxy: Any) -> None:
    echo = server.infer

    def cut_once(request: Any, context: Any) -> Any:
        if len(server.requests) == 1:
            proxy.cut()
        return echo(request, context)

    server.infer = cut_once
    x = np.ones((2, 2), np.float32)
    answer = overwritten(proxy.url, x, lambda model: lambda: model.infer({"x": x}))
    assert (answer["y"] == 1).all()
    assert sent(server) == [{1}, {1}]


def test_many_inferences_from_one_buffer(server: Any, connect: Any) -> None:
    def items() -> Iterator[dict[str, np.ndarray]]:
        buffer = np.empty((9, 2), np.float32)
        for number in range(COUNT):
            buffer[:] = number
            yield {"x": buffer}

    model = connect.run(connect(server.url).model("m"))
    answers = connect.run(model.infer_many(items(), concurrency=4))
    assert [set(answer["y"].ravel().tolist()) for answer in answers] == [
        {number} for number in range(COUNT)
    ]


def test_many_inferences_from_one_buffer_of_an_asynchronous_source(server: Any) -> None:
    async def items() -> AsyncIterator[dict[str, np.ndarray]]:
        buffer = np.empty((9, 2), np.float32)
        for number in range(COUNT):
            buffer[:] = number
            yield {"x": buffer}

    async def run() -> list[set[float]]:
        async with AsyncTritonClient(server.url) as client:
            model = await client.model("m")
            return [
                set(answer["y"].ravel().tolist())
                async for answer in model.infer_many(items(), concurrency=4)
            ]

    assert asyncio.run(run()) == [{number} for number in range(COUNT)]


def test_a_sequence_from_one_buffer(server: Any, connect: Any) -> None:
    def items() -> Iterator[dict[str, np.ndarray]]:
        buffer = np.empty((1, 2), np.float32)
        for number in range(COUNT):
            buffer[:] = number
            yield {"x": buffer}

    model = connect.run(connect(server.url).model("m"))
    connect.run(model.sequence(7).infer_all(items()))
    assert sent(server) == [{number} for number in range(COUNT)]
    flags = [
        tuple(request.parameters[name].bool_param for name in ("sequence_start", "sequence_end"))
        for request in server.requests
    ]
    assert flags == [(True, False), *[(False, False)] * (COUNT - 2), (False, True)]
    assert {request.parameters["sequence_id"].int64_param for request in server.requests} == {7}


def test_a_step_of_a_sequence_is_copied_once(server: Any, connect: Any) -> None:
    class Peak:
        bytes = 0

        def started(self, call: Any) -> None:
            if call.method == "ModelInfer":
                self.bytes = max(self.bytes, tracemalloc.get_traced_memory()[1])

        def finished(self, *_: Any) -> None:
            pass

    server.calls["ModelConfig"] = lambda *_: service_pb2.ModelConfigResponse()
    server.infer = lambda *_: service_pb2.ModelInferResponse()
    peak, x = Peak(), np.ones((1_000_000, 2), np.float32)
    sequence = connect.run(connect(server.url, event_hooks=peak).model("m")).sequence(7)
    tracemalloc.start()
    try:
        connect.run(sequence.infer({"x": x}))
    finally:
        tracemalloc.stop()
    assert x.nbytes < peak.bytes < 1.5 * x.nbytes
    connect.run(sequence.infer({"x": x}, end=True))
    flags = [
        [request.parameters[name].bool_param for name in ("sequence_start", "sequence_end")]
        for request in server.requests
    ]
    assert flags == [[True, False], [False, True]]


def test_a_stream_sends_what_it_was_made_with(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    x = np.ones((3, 2), np.float32)
    answers = model.stream({"x": x})
    x[:] = 2
    assert all((answer["y"] == 1).all() for answer in connect.run(answers))
    assert sent(server) == [{1}]
