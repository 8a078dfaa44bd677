"""The environment of processes that have to do with a model that nobody has vouched for."""

from __future__ import annotations

import os

__all__ = ["bare_environment"]

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
