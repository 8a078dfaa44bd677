"""Event hooks: an application's own metrics and logs of its calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

from triton_client.errors import TritonClientError

__all__ = ["CallInfo", "HookContext", "Hooks"]

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


class HookContext:
    """Calls the hooks at the start and the end of one call.

    Args:
        hooks: What to call.
        call: The call.
    """

    __slots__ = ("_began", "_call", "_hooks", "_logged")

    def __init__(self, hooks: Hooks, call: CallInfo) -> None:
        self._hooks = hooks
        self._call = call
        self._logged = False
        self._began = 0.0

    def __enter__(self) -> Self:
        self._run(lambda: self._hooks.started(self._call))
        self._began = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._began
        ended = None if isinstance(error, GeneratorExit) else error
        if ended is not None and not isinstance(ended, TritonClientError):
            call = self._call
            ended = TritonClientError(
                f"ended by {type(ended).__name__}",
                server=call.server,
                model=call.model,
                version=call.version,
            )
        self._run(lambda: self._hooks.finished(self._call, seconds, ended))

    def _run(self, hook: Callable[[], None]) -> None:
        try:
            hook()
        except Exception:  # noqa: BLE001 - the application's own code
            if not self._logged:
                self._logged = True
                _log.warning("a hook of a %s call failed", self._call.method, exc_info=True)
