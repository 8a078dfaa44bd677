"""A model's requests, with its interface kept in step with the server's."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from triton_client import _requests as requests
from triton_client._aio_concurrency import Later, TimedLock, in_order
from triton_client._base import PARTS_AT_ONCE, ModelBase, copied, is_withheld, sent_inputs
from triton_client._deadline import Deadline
from triton_client._origin import Origin
from triton_client._parameters import RequestOptions
from triton_client._plan import InferencePlan, RequestBuilder, joined
from triton_client._requests import Call
from triton_client._result import Result
from triton_client._shared_memory import ShmRegistry, using
from triton_client.errors import InvalidInput, TritonClientError

if TYPE_CHECKING:
    from triton_client._aio_transport import AsyncTransport

__all__ = ["AsyncModelInterface"]


class AsyncModelInterface(ModelBase):
    """Fetches the interface, and fetches it again where the server disagrees with it.

    A request that this client or the server rejects is built once more by the interface that the
    server has by then, unless that is the same.
    """

    __slots__ = ("_lock", "_pinned", "_timeout", "_transport")

    def __init__(
        self,
        transport: AsyncTransport,
        pinned: AsyncTransport,
        *,
        server: str,
        name: str,
        version: str,
        timeout: float | None,
        shm: ShmRegistry,
        origin: Origin,
    ) -> None:
        super().__init__(server, name, version, shm, origin)
        self._transport = transport
        self._pinned = pinned
        self._timeout = timeout
        self._lock = TimedLock()

    async def refresh(self) -> None:
        """Fetch the model's inputs and outputs again.

        Raises:
            ModelNotFound: The server does not have the model any more.
            TritonClientError: The call failed for another reason.
        """
        await self._fetch(Deadline(self._timeout))

    async def _look_again(self, used: RequestBuilder, limit: Deadline) -> RequestBuilder | None:
        """Return the builder for the server's interface where it has changed; else ``None``.

        One call to the server serves all requests that find the difference at the same time.

        Args:
            used: What rejected a request, or built one that the server rejected.
            limit: How long this may take.
        """
        newer = self._newer(used)
        if newer is not None or self._is_confirmed:
            return newer
        left = limit.remaining()
        async with self._lock.held(left) as acquired:
            newer = self._newer(used)
            if newer is not None or self._is_confirmed or not acquired:
                return newer
            try:
                await self._fetch(Deadline(self._timeout) if left is None else limit)
            except (TritonClientError, RuntimeError):
                # The rejection of the request says more than why no answer came.
                return self._newer(used)
            return self._confirm(used)

    async def _fetch(self, deadline: Deadline) -> None:
        metadata = await self._transport.run(
            requests.model_metadata(self._server, self.name, self.version), deadline
        )
        config: Any
        try:
            config = await self._transport.run(
                requests.model_config(self._server, self.name, self.version), deadline
            )
        except TritonClientError as error:
            if not is_withheld(error):
                raise
            config = error
        self._learn(metadata, config)

    def _names(self, outputs: Iterable[str] | None) -> tuple[str, ...] | None:
        """Return the names of outputs; unknown ones too while the interface may have changed."""
        if outputs is None:
            return None
        if isinstance(outputs, Mapping | str):
            return self._builder.names(outputs)
        outputs = tuple(outputs)
        return self._builder.names(outputs) if self._is_confirmed else outputs

    def _begin(
        self,
        inputs: Mapping[str, object],
        options: RequestOptions,
        limit: Deadline,
        encode: Callable[[Iterable[Call[Result]]], Iterable[Call[Result]]] = list,
    ) -> Later[Result]:
        """Build an inference's requests and return what sends them.

        With the default ``encode`` the caller may change its inputs from then on.
        """
        builder = self._builder
        try:
            plan = builder.plan(inputs, options)
            calls = encode(builder.calls(plan))
        except InvalidInput as error:
            if self._is_confirmed:
                raise
            return partial(self._run_again, builder, error, copied(inputs, error), options, limit)
        return partial(self._run_first, builder, plan, calls, limit)

    async def _run_again(
        self,
        used: RequestBuilder,
        error: InvalidInput,
        inputs: Mapping[str, object],
        options: RequestOptions,
        limit: Deadline,
    ) -> Result:
        builder = await self._look_again(used, limit)
        if builder is None:
            raise error
        plan = builder.plan(inputs, options)
        return await self._run(plan, list(builder.calls(plan)), limit)

    async def _run_first(
        self,
        used: RequestBuilder,
        plan: InferencePlan,
        calls: Iterable[Call[Result]],
        limit: Deadline,
    ) -> Result:
        try:
            return await self._run(plan, calls, limit)
        except InvalidInput as error:
            inputs = sent_inputs(calls) if isinstance(calls, list) else plan.given
            if inputs is None:
                await self._look_again(used, limit)
                raise
            return await self._run_again(used, error, inputs, plan.options, limit)

    async def _stream_again(
        self,
        used: RequestBuilder,
        error: InvalidInput,
        inputs: Mapping[str, object],
        options: RequestOptions,
    ) -> AsyncIterator[Result]:
        limit = Deadline(options.timeout)
        builder = await self._look_again(used, limit)
        if builder is None:
            raise error
        call = builder.single(inputs, options, stream=True)
        stream: Any = self._transport.stream(call, limit.within(limit.seconds or math.inf))
        async with aclosing(stream) as answers:
            async for answer in answers:
                yield answer

    async def _stream_first(
        self, used: RequestBuilder, call: Call[Result], options: RequestOptions
    ) -> AsyncIterator[Result]:
        answered = False
        stream: Any = self._transport.stream(call, options.timeout)
        try:
            async with aclosing(stream) as answers:
                async for answer in answers:
                    answered = True
                    yield answer
        except InvalidInput as error:
            inputs = None if answered else sent_inputs([call])
            if inputs is None:
                raise
            stream = self._stream_again(used, error, inputs, options)
        else:
            return
        async with aclosing(stream) as answers:
            async for answer in answers:
                yield answer

    async def _run(
        self, plan: InferencePlan, calls: Iterable[Call[Result]], limit: Deadline
    ) -> Result:
        if len(plan.parts) == 1:
            (call,) = calls
            return await self._send(call, limit)
        results = in_order(lambda call: partial(self._send, call, limit), calls, PARTS_AT_ONCE)
        return joined(plan, [result async for result in results])

    async def _send(self, call: Call[Result], limit: Deadline) -> Result:
        if not call.regions:
            return await self._transport.run(call, limit)
        with using(call.regions):
            return await self._pinned.run(call, limit, retry=False)

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds)
