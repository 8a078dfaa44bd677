"""Estimators of tables, trained on numbers with one decimal and asked numbers with two.

A tree splits halfway between two numbers of its table. Every other row that is asked lies there,
where a threshold that was rounded on its way sends it to the other side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import ModelSignature
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from .comparing import Array, Near

__all__ = ["ZOO", "Estimator"]

_RANDOM = np.random.default_rng(5)
DIMES = np.round(_RANDOM.uniform(0, 10, (500, 3)), 1)
HOLES = np.where(_RANDOM.random(DIMES.shape) < 0.1, np.nan, DIMES)
SUM = DIMES.sum(1) + np.sin(DIMES[:, 0] * 5)
KIND = SUM.round().astype(int) % 3
WORD = np.where(SUM > 15, "dear", "cheap")
FEW = DIMES[:60]
NOISY = (FEW.sum(1) + np.random.default_rng(7).normal(size=60) * 6 > 15).astype(int)
PEOPLE = pd.DataFrame(
    {
        "age": _RANDOM.integers(18, 80, 300),
        "yearly income": np.round(_RANDOM.uniform(0, 10, 300), 1),
        "state": _RANDOM.choice(["NY", "CA", "TX"], 300),
    }
)
BUYS = np.where(
    PEOPLE["yearly income"] + PEOPLE["age"] / 20 + _RANDOM.normal(size=300) > 7.5, "buys", "leaves"
)


def cents(count: int) -> Array:
    """Return fresh rows, of which the first, third and so on lie between two dimes everywhere."""
    random = np.random.default_rng(count)
    table = np.round(random.uniform(0, 10, (count, 3)), 2)
    table[::2] = np.round(np.floor(table[::2] * 10) / 10 + 0.05, 2)
    return table


def cents_with_holes(count: int) -> Array:
    """Return the same with missing values."""
    missing = np.random.default_rng(count).random((count, 3)) < 0.2
    return np.where(missing, np.nan, cents(count))


def people(count: int) -> pd.DataFrame:
    """Return fresh rows of the table of people, with a state that no training showed."""
    random = np.random.default_rng(count)
    return pd.DataFrame(
        {
            "age": random.integers(18, 80, count),
            "yearly income": cents(count)[:, 0],
            "state": random.choice(["NY", "CA", "TX", "Zürich"], count),
        }
    )


@dataclass(frozen=True)
class Estimator:
    """One estimator.

    Attributes:
        name: What it is registered as.
        make: Makes and fits it.
        flavor: The module of MLflow that logs it.
        table: What it was fitted to; its first rows are the logged example.
        fresh: Makes other rows.
        form: How its flavor writes it; empty for the flavor's own choice.
        refused: A word of the reason for which it is refused; empty where it is served.
        servable: Whether it could be served: where it is refused none the less, nobody has written
            its graph yet.
    """

    name: str
    make: Callable[[], Any]
    flavor: Any = mlflow.sklearn
    table: Any = field(default_factory=lambda: DIMES)
    fresh: Callable[[int], Any] = cents
    form: str = ""
    refused: str = ""
    servable: bool = True
    batched: ClassVar[bool] = True
    # Ten times what float32 rounds off here; a row on the other side of a threshold is farther.
    near: ClassVar[Near] = Near(1e-5, 1e-5)

    @property
    def example(self) -> Any:
        return self.table[:6]

    @property
    def signature(self) -> ModelSignature | None:
        """What it is logged with; None where MLflow infers it from the example."""
        return None

    @cached_property
    def fitted(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.make()

    def register(self) -> None:
        """Log it as its author would."""
        options = {"serialization_format": self.form} if self.form else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.flavor.log_model(
                self.fitted,
                name="model",
                registered_model_name=self.name,
                input_example=self.example,
                signature=self.signature,
                pip_requirements=[],
                **options,
            )

    def rows(self, count: int) -> dict[str, Array]:
        """Return as many fresh rows: one matrix, or a tensor for every column."""
        table = self.fresh(count)
        if not isinstance(table, pd.DataFrame):
            return {"input": table}
        return {
            name.replace(" ", "_"): column.to_numpy(object if column.dtype == "str" else None)[
                :, None
            ]
            for name, column in table.items()
        }

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return what its author calls: labels with probabilities, or a prediction."""
        table: Any = inputs.get("input")
        if table is None:
            columns = zip(self.table.columns, inputs.values(), strict=True)
            table = pd.DataFrame({name: values[:, 0] for name, values in columns})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if hasattr(self.fitted, "predict_proba"):
                return [self.fitted.predict(table), self.fitted.predict_proba(table)]
            return [self.fitted.predict(table)]


class Squared(TransformerMixin, BaseEstimator):
    """A step of somebody's own."""

    def fit(self, x: Any, y: Any = None) -> Squared:
        return self

    def transform(self, x: Any) -> Any:
        return np.square(x)


