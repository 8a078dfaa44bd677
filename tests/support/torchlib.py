"""Makes the registry of ONNX operators once a process: it takes half a second of each export."""

from __future__ import annotations

from functools import cache

from torch.onnx._internal.exporter._registration import ONNXRegistry

__all__ = ["keep_registry"]


def keep_registry() -> None:
    """Let all exports of this process share the registry, which none of them changes."""
    ONNXRegistry.from_torchlib = _kept  # type: ignore[method-assign]


_kept = cache(ONNXRegistry.from_torchlib)
