"""Fits the forecaster and registers it with MLflow, once for each recipe.

    python -m examples.us_income.train

The recipe is a hash over the data, the code and the settings. A registered version that carries it
as a tag is taken as it is, and nothing is fitted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from examples.us_income.accuracy import drift_forecast, measure, naive_forecast
from examples.us_income.data import (
    FIRST_HELD_OUT_YEAR,
    HISTORY_YEARS,
    HORIZON_YEARS,
    IncomePanel,
    load_panel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.models import ModelSignature
    from mlflow.tracking import MlflowClient

    from examples.us_income.fit import FitSettings
    from examples.us_income.model import IncomeForecaster

__all__ = ["EXPERIMENT", "MODEL_NAME", "RECIPE_TAG", "find_version", "train_and_register"]

MODEL_NAME = "income"
EXPERIMENT = "us_income"
RECIPE_TAG = "us_income.recipe"

# The program is traced with these windows; two that differ keep the batch a symbol.
_EXAMPLE_ROWS = 4


def train_and_register(tracking_uri: str, model_name: str = MODEL_NAME) -> int:
    """Make sure that the registry holds this model; aliases belong to ``stlab-export``.

    Args:
        tracking_uri: Where MLflow keeps its runs and its registry.
        model_name: Name to register the model under.

    Returns:
        The version, a new one or the one that was there.
    """
    with _mlflow(tracking_uri) as client:
        panel = load_panel()
        recipe = _recipe(panel)
        version = _version_with(client, model_name, recipe)
        if version is None:
            version = _register(_fit_and_log(panel, model_name), model_name, recipe)
    return version


def find_version(tracking_uri: str, model_name: str = MODEL_NAME) -> int | None:
    """Return the version that ``train_and_register`` would take as it is, if there is one."""
    with _mlflow(tracking_uri) as client:
        return _version_with(client, model_name, _recipe(load_panel()))


def _recipe(panel: IncomePanel) -> str:
    """Hash all that decides the weights and how they are logged."""
    digest = hashlib.sha256()
    digest.update(json.dumps(panel.states).encode())
    for array in (panel.years, panel.income, panel.adjacency):
        digest.update(array.tobytes())
    for name in ("data.py", "model.py", "fit.py", "train.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _version_with(client: MlflowClient, model_name: str, recipe: str) -> int | None:
    found = client.search_model_versions(f"name = '{model_name}'")
    ready = [int(entry.version) for entry in found if entry.tags.get(RECIPE_TAG) == recipe]
    return max(ready, default=None)


def _fit_and_log(panel: IncomePanel, model_name: str) -> str:
    """Fit the model, log it with its errors on the held-out years, and return its URI."""
    import mlflow
    import mlflow.pytorch

    from examples.us_income.fit import FitSettings, fit

    settings = FitSettings()
    model = fit(panel.adjacency, panel.training, settings)
    experiment = mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        mlflow.log_params(_parameters(settings))
        mlflow.log_metrics(_metrics(panel, model))
        # MLflow keeps a bare array as the example and takes its name from the signature; a dict
        # is refused for pt2. Requirements that are given need not be guessed by loading the model.
        # The check of the serving input goes through the pyfunc wrapper of the PyTorch flavor,
        # which takes no named tensor.
        info = mlflow.pytorch.log_model(
            model,
            name=model_name,
            signature=_signature(panel),
            input_example=panel.training.history[-_EXAMPLE_ROWS:],
            serialization_format="pt2",
            pip_requirements=_requirements(),
            validate_serving_input=False,
        )
    uri: str = info.model_uri
    return uri


def _register(model_uri: str, model_name: str, recipe: str) -> int:
    """Register a logged model; its recipe is there from the moment the version is."""
    import mlflow

    # MLflow announces the new version on stderr past its own log level.
    with redirect_stderr(StringIO()):
        version = mlflow.register_model(model_uri, model_name, tags={RECIPE_TAG: recipe})
    return int(version.version)


def _parameters(settings: FitSettings) -> dict[str, object]:
    return {
        **asdict(settings),
        "history_years": HISTORY_YEARS,
        "horizon_years": HORIZON_YEARS,
        "first_held_out_year": FIRST_HELD_OUT_YEAR,
    }


def _metrics(panel: IncomePanel, model: IncomeForecaster) -> dict[str, float]:
    """Measure the model and its two rivals on the held-out years."""
    from examples.us_income.fit import forecast

    history, future = panel.held_out.history, panel.held_out.future
    forecasts = {
        "model": forecast(model, history),
        "naive": naive_forecast(history, HORIZON_YEARS),
        "drift": drift_forecast(history, HORIZON_YEARS),
    }
    metrics: dict[str, float] = {}
    for name, entry in forecasts.items():
        accuracy = measure(entry, future)
        metrics[f"{name}_mae_dollars"] = accuracy.mae
        metrics[f"{name}_mape_percent"] = accuracy.mape
    return metrics


def _signature(panel: IncomePanel) -> ModelSignature:
    """Name the tensors: ``history`` and ``forecast``, float32, US dollars, any number of rows."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    states = len(panel.states)
    dtype = np.dtype(np.float32)
    return ModelSignature(
        inputs=Schema([TensorSpec(dtype, (-1, states, HISTORY_YEARS), name="history")]),
        outputs=Schema([TensorSpec(dtype, (-1, states, HORIZON_YEARS), name="forecast")]),
    )


def _requirements() -> list[str]:
    import numpy as np
    import torch

    # A local label such as +cpu names a build that no index has.
    return [f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"]


@contextmanager
def _mlflow(tracking_uri: str) -> Iterator[MlflowClient]:
    """Point MLflow at a registry, and have it speak up only when something is wrong."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.tracking import MlflowClient

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    before = mlflow.get_tracking_uri()
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        mlflow.set_tracking_uri(tracking_uri)
        yield MlflowClient(tracking_uri)
    finally:
        mlflow.set_tracking_uri(before)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def main() -> None:
    """Train and register with the settings of the environment, and print the held-out errors."""
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    reused = find_version(tracking_uri) is not None
    version = train_and_register(tracking_uri)
    console = Console(highlight=False)
    console.print(f"{MODEL_NAME} version {version} ({'was there' if reused else 'new'})")
    for name, value in _logged_metrics(tracking_uri, version).items():
        console.print(f"  {name:20} {value:10,.2f}")


def _logged_metrics(tracking_uri: str, version: int) -> dict[str, float]:
    with _mlflow(tracking_uri) as client:
        run_id = client.get_model_version(MODEL_NAME, str(version)).run_id
        metrics: dict[str, float] = client.get_run(run_id).data.metrics
    return dict(sorted(metrics.items()))


if __name__ == "__main__":
    main()
