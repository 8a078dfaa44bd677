"""Whether a failed attempt is followed by another one, and when.

Only a broken connection is retried: a refusal is the server's answer. Inference is idempotent, and
so are the other calls, so nothing is lost if the first attempt did arrive. The pause is drawn
between 0 and a doubling bound ("full jitter"), and a budget shared by all calls of a client keeps
a dead server from being hit harder than a living one: a retry takes a token, a success gives a
tenth back, as in gRPC's own retry throttling (gRFC A6).
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from triton_client._deadline import Deadline
    from triton_client._failures import Failure

__all__ = ["Retries"]

_FIRST_BOUND: Final = 0.1
_LAST_BOUND: Final = 2.0
_TOKENS: Final = 10.0
_REFUND: Final = 0.1


class Retries:
    """The retry policy of one client, and its budget.

    Args:
        most: The most retries of one call; 0 turns them off.
    """

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

    def pause(self, failure: Failure, attempt: int, deadline: Deadline) -> float | None:
        """Return the seconds to wait before the next attempt, or ``None`` to give up.

        Args:
            failure: What the attempt ended with.
            attempt: How many attempts there were before this one.
            deadline: The call's deadline; no pause reaches beyond it.
        """
        if not failure.transient or attempt >= self._most or self._tokens < 1:
            return None
        bound = min(_LAST_BOUND, _FIRST_BOUND * float(2**attempt))
        pause = random() * bound  # noqa: S311 - no secret
        remaining = deadline.remaining()
        if remaining is not None and pause >= remaining:
            return None
        self._tokens -= 1
        return pause
