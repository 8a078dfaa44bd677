"""Errors with the words that Triton uses for its status codes.

The python backend reports an exception as ``<class name>: <message>``, so that a class which is
named like a status reads like an error of NVIDIA's backend.
"""

from __future__ import annotations

import re

__all__ = [
    "BackendError",
    "InternalError",
    "InvalidArgumentError",
    "UnavailableError",
    "UnsupportedError",
    "runtime_message",
]

_ONNXRUNTIME = re.compile(r"^\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)$", re.DOTALL)


class BackendError(Exception):
    """A model that cannot be loaded, or a request that cannot be answered."""


class InvalidArgumentError(BackendError):
    """The configuration does not fit the model, or makes no sense."""


class InternalError(BackendError):
    """ONNX Runtime failed."""


class UnavailableError(BackendError):
    """A file is not there."""


class UnsupportedError(BackendError):
    """NVIDIA's backend, or this one, does not support it."""


InvalidArgumentError.__name__ = "Invalid argument"
InternalError.__name__ = "Internal"
UnavailableError.__name__ = "Unavailable"
UnsupportedError.__name__ = "Unsupported"


def runtime_message(error: Exception) -> str:
    """Return an error of ONNX Runtime in the words of NVIDIA's backend."""
    match = _ONNXRUNTIME.match(str(error))
    if match is None:
        return f"onnx runtime error 1: {error}"
    return f"onnx runtime error {match.group(1)}: {match.group(2)}"
