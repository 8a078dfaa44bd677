"""Architectures of forecasting in space and time."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ConvLSTM(nn.Module):
    """Frames in, the next frame out; the recurrence is a Python loop over time."""

    def __init__(self, channels: int = 2, hidden: int = 4) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Conv2d(hidden, channels, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        rows, steps, _, height, width = frames.shape
        h = frames.new_zeros(rows, self.hidden, height, width)
        c = torch.zeros_like(h)
        for step in range(steps):
            gates = self.gates(torch.cat([frames[:, step], h], dim=1))
            i, f, o, g = gates.chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class TemporalConvolution(nn.Module):
    """Dilated causal convolutions with residuals."""

    def __init__(self, series: int = 3, width: int = 8) -> None:
        super().__init__()
        self.lift = nn.Conv1d(series, width, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**n) for n in range(3))
        self.head = nn.Conv1d(width, series, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x.transpose(1, 2))
        for number, layer in enumerate(self.layers):
            x = x + layer(functional.pad(x, (2**number, 0))).relu()
        return self.head(x).transpose(1, 2)


class AdaptiveGraph(nn.Module):
    """Graph convolution over an adjacency that is learned."""

    def __init__(self, nodes: int = 6, width: int = 8) -> None:
        super().__init__()
        self.source = nn.Parameter(torch.randn(nodes, 4))
        self.target = nn.Parameter(torch.randn(4, nodes))
        self.first, self.second = nn.Linear(1, width), nn.Linear(2 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adjacency = (self.source @ self.target).relu().softmax(dim=1)
        h = self.first(x.unsqueeze(-1)).relu()
        mixed = torch.einsum("vw,bwc->bvc", adjacency, h)
        return self.second(torch.cat([h, mixed], dim=-1)).squeeze(-1)


class DiffusionCell(nn.Module):
    """A recurrent cell whose gates diffuse over a fixed graph, run over a sequence."""

    def __init__(self, nodes: int = 5, hidden: int = 4) -> None:
        super().__init__()
        walk = torch.rand(nodes, nodes)
        self.register_buffer("walk", walk / walk.sum(1, keepdim=True))
        self.gates = nn.Linear(3 * (1 + hidden), 2 * hidden)
        self.candidate = nn.Linear(3 * (1 + hidden), hidden)
        self.hidden, self.head = hidden, nn.Linear(hidden, 1)

    def diffuse(self, x: torch.Tensor) -> torch.Tensor:
        once = torch.einsum("vw,bwc->bvc", self.walk, x)
        return torch.cat([x, once, torch.einsum("vw,bwc->bvc", self.walk, once)], dim=-1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        h = series.new_zeros(series.shape[0], series.shape[2], self.hidden)
        for step in range(series.shape[1]):
            x = series[:, step].unsqueeze(-1)
            update, reset = self.gates(self.diffuse(torch.cat([x, h], -1))).sigmoid().chunk(2, -1)
            new = self.candidate(self.diffuse(torch.cat([x, reset * h], -1))).tanh()
            h = update * h + (1 - update) * new
        return self.head(h).squeeze(-1)


class MaskedTransformer(nn.Module):
    """An encoder over sequences of which the ends are padding, pooled over what is not."""

    def __init__(self, features: int = 4, width: int = 16) -> None:
        super().__init__()
        self.lift = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        h = self.encoder(self.lift(x), src_key_padding_mask=padding)
        keep = (~padding).unsqueeze(-1).to(h.dtype)
        return self.head((h * keep).sum(1) / keep.sum(1).clamp(min=1))


class CausalTransformer(nn.Module):
    """An encoder with a square mask that is made in forward()."""

    def __init__(self, features: int = 3, width: int = 16) -> None:
        super().__init__()
        self.lift = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(width, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = x.shape[1]
        mask = torch.triu(torch.full((steps, steps), float("-inf")), diagonal=1)
        return self.head(self.encoder(self.lift(x), mask=mask))


class UNet(nn.Module):
    """Two levels down and up, with a transposed convolution and a skip."""

    def __init__(self, channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.bottom = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        low = self.bottom(functional.max_pool2d(skip, 2))
        return self.head(torch.cat([skip, self.up(low)], dim=1))


class SpectralConvolution(nn.Module):
    """A Fourier layer: the lowest modes are mixed, the rest passes through a bypass."""

    def __init__(self, width: int = 4, modes: int = 5) -> None:
        super().__init__()
        self.modes = modes
        self.real = nn.Parameter(torch.randn(width, width, modes) / width)
        self.imaginary = nn.Parameter(torch.randn(width, width, modes) / width)
        self.lift, self.bypass = nn.Linear(1, width), nn.Conv1d(width, width, 1)
        self.head = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lift(x.unsqueeze(-1)).transpose(1, 2)
        modes = torch.fft.rfft(h)[..., : self.modes]
        weights = torch.complex(self.real, self.imaginary)
        mixed = torch.einsum("bim,iom->bom", modes, weights)
        h = torch.fft.irfft(mixed, n=x.shape[1]) + self.bypass(h)
        return self.head(h.relu().transpose(1, 2)).squeeze(-1)


class PowerSpectrum(nn.Module):
    """The magnitudes of a real transform."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x, norm="ortho").abs()


class GraphAttention(nn.Module):
    """Attention over the edges of a fixed graph, with a mask of minus infinity."""

    def __init__(self, nodes: int = 5, features: int = 3, width: int = 4) -> None:
        super().__init__()
        self.register_buffer("edges", torch.rand(nodes, nodes) > 0.5)
        self.edges |= torch.eye(nodes, dtype=torch.bool)
        self.lift = nn.Linear(features, width, bias=False)
        self.left, self.right = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lift(x)
        score = functional.leaky_relu(self.left(h) + self.right(h).transpose(1, 2), 0.2)
        score = score.masked_fill(~self.edges, float("-inf"))
        return torch.einsum("bvw,bwc->bvc", score.softmax(-1), h)


class Seq2Seq(nn.Module):
    """A GRU reads, another one writes several steps ahead."""

    def __init__(self, features: int = 2, hidden: int = 8, ahead: int = 3) -> None:
        super().__init__()
        self.ahead = ahead
        self.encoder = nn.GRU(features, hidden, batch_first=True)
        self.decoder = nn.GRUCell(features, hidden)
        self.head = nn.Linear(hidden, features)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        _, state = self.encoder(history)
        h, last, forecast = state[-1], history[:, -1], []
        for _ in range(self.ahead):
            h = self.decoder(last, h)
            last = last + self.head(h)
            forecast.append(last)
        return torch.stack(forecast, dim=1)


class PackedSequences(nn.Module):
    """Series of several lengths, each read to its own end: the last state forecasts."""

    def __init__(self, features: int = 3, hidden: int = 5) -> None:
        super().__init__()
        self.encoder = nn.GRU(features, hidden, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths[:, 0].cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.encoder(packed)
        return self.head(torch.cat([state[-2], state[-1]], dim=1))
