"""Fits the forecaster: the whole training set at every step, on one thread, from one seed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from examples.us_income.model import IncomeForecaster

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from examples.us_income.data import Windows

__all__ = ["FitSettings", "fit", "forecast"]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What decides the weights, beside the data and the code.

    Attributes:
        channels: Width of the hidden layers.
        steps: Optimiser steps, each over all windows.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Decoupled weight decay of AdamW.
        growth_scale: Unit in which the model sees and gives growth, log growth a year.
        outlier: Error, in log income, from which the loss grows linearly instead of squared.
        seed: Seed of the initial weights.
    """

    channels: int = 8
    steps: int = 150
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    growth_scale: float = 0.05
    outlier: float = 0.03
    seed: int = 0


def fit(
    adjacency: NDArray[np.float32], windows: Windows, settings: FitSettings | None = None
) -> IncomeForecaster:
    """Fit a forecaster to windows; the same input gives the same weights.

    Args:
        adjacency: float32 [states, states], 1 where two states share a border.
        windows: Histories and futures in US dollars.
        settings: How to fit; the defaults where None.

    Returns:
        The model in eval mode.
    """
    settings = settings or FitSettings()
    history = torch.from_numpy(windows.history)
    future = torch.from_numpy(windows.future)
    with _reproducible(settings.seed):
        model = IncomeForecaster(
            adjacency,
            history_years=history.shape[-1],
            horizon_years=future.shape[-1],
            channels=settings.channels,
            growth_scale=settings.growth_scale,
        )
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=settings.steps
        )
        for _ in range(settings.steps):
            error = torch.log(model(history) / future)
            loss = nn.functional.huber_loss(error, torch.zeros_like(error), delta=settings.outlier)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return model


def forecast(model: IncomeForecaster, history: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the model: [batch, states, years] to [batch, states, horizon], US dollars."""
    with torch.no_grad():
        result: NDArray[np.float32] = model(torch.from_numpy(history)).numpy()
    return result


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed torch and keep it to one thread, so that sums are taken in one order; undone after."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
