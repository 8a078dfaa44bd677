"""Whether an answer is the registered model's: words and whole numbers exactly, others nearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

__all__ = ["Array", "Ask", "Near", "RefusedError", "check_rows", "is_right", "judged"]

Array = np.ndarray[Any, Any]
Ask = Callable[[Mapping[str, Array]], Sequence[Any]]


class RefusedError(Exception):
    """A model does not take such inputs."""


class Near(NamedTuple):
    """How far numbers may be off.

    Attributes:
        own: Relative to each number.
        largest: Relative to the largest of its output.
    """

    own: float
    largest: float


class Asked(Protocol):
    """A model with its own answers."""

    @property
    def near(self) -> Near: ...
    def rows(self, count: int) -> dict[str, Array]: ...
    def answers(self, inputs: Mapping[str, Array]) -> list[Array]: ...


def check(found: Sequence[Any], right: Sequence[Array], near: Near) -> None:
    """Compare answers, in the order of the model's outputs.

    Raises:
        AssertionError: They are not the same.
    """
    assert len(found) == len(right)
    for one, expected in zip(found, right, strict=True):
        # Triton has an axis of one element where a row's answer is one number.
        array = np.asarray(one).reshape(expected.shape)
        if expected.dtype.kind in "OUT":
            words = [w.decode() if isinstance(w, bytes) else str(w) for w in array.ravel()]
            assert words == [str(word) for word in expected.ravel()]
        elif expected.dtype.kind in "iub":
            np.testing.assert_array_equal(array, expected)
        else:
            most = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
            np.testing.assert_allclose(array, expected, rtol=near.own, atol=near.largest * most)


def check_rows(model: Asked, count: int, ask: Ask) -> None:
    """Ask a number of rows and compare with the model; what it refuses must be refused.

    Raises:
        AssertionError: The answers are not the same.
    """
    inputs = model.rows(count)
    try:
        expected = model.answers(inputs)
    except RefusedError:
        try:
            ask(inputs)
        except Exception:  # noqa: BLE001 - whatever is asked says no in its own way
            return
        raise AssertionError(f"{count} rows are answered, which the model refuses") from None
    check(ask(inputs), expected, model.near)


def is_right(model: Asked, count: int, ask: Ask) -> bool:
    """Whether a number of rows is answered as by the model."""
    try:
        check_rows(model, count, ask)
    except Exception:  # noqa: BLE001
        return False
    return True


def judged(model: Asked, count: int, ask: Ask) -> Literal["right", "wrong", "fails"]:
    """Return what becomes of a number of rows: the model's answer, another one, or an error.

    An error is right where the model refuses them.
    """
    inputs = model.rows(count)
    try:
        expected = model.answers(inputs)
    except RefusedError:
        expected = None
    try:
        found = ask(inputs)
    except Exception:  # noqa: BLE001 - what is called says no in its own way
        return "right" if expected is None else "fails"
    if expected is None:
        return "wrong"
    try:
        check(found, expected, model.near)
    except (AssertionError, ValueError):
        return "wrong"
    return "right"
