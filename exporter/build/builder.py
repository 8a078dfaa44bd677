"""Build a bundle from a pulled version: check the reference, convert, configure, seal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.build.configure import build_config, write_warmup
from exporter.bundle import CONFIG, SAMPLES, Bundle, BundleSettings, folder_digest
from exporter.formats import convert
from exporter.formats.base import Conversion, Target
from exporter.parity.evidence import Evidence
from exporter.parity.input_generator import SIZE, named_samples
from exporter.parity.reference_checks import check_reference
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.samples import load_arrays, save_samples
from exporter.progress import Steps
from exporter.sources import open_source
from exporter.sources.base import Source
from exporter.sources.pipeline import PipelineSource
from exporter.triton.model_config import render
from exporter.triton.releases import Release, release

__all__ = ["BuildJob", "Candidate", "build"]


# The order in which a request passes through the models.
_ORDER = ("preprocessing", "model", "postprocessing")


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to build, as plain data that can be sent to another process.

    Attributes:
        model: The registered model.
        version: Its version.
        artifact: A private copy of the version's artifact.
        folder: An empty folder for the bundle.
        settings: The settings that decide the bundle's content; see
            `exporter.commands.export.reuse`.
        samples: The user's npz, or None.
        require_batching: Whether to reject a model that cannot be batched.
        allow_pickle: Whether pickled content may be loaded.
        parts: Copies of the preprocessing and postprocessing artifacts, by place.
        timeout: Seconds that the worker process may take.
        memory: Bytes of memory that the worker process may use; 0 for all of the machine's.
        unconfined: Whether the worker process runs with all of this user's rights.
    """

    model: str
    version: int
    artifact: Path
    folder: Path
    settings: BundleSettings
    samples: Path | None
    require_batching: bool
    allow_pickle: bool
    parts: Mapping[str, Path] = field(default_factory=dict)
    timeout: float = 3600.0
    memory: int = 0
    unconfined: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that is not proven yet, and the reference outputs that it must reproduce."""

    bundle: Bundle
    references: ReferenceSet


def build(job: BuildJob, evidence: Evidence, steps: Steps) -> Candidate:
    """Build a bundle; the evidence receives the checks of the reference.

    Raises:
        ValidationFailedError: The version is damaged or unsafe, cannot be proven, or cannot be
            converted.
    """
    settings = job.settings
    with steps("load"):
        source = _source(job)
    with steps("reference"):
        samples = named_samples(load_arrays(job.samples), source.interface) if job.samples else []
        references = check_reference(
            source,
            evidence,
            max_batch_size=settings["max_batch_size"],
            batching="require" if job.require_batching else settings["batching"],
            samples=samples,
            precision=settings["precision"],
            # TensorRT promises no IEEE 754 for NaN and infinity.
            extremes=settings["format"] != "tensorrt" and not settings.get("accelerator"),
            say=steps.say,
        )
        evidence.notes += source.notes
        evidence.warnings += source.frozen_axes
    with steps("convert"):
        target = release(settings["release"])
        if target.assumed:
            evidence.notes.append(
                f"Triton {target.name} is newer than this release of stlab; it is assumed to have "
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
                references.batching.max_batch_size,
                references.batching.rows,
            ),
            references,
        )
        references = references.renamed(conversion.names)
        evidence.notes += conversion.notes
        evidence.warnings += _fixed_in_conversion(source, conversion, references)
        _note_answered(conversion, evidence)
        evidence.precision = dict(conversion.measured)
    with steps("configure"):
        saved = save_samples(job.folder / SAMPLES, references)
        _configure(job, conversion, references, saved[0])
        if "max_queue_size" in settings and not references.batching.max_batch_size:
            evidence.notes.append(
                "The model is not batched and so has no dynamic batcher: its queue is unbounded."
            )
        bundle = Bundle.seal(job.folder, _facts(job, source, conversion, references, target))
    return Candidate(bundle, references)


def _source(job: BuildJob) -> Source:
    artifacts = {"model": job.artifact, **job.parts}
    opened: dict[str, Source] = {
        place: open_source(artifacts[place], allow_pickle=job.allow_pickle)
        for place in _ORDER
        if place in artifacts
    }
    return PipelineSource(opened) if job.parts else opened["model"]


def _note_answered(conversion: Conversion, evidence: Evidence) -> None:
    """Warn of inputs that clients get answers to and the registered model refuses."""
    sizes = [name for name in conversion.answered if name.startswith(SIZE)]
    values = [name for name in conversion.answered if name not in sizes]
    if sizes and evidence.weaknesses is not None:
        shown = ", ".join(name.removeprefix(SIZE).removesuffix(" axes") for name in sizes)
        evidence.weaknesses.append(
            f"Triton answers axes of size {shown}, which the registered model refuses: it was "
            "exported for other sizes. Check sizes in clients, or export it without bounds."
        )
    if values:
        evidence.warnings.append(
            f"Triton answers inputs that the registered model refuses: {'; '.join(values)}. Check "
            "them in clients."
        )


def _fixed_in_conversion(
    source: Source, conversion: Conversion, references: ReferenceSet
) -> Iterator[str]:
    """Yield a note on every axis of an input that the model's files alone fix."""
    served = {tensor.name: tensor for tensor in conversion.interface.inputs}
    for tensor in source.interface.inputs:
        axes = served[conversion.names.get(tensor.name, tensor.name)].axes
        for index, (before, after) in enumerate(zip(tensor.axes, axes, strict=True)):
            if isinstance(before, str) and isinstance(after, int):
                rows = index == 0 and references.batching.rows is not None
                reason = references.batching.reason if rows else f"{conversion.converter} fixes it"
                yield (
                    f"'{tensor.name}' axis {index} is declared free, but it is served with "
                    f"exactly {after}: {reason}."
                )


def _configure(
    job: BuildJob, conversion: Conversion, references: ReferenceSet, sample: ReferenceCase
) -> None:
    max_batch_size = references.batching.max_batch_size
    warmup = write_warmup(job.folder, conversion, sample.case.inputs, batched=max_batch_size > 0)
    config = build_config(
        job.model,
        job.version,
        conversion,
        max_batch_size=max_batch_size,
        max_queue_size=job.settings.get("max_queue_size", 0),
        warmup=warmup,
    )
    (job.folder / CONFIG).write_text(render(config))


def _facts(
    job: BuildJob, source: Source, conversion: Conversion, references: ReferenceSet, target: Release
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
        "batching": references.batching.as_dict(),
        "settings": dict(job.settings),
        **({"frozen_axes": list(source.frozen_axes)} if source.frozen_axes else {}),
        **conversion.facts,
    }
