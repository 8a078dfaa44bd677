"""How a client and its models are pickled and copied: as the arguments they were made with.

Connections belong to one process, so a client that comes out of a pickle opens its own.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any, NoReturn, Self

__all__ = ["Origin", "ProcessBound", "renamed"]


def renamed(arguments: dict[str, Any], old: str, new: str) -> Any:
    """Return an argument that may have been given by its former name, and keep the new one."""
    value = arguments.pop(old)
    if value is not None:
        warnings.warn(f"{old}= is {new}= now", DeprecationWarning, stacklevel=3)
        arguments[new] = value
    return arguments[new]


class Origin:
    """The arguments that a client was made with; without a client, one is made when needed."""

    __slots__ = ("_arguments", "_client", "_kind")

    def __init__(self, kind: type[Any], arguments: dict[str, Any], client: Any = None) -> None:
        self._kind = kind
        self._arguments = arguments
        self._client = None if client is None else weakref.ref(client)

    def client(self) -> Any:
        """Return the client, the same one for all that were pickled together."""
        client = None if self._client is None else self._client()
        if client is None:
            client = self._kind(**self._arguments)
            client._origin = self  # noqa: SLF001 - its own
            self._client = weakref.ref(client)
        return client

    def __reduce__(self) -> tuple[Any, ...]:
        for name in ("credentials", "interceptors"):
            if self._arguments.get(name):
                raise TypeError(
                    f"a client with {name}= cannot be pickled; make one in each process, or give "
                    "tls= with files in place of credentials="
                )
        return Origin, (self._kind, self._arguments)

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        # What the application passed, such as event hooks, is shared by the copies.
        return type(self)(self._kind, self._arguments)


class ProcessBound:
    """What belongs to its process and its connection, and is neither pickled nor copied."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} belongs to its process and its server; pickle the client or "
            "the model instead, and begin another one there"
        )
