"""The MLflow ``onnx`` flavor, run by ONNX Runtime on the CPU as reference."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo

from exporter.errors import ValidationFailedError, first_line
from exporter.names import artifact_path
from exporter.sources.mlmodel import MLModel
from exporter.sources.onnx.checks import check_deterministic, check_operators, damaged
from exporter.sources.onnx.file_info import FileInfo
from exporter.sources.onnx.graphs import external_tensors
from exporter.sources.onnx.source import OnnxSource

__all__ = ["OnnxSource", "open_source"]


def open_source(model: MLModel, *, allow_pickle: bool) -> OnnxSource:  # noqa: ARG001 - an ONNX file holds no pickle
    """Open a logged ONNX model.

    Raises:
        ValidationFailedError: The file is damaged, reaches outside its folder, draws random
            numbers, has operators that no server has, cannot be run, or does not fit its signature.
        UsageError: ONNX Runtime is not installed.
    """
    path = _file(model)
    try:
        proto = onnx.load(path, load_external_data=False)
        for tensor in external_tensors(proto):
            artifact_path(ExternalDataInfo(tensor).location)
        check_deterministic(proto)
        check_operators(proto)
        info = FileInfo.of(proto)
        del proto  # before it is read again, twice
        onnx.checker.check_model(str(path))
    except ValidationFailedError:
        raise
    except Exception as error:
        raise damaged(first_line(error) if str(error).strip() else "it is empty") from error
    return OnnxSource(model, path, info)


def _file(model: MLModel) -> Path:
    path = model.file(str(model.flavors["onnx"].get("data", "model.onnx")))
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.onnx"))
    if len(files) != 1:
        raise damaged(f"its folder holds {len(files)} .onnx files where one is expected")
    return files[0]
