"""What goes to gRPC as it is given: interceptors, options; and what bounds an answer."""

from __future__ import annotations

import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from triton_client import TritonClient, errors
from triton_client._decode import decode_answer

if TYPE_CHECKING:
    from tests.unit.triton_client.fake_triton import Blocking, FakeTriton

X = np.arange(4, dtype=np.float32).reshape(2, 2)
METHODS = ["ModelMetadata", "ModelConfig", "ModelInfer", "ModelStreamInfer"]


class Seen(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """Takes note of every call that passes, as OpenTelemetry's instrumentation does."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.methods.append(details.method.rpartition("/")[2])
        return continuation(details, request)

    intercept_unary_stream = intercept_unary_unary


class AioSeen(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, methods: list[str]) -> None:
        self._methods = methods

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._methods.append(details.method.decode().rpartition("/")[2])
        return await continuation(details, request)


class AioStreamSeen(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, methods: list[str]) -> None:
        self._methods = methods

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        self._methods.append(details.method.decode().rpartition("/")[2])
        return await continuation(details, request)


def test_interceptors_see_every_call(server: FakeTriton, connect: Blocking) -> None:
    seen = Seen()
    interceptors: list[Any] = [seen]
    if connect.kind == "asyncio":
        interceptors = [AioSeen(seen.methods), AioStreamSeen(seen.methods)]
    model = connect.run(connect(server.url, interceptors=interceptors).model("m"))
    np.testing.assert_array_equal(connect.run(model.infer({"x": X}))["y"], X)
    assert len(connect.run(model.stream({"x": X}))) == 2
    assert seen.methods == METHODS


def test_a_patched_grpc_sees_the_channel(
    server: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenTelemetry's instrumentation of gRPC patches it, after the client was imported."""
    seen, opened = Seen(), grpc.insecure_channel
    monkeypatch.setattr(
        grpc,
        "insecure_channel",
        lambda *given, **named: grpc.intercept_channel(opened(*given, **named), seen),
    )
    with TritonClient(server.url) as client:
        client.metadata()
    assert seen.methods == ["ServerMetadata"]


def test_an_answer_has_a_bound(server: FakeTriton, connect: Blocking) -> None:
    model = connect.run(connect(server.url, max_response_bytes=20_000).model("m"))

    def large(_request: Any, _context: Any) -> Any:
        answer = service_pb2.ModelInferResponse()
        answer.outputs.add(name="y", datatype="FP32", shape=[10_000])
        answer.raw_output_contents.append(bytes(40_000))
        return answer

    np.testing.assert_array_equal(connect.run(model.infer({"x": X}))["y"], X)
    server.infer = large
    with pytest.raises(errors.ServerError, match="larger than max_response_bytes") as caught:
        connect.run(model.infer({"x": X}))
    assert (caught.value.model, caught.value.server) == ("m", server.url)
    assert len(server.requests) == 2, "it is not sent again"
    model = connect.run(connect(server.url, max_response_bytes=50_000).model("m"))
    assert connect.run(model.infer({"x": X}))["y"].shape == (10_000,)
    for wrong in (0, -1, 2**31):
        with pytest.raises(ValueError, match="max_response_bytes"):
            connect(server.url, max_response_bytes=wrong)


def test_a_long_error_comes_whole(server: FakeTriton, connect: Blocking) -> None:
    """A traceback of a Python model goes in a header, of which gRPC takes 16 KiB by default."""
    server.infer = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "a" * 60_000)
    with pytest.raises(errors.ServerError, match=r"a{60000}"):
        connect.infer(server.url, {"x": X})
    server.infer = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "a" * 3_000_000)
    with pytest.raises(errors.ServerError, match="metadata size exceeds"):
        connect.infer(server.url, {"x": X}, deadline=20)


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [
        ("FP32", [2**40]),
        ("FP32", [-1]),
        ("FP32", [-1, -4]),
        ("FP32", [0, 2**62]),
        ("FP32", [2**62, 2**62]),
        ("BYTES", [2**40]),
        ("BYTES", [-1, -1]),
        ("BYTES", [0, 2**62]),
    ],
)
def test_a_shape_that_lies_allocates_nothing(datatype: str, shape: list[int]) -> None:
    answer = service_pb2.ModelInferResponse()
    answer.outputs.add(name="y", datatype=datatype, shape=shape)
    answer.raw_output_contents.append(b"" if 0 in shape else bytes(4))
    message = answer.SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="y"):
            decode_answer(message)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_number_without_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no protobuf message"):
        decode_answer(b"\x32" + b"\xff" * 1_000_000)


def test_what_a_server_sends_is_not_kept_without_a_bound(server: FakeTriton) -> None:
    """Descriptions of outputs are kept, for they come again; not those of 100 kB each."""

    def wordy(_request: Any, _context: Any) -> Any:
        answer = service_pb2.ModelInferResponse()
        name = f"{len(server.requests)}".rjust(100_000, "y")
        answer.outputs.add(name=name, datatype="FP32", shape=[1])
        answer.raw_output_contents.append(struct.pack("<f", 1))
        return answer

    server.infer = wordy
    with TritonClient(server.url) as client:
        model = client.model("m")
        model.infer({"x": X})
        tracemalloc.start()
        try:
            for _ in range(40):
                model.infer({"x": X})
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < 2_000_000 + sum(len(r.SerializeToString()) for r in server.requests)
