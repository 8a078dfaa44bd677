"""A model's interface, from what the server says of it."""

from __future__ import annotations

from typing import Any

from triton_client.types import ModelSpec, TensorSpec

__all__ = ["model_spec"]


def model_spec(metadata: Any, config: Any | None, version: str) -> ModelSpec:
    """Return the interface of a served model.

    Args:
        metadata: The ``ModelMetadataResponse``; its shapes include the batch dimension.
        config: The ``ModelConfig``, or ``None`` where the server keeps it to itself: the model
            then counts as one that does not batch, so no request is split.
        version: The version asked for; empty for the newest one that is served.
    """
    optional = set() if config is None else {item.name for item in config.input if item.optional}

    def tensors(items: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(item.name, item.datatype, tuple(item.shape), item.name in optional)
            for item in items
        )

    return ModelSpec(
        name=metadata.name,
        version=version or max(metadata.versions, key=int, default=""),
        platform=metadata.platform,
        max_batch_size=0 if config is None else config.max_batch_size,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
    )
