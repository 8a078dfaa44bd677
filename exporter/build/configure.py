"""Write a candidate's complete ``config.pbtxt``, without reliance on defaults, and its warm-up.

Sources: triton-inference-server/common protobuf/model_config.proto; the onnxruntime backend's
README for its parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from exporter.arrays import Array, Arrays
from exporter.bundle import WARMUP
from exporter.formats.base import Conversion
from exporter.interface import Tensor
from triton_client.types import config_datatype

__all__ = ["WarmupInput", "build_config", "write_warmup"]

# Requests that arrive while an instance is busy form the next batch; there is no queue delay, since
# it would slow down every request of an idle server. Why the queue is unbounded by default:
# docs/decisions/0008.
# One thread serves a small model fastest: distributing its work costs more than the work.
SMALL_MODEL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One row of an input for the server's warm-up.

    Attributes:
        tensor: The input.
        shape: The shape of the row, without the batch axis if the server batches.
        filename: The file in the model's ``warmup`` folder with the raw bytes.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    filename: str


def build_config(
    name: str,
    version: int,
    conversion: Conversion,
    *,
    max_batch_size: int,
    max_queue_size: int = 0,
    warmup: Sequence[WarmupInput],
) -> pb.ModelConfig:
    """Return the complete configuration of one version.

    Args:
        name: The model's name, which is also its directory's.
        version: The version to serve.
        conversion: The model files and their interface.
        max_batch_size: The most rows of one request; 0 turns batching off.
        max_queue_size: Requests that may wait in the batcher's queue before more are rejected; 0
            for an unbounded queue.
        warmup: One row of every input, or empty for no warm-up.
    """
    config = pb.ModelConfig(
        name=name,
        backend=conversion.backend,
        default_model_filename=conversion.filename,
        max_batch_size=max_batch_size,
    )
    for tensor in conversion.interface.inputs:
        _declare(config.input.add(), tensor, batched=max_batch_size > 0)
    for tensor in conversion.interface.outputs:
        _declare(config.output.add(), tensor, batched=max_batch_size > 0)
    config.version_policy.specific.versions.append(version)
    # AUTO is a GPU if the server has one, else the CPU: built once, deployed everywhere.
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_AUTO)
    _BACKENDS[conversion.backend](config, conversion)
    if conversion.accelerator:
        _accelerator(config, conversion)
    if max_batch_size > 0:
        config.dynamic_batching.SetInParent()
        if max_queue_size:
            config.dynamic_batching.default_queue_policy.max_queue_size = max_queue_size
    for batch_size in (sorted({1, max_batch_size} - {0}) or [1]) if warmup else []:
        _add_warmup(config, batch_size, warmup)
    return config


def write_warmup(
    folder: Path, conversion: Conversion, inputs: Arrays, *, batched: bool
) -> list[WarmupInput]:
    """Write one row of every input, in the raw format that the server reads."""
    warmup = []
    (folder / WARMUP).mkdir()
    for tensor in conversion.interface.inputs:
        array = inputs[tensor.name][:1] if batched else inputs[tensor.name]
        if array.size == 0:
            return []
        content = _raw(array)
        # Named by content: versions share the folder, and never differ about a shared file.
        filename = f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
        (folder / WARMUP / filename).write_bytes(content)
        warmup.append(WarmupInput(tensor, array.shape[1:] if batched else array.shape, filename))
    return warmup


def _raw(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    values = [v.encode() if isinstance(v, str) else bytes(v) for v in array.ravel()]
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def _onnxruntime(config: pb.ModelConfig, conversion: Conversion) -> None:
    threads = 1 if conversion.bytes <= SMALL_MODEL_BYTES else 0
    config.parameters["intra_op_thread_count"].string_value = str(threads)
    config.parameters["inter_op_thread_count"].string_value = "1"


def _pytorch(config: pb.ModelConfig, conversion: Conversion) -> None:
    # Only for small models: in NVIDIA's backend the first model that sets it sets it for all.
    if conversion.bytes <= SMALL_MODEL_BYTES:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = "1"


def _tensorrt(config: pb.ModelConfig, conversion: Conversion) -> None:
    """Set nothing: sizes and precision are part of the plan."""


def _accelerator(config: pb.ModelConfig, conversion: Conversion) -> None:
    """Run the model on the GPU's accelerator; see `exporter.formats.tensorrt_accelerator`."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    entry = accelerators.add(name=conversion.accelerator)
    for key, value in conversion.facts["accelerator"].items():
        if key != "name":
            entry.parameters[key] = value


_BACKENDS = {"onnxruntime": _onnxruntime, "pytorch": _pytorch, "tensorrt": _tensorrt}


def _declare(entry: Any, tensor: Tensor, *, batched: bool) -> None:
    entry.name = tensor.name
    entry.data_type = pb.DataType.Value(config_datatype(tensor.datatype))
    dims = tensor.shape[1:] if batched else tensor.shape
    if dims:
        entry.dims.extend(dims)
    else:
        # dims must not be empty. A scalar per row is one element on the wire, whose axis the server
        # removes by `reshape`; without rows that is not allowed, and the backend removes it.
        entry.dims.append(1)
        if batched:
            entry.reshape.SetInParent()


def _add_warmup(config: pb.ModelConfig, batch_size: int, inputs: Sequence[WarmupInput]) -> None:
    setting = config.model_warmup.add(name=f"rows-{batch_size}", batch_size=batch_size, count=1)
    for item in inputs:
        entry = setting.inputs[item.tensor.name]
        entry.data_type = pb.DataType.Value(config_datatype(item.tensor.datatype))
        entry.dims.extend(item.shape or (1,))
        entry.input_data_file = item.filename
