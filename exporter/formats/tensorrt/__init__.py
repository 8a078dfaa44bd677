"""The ``tensorrt`` format: a plan for Triton's tensorrt backend, built from ONNX on a GPU.

A plan runs only on the TensorRT and the kind of GPU that built it. So the TensorRT installed here
must be the target release's, and the GPU production's.

Source: NVIDIA's TensorRT developer guide (building an engine, dynamic shapes, strong typing).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from exporter.errors import UnavailableError, ValidationFailedError
from exporter.formats import onnx
from exporter.formats.base import Conversion, Target
from exporter.formats.tensorrt.requirements import check_available, is_typed
from exporter.formats.tensorrt_profiles import profiles_for, range_note
from exporter.interface import Interface
from exporter.parity.reference_set import ReferenceSet
from exporter.sources.base import Source
from exporter.system.cuda import CudaError, gpus

__all__ = ["FILENAME", "check_available", "convert"]

FILENAME = "model.plan"
# Triton's names of the types that TensorRT 10 and newer take (NvInfer.h, enum DataType).
_DATATYPES = frozenset({"BOOL", "UINT8", "INT8", "INT32", "INT64", "FP16", "BF16", "FP32"})


def convert(source: Source, folder: Path, target: Target, references: ReferenceSet) -> Conversion:
    """Write ``model.plan``; see `exporter.formats.convert`.

    Raises:
        UsageError: TensorRT or a GPU is missing here.
        ValidationFailedError: TensorRT lacks a type or an operator of the model, the plan's outputs
            differ from the reference, or the target release has another TensorRT.
        UnavailableError: The GPU fails, or has too little memory.
    """
    version = check_available(target.release)
    from exporter.formats.tensorrt.engine import check_plan
    from exporter.formats.tensorrt.plan import build_plan

    _check_datatypes(source.interface, version)
    try:
        gpu = gpus()[0]
        with tempfile.TemporaryDirectory(prefix="onnx-", dir=folder.parent) as scratch:
            conversion = _write_onnx(source, Path(scratch), target, references, version)
            references = references.renamed(conversion.names)
            profiles = profiles_for(conversion.interface, references, target.max_batch_size)
            path = Path(scratch, conversion.filename)
            plan = build_plan(path, profiles, precision=target.precision, gpu=gpu)
        interface = check_plan(plan, conversion.interface, references, target.max_batch_size)
    except CudaError as error:
        raise UnavailableError(
            f"the GPU failed: {error}",
            hint="Is it in use, or its memory full? See nvidia-smi, then run the export again.",
        ) from error
    (folder / FILENAME).write_bytes(plan)
    note = (
        f"The plan runs on TensorRT {version} and on GPUs of compute capability {gpu.capability} "
        f"({gpu.name}), and on no others."
    )
    if target.release.tensorrt is None:
        note += f" Which TensorRT Triton {target.release.name} has is not known here."
    ranges = range_note(profiles, target.max_batch_size)
    facts = {
        "version": version,
        "gpu": gpu.name,
        "architecture": gpu.capability,
        "precision": target.precision,
        "profile": {profile.name: profile.as_dict() for profile in profiles},
    }
    return replace(
        conversion,
        format="tensorrt",
        backend="tensorrt",
        filename=FILENAME,
        interface=interface,
        converter=f"{conversion.converter}, then TensorRT",
        versions={**conversion.versions, "tensorrt": version},
        bytes=len(plan),
        facts={**conversion.facts, "tensorrt": facts},
        notes=(*conversion.notes, note, *([ranges] if ranges else [])),
    )


def _write_onnx(
    source: Source, folder: Path, target: Target, references: ReferenceSet, version: str
) -> Conversion:
    """Write the model as ONNX, in the precision that TensorRT is to take from it."""
    plain = replace(target, precision="fp32", accelerator="")
    conversion = onnx.convert(source, folder, plain, references)
    # Up to TensorRT 10 a flag selects float16; from 11 on the graph's own types do, as quantized
    # nodes always did.
    if target.precision == "int8" or (target.precision == "fp16" and is_typed(version)):
        from exporter.formats.precision import reduce_precision

        path = folder / conversion.filename
        reduced = reduce_precision(path, conversion, target, references, symmetric=True)
        # Speed and size with ONNX Runtime are not those of the plan.
        return replace(reduced, notes=conversion.notes, measured={})
    return conversion


def _check_datatypes(interface: Interface, version: str) -> None:
    for kind, tensors in (("input", interface.inputs), ("output", interface.outputs)):
        for tensor in tensors:
            if tensor.datatype not in _DATATYPES:
                raise ValidationFailedError(
                    f"TensorRT {version} has no {tensor.datatype}, the type of {kind} "
                    f"'{tensor.name}'",
                    hint="Use --format onnx; with --accelerator tensorrt, TensorRT runs what it "
                    "can of the model. Or log the model with other types.",
                    kind="target",
                )
