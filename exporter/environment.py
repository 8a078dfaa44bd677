"""What the processes of an export start with, and how they end."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

__all__ = ["bare_environment", "collect_seldom", "leave"]

# What a computation may need of ours; everything else may be a secret.
_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH",
     "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
     "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"}
)  # fmt: skip
_PREFIXES = ("OMP_", "MKL_", "MALLOC_", "GLIBC_")


def bare_environment() -> dict[str, str]:
    """Return what a model's process gets of this process's environment: no credentials."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }


def collect_seldom() -> None:
    """Let the collector run more seldom than by default.

    Importing MLflow and torch makes a million objects that all stay, and looking through them again
    and again takes a third of a short command's time.
    """
    gc.set_threshold(200_000, 20, 20)


def leave(code: int) -> NoReturn:
    """End the process at once: taking down MLflow or torch in order takes most of a second."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
