"""gRPC in programs whose threads gevent or eventlet has replaced.

gRPC waits for events in its own threads. Where these are green threads, they deadlock unless gRPC
is prepared for gevent before its first channel.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

__all__ = ["prepare_green_threads"]

_BRIDGE: Final = "grpc.experimental.gevent"


def prepare_green_threads(*, aio: bool = False) -> None:
    """Let gRPC know of gevent where that has patched threads, unless the application has.

    Args:
        aio: Whether the channel is to be one of ``grpc.aio``.

    Raises:
        RuntimeError: gRPC does not work with what has patched threads; it says what to do.
    """
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        raise RuntimeError(
            "eventlet has patched threads, with which gRPC hangs; patch with "
            "eventlet.monkey_patch(thread=False), or use gevent"
        )
    gevent = sys.modules.get("gevent.monkey")
    if gevent is None or not gevent.is_module_patched("threading"):
        return
    if aio:
        raise RuntimeError(
            "gevent has patched threads, with which gRPC's asyncio hangs; use TritonClient, which "
            "does not hold up other greenlets"
        )
    if _BRIDGE not in sys.modules:
        import_module(_BRIDGE).init_gevent()
