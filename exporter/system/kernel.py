"""System calls that the standard library has no function for; each may raise OSError."""

from __future__ import annotations

import ctypes
import os

__all__ = [
    "PR_SET_DUMPABLE",
    "PR_SET_NO_NEW_PRIVS",
    "PR_SET_PDEATHSIG",
    "drop_capabilities",
    "prctl",
    "syscall",
]

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

_LIBC = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *arguments: object) -> None:
    """Set an attribute of this process; see the manual page of prctl."""
    given = [*arguments, *[0] * (4 - len(arguments))]
    _checked(_LIBC.prctl(option, *map(_word, given)))


def syscall(number: int, *arguments: object) -> int:
    """Make a system call that the C library has no function for."""
    return _checked(_LIBC.syscall(ctypes.c_long(number), *map(_word, arguments)))


def drop_capabilities() -> None:
    """Give up root's rights beyond its own files, for good where NO_NEW_PRIVS is set.

    Root keeps the right to read other users' files, since its modules and folders may be theirs.
    Landlock bounds that right as well, and it opens no other process.
    """
    version_3, this_process, read_any_file = 0x20080522, 0, 1 << 2
    header = (ctypes.c_uint32 * 2)(version_3, this_process)
    sets = (ctypes.c_uint32 * 6)()
    _checked(_LIBC.capget(header, sets))
    kept = sets[1] & read_any_file
    _checked(_LIBC.capset(header, (ctypes.c_uint32 * 6)(kept, kept)))


def _word(value: object) -> object:
    return ctypes.c_ulong(value) if isinstance(value, int) else value


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
