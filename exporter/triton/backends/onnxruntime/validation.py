"""The checks of a model configuration that NVIDIA's backend makes on load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..shared.errors import InternalError, InvalidArgumentError, UnsupportedError
from .datatypes import INVALID, is_supported

if TYPE_CHECKING:
    from .interface import Interface, Tensor

__all__ = ["configured_shape", "validate"]

_BOOLEAN_CONTROLS = ("CONTROL_SEQUENCE_START", "CONTROL_SEQUENCE_END", "CONTROL_SEQUENCE_READY")
_CORRELATION_CONTROL = "CONTROL_SEQUENCE_CORRID"
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
    """Check a configuration against a model.

    Args:
        config: The model configuration, as the server has it.
        interface: The inputs and outputs of the model.

    Raises:
        InvalidArgumentError: It does not fit.
        InternalError: A sequence control or a data type does not exist.
        UnsupportedError: It fits, but only NVIDIA's backend supports it.
    """
    inputs: Sequence[Mapping[str, Any]] = config.get("input", [])
    sequence: Mapping[str, Any] = config.get("sequence_batching") or {}
    expected = sum(1 for entry in inputs if not entry.get("optional", False))
    expected += len(config.get("batch_input", []))
    expected += _validate_controls(config, sequence, interface)
    expected += len(sequence.get("state", []))
    if len(interface.inputs) != expected:
        raise InvalidArgumentError(
            f"unable to load model '{config['name']}', configuration expects {expected} inputs, "
            f"model provides {len(interface.inputs)}"
        )
    _validate_inputs(config, inputs, interface)
    _validate_outputs(config, interface)
    _validate_states(config, sequence, interface)
    for needed in ("batch_input", "batch_output"):
        if config.get(needed):
            raise UnsupportedError(f"{needed} is not available outside of NVIDIA's backend")
    if any(entry.get("allow_ragged_batch", False) for entry in inputs):
        raise UnsupportedError("allow_ragged_batch is not available outside of NVIDIA's backend")
    if sequence.get("state"):
        raise UnsupportedError("implicit state is not available outside of NVIDIA's backend")


def configured_shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the model's tensor according to its entry in the configuration."""
    reshape = entry.get("reshape")
    shape = reshape.get("shape", []) if reshape is not None else entry.get("dims", [])
    return tuple(int(size) for size in shape)


def _validate_inputs(
    config: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], interface: Interface
) -> None:
    model, batching = config["name"], int(config.get("max_batch_size", 0)) > 0
    allowed = {**interface.inputs, **interface.initializers}
    for entry in entries:
        name, optional = entry["name"], entry.get("optional", False)
        if optional and batching:
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


def _validate_states(
    config: Mapping[str, Any], sequence: Mapping[str, Any], interface: Interface
) -> None:
    for state in sequence.get("state", []):
        # A state has its own field for the output's name; NVIDIA's backend reports it the same way.
        name = state.get("output_name", state.get("name", ""))
        tensor = _find(name, interface.outputs, "output")
        _validate_datatype(config["name"], {**state, "name": name}, tensor, "output state")


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
        provided = "TYPE_<invalid>" if tensor.datatype == INVALID else tensor.datatype
        # The wire name of the type, which only differs for strings.
        provided = "TYPE_BYTES" if provided == "TYPE_STRING" else provided
        raise InvalidArgumentError(
            f"unable to load model '{model}', configuration expects datatype {datatype} for "
            f"{kind} '{tensor.name}', model provides {provided}"
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
    batching = int(config.get("max_batch_size", 0)) > 0
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
    explanation = (
        " (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor "
        f"shape, making complete shape {_text(full)})"
        if batching
        else f" (shape {_text(full)})"
    )
    raise InvalidArgumentError(
        f"{start}the model expects {len(tensor.shape)} dimensions (shape {_text(tensor.shape)}) "
        f"but the model configuration specifies {len(full)} dimensions{explanation}"
    )


def _validate_controls(
    config: Mapping[str, Any], sequence: Mapping[str, Any], interface: Interface
) -> int:
    """Check the control inputs of a sequence batcher and return how many the model takes."""
    count = 0
    for kind in (*_BOOLEAN_CONTROLS, _CORRELATION_CONTROL):
        for entry in sequence.get("control_input", []):
            for control in entry.get("control", []):
                if control.get("kind") == kind:
                    _validate_control(config, entry["name"], control, interface)
                    count += 1
    return count


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
    shape = tensor.shape[1:] if int(config.get("max_batch_size", 0)) > 0 else tensor.shape
    if shape != (1,):
        raise InvalidArgumentError(
            f"{start} in model has dims {_text(shape)} but dims [1] is expected"
        )
    datatype = control.get("data_type", INVALID)
    if control["kind"] != _CORRELATION_CONTROL:
        datatype = next((_BOOLEAN_VALUES[key] for key in _BOOLEAN_VALUES if control.get(key)), "")
    if datatype != tensor.datatype:
        expected = _ONNX_NAMES.get(tensor.datatype, tensor.datatype.removeprefix("TYPE_"))
        raise InvalidArgumentError(
            f"{start}, the model expects data-type {expected} but "
            f"the model configuration specifies data-type {datatype}"
        )


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"
