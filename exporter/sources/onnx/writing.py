"""Writes an ONNX file for a server: under names of ours, with what cannot be served replaced."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import onnx

from exporter.sources.onnx.graphs import external_tensors
from exporter.sources.onnx.locales import use_everywhere
from exporter.sources.onnx.naming import rename

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporter.sources.onnx.facts import Facts

__all__ = ["write"]

# One protobuf holds no 2 GB; see `exporter.sources.pytorch.to_onnx` for the figure.
_MOST_INLINE = 128 * 1024 * 1024


def write(
    source: Path,
    names: Mapping[str, str],
    facts: Facts,
    rewrite: Callable[[onnx.ModelProto], onnx.ModelProto] | None,
    path: Path,
) -> str:
    """Copy a file, and its external data under names of ours; return what was done to it.

    The names of external data are its author's: a server would take some for code, and MLflow's are
    random, so that the same model would be another bundle each time it is logged.

    Args:
        source: The file as it was logged.
        names: The served name of every input and output.
        facts: What the file holds that is not served as it is.
        rewrite: Makes it readable for the release; None where it is.
        path: Where to write it.
    """
    proto = onnx.load(source, load_external_data=False)
    external: dict[str, str] = {}
    for tensor in external_tensors(proto):
        location = next(entry for entry in tensor.external_data if entry.key == "location")
        number = f".{len(external)}" if external else ""
        location.value = external.setdefault(location.value, f"{path.name}.data{number}")
    renamed = any(old != new for old, new in names.items())
    facts.maps.taken_out_of(proto)
    if facts.english:
        use_everywhere(proto)
    rename(proto, names)
    if rewrite is not None:
        proto = rewrite(proto)
    if external or renamed or facts.changing or rewrite is not None:
        whole = not external and proto.ByteSize() > _MOST_INLINE
        onnx.save(proto, path, save_as_external_data=whole, location=f"{path.name}.data")
    else:
        shutil.copyfile(source, path)
    for theirs, ours in external.items():
        shutil.copyfile(source.parent / theirs, path.parent / ours)
    done = ["as logged"]
    if facts.maps.classes:
        done.append("without ZipMap")
    if rewrite is not None:
        opsets = [f"{o.domain or 'ai.onnx'} {o.version}" for o in proto.opset_import]
        done.append(f"in {', '.join(opsets)}, IR version {proto.ir_version}")
    return ", ".join(done)
