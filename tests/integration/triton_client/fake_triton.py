"""A fake Triton in a process of its own, fast enough for bursts: the model ``m`` returns its input.

    python fake_triton.py

It prints its port, and ends when its standard input does. The model takes FP32 ``x`` [-1]. The
parameters ``answers`` and ``pause`` say how many answers a stream has and the seconds before each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES = 1 << 30


@contextmanager
def fake_triton() -> Iterator[int]:
    """Start one, and return its port."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(20)


class FakeTriton(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Its methods."""

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(
                _stream, service_pb2.ModelInferRequest.FromString, _serialized
            )
        request = getattr(service_pb2, f"{method}Request")
        answer = _infer if method == "ModelInfer" else _others(method)
        return grpc.unary_unary_rpc_method_handler(answer, request.FromString, _serialized)


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _infer(request: Any, context: Any) -> Any:
    # The size of a header, for tests of large ones.
    sizes = {key: str(len(value)) for key, value in context.invocation_metadata()}
    context.set_trailing_metadata((("x-large-size", sizes.get("x-large", "0")),))
    answer = service_pb2.ModelInferResponse(model_name="m", id=request.id)
    answer.parameters["header"].string_param = sizes.get("x-large", "0")
    answer.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
    answer.raw_output_contents.append(request.raw_input_contents[0])
    return answer


def _stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    for request in requests:
        for _ in range(request.parameters["answers"].int64_param or 1):
            time.sleep(request.parameters["pause"].double_param)
            yield service_pb2.ModelStreamInferResponse(infer_response=_infer(request, context))


def _others(method: str) -> Any:
    metadata = service_pb2.ModelMetadataResponse(name="m", versions=["1"], platform="fake")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1])
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1])
    answers = {
        "ModelMetadata": metadata,
        "ModelConfig": service_pb2.ModelConfigResponse(
            config=model_config_pb2.ModelConfig(name="m")
        ),
        "ModelReady": service_pb2.ModelReadyResponse(ready=True),
        "ServerMetadata": service_pb2.ServerMetadataResponse(name="fake"),
        "ServerLive": service_pb2.ServerLiveResponse(live=True),
        "ServerReady": service_pb2.ServerReadyResponse(ready=True),
    }
    return lambda _request, _context: answers[method]


def main() -> None:
    """Serve until the standard input ends."""
    server = grpc.server(
        ThreadPoolExecutor(32),
        options=[
            ("grpc.max_receive_message_length", _BYTES),
            ("grpc.max_metadata_size", 1 << 20),
            ("grpc.absolute_max_metadata_size", 1 << 20),
        ],
    )
    server.add_generic_rpc_handlers((FakeTriton(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
