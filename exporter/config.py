"""Writes ``config.pbtxt`` from the official protobuf, complete, with nothing left to a default.

Sources: triton-inference-server/common protobuf/model_config.proto; the onnxruntime backend's
README for its parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from exporter.errors import ValidationFailed
from exporter.untrusted import UNFIT
from triton_client.types import config_datatype

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exporter.formats.base import Conversion
    from exporter.interface import Tensor

__all__ = ["WarmupInput", "build_config", "differences", "parse", "render", "with_versions"]

# Requests that arrive while an instance is busy make the next batch; none waits for company, since
# waiting costs every request of a quiet server. Why the queue has no bounds unless somebody asks
# for them: docs/decisions/0008.
# One core serves a small model fastest: handing its work to others costs more than the work.
SMALL_MODEL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One row of an input for the server to warm up with.

    Attributes:
        tensor: The input.
        shape: The shape of the row as the server counts it: without rows where it batches.
        filename: The file below the model's ``warmup`` folder that holds the raw bytes.
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
        max_batch_size: Rows that may be put into one request; 0 turns batching off.
        max_queue_size: Requests that may wait in the batcher's queue before more are refused; 0 for
            any number.
        warmup: One row of every input, or nothing.
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
    # AUTO is a GPU where the server has one and the CPU elsewhere: built once, deployed everywhere.
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


def render(config: pb.ModelConfig) -> str:
    """Return a configuration as the text of config.pbtxt."""
    text: str = text_format.MessageToString(config)
    # AUTO is the protobuf's zero, which it leaves out; a reader should see it.
    return re.sub(
        r"(?m)^(instance_group \{\n  count: \d+\n)(?!  kind)", r"\1  kind: KIND_AUTO\n", text
    )


def parse(text: str, *, where: str) -> pb.ModelConfig:
    """Read the text of a config.pbtxt.

    Raises:
        ValidationFailed: It is not one; ``where`` is named.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, RecursionError, *UNFIT) as error:
        raise ValidationFailed(
            f"{where} is not a Triton model configuration: {error}",
            hint="Restore it, or export the served version again.",
            kind="config",
        ) from error


def with_versions(config: pb.ModelConfig, versions: Iterable[int]) -> pb.ModelConfig:
    """Return a copy that serves exactly these versions."""
    copy = pb.ModelConfig()
    copy.CopyFrom(config)
    copy.version_policy.Clear()
    copy.version_policy.specific.versions.extend(sorted(versions))
    return copy


def differences(ours: pb.ModelConfig, served: pb.ModelConfig) -> list[str]:
    """Return what the server sees otherwise than we wrote it.

    What we left out is the server's own to fill in, but for whether and how rows are batched: there
    a zero means never.
    """
    found = _differences(ours, served, "")
    if ours.max_batch_size == 0 != served.max_batch_size:
        found.append(f"max_batch_size: 0 became {served.max_batch_size}")
    batching = [config.WhichOneof("scheduling_choice") for config in (ours, served)]
    if batching[0] is None and batching[1] is not None:
        found.append(f"{batching[1]} was added")
    return found


def _differences(ours: Any, served: Any, path: str) -> list[str]:
    """Return the fields that we set and the server sees otherwise.

    Args:
        ours: A message that we wrote.
        served: The same message as the server reports it.
        path: The name of the message, for the result.
    """
    found: list[str] = []
    for field, value in ours.ListFields():
        name = f"{path}{field.name}"
        other = getattr(served, field.name)
        if field.name == "instance_group":
            continue  # the server names and places instances itself
        if field.message_type is None:
            same = list(value) == list(other) if _repeated(field) else value == other
            if not same:
                found.append(f"{name}: {value!r} became {other!r}")
        elif field.message_type.GetOptions().map_entry:
            found += [
                f"{name}[{key}] differs"
                for key in value
                if key not in other or value[key] != other[key]
            ]
        elif _repeated(field):
            if len(value) != len(other):
                found.append(f"{name}: {len(value)} became {len(other)}")
            for index, (left, right) in enumerate(zip(value, other, strict=False)):
                found += _differences(left, right, f"{name}[{index}].")
        else:
            found += _differences(value, other, f"{name}.")
    return found


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def _onnxruntime(config: pb.ModelConfig, conversion: Conversion) -> None:
    threads = 1 if conversion.bytes <= SMALL_MODEL_BYTES else 0
    config.parameters["intra_op_thread_count"].string_value = str(threads)
    config.parameters["inter_op_thread_count"].string_value = "1"


def _pytorch(config: pb.ModelConfig, conversion: Conversion) -> None:
    # Only where it helps: in NVIDIA's backend the first model that says so says it for all.
    if conversion.bytes <= SMALL_MODEL_BYTES:
        config.parameters["INTRA_OP_THREAD_COUNT"].string_value = "1"


def _tensorrt(config: pb.ModelConfig, conversion: Conversion) -> None:
    """Nothing is set beside the defaults: sizes and precision are part of the plan."""


def _accelerator(config: pb.ModelConfig, conversion: Conversion) -> None:
    """Have the GPU's accelerator run the model; see `exporter.formats.accelerator`."""
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
        # dims may not be empty. A scalar per row is one element on the wire, which the server
        # takes the axis from; without rows it may not, and the backend does.
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
