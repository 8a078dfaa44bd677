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
        self, inputs: Mapping[str, object], request_id: str, *, end: bool | None
    ) -> Call[Result] | InvalidInput:
        """Return the request of a step, with its position in the sequence where ``end`` is known.

        What is wrong with the inputs is returned, to be raised at the step's turn.
        """
        position = b"" if end is None else self._position(end=end)
        options = self._options._replace(request_id=request_id)
        try:
            return self._builder.single(inputs, options, fields=position)
        except InvalidInput as error:
            return error

    def _position(self, *, end: bool) -> bytes:
        """Return the fields that make a request the next step of the sequence."""
        request = service_pb2.ModelInferRequest()
        field = "string_param" if isinstance(self.id, str) else "int64_param"
        setattr(request.parameters["sequence_id"], field, self.id)
        request.parameters["sequence_start"].bool_param = self._is_new
        request.parameters["sequence_end"].bool_param = end
        return bytes(request.SerializeToString())

    def _turn_of(self, prepared: Call[Result] | InvalidInput) -> Call[Result]:
        """Return a prepared step's request.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence takes no more steps.
        """
        if self._state in _REFUSED:
            raise self._builder.invalid(_REFUSED[self._state])
        if isinstance(prepared, InvalidInput):
            raise prepared
        return prepared

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
