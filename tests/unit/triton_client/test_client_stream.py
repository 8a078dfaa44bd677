"""Streams of answers and sequences of requests, with both clients."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from triton_client import AsyncTritonClient, TritonClient, errors
from triton_client._decode import decode_streamed

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def streamed(server: Any, connect: Any, inputs: Any = None, **arguments: Any) -> Any:
    model = connect.run(connect(server.url, **arguments.pop("options", {})).model("m"))
    return connect.run(model.stream(inputs or {"x": X}, **arguments))


def test_every_answer_of_a_stream(server: Any, connect: Any) -> None:
    answers = streamed(server, connect, outputs=["y"], request_id="r", priority=2, deadline=5)
    np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), X)
    (request,) = server.requests
    assert (request.id, request.outputs[0].name) == ("r", "y")
    assert request.parameters["timeout"].int64_param == 5_000_000
    assert "triton_grpc_error" not in server.headers[-1], "see the transport"


def test_a_stream_without_answers(server: Any, connect: Any) -> None:
    server.stream = lambda request, context: iter(())
    assert streamed(server, connect) == []


def test_a_stream_that_fails_after_an_answer(server: Any, connect: Any) -> None:
    echo = server.stream

    def fail(request: Any, context: Any) -> Iterator[Any]:
        yield next(echo(request, context))
        context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")

    server.stream = fail
    model = connect.run(connect(server.url).model("m"))
    answers = model.stream({"x": X})
    taken: list[Any] = []

    async def take() -> None:
        async for answer in answers:
            taken.append(answer)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(errors.Overloaded) as caught:
        connect.run(take()) if hasattr(answers, "__aiter__") else taken.extend(answers)
    assert caught.value.model == "m"
    assert len(taken) == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("in model 'm', bad", errors.ServerError),
        ("Request for unknown model: 'm' is not found", errors.ModelNotFound),
        ("Request for unknown model: 'm' has no available versions", errors.ModelNotFound),
        ("[request id: 1] Exceeds maximum queue size", errors.Overloaded),
    ],
)
def test_an_error_inside_an_answer(server: Any, connect: Any, message: str, kind: Any) -> None:
    server.stream = lambda *_: iter([service_pb2.ModelStreamInferResponse(error_message=message)])
    with pytest.raises(kind) as caught:
        streamed(server, connect)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.server) == (message, server.url)


@pytest.mark.parametrize("answer", [b"\xff\xff", b"\x12\x7f", b"\x12", b"\x12\x02\x32\x7f"])
def test_a_stream_of_nonsense(server: Any, connect: Any, answer: bytes) -> None:
    server.stream = lambda *_: iter([answer])
    with pytest.raises(errors.ServerError):
        streamed(server, connect)


def test_streamed_answers_in_any_form() -> None:
    inner = service_pb2.ModelInferResponse()
    inner.outputs.add(name="y", datatype="INT8", shape=[300])
    inner.raw_output_contents.append(bytes(range(150)) * 2)
    outer = service_pb2.ModelStreamInferResponse(infer_response=inner).SerializeToString()
    for answer in (outer, memoryview(outer), outer + b"\x9a\x06\x02hi", b"\x12\x00" + outer):
        message, outputs = decode_streamed(answer)
        assert message == ""
        assert outputs["y"].tobytes() == inner.raw_output_contents[0]
    assert decode_streamed(b"") == ("", {})


def test_a_broken_stream_is_not_sent_again(server: Any, proxy: Any, connect: Any) -> None:
    def cut(request: Any, context: Any) -> Iterator[Any]:
        proxy.cut()
        return iter(())

    server.stream = cut
    model = connect.run(connect(proxy.url).model("m"))
    with pytest.raises(errors.Unavailable):
        connect.run(model.stream({"x": X}))
    assert len(server.requests) == 1


def test_the_deadline_bounds_the_whole_stream(server: Any, connect: Any) -> None:
    def trickle(request: Any, context: Any) -> Iterator[Any]:
        while context.is_active():
            time.sleep(0.05)
            yield service_pb2.ModelStreamInferResponse()

    server.stream = trickle
    started = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        streamed(server, connect, deadline=0.3)
    assert time.monotonic() - started < 5


def test_only_the_inputs_are_looked_at_at_first(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    with pytest.raises(errors.InvalidInput, match="'z'"):
        connect.run(model.stream({"z": X}))
    before = list(server.seen)
    for inputs, hint in (({"z": X}, "'z'"), ({"x": np.zeros((5, 2), np.float32)}, "at most 4")):
        with pytest.raises(errors.InvalidInput, match=hint):
            model.stream(inputs)
    with pytest.raises(errors.InvalidInput, match="list of names"):
        model.stream({"x": X}, outputs={"y": X})
    with pytest.raises(ValueError, match="positive"):
        model.stream({"x": X}, deadline=0)
    answers = model.stream({"x": X}, deadline=0.1)
    time.sleep(0.2)
    assert server.seen == before
    assert len(connect.run(answers)) == 3


def endless(server: Any) -> threading.Event:
    left = threading.Event()

    def trickle(request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(left.set)
        while not left.wait(0.01):
            yield service_pb2.ModelStreamInferResponse()

    server.stream = trickle
    return left


def test_leaving_a_stream_cancels_it(server: Any) -> None:
    left = endless(server)
    with TritonClient(server.url) as client:
        for _ in client.model("m").stream({"x": X}):
            break
        assert left.wait(5)


def test_leaving_an_asyncio_stream_cancels_it(server: Any) -> None:
    left = endless(server)

    async def leave() -> None:
        async with AsyncTritonClient(server.url) as client:
            answers = (await client.model("m")).stream({"x": X})
            await anext(answers)
            await answers.aclose()  # type: ignore[attr-defined]
            assert await asyncio.to_thread(left.wait, 5)

    asyncio.run(leave())


def test_closing_the_client_ends_a_stream(server: Any) -> None:
    endless(server)
    client = TritonClient(server.url)
    answers = client.model("m").stream({"x": X})
    next(answers)
    client.close()
    with pytest.raises(errors.Unavailable):
        list(answers)
    with pytest.raises(RuntimeError, match="closed"):
        list(client.model("m").stream({"x": X}))


def test_closing_the_asyncio_client_ends_a_stream(server: Any) -> None:
    endless(server)

    async def close() -> None:
        client = AsyncTritonClient(server.url)
        answers = (await client.model("m")).stream({"x": X})
        await anext(answers)
        await client.close()
        with pytest.raises(errors.Unavailable):
            async for _ in answers:
                pass

    asyncio.run(close())


def test_a_cancelled_task_stays_cancelled(server: Any) -> None:
    left = endless(server)

    async def cancel() -> None:
        async with AsyncTritonClient(server.url) as client:
            model = await client.model("m")

            async def read() -> None:
                async for _ in model.stream({"x": X}):
                    pass

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read(), 0.2)
            assert await asyncio.to_thread(left.wait, 5)

    asyncio.run(cancel())


def test_hooks_see_a_stream(server: Any, connect: Any) -> None:
    class Seen:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def started(self, call: Any) -> None:
            self.calls.append(call.method)

        def finished(self, call: Any, seconds: float, error: Any) -> None:
            self.calls.append(error)

    seen = Seen()
    streamed(server, connect, options={"event_hooks": seen})
    assert seen.calls[-2:] == ["ModelStreamInfer", None]


def test_a_child_process_streams_on_its_own_channel(server: Any) -> None:
    code = f"""