def of_people(model: Any, numbers: Any) -> Pipeline:
    """Fit a pipeline that takes named columns, one of them of words."""
    columns = ColumnTransformer(
        [
            ("state", OneHotEncoder(handle_unknown="ignore"), ["state"]),
            ("numbers", numbers, ["age", "yearly income"]),
        ]
    )
    return Pipeline([("columns", columns), ("model", model)]).fit(PEOPLE, BUYS)


def of_searched_people() -> GridSearchCV:
    """Search for a pipeline that fills what is missing, and takes rare states for one."""
    states = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2),
    )
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = ColumnTransformer(
        [("states", states, ["state"]), ("numbers", numbers, ["age", "yearly income"])]
    )
    pipeline = Pipeline([("columns", columns), ("model", LogisticRegression())])
    return GridSearchCV(pipeline, {"model__C": [0.1, 1.0]}, cv=2).fit(PEOPLE, BUYS)


def of_categories() -> Any:
    table = np.column_stack([DIMES, KIND])
    model = lightgbm.LGBMRegressor(n_estimators=4, verbose=-1)
    return model.fit(table, SUM + 5 * (KIND == 1), categorical_feature=[3])


def four(count: int) -> Array:
    """Return fresh rows with a category each."""
    return np.column_stack([cents(count), np.arange(count) % 3])


ZOO: tuple[Estimator, ...] = (
    # Named columns, one of them of words.
    Estimator("people-logistic", lambda: of_people(LogisticRegression(), StandardScaler()),
              table=PEOPLE, fresh=people),
    Estimator("people-forest",
              lambda: of_people(RandomForestClassifier(9, random_state=0), "passthrough"),
              table=PEOPLE, fresh=people, form="cloudpickle"),
    Estimator("people-searched", of_searched_people, table=PEOPLE, fresh=people,
              form="cloudpickle"),
    # A matrix.
    Estimator("scaled-logistic",
              lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(DIMES, WORD)),
    Estimator("forest", lambda: RandomForestClassifier(9, random_state=0).fit(DIMES, WORD),
              form="cloudpickle"),
    Estimator("scaled-forest",
              lambda: make_pipeline(
                  StandardScaler(), RandomForestRegressor(9, random_state=0)
              ).fit(DIMES, SUM),
              form="cloudpickle"),
    Estimator("hist-boosting", lambda: HistGradientBoostingRegressor(max_iter=40).fit(DIMES, SUM),
              form="cloudpickle"),
    Estimator("hist-boosting-holes",
              lambda: HistGradientBoostingClassifier(max_iter=20).fit(HOLES, KIND),
              table=HOLES, fresh=cents_with_holes, form="cloudpickle"),
    Estimator("gradient-boosting",
              lambda: GradientBoostingClassifier(n_estimators=20, random_state=0).fit(DIMES, KIND),
              form="cloudpickle"),
    Estimator("vectors", lambda: SVC(probability=True, random_state=0).fit(FEW, NOISY)),
    Estimator("neighbours", lambda: KNeighborsClassifier(5).fit(DIMES, KIND), form="cloudpickle"),
    Estimator("xgboost-classes", lambda: xgboost.XGBClassifier(n_estimators=20).fit(DIMES, KIND),
              mlflow.xgboost),
    Estimator("xgboost-numbers",
              lambda: xgboost.XGBRegressor(n_estimators=40).fit(HOLES, SUM), mlflow.xgboost,
              table=HOLES, fresh=cents_with_holes),
    Estimator("lightgbm-classes",
              lambda: lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(DIMES, WORD),
              mlflow.lightgbm),
    Estimator("lightgbm-numbers",
              lambda: lightgbm.LGBMRegressor(n_estimators=40, verbose=-1).fit(HOLES, SUM),
              mlflow.lightgbm, table=HOLES, fresh=cents_with_holes),
    Estimator("linear-vectors", lambda: LinearSVC().fit(DIMES, WORD), form="cloudpickle"),
    Estimator("near-neighbours",
              lambda: KNeighborsRegressor(5, weights="distance").fit(DIMES, SUM),
              form="cloudpickle"),
    Estimator("log-target",
              lambda: TransformedTargetRegressor(
                  make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), Ridge()),
                  func=np.log1p, inverse_func=np.expm1,
              ).fit(DIMES, SUM.clip(0)),
              form="cloudpickle"),
    # Numbers that are categories.
    Estimator("lightgbm-categories", of_categories, mlflow.lightgbm,
              table=np.column_stack([DIMES, KIND]), fresh=four),
    Estimator("hist-boosting-categories",
              lambda: HistGradientBoostingClassifier(max_iter=9, categorical_features=[3]).fit(
                  np.column_stack([DIMES, KIND]), WORD
              ),
              table=np.column_stack([DIMES, KIND]), fresh=four, form="cloudpickle"),
    Estimator("xgboost-linear",
              lambda: xgboost.XGBRegressor(booster="gblinear").fit(HOLES, SUM), mlflow.xgboost,
              table=HOLES, fresh=cents_with_holes),
    # What must not be served.
    Estimator("own-step",
              lambda: make_pipeline(Squared(), LogisticRegression()).fit(DIMES, WORD),
              form="cloudpickle", refused="Squared", servable=False),
)  # fmt: skip
