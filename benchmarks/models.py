"""The models that are measured, and how each gets into an MLflow registry.

    python -m benchmarks.models encoder --tracking-uri sqlite:///mlflow.db

It prints one JSON object: the version, the bytes of its weights, and where its question and the
answer to it were written, for whoever serves it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NAMES", "Encoder", "Forecaster", "Stack", "register", "signature"]

NAMES = ("income", "gru", "encoder", "huge")
_SEED = 7
_EXAMPLE_ROWS = 4


class Block(nn.Module):
    """A pre-norm transformer block: attention, then two linear layers, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.before_layers = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [batch, positions, width], as it was given."""
        batch, positions, width = x.shape
        parts = self.query_key_value(self.before_attention(x)).chunk(3, dim=-1)
        query, key, value = (
            part.reshape(batch, positions, self.heads, width // self.heads).transpose(1, 2)
            for part in parts
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.merge(attended.transpose(1, 2).reshape(batch, positions, width))
        return x + self.layers(self.before_layers(x))


class Encoder(nn.Module):
    """A text encoder of BERT's base size: 108 million parameters.

    Args:
        vocabulary: Number of tokens.
        positions: Tokens in a row.
        width: Of the hidden layers.
        heads: Of the attention.
        depth: Number of blocks.
    """

    def __init__(
        self,
        vocabulary: int = 30_000,
        positions: int = 32,
        width: int = 768,
        heads: int = 12,
        depth: int = 12,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embedding, float32 [batch, width], of int64 tokens [batch, positions]."""
        hidden = self.norm(self.blocks(self.tokens(tokens) + self.positions))
        return hidden.mean(dim=1)


class Stack(nn.Module):
    """Wide linear layers in a row: 2.4 GB of weights, more than one protobuf can hold."""

    def __init__(self, width: int = 8192, depth: int = 9) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [batch, 16] for float32 [batch, width]."""
        for layer in self.layers:
            x = x + functional.relu(layer(x))
        return self.head(x)


class Forecaster(nn.Module):
    """A small GRU: some 5,000 parameters, so that serving it is mostly the server's work."""

    def __init__(self, series: int = 8, width: int = 32, horizon: int = 6) -> None:
        super().__init__()
        self.horizon = horizon
        self.recurrent = nn.GRU(series, width, batch_first=True)
        self.head = nn.Linear(width, horizon * series)

    def forward(self, history: Tensor) -> Tensor:
        """Return float32 [batch, horizon, series] for float32 [batch, steps, series]."""
        hidden, _ = self.recurrent(history)
        return self.head(hidden[:, -1]).reshape(history.shape[0], self.horizon, history.shape[2])


def _gru() -> tuple[nn.Module, np.ndarray]:
    history = np.random.default_rng(_SEED).standard_normal((_EXAMPLE_ROWS, 24, 8))
    return Forecaster(), history.astype(np.float32)


def _encoder() -> tuple[nn.Module, np.ndarray]:
    tokens = np.random.default_rng(_SEED).integers(0, 30_000, (_EXAMPLE_ROWS, 32), dtype=np.int64)
    return Encoder(), tokens


def _huge() -> tuple[nn.Module, np.ndarray]:
    values = np.random.default_rng(_SEED).standard_normal((_EXAMPLE_ROWS, 8192), dtype=np.float32)
    return Stack(), values


_MAKE: dict[str, Callable[[], tuple[nn.Module, np.ndarray]]] = {
    "gru": _gru,
    "encoder": _encoder,
    "huge": _huge,
}


def signature(example: np.ndarray, answer: np.ndarray) -> Any:
    """Name the tensors as the demo's model does, and leave the number of rows open."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    question = TensorSpec(example.dtype, (-1, *example.shape[1:]), name="history")
    forecast = TensorSpec(answer.dtype, (-1, *answer.shape[1:]), name="forecast")
    return ModelSignature(Schema([question]), Schema([forecast]))


def register(name: str, tracking_uri: str) -> int:
    """Log a model as pt2 and register it."""
    import mlflow
    import mlflow.pytorch

    torch.manual_seed(_SEED)
    model, example = _MAKE[name]()
    model.eval()
    with torch.no_grad():
        answer = model(torch.from_numpy(example)).numpy()
    mlflow.set_tracking_uri(tracking_uri)
    with mlflow.start_run():
        info = mlflow.pytorch.log_model(
            model,
            name=name,
            registered_model_name=name,
            signature=signature(example, answer),
            input_example=example,
            serialization_format="pt2",
            pip_requirements=["torch"],
            validate_serving_input=False,
        )
    return int(info.registered_model_version)


def _ask(name: str, version: int, tracking_uri: str, folder: Path) -> dict[str, object]:
    """Have ``dev`` name the version, load it, write a question with its answer, and weigh it."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.MlflowClient().set_registered_model_alias(name, "dev", str(version))
    uri = f"models:/{name}@dev"
    example = mlflow.models.Model.load(uri).load_input_example(uri)
    module = mlflow.pytorch.load_model(uri)
    # MLflow keeps the one array bare, or under the name that the signature gives it.
    (question,) = example.values() if isinstance(example, dict) else (example,)
    with torch.no_grad():
        answer = module(torch.from_numpy(question)).numpy()
    path = folder / f"{name}.npz"
    np.savez(path, question=question, answer=answer)
    tensors = [*module.parameters(), *module.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return {"weights_bytes": weights, "question": str(path)}


def main() -> None:
    """Register one model, by its name on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    options = parser.parse_args()
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if options.name == "income":
        from examples.us_income.train import train_and_register

        version = train_and_register(options.tracking_uri)
    else:
        version = register(options.name, options.tracking_uri)
    facts = _ask(options.name, version, options.tracking_uri, options.folder)
    print(json.dumps({"version": version, **facts}))


if __name__ == "__main__":
    main()
