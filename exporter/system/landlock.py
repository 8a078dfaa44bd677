"""Landlock: restrict the files that a process and its threads may open, for good.

It needs no privilege and works inside containers, from Linux 5.13 on. A process that has restricted
itself can no longer trace a process that has not, nor read its memory, environment and descriptors.

Source: the kernel's documentation, userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

from exporter.system.kernel import syscall
from exporter.system.view import View

__all__ = ["restrict_files", "version"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
# How many rights for files each version of the interface knows.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_MOST_FILE_RIGHTS = 16
_NET_FROM, _NET_RIGHTS = 4, 3  # bind and connect of TCP
_SCOPE_FROM, _SCOPES = 6, 3  # abstract UNIX sockets and signals

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL_DEV
_OF_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_FORGETFUL = ("/proc/", "/sys/")
_NEVER = _MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK


def version() -> int:
    """Return the version of the kernel's Landlock; 0 where it has none, or none is allowed."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict_files(view: View) -> None:
    """Let this thread and those that it starts open nothing but the files of a view from here on.

    The process has set ``PR_SET_NO_NEW_PRIVS``. What is missing is left out.

    Raises:
        OSError: The kernel does not offer it.
    """
    abi = version()
    handled = (1 << _FILE_RIGHTS.get(abi, _MOST_FILE_RIGHTS)) - 1
    attributes = struct.pack("QQQ", handled, _NET_RIGHTS, _SCOPES)
    size = 24 if abi >= _SCOPE_FROM else 16 if abi >= _NET_FROM else 8
    ruleset = syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), size, 0)
    try:
        for paths, rights in (
            ((*view.read, *view.proc), _READ),
            (view.listed, _READ_DIR),
            (view.write, handled & ~_NEVER),
            (view.devices, _DEVICE),
        ):
            for path in paths:
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    _allow(ruleset, path, rights & handled)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not Path(path).is_dir():
        rights &= _OF_FILES
    rule = struct.pack("=Qi", rights, descriptor)
    syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule), 0)
    # The kernel's own file systems forget an inode, and its rule, that no descriptor holds.
    if not path.startswith(_FORGETFUL):
        os.close(descriptor)
