"""Replays a bundle's samples against a server, with nothing but the bundle at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.bundle import SAMPLES, Bundle
from exporter.interface import Tensor
from exporter.parity.samples import load_samples
from exporter.parity.wire import check_numbers

if TYPE_CHECKING:
    from exporter.parity.evidence import Evidence
    from triton_client import TritonClient

__all__ = ["replay"]


def replay(client: TritonClient, bundle: Bundle, evidence: Evidence) -> None:
    """Ask a server every sample of a bundle; the verdict is the evidence's.

    Raises:
        ValidationFailed: The samples cannot be read.
        TritonClientError: The server does not serve the version.
    """
    outputs = tuple(
        Tensor(entry["name"], entry["datatype"], tuple(entry["shape"]))
        for entry in bundle.manifest["interface"]["outputs"]
    )
    evidence.expect(outputs)
    truth = load_samples(bundle.path / SAMPLES, max_batch_size=bundle.max_batch_size)
    check_numbers(client.model(bundle.model, bundle.version).infer, truth, outputs, evidence)
