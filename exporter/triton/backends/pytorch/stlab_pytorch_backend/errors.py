"""Errors with the words that Triton uses for its status codes.

The python backend reports an exception as ``<class name>: <message>``, so that a class which is
named like a status reads like an error of NVIDIA's backend.
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
    """A model that cannot be loaded, or a request that cannot be answered."""


class InvalidArgumentError(BackendError):
    """The configuration does not fit the model, or makes no sense."""


class InternalError(BackendError):
    """torch failed, or the configuration asks for what it has not."""


class UnavailableError(BackendError):
    """A file is not there."""


class UnsupportedError(BackendError):
    """NVIDIA's backend does it, this one does not."""


InvalidArgumentError.__name__ = "Invalid argument"
InternalError.__name__ = "Internal"
UnavailableError.__name__ = "Unavailable"
UnsupportedError.__name__ = "Unsupported"
