"""What a candidate is compared with: cases with the reference's outputs, and their budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError
from exporter.interface import Interface, Tensor
from exporter.parity.compare import Difference, compare_outputs
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case, take_rows
from exporter.parity.tolerances import Tolerance

__all__ = [
    "ReferenceCase",
    "ReferenceSet",
    "cannot_be_batched",
    "cannot_stay_free",
    "first_mismatch",
]


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A case with the reference's outputs, in float64 as well where it can compute them."""

    case: Case
    outputs: Arrays
    float64: Arrays | None = None

    @property
    def name(self) -> str:
        """The case's name."""
        return self.case.name

    @property
    def inputs(self) -> Arrays:
        """The case's inputs."""
        return self.case.inputs

    def take(self, rows: slice | Array, name: str) -> ReferenceCase:
        """Return some of the rows as a case of their own."""
        case = replace(self.case, name=name, inputs=take_rows(self.inputs, rows))
        exact = self.float64 and take_rows(self.float64, rows)
        return ReferenceCase(case, take_rows(self.outputs, rows), exact)


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """What a candidate is compared with.

    Attributes:
        cases: Cases with the reference's outputs.
        batch: A large batch of distinct rows, to be split at will; None where rows do not batch.
        tolerances: The budget of every output; None where elements must be equal.
        batching: Whether rows may be batched.
        slow: Whether the reference is expensive to run.
        own_tolerances: The budgets of the model in its own precision, where those are wider.
        refused: Inputs that the reference refuses; nothing is compared on them.
    """

    cases: tuple[ReferenceCase, ...]
    batch: ReferenceCase | None
    tolerances: Mapping[str, Tolerance | None]
    batching: Batching
    slow: bool
    own_tolerances: Mapping[str, Tolerance | None] | None = None
    refused: tuple[Case, ...] = ()

    @property
    def all_cases(self) -> tuple[ReferenceCase, ...]:
        """The cases, then the large batch where there is one."""
        return self.cases if self.batch is None else (*self.cases, self.batch)

    def compare(
        self, case: ReferenceCase, found: Mapping[str, Array], outputs: tuple[Tensor, ...]
    ) -> list[Difference]:
        """Compare a candidate's outputs with those of a case."""
        return compare_outputs(outputs, case.outputs, found, self.tolerances, case.float64)

    def contradicts(self, interface: Interface) -> str:
        """Return which declared size differs from a case's; empty where none does.

        The interface has the references' names.
        """
        for case in self.all_cases:
            given = [(t, case.inputs) for t in interface.inputs]
            for tensor, arrays in (*given, *((t, case.outputs) for t in interface.outputs)):
                shape = arrays[tensor.name].shape
                if not tensor.fits(shape):
                    return (
                        f"'{tensor.name}' is declared as {list(tensor.shape)}, and is "
                        f"{list(shape)} in {case.name}"
                    )
        return ""

    def in_own_precision(self) -> ReferenceSet:
        """Return the same with the budgets of the model in its own precision."""
        own = self.own_tolerances
        return self if own is None else replace(self, tolerances=own, own_tolerances=None)

    def renamed(self, names: Mapping[str, str]) -> ReferenceSet:
        """Return the same with served names, given by the tensors' own."""
        if not names:
            return self

        def named(values: Mapping[str, Any]) -> dict[str, Any]:
            return {names.get(name, name): value for name, value in values.items()}

        def case(given: ReferenceCase) -> ReferenceCase:
            exact = given.float64 and named(given.float64)
            inputs = replace(given.case, inputs=named(given.inputs))
            return ReferenceCase(inputs, named(given.outputs), exact)

        return replace(
            self,
            cases=tuple(map(case, self.cases)),
            batch=self.batch and case(self.batch),
            tolerances=named(self.tolerances),
            own_tolerances=self.own_tolerances and named(self.own_tolerances),
        )


def first_mismatch(
    run: Callable[[Arrays], Mapping[str, Array]],
    references: ReferenceSet,
    outputs: tuple[Tensor, ...],
) -> str:
    """Run every case, and return how the first wrong output differs; empty where none does.

    What *run* raises goes to the caller.
    """
    for case in references.all_cases:
        for difference in references.compare(case, run(case.inputs), outputs):
            if difference.problem:
                return f"{case.name}, output '{difference.output}': {difference.problem}"
    return ""


def cannot_be_batched(reason: str) -> ValidationFailedError:
    """Return the error for a model that must be batched and cannot be."""
    return ValidationFailedError(
        f"the model cannot be batched: {reason}",
        hint="Export it with --batching auto to serve it unbatched, or change the model.",
        kind="batching",
    )


def cannot_stay_free(sentence: str) -> ValidationFailedError:
    """Return the error for a model that must take every size of its signature, and does not.

    *sentence* is one of `Source.frozen_axes`.
    """
    return ValidationFailedError(
        sentence.rstrip("."),
        hint="Export it with --batching auto to serve that size alone, fix the size in the "
        "signature, or change the model.",
        kind="batching",
    )
