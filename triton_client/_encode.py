"""Inference requests as the bytes of ``ModelInferRequest``.

The generated classes copy every tensor once more than needed, so the message is put together here:
everything but the tensors is serialized by protobuf once and kept, and the tensors are appended.
A message is the concatenation of its fields in any order (protobuf encoding, "Last One Wins" and
"Field Order").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from tritonclient.grpc import service_pb2

from triton_client._parameters import RequestOptions, encode_options
from triton_client._shared_memory import Reference, Shared
from triton_client._tensors import Raw, encode_tensor
from triton_client.types import TensorSpec

__all__ = ["RequestEncoder"]

_KEPT_HEADERS: Final = 256
_RAW_INPUT_TAG: Final = b"\x3a"  # field 7, length-delimited
_NO_OPTIONS: Final = RequestOptions()


class RequestEncoder:
    """Makes the bytes of a ``ModelInferRequest`` for one model version."""

    __slots__ = ("_headers", "_model", "_version")

    def __init__(self, model: str, version: str) -> None:
        self._model = model
        self._version = version
        self._headers: dict[object, bytes] = {}

    def encode(
        self,
        inputs: Sequence[tuple[TensorSpec, np.ndarray[Any, Any]]],
        outputs: Sequence[str] = (),
        options: RequestOptions = _NO_OPTIONS,
        shared: Shared | None = None,
    ) -> tuple[Raw, ...]:
        """Return the request's bytes, in parts: what is not a tensor, and each tensor as it is.

        Every input comes with an array of its dtype. No names of outputs means all.

        Raises:
            TypeError: An element of a ``BYTES`` input is neither ``bytes`` nor ``str``.
            ValueError: A parameter's name is reserved by Triton, or a value is out of range.
        """
        key: tuple[object, ...] = (
            *[(spec.name, array.shape) for spec, array in inputs],
            tuple(outputs),
            options.class_count,
        )
        if shared is not None:
            key += (tuple(shared.inputs.items()), tuple(shared.outputs.items()))
        header = self._headers.get(key)
        if header is None:
            header = self._header(inputs, outputs, options.class_count, shared)
            if len(self._headers) >= _KEPT_HEADERS:
                self._headers.clear()
            self._headers[key] = header
        parts: list[Raw] = [header, encode_options(options)]
        for spec, array in inputs:
            if shared is not None and spec.name in shared.inputs:
                continue
            raw = encode_tensor(array, spec.datatype)
            size = len(raw) if isinstance(raw, bytes) else raw.nbytes
            parts.append(_raw_head(size))
            if size:
                parts.append(raw)
        return tuple(parts)

    def _header(
        self,
        inputs: Sequence[tuple[TensorSpec, np.ndarray[Any, Any]]],
        outputs: Sequence[str],
        class_count: int,
        shared: Shared | None,
    ) -> bytes:
        request = service_pb2.ModelInferRequest(model_name=self._model, model_version=self._version)
        for spec, array in inputs:
            tensor = request.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            if shared is not None and spec.name in shared.inputs:
                _refer(tensor, shared.inputs[spec.name])
        for name in outputs:
            tensor = request.outputs.add(name=name)
            if class_count:
                tensor.parameters["classification"].int64_param = class_count
            if shared is not None and name in shared.outputs:
                _refer(tensor, shared.outputs[name])
        return bytes(request.SerializeToString())


def _refer(tensor: Any, reference: Reference) -> None:
    tensor.parameters["shared_memory_region"].string_param = reference.region
    tensor.parameters["shared_memory_offset"].int64_param = reference.offset
    tensor.parameters["shared_memory_byte_size"].int64_param = reference.nbytes


@lru_cache(maxsize=256)
def _raw_head(size: int) -> bytes:
    """Return what comes before a tensor's bytes: the field's tag, and their number as a varint."""
    head = bytearray(_RAW_INPUT_TAG)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
