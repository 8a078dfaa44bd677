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

# The content, and the mode with numbers that change when a file is written.
Entry = tuple[str, tuple[int, ...]]

_SCHEMA = 1
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Installed:
    """A folder as it was installed.

    Attributes:
        folder: The folder.
        entries: By path below it.
    """

    folder: Path
    entries: Mapping[str, Entry]

    @classmethod
    def of(cls, folder: Path, known: Mapping[str, Entry] | None = None) -> Self:
        """Read a folder, but for the content of files whose numbers are known."""
        known, found = known or {}, dict(_walk(folder))
        new = [name for name in found if name not in known or known[name][1] != found[name]]
        with ThreadPoolExecutor(2) as threads:
            read = threads.map(lambda name: _content(folder / name, found[name][0]), new)
            contents = dict(zip(new, read, strict=True))
        entries = {name: (contents.get(name) or known[name][0], found[name]) for name in found}
        return cls(folder, entries)

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
            read = record["entries"].items()
            return cls(folder, {name: (str(text), tuple(map(int, n))) for name, (text, *n) in read})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def save(self) -> None:
        """Write the record, whole or not at all."""
        file = _record(self.folder)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        entries = {name: [content, *numbers] for name, (content, numbers) in self.entries.items()}
        partial.write_text(json.dumps({"schema": _SCHEMA, "entries": entries}))
        partial.chmod(0o644)
        partial.replace(file)

    def differences(self) -> list[str]:
        """Return the paths whose content or mode is not as installed; record new stamps if none."""
        now = Installed.of(self.folder, self.entries)
        was, found = (
            {name: (content, numbers[:1]) for name, (content, numbers) in each.entries.items()}
            for each in (self, now)
        )
        changed = sorted(dict(was.items() ^ found.items()))
        if not changed and now.entries != self.entries:
            with suppress(OSError):
                now.save()
        return changed

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


def install_checked(
    folder: Path,
    build: Callable[[Path, int], None],
    *,
    usable: Callable[[Path], bool] = lambda _folder: True,
    progress: Progress = lambda _text: None,
) -> Installed:
    """Return a folder that holds what was installed into it, installing it where it does not.

    See `exporter.triton.installation.install_once` for the arguments and what is raised.
    """

    def holds(folder: Path) -> bool:
        recorded = Installed.load(folder)
        return recorded is not None and not recorded.differences() and usable(folder)

    def install(partial: Path, lock: int) -> None:
        recorded = Installed.load(folder)
        if recorded is not None and folder.exists():
            changed = recorded.differences()
            if changed:
                logger.warning("%s is damaged (%s): installing it again", folder, changed[0])
        build(partial, lock)
        for name, (mode, *_) in _walk(partial):
            if mode & _OTHERS_WRITE and not stat.S_ISLNK(mode):  # whatever the umask was
                (partial / name).chmod(stat.S_IMODE(mode) & ~_OTHERS_WRITE)
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
    try:
        status = folder.stat()
    except OSError:
        return  # installing says what is wrong with it
    if _is_safe(status):
        return
    hint = "Set STLAB_CACHE to a folder of your own that no other user can write"
    if status.st_uid == os.geteuid():
        hint += f", or take the right away: chmod go-w {folder}"
    elif status.st_mode & stat.S_IWOTH:
        # A volume such as an emptyDir of Kubernetes.
        hint += f", such as {folder / 'stlab'}, which stlab makes"
    others = status.st_uid not in {0, os.geteuid()}
    what = "belongs to another user" if others else "can be written by everybody"
    raise ConflictError(f"stlab's cache {folder} {what}, and programs in it are run", hint=hint)


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.files.json")


def _is_safe(status: os.stat_result) -> bool:
    return status.st_uid in {0, os.geteuid()} and not status.st_mode & stat.S_IWOTH


def _walk(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield everything below a folder, links as they are, with the numbers of an entry."""
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    name = f"{inside}{entry.name}"
                    s = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(s.st_mode):
                        waiting.append(f"{name}/")
                        yield name, (s.st_mode,)  # what is in it has entries of its own
                    else:
                        yield name, (s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
        except FileNotFoundError:
            continue


def _content(path: Path, mode: int) -> str:
    try:
        if stat.S_ISLNK(mode):
            return f"-> {path.readlink()}"
        if not stat.S_ISREG(mode):
            return "folder" if stat.S_ISDIR(mode) else "neither file nor folder"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error}"
