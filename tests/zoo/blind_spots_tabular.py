"""Estimators of tables, of which the logged example has no row on which converters go wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes it importable
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from .comparing import Array
from .tabular import DIMES, HOLES, KIND, SUM, WORD, Estimator, of_categories

__all__ = ["TABLES"]

_RANDOM = np.random.default_rng(17)
_WHOLE = HOLES[~np.isnan(HOLES).any(1)]
_CODES = _RANDOM.integers(0, 5, (300, 2)).astype(float)
_CODES_WITH_HOLES = np.where(_RANDOM.random(_CODES.shape) < 0.1, np.nan, _CODES)
_CODED = _CODES @ np.array([1.0, -2.0]) + (_CODES[:, 0] == 3) * 4
_RARE = np.where(_RANDOM.random((300, 2)) < 0.03, 9.0, _CODES)
_TABLE_999 = np.where(np.isnan(HOLES), -999.0, HOLES)
_WITH_KIND = np.column_stack([DIMES, KIND])

Fresh = Callable[[int], Any]


def _cycled(*rows: Any) -> Fresh:
    """Return what makes any number of rows of these, again and again."""
    return lambda count: np.array([rows[place % len(rows)] for place in range(count)], float)


_NAN = np.nan
_MISSING = _cycled([_NAN, 1.2, 3.4], [5.1, _NAN, _NAN], [_NAN, _NAN, _NAN], [2.5, 7.7, _NAN])
_MISSING_CODES = _cycled([_NAN, 2], [1, _NAN], [_NAN, _NAN], [3, 4])
_UNKNOWN_CODES = _cycled([7, 2], [1, -3], [2.5, 9], [3, 4])
_BEYOND = _cycled([-4, 1, 20], [30, -10, 5], [10.1, -0.1, 1000], [-500, 11, 9.9])


def _passengers(count: int, random: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": random.integers(1, 80, count).astype(float),
            "fare": np.round(random.uniform(5, 90, count), 2),
            "sex": random.choice(["female", "male"], count),
            "port": random.choice(["Cherbourg", "Queenstown", "Southampton"], count),
        }
    )


_PASSENGERS = _passengers(300, _RANDOM)
_SURVIVED = ((_PASSENGERS["sex"] == "female") | (_PASSENGERS["age"] < 12)).astype(int)


def _other_passengers(count: int) -> pd.DataFrame:
    """Return passengers without an age, with ports and spellings that no training showed."""
    made = _passengers(count, np.random.default_rng(count))
    made.loc[made.index % 2 == 0, "age"] = np.nan
    made["port"] = np.resize(["Málaga", "", "Cherbourg ", "southampton", "Queenstown"], count)
    made["sex"] = np.resize(["Female", "male", "", "female"], count)
    return made


def _of_passengers(encoder: Any) -> Callable[[], Pipeline]:
    def make() -> Pipeline:
        with_holes = _PASSENGERS.copy()
        with_holes.loc[with_holes.index % 7 == 0, "age"] = np.nan
        numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        columns = ColumnTransformer(
            [("numbers", numbers, ["age", "fare"]), ("words", encoder, ["sex", "port"])]
        )
        return Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(
            with_holes, _SURVIVED
        )

    return make


def _piped(*steps: Any, x: Array = DIMES, y: Array = SUM) -> Callable[[], Pipeline]:
    return lambda: make_pipeline(*steps).fit(x, y)


def _edges() -> Fresh:
    """Return the edges of the bins, and what is nearest to them."""
    edges = np.array(KBinsDiscretizer(5, encode="ordinal", strategy="uniform").fit(DIMES).bin_edges_
                     .tolist()).T  # fmt: skip
    return _cycled(*edges, *np.nextafter(edges, -1), *np.nextafter(edges, 99), [-1, 11, 50])


def _fresh_999(count: int) -> Array:
    return np.nan_to_num(_MISSING(count), nan=-999.0)


def _boosted_999() -> xgboost.XGBRegressor:
    """Take -999 for what is missing."""
    return xgboost.XGBRegressor(n_estimators=20, missing=-999).fit(_TABLE_999, SUM)


def _logged_999() -> Any:
    """Return the same as its flavor gives it back, which takes -999 for a number."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.xgboost.save_model(_boosted_999(), f"{folder}/model", pip_requirements=[])
        return mlflow.xgboost.load_model(f"{folder}/model")


def _sk(name: str, make: Callable[[], Any], example: Any, fresh: Fresh, **more: Any) -> Estimator:
    return Estimator(name, make, table=example, fresh=fresh, form="cloudpickle", **more)


