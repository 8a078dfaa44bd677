from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from examples.us_income.accuracy import drift_forecast, measure, naive_forecast
from examples.us_income.data import HORIZON_YEARS, IncomePanel, load_panel
from examples.us_income.fit import FitSettings, fit, forecast
from examples.us_income.plot import ForecastPicture, draw
from examples.us_income.summary import SHOWN_STATES
from examples.us_income.train import RECIPE_TAG, find_version, train_and_register

if TYPE_CHECKING:
    from pathlib import Path

    from examples.us_income.model import IncomeForecaster


@pytest.fixture(scope="module")
def panel() -> IncomePanel:
    return load_panel()


@pytest.fixture(scope="module")
def model(panel: IncomePanel) -> IncomeForecaster:
    return fit(panel.adjacency, panel.training)


def test_panel_holds_48_states_and_81_years(panel: IncomePanel) -> None:
    assert panel.income.shape == (48, 81)
    assert panel.income.dtype == np.float32
    assert (panel.years[0], panel.years[-1]) == (1929, 2009)
    assert panel.income[panel.index("Alabama"), 0] == 323
    assert panel.income[panel.index("Wyoming"), -1] == 42504


def test_adjacency_is_symmetric_and_true_to_the_map(panel: IncomePanel) -> None:
    adjacency = panel.adjacency
    assert np.array_equal(adjacency, adjacency.T)
    assert not adjacency.diagonal().any()
    assert set(np.unique(adjacency)) == {0.0, 1.0}
    neighbours = {panel.states[i] for i in np.flatnonzero(adjacency[panel.index("Maine")])}
    assert neighbours == {"New Hampshire"}


def test_windows_follow_one_another(panel: IncomePanel) -> None:
    windows = panel.held_out
    assert windows.history.shape == (8, 48, 10)
    assert windows.future.shape == (8, 48, 3)
    assert windows.last_year.tolist() == list(range(1999, 2007))
    in_1999 = panel.income[:, panel.years == 1999][:, 0]
    assert np.array_equal(windows.history[0, :, -1], in_1999)
    assert np.array_equal(windows.history[1, :, -2], in_1999)
    assert np.array_equal(windows.history[3, :, -1], windows.future[0, :, -1])


def test_no_training_window_reaches_into_the_held_out_years(panel: IncomePanel) -> None:
    assert panel.training.last_year[-1] + HORIZON_YEARS == 1999


def test_too_few_years_are_refused(panel: IncomePanel) -> None:
    with pytest.raises(ValueError, match="no window of 13 years"):
        panel.windows(1990, 2001)


def test_model_beats_the_last_value_and_drift(panel: IncomePanel, model: IncomeForecaster) -> None:
    windows = panel.held_out
    fitted = measure(forecast(model, windows.history), windows.future)
    naive = measure(naive_forecast(windows.history, HORIZON_YEARS), windows.future)
    drift = measure(drift_forecast(windows.history, HORIZON_YEARS), windows.future)
    assert fitted.mae < 0.45 * naive.mae
    assert fitted.mape < 0.45 * naive.mape
    assert fitted.mae < drift.mae


def test_rows_do_not_mix(panel: IncomePanel, model: IncomeForecaster) -> None:
    history = panel.held_out.history
    together = forecast(model, history)
    alone = np.concatenate([forecast(model, history[i : i + 1]) for i in range(len(history))])
    np.testing.assert_allclose(alone, together, rtol=1e-6)
    np.testing.assert_allclose(forecast(model, history[::-1].copy()), together[::-1], rtol=1e-6)
    spoiled = history.copy()
    spoiled[0] = np.nan
    np.testing.assert_allclose(forecast(model, spoiled)[1:], together[1:], rtol=1e-6)


def test_model_is_deterministic_and_in_eval_mode(
    panel: IncomePanel, model: IncomeForecaster
) -> None:
    history = panel.held_out.history
    assert not model.training
    assert np.array_equal(forecast(model, history), forecast(model, history))


def test_fit_is_reproducible_and_leaves_torch_as_it_was(panel: IncomePanel) -> None:
    settings = FitSettings(steps=3)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, second = (fit(panel.adjacency, panel.training, settings) for _ in range(2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_model_works_in_dollars(panel: IncomePanel, model: IncomeForecaster) -> None:
    history = panel.held_out.history
    np.testing.assert_allclose(
        forecast(model, 2 * history), 2 * forecast(model, history), rtol=1e-5
    )


def test_model_exports_with_a_symbolic_batch(panel: IncomePanel, model: IncomeForecaster) -> None:
    history = torch.from_numpy(panel.held_out.history)
    program = torch.export.export(
        model, (history[:2],), dynamic_shapes=[{0: torch.export.Dim.AUTO}]
    )
    exported = program.module()
    for rows in (1, 3, 8):
        assert torch.equal(exported(history[:rows]), model(history[:rows]))


def test_picture_is_drawn(panel: IncomePanel, tmp_path: Path) -> None:
    naive = naive_forecast(panel.held_out.history, HORIZON_YEARS)
    path = tmp_path / "new" / "forecast.png"
    draw(ForecastPicture(panel, naive, SHOWN_STATES, "a caption"), path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    "ignore:The ``noload`` loader strategy is deprecated:sqlalchemy.exc.SADeprecationWarning",
)
def test_the_same_recipe_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert find_version(uri) is None
    assert [train_and_register(uri), train_and_register(uri)] == [1, 1]
    assert find_version(uri) == 1
    assert capfd.readouterr().err == ""

    client = MlflowClient(uri)
    (version,) = client.search_model_versions("name = 'income'")
    assert len(version.tags[RECIPE_TAG]) == 64
    metrics = client.get_run(version.run_id).data.metrics
    assert metrics["model_mae_dollars"] < metrics["naive_mae_dollars"]

    (folder,) = tmp_path.glob("mlruns/**/MLmodel")
    signature = Model.load(folder.parent).signature
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("history", (-1, 48, 10))]
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("forecast", (-1, 48, 3))]
    assert (folder.parent / "data" / "model.pt2").is_file()
    assert (folder.parent / "input_example.json").is_file()
