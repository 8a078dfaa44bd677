"""Finds the fewest nodes that must keep float32, with few attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.formats.precision.evaluator import Verdict

__all__ = ["SearchResult", "find_float32_nodes", "smallest_sufficient"]

# A margin for the server's ONNX Runtime and other processors, which round differently.
COMFORTABLE = 0.8


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The end of a search.

    Attributes:
        kept: The nodes that keep float32; None where no number of them is enough.
        verdict: The model's verdict with them; with none where no number is enough.
        worst: All nodes in the order in which they would be kept; empty where none has to be.
    """

    kept: tuple[str, ...] | None
    verdict: Verdict
    worst: tuple[str, ...] = ()


def find_float32_nodes(
    attempt: Callable[[Sequence[str]], Verdict],
    rank: Callable[[], Sequence[str]],
    worthwhile: Callable[[Sequence[str]], bool],
) -> SearchResult:
    """Return the nodes that have to keep float32.

    Some of the budget is left as reserve where possible.

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
    """Return the smallest number that is enough, where all above one that is are too.

    It doubles until a number is enough, then bisects: most results are small, and every attempt
    loads a model. It tries no number twice.

    Returns:
        A number from 1 to ``most``; None where ``most`` is not enough.
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
