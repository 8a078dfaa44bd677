"""What a candidate has to answer: cases with the reference's answers, and their budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.parity.evidence import Batching
    from exporter.parity.inputs import Case
    from exporter.parity.tolerances import Tolerance
    from exporter.sources.base import Arrays

__all__ = ["Answer", "Truth", "cannot_be_batched"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A case with what the reference answers to it."""

    case: Case
    outputs: Arrays
    float64: Arrays | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What a candidate has to answer.

    Attributes:
        answers: The cases with the reference's answers.
        pool: A large batch of distinct rows, to be cut up at will; None where rows may not be.
        tolerances: The budget of every output; None where elements must be equal.
        batching: Whether rows may be batched.
        slow: Whether the reference is expensive to ask.
    """

    answers: tuple[Answer, ...]
    pool: Answer | None
    tolerances: Mapping[str, Tolerance | None]
    batching: Batching
    slow: bool


def cannot_be_batched(reason: str) -> ValidationFailed:
    """Return the error for a model that must be batched and cannot be."""
    return ValidationFailed(
        f"the model cannot be batched: {reason}",
        hint="Export it with --batching auto to serve it unbatched, or change the model.",
        kind="batching",
    )
