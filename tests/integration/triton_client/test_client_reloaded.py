"""Models that somebody else loads, unloads or never had, on a real tritonserver."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporter.triton.releases import release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.integration.triton_client.real_models import place
from triton_client import AsyncTritonClient, TritonClient, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.triton

CONFIG = """
name: "echo"
backend: "python"
max_batch_size: {rows}
input {{ name: "{name}" data_type: {datatype} dims: [{columns}] }}
output {{ name: "{output}" data_type: {datatype} dims: [{columns}] }}
instance_group {{ kind: KIND_CPU count: 1 }}
"""
ECHO = """
import json
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.names = config["input"][0]["name"], config["output"][0]["name"]

    def execute(self, requests):
        name, output = self.names
        tensors = [utils.get_input_tensor_by_name(request, name) for request in requests]
        return [utils.InferenceResponse([utils.Tensor(output, x.as_numpy())]) for x in tensors]
"""
AT_FIRST = {"rows": 4, "name": "x", "datatype": "TYPE_FP32", "columns": 2, "output": "y"}
STATEFUL = """
name: "stateful"
backend: "python"
max_batch_size: 4
input {{ name: "x" data_type: TYPE_FP32 dims: [1] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [1] }}
instance_group {{ kind: KIND_CPU count: 1 }}
sequence_batching {{
  control_input {{
    name: "ID" control {{ kind: CONTROL_SEQUENCE_CORRID data_type: {datatype} }}
  }}
}}
"""
ECHO_OF_X = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [utils.get_input_tensor_by_name(request, "x") for request in requests]
        return [utils.InferenceResponse([utils.Tensor("y", x.as_numpy())]) for x in tensors]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[TritonServer]:
    place(root, "echo", CONFIG.format(**AT_FIRST), "model.py", ECHO.encode())
    place(root, "stateful", STATEFUL.format(datatype="TYPE_UINT64"), "model.py", ECHO_OF_X.encode())
    with TritonServer.start(ensure_runtime(release("24.10")), str(root)) as started:
        started.wait_live()
        yield started


class Either:
    """Either client, called in the same way."""

    def __init__(self, client: Any, runner: asyncio.Runner | None) -> None:
        self.client = client
        self._runner = runner

    def run(self, result: Any) -> Any:
        return result if self._runner is None else self._runner.run(_awaited(result))


async def _awaited(result: Any) -> Any:
    if hasattr(result, "__aiter__"):
        return [item async for item in result]
    return await result


@contextmanager
def opened(kind: str, server: TritonServer) -> Iterator[Either]:
    if kind == "sync":
        with server.client() as client:
            yield Either(client, None)
        return
    with asyncio.Runner() as runner:
        client = AsyncTritonClient(server.grpc_url, protocol_keys=server.keys)
        yield Either(client, runner)
        runner.run(client.close())


@pytest.fixture(params=["sync", "asyncio"])
def either(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Either]:
    with opened(request.param, server) as either:
        yield either


@pytest.fixture
def other(server: TritonServer) -> Iterator[TritonClient]:
    """The client of somebody else."""
    with server.client() as client:
        yield client


def load(other: TritonClient, root: Path, **changes: object) -> None:
    (root / "echo" / "config.pbtxt").write_text(CONFIG.format(**{**AT_FIRST, **changes}))
    other.repository.load("echo")


def test_another_interface(either: Either, other: TritonClient, root: Path) -> None:
    for changes, given in (
        ({"columns": 3}, {"x": np.ones((2, 3), np.float32)}),
        ({"datatype": "TYPE_FP64"}, {"x": np.ones((2, 2))}),
        ({"name": "z"}, {"z": np.ones((2, 2), np.float32)}),
        ({"output": "w"}, {"x": np.ones((2, 2), np.float32)}),
        ({"rows": 1}, {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}),
        ({"rows": 0, "columns": "2, 2"}, {"x": np.ones((2, 2), np.float32)}),
    ):
        load(other, root)
        model = either.run(either.client.model("echo"))
        either.run(model.infer({"x": np.ones((1, 2), np.float32)}))
        load(other, root, **changes)
        output = str(changes.get("output", "y"))
        (value,) = given.values()
        answer = either.run(model.infer(given, outputs=[output]))
        np.testing.assert_array_equal(answer[output], value)
        again = either.run(either.client.model("echo"))
        assert (again is model, again.spec.outputs[0].name) == (True, output)


def test_streams_and_many(either: Either, other: TritonClient, root: Path) -> None:
    load(other, root)
    model = either.run(either.client.model("echo"))
    load(other, root, columns=3)
    given = {"x": np.ones((1, 3), np.float32)}
    assert len(list(either.run(model.infer_many([given] * 5)))) == 5
    load(other, root, columns=4)
    given = {"x": np.ones((1, 4), np.float32)}
    (answer,) = either.run(model.stream(given))
    np.testing.assert_array_equal(answer["y"], given["x"])


def test_an_unknown_model_is_not_found_everywhere(
    either: Either, other: TritonClient, root: Path
) -> None:
    load(other, root)
    client = either.client
    calls = (
        lambda: client.model("nobody"),
        lambda: client.model("echo", 9),
        lambda: client.statistics("nobody"),
        lambda: client.statistics("echo", 9),
        lambda: client.repository.load("nobody"),
        lambda: client.repository.unload("nobody"),
    )
    for call in calls:
        with pytest.raises(errors.ModelNotFound) as caught:
            either.run(call())
        assert caught.value.model in {"nobody", "echo"}
    model = either.run(client.model("echo"))
    either.run(client.repository.unload("echo"))
    given = {"x": np.ones((1, 2), np.float32)}
    gone = (
        lambda: model.infer(given),
        model.refresh,
        lambda: client.model("echo"),
        lambda: client.statistics("echo"),
        lambda: list(either.run(model.stream(given))),
    )
    for call in gone:
        with pytest.raises(errors.ModelNotFound):
            either.run(call())
    assert either.run(model.ready()) is False
    either.run(client.repository.unload("echo"))
    # A model that is there and cannot be read is another matter.
    (root / "echo" / "config.pbtxt").write_text("name: {{")
    with pytest.raises(errors.ServerError):
        either.run(client.repository.load("echo"))


def test_identifiers_of_another_type(either: Either, other: TritonClient, root: Path) -> None:
    """The server would hand the model a part of its own memory."""
    config = STATEFUL.format(datatype="TYPE_UINT64")
    (root / "stateful" / "config.pbtxt").write_text(config)
    other.repository.load("stateful")
    model = either.run(either.client.model("stateful"))
    with pytest.raises(errors.InvalidInput, match="an integer from 1 to"):
        model.sequence("text")
    given = {"x": np.ones((1, 1), np.float32)}
    answer = either.run(model.sequence(2**40).infer(given, end=True))
    np.testing.assert_array_equal(answer["y"], given["x"])
    config = STATEFUL.format(datatype="TYPE_STRING")
    (root / "stateful" / "config.pbtxt").write_text(config)
    other.repository.load("stateful")
    either.run(model.refresh())
    with pytest.raises(errors.InvalidInput, match="is text, not 7"):
        model.sequence(7)
    assert isinstance(model.sequence().id, str)
