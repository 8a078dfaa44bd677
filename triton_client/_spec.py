"""A model's interface, from the server's metadata and config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tritonclient.grpc import model_config_pb2 as pb

from triton_client.types import ModelSpec, TensorSpec

__all__ = ["SequenceIds", "model_spec", "sequence_ids"]

_LARGEST: Final = {pb.TYPE_UINT32: 2**32 - 1, pb.TYPE_INT32: 2**31 - 1}
_LARGEST_INTEGER: Final = 2**63 - 1
"""The largest that a request parameter holds."""


@dataclass(frozen=True, slots=True)
class SequenceIds:
    """Which identifiers a model takes for its sequences.

    Attributes:
        largest: The largest integer; 0 where none is taken.
        text: Whether text is taken.
    """

    largest: int = _LARGEST_INTEGER
    text: bool = True

    def __str__(self) -> str:
        bits = self.largest.bit_length()
        integers = f"an integer from 1 to 2**{bits} - 1" if bits else ""
        return " or ".join(filter(None, (integers, "text" if self.text else "")))

    def allows(self, identifier: object) -> bool:
        """Whether an identifier is one of them."""
        if isinstance(identifier, str):
            return self.text and bool(identifier)
        if isinstance(identifier, bool) or not isinstance(identifier, int):
            return False
        return 0 < identifier <= self.largest


def sequence_ids(config: Any) -> SequenceIds:
    """Return which identifiers a model takes, by the data type in which it receives them.

    A server does not check: it passes a model the bytes of another type, or crashes. An empty
    ``ModelConfig`` allows every identifier.
    """
    controls = config.sequence_batching.control_input
    for control in (control for item in controls for control in item.control):
        if control.kind == pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID:
            if control.data_type == pb.TYPE_STRING:
                return SequenceIds(largest=0)
            return SequenceIds(_LARGEST.get(control.data_type, _LARGEST_INTEGER), text=False)
    return SequenceIds()


def model_spec(metadata: Any, config: Any, version: str) -> ModelSpec:
    """Return the interface of a served model.

    Args:
        metadata: The ``ModelMetadataResponse``; its shapes include the batch dimension.
        config: The ``ModelConfig``, an empty one where the server does not show it: the model
            then counts as one that does not batch, so no request is split.
        version: The version called; empty for the newest one that is served.
    """
    optional = {item.name for item in config.input if item.optional}

    def tensors(items: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(item.name, item.datatype, tuple(item.shape), item.name in optional)
            for item in items
        )

    return ModelSpec(
        name=metadata.name,
        version=version or _newest(metadata.versions),
        platform=metadata.platform,
        max_batch_size=config.max_batch_size,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
    )


def _newest(versions: Any) -> str:
    """Return the highest version; empty where servers other than Triton do not number them."""
    if all(version.isdecimal() for version in versions):
        return str(max(versions, key=int, default=""))
    return str(versions[0]) if len(versions) == 1 else ""
