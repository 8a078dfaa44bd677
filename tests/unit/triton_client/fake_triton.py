"""A fake Triton: a gRPC server that does on demand what a real one does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client import AsyncTritonClient, TritonClient

if TYPE_CHECKING:
    import asyncio

Behaviour = Callable[[Any, Any], Any]
"""From a ``ModelInferRequest`` and the gRPC context to a ``ModelInferResponse``."""


def echo(request: Any, context: Any) -> Any:
    response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


def stream_echo(request: Any, context: Any) -> Iterator[Any]:
    """Answer a row at a time."""
    raw = request.raw_input_contents[0]
    for row in range(request.inputs[0].shape[0]):
        response = service_pb2.ModelStreamInferResponse()
        answer = response.infer_response
        answer.outputs.add(name="y", datatype="FP32", shape=[1, 2])
        answer.raw_output_contents.append(raw[8 * row : 8 * row + 8])
        yield response


class FakeTriton(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves the model ``m``: FP32 ``x`` [-1, 2] to ``y`` [-1, 2], at most four rows.

    Attributes:
        infer: What an inference does; an echo at first.
        stream: What a streamed inference does; its rows one by one at first.
        calls: The methods called, by name, in place of their usual answer where it is a callable.
        requests: Every inference that came.
        headers: The headers of every call.
    """

    def __init__(
        self, credentials: Any = None, address: str = "127.0.0.1:0", compression: Any = None
    ) -> None:
        self.infer: Behaviour = echo
        self.stream: Callable[[Any, Any], Iterator[Any]] = stream_echo
        self.calls: dict[str, Behaviour] = {}
        self.requests: list[Any] = []
        self.headers: list[dict[str, Any]] = []
        self.seen: list[str] = []
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", -1)],
            compression=compression,
        )
        self._server.add_generic_rpc_handlers((self,))
        self.port = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self.url = f"127.0.0.1:{self.port}"
        self._server.start()

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        self.headers.append(dict(details.invocation_metadata))
        self.seen.append(method)
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(
                self._stream,
                request_deserializer=service_pb2.ModelInferRequest.FromString,
                response_serializer=_serialized,
            )
        request_type = getattr(service_pb2, f"{method}Request")

        def answer(request: Any, context: Any) -> Any:
            return self._answer(method, request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request_type.FromString,
            response_serializer=_serialized,
        )

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            self.requests.append(request)
            yield from self.stream(request, context)

    def _answer(self, method: str, request: Any, context: Any) -> Any:
        if method in self.calls:
            return self.calls[method](request, context)
        if method == "ModelInfer":
            self.requests.append(request)
            return self.infer(request, context)
        if method == "ModelMetadata":
            metadata = service_pb2.ModelMetadataResponse(
                name="m", versions=["2", "10"], platform="p"
            )
            metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
            metadata.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
            return metadata
        if method == "ModelConfig":
            return service_pb2.ModelConfigResponse(
                config=model_config_pb2.ModelConfig(name="m", max_batch_size=4)
            )
        answers: Mapping[str, Any] = {
            "ServerLive": service_pb2.ServerLiveResponse(live=True),
            "ServerReady": service_pb2.ServerReadyResponse(ready=True),
            "ModelReady": service_pb2.ModelReadyResponse(ready=True),
        }
        return answers.get(method) or getattr(service_pb2, f"{method}Response")()


def _serialized(message: Any) -> Any:
    return message if isinstance(message, bytes) else message.SerializeToString()


class CuttingProxy:
    """Hands bytes through to a port, and can cut every connection through it.

    Attributes:
        url: Where it listens.
        carried: How many bytes it has handed to the port.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.carried = 0
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._ends.append(near)
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends.append(far)
                for ends in ((near, far), (far, near)):
                    pump = threading.Thread(target=self._pump, args=(*ends, far), daemon=True)
                    self._threads.append(pump)
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                self.carried += len(data) if target is far else 0
            target.shutdown(socket.SHUT_WR)


class Blocking:
    """Either client, called in the same way: what the asyncio one returns is awaited.

    Args:
        kind: ``sync`` or ``asyncio``.
        runner: Runs the event loop of the asyncio client.
    """

    def __init__(self, kind: str, runner: asyncio.Runner) -> None:
        self.kind = kind
        self._runner = runner
        self._clients: list[Any] = []

    def __call__(self, url: str, **options: Any) -> Any:
        client = (TritonClient if self.kind == "sync" else AsyncTritonClient)(url, **options)
        self._clients.append(client)
        return client

    def run(self, result: Any) -> Any:
        """Return what a method of a client returns, in the end."""
        if self.kind == "sync":
            return list(result) if isinstance(result, Iterator) else result
        if hasattr(result, "__aiter__"):
            return self._runner.run(_gathered(result))
        return self._runner.run(_awaited(result))

    def infer(self, url: str, inputs: Any, *, options: Any = None, **arguments: Any) -> Any:
        """Make a client, take the model ``m`` and infer."""
        client = self(url, **(options or {}))
        model = self.run(client.model("m"))
        return self.run(model.infer(inputs, **arguments))

    def close(self) -> None:
        for client in self._clients:
            self.run(client.close())


async def _awaited(result: Any) -> Any:
    return await result


async def _gathered(result: Any) -> list[Any]:
    return [item async for item in result]
