"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

__all__ = ["free_port"]


def free_port() -> int:
    """Return a port of the loopback interface that is free, and stays so.

    Not one of those that the system gives to whoever asks for any, or to connections: it may be a
    while until it is used.
    """
    # Not seeded, as hypothesis seeds the shared one: workers would choose the same ports.
    for port in random.SystemRandom().sample(range(15_000, 32_000), 1000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
