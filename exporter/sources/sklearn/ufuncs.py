"""NumPy's functions of one number as nodes of a graph, for what scikit-learn applies them to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ValidationFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.sources.tabular.tree_ensemble import Sink

__all__ = ["applied"]


def applied(sink: Sink, function: Any, values: str, dtype: Any) -> str:
    """Add a function that a transformer was given; None is the identity.

    Args:
        sink: Where to add it.
        function: The function.
        values: Floating-point numbers.
        dtype: Their dtype.

    Raises:
        ValidationFailedError: It is none of those that are known here.
    """
    if function is None:
        return values
    known = isinstance(function, np.ufunc) and getattr(np, function.__name__, None) is function
    form = _FORMS.get(function.__name__) if known else None
    if form is None:
        name = getattr(function, "__name__", type(function).__name__)
        raise ValidationFailedError(
            f"a transformer applies the function '{name}', which has no ONNX form",
            hint=f"Apply one of NumPy's own: {', '.join(sorted(_FORMS))}.",
            kind="convert",
        )
    return form(sink, values, dtype)


def _node(kind: str) -> Callable[[Sink, str, Any], str]:
    def form(sink: Sink, values: str, _dtype: Any) -> str:
        return sink.node(kind, values)

    return form


def _log(base: float) -> Callable[[Sink, str, Any], str]:
    def form(sink: Sink, values: str, dtype: Any) -> str:
        return sink.node("Div", sink.node("Log", values), _number(sink, np.log(base), dtype))

    return form


def _square(sink: Sink, values: str, _dtype: Any) -> str:
    return sink.node("Mul", values, values)


def _log1p(sink: Sink, values: str, dtype: Any) -> str:
    """Correct what 1 + x has rounded off: log(u) * x / (u - 1), which is right for small x too."""
    one = _number(sink, 1, dtype)
    more = sink.node("Add", values, one)
    plain = sink.node("Log", more)
    factor = sink.node("Div", values, sink.node("Sub", more, one))
    good = sink.node("Mul", plain, factor)
    good = sink.node("Where", sink.node("Equal", more, one), values, good)
    return sink.node("Where", sink.node("IsInf", more), plain, good)


def _expm1(sink: Sink, values: str, dtype: Any) -> str:
    """Correct what exp(x) has rounded off: (u - 1) * x / log(u), likewise."""
    one = _number(sink, 1, dtype)
    power = sink.node("Exp", values)
    less = sink.node("Sub", power, one)
    good = sink.node("Mul", less, sink.node("Div", values, sink.node("Log", power)))
    good = sink.node("Where", sink.node("Equal", power, one), values, good)
    # Where nothing is left of the power, or it is beyond all numbers.
    far = sink.node("Or", sink.node("Equal", less, _number(sink, -1, dtype)),
                    sink.node("IsInf", power))  # fmt: skip
    return sink.node("Where", far, less, good)


def _number(sink: Sink, value: float, dtype: Any) -> str:
    return sink.constant(np.array([value], dtype))


_FORMS: dict[str, Callable[[Sink, str, Any], str]] = {
    "absolute": _node("Abs"),
    "exp": _node("Exp"),
    "expm1": _expm1,
    "log": _node("Log"),
    "log10": _log(10),
    "log1p": _log1p,
    "log2": _log(2),
    "negative": _node("Neg"),
    "reciprocal": _node("Reciprocal"),
    "sqrt": _node("Sqrt"),
    "square": _square,
}
