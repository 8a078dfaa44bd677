"""One model of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from tritonclient.grpc import model_config_pb2

from triton_client import _requests as requests
from triton_client._aio_concurrency import Items, Later, TimedLock, encode_while_waiting, in_order
from triton_client._aio_transport import AsyncTransport
from triton_client._async.sequence import AsyncModelSequence
from triton_client._base import PARTS_AT_ONCE, ModelBase, copied, sent_inputs
from triton_client._deadline import Deadline
from triton_client._failures import Place, is_withheld
from triton_client._headers import call_headers
from triton_client._origin import Origin
from triton_client._parameters import Parameter, RequestOptions, Wanted
from triton_client._plan import InferencePlan, RequestBuilder, joined
from triton_client._requests import Call
from triton_client._result import Result
from triton_client._shared_memory import ShmRegistry, using
from triton_client._spec import model_spec
from triton_client.errors import InvalidInput, ModelNotFound, NotReady, TritonClientError

__all__ = ["AsyncModel"]


class AsyncModel(ModelBase):
    """One model of a server; from :meth:`triton_client.AsyncTritonClient.model`.

    A request that this client or the server rejects is built once more by the interface that the
    server has by then, unless that is the same.

    Attributes:
        name: The model's name.
        version: The version called; empty where the server chooses.
    """

    __slots__ = ("_lock", "_pinned", "_transport")

    def __init__(
        self,
        transport: AsyncTransport,
        pinned: AsyncTransport,
        place: Place,
        timeout: float | None,
        shm: ShmRegistry,
        origin: Origin,
    ) -> None:
        super().__init__(place, timeout, shm, origin)
        self._transport = transport
        self._pinned = pinned
        self._lock = TimedLock()

    async def refresh(self) -> None:
        """Fetch the model's inputs and outputs again.

        Raises:
            ModelNotFound: The server does not have the model any more.
            TritonClientError: The call failed for another reason.
        """
        await self._fetch(Deadline(self._timeout))

    async def ready(self, *, deadline: float | None = None) -> bool:
        """Check whether the model can serve now; ``False`` for one that is gone.

        Args:
            deadline: Seconds; the client's timeout by default.

        Raises:
            TritonClientError: The server did not answer.
        """
        call = requests.model_ready(self._place)
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
        options = self._options(outputs, deadline, parameters, priority, headers)
        options = options._replace(class_count=class_count)

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
        options = self._options(outputs, deadline, parameters, priority, headers)
        options = options._replace(request_id=request_id)
        builder = self._builder
        try:
            call = builder.single(inputs, options, stream=True)
        except InvalidInput as error:
            if self._is_confirmed:
                raise
            return self._answers(builder, error, copied(inputs, error), options)
        return self._answers(builder, call, None, options)

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
        options = self._options(outputs, deadline, parameters, priority, headers)
        return AsyncModelSequence(
            self._pinned, self, self._builder, self._sequence_id(sequence_id), options
        )

    async def _look_again(self, used: RequestBuilder, limit: Deadline) -> RequestBuilder | None:
        """Return the builder for the server's interface where it has changed; else ``None``.

        One call to the server serves all requests that find the difference at the same time.
        ``used`` rejected a request, or built one that the server rejected.
        """
        left = limit.remaining()
        async with self._lock.held(left) as acquired:
            if acquired and self._builder is used and not self._is_confirmed:
                # The rejection of the request says more than why no answer came.
                with suppress(TritonClientError, RuntimeError):
                    await self._fetch(Deadline(self._timeout) if left is None else limit)
                    self._confirm(used)
        return None if self._builder is used else self._builder

    async def _fetch(self, deadline: Deadline) -> None:
        metadata = await self._transport.run(requests.model_metadata(self._place), deadline)
        withheld = None
        try:
            config = await self._transport.run(requests.model_config(self._place), deadline)
        except TritonClientError as error:
            if not is_withheld(error):
                raise
            config, withheld = model_config_pb2.ModelConfig(), error
        self.adopt(model_spec(metadata, config, self.version), config, withheld)

    def _begin(
        self,
        inputs: Mapping[str, object],
        options: RequestOptions,
        limit: Deadline,
        encode: Callable[[Iterable[Call[Result]]], Iterable[Call[Result]]] = list,
    ) -> Later[Result]:
        """Build an inference's requests and return what sends them.

        With the default ``encode`` the caller may change its inputs from then on.
        """
        builder = self._builder
        try:
            plan = builder.plan(inputs, options, encode)
        except InvalidInput as error:
            if self._is_confirmed:
                raise
            return partial(self._run_again, builder, error, copied(inputs, error), options, limit)
        return partial(self._run_first, builder, plan, limit)

    async def _run_again(
        self,
        used: RequestBuilder,
        error: InvalidInput,
        inputs: Mapping[str, object],
        options: RequestOptions,
        limit: Deadline,
    ) -> Result:
        builder = await self._look_again(used, limit)
        if builder is None:
            raise error
        return await self._run(builder.plan(inputs, options), limit)

    async def _run_first(
        self, used: RequestBuilder, plan: InferencePlan, limit: Deadline
    ) -> Result:
        try:
            return await self._run(plan, limit)
        except InvalidInput as error:
            # The caller's arrays may have changed since the requests were made at once.
            inputs = sent_inputs(plan.calls) if isinstance(plan.calls, list) else plan.given
            if inputs is None:
                await self._look_again(used, limit)
                raise
            return await self._run_again(used, error, inputs, plan.options, limit)

    async def _run(self, plan: InferencePlan, limit: Deadline) -> Result:
        if plan.parts == 1:
            (call,) = plan.calls
            return await self._send(call, limit)
        results = in_order(lambda call: partial(self._send, call, limit), plan.calls, PARTS_AT_ONCE)
        return joined(plan, [result async for result in results])

    async def _send(self, call: Call[Result], limit: Deadline) -> Result:
        if not call.regions:
            return await self._transport.run(call, limit)
        with using(call.regions):
            return await self._pinned.run(call, limit, retry=False)

    async def _answers(
        self,
        used: RequestBuilder,
        request: Call[Result] | InvalidInput,
        inputs: Mapping[str, object] | None,
        options: RequestOptions,
    ) -> AsyncIterator[Result]:
        """Yield a stream's answers to a request, or to the one in place of a rejected one."""
        limit, answered = Deadline(options.timeout), False
        if not isinstance(request, InvalidInput):
            stream: Any = self._transport.stream(request, limit)
            try:
                async with aclosing(stream) as answers:
                    async for answer in answers:
                        answered = True
                        yield answer
            except InvalidInput as error:
                inputs = None if answered else sent_inputs([request])
                if inputs is None:
                    raise
                request = error
            else:
                return
        builder = await self._look_again(used, limit)
        if builder is None or inputs is None:
            raise request
        stream = self._transport.stream(builder.single(inputs, options, stream=True), limit)
        async with aclosing(stream) as answers:
            async for answer in answers:
                yield answer
