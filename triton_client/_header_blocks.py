"""The header blocks of gRPC calls, as HPACK writes them without its dynamic table.

Sources: RFC 7541 (HPACK) and gRPC's PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HeaderBlocks", "header_block", "timeout_header"]

_KEPT_BLOCKS: Final = 64


def header_block(
    path: str, authority: str, metadata: Iterable[tuple[str, str | bytes]] = ()
) -> bytes:
    """Return the header block of a gRPC call over plain text, but for its timeout.

    Args:
        path: The gRPC method's path.
        authority: The host and port that are called.
        metadata: Further headers; a value of a ``-bin`` name is sent as base64.
    """
    block = bytearray(b"\x83\x86")  # :method POST, :scheme http
    block += b"\x04" + _text(path.encode())
    block += b"\x01" + _text(authority.encode())
    block += b"\x00" + _text(b"te") + _text(b"trailers")
    block += b"\x0f\x10" + _text(b"application/grpc")  # content-type
    block += b"\x0f\x2b" + _text(b"triton-client")  # user-agent
    block += b"\x00" + _text(b"grpc-accept-encoding") + _text(b"identity")
    for name, value in metadata:
        raw = value.encode() if isinstance(value, str) else value
        if name.endswith("-bin"):
            raw = base64.b64encode(raw).rstrip(b"=")
        block += b"\x10" + _text(name.lower().encode()) + _text(raw)  # never indexed by anybody
    return bytes(block)


class HeaderBlocks:
    """The header blocks of one server's calls, kept: metadata changes with a token or a trace.

    Args:
        authority: What the server is called in requests.
    """

    __slots__ = ("_authority", "_kept")

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._kept: dict[tuple[str, object], bytes] = {}

    def of(self, path: str, metadata: tuple[tuple[str, str | bytes], ...]) -> bytes:
        """Return the block of a call; see :func:`header_block`."""
        key = (path, metadata)
        block = self._kept.get(key)
        if block is None:
            block = header_block(path, self._authority, metadata)
            if len(self._kept) >= _KEPT_BLOCKS:
                self._kept.clear()
            self._kept[key] = block
        return block


def _text(raw: bytes) -> bytes:
    size = len(raw)
    if size < 0x7F:
        return bytes((size,)) + raw
    length, size = bytearray((0x7F,)), size - 0x7F
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + raw


def timeout_header(seconds: float) -> bytes:
    """Return the header of a timeout; gRPC's values have eight digits at most."""
    if seconds < 1:
        return _encoded_timeout(f"{max(1, int(seconds * 1e6))}u")
    milli = ceil(seconds * 1e3)
    return _encoded_timeout(f"{milli}m" if milli < 10**8 else f"{min(milli // 1000, 10**8 - 1)}S")


@lru_cache(maxsize=256)
def _encoded_timeout(value: str) -> bytes:
    return b"\x00\x0cgrpc-timeout" + _text(value.encode())
