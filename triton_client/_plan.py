"""One inference as one or several requests, and their responses as one.

A model that batches takes at most ``max_batch_size`` rows in a request. More rows are split into
requests of that many, each a view of the caller's arrays, and the responses are joined in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from triton_client._decode import decode_answer, decode_streamed
from triton_client._encode import RequestEncoder
from triton_client._failures import Place, classify_text
from triton_client._inputs import check_inputs, check_output_buffers, check_outputs
from triton_client._parameters import RequestOptions
from triton_client._repeats import AnswerReader, RepeatedRequests
from triton_client._requests import INFER, STREAM, Call
from triton_client._result import Result
from triton_client._shared_memory import Shared, ShmRegion, ShmRegistry
from triton_client._tensors import Raw
from triton_client.errors import InvalidInput
from triton_client.types import ModelSpec, TensorSpec

__all__ = ["InferencePlan", "RequestBuilder", "joined"]

Array = np.ndarray[Any, Any]


class InferencePlan(NamedTuple):
    """One inference, checked against the model and split into requests.

    Attributes:
        given: The inputs as the caller gave them.
        options: What else each request holds.
        calls: The requests, in the order of their rows.
        parts: How many they are.
        buffers: The arrays in shared memory to write outputs to.
    """

    given: Mapping[str, object]
    options: RequestOptions
    calls: Iterable[Call[Result]]
    parts: int
    buffers: Mapping[str, Array]


def joined(plan: InferencePlan, results: Sequence[Result]) -> Result:
    """Return the results of a plan's requests as one, in the order of the requests."""
    first = results[0]
    if len(results) == 1:
        return first
    return first.with_outputs(
        {
            name: plan.buffers[name]
            if name in plan.buffers
            else np.concatenate([part[name] for part in results])
            for name in first
        }
    )


