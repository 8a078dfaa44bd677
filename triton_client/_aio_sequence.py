"""Sequences of requests to stateful models, for an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from triton_client._window import aio_items

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
    from types import TracebackType

    from triton_client._aio_transport import AsyncTransport
    from triton_client._calls import Call
    from triton_client._deadline import Deadline
    from triton_client._plan import Outputs
    from triton_client._sequence import SequenceSteps
    from triton_client.errors import InvalidInput

__all__ = ["AsyncModelSequence"]


class AsyncModelSequence:
    """Requests that a stateful model takes as one; from :meth:`AsyncModel.sequence`.

    For one task at a time; otherwise as :class:`ModelSequence`.

    Attributes:
        id: The sequence's identifier.
    """

    __slots__ = ("_steps", "_transport", "id")

    def __init__(self, transport: AsyncTransport, steps: SequenceSteps) -> None:
        self._transport = transport
        self._steps = steps
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
        step = self._steps.request(inputs, end=end, request_id=request_id)
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
            following = self._steps.prepared(item)
            if step is not None:
                yield await self._send(*self._steps.turn_of(step, end=False), end=False)
            step = following
        if step is not None:
            yield await self._send(*self._steps.turn_of(step, end=True), end=True)

    async def _send(self, call: Call[Outputs], limit: Deadline, *, end: bool) -> Outputs:
        with self._steps.sending(end=end):
            return await self._transport.run(call, limit, retry=False)

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
