"""The embedded tritonserver in the place of NVIDIA's image's."""

from __future__ import annotations

import sys
from pathlib import Path

from exporter.triton.runtime import LAUNCHER_MARK

# Of release 26.04; the embedded server is older.
TOO_NEW = "--allow-client-shm=false"


def loopback_flags(**ports: int) -> list[str]:
    """Flags that let a server listen on loopback alone, on ``http``, ``grpc``, ``metrics``."""
    return [
        flag
        for name, port in ports.items()
        for flag in (f"--{name}-port={port}", f"--{name}-address=127.0.0.1")
    ]


def embedded_tritonserver(folder: Path) -> Path:
    """Write a program ``tritonserver``, which leaves out what an older release does not know.

    Args:
        folder: Where, to be put on PATH.
    """
    program = folder / "tritonserver"
    launcher = Path(sys.executable).parent / "tritonserver"
    program.write_text(
        f"#!/bin/sh\n# {LAUNCHER_MARK}: it is no server of the machine's own\n"
        f'for flag in "$@"; do shift; [ "$flag" = {TOO_NEW} ] || set -- "$@" "$flag"; done\n'
        f'exec {launcher} "$@"\n'
    )
    program.chmod(0o755)
    return program
