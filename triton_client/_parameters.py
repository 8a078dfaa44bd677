"""What a request holds apart from its inputs, and its bytes in a ``ModelInferRequest``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2

from triton_client._headers import Metadata

__all__ = ["Parameter", "RequestOptions", "Wanted", "encode_options"]

Parameter = bool | int | float | str
Wanted = Iterable[str] | Mapping[str, np.ndarray[Any, Any] | None]
"""Outputs' names, or their names with arrays in shared memory to write them to."""

_RESERVED: Final = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output"}
)
_FIELDS: Final = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


class RequestOptions(NamedTuple):
    """What a request holds apart from its inputs.

    Attributes:
        outputs: The outputs to return; ``None`` for all.
        timeout: The longest time in the server's queue, in seconds; ``None`` for no bound.
        parameters: Request parameters for the model.
        request_id: Shown in the server's logs and traces.
        priority: Triton's request priority; 0 for the model's default.
        headers: The headers of this call alone.
        class_count: Return outputs as this many classes; 0 for their values.
    """

    outputs: Wanted | None = None
    timeout: float | None = None
    parameters: Mapping[str, Parameter] | None = None
    request_id: str = ""
    priority: int = 0
    headers: Metadata = ()
    class_count: int = 0


def encode_options(options: RequestOptions) -> bytes:
    """Return the fields of a request's identifier and parameters.

    Raises:
        TypeError: A parameter has a value that no request takes.
        ValueError: A parameter's name is reserved by Triton, or its value has the wrong type.
    """
    _, timeout, parameters, request_id, priority, _, _ = options
    encoded = b""
    if timeout is not None or priority or parameters:
        microseconds = None if timeout is None else max(1, int(timeout * 1e6))
        # The types belong to the key of the cache, since 1 == True == 1.0.
        items = tuple((name, type(value), value) for name, value in (parameters or {}).items())
        encoded = _encoded(microseconds, priority, items)
    if request_id:
        encoded += service_pb2.ModelInferRequest(id=request_id).SerializeToString()
    return encoded


@lru_cache(maxsize=256)
def _encoded(
    timeout: int | None, priority: int, parameters: tuple[tuple[str, type, Parameter], ...]
) -> bytes:
    request = service_pb2.ModelInferRequest()
    if timeout is not None:
        request.parameters["timeout"].int64_param = timeout
    if priority:
        request.parameters["priority"].uint64_param = priority
    for name, kind, value in parameters:
        if name in _RESERVED or name.startswith("triton_"):
            raise ValueError(f"the parameter {name!r} is Triton's own")
        field = _FIELDS.get(kind)
        if field is None:
            raise ValueError(f"the parameter {name!r} is a {kind.__name__}: {value!r}")
        setattr(request.parameters[name], field, value)
    return bytes(request.SerializeToString())
