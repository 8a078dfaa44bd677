"""Runs an ONNX file here, before a server does, to choose between exporters.

It proves nothing: what passes here is proven on the wire, by the release that is to serve it.
"""

from __future__ import annotations

from pathlib import Path

from exporter.errors import UsageError, first_line
from exporter.interface import Tensor
from exporter.parity.reference_set import ReferenceSet, first_mismatch
from exporter.sources.onnx.sessions import load_session, run_session

__all__ = ["precheck"]


def precheck(path: Path, outputs: tuple[Tensor, ...], references: ReferenceSet) -> str:
    """Return how an ONNX file differs from the reference; empty where it does not."""
    names = [tensor.name for tensor in outputs]
    try:
        session = load_session(path)
        return first_mismatch(
            lambda inputs: run_session(session, names, inputs), references, outputs
        )
    except UsageError:
        return ""  # without ONNX Runtime the proof alone decides
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors derive from Exception
        return first_line(error)
