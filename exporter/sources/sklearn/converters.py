"""Has skl2onnx write what compares exactly, wherever in a pipeline it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from exporter.errors import ValidationFailedError
from exporter.sources.sklearn.encoders import ENCODERS
from exporter.sources.sklearn.neighbors import NEIGHBOURS
from exporter.sources.sklearn.numeric_converters import NUMBERS
from exporter.sources.sklearn.operator_graph import Exact, Step
from exporter.sources.sklearn.shape_calculators import use_exact_shapes
from exporter.sources.sklearn.target_transform import use_transformed_targets
from exporter.sources.sklearn.trees import FAMILIES, fitted_trees, known_features, loss_of
from exporter.sources.tabular import lightgbm_trees, xgboost_trees
from exporter.sources.tabular.tree_ensemble import binary, cast, divided, largest, scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.sources.tabular.tree_ensemble import Sink

__all__ = ["use_exact_steps"]

_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}


def use_exact_steps() -> None:
    """Register what is written here with skl2onnx, in place of its own converters."""
    from skl2onnx.common import _registration as registered

    ours = NUMBERS | ENCODERS | NEIGHBOURS
    ours |= {f"{family}Classifier": _classifier for family in FAMILIES}
    ours |= {f"{family}Regressor": _regressor for family in FAMILIES}
    for name, convert in ours.items():
        original = registered.get_converter(f"Sklearn{name}")
        theirs = original._fct  # noqa: SLF001 - what is registered checks options at every call
        if not isinstance(theirs, Exact):
            registered.register_converter(
                f"Sklearn{name}",
                Exact(convert, theirs),
                overwrite=True,
                options=original.get_allowed_options(),
            )
    use_exact_shapes()
    use_transformed_targets()
    # An estimator of theirs has loaded them.
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


def _classifier(scope: Any, operator: Any, container: Any) -> bool:
    estimator = operator.raw_operator
    found = fitted_trees(estimator)
    if len(operator.outputs) != 2 or found is None:
        return False
    ensemble, base, count = found
    step = Step(scope, operator, container)
    sums = scores(step, known_features(step, step.features, estimator), ensemble)
    if base is None:
        probabilities = divided(step, sums, count) if count > 1 else sums
        index = largest(step, probabilities)
    else:
        sums = step.node("Add", sums, step.constant(base))
        raw = bool((container.get_options(estimator, fail=False) or {}).get("raw_scores"))
        index, probabilities = _of_sums(step, estimator, sums, raw=raw)
    step.give_class(index)
    step.give(probabilities)
    return True


def _of_sums(sink: Sink, estimator: Any, sums: str, *, raw: bool) -> tuple[str, str]:
    """Return the index of a boosted class, and probabilities or what they come from."""
    loss = loss_of(estimator)
    if loss == "HalfMultinomialLoss":
        return largest(sink, sums), sums if raw else sink.node("Softmax", sums, axis=1)
    if loss not in {"HalfBinomialLoss", "ExponentialLoss"}:
        raise ValidationFailedError(
            f"{type(estimator).__name__} with {loss} has no ONNX form",
            hint="Train it with another loss, or serve it otherwise.",
            kind="convert",
        )
    # At zero the two kinds of boosting choose different classes.
    above = "Greater" if hasattr(estimator, "_predictors") else "GreaterOrEqual"
    second = sink.node(above, sums, sink.constant(np.array([0.0])))
    flat = sink.node("Reshape", second, sink.constant(np.array([-1], np.int64)))
    index = cast(sink, flat, TensorProto.INT64)
    if raw:
        return index, sink.node("Concat", sink.node("Neg", sums), sums, axis=1)
    slope = sink.constant(np.array([2.0 if loss == "ExponentialLoss" else 1.0]))
    return index, binary(sink, sink.node("Sigmoid", sink.node("Mul", sums, slope)))


def _regressor(scope: Any, operator: Any, container: Any) -> bool:
    found = fitted_trees(operator.raw_operator)
    if len(operator.outputs) != 1 or found is None:
        return False
    ensemble, base, count = found
    step = Step(scope, operator, container)
    values = scores(step, known_features(step, step.features, operator.raw_operator), ensemble)
    if base is not None:
        values = step.node("Add", values, step.constant(base))
        if loss_of(operator.raw_operator) in {"HalfPoissonLoss", "HalfGammaLoss"}:
            values = step.node("Exp", values)
    elif count > 1:
        values = divided(step, values, count)
    step.give(values)
    return True


def _booster_classifier(scope: Any, operator: Any, container: Any) -> None:
    step = Step(scope, operator, container)
    probabilities = _boosted(step, operator.raw_operator, "probabilities")
    step.give_class(largest(step, probabilities))
    step.give(probabilities)


def _booster_regressor(scope: Any, operator: Any, container: Any) -> None:
    step = Step(scope, operator, container)
    step.give(_boosted(step, operator.raw_operator, "prediction"))


def _boosted(step: Step, estimator: Any, what: str) -> str:
    if hasattr(estimator, "get_booster"):
        features = xgboost_trees.without_missing(step, step.features, estimator)
        rounds = xgboost_trees.rounds_of(estimator)
        booster = estimator.get_booster()
        return str(getattr(xgboost_trees, what)(step, features, booster, rounds))
    return str(getattr(lightgbm_trees, what)(step, step.features, estimator.booster_))
