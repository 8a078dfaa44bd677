"""Folders of the cache that hold exactly what was installed into them.

An installation records the digest of every file next to the folder. Before a server runs from it,
each file must exist with its digest, and no other file: an added module would run as well. A file
is only read again if its size, times or inode changed, since the kernel lets no process set a ctime
back. A folder that differs is installed again.

This detects damage, and changes by a process that can write the cache but not the record. A process
with all of the user's rights can forge both; a model's process has fewer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from exporter.errors import ConflictError, UnavailableError
from exporter.triton.installation import Progress, install_once

__all__ = ["Installed", "check_owner", "install_checked"]

logger = logging.getLogger("stlab")

_SCHEMA = 1
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file, link or folder: its content, and the stamp that changes when it is written."""

    content: str
    mode: int
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """A folder as it was installed.

    Attributes:
        folder: The folder.
        entries: By path below it.
    """

    folder: Path
    entries: Mapping[str, _Entry]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read a folder."""
        found = dict(_walk(folder))
        with ThreadPoolExecutor(2) as threads:
            contents = threads.map(lambda name: _content(folder / name, found[name]), found)
            return cls(
                folder,
                {
                    name: _Entry(content, status.st_mode, _stamp(status))
                    for (name, status), content in zip(found.items(), contents, strict=True)
                },
            )

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return the record of a folder; None where it is missing or not trustworthy."""
        file = _record(folder)
        try:
            if not _is_safe(file.stat()):
                return None
            record = json.loads(file.read_bytes())
            if record["schema"] != _SCHEMA:
                return None
            return cls(
                folder,
                {
                    name: _Entry(str(content), int(mode), tuple(stamp))
                    for name, (content, mode, *stamp) in record["entries"].items()
                },
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def save(self) -> None:
        """Write the record, whole or not at all."""
        file = _record(self.folder)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        entries = {name: [e.content, e.mode, *e.stamp] for name, e in self.entries.items()}
        partial.write_text(json.dumps({"schema": _SCHEMA, "entries": entries}))
        partial.chmod(0o644)
        partial.replace(file)

    def differences(self) -> list[str]:
        """Return the paths that are not as they were installed."""
        return self._compared()[0]

    def check(self) -> None:
        """Check that the folder is as it was recorded.

        Raises:
            UnavailableError: It is not.
        """
        changed = self.differences()
        if changed:
            raise UnavailableError(
                f"{self.folder / changed[0]} was changed while the export ran",
                hint="Run the export again: it installs the file again. If it happens again, find "
                "out what writes there; code of a model that is run unconfined can.",
            )

    def still_holds(self) -> bool:
        """Whether nothing differs; stamps that only a copy changed are recorded."""
        changed, fresh = self._compared()
        if not changed and fresh is not None:
            with suppress(OSError):
                fresh.save()
        return not changed

    def _compared(self) -> tuple[list[str], Installed | None]:
        """Return the paths that differ, and a record with new stamps where one is needed."""
        found = dict(_walk(self.folder))
        changed = sorted(found.keys() ^ self.entries.keys())
        both = {name: found[name] for name in found.keys() & self.entries.keys()}
        changed += [name for name in both if both[name].st_mode != self.entries[name].mode]
        read = [name for name in both if _stamp(both[name]) != self.entries[name].stamp]
        with ThreadPoolExecutor(2) as threads:
            contents = list(
                threads.map(lambda name: _content(self.folder / name, both[name]), read)
            )
        entries = dict(self.entries)
        for name, content in zip(read, contents, strict=True):
            if content != self.entries[name].content:
                changed.append(name)
            entries[name] = _Entry(content, both[name].st_mode, _stamp(both[name]))
        return changed, Installed(self.folder, entries) if read else None


def install_checked(
    folder: Path,
    build: Callable[[Path, int], None],
    *,
    usable: Callable[[Path], bool] = lambda _folder: True,
    progress: Progress | None = None,
) -> Installed:
    """Return a folder that holds what was installed into it, installing it where it does not.

    See `exporter.triton.installation.install_once` for the arguments and what is raised.
    """

    def holds(folder: Path) -> bool:
        recorded = Installed.load(folder)
        return recorded is not None and recorded.still_holds() and usable(folder)

    def install(partial: Path, lock: int) -> None:
        recorded = Installed.load(folder)
        if recorded is not None and folder.exists():
            changed = recorded.differences()
            if changed:
                logger.warning("%s is damaged (%s): installing it again", folder, changed[0])
        build(partial, lock)
        _keep_others_out(partial)
        # The record first: it is only valid for the folder that is renamed next.
        Installed(folder, Installed.of(partial).entries).save()

    install_once(folder, install, usable=holds, progress=progress)
    recorded = Installed.load(folder)
    if recorded is None:
        raise UnavailableError(
            f"the record of what is installed in {folder} cannot be read",
            hint="Another process removed it just now; run the command again.",
        )
    return recorded


def check_owner(folder: Path) -> None:
    """Reject a cache that other users can write, since a server runs its files.

    Raises:
        ConflictError: Other users can write it.
    """
    with suppress(OSError):  # whatever else is wrong with it, installing says
        status = folder.stat()
        whose = "belongs to another user" if status.st_uid not in {0, os.geteuid()} else ""
        if whose or status.st_mode & stat.S_IWOTH:
            raise ConflictError(
                f"stlab's cache {folder} {whose or 'can be written by everybody'}, "
                "and programs in it are run",
                hint="Set STLAB_CACHE to a folder of your own that no other user can write"
                + _way_out(folder, status),
            )


def _way_out(folder: Path, status: os.stat_result) -> str:
    if status.st_uid == os.geteuid():
        return f", or take the right away: chmod go-w {folder}"
    if status.st_mode & stat.S_IWOTH:
        # A volume such as an emptyDir of Kubernetes.
        return f", such as {folder / 'stlab'}, which stlab makes"
    return ""


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.files.json")


def _is_safe(status: os.stat_result) -> bool:
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & stat.S_IWOTH


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a folder, links as they are."""
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    name = f"{inside}{entry.name}"
                    yield name, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
        except FileNotFoundError:
            continue


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(status.st_mode):
        return ()  # what is in it has entries of its own
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _content(path: Path, status: os.stat_result) -> str:
    try:
        if stat.S_ISLNK(status.st_mode):
            return f"-> {path.readlink()}"
        if not stat.S_ISREG(status.st_mode):
            return "folder" if stat.S_ISDIR(status.st_mode) else "neither file nor folder"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error}"


def _keep_others_out(folder: Path) -> None:
    """Take away other users' right to write, whatever the umask was."""
    for name, status in _walk(folder):
        if status.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(status.st_mode):
            (folder / name).chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
