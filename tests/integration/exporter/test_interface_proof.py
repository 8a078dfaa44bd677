"""The sizes that a config promises are the registered model's, and what it lacks is said."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from onnx import TensorProto, helper
from torch import nn

from exporter.build.builder import build
from exporter.commands.export import pipeline
from exporter.commands.export.result import ExportResult
from exporter.triton.model_config import parse
from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture

pytestmark = [
    pytest.mark.triton,
    pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning"),
]

RANDOM = np.random.default_rng(3)
Array = np.ndarray[Any, Any]
Dims = list[int | str]
Export = Callable[..., ExportResult]


def floats(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


class BothWays(nn.Module):
    """One layer reads a series forwards, another one backwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.forwards = nn.LSTM(3, 4, batch_first=True)
        self.backwards = nn.LSTM(3, 4, batch_first=True)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        ahead, back = self.forwards(series)[0], self.backwards(series.flip(1))[0]
        return torch.cat([ahead, back.flip(1)], -1)


class Baskets(nn.Module):
    """Five items for each user, of however many users."""

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return users + items.reshape(-1, 5, 3).mean(1)


class Shop(nn.Module):
    """Twenty items for four users."""

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return users.reshape(4, 3) + items.reshape(4, 5, 3).mean(1)


class Halves(nn.Module):
    """Takes an even number of rows as two halves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1, 3).sum(0)


@pytest.fixture
def export(lab: RegistryFixture, server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Exports to the server, in this process, which trusts these pickles."""
    monkeypatch.setattr(pipeline, "build_isolated", build)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    urls = {"prove_on": server.grpc_url, "triton_urls": (server.grpc_url,)}
    return lambda name, **options: lab.export(
        name, allow_pickle=True, max_batch_size=4, **urls, **options
    )


def register_pickle(lab: RegistryFixture, name: str, module: nn.Module, **inputs: Array) -> None:
    """Register a module whose signature leaves every axis but the last one free."""
    mlflow.set_tracking_uri(lab.uri)
    fields = [TensorSpec(a.dtype, (*[-1] * (a.ndim - 1), 3), n) for n, a in inputs.items()]
    with warnings.catch_warnings(action="ignore"):
        mlflow.pytorch.log_model(
            module.eval(),
            name="model",
            signature=ModelSignature(Schema(fields)),
            input_example=inputs,
            serialization_format="pickle",
            registered_model_name=name,
            pip_requirements=["torch"],
        )


def folder(lab: RegistryFixture, name: str) -> Path:
    return lab.folder / "repository" / name


def dims(lab: RegistryFixture, name: str) -> list[list[int]]:
    """What config.pbtxt says of every input and output, without rows where they are batched."""
    config = parse((folder(lab, name) / "config.pbtxt").read_text(), where=name)
    return [list(entry.dims) for entry in (*config.input, *config.output)]


def notes(lab: RegistryFixture, name: str) -> list[str]:
    report = json.loads((folder(lab, name) / "1" / "report.json").read_text())
    return [str(note) for note in report["parity"]["notes"]]


def in_file(lab: RegistryFixture, name: str) -> list[Dims]:
    """What the served ONNX file says of its outputs."""
    proto = onnx.load(folder(lab, name) / "1" / "model.onnx")
    return [
        [d.dim_param if d.HasField("dim_param") else d.dim_value for d in shape.dim]
        for shape in (value.type.tensor_type.shape for value in proto.graph.output)
    ]


def served(server: TritonServer, name: str, **inputs: Array) -> Array:
    with server.client() as client:
        (answer,) = client.model(name).infer(inputs).values()
    return np.asarray(answer)


