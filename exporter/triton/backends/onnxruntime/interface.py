"""The inputs and outputs of a session, in Triton's terms."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..shared.datatypes import DATATYPES
from ..shared.errors import UnsupportedError

__all__ = ["INVALID", "Interface", "Tensor", "is_supported", "read_interface"]

INVALID = "TYPE_INVALID"

# ONNX Runtime's names where they differ from numpy's.
_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object"}
_FIRST_RELEASE_WITH_BFLOAT16 = "26.03"
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


def is_supported(datatype: str) -> bool:
    """Whether the backend of the target release has a data type, by the configuration's name."""
    if datatype == "TYPE_BF16":
        release = os.environ.get("STLAB_TRITON_RELEASE", "")
        return not release or release >= _FIRST_RELEASE_WITH_BFLOAT16
    return datatype in DATATYPES.values()


def _tensors(arguments: Iterable[Any]) -> dict[str, Tensor]:
    tensors = {}
    for argument in arguments:
        match = re.fullmatch(r"tensor\((\w+)\)", argument.type)
        if match is None:
            kind = _OTHER_KINDS.get(argument.type.split("(", 1)[0], "ONNX_TYPE_UNKNOWN")
            raise UnsupportedError(
                f"Unsupported ONNX Type '{kind}' for I/O '{argument.name}', "
                "expected 'ONNX_TYPE_TENSOR'."
            )
        shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
        datatype = DATATYPES.get(_NUMPY_NAMES.get(match[1], match[1]), INVALID)
        if not is_supported(datatype):
            datatype = INVALID
        tensors[argument.name] = Tensor(argument.name, datatype, shape)
    return tensors
