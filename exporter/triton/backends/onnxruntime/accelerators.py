"""Execution providers for the kind of an instance and its execution accelerators."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import onnxruntime

from ..shared.errors import InvalidArgumentError

__all__ = ["execution_providers"]

_PRECISIONS = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}
_RENAMED = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_TENSORRT_PARAMETERS = frozenset(
    {"trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_enable", "trt_dla_core",
     "trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix",
     "trt_dump_subgraphs", "trt_force_sequential_engine_build",
     "trt_context_memory_sharing_enable", "trt_layer_norm_fp32_fallback",
     "trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache",
     "trt_detailed_build_log", "trt_build_heuristics_enable", "trt_sparsity_enable",
     "trt_builder_optimization_level", "trt_auxiliary_streams", "trt_tactic_sources",
     "trt_extra_plugin_lib_paths", "trt_profile_min_shapes", "trt_profile_max_shapes",
     "trt_profile_opt_shapes", "trt_cuda_graph_enable", "trt_dump_ep_context_model",
     "trt_ep_context_file_path", "trt_ep_context_embed_mode"}
)  # fmt: skip

Provider = str | tuple[str, dict[str, str]]


def execution_providers(config: Mapping[str, Any], kind: str, device: int) -> list[Provider]:
    """Return the execution providers of an instance, the preferred one first.

    Accelerators for a GPU are ignored on an instance of kind ``CPU``, as NVIDIA's backend does.

    Raises:
        InvalidArgumentError: An accelerator or a parameter of one is unknown.
    """
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    providers: list[Provider] = []
    if kind == "GPU":
        cuda: dict[str, str] = {"device_id": str(device)}
        for accelerator in accelerators.get("gpu_execution_accelerator", []):
            parameters = accelerator.get("parameters") or {}
            if accelerator["name"] == "tensorrt":
                tensorrt = {**_tensorrt_options(parameters), "device_id": str(device)}
                providers.append(("TensorrtExecutionProvider", tensorrt))
            elif accelerator["name"] == "cuda":
                cuda.update(parameters)
            else:
                raise _unknown(accelerator["name"])
        providers.append(("CUDAExecutionProvider", cuda))
        providers = _available(providers)
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            raise _unknown(accelerator["name"])
        # Without the provider the model gives the same answers at another speed.
        if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
            providers.append(("OpenVINOExecutionProvider", {"device_type": "CPU"}))
    return [*providers, "CPUExecutionProvider"]


def _tensorrt_options(parameters: Mapping[str, str]) -> dict[str, str]:
    options = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value in _PRECISIONS:
                options[_PRECISIONS[value]] = "1"
            elif value != "FP32":
                raise InvalidArgumentError(f"unsupported precision mode '{value}' is requested")
        elif key in _RENAMED:
            options[_RENAMED[key]] = value
        elif key in _TENSORRT_PARAMETERS:
            options[key] = value
        else:
            raise InvalidArgumentError(
                f"unknown parameter '{key}' is provided for TensorRT Execution Accelerator"
            )
    return options


def _available(providers: list[Provider]) -> list[Provider]:
    """Leave out what this ONNX Runtime was built without: the CPU computes the answers then."""
    available = onnxruntime.get_available_providers()
    missing = [provider[0] for provider in providers if provider[0] not in available]
    if missing:
        sys.stderr.write(f"onnxruntime backend: no {', '.join(missing)} here, the CPU is used\n")
    return [provider for provider in providers if provider[0] in available]


def _unknown(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"unknown Execution Accelerator '{name}' is requested")
