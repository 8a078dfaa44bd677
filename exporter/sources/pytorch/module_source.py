"""An eager or scripted torch module as reference."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError, first_line
from exporter.interface import Interface, unique_names
from exporter.sources.base import InputRejectedError, OnnxExporter, OnnxTarget
from exporter.sources.mlmodel import Field, MLModel, check_signature
from exporter.sources.optional_libraries import cannot_run_example
from exporter.sources.pytorch.call_convention import PositionalModule, bind_inputs
from exporter.sources.pytorch.determinism import check_deterministic, data_dependence
from exporter.sources.pytorch.dynamic_axes import infer_dynamic_axes, tensors_of
from exporter.sources.pytorch.export_program import export_programs
from exporter.sources.pytorch.float64 import run_in_float64
from exporter.sources.pytorch.input_example import logged_example
from exporter.sources.pytorch.naming import output_names
from exporter.sources.pytorch.onnx_export import export_by_dynamo, export_by_tracing
from exporter.sources.pytorch.packed_sequences import WithPackedOutputs, is_recurrent
from exporter.sources.pytorch.side_effects import (
    check_no_external_reads,
    check_no_rng,
    reads_values,
    rng_states,
)
from exporter.sources.pytorch.statefulness import check_first_call, check_stateless, copy_unrun
from exporter.sources.pytorch.torchscript import branches_on_values, compile_script, trace_script

__all__ = ["ModuleSource"]


class ModuleSource:
    """A torch module, run as it is.

    Args:
        module: The module, in the mode to run it in.
        example: Its inputs by name, in order.
        varying: The axes of every input that are declared to vary.
        promised: The outputs of the signature.
        flavor: The MLflow flavor, with its serialization.
        given: Whether the example was logged.

    Raises:
        ValidationFailedError: The module cannot run its example, returns more than tensors, or
            depends on more than its inputs.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        example: Arrays,
        varying: Mapping[str, Sequence[int]],
        *,
        promised: Sequence[Field] = (),
        flavor: str = "pytorch-pickle",
        given: bool = True,
    ) -> None:
        self.flavor = flavor
        self.notes: list[str] = []
        self.versions: Mapping[str, str] = {"torch": torch.__version__.partition("+")[0]}
        tensors = [torch.tensor(array) for array in example.values()]
        copied, untouched = copy_unrun(module), rng_states()
        try:
            self._module = bind_inputs(module, list(example), tensors)
            answer = self._run(tensors)
            inputs, outputs, grown = infer_dynamic_axes(
                self._run, tensors, [varying[name] for name in example]
            )
        except ValidationFailedError:
            raise
        except Exception as error:
            raise cannot_run_example(error) from error
        self._example = tuple(grown)
        check_stateless(module, lambda: self._run(tensors))
        touched = rng_states()
        names = output_names(self._spec(tensors), promised)
        self.interface = Interface(
            tensors_of(unique_names(example, "input"), inputs, tensors),
            tensors_of(names, outputs, answer),
        )
        self._programs, self._dependent = self._export(module)
        # After the export, which names the operator.
        check_no_rng(untouched, touched)
        if copied is not None:
            again = PositionalModule(copied, list(example), self._module.convention)
            check_first_call(partial(self._run, module=again), tensors, answer)
        check_no_external_reads(lambda: self._run(tensors))
        self.batching_blocker = self._branches(module)
        self.has_thresholds = False
        self.example: Arrays | None = None
        if given:
            self.example = dict(
                zip((t.name for t in self.interface.inputs), example.values(), strict=True)
            )

    @classmethod
    def of_signature(cls, model: MLModel, module: torch.nn.Module) -> ModuleSource:
        """Return a logged module as reference; see `exporter.sources.pytorch.input_example`.

        Raises:
            ValidationFailedError: Its inputs are unknown, or the signature does not fit it.
        """
        logged = logged_example(model)
        source = cls(
            module, logged.arrays, logged.varying, promised=model.outputs, given=logged.given
        )
        check_signature(model, source.interface.inputs, source.interface.outputs)
        return source

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the module's outputs; see `Source.run`."""
        # Copies: a model may write into its arguments.
        tensors = [torch.tensor(inputs[tensor.name]) for tensor in self.interface.inputs]
        try:
            return self._named(self._run(tensors))
        except Exception as error:
            raise InputRejectedError(first_line(error)) from error

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the outputs in float64; see `Source.run_float64`."""
        tensors = [torch.tensor(inputs[tensor.name]) for tensor in self.interface.inputs]
        try:
            if self._programs:
                leaves = pytree.tree_leaves(run_in_float64(self._programs[0], tensors))
            else:
                wide = copy.deepcopy(self._module).double()
                with torch.no_grad():
                    leaves = wide(*(t.double() if t.dtype is torch.float32 else t for t in tensors))
            return self._named(leaves)
        except Exception:  # noqa: BLE001 - whatever an operator raises that has no float64 form
            return None

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return torch's exporters, for every program of the module; see `Source`."""
        inputs = {tensor.name: tensor.axes for tensor in self.interface.inputs}
        outputs = {tensor.name: tensor.axes for tensor in self.interface.outputs}
        newer = [
            partial(export_by_dynamo, p, inputs=list(inputs), outputs=list(outputs), target=target)
            for p in self._programs
        ]

        older = partial(export_by_tracing, inputs=inputs, outputs=outputs, target=target)

        def traced(path: Path) -> str:
            module, example = self.torchscript_module()
            return older(module, example, path)

        def compiled(path: Path) -> str:
            try:
                script = compile_script(self._module.module)
            except ValidationFailedError as error:
                raise (_depends(self._dependent) if self._dependent else error) from error
            return older(script, self._example, path)

        def flat(path: Path) -> str:
            return older(trace_script(self._module, self._example), self._example, path)

        def unpacked(path: Path) -> str:
            return older(WithPackedOutputs(self._module), self._example, path, surplus=True)

        if isinstance(self._module.module, torch.jit.ScriptModule):
            return (traced, flat)
        scripts = (compiled,) if self._module.convention == "position" else ()
        # A trace keeps one branch for all inputs.
        traces = (traced, unpacked) if is_recurrent(self._module) else (traced,)
        return (*newer, *(() if self._dependent else traces), *scripts)

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and example inputs."""
        is_script = isinstance(self._module.module, torch.jit.ScriptModule)
        whole = (
            self._module.module if is_script and self._module.convention != "dict" else self._module
        )
        return whole, self._example

    def _export(self, module: torch.nn.Module) -> tuple[list[ExportedProgram], str]:
        if isinstance(module, torch.jit.ScriptModule):
            return [], ""  # torch.export does not take scripts
        programs, dependent = export_programs(self._module, self._example, self.interface.inputs)
        for program in programs[:1]:
            check_deterministic(program, datetime.now(UTC))
        if not programs and not dependent and reads_values(self._module, self._example):
            dependent = "it makes numbers, lists or arrays of its tensors"
        return programs, dependent

    def _branches(self, module: torch.nn.Module) -> str:
        script = isinstance(module, torch.jit.ScriptModule)
        if self._dependent or (script and branches_on_values(module)):
            return "it branches on values, and takes one branch for all rows of a batch"
        return data_dependence(self._programs[0]) if self._programs else ""

    def _run(
        self, tensors: Sequence[torch.Tensor], module: PositionalModule | None = None
    ) -> list[torch.Tensor]:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            leaves = (module or self._module)(*(tensor.clone() for tensor in tensors))
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise ValidationFailedError(
                    f"the model returns a {type(leaf).__name__}, which is not a tensor",
                    hint="Return tensors only, and log the model again.",
                    kind="interface",
                )
        return list(leaves)

    def _spec(self, tensors: Sequence[torch.Tensor]) -> Any:
        with torch.no_grad():
            answer = self._module.result(*(tensor.clone() for tensor in tensors))
        return pytree.tree_structure(_without_none(answer))

    def _named(self, leaves: Sequence[torch.Tensor]) -> dict[str, Array]:
        # Clones: a model may hand out a buffer that its next run changes.
        return {
            tensor.name: leaf.detach().clone().contiguous().resolve_conj().resolve_neg().numpy()
            for tensor, leaf in zip(self.interface.outputs, leaves, strict=True)
        }


def _depends(detail: str) -> ValidationFailedError:
    return ValidationFailedError(
        "forward() takes a branch or a loop that depends on values, of which a trace would keep "
        f"one path for all: {detail}",
        hint="Write it with torch.where or torch.cond, or register torch.jit.script(model).",
        kind="convert",
    )


def _without_none(answer: Any) -> Any:
    """Drop None from the tuples and dicts that a model returns."""
    if isinstance(answer, dict):
        return {key: _without_none(value) for key, value in answer.items() if value is not None}
    if isinstance(answer, (tuple, list)):
        return tuple(_without_none(value) for value in answer if value is not None)
    return answer
