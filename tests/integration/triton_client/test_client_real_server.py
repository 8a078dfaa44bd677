"""Both clients against a real tritonserver."""

from __future__ import annotations

import asyncio
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton_client.real_models import doubling, place
from triton_client import AsyncTritonClient, DynamicBatching, TritonClient, errors
from triton_client.types import DATATYPES, TensorSpec, config_datatype, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.triton

CONFIG = """
name: "{name}"
backend: "{backend}"
max_batch_size: {batch}
input {{ name: "x" data_type: {datatype} dims: [{dims}] }}
output {{ name: "y" data_type: {datatype} dims: [{dims}] }}
instance_group {{ kind: KIND_CPU count: 1 }}
version_policy {{ specific {{ versions: [1] }} }}
{more}
"""
ORT = """
default_model_filename: "model.onnx"
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
"""
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 200 }"
ECHO = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [utils.get_input_tensor_by_name(request, "x") for request in requests]
        return [utils.InferenceResponse([utils.Tensor("y", x.as_numpy())]) for x in tensors]
"""
# This server's python backend has no bfloat16, which numpy lacks as well.
ECHOED = [datatype for datatype in DATATYPES if datatype != "BF16"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    root = tmp_path_factory.mktemp("repository")
    config = CONFIG.format(
        name="doubling",
        backend="onnxruntime",
        batch=4,
        datatype="TYPE_FP32",
        dims=3,
        more=ORT + BATCHING,
    )
    place(root, "doubling", config, "model.onnx", doubling())
    place(root, "other", config.replace('"doubling"', '"other"'), "model.onnx", doubling())
    for rank in (1, 3):
        for datatype in ECHOED:
            name = f"echo-{datatype}-{rank}"
            config = CONFIG.format(
                name=name,
                backend="python",
                batch=0,
                datatype=config_datatype(datatype),
                dims=", ".join(["-1"] * rank),
                more="",
            )
            place(root, name, config, "model.py", ECHO.encode())
    labelled = CONFIG.replace(
        "dims: [{dims}] }}\ninst", 'dims: [{dims}] label_filename: "l" }}\ninst'
    )
    for name, text in (("labelled", labelled), ("unlabelled", CONFIG)):
        config = text.format(
            name=name, backend="onnxruntime", batch=4, datatype="TYPE_FP32", dims=3, more=ORT
        )
        place(root, name, config, "model.onnx", doubling())
        (root / name / "l").write_text("cat\ndog\nowl\n")
    with TritonServer.start(
        ensure_runtime(release("24.10")), str(root), models=["doubling"]
    ) as started:
        started.wait_live()
        yield started


@pytest.fixture(scope="module")
def client(server: TritonServer) -> Iterator[TritonClient]:
    with server.client() as client:
        client.wait_until_ready()
        yield client


def test_server_and_model_say_what_they_are(client: TritonClient) -> None:
    assert client.live()
    assert client.ready()
    metadata = client.metadata()
    assert metadata.name == "triton"
    assert "binary_tensor_data" in metadata.extensions
    assert client.models() == ("doubling",)
    model = client.model("doubling", 1)
    assert model.ready()
    assert model.spec.max_batch_size == 4
    assert model.spec.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert model.config.dynamic_batching == DynamicBatching((4,), 200)  # the server adds the 4
    assert client.model("doubling").spec.version == "1"


def test_missing_models_and_versions(client: TritonClient) -> None:
    for name, version in (("nothing", None), ("doubling", 9)):
        with pytest.raises(errors.ModelNotFound) as caught:
            client.model(name, version)
        assert caught.value.model == name


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 11])
def test_rows_below_and_above_the_most(client: TritonClient, rows: int) -> None:
    x = np.random.default_rng(rows).random((rows, 3), np.float32)
    answer = client.model("doubling").infer({"x": x}, outputs=["y"], request_id="r", deadline=10)
    np.testing.assert_array_equal(answer["y"], x + x)


def test_what_the_server_refuses(client: TritonClient) -> None:
    model = client.model("doubling")
    with pytest.raises(errors.InvalidInput, match="float64"):
        model(x=np.zeros((1, 3)))
    with pytest.raises(errors.DeadlineExceeded):
        model.infer({"x": [[1.0, 2.0, 3.0]]}, deadline=1e-6)
    with pytest.raises(errors.TritonClientError):
        client.repository.load("nothing")


def test_statistics_count_rows(client: TritonClient) -> None:
    (before,) = client.statistics("doubling")
    client.model("doubling")(x=np.zeros((9, 3), np.float32))
    limit = time.monotonic() + 20
    while True:  # Triton counts an inference after it has sent the answer
        (after,) = client.statistics("doubling", 1)
        if after.inference_count - before.inference_count == 9 or time.monotonic() > limit:
            break
        time.sleep(0.05)
    assert after.inference_count - before.inference_count == 9
    assert {entry.name for entry in client.statistics()} == {"doubling"}


def test_a_response_says_which_version_ran(client: TritonClient) -> None:
    result = client.model("doubling").infer({"x": np.ones((5, 3), np.float32)}, request_id="r")
    assert (result.version, result.id) == ("1", "r")


def test_classes_with_and_without_labels(client: TritonClient) -> None:
    x = np.array([[1, 3, 2], [9, 7, 8], [0, 0, 5], [1, 2, 3], [4, 5, 6]], np.float32)
    for name, best in (("labelled", b"6.000000:1:dog"), ("unlabelled", b"6.000000:1")):
        client.repository.load(name)
        result = client.model(name).infer({"x": x}, class_count=2)
        assert result["y"].shape == (5, 2)
        assert result["y"][0, 0] == best
        indices = [[int(item.split(b":")[1]) for item in row] for row in result["y"]]
        assert indices == np.argsort(-x, axis=1)[:, :2].tolist()
        client.repository.unload(name)


def test_trace_and_log_settings(server: TritonServer, client: TritonClient) -> None:
    for model in ("", "doubling"):
        before = client.trace_settings(model)
        changed = client.update_trace_settings({"trace_rate": 7, "log_frequency": 3}, model)
        assert (changed["trace_rate"], changed["log_frequency"]) == (("7",), ("3",))
        assert client.trace_settings(model) == changed
        restored = {"trace_rate": None, "log_frequency": None}
        assert client.update_trace_settings(restored, model) == before
    logs = client.log_settings()
    assert client.update_log_settings({"log_verbose_level": 1, "log_format": "ISO8601"}) == {
        **logs, "log_verbose_level": 1, "log_format": "ISO8601",
    }  # fmt: skip

    async def restore() -> dict[str, Any]:
        async with AsyncTritonClient(server.grpc_url, protocol_keys=server.keys) as other:
            assert await other.trace_settings() == client.trace_settings()
            await other.update_log_settings({name: logs[name] for name in ("log_format",)})
            return await other.update_log_settings({"log_verbose_level": 0})

    assert asyncio.run(restore()) == logs
    with TritonClient(server.grpc_url) as stranger, pytest.raises(errors.PermissionDenied):
        stranger.update_log_settings({"log_verbose_level": 1})


def test_load_and_unload(client: TritonClient) -> None:
    def states() -> dict[str, str]:
        return {entry.name: entry.state for entry in client.repository.index()}

    assert states()["other"] == ""
    client.repository.load("other")
    assert states()["other"] == "READY"
    model = client.model("other")
    assert model(x=[[1.0, 2.0, 3.0]])["y"].tolist() == [[2.0, 4.0, 6.0]]
    client.repository.unload("other")
    assert not model.ready()
    with pytest.raises((errors.ModelNotFound, errors.NotReady)):
        model(x=[[1.0, 2.0, 3.0]])
    limit = time.monotonic() + 10
    while states()["other"] != "UNAVAILABLE" and time.monotonic() < limit:
        time.sleep(0.02)
    with pytest.raises(errors.ModelNotFound):
        client.model("other")


def test_a_model_is_sent_with_its_load(client: TritonClient) -> None:
    tensor = {"data_type": "TYPE_FP32", "dims": [3]}
    config = {
        "name": "sent",
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": 2,
        "input": [{"name": "x", **tensor}],
        "output": [{"name": "y", **tensor}],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    client.repository.load("sent", config=json.dumps(config), files={"1/model.onnx": doubling()})
    model = client.model("sent")
    assert model.spec.max_batch_size == 2
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    np.testing.assert_array_equal(model(x=x)["y"], x + x)
    client.repository.unload("sent")


def some(datatype: str, shape: tuple[int, ...]) -> Any:
    count = math.prod(shape)
    if datatype == "BYTES":
        words = [b"", b"a\x00b", "Zürich 漢".encode(), b"plain"]
        array = np.empty(count, object)
        array[:] = [words[index % len(words)] for index in range(count)]
        return array.reshape(shape)
    values = np.arange(count) % (2 if datatype == "BOOL" else 100)
    return values.astype(numpy_dtype(datatype)).reshape(shape)


@pytest.mark.parametrize("datatype", ECHOED)
def test_every_data_type_survives(client: TritonClient, datatype: str) -> None:
    for rank, shapes in ((1, [(1,), (7,), (0,)]), (3, [(2, 3, 4), (2, 0, 3)])):
        name = f"echo-{datatype}-{rank}"
        client.repository.load(name)
        model = client.model(name)
        for shape in shapes:
            x = some(datatype, shape)
            answer = model(x=x)["y"]
            assert (answer.dtype, answer.shape) == (x.dtype, shape)
            np.testing.assert_array_equal(answer, x)
            if datatype not in ("BYTES", "BOOL") and x.size:
                np.testing.assert_array_equal(model(x=x[::-1])["y"], x[::-1])
                big = x.astype(x.dtype.newbyteorder(">"))
                np.testing.assert_array_equal(model(x=big)["y"], x)
        client.repository.unload(name)


def test_bfloat16_is_checked_before_it_is_sent(client: TritonClient) -> None:
    with pytest.raises(errors.InvalidInput, match="bfloat16"):
        client.model("doubling")(x=np.zeros((1, 3), ml_dtypes.bfloat16))


def test_threads_share_a_client(client: TritonClient) -> None:
    model = client.model("doubling")

    def ask(number: int) -> bool:
        x = np.full((1 + number % 6, 3), number, np.float32)
        return bool((model(x=x)["y"] == 2 * number).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(600)))


def test_sync_and_async_give_the_same(server: TritonServer, client: TritonClient) -> None:
    items = [{"x": np.full((1 + number % 7, 3), number, np.float32)} for number in range(40)]
    expected = [answer["y"] for answer in client.model("doubling").infer_many(items)]

    async def ask() -> list[Any]:
        async with AsyncTritonClient(server.grpc_url, protocol_keys=server.keys) as asking:
            await asking.wait_until_ready()
            assert await asking.metadata() == client.metadata()
            assert await asking.models() == client.models()
            assert await asking.repository.index() == client.repository.index()
            model = await asking.model("doubling")
            assert model.spec == client.model("doubling").spec
            assert model.config == client.model("doubling").config
            many = [answer["y"] async for answer in model.infer_many(items, concurrency=16)]
            at_once = await asyncio.gather(*(model.infer(item) for item in items))
            for one, other in zip(many, at_once, strict=True):
                np.testing.assert_array_equal(one, other["y"])
            return many

    for one, other in zip(asyncio.run(ask()), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_server_killed_under_load(tmp_path: Path) -> None:
    config = CONFIG.format(
        name="doubling", backend="python", batch=4, datatype="TYPE_FP32", dims=3, more=""
    )
    place(tmp_path, "doubling", config, "model.py", ECHO.encode())
    runtime = ensure_runtime(release("24.10"))
    outcomes: list[str] = []

    def ask(client: TritonClient, until: float) -> None:
        model = client.model("doubling")
        while time.monotonic() < until:
            x = np.random.default_rng().random((1, 3), np.float32)
            started = time.monotonic()
            try:
                np.testing.assert_array_equal(model.infer({"x": x}, deadline=2)["y"], x)
            except errors.TritonClientError as error:
                outcomes.append(type(error).__name__)
                time.sleep(0.05)
            else:
                outcomes.append("answered")
            assert time.monotonic() - started < 7

    with TritonServer.start(runtime, str(tmp_path), models=["doubling"]) as first:
        first.wait_live()
        port = int(first.grpc_url.rpartition(":")[2])
        with TritonClient(first.grpc_url, timeout=5) as client, ThreadPoolExecutor(4) as pool:
            client.wait_until_ready()
            until = time.monotonic() + 5
            asking = [pool.submit(ask, client, until) for _ in range(4)]
            time.sleep(0.5)
            first.stop(timeout=0)
            answered = outcomes.count("answered")
            with TritonServer.start(
                runtime, str(tmp_path), models=["doubling"], grpc_port=port
            ) as second:
                second.wait_live()
                for future in asking:
                    future.result()
                assert outcomes.count("answered") > answered > 0
    assert set(outcomes) <= {"answered", "Unavailable", "NotReady", "DeadlineExceeded"}
