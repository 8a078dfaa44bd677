"""Declares inputs and outputs of an ONNX Runtime session as tensors."""

from __future__ import annotations

import re
from typing import Any

from exporter.errors import ValidationFailedError
from exporter.interface import Axis, Tensor

__all__ = ["tensor_of"]

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
# Placeholders of converters for unknown sizes: no two of these need be equal.
_ANONYMOUS = frozenset({"", "?", "-1", "None", "none", "unk", "unknown"})


def tensor_of(kind: str, node: Any) -> Tensor:
    """Declare an input or output of a session.

    Raises:
        ValidationFailedError: It is no tensor, or has a type that cannot be served.
    """
    held = re.fullmatch(r"tensor\((\w+)\)", node.type)
    if held is None or held[1] not in _DATATYPES:
        raise ValidationFailedError(
            f"the {kind} '{node.name}' is a {node.type}, which Triton's onnxruntime backend "
            "does not serve",
            hint=_hint(node.type),
            kind="interface",
        )
    axes: list[Axis] = []
    for index, size in enumerate(node.shape):
        known = isinstance(size, int) and size >= 0
        named = str(size or "")
        axes.append(size if known else f"{node.name}.{index}" if named in _ANONYMOUS else named)
    return Tensor(node.name, _DATATYPES[held[1]], tuple(axes))


def _hint(kind: str) -> str:
    if kind.startswith("tensor("):
        return (
            "Keep such numbers inside the model: cast them from and to float32 or float16 at its "
            "inputs and outputs (a Cast node)."
        )
    if kind.startswith("optional("):
        return "Convert the model once with the optional tensor and once without, each as its own."
    return "Convert the model with tensors only (skl2onnx: options={'zipmap': False})."
