"""Sequences of requests to stateful models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from triton_client._aio_concurrency import Items, iterate
from triton_client._deadline import Deadline
from triton_client._origin import ProcessBound
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from triton_client._aio_transport import AsyncTransport
    from triton_client._async.model import AsyncModel
    from triton_client._requests import Call
    from triton_client._result import Result
    from triton_client._sequence_steps import SequenceSteps

__all__ = ["AsyncModelSequence"]


class AsyncModelSequence(ProcessBound):
    """Requests that a stateful model takes as one; from :meth:`AsyncModel.sequence`.

    For one step at a time. All steps go to one server, and none is sent twice: a step that failed
    may have changed the model's state, so the sequence takes no more after it. The server does not
    learn of a sequence that is left without ``end``; it frees the slot after the model's
    ``max_sequence_idle_microseconds``.

    Attributes:
        id: The sequence's identifier.
    """

    __slots__ = ("_model", "_steps", "_transport", "id")

    def __init__(self, transport: AsyncTransport, steps: SequenceSteps, model: AsyncModel) -> None:
        self._transport = transport
        self._steps = steps
        self._model = model
        self.id = steps.id

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
        request = partial(self._steps.request, inputs, end=end, request_id=request_id)
        try:
            step = request()
        except InvalidInput:
            if not await self._adopts_newer():
                raise
            step = request()
        return await self._send(*step, end=end)

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
                yield await self._send(*self._steps.turn_of(step, end=False), end=False)
            step = following
        if step is not None:
            yield await self._send(*self._steps.turn_of(step, end=True), end=True)

    async def _send(self, call: Call[Result], limit: Deadline, *, end: bool) -> Result:
        first = self._steps.is_new
        try:
            with self._steps.sending(end=end):
                return await self._transport.run(call, limit, retry=False)
        except InvalidInput:
            if first:
                # For the next sequence.
                await self._model._look_again(self._steps.builder, limit)  # noqa: SLF001
            raise

    async def _prepared(self, item: Mapping[str, object]) -> Call[Result] | InvalidInput:
        step = self._steps.prepared(item)
        if isinstance(step, InvalidInput) and await self._adopts_newer():
            return self._steps.prepared(item)
        return step

    async def _adopts_newer(self) -> bool:
        """Adopt the model's new interface, if it has one and nothing was sent yet."""
        steps = self._steps
        if not steps.is_new:
            return False
        newer = await self._model._look_again(steps.builder, steps.deadline())  # noqa: SLF001
        if newer is None:
            return False
        steps.builder = newer
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._steps.leave()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"