class RequestBuilder:
    """Plans the inferences of one model version and builds their requests."""

    __slots__ = ("_encoder", "_place", "_reader", "_repeats", "_shm", "spec")

    def __init__(self, place: Place, spec: ModelSpec, shm: ShmRegistry) -> None:
        self.spec = spec
        self._place = place
        self._shm = shm
        self._encoder = RequestEncoder(spec.name, place.version)
        self._reader = AnswerReader()
        self._repeats = RepeatedRequests()

    def plan(
        self,
        inputs: Mapping[str, object],
        options: RequestOptions,
        encode: Callable[[Iterable[Call[Result]]], Iterable[Call[Result]]] = list,
    ) -> InferencePlan:
        """Check an inference against the model and split it into requests.

        Each is encoded when ``encode`` takes it: by default all at once.

        Raises:
            InvalidInput: It does not fit the model, or a string or a parameter cannot be encoded.
        """
        wanted, timeout, parameters, request_id, priority, headers, class_count = options
        key: Hashable = None
        if not (parameters or request_id or class_count or self._shm):
            known, key = self._repeats.find(inputs, wanted, timeout, priority)
            if known is not None:
                known = known._replace(headers=headers) if headers else known
                return InferencePlan(inputs, options, [known], 1, {})
        buffers: Mapping[str, Array] = {}
        try:
            arrays = check_inputs(self.spec, inputs)
            parts = self._parts(arrays)
            if isinstance(wanted, Mapping):
                if class_count:
                    raise ValueError("class_count goes with names of outputs, not with arrays")  # noqa: TRY301
                rows = len(arrays[0][1]) if self.spec.max_batch_size and arrays else None
                buffers = check_output_buffers(
                    self.spec, wanted, self._shm, rows=rows, split=len(parts) > 1
                )
                wanted = list(wanted)
            outputs = self._outputs(wanted, class_count)
        except ValueError as error:
            raise self.invalid(error) from error
        keep = partial(self._repeats.keep, key, inputs) if key and len(parts) == 1 else None
        call = partial(self._call, arrays, outputs, buffers, options, keep)
        return InferencePlan(inputs, options, encode(map(call, parts)), len(parts), buffers)

    def single(
        self,
        inputs: Mapping[str, object],
        options: RequestOptions,
        *,
        stream: bool = False,
        fields: bytes = b"",
    ) -> Call[Result]:
        """Return a request that cannot be split: a step of a sequence, or that of a stream.

        ``fields`` are what else the request holds.

        Raises:
            InvalidInput: It does not fit the model, or has too many rows.
        """
        try:
            arrays = check_inputs(self.spec, inputs)
            if len(self._parts(arrays)) > 1:
                kind, most = "stream" if stream else "step of a sequence", self.spec.max_batch_size
                raise ValueError(f"a {kind} takes at most {most} rows; send fewer")  # noqa: TRY301
            outputs = self._outputs(options.outputs, options.class_count)
            message = (*self._encoder.encode(arrays, outputs, options), fields)
        except (TypeError, ValueError) as error:
            raise self.invalid(error) from error
        if stream:
            read = partial(_read_streamed, self._place)
            return self._request(STREAM, message, read, options)
        read = partial(_read, self._reader, outputs, None, {})
        return self._request(INFER, message, read, options)

    def names(self, outputs: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the outputs to return.

        Raises:
            InvalidInput: The model has no such output.
        """
        try:
            return check_outputs(self.spec, outputs)
        except ValueError as error:
            raise self.invalid(error) from error

    def invalid(self, reason: Exception | str) -> InvalidInput:
        """Return the error of a request that does not fit the model."""
        return self._place.error(InvalidInput, str(reason))

    def _call(
        self,
        inputs: Sequence[tuple[TensorSpec, Array]],
        outputs: tuple[str, ...],
        buffers: Mapping[str, Array],
        options: RequestOptions,
        keep: Callable[[Sequence[Raw], Call[Result]], None] | None,
        part: slice | None,
    ) -> Call[Result]:
        rows = None
        if part is not None:
            inputs = [(tensor, array[part]) for tensor, array in inputs]
            buffers = {name: array[part] for name, array in buffers.items()}
            rows = part.stop - part.start
        shared: Shared | None = None
        try:
            if self._shm or buffers:
                shared = self._shm.share(inputs, buffers)
            message = self._encoder.encode(inputs, outputs, options, shared)
        except (TypeError, ValueError) as error:
            raise self.invalid(error) from error
        read = self._reader.read
        if outputs or rows:
            read = partial(_read, self._reader, outputs, rows, buffers)
        regions = () if shared is None else shared.regions
        call = self._request(INFER, message, read, options, regions)
        if keep is not None:
            keep(message, call)
        return call

    def _outputs(self, wanted: Iterable[str] | None, class_count: int) -> tuple[str, ...]:
        if class_count < 0:
            raise ValueError(f"class_count cannot be negative: {class_count}")
        if wanted is None:
            # Classes are requested by the name of an output.
            return tuple(tensor.name for tensor in self.spec.outputs) if class_count else ()
        return check_outputs(self.spec, wanted)

    def _request(
        self,
        method: str,
        message: tuple[Raw, ...],
        read: Callable[[bytes], Result],
        options: RequestOptions,
        regions: tuple[ShmRegion, ...] = (),
    ) -> Call[Result]:
        parts: tuple[Any, ...] = message
        # The one copy: from here on the caller's arrays may change.
        return Call(method, b"".join(parts), read, self._place, regions, options.headers)

    def _parts(self, inputs: Sequence[tuple[TensorSpec, Array]]) -> tuple[slice | None, ...]:
        most = self.spec.max_batch_size
        rows = len(inputs[0][1]) if most and inputs else 0
        if rows <= most:
            return (None,)
        return tuple(slice(row, min(row + most, rows)) for row in range(0, rows, most))


def _read(
    reader: AnswerReader,
    outputs: tuple[str, ...],
    rows: int | None,
    buffers: Mapping[str, Array],
    answer: bytes,
) -> Result:
    result = decode_answer(answer, buffers) if buffers else reader.read(answer)
    if outputs:
        for name in outputs:
            if name not in result:
                raise ValueError(f"the response has no output {name!r}")
        result = result.with_outputs({name: result[name] for name in outputs})
    if rows is not None:
        for name, array in result.items():
            shape = list(array.shape)
            if array.ndim == 0 or len(array) != rows:
                raise ValueError(f"{rows} rows were sent, output {name!r} has the shape {shape}")
            if name in buffers and array.shape != buffers[name].shape:
                given = list(buffers[name].shape)
                raise ValueError(f"output {name!r} has the shape {shape}, its array {given}")
    return result


def _read_streamed(place: Place, answer: bytes) -> Result:
    message, result = decode_streamed(answer)
    if message:
        raise classify_text(message, place)
    return result
