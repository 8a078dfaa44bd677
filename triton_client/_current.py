"""A model whose interface is kept the server's, and its requests; for threads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from triton_client._deadline import Deadline
from triton_client._regions import using
from triton_client._served import PARTS_AT_ONCE, ServedModel, is_withheld, sent_inputs
from triton_client._window import in_order
from triton_client.errors import InvalidInput, TritonClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from triton_client._calls import Call, Calls
    from triton_client._origin import Origin
    from triton_client._plan import InferencePlan, Inferences, Outputs
    from triton_client._regions import Regions
    from triton_client._transport import Transport

__all__ = ["CurrentModel"]

T = TypeVar("T")


class CurrentModel(ServedModel):
    """Fetches the interface, and fetches it again where the server disagrees with it.

    A request that this client refuses, or the server, is made once more by what the server says by
    then, unless that is the same.
    """

    __slots__ = ("_pinned", "_timeout", "_transport")

    def __init__(
        self,
        transport: Transport,
        calls: Calls,
        *,
        server: str,
        name: str,
        version: str,
        timeout: float | None,
        pinned: Transport,
        regions: Regions,
        origin: Origin,
    ) -> None:
        super().__init__(calls, server, name, version, regions, origin)
        self._transport = transport
        self._pinned = pinned
        self._timeout = timeout

    def refresh(self) -> None:
        """Ask the server again what the model takes and gives.

        Raises:
            ModelNotFound: There is no such model any more.
            TritonClientError: The call failed otherwise.
        """
        self._fetch(Deadline(self._timeout))

    def _look_again(self, used: Inferences, limit: Deadline) -> Inferences | None:
        """Return what makes the requests where the interface is another one by now; else ``None``.

        One thread asks the server for all that find it at the same time.

        Args:
            used: What refused a request, or made one that the server refused.
            limit: How long this may take.
        """
        newer = self._newer(used)
        if newer is not None or self._is_confirmed:
            return newer
        left, lock = limit.remaining(), self._lock()
        if not lock.acquire(timeout=-1 if left is None else left):
            return None
        try:
            newer = self._newer(used)
            if newer is not None or self._is_confirmed:
                return newer
            try:
                self._fetch(Deadline(self._timeout) if left is None else limit)
            except (TritonClientError, RuntimeError):
                # What the request was refused for says more than why no answer came.
                return self._newer(used)
            return self._confirm(used)
        finally:
            lock.release()

    def _fetch(self, deadline: Deadline) -> None:
        metadata = self._transport.run(
            self._calls.model_metadata(self.name, self.version), deadline
        )
        config: Any
        try:
            config = self._transport.run(
                self._calls.model_config(self.name, self.version), deadline
            )
        except TritonClientError as error:
            if not is_withheld(error):
                raise
            config = error
        self._learn(metadata, config)

    def _agreed(self, attempt: Callable[[Inferences], T], limit: Deadline) -> T:
        """Do what depends on the interface, and once more where the server's is another by now."""
        inferences = self._inferences
        try:
            return attempt(inferences)
        except InvalidInput:
            newer = self._look_again(inferences, limit)
            if newer is None:
                raise
        return attempt(newer)

    def _names(self, outputs: Iterable[str] | None, limit: Deadline) -> tuple[str, ...] | None:
        if outputs is None:
            return None
        if not isinstance(outputs, Mapping | str):
            outputs = tuple(outputs)
        return self._agreed(lambda inferences: inferences.names(outputs), limit)

    def _run(self, plan: InferencePlan, calls: Iterable[Call[Outputs]], limit: Deadline) -> Outputs:
        if len(plan.parts) == 1:
            (call,) = calls
            return self._send(call, limit)
        answers = in_order(lambda call: partial(self._send, call, limit), calls, PARTS_AT_ONCE)
        return plan.join(list(answers))

    def _run_sent(
        self,
        inferences: Inferences,
        plan: InferencePlan,
        calls: list[Call[Outputs]],
        options: Mapping[str, Any],
        limit: Deadline,
    ) -> Outputs:
        """Run requests whose inputs the caller may have changed since."""
        try:
            return self._run(plan, calls, limit)
        except InvalidInput:
            sent = sent_inputs(calls)
            newer = self._look_again(inferences, limit)
            if sent is None or newer is None:
                raise
        plan = newer.plan(sent, **options)
        return self._run(plan, plan.calls(), limit)

    def _stream_sent(
        self, inferences: Inferences, call: Call[Outputs], options: Mapping[str, Any]
    ) -> Iterator[Outputs]:
        limit, answered = Deadline(options["timeout"]), False
        try:
            stream: Any = self._transport.stream(call, limit.seconds)
            with closing(stream) as answers:
                for answer in answers:
                    answered = True
                    yield answer
        except InvalidInput:
            sent = None if answered else sent_inputs([call])
            newer = self._look_again(inferences, limit)
            if sent is None or newer is None:
                raise
        else:
            return
        call = newer.single(sent, **options)
        yield from self._transport.stream(call, limit.within(limit.seconds or math.inf))

    def _send(self, call: Call[Outputs], limit: Deadline) -> Outputs:
        if not call.segments:
            return self._transport.run(call, limit)
        with using(call.segments):
            return self._pinned.run(call, limit, retry=False)

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds)
