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
from exporter.repository.atomic_files import sync, translate_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FORMER_IDENTITY",
    "IDENTITY",
    "Workspace",
    "explain_full_disk",
    "has_leftovers",
    "read_identity",
]

IDENTITY = ".identity"
"""Where a repository's name is kept; no model's name begins with a dot."""

FORMER_IDENTITY = "identity"
"""Where it was kept before, which is also where a model called ``identity`` has its lock."""

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
        with translate_errors(root):
            _beside(root).mkdir(parents=True, exist_ok=True)
            _move_identity(root, make_room=model == FORMER_IDENTITY)
            folder.mkdir(exist_ok=True)
            lock = (folder / "lock").open("a+")
        with lock:
            with translate_errors(root):
                _take(lock.fileno(), folder / "lock", model)
            try:
                with translate_errors(root):
                    for leftover in folder.glob("work-*"):
                        shutil.rmtree(leftover, ignore_errors=True)
                    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
                    _name(root, work)
                with explain_full_disk(root):
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
    for name in (IDENTITY, FORMER_IDENTITY):
        path = _beside(root) / name
        if path.is_file():
            return path.read_text(errors="replace").strip()
    return ""


def _move_identity(root: Path, *, make_room: bool) -> None:
    """Keep a repository's name where no model's folder can be.

    The former file stays for earlier releases, except where the model's own folder needs its name.
    """
    former, path = _beside(root) / FORMER_IDENTITY, _beside(root) / IDENTITY
    if not former.is_file():
        return
    # Another exporter may do the same at this moment.
    with suppress(FileExistsError, FileNotFoundError):
        os.link(former, path)
    if make_room and path.is_file():
        sync(path.parent)
        with suppress(FileNotFoundError, IsADirectoryError):
            former.unlink()


def _name(root: Path, work: Path) -> None:
    """Give a repository its name, unless it has one."""
    if not read_identity(root):
        new = work / IDENTITY
        new.write_text(f"{uuid.uuid4().hex}\n")
        sync(new)
        with suppress(FileExistsError):
            os.link(new, _beside(root) / IDENTITY)
        new.unlink()


def _beside(root: Path) -> Path:
    whole = root.resolve()
    return whole.parent / f".{whole.name}.stlab"


@contextmanager
def explain_full_disk(root: Path) -> Iterator[None]:
    """Explain a full disk, whoever met it first in this folder.

    Raises:
        UnavailableError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with translate_errors(root):
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
