"""Every error that a call to Triton can raise.

```
TritonClientError
├── DeadlineExceeded    the deadline passed: in the queue, on the way or in the model
├── Overloaded          the server's queue is full, or a quota is spent
├── NotReady            the model or the server is there, but not ready to serve
├── InvalidInput        the request is wrong; found here before it was sent, or by the server
├── ModelNotFound       no such model or version
├── PermissionDenied    the server requires credentials or a restricted-protocol header
├── Unavailable         no connection, or it broke
└── ServerError         any other error of the server, and responses that cannot be read
```

The gRPC error, where there was one, is the ``__cause__``. The names say what happened, as those of
gRPC's status codes do, so they go without an ``Error`` at the end.
"""

from __future__ import annotations

__all__ = [
    "DeadlineExceeded",
    "InvalidInput",
    "ModelNotFound",
    "NotReady",
    "Overloaded",
    "PermissionDenied",
    "ServerError",
    "TritonClientError",
    "Unavailable",
]


class TritonClientError(Exception):
    """The base of every error of this package.

    Attributes:
        message: What went wrong, in the server's words where it sent any.
        server: The address that was called.
        model: The model, or empty where the call concerned none.
        version: The model version called; empty where the server chooses.
    """

    def __init__(
        self, message: str, *, server: str = "", model: str = "", version: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.server = server
        self.model = model
        self.version = version

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        model = f"model {self.model!r}{version}" if self.model else ""
        place = " at ".join(part for part in (model, self.server) if part)
        return f"{place}: {self.message}" if place else self.message


class DeadlineExceeded(TritonClientError):  # noqa: N818
    """The deadline passed before the answer came."""


class Overloaded(TritonClientError):  # noqa: N818
    """The server refused the request because it has too many; try again later, or elsewhere."""


class NotReady(TritonClientError):  # noqa: N818
    """The server or the model version is known, but not ready to serve."""


class InvalidInput(TritonClientError, ValueError):  # noqa: N818
    """The request does not fit the model."""


class ModelNotFound(TritonClientError):  # noqa: N818
    """The server has no such model or version."""


class PermissionDenied(TritonClientError):  # noqa: N818
    """The server requires credentials, or the header of a restricted protocol."""


class Unavailable(TritonClientError):  # noqa: N818
    """The server cannot be reached, or the connection broke before the answer came."""


class ServerError(TritonClientError):
    """The server failed, or its response cannot be read."""
