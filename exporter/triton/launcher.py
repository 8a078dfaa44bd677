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
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from exporter.errors import StlabError
from exporter.text.terminal import block
from exporter.triton.flags import (
    CONTROL,
    flag_names,
    flag_value,
    key_flags,
    local_flags,
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
    """Write ``tritonserver`` into the ``bin`` of a virtual environment that has this package.

    Returns:
        The launcher, or None where another tritonserver is there or on ``PATH``.
    """
    launcher = bin_directory / "tritonserver"
    ours = not os.path.lexists(launcher)
    with suppress(OSError):
        ours = ours or LAUNCHER_MARK in launcher.read_text(errors="replace")[:4096]
    if not ours or find_tritonserver() is not None:
        return None
    partial = launcher.with_name(f".tritonserver-{os.getpid()}")
    partial.write_text(_SCRIPT.format(mark=LAUNCHER_MARK, python=sys.executable))
    partial.chmod(0o755)
    partial.replace(launcher)
    return launcher


def main() -> NoReturn:
    """Become tritonserver, with the arguments of this process."""
    given = sys.argv[1:]
    try:
        target = release(os.environ.get("STLAB_TRITON_RELEASE") or DEFAULT_RELEASE)
        runtime = ensure_runtime(target, progress=_say)
        command = [str(runtime.executable), *merge_flags(local_flags(runtime), given)]
        hidden: dict[str, str] = {}
        if flag_names(given) - {"--help"}:
            command, hidden = _closed(command, given)
    except StlabError as error:
        sys.stderr.write(f"tritonserver: {block(error.message)}\n{block(error.hint)}\n")
        sys.exit(error.exit_code)
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    execute(command, {**kept, **runtime.environment, **hidden})


def _closed(command: Sequence[str], given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command with a key for the closed APIs, and the variables that hide it."""
    key = claim_key(command, say=_say)
    key.hand_over()
    # In the other modes nothing is loaded by a request, and everybody may list the models.
    explicit = flag_value(given, "--model-control-mode", "none") == "explicit"
    closed = CONTROL if explicit else [api for api in CONTROL if api != "model-repository"]
    return hide([*command, *key_flags(key.value, given, closed)])


def _say(text: str) -> None:
    sys.stderr.write(f"{block(text)}\n")


if __name__ == "__main__":
    main()
