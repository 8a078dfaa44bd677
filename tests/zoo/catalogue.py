"""Models that people register, each with what should come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol

from tests.zoo import modules, onnx_files, tabular, transformer_models

from .comparing import Array, Near

__all__ = ["KINDS", "ROWS", "ZOO", "Model"]

ROWS = (1, 2, 5, 16)
"""The numbers of rows that every model is asked."""


class Model(Protocol):
    """One model of the zoo.

    Attributes:
        name: What it is registered as.
        refused: A word of the reason for which it is refused; empty where it is served.
        servable: Whether it could be served as it was registered.
        batched: Whether its rows may be batched.
        near: How far its numbers may be off.
    """

    @property
    def name(self) -> str: ...
    @property
    def refused(self) -> str: ...
    @property
    def servable(self) -> bool: ...
    @property
    def batched(self) -> bool: ...
    @property
    def near(self) -> Near: ...

    def register(self) -> None:
        """Log it as its author would, in the registry that MLflow is pointed at."""

    def rows(self, count: int) -> dict[str, Array]:
        """Return as many rows, by the names of the served inputs."""

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the registered model's own answer, output by output."""


KINDS: Mapping[str, Sequence[Model]] = {
    "torch modules": modules.ZOO,
    "models of transformers": transformer_models.ZOO,
    "estimators": tabular.ZOO,
    "ONNX files": onnx_files.ZOO,
}

ZOO: tuple[Model, ...] = tuple(chain.from_iterable(KINDS.values()))
