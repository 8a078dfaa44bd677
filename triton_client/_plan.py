"""One inference as one or several requests, and their answers as one.

A model that batches takes at most ``max_batch_size`` rows in a request. More rows are cut into
requests of that many, each a view of the caller's arrays, and the answers are put together in
order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from triton_client._answers import AnswerReader
from triton_client._calls import INFER, STREAM, Call
from triton_client._codec import Parameter, RequestEncoder, Step, decode_answer, decode_streamed
from triton_client._failures import classify_text
from triton_client._inputs import check_inputs, check_outputs
from triton_client._placed import check_placed
from triton_client._regions import Regions, Segment, Shared
from triton_client._repeats import RepeatedRequests
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from triton_client._tensors import Raw
    from triton_client.types import ModelSpec, TensorSpec

__all__ = ["InferencePlan", "Inferences", "Outputs", "Wanted"]

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]
Wanted = Iterable[str] | Mapping[str, Array | None]
"""Outputs' names, or their names with arrays in shared memory to write them to."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class InferencePlan(NamedTuple):
    """The requests that one inference takes.

    Attributes:
        parts: The rows of each request; ``None`` for all there are.
        owner: What makes the requests.
        inputs: Every input with all of its rows.
        outputs: The outputs wanted; none means all.
        options: What else each request holds.
        placed: The arrays in shared memory to write outputs to.
        ready: The one request, where it is like an earlier one.
        key: What to keep the one request by for others like it; ``None`` for not at all.
        given: The inputs as the caller gave them.
    """

    parts: tuple[slice | None, ...]
    owner: Inferences
    inputs: Sequence[tuple[TensorSpec, Array]] = ()
    outputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = _NOTHING
    placed: Mapping[str, Array] = _NOTHING
    ready: Call[Outputs] | None = None
    key: Hashable = None
    given: Mapping[str, object] = _NOTHING

    def call(self, part: slice | None) -> Call[Outputs]:
        """Return one part's request.

        Raises:
            InvalidInput: A string or a parameter cannot be encoded.
        """
        if self.ready is not None:
            return self.ready
        if part is None:
            return self.owner.call(self)
        inputs = [(tensor, array[part]) for tensor, array in self.inputs]
        placed = {name: array[part] for name, array in self.placed.items()}
        plan = self._replace(inputs=inputs, placed=placed, key=None)
        return self.owner.call(plan, part.stop - part.start)

    def calls(self) -> Iterator[Call[Outputs]]:
        """Yield every part's request, each encoded when it is taken.

        Raises:
            InvalidInput: A string or a parameter cannot be encoded.
        """
        return map(self.call, self.parts)

    def join(self, answers: Sequence[Outputs]) -> Outputs:
        """Return the parts' answers as one, in the order of the parts."""
        if len(answers) == 1:
            return answers[0]
        return {
            name: self.placed[name]
            if name in self.placed
            else np.concatenate([part[name] for part in answers])
            for name in answers[0]
        }


