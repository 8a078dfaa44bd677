"""What a candidate has to answer: cases with the reference's answers, and their budgets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporter.errors import ValidationFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.arrays import Arrays
    from exporter.parity.evidence import Batching
    from exporter.parity.input_generator import Case
    from exporter.parity.tolerances import Tolerance

__all__ = ["ReferenceCase", "ReferenceSet", "cannot_be_batched"]


@dataclass(frozen=True, slots=True)
class ReferenceCase:
    """A case with what the reference answers to it."""

    case: Case
    outputs: Arrays
    float64: Arrays | None = None


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """What a candidate has to answer.

    Attributes:
        cases: The cases with the reference's answers.
        batch: A large batch of distinct rows, to be cut up at will; None where rows may not be.
        tolerances: The budget of every output; None where elements must be equal.
        batching: Whether rows may be batched.
        slow: Whether the reference is expensive to ask.
        own_tolerances: The budgets of the model in its own precision, where those are wider.
    """

    cases: tuple[ReferenceCase, ...]
    batch: ReferenceCase | None
    tolerances: Mapping[str, Tolerance | None]
    batching: Batching
    slow: bool
    own_tolerances: Mapping[str, Tolerance | None] | None = None

    def in_own_precision(self) -> ReferenceSet:
        """Return the same with the budgets of the model in its own precision."""
        own = self.own_tolerances
        return self if own is None else replace(self, tolerances=own, own_tolerances=None)

    def renamed(self, names: Mapping[str, str]) -> ReferenceSet:
        """Return the same under the names that tensors are served by.

        Args:
            names: The new name of every tensor that has one.
        """
        if not names:
            return self

        def named(values: Mapping[str, Any]) -> dict[str, Any]:
            return {names.get(name, name): value for name, value in values.items()}

        def answer(given: ReferenceCase) -> ReferenceCase:
            exact = None if given.float64 is None else named(given.float64)
            case = replace(given.case, inputs=named(given.case.inputs))
            return ReferenceCase(case, named(given.outputs), exact)

        return replace(
            self,
            cases=tuple(map(answer, self.cases)),
            batch=None if self.batch is None else answer(self.batch),
            tolerances=named(self.tolerances),
            own_tolerances=None if self.own_tolerances is None else named(self.own_tolerances),
        )


def cannot_be_batched(reason: str) -> ValidationFailedError:
    """Return the error for a model that must be batched and cannot be."""
    return ValidationFailedError(
        f"the model cannot be batched: {reason}",
        hint="Export it with --batching auto to serve it unbatched, or change the model.",
        kind="batching",
    )
