"""An eager or scripted torch module as reference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from exporter.arrays import Arrays
from exporter.errors import ValidationFailedError, first_line
from exporter.interface import Interface, unique_names
from exporter.sources.base import OnnxExporter, OnnxTarget
from exporter.sources.mlmodel import Field
from exporter.sources.optional_libraries import cannot_run_example
from exporter.sources.pytorch.call_convention import PositionalModule, bind_inputs
from exporter.sources.pytorch.determinism import (
    branches_on_values,
    check_deterministic,
    data_dependence,
)
from exporter.sources.pytorch.dynamic_axes import infer_dynamic_axes
from exporter.sources.pytorch.export_program import export_programs
from exporter.sources.pytorch.naming import output_names, tensors_of
from exporter.sources.pytorch.onnx_export import (
    WithPackedOutputs,
    export_by_dynamo,
    export_by_tracing,
)
from exporter.sources.pytorch.side_effects import (
    check_no_external_reads,
    check_no_rng,
    reads_values,
    rng_states,
)
from exporter.sources.pytorch.statefulness import check_first_call, check_stateless, copy_unrun
from exporter.sources.pytorch.torch_source import TorchSource

__all__ = ["ModuleSource"]


class ModuleSource(TorchSource):
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
        super().__init__()
        self.flavor = flavor
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
        with torch.no_grad():
            result = self._module.result(*(tensor.clone() for tensor in tensors))
        names = output_names(_without_none(result), promised)
        self.interface = Interface(
            tensors_of(unique_names(example, "input"), tensors, inputs),
            tensors_of(names, answer, outputs),
        )
        self._programs, self._dependent = self._export(module)
        # After the export, which names the operator.
        check_no_rng(untouched, touched)
        if copied is not None:
            again = PositionalModule(copied, list(example), self._module.convention)
            check_first_call(partial(self._run, module=again), tensors, answer)
        check_no_external_reads(lambda: self._run(tensors))
        self.batching_blocker = self._branches(module)
        served = (tensor.name for tensor in self.interface.inputs)
        self.example = dict(zip(served, example.values(), strict=True)) if given else None

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return torch's exporters, for every program of the module; see `Source`."""
        called, example = self._module, self._example
        newer = [
            partial(export_by_dynamo, program, interface=self.interface, target=target)
            for program in self._programs
        ]
        older = partial(export_by_tracing, interface=self.interface, target=target)
        traced = partial(older, *self.torchscript_module())

        def flat(path: Path) -> str:
            """Without the dicts of the script; a trace around it keeps what it decides."""
            given = tuple(tensor.clone() for tensor in example)
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):
                script = torch.jit.trace(called, given, strict=False, check_trace=False)
            return older(script, example, path)

        if isinstance(called.module, torch.jit.ScriptModule):
            return (traced, flat)
        exporters: list[OnnxExporter] = [*newer]
        if not self._dependent:  # a trace keeps one branch for all inputs
            exporters.append(traced)
            if any(isinstance(part, torch.nn.RNNBase) for part in called.modules()):
                exporters.append(partial(older, WithPackedOutputs(called), example, surplus=True))
        if called.convention == "position":
            exporters.append(lambda path: older(self._compiled(), example, path))
        return exporters

    def torchscript_module(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """Return a module that takes the inputs by position, and example inputs."""
        module = self._module.module
        if isinstance(module, torch.jit.ScriptModule) and self._module.convention != "dict":
            return module, self._example
        return self._module, self._example

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

    def _compiled(self) -> torch.jit.ScriptModule:
        """The module compiled from its source, which keeps branches and loops."""
        try:
            with warnings.catch_warnings(action="ignore"):
                return torch.jit.script(self._module.module)
        except Exception as error:
            if self._dependent:
                raise ValidationFailedError(
                    "forward() takes a branch or a loop that depends on values, of which a trace "
                    f"would keep one path for all: {self._dependent}",
                    hint="Write it with torch.where or torch.cond, or register "
                    "torch.jit.script(model).",
                    kind="convert",
                ) from error
            raise ValidationFailedError(
                f"torch.jit.script does not take forward(): {first_line(error)}",
                hint="Write what depends on values with torch.where or torch.cond.",
                kind="convert",
            ) from error


def _without_none(answer: Any) -> Any:
    """Drop None from the tuples and dicts that a model returns."""
    if isinstance(answer, dict):
        return {key: _without_none(value) for key, value in answer.items() if value is not None}
    if isinstance(answer, (tuple, list)):
        return tuple(_without_none(value) for value in answer if value is not None)
    return answer
