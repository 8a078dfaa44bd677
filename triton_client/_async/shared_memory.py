"""System shared memory with a server on the same machine."""

from __future__ import annotations

import logging
from asyncio import sleep
from typing import Self

from triton_client import _requests as requests
from triton_client._aio_transport import AsyncTransport
from triton_client._deadline import Deadline
from triton_client._shared_memory import RELEASE_SECONDS, STILL_USED, WAIT_SECONDS, MemoryArrays
from triton_client.errors import TritonClientError

__all__ = ["AsyncSharedMemory"]

_log = logging.getLogger(__name__)


class AsyncSharedMemory(MemoryArrays):
    """Memory that a server on this machine reads and writes.

    From :meth:`AsyncTritonClient.shared_memory`; use it in ``async with``. Contiguous inputs of
    :meth:`AsyncModel.infer` that are in it are sent by reference. Such a call is never sent twice,
    since the server may still run the first one when the second has ended.

    Leaving waits for the calls of this process that use it, then unregisters it and removes its
    name. A call that ended without an answer (a deadline, a broken connection) may still run in the
    server, which needs the memory: then the name is removed, but the region stays registered until
    the server ends. Arrays stay usable for as long as they exist, and are sent by value from then
    on. A child process shares the memory and may refer to it; leaving it there neither unregisters
    nor removes it.
    """

    __slots__ = ()

    _transport: AsyncTransport

    async def __aenter__(self) -> Self:
        region = self._open()
        call = requests.register(self._server, region.name, region.nbytes)
        try:
            await self._transport.run(call, Deadline(self._timeout))
        except BaseException:
            region.drop()
            raise
        self._shm.add(region)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the calls that use it, then release it; closing again does nothing."""
        region = self._leave()
        if region is None:
            return
        call = requests.unregister(self._server, region.name)
        try:
            while region.busy:  # noqa: ASYNC110 - an event would belong to one loop
                await sleep(WAIT_SECONDS)
            limit = Deadline(RELEASE_SECONDS)
            while not region.abandoned:
                try:
                    await self._transport.run(call, Deadline(self._timeout))
                    break
                except TritonClientError as error:
                    if STILL_USED not in error.message or limit.remaining() == 0:
                        raise
                    await sleep(WAIT_SECONDS)
        except (TritonClientError, RuntimeError) as error:
            _log.warning(
                "shared memory %s may stay registered with the server: %s", region.name, error
            )
        finally:
            region.drop()
