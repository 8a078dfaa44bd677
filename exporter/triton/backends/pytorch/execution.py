"""Run a TorchScript module for batches of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..shared.datatypes import Array
from ..shared.errors import InternalError, InvalidArgumentError
from ..shared.execution import Executor, requested_outputs
from .binding import Binding, config_datatype
from .parameters import Parameters

__all__ = ["TorchExecutor"]


class TorchExecutor(Executor):
    """Runs a ``torch.jit.ScriptModule`` for batches of requests."""

    def __init__(
        self, config: Mapping[str, Any], script: Any, binding: Binding, parameters: Parameters
    ) -> None:
        import torch

        super().__init__(config)
        self._torch = torch
        self._script = script
        self._binding = binding
        self._optimized = parameters.optimized
        self._guard = torch.inference_mode if parameters.inference_mode else torch.no_grad

    def answer_batch(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for every request from one run of the script."""
        columns, rows = self.columns(requests, lambda tensor: tensor.as_numpy())
        results = self._run(
            {
                # Copies: a model may write into its arguments, and a failed batch runs again.
                name: np.array(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)
                for name, arrays in columns.items()
            }
        )
        # Also those that no request needs: one that does not fit the configuration is an error.
        arrays = {
            name: self._array(name, results[position])
            for name, position in self._binding.outputs.items()
        }
        requested = requested_outputs(requests)
        names = [name for name in arrays if name in requested]
        return self.split(names, [arrays[name] for name in names], rows)

    def _run(self, arrays: Mapping[str, Array]) -> Sequence[Any]:
        """Return the results of the script, flat, for every input by its name."""
        torch, binding = self._torch, self._binding
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        given: list[Any] = [tensors]
        if not binding.as_dict:
            given = [tensors[name] for name in sorted(tensors, key=binding.inputs.__getitem__)]
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
