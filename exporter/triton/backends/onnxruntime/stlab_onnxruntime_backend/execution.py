"""Answer requests: one concatenation, one run, one split.

Whatever does not change between requests is worked out once; the loops over requests hold nothing
but what has to be done for each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend_utils

from .bfloat16 import bits_from_tensor, bits_from_value, tensor_from_bits, value_from_bits
from .errors import BackendError, InternalError, UnsupportedError, runtime_message
from .strings import bytes_from_text, text_from_bytes
from .validation import configured_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .interface import Interface

__all__ = ["Executor"]

Array = np.ndarray


class Executor:
    """Runs a session for batches of requests.

    Args:
        config: The model configuration.
        session: The ``onnxruntime.InferenceSession``.
        interface: What the model takes and gives.
        run_options: For every run, or None.
    """

    def __init__(
        self, config: Mapping[str, Any], session: Any, interface: Interface, run_options: Any
    ) -> None:
        tensors = {**interface.inputs, **interface.initializers}
        self._session = session
        # The public method checks the names, which Triton has done, on every call.
        self._run = session._sess.run  # noqa: SLF001
        self._run_options = run_options
        self._batching = int(config.get("max_batch_size", 0)) > 0
        self._outputs = list(dict.fromkeys(entry["name"] for entry in config["output"]))
        policy = config.get("model_transaction_policy") or {}
        self._decoupled = bool(policy.get("decoupled", False))
        self._datatypes = {name: tensor.datatype for name, tensor in tensors.items()}
        self._output_datatypes = {name: interface.outputs[name].datatype for name in self._outputs}
        self._scalars = {name for name, tensor in tensors.items() if not tensor.shape}
        self._scalar_outputs = {
            entry["name"]: configured_shape(entry)
            for entry in config["output"]
            if not interface.outputs[entry["name"]].shape
        }
        special = {"TYPE_STRING", "TYPE_BF16"}
        kinds = {*self._datatypes.values(), *self._output_datatypes.values()}
        self._has_bfloat16 = "TYPE_BF16" in kinds
        plain = not (kinds & special) and not self._scalars and not self._scalar_outputs
        # One input that needs no conversion: the case that matters most.
        single = plain and len(config["input"]) == 1 == len(tensors) and not interface.initializers
        self._only_input: str | None = next(iter(tensors)) if single else None
        self._plain_outputs = plain

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
        if len(requests) == 1:
            return [self._answer(requests[0])]
        if self._batching:
            try:
                return self._answer_batch(requests)
            except Exception:  # noqa: BLE001, S110 - whose fault it was shows one by one
                pass
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            return self._answer_batch([request])[0]
        except BackendError as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - a request may fail, the instance lives on
            message = runtime_message(error)
        return backend_utils.InferenceResponse([], backend_utils.TritonError(message))

    def _answer_batch(self, requests: Sequence[Any]) -> list[Any]:
        wanted = self._outputs
        if len(wanted) > 1:
            asked = {name for request in requests for name in request.requested_output_names()}
            wanted = [name for name in wanted if name in asked]
        if self._only_input is not None:
            arrays = [request.inputs()[0].as_numpy() for request in requests]
            feeds = {self._only_input: arrays[0] if len(arrays) == 1 else np.concatenate(arrays)}
            results = self._run(wanted, feeds, self._run_options)
            return self._split(wanted, results, [len(array) for array in arrays])
        columns = self._columns(requests)
        rows = [len(array) for array in next(iter(columns.values()), ())]
        feeds, escaped = self._feeds(columns)
        results = self._run_values(wanted, feeds) if self._has_bfloat16 else None
        if results is None:
            results = self._run(wanted, feeds, self._run_options)
        if not self._plain_outputs:
            results = [
                self._result(name, result, escaped=escaped)
                for name, result in zip(wanted, results, strict=True)
            ]
        return self._split(wanted, results, rows or [1])

    def _columns(self, requests: Sequence[Any]) -> dict[str, list[Array]]:
        """Return the arrays of every input, request by request."""
        columns: dict[str, list[Array]] = {}
        for request in requests:
            for tensor in request.inputs():
                name = tensor.name()
                bfloat16 = self._datatypes.get(name) == "TYPE_BF16"
                array = bits_from_tensor(tensor) if bfloat16 else tensor.as_numpy()
                columns.setdefault(name, []).append(array)
        if any(len(arrays) != len(requests) for arrays in columns.values()):
            raise InternalError("the requests of a batch differ in their inputs")
        return columns

    def _feeds(self, columns: Mapping[str, list[Array]]) -> tuple[dict[str, Array], bool]:
        """Return what to feed, and whether any string in it was no UTF-8."""
        feeds, any_escaped = {}, False
        for name, arrays in columns.items():
            array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            if name in self._scalars:
                # NVIDIA's backend hands on the first element of what a batch holds.
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

    def _split(
        self, names: Sequence[str], results: Sequence[Array], rows: Sequence[int]
    ) -> list[Any]:
        """Cut the results of a run into one response for every request."""
        response, tensor = backend_utils.InferenceResponse, self._tensor
        if self._batching:
            total = sum(rows)
            for name, result in zip(names, results, strict=True):
                if name not in self._scalar_outputs and len(result) < total:
                    raise UnsupportedError(
                        f"failed to split the output tensor '{name}' in responses: expected batch "
                        f"size of atleast {total} in model output, got {len(result)}"
                    )
        if len(rows) == 1:
            pairs = zip(names, results, strict=True)
            if not self._batching:
                return [response([tensor(name, result) for name, result in pairs])]
            # More rows than asked for: NVIDIA's backend leaves off what is too many.
            count = rows[0]
            return [response([tensor(name, part[:count]) for name, part in pairs])]
        responses, start = [], 0
        if self._plain_outputs and len(names) == 1:
            name, result, plain = names[0], results[0], backend_utils.Tensor
            for count in rows:
                end = start + count
                responses.append(response([plain(name, result[start:end])]))
                start = end
            return responses
        for count in rows:
            end = start + count
            pairs = zip(names, results, strict=True)
            responses.append(response([tensor(name, part[start:end]) for name, part in pairs]))
            start = end
        return responses

    def _tensor(self, name: str, array: Array) -> Any:
        if self._output_datatypes[name] == "TYPE_BF16":
            return tensor_from_bits(backend_utils.Tensor, name, array)
        return backend_utils.Tensor(name, array)
