"""Models that each do one thing that is easily lost on the way."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Mlp(nn.Module):
    def __init__(self, inputs: int = 6, outputs: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class DictIn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        score = self.layer(batch["features"]) * batch["weight"]
        return {"score": score, "best": score.argmax(-1)}


class WideGelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class NumpyInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = np.log1p(np.abs(x.numpy()))
        return self.layer(torch.from_numpy(scaled))


class NumpyConstants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std = np.arange(6, dtype=np.float32), np.full(6, 2.0, dtype=np.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - torch.from_numpy(self.mean)) / torch.as_tensor(self.std)


class TwoFree(nn.Module):
    """Pairs of sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bic,bjc->bij", self.layer(left), right).softmax(-1)


class Branch(nn.Module):
    """A branch on a value: only a script keeps it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            return x * 2
        return x - 1


class LongBranch(nn.Module):
    """Takes another branch for series that are longer than any example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 64:
            return x.mean(1) * 2.0
        return x.sum(1)


class ShortBranch(nn.Module):
    """Takes another branch for series that are a little shorter than its example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] < 18:
            return x.sum(1)
        return x.mean(1)


class UnscriptableLongBranch(nn.Module):
    """The same as `LongBranch` by means that a script does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        decide = {True: lambda y: y.mean(1) * 2.0, False: lambda y: y.sum(1)}
        return decide[x.shape[1] > 64](x)


class RareBranch(nn.Module):
    """A branch that no usual input takes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.abs().max() > 1000):
            return torch.zeros_like(x)
        return x * 2


class UnscriptableBranch(nn.Module):
    """The same by means that a script does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        decide = {True: lambda y: y * 2, False: lambda y: y - 1}
        return decide[bool(x.sum() > 0)](x)


class Median(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.median(1).values, torch.cumprod(x, 1)


class Calls(nn.Module):
    """Warms up: after some calls it answers otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x if self.calls > 10_000 else x * 2


class Cached(nn.Module):
    """Keeps what it computes once."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weights is None:
            self.weights = torch.arange(6.0) / 6
        return x * self.weights


class Clock(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1 + (time.time() > 0)) + 1e-9 * torch.tensor(time.time())


class ScriptedLoop(nn.Module):
    """A loop as long as a tensor's size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x[:, 0])
        for step in range(x.size(1)):
            total = total * 0.5 + x[:, step]
        return total


class BatchCentred(nn.Module):
    """Mixes rows: correct alone, wrong in company."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class AverageFrame(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) * 0.01


class ForcedDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.5, training=True)


class Counter(nn.Module):
    """Remembers what it was asked before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x * self.seen


class TextOut(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x, "unit"


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        output, (h, c) = self.lstm(x)
        return output, (h.transpose(0, 1), c.transpose(0, 1))


class Answer(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor


class NamedAnswer(nn.Module):
    def forward(self, x: torch.Tensor) -> Answer:
        return Answer(x.mean(-1), x.std(-1))


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 8, padding_idx=0)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        keep = (tokens != 0).unsqueeze(-1)
        return self.head((self.table(tokens) * keep).sum(1) / keep.sum(1).clamp(min=1))


class Quantile(nn.Module):
    """Sorting and cumulative sums."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x.sort(dim=-1).values, dim=-1)


class TopK(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = x.topk(2, dim=-1)
        return values, places


class Interpolated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Sampled(nn.Module):
    """A grid sample, as for a spatial transformer."""

    def forward(self, image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return functional.grid_sample(image, grid.tanh(), align_corners=False)


class Scatter(nn.Module):
    def forward(self, x: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        return torch.zeros(x.shape[0], 4).scatter_add(1, group, x)


class InPlace(nn.Module):
    """Writes into its argument and into slices."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x[:, 0] = 0
        x[:, 1:] *= 2
        return x


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Residuals(nn.Module):
    """A convolution net with batch and group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.group = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).relu()
        x = x + self.group(self.second(x)).relu()
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1)).log_softmax(-1)


class Distances(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x)


class Bucketed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([-1.0, 0.0, 0.5, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bucketize(x, self.edges)


class Weighted(nn.Module):
    """An input that may be left out."""

    def forward(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        return x.sum(-1) if weight is None else (x * weight).sum(-1)


class NamedScores(nn.Module):
    """A script may say what it returns by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        score = self.layer(x)
        return {"score": score, "best": score.argmax(-1)}


class PooledGrid(nn.Module):
    """Images of any size, of which a grid of one size is made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * (6 + 1), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x).relu()
        mean = functional.adaptive_avg_pool2d(x, (2, 3)).flatten(1)
        return self.head(torch.cat([mean, functional.adaptive_max_pool2d(x, 1).flatten(1)], 1))


class ComplexOut(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x)


class Sparse(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]
