"""The embedded tritonserver in the place of NVIDIA's image's."""

from __future__ import annotations

import sys
from pathlib import Path

from exporter.triton.runtime import LAUNCHER_MARK

# Of release 26.04; the embedded server is older.
TOO_NEW = "--allow-client-shm=false"


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
