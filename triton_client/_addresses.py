"""Where a server can be reached: the addresses of its name, in turn."""

from __future__ import annotations

import os
import socket
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

__all__ = ["Address", "Addresses", "Place", "place_of"]

_RESOLVE_SECONDS: Final = 30.0
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to: what ``socket.socket`` and ``connect`` take."""

    family: int
    sockaddr: Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is.

    Attributes:
        host: A name or an address; empty for a Unix socket.
        port: The port, or the socket's path.
        authority: What the server is called in requests.
        pinned: Whether to stay with one address of the name for as long as it answers.
    """

    host: str
    port: str | int
    authority: str
    pinned: bool = False


def place_of(target: str) -> Place | None:
    """Return where a gRPC target is.

    ``None`` for one that is grpcio's to reach: by another resolver, or through a proxy.
    """
    if target.startswith("unix:"):
        return Place("", target.removeprefix("unix:").removeprefix("//"), "localhost")
    if not target.startswith("dns:///"):
        return None
    authority = target.removeprefix("dns:///")
    host, separator, port = authority.rpartition(":")
    if not separator or not port.isdecimal() or (":" in host) != host.startswith("["):
        return None
    host = host.strip("[]")
    if host not in _LOCAL and any(os.environ.get(name) for name in _PROXIES):
        return None
    return Place(host, int(port), authority)


class Addresses:
    """The addresses of one host, every one in its turn.

    Thread-safe without a lock: what two threads do at once is done twice at worst.

    Args:
        place: The host.
    """

    __slots__ = ("_doubted", "_found", "_looked_up", "_pinned", "_refused", "host", "port")

    def __init__(self, place: Place) -> None:
        self.host = place.host
        self.port = place.port
        self._pinned = place.pinned
        self._found: deque[Address] = deque()
        self._looked_up = 0.0
        self._doubted = False
        self._refused: set[Address] = set()
        if not self.host:
            self._found.append(Address(socket.AF_UNIX, self.port))

    @property
    def stale(self) -> bool:
        """Whether the name should be looked up before the next connection."""
        if not self.host:
            return False
        return not self._found or (
            self._doubted and monotonic() > self._looked_up + _RESOLVE_SECONDS
        )

    def learn(self, found: list[Any]) -> None:
        """Take what ``getaddrinfo`` returned."""
        self._found = deque(
            dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found)
        )
        self._looked_up, self._doubted, self._refused = monotonic(), False, set()

    def turn(self) -> list[Address]:
        """Return the addresses in the order to try them; another one first each time, or pinned."""
        found = self._found
        if len(found) == 1:
            return list(found)
        if not self._pinned:
            found.rotate(-1)
        # Stable: those that refused come last.
        return sorted(found, key=self._refused.__contains__)

    def failed(self, address: Address) -> None:
        """Note that nothing answers at an address: it is tried last until the next look-up."""
        self._refused.add(address)
        self._doubted = True
        if self.host and self._refused.issuperset(self._found):
            # None of them answers: the name may stand for others by now.
            self._found = deque()

    def broke(self) -> None:
        """Note that a connection ended, as when a server is replaced."""
        self._doubted = True

    def works(self, address: Address) -> None:
        """Note that an address answers."""
        self._refused.discard(address)
