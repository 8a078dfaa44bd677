"""Requests like an earlier one: the same names, dtypes, shapes and options, with other values.

Checking and encoding such a request gives the same result. That takes little time, but its code is
seldom in the processor's cache when a call begins.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from triton_client._tensors import Raw

if TYPE_CHECKING:
    from triton_client._requests import Call

__all__ = ["RepeatedRequests"]

_MOST_KEPT: Final = 256
_MOST_FIXED: Final = 4096
"""The most bytes that are kept of a request."""


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

        Args:
            inputs: As the caller gave them.
            options: What else decides what the request holds.
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
        """Keep a request for :meth:`find`, if its tensors are the caller's arrays as they are.

        Args:
            key: What :meth:`find` returned.
            inputs: As the caller gave them.
            parts: The request in parts.
            call: The call.
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
        self._known[key] = heads, call._replace(request=b"")
