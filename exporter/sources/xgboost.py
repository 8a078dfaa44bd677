"""The MLflow ``xgboost`` flavor, converted by onnxmltools."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError, ValidationFailed, first_line
from exporter.sources.boosters import BoosterConverter, picked_column
from exporter.sources.sklearn import classes_of, predictor
from exporter.sources.tabular import TabularSource

if TYPE_CHECKING:
    from exporter.sources.mlmodel import MLModel

__all__ = ["open_source"]

_CLASSES = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker")


def open_source(model: MLModel, *, allow_pickle: bool) -> TabularSource:  # noqa: ARG001 - its files hold no pickle
    """Open a logged XGBoost model.

    Raises:
        ValidationFailed: It is damaged, or not of tables.
        UsageError: xgboost or onnxmltools is not installed.
    """
    try:
        import onnxmltools
        import xgboost
    except ImportError as error:
        raise UsageError(
            "an XGBoost model is run by xgboost and converted by onnxmltools, of which one is "
            "not installed",
            hint="pip install 'stlab[xgboost]'.",
        ) from error
    flavor = model.flavors["xgboost"]
    path = model.file(str(flavor.get("data", "model.xgb")))
    kind = str(flavor.get("model_class", "")).rpartition(".")[2]
    found: Any = getattr(xgboost, kind)() if kind in _CLASSES else xgboost.Booster()
    try:
        found.load_model(path)
    except Exception as error:
        raise ValidationFailed(
            f"{path.name} cannot be loaded: {first_line(error)}",
            hint="Load it where it was logged, and log it again.",
            kind="artifact",
        ) from error
    booster = found if isinstance(found, xgboost.Booster) else found.get_booster()
    width = booster.num_features()

    def predict(x: Any) -> dict[str, Any]:
        return {"prediction": found.predict(xgboost.DMatrix(x))}

    plain = isinstance(found, xgboost.Booster)
    return TabularSource(
        model,
        "xgboost",
        predict if plain else predictor(found),
        BoosterConverter(_without_names(found), onnxmltools.convert_xgboost),
        classes=None if plain else classes_of(found),
        width=width,
        versions={"xgboost": xgboost.__version__, "onnxmltools": onnxmltools.__version__},
        wide=False,
        last=plain,
        picked=picked_column(_objective(booster)) if plain else None,
    )


def _without_names(found: Any) -> Any:
    """Return a copy whose features have numbers alone, as in a graph."""
    nameless = copy.deepcopy(found)
    booster = nameless.get_booster() if hasattr(nameless, "get_booster") else nameless
    booster.feature_names, booster.feature_types = None, None
    return nameless


def _objective(booster: Any) -> str:
    config = json.loads(booster.save_config())
    return str(config["learner"]["objective"]["name"])
