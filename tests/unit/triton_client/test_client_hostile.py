"""Both clients against a server that does on demand what a real one does not."""

from __future__ import annotations

import asyncio
import math
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client import AsyncTritonClient, TritonClient, errors

X = np.arange(4, dtype=np.float32).reshape(2, 2)


def nothing_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def refuse(code: grpc.StatusCode, details: str = "no") -> Any:
    return lambda _, context: context.abort(code, details)


def test_a_call_and_its_answer(server: Any, connect: Any) -> None:
    client = connect(server.url, headers={"Authorization": "Bearer x"})
    model = connect.run(client.model("m"))
    assert (model.spec.version, model.spec.max_batch_size) == ("10", 4)
    assert model.config.name == "m"
    answer = connect.run(
        model.infer({"x": X}, outputs=["y"], deadline=3, request_id="a", priority=1)
    )
    np.testing.assert_array_equal(answer["y"], X)
    (request,) = server.requests
    assert (request.model_version, request.id, request.outputs[0].name) == ("", "a", "y")
    assert request.parameters["timeout"].int64_param == 3_000_000
    assert request.parameters["priority"].uint64_param == 1
    assert all(headers["authorization"] == "Bearer x" for headers in server.headers)
    np.testing.assert_array_equal(connect.run(model(x=X))["y"], X)
    assert connect.run(client.model("m")) is model


def test_no_deadline_means_no_queue_timeout(server: Any, connect: Any) -> None:
    connect.infer(server.url, {"x": X}, deadline=math.inf)
    assert "timeout" not in server.requests[0].parameters


def test_a_deadline_that_has_passed_sends_nothing(server: Any, connect: Any) -> None:
    with pytest.raises(errors.DeadlineExceeded, match="before the request was sent") as caught:
        connect.infer(server.url, {"x": X}, deadline=1e-9)
    assert caught.value.model == "m"
    assert server.requests == []


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_every_status_code(code: grpc.StatusCode, server: Any, connect: Any) -> None:
    server.infer = refuse(code, "because")
    with pytest.raises(errors.TritonClientError, match="because") as caught:
        connect.infer(server.url, {"x": X}, options={"retries": 0})
    error = caught.value
    assert isinstance(error.__cause__, grpc.RpcError)
    assert (error.server, error.model, error.version) == (server.url, "m", "")
    named = {
        "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
        "INVALID_ARGUMENT": errors.InvalidInput,
        "NOT_FOUND": errors.ModelNotFound,
        "RESOURCE_EXHAUSTED": errors.Overloaded,
        "UNAVAILABLE": errors.Unavailable,
        "INTERNAL": errors.ServerError,
    }
    assert isinstance(error, named.get(code.name, errors.TritonClientError))


