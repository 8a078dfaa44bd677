"""The flags that every tritonserver of ours gets, and how further flags join them.

A flag of the user's wins over ours of the same name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.triton.runtime import Runtime

__all__ = ["LOOPBACK", "flag_names", "merge_flags", "safe_flags"]

LOOPBACK = (
    "--http-address=127.0.0.1",
    "--grpc-address=127.0.0.1",
    "--metrics-address=127.0.0.1",
)
"""Keeps every endpoint to this machine; tritonserver's own default is every network there is."""

# Flags that are the same thing under another name.
_SAME = {
    "--strict-model-config": "--disable-auto-complete-config",
    "--model-store": "--model-repository",
}


def safe_flags(runtime: Runtime) -> list[str]:
    """Return the flags that keep a server private and its configurations complete.

    ``--allow-client-shm=false`` appears in release 26.04 and the embedded server does not know it;
    the loopback address is what keeps strangers off its shared memory.

    Args:
        runtime: The server to be started.
    """
    flags = [
        *LOOPBACK,
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        # Percentiles beside the sums that Triton counts anyway.
        "--metrics-config=summary_latencies=true",
        # More threads than cores only take turns; one alone would be blocked by a model's load.
        f"--http-thread-count={max(2, min(8, os.cpu_count() or 2))}",
    ]
    if runtime.backend_directory is not None:
        flags.append(f"--backend-directory={runtime.backend_directory}")
    return flags


def flag_names(arguments: Sequence[str]) -> set[str]:
    """Return the names of the flags in ``arguments``; one flag's two names count as both."""
    names = {argument.split("=", 1)[0] for argument in arguments if argument.startswith("--")}
    return names | {_SAME[name] for name in names if name in _SAME}


def merge_flags(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return ``theirs`` after those of ``ours`` that they do not name.

    Args:
        ours: Flags of the form ``--name=value`` or ``--name``.
        theirs: Anything tritonserver takes, also ``--name value`` in two arguments.
    """
    # These add up, and the last one of a setting wins.
    named = flag_names(theirs) - {"--backend-config", "--metrics-config"}
    kept = [flag for flag in ours if flag.split("=", 1)[0] not in named]
    return [*kept, *theirs]
