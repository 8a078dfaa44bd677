"""Files in newer opsets, rewritten for releases that do not read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget
from exporter.sources.mlmodel import MLModel
from exporter.sources.onnx import open_source
from tests.support.onnx_files import ROWS, graph_of, model_of, opened

OLD = OnnxTarget(opset=17, ir=8, max_opset=21, max_ir=10)
OLDEST = OnnxTarget(opset=17, ir=8, max_opset=19, max_ir=8)


def answer(path: Path, x: np.ndarray[Any, Any] = ROWS) -> Any:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def lowered(folder: Path, proto: onnx.ModelProto, target: OnnxTarget = OLD) -> onnx.ModelProto:
    """The file as it is written, once it answers as the one that was logged."""
    source = opened(folder, proto)
    path = folder / "written.onnx"
    source.onnx_exporters(target)[0](path)
    written = onnx.load(path)
    onnx.checker.check_model(written)
    assert written.ir_version <= target.max_ir
    assert all(o.version <= target.max_opset for o in written.opset_import if not o.domain)
    expected = answer(folder / "model.onnx")
    assert np.allclose(answer(path), expected, atol=1e-6)
    assert np.ptp(expected) > 0.1
    return written


def operators(proto: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in proto.graph.node}


SCALE = {"scale": np.linspace(0.5, 2, 6, dtype=np.float32)}


def test_operators_that_did_not_change_keep_their_form(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    proto = model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}, SCALE), 24, 12)
    written = lowered(tmp_path, proto)
    assert written.graph == proto.graph


def test_newer_operators_are_written_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RMSNormalization", ["x", "scale"], ["r"]),
        # Its attribute is left out, and has a default.
        helper.make_node("Swish", ["r"], ["y"]),
    ]
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, SCALE), 24, 12)
    assert not operators(lowered(tmp_path, proto)) & {"RMSNormalization", "Swish"}


def test_attention(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Attention", ["q", "q", "q"], ["a"], q_num_heads=2, kv_num_heads=2),
        helper.make_node("Unsqueeze", ["x", "one"], ["q"]),
        helper.make_node("Squeeze", ["a", "one"], ["y"]),
    ]
    nodes = [nodes[1], nodes[0], nodes[2]]
    constants = {"one": np.array([1])}
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, constants), 24, 12)
    assert "Attention" not in operators(lowered(tmp_path, proto, OLDEST))


def test_inside_a_branch_and_a_function(tmp_path: Path) -> None:
    def branch(name: str, *operators: str) -> onnx.GraphProto:
        values = ["x", *(f"{name}_{i}" for i in range(len(operators)))]
        nodes = [
            helper.make_node(operator, [values[i]], [values[i + 1]])
            for i, operator in enumerate(operators)
        ]
        return helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(values[-1], TensorProto.FLOAT, None)]
        )

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["some"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["some"],
            ["chosen"],
            then_branch=branch("yes", "Swish"),
            else_branch=branch("no", "Relu", "Swish"),
        ),
        helper.make_node("Twice", ["chosen"], ["y"], domain="mine"),
    ]
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}), 24, 12, mine=1)
    body = [
        helper.make_node("Swish", ["a"], ["s"]),
        helper.make_node("Add", ["s", "s"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 24)]
    proto.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, opsets))
    assert "Swish" not in str(lowered(tmp_path, proto))


def test_an_operator_that_has_no_older_form_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("CumProd", ["x", "axis"], ["y"])]
    constants = {"axis": np.array(1)}
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, constants), 26, 13)
    try:
        source = opened(tmp_path, proto)
    except ValidationFailedError as error:
        pytest.skip(f"this ONNX Runtime has it not either: {error}")
    with pytest.raises(
        ValidationFailedError, match=r"opset 26.*at most opset 21.*CumProd"
    ) as refused:
        source.onnx_exporters(OLD)[0](tmp_path / "written.onnx")
    assert refused.value.kind == "target"


def test_a_newer_number_alone(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    proto = model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}), 17, 13)
    assert lowered(tmp_path, proto).ir_version == OLD.max_ir
    # A release that reads it gets the very bytes.
    path = tmp_path / "kept.onnx"
    newest = OnnxTarget(opset=17, ir=8, max_opset=26, max_ir=13)
    opened(tmp_path, proto).onnx_exporters(newest)[0](path)
    assert path.read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_a_type_that_came_later_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["small"], to=TensorProto.INT4),
        helper.make_node("Cast", ["small"], ["y"], to=TensorProto.FLOAT),
    ]
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}), 19, 10)
    proto.opset_import[0].version = 21
    source = opened(tmp_path, proto)
    with pytest.raises(ValidationFailedError, match="INT4") as refused:
        source.onnx_exporters(OLDEST)[0](tmp_path / "written.onnx")
    assert refused.value.kind == "target"


def test_modes_that_were_called_otherwise(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "image"], ["i"]),
        helper.make_node("GridSample", ["i", "grid"], ["y"]),
    ]
    constants = {
        "image": np.array([1, 1, 4, 6]),
        "grid": np.random.default_rng(0).uniform(-1, 1, (1, 2, 2, 2)).astype(np.float32),
    }
    proto = model_of(graph_of(nodes, {"x": [4, 6]}, {"y": [1, 1, 2, 2]}, constants), 20, 9)
    lowered(tmp_path, proto, OLDEST)


def test_a_new_attribute_that_says_what_was_always_so(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step"], ["q"], block_size=0),
        helper.make_node("DequantizeLinear", ["q", "step"], ["y"]),
    ]
    constants = {"step": np.float32(0.1)}
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, constants), 21, 10)
    written = lowered(tmp_path, proto, OLDEST)
    assert not [a for node in written.graph.node for a in node.attribute]


def test_a_new_attribute_that_changes_the_answer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step"], ["q"], block_size=3, axis=1),
        helper.make_node("DequantizeLinear", ["q", "step"], ["y"], block_size=3, axis=1),
    ]
    constants = {"step": np.full((4, 2), 0.1, np.float32)}
    proto = model_of(graph_of(nodes, {"x": [4, 6]}, {"y": [4, 6]}, constants), 21, 10)
    source = opened(tmp_path, proto)
    with pytest.raises(ValidationFailedError, match="QuantizeLinear"):
        source.onnx_exporters(OLDEST)[0](tmp_path / "written.onnx")


def test_what_only_the_converter_knows(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["u"]),
        helper.make_node("DFT", ["u", "", "axis"], ["y"]),
    ]
    constants = {"last": np.array([2]), "axis": np.array(1)}
    proto = model_of(graph_of(nodes, {"x": [4, 6]}, {"y": [4, 6, 2]}, constants), 20, 9)
    source = opened(tmp_path, proto)
    path = tmp_path / "written.onnx"
    first, second = source.onnx_exporters(OLDEST)
    with pytest.raises(ValidationFailedError, match="DFT"):
        first(path)
    second(path)
    assert np.allclose(answer(path), answer(tmp_path / "model.onnx"), atol=1e-5)
    assert onnx.load(path).opset_import[0].version == 19


def test_constants_that_lie_elsewhere(tmp_path: Path) -> None:
    node = helper.make_node("RMSNormalization", ["x", "scale"], ["y"])
    proto = model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}, SCALE), 23, 11)
    (scale,) = proto.graph.initializer
    folder = tmp_path / "logged"
    folder.mkdir()
    (folder / "some weights").write_bytes(scale.raw_data)
    onnx.external_data_helper.set_external_data(scale, "some weights")
    scale.ClearField("raw_data")
    model = MLModel(folder, {"onnx": {"data": "model.onnx"}}, (), (), None, None)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    source = open_source(model, allow_pickle=False)
    first, second = source.onnx_exporters(OLD)
    first(tmp_path / "written.onnx")
    assert np.allclose(answer(tmp_path / "written.onnx"), answer(folder / "model.onnx"), atol=1e-6)
    assert (tmp_path / "written.onnx.data").is_file()
    with pytest.raises(ValidationFailedError, match="external data"):
        second(tmp_path / "other.onnx")
