"""Sequences of requests to stateful models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Self

from triton_client._aio_concurrency import Items, iterate
from triton_client._aio_transport import AsyncTransport
from triton_client._requests import Call
from triton_client._result import Result
from triton_client._sequence_base import SequenceBase
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from triton_client._async.model import AsyncModel

__all__ = ["AsyncModelSequence"]


class AsyncModelSequence(SequenceBase):
    """Requests that a stateful model takes as one; from :meth:`AsyncModel.sequence`.

    For one step at a time. All steps go to one server, and none is sent twice: a step that failed
    may have changed the model's state, so the sequence takes no more after it. The server does not
    learn of a sequence that is left without ``end``; it frees the slot after the model's
    ``max_sequence_idle_microseconds``.

    Attributes:
        id: The sequence's identifier.
    """

    __slots__ = ()

    _model: AsyncModel
    _transport: AsyncTransport

    async def infer(
        self, inputs: Mapping[str, object], *, end: bool = False, request_id: str = ""
    ) -> Result:
        """Run the next step.

        Args:
            inputs: As for :meth:`AsyncModel.infer`, at most ``max_batch_size`` rows.
            end: This is the last step.
            request_id: Shown in the server's logs and traces.

        Raises:
            InvalidInput: The inputs do not fit the model, or the sequence has ended or failed.
            TritonClientError: The call failed for another reason.
        """
        step = await self._prepared(inputs, request_id, end=end)
        return await self._send(self._turn_of(step), end=end)

    async def infer_all(self, items: Items[Mapping[str, object]]) -> AsyncIterator[Result]:
        """Run a step for each of ``items``, the last one with ``end``.

        An item is taken before the one ahead of it is sent; it may be the same object with other
        values.

        Yields:
            Each step's outputs.
        """
        step: Call[Result] | InvalidInput | None = None
        async for item in iterate(items):
            following = await self._prepared(item)
            if step is not None:
                yield await self._finish_and_send(step, end=False)
            step = following
        if step is not None:
            yield await self._finish_and_send(step, end=True)

    async def _finish_and_send(self, step: Call[Result] | InvalidInput, *, end: bool) -> Result:
        """Send a step whose position in the sequence was not known when it was prepared."""
        call = self._turn_of(step)
        call = call._replace(request=call.request + self._position(end=end))
        return await self._send(call, end=end)

    async def _send(self, call: Call[Result], *, end: bool) -> Result:
        first, limit = self._is_new, self._deadline()
        try:
            with self._sending(end=end):
                return await self._transport.run(call, limit, retry=False)
        except InvalidInput:
            if first:
                # For the next sequence.
                await self._model._look_again(self._builder, limit)  # noqa: SLF001
            raise

    async def _prepared(
        self, inputs: Mapping[str, object], request_id: str = "", *, end: bool | None = None
    ) -> Call[Result] | InvalidInput:
        """Return a step's request, by the model's new interface if nothing was sent yet."""
        step = self._prepare(inputs, request_id, end=end)
        if isinstance(step, InvalidInput) and self._is_new:
            newer = await self._model._look_again(self._builder, self._deadline())  # noqa: SLF001
            if newer is not None:
                self._builder = newer
                step = self._prepare(inputs, request_id, end=end)
        return step

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._state = "over"
