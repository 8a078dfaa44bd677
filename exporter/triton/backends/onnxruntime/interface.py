"""The inputs and outputs of a session, in Triton's terms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..shared.errors import UnsupportedError
from .datatypes import config_datatype

__all__ = ["Interface", "Tensor", "read_interface"]

_TENSOR = re.compile(r"^tensor\((\w+)\)$")
_OTHER_KINDS = {
    "seq": "ONNX_TYPE_SEQUENCE",
    "map": "ONNX_TYPE_MAP",
    "opaque": "ONNX_TYPE_OPAQUE",
    "sparse_tensor": "ONNX_TYPE_SPARSETENSOR",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Attributes:
        name: Its name.
        datatype: Such as ``TYPE_FP32``; ``TYPE_INVALID`` for one that Triton does not have.
        shape: After shape inference; -1 for any dimension that is not a number, ``()`` for a
            scalar and for an unknown rank.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """The tensors of a model, by name.

    Attributes:
        inputs: Those that a request must have.
        initializers: Inputs with a value in the model, which a request may replace.
        outputs: What it returns.
    """

    inputs: Mapping[str, Tensor]
    initializers: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def read_interface(session: Any) -> Interface:
    """Return the interface of an ``onnxruntime.InferenceSession``.

    Raises:
        UnsupportedError: An input or output is a sequence, a map or anything but a tensor.
    """
    return Interface(
        inputs=_tensors(session.get_inputs()),
        initializers=_tensors(session.get_overridable_initializers()),
        outputs=_tensors(session.get_outputs()),
    )


def _tensors(arguments: Iterable[Any]) -> dict[str, Tensor]:
    tensors = {}
    for argument in arguments:
        match = _TENSOR.match(argument.type)
        if match is None:
            kind = _OTHER_KINDS.get(argument.type.split("(", 1)[0], "ONNX_TYPE_UNKNOWN")
            raise UnsupportedError(
                f"Unsupported ONNX Type '{kind}' for I/O '{argument.name}', "
                "expected 'ONNX_TYPE_TENSOR'."
            )
        shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
        tensors[argument.name] = Tensor(argument.name, config_datatype(match.group(1)), shape)
    return tensors
