"""A command that is ``tritonserver``: ``python -m exporter.triton.launcher``.

It passes its arguments on. Unless they set them, it adds the backend directory and the loopback
addresses to listen on. Shared memory, tracing and logging need a key, and so does the model
repository in explicit mode: see `exporter.triton.keys.claim_key`. The target release is
``STLAB_TRITON_RELEASE`` or the default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from exporter.errors import StlabError
from exporter.text.terminal import block
from exporter.triton.flags import (
    CONTROL,
    LOOPBACK,
    flag_names,
    flag_value,
    key_flags,
    merge_flags,
)
from exporter.triton.hidden_flags import execute, hide
from exporter.triton.keys import claim_key
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import LAUNCHER_MARK, ensure_runtime, find_tritonserver

__all__ = ["install_launcher", "main"]

# Of no use to a server.
_SECRETS = (
    "STLAB_TRITON_KEY",
    *(f"MLFLOW_TRACKING_{n}" for n in ("USERNAME", "PASSWORD", "TOKEN")),
)

# Run by the interpreter of its own environment, which finds the package from anywhere.
_SCRIPT = """#!/bin/sh
# {mark}: runs the embedded tritonserver with the flags that it is given.
exec "{python}" -P -m exporter.triton.launcher "$@"
"""


def install_launcher(bin_directory: Path) -> Path | None:
    """Write ``<bin_directory>/tritonserver``, unless there is a real one.

    Args:
        bin_directory: Of a virtual environment in which this package is installed.

    Returns:
        The launcher, or None where another tritonserver is there or on ``PATH``.
    """
    launcher = bin_directory / "tritonserver"
    if launcher.is_symlink() or launcher.exists():
        try:
            ours = LAUNCHER_MARK in launcher.read_text(errors="replace")[:4096]
        except OSError:
            ours = False
        if not ours:
            return None
    if find_tritonserver() is not None:
        return None
    script = _SCRIPT.format(mark=LAUNCHER_MARK, python=sys.executable)
    partial = launcher.with_name(f".tritonserver-{os.getpid()}")
    partial.write_text(script)
    partial.chmod(0o755)
    partial.replace(launcher)
    return launcher


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Become tritonserver.

    Args:
        arguments: Its flags; those of this process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        target = release(os.environ.get("STLAB_TRITON_RELEASE") or DEFAULT_RELEASE)
        runtime = ensure_runtime(target, progress=_say)
    except StlabError as error:
        _fail(error)
    ours = list(LOOPBACK)
    if runtime.backend_directory is not None:
        ours.append(f"--backend-directory={runtime.backend_directory}")
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    environment = {**kept, **runtime.environment}
    command = [str(runtime.executable), *merge_flags(ours, given)]
    if flag_names(given) - {"--help"}:
        command, hidden = _closed(command, given)
        environment |= hidden
    execute(command, environment)


def _closed(command: list[str], given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command with a key for the closed APIs, and the variables that hide it."""
    try:
        key = claim_key(command, say=_say)
    except StlabError as error:
        _fail(error)
    key.hand_over()
    # In the other modes nothing is loaded by a request, and everybody may list the models.
    explicit = flag_value(given, "--model-control-mode", "none") == "explicit"
    closed = CONTROL if explicit else [api for api in CONTROL if api != "model-repository"]
    return hide([*command, *key_flags(key.value, given, closed)])


def _say(text: str) -> None:
    sys.stderr.write(f"{block(text)}\n")


def _fail(error: StlabError) -> NoReturn:
    sys.stderr.write(f"tritonserver: {block(error.message)}\n{block(error.hint)}\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
