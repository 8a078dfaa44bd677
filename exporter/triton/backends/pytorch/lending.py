"""Make torch importable from a folder that nothing else may be imported from.

The server's Python has an environment of its own, with an old numpy. torch works with it and is
imported from the environment that started the server, whose newer numpy must not be. An own
installation of torch would take hundreds of megabytes.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from ..shared.errors import UnavailableError

__all__ = ["lend_torch"]

# torch, and what it imports by itself.
_LENT = frozenset(
    {"torch", "torchgen", "functorch", "typing_extensions", "filelock", "fsspec", "jinja2",
     "markupsafe", "mpmath", "networkx", "sympy"}
)  # fmt: skip


class _Lender:
    """Finds what is lent, and nothing else."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the place of a package; see `importlib.abc.MetaPathFinder`."""
        if path is not None or name not in _LENT:
            return None
        return PathFinder.find_spec(name, [self._folder], target)


def lend_torch() -> None:
    """Make torch importable; one in the server's environment is preferred.

    Raises:
        UnavailableError: It is missing.
    """
    folder = os.environ.get("STLAB_TORCH", "")
    if folder:
        sys.meta_path.append(_Lender(folder))
    # A thread that spins while it waits takes its core from the server and the other models.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A million lasting objects, which the collector would visit again and again.
    gc.disable()
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            f"the pytorch backend needs torch, which stlab's environment lacks: {error}"
        ) from error
    finally:
        gc.enable()
