"""Trees and bins as graphs: decisions exactly as the library takes them, and its sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnxruntime as ort
import pytest
import xgboost
from onnx import helper
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from exporter.errors import ValidationFailedError
from exporter.interface import Tensor
from exporter.sources.base import OnnxTarget
from exporter.sources.sklearn import _Converter
from exporter.sources.tabular import lightgbm_trees, xgboost_trees
from exporter.sources.tabular.boosters import BoosterConverter
from exporter.sources.tabular.graph_io import Result, wrap_graph

TARGET = OnnxTarget(opset=18, ir=8, max_opset=18, max_ir=8)
FLOAT, DOUBLE = 1, 11
_RANDOM = np.random.default_rng(3)
DIMES = np.round(_RANDOM.uniform(0, 10, (400, 3)), 1)
CENTS = np.round(_RANDOM.uniform(0, 10, (2000, 3)), 2)
SUM = DIMES.sum(1) + np.sin(DIMES[:, 0] * 5)
KIND = np.digitize(SUM, np.quantile(SUM, [0.3, 0.7]))
HOLES = np.where(_RANDOM.random(DIMES.shape) < 0.1, np.nan, DIMES)
ASKED_HOLES = np.where(_RANDOM.random(CENTS.shape) < 0.1, np.nan, CENTS)
# Seconds since 1970: float32 tells only every 128th apart.
TIMES = 1.7e9 + _RANDOM.integers(0, 5000, (400, 3)).astype(float)
ASKED_TIMES = 1.7e9 + _RANDOM.integers(0, 5000, (2000, 3)).astype(float)


def asked(convert: Any, kind: int, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    graph = convert([("x", kind, x.shape[1])], TARGET)
    assert graph.SerializeToString() == convert([("x", kind, 3)], TARGET).SerializeToString()
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: list[np.ndarray[Any, Any]] = session.run(
        None, {"x": x.astype(np.float64 if kind == DOUBLE else np.float32)}
    )
    return answer


ESTIMATORS: dict[str, tuple[Callable[[], Any], np.ndarray[Any, Any]]] = {
    "forest": (lambda: RandomForestClassifier(9, random_state=0).fit(DIMES, KIND), CENTS),
    "words": (
        lambda: RandomForestClassifier(9, random_state=0).fit(DIMES, KIND.astype(str)),
        CENTS,
    ),
    "scaled": (
        lambda: make_pipeline(StandardScaler(), ExtraTreesRegressor(9, random_state=0)).fit(
            DIMES, SUM
        ),
        CENTS,
    ),
    "holes": (lambda: RandomForestRegressor(9, random_state=0).fit(HOLES, SUM), ASKED_HOLES),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=9).fit(DIMES, KIND > 0), CENTS),
    "histograms": (
        lambda: HistGradientBoostingClassifier(max_iter=9).fit(HOLES, KIND),
        ASKED_HOLES,
    ),
    "times": (
        lambda: HistGradientBoostingClassifier(max_iter=9).fit(TIMES, KIND),
        ASKED_TIMES,
    ),
    "filled": (
        lambda: make_pipeline(
            SimpleImputer(strategy="median"), HistGradientBoostingClassifier(max_iter=9)
        ).fit(HOLES, KIND),
        ASKED_HOLES,
    ),
    "bins": (
        lambda: make_pipeline(KBinsDiscretizer(4, strategy="uniform"), Ridge()).fit(DIMES, SUM),
        CENTS,
    ),
    "numbered-bins": (
        lambda: make_pipeline(
            KBinsDiscretizer(4, strategy="uniform", encode="ordinal"), Ridge()
        ).fit(DIMES, SUM),
        CENTS,
    ),
    "truths": (lambda: make_pipeline(Binarizer(threshold=4.15), Ridge()).fit(DIMES, SUM), CENTS),
    "xgboost-step": (
        lambda: make_pipeline(
            StandardScaler(), xgboost.XGBClassifier(n_estimators=9, missing=0.0)
        ).fit(DIMES, KIND),
        CENTS,
    ),
    "lightgbm-step": (
        lambda: make_pipeline(
            StandardScaler(), lightgbm.LGBMClassifier(n_estimators=9, verbose=-1)
        ).fit(DIMES, KIND),
        CENTS,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_splits_where_its_library_does(name: str) -> None:
    make, x = ESTIMATORS[name]
    estimator = make()
    answer = asked(_Converter(estimator), DOUBLE, x)
    expected = [estimator.predict(x)]
    if hasattr(estimator, "predict_proba"):
        expected.append(estimator.predict_proba(x))
        assert answer[0].tolist() == expected[0].tolist()
    np.testing.assert_allclose(answer[-1].reshape(expected[-1].shape), expected[-1], rtol=1e-5)


SCALED = {
    "standard": StandardScaler,
    "smallest-largest": MinMaxScaler,
    "largest": MaxAbsScaler,
    "quartiles": RobustScaler,
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("kind", [FLOAT, DOUBLE])
def test_a_scaler_rounds_as_scikit_learn_does(name: str, kind: int) -> None:
    """To the last digit, which histograms behind it compare."""
    dtype = np.float64 if kind == DOUBLE else np.float32
    scaler = SCALED[name]().fit(DIMES.astype(dtype))
    x = CENTS.astype(dtype)
    (answer,) = asked(_Converter(scaler), kind, x)
    np.testing.assert_array_equal(answer, scaler.transform(x), strict=True)


LIGHTGBM = {
    "regression": {},
    "sqrt": {"objective": "regression", "reg_sqrt": True},
    "fair": {"objective": "fair"},
    "poisson": {"objective": "poisson"},
    "binary": {"objective": "binary", "sigmoid": 2.0},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "each-alone": {"objective": "multiclassova", "num_class": 3},
    "entropy": {"objective": "cross_entropy_lambda"},
    "forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
    "drops": {"boosting": "dart"},
    "zeros": {"zero_as_missing": True},
}


@pytest.mark.parametrize("name", LIGHTGBM)
def test_lightgbm_objectives(name: str) -> None:
    given = LIGHTGBM[name]
    classes = str(given.get("objective", ""))
    target = KIND if classes.startswith("multi") else SUM
    target = (KIND > 0).astype(float) if classes.startswith(("binary", "cross")) else target
    data = lightgbm.Dataset(np.where(DIMES < 1, 0.0, HOLES), target)
    booster = lightgbm.train({"verbose": -1, **given}, data, 9)
    x = np.where(CENTS < 1, 0.0, ASKED_HOLES)

    def add(sink: Any, features: str) -> str:
        return lightgbm_trees.prediction(sink, features, booster)

    (answer,) = asked(BoosterConverter(add, DOUBLE), DOUBLE, x)
    expected = booster.predict(x)
    np.testing.assert_allclose(answer.reshape(expected.shape), expected, rtol=1e-5, atol=1e-9)


# Of a feature of categories: what is cut off, not known, beyond all whole numbers, or missing.
ODD = (0.0, -0.0, -0.5, -1.0, 0.9, 2.7, 99.0, 2.0**31, 3e9, -3e9, 1e300, np.inf, -np.inf, np.nan)
CATEGORIES = np.column_stack(
    [DIMES[:, 0], _RANDOM.integers(0, 40, 400), _RANDOM.integers(0, 3, 400)]
)
BY_CATEGORY = np.sin(CATEGORIES[:, 1] * 7) + np.cos(CATEGORIES[:, 2] * 5) + CATEGORIES[:, 0] / 9


def odd_categories(odd: tuple[float, ...]) -> np.ndarray[Any, Any]:
    pairs = np.array([(a, b) for a in (*range(40), *odd) for b in (0, 1, 2, *odd)], float)
    return np.column_stack([np.full(len(pairs), 0.3), pairs])


@pytest.mark.parametrize(
    ("holes", "options"), [(False, {}), (True, {}), (False, {"zero_as_missing": True})]
)
def test_lightgbm_categories(holes: bool, options: dict[str, Any]) -> None:
    x = CATEGORIES.copy()
    x[::9, 1:] = np.nan if holes else x[::9, 1:]
    data = lightgbm.Dataset(x, BY_CATEGORY, categorical_feature=[1, 2])
    given = {"verbose": -1, "min_data_per_group": 1, "cat_smooth": 0, **options}
    booster = lightgbm.train(given, data, 9)

    def add(sink: Any, features: str) -> str:
        return lightgbm_trees.prediction(sink, features, booster)

    rows = odd_categories(ODD)
    (answer,) = asked(BoosterConverter(add, DOUBLE), DOUBLE, rows)
    np.testing.assert_allclose(answer[:, 0], booster.predict(rows), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("holes", [False, True])
def test_categories_of_histograms(holes: bool) -> None:
    x = CATEGORIES * (1, 2.5, 1) - (0, 9, 0)
    x[::9, 1:] = np.nan if holes else x[::9, 1:]
    model = HistGradientBoostingRegressor(max_iter=9, categorical_features=[2, 1])
    model.fit(x, BY_CATEGORY)
    # It does not take what is infinite.
    rows = odd_categories(tuple(value for value in ODD if not np.isinf(value)))
    rows[: 2 * len(rows) // 3] = rows[: 2 * len(rows) // 3] * (1, 2.5, 1) - (0, 9, 0)
    (answer,) = asked(_Converter(model), DOUBLE, rows)
    np.testing.assert_allclose(answer[:, 0], model.predict(rows), rtol=1e-5, atol=1e-7)


def test_the_order_of_a_converters_sets_does_not_show() -> None:
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["a"], ["b"])
    graph = helper.make_graph([node], "g", [value("a", 1, [None, 1])], [value("b", 1, [None, 1])])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    x, y = (Tensor(name, "FP32", ("rows", 1)) for name in "xy")
    first, second = (
        wrap_graph(helper.make_model(graph, opset_imports=order), [x], [("a", 1)], [Result("b", y)])
        for order in (opsets, opsets[::-1])
    )
    assert first == second


XGBOOST = {
    "reg:squarederror": {},
    "reg:gamma": {},
    "binary:logistic": {"base_score": 0.2},
    "binary:logitraw": {},
    "binary:hinge": {},
    "multi:softprob": {"num_class": 3},
    "multi:softmax": {"num_class": 3},
    "reg:quantileerror": {"quantile_alpha": [0.2, 0.8]},
    "reg:absoluteerror": {"booster": "dart", "rate_drop": 0.5},
    "count:poisson": {"booster": "gblinear"},
}


@pytest.mark.parametrize("objective", XGBOOST)
def test_xgboost_objectives(objective: str) -> None:
    target = KIND if objective.startswith("multi") else SUM
    target = KIND > 0 if objective.startswith("binary") else target
    given = {"objective": objective, **XGBOOST[objective]}
    booster = xgboost.train(given, xgboost.DMatrix(HOLES, target), 9)

    def add(sink: Any, features: str) -> str:
        return xgboost_trees.prediction(sink, features, booster)

    (answer,) = asked(BoosterConverter(add, FLOAT), FLOAT, ASKED_HOLES)
    expected = booster.predict(xgboost.DMatrix(ASKED_HOLES))
    np.testing.assert_allclose(answer.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: xgboost.train(
                {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3},
                xgboost.DMatrix(DIMES, KIND),
                2,
            ),
            "linear",
        ),
        (
            lambda: lightgbm.train(
                {"linear_tree": True, "verbose": -1}, lightgbm.Dataset(DIMES, SUM), 2
            ),
            "linear",
        ),
    ],
)
def test_what_has_no_form_is_named(make: Callable[[], Any], reason: str) -> None:
    booster = make()
    library = xgboost_trees if isinstance(booster, xgboost.Booster) else lightgbm_trees

    def add(sink: Any, features: str) -> str:
        return library.prediction(sink, features, booster)

    with pytest.raises(ValidationFailedError, match=reason):
        BoosterConverter(add, DOUBLE)([("x", DOUBLE, 3)], TARGET)
