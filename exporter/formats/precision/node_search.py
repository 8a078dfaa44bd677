"""Finds the fewest nodes that must keep float32, with few attempts, and names them to the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from exporter.errors import ValidationFailedError
from exporter.formats.precision.evaluator import Verdict

__all__ = [
    "ReducedModel",
    "SearchResult",
    "find_float32_nodes",
    "float32_note",
    "precision_error",
    "smallest_sufficient",
]

# A margin for the server's ONNX Runtime and other processors, which round differently.
COMFORTABLE = 0.8
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class ReducedModel:
    """A model in a lower precision, and the nodes that keep float32."""

    model: ModelProto
    kept: tuple[str, ...]
    verdict: Verdict
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The nodes that keep float32 with the verdict, or None with that of a model without them.

    *worst* has all nodes in the order in which they would be kept; it is empty where none has to.
    """

    kept: tuple[str, ...] | None
    verdict: Verdict
    worst: tuple[str, ...] = ()


def find_float32_nodes(
    attempt: Callable[[Sequence[str]], Verdict],
    rank: Callable[[], Sequence[str]],
    worthwhile: Callable[[Sequence[str]], bool],
) -> SearchResult:
    """Return the nodes that have to keep float32; some of the budget is left where possible.

    Args:
        attempt: Evaluates a model in which some nodes keep float32.
        rank: Returns the nodes, the one that loses most first; called only where some have to.
        worthwhile: Whether heavy nodes are left where some keep float32.
    """
    ranking: Sequence[str] = ()
    tried: dict[int, Verdict] = {}

    def enough(number: int) -> bool:
        verdict = tried[number] = attempt(ranking[:number])
        return not verdict.problem and verdict.margin <= COMFORTABLE

    if enough(0):
        return SearchResult((), tried[0])
    ranking = tuple(rank())
    smallest_sufficient(len(ranking), enough)
    passing = [n for n in sorted(tried) if not tried[n].problem and worthwhile(ranking[:n])]
    if not passing:
        return SearchResult(None, tried[0], ranking)
    comfortable = [number for number in passing if tried[number].margin <= COMFORTABLE]
    number = (comfortable or passing)[0]
    return SearchResult(ranking[:number], tried[number], ranking)


def smallest_sufficient(most: int, enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number from 1 to *most* that is enough, as all above it are, or None.

    It doubles until a number is enough, then bisects: most results are small, and every attempt
    loads a model. It tries no number twice.
    """
    if most < 1:
        return None
    short, long = 0, 1
    while not enough(long):
        if long == most:
            return None
        short, long = long, min(2 * long, most)
    while long - short > 1:
        middle = (short + long) // 2
        if enough(middle):
            long = middle
        else:
            short = middle
    return long


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

    *names* are the nodes that would have to keep float32, the worst first; *verdict* is that with
    none of them, or None where no node can be reduced.
    """
    if verdict is None:
        message, more = f"nothing in the model can be computed in {precision}", ""
    else:
        message = (
            f"{precision} loses too much in {_listed(names)}, and nothing of weight would be left "
            f"to reduce: {verdict.problem}; the error is {verdict.margin:.3g} times its budget"
        )
        more = ", or give more inputs like those of production with --samples FILE.npz"
    lower = "" if precision == "fp16" else "--precision fp16 or "
    return ValidationFailedError(
        message, hint=f"Use {lower}--precision fp32{more}.", kind="precision"
    )
