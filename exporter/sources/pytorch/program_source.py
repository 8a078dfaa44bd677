"""A pt2 archive as reference: a `torch.export` program, run as it was logged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError, first_line
from exporter.interface import Interface
from exporter.sources.base import InputRejectedError, OnnxExporter, OnnxTarget
from exporter.sources.mlmodel import MLModel, check_signature
from exporter.sources.pytorch.decompositions import decompose
from exporter.sources.pytorch.determinism import data_dependence
from exporter.sources.pytorch.float64 import run_in_float64
from exporter.sources.pytorch.naming import names_of, output_names, tensor_of
from exporter.sources.pytorch.onnx_export import export_by_dynamo, export_by_tracing

__all__ = ["ExportedProgramSource"]


class ExportedProgramSource:
    """A pt2 archive as reference."""

    flavor = "pytorch-pt2"
    has_thresholds = False

    def __init__(self, model: MLModel, program: ExportedProgram) -> None:
        self.notes: list[str] = []
        self.versions: Mapping[str, str] = {"torch": torch.__version__.partition("+")[0]}
        self._program = program
        self.batching_blocker = data_dependence(program)
        with warnings.catch_warnings(action="ignore"):
            self._module = program.module()
        self.interface = _interface(model, program)
        check_signature(model, self.interface.inputs, self.interface.outputs)
        self.example = self._logged_example()

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the program's outputs; see `Source.run`."""
        arguments = self._tensors(inputs)
        try:
            with torch.no_grad():
                answer = self._module(*arguments)
        except Exception as error:  # guards and operators raise errors of every kind
            raise InputRejectedError(first_line(error)) from error
        return self._named(pytree.tree_leaves(answer))

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the outputs in float64; see `Source.run_float64`."""
        try:
            return self._named(
                pytree.tree_leaves(run_in_float64(self._program, self._tensors(inputs)))
            )
        except Exception:  # noqa: BLE001 - whatever an operator raises that has no float64 form
            return None

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return both of torch's exporters; see `Source.onnx_exporters`."""
        inputs = {tensor.name: tensor.axes for tensor in self.interface.inputs}
        outputs = {tensor.name: tensor.axes for tensor in self.interface.outputs}
        newer = partial(
            export_by_dynamo,
            decompose(self._program),
            inputs=list(inputs),
            outputs=list(outputs),
            target=target,
        )
        older = partial(
            export_by_tracing, self._program.module(), inputs=inputs, outputs=outputs, target=target
        )
        arguments, _ = self._program.example_inputs or ((), {})
        return (newer, partial(older, tuple(arguments)))

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and example inputs."""
        arguments, _ = self._program.example_inputs or ((), {})
        return self._program.module(), tuple(arguments)

    def _tensors(self, inputs: Arrays) -> list[torch.Tensor]:
        # Copies: a model may write into its arguments.
        return [torch.tensor(inputs[tensor.name]) for tensor in self.interface.inputs]

    def _named(self, leaves: Sequence[Any]) -> dict[str, Array]:
        # Clones: a model may hand out a buffer that its next run changes.
        return {
            tensor.name: leaf.detach().clone().contiguous().numpy()
            for tensor, leaf in zip(self.interface.outputs, leaves, strict=True)
        }

    def _logged_example(self) -> Arrays | None:
        if self._program.example_inputs is None:
            return None
        leaves = pytree.tree_leaves(self._program.example_inputs)
        return {
            tensor.name: leaf.detach().numpy().copy()
            for tensor, leaf in zip(self.interface.inputs, leaves, strict=True)
        }


def _interface(model: MLModel, program: ExportedProgram) -> Interface:
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    return Interface(
        tuple(
            tensor_of(name, nodes[str(graph_name)].meta["val"])
            for name, graph_name in zip(
                names_of(signature.user_inputs, model.inputs, "input"),
                signature.user_inputs,
                strict=True,
            )
        ),
        tuple(
            tensor_of(name, _output_value(graph_name, nodes))
            for name, graph_name in zip(
                output_names(program.call_spec.out_spec, model.outputs),
                signature.user_outputs,
                strict=True,
            )
        ),
    )


def _output_value(graph_name: Any, nodes: Mapping[str, Any]) -> torch.Tensor:
    node = nodes.get(str(graph_name))
    value = node.meta.get("val") if node is not None else None
    if not isinstance(value, torch.Tensor):
        raise ValidationFailedError(
            f"the model returns {graph_name!r}, which is not a tensor",
            hint="Return tensors only, and log the model again.",
            kind="interface",
        )
    return value
