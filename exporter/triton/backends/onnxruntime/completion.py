"""Complete a model configuration from the model, where the server is set to do so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..shared.errors import InvalidArgumentError
from .interface import Interface, Tensor

__all__ = ["complete", "is_complete"]

_DEFAULT_MAX_BATCH_SIZE = 4


def is_complete(config: Mapping[str, Any]) -> bool:
    """Whether a configuration has inputs and outputs, and so stays as it is."""
    return _has_inputs(config) and bool(config.get("output"))


def complete(config: dict[str, Any], interface: Interface) -> None:
    """Fill in inputs, outputs, batch size and dynamic batching from the model, in place.

    Raises:
        InvalidArgumentError: It sets a batch size, and the model does not support batching.
    """
    tensors = [*interface.inputs.values(), *interface.outputs.values()]
    max_batch_size = int(config.get("max_batch_size", 0))
    if all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors):
        if max_batch_size == 0:
            config["max_batch_size"] = max_batch_size = _DEFAULT_MAX_BATCH_SIZE
        if max_batch_size > 1 and "sequence_batching" not in config:
            config.setdefault("dynamic_batching", {})
    elif max_batch_size != 0:
        raise InvalidArgumentError(
            f"autofill failed for model '{config['name']}': model does not support batching while "
            "non-zero max_batch_size is specified"
        )
    # Only the side that is missing: what is configured stays, and is checked on load.
    if not _has_inputs(config):
        config["input"] = [_entry(tensor, max_batch_size) for tensor in interface.inputs.values()]
    if not config.get("output"):
        config["output"] = [_entry(tensor, max_batch_size) for tensor in interface.outputs.values()]


def _has_inputs(config: Mapping[str, Any]) -> bool:
    return bool(config.get("input") or config.get("batch_input"))


def _entry(tensor: Tensor, max_batch_size: int) -> dict[str, Any]:
    dims = list(tensor.shape[1:] if max_batch_size else tensor.shape)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.datatype, "dims": dims or [1]}
    if not dims and max_batch_size:
        entry["reshape"] = {"shape": []}
    return entry
