"""Names that cannot be served, changed throughout a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget
from exporter.sources.mlmodel import Field
from exporter.sources.onnx.naming import served_names
from tests.support.onnx_files import ROWS, graph_of, model_of, opened

TARGET = OnnxTarget(opset=17, ir=8, max_opset=26, max_ir=13)


def field(name: str, *shape: int) -> Field:
    return Field(name, "float32", shape)


@pytest.mark.parametrize(
    ("own", "promised", "expected"),
    [
        # Valid names stay, whatever they look like.
        (["model/dense:0", "_x", "a.b"], [], ["model/dense:0", "_x", "a.b"]),
        (["my input"], [], ["my_input"]),
        (["größe", "π", "日本"], [], ["gr_e", "input", "input_1"]),
        # Two that become the same, and one that is taken.
        (["a b", "a?b", "a_b"], [], ["a_b_1", "a_b_2", "a_b"]),
        (["my input"], [field("features")], ["features"]),
        (["my input"], [field("my input")], ["my_input"]),
        (["my input"], [field("")], ["my_input"]),
        # The signature has no word on names that can be served.
        (["x"], [field("features")], ["x"]),
    ],
)
def test_which_name_is_served(own: list[str], promised: list[Field], expected: list[str]) -> None:
    names = served_names(own, [], (promised, []))
    assert [names[name] for name in own] == expected
    assert names == served_names(own, [], (promised, []))


def branch(name: str, operator: str, result: str) -> onnx.GraphProto:
    nodes = [
        helper.make_node(operator, ["my input"], [f"{name} inner"]),
        helper.make_node("Add", [f"{name} inner", "my_input"], [result]),
    ]
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)]
    )


def test_everything_that_uses_a_name_follows(tmp_path: Path) -> None:
    nodes = [
        # What has the new name already, and is used in a branch as well.
        helper.make_node("Neg", ["my input"], ["my_input"]),
        helper.make_node("ReduceSum", ["my input"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["some"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["some"],
            ["the answer"],
            then_branch=branch("yes", "Exp", "t"),
            else_branch=branch("no", "Relu", "e"),
        ),
    ]
    proto = model_of(graph_of(nodes, {"my input": ["n", 6]}, {"the answer": ["n", 6]}))
    source = opened(
        tmp_path,
        proto,
        inputs=(field("my input", -1, 6),),
        outputs=(field("the answer", -1, 6),),
        example={"my input": ROWS.tolist()},
    )
    assert source.example is not None
    assert np.allclose(source.example["my_input"], ROWS)
    expected = np.exp(ROWS) - ROWS
    assert np.allclose(source.run(source.example)["the_answer"], expected, atol=1e-6)
    path = tmp_path / "written.onnx"
    source.onnx_exporters(TARGET)[0](path)
    onnx.checker.check_model(path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(["the_answer"], {"my_input": ROWS})[0], expected, atol=1e-6)
    assert "'my input' as 'my_input'" in " ".join(source.notes)


def test_what_goes_in_and_comes_out_under_one_name(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["the x"], ["the y"])
    proto = model_of(graph_of([node], {"the x": ["n", 2]}, {"the y": ["n", 2]}))
    source = opened(tmp_path, proto, inputs=(field("x", -1, 2),), outputs=(field("y", -1, 2),))
    assert [t.name for t in (*source.interface.inputs, *source.interface.outputs)] == ["x", "y"]


def test_a_signature_that_names_others(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    proto = model_of(graph_of([node], {"x": ["n", 2]}, {"y": ["n", 2]}))
    with pytest.raises(ValidationFailedError, match="promises the output 'probability'"):
        opened(tmp_path, proto, outputs=(field("probability", -1, 2),))
