"""Streams, sequences and shared memory of both clients against a real tritonserver."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from triton_client import AsyncTritonClient, TritonClient, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.triton

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {batch}
input {{ name: "x" data_type: TYPE_FP32 dims: [{dims}] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [{dims}] }}
instance_group {{ kind: KIND_CPU count: 1 }}
version_policy {{ specific {{ versions: [1] }} }}
{more}
"""
ECHO = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [utils.get_input_tensor_by_name(request, "x") for request in requests]
        return [utils.InferenceResponse([utils.Tensor("y", x.as_numpy())]) for x in tensors]
"""
SLOW_ECHO = """
import time
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(1)
        tensors = [utils.get_input_tensor_by_name(request, "x") for request in requests]
        return [utils.InferenceResponse([utils.Tensor("y", x.as_numpy())]) for x in tensors]
"""
# Answers once for every element: as often as there are, and then fails where the last is negative.
REPEAT = """
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for value in utils.get_input_tensor_by_name(request, "x").as_numpy():
                if value < 0:
                    error = utils.TritonError("a negative value")
                    sender.send(utils.InferenceResponse(error=error))
                    break
                answer = utils.Tensor("y", np.array([value], np.float32))
                sender.send(utils.InferenceResponse([answer]))
            sender.send(flags=utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
# Sums what came since the start of a sequence.
SUM = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            x, start, name = (
                utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in ("x", "START", "ID")
            )
            key = str(name.ravel()[0])
            if start.ravel()[0]:
                self.sums[key] = 0 * x
            self.sums[key] = self.sums[key] + x
            answers.append(utils.InferenceResponse([utils.Tensor("y", self.sums[key])]))
        return answers
"""
BATCHING = """
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 4 }
  control_input {
    name: "START"
    control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] }
  }
  control_input {
    name: "ID"
    control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }
  }
}
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"
MODELS = ("echo", "slow", "rows", "repeat", "sum")


