"""One model of a server, for threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_client._deadline import Deadline
from triton_client._served import PARTS_AT_ONCE, ServedModel
from triton_client._window import in_order
from triton_client.errors import ModelNotFound, NotReady, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from triton_client._calls import Calls
    from triton_client._codec import Parameter
    from triton_client._plan import Outputs
    from triton_client._transport import Transport

__all__ = ["Model"]


class Model(ServedModel):
    """One model of a server; from :meth:`triton_client.TritonClient.model`. Thread-safe.

    Attributes:
        name: The model's name.
        version: The version asked for; empty where the server chooses.
    """

    __slots__ = ("_timeout", "_transport")

    def __init__(
        self,
        transport: Transport,
        calls: Calls,
        *,
        server: str,
        name: str,
        version: str,
        timeout: float | None,
    ) -> None:
        super().__init__(calls, server, name, version)
        self._transport = transport
        self._timeout = timeout
        self.refresh()

    def refresh(self) -> None:
        """Ask the server again what the model takes and gives.

        Raises:
            ModelNotFound: There is no such model any more.
            TritonClientError: The call failed otherwise.
        """
        deadline = Deadline(self._timeout)
        metadata = self._transport.run(
            self._calls.model_metadata(self.name, self.version), deadline
        )
        try:
            config = self._transport.run(
                self._calls.model_config(self.name, self.version), deadline
            )
        except PermissionDenied:
            config = None
        self._learn(metadata, config)

    def ready(self, *, deadline: float | None = None) -> bool:
        """Tell whether the model can serve now; ``False`` for one that is gone.

        Args:
            deadline: Seconds; the client's timeout by default.

        Raises:
            TritonClientError: The server did not answer.
        """
        call = self._calls.model_ready(self.name, self.version)
        try:
            return self._transport.run(call, self._deadline(deadline))
        except (ModelNotFound, NotReady):
            return False

    def infer(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        priority: int = 0,
    ) -> Outputs:
        """Run the model.

        Args:
            inputs: By name, of the shapes and dtypes of ``spec.inputs``: numpy arrays, anything
                with ``__array__`` or ``__dlpack__``, Python numbers and strings, nested lists.
                More than ``max_batch_size`` rows are sent as several requests, put together again.
            outputs: The outputs wanted; all by default.
            deadline: Seconds for everything: the queue, the model, the way there and back, and
                retries. The client's timeout by default; ``math.inf`` for none.
            parameters: Request parameters for the model.
            request_id: Shown in the server's logs and traces.
            priority: Triton's request priority, 1 the highest; 0 is the model's default.

        Returns:
            The outputs by name. Numeric arrays are read-only views of the message that came, not
            necessarily aligned; copy one to change it. ``BYTES`` outputs are object arrays of
            ``bytes``.

        Raises:
            InvalidInput: The inputs do not fit the model, by this client or by the server.
            DeadlineExceeded: The deadline passed.
            Overloaded: The server's queue is full.
            TritonClientError: The call failed otherwise.
        """
        limit = self._deadline(deadline)
        plan = self._inferences.plan(
            inputs,
            outputs=outputs,
            timeout=limit.seconds,
            parameters=parameters,
            request_id=request_id,
            priority=priority,
        )
        if len(plan.parts) == 1:
            return self._transport.run(plan.call(plan.parts[0]), limit)
        answers = in_order(
            lambda part: self._transport.run(plan.call(part), limit), plan.parts, PARTS_AT_ONCE
        )
        return plan.join(list(answers))

    def __call__(self, **inputs: object) -> Outputs:
        """Run the model on inputs given by name; as :meth:`infer` with its defaults."""
        return self.infer(inputs)

    def infer_many(
        self,
        items: Iterable[Mapping[str, object]],
        *,
        concurrency: int = 8,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
    ) -> Iterator[Outputs]:
        """Run the model on each of many inputs, several at a time.

        Args:
            items: The inputs of each inference, as :meth:`infer` takes them; read as needed.
            concurrency: How many are under way together.
            outputs: The outputs wanted; all by default.
            deadline: Seconds for each inference; the client's timeout by default.
            parameters: Request parameters for the model.
            priority: Triton's request priority.

        Yields:
            Each inference's outputs, in the order of ``items``.

        Raises:
            TritonClientError: At its turn, what an inference failed with.
        """
        wanted = None if outputs is None else list(outputs)

        def infer(inputs: Mapping[str, object]) -> Outputs:
            return self.infer(
                inputs, outputs=wanted, deadline=deadline, parameters=parameters, priority=priority
            )

        return in_order(infer, items, concurrency)

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds)
