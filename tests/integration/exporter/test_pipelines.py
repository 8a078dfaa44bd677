"""Registered models before and behind a version, served as one and proven end to end."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.layer(y)


def labels() -> onnx.ModelProto:
    """Scores in, the name of the best one out."""
    names = helper.make_tensor("names", TensorProto.STRING, [3], [b"low", b"middle", b"high"])
    nodes = [
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "best"], ["label"]),
    ]
    graph = helper.make_graph(
        nodes,
        "labels",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["n"])],
        [names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def chain(lab: RegistryFixture) -> str:
    """A scaler that gives `y`, a torch head that takes it, and names for the best score."""
    lab.register_onnx("scaler", times(0.5), example=ROWS)
    lab.register_onnx("labels", labels(), example=np.zeros((2, 3), np.float32))
    lab.register_torch("head", Head().eval(), ROWS)
    for place, value in (("preprocessing", "models:/scaler/1"), ("postprocessing", "labels/1")):
        lab.client.set_model_version_tag("head", "1", f"stlab.{place}", value)
    return "head"


def test_three_models_are_served_as_one(lab: RegistryFixture, chain: str) -> None:
    result = lab.export(chain)
    assert result.status == "promoted", result.error
    assert (result.parity or {})["batching"] == "dynamic"
    folder = lab.folder / "repository" / chain / "1"
    proto = onnx.load(folder / "model.onnx")
    assert [value.name for value in proto.graph.input] == ["x"]
    assert [value.name for value in proto.graph.output] == ["label"]
    with np.load(folder / "samples.npz", allow_pickle=False) as kept:
        assert kept.files
    with torch.no_grad():
        best = Head().eval()(torch.from_numpy(ROWS * np.float32(0.5))).argmax(1).numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(None, {"x": ROWS})
    assert found.tolist() == [("low", "middle", "high")[place] for place in best]


def test_another_version_of_a_part_is_another_bundle(lab: RegistryFixture, chain: str) -> None:
    before = lab.export(chain)
    assert before.status == "unchanged", before.error
    lab.register_onnx("scaler", times(-0.5), example=ROWS)
    lab.client.set_registered_model_alias("scaler", "prod", "2")
    lab.client.set_model_version_tag(chain, "1", "stlab.preprocessing", "models:/scaler@prod")
    result = lab.export(chain, repository="elsewhere")
    assert result.status == "promoted", result.error
    assert (result.bundle or {})["sha256"] != (before.bundle or {})["sha256"]


@pytest.mark.parametrize(
    ("value", "code", "word"),
    [
        ("scaler", 3, "not a reference to a model version"),
        ("models:/nothing/1", 4, "nothing"),
        ("models:/scaler@dev", 5, "points to no version"),
        ("models:/labels/1", 3, "do not fit together"),
    ],
)
def test_a_part_that_is_none(
    lab: RegistryFixture, chain: str, value: str, code: int, word: str
) -> None:
    version = lab.register_torch(chain, Head().eval(), ROWS)
    lab.client.set_model_version_tag(chain, str(version), "stlab.preprocessing", value)
    before = lab.alias(chain)
    result = lab.export(chain, version=version)
    assert result.exit_code == code, result.error
    assert word in (result.error or {})["message"]
    assert lab.alias(chain) == before
