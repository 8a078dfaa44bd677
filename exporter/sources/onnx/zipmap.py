"""Classifiers that return a dictionary for each row, as skl2onnx writes them by default.

No server serves a sequence of maps. The node that makes it, ZipMap, only adds the names of the
classes to the columns of a tensor, which is served instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from exporter.arrays import Array
from exporter.interface import Axis, Tensor

__all__ = ["ZipMapOutputs"]

_LABELS = ("classlabels_int64s", "classlabels_strings")


@dataclass(frozen=True, slots=True)
class ZipMapOutputs:
    """The outputs of a file that a ZipMap makes.

    Attributes:
        classes: By output, the names of the classes, in the order of the tensor's columns.
    """

    classes: Mapping[str, tuple[int | str, ...]]

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> ZipMapOutputs:
        """Read them from a file."""
        outputs = {value.name for value in proto.graph.output}
        return cls(
            {
                node.output[0]: labels
                for node in proto.graph.node
                if _is_map(node) and node.output[0] in outputs and (labels := _labels(node))
            }
        )

    def tensor(self, name: str, rows: Axis) -> Tensor:
        """Declare the tensor that is served for an output: float32 ``[rows, classes]``."""
        return Tensor(name, "FP32", (rows, len(self.classes[name])))

    def array(self, name: str, answer: list[Mapping[Any, float]]) -> Array:
        """Return the tensor of an output that has a dictionary for each row."""
        classes = self.classes[name]
        rows = [[row[label] for label in classes] for row in answer]
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(classes))

    def notes(self, names: Mapping[str, str]) -> list[str]:
        """Say for every output what its columns are."""
        return [
            f"The output '{names[name]}' is a dictionary for each row in the registered model; its "
            f"values are served as a tensor, by class: {', '.join(map(str, classes[:50]))}"
            + (f" and {len(classes) - 50} more." if len(classes) > 50 else ".")
            for name, classes in self.classes.items()
        ]

    def remove_from(self, proto: onnx.ModelProto) -> None:
        """Replace every such node of a file by one that returns its tensor."""
        for node in proto.graph.node:
            if _is_map(node) and node.output[0] in self.classes:
                node.CopyFrom(helper.make_node("Identity", list(node.input), list(node.output)))
        for value in proto.graph.output:
            if value.name in self.classes:
                rows = _rows(proto.graph) or f"{value.name}.0"
                shape = [rows, len(self.classes[value.name])]
                value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))


def _is_map(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "ZipMap" and node.domain == "ai.onnx.ml")


def _labels(node: onnx.NodeProto) -> tuple[int | str, ...]:
    held = {attribute.name: attribute for attribute in node.attribute}
    numbers, words = (held.get(name) for name in _LABELS)
    if numbers is not None and numbers.ints:
        return tuple(numbers.ints)
    return tuple(word.decode() for word in words.strings) if words is not None else ()


def _rows(graph: onnx.GraphProto) -> int | str | None:
    """The leading axis of the first input, which is that of a classifier's outputs."""
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims:
            return dims[0].dim_value if dims[0].HasField("dim_value") else dims[0].dim_param or None
    return None
