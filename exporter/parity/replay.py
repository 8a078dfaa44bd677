"""Replays a bundle's samples against a server; nothing but the bundle is needed."""

from __future__ import annotations

from exporter.bundle import SAMPLES, Bundle
from exporter.parity.evidence import Batching, Evidence
from exporter.parity.samples import load_samples
from exporter.parity.served import check_outputs, make_infer
from triton_client import Model

__all__ = ["replay_samples"]


def replay_samples(model: Model, bundle: Bundle, evidence: Evidence) -> None:
    """Run every sample of a bundle on a served model; the verdict is in the evidence.

    Raises:
        ValidationFailedError: The samples cannot be read.
    """
    outputs = bundle.outputs
    evidence.expect(outputs)
    references = load_samples(bundle.path / SAMPLES, Batching(bundle.max_batch_size))
    check_outputs(make_infer(model, outputs), references, outputs, evidence)
