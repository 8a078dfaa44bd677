"""Steps of scikit-learn that are written here: at every number of rows what the library gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget
from exporter.sources.sklearn import _Converter
from exporter.sources.sklearn.ufuncs import applied
from exporter.sources.tabular.tree_ensemble import Graph

TARGET = OnnxTarget(opset=18, ir=8, max_opset=18, max_ir=8)
FLOAT, STRING, DOUBLE = 1, 8, 11
ROWS = (1, 2, 5, 16)
_RANDOM = np.random.default_rng(4)
X = _RANDOM.normal(size=(60, 3))
Y = np.abs(X).sum(1)
KIND = np.digitize(Y, [1.5, 2.5])
SEVERAL = np.column_stack([Y, -2 * Y])
HOLES = np.where(_RANDOM.random(X.shape) < 0.2, np.nan, X)
HOLES[:, 1] = np.nan
EMPTY = np.where(_RANDOM.random(X.shape) < 0.2, np.nan, X)
EMPTY[:, 2] = X[:, 2]


def session(graph: Any) -> ort.InferenceSession:
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def check(estimator: Any, rows: np.ndarray[Any, Any]) -> None:
    """Compare with the estimator itself, at several numbers of rows."""
    asked = session(_Converter(estimator)([("x", DOUBLE, rows.shape[1])], TARGET))
    classifier = hasattr(estimator, "predict_proba")
    for count in ROWS:
        answer = asked.run(None, {"x": rows[:count]})
        right = (estimator.predict_proba if classifier else estimator.predict)(rows[:count])
        np.testing.assert_allclose(answer[-1].reshape(right.shape), right, rtol=1e-9, atol=1e-12)
        if classifier:
            assert answer[0].tolist() == estimator.predict(rows[:count]).tolist()


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    "make",
    [
        lambda w: KNeighborsRegressor(5, weights=w).fit(X, Y),
        lambda w: KNeighborsRegressor(5, weights=w, p=1).fit(X, SEVERAL),
        lambda w: KNeighborsRegressor(1, weights=w, algorithm="brute").fit(X, Y),
        lambda w: KNeighborsClassifier(5, weights=w).fit(X, KIND),
        lambda w: make_pipeline(StandardScaler(), KNeighborsClassifier(4, weights=w)).fit(
            X, KIND.astype(str)
        ),
    ],
)
def test_neighbours(make: Callable[[str], Any], weights: str) -> None:
    near = X[:16] + _RANDOM.normal(size=(16, 3)) / 9
    near[::3] = X[:16:3]  # at no distance
    check(make(weights), near)


def test_neighbours_at_one_place_count_alike() -> None:
    twice = np.concatenate([X, X])
    model = KNeighborsRegressor(5, weights="distance").fit(twice, np.concatenate([Y, 3 * Y]))
    check(model, X[:16])
    np.testing.assert_allclose(model.predict(X[:16]), 2 * Y[:16])


def by_hand(distances: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.exp(-distances)


def test_other_weights_are_refused() -> None:
    model = KNeighborsRegressor(5, weights=by_hand).fit(X, Y)
    with pytest.raises(ValidationFailedError, match="weights of its neighbours"):
        _Converter(model)([("x", DOUBLE, 3)], TARGET)


EDGES = np.array(
    [0, -0.0, 1, -1, -2, 0.5, 1e-300, -1e-300, 1e-17, -1e-17, 3e-9, -3e-9, 1e-4, -1e-4, 0.7, 36,
     -36, -38, 700, 710, -745, -800, 1e300, -1e300, np.inf, -np.inf, np.nan]
)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "function",
    [np.abs, np.exp, np.expm1, np.log, np.log10, np.log1p, np.log2, np.negative, np.reciprocal,
     np.sqrt, np.square],
)  # fmt: skip
def test_functions_of_numpy(function: np.ufunc, dtype: Any) -> None:
    with np.errstate(all="ignore"):
        x = np.concatenate([EDGES, _RANDOM.normal(size=500), 1e-6 * _RANDOM.normal(size=99)])
        x = x.astype(dtype)[:, None]
        right = function(x)
    kind = DOUBLE if dtype is np.float64 else FLOAT
    graph = Graph("x", kind, 1)
    written = applied(graph, function, "x", dtype)
    (answer,) = session(graph.build({"y": (written, kind)}, TARGET)).run(None, {"x": x})
    tiny = np.finfo(dtype)
    np.testing.assert_allclose(answer, right, rtol=32 * tiny.eps, atol=tiny.tiny)


@pytest.mark.parametrize("function", [np.sinh, by_hand])
def test_other_functions_are_named(function: Any) -> None:
    with pytest.raises(ValidationFailedError, match=f"'{function.__name__}'"):
        applied(Graph("x", DOUBLE, 1), function, "x", np.float64)


def turned(transformer: Any) -> TransformedTargetRegressor:
    return TransformedTargetRegressor(Ridge(), transformer=transformer)


TARGETS: dict[str, tuple[Callable[[], Any], Any]] = {
    "log1p": (lambda: TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), Y),
    "as-it-is": (lambda: TransformedTargetRegressor(Ridge()), Y),
    "standard": (lambda: turned(StandardScaler()), Y),
    "smallest-largest": (lambda: turned(MinMaxScaler()), SEVERAL),
    "largest": (lambda: turned(MaxAbsScaler()), Y),
    "quartiles": (lambda: turned(RobustScaler()), SEVERAL),
    "no-mean": (
        lambda: turned(StandardScaler(with_mean=False)),
        Y,
    ),
    "pipeline": (
        lambda: TransformedTargetRegressor(
            make_pipeline(FunctionTransformer(np.square), StandardScaler(), Ridge()),
            func=np.sqrt, inverse_func=np.square,
        ),
        Y,
    ),
    "behind": (
        lambda: make_pipeline(
            StandardScaler(),
            TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
        ),
        Y,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_turned_back(name: str) -> None:
    make, y = TARGETS[name]
    check(make().fit(X, y), X)


def test_a_target_that_cannot_be_turned_back() -> None:
    model = turned(PowerTransformer()).fit(X, Y)
    with pytest.raises(ValidationFailedError, match="PowerTransformer"):
        _Converter(model)([("x", DOUBLE, 3)], TARGET)


@pytest.mark.filterwarnings("ignore:Skipping features")
@pytest.mark.parametrize(
    ("options", "table"),
    [
        ({"add_indicator": True}, EMPTY),
        ({}, HOLES),
        ({"add_indicator": True}, HOLES),
        ({"add_indicator": True, "keep_empty_features": True}, HOLES),
        ({"strategy": "constant", "fill_value": -1.0, "add_indicator": True}, HOLES),
        ({"missing_values": 0.0, "strategy": "median"}, np.nan_to_num(EMPTY)),
    ],
)
def test_what_is_missing(options: dict[str, Any], table: np.ndarray[Any, Any]) -> None:
    check(make_pipeline(SimpleImputer(**options), Ridge()).fit(table, Y), table)


WORDS = pd.DataFrame(
    {
        "city": _RANDOM.choice(["a", "b", "c", "d"], 60, p=[0.6, 0.3, 0.06, 0.04]),
        "state": _RANDOM.choice(["NY", "TX"], 60),
    }
)
ASKED = np.array(
    [(a, b) for a in ("a", "b", "c", "d", "?", "") for b in ("NY", "TX", "Zürich")], object
)[:16]


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize(
    "options",
    [
        {"handle_unknown": "infrequent_if_exist", "min_frequency": 10},
        {"handle_unknown": "infrequent_if_exist", "max_categories": 2, "drop": "first"},
        {"handle_unknown": "infrequent_if_exist", "min_frequency": 10, "drop": ["b", "NY"]},
        {"handle_unknown": "ignore", "min_frequency": 10, "drop": "if_binary"},
        {"handle_unknown": "warn", "max_categories": 3},
    ],
)
def test_rare_words(options: dict[str, Any]) -> None:
    """Each as its own column: behind it is a model that tells all of them apart."""
    states = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(**options))
    columns = ColumnTransformer([("words", states, ["city", "state"])])
    model = Pipeline([("columns", columns), ("model", LinearRegression())]).fit(WORDS, Y)
    model[-1].coef_ = np.arange(1.0, len(model[-1].coef_) + 1) ** 3
    graph = _Converter(model)([("city", STRING, 1), ("state", STRING, 1)], TARGET)
    asked = session(graph)
    for count in ROWS:
        given = {"city": ASKED[:count, :1], "state": ASKED[:count, 1:]}
        (answer,) = asked.run(None, given)
        right = model.predict(pd.DataFrame(ASKED[:count], columns=["city", "state"]))
        np.testing.assert_allclose(answer[:, 0], right, rtol=1e-6)


def test_what_a_search_has_found_is_served() -> None:
    from exporter.sources.sklearn import _found_by_search, _uses_columns_by_name

    columns = ColumnTransformer([("words", OneHotEncoder(), ["city", "state"])])
    pipeline = Pipeline([("columns", columns), ("model", Ridge())])
    search = GridSearchCV(pipeline, {"model__alpha": [1.0, 2.0]}, cv=2).fit(WORDS, Y)
    found = _found_by_search(search)
    assert found is search.best_estimator_
    assert _uses_columns_by_name(found)
    assert _uses_columns_by_name(TransformedTargetRegressor(pipeline).fit(WORDS, Y))
