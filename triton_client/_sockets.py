"""What both kinds of direct connection do with their sockets."""

from __future__ import annotations

import socket
from typing import Any, Final

__all__ = ["CONNECT_SECONDS", "TURN_SECONDS", "tune", "unsent"]

CONNECT_SECONDS: Final = 20.0
TURN_SECONDS: Final = 3.0
"""How long an address may take to answer where there are others to try."""
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))
_LOST_MILLISECONDS: Final = 20_000


def tune(connected: socket.socket) -> None:
    """Set a connection up for calls: no delays, and an end to it where the peer is gone.

    TCP's own keepalive costs the server nothing and earns no ``too_many_pings``.
    """
    if connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _LOST_MILLISECONDS)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def unsent(pieces: list[Any], sent: int) -> list[Any]:
    """Return what is left of pieces after so many bytes of them were sent."""
    for at, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[at + 1 :]]
        sent -= len(piece)
    return []
