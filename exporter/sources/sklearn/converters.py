"""Registers converters with exact comparisons with skl2onnx, for use anywhere in a pipeline."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from exporter.errors import ValidationFailedError
from exporter.sources.sklearn.encoders import ENCODERS
from exporter.sources.sklearn.neighbors import NEIGHBOURS
from exporter.sources.sklearn.numeric_converters import NUMBERS
from exporter.sources.sklearn.operator_graph import FallbackConverter, OperatorGraph
from exporter.sources.sklearn.shape_calculators import register_shape_calculators
from exporter.sources.sklearn.target_transform import register_target_transform
from exporter.sources.sklearn.trees import FAMILIES, fitted_trees, known_features, loss_of
from exporter.sources.tabular import lightgbm_trees, xgboost_trees
from exporter.sources.tabular.tree_ensemble import (
    GraphBuilder,
    argmax,
    binary,
    cast,
    divided,
    scores,
)

__all__ = ["register_converters"]

_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}


def register_converters() -> None:
    """Register the converters of this package in place of skl2onnx's own."""
    from skl2onnx.common import _registration as registered

    converters = NUMBERS | ENCODERS | NEIGHBOURS
    converters |= {f"{family}Classifier": _classifier for family in FAMILIES}
    converters |= {f"{family}Regressor": _regressor for family in FAMILIES}
    for name, convert in converters.items():
        original = registered.get_converter(f"Sklearn{name}")
        fallback = original._fct  # noqa: SLF001 - what is registered checks options at every call
        if not isinstance(fallback, FallbackConverter):
            registered.register_converter(
                f"Sklearn{name}",
                FallbackConverter(convert, fallback),
                overwrite=True,
                options=original.get_allowed_options(),
            )
    register_shape_calculators()
    register_target_transform()
    # An estimator of these libraries has imported them.
    for library, start in (("xgboost", "XGB"), ("lightgbm", "LGBM")):
        if library in sys.modules:
            _use_booster(f"{start}Classifier", sys.modules[library], _booster_classifier)
            _use_booster(f"{start}Regressor", sys.modules[library], _booster_regressor)


def _use_booster(name: str, library: Any, convert: Callable[..., None]) -> None:
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    classifier = name.endswith("Classifier")
    update_registered_converter(
        getattr(library, name),
        f"Exact{name}",
        shapes.calculate_linear_classifier_output_shapes
        if classifier
        else shapes.calculate_linear_regressor_output_shapes,
        convert,
        options=_OPTIONS if classifier else None,
    )


def _classifier(graph: OperatorGraph, estimator: Any) -> bool:
    found = fitted_trees(estimator)
    if len(graph.outputs) != 2 or found is None:
        return False
    ensemble, base, count = found
    sums = scores(graph, known_features(graph, graph.features, estimator), ensemble)
    if base is None:
        probabilities = divided(graph, sums, count) if count > 1 else sums
        index = argmax(graph, probabilities)
    else:
        sums = graph.node("Add", sums, graph.constant(base))
        raw = bool(graph.options.get("raw_scores"))
        index, probabilities = _of_sums(graph, estimator, sums, raw=raw)
    graph.set_classes(index)
    graph.set_output(probabilities)
    return True


def _of_sums(graph: GraphBuilder, estimator: Any, sums: str, *, raw: bool) -> tuple[str, str]:
    """Return the index of a boosted class, and probabilities or what they come from."""
    loss = loss_of(estimator)
    if loss == "HalfMultinomialLoss":
        return argmax(graph, sums), sums if raw else graph.node("Softmax", sums, axis=1)
    if loss not in {"HalfBinomialLoss", "ExponentialLoss"}:
        raise ValidationFailedError(
            f"{type(estimator).__name__} with {loss} has no ONNX form",
            hint="Train it with another loss, or serve it in another way.",
            kind="convert",
        )
    # At zero the two kinds of boosting choose different classes.
    above = "Greater" if hasattr(estimator, "_predictors") else "GreaterOrEqual"
    second = graph.node(above, sums, graph.constant(np.array([0.0])))
    flat = graph.node("Reshape", second, graph.constant(np.array([-1], np.int64)))
    index = cast(graph, flat, TensorProto.INT64)
    if raw:
        return index, graph.node("Concat", graph.node("Neg", sums), sums, axis=1)
    slope = graph.constant(np.array([2.0 if loss == "ExponentialLoss" else 1.0]))
    return index, binary(graph, graph.node("Sigmoid", graph.node("Mul", sums, slope)))


def _regressor(graph: OperatorGraph, estimator: Any) -> bool:
    found = fitted_trees(estimator)
    if len(graph.outputs) != 1 or found is None:
        return False
    ensemble, base, count = found
    values = scores(graph, known_features(graph, graph.features, estimator), ensemble)
    if base is not None:
        values = graph.node("Add", values, graph.constant(base))
        if loss_of(estimator) in {"HalfPoissonLoss", "HalfGammaLoss"}:
            values = graph.node("Exp", values)
    elif count > 1:
        values = divided(graph, values, count)
    graph.set_output(values)
    return True


def _booster_classifier(scope: Any, operator: Any, container: Any) -> None:
    graph = OperatorGraph(scope, operator, container)
    probabilities = _boosted(graph, operator.raw_operator, "probabilities")
    graph.set_classes(argmax(graph, probabilities))
    graph.set_output(probabilities)


def _booster_regressor(scope: Any, operator: Any, container: Any) -> None:
    graph = OperatorGraph(scope, operator, container)
    graph.set_output(_boosted(graph, operator.raw_operator, "prediction"))


def _boosted(graph: OperatorGraph, estimator: Any, what: str) -> str:
    if hasattr(estimator, "get_booster"):
        features = xgboost_trees.without_missing(graph, graph.features, estimator)
        rounds = xgboost_trees.rounds_of(estimator)
        booster = estimator.get_booster()
        return str(getattr(xgboost_trees, what)(graph, features, booster, rounds))
    return str(getattr(lightgbm_trees, what)(graph, graph.features, estimator.booster_))
