"""Errors with the words that Triton uses for its status codes.

The python backend reports an exception as ``<class name>: <message>``, so a class that is named
like a status reads like an error of NVIDIA's backends.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "InternalError",
    "InvalidArgumentError",
    "UnavailableError",
    "UnsupportedError",
]


class BackendError(Exception):
    """A model cannot be loaded, or a request cannot be answered."""


class InvalidArgumentError(BackendError):
    """The configuration does not fit the model, or has an invalid value."""


class InternalError(BackendError):
    """The library that runs the model failed, or lacks what the configuration needs."""


class UnavailableError(BackendError):
    """A file or a library is missing."""


class UnsupportedError(BackendError):
    """NVIDIA's backend may support it; this one does not."""


InvalidArgumentError.__name__ = "Invalid argument"
InternalError.__name__ = "Internal"
UnavailableError.__name__ = "Unavailable"
UnsupportedError.__name__ = "Unsupported"
