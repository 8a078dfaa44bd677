"""What has to be known of a file once it is no longer held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.sources.onnx.graphs import external_tensors, opsets_of
from exporter.sources.onnx.string_locale import uses_english_locale
from exporter.sources.onnx.zipmap import ZipMapOutputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

__all__ = ["FileInfo"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file holds that is not served as it is.

    Attributes:
        maps: The outputs that are dictionaries.
        constants: The inputs that a caller could give, and that have a value without.
        english: Whether it changes texts by a locale that systems may lack.
        opsets: The version of every operator set, by domain.
        ir: The IR version.
        whole: Whether all of it lies in one file.
    """

    maps: ZipMapOutputs
    constants: Sequence[str]
    english: bool
    opsets: Mapping[str, int]
    ir: int
    whole: bool

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> FileInfo:
        """Find them in a file."""
        return cls(
            ZipMapOutputs.of(proto),
            _constants(proto),
            uses_english_locale(proto),
            opsets_of(proto),
            proto.ir_version,
            not any(True for _ in external_tensors(proto)),
        )


def _constants(proto: onnx.ModelProto) -> list[str]:
    if proto.ir_version < 4:
        return []  # where every constant had to be listed as an input
    held = {initializer.name for initializer in proto.graph.initializer}
    return [value.name for value in proto.graph.input if value.name in held]
