"""Sequences of requests to stateful models, for an event loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from triton_client._origin import ProcessBound
from triton_client._window import aio_items
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Mapping,
    )
    from types import TracebackType

    from triton_client._aio_transport import AsyncTransport
    from triton_client._calls import Call
    from triton_client._deadline import Deadline
    from triton_client._plan import Inferences, Outputs
    from triton_client._sequence import SequenceSteps

__all__ = ["AsyncModelSequence"]


class AsyncModelSequence(ProcessBound):
    """Requests that a stateful model takes as one; from :meth:`AsyncModel.sequence`.

    For one task at a time; otherwise as :class:`ModelSequence`.

    Attributes:
        id: The sequence's identifier.
    """

    __slots__ = ("_look_again", "_steps", "_transport", "id")

    def __init__(
        self,
        transport: AsyncTransport,
        steps: SequenceSteps,
        look_again: Callable[[Inferences, Deadline], Awaitable[Inferences | None]],
    ) -> None:
        self._transport = transport
        self._steps = steps
        self._look_again = look_again
        self.id = steps.id

    async def infer(
        self, inputs: Mapping[str, object], *, end: bool = False, request_id: str = ""
    ) -> Outputs:
        """Run the next step.

        Args:
            inputs: As :meth:`AsyncModel.infer` takes them, at most ``max_batch_size`` rows.
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
            if not await self._adopts_newer():
                raise
            step = request()
        return await self._send(*step, end=end)

    async def infer_all(
        self, items: Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]
    ) -> AsyncIterator[Outputs]:
        """Run a step for each of ``items``, the last one with ``end``.

        An item is taken before the one ahead of it is sent; it may be the same object with other
        values.

        Yields:
            Each step's outputs.
        """
        step: Call[Outputs] | InvalidInput | None = None
        async for item in aio_items(items):
            following = await self._prepared(item)
            if step is not None:
                yield await self._send(*self._steps.turn_of(step, end=False), end=False)
            step = following
        if step is not None:
            yield await self._send(*self._steps.turn_of(step, end=True), end=True)

    async def _send(self, call: Call[Outputs], limit: Deadline, *, end: bool) -> Outputs:
        first = self._steps.is_new
        try:
            with self._steps.sending(end=end):
                return await self._transport.run(call, limit, retry=False)
        except InvalidInput:
            if first:
                # The next sequence is the better for it.
                await self._look_again(self._steps.inferences, limit)
            raise

    async def _prepared(self, item: Mapping[str, object]) -> Call[Outputs] | InvalidInput:
        step = self._steps.prepared(item)
        if isinstance(step, InvalidInput) and await self._adopts_newer():
            return self._steps.prepared(item)
        return step

    async def _adopts_newer(self) -> bool:
        """Whether the model's interface is another one by now, before anything was sent."""
        steps = self._steps
        newer = await self._look_again(steps.inferences, steps.deadline()) if steps.is_new else None
        if newer is None:
            return False
        steps.inferences = newer
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
