"""Event hooks: an application's own metrics and logs of its calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from triton_client._failures import Place
from triton_client.errors import TritonClientError

__all__ = ["CallInfo", "Hooks", "hooked"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallInfo:
    """One call to a server.

    Attributes:
        method: The gRPC method, such as ``ModelInfer``.
        model: The model it concerns; empty for none.
        version: The version called; empty where the server chooses.
        server: The address as it was given to the client.
        request_bytes: The size of the request's message, before compression.
    """

    method: str
    model: str
    version: str
    server: str
    request_bytes: int


class Hooks(Protocol):
    """Receives the start and the end of every call, in the thread or task that makes it.

    A call is one request with all its attempts: an inference that is split is several. What a hook
    raises is logged and breaks no call. The call waits for its hooks, so they should be quick.
    """

    def started(self, call: CallInfo) -> None:
        """A call begins."""

    def finished(self, call: CallInfo, seconds: float, error: TritonClientError | None) -> None:
        """A call has ended.

        Args:
            call: The same object as at its start.
            seconds: How long it took with all its attempts; for a stream, until its end.
            error: What it failed with; ``None`` for a success, and for a stream left early. A
                call that the caller gave up or could not send ends with a plain
                ``TritonClientError``.
        """


@contextmanager
def hooked(hooks: Hooks, call: CallInfo) -> Iterator[None]:
    """Call the hooks at the start and the end of one call."""
    logged = False

    def run(hook: Callable[[], None]) -> None:
        nonlocal logged
        try:
            hook()
        except Exception:  # noqa: BLE001 - the application's own code
            if not logged:
                logged = True
                _log.warning("a hook of a %s call failed", call.method, exc_info=True)

    run(lambda: hooks.started(call))
    began, ended = perf_counter(), None
    try:
        yield
    except TritonClientError as error:
        ended = error
        raise
    except GeneratorExit:
        raise
    except BaseException as error:
        place = Place(call.server, call.model, call.version)
        ended = place.error(TritonClientError, f"ended by {type(error).__name__}")
        raise
    finally:
        seconds = perf_counter() - began
        run(lambda: hooks.finished(call, seconds, ended))
