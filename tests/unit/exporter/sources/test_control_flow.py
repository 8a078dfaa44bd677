"""A loop of an ONNX file whose number of steps depends on values is one for all rows of a batch."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from exporter.sources.onnx.control_flow import value_dependence

node = helper.make_node


def value(name: str, kind: int, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


STEPS = {
    "sizes": [node("Shape", ["x"], ["shape"]), node("Gather", ["shape", "one"], ["steps"])],
    "constants": [node("Identity", ["one"], ["steps"])],
    "values": [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Cast", ["most"], ["steps"], to=TensorProto.INT64),
    ],
    "selected": [
        node("NonZero", ["x"], ["places"]),
        node("Shape", ["places"], ["shape"]),
        node("Gather", ["shape", "one"], ["steps"]),
    ],
}
KEPT = [node("Identity", ["go"], ["on"])]
UNTIL_LARGE = [
    node("ReduceMax", ["sum"], ["most_so_far"], keepdims=0),
    node("Less", ["most_so_far", "limit"], ["on"]),
]


@pytest.mark.parametrize(
    ("steps", "condition", "depends"),
    [
        ("sizes", KEPT, False),
        ("constants", KEPT, False),
        ("values", KEPT, True),
        ("selected", KEPT, True),
        ("constants", UNTIL_LARGE, True),
    ],
)
def test_a_loop_decides_by(steps: str, condition: list[onnx.NodeProto], depends: bool) -> None:
    body = helper.make_graph(
        [*condition, node("Add", ["sum", "x"], ["more"])],
        "body",
        [
            value("step", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("sum", TensorProto.FLOAT, None),
        ],
        [value("on", TensorProto.BOOL, []), value("more", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [*STEPS[steps], node("Loop", ["steps", "yes", "x"], ["y"], body=body)],
        "loop",
        [value("x", TensorProto.FLOAT, ["rows", 4])],
        [value("y", TensorProto.FLOAT, ["rows", 4])],
        [
            helper.make_tensor("one", TensorProto.INT64, [], [1]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("limit", TensorProto.FLOAT, [], [9.0]),
        ],
    )
    reason = value_dependence(helper.make_model(graph))
    assert ("a Loop node decides by the values" in reason) == depends
