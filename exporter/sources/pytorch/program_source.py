"""A pt2 archive as reference: a `torch.export` program, run as it was logged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from exporter.arrays import Arrays
from exporter.errors import ValidationFailedError
from exporter.interface import Interface
from exporter.sources.base import OnnxExporter, OnnxTarget
from exporter.sources.mlmodel import MLModel, check_signature
from exporter.sources.pytorch.decompositions import decompose
from exporter.sources.pytorch.determinism import data_dependence
from exporter.sources.pytorch.naming import names_of, output_names, tensors_of
from exporter.sources.pytorch.onnx_export import export_by_dynamo, export_by_tracing
from exporter.sources.pytorch.torch_source import TorchSource

__all__ = ["ExportedProgramSource"]


class ExportedProgramSource(TorchSource):
    """A pt2 archive as reference."""

    flavor = "pytorch-pt2"

    def __init__(self, model: MLModel, program: ExportedProgram) -> None:
        super().__init__()
        self._program, self._programs = program, [program]
        self.batching_blocker = data_dependence(program)
        with warnings.catch_warnings(action="ignore"):
            self._module = program.module()
        self.interface = _interface(model, program)
        check_signature(model, self.interface.inputs, self.interface.outputs)
        self.note_frozen_axes(model, "torch.export fixed it at the example's when it was logged")
        self.example: Arrays | None = None
        if program.example_inputs is not None:
            leaves = pytree.tree_leaves(program.example_inputs)
            self.example = {
                tensor.name: leaf.detach().numpy().copy()
                for tensor, leaf in zip(self.interface.inputs, leaves, strict=True)
            }

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return both of torch's exporters; see `Source.onnx_exporters`."""
        module, example = self.torchscript_module()
        program, interface = decompose(self._program), self.interface
        return (
            partial(export_by_dynamo, program, interface=interface, target=target),
            partial(export_by_tracing, module, example, interface=interface, target=target),
        )

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and example inputs."""
        arguments, _ = self._program.example_inputs or ((), {})
        return self._program.module(), tuple(arguments)


def _interface(model: MLModel, program: ExportedProgram) -> Interface:
    signature, spec = program.graph_signature, program.call_spec.out_spec
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for name in signature.user_outputs:
        if not isinstance(values.get(str(name)), torch.Tensor):
            raise ValidationFailedError(
                f"the model returns {name!r}, which is not a tensor",
                hint="Return tensors only, and log the model again.",
                kind="interface",
            )
    inputs = names_of(signature.user_inputs, model.inputs, "input")
    outputs = output_names(pytree.tree_unflatten(list(range(spec.num_leaves)), spec), model.outputs)
    return Interface(
        tensors_of(inputs, [values[str(name)] for name in signature.user_inputs]),
        tensors_of(outputs, [values[str(name)] for name in signature.user_outputs]),
    )
