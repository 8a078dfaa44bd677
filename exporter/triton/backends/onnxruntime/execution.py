"""Run an ONNX Runtime session for batches of requests.

What does not change between requests is worked out once; the loops over requests hold nothing but
what has to be done for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend_utils

from ..shared.datatypes import Array
from ..shared.execution import Executor, requested_outputs
from .bfloat16 import bits_from_tensor, bits_from_value, tensor_from_bits, value_from_bits
from .interface import Interface
from .session import runtime_message
from .strings import bytes_from_text, text_from_bytes
from .validation import configured_shape

__all__ = ["OnnxExecutor"]


class OnnxExecutor(Executor):
    """Runs an ``onnxruntime.InferenceSession`` for batches of requests."""

    library_message = staticmethod(runtime_message)

    def __init__(
        self, config: Mapping[str, Any], session: Any, interface: Interface, run_options: Any
    ) -> None:
        tensors = {**interface.inputs, **interface.initializers}
        self._session = session
        # The public method checks on every call the names that Triton has checked.
        self._run = session._sess.run  # noqa: SLF001
        self._run_options = run_options
        self._outputs = list(dict.fromkeys(entry["name"] for entry in config["output"]))
        self._datatypes = {name: tensor.datatype for name, tensor in tensors.items()}
        self._output_datatypes = {name: interface.outputs[name].datatype for name in self._outputs}
        self._scalars = {name for name, tensor in tensors.items() if not tensor.shape}
        self._scalar_outputs = {
            entry["name"]: configured_shape(entry)
            for entry in config["output"]
            if not interface.outputs[entry["name"]].shape
        }
        kinds = {*self._datatypes.values(), *self._output_datatypes.values()}
        self._has_bfloat16 = "TYPE_BF16" in kinds
        special = kinds & {"TYPE_STRING", "TYPE_BF16"}
        self._plain = not special and not self._scalars and not self._scalar_outputs
        # One input that needs no conversion: the case that matters most.
        single = len(config["input"]) == 1 == len(tensors) and not interface.initializers
        self._only_input = next(iter(tensors)) if single and self._plain else None
        super().__init__(config, unsplit=self._scalar_outputs)
        if self._has_bfloat16:
            self.make_tensor = self._tensor_of

    def answer_batch(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for every request from one run of the session."""
        wanted = self._outputs
        if len(wanted) > 1:
            requested = requested_outputs(requests)
            wanted = [name for name in wanted if name in requested]
        if self._only_input is not None:
            arrays = [request.inputs()[0].as_numpy() for request in requests]
            feeds = {self._only_input: arrays[0] if len(arrays) == 1 else np.concatenate(arrays)}
            results = self._run(wanted, feeds, self._run_options)
            return self.split(wanted, results, [len(array) for array in arrays])
        columns, rows = self.columns(requests, self._array_of)
        feeds, escaped = self._feeds(columns)
        if self._has_bfloat16:
            results = self._run_values(wanted, feeds)
        else:
            results = self._run(wanted, feeds, self._run_options)
        if not self._plain:
            results = [
                self._result(name, result, escaped=escaped)
                for name, result in zip(wanted, results, strict=True)
            ]
        return self.split(wanted, results, rows)

    def _array_of(self, tensor: Any) -> Array:
        bfloat16 = self._datatypes.get(tensor.name()) == "TYPE_BF16"
        return bits_from_tensor(tensor) if bfloat16 else tensor.as_numpy()

    def _tensor_of(self, name: str, array: Array) -> Any:
        if self._output_datatypes[name] == "TYPE_BF16":
            return tensor_from_bits(backend_utils.Tensor, name, array)
        return backend_utils.Tensor(name, array)

    def _feeds(self, columns: Mapping[str, list[Array]]) -> tuple[dict[str, Array], bool]:
        """Return the inputs of a run, and whether any string in them is not UTF-8."""
        feeds, any_escaped = {}, False
        for name, arrays in columns.items():
            array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            if name in self._scalars:
                # NVIDIA's backend passes the first element of a batch.
                array = array.reshape(-1)[:1].reshape(())
            if self._datatypes.get(name) == "TYPE_STRING":
                array, escaped = text_from_bytes(array)
                any_escaped |= escaped
            feeds[name] = array
        return feeds, any_escaped

    def _run_values(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Any]:
        values = {
            name: value_from_bits(array)
            if self._datatypes[name] == "TYPE_BF16"
            else onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for name, array in feeds.items()
        }
        results = self._session.run_with_ort_values(wanted, values, self._run_options)
        return [
            bits_from_value(result)
            if self._output_datatypes[name] == "TYPE_BF16"
            else result.numpy()
            for name, result in zip(wanted, results, strict=True)
        ]

    def _result(self, name: str, result: Any, *, escaped: bool) -> Array:
        array = np.asarray(result)
        if self._output_datatypes[name] == "TYPE_STRING":
            array = bytes_from_text(array, escaped=escaped)
        if not array.shape and name in self._scalar_outputs:
            array = array.reshape(self._scalar_outputs[name])
        return array
