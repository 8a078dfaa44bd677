"""Builds a bundle from a pulled version: examine, convert, configure, seal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.bundle import CONFIG, SAMPLES, WARMUP, Bundle, file_digest, folder_digest
from exporter.config import WarmupInput, build_config, render
from exporter.formats import convert
from exporter.formats.base import Target
from exporter.parity.inputs import SEED, named_samples
from exporter.parity.reference import examine
from exporter.parity.samples import load_arrays, save_samples
from exporter.settings import TIMEOUT_SECONDS
from exporter.sources import open_source
from exporter.sources.composed import ComposedSource
from exporter.triton.releases import release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.formats.base import Conversion
    from exporter.parity.evidence import Evidence
    from exporter.parity.truth import Answer, Truth
    from exporter.progress import Steps
    from exporter.settings import ExportRequest
    from exporter.sources.base import Array, Arrays, Source
    from exporter.triton.releases import Release

__all__ = ["BuildJob", "Candidate", "build", "settings_digest", "settings_of"]


# As a request passes through them.
_ORDER = ("preprocessing", "model", "postprocessing")


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to build, from what: plain data, so that another process can be told.

    Attributes:
        model: The registered model.
        version: Its version.
        artifact: A private copy of the version's artifact.
        folder: An empty folder for the bundle.
        settings: What decides the bundle's content beside the version; see `settings_of`.
        samples: The user's npz, or None.
        must_batch: Whether to refuse a model that cannot be batched.
        allow_pickle: Whether pickled content may be loaded.
        parts: Copies of the artifacts before and behind the model's own, by their place.
        timeout: Seconds that a process of its own may take.
        memory: Bytes of memory that such a process may take; 0 for what the machine has.
        unconfined: Whether such a process has all of this user's rights.
    """

    model: str
    version: int
    artifact: Path
    folder: Path
    settings: Mapping[str, Any]
    samples: Path | None
    must_batch: bool
    allow_pickle: bool
    parts: Mapping[str, Path] = field(default_factory=dict)
    timeout: float = TIMEOUT_SECONDS
    memory: int = 0
    unconfined: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that has still to be proven, and what it must answer."""

    bundle: Bundle
    truth: Truth


def settings_of(
    request: ExportRequest, release_name: str, parts: Mapping[str, tuple[str, int]]
) -> dict[str, Any]:
    """Return what decides a bundle's content beside the version itself.

    Args:
        request: What is asked for.
        release_name: The target release.
        parts: The models before and behind the version's own, each with its version.
    """
    settings = {
        "format": request.format,
        "precision": request.precision,
        "batching": "off" if request.batching == "off" else "auto",
        "max_batch_size": request.max_batch_size,
        "release": release_name,
        "samples": None if request.samples is None else file_digest(request.samples),
        "seed": SEED,
    }
    # Only where it is set: what was proven without it has this digest.
    if request.max_queue_size:
        settings["max_queue_size"] = request.max_queue_size
    if request.accelerator:
        settings["accelerator"] = request.accelerator
    settings |= {place: f"{model}/{version}" for place, (model, version) in parts.items()}
    return settings


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return a short digest of settings, for a version's tags."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def build(job: BuildJob, evidence: Evidence, steps: Steps) -> Candidate:
    """Build a bundle.

    Args:
        job: What to build.
        evidence: Where checks of the reference are recorded.
        steps: Told of every step.

    Raises:
        ValidationFailed: The version is damaged or unsafe, cannot be proven, or cannot be
            converted.
    """
    settings = job.settings
    with steps("load"):
        source = _source(job)
    with steps("reference"):
        samples = named_samples(load_arrays(job.samples), source.interface) if job.samples else []
        truth = examine(
            source,
            evidence,
            max_batch_size=settings["max_batch_size"],
            batching="require" if job.must_batch else settings["batching"],
            samples=samples,
            precision=settings["precision"],
            say=steps.say,
        )
        evidence.notes += source.notes
    with steps("convert"):
        target = release(settings["release"])
        if target.assumed:
            evidence.notes.append(
                f"Triton {target.name} is newer than this release knows; it is assumed to have "
                f"ONNX Runtime {target.onnxruntime} with opset {target.max_opset}."
            )
        conversion = convert(
            settings["format"],
            source,
            job.folder,
            Target(
                target,
                settings["precision"],
                settings.get("accelerator", ""),
                truth.batching.max_batch_size,
                truth.batching.rows,
            ),
            truth,
        )
        truth = truth.renamed(conversion.names)
        evidence.notes += conversion.notes
        evidence.precision = dict(conversion.measured)
    with steps("configure"):
        kept = save_samples(job.folder / SAMPLES, truth)
        _configure(job, conversion, truth, kept[0])
        if "max_queue_size" in settings and not truth.batching.max_batch_size:
            evidence.notes.append(
                "The model is not batched and so has no dynamic batcher: its queue has no bounds."
            )
        bundle = Bundle.seal(job.folder, _facts(job, source, conversion, truth, target))
    return Candidate(bundle, truth)


def _source(job: BuildJob) -> Source:
    artifacts = {"model": job.artifact, **job.parts}
    opened: dict[str, Source] = {
        place: open_source(artifacts[place], allow_pickle=job.allow_pickle)
        for place in _ORDER
        if place in artifacts
    }
    return ComposedSource(opened) if job.parts else opened["model"]


def _configure(job: BuildJob, conversion: Conversion, truth: Truth, sample: Answer) -> None:
    most = truth.batching.max_batch_size
    warmup = _write_warmup(job.folder, conversion, sample.case.inputs, batched=most > 0)
    config = build_config(
        job.model,
        job.version,
        conversion,
        max_batch_size=most,
        max_queue_size=job.settings.get("max_queue_size", 0),
        warmup=warmup,
    )
    (job.folder / CONFIG).write_text(render(config))


def _facts(
    job: BuildJob, source: Source, conversion: Conversion, truth: Truth, target: Release
) -> dict[str, Any]:
    return {
        "model": job.model,
        "version": job.version,
        "source": {
            "flavor": source.flavor,
            "sha256": folder_digest(job.artifact),
            **{place: folder_digest(path) for place, path in sorted(job.parts.items())},
        },
        "format": conversion.format,
        "precision": job.settings["precision"],
        "backend": conversion.backend,
        "filename": conversion.filename,
        "converter": conversion.converter,
        "libraries": dict(sorted({**source.versions, **conversion.versions}.items())),
        "target": {"release": target.name, "onnxruntime": target.onnxruntime},
        "interface": conversion.interface.as_dict(),
        "batching": truth.batching.as_dict(),
        "settings": dict(job.settings),
        **conversion.facts,
    }


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
