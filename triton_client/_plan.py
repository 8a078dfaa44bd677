"""One inference as one or several requests, and their answers as one.

A model that batches takes at most ``max_batch_size`` rows in a request. More rows are cut into
requests of that many, each a view of the caller's arrays, and the answers are put together in
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_client._calls import INFER, Call
from triton_client._codec import Parameter, RequestEncoder, decode_answer
from triton_client._inputs import check_inputs, check_outputs
from triton_client.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from triton_client.types import ModelSpec, TensorSpec

__all__ = ["InferencePlan", "Inferences", "Outputs"]

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]


@dataclass(frozen=True, slots=True)
class InferencePlan:
    """The requests that one inference takes.

    Attributes:
        parts: The rows of each request; ``None`` for all there are.
    """

    parts: tuple[slice | None, ...]
    _owner: Inferences
    _inputs: Sequence[tuple[TensorSpec, Array]]
    _outputs: tuple[str, ...]
    _options: Mapping[str, Any]

    def call(self, part: slice | None) -> Call[Outputs]:
        """Return one part's request.

        Raises:
            InvalidInput: A string or a parameter cannot be encoded.
        """
        inputs = self._inputs
        if part is not None:
            inputs = [(tensor, array[part]) for tensor, array in inputs]
        return self._owner.call(inputs, self._outputs, part, self._options)

    def join(self, answers: Sequence[Outputs]) -> Outputs:
        """Return the parts' answers as one, in the order of the parts."""
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([part[name] for part in answers]) for name in answers[0]}


class Inferences:
    """Plans the inferences of one model version.

    Args:
        server: The server's address, for errors.
        spec: What the model takes and gives.
        version: The version asked for; empty where the server chooses.
    """

    __slots__ = ("_encoder", "_server", "_version", "spec")

    def __init__(self, server: str, spec: ModelSpec, version: str) -> None:
        self.spec = spec
        self._server = server
        self._version = version
        self._encoder = RequestEncoder(spec.name, version)

    def plan(
        self,
        inputs: Mapping[str, object],
        *,
        outputs: Iterable[str] | None,
        timeout: float | None,
        parameters: Mapping[str, Parameter] | None,
        request_id: str,
        priority: int,
    ) -> InferencePlan:
        """Check an inference against the model and cut it into requests.

        Raises:
            InvalidInput: It does not fit the model.
        """
        try:
            arrays = check_inputs(self.spec, inputs)
            wanted = () if outputs is None else check_outputs(self.spec, outputs)
        except ValueError as error:
            raise self._invalid(error) from error
        options = {
            "request_id": request_id,
            "timeout": timeout,
            "priority": priority,
            "parameters": parameters,
        }
        return InferencePlan(self._parts(arrays), self, arrays, wanted, options)

    def call(
        self,
        inputs: Sequence[tuple[TensorSpec, Array]],
        outputs: tuple[str, ...],
        part: slice | None,
        options: Mapping[str, Any],
    ) -> Call[Outputs]:
        """Return one request.

        Raises:
            InvalidInput: A string or a parameter cannot be encoded.
        """
        try:
            request = self._encoder.encode(inputs, outputs, **options)
        except (TypeError, ValueError) as error:
            raise self._invalid(error) from error
        rows = None if part is None else part.stop - part.start
        read = partial(_read, outputs, rows) if outputs or rows else decode_answer
        return Call(INFER, request, read, self._server, self.spec.name, self._version)

    def _parts(self, inputs: Sequence[tuple[TensorSpec, Array]]) -> tuple[slice | None, ...]:
        most = self.spec.max_batch_size
        rows = len(inputs[0][1]) if most and inputs else 0
        if rows <= most:
            return (None,)
        return tuple(slice(row, min(row + most, rows)) for row in range(0, rows, most))

    def _invalid(self, error: Exception) -> InvalidInput:
        return InvalidInput(
            str(error), server=self._server, model=self.spec.name, version=self._version
        )


def _read(wanted: tuple[str, ...], rows: int | None, answer: bytes | memoryview) -> Outputs:
    outputs = decode_answer(answer)
    if wanted:
        for name in wanted:
            if name not in outputs:
                raise ValueError(f"the answer has no output {name!r}")
        outputs = {name: outputs[name] for name in wanted}
    if rows is not None:
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != rows:
                shape = list(array.shape)
                raise ValueError(f"{rows} rows were asked, output {name!r} has the shape {shape}")
    return outputs
