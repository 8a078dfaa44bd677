"""A process's environment variables, garbage collector, temporary folders and exit."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from exporter.errors import UsageError

__all__ = [
    "exit_now",
    "load_dotenv",
    "minimal_environment",
    "raise_gc_thresholds",
    "temporary_folder",
]

_at_exit = ExitStack()
atexit.register(_at_exit.close)

# What a computation may need; everything else may be a secret.
_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH",
     "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
     "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "STLAB_CACHE"}
)  # fmt: skip
_PREFIXES = ("OMP_", "MKL_", "OPENBLAS_", "MALLOC_", "GLIBC_")


def minimal_environment() -> dict[str, str]:
    """Return the environment of a model's process: a part of this one's, without credentials."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }


def load_dotenv() -> None:
    """Read ``.env`` in the working directory; variables that are set already stay."""
    if Path(".env").is_file():
        from dotenv import load_dotenv as load

        try:
            load(Path(".env"), override=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f".env cannot be read: {error}", hint="Write it as lines of NAME=value, in UTF-8."
            ) from error


def raise_gc_thresholds() -> None:
    """Make the garbage collector run less often than by default.

    Importing MLflow and torch makes a million lasting objects, and visiting them again and again
    takes a third of a short command's time.
    """
    gc.set_threshold(200_000, 20, 20)


def temporary_folder(prefix: str) -> Path:
    """Return a new folder that is removed when this process ends or calls `exit_now`."""
    path = tempfile.mkdtemp(prefix=prefix)
    _at_exit.callback(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def exit_now(code: int) -> NoReturn:
    """End the process at once: an orderly shutdown of MLflow or torch takes most of a second."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    _at_exit.close()
    os._exit(code)
