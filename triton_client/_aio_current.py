"""A model whose interface is kept the server's, and its requests; for an event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from triton_client._deadline import Deadline
from triton_client._regions import using
from triton_client._served import PARTS_AT_ONCE, ServedModel, copied, is_withheld, sent_inputs
from triton_client._window import aio_in_order
from triton_client.errors import InvalidInput, TritonClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable

    from triton_client._aio_transport import AsyncTransport
    from triton_client._calls import Call, Calls
    from triton_client._origin import Origin
    from triton_client._plan import InferencePlan, Inferences, Outputs
    from triton_client._regions import Regions

__all__ = ["AsyncCurrentModel"]


class AsyncCurrentModel(ServedModel):
    """Fetches the interface, and fetches it again where the server disagrees with it.

    As :class:`triton_client._current.CurrentModel`. What is sent again is what was given at first,
    whatever the caller's arrays hold by then.
    """

    __slots__ = ("_looking", "_pinned", "_timeout", "_transport")

    _looking: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None

    def __init__(
        self,
        transport: AsyncTransport,
        calls: Calls,
        *,
        server: str,
        name: str,
        version: str,
        timeout: float | None,
        pinned: AsyncTransport,
        regions: Regions,
        origin: Origin,
    ) -> None:
        super().__init__(calls, server, name, version, regions, origin)
        self._transport = transport
        self._pinned = pinned
        self._timeout = timeout
        self._looking = None

    async def refresh(self) -> None:
        """Ask the server again what the model takes and gives.

        Raises:
            ModelNotFound: There is no such model any more.
            TritonClientError: The call failed otherwise.
        """
        await self._fetch(Deadline(self._timeout))

    async def _look_again(self, used: Inferences, limit: Deadline) -> Inferences | None:
        """As that of :class:`triton_client.Model`; one task asks for all."""
        newer = self._newer(used)
        if newer is not None or self._is_confirmed:
            return newer
        left = limit.remaining()
        try:
            async with asyncio.timeout(left), self._look_lock():
                newer = self._newer(used)
                if newer is not None or self._is_confirmed:
                    return newer
                try:
                    await self._fetch(Deadline(self._timeout) if left is None else limit)
                except (TritonClientError, RuntimeError):
                    # What the request was refused for says more than why no answer came.
                    return self._newer(used)
                return self._confirm(used)
        except TimeoutError:
            return None

    def _look_lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._looking is None or self._looking[0] is not loop:
            self._looking = (loop, asyncio.Lock())
        return self._looking[1]

    async def _fetch(self, deadline: Deadline) -> None:
        metadata = await self._transport.run(
            self._calls.model_metadata(self.name, self.version), deadline
        )
        config: Any
        try:
            config = await self._transport.run(
                self._calls.model_config(self.name, self.version), deadline
            )
        except TritonClientError as error:
            if not is_withheld(error):
                raise
            config = error
        self._learn(metadata, config)

    def _names(self, outputs: Iterable[str] | None) -> tuple[str, ...] | None:
        """Return the outputs wanted; with what may be wrong of them where the next look says so."""
        if outputs is None:
            return None
        if isinstance(outputs, Mapping | str):
            return self._inferences.names(outputs)
        outputs = tuple(outputs)
        if self._is_confirmed:
            return self._inferences.names(outputs)
        return outputs

    def _begin(
        self, inputs: Mapping[str, object], options: Mapping[str, Any], limit: Deadline
    ) -> Awaitable[Outputs]:
        """Make an inference's requests, at once: the caller may change its inputs afterwards."""
        inferences = self._inferences
        try:
            plan = inferences.plan(inputs, **options)
            calls = list(plan.calls())
        except InvalidInput as error:
            if self._is_confirmed:
                raise
            return self._run_again(inferences, error, copied(inputs, error), options, limit)
        return self._run_sent(inferences, plan, calls, options, limit)

    async def _run_again(
        self,
        inferences: Inferences,
        error: InvalidInput,
        inputs: Mapping[str, object],
        options: Mapping[str, Any],
        limit: Deadline,
    ) -> Outputs:
        newer = await self._look_again(inferences, limit)
        if newer is None:
            raise error
        plan = newer.plan(inputs, **options)
        return await self._run(plan, list(plan.calls()), limit)

    async def _run_sent(
        self,
        inferences: Inferences,
        plan: InferencePlan,
        calls: list[Call[Outputs]],
        options: Mapping[str, Any],
        limit: Deadline,
    ) -> Outputs:
        try:
            return await self._run(plan, calls, limit)
        except InvalidInput:
            sent = sent_inputs(calls)
            newer = await self._look_again(inferences, limit)
            if sent is None or newer is None:
                raise
        plan = newer.plan(sent, **options)
        return await self._run(plan, list(plan.calls()), limit)

    async def _stream_again(
        self,
        inferences: Inferences,
        error: InvalidInput,
        inputs: Mapping[str, object],
        options: Mapping[str, Any],
    ) -> AsyncIterator[Outputs]:
        limit = Deadline(options["timeout"])
        newer = await self._look_again(inferences, limit)
        if newer is None:
            raise error
        call = newer.single(inputs, **options)
        stream: Any = self._transport.stream(call, limit.within(limit.seconds or math.inf))
        async with aclosing(stream) as answers:
            async for answer in answers:
                yield answer

    async def _stream_sent(
        self, inferences: Inferences, call: Call[Outputs], options: Mapping[str, Any]
    ) -> AsyncIterator[Outputs]:
        answered = False
        stream: Any = self._transport.stream(call, options["timeout"])
        try:
            async with aclosing(stream) as answers:
                async for answer in answers:
                    answered = True
                    yield answer
        except InvalidInput as error:
            sent = None if answered else sent_inputs([call])
            if sent is None:
                raise
            stream = self._stream_again(inferences, error, sent, options)
        else:
            return
        async with aclosing(stream) as answers:
            async for answer in answers:
                yield answer

    async def _run(
        self, plan: InferencePlan, calls: Iterable[Call[Outputs]], limit: Deadline
    ) -> Outputs:
        if len(plan.parts) == 1:
            (call,) = calls
            return await self._send(call, limit)
        answers = aio_in_order(lambda call: self._send(call, limit), calls, PARTS_AT_ONCE)
        return plan.join([answer async for answer in answers])

    async def _send(self, call: Call[Outputs], limit: Deadline) -> Outputs:
        if not call.segments:
            return await self._transport.run(call, limit)
        with using(call.segments):
            return await self._pinned.run(call, limit, retry=False)

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds)
