"""Triton's TensorRT accelerator: the serving ONNX Runtime builds TensorRT engines.

Sources: the README of Triton's onnxruntime backend, whose table of parameters is complete (one that
it does not know fails the load), and ONNX Runtime's page on its TensorRT execution provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exporter.bundle import folder_digest
from exporter.formats.base import Conversion, Target
from exporter.formats.tensorrt_profiles import Profile, profiles_for, range_note
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
    cache = _cache(folder)
    parameters = {
        "precision_mode": _precision_mode(target),
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
        parameters |= _shapes(profiles)
    if target.release.name >= _MORE_FROM:
        parameters |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": cache}
    return replace(
        conversion,
        accelerator=target.accelerator,
        facts={**conversion.facts, "accelerator": {"name": target.accelerator, **parameters}},
        notes=(*conversion.notes, _NOT_EXERCISED, *([note] if note else [])),
    )


def _cache(folder: Path) -> str:
    """Return the server's folder for the engines that it builds.

    ONNX Runtime names an engine by the names in the graph, not by its weights: in a shared folder
    one version would run another's engine. It makes the folder, but no parents of it.
    """
    return f"/tmp/stlab-tensorrt-{folder_digest(folder)[:16]}"  # noqa: S108 - the server's


def _precision_mode(target: Target) -> str:
    """Return the precision for TensorRT; from TensorRT 11 on the model's own types decide it."""
    typed = target.release.tensorrt_major >= 11
    return "FP32" if typed else target.precision.upper()


def _shapes(profiles: Sequence[Profile]) -> dict[str, str]:
    """Return the sizes to build for, as a list of ``name:1x3`` each."""

    def listed(shapes: dict[str, tuple[int, ...]]) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())

    if not profiles:
        return {}
    return {
        "trt_profile_min_shapes": listed({p.name: p.min for p in profiles}),
        "trt_profile_opt_shapes": listed({p.name: p.opt for p in profiles}),
        "trt_profile_max_shapes": listed({p.name: p.max for p in profiles}),
    }
