"""Start a program with flags that other users of the machine cannot read.

Every user can read ``/proc/<pid>/cmdline``, and tritonserver takes its keys on the command line
only. Only the owner can read ``/proc/<pid>/environ``. So the environment holds the flags, and when
the program is loaded but has not run a single instruction, a short-lived tracer points its
arguments to them. No list of processes ever shows the key.

A variable ``STLAB_HIDDEN_<n>`` holds the text of argument n; the program does not inherit it. Run
as a script, this module only needs the standard library::

    python -I -S hidden_flags.py PROGRAM ARGUMENT…

Sources: ptrace(2), prctl(2), proc(5) on ``/proc/<pid>/stat``, and the System V ABI on a new
process's stack.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

__all__ = ["HIDDEN", "execute", "hide"]

HIDDEN = "STLAB_HIDDEN_"
"""Begins the names of the variables that hold arguments."""

_KEY = re.compile(r"(--(?:grpc-restricted-protocol|http-restricted-api)=[^=]*=).*", re.DOTALL)
_PTRACE_CONT, _PTRACE_DETACH, _PTRACE_SEIZE = 7, 17, 0x4206
_TRACE_EXEC, _EXIT_KILL, _EVENT_EXEC = 0x10, 0x100000, 4
_PR_SET_PTRACER = 0x59616D61
_POINTER = struct.calcsize("P")


def hide(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take the keys out of a tritonserver's flags, of the form ``--name=value``.

    Returns:
        The command as it may be seen, and the variables that hold what was taken out.
    """
    hidden = {f"{HIDDEN}{n}": part for n, part in enumerate(command) if _KEY.match(part)}
    return [_KEY.sub(r"\1hidden", part) for part in command], hidden


def execute(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become a program whose hidden arguments are in the environment.

    Where the kernel or a container forbids it, the arguments stay visible; a warning says so.

    Raises:
        OSError: The program does not exist.
    """
    found = {name: value for name, value in environment.items() if name.startswith(HIDDEN)}
    plain = {name: value for name, value in environment.items() if name not in found}
    # The first one takes the place of those that the program is not to inherit.
    variables = {"PATH": os.defpath, **plain, **found}
    if found:
        try:
            _be_traced(command[0])
        except OSError as error:
            sys.stderr.write(
                "warning: other users of this machine can read the key of this server in the list "
                f"of processes: {error}\n"
            )
            sys.stderr.flush()
            command = [found.get(f"{HIDDEN}{n}", part) for n, part in enumerate(command)]
            variables = plain
    os.execve(command[0], list(command), variables)  # noqa: S606


def _be_traced(program: str) -> None:
    """Return once a tracer waits for the program that this process becomes."""
    with open(program, "rb") as file:  # noqa: PTH123 - pathlib takes as long to import as all else
        if file.read(4) != b"\x7fELF":  # it would pass its arguments on to another program
            raise OSError(f"{program} is a script")
    process = os.getpid()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        middle = os.fork()
        if middle == 0:
            # The tracer is an orphan, so that the program has no child to wait for.
            if os.fork() == 0:
                ours.close()
                _trace(process, theirs)
            os._exit(0)
        os.waitpid(middle, 0)
        theirs.close()
        tracer = int(ours.recv(32) or b"0")
        # Where only ancestors may trace (Yama), this process names the exception.
        with suppress(OSError):
            _checked(
                _libc().prctl(_PR_SET_PTRACER, ctypes.c_ulong(tracer), *[ctypes.c_ulong(0)] * 3)
            )
        ours.sendall(b"go")
        failure = ours.recv(256) or b"the tracer died"
    if failure != b"ok":
        raise OSError(failure.decode(errors="replace"))


def _trace(process: int, talk: socket.socket) -> NoReturn:
    """Point the arguments of the program that a process becomes to its environment, and go."""
    libc = _libc()
    code = 1
    try:
        with talk:
            talk.sendall(str(os.getpid()).encode())
            talk.recv(2)
            try:
                _checked(libc.ptrace(_PTRACE_SEIZE, process, None, _TRACE_EXEC | _EXIT_KILL))
            except OSError as error:
                talk.sendall(f"ptrace: {error.strerror}".encode())
                os._exit(1)
            talk.sendall(b"ok")
        while True:
            status = os.waitpid(process, 0)[1]
            if not os.WIFSTOPPED(status):
                os._exit(0)  # it could not become the program
            if status >> 8 == signal.SIGTRAP | _EVENT_EXEC << 8:
                break
            _checked(libc.ptrace(_PTRACE_CONT, process, None, status >> 8 & 0xFF))
        _point_to_environment(process)
        _checked(libc.ptrace(_PTRACE_DETACH, process, None, None))
        code = 0
    finally:
        os._exit(code)  # with anything but 0 the program is killed: its key would be a known one


def _point_to_environment(process: int) -> None:
    """Rewrite the arguments of a process that has just become another program."""
    with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123
        fields = file.read().rpartition(b")")[2].split()
    stack, start, end = int(fields[25]), int(fields[47]), int(fields[48])
    memory = os.open(f"/proc/{process}/mem", os.O_RDWR)
    (count,) = struct.unpack("P", os.pread(memory, _POINTER, stack))
    arguments = stack + _POINTER
    inherited = arguments + (count + 1) * _POINTER
    first = os.pread(memory, _POINTER, inherited)
    block = os.pread(memory, end - start, start)
    for found in re.finditer(rb"(?<![^\0])" + HIDDEN.encode() + rb"(\d+)=", block):
        text = struct.pack("P", start + found.end())
        if int(found[1]) < count:
            os.pwrite(memory, text, arguments + int(found[1]) * _POINTER)
        variable = struct.pack("P", start + found.start())
        place = inherited
        while (entry := os.pread(memory, _POINTER, place)) != bytes(_POINTER):
            if entry == variable:
                os.pwrite(memory, first, place)
            place += _POINTER
    os.close(memory)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return libc


def _checked(result: int) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    try:
        execute(sys.argv[1:], os.environ)
    except OSError as error:
        sys.exit(f"{sys.argv[1]} cannot be started: {error}")
