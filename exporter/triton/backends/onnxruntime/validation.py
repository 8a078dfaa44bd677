"""The checks of a model configuration that NVIDIA's backend makes on load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..shared.configuration import CORRELATION, is_batching, reject_unsupported, sequence_controls
from ..shared.errors import InternalError, InvalidArgumentError
from .interface import INVALID, Interface, Tensor, is_supported

__all__ = ["configured_shape", "validate"]

_ONNX_NAMES = {
    "TYPE_FP16": "FLOAT16",
    "TYPE_FP32": "FLOAT",
    "TYPE_FP64": "DOUBLE",
    "TYPE_BF16": "BFLOAT16",
    "TYPE_INVALID": "UNDEFINED",
}
_BOOLEAN_VALUES = {
    "int32_false_true": "TYPE_INT32",
    "fp32_false_true": "TYPE_FP32",
    "bool_false_true": "TYPE_BOOL",
}


def validate(config: Mapping[str, Any], interface: Interface) -> None:
    """Check a configuration, as the server has it, against a model.

    Raises:
        InvalidArgumentError: It does not fit.
        InternalError: A sequence control or a data type does not exist.
        UnsupportedError: It fits, but only NVIDIA's backend supports it.
    """
    states = (config.get("sequence_batching") or {}).get("state", [])
    expected = sum(not entry.get("optional", False) for entry in config.get("input", []))
    expected += len(config.get("batch_input", [])) + len(states)
    for name, control in sequence_controls(config):
        _validate_control(config, name, control, interface)
        expected += 1
    if len(interface.inputs) != expected:
        raise InvalidArgumentError(
            f"unable to load model '{config['name']}', configuration expects {expected} inputs, "
            f"model provides {len(interface.inputs)}"
        )
    _validate_inputs(config, interface)
    _validate_outputs(config, interface)
    for state in states:
        # A state has its own field for the output's name; NVIDIA's backend reports it the same way.
        name = state.get("output_name", state.get("name", ""))
        tensor = _find(name, interface.outputs, "output")
        _validate_datatype(config["name"], state, tensor, "output state")
    reject_unsupported(config)


def configured_shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the model's tensor according to its entry in the configuration."""
    reshape = entry.get("reshape")
    shape = reshape.get("shape", []) if reshape is not None else entry.get("dims", [])
    return tuple(int(size) for size in shape)


def _validate_inputs(config: Mapping[str, Any], interface: Interface) -> None:
    model = config["name"]
    allowed = {**interface.inputs, **interface.initializers}
    for entry in config.get("input", []):
        name, optional = entry["name"], entry.get("optional", False)
        if optional and is_batching(config):
            raise InvalidArgumentError(
                f"unable to load model '{model}', optional input '{name}' is not supported for "
                "models that support batching"
            )
        tensor = _find(name, allowed, "input")
        _validate_datatype(model, entry, tensor, "input")
        if entry.get("allow_ragged_batch", False):
            _validate_ragged(model, tensor, optional=optional)
        else:
            _validate_shape(config, entry, tensor, exact=False)


def _validate_outputs(config: Mapping[str, Any], interface: Interface) -> None:
    scattered = {
        name for entry in config.get("batch_output", []) for name in entry.get("target_name", [])
    }
    for entry in config.get("output", []):
        tensor = _find(entry["name"], interface.outputs, "output")
        _validate_datatype(config["name"], entry, tensor, "output")
        if entry["name"] not in scattered:
            _validate_shape(config, entry, tensor, exact=True)


def _find(name: str, tensors: Mapping[str, Tensor], kind: str) -> Tensor:
    if name not in tensors:
        raise InvalidArgumentError(
            f"unexpected inference {kind} '{name}', allowed {kind}s are: "
            f"{', '.join(sorted(tensors))}"
        )
    return tensors[name]


def _validate_datatype(model: str, entry: Mapping[str, Any], tensor: Tensor, kind: str) -> None:
    datatype = entry["data_type"]
    if not is_supported(datatype):
        raise InternalError(
            f"unsupported datatype {datatype} for {kind} '{tensor.name}' for model '{model}'"
        )
    if datatype != tensor.datatype:
        # The wire's names.
        named = {INVALID: "TYPE_<invalid>", "TYPE_STRING": "TYPE_BYTES"}
        raise InvalidArgumentError(
            f"unable to load model '{model}', configuration expects datatype {datatype} for {kind} "
            f"'{tensor.name}', model provides {named.get(tensor.datatype, tensor.datatype)}"
        )


def _validate_ragged(model: str, tensor: Tensor, *, optional: bool) -> None:
    gap = " " if optional else "  "  # As NVIDIA's backend spells it.
    start = (
        f"unable to load model '{model}', configuration expects model provides input with shape "
        f"[-1]{gap}for ragged input '{tensor.name}', "
    )
    if optional:
        raise InvalidArgumentError(f"{start}which is not supported for optional input")
    if tensor.shape != (-1,):
        raise InvalidArgumentError(f"{start}model provides {_text(tensor.shape)}")


def _validate_shape(
    config: Mapping[str, Any], entry: Mapping[str, Any], tensor: Tensor, *, exact: bool
) -> None:
    model, dims = config["name"], configured_shape(entry)
    if not tensor.shape:
        if any(size != 1 for size in dims):
            raise InvalidArgumentError(
                f"unable to load model '{model}', scalar tensor '{tensor.name}', should only "
                "provide 1 in the model configuration when the model doesn't support batching. "
                f"Model configuration provided: {_text(dims)}."
            )
        return
    start = f"model '{model}', tensor '{tensor.name}': "
    batching = is_batching(config)
    if batching and tensor.shape[0] != -1:
        raise InvalidArgumentError(
            f"{start}for the model to support batching the shape should have at least 1 dimension "
            "and the first dimension must be -1; but shape expected by the model is "
            f"{_text(tensor.shape)}"
        )
    full = (-1, *dims) if batching else dims
    if len(full) == len(tensor.shape) and all(
        wanted == given or (wanted == -1 and not exact)
        for wanted, given in zip(tensor.shape, full, strict=True)
    ):
        return
    origin = (
        "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor "
        "shape, making complete "
    )
    raise InvalidArgumentError(
        f"{start}the model expects {len(tensor.shape)} dimensions (shape {_text(tensor.shape)}) "
        f"but the model configuration specifies {len(full)} dimensions "
        f"({origin if batching else ''}shape {_text(full)})"
    )


def _validate_control(
    config: Mapping[str, Any], name: str, control: Mapping[str, Any], interface: Interface
) -> None:
    tensor = interface.inputs.get(name)
    if tensor is None:
        raise InternalError(
            f"configuration specified sequence control '{name}', but model does not provide that "
            "input"
        )
    start = f"unable to load model '{config['name']}', sequence control '{name}'"
    shape = tensor.shape[1:] if is_batching(config) else tensor.shape
    if shape != (1,):
        raise InvalidArgumentError(
            f"{start} in model has dims {_text(shape)} but dims [1] is expected"
        )
    datatype = control.get("data_type", INVALID)
    if control["kind"] != CORRELATION:
        datatype = next((_BOOLEAN_VALUES[key] for key in _BOOLEAN_VALUES if control.get(key)), "")
    if datatype != tensor.datatype:
        expected = _ONNX_NAMES.get(tensor.datatype, tensor.datatype.removeprefix("TYPE_"))
        raise InvalidArgumentError(
            f"{start}, the model expects data-type {expected} but "
            f"the model configuration specifies data-type {datatype}"
        )


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"
