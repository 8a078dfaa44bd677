"""How far forecasts are off, and the two forecasts that a model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Accuracy", "drift_forecast", "measure", "naive_forecast"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Mean errors over all windows, states and years ahead.

    Attributes:
        mae: Mean absolute error, US dollars.
        mape: Mean absolute error relative to the actual income, percent.
    """

    mae: float
    mape: float


def measure(forecast: NDArray[np.float32], future: NDArray[np.float32]) -> Accuracy:
    """Compare forecasts with what happened; both [..., horizon] in US dollars."""
    error = np.abs(forecast.astype(np.float64) - future)
    return Accuracy(mae=float(error.mean()), mape=float(100.0 * (error / future).mean()))


def naive_forecast(history: NDArray[np.float32], horizon: int) -> NDArray[np.float32]:
    """Carry the last known income forward: [..., years] to [..., horizon], US dollars."""
    return np.repeat(history[..., -1:], horizon, axis=-1)


def drift_forecast(history: NDArray[np.float32], horizon: int) -> NDArray[np.float32]:
    """Carry each series' own mean growth forward: [..., years] to [..., horizon], US dollars.

    This is the drift method of Hyndman and Athanasopoulos, Forecasting: Principles and Practice,
    section 5.2, on the logarithm. On incomes that grow it is a far harder rival than the last
    value.
    """
    growth = np.log(history[..., -1:] / history[..., :1]) / (history.shape[-1] - 1)
    steps = np.arange(1, horizon + 1, dtype=np.float32)
    forecast: NDArray[np.float32] = history[..., -1:] * np.exp(growth * steps)
    return forecast.astype(np.float32)
