"""Estimators of tables, each with its own prediction as the truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from exporter.build.builder import build
from exporter.commands.export import pipeline
from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture
from triton_client import TritonClient

pytestmark = pytest.mark.triton

_RANDOM = np.random.default_rng(5)
X = _RANDOM.normal(size=(80, 4))
SIDE = (X.sum(1) > 0).astype(int)
KIND = SIDE + (X[:, 0] > 0)
PRICE = X @ np.array([1.0, 2.0, 3.0, 4.0])
PEOPLE = pd.DataFrame(
    {
        "age": _RANDOM.integers(18, 80, 80),
        "yearly income": _RANDOM.normal(size=80),
        "state": _RANDOM.choice(["NY", "CA", "TX"], 80),
    }
)
NAMED = np.where(SIDE, "buys", "leaves")
# Trained on dimes and asked in cents: some lie exactly between two dimes, where trees split.
DIMES = np.round(_RANDOM.uniform(0, 10, (500, 3)), 1)
CENTS = np.round(_RANDOM.uniform(0, 10, (500, 3)), 2)
SUM = DIMES.sum(1) + np.sin(DIMES[:, 0] * 5)
NOISY = (DIMES[:60].sum(1) + np.random.default_rng(7).normal(size=60) * 6 > 15).astype(int)


@pytest.fixture(autouse=True)
def here(lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which trusts these models: that pickles are kept apart has its own tests."""
    monkeypatch.setattr(pipeline, "build_isolated", build)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    mlflow.set_tracking_uri(lab.uri)


