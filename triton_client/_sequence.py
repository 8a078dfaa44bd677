"""Sequences of requests to stateful models, for threads."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from triton_client._codec import encode_step
from triton_client._deadline import Deadline
from triton_client._origin import ProcessBound
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from triton_client._calls import Call
    from triton_client._plan import Inferences, Outputs
    from triton_client._spec import SequenceIds
    from triton_client._transport import Transport

__all__ = ["ModelSequence", "SequenceSteps"]

_REFUSED: Final = {
    "sending": "a step of the sequence is under way; wait for it",
    "failed": "a step of the sequence failed; begin a new sequence",
    "over": "the sequence has ended; begin a new one",
}


class SequenceSteps:
    """The requests of one sequence, without any I/O.

    Args:
        inferences: What makes the model's requests.
        ids: Which identifiers the model takes.
        sequence_id: One of them; a random one by default.
        seconds: The deadline of each step; ``None`` for none.
        options: The ``outputs``, ``parameters`` and ``priority`` of each step.

    Attributes:
        id: The identifier.
        inferences: What makes the model's requests.

    Raises:
        InvalidInput: The model takes no such identifier.
    """

    __slots__ = ("_options", "_seconds", "_state", "id", "inferences")

    def __init__(
        self,
        inferences: Inferences,
        ids: SequenceIds,
        sequence_id: int | str | None,
        seconds: float | None,
        options: Mapping[str, Any],
    ) -> None:
        if sequence_id is None:
            sequence_id = (
                1 + secrets.randbelow(ids.largest) if ids.largest else secrets.token_hex(16)
            )
        if not ids.allows(sequence_id):
            raise inferences.invalid(
                f"the id of a sequence of this model is {ids}, not {sequence_id!r}"
            )
        Deadline(seconds)
        self.id = sequence_id
        self.inferences = inferences
        self._seconds = seconds
        self._options = dict(options)
        self._state = "new"

    def request(
        self, inputs: Mapping[str, object], *, end: bool, request_id: str
    ) -> tuple[Call[Outputs], Deadline]:
        """Return the next step's request and its deadline.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence takes no more steps.
        """
        self._check_open()
        limit = self.deadline()
        call = self.inferences.single(
            inputs,
            timeout=limit.seconds,
            request_id=request_id,
            sequence=(self.id, self._state == "new", end),
            **self._options,
        )
        return call, limit

    def prepared(self, inputs: Mapping[str, object]) -> Call[Outputs] | InvalidInput:
        """Return the request of a step that may or may not be the last.

        What is wrong with the inputs is returned, to be raised at the step's turn.
        """
        try:
            return self.inferences.single(
                inputs, timeout=self._seconds, request_id="", **self._options
            )
        except InvalidInput as error:
            return error

    def turn_of(
        self, prepared: Call[Outputs] | InvalidInput, *, end: bool
    ) -> tuple[Call[Outputs], Deadline]:
        """Return a prepared step's request and its deadline.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence takes no more steps.
        """
        self._check_open()
        if isinstance(prepared, InvalidInput):
            raise prepared
        fields = encode_step((self.id, self._state == "new", end))
        return prepared.followed_by(fields), self.deadline()

    @property
    def is_new(self) -> bool:
        """Whether no step was sent yet, so that the model's interface may still change."""
        return self._state == "new"

    def deadline(self) -> Deadline:
        """Return the deadline of a step that begins now."""
        return Deadline(self._seconds)

    @contextmanager
    def sending(self, *, end: bool) -> Iterator[None]:
        """Take note of how a step goes while it is sent."""
        self._state = "sending"
        try:
            yield
        except BaseException:
            self._state = "failed"
            raise
        self._state = "over" if end else "open"

    def leave(self) -> None:
        """Refuse further steps."""
        self._state = "over"

    def _check_open(self) -> None:
        if self._state in _REFUSED:
            raise self.inferences.invalid(_REFUSED[self._state])


class ModelSequence(ProcessBound):
    """Requests that a stateful model takes as one; from :meth:`Model.sequence`.

    For one thread at a time. All steps go to one server, and none is sent twice: a step that failed
    may have changed the model's state, so the sequence takes no more after it. A sequence that is
    left without ``end`` is not told to the server, which frees its slot after the model's
    ``max_sequence_idle_microseconds``.

    Attributes:
        id: The sequence's identifier.
    """

    __slots__ = ("_look_again", "_steps", "_transport", "id")

    def __init__(
        self,
        transport: Transport,
        steps: SequenceSteps,
        look_again: Callable[[Inferences, Deadline], Inferences | None],
    ) -> None:
        self._transport = transport
        self._steps = steps
        self._look_again = look_again
        self.id = steps.id

    def infer(
        self, inputs: Mapping[str, object], *, end: bool = False, request_id: str = ""
    ) -> Outputs:
        """Run the next step.

        Args:
            inputs: As :meth:`Model.infer` takes them, at most ``max_batch_size`` rows.
            end: This is the last step.
            request_id: Shown in the server's logs and traces.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence has ended or failed.
            TritonClientError: The call failed otherwise.
        """
        request = partial(self._steps.request, inputs, end=end, request_id=request_id)
        try:
            step = request()
        except InvalidInput:
            if not self._adopts_newer():
                raise
            step = request()
        return self._send(*step, end=end)

    def infer_all(self, items: Iterable[Mapping[str, object]]) -> Iterator[Outputs]:
        """Run a step for each of ``items``, the last one with ``end``.

        An item is taken before the one ahead of it is sent; it may be the same object with other
        values.

        Yields:
            Each step's outputs.
        """
        remaining = map(self._prepared, items)
        step = next(remaining, None)
        while step is not None:
            following = next(remaining, None)
            end = following is None
            yield self._send(*self._steps.turn_of(step, end=end), end=end)
            step = following

    def _send(self, call: Call[Outputs], limit: Deadline, *, end: bool) -> Outputs:
        first = self._steps.is_new
        try:
            with self._steps.sending(end=end):
                return self._transport.run(call, limit, retry=False)
        except InvalidInput:
            if first:
                # The next sequence is the better for it.
                self._look_again(self._steps.inferences, limit)
            raise

    def _prepared(self, item: Mapping[str, object]) -> Call[Outputs] | InvalidInput:
        step = self._steps.prepared(item)
        if isinstance(step, InvalidInput) and self._adopts_newer():
            return self._steps.prepared(item)
        return step

    def _adopts_newer(self) -> bool:
        """Whether the model's interface is another one by now, before anything was sent."""
        steps = self._steps
        newer = self._look_again(steps.inferences, steps.deadline()) if steps.is_new else None
        if newer is None:
            return False
        steps.inferences = newer
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._steps.leave()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"
