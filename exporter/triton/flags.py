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
    "LOOPBACK",
    "flag_names",
    "flag_value",
    "flag_values",
    "key_flags",
    "merge_flags",
    "safe_flags",
]

LOOPBACK = (
    "--http-address=127.0.0.1",
    "--grpc-address=127.0.0.1",
    "--metrics-address=127.0.0.1",
)
"""Flags that bind every endpoint to this machine; tritonserver's default is every network.

Loopback is no boundary inside the machine: every user reaches it, and so does every web page in a
browser on it, by requests that need no permission of the server. What they may not do needs a key:
see `CONTROL`.
"""

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


def safe_flags(runtime: Runtime) -> list[str]:
    """Return the flags that keep a server private and its configurations complete.

    Those of `key_flags` belong with them wherever the server can be reached by others.

    Args:
        runtime: The server to be started.
    """
    flags = [
        *LOOPBACK,
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        # Percentiles, in addition to Triton's sums.
        "--metrics-config=summary_latencies=true",
        # More threads than cores only take turns; one alone would be blocked by a model's load.
        f"--http-thread-count={max(2, min(8, os.cpu_count() or 2))}",
    ]
    if runtime.backend_directory is not None:
        flags.append(f"--backend-directory={runtime.backend_directory}")
    if runtime.has_flag("--allow-client-shm"):
        flags.append("--allow-client-shm=false")
    return flags


def key_flags(key: str, theirs: Sequence[str] = (), closed: Sequence[str] = CONTROL) -> list[str]:
    """Return the flags that close APIs to everybody without a key.

    Args:
        key: Its value; the name is `KEY_NAME`.
        theirs: The user's flags, which may close some APIs with keys of their own: tritonserver
            takes each API once.
        closed: The APIs.
    """
    flags = []
    for name in _RESTRICT:
        taken = {
            api for value in flag_values(theirs, name) for api in value.partition(":")[0].split(",")
        }
        left = [api for api in closed if api not in taken]
        if left:
            flags.append(f"{name}={','.join(left)}:{KEY_NAME}={key}")
    return flags


def flag_values(arguments: Sequence[str], name: str) -> list[str]:
    """Return every value of a flag, from ``--name=value`` and ``--name value``."""
    values = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == name:
            values.append(following)
        elif argument.startswith(f"{name}="):
            values.append(argument.partition("=")[2])
    return values


def flag_value(arguments: Sequence[str], name: str, default: str) -> str:
    """Return the last value of a flag, which is the one that counts."""
    return [default, *flag_values(arguments, name)][-1]


def flag_names(arguments: Sequence[str]) -> set[str]:
    """Return the names of the flags in ``arguments``; one flag's two names count as both."""
    names = {argument.split("=", 1)[0] for argument in arguments if argument.startswith("--")}
    return names | {_SAME[name] for name in names if name in _SAME}


def merge_flags(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return those of ``ours`` that ``theirs`` do not replace, then ``theirs``.

    Args:
        ours: Flags of the form ``--name=value`` or ``--name``.
        theirs: Anything tritonserver takes, also ``--name value`` in two arguments.
    """
    named = flag_names(theirs) - _ADDED_UP
    kept = [flag for flag in ours if flag.split("=", 1)[0] not in named]
    return [*kept, *theirs]
