"""What is needed of a file after it is no longer in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from exporter.sources.onnx.control_flow import value_dependence
from exporter.sources.onnx.graphs import all_nodes, external_tensors, opsets_of
from exporter.sources.onnx.string_locale import uses_english_locale
from exporter.sources.onnx.zipmap import ZipMapOutputs

__all__ = ["FileInfo"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What of a file is not served unchanged.

    Attributes:
        zipmaps: The outputs that are dictionaries.
        optional_inputs: The inputs that have a value in the file.
        english_locale: Whether it needs a locale that systems may lack.
        opsets: The version of every operator set, by domain.
        ir: The IR version.
        single_file: Whether there is no external data.
        operators: The names of all operators, inner graphs included.
        batching_blocker: Why rows may depend on each other; empty where they may not.
    """

    zipmaps: ZipMapOutputs
    optional_inputs: Sequence[str]
    english_locale: bool
    opsets: Mapping[str, int]
    ir: int
    single_file: bool
    operators: frozenset[str]
    batching_blocker: str

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> FileInfo:
        """Read it from a file."""
        return cls(
            ZipMapOutputs.of(proto),
            _optional_inputs(proto),
            uses_english_locale(proto),
            opsets_of(proto),
            proto.ir_version,
            not any(True for _ in external_tensors(proto)),
            frozenset(node.op_type for node in all_nodes(proto)),
            value_dependence(proto),
        )


def _optional_inputs(proto: onnx.ModelProto) -> list[str]:
    if proto.ir_version < 4:
        return []  # where every constant had to be listed as an input
    held = {initializer.name for initializer in proto.graph.initializer}
    return [value.name for value in proto.graph.input if value.name in held]
