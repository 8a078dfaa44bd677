"""ONNX files, of which the logged example takes one way and the hidden rows another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.onnx_files import graph_of, model_of

from .comparing import Array
from .onnx_files import OnnxFile

__all__ = ["FILES", "BlindFile"]

_X = np.random.default_rng(19).uniform(0.1, 1, size=(4, 6)).astype(np.float32)


def _cycled(*rows: list[float]) -> Callable[[int], Array]:
    table = np.array(rows, dtype=np.float32)
    return lambda count: table[np.arange(count) % len(table)]


def _zeros(count: int) -> Array:
    return np.zeros((count, 6), np.float32)


@dataclass(frozen=True)
class BlindFile(OnnxFile):
    """One file.

    Attributes:
        hidden: Makes as many rows of what the example does not show.
    """

    hidden: Callable[[int], Array] = _zeros

    def rows(self, count: int) -> dict[str, Array]:
        """Return hidden rows."""
        (name,) = self.served or tuple(self.example)
        return {name: self.hidden(count)}


def _branching() -> onnx.ModelProto:
    """Answers the negative where all values of all rows are together more than 100."""
    then = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["less"])], "then", [],
        [helper.make_tensor_value_info("less", TensorProto.FLOAT, ["n", 6])],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])], "else", [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, ["n", 6])],
    )  # fmt: skip
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["y"], then_branch=then, else_branch=other),
    ]
    return model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, {"limit": np.float32(100)}))


def _looping() -> onnx.ModelProto:
    """Doubles all rows as often as the largest value of all of them says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Add", ["held", "held"], ["doubled"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, ["n", 6]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["n", 6]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body),
    ]
    return model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, {"yes": np.array(True)}))


def _filled(opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    """Takes -1 for what is no number, behind an operator that changed in opset 28."""
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "fill", "x"], ["filled"]),
        helper.make_node("Celu", ["filled"], ["h"]),
        helper.make_node("Neg", ["h"], ["y"]),
    ]
    graph = graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, {"fill": np.float32(-1)})
    return model_of(graph, opset=opset, ir=ir)


_LARGE = _cycled([90, 80, 70, 60, 50, 40], [1, 1, 1, 1, 1, 200])
_TURNS = _cycled([3, 1, 0.5, 2, 1, 1], [5, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1])
_MISSING = _cycled([np.nan, 1, 2, 3, 4, 5], [np.nan] * 6, [-1, np.nan, np.inf, -np.inf, 0, 1])

FILES: tuple[BlindFile, ...] = (
    BlindFile("if-of-all-rows", _branching, {"x": _X}, batched=False, hidden=_LARGE),
    BlindFile("loop-of-all-rows", _looping, {"x": _X}, batched=False, hidden=_TURNS),
    BlindFile("where-missing", _filled, {"x": _X}, hidden=_MISSING),
    BlindFile("newer-where-missing", lambda: _filled(28, 14), {"x": _X}, hidden=_MISSING),
)
