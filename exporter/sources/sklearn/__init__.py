"""The MLflow ``sklearn`` flavor, converted by skl2onnx."""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError, ValidationFailedError, first_line
from exporter.sources.safe_loading import check_pickle_allowed, load_skops
from exporter.sources.sklearn.converters import register_converters
from exporter.sources.sklearn.trees import has_thresholds
from exporter.sources.tabular.source import TabularSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

    from exporter.sources.base import OnnxTarget
    from exporter.sources.mlmodel import MLModel

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
        estimator = _unpickled(model)
    try:
        import skl2onnx
        import sklearn
    except ImportError as error:
        raise UsageError(
            "a scikit-learn model is converted by skl2onnx, which is not installed",
            hint="pip install 'stlab[sklearn]'.",
        ) from error

    fitted = _found_by_search(estimator)
    asked = str(model.flavors.get("python_function", {}).get("predict_fn", "predict"))
    return TabularSource(
        model,
        f"sklearn-{form}",
        predictor(estimator, asked),
        _Converter(fitted),
        classes=classes_of(fitted),
        has_thresholds=has_thresholds(fitted),
        width=getattr(estimator, "n_features_in_", None),
        versions={"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__},
        by_column=_tells_columns_apart(fitted),
    )


def predictor(estimator: Any, asked: str = "predict") -> Callable[[Any], dict[str, Any]]:
    """Return an estimator's own prediction: for a classifier its labels and probabilities.

    Args:
        estimator: It has ``predict``, or ``transform`` alone.
        asked: The method that MLflow calls, which is the one with what it gives.
    """
    if _is_classifier(estimator) and hasattr(estimator, "predict_proba"):
        return lambda x: {
            "label": estimator.predict(x),
            "probabilities": estimator.predict_proba(x),
        }
    method = getattr(estimator, asked, None) or estimator.transform
    name = "label" if _is_classifier(estimator) else "prediction"
    return lambda x: {name: method(x)}


def classes_of(estimator: Any) -> Any:
    """Return a classifier's classes in the order of its probabilities, if it chooses by those.

    Not all do: a support vector machine's label is not always its most probable one. None for them,
    and for all others that are not known to.
    """
    if not (_is_classifier(estimator) and hasattr(estimator, "predict_proba")):
        return None
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list) or not _chosen_by_probability(estimator):
        return None
    return classes


def _chosen_by_probability(estimator: Any) -> bool:
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else getattr(estimator, "best_estimator_", estimator)
    if last is not estimator:
        return _chosen_by_probability(last)
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
        options = {id(estimator): {"zipmap": False}} if _gives_maps(estimator) else {}
        try:
            proto = skl2onnx.convert_sklearn(
                estimator,
                name="model",
                initial_types=[(name, kinds[kind]([None, width])) for name, kind, width in taken],
                target_opset={"": target.opset, "ai.onnx.ml": _ML_OPSET},
                options=options,
            )
            _spell_as_servers_do(proto)
        except (MissingConverter, MissingShapeCalculator) as error:
            raise ValidationFailedError(
                f"skl2onnx has no ONNX form of this estimator: {first_line(error)}",
                hint="Replace the step that it names, or serve the model otherwise.",
                kind="convert",
            ) from error
        return proto


def _gives_maps(estimator: Any) -> bool:
    """Whether skl2onnx would write probabilities as maps, and can be told not to."""
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


def _spell_as_servers_do(proto: onnx.ModelProto) -> None:
    """Lower letters by a locale that is on every system, where the default is en_US."""
    from onnx import helper

    for node in proto.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("locale", "C.UTF-8")])


def _convertible(estimator: Any) -> Any:
    """Return an estimator that predicts the same and that its converter takes."""
    from sklearn.ensemble import VotingClassifier

    if not isinstance(estimator, VotingClassifier):
        return estimator
    plain = copy.copy(estimator)
    plain.flatten_transform = False  # for transform(), which nobody asks
    return plain


def _found_by_search(estimator: Any) -> Any:
    """Return the estimator that a search over parameters has found, which answers in its place."""
    from sklearn.model_selection._search import BaseSearchCV

    found = isinstance(estimator, BaseSearchCV) and hasattr(estimator, "best_estimator_")
    return _found_by_search(estimator.best_estimator_) if found else estimator


def _is_classifier(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(estimator))


def _tells_columns_apart(estimator: Any) -> bool:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.pipeline import FeatureUnion, Pipeline

    if isinstance(estimator, TransformedTargetRegressor):
        return _tells_columns_apart(estimator.regressor_)
    if isinstance(estimator, Pipeline):
        return bool(estimator.steps) and _tells_columns_apart(estimator.steps[0][1])
    if isinstance(estimator, FeatureUnion):
        return any(_tells_columns_apart(part) for _, part in estimator.transformer_list)
    return isinstance(estimator, ColumnTransformer)


def _unpickled(model: MLModel) -> Any:
    import os

    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    loader = importlib.import_module("mlflow.sklearn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return loader.load_model(str(model.path))
        except Exception as error:
            raise ValidationFailedError(
                f"the estimator cannot be loaded: {first_line(error)}",
                hint="Load it where it was logged, and log it again.",
                kind="artifact",
            ) from error