def place(root: Path, name: str, code: str, **config: Any) -> None:
    version = root / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    text = CONFIG.format(name=name, **{"batch": 0, "dims": "-1", "more": "", **config})
    (root / name / "config.pbtxt").write_text(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    root = tmp_path_factory.mktemp("repository")
    place(root, "echo", ECHO)
    place(root, "slow", SLOW_ECHO)
    place(root, "rows", ECHO, batch=4, dims="2")
    place(root, "repeat", REPEAT, more=DECOUPLED)
    place(root, "sum", SUM, batch=4, dims="1", more=BATCHING)
    runtime = ensure_runtime(release("24.10"))
    with TritonServer.start(runtime, str(root), models=MODELS) as started:
        started.wait_live()
        yield started


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[TritonClient]:
    with server.client() as client:
        client.wait_until_ready()
        yield client


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_decoupled_model_answers_any_number_of_times(client: TritonClient, count: int) -> None:
    x = np.arange(count, dtype=np.float32)
    answers = list(client.model("repeat").stream({"x": x}, request_id="r", deadline=20))
    assert [answer["y"].tolist() for answer in answers] == [[value] for value in range(count)]


def test_an_ordinary_model_answers_once(client: TritonClient) -> None:
    x = np.arange(5, dtype=np.float32)
    (answer,) = client.model("echo").stream({"x": x}, outputs=["y"])
    np.testing.assert_array_equal(answer["y"], x)


def test_an_error_in_a_stream(client: TritonClient) -> None:
    answers = client.model("repeat").stream({"x": np.array([1, 2, -1], np.float32)})
    assert [next(answers)["y"][0] for _ in range(2)] == [1, 2]
    with pytest.raises(errors.ServerError, match="negative") as caught:
        next(answers)
    assert caught.value.model == "repeat"
    assert len(list(client.model("repeat").stream({"x": np.ones(3, np.float32)}))) == 3


def test_leaving_a_stream_leaves_the_server_well(client: TritonClient) -> None:
    model = client.model("repeat")
    for _ in model.stream({"x": np.arange(1000, dtype=np.float32)}):
        break
    assert len(list(model.stream({"x": np.arange(3, dtype=np.float32)}))) == 3


def test_streaming_is_the_same_with_asyncio(server: TritonServer) -> None:
    async def ask(count: int) -> list[float]:
        async with AsyncTritonClient(server.grpc_url) as client:
            model = await client.model("repeat")
            answers = model.stream({"x": np.arange(count, dtype=np.float32)})
            return [float(answer["y"][0]) async for answer in answers]

    assert asyncio.run(ask(20)) == list(range(20))


def numbers(*values: float) -> list[dict[str, Any]]:
    return [{"x": np.array([[value]], np.float32)} for value in values]


@pytest.mark.parametrize("identifier", [None, 7])
def test_sequences_keep_their_state_apart(client: TritonClient, identifier: int | None) -> None:
    model = client.model("sum")
    with model.sequence(identifier) as one, model.sequence() as other:
        for number in range(1, 4):
            (item,) = numbers(number)
            mine = one.infer(item, end=number == 3)["y"].item()
            theirs = other.infer({"x": 10 * item["x"]}, end=number == 3)["y"].item()
            assert (mine, theirs) == (number * (number + 1) / 2, 5 * number * (number + 1))


def test_a_sequence_from_a_source(server: TritonServer, client: TritonClient) -> None:
    expected = [1.0, 3.0, 6.0]
    with client.model("sum").sequence() as sequence:
        assert [a["y"].item() for a in sequence.infer_all(numbers(1, 2, 3))] == expected

    async def ask() -> list[float]:
        async with AsyncTritonClient(server.grpc_url) as asking:
            sequence = (await asking.model("sum")).sequence()
            return [a["y"].item() async for a in sequence.infer_all(numbers(1, 2, 3))]

    assert asyncio.run(ask()) == expected


def test_a_stateful_model_needs_a_sequence(client: TritonClient) -> None:
    (item,) = numbers(1)
    with pytest.raises(errors.InvalidInput, match="correlation ID"):
        client.model("sum").infer(item)


@pytest.mark.parametrize("count", [1, 1000, 1_000_000])
def test_tensors_in_shared_memory(client: TritonClient, count: int) -> None:
    model = client.model("echo")
    x = np.random.default_rng(count).random(count, np.float32)
    with client.shared_memory(8 * count + 128) as memory:
        assert memory.name in {region.name for region in client.shared_memory_status()}
        sent, received = memory.copy(x), memory.empty(count, np.float32)
        for factor in (1, 2):
            np.multiply(x, factor, out=sent)
            assert model.infer({"x": sent}, outputs={"y": received})["y"] is received
            np.testing.assert_array_equal(received, factor * x)
        np.testing.assert_array_equal(model.infer({"x": sent})["y"], sent)
        view = model.infer({"x": x[: count // 2 + 1]}, outputs={"y": received})["y"]
        np.testing.assert_array_equal(view, x[: count // 2 + 1])
        assert np.shares_memory(view, received)
    assert client.shared_memory_status() == ()
    np.testing.assert_array_equal(sent, 2 * x)


def test_rows_in_shared_memory(client: TritonClient) -> None:
    x = np.random.default_rng(0).random((11, 2), np.float32)
    with client.shared_memory(4096) as memory:
        sent, received = memory.copy(x), memory.empty((11, 2), np.float32)
        assert client.model("rows").infer({"x": sent}, outputs={"y": received})["y"] is received
        np.testing.assert_array_equal(received, x)


def test_an_array_too_small_for_the_answer(client: TritonClient) -> None:
    with client.shared_memory(4096) as memory:
        small = memory.empty(2, np.float32)
        with pytest.raises(errors.TritonClientError, match="shared memory size"):
            client.model("echo").infer({"x": np.ones(3, np.float32)}, outputs={"y": small})
    assert client.shared_memory_status() == ()


def test_memory_is_unregistered_after_the_call_that_uses_it(client: TritonClient) -> None:
    x = np.arange(9, dtype=np.float32)
    model = client.model("slow")
    with ThreadPoolExecutor(1) as pool, client.shared_memory(4096) as memory:
        sent, received = memory.copy(x), memory.empty(9, np.float32)
        begin = time.monotonic()
        call = pool.submit(model.infer, {"x": sent}, outputs={"y": received})
        time.sleep(0.4)
        memory.close()
        assert time.monotonic() - begin > 0.9, "the model sleeps for a second"
        assert client.shared_memory_status() == ()
    assert call.result()["y"] is received
    np.testing.assert_array_equal(received, x)


def test_memory_of_a_call_that_was_given_up_stays_the_servers(
    server: TritonServer, client: TritonClient
) -> None:
    x = np.arange(9, dtype=np.float32)
    model = client.model("slow")
    with client.shared_memory(4096) as memory:
        sent, received = memory.copy(x), memory.empty(9, np.float32)
        with pytest.raises(errors.DeadlineExceeded):
            model.infer({"x": sent}, outputs={"y": received}, deadline=0.3)
        name = memory.name
    assert name in {region.name for region in client.shared_memory_status()}
    # After it in the server's queue: the given-up call has ended by then.
    np.testing.assert_array_equal(model.infer({"x": x})["y"], x)
    assert not (Path("/dev/shm") / name).exists()
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.SystemSharedMemoryUnregister(
            service_pb2.SystemSharedMemoryUnregisterRequest(name=name),
            metadata=[(f"triton-grpc-protocol-{key}", value) for key, value in server.keys.items()],
        )


def test_shared_memory_with_asyncio(server: TritonServer) -> None:
    async def ask() -> None:
        async with AsyncTritonClient(server.grpc_url, protocol_keys=server.keys) as client:
            model = await client.model("echo")
            async with client.shared_memory(1 << 16) as memory:
                pairs = [
                    (memory.copy(np.full(9, n, np.float32)), memory.empty(9, np.float32))
                    for n in range(20)
                ]
                await asyncio.gather(
                    *(model.infer({"x": sent}, outputs={"y": got}) for sent, got in pairs)
                )
                for sent, got in pairs:
                    np.testing.assert_array_equal(got, sent)
            assert await client.shared_memory_status() == ()

    asyncio.run(ask())
