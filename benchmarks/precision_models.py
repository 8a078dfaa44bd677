"""Models for `benchmarks.precision`, fitted within seconds to scikit-learn's handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models import Block

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MODELS", "Digits", "fitted"]

_SEED = 7
_HELD_OUT = 450
_STEPS, _ROWS = 400, 128

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Digits:
    """1,797 handwritten digits of 8 x 8 pixels, float32 between 0 and 1, some of them held out."""

    seen: Array
    seen_labels: Array
    held_out: Array
    held_out_labels: Array

    @classmethod
    def load(cls) -> Digits:
        """Read what comes with scikit-learn, in an order of its own."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(_SEED).permutation(len(digits.target))
        images = (digits.data[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        labels = digits.target[order]
        return cls(images[_HELD_OUT:], labels[_HELD_OUT:], images[:_HELD_OUT], labels[:_HELD_OUT])


class Perceptron(nn.Module):
    """Three linear layers."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 10),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [batch, 10] for float32 [batch, 1, 8, 8]."""
        return self.layers(image)


class Convolutions(nn.Module):
    """Six convolutions with batch normalisation, two of them around a shortcut."""

    def __init__(self) -> None:
        super().__init__()

        def pair(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
            )  # fmt: skip

        self.first, self.second, self.third = pair(1, 32), pair(32, 64), pair(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [batch, 10] for float32 [batch, 1, 8, 8]."""
        hidden = functional.max_pool2d(self.first(image), 2)
        hidden = self.second(hidden)
        hidden = hidden + self.third(hidden)
        return self.head(hidden.mean((2, 3)))


class Rows(nn.Module):
    """A transformer that reads an image row by row."""

    def __init__(self, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.lift = nn.Linear(8, width)
        self.positions = nn.Parameter(torch.randn(8, width) * 0.1)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 [batch, 10] for float32 [batch, 1, 8, 8]."""
        hidden = self.blocks(self.lift(image.squeeze(1)) + self.positions)
        return self.head(self.norm(hidden).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": Perceptron,
    "convnet": Convolutions,
    "transformer": Rows,
}
"""What is fitted, by the name that it is registered as."""


def fitted(name: str, digits: Digits) -> nn.Module:
    """Fit a model, always to the same weights on the same machine."""
    torch.manual_seed(_SEED)
    model = MODELS[name]()
    images, labels = torch.from_numpy(digits.seen), torch.from_numpy(digits.seen_labels)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(_STEPS):
        rows = torch.randint(0, len(images), (_ROWS,))
        loss = functional.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
