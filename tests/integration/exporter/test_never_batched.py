"""Models whose rows depend on each other, or come in one number only: served, never batched."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
import torch
from onnx import helper

from tests.support.registering import RegistryFixture
from tests.zoo.blind_layers import Applied

from .test_refused import model_of

pytestmark = pytest.mark.triton

ROWS = np.random.default_rng(8).normal(size=(4, 6)).astype(np.float32)
ONE = ROWS[:1]


def loop_over_rows(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([row * row.sum() for row in x])


MIXING = {
    "minus-mean": lambda x: x - x.mean(0),
    "softmax": lambda x: x.softmax(0),
    "cumsum": lambda x: x.cumsum(0),
    "backwards": lambda x: x.flip(0),
    "a-thousandth": lambda x: x.tanh() + 1e-3 * x.mean(0),
}
FIXED = {
    "view": (lambda x: x.view(2, -1).tanh(), ROWS[:2]),
    "loop": (loop_over_rows, ROWS[:3]),
    "one-row": (lambda x: x.tanh(), ONE),
}


def unbatched(lab: RegistryFixture, name: str) -> str:
    result = lab.export(name)
    assert result.status == "promoted", result.error
    assert result.parity is not None
    assert result.parity["batching"] == "off"
    config = (lab.folder / "repository" / name / "config.pbtxt").read_text()
    assert "dynamic_batching" not in config
    assert "max_batch_size" not in config or "max_batch_size: 0" in config
    required = lab.export(name, alias="dev", batching="require")
    assert (required.exit_code, lab.alias(name, "dev")) == (3, None)
    return str(result.parity["batching_reason"])


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_mix(lab: RegistryFixture, name: str) -> None:
    lab.register_torch(name, Applied(MIXING[name]).eval(), ROWS)
    assert "rows depend on each other" in unbatched(lab, name)


def test_rows_that_are_filtered(lab: RegistryFixture) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sums"], keepdims=0),
        helper.make_node("Greater", ["sums", "zero"], ["kept"]),
        helper.make_node("Compress", ["x", "kept"], ["y"], axis=0),
    ]
    constants = [
        helper.make_tensor("axis", 7, [1], [1]),
        helper.make_tensor("zero", 1, [], [0.0]),
    ]
    model = model_of(nodes, [None, 6], [None, 6], initializers=constants)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "kept"
    lab.register_onnx("filtered", model, example=ROWS)
    assert "rows" in unbatched(lab, "filtered")


@pytest.mark.parametrize("name", FIXED)
def test_rows_that_export_fixed(lab: RegistryFixture, name: str) -> None:
    function, example = FIXED[name]
    lab.register_torch(name, Applied(function).eval(), example)
    assert "fixed at" in unbatched(lab, name) or "no other number" in unbatched(lab, name)


def test_fixed_onnx(lab: RegistryFixture) -> None:
    lab.register_onnx(
        "fixed", model_of([helper.make_node("Tanh", ["x"], ["y"])], [4, 6], [4, 6]), example=ROWS
    )
    assert "fixed at 4" in unbatched(lab, "fixed")


def test_a_bounded_queue_is_proven_or_said_to_be_missing(lab: RegistryFixture) -> None:
    lab.register_torch("bounded", Applied(lambda x: x.tanh()).eval(), ROWS)
    result = lab.export("bounded", max_queue_size=8)
    assert result.status == "promoted", result.error
    config = (lab.folder / "repository" / "bounded" / "config.pbtxt").read_text()
    assert "max_queue_size: 8" in config
    lab.register_torch("unbounded", Applied(MIXING["cumsum"]).eval(), ROWS)
    result = lab.export("unbounded", max_queue_size=8)
    assert result.status == "promoted", result.error
    report = mlflow.artifacts.load_text(str(result.report))
    assert "its queue is unbounded" in report
