"""The flags that stlab starts every tritonserver with, merged with the user's flags.

A user's flag replaces the one of the same name, except for those that restrict an API: an API that
the user's flags leave open stays closed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from exporter.triton.runtime import Runtime

__all__ = [
    "CONTROL",
    "KEY_NAME",
    "flag_names",
    "flag_value",
    "key_flags",
    "local_flags",
    "merge_flags",
    "safe_flags",
]

CONTROL = ("model-repository", "shared-memory", "trace", "logging")
"""The APIs that need the key: they load models, whose files may be code, or write memory and files.

Inference, health, metadata, configurations and statistics are open to every client.
"""

KEY_NAME = "stlab"
"""The name of the key: a header ``triton-grpc-protocol-stlab``, by HTTP ``stlab``."""

_RESTRICT = ("--grpc-restricted-protocol", "--http-restricted-api")
# Each of these adds to what was given before; of one setting, the last counts.
_ADDED_UP = {"--backend-config", "--metrics-config", *_RESTRICT}

# Flags that are the same thing under another name.
_SAME = {
    "--strict-model-config": "--disable-auto-complete-config",
    "--model-store": "--model-repository",
}


def local_flags(runtime: Runtime) -> list[str]:
    """Return the flags that bind every endpoint to this machine, and name the backends.

    tritonserver's default is every network. Loopback is no boundary inside the machine: every user
    reaches it, and so does every web page in a browser on it, by requests that need no permission
    of the server. What they may not do needs a key: see `CONTROL`.
    """
    flags = [f"--{endpoint}-address=127.0.0.1" for endpoint in ("http", "grpc", "metrics")]
    if runtime.backend_directory is not None:
        flags.append(f"--backend-directory={runtime.backend_directory}")
    return flags


def safe_flags(runtime: Runtime) -> list[str]:
    """Return the flags that keep a server private and its configurations complete.

    Those of `key_flags` belong with them wherever the server can be reached by others.
    """
    flags = [
        *local_flags(runtime),
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        # Percentiles, in addition to Triton's sums.
        "--metrics-config=summary_latencies=true",
        # More threads than cores only take turns; one alone would be blocked by a model's load.
        f"--http-thread-count={max(2, min(8, os.cpu_count() or 2))}",
    ]
    if runtime.has_flag("--allow-client-shm"):
        flags.append("--allow-client-shm=false")
    return flags


def key_flags(key: str, theirs: Sequence[str] = (), closed: Sequence[str] = CONTROL) -> list[str]:
    """Return the flags that close APIs to everybody without a key.

    The user's flags may close some APIs with keys of their own: tritonserver takes each API once.
    """
    flags = []
    for name in _RESTRICT:
        taken = [api for v in _values(theirs, name) for api in v.partition(":")[0].split(",")]
        left = [api for api in closed if api not in taken]
        if left:
            flags.append(f"{name}={','.join(left)}:{KEY_NAME}={key}")
    return flags


def flag_value(arguments: Sequence[str], name: str, default: str) -> str:
    """Return the last value of a flag, which is the one that counts."""
    return [default, *_values(arguments, name)][-1]


def flag_names(arguments: Sequence[str]) -> set[str]:
    """Return the names of the flags in ``arguments``; one flag's two names count as both."""
    names = {argument.split("=", 1)[0] for argument in arguments if argument.startswith("--")}
    return names | {_SAME[name] for name in names if name in _SAME}


def merge_flags(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return those of ``ours`` that ``theirs`` do not replace, then ``theirs``.

    Only ``theirs`` may have ``--name value`` in two arguments.
    """
    named = flag_names(theirs) - _ADDED_UP
    kept = [flag for flag in ours if flag.split("=", 1)[0] not in named]
    return [*kept, *theirs]


def _values(arguments: Sequence[str], name: str) -> list[str]:
    """Return every value of a flag, from ``--name=value`` and ``--name value``."""
    values = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        found, equals, value = argument.partition("=")
        if found == name:
            values.append(value if equals else following)
    return values
