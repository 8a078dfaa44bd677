"""Complete a model configuration from the model, where the server is set to do so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..shared.errors import InvalidArgumentError

if TYPE_CHECKING:
    from .interface import Interface, Tensor

__all__ = ["complete", "is_complete"]

_DEFAULT_MAX_BATCH_SIZE = 4


def is_complete(config: Mapping[str, Any]) -> bool:
    """Whether a configuration has inputs and outputs, and so stays as it is."""
    inputs = [*config.get("input", []), *config.get("batch_input", [])]
    return bool(inputs) and bool(config.get("output"))


def complete(config: dict[str, Any], interface: Interface) -> None:
    """Fill in inputs, outputs, batch size and dynamic batching from the model.

    Args:
        config: Changed in place.
        interface: The inputs and outputs of the model; initializers are left out.

    Raises:
        InvalidArgumentError: It sets a batch size, and the model does not support batching.
    """
    tensors = [*interface.inputs.values(), *interface.outputs.values()]
    max_batch_size = int(config.get("max_batch_size", 0))
    if all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors):
        if max_batch_size == 0:
            max_batch_size = _DEFAULT_MAX_BATCH_SIZE
            config["max_batch_size"] = max_batch_size
        if (
            max_batch_size > 1
            and "sequence_batching" not in config
            and "dynamic_batching" not in config
        ):
            config["dynamic_batching"] = {}
    elif max_batch_size != 0:
        raise InvalidArgumentError(
            f"autofill failed for model '{config['name']}': model does not support batching while "
            "non-zero max_batch_size is specified"
        )
    batching = max_batch_size > 0
    # Only the side that is missing: what is configured stays, and is checked on load.
    has_inputs = config.get("input") or config.get("batch_input")
    for side, given, found in (
        ("input", has_inputs, interface.inputs),
        ("output", config.get("output"), interface.outputs),
    ):
        if not given:
            config[side] = [_entry(tensor, batching=batching) for tensor in found.values()]


def _entry(tensor: Tensor, *, batching: bool) -> dict[str, Any]:
    dims = list(tensor.shape[1:] if batching else tensor.shape)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.datatype, "dims": dims}
    if not dims:
        entry["dims"] = [1]
        if batching:
            entry["reshape"] = {"shape": []}
    return entry