def test_a_full_queue_is_not_asked_again(server: Any, connect: Any) -> None:
    server.infer = refuse(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with pytest.raises(errors.Overloaded):
        connect.infer(server.url, {"x": X})
    assert len(server.requests) == 1


def test_a_slow_answer_ends_at_the_deadline(server: Any, connect: Any) -> None:
    release = threading.Event()
    server.infer = lambda request, context: release.wait(10) and None
    started = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        connect.infer(server.url, {"x": X}, deadline=0.2)
    assert time.monotonic() - started < 5
    release.set()


def test_answers_that_make_no_sense(server: Any, connect: Any) -> None:
    whole = service_pb2.ModelInferResponse()
    whole.outputs.add(name="y", datatype="FP32", shape=[2, 2])
    whole.raw_output_contents.append(X.tobytes()[:-1])
    for answer in (whole.SerializeToString(), b"\xff\xff", b"\x32\x7f"):
        server.infer = lambda request, context, answer=answer: answer
        with pytest.raises(errors.ServerError) as caught:
            connect.infer(server.url, {"x": X})
        assert (caught.value.server, caught.value.model) == (server.url, "m")


def test_metadata_that_makes_no_sense(server: Any, connect: Any) -> None:
    server.calls["ModelMetadata"] = lambda request, context: b"\xff\xff"
    with pytest.raises(errors.ServerError):
        connect.run(connect(server.url).model("m"))


def test_outputs_in_any_order(server: Any, connect: Any) -> None:
    def backwards(request: Any, context: Any) -> Any:
        response = service_pb2.ModelInferResponse()
        for name in ("z", "y"):
            response.outputs.add(name=name, datatype="BYTES", shape=[1])
            response.raw_output_contents.append(b"\1\0\0\0" + name.encode())
        return response

    server.infer = backwards
    answer = connect.infer(server.url, {"x": X})
    assert {name: array.tolist() for name, array in answer.items()} == {"y": [b"y"], "z": [b"z"]}


def test_a_connection_cut_midway_is_tried_again(server: Any, proxy: Any, connect: Any) -> None:
    echo = server.infer

    def cut_once(request: Any, context: Any) -> Any:
        if len(server.requests) == 1:
            proxy.cut()
        return echo(request, context)

    server.infer = cut_once
    np.testing.assert_array_equal(connect.infer(proxy.url, {"x": X})["y"], X)
    assert len(server.requests) == 2


def test_a_connection_that_is_always_cut(server: Any, proxy: Any, connect: Any) -> None:
    def cut(request: Any, context: Any) -> Any:
        proxy.cut()
        return service_pb2.ModelInferResponse()

    server.infer = cut
    with pytest.raises(errors.Unavailable):
        connect.infer(proxy.url, {"x": X}, deadline=10)
    assert 1 <= len(server.requests) <= 3


def test_a_large_tensor_is_tried_again_too(server: Any, proxy: Any, connect: Any) -> None:
    echo = server.infer

    def cut_once(request: Any, context: Any) -> Any:
        if len(server.requests) == 1:
            proxy.cut()
        return echo(request, context)

    server.infer = cut_once
    server.calls["ModelConfig"] = lambda *_: service_pb2.ModelConfigResponse()
    x = np.random.default_rng(0).random((1_000_000, 2), np.float32)
    np.testing.assert_array_equal(connect.infer(proxy.url, {"x": x})["y"], x)


def test_no_server_there(connect: Any) -> None:
    url = nothing_listens()
    client = connect(url)
    assert connect.run(client.live()) is False
    assert connect.run(client.ready()) is False
    started = time.monotonic()
    with pytest.raises(errors.Unavailable) as caught:
        connect.run(client.metadata())
    assert caught.value.server == url
    with pytest.raises(errors.DeadlineExceeded, match=r"not ready after 0\.3 s"):
        connect.run(client.wait_until_ready(0.3))
    assert time.monotonic() - started < 10


def test_a_server_that_comes_up_later(server: Any, connect: Any) -> None:
    answers = iter([False, False, True])
    server.calls["ServerReady"] = lambda *_: service_pb2.ServerReadyResponse(ready=next(answers))
    connect.run(connect(server.url).wait_until_ready(5))
    assert server.seen.count("ServerReady") == 3


def test_health_of_a_server_that_hangs(server: Any, connect: Any) -> None:
    release = threading.Event()
    server.calls["ServerLive"] = lambda *_: release.wait(5) and None
    assert connect.run(connect(server.url).live(deadline=0.1)) is False
    release.set()


def test_a_model_that_is_gone_is_not_ready(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m", 3))
    assert connect.run(model.ready()) is True
    server.calls["ModelReady"] = refuse(grpc.StatusCode.NOT_FOUND)
    assert connect.run(model.ready()) is False
    server.calls["ModelReady"] = refuse(grpc.StatusCode.INTERNAL)
    with pytest.raises(errors.ServerError) as caught:
        connect.run(model.ready())
    assert caught.value.version == "3"


def test_a_server_that_keeps_its_configs(server: Any, connect: Any) -> None:
    server.calls["ModelConfig"] = refuse(
        grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'x'"
    )
    model = connect.run(connect(server.url).model("m"))
    assert model.spec.max_batch_size == 0
    with pytest.raises(errors.PermissionDenied):
        _ = model.config
    np.testing.assert_array_equal(connect.run(model.infer({"x": X}))["y"], X)


def test_a_thread_sees_no_empty_config(server: Any, connect: Any) -> None:
    """Not even while the model takes note that the server keeps it."""
    model = connect.run(connect(server.url).model("m"))
    seen = []

    class Withheld(errors.PermissionDenied):
        def __init__(self, message: str, **place: str) -> None:
            super().__init__(message, **place)
            seen.append(model.config.name)

    model.adopt(model.spec, model_config_pb2.ModelConfig(), Withheld("no"))
    assert set(seen) == {"m"}


def test_a_changed_interface_is_seen_after_refresh(server: Any, connect: Any) -> None:
    client = connect(server.url)
    model = connect.run(client.model("m"))
    changed = service_pb2.ModelMetadataResponse(name="m", versions=["11"])
    server.calls["ModelMetadata"] = lambda *_: changed
    assert model.spec.version == "10"
    connect.run(model.refresh())
    assert model.spec.version == "11"
    connect.run(client.repository.load("m"))
    assert connect.run(client.model("m")) is not model


def test_nothing_wrong_is_sent(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    wrong: list[dict[str, Any]] = [
        {},
        {"z": X},
        {"x": X.astype(np.float64)},
        {"x": X[0]},
        {"x": X[:0]},
        {"x": [["a", "b"]]},
    ]
    for inputs in wrong:
        with pytest.raises(errors.InvalidInput) as caught:
            connect.run(model.infer(inputs))
        assert caught.value.model == "m"
    with pytest.raises(errors.InvalidInput):
        connect.run(model.infer({"x": X}, outputs=["z"]))
    with pytest.raises(errors.InvalidInput, match="needs a config"):
        connect.run(connect(server.url).repository.load("m", files={"1/model.onnx": b""}))
    with pytest.raises(ValueError, match="positive"):
        connect.run(model.infer({"x": X}, deadline=0))
    assert server.requests == []


def test_rows_above_the_most_are_split_together(server: Any, connect: Any) -> None:
    echo, together = server.infer, threading.Barrier(3)

    def all_three(request: Any, context: Any) -> Any:
        together.wait(5)
        time.sleep(0.05 if len(request.raw_input_contents[0]) > 24 else 0)
        return echo(request, context)

    server.infer = all_three
    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    np.testing.assert_array_equal(connect.infer(server.url, {"x": x})["y"], x)
    assert sorted(request.inputs[0].shape[0] for request in server.requests) == [3, 4, 4]


def test_one_part_that_fails_fails_the_whole(server: Any, connect: Any) -> None:
    echo = server.infer

    def refuse_small(request: Any, context: Any) -> Any:
        if request.inputs[0].shape[0] == 1:
            context.abort(grpc.StatusCode.INTERNAL, "the last row")
        return echo(request, context)

    server.infer = refuse_small
    with pytest.raises(errors.ServerError, match="the last row"):
        connect.infer(server.url, {"x": np.zeros((41, 2), np.float32)})


def test_many_in_order_and_never_too_many(server: Any, connect: Any) -> None:
    echo, lock = server.infer, threading.Lock()
    running = most = 0

    def watched(request: Any, context: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (len(server.requests) % 3))
        with lock:
            running -= 1
        return echo(request, context)

    server.infer = watched
    model = connect.run(connect(server.url).model("m"))
    items = ({"x": np.full((1, 2), number, np.float32)} for number in range(60))
    answers = connect.run(model.infer_many(items, concurrency=4, outputs=["y"]))
    assert [answer["y"][0, 0] for answer in answers] == list(range(60))
    assert 2 <= most <= 4


def test_many_raise_at_their_turn(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    items = [{"x": X}, {"x": X}, {"z": X}, {"x": X}]
    with pytest.raises(errors.InvalidInput, match="'z'"):
        connect.run(model.infer_many(items, concurrency=2))


def test_a_closed_client_says_so(server: Any, connect: Any) -> None:
    client = connect(server.url)
    model = connect.run(client.model("m"))
    connect.run(client.close())
    connect.run(client.close())
    with pytest.raises(RuntimeError, match="closed"):
        connect.run(model.infer({"x": X}))


def test_closing_ends_a_call_under_way(server: Any) -> None:
    asked, done = threading.Event(), threading.Event()

    def hang(_request: Any, _context: Any) -> Any:
        asked.set()
        done.wait(30)

    server.infer = hang
    try:
        with ThreadPoolExecutor(1) as pool:
            client = TritonClient(server.url, retries=0)
            call = pool.submit(client.model("m").infer, {"x": X}, deadline=20)
            assert asked.wait(10)
            client.close()
            with pytest.raises(errors.Unavailable):
                call.result(10)

        async def close() -> None:
            asked.clear()
            client = AsyncTritonClient(server.url, retries=0)
            model = await client.model("m")
            call = asyncio.create_task(model.infer({"x": X}, deadline=20))
            assert await asyncio.to_thread(asked.wait, 10)
            await client.close()
            with pytest.raises(errors.Unavailable):
                await asyncio.wait_for(call, 10)

        asyncio.run(close())
    finally:
        done.set()


def test_cancelling_a_task_cancels_its_call(server: Any) -> None:
    asked, left = threading.Event(), threading.Event()

    def hang(_request: Any, context: Any) -> Any:
        context.add_callback(left.set)
        asked.set()
        left.wait(30)

    server.infer = hang

    async def cancel() -> None:
        async with AsyncTritonClient(server.url) as client:
            model = await client.model("m")
            call = asyncio.create_task(model.infer({"x": X}, deadline=20))
            assert await asyncio.to_thread(asked.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # The server hears of it, and the connection goes on.
            assert await asyncio.to_thread(left.wait, 10)
            assert await model.ready()

    asyncio.run(cancel())


def test_threads_get_their_own_answers(server: Any) -> None:
    with TritonClient(server.url) as client, ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> bool:
            x = np.full((1 + number % 4, 2), number, np.float32)
            return bool((client.model("m").infer({"x": x})["y"] == x).all())

        assert all(pool.map(ask, range(500)))


def test_leaving_many_early_leaves_no_threads(server: Any) -> None:
    with TritonClient(server.url) as client:
        many = client.model("m").infer_many(({"x": X} for _ in iter(int, 1)), concurrency=4)
        next(many)
        many.close()
        assert not [
            thread for thread in threading.enumerate() if thread.name.startswith("triton-client")
        ]


def test_a_child_process_opens_its_own_channel(server: Any) -> None:
    code = f"""
import os, sys
import numpy as np
from triton_client import TritonClient
client = TritonClient({server.url!r}, timeout=10)
x = np.ones((1, 2), np.float32)
model = client.model("m")
assert model.infer({{"x": x}})["y"].tolist() == x.tolist()
child = os.fork()
if not child:
    try:
        assert model.infer({{"x": x}})["y"].tolist() == x.tolist()
        client.close()
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert model.infer({{"x": x}})["y"].tolist() == x.tolist()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
