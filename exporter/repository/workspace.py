"""The folder beside a repository where candidates are prepared, and the lock that guards it.

Every folder below a repository's root is a model to Triton, dot-folders included, so this one lies
beside the root, on the same filesystem: what is ready moves in by one rename.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ConflictError
from exporter.repository.files import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Workspace"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Workspace:
    """A private folder beside the repository, while this process holds the model's lock.

    Attributes:
        path: An empty folder on the repository's filesystem.
    """

    path: Path

    @classmethod
    @contextmanager
    def open(cls, root: Path, model: str) -> Iterator[Workspace]:
        """Take the lock of a model, clean up what a killed run left, and give it back at the end.

        The lock is the kernel's (flock): it ends with its holder, however that ends.

        Raises:
            ConflictError: Another exporter works on the model; it is named.
        """
        beside = root.resolve().parent / f".{root.resolve().name}.stlab"
        with translated(root):
            folder = beside / model
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("a+")
        with lock:
            with translated(root):
                _take(lock.fileno(), folder / "lock", model)
            try:
                with translated(root):
                    for leftover in folder.glob("work-*"):
                        shutil.rmtree(leftover, ignore_errors=True)
                    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
                with _room(root):
                    yield cls(work)
            finally:
                for leftover in folder.glob("work-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                os.ftruncate(lock.fileno(), 0)


@contextmanager
def _room(root: Path) -> Iterator[None]:
    """Explain a full disk, whoever met it first in this folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with translated(root):
            raise


def _take(descriptor: int, path: Path, model: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = path.read_text() or "another process"
        raise ConflictError(
            f"another export of '{model}' to this repository is running ({holder})",
            hint="Wait for it to end, then run the same command again.",
        ) from error
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    os.ftruncate(descriptor, 0)
    os.write(descriptor, holder.encode())
