"""Answer requests: one concatenation, one run, one split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as backend_utils

from .datatypes import config_datatype
from .errors import BackendError, InternalError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .binding import Binding
    from .parameters import Parameters

__all__ = ["Executor"]

Array = np.ndarray


class Executor:
    """Runs a script for batches of requests.

    Args:
        config: The model configuration.
        script: The loaded ``torch.jit.ScriptModule``.
        binding: Where the configuration's tensors go.
        parameters: How to run it.
    """

    def __init__(
        self, config: Mapping[str, Any], script: Any, binding: Binding, parameters: Parameters
    ) -> None:
        import torch

        self._torch = torch
        self._script = script
        self._binding = binding
        self._optimized = parameters.optimized
        self._guard = torch.inference_mode if parameters.inference_mode else torch.no_grad
        self._batching = int(config.get("max_batch_size", 0)) > 0
        policy = config.get("model_transaction_policy") or {}
        self._decoupled = bool(policy.get("decoupled", False))

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Return a response for every request, in their order; none raises.

        A model that is configured as decoupled gets the same answers, sent by themselves.
        """
        answers = self._answers(requests)
        if not self._decoupled:
            return answers
        final = backend_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        for request, response in zip(requests, answers, strict=True):
            request.get_response_sender().send(response, flags=final)
        return None

    def _answers(self, requests: Sequence[Any]) -> list[Any]:
        if len(requests) > 1 and self._batching:
            try:
                return self._answer_batch(requests)
            except Exception:  # noqa: BLE001, S110 - whose fault it was shows one by one
                pass
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            return self._answer_batch([request])[0]
        except Exception as error:  # noqa: BLE001 - a request may fail, the instance lives on
            told = str(error) if isinstance(error, BackendError) else f"Internal: {error}"
            return backend_utils.InferenceResponse([], backend_utils.TritonError(told))

    def _answer_batch(self, requests: Sequence[Any]) -> list[Any]:
        columns: dict[str, list[Array]] = {}
        for request in requests:
            for tensor in request.inputs():
                columns.setdefault(tensor.name(), []).append(tensor.as_numpy())
        if any(len(arrays) != len(requests) for arrays in columns.values()):
            raise InternalError("the requests of a batch differ in their inputs")
        rows = [len(array) for array in next(iter(columns.values()))] if self._batching else [1]
        results = self._run(
            {
                # Copies: a model may write into its arguments, and a failed batch is asked again.
                name: np.array(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)
                for name, arrays in columns.items()
            }
        )
        # All of them, asked for or not: one that does not fit the configuration is an error.
        arrays = {
            name: self._array(name, results[position])
            for name, position in self._binding.outputs.items()
        }
        asked = {name for request in requests for name in request.requested_output_names()}
        return self._split({n: array for n, array in arrays.items() if n in asked}, rows)

    def _run(self, arrays: Mapping[str, Array]) -> Sequence[Any]:
        """Return the results of the script, flat.

        Args:
            arrays: Every input by its name.
        """
        torch, binding = self._torch, self._binding
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        given: list[Any] = [tensors]
        if not binding.as_dict:
            given = sorted(tensors, key=binding.inputs.__getitem__)
            given = [tensors[name] for name in given]
        # Counts for a thread, and which one runs a batch is the server's choice.
        torch._C._set_graph_executor_optimize(self._optimized)  # noqa: SLF001
        try:
            with self._guard():
                answer = self._script(*given)
        except Exception as error:
            raise InternalError(f"PyTorch execute failure: {error}") from error
        results = (answer,) if isinstance(answer, torch.Tensor) else answer
        if not isinstance(results, tuple) or not all(isinstance(r, torch.Tensor) for r in results):
            raise InternalError(
                "PyTorch execute failure: output must be of type Tensor, List[str] or Tuple "
                "containing one of these two types. It should not be a List / Dictionary of "
                "Tensors or a Scalar"
            )
        for name, position in binding.outputs.items():
            if position >= len(results):
                raise InvalidArgumentError(
                    f"The output {name} in the model configuration refers to an output index which "
                    f"doesn't exist. This model has {len(results)} outputs"
                )
        return results

    def _array(self, name: str, result: Any) -> Array:
        expected, provided = self._binding.datatypes[name], config_datatype(result.dtype)
        if provided != expected:
            raise InvalidArgumentError(
                f"configuration expects datatype {expected} for output '{name}', model provides "
                f"{provided}"
            )
        if not result.dim():
            raise InvalidArgumentError(f"output '{name}' is a scalar which is not supported.")
        array: Array = result.detach().resolve_conj().resolve_neg().contiguous().numpy()
        return array

    def _split(self, arrays: Mapping[str, Array], rows: Sequence[int]) -> list[Any]:
        """Cut the results of a run into one response for every request."""
        response, tensor = backend_utils.InferenceResponse, backend_utils.Tensor
        if not self._batching:
            return [response([tensor(name, array) for name, array in arrays.items()])]
        total = sum(rows)
        for name, array in arrays.items():
            if len(array) < total:
                raise UnsupportedError(
                    f"failed to split the output tensor '{name}' in responses: expected batch "
                    f"size of atleast {total} in model output, got {len(array)}"
                )
        responses, start = [], 0
        for count in rows:
            end = start + count
            # More rows than asked for: NVIDIA's backend leaves off what is too many.
            responses.append(response([tensor(n, array[start:end]) for n, array in arrays.items()]))
            start = end
        return responses
