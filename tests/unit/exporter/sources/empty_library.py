"""Writes shared libraries whose functions do nothing, without a compiler.

TensorRT's Python bindings load with them in place of TensorRT's own libraries, which are gigabytes
and need a GPU to do anything: enough to ask what the bindings take. Source: the ELF-64 object file
format, and the dynamic section of the System V ABI.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

_PAGE = 0x1000
_CODE = b"\x31\xc0\xc3"  # x86-64: return 0
_LOAD, _DYNAMIC, _STACK = 1, 2, 0x6474E551
_READ, _WRITE, _RUN = 4, 2, 1
_STRTAB, _SYMTAB, _HASH, _STRSZ, _SYMENT, _SONAME = 5, 6, 4, 10, 11, 14


def write_empty_library(folder: Path, soname: str, functions: Sequence[str]) -> Path:
    """Write a library; every function returns 0, or a null pointer."""
    strings = b"\0" + b"".join(f"{name}\0".encode() for name in (soname, *functions))
    count = len(functions) + 1
    # One bucket: a list of all symbols.
    table = [1, count, 1, 0, *(n + 1 if n + 1 < count else 0 for n in range(1, count))]
    hashes = struct.pack(f"<{len(table)}I", *table)
    head = 64 + 4 * 56
    at_hash = head
    at_symbols = at_hash + len(hashes) + -len(hashes) % 8
    at_strings = at_symbols + 24 * count
    at_code = at_strings + len(strings)
    symbols = bytes(24)
    for name in functions:
        place = strings.index(f"\0{name}\0".encode()) + 1
        symbols += struct.pack("<IBBHQQ", place, 0x12, 0, 1, at_code, len(_CODE))
    size = at_code + len(_CODE)
    at_dynamic = size + -size % _PAGE
    entries = (
        (_SONAME, 1),
        (_HASH, at_hash),
        (_STRTAB, at_strings),
        (_SYMTAB, at_symbols),
        (_STRSZ, len(strings)),
        (_SYMENT, 24),
        (0, 0),
    )
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0,
    )  # fmt: skip
    segments = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, place, place, place, length, length, align)
        for kind, flags, place, length, align in (
            (_LOAD, _READ | _RUN, 0, size, _PAGE),
            (_LOAD, _READ | _WRITE, at_dynamic, len(dynamic), _PAGE),
            (_DYNAMIC, _READ | _WRITE, at_dynamic, len(dynamic), 8),
            (_STACK, _READ | _WRITE, 0, 0, 16),
        )
    )
    content = header + segments + hashes
    content = content.ljust(at_symbols, b"\0") + symbols + strings + _CODE
    path = folder / soname
    path.write_bytes(content.ljust(at_dynamic, b"\0") + dynamic)
    return path
