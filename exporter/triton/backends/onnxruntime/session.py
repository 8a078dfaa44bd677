"""An ONNX Runtime session, made from a model configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from ..shared.configuration import boolean_parameter, integer_parameter, string_parameter
from ..shared.errors import InternalError, InvalidArgumentError
from ..shared.instance import require_file
from .accelerators import execution_providers

__all__ = ["load_session", "run_options", "runtime_message"]

_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_DEVICE_INITIALIZERS = "session.use_device_allocator_for_initializers"


def load_session(config: Mapping[str, Any], path: str, kind: str, device: int) -> Any:
    """Return the ``onnxruntime.InferenceSession`` of a model for an instance, ``CPU`` or ``GPU``.

    The path is that of a file, or of a folder with ``model.onnx`` and its external data.

    Raises:
        InvalidArgumentError: A parameter has an invalid value.
        UnavailableError: The file is missing.
        InternalError: ONNX Runtime cannot load the model.
    """
    options = _session_options(config)
    if Path(path).is_dir():
        path = f"{path}/model.onnx"
    require_file(path, config)
    providers = execution_providers(config, kind, device)
    try:
        for library in (config.get("model_operations") or {}).get("op_library_filename", []):
            options.register_custom_ops_library(library)
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise InternalError(runtime_message(error)) from error


def runtime_message(error: Exception) -> str:
    """Return the message of an error of ONNX Runtime as NVIDIA's backend words it."""
    match = re.fullmatch(r"(?s)\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", str(error))
    code, text = match.groups() if match else (1, error)
    return f"onnx runtime error {code}: {text}"


def run_options(config: Mapping[str, Any]) -> Any:
    """Return the ``onnxruntime.RunOptions`` of a configuration, or None where it sets none."""
    shrinkage = string_parameter(config, _SHRINKAGE)
    if shrinkage is None:
        return None
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_SHRINKAGE, shrinkage)
    return options


def _session_options(config: Mapping[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    graph = (config.get("optimization") or {}).get("graph") or {}
    # Any other level means everything, as in NVIDIA's backend.
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(int(graph.get("level", 0)), levels.ORT_ENABLE_ALL)
    execution_mode = integer_parameter(config, "execution_mode")
    if execution_mode not in {0, 1}:
        raise InvalidArgumentError(
            "Invalid configuration value provided. Expected values for  execution_mode are 0 or 1 "
            f"but got {execution_mode} ."
        )
    modes = onnxruntime.ExecutionMode
    options.execution_mode = modes.ORT_PARALLEL if execution_mode else modes.ORT_SEQUENTIAL
    # Zero leaves the number to ONNX Runtime.
    options.intra_op_num_threads = max(integer_parameter(config, "intra_op_thread_count"), 0)
    options.inter_op_num_threads = max(integer_parameter(config, "inter_op_thread_count"), 0)
    # A thread that spins while it waits takes its core from the server and the other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    initializers = string_parameter(config, _DEVICE_INITIALIZERS)
    if initializers is not None:
        options.add_session_config_entry(_DEVICE_INITIALIZERS, initializers)
    arena = boolean_parameter(config, "enable_mem_arena")
    pattern = boolean_parameter(config, "enable_mem_pattern")
    if arena is not None:
        options.enable_cpu_mem_arena = arena
    if pattern is not None:
        options.enable_mem_pattern = pattern
    # Checked, and without effect: every instance is a process of its own here.
    boolean_parameter(config, "share_session_between_instances")
    return options
