"""Reject a config.pbtxt of the worker that would make a server run anything but the model."""

from __future__ import annotations

import re
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from exporter.bundle import WARMUP, Bundle
from exporter.errors import ValidationFailedError
from exporter.formats import FORMATS
from exporter.triton.model_config import parse

__all__ = ["check_config"]

# Every field that `exporter.build.configure.build_config` writes. Other fields of Triton's protobuf
# name libraries, other backends, agents, ensembles and files.
_FIELDS = frozenset(
    {"name", "backend", "default_model_filename", "max_batch_size", "input", "output",
     "version_policy", "instance_group", "parameters", "optimization", "dynamic_batching",
     "model_warmup"}
)  # fmt: skip
_ONE_INSTANCE = pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_AUTO)
_PARAMETERS = {
    "intra_op_thread_count": r"\d{1,3}",
    "inter_op_thread_count": r"\d{1,3}",
    "INTRA_OP_THREAD_COUNT": r"\d{1,3}",
}
_ACCELERATOR = {
    "precision_mode": r"[A-Z0-9]+",
    "max_workspace_size_bytes": r"\d+",
    "trt_engine_cache_enable": "1",
    "trt_engine_cache_path": r"/tmp/stlab-tensorrt-[0-9a-f]{16}",  # noqa: S108 - the server's
    "trt_timing_cache_enable": "1",
    "trt_timing_cache_path": r"/tmp/stlab-tensorrt-[0-9a-f]{16}",  # noqa: S108
    "trt_profile_min_shapes": r"[^\n]*",
    "trt_profile_opt_shapes": r"[^\n]*",
    "trt_profile_max_shapes": r"[^\n]*",
}


def check_config(bundle: Bundle) -> None:
    """Check that a bundle's config.pbtxt holds only what this release writes.

    Raises:
        ValidationFailedError: It holds anything else; the kind is ``unsafe``.
    """
    try:
        config = parse(bundle.config, where="the bundle's config.pbtxt")
    except (OSError, UnicodeDecodeError) as error:
        raise _unsafe("it cannot be read") from error
    unknown = {field.name for field, _ in config.ListFields()} - _FIELDS
    if unknown:
        raise _unsafe(f"it sets {', '.join(sorted(unknown))}")
    backend = FORMATS.get(bundle.manifest["format"])
    if config.name != bundle.model or config.backend != backend:
        raise _unsafe(f"it is of '{config.name}' with the backend '{config.backend}'")
    if config.default_model_filename not in bundle.files:
        raise _unsafe(f"'{config.default_model_filename}' is not a file of the bundle")
    if [*config.instance_group] != [_ONE_INSTANCE]:
        raise _unsafe("its instance group is not one instance of any kind")
    if [*config.version_policy.specific.versions] != [bundle.version]:
        raise _unsafe("it serves another version")
    for setting in config.model_warmup:
        for entry in setting.inputs.values():
            if f"{WARMUP}/{entry.input_data_file}" not in bundle.files:
                raise _unsafe(f"'{entry.input_data_file}' is not a file of the bundle")
    _check_optimization(config.optimization)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    _check_values(parameters, _PARAMETERS)


def _check_optimization(optimization: Any) -> None:
    if {field.name for field, _ in optimization.ListFields()} - {"execution_accelerators"}:
        raise _unsafe("it sets an unknown optimization")
    accelerators = optimization.execution_accelerators
    if accelerators.cpu_execution_accelerator:
        raise _unsafe("it sets an unknown accelerator")
    for entry in accelerators.gpu_execution_accelerator:
        if entry.name != "tensorrt":
            raise _unsafe("it sets an unknown accelerator")
        _check_values(dict(entry.parameters), _ACCELERATOR)


def _check_values(parameters: dict[str, str], patterns: dict[str, str]) -> None:
    for key, value in parameters.items():
        if key not in patterns or not re.fullmatch(patterns[key], value):
            raise _unsafe(f"it sets the parameter {key!r} to {value[:80]!r}")


def _unsafe(reason: str) -> ValidationFailedError:
    return ValidationFailedError(
        f"the model's process left an unexpected config.pbtxt: {reason}",
        hint="The model's own code may have written it; check who logged this version.",
        kind="unsafe",
    )
