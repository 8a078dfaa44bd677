"""The result of a reduction to a lower precision, and its notes and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import ValidationFailedError
from exporter.formats.precision.evaluator import Verdict

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["HEAVY", "ReducedModel", "float32_note", "precision_error"]

# They have nearly all of a model's weights and work.
HEAVY = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "GRU", "LSTM", "RNN", "Gather"}
)
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class ReducedModel:
    """A model in a lower precision."""

    model: ModelProto
    kept: tuple[str, ...]
    verdict: Verdict
    notes: tuple[str, ...] = ()


def float32_note(names: Sequence[str], reason: str) -> tuple[str, ...]:
    """Return a note on nodes that keep float32; nothing where none do."""
    if not names:
        return ()
    verb = "keeps" if len(names) == 1 else "keep"
    return (f"{_listed(names)} {verb} float32: {reason}.",)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def precision_error(
    precision: str, names: Sequence[str], verdict: Verdict | None
) -> ValidationFailedError:
    """Return the error for a model that has no useful form in a precision.

    Args:
        precision: The precision.
        names: The nodes that would have to keep float32, the worst first.
        verdict: The evaluation with none of them; None where no node can be reduced.
    """
    lower = "" if precision == "fp16" else "--precision fp16 or "
    if verdict is None:
        return ValidationFailedError(
            f"nothing in the model can be computed in {precision}",
            hint=f"Use {lower}--precision fp32.",
            kind="precision",
        )
    return ValidationFailedError(
        f"{precision} loses too much in {_listed(names)}, and nothing of weight would be left to "
        f"reduce: {verdict.problem}; the error is {verdict.margin:.3g} times its budget",
        hint=f"Use {lower}--precision fp32, or give more inputs like those of production with "
        "--samples FILE.npz.",
        kind="precision",
    )
