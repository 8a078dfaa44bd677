"""Calculates the output widths of steps that skl2onnx gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporter.sources.sklearn.encoders import encoded_width, is_merged
from exporter.sources.sklearn.numeric_converters import imputed_columns

__all__ = ["register_shape_calculators"]


def register_shape_calculators() -> None:
    """Register the shape calculators with skl2onnx."""
    from skl2onnx.common import _registration as registered

    for name, correct in _SHAPES.items():
        fallback = registered.get_shape_calculator(f"Sklearn{name}")
        if not isinstance(fallback, _Corrected):
            registered.register_shape_calculator(
                f"Sklearn{name}", _Corrected(correct, fallback), overwrite=True
            )


class _Corrected:
    """A shape calculator with skl2onnx's own as fallback."""

    def __init__(
        self, correct: Callable[[Any, Callable[[Any], None]], None], fallback: Callable[[Any], None]
    ) -> None:
        self._correct = correct
        self._fallback = fallback

    def __call__(self, operator: Any) -> None:
        """Declare the outputs of an operator."""
        self._correct(operator, self._fallback)


def _imputer(operator: Any, fallback: Callable[[Any], None]) -> None:
    fallback(operator)
    estimator = operator.raw_operator
    width = len(imputed_columns(estimator))
    if estimator.add_indicator:
        width += len(estimator.indicator_.features_)
    operator.outputs[0].type.shape = [operator.inputs[0].get_first_dimension(), width]


def _one_hot(operator: Any, fallback: Callable[[Any], None]) -> None:
    fallback(operator)
    estimator = operator.raw_operator
    if is_merged(estimator):
        operator.outputs[0].type.shape[1] = encoded_width(estimator)


def _function(operator: Any, fallback: Callable[[Any], None]) -> None:
    if operator.raw_operator.func is None:
        fallback(operator)
        return
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    given = operator.inputs[0].type
    # NumPy computes functions of whole numbers in float64.
    kind = FloatTensorType if isinstance(given, FloatTensorType) else DoubleTensorType
    widths = [variable.get_second_dimension() for variable in operator.inputs]
    width = sum(widths) if all(isinstance(width, int) for width in widths) else None
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), width])


_SHAPES: dict[str, Callable[[Any, Callable[[Any], None]], None]] = {
    "FunctionTransformer": _function,
    "OneHotEncoder": _one_hot,
    "SimpleImputer": _imputer,
}