import os
import numpy as np
from triton_client import TritonClient
client = TritonClient({server.url!r}, timeout=10)
model = client.model("m")
x = np.ones((3, 2), np.float32)
assert len(list(model.stream({{"x": x}}))) == 3
child = os.fork()
with model.sequence() as sequence:
    assert len(list(model.stream({{"x": x}}))) == 3
    sequence.infer({{"x": x}})
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def marks(server: Any) -> list[tuple[bool, bool]]:
    return [
        (
            request.parameters["sequence_start"].bool_param,
            request.parameters["sequence_end"].bool_param,
        )
        for request in server.requests
    ]


def test_the_steps_of_a_sequence(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    sequence = model.sequence(deadline=3, outputs=["y"], parameters={"p": 1}, priority=1)
    for number in range(3):
        answer = connect.run(sequence.infer({"x": X + number}, end=number == 2, request_id="r"))
        np.testing.assert_array_equal(answer["y"], X + number)
    assert marks(server) == [(True, False), (False, False), (False, True)]
    for request in server.requests:
        parameters = request.parameters
        assert parameters["sequence_id"].int64_param == sequence.id
        assert parameters["timeout"].int64_param == 3_000_000
        assert (parameters["p"].int64_param, request.id) == (1, "r")
        assert parameters["priority"].uint64_param == 1
    assert 0 < sequence.id < 2**63
    assert sequence.id != model.sequence().id
    with pytest.raises(errors.InvalidInput, match="has ended"):
        connect.run(sequence.infer({"x": X}))
    assert len(server.requests) == 3


def test_sequence_identifiers(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    connect.run(model.sequence("user-7").infer({"x": X}))
    connect.run(model.sequence(7).infer({"x": X}))
    first, second = (request.parameters["sequence_id"] for request in server.requests)
    assert (first.string_param, second.int64_param) == ("user-7", 7)
    for wrong in (0, -1, 2**63, ""):
        with pytest.raises(errors.InvalidInput, match="2\\*\\*63"):
            model.sequence(wrong)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_whole_sequence(server: Any, connect: Any, count: int) -> None:
    model = connect.run(connect(server.url).model("m"))
    items = ({"x": X + number} for number in range(count))
    answers = connect.run(model.sequence(1).infer_all(items))
    assert [answer["y"][0, 0] for answer in answers] == list(range(count))
    assert marks(server) == [(number == 0, number == count - 1) for number in range(count)]


def test_a_whole_sequence_from_an_asyncio_source(server: Any) -> None:
    async def source() -> AsyncIterator[Any]:
        for number in range(3):
            yield {"x": X + number}

    async def ask() -> None:
        async with AsyncTritonClient(server.url) as client:
            async with (await client.model("m")).sequence() as sequence:
                assert len([answer async for answer in sequence.infer_all(source())]) == 3
            with pytest.raises(errors.InvalidInput, match="has ended"):
                await sequence.infer({"x": X})

    asyncio.run(ask())


def test_a_failed_step_ends_a_sequence(server: Any, proxy: Any, connect: Any) -> None:
    echo = server.infer

    def cut(request: Any, context: Any) -> Any:
        proxy.cut()
        return echo(request, context)

    model = connect.run(connect(proxy.url).model("m"))
    sequence = model.sequence()
    connect.run(sequence.infer({"x": X}))
    with pytest.raises(errors.InvalidInput, match="'z'"):
        connect.run(sequence.infer({"z": X}))
    with pytest.raises(errors.InvalidInput, match="at most 4"):
        connect.run(sequence.infer({"x": np.zeros((5, 2), np.float32)}))
    server.infer = cut
    with pytest.raises(errors.Unavailable):
        connect.run(sequence.infer({"x": X}))
    assert len(server.requests) == 2, "what was refused here was not sent, and nothing twice"
    with pytest.raises(errors.InvalidInput, match="failed; begin a new sequence"):
        connect.run(sequence.infer({"x": X}))


def test_one_step_at_a_time(server: Any) -> None:
    async def ask() -> None:
        async with AsyncTritonClient(server.url) as client:
            sequence = (await client.model("m")).sequence()
            steps = [sequence.infer({"x": X}) for _ in range(2)]
            first, second = await asyncio.gather(*steps, return_exceptions=True)
            assert isinstance(first, dict)
            assert isinstance(second, errors.InvalidInput)
            assert "under way" in str(second)
            await sequence.infer({"x": X})

    asyncio.run(ask())


def test_leaving_a_sequence_sends_nothing(server: Any) -> None:
    with TritonClient(server.url) as client:
        with client.model("m").sequence() as sequence:
            sequence.infer({"x": X})
        with pytest.raises(errors.InvalidInput, match="has ended"):
            sequence.infer({"x": X})
    assert marks(server) == [(True, False)]
