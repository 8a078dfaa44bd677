"""The MLflow ``sklearn`` flavor, converted by skl2onnx."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import onnx

from exporter.errors import ValidationFailedError, first_line
from exporter.sources.base import OnnxTarget
from exporter.sources.mlmodel import MLModel
from exporter.sources.onnx.string_locale import use_portable_locale
from exporter.sources.optional_libraries import cannot_load, load_with_mlflow, require
from exporter.sources.safe_loading import check_pickle_allowed, load_skops
from exporter.sources.sklearn.converters import register_converters
from exporter.sources.sklearn.coverage import leaves_of
from exporter.sources.sklearn.known_values import known_of_columns
from exporter.sources.sklearn.text_options import text_options
from exporter.sources.sklearn.trees import has_thresholds
from exporter.sources.tabular.source import TabularSource

__all__ = ["classes_of", "open_source", "predictor"]

_BY_PROBABILITY = (
    "sklearn.tree", "sklearn.ensemble._forest", "sklearn.ensemble._bagging",
    "sklearn.ensemble._gb", "sklearn.ensemble._hist", "sklearn.ensemble._weight_boosting",
    "sklearn.ensemble._voting", "sklearn.neighbors", "sklearn.naive_bayes", "sklearn.calibration",
    "xgboost.", "lightgbm.",
)  # fmt: skip
_ML_OPSET = 3  # of ai.onnx.ml: what every release from 23.05 on reads


def open_source(model: MLModel, *, allow_pickle: bool) -> TabularSource:
    """Open a logged scikit-learn estimator.

    Raises:
        ValidationFailedError: It is pickled and that is not allowed, damaged, or not of tables.
        UsageError: skl2onnx is not installed.
    """
    flavor = model.flavors["sklearn"]
    path = model.file(str(flavor.get("pickled_model", "model.pkl")))
    form = str(flavor.get("serialization_format", "pickle"))
    if form == "skops":
        estimator = load_skops(path, ("sklearn.",), allow_pickle=allow_pickle)
    else:
        check_pickle_allowed(path.name, "serialization_format='skops'", allow_pickle=allow_pickle)
        try:
            estimator = load_with_mlflow("sklearn", model.path)
        except Exception as error:
            raise cannot_load("the estimator", error) from error
    skl2onnx = require("skl2onnx", "a scikit-learn model is converted by", "sklearn")
    sklearn = require("sklearn", "a scikit-learn model is run by", "sklearn")
    fitted = _found_by_search(estimator)
    method = str(model.flavors.get("python_function", {}).get("predict_fn", "predict"))
    return TabularSource(
        model,
        f"sklearn-{form}",
        predictor(estimator, method),
        _Converter(fitted),
        classes=classes_of(fitted),
        labels=_labels_of(fitted, method),
        has_thresholds=has_thresholds(fitted),
        known=partial(known_of_columns, fitted),
        exercised=partial(leaves_of, fitted),
        width=getattr(estimator, "n_features_in_", None),
        versions={"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__},
        by_column=_uses_columns_by_name(fitted),
    )


def predictor(estimator: Any, method: str = "predict") -> Callable[[Any], dict[str, Any]]:
    """Return an estimator's own prediction: for a classifier its labels and probabilities."""
    if _is_classifier(estimator) and hasattr(estimator, "predict_proba"):
        return lambda x: {
            "label": estimator.predict(x),
            "probabilities": estimator.predict_proba(x),
        }
    call = getattr(estimator, method, None) or estimator.transform
    name = "label" if _is_classifier(estimator) else "prediction"
    return lambda x: {name: call(x)}


def classes_of(estimator: Any) -> Any:
    """Return a classifier's classes in the order of its probabilities, if it chooses by those.

    Not all do: a support vector machine's label is not always its most probable one. None for them
    and for estimators that are not known to.
    """
    if not (_is_classifier(estimator) and hasattr(estimator, "predict_proba")):
        return None
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list) or not _chooses_by_probability(estimator):
        return None
    return classes


def _labels_of(estimator: Any, method: str) -> Any:
    """Return the values that a classifier's label may have; None where it is no single label."""
    classes = getattr(estimator, "classes_", None)
    labels = _is_classifier(estimator) and method in {"predict", "predict_proba"}
    return classes if labels and not isinstance(classes, list) else None


def _chooses_by_probability(estimator: Any) -> bool:
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else getattr(estimator, "best_estimator_", estimator)
    if last is not estimator:
        return _chooses_by_probability(last)
    return type(estimator).__module__.startswith(_BY_PROBABILITY)


class _Converter:
    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def __call__(
        self, taken: Sequence[tuple[str, int, int]], target: OnnxTarget
    ) -> onnx.ModelProto:
        import skl2onnx
        from skl2onnx.common import data_types
        from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

        kinds = {
            1: data_types.FloatTensorType,
            7: data_types.Int64TensorType,
            8: data_types.StringTensorType,
            11: data_types.DoubleTensorType,
        }
        register_converters()
        estimator = _convertible(self._estimator)
        options: dict[int, dict[str, Any]] = dict(text_options(estimator))
        if _gives_maps(estimator):
            options[id(estimator)] = {"zipmap": False}
        try:
            proto = skl2onnx.convert_sklearn(
                estimator,
                name="model",
                initial_types=[(name, kinds[kind]([None, width])) for name, kind, width in taken],
                target_opset={"": target.opset, "ai.onnx.ml": _ML_OPSET},
                options=options,
            )
            use_portable_locale(proto)
        except (MissingConverter, MissingShapeCalculator) as error:
            raise ValidationFailedError(
                f"skl2onnx has no ONNX form of this estimator: {first_line(error)}",
                hint="Replace the step that it names, or serve the model in another way.",
                kind="convert",
            ) from error
        return proto


def _gives_maps(estimator: Any) -> bool:
    """Whether skl2onnx would write probabilities as maps, and has an option against it."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    if not _is_classifier(estimator):
        return False
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else estimator
    name = sklearn_operator_name_map.get(type(last))
    try:
        allowed = None if name is None else get_converter(name).get_allowed_options()
    except ValueError:
        allowed = None
    return allowed is None or "zipmap" in allowed


def _convertible(estimator: Any) -> Any:
    """Return an estimator that predicts the same and that its converter takes."""
    from sklearn.ensemble import VotingClassifier

    if not isinstance(estimator, VotingClassifier):
        return estimator
    plain = copy.copy(estimator)
    plain.flatten_transform = False  # of transform(), which is not served
    return plain


def _found_by_search(estimator: Any) -> Any:
    """Return the estimator that a search over parameters has found, which answers in its place."""
    from sklearn.model_selection._search import BaseSearchCV

    found = isinstance(estimator, BaseSearchCV) and hasattr(estimator, "best_estimator_")
    return _found_by_search(estimator.best_estimator_) if found else estimator


def _is_classifier(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(estimator))


def _uses_columns_by_name(estimator: Any) -> bool:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.pipeline import FeatureUnion, Pipeline

    if isinstance(estimator, TransformedTargetRegressor):
        return _uses_columns_by_name(estimator.regressor_)
    if isinstance(estimator, Pipeline):
        return bool(estimator.steps) and _uses_columns_by_name(estimator.steps[0][1])
    if isinstance(estimator, FeatureUnion):
        return any(_uses_columns_by_name(part) for _, part in estimator.transformer_list)
    return isinstance(estimator, ColumnTransformer)
