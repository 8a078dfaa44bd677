"""String tensors: bytes on Triton's side, text on ONNX Runtime's.

ONNX Runtime's Python binding takes and returns ``str``, while Triton's BYTES may be anything. Bytes
that are not UTF-8 pass through the model as characters of the private use area and are restored
afterwards. As in NVIDIA's backend, which uses C strings, an element ends at its first NUL.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shared.datatypes import Array

__all__ = ["bytes_from_text", "deserialize", "serialize", "text_from_bytes"]

# Python's "surrogateescape" makes U+DC80 to U+DCFF of the bytes 0x80 to 0xFF, but UTF-8, which ONNX
# Runtime encodes text in, has no surrogates.
_TO_PRIVATE_USE = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_FROM_PRIVATE_USE = {private: surrogate for surrogate, private in _TO_PRIVATE_USE.items()}
_LENGTH_BYTES = 4


def text_from_bytes(values: Array) -> tuple[Array, bool]:
    """Return an array of ``str`` from one of ``bytes``, and whether any is not UTF-8."""
    texts = np.empty(values.shape, dtype=object)
    flat, escaped = texts.reshape(-1), False
    for index, value in enumerate(values.reshape(-1)):
        element = value.split(b"\0", 1)[0]
        try:
            flat[index] = element.decode()
        except UnicodeDecodeError:
            flat[index] = element.decode(errors="surrogateescape").translate(_TO_PRIVATE_USE)
            escaped = True
    return texts, escaped


def bytes_from_text(texts: Array, *, escaped: bool) -> Array:
    """Return an array of ``bytes`` from one of ``str``; the reverse of :func:`text_from_bytes`."""
    values = np.empty(texts.shape, dtype=object)
    flat = values.reshape(-1)
    for index, text in enumerate(texts.reshape(-1)):
        plain = text.translate(_FROM_PRIVATE_USE) if escaped else text
        flat[index] = plain.encode(errors="surrogateescape")
    return values


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
    data, offset = bytes(encoded), 0
    values = []
    while offset < len(data):
        start = offset + _LENGTH_BYTES
        offset = start + int.from_bytes(data[offset:start], "little")
        values.append(data[start:offset])
    # numpy makes an array of floats from an empty list, whatever its dtype argument.
    return np.array(values, dtype=object) if values else np.empty(0, dtype=object)
