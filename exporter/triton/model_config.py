"""Read, render and compare ``config.pbtxt`` with the official protobuf.

Source: triton-inference-server/common protobuf/model_config.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from exporter.bounded_text import UNFIT
from exporter.errors import ValidationFailedError

__all__ = ["differences", "parse", "render", "with_versions"]


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
        ValidationFailedError: It is not one; ``where`` is named.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, RecursionError, *UNFIT) as error:
        raise ValidationFailedError(
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
    """Return the fields that the server reads differently from what stlab wrote.

    The server may fill in what stlab left out, except whether and how rows are batched: there a
    zero means never.
    """
    found = _differences(ours, served, "")
    if ours.max_batch_size == 0 != served.max_batch_size:
        found.append(f"max_batch_size: 0 became {served.max_batch_size}")
    batching = [config.WhichOneof("scheduling_choice") for config in (ours, served)]
    if batching[0] is None and batching[1] is not None:
        found.append(f"{batching[1]} was added")
    return found


def _differences(ours: Any, served: Any, path: str) -> list[str]:
    """Compare the fields that stlab set in a message, whose name ``path`` ends with."""
    found: list[str] = []
    for field, value in ours.ListFields():
        name = f"{path}{field.name}"
        other = getattr(served, field.name)
        if field.name == "instance_group":
            continue  # the server names and places instances itself
        if field.message_type is None:
            if (list(value) != list(other)) if field.is_repeated else (value != other):
                found.append(f"{name}: {value!r} became {other!r}")
        elif field.message_type.GetOptions().map_entry:
            found += [
                f"{name}[{key}] differs"
                for key in value
                if key not in other or value[key] != other[key]
            ]
        elif field.is_repeated:
            if len(value) != len(other):
                found.append(f"{name}: {len(value)} became {len(other)}")
            for index, (left, right) in enumerate(zip(value, other, strict=False)):
                found += _differences(left, right, f"{name}[{index}].")
        else:
            found += _differences(value, other, f"{name}.")
    return found
