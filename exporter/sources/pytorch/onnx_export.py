"""Writes a program or a module as ONNX, with torch's two exporters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from exporter.interface import Axis
from exporter.sources.base import EXTERNAL_DATA_BYTES, OnnxTarget

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["export_by_dynamo", "export_by_tracing"]


def export_by_dynamo(
    program: ExportedProgram,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    target: OnnxTarget,
) -> str:
    """Write a program with torch's newer exporter; it raises what its passes raise.

    The program itself is converted, as it was logged: tracing its module again would fold batch
    normalisation and dropout in training mode into their evaluation form.
    """
    with _quiet():
        onnx_program: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=target.opset,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
        model = onnx_program.model
        model.ir_version = target.ir
        _forget_origins(model)
        onnx_program.save(path, external_data=_weight_bytes(program) > EXTERNAL_DATA_BYTES)
    return "torch.onnx dynamo"


def export_by_tracing(
    module: Any,
    example: tuple[Any, ...],
    path: Path,
    *,
    inputs: Mapping[str, Sequence[Axis]],
    outputs: Mapping[str, Sequence[Axis]],
    target: OnnxTarget,
    surplus: bool = False,
) -> str:
    """Write a module with torch's older exporter, which traces it or reads its script."""
    variable = {
        name: {axis: str(size) for axis, size in enumerate(axes) if not isinstance(size, int)}
        for name, axes in (*inputs.items(), *outputs.items())
    }
    with _quiet():
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamo=False,
            # Every layer keeps the mode that it was logged in.
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=min(target.opset, 20),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=variable,
        )
    _declare_outputs(path, outputs, surplus=surplus)
    return "torch.onnx torchscript"


def _declare_outputs(path: Path, outputs: Mapping[str, Sequence[Axis]], *, surplus: bool) -> None:
    """Write the sizes of outputs that this exporter does not infer, such as after a loop."""
    proto = onnx.load(path, load_external_data=False)
    if surplus:
        del proto.graph.output[len(outputs) :]
    for value in proto.graph.output:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, outputs.get(value.name, ()), strict=False):
            if isinstance(size, int) and not dim.HasField("dim_value"):
                dim.dim_value = size
    onnx.save(proto, path)


@contextmanager
def _quiet() -> Iterator[None]:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        yield


def _forget_origins(model: Any) -> None:
    # Stack traces and module paths of the machine that logged the model: not part of the model.
    graphs = [model.graph, *model.functions.values()]
    model.metadata_props.clear()
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _weight_bytes(program: ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
