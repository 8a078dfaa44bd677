"""One model of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from triton_client import _requests as requests
from triton_client._aio_concurrency import Items, Later, encode_while_waiting, in_order
from triton_client._async.interface import AsyncModelInterface
from triton_client._async.sequence import AsyncModelSequence
from triton_client._base import copied
from triton_client._headers import call_headers
from triton_client._parameters import Parameter, RequestOptions, Wanted
from triton_client._result import Result
from triton_client._sequence_steps import SequenceSteps
from triton_client.errors import InvalidInput, ModelNotFound, NotReady

__all__ = ["AsyncModel"]


class AsyncModel(AsyncModelInterface):
    """One model of a server; from :meth:`triton_client.AsyncTritonClient.model`.

    Attributes:
        name: The model's name.
        version: The version called; empty where the server chooses.
    """

    __slots__ = ()

    async def ready(self, *, deadline: float | None = None) -> bool:
        """Check whether the model can serve now; ``False`` for one that is gone.

        Args:
            deadline: Seconds; the client's timeout by default.

        Raises:
            TritonClientError: The server did not answer.
        """
        call = requests.model_ready(self._server, self.name, self.version)
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
        headers: Mapping[str, str | bytes] | None = None,
        class_count: int = 0,
    ) -> Result:
        """Run the model.

        Args:
            inputs: By name, of the shapes and dtypes of ``spec.inputs``: numpy arrays, anything
                with ``__array__`` or ``__dlpack__``, Python numbers and strings, nested lists.
                More than ``max_batch_size`` rows are sent as several requests and joined again.
                Contiguous arrays in the client's shared memory are sent by reference.
            outputs: The names of the outputs to return; all by default. Or, by name, arrays in the
                client's shared memory to write them to, ``None`` for one that comes with the
                response.
            deadline: Seconds for everything: the queue, the model, the network and retries. The
                client's timeout by default; ``math.inf`` for none.
            parameters: Request parameters for the model.
            request_id: Shown in the server's logs and traces.
            priority: Triton's request priority, 1 the highest; 0 is the model's default.
            headers: Headers of this call, in place of the client's of the same name.
            class_count: Return each output as its highest values, this many of each row, as
                ``BYTES`` of the form ``value:index`` or ``value:index:label``.

        Returns:
            The outputs by name. Numeric arrays are read-only views of the response, not
            necessarily aligned; copy one to change it. ``BYTES`` outputs are object arrays of
            ``bytes``. An output that was written to an array is that array, or a view of its
            first elements where the output has another shape.

        Raises:
            InvalidInput: This client or the server rejects the inputs.
            DeadlineExceeded: The deadline passed.
            Overloaded: The server's queue is full.
            TritonClientError: The call failed for another reason.
            ValueError: A header cannot be sent.
        """
        limit = self._deadline(deadline)
        if outputs is not None and not isinstance(outputs, Mapping | str):
            outputs = tuple(outputs)
        options = RequestOptions(
            outputs,
            limit.seconds,
            parameters,
            request_id,
            priority,
            call_headers(headers),
            class_count,
        )
        return await self._begin(inputs, options, limit, encode_while_waiting)()

    async def __call__(self, **inputs: object) -> Result:
        """Run the model on inputs given by name; as :meth:`infer` with its defaults."""
        return await self.infer(inputs)

    def infer_many(
        self,
        items: Items[Mapping[str, object]],
        *,
        concurrency: int = 8,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
        headers: Mapping[str, str | bytes] | None = None,
        class_count: int = 0,
    ) -> AsyncIterator[Result]:
        """Run the model on each of many inputs, several at a time.

        Args:
            items: The inputs of each inference, as for :meth:`infer`; read as needed.
            concurrency: How many run at a time.
            outputs: The names of the outputs to return; all by default.
            deadline: Seconds for each inference; the client's timeout by default.
            parameters: Request parameters for the model.
            priority: Triton's request priority.
            headers: Headers of these calls, in place of the client's of the same name.
            class_count: As for :meth:`infer`.

        Yields:
            Each inference's outputs, in the order of ``items``.

        Raises:
            TritonClientError: An inference failed; raised at its turn.
        """
        options = RequestOptions(
            self._names(outputs),
            self._deadline(deadline).seconds,
            parameters,
            priority=priority,
            headers=call_headers(headers),
            class_count=class_count,
        )

        def prepare(inputs: Mapping[str, object]) -> Later[Result]:
            return self._begin(inputs, options, self._deadline(deadline))

        return in_order(prepare, items, concurrency)

    def stream(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        priority: int = 0,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> AsyncIterator[Result]:
        """Run the model and yield its responses as they come: any number where it is decoupled.

        The request is sent when the first response is wanted, and again only where the server never
        processed it. Closing the iterator cancels the call, as does the end of its last reference.

        Args:
            inputs: As for :meth:`infer`, at most ``max_batch_size`` rows.
            outputs: The names of the outputs to return; all by default.
            deadline: Seconds from the request to the last response. The client's timeout by
                default; ``math.inf`` for none.
            parameters: Request parameters for the model.
            request_id: Shown in the server's logs and traces.
            priority: Triton's request priority.
            headers: Headers of this call, in place of the client's of the same name.

        Yields:
            Each response's outputs, as :meth:`infer` returns them.

        Raises:
            InvalidInput: The inputs do not fit the model: at once, or with the first response
                where the interface has to be fetched again first.
            TritonClientError: The call failed, perhaps after some responses; raised at its turn.
        """
        options = RequestOptions(
            self._names(outputs),
            self._deadline(deadline).seconds,
            parameters,
            request_id,
            priority,
            call_headers(headers),
        )
        builder = self._builder
        try:
            call = builder.single(inputs, options, stream=True)
        except InvalidInput as error:
            if self._is_confirmed:
                raise
            return self._stream_again(builder, error, copied(inputs, error), options)
        return self._stream_first(builder, call, options)

    def sequence(
        self,
        sequence_id: int | str | None = None,
        *,
        outputs: Iterable[str] | None = None,
        deadline: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int = 0,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> AsyncModelSequence:
        """Begin a sequence of requests to a stateful model; nothing is sent yet.

        Use it in ``async with``.

        Args:
            sequence_id: An integer from 1 to 2**63 - 1, or text, as the model takes it by its
                config; a random one by default.
            outputs: The names of the outputs to return at every step; all by default.
            deadline: Seconds for each step; the client's timeout by default.
            parameters: Request parameters of every step.
            priority: Triton's request priority of every step.
            headers: Headers of every step, in place of the client's of the same name.

        Raises:
            InvalidInput: The model does not take this identifier.
        """
        options = RequestOptions(
            self._names(outputs),
            self._deadline(deadline).seconds,
            parameters,
            priority=priority,
            headers=call_headers(headers),
        )
        steps = SequenceSteps(self._builder, self._sequence_ids, sequence_id, options)
        return AsyncModelSequence(self._pinned, steps, self)
