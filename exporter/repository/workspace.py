"""The staging folder next to a local repository, and its lock.

Triton takes every folder below a repository's root for a model, dot-folders included. So staging is
next to the root, on the same filesystem: a complete version is moved in by one rename.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.bounded_text import UNFIT, parse_json
from exporter.errors import ConflictError
from exporter.repository.atomic_files import sync, translate_errors
from exporter.system.processes import ProcessId

__all__ = [
    "FORMER_IDENTITY",
    "IDENTITY",
    "explain_full_disk",
    "has_leftovers",
    "open_workspace",
    "read_identity",
]

IDENTITY = ".identity"
"""The file with a repository's identifier; no model's name begins with a dot."""

FORMER_IDENTITY = "identity"
"""Its name in earlier releases, which is also the folder of a model called ``identity``."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


@contextmanager
def open_workspace(root: Path, model: str) -> Iterator[Path]:
    """Hold a model's lock, and provide an empty folder on the repository's filesystem.

    What a killed run left is deleted. The lock is the kernel's (flock), which releases it when the
    holder ends.

    Raises:
        ConflictError: Another exporter holds the lock; the message names it.
    """
    folder = _staging(root) / model
    with translate_errors(root):
        _staging(root).mkdir(parents=True, exist_ok=True)
        _move_identity(root, make_room=model == FORMER_IDENTITY)
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("a+")
    with lock:
        with translate_errors(root):
            _lock(lock.fileno(), folder / "lock", model)
        try:
            with translate_errors(root):
                for leftover in folder.glob("work-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
                _create_identity(root, work)
            with explain_full_disk(root):
                yield work
        finally:
            for leftover in folder.glob("work-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            os.ftruncate(lock.fileno(), 0)


def has_leftovers(root: Path, model: str) -> bool:
    """Whether a workspace exists: of a killed command, or of a running one."""
    return any((_staging(root) / model).glob("work-*"))


def read_identity(root: Path) -> str:
    """Return the identifier that a repository got at its first use; empty before."""
    for name in (IDENTITY, FORMER_IDENTITY):
        path = _staging(root) / name
        if path.is_file():
            return path.read_text(errors="replace").strip()
    return ""


def _move_identity(root: Path, *, make_room: bool) -> None:
    """Move the identifier to a file whose name no model can have.

    The former file stays for earlier releases, unless a model's folder needs its name.
    """
    former, path = _staging(root) / FORMER_IDENTITY, _staging(root) / IDENTITY
    if not former.is_file():
        return
    # Another exporter may do the same concurrently.
    with suppress(FileExistsError, FileNotFoundError):
        os.link(former, path)
    if make_room and path.is_file():
        sync(path.parent)
        with suppress(FileNotFoundError, IsADirectoryError):
            former.unlink()


def _create_identity(root: Path, work: Path) -> None:
    """Give a repository its identifier, unless it has one."""
    if not read_identity(root):
        new = work / IDENTITY
        new.write_text(f"{uuid.uuid4().hex}\n")
        sync(new)
        with suppress(FileExistsError):
            os.link(new, _staging(root) / IDENTITY)
        new.unlink()


def _staging(root: Path) -> Path:
    resolved = root.resolve()
    return resolved.parent / f".{resolved.name}.stlab"


@contextmanager
def explain_full_disk(root: Path) -> Iterator[None]:
    """Translate the error of a full disk, whatever code of the block raises it.

    Raises:
        UnavailableError: The disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with translate_errors(root):
            raise


def _lock(descriptor: int, path: Path, model: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConflictError(
            f"another export of '{model}' to this repository is running ({_holder(path)})",
            hint="Wait for it to end, then run the same command again.",
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(ProcessId.this_process().as_dict()).encode())


def _holder(path: Path) -> str:
    try:
        return str(ProcessId.read(parse_json(path)))
    except UNFIT:
        return "another process"
