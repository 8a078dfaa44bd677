"""String tensors: bytes on Triton's side, text on ONNX Runtime's.

ONNX Runtime's Python binding takes and returns ``str``, while Triton's BYTES may be anything. Bytes
that are not UTF-8 pass through the model as characters of the private use area and are restored
afterwards. As in NVIDIA's backend, which uses C strings, an element ends at its first NUL.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["bytes_from_text", "deserialize", "serialize", "text_from_bytes"]

_ESCAPE = "stlab-private-use"
# A byte from 0x80 to 0xFF becomes U+F780 to U+F7FF.
_PRIVATE_USE = 0xF700
_ESCAPED = re.compile(f"[{chr(_PRIVATE_USE + 0x80)}-{chr(_PRIVATE_USE + 0xFF)}]")
_LENGTH_BYTES = 4

Array = np.ndarray


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    undecodable = error.object[error.start : error.end]
    return "".join(chr(_PRIVATE_USE + byte) for byte in undecodable), error.end


codecs.register_error(_ESCAPE, _escape)


def text_from_bytes(values: Array) -> tuple[Array, bool]:
    """Return an array of ``str`` from one of ``bytes``, and whether any is not UTF-8."""
    texts = np.empty(values.shape, dtype=object)
    flat, escaped = texts.reshape(-1), False
    for index, value in enumerate(values.reshape(-1)):
        element = value.split(b"\0", 1)[0]
        try:
            flat[index] = element.decode()
        except UnicodeDecodeError:
            flat[index] = element.decode(errors=_ESCAPE)
            escaped = True
    return texts, escaped


def bytes_from_text(texts: Array, *, escaped: bool) -> Array:
    """Return an array of ``bytes`` from one of ``str``; the reverse of :func:`text_from_bytes`."""
    values = np.empty(texts.shape, dtype=object)
    flat = values.reshape(-1)
    for index, text in enumerate(texts.reshape(-1)):
        flat[index] = _unescape(text) if escaped else text.encode()
    return values


def _unescape(text: str) -> bytes:
    parts, start = [], 0
    for match in _ESCAPED.finditer(text):
        parts += [text[start : match.start()].encode(), bytes([ord(match.group()) - _PRIVATE_USE])]
        start = match.end()
    return b"".join([*parts, text[start:].encode()])


def serialize(values: Array) -> bytes | tuple[()]:
    """Return the wire format of an array of ``bytes``: each after its length, little endian."""
    if not values.size:
        return ()
    parts: list[bytes] = []
    for value in values.reshape(-1):
        parts += [len(value).to_bytes(_LENGTH_BYTES, "little"), value]
    return b"".join(parts)


def deserialize(encoded: Any) -> Array:
    """Return the flat array of ``bytes`` that a wire format holds."""
    values = np.array(list(_elements(bytes(encoded))), dtype=object)
    # numpy makes an array of floats from an empty list, whatever its dtype argument.
    return values if values.size else np.empty(0, dtype=object)


def _elements(data: bytes) -> Iterable[bytes]:
    offset = 0
    while offset < len(data):
        start = offset + _LENGTH_BYTES
        offset = start + int.from_bytes(data[offset:start], "little")
        yield data[start:offset]
