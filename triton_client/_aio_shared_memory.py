"""System shared memory with a server on the same machine, for an event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

from triton_client._deadline import Deadline
from triton_client._shared_memory import (
    RELEASE_SECONDS,
    STILL_REGISTERED,
    WAIT_SECONDS,
    MemoryArrays,
    is_held,
)
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from types import TracebackType

    from triton_client._aio_transport import AsyncTransport
    from triton_client._calls import Calls
    from triton_client._regions import Regions

__all__ = ["AsyncSharedMemory"]

_log = logging.getLogger(__name__)


class AsyncSharedMemory(MemoryArrays):
    """As :class:`SharedMemory`, with ``async with``; from ``AsyncTritonClient.shared_memory``."""

    __slots__ = ("_transport",)

    def __init__(
        self,
        transport: AsyncTransport,
        calls: Calls,
        regions: Regions,
        nbytes: int,
        timeout: float | None,
    ) -> None:
        super().__init__(calls, regions, nbytes, timeout)
        self._transport = transport

    async def __aenter__(self) -> Self:
        segment = self._open()
        call = self._calls.register(segment.name, segment.key, segment.nbytes)
        try:
            await self._transport.run(call, Deadline(self._timeout))
        except BaseException:
            segment.drop()
            raise
        self._regions.add(segment)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the calls that use it, and give it up; another close is fine."""
        segment = self._leave()
        if segment is None:
            return
        try:
            while segment.busy:  # noqa: ASYNC110 - an event would belong to one loop
                await asyncio.sleep(WAIT_SECONDS)
            limit = Deadline(RELEASE_SECONDS)
            while not segment.abandoned:
                try:
                    call = self._calls.unregister(segment.name)
                    await self._transport.run(call, Deadline(self._timeout))
                    break
                except TritonClientError as error:
                    if not is_held(error, limit):
                        raise
                    await asyncio.sleep(WAIT_SECONDS)
        except (TritonClientError, RuntimeError) as error:
            _log.warning(STILL_REGISTERED, segment.name, error)
        finally:
            segment.drop()
