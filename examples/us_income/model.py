"""A small spatio-temporal graph network: dollars in, dollars out.

Growth is ``log(income[t + 1] / income[t])``, and it is forecast in two parts. The nation's is its
mean over the history, plus a learnt share, one number a year ahead, of how far the last year stood
from that mean: the training set holds some sixty national histories that overlap, too few for more.
How each state departs from the nation is the network's part. Gated temporal convolutions, dilated
as in WaveNet, read each state's growth and relative wealth along the years; after each, a graph
convolution lets every state see its neighbours and the nation, as in Graph WaveNet (Wu et al. 2019,
https://arxiv.org/abs/1906.00121). The forecast is the last known income carried forward.

Scaling lies inside the model, so that a client sends dollars and gets dollars. Nothing is shared
between the rows of a batch, and nothing is random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["IncomeForecaster"]

_KERNEL = 3
_DILATIONS = (1, 2, 1)
_SMALLEST_INCOME = 1.0
_LARGEST_GROWTH = 0.25


class IncomeForecaster(nn.Module):
    """Forecasts the per-capita income of every state for the years to come.

    Args:
        adjacency: float32 [states, states], 1 where two states share a border.
        history_years: Length of the history; must be 10 with the receptive field built here.
        horizon_years: Years to forecast.
        channels: Width of the hidden layers.
        growth_scale: Typical size of a departure from the mean growth, in log growth a year.
    """

    def __init__(
        self,
        adjacency: NDArray[np.float32],
        *,
        history_years: int,
        horizon_years: int,
        channels: int = 8,
        growth_scale: float = 0.05,
    ) -> None:
        super().__init__()
        receptive_field = 1 + (_KERNEL - 1) * sum(_DILATIONS)
        if history_years - 1 != receptive_field:
            raise ValueError(f"the history must span {receptive_field + 1} years")
        self.growth_scale = growth_scale
        # A clamp with one bound becomes ONNX Clip, which in ONNX Runtime makes Inf finite.
        self.smallest_income: Tensor
        self.register_buffer("smallest_income", torch.tensor(_SMALLEST_INCOME))
        self.neighbour_mean: Tensor
        neighbours = torch.from_numpy(adjacency)
        self.register_buffer("neighbour_mean", neighbours / neighbours.sum(dim=1, keepdim=True))
        widths = (2, *[channels] * len(_DILATIONS))
        self.temporal = nn.ModuleList(
            GatedConvolution(width, channels, dilation)
            for width, dilation in zip(widths, _DILATIONS, strict=False)
        )
        self.spatial = nn.ModuleList(GraphConvolution(channels) for _ in _DILATIONS)
        self.persistence = nn.Parameter(torch.zeros(horizon_years))
        self.head = nn.Linear(channels, horizon_years)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, history: Tensor) -> Tensor:
        """Forecast the years that follow a history.

        Args:
            history: float32 [batch, states, history_years], US dollars, oldest year first.

        Returns:
            float32 [batch, states, horizon_years], US dollars, nearest year first.
        """
        income = torch.maximum(history, self.smallest_income).transpose(1, 2).unsqueeze(-1)
        growth = torch.log(income[:, 1:] / income[:, :-1])
        trend = growth.mean(dim=(1, 2), keepdim=True)
        wealth = torch.log(income / income.mean(dim=2, keepdim=True))[:, 1:]
        hidden = torch.cat([(growth - trend) / self.growth_scale, wealth], dim=-1)
        for temporal, spatial in zip(self.temporal, self.spatial, strict=True):
            hidden = spatial(temporal(hidden), self.neighbour_mean)
        departure = self.head(hidden[:, -1])
        departure = departure - departure.mean(dim=1, keepdim=True)
        latest = growth[:, -1].mean(dim=1, keepdim=True)
        national = trend[:, -1] + self.persistence * (latest - trend[:, -1])
        ahead = national + self.growth_scale * departure
        bounded = _LARGEST_GROWTH * torch.tanh(ahead / _LARGEST_GROWTH)
        return income[:, -1] * torch.exp(torch.cumsum(bounded, dim=-1))


class GatedConvolution(nn.Module):
    """A dilated convolution along the years with a tanh content and a sigmoid gate."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.content = nn.Linear(inputs * _KERNEL, outputs)
        self.gate = nn.Linear(inputs * _KERNEL, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [batch, years, states, inputs] to [batch, fewer years, states, outputs]."""
        years = hidden.shape[1] - (_KERNEL - 1) * self.dilation
        taps = [hidden[:, tap * self.dilation :][:, :years] for tap in range(_KERNEL)]
        window = torch.cat(taps, dim=-1)
        return torch.tanh(self.content(window)) * torch.sigmoid(self.gate(window))


class GraphConvolution(nn.Module):
    """Mixes each state with the mean of its neighbours and of the nation, around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(3 * channels, channels)

    def forward(self, hidden: Tensor, neighbour_mean: Tensor) -> Tensor:
        """Map [batch, years, states, channels] to the same shape."""
        neighbours = torch.matmul(neighbour_mean, hidden)
        nation = hidden.mean(dim=2, keepdim=True).expand_as(hidden)
        return hidden + torch.tanh(self.mix(torch.cat([hidden, neighbours, nation], dim=-1)))
