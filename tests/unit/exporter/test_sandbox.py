"""A process without network, seen from inside."""

from __future__ import annotations

import subprocess
import sys

INSIDE = """
import os, socket, subprocess, sys
from exporter.sandbox import cut_network
cut_network()
left, right = socket.socketpair()
left.sendall(b"pipes work")
assert right.recv(10) == b"pipes work"
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
    except PermissionError:
        continue
    sys.exit(f"{family} is open")
child = "import socket; socket.socket()"
done = subprocess.run([sys.executable, "-c", child], stderr=subprocess.PIPE, text=True)
sys.exit(0 if "PermissionError" in done.stderr else "a child has the network")
"""


def test_no_socket_is_to_be_had() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INSIDE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
