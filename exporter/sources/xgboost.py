"""The MLflow ``xgboost`` flavor, converted by `xgboost_trees`."""

from __future__ import annotations

from functools import partial
from typing import Any

from exporter.sources.mlmodel import MLModel
from exporter.sources.optional_libraries import cannot_load, require
from exporter.sources.sklearn import classes_of, predictor
from exporter.sources.sklearn.coverage import leaves_of
from exporter.sources.sklearn.known_values import known_of_columns
from exporter.sources.tabular import xgboost_trees
from exporter.sources.tabular.boosters import BoosterConverter
from exporter.sources.tabular.source import TabularSource
from exporter.sources.tabular.tree_ensemble import GraphBuilder

__all__ = ["open_source"]

_FLOAT = 1
_CLASSES = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker")


def open_source(model: MLModel, *, allow_pickle: bool) -> TabularSource:  # noqa: ARG001 - its files hold no pickle
    """Open a logged XGBoost model.

    Raises:
        ValidationFailedError: It is damaged, or not of tables.
        UsageError: xgboost is not installed.
    """
    xgboost = require("xgboost", "an XGBoost model is run by", "xgboost")
    flavor = model.flavors["xgboost"]
    path = model.file(str(flavor.get("data", "model.xgb")))
    kind = str(flavor.get("model_class", "")).rpartition(".")[2]
    found: Any = getattr(xgboost, kind)() if kind in _CLASSES else xgboost.Booster()
    try:
        found.load_model(path)
    except Exception as error:
        raise cannot_load(path.name, error) from error
    plain = isinstance(found, xgboost.Booster)
    booster = found if plain else found.get_booster()

    def predict(x: Any) -> dict[str, Any]:
        return {"prediction": found.predict(xgboost.DMatrix(x))}

    classes = None if plain else classes_of(found)
    rounds = None if plain else xgboost_trees.rounds_of(found)

    def add(graph: GraphBuilder, features: str) -> str:
        if not plain:
            features = xgboost_trees.without_missing(graph, features, found)
        written = xgboost_trees.prediction if classes is None else xgboost_trees.probabilities
        return written(graph, features, booster, rounds)

    return TabularSource(
        model,
        "xgboost",
        predict if plain else predictor(found),
        BoosterConverter(add, _FLOAT, classes),
        width=booster.num_features(),
        versions={"xgboost": xgboost.__version__},
        has_thresholds=True,
        known=partial(known_of_columns, booster),
        exercised=partial(leaves_of, booster),
        kinds=(_FLOAT,),
    )
