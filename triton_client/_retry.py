"""Whether a failed attempt is followed by another one, and when.

A broken connection is retried: inference is idempotent, and so are the other calls, so nothing is
lost if the first attempt did arrive. A refusal is the server's answer. The pause is drawn between 0
and a doubling bound ("full jitter"), and a budget shared by all calls of a client keeps a dead
server from being hit harder than a living one: a retry takes a token, a success gives a tenth back,
as in gRPC's own retry throttling (gRFC A6).

What the peer says it never processed is no failure of a server: it is sent again until the
deadline, however many retries and tokens are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import random
from typing import Final

from triton_client._deadline import Deadline
from triton_client._failures import Failure

__all__ = ["Attempts", "Retries"]

_BROKEN_BOUNDS: Final = (0.1, 2.0)
_UNPROCESSED_BOUNDS: Final = (0.02, 1.0)
"""The first and the last bound of a pause, in seconds."""
_TOKENS: Final = 10.0
_REFUND: Final = 0.1


@dataclass(slots=True)
class Attempts:
    """How often one call has failed.

    Attributes:
        deadline: The call's deadline; no pause reaches beyond it.
        repeatable: Whether the call may arrive twice.
        broken: The attempts that may have arrived.
        unprocessed: The attempts that the peer never processed.
    """

    deadline: Deadline
    repeatable: bool = True
    broken: int = 0
    unprocessed: int = 0


class Retries:
    """The retry policy of one client, of which 0 retries at most turn it off, and its budget."""

    __slots__ = ("_most", "_tokens")

    def __init__(self, most: int) -> None:
        if most < 0:
            raise ValueError(f"retries cannot be negative: {most}")
        self._most = most
        self._tokens = _TOKENS

    def succeeded(self) -> None:
        """Take note of an answer."""
        if self._tokens < _TOKENS:
            self._tokens = min(_TOKENS, self._tokens + _REFUND)

    def pause(self, failure: Failure, attempts: Attempts) -> float | None:
        """Return the seconds to wait before the next attempt, or ``None`` to give up.

        The failure is added to the attempts where another one follows.
        """
        if failure.unprocessed:
            pause = _drawn(_UNPROCESSED_BOUNDS, attempts.unprocessed)
        elif (
            failure.transient
            and attempts.repeatable
            and attempts.broken < self._most
            and self._tokens >= 1
        ):
            pause = _drawn(_BROKEN_BOUNDS, attempts.broken)
        else:
            return None
        left = attempts.deadline.remaining()
        if left is not None and pause >= left:
            return None
        if failure.unprocessed:
            attempts.unprocessed += 1
        else:
            attempts.broken += 1
            self._tokens -= 1
        return pause


def _drawn(bounds: tuple[float, float], doublings: int) -> float:
    first, last = bounds
    return random() * min(last, first * 2.0 ** min(doublings, 32))  # noqa: S311 - no secret