def own(module: nn.Module, *inputs: Array) -> Array:
    with torch.no_grad():
        return np.asarray(module(*map(torch.from_numpy, inputs)))


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_the_length_after_recurrent_layers_stays_free(
    lab: RegistryFixture, server: TritonServer, export: Export, form: str
) -> None:
    name = f"both-ways-{form}"
    register_pickle(lab, name, BothWays(), series=floats(2, 7, 3))
    result = export(name, format=form)
    assert result.status == "promoted", result.error
    assert dims(lab, name) == [[-1, 3], [-1, 8]]
    assert not [note for note in notes(lab, name) if "served with exactly" in note]
    for length in (2, 7, 31):
        series = floats(3, length, 3)
        answer = served(server, name, **{"series" if form == "onnx" else "INPUT__0": series})
        np.testing.assert_allclose(answer, own(BothWays().eval(), series), atol=1e-5)
    if form == "onnx":
        (output,) = in_file(lab, name)
        assert isinstance(output[1], str)


def test_a_size_that_is_a_multiple_of_another_stays_free(
    lab: RegistryFixture, server: TritonServer, export: Export
) -> None:
    register_pickle(lab, "baskets", Baskets(), users=floats(4, 3), items=floats(20, 3))
    result = export("baskets")
    assert result.status == "promoted", result.error
    assert dims(lab, "baskets") == [[-1, 3]] * 3
    for rows in (1, 3, 9):
        users, items = floats(rows, 3), floats(5 * rows, 3)
        answer = served(server, "baskets", users=users, items=items)
        np.testing.assert_allclose(answer, own(Baskets(), users, items), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said", "served_with"),
    [
        (
            "shop",
            "The signature leaves 'items' axis 0 free, but it is served with exactly 20: ",
            [[4, 3], [20, 3], [4, 3]],
        ),
        (
            "archive",
            "The signature leaves 'series' axis 1 free, but it is served with exactly 7: ",
            [[7, 3], [7, 8]],
        ),
        (
            "halves",
            "'x' axis 0 is declared free, but it is served with exactly 2: ",
            [[2, 3], [1, 3]],
        ),
    ],
)
def test_a_frozen_size_is_said_and_refused_where_batching_is_required(
    lab: RegistryFixture, export: Export, name: str, said: str, served_with: list[list[int]]
) -> None:
    if name == "shop":
        register_pickle(lab, name, Shop(), users=floats(4, 3), items=floats(20, 3))
    elif name == "halves":
        register_pickle(lab, name, Halves(), x=floats(2, 3))
    else:
        # torch.export fixes the length of a recurrent layer; its rows can be batched all the same.
        free = TensorSpec(np.dtype("float32"), (-1, -1, 3), "series")
        given = TensorSpec(np.dtype("float32"), (-1, -1, 8), "out")
        signature = ModelSignature(Schema([free]), Schema([given]))
        lab.register_torch(name, BothWays().eval(), floats(2, 7, 3), signature=signature)
    refused = export(name, batching="require")
    assert refused.exit_code == 3
    assert (refused.error or {})["kind"] == "batching", refused.error
    assert lab.alias(name) is None
    result = export(name)
    assert result.status == "promoted", result.error
    warnings = (result.parity or {})["warnings"]
    assert [warning for warning in warnings if warning.startswith(said)], warnings
    assert dims(lab, name) == served_with
    again = export(name, batching="require")
    assert again.exit_code == 3, "the bundle that was just proven does not keep it free either"


def test_a_file_that_declares_an_output_too_narrowly_is_corrected(
    lab: RegistryFixture, server: TritonServer, export: Export
) -> None:
    """As converters leave it: the length of the example, in the output and before it."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["inner"]),
            helper.make_node("Abs", ["inner"], ["y"]),
        ],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", "t", 3])],
        [value("y", TensorProto.FLOAT, ["n", 7, 3])],
        value_info=[value("inner", TensorProto.FLOAT, ["n", 7, 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    lab.register_onnx("narrow", model, example=floats(2, 7, 3))
    result = export("narrow")
    assert result.status == "promoted", result.error
    assert dims(lab, "narrow") == [[-1, 3]] * 2
    assert isinstance(in_file(lab, "narrow")[0][1], str)
    x = floats(2, 11, 3)
    np.testing.assert_array_equal(served(server, "narrow", x=x), np.abs(x))
