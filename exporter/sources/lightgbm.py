"""The MLflow ``lightgbm`` flavor, converted by `lightgbm_trees`."""

from __future__ import annotations

from functools import partial
from typing import Any

from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import MLModel
from exporter.sources.optional_libraries import cannot_load, load_with_mlflow, require
from exporter.sources.safe_loading import check_pickle_allowed, load_skops
from exporter.sources.sklearn import classes_of, predictor
from exporter.sources.sklearn.coverage import leaves_of
from exporter.sources.sklearn.known_values import known_of_columns
from exporter.sources.tabular.boosters import BoosterConverter
from exporter.sources.tabular.lightgbm_trees import prediction, probabilities
from exporter.sources.tabular.source import TabularSource

__all__ = ["open_source"]

_DOUBLE = 11
_PACKAGES = ("sklearn.", "lightgbm.")


def open_source(model: MLModel, *, allow_pickle: bool) -> TabularSource:
    """Open a logged LightGBM model.

    Raises:
        ValidationFailedError: It is pickled and that is not allowed, damaged, or not of tables.
        UsageError: lightgbm is not installed.
    """
    lightgbm = require("lightgbm", "a LightGBM model is run by", "lightgbm")
    flavor = model.flavors["lightgbm"]
    path = model.file(str(flavor.get("data", "model.lgb")))
    found = _load(model, path, lightgbm, allow_pickle=allow_pickle)
    plain = isinstance(found, lightgbm.Booster)
    booster = found if plain else found.booster_
    if booster.pandas_categorical:
        raise ValidationFailedError(
            "the LightGBM model was trained on a data frame with columns of pandas' categories, "
            "which no tensor is, and takes the same again",
            hint="Train it on whole numbers with categorical_feature=[...], or behind an encoder "
            "in a scikit-learn pipeline.",
            kind="signature",
        )

    def predict(x: Any) -> dict[str, Any]:
        return {"prediction": found.predict(x)}

    classes = None if plain else classes_of(found)
    add = prediction if classes is None else probabilities
    return TabularSource(
        model,
        "lightgbm",
        predict if plain else predictor(found),
        BoosterConverter(partial(add, booster=booster), _DOUBLE, classes),
        width=booster.num_feature(),
        versions={"lightgbm": lightgbm.__version__},
        has_thresholds=True,
        known=partial(known_of_columns, booster),
        exercised=partial(leaves_of, booster),
        kinds=(_DOUBLE,),
    )


def _load(model: MLModel, path: Any, lightgbm: Any, *, allow_pickle: bool) -> Any:
    if path.suffix == ".skops":
        return load_skops(path, _PACKAGES, allow_pickle=allow_pickle)
    try:
        if path.suffix != ".pkl":
            return lightgbm.Booster(model_file=str(path))
        check_pickle_allowed(path.name, "serialization_format='skops'", allow_pickle=allow_pickle)
        return load_with_mlflow("lightgbm", model.path)
    except ValidationFailedError:
        raise
    except Exception as error:
        raise cannot_load(path.name, error) from error
