"""Models of many shapes: several inputs and outputs, other dtypes, other dynamic axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from exporter.arrays import read_npz
from exporter.commands.export.result import ExportResult
from exporter.triton.model_config import parse
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton


def proven(lab: RegistryFixture, name: str, **options: object) -> ExportResult:
    result = lab.export(name, **options)
    assert result.status == "promoted", result.error
    return result


def declared(lab: RegistryFixture, name: str) -> Mapping[str, tuple[str, list[int]]]:
    """What the repository's config says of every tensor."""
    config = parse((lab.folder / "repository" / name / "config.pbtxt").read_text(), where=name)
    types = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return {
        entry.name: (types[entry.data_type].name.removeprefix("TYPE_"), list(entry.dims))
        for entry in (*config.input, *config.output)
    }


def test_several_tensors_in_and_a_tuple_out(lab: RegistryFixture) -> None:
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor, gate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * gate.sigmoid(), gate.exp()

    lab.register_torch("tuple", Gate().eval(), ROWS, ROWS[:, ::-1].copy())
    result = proven(lab, "tuple")
    assert (result.parity or {})["batching"] == "dynamic"
    shapes = [shape for _, shape in declared(lab, "tuple").values()]
    assert shapes == [[6]] * 4


def test_a_dict_out(lab: RegistryFixture) -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"total": x.sum(1, keepdim=True), "best": x.argmax(1, keepdim=True)}

    lab.register_torch("dict", Named().eval(), ROWS)
    proven(lab, "dict")
    told = declared(lab, "dict")
    assert told["total"] == ("FP32", [1])
    assert told["best"] == ("INT64", [1])


def test_tokens_and_a_mask_of_varying_length(lab: RegistryFixture) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(50, 8)

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            weights = mask.float().unsqueeze(-1)
            return (self.embedding(tokens) * weights).sum(1) / weights.sum(1).clamp(min=1)

    tokens = np.random.default_rng(1).integers(0, 50, (4, 7))
    mask = np.arange(7)[None] < np.array([[7], [5], [2], [6]])
    lab.register_torch("tokens", Pooled().eval(), tokens, mask)
    result = proven(lab, "tokens")
    assert (result.parity or {})["batching"] == "dynamic"
    kinds = sorted(kind for kind, _ in declared(lab, "tokens").values())
    assert kinds == ["BOOL", "FP32", "INT64"]


def test_a_scalar_per_row(lab: RegistryFixture) -> None:
    class Score(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1)

    lab.register_torch("scalar", Score().eval(), ROWS)
    result = proven(lab, "scalar")
    assert (result.parity or {})["batching"] == "dynamic"
    text = (lab.folder / "repository" / "scalar" / "config.pbtxt").read_text()
    assert "reshape" in text


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.STRING])
def test_scalars_in_and_out(lab: RegistryFixture, kind: int) -> None:
    name = f"scalars-{kind}"
    words = np.array(["north", "east", "", "west"], dtype=object)
    example = words if kind == TensorProto.STRING else ROWS[:, 0]
    lab.register_onnx(name, single(kind, ["n"]), example=example)
    assert (proven(lab, name).parity or {})["batching"] == "dynamic"


@pytest.mark.parametrize("shape", [[1], []])
def test_one_number_for_all_rows(lab: RegistryFixture, shape: list[int]) -> None:
    class Loss(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().mean().reshape(shape)

    name = f"loss-{len(shape)}"
    lab.register_torch(name, Loss().eval(), ROWS)
    assert (proven(lab, name).parity or {})["batching"] == "off"


def test_another_axis_that_varies(lab: RegistryFixture) -> None:
    class Smooth(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool1d(x[:, None], 3, 1, 1)[:, 0]

    lab.register_torch("series", Smooth().eval(), np.tile(ROWS, (1, 2)))
    result = proven(lab, "series")
    assert (result.parity or {})["passed"] is True


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_floats(lab: RegistryFixture, dtype: str) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(6, 3).to(getattr(torch, dtype))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).tanh()

    lab.register_torch(dtype, Layer().eval(), ROWS.astype(dtype))
    result = proven(lab, dtype)
    assert (result.parity or {})["batching"] == "dynamic"
    expected = {"float64": "FP64", "float16": "FP16"}[dtype]
    assert {kind for kind, _ in declared(lab, dtype).values()} == {expected}


def test_onnx_with_external_data(lab: RegistryFixture) -> None:
    import mlflow

    with lab._logging():
        info = mlflow.onnx.log_model(
            times(3.0, weights=5_000),
            name="model",
            input_example=ROWS,
            registered_model_name="external",
            pip_requirements=["onnx"],
            save_as_external_data=True,
        )
    assert info.registered_model_version is not None
    proven(lab, "external")
    folder = lab.folder / "repository" / "external" / "1"
    others = {path.name for path in folder.iterdir() if path.stat().st_size > 15_000}
    assert others
    assert "model.onnx" not in others


def single(kind: int, dims: list[int | str]) -> onnx.ModelProto:
    """An ONNX model that answers what it is asked."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "single",
        [helper.make_tensor_value_info("x", kind, dims)],
        [helper.make_tensor_value_info("y", kind, dims)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_strings(lab: RegistryFixture) -> None:
    words = np.array([["north", "süd"], ["", "east"], ["west", "x"]], dtype=object)
    lab.register_onnx("strings", single(TensorProto.STRING, ["n", 2]), example=words)
    result = proven(lab, "strings")
    assert (result.parity or {})["batching"] == "dynamic"
    assert declared(lab, "strings")["x"] == ("STRING", [2])


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32])
def test_whole_numbers(lab: RegistryFixture, kind: int) -> None:
    name = f"whole-{kind}"
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    example = np.array([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    lab.register_onnx(name, single(kind, ["n", 3]), example=example)
    assert (proven(lab, name).parity or {})["margin"] == 0


def test_further_samples(lab: RegistryFixture) -> None:
    lab.register_onnx("sampled", times(2.0), example=ROWS)
    path = lab.folder / "samples.npz"
    np.savez(path, **{"large/x": ROWS * 1e6, "nan/x": np.full((1, 6), np.nan, np.float32)})
    result = proven(lab, "sampled", samples=path)
    kept = read_npz(lab.folder / "repository" / "sampled" / "1" / "samples.npz")
    assert np.array_equal(kept["sample large/output/y"], ROWS * 1e6 * 2)
    assert np.isnan(kept["sample nan/output/y"]).all()
    plain = proven(lab, "sampled", repository=str(lab.folder / "plain"))
    assert (plain.bundle or {})["sha256"] != (result.bundle or {})["sha256"]
