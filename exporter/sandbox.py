"""Takes the network from this process and from all that it starts, for good.

What a registered model brings with it may be anybody's code. A filter of system calls (seccomp, in
every kernel since 3.5, without any privilege) lets none of it open a socket; the pipes to the
parent process stay.

Sources: the kernel's seccomp_filter documentation, and its tables of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

__all__ = ["cut_network", "hide_environment"]

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 4, 38, 22
_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x80000000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
# Architecture, and the number of socket(2) there.
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
# Can open sockets of its own; the number is the same everywhere.
_IO_URING_SETUP = 425
_X32 = 0x40000000


def cut_network() -> None:
    """Refuse every new socket from here on, to every child too.

    Raises:
        OSError: The kernel or the machine does not offer it.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no filter is known for {platform.machine()}")
    architecture, socket = _MACHINES[platform.machine()]
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_AT_LEAST, 3, 0, _X32),
        (_JUMP_IF_EQUAL, 2, 0, socket),
        (_JUMP_IF_EQUAL, 1, 0, _IO_URING_SETUP),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(buffer))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program))


def hide_environment() -> None:
    """Keep this process's environment and memory from other processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, *arguments: object) -> None:
    given = [*arguments, *[ctypes.c_ulong(0)] * (4 - len(arguments))]
    numbers = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in given]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *numbers) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
