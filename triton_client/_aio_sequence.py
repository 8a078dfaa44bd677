"""Sequences of requests to stateful models, for an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from triton_client._window import aio_items

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
    from types import TracebackType

    from triton_client._aio_transport import AsyncTransport
    from triton_client._plan import Outputs
    from triton_client._sequence import SequenceSteps

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
        call, limit = self._steps.request(inputs, end=end, request_id=request_id)
        with self._steps.sending(end=end):
            return await self._transport.run(call, limit, retry=False)

    async def infer_all(
        self, items: Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]
    ) -> AsyncIterator[Outputs]:
        """Run a step for each of ``items``, the last one with ``end``.

        An item is taken before the one ahead of it is sent.

        Yields:
            Each step's outputs.
        """
        remaining = aio_items(items)
        item = await anext(remaining, None)
        while item is not None:
            following = await anext(remaining, None)
            yield await self.infer(item, end=following is None)
            item = following

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
