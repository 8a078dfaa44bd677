"""Builds a bundle from a pulled version: examine, convert, configure, seal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle import CONFIG, SAMPLES, WARMUP, Bundle, file_digest
from exporter.config import WarmupInput, build_config, render
from exporter.formats import convert
from exporter.parity.inputs import SEED, named_samples
from exporter.parity.reference import Truth, examine
from exporter.parity.samples import load_arrays, save_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporter.formats.base import Conversion
    from exporter.interface import Interface
    from exporter.parity.evidence import Evidence
    from exporter.settings import ExportRequest
    from exporter.sources.base import Array, Arrays, Source
    from exporter.triton.releases import Release

__all__ = ["Candidate", "build", "settings_digest", "settings_of"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that has still to be proven.

    Attributes:
        bundle: The bundle.
        interface: Its tensors.
        truth: What it must answer.
    """

    bundle: Bundle
    interface: Interface
    truth: Truth


def settings_of(request: ExportRequest, release: Release) -> dict[str, Any]:
    """Return what decides a bundle's content beside the version itself."""
    return {
        "format": request.format,
        "precision": request.precision,
        "batching": request.batching,
        "max_batch_size": request.max_batch_size,
        "release": release.name,
        "samples": None if request.samples is None else file_digest(request.samples),
        "seed": SEED,
    }


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return a short digest of settings, for a version's tags."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def build(
    request: ExportRequest,
    version: int,
    release: Release,
    source: Source,
    source_sha256: str,
    folder: Path,
    evidence: Evidence,
    step: Callable[[str], Any],
    say: Callable[[str], None],
) -> Candidate:
    """Build a bundle in an empty folder.

    Args:
        request: What was asked for.
        version: The version's number.
        release: The target release.
        source: The pulled version.
        source_sha256: The digest of its artifact.
        folder: An empty folder for the bundle.
        evidence: Where checks of the reference are recorded.
        step: Times a step, as a context manager.
        say: Told what is being done.

    Raises:
        ValidationFailed: The version cannot be proven or converted.
    """
    with step("reference"):
        samples = (
            named_samples(load_arrays(request.samples), source.interface) if request.samples else []
        )
        truth = examine(
            source,
            evidence,
            max_batch_size=request.max_batch_size,
            batching=request.batching,
            samples=samples,
            say=say,
        )
        evidence.notes += source.notes
    with step("convert"):
        conversion = convert(request.format, source, folder, release, rows=truth.batching.rows)
    with step("configure"):
        kept = save_samples(folder / SAMPLES, truth)
        warmup = _write_warmup(
            folder, conversion, kept[0].case.inputs, batched=truth.batching.max_batch_size > 0
        )
        config = build_config(
            request.model,
            version,
            conversion,
            max_batch_size=truth.batching.max_batch_size,
            warmup=warmup,
        )
        (folder / CONFIG).write_text(render(config))
        bundle = Bundle.seal(
            folder,
            {
                "model": request.model,
                "version": version,
                "source": {"flavor": source.flavor, "sha256": source_sha256},
                "format": conversion.format,
                "precision": request.precision,
                "backend": conversion.backend,
                "filename": conversion.filename,
                "converter": conversion.converter,
                "libraries": dict(sorted({**source.versions, **conversion.versions}.items())),
                "target": {"release": release.name, "onnxruntime": release.onnxruntime},
                "interface": conversion.interface.as_dict(),
                "batching": truth.batching.as_dict(),
                "settings": settings_of(request, release),
            },
        )
    return Candidate(bundle, conversion.interface, truth)


def _write_warmup(
    folder: Path, conversion: Conversion, inputs: Arrays, *, batched: bool
) -> list[WarmupInput]:
    """Write one row of every input as the server reads it."""
    warmup = []
    (folder / WARMUP).mkdir()
    for tensor in conversion.interface.inputs:
        array = inputs[tensor.name][:1] if batched else inputs[tensor.name]
        if array.size == 0:
            return []
        content = _raw(array)
        # The content is the name: two versions never disagree about a file they share.
        filename = f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
        (folder / WARMUP / filename).write_bytes(content)
        warmup.append(WarmupInput(tensor, array.shape[1:] if batched else array.shape, filename))
    return warmup


def _raw(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    values = [v.encode() if isinstance(v, str) else bytes(v) for v in array.ravel()]
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)
