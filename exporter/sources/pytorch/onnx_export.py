"""Writes a program or a module as ONNX, with torch's two exporters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from exporter.interface import Interface
from exporter.sources.base import EXTERNAL_DATA_BYTES, OnnxTarget
from exporter.sources.pytorch.call_convention import PositionalModule

__all__ = ["WithPackedOutputs", "export_by_dynamo", "export_by_tracing"]


def export_by_dynamo(
    program: ExportedProgram, path: Path, *, interface: Interface, target: OnnxTarget
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
            input_names=[tensor.name for tensor in interface.inputs],
            output_names=[tensor.name for tensor in interface.outputs],
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
    interface: Interface,
    target: OnnxTarget,
    surplus: bool = False,
) -> str:
    """Write a module with torch's older exporter, which traces it or reads its script."""
    variable = {
        tensor.name: {axis: size for axis, size in enumerate(tensor.axes) if isinstance(size, str)}
        for tensor in (*interface.inputs, *interface.outputs)
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
            input_names=[tensor.name for tensor in interface.inputs],
            output_names=[tensor.name for tensor in interface.outputs],
            dynamic_axes=variable,
        )
    _declare_outputs(path, interface, surplus=surplus)
    return "torch.onnx torchscript"


def _declare_outputs(path: Path, interface: Interface, *, surplus: bool) -> None:
    """Write the sizes of outputs that this exporter does not infer, such as after a loop."""
    proto = onnx.load(path, load_external_data=False)
    if surplus:
        del proto.graph.output[len(interface.outputs) :]
    axes = {tensor.name: tensor.axes for tensor in interface.outputs}
    for value in proto.graph.output:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, axes.get(value.name, ()), strict=False):
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
    model.metadata_props.clear()
    for graph in (model.graph, *model.functions.values()):
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


class WithPackedOutputs(torch.nn.Module):  # type: ignore[misc]
    """A module that returns, after its own result, the outputs of its packed recurrent layers.

    The older exporter looks for users of what a layer makes of a packed sequence; it fails where
    there are none, because only the last state is used.
    """

    def __init__(self, module: PositionalModule) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the module's tensors, and the outputs of its packed layers for every step."""
        outputs: list[torch.Tensor] = []

        def keep(layer: Any, _given: Any, answer: Any) -> None:
            if isinstance(answer[0], PackedSequence):
                outputs.append(pad_packed_sequence(answer[0], layer.batch_first)[0])

        layers = [part for part in self.modules() if isinstance(part, torch.nn.RNNBase)]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        try:
            return (*self.module(*tensors), *outputs)
        finally:
            for hook in hooks:
                hook.remove()
