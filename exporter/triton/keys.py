"""The keys of this user's own servers, each in a file that only this user can read.

A server on a port gets a new key, which ``<cache>/servers/<host>-<port>.key`` holds as long as the
server runs; stlab's commands read it there for ``localhost:<port>``. A key is worthless once its
server has ended, so neither a leftover file nor a key sent to the port's next owner does harm. It
is sent to 127.0.0.1 only: that is the address which the server holds, while ``localhost`` may also
be ``::1``, where another user may listen.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from exporter.errors import ConflictError
from exporter.triton.flags import KEY_NAME, flag_value
from exporter.triton.installation import cache_directory, make_folder

__all__ = ["LocalKey", "ServerKey", "claim_key", "local_port"]

# With any of these no other server can listen on 127.0.0.1, to which clients send the key.
_HOLD_LOOPBACK = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def local_port(url: str) -> int | None:
    """Return the port of a plain-text address on this machine's loopback, None for others."""
    found = re.fullmatch(r"(?:grpc://)?(?:localhost|127\.0\.0\.1):([0-9]{1,5})", url)
    return int(found[1]) if found else None


@dataclass(slots=True)
class ServerKey:
    """The key of a server that is about to start.

    ``problem`` says why it is in no file, so that no command will find it; empty where it is.
    """

    value: str
    problem: str = ""
    _path: Path | None = None
    _file: int = -1

    @classmethod
    def for_server(cls, arguments: Sequence[str]) -> Self:
        """Return the key for a server with these flags: ``STLAB_TRITON_KEY``, or a new one.

        Raises:
            ConflictError: Another server of this user holds the gRPC port.
        """
        given = os.environ.get("STLAB_TRITON_KEY", "").strip()
        if given:
            return cls(given)
        if flag_value(arguments, "--grpc-address", "0.0.0.0") not in _HOLD_LOOPBACK:  # noqa: S104
            return cls(secrets.token_urlsafe(32), "it does not listen on 127.0.0.1")
        port = flag_value(arguments, "--grpc-port", "8001")
        if not re.fullmatch("[0-9]{1,5}", port):
            # tritonserver itself says what is wrong with it.
            return cls(secrets.token_urlsafe(32), f"--grpc-port={port} is not a port")
        return cls.claim(int(port))

    @classmethod
    def claim(cls, port: int) -> Self:
        """Make a key and write its file for a server's gRPC port.

        Raises:
            ConflictError: Another server of this user holds the port's file.
        """
        key = secrets.token_urlsafe(32)
        try:
            path = _path(port)
            make_folder(path.parent)
            if path.parent.lstat().st_uid != os.geteuid():
                return cls(key, f"{path.parent} belongs to another user")
            path.parent.chmod(0o700)
            file = _locked(path)
            if file is None:
                raise ConflictError(
                    f"another server of yours is running on gRPC port {port}",
                    hint="Stop it, or choose another port with --grpc-port.",
                )
            os.ftruncate(file, 0)
            os.fchmod(file, 0o600)
            os.write(file, key.encode())
        except OSError as error:
            return cls(key, f"its file cannot be written: {error}")
        return cls(key, "", path, file)

    def hand_over(self) -> None:
        """Let the program that this process becomes hold the file."""
        if self._file >= 0:
            os.set_inheritable(self._file, True)

    def remove(self) -> None:
        """Remove the file; the server has ended. Safe to call twice."""
        if self._path is not None and self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


class LocalKey:
    """Reads the key of this user's server on a gRPC port, whichever is running."""

    def __init__(self, port: int) -> None:
        self._path = _path(port)
        self._seen: tuple[int, int] | None = None
        self._headers: dict[str, str | bytes] = {}

    def __call__(self) -> dict[str, str | bytes]:
        """Return the headers to send; none where the file is missing or not trustworthy."""
        seen = None
        with suppress(OSError):
            found = self._path.lstat()
            seen = (found.st_ino, found.st_mtime_ns)
        if seen != self._seen:
            key = _read(self._path) if seen else ""
            self._headers = {f"triton-grpc-protocol-{KEY_NAME}": key} if key else {}
            self._seen = seen
        return self._headers


def claim_key(arguments: Sequence[str], *, say: Callable[[str], None]) -> ServerKey:
    """Return `ServerKey.for_server`, with a warning where stlab's commands will not find it."""
    key = ServerKey.for_server(arguments)
    if key.problem:
        say(f"no client has this server's key ({key.problem}); set one in STLAB_TRITON_KEY")
    return key


def _path(port: int) -> Path:
    # A home folder may be shared by several machines and containers.
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    return cache_directory() / "servers" / f"{host}-{port}.key"


def _locked(path: Path) -> int | None:
    """Open and lock a key's file for its server; None where another server holds it."""
    while True:
        with ExitStack() as opened:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            with suppress(FileNotFoundError):  # its last server has just removed it
                if os.path.samestat(os.fstat(file), path.lstat()):
                    opened.pop_all()
                    return file


def _read(path: Path) -> str:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        private = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
        if not private or found.st_uid != os.geteuid():
            return ""
        key = stream.read(64).decode(errors="replace")
    return key if re.fullmatch("[A-Za-z0-9_-]{43}", key) else ""
