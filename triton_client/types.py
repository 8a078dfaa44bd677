"""A model's inputs and outputs, in Triton's data types and in numpy's.

Triton writes a data type in two ways: ``FP32`` on the wire and ``TYPE_FP32`` in a config.pbtxt
(strings are ``BYTES`` and ``TYPE_STRING``). The table below is all of them; the source is
``model_config.proto`` (enum ``DataType``) and the "Tensor Data Types" table of the KServe v2
protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "DATATYPES",
    "ModelSpec",
    "RepositoryEntry",
    "ServerMetadata",
    "SharedMemoryRegion",
    "TensorSpec",
    "config_datatype",
    "datatype_of_config",
    "numpy_dtype",
    "wire_datatype",
]

_NUMPY_NAMES: Final = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "bfloat16",
    "BYTES": "object",
}
DATATYPES: Final[tuple[str, ...]] = tuple(_NUMPY_NAMES)
"""Every data type's name on the wire."""

_WIRE_NAMES: Final = {name: datatype for datatype, name in _NUMPY_NAMES.items()}
_DTYPES: Final = {
    datatype: np.dtype(name) for datatype, name in _NUMPY_NAMES.items() if datatype != "BF16"
}
_TEXT_KINDS: Final = frozenset("OSUT")


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """Return the numpy dtype of a wire data type.

    ``BYTES`` is ``object`` (elements are ``bytes``); ``BF16`` is ``ml_dtypes.bfloat16``.

    Raises:
        ValueError: Triton has no such data type.
        ImportError: ``BF16`` needs ml_dtypes, which is not installed.
    """
    dtype = _DTYPES.get(datatype)
    if dtype is not None:
        return dtype
    if datatype != "BF16":
        raise ValueError(f"Triton has no data type {datatype!r}; it has {', '.join(DATATYPES)}")
    try:
        bfloat16 = import_module("ml_dtypes").bfloat16
    except ImportError as error:
        raise ImportError("BF16 tensors need the package ml_dtypes") from error
    return _DTYPES.setdefault("BF16", np.dtype(bfloat16))


def wire_datatype(dtype: npt.DTypeLike) -> str:
    """Return the wire data type of a numpy dtype, whatever its byte order.

    Object and all of numpy's string dtypes are ``BYTES``.

    Raises:
        ValueError: Triton has no such type (complex numbers, dates, records).
    """
    dtype = np.dtype(dtype)
    datatype = "BYTES" if dtype.kind in _TEXT_KINDS else _WIRE_NAMES.get(dtype.name)
    if datatype is None:
        raise ValueError(f"Triton has no data type for numpy's {dtype.name}")
    return datatype


def config_datatype(datatype: str) -> str:
    """Return a wire data type's name in config.pbtxt: ``TYPE_FP32`` for ``FP32``.

    Raises:
        ValueError: Triton has no such data type.
    """
    if datatype not in _NUMPY_NAMES:
        raise ValueError(f"Triton has no data type {datatype!r}; it has {', '.join(DATATYPES)}")
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def datatype_of_config(name: str) -> str:
    """Return the wire data type of a config.pbtxt one: ``BYTES`` for ``TYPE_STRING``.

    Raises:
        ValueError: Triton has no such data type.
    """
    datatype = "BYTES" if name == "TYPE_STRING" else name.removeprefix("TYPE_")
    if config_datatype(datatype) != name:
        raise ValueError(f"Triton has no config data type {name!r}")
    return datatype


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: The tensor's name.
        datatype: The wire data type, such as ``FP32``.
        shape: The whole shape on the wire, -1 where a dimension is variable. Where the model
            batches, the first dimension is the batch.
        optional: The input may be left out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype; ``object`` for ``BYTES``."""
        return numpy_dtype(self.datatype)

    def __str__(self) -> str:
        dims = ", ".join(str(dim) for dim in self.shape)
        return f"{self.name}: {self.datatype}[{dims}]"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The inputs and outputs of a served model.

    Attributes:
        name: The model's name.
        version: The version called, or the newest one that is served.
        platform: Triton's platform or backend, such as ``onnxruntime_onnx``.
        max_batch_size: The most rows in one request; 0 where the model does not batch.
        inputs: The inputs, in the model's order.
        outputs: The outputs, in the model's order.
    """

    name: str
    version: str
    platform: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """A server's name, version and protocol extensions."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One line of the repository index.

    Attributes:
        name: The model's name.
        version: The version; empty for a model that was never loaded.
        state: ``READY``, ``LOADING``, ``UNLOADING``, ``UNAVAILABLE``, or empty.
        reason: Why the version is in that state, where the server says.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class SharedMemoryRegion:
    """System shared memory that is registered with a server.

    Attributes:
        name: The name under which it is registered.
        key: The POSIX name of the memory.
        offset: Where the region begins in that memory, in bytes.
        nbytes: The size in bytes.
    """

    name: str
    key: str
    offset: int
    nbytes: int