class Inferences:
    """Plans the inferences of one model version.

    Args:
        server: The server's address, for errors.
        spec: What the model takes and gives.
        version: The version asked for; empty where the server chooses.
        regions: The client's shared memory.
    """

    __slots__ = ("_encoder", "_reader", "_regions", "_repeats", "_server", "_version", "spec")

    def __init__(
        self, server: str, spec: ModelSpec, version: str, regions: Regions | None = None
    ) -> None:
        self._regions = Regions() if regions is None else regions
        self.spec = spec
        self._server = server
        self._version = version
        self._encoder = RequestEncoder(spec.name, version)
        self._reader = AnswerReader()
        self._repeats = RepeatedRequests()

    def plan(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Wanted | None,
        timeout: float | None,
        parameters: Mapping[str, Parameter] | None,
        request_id: str,
        priority: int,
    ) -> InferencePlan:
        """Check an inference against the model and cut it into requests.

        Raises:
            InvalidInput: It does not fit the model.
        """
        key: Hashable = None
        if not (parameters or request_id or self._regions):
            # A list of outputs is given as a tuple here, which can be part of a key.
            names = tuple(outputs) if isinstance(outputs, list) else outputs
            ready, key = self._repeats.find(inputs, names, timeout, priority)
            if ready is not None:
                return InferencePlan((None,), self, ready=ready)
        placed: dict[str, Array] = {}
        try:
            arrays = check_inputs(self.spec, inputs)
            parts = self._parts(arrays)
            if isinstance(outputs, Mapping):
                rows = len(arrays[0][1]) if self.spec.max_batch_size and arrays else None
                placed = check_placed(
                    self.spec, outputs, self._regions, rows=rows, split=len(parts) > 1
                )
                outputs = list(outputs)
            wanted = () if outputs is None else check_outputs(self.spec, outputs)
        except ValueError as error:
            raise self.invalid(error) from error
        options = {
            "request_id": request_id,
            "timeout": timeout,
            "priority": priority,
            "parameters": parameters,
        }
        return InferencePlan(parts, self, arrays, wanted, options, placed, key=key, given=inputs)

    def call(self, plan: InferencePlan, rows: int | None = None) -> Call[Outputs]:
        """Return one request of an inference.

        Args:
            plan: The inference, or a part of one.
            rows: How many rows a part has.

        Raises:
            InvalidInput: A string or a parameter cannot be encoded.
        """
        shared: Shared | None = None
        try:
            if self._regions or plan.placed:
                shared = self._regions.share(plan.inputs, plan.placed)
            parts = self._encoder.encode(plan.inputs, plan.outputs, shared=shared, **plan.options)
        except (TypeError, ValueError) as error:
            raise self.invalid(error) from error
        read = self._reader.read
        if plan.outputs or rows:
            read = partial(_read, self._reader, plan.outputs, rows, plan.placed)
        segments = () if shared is None else shared.segments
        call = self._call(INFER, parts, read, segments)
        if plan.key is not None:
            self._repeats.keep(plan.key, plan.given, parts, call)
        return call

    def single(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Iterable[str] | None,
        timeout: float | None,
        parameters: Mapping[str, Parameter] | None,
        request_id: str,
        priority: int,
        sequence: Step | None = None,
        stream: bool = False,
    ) -> Call[Outputs]:
        """Return a request that cannot be split: a step of a sequence, or that of a stream.

        Raises:
            InvalidInput: It does not fit the model, or has too many rows.
        """
        wanted = () if outputs is None else self.names(outputs)
        try:
            arrays = check_inputs(self.spec, inputs)
            if len(self._parts(arrays)) > 1:
                kind, most = "stream" if stream else "step of a sequence", self.spec.max_batch_size
                raise ValueError(f"a {kind} takes at most {most} rows; send fewer")  # noqa: TRY301
            request = self._encoder.encode(
                arrays,
                wanted,
                request_id=request_id,
                timeout=timeout,
                priority=priority,
                parameters=parameters,
                sequence=sequence,
            )
        except (TypeError, ValueError) as error:
            raise self.invalid(error) from error
        if stream:
            return self._call(STREAM, request, self._read_streamed)
        return self._call(INFER, request, partial(_read, self._reader, wanted, None, {}))

    def names(self, outputs: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the outputs wanted.

        Raises:
            InvalidInput: The model has no such output.
        """
        try:
            return check_outputs(self.spec, outputs)
        except ValueError as error:
            raise self.invalid(error) from error

    def invalid(self, reason: Exception | str) -> InvalidInput:
        """Return the error of a request that does not fit the model."""
        return InvalidInput(
            str(reason), server=self._server, model=self.spec.name, version=self._version
        )

    def _read_streamed(self, answer: bytes) -> Outputs:
        message, outputs = decode_streamed(answer)
        if message:
            raise classify_text(
                message, server=self._server, model=self.spec.name, version=self._version
            )
        return outputs

    def _call(
        self,
        method: str,
        parts: tuple[Raw, ...],
        read: Callable[[bytes], Outputs],
        segments: tuple[Segment, ...] = (),
    ) -> Call[Outputs]:
        # The one copy: from here on the caller's arrays may change.
        joined: tuple[Any, ...] = parts
        request = b"".join(joined)
        return Call(method, request, read, self._server, self.spec.name, self._version, segments)

    def _parts(self, inputs: Sequence[tuple[TensorSpec, Array]]) -> tuple[slice | None, ...]:
        most = self.spec.max_batch_size
        rows = len(inputs[0][1]) if most and inputs else 0
        if rows <= most:
            return (None,)
        return tuple(slice(row, min(row + most, rows)) for row in range(0, rows, most))


def _read(
    reader: AnswerReader,
    wanted: tuple[str, ...],
    rows: int | None,
    placed: Mapping[str, Array],
    answer: bytes,
) -> Outputs:
    outputs = decode_answer(answer, placed) if placed else reader.read(answer)
    if wanted:
        for name in wanted:
            if name not in outputs:
                raise ValueError(f"the answer has no output {name!r}")
        outputs = {name: outputs[name] for name in wanted}
    if rows is not None:
        for name, array in outputs.items():
            shape = list(array.shape)
            if array.ndim == 0 or len(array) != rows:
                raise ValueError(f"{rows} rows were asked, output {name!r} has the shape {shape}")
            if name in placed and array.shape != placed[name].shape:
                given = list(placed[name].shape)
                raise ValueError(f"output {name!r} has the shape {shape}, its array {given}")
    return outputs
