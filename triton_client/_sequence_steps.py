"""The requests of a sequence, without any I/O."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from triton_client._deadline import Deadline
from triton_client._parameters import RequestOptions, encode_step
from triton_client._result import Result
from triton_client._spec import SequenceIds
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from triton_client._plan import RequestBuilder
    from triton_client._requests import Call

__all__ = ["SequenceSteps"]

_REFUSED: Final = {
    "sending": "a step of the sequence is under way; wait for it",
    "failed": "a step of the sequence failed; begin a new sequence",
    "over": "the sequence has ended; begin a new one",
}


class SequenceSteps:
    """The requests of one sequence, without any I/O.

    Args:
        builder: Builds the model's requests.
        ids: Which identifiers the model takes.
        sequence_id: One of them; a random one by default.
        options: What each step's request holds, with its deadline as the ``timeout``.

    Attributes:
        id: The identifier.
        builder: Builds the model's requests.

    Raises:
        InvalidInput: The model takes no such identifier.
    """

    __slots__ = ("_options", "_state", "builder", "id")

    def __init__(
        self,
        builder: RequestBuilder,
        ids: SequenceIds,
        sequence_id: int | str | None,
        options: RequestOptions,
    ) -> None:
        if sequence_id is None:
            sequence_id = (
                1 + secrets.randbelow(ids.largest) if ids.largest else secrets.token_hex(16)
            )
        if not ids.allows(sequence_id):
            raise builder.invalid(
                f"the id of a sequence of this model is {ids}, not {sequence_id!r}"
            )
        self.id = sequence_id
        self.builder = builder
        self._options = options
        self._state = "new"

    def request(
        self, inputs: Mapping[str, object], *, end: bool, request_id: str
    ) -> tuple[Call[Result], Deadline]:
        """Return the next step's request and its deadline.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence takes no more steps.
        """
        self._check_open()
        options = self._options._replace(request_id=request_id)
        step = (self.id, self._state == "new", end)
        return self.builder.single(inputs, options, sequence=step), self.deadline()

    def prepared(self, inputs: Mapping[str, object]) -> Call[Result] | InvalidInput:
        """Return the request of a step that may or may not be the last.

        What is wrong with the inputs is returned, to be raised at the step's turn.
        """
        try:
            return self.builder.single(inputs, self._options)
        except InvalidInput as error:
            return error

    def turn_of(
        self, prepared: Call[Result] | InvalidInput, *, end: bool
    ) -> tuple[Call[Result], Deadline]:
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
        return Deadline(self._options.timeout)

    @contextmanager
    def sending(self, *, end: bool) -> Iterator[None]:
        """Track how a step goes while it is sent."""
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
            raise self.builder.invalid(_REFUSED[self._state])
