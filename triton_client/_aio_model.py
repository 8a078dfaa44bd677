"""One model of a server, for an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_client._aio_sequence import AsyncModelSequence
from triton_client._deadline import Deadline
from triton_client._regions import using
from triton_client._sequence import SequenceSteps
from triton_client._served import PARTS_AT_ONCE, ServedModel
from triton_client._window import aio_in_order
from triton_client.errors import ModelNotFound, NotReady, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Mapping

    from triton_client._aio_transport import AsyncTransport
    from triton_client._calls import Call, Calls
    from triton_client._codec import Parameter
    from triton_client._plan import InferencePlan, Outputs, Wanted
    from triton_client._regions import Regions

__all__ = ["AsyncModel"]


class AsyncModel(ServedModel):
    """One model of a server; from :meth:`triton_client.AsyncTritonClient.model`.

    Attributes:
        name: The model's name.
        version: The version asked for; empty where the server chooses.
    """

    __slots__ = ("_pinned", "_timeout", "_transport")

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
    ) -> None:
        super().__init__(calls, server, name, version, regions)
        self._transport = transport
        self._pinned = pinned
        self._timeout = timeout

    async def refresh(self) -> None:
        """Ask the server again what the model takes and gives.

        Raises:
            ModelNotFound: There is no such model any more.
            TritonClientError: The call failed otherwise.
        """
        deadline = Deadline(self._timeout)
        metadata = await self._transport.run(
            self._calls.model_metadata(self.name, self.version), deadline
        )
        try:
            config = await self._transport.run(
                self._calls.model_config(self.name, self.version), deadline
            )
        except PermissionDenied:
            config = None
        self._learn(metadata, config)

    async def ready(self, *, deadline: float | None = None) -> bool:
        """Tell whether the model can serve now; ``False`` for one that is gone.

        Args:
            deadline: Seconds; the client's timeout by default.

        Raises:
            TritonClientError: The server did not answer.
        """
        call = self._calls.model_ready(self.name, self.version)
        try:
            return await self._transport.run(call, self._deadline(deadline))
        except (ModelNotFound, NotReady):
            return False

    async def infer(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Wanted | None = None,
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
                Contiguous arrays in the client's shared memory are sent by reference.
            outputs: The names of the outputs wanted; all by default. Or, by name, arrays in the
                client's shared memory to write them to, ``None`` for one that is to come with
                the answer.
            deadline: Seconds for everything: the queue, the model, the way there and back, and
                retries. The client's timeout by default; ``math.inf`` for none.
            parameters: Request parameters for the model.
            request_id: Shown in the server's logs and traces.
            priority: Triton's request priority, 1 the highest; 0 is the model's default.

        Returns:
            The outputs by name. Numeric arrays are read-only views of the message that came, not
            necessarily aligned; copy one to change it. ``BYTES`` outputs are object arrays of
            ``bytes``. An output that was written to an array is that array, or a view of its
            first elements where the output has another shape.

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
        # All of it is encoded before anything is awaited: the caller may change the inputs then.
        return await self._run(plan, list(plan.calls()), limit)

    async def __call__(self, **inputs: object) -> Outputs:
        """Run the model on inputs given by name; as :meth:`infer` with its defaults."""
        return await self.infer(inputs)

    def infer_many(
        self,
        items: Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]],
        *,
        concurrency: int = 8,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
    ) -> AsyncIterator[Outputs]:
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
        wanted = None if outputs is None else self._inferences.names(outputs)

        def prepare(inputs: Mapping[str, object]) -> Awaitable[Outputs]:
            limit = self._deadline(deadline)
            plan = self._inferences.plan(
                inputs,
                outputs=wanted,
                timeout=limit.seconds,
                parameters=parameters,
                request_id="",
                priority=priority,
            )
            return self._run(plan, list(plan.calls()), limit)

        return aio_in_order(prepare, items, concurrency)

    def stream(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        priority: int = 0,
    ) -> AsyncIterator[Outputs]:
        """Run the model and yield its answers as they come: any number where it is decoupled.

        The request is sent when the first answer is asked for, and is never sent twice.
        ``aclose`` cancels the call, as does the end of the last reference.

        Args:
            inputs: As :meth:`infer` takes them, at most ``max_batch_size`` rows.
            outputs: The outputs wanted; all by default.
            deadline: Seconds from the first answer asked for to the last one that comes. The
                client's timeout by default; ``math.inf`` for none.
            parameters: Request parameters for the model.
            request_id: Shown in the server's logs and traces.
            priority: Triton's request priority.

        Yields:
            Each answer's outputs, as :meth:`infer` returns them.

        Raises:
            InvalidInput: At once, where the inputs do not fit the model.
            TritonClientError: At its turn, where the call failed, perhaps after some answers.
        """
        limit = self._deadline(deadline)
        call = self._inferences.single(
            inputs,
            outputs=outputs,
            timeout=limit.seconds,
            parameters=parameters,
            request_id=request_id,
            priority=priority,
            stream=True,
        )
        return self._transport.stream(call, limit.seconds)

    def sequence(
        self,
        sequence_id: int | str | None = None,
        *,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
    ) -> AsyncModelSequence:
        """Begin a sequence of requests to a stateful model; nothing is sent yet.

        Use it in an ``async with`` statement.

        Args:
            sequence_id: An integer from 1 to 2**63 - 1, or text; a random integer by default.
            outputs: The outputs wanted of every step; all by default.
            deadline: Seconds for each step; the client's timeout by default.
            parameters: Request parameters of every step.
            priority: Triton's request priority of every step.

        Raises:
            InvalidInput: The identifier is none.
        """
        options = {
            "outputs": None if outputs is None else self._inferences.names(outputs),
            "parameters": parameters,
            "priority": priority,
        }
        limit = self._deadline(deadline)
        steps = SequenceSteps(self._inferences, sequence_id, limit.seconds, options)
        return AsyncModelSequence(self._pinned, steps)

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
