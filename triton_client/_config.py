"""A model's config, typed, from ``model_config_pb2.ModelConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2

from triton_client.types import datatype_of_config

__all__ = ["ConfigTensor", "DynamicBatching", "InstanceGroup", "ModelConfig", "model_config"]


@dataclass(frozen=True, slots=True)
class ConfigTensor:
    """One input or output in a model's config.

    Attributes:
        name: The tensor's name.
        datatype: The wire data type, such as ``FP32``.
        dims: The shape without the batch, -1 where a dimension is variable.
        optional: The input may be left out.
        label_filename: The file with the names of an output's classes; empty for none.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False
    label_filename: str = ""


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """Instances of a model: ``KIND_CPU``, ``KIND_GPU``, ``KIND_AUTO`` or ``KIND_MODEL``."""

    kind: str
    count: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """How the server batches the requests of a model together."""

    preferred_batch_size: tuple[int, ...]
    max_queue_delay_microseconds: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model's config as the server sees it, with the names of config.pbtxt.

    Attributes:
        name: The model's name.
        platform: Triton's platform; empty where ``backend`` says it.
        backend: The backend that runs the model.
        default_model_filename: The model's file in a version directory.
        max_batch_size: The most rows in one request; 0 where the model does not batch.
        input: The inputs.
        output: The outputs.
        instance_group: The model's instances.
        dynamic_batching: ``None`` where requests are not batched together.
        versions: The versions of a ``specific`` version policy; none for another policy.
        decoupled: A request may have any number of responses.
        parameters: The backend's parameters.
        raw: The whole ``tritonclient.grpc.model_config_pb2.ModelConfig``.
    """

    name: str
    platform: str
    backend: str
    default_model_filename: str
    max_batch_size: int
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]
    instance_group: tuple[InstanceGroup, ...]
    dynamic_batching: DynamicBatching | None
    versions: tuple[int, ...]
    decoupled: bool
    parameters: Mapping[str, str]
    raw: Any = field(repr=False)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the message's other fields, for programs written before this class."""
            if name == "raw":  # not yet set, as in a copy that is being made
                raise AttributeError(name)
            return getattr(self.raw, name)


def model_config(message: Any) -> ModelConfig:
    """Return a model's config from the message."""
    batching = message.dynamic_batching
    kinds = model_config_pb2.ModelInstanceGroup.Kind
    return ModelConfig(
        name=message.name,
        platform=message.platform,
        backend=message.backend,
        default_model_filename=message.default_model_filename,
        max_batch_size=message.max_batch_size,
        input=tuple(map(_tensor, message.input)),
        output=tuple(map(_tensor, message.output)),
        instance_group=tuple(
            InstanceGroup(kinds.Name(item.kind), item.count, tuple(item.gpus))
            for item in message.instance_group
        ),
        dynamic_batching=DynamicBatching(
            tuple(batching.preferred_batch_size), batching.max_queue_delay_microseconds
        )
        if message.HasField("dynamic_batching")
        else None,
        versions=tuple(message.version_policy.specific.versions),
        decoupled=message.model_transaction_policy.decoupled,
        parameters={name: value.string_value for name, value in message.parameters.items()},
        raw=message,
    )


def _tensor(message: Any) -> ConfigTensor:
    datatype = model_config_pb2.DataType.Name(message.data_type)
    return ConfigTensor(
        message.name,
        datatype_of_config(datatype) if message.data_type else "",
        tuple(message.dims),
        getattr(message, "optional", False),
        getattr(message, "label_filename", ""),
    )
