"""Triton's TensorRT accelerator: the serving ONNX Runtime builds TensorRT engines.

Sources: the README of Triton's onnxruntime backend, whose table of parameters is complete (one that
it does not know fails the load), and ONNX Runtime's page on its TensorRT execution provider.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.bundle import folder_digest
from exporter.formats.base import Conversion, Target
from exporter.formats.tensorrt_profiles import dimensions, profiles_for, range_note
from exporter.parity.reference_set import ReferenceSet

__all__ = ["with_accelerator"]

WORKSPACE_BYTES = 1 << 30
# The first release whose backend knows more than the oldest parameters of the accelerator.
_MORE_FROM = "24.05"
# They separate names and sizes in a list of shapes, and cannot be quoted there.
_DIVIDERS = frozenset(":,")

_NOT_EXERCISED = (
    "The TensorRT accelerator works on a GPU alone: on a proving ground without one, the model is "
    "proven as the CPU runs it, and what TensorRT makes of it is not. Prove it with --prove-on "
    "HOST:PORT on a server that has production's GPU; there NVIDIA_TF32_OVERRIDE=0 keeps float32 "
    "from being rounded to TF32."
)
_REBUILT = "it builds another engine whenever a request has new sizes."


def with_accelerator(
    conversion: Conversion, folder: Path, target: Target, references: ReferenceSet
) -> Conversion:
    """Return an ONNX conversion with the accelerator's parameters, where the target has one.

    Nothing is refused: what TensorRT cannot run, ONNX Runtime runs itself.
    """
    if not target.accelerator:
        return conversion
    named = references.renamed(conversion.names)
    profiles = profiles_for(conversion.interface, named, target.max_batch_size)
    unnameable = [profile.name for profile in profiles if _DIVIDERS & set(profile.name)]
    # ONNX Runtime names an engine by the names in the graph, not by its weights: in a shared folder
    # one version would run another's engine. It makes the folder, but no parents of it.
    cache = f"/tmp/stlab-tensorrt-{folder_digest(folder)[:16]}"  # noqa: S108 - the server's
    # From TensorRT 11 on the model's own types decide the precision.
    typed = target.release.tensorrt_major >= 11
    parameters = {
        "precision_mode": "FP32" if typed else target.precision.upper(),
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
    }
    if target.release.name < _MORE_FROM:
        note = f"The accelerator of Triton {target.release.name} takes no sizes: {_REBUILT}"
    elif unnameable:
        note = f"The accelerator cannot take the sizes of '{unnameable[0]}': {_REBUILT}"
    else:
        note = range_note(profiles, target.max_batch_size)
        for size in ("min", "opt", "max") if profiles else ():
            shapes = (f"{p.name}:{dimensions(p.as_dict()[size])}" for p in profiles)
            parameters[f"trt_profile_{size}_shapes"] = ",".join(shapes)
    if target.release.name >= _MORE_FROM:
        parameters |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": cache}
    return replace(
        conversion,
        accelerator=target.accelerator,
        facts={**conversion.facts, "accelerator": {"name": target.accelerator, **parameters}},
        notes=(*conversion.notes, _NOT_EXERCISED, *([note] if note else [])),
    )
