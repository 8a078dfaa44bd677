"""A small model of transformers with drawn weights and a tokenizer of twenty words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import mlflow
import numpy as np
import torch
import transformers

from .comparing import Array, Near

__all__ = ["ZOO", "TransformerModel"]

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "cat", "dog", "film", "sat", "ran"),
    *("on", "was", "very", "good", "bad", "fast", "slow", "##s"),
]
TEXTS = ["the cat sat on the dog", "a very bad film", "good", "the dogs ran"]
_SIZES: Mapping[str, Any] = {"vocab_size": len(WORDS), "max_position_embeddings": 48}
_DISTILBERT: Mapping[str, Any] = {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48}


@dataclass(frozen=True)
class TransformerModel:
    """One model with its tokenizer.

    Attributes:
        name: What it is registered as.
        kind: Its class.
        config: Its configuration's class.
        sizes: What that is made with.
        task: What a pipeline with it is for.
        inputs: The tensors of the tokenizer that it takes.
        refused: A word of the reason for which it must be refused; empty where it is servable.
    """

    name: str
    kind: str
    config: str
    sizes: Mapping[str, Any]
    task: str
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    refused: str = ""
    batched: ClassVar[bool] = True
    near: ClassVar[Near] = Near(2e-3, 2e-4)

    @property
    def servable(self) -> bool:
        return not self.refused

    @cached_property
    def network(self) -> Any:
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.sizes, **_SIZES)
        return getattr(transformers, self.kind)(config).eval()

    @cached_property
    def tokenizer(self) -> Any:
        return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})

    def register(self) -> None:
        """Log it as its author would."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.transformers.log_model(
                {"model": self.network, "tokenizer": self.tokenizer},
                name="model",
                registered_model_name=self.name,
                task=self.task,
                input_example=TEXTS[:2],
                pip_requirements=["transformers"],
            )

    def rows(self, count: int) -> dict[str, Array]:
        """Return the tensors of as many fresh texts of different lengths."""
        random = np.random.default_rng(count)
        texts = [" ".join(random.choice(WORDS[5:-1], random.integers(1, 12))) for _ in range(count)]
        made = self.tokenizer(texts, padding=True, return_tensors="np")
        return {name: np.asarray(made[name], dtype=np.int64) for name in self.inputs}

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return its own answer, output by output."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
        with torch.no_grad():
            return [value.numpy() for value in self.network(**tensors).to_tuple()]


ZOO: tuple[TransformerModel, ...] = (
    TransformerModel("distilbert-of-tokens", "DistilBertForTokenClassification",
                     "DistilBertConfig", _DISTILBERT, "token-classification"),
)  # fmt: skip
