"""System shared memory of both clients, against a server that maps it in this process."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from triton_client import TritonClient, errors
from triton_client._shared_memory import ShmRegion

FOLDER = Path("/dev/shm")
X = np.arange(6, dtype=np.float32).reshape(3, 2)


def mapped(tensor: Any) -> np.ndarray:
    """Return the bytes that a tensor of a request refers to."""
    parameters = tensor.parameters
    return np.memmap(
        FOLDER / parameters["shared_memory_region"].string_param,
        np.uint8,
        "r+",
        parameters["shared_memory_offset"].int64_param,
        (parameters["shared_memory_byte_size"].int64_param,),
    )


def shared_echo(request: Any, context: Any) -> Any:
    """Answer as Triton does: an output in shared memory has empty contents."""
    (tensor,) = request.inputs
    by_reference = "shared_memory_region" in tensor.parameters
    raw = mapped(tensor).tobytes() if by_reference else request.raw_input_contents[0]
    assert len(request.raw_input_contents) == (not by_reference)
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=tensor.shape)
    if request.outputs and "shared_memory_region" in request.outputs[0].parameters:
        target = mapped(request.outputs[0])
        if len(target) < len(raw):
            context.abort(grpc.StatusCode.INTERNAL, "shared memory size too small")
        target[: len(raw)] = np.frombuffer(raw, np.uint8)
        raw = b""
    response.raw_output_contents.append(raw)
    return response


@pytest.fixture
def sharing(server: Any) -> Any:
    server.infer = shared_echo
    return server


def enter(connect: Any, memory: Any) -> Any:
    return connect.run(memory.__aenter__()) if hasattr(memory, "__aenter__") else memory.__enter__()


def files() -> set[str]:
    return {path.name for path in FOLDER.glob(f"triton-client-{os.getpid()}-*")}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = files()
    yield
    gc.collect()
    assert files() == before


def test_inputs_and_outputs_by_reference(sharing: Any, connect: Any) -> None:
    registered: list[Any] = []

    def register(request: Any, context: Any) -> Any:
        registered.append(request)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    sharing.calls["SystemSharedMemoryRegister"] = register
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    x, y = memory.copy(X), memory.empty((3, 2), np.float32)
    answer = connect.run(model.infer({"x": x}, outputs={"y": y}))
    assert answer["y"] is y
    np.testing.assert_array_equal(y, X)
    (request,) = sharing.requests
    assert (registered[0].name, registered[0].key) == (memory.name, f"/{memory.name}")
    assert registered[0].byte_size == 4096
    assert request.raw_input_contents == []
    assert request.outputs[0].parameters["shared_memory_offset"].int64_param == 64
    assert request.inputs[0].parameters["shared_memory_byte_size"].int64_param == X.nbytes
    connect.run(memory.close())
    connect.run(memory.close())
    assert sharing.seen[-1] == "SystemSharedMemoryUnregister"
    assert sharing.seen.count("SystemSharedMemoryUnregister") == 1
    assert files() == set()
    np.testing.assert_array_equal(x + y, 2 * X)
    connect.run(model.infer({"x": x}))
    assert len(sharing.requests[-1].raw_input_contents) == 1, "sent by value after the close"
    with pytest.raises(RuntimeError, match="closed"):
        memory.empty(1, np.float32)
    with pytest.raises(errors.InvalidInput, match="in open shared memory"):
        connect.run(model.infer({"x": x}, outputs={"y": y}))


def test_what_is_sent_by_value(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    x = memory.copy(np.arange(16, dtype=np.float32).reshape(4, 4))
    for inputs in (X, x[:, :2], x.astype(np.float32)[:, :2].copy()):
        answer = connect.run(model.infer({"x": inputs}, outputs={"y": None}))
        np.testing.assert_array_equal(answer["y"], inputs)
        assert len(sharing.requests[-1].raw_input_contents) == 1
    answer = connect.run(model.infer({"x": x.reshape(8, 2)[2:5]}))
    np.testing.assert_array_equal(answer["y"], x.reshape(8, 2)[2:5])
    assert sharing.requests[-1].raw_input_contents == []
    connect.run(model.stream({"x": x.reshape(8, 2)[:2]}))
    connect.run(model.sequence().infer({"x": x.reshape(8, 2)[:2]}))
    for request in sharing.requests[-2:]:
        assert len(request.raw_input_contents) == 1
    connect.run(memory.close())


def test_more_rows_than_the_most(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    x = memory.copy(np.arange(22, dtype=np.float32).reshape(11, 2))
    y = memory.empty((11, 2), np.float32)
    assert connect.run(model.infer({"x": x}, outputs={"y": y}))["y"] is y
    np.testing.assert_array_equal(y, x)
    assert len(sharing.requests) == 3
    with pytest.raises(errors.InvalidInput, match="exactly the shape"):
        connect.run(model.infer({"x": x}, outputs={"y": memory.empty((12, 2), np.float32)}))
    connect.run(memory.close())


def test_a_larger_array_gives_a_view(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    flat = memory.empty(100, np.float32)
    answer = connect.run(model.infer({"x": X}, outputs={"y": flat}))["y"]
    np.testing.assert_array_equal(answer, X)
    assert np.shares_memory(answer, flat)
    connect.run(memory.close())


def test_outputs_that_cannot_be_written(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    small, wide = memory.empty((2, 2), np.float32), memory.empty((4, 4), np.float32)
    frozen = memory.empty((3, 2), np.float32)
    frozen.flags.writeable = False
    before = len(sharing.requests)
    wrong = [
        (small, "too large"),
        (memory.empty((3, 2), np.float64), "needs an array of float32, got float64"),
        ([1.0], "got list"),
        (np.empty((3, 2), np.float32), "in open shared memory"),
        (wide[:, :2], "contiguous"),
        (frozen, "writable"),
    ]
    for array, hint in wrong:
        with pytest.raises(errors.InvalidInput, match=hint):
            connect.run(model.infer({"x": X}, outputs={"y": array}))
    with pytest.raises(errors.InvalidInput, match="no such output"):
        connect.run(model.infer({"x": X}, outputs={"z": small}))
    with pytest.raises(errors.InvalidInput, match="only infer writes"):
        connect.run(model.infer_many([{"x": X}], outputs={"y": small}))
    assert len(sharing.requests) == before
    connect.run(memory.close())


def test_an_answer_of_another_kind(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    y = memory.empty((3, 2), np.float32)

    for datatype, shape in (("FP64", [3, 2]), ("FP32", [4, 2])):
        response = service_pb2.ModelInferResponse()
        response.outputs.add(name="y", datatype=datatype, shape=shape)
        sharing.infer = lambda *_, response=response: response
        with pytest.raises(errors.ServerError, match="for an array"):
            connect.run(model.infer({"x": X}, outputs={"y": y}))
    connect.run(memory.close())
    assert sharing.seen[-1] == "SystemSharedMemoryUnregister", "the server answered"


def test_arrays_in_a_segment() -> None:
    segment = ShmRegion(1000)
    for dtype in (np.float32, ">i8", bool, ml_dtypes.bfloat16):
        array = segment.empty((2, 3), dtype)
        assert array.dtype == np.dtype(dtype).newbyteorder("=")
        assert array.__array_interface__["data"][0] % 64 == 0
        assert segment.offset(array) is not None
    assert segment.empty(0, np.int8).shape == (0,)
    with pytest.raises(ValueError, match="1000 bytes do not fit: 744 of the 1000 bytes"):
        segment.empty(1000, np.int8)
    assert segment.empty(744, np.int8).nbytes == 744
    for dtype in (object, "U3", complex):
        with pytest.raises(ValueError, match=r"strings|no data type"):
            segment.empty(1, dtype)
    segment.drop()
    with pytest.raises(ValueError, match="at least one byte"):
        ShmRegion(0)


def test_more_memory_than_there_is() -> None:
    with pytest.raises(OSError, match="shm-size"):
        ShmRegion(1 << 50)


def test_threads_get_arrays_of_their_own() -> None:
    segment = ShmRegion(1 << 20)
    offsets: list[Any] = []

    def make() -> None:
        offsets.extend(segment.offset(segment.empty(16, np.float32)) for _ in range(500))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(offsets)) == 2000
    segment.drop()


def test_closing_waits_for_the_calls_that_use_it(sharing: Any) -> None:
    release = threading.Event()

    def slow(request: Any, context: Any) -> Any:
        release.wait(10)
        return shared_echo(request, context)

    sharing.infer = slow
    with TritonClient(sharing.url) as client, ThreadPoolExecutor(1) as pool:
        model = client.model("m")
        with client.shared_memory(4096) as memory:
            x, y = memory.copy(X), memory.empty(X.shape, np.float32)
            asking = pool.submit(model.infer, {"x": x}, outputs={"y": y})
            while not sharing.requests:
                time.sleep(0.01)
            threading.Timer(0.2, release.set).start()
        assert asking.result(0.1)["y"] is y
        np.testing.assert_array_equal(y, X)
        assert sharing.seen[-1] == "SystemSharedMemoryUnregister"


def test_a_call_without_an_answer_keeps_it_registered(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    x = memory.copy(X)
    release = threading.Event()
    sharing.infer = lambda *_: release.wait(10) and None
    with pytest.raises(errors.DeadlineExceeded):
        connect.run(model.infer({"x": x}, deadline=0.2))
    release.set()
    connect.run(memory.close())
    assert "SystemSharedMemoryUnregister" not in sharing.seen
    assert files() == set()


def test_a_call_by_reference_is_not_sent_twice(sharing: Any, proxy: Any, connect: Any) -> None:
    client = connect(proxy.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    x = memory.copy(X)

    def cut(request: Any, context: Any) -> Any:
        proxy.cut()
        return shared_echo(request, context)

    sharing.infer = cut
    with pytest.raises(errors.Unavailable):
        connect.run(model.infer({"x": x}))
    assert len(sharing.requests) == 1
    connect.run(memory.close())
    assert "SystemSharedMemoryUnregister" not in sharing.seen


def test_a_refused_call_is_an_answer(sharing: Any, connect: Any) -> None:
    client = connect(sharing.url)
    model = connect.run(client.model("m"))
    memory = enter(connect, client.shared_memory(4096))
    x = memory.copy(X)
    sharing.infer = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "no")
    with pytest.raises(errors.ServerError):
        connect.run(model.infer({"x": x}))
    connect.run(memory.close())
    assert sharing.seen[-1] == "SystemSharedMemoryUnregister"


def test_a_server_that_has_answered_and_not_let_go(
    sharing: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    memory = enter(connect, connect(sharing.url).shared_memory(64))
    asked = []

    def held(request: Any, context: Any) -> Any:
        asked.append(request.name)
        if len(asked) < 4:
            context.abort(
                grpc.StatusCode.INTERNAL,
                f"Cannot unregister shared memory region '{request.name}', it is currently in use.",
            )
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    sharing.calls["SystemSharedMemoryUnregister"] = held
    with caplog.at_level(logging.WARNING, "triton_client"):
        connect.run(memory.close())
    assert len(asked) == 4
    assert caplog.messages == []


def test_a_server_that_refuses_shared_memory(server: Any, connect: Any) -> None:
    server.calls["SystemSharedMemoryRegister"] = lambda _, context: context.abort(
        grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'x'"
    )
    memory = connect(server.url).shared_memory(64)
    with pytest.raises(RuntimeError, match="enter"):
        memory.empty(1, np.int8)
    with pytest.raises(errors.PermissionDenied):
        enter(connect, memory)
    assert files() == set()


def test_closing_after_the_client_says_what_is_left(
    server: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(server.url)
    memory = enter(connect, client.shared_memory(64))
    connect.run(client.close())
    with caplog.at_level(logging.WARNING, "triton_client"):
        connect.run(memory.close())
    assert memory.name in caplog.text
    with pytest.raises(RuntimeError, match="make another"):
        enter(connect, memory)


def test_two_clients_and_two_regions(sharing: Any, connect: Any) -> None:
    one, other = connect(sharing.url), connect(sharing.url)
    model = connect.run(one.model("m"))
    first, second = (enter(connect, one.shared_memory(256)) for _ in range(2))
    third = enter(connect, other.shared_memory(256))
    x, y, foreign = first.copy(X), second.empty(X.shape, np.float32), third.copy(X)
    assert connect.run(model.infer({"x": x}, outputs={"y": y}))["y"] is y
    connect.run(model.infer({"x": foreign}))
    assert len(sharing.requests[-1].raw_input_contents) == 1
    with pytest.raises(errors.InvalidInput, match="this client"):
        connect.run(model.infer({"x": x}, outputs={"y": foreign}))
    for memory in (first, third, second):
        connect.run(memory.close())


def test_what_is_registered(server: Any, connect: Any) -> None:
    status = service_pb2.SystemSharedMemoryStatusResponse()
    region = status.regions["r"]
    region.name, region.key, region.offset, region.byte_size = "r", "/r", 8, 64
    server.calls["SystemSharedMemoryStatus"] = lambda *_: status
    (found,) = connect.run(connect(server.url).shared_memory_status())
    assert (found.name, found.key, found.offset, found.nbytes) == ("r", "/r", 8, 64)


def test_a_child_process_leaves_the_memory_to_its_parent(sharing: Any) -> None:
    code = f"""
import os, sys, warnings
from pathlib import Path
import numpy as np
from triton_client import TritonClient
warnings.simplefilter("error")
client = TritonClient({sharing.url!r}, timeout=10)
model = client.model("m")
memory = client.shared_memory(4096)
memory.__enter__()
path = Path("/dev/shm") / memory.name
x = memory.copy(np.ones((3, 2), np.float32))
y = memory.empty((3, 2), np.float32)
child = os.fork()
if not child:
    try:
        model.infer({{"x": x}}, outputs={{"y": y}})
        try:
            memory.empty(1, np.int8)
        except RuntimeError as error:
            assert "before the fork" in str(error)
        else:
            raise AssertionError("made in a child")
        memory.close()
        assert path.exists()
        x += 1
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert path.exists()
assert (y == 1).all() and (x == 2).all()
model.infer({{"x": x}}, outputs={{"y": y}})
assert (y == 2).all()
print(memory.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert not (FOLDER / done.stdout.strip()).exists(), "removed at the end of its process"
    assert "SystemSharedMemoryUnregister" not in sharing.seen