def registered(flavor: Any, name: str, model: Any, example: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flavor.log_model(
            model,
            name="model",
            registered_model_name=name,
            input_example=example,
            pip_requirements=[],
            **options,
        )


def people() -> Pipeline:
    columns = ColumnTransformer(
        [
            ("state", OneHotEncoder(handle_unknown="ignore"), ["state"]),
            ("numbers", StandardScaler(), ["age", "yearly income"]),
        ]
    )
    return Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(PEOPLE, NAMED)


def booster() -> xgboost.Booster:
    data = xgboost.DMatrix(X, SIDE)
    return xgboost.train({"objective": "binary:logistic"}, data, 4)


Making = Callable[[], Any]
MODELS: dict[str, tuple[Any, Making, dict[str, Any]]] = {
    "logistic": (mlflow.sklearn, lambda: LogisticRegression().fit(X, SIDE), {}),
    "forest": (
        mlflow.sklearn,
        lambda: RandomForestClassifier(8, random_state=0).fit(X, NAMED),
        {"serialization_format": "cloudpickle"},
    ),
    "boosting": (
        mlflow.sklearn,
        lambda: HistGradientBoostingRegressor(max_iter=8).fit(X, PRICE),
        {"serialization_format": "cloudpickle"},
    ),
    "xgb-classes": (mlflow.xgboost, lambda: xgboost.XGBClassifier(n_estimators=4).fit(X, KIND), {}),
    "xgb-booster": (mlflow.xgboost, booster, {}),
    "lgb-classes": (
        mlflow.lightgbm,
        lambda: lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(X, KIND),
        {},
    ),
    "lgb-booster": (
        mlflow.lightgbm,
        lambda: lightgbm.LGBMRegressor(n_estimators=9, verbose=-1).fit(X, PRICE).booster_,
        {},
    ),
}


def predictions(model: Any, x: Any) -> dict[str, Any]:
    """What the author of a model calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(model, xgboost.Booster):
            return {"prediction": model.predict(xgboost.DMatrix(x))}
        if hasattr(model, "predict_proba"):
            return {"label": model.predict(x), "probabilities": model.predict_proba(x)}
        return {"prediction": model.predict(x)}


def check(served: Any, expected: dict[str, Any]) -> None:
    assert set(served) == set(expected)
    for name, right in expected.items():
        found = served[name].reshape(right.shape)
        if right.dtype.kind in "OUT":
            assert [value.decode() for value in found] == list(right)
        elif right.dtype.kind in "iu":
            np.testing.assert_array_equal(found, right)
        else:
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_matrix_of_numbers(lab: RegistryFixture, server: TritonServer, name: str) -> None:
    flavor, make, options = MODELS[name]
    model = make()
    registered(flavor, name, model, X[:5], **options)
    urls = (server.grpc_url,)
    result = lab.export(
        name, allow_pickle=bool(options), prove_on=server.grpc_url, triton_urls=urls
    )
    assert result.status == "promoted", result.error
    assert (result.parity or {})["batching"] == "dynamic"
    with TritonClient(server.grpc_url) as client:
        check(client.model(name).infer({"input": X[:50]}), predictions(model, X[:50]))


SPLITTING: dict[str, tuple[Any, Making, dict[str, Any]]] = {
    "dimes-forest": (
        mlflow.sklearn,
        lambda: make_pipeline(StandardScaler(), RandomForestClassifier(9, random_state=0)).fit(
            DIMES, SUM.round() % 3
        ),
        {"serialization_format": "cloudpickle"},
    ),
    "dimes-boosting": (
        mlflow.sklearn,
        lambda: HistGradientBoostingRegressor(max_iter=40).fit(DIMES, SUM),
        {"serialization_format": "cloudpickle"},
    ),
    "dimes-lightgbm": (
        mlflow.lightgbm,
        lambda: lightgbm.LGBMRegressor(n_estimators=40, verbose=-1).fit(DIMES, SUM),
        {},
    ),
    "dimes-vectors": (
        mlflow.sklearn,
        lambda: SVC(probability=True, random_state=0).fit(DIMES[:60], NOISY),
        {},
    ),
}


@pytest.mark.filterwarnings("ignore:The `probability` parameter:FutureWarning")
@pytest.mark.parametrize("name", SPLITTING)
def test_what_no_drawn_input_shows(lab: RegistryFixture, server: TritonServer, name: str) -> None:
    """Values on a threshold, and labels that are not the most probable class."""
    flavor, make, options = SPLITTING[name]
    model = make()
    registered(flavor, name, model, DIMES[:5], **options)
    urls = (server.grpc_url,)
    result = lab.export(
        name, allow_pickle=bool(options), prove_on=server.grpc_url, triton_urls=urls
    )
    assert result.status == "promoted", result.error
    with TritonClient(server.grpc_url) as client:
        check(client.model(name).infer({"input": CENTS}), predictions(model, CENTS))


def test_columns_with_names_and_words(lab: RegistryFixture, server: TritonServer) -> None:
    model = people()
    registered(mlflow.sklearn, "people", model, PEOPLE[:6])
    result = lab.export("people", prove_on=server.grpc_url, triton_urls=(server.grpc_url,))
    assert result.status == "promoted", result.error
    table = PEOPLE[:9]
    with TritonClient(server.grpc_url) as client:
        served = client.model("people")
        assert [spec.name for spec in served.spec.inputs] == ["age", "yearly_income", "state"]
        answer = served.infer(
            {
                "age": table["age"].to_numpy()[:, None],
                "yearly_income": table["yearly income"].to_numpy()[:, None],
                "state": table["state"].to_numpy(dtype=object)[:, None],
            }
        )
    check(answer, predictions(model, table))


class Marks:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


@pytest.mark.parametrize("form", ["cloudpickle", "pickle"])
def test_nothing_of_a_pickle_runs(lab: RegistryFixture, tmp_path: Path, form: str) -> None:
    marker = tmp_path / "marker"
    model = LogisticRegression().fit(X, SIDE)
    model.note = Marks(str(marker))
    registered(mlflow.sklearn, f"marks-{form}", model, None, serialization_format=form)
    marker.unlink(missing_ok=True)
    result = lab.export(f"marks-{form}")
    assert (result.exit_code, (result.error or {})["kind"]) == (3, "unsafe")
    assert not marker.exists()
    assert lab.alias(f"marks-{form}") is None


class Squared(TransformerMixin, BaseEstimator):
    def fit(self, x: Any, y: Any = None) -> Squared:
        return self

    def transform(self, x: Any) -> Any:
        return x**2


def test_an_estimator_without_an_onnx_form(lab: RegistryFixture) -> None:
    model = make_pipeline(Squared(), LogisticRegression()).fit(X, SIDE)
    registered(mlflow.sklearn, "own", model, X[:5], serialization_format="cloudpickle")
    result = lab.export("own", allow_pickle=True)
    assert (result.exit_code, (result.error or {})["kind"]) == (3, "convert")
    assert "Squared" in (result.error or {})["message"]
    assert lab.alias("own") is None


def test_categories_of_pandas(lab: RegistryFixture) -> None:
    """LightGBM turns the words to codes by itself, which nobody who sends a tensor knows."""
    table = PEOPLE.assign(state=PEOPLE["state"].astype("category"))
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(table, NAMED)
    registered(mlflow.lightgbm, "of-pandas", model, table[:5])
    result = lab.export("of-pandas")
    assert (result.exit_code, (result.error or {})["kind"]) == (3, "signature")
    assert "categories" in (result.error or {})["message"]


def test_types_that_an_artifact_calls_trusted_are_not(lab: RegistryFixture) -> None:
    """The list in the MLmodel is the word of whoever logged it."""
    model = make_pipeline(Squared(), LogisticRegression()).fit(X, SIDE)
    trusted = [f"{__name__}.Squared"]
    registered(mlflow.sklearn, "vouched", model, X[:5], skops_trusted_types=trusted)
    result = lab.export("vouched")
    assert (result.exit_code, (result.error or {})["kind"]) == (3, "unsafe")
    assert "Squared" in (result.error or {})["message"]


def test_a_dtype_is_no_code(lab: RegistryFixture) -> None:
    """Imputers hold one, which skops lists as a type to be trusted."""
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, SIDE)
    registered(mlflow.sklearn, "imputed", model, X[:5], skops_trusted_types=["numpy.dtype"])
    assert lab.export("imputed").status == "promoted"
