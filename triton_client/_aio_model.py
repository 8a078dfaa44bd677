"""One model of a server, for an event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from triton_client._aio_current import AsyncCurrentModel
from triton_client._aio_sequence import AsyncModelSequence
from triton_client._sequence import SequenceSteps
from triton_client._served import copied
from triton_client._window import aio_in_order
from triton_client.errors import InvalidInput, ModelNotFound, NotReady

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable

    from triton_client._codec import Parameter
    from triton_client._plan import Outputs, Wanted

__all__ = ["AsyncModel"]


class AsyncModel(AsyncCurrentModel):
    """One model of a server; from :meth:`triton_client.AsyncTritonClient.model`.

    Attributes:
        name: The model's name.
        version: The version asked for; empty where the server chooses.
    """

    __slots__ = ()

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
        if outputs is not None and not isinstance(outputs, Mapping | str):
            outputs = tuple(outputs)
        limit = self._deadline(deadline)
        options = {
            "outputs": outputs,
            "timeout": limit.seconds,
            "parameters": parameters,
            "request_id": request_id,
            "priority": priority,
        }
        return await self._begin(inputs, options, limit)

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
        wanted = self._names(outputs)

        def prepare(inputs: Mapping[str, object]) -> Awaitable[Outputs]:
            limit = self._deadline(deadline)
            options = {
                "outputs": wanted,
                "timeout": limit.seconds,
                "parameters": parameters,
                "request_id": "",
                "priority": priority,
            }
            return self._begin(inputs, options, limit)

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

        The request is sent when the first answer is wanted, and again only where the server never
        processed it.
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
            InvalidInput: The inputs do not fit the model: at once, or with the first answer where
                the server is asked for its interface again.
            TritonClientError: At its turn, where the call failed, perhaps after some answers.
        """
        options: dict[str, Any] = {
            "outputs": self._names(outputs),
            "timeout": self._deadline(deadline).seconds,
            "parameters": parameters,
            "request_id": request_id,
            "priority": priority,
            "stream": True,
        }
        inferences = self._inferences
        try:
            call = inferences.single(inputs, **options)
        except InvalidInput as error:
            if self._is_confirmed:
                raise
            return self._stream_again(inferences, error, copied(inputs, error), options)
        return self._stream_sent(inferences, call, options)

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
            sequence_id: An integer from 1 to 2**63 - 1, or text, as the model takes it by its
                config; a random one by default.
            outputs: The outputs wanted of every step; all by default.
            deadline: Seconds for each step; the client's timeout by default.
            parameters: Request parameters of every step.
            priority: Triton's request priority of every step.

        Raises:
            InvalidInput: The identifier is none that the model takes.
        """
        options = {
            "outputs": self._names(outputs),
            "parameters": parameters,
            "priority": priority,
        }
        limit = self._deadline(deadline)
        steps = SequenceSteps(
            self._inferences, self._sequence_ids, sequence_id, limit.seconds, options
        )
        return AsyncModelSequence(self._pinned, steps, self._look_again)
