"""Writes an ONNX file for a server: with served names, and without what cannot be served."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from exporter.sources.base import EXTERNAL_DATA_BYTES
from exporter.sources.onnx.declared_shapes import free_sizes
from exporter.sources.onnx.file_info import FileInfo
from exporter.sources.onnx.graphs import external_tensors
from exporter.sources.onnx.naming import rename
from exporter.sources.onnx.string_locale import use_portable_locale

__all__ = ["OnnxWriter"]


@dataclass(frozen=True, slots=True)
class OnnxWriter:
    """How a file is served.

    Attributes:
        source: The file as it was logged.
        names: The served name of every input and output.
        info: What of it is not served unchanged.
        varying: The axes of outputs, by served name, that declare a fixed size and have others;
            with a symbol for each.
    """

    source: Path
    names: Mapping[str, str]
    info: FileInfo
    varying: Mapping[tuple[str, int], str]

    def write(
        self, path: Path, rewrite: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    ) -> str:
        """Copy the file and its external data, renamed; return what was changed.

        A server could take some of the original names for code, and MLflow's are random, so that
        the same model would be another bundle each time it is logged.

        Args:
            path: Where to write it.
            rewrite: Makes it readable for the release; None where it is.
        """
        if self.info.single_file and rewrite is None and not self._changes:
            shutil.copyfile(self.source, path)
            return "as logged"
        proto = onnx.load(self.source, load_external_data=False)
        external = _rename_external(proto, path.name)
        self._serve(proto)
        if rewrite is not None:
            proto = rewrite(proto)
        large = self.info.single_file and proto.ByteSize() > EXTERNAL_DATA_BYTES
        onnx.save(proto, path, save_as_external_data=large, location=f"{path.name}.data")
        for old, new in external.items():
            shutil.copyfile(self.source.parent / old, path.parent / new)
        done = ["as logged"]
        if self.info.zipmaps.classes:
            done.append("without ZipMap")
        if rewrite is not None:
            opsets = [f"{o.domain or 'ai.onnx'} {o.version}" for o in proto.opset_import]
            done.append(f"in {', '.join(opsets)}, IR version {proto.ir_version}")
        return ", ".join(done)

    @property
    def _changes(self) -> bool:
        renamed = any(old != new for old, new in self.names.items())
        return bool(
            self.info.zipmaps.classes or self.info.english_locale or self.varying or renamed
        )

    def _serve(self, proto: onnx.ModelProto) -> None:
        """Replace what cannot be served."""
        self.info.zipmaps.remove_from(proto)
        if self.info.english_locale:
            use_portable_locale(proto)
        rename(proto, self.names)
        if self.varying:
            free_sizes(proto, self.varying)


def _rename_external(proto: onnx.ModelProto, name: str) -> dict[str, str]:
    """Rename the external data of a file; return the new names by the old ones."""
    renamed: dict[str, str] = {}
    for tensor in external_tensors(proto):
        location = next(entry for entry in tensor.external_data if entry.key == "location")
        number = f".{len(renamed)}" if renamed else ""
        location.value = renamed.setdefault(location.value, f"{name}.data{number}")
    return renamed
