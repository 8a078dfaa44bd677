"""What the sources of torch models have in common: a module is run, in float32 and in float64."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError, first_line
from exporter.interface import Interface
from exporter.sources.base import InputRejectedError
from exporter.sources.known_values import Knowledge
from exporter.sources.mlmodel import MLModel, frozen_axes
from exporter.sources.pytorch.coverage import ends_of_embeddings, exercised_by
from exporter.sources.pytorch.export_program import arguments_of, sizes_beyond
from exporter.sources.pytorch.operators import operators_of

__all__ = ["TorchSource"]


class TorchSource:
    """A torch module as reference, with the programs that torch has made of it."""

    interface: Interface
    has_thresholds = False
    _module: torch.nn.Module
    _programs: Sequence[ExportedProgram]

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.frozen_axes: Sequence[str] = ()
        self.versions: Mapping[str, str] = {"torch": torch.__version__.partition("+")[0]}

    @cached_property
    def operators(self) -> frozenset[str]:
        """The operators of the program, or else of the script; see `Source`."""
        return operators_of(self._programs[0] if self._programs else self._module)

    @property
    def sizes_beyond(self) -> Mapping[str, Sequence[int]]:
        """The sizes next to the range that torch proved the program for; see `Source`."""
        return sizes_beyond(self._programs[0], self.interface.inputs) if self._programs else {}

    @cached_property
    def knowledge(self) -> Knowledge:
        """The ends of its embeddings, and which of its units are on and off; see `Source`."""
        if not self._programs:
            return Knowledge()
        program, inputs = self._programs[0], self.interface.inputs
        exercised = partial(exercised_by, program, self._tensors)
        return Knowledge(ends_of_embeddings(program, inputs), exercised=exercised)

    def note_frozen_axes(self, model: MLModel, reason: str) -> None:
        """Note the axes that the signature of a logged model leaves free and the module fixes."""
        self.frozen_axes = frozen_axes(model, self.interface.inputs, reason)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the module's outputs; see `Source.run`."""
        try:
            return self._named(self._run(self._tensors(inputs)))
        except Exception as error:  # guards and operators raise errors of every kind
            raise InputRejectedError(first_line(error)) from error

    def run_float64(self, inputs: Arrays) -> dict[str, Array] | None:
        """Return the outputs in float64; see `Source.run_float64`."""
        tensors = self._tensors(inputs)
        try:
            with torch.no_grad():
                if self._programs:
                    return self._named(_run_in_float64(self._programs[0], tensors))
                return self._named(copy.deepcopy(self._module).double()(*map(_widen, tensors)))
        except Exception:  # noqa: BLE001 - whatever an operator raises that has no float64 form
            return None

    def _tensors(self, inputs: Arrays) -> list[torch.Tensor]:
        return [torch.tensor(inputs[tensor.name]) for tensor in self.interface.inputs]

    def _run(
        self, tensors: Sequence[torch.Tensor], module: torch.nn.Module | None = None
    ) -> list[torch.Tensor]:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            # Copies: a model may write into its arguments.
            answer = (module or self._module)(*(tensor.clone() for tensor in tensors))
        leaves: list[Any] = pytree.tree_leaves(answer)
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise ValidationFailedError(
                    f"the model returns a {type(leaf).__name__}, which is not a tensor",
                    hint="Return tensors only, and log the model again.",
                    kind="interface",
                )
        return leaves

    def _named(self, answer: Any) -> dict[str, Array]:
        # Clones: a model may hand out a buffer that its next run changes.
        return {
            tensor.name: leaf.detach().clone().contiguous().resolve_conj().resolve_neg().numpy()
            for tensor, leaf in zip(self.interface.outputs, pytree.tree_leaves(answer), strict=True)
        }


def _run_in_float64(program: ExportedProgram, inputs: Sequence[torch.Tensor]) -> Any:
    """Run a program with every float32 number replaced by a float64 one.

    Weights are widened where they are used and dropped again, so the extra memory is that of the
    largest layer. Casts to half precision stay: they belong to the model.
    """
    return _Widening(program.graph_module).run(*arguments_of(program, inputs))


class _Widening(Interpreter):  # type: ignore[misc]
    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.ops.aten.embedding.default:
            # A look-up rounds nothing: widen the rows found, not the whole table.
            return _widen(super().call_function(target, args, kwargs))
        return super().call_function(target, *pytree.tree_map(_widen, (args, kwargs)))


def _widen(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype is torch.float32:
        return value.double()
    return torch.float64 if value is torch.float32 else value
