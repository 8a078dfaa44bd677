"""What the sequences of both clients share: their requests and their state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tritonclient.grpc import service_pb2

from triton_client._deadline import Deadline
from triton_client._origin import ProcessBound
from triton_client._parameters import RequestOptions
from triton_client._plan import RequestBuilder
from triton_client._requests import Call
from triton_client._result import Result
from triton_client.errors import InvalidInput

__all__ = ["SequenceBase"]

_REFUSED: Final = {
    "sending": "a step of the sequence is under way; wait for it",
    "failed": "a step of the sequence failed; begin a new sequence",
    "over": "the sequence has ended; begin a new one",
}


class SequenceBase(ProcessBound):
    """One sequence; the ``timeout`` of its options is the deadline of each step."""

    __slots__ = ("_builder", "_model", "_options", "_state", "_transport", "id")

    def __init__(
        self,
        transport: Any,
        model: Any,
        builder: RequestBuilder,
        sequence_id: int | str,
        options: RequestOptions,
    ) -> None:
        self._transport = transport
        self._model = model
        self._builder = builder
        self.id = sequence_id
        self._options = options
        self._state = "new"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"

    def _prepare(
        self, inputs: Mapping[str, object], request_id: str
    ) -> Call[Result] | InvalidInput:
        """Return the request of a step that may or may not be the last.

        What is wrong with the inputs is returned, to be raised at the step's turn.
        """
        try:
            return self._builder.single(inputs, self._options._replace(request_id=request_id))
        except InvalidInput as error:
            return error

    def _turn_of(self, prepared: Call[Result] | InvalidInput, *, end: bool) -> Call[Result]:
        """Return a prepared step's request with its place in the sequence.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence takes no more steps.
        """
        if self._state in _REFUSED:
            raise self._builder.invalid(_REFUSED[self._state])
        if isinstance(prepared, InvalidInput):
            raise prepared
        place = service_pb2.ModelInferRequest()
        field = "string_param" if isinstance(self.id, str) else "int64_param"
        setattr(place.parameters["sequence_id"], field, self.id)
        place.parameters["sequence_start"].bool_param = self._is_new
        place.parameters["sequence_end"].bool_param = end
        return prepared._replace(request=prepared.request + place.SerializeToString())

    @property
    def _is_new(self) -> bool:
        """Whether no step was sent yet, so that the model's interface may still change."""
        return self._state == "new"

    def _deadline(self) -> Deadline:
        """Return the deadline of a step that begins now."""
        return Deadline(self._options.timeout)

    @contextmanager
    def _sending(self, *, end: bool) -> Iterator[None]:
        """Track how a step goes while it is sent."""
        self._state = "sending"
        try:
            yield
        except BaseException:
            self._state = "failed"
            raise
        self._state = "over" if end else "open"
