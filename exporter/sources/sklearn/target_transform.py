"""Regressors of a transformed target: their own answer, and what turns it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from exporter.errors import ValidationFailedError
from exporter.sources.sklearn.numeric_converters import SCALERS, operations
from exporter.sources.sklearn.operator_graph import Step
from exporter.sources.sklearn.ufuncs import applied

if TYPE_CHECKING:
    from exporter.sources.tabular.tree_ensemble import Sink

__all__ = ["use_transformed_targets"]

_BACK = {"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul"}


def use_transformed_targets() -> None:
    """Register the estimator with skl2onnx, which does not know it."""
    from skl2onnx import update_registered_converter
    from sklearn.compose import TransformedTargetRegressor

    update_registered_converter(
        TransformedTargetRegressor, "ExactTransformedTarget", _shape, _convert, parser=_parse
    )


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    from skl2onnx import _parse as parsing

    operator = scope.declare_local_operator("ExactTransformedTarget", model)
    answer = parsing._parse_sklearn(scope, model.regressor_, inputs, custom_parsers)  # noqa: SLF001
    operator.inputs.append(answer[0])
    operator.outputs.append(scope.declare_local_variable("variable", answer[0].type))
    return operator.outputs


def _shape(operator: Any) -> None:
    operator.outputs[0].type = operator.inputs[0].type


def _convert(scope: Any, operator: Any, container: Any) -> None:
    step = Step(scope, operator, container)
    dtype = helper.tensor_dtype_to_np_dtype(step.kind())
    step.give(_turned_back(step, operator.raw_operator.transformer_, step.features, dtype))


def _turned_back(sink: Sink, transformer: Any, values: str, dtype: Any) -> str:
    kind = type(transformer).__name__
    if kind == "FunctionTransformer" and not transformer.inv_kw_args:
        return applied(sink, transformer.inverse_func, values, dtype)
    if kind not in SCALERS:
        raise ValidationFailedError(
            f"a regressor's target is transformed by {kind}, whose inverse has no ONNX form",
            hint="Transform it by a scaler, or by functions of NumPy such as log1p and expm1.",
            kind="convert",
        )
    for name, constant in reversed(operations(transformer)):
        values = sink.node(_BACK[name], values, sink.constant(np.asarray(constant, dtype)))
    return values
