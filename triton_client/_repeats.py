"""What is like the one before: requests, and answers, that differ only in their tensors' values.

Checking, encoding and parsing these gives the same result again. That takes little time, but its
code is seldom in the processor's cache when a call begins or an answer arrives. Comparing takes
hardly any code.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from triton_client._decode import decode_answer, tensor_offsets
from triton_client._requests import Call
from triton_client._result import Result
from triton_client._tensors import Raw

__all__ = ["AnswerReader", "RepeatedRequests"]

_MOST_KEPT: Final = 256
_MOST_FIXED: Final = 4096
"""The most bytes that are kept of a request or an answer."""


class RepeatedRequests:
    """The requests of one model version that came more than once, without their tensors.

    Thread-safe without a lock: what two threads do at once is done twice at worst.
    """

    __slots__ = ("_known", "_last")

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[list[tuple[bytes, str]], Call[Any]]] = {}
        self._last: Hashable = None

    def find(
        self, inputs: Mapping[str, object], *options: object
    ) -> tuple[Call[Any] | None, Hashable]:
        """Return the request for inputs, and what to :meth:`keep` it by; ``None`` for none.

        The options are what else decides what the request holds. The request has no headers.
        """
        key: list[object] = [options]
        for name, value in inputs.items():
            if type(value) is not np.ndarray or not value.flags.c_contiguous:
                return None, None
            key.append((name, value.dtype, value.shape))
        found = tuple(key)
        try:
            known = self._known.get(found)
        except TypeError:  # an option that no request takes
            return None, None
        if known is not None:
            pieces: list[Any] = []
            for head, name in known[0]:
                pieces += (head, inputs[name])
            return known[1]._replace(request=b"".join(pieces)), None
        last, self._last = self._last, found
        return None, found if found == last else None

    def keep(
        self, key: Hashable, inputs: Mapping[str, object], parts: Sequence[Raw], call: Call[Any]
    ) -> None:
        """Keep a request, in parts, for :meth:`find`, which returned the key.

        Only one whose tensors are the caller's arrays as they are.
        """
        names = {id(value): name for name, value in inputs.items()}
        heads: list[tuple[bytes, str]] = []
        head = b""
        for part in parts:
            if isinstance(part, bytes):
                head += part
            elif id(part) in names:
                heads.append((head, names.pop(id(part))))
                head = b""
            else:
                return
        # Strings are bytes by now, and an empty tensor has no part: every input must have one.
        if head or len(heads) != len(inputs) or sum(len(h) for h, _ in heads) > _MOST_FIXED:
            return
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[key] = heads, call._replace(request=b"", headers=())


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
