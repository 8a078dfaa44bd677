"""Answer batches of requests: one concatenation, one run, one split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import triton_python_backend_utils as backend_utils

from .configuration import is_batching
from .datatypes import Array
from .errors import BackendError, InternalError, UnsupportedError

__all__ = ["Executor", "requested_outputs"]


class Executor(ABC):
    """Runs a model for batches of requests.

    Outputs in ``unsplit`` need not have a row for every row of the requests.
    """

    def __init__(self, config: Mapping[str, Any], *, unsplit: Collection[str] = ()) -> None:
        self.batching = is_batching(config)
        policy = config.get("model_transaction_policy") or {}
        self._decoupled = bool(policy.get("decoupled"))
        # The stub adds its classes to the module only once the backend is imported.
        self.make_tensor: Callable[[str, Array], Any] = backend_utils.Tensor
        self._unsplit = unsplit

    @abstractmethod
    def answer_batch(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for every request from one run of the model."""

    def library_message(self, error: Exception) -> str:
        """Return the message for an error that is no `BackendError`."""
        return f"Internal: {error}"

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Return a response for every request, or send them where the model is decoupled."""
        answers = self._answers(requests)
        if not self._decoupled:
            return answers
        final = backend_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        for request, response in zip(requests, answers, strict=True):
            request.get_response_sender().send(response, flags=final)
        return None

    def _answers(self, requests: Sequence[Any]) -> list[Any]:
        if len(requests) > 1 and self.batching:
            try:
                return self.answer_batch(requests)
            except Exception:  # noqa: BLE001, S110 - one by one shows which request it was
                pass
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            return self.answer_batch([request])[0]
        except BackendError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - a request may fail, the instance lives on
            message = self.library_message(error)
        return backend_utils.InferenceResponse([], backend_utils.TritonError(message))

    def columns(
        self, requests: Sequence[Any], read: Callable[[Any], Array]
    ) -> tuple[dict[str, list[Array]], list[int]]:
        """Return every input's arrays, which ``read`` gets of tensors, and every request's rows."""
        columns: dict[str, list[Array]] = {}
        for request in requests:
            for tensor in request.inputs():
                columns.setdefault(tensor.name(), []).append(read(tensor))
        if any(len(arrays) != len(requests) for arrays in columns.values()):
            raise InternalError("the requests of a batch differ in their inputs")
        if not self.batching or not columns:
            return columns, [1]
        return columns, [len(array) for array in next(iter(columns.values()))]

    def split(
        self, names: Sequence[str], arrays: Sequence[Array], rows: Sequence[int]
    ) -> list[Any]:
        """Split the outputs of a run into one response for every request."""
        if not self.batching:
            return [self._response(names, arrays)]
        total = sum(rows)
        for name, array in zip(names, arrays, strict=True):
            if name not in self._unsplit and len(array) < total:
                raise UnsupportedError(
                    f"failed to split the output tensor '{name}' in responses: expected batch "
                    f"size of atleast {total} in model output, got {len(array)}"
                )
        responses, start = [], 0
        for count in rows:
            end = start + count
            # NVIDIA's backends drop rows beyond those of the requests.
            responses.append(self._response(names, [array[start:end] for array in arrays]))
            start = end
        return responses

    def _response(self, names: Sequence[str], arrays: Sequence[Array]) -> Any:
        return backend_utils.InferenceResponse([*map(self.make_tensor, names, arrays)])


def requested_outputs(requests: Sequence[Any]) -> set[str]:
    """Return the outputs that any request of a batch needs."""
    return {name for request in requests for name in request.requested_output_names()}
