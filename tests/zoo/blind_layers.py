"""Modules that do something which a harmless example does not show."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = [
    "Applied",
    "BothWays",
    "MaskedAttention",
    "MaskedMean",
    "Rated",
    "Searched",
    "Tokens",
]


class Applied(nn.Module):
    """One function of a tensor."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class BothWays(nn.Module):
    """Two LSTMs, one of which reads the series backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = nn.LSTM(3, 5, batch_first=True)
        self.back = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ahead, _ = self.ahead(x)
        back, _ = self.back(x.flip(1))
        return self.head(torch.cat([ahead, back.flip(1)], -1))


class Rated(nn.Module):
    """Rates five items for every user."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        offered = items.view(users.shape[0], 5, 3)
        return (offered * self.layer(users).unsqueeze(1)).sum(-1)


class Searched(nn.Module):
    """Where values belong among edges; a value that is an edge is on its left or on its right."""

    def __init__(self, *, right: bool) -> None:
        super().__init__()
        self.right = right
        self.register_buffer("edges", torch.tensor([-1.0, 0.0, 0.5, 0.5, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(self.edges, x, right=self.right)


class Tokens(nn.Module):
    """Looks tokens up; some have no vector."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 8, padding_idx=0)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(tokens).mean(1))


class MaskedMean(nn.Module):
    """The mean of what a mask keeps, which may be nothing."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask.unsqueeze(-1)
        return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


class MaskedAttention(nn.Module):
    """Weights of what a mask keeps; of nothing they are not numbers."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = x.sum(-1).masked_fill(~mask, float("-inf"))
        return (x * scores.softmax(-1).unsqueeze(-1)).sum(1)
