"""The outputs of an inference, and what else its response says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from tritonclient.grpc import service_pb2

from triton_client._parameters import Parameter

__all__ = ["Result"]

Array = np.ndarray[Any, Any]


class Result(dict[str, Array]):
    """The outputs by name: a dictionary of arrays with the rest of the response.

    The rest is parsed when it is read. A batch that was split has that of its first response.
    """

    __slots__ = ("_rest",)

    _rest: bytes

    @classmethod
    def of(cls, outputs: Mapping[str, Array], rest: bytes) -> Self:
        """Return the outputs with the bytes of the response's other fields."""
        result = cls(outputs)  # faster than an __init__ in Python
        result._rest = rest
        return result

    def with_outputs(self, outputs: Mapping[str, Array]) -> Self:
        """Return the same response with other outputs."""
        return self.of(outputs, self._rest)

    @property
    def version(self) -> str:
        """The model version that ran; empty where the server does not say."""
        return str(self._response().model_version)

    @property
    def id(self) -> str:
        """The ``request_id`` that the response belongs to."""
        return str(self._response().id)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The response's parameters by name."""
        return {
            name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for name, value in self._response().parameters.items()
        }

    def _response(self) -> Any:
        return service_pb2.ModelInferResponse.FromString(getattr(self, "_rest", b""))
