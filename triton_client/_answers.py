"""The answers of one model version, most of which differ only in their tensors' values.

Parsing an answer takes little time, but its code is seldom in the processor's cache when an answer
arrives. Comparing an answer with the previous one takes hardly any code.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from triton_client._decode import decode_answer, tensor_offsets
from triton_client._result import Result

__all__ = ["AnswerReader"]

_MOST_FIXED: Final = 4096
"""The most bytes that are kept of an answer."""


class _Layout(NamedTuple):
    """Where an answer has what.

    Attributes:
        size: The answer's size in bytes.
        fixed: Everything except the tensors' values, each piece with its offset.
        tensors: The name, dtype, number of elements, offset and shape of each output.
        like: An answer without outputs, for what else these answers say.
    """

    size: int
    fixed: tuple[tuple[int, bytes], ...]
    tensors: tuple[tuple[str, np.dtype[Any], int, int, tuple[int, ...]], ...]
    like: Result


class AnswerReader:
    """Reads answers as :func:`decode_answer` does. Thread-safe."""

    __slots__ = ("_layout", "_size")

    def __init__(self) -> None:
        self._layout: _Layout | None = None
        self._size = -1

    def read(self, answer: bytes) -> Result:
        """Return an answer's outputs.

        Raises:
            ValueError: The message is malformed, or a tensor does not fit its shape.
        """
        layout, size = self._layout, len(answer)
        if layout is not None and layout.size == size:
            for at, piece in layout.fixed:
                if not answer.startswith(piece, at):
                    break
            else:
                return layout.like.with_outputs(
                    {
                        name: np.frombuffer(answer, dtype, count, offset).reshape(shape)
                        for name, dtype, count, offset, shape in layout.tensors
                    }
                )
        outputs = decode_answer(answer)
        if size == self._size:  # two in a row: there may be more of the kind
            self._layout = _layout_of(answer, outputs)
        self._size = size
        return outputs


def _layout_of(answer: bytes, outputs: Result) -> _Layout | None:
    """Return an answer's layout; ``None`` for one that holds more than numbers."""
    offsets = tensor_offsets(answer)
    if len(offsets) != len(outputs):
        return None
    fixed, tensors, end = [], [], 0
    for (name, array), offset in zip(outputs.items(), offsets, strict=True):
        if array.dtype.hasobject or not array.size:
            return None
        fixed.append((end, answer[end:offset]))
        tensors.append((name, array.dtype, array.size, offset, array.shape))
        end = offset + array.nbytes
    fixed.append((end, answer[end:]))
    if sum(len(piece) for _, piece in fixed) > _MOST_FIXED:
        return None
    return _Layout(len(answer), tuple(fixed), tuple(tensors), outputs.with_outputs({}))