TABLES: tuple[Estimator, ...] = (
    # Missing values.
    _sk("ordinal-missing",
        _piped(OrdinalEncoder(encoded_missing_value=-2), Ridge(), x=_CODES_WITH_HOLES, y=_CODED),
        _CODES, _MISSING_CODES, refused="output"),
    _sk("power-missing",
        _piped(PowerTransformer(), SimpleImputer(), Ridge(), x=HOLES), _WHOLE, _MISSING,
        refused="output"),
    _sk("power-box-cox-missing",
        _piped(PowerTransformer("box-cox"), SimpleImputer(), Ridge(), x=HOLES + 1), _WHOLE + 1,
        _MISSING),
    _sk("hist-boosting-missing", lambda: HistGradientBoostingRegressor(max_iter=20).fit(HOLES, SUM),
        _WHOLE, _MISSING),
    _sk("hist-boosting-never-missing",
        lambda: HistGradientBoostingClassifier(max_iter=9).fit(DIMES, WORD), DIMES, _MISSING),
    _sk("neighbours-imputed", _piped(KNNImputer(n_neighbors=3), Ridge(), x=HOLES), _WHOLE,
        _cycled([_NAN, 1.2, 3.4], [5.1, _NAN, _NAN], [2.5, 7.7, _NAN])),
    _sk("iteratively-imputed",
        _piped(IterativeImputer(random_state=0, max_iter=3), Ridge(), x=HOLES), _WHOLE, _MISSING),
    _sk("missing-indicated",
        _piped(SimpleImputer(add_indicator=True, strategy="median"), Ridge(), x=HOLES), _WHOLE,
        _MISSING),
    Estimator("xgboost-missing-999", _logged_999, mlflow.xgboost, table=_WHOLE, fresh=_fresh_999),
    _sk("xgboost-missing-999-pickled", _boosted_999, _WHOLE, _fresh_999),
    Estimator("lightgbm-missing",
              lambda: lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(HOLES, SUM),
              mlflow.lightgbm, table=_WHOLE, fresh=_MISSING),
    # Categories, and those that no training showed.
    Estimator("lightgbm-unknown-categories", of_categories, mlflow.lightgbm, table=_WITH_KIND,
              fresh=_cycled([1.5, 2.5, 3.5, 7], [1, 2, 3, -1], [4, 4, 4, _NAN], [9, 1, 1, 2.7],
                            [5, 5, 5, 1e9])),
    _sk("one-hot-unknown",
        _piped(OneHotEncoder(handle_unknown="ignore"), Ridge(), x=_CODES, y=_CODED), _CODES,
        _UNKNOWN_CODES),
    _sk("one-hot-without-first",
        _piped(OneHotEncoder(drop="first", handle_unknown="ignore"), Ridge(), x=_CODES, y=_CODED),
        _CODES, _UNKNOWN_CODES),
    _sk("one-hot-rare",
        _piped(OneHotEncoder(min_frequency=0.1, handle_unknown="infrequent_if_exist"), Ridge(),
               x=_RARE, y=_CODED),
        _CODES, _cycled([9, 9], [9, 1], [7, 9], [2, 11])),
    _sk("one-hot-missing",
        _piped(OneHotEncoder(handle_unknown="ignore"), Ridge(), x=_CODES_WITH_HOLES, y=_CODED),
        _CODES, _MISSING_CODES),
    _sk("ordinal-unknown",
        _piped(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), Ridge(),
               x=_CODES, y=_CODED),
        _CODES, _UNKNOWN_CODES),
    _sk("target-encoded-unknown",
        _piped(TargetEncoder(random_state=0), Ridge(), x=_CODES, y=_CODED), _CODES,
        _UNKNOWN_CODES),
    _sk("passengers", _of_passengers(OneHotEncoder(handle_unknown="ignore")), _PASSENGERS,
        _other_passengers),
    _sk("passengers-ordinal",
        _of_passengers(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        _PASSENGERS, _other_passengers),
    # Edges, and what is beyond the range.
    _sk("bins-at-edges",
        _piped(KBinsDiscretizer(5, encode="ordinal", strategy="uniform"), Ridge()), DIMES,
        _edges()),
    _sk("quantiles-beyond",
        _piped(QuantileTransformer(n_quantiles=50, output_distribution="normal"), Ridge()), DIMES,
        _BEYOND),
    _sk("splines-beyond", _piped(SplineTransformer(extrapolation="linear"), Ridge()), DIMES,
        _BEYOND),
    _sk("power-negative", _piped(PowerTransformer(), Ridge()), DIMES,
        _cycled([-1, -2, -3], [-0.5, 4, -900], [0, -0.0, 1e-9], [50, -1, 2])),
    # An example of one class.
    _sk("one-class-shown",
        _piped(StandardScaler(), LogisticRegression(), y=WORD), DIMES[WORD == "cheap"],
        _cycled([9, 9, 9], [8, 7, 9.5], [1, 1, 1], [10, 10, 10])),
    _sk("one-class-of-three-shown",
        lambda: HistGradientBoostingClassifier(max_iter=9).fit(DIMES, KIND), DIMES[KIND == 1],
        lambda count: DIMES[KIND != 1][:count]),
)  # fmt: skip
