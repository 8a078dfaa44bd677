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
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ConflictError
from exporter.repository.files import sync, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Workspace", "has_leftovers", "read_identity", "room"]

_IDENTITY = "identity"
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
        folder = _beside(root) / model
        with translated(root):
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
                    _name(root, work)
                with room(root):
                    yield cls(work)
            finally:
                for leftover in folder.glob("work-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                os.ftruncate(lock.fileno(), 0)


def has_leftovers(root: Path, model: str) -> bool:
    """Whether a workspace lies there: of a killed run, or of one that is under way."""
    return any((_beside(root) / model).glob("work-*"))


def read_identity(root: Path) -> str:
    """Return the name that a repository got when it was first used; empty before."""
    try:
        return (_beside(root) / _IDENTITY).read_text().strip()
    except FileNotFoundError:
        return ""


def _name(root: Path, work: Path) -> None:
    """Give a repository its name, unless it has one."""
    if not read_identity(root):
        (work / _IDENTITY).write_text(f"{uuid.uuid4().hex}\n")
        sync(work / _IDENTITY)
        with suppress(FileExistsError):
            os.link(work / _IDENTITY, _beside(root) / _IDENTITY)
        (work / _IDENTITY).unlink()


def _beside(root: Path) -> Path:
    whole = root.resolve()
    return whole.parent / f".{whole.name}.stlab"


@contextmanager
def room(root: Path) -> Iterator[None]:
    """Explain a full disk, whoever met it first in this folder.

    Raises:
        UnavailableError: The disk is full.
    """
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
