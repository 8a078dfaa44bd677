"""Graphs in float16: what is rewritten, what stays, and that ONNX Runtime takes all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.formats.precision.float16_graph import halve
from exporter.formats.precision.onnx_io import read, types_of, write

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
node = helper.make_node


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Any],
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(name, FLOAT, [None, None]) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def prepared(given: ModelProto, folder: Path) -> ModelProto:
    onnx.save(given, folder / "plain.onnx")
    return read(folder / "plain.onnx")


def run(given: ModelProto, folder: Path) -> list[np.ndarray[Any, Any]]:
    import onnxruntime as ort

    onnx.checker.check_model(given, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    write(given, folder / "run.onnx")
    session = ort.InferenceSession(folder / "run.onnx", options)
    return list(session.run(None, {"x": X}))


def check(given: ModelProto, folder: Path, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """Rewrite a model, run all of its forms, and return the one in float16."""
    plain = prepared(given, folder)
    exact = run(prepared(given, folder), folder)
    for simulated in (False, True):
        reduced = run(halve(plain, kept, simulated=simulated).model, folder)
        for one, other in zip(exact, reduced, strict=True):
            assert one.dtype == other.dtype == np.float32
            assert np.allclose(one, other, rtol=5e-3, atol=5e-3)
            assert simulated is False or not np.array_equal(one, other)
    return halve(plain, kept).model


def kinds(graph: GraphProto) -> dict[str, str]:
    return {n.name: n.op_type for n in graph.node}


LAYERS = model(
    [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("MatMul", ["b", "w"], ["y"], name="second"),
    ],
    {"w": np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)},
)


def test_neighbours_hand_on_halves_and_borders_stay(tmp_path: Path) -> None:
    graph = check(LAYERS, tmp_path).graph
    assert [n.op_type for n in graph.node] == ["Cast", "MatMul", "Relu", "MatMul", "Cast"]
    assert [tensor.data_type for tensor in graph.initializer] == [HALF]
    assert {graph.input[0].type.tensor_type.elem_type, *types_of(graph).values()} >= {FLOAT}
    assert graph.output[0].type.tensor_type.elem_type == FLOAT


def test_a_node_that_is_kept_has_float32_and_its_own_weights(tmp_path: Path) -> None:
    graph = check(LAYERS, tmp_path, ["first"]).graph
    first = next(n for n in graph.node if n.name == "first")
    assert list(first.input) == ["x", "w"]
    assert sorted(tensor.data_type for tensor in graph.initializer) == [FLOAT, HALF]


def test_kept_neighbours_have_no_half_between_them(tmp_path: Path) -> None:
    # Else what overflows would be infinite on the way from one to the other.
    large = model(
        [
            node("Mul", ["x", "large"], ["a"], name="up"),
            node("Mul", ["a", "large"], ["b"], name="further up"),
            node("Div", ["b", "huge"], ["c"], name="down"),
            node("Sigmoid", ["c"], ["y"], name="sigmoid"),
        ],
        {"large": np.float32(1e4), "huge": np.float32(1e8)},
    )
    graph = check(large, tmp_path, ["up", "further up", "down"]).graph
    assert [n.op_type for n in graph.node] == ["Mul", "Mul", "Div", "Cast", "Sigmoid", "Cast"]


def test_branches_and_loops_may_name_tensors_around_them(tmp_path: Path) -> None:
    def branch(name: str, kind: str) -> GraphProto:
        out = helper.make_tensor_value_info(f"{name} out", FLOAT, ["n", 4])
        inside = [
            node(kind, ["a", "w"], [f"{name} in"], name=f"{name} first"),
            node("Relu", [f"{name} in"], [f"{name} out"], name=f"{name} relu"),
        ]
        return helper.make_graph(inside, name, [], [out])

    given = model(
        [
            node("MatMul", ["x", "w"], ["a"], name="first"),
            node("ReduceMax", ["a"], ["most"], name="most", keepdims=0),
            node("Greater", ["most", "zero"], ["some"], name="some"),
            node("If", ["some"], ["c"], name="if",
                 then_branch=branch("then", "MatMul"), else_branch=branch("else", "Sub")),
            node("Tanh", ["c"], ["y"], name="last"),
        ],
        {"w": np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32),
         "zero": np.float32(0)},
    )  # fmt: skip
    graph = check(given, tmp_path).graph
    (choice,) = (n for n in graph.node if n.op_type == "If")
    then = next(a.g for a in choice.attribute if a.name == "then_branch")
    product = next(n for n in then.node if n.op_type == "MatMul")
    assert list(product.input) == ["a.half", "w.half"]
    kept = check(given, tmp_path, ["first", "then first", "then relu"]).graph
    (choice,) = (n for n in kept.node if n.op_type == "If")
    then = next(a.g for a in choice.attribute if a.name == "then_branch")
    assert [n.op_type for n in then.node] == ["MatMul", "Relu"]


def test_inputs_that_must_be_float32_stay_so(tmp_path: Path) -> None:
    given = model(
        [
            node("Unsqueeze", ["x", "axes"], ["a"], name="up"),
            node("Resize", ["a", "", "scales"], ["b"], name="resize", mode="linear"),
            node("Squeeze", ["b", "axes"], ["y"], name="down"),
        ],
        {"axes": np.array([1]), "scales": np.array([1, 1, 2], np.float32)},
    )
    graph = check(given, tmp_path).graph
    resize = next(n for n in graph.node if n.op_type == "Resize")
    assert resize.input[2] == "scales"
    assert resize.input[0] == "a.half"


def test_what_makes_its_own_type_makes_halves(tmp_path: Path) -> None:
    zeros = numpy_helper.from_array(np.array([0.1], np.float32))
    given = model(
        [
            node("Shape", ["x"], ["shape"], name="shape"),
            node("ConstantOfShape", ["shape"], ["zeros"], name="zeros", value=zeros),
            node("ArgMax", ["x"], ["most"], name="most", axis=1),
            node("Cast", ["most"], ["number"], name="number", to=FLOAT),
            node("Mul", ["x", "number"], ["a"], name="times"),
            node("Add", ["a", "zeros"], ["y"], name="plus"),
        ],
        {},
    )
    graph = check(given, tmp_path).graph
    names = kinds(graph)
    assert names["most"] == "ArgMax"
    most = next(n for n in graph.node if n.name == "most")
    assert list(most.input) == ["x"], "an index is found in what was given"
    number = next(n for n in graph.node if n.name == "number")
    assert number.attribute[0].i == HALF


def test_operators_of_others_stay_in_float32(tmp_path: Path) -> None:
    given = model([node("Gelu", ["x"], ["a"], domain="com.microsoft"), *LAYERS.graph.node[1:]],
                  {"w": np.eye(4, dtype=np.float32)})  # fmt: skip
    given.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    reduced = halve(prepared(given, tmp_path), ())
    gelu = next(n for n in reduced.model.graph.node if n.op_type == "Gelu")
    assert list(gelu.input) == ["x"]
    assert run(reduced.model, tmp_path)[0].dtype == np.float32


def test_an_overflow_shows_in_the_simulation_though_not_on_a_cpu(tmp_path: Path) -> None:
    given = model(
        [node("Mul", ["x", "c"], ["a"], name="up"), node("Div", ["a", "c"], ["y"], name="down")],
        {"c": np.float32(6e4)},
    )
    plain = prepared(given, tmp_path)
    (told,) = run(halve(plain, ()).model, tmp_path)
    (simulated,) = run(halve(plain, (), simulated=True).model, tmp_path)
    assert np.isfinite(told).all(), "ONNX Runtime takes the rounding out again"
    assert np.isinf(simulated).any()


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0)])
def test_what_crashes_onnx_runtime_is_not_written(order: tuple[int, ...], tmp_path: Path) -> None:
    shape = [(2, 2, 4)[axis] for axis in order]
    given = model(
        [
            node("Reshape", ["x", "shape"], ["a"], name="reshape"),
            node("Transpose", ["a"], ["b"], name="transpose", perm=order),
            node("MatMul", ["b", "w"], ["y"], name="product"),
        ],
        {"shape": np.array([2, 2, -1]), "w": np.ones((shape[-1] or 3, 4), np.float32)},
    )
    plain = prepared(given, tmp_path)
    (transpose,) = (n for n in halve(plain, ()).model.graph.node if n.op_type == "Transpose")
    assert list(transpose.input) == ["a"]


def test_nodes_get_names_and_constants_are_weights(tmp_path: Path) -> None:
    given = model(
        [
            node("Constant", [], ["w"], value=numpy_helper.from_array(np.eye(4, dtype="f4"))),
            node("Constant", [], ["half"], value_float=0.5),
            node("MatMul", ["x", "w"], ["a"]),
            node("MatMul", ["a", "w"], ["b"]),
            node("Mul", ["b", "half"], ["y"], name="MatMul_1"),
        ],
        {},
    )
    plain = prepared(given, tmp_path)
    names = [n.name for n in plain.graph.node]
    assert len(set(names)) == 3
    assert {t.name for t in plain.graph.initializer} == {"w", "half"}
    assert halve(plain, ()).nodes == tuple(names)


def test_functions_are_written_out(tmp_path: Path) -> None:
    given = model([node("Twice", ["x"], ["y"], domain="ours")], {})
    given.opset_import.append(helper.make_opsetid("ours", 1))
    given.functions.append(
        helper.make_function("ours", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])],
                             [helper.make_opsetid("", 18)])
    )  # fmt: skip
    assert len(halve(prepared(given, tmp_path), ()).nodes) == 1


def test_many_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.formats.precision.onnx_io.EXTERNAL_DATA_BYTES", 1000)
    given = model(LAYERS.graph.node, {"w": np.eye(4, dtype=np.float32)})
    ballast = np.ones((1000, 4), np.float32)
    given.graph.initializer.append(numpy_helper.from_array(ballast, "more"))
    given.graph.node.insert(0, node("ReduceMin", ["more"], ["least"], keepdims=0))
    given.graph.node[1].input[0] = "sum"
    given.graph.node.insert(1, node("Add", ["x", "least"], ["sum"]))
    plain = prepared(given, tmp_path)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "model.onnx"
    (path.parent / "model.onnx.data.1").write_bytes(b"of an earlier file")
    write(halve(plain, ()).model, path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    again = read(path)
    more = next(t for t in again.graph.initializer if t.name.startswith("more"))
    assert np.array_equal(numpy_helper.to_array(more), ballast.astype(np.float16))
