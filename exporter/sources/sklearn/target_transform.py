"""Converts regressors of a transformed target: their output, and the inverse transform."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from exporter.errors import ValidationFailedError
from exporter.sources.sklearn.numeric_converters import SCALERS, operations
from exporter.sources.sklearn.operator_graph import OperatorGraph
from exporter.sources.sklearn.ufuncs import applied
from exporter.sources.tabular.tree_ensemble import GraphBuilder

__all__ = ["register_target_transform"]

_BACK = {"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul"}


def register_target_transform() -> None:
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
    graph = OperatorGraph(scope, operator, container)
    dtype = helper.tensor_dtype_to_np_dtype(graph.kind())
    graph.set_output(_turned_back(graph, operator.raw_operator.transformer_, graph.features, dtype))


def _turned_back(graph: GraphBuilder, transformer: Any, values: str, dtype: Any) -> str:
    kind = type(transformer).__name__
    if kind == "FunctionTransformer" and not transformer.inv_kw_args:
        return applied(graph, transformer.inverse_func, values, dtype)
    if kind not in SCALERS:
        raise ValidationFailedError(
            f"a regressor's target is transformed by {kind}, whose inverse has no ONNX form",
            hint="Transform it by a scaler, or by functions of NumPy such as log1p and expm1.",
            kind="convert",
        )
    for name, constant in reversed(operations(transformer)):
        values = graph.node(_BACK[name], values, graph.constant(np.asarray(constant, dtype)))
    return values
