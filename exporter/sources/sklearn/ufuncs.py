"""Converts NumPy's functions of one number, which scikit-learn's transformers apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.errors import ValidationFailedError
from exporter.sources.tabular.tree_ensemble import GraphBuilder

__all__ = ["applied"]


def applied(graph: GraphBuilder, function: Any, values: str, dtype: Any) -> str:
    """Add a transformer's function of floating-point numbers; None is the identity.

    Raises:
        ValidationFailedError: The function has no known ONNX form.
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
    return form(graph, values, dtype)


def _node(kind: str) -> Callable[[GraphBuilder, str, Any], str]:
    def form(graph: GraphBuilder, values: str, _dtype: Any) -> str:
        return graph.node(kind, values)

    return form


def _log(base: float) -> Callable[[GraphBuilder, str, Any], str]:
    def form(graph: GraphBuilder, values: str, dtype: Any) -> str:
        return graph.node("Div", graph.node("Log", values), _number(graph, np.log(base), dtype))

    return form


def _square(graph: GraphBuilder, values: str, _dtype: Any) -> str:
    return graph.node("Mul", values, values)


def _log1p(graph: GraphBuilder, values: str, dtype: Any) -> str:
    """Correct what 1 + x has rounded off: log(u) * x / (u - 1), which is right for small x too."""
    one = _number(graph, 1, dtype)
    more = graph.node("Add", values, one)
    plain = graph.node("Log", more)
    factor = graph.node("Div", values, graph.node("Sub", more, one))
    good = graph.node("Mul", plain, factor)
    good = graph.node("Where", graph.node("Equal", more, one), values, good)
    return graph.node("Where", graph.node("IsInf", more), plain, good)


def _expm1(graph: GraphBuilder, values: str, dtype: Any) -> str:
    """Correct what exp(x) has rounded off: (u - 1) * x / log(u)."""
    one = _number(graph, 1, dtype)
    power = graph.node("Exp", values)
    less = graph.node("Sub", power, one)
    good = graph.node("Mul", less, graph.node("Div", values, graph.node("Log", power)))
    good = graph.node("Where", graph.node("Equal", power, one), values, good)
    # Where nothing is left of the power, or it is beyond all numbers.
    far = graph.node("Or", graph.node("Equal", less, _number(graph, -1, dtype)),
                    graph.node("IsInf", power))  # fmt: skip
    return graph.node("Where", far, less, good)


def _number(graph: GraphBuilder, value: float, dtype: Any) -> str:
    return graph.constant(np.array([value], dtype))


_FORMS: dict[str, Callable[[GraphBuilder, str, Any], str]] = {
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
