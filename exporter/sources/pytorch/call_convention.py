"""Finds how a module takes its inputs: by position, by keyword, or as one dict."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["PositionalModule", "bind_inputs"]


class PositionalModule(torch.nn.Module):  # type: ignore[misc]
    """A module that takes tensors by position and returns its tensors flat.

    Attributes:
        module: The module, unchanged.
        names: Its own names of the inputs, in order.
        convention: ``position``, ``keyword`` or ``dict``.
    """

    def __init__(self, module: torch.nn.Module, names: Sequence[str], convention: str) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.convention = convention
        self.training = module.training

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors of the module's result."""
        return tuple(leaf for leaf in pytree.tree_leaves(self.result(*tensors)) if leaf is not None)

    def result(self, *tensors: torch.Tensor) -> Any:
        """Return the module's own result."""
        if self.convention == "position":
            return self.module(*tensors)
        named = dict(zip(self.names, tensors, strict=True))
        return self.module(**named) if self.convention == "keyword" else self.module(named)


def bind_inputs(
    module: torch.nn.Module, names: Sequence[str], example: Sequence[torch.Tensor]
) -> PositionalModule:
    """Return a module with the first calling convention that works.

    Raises:
        Exception: Whatever the module raises where none works.
    """
    first: Exception | None = None
    for convention in _conventions(module, names):
        found = PositionalModule(module, names, convention)
        try:
            with torch.no_grad():
                found(*(tensor.clone() for tensor in example))
        except Exception as error:  # noqa: BLE001 - whatever a model raises
            first = first or error
        else:
            return found
    raise first or ValueError("no calling convention works")


def _conventions(module: torch.nn.Module, names: Sequence[str]) -> Sequence[str]:
    """The conventions to try, the likeliest first."""
    parameters = _parameters(module)
    if not (names and all(names)):
        return ("position",)
    if len(names) > len(parameters) > 0:
        return ("dict", "position")
    if list(names) == parameters[: len(names)]:
        return ("position", "keyword", "dict")
    if set(names) <= set(parameters):
        return ("keyword", "position", "dict")
    return ("position", "dict")


def _parameters(module: torch.nn.Module) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return [argument.name for argument in module.forward.schema.arguments][1:]
    try:
        return [
            name
            for name, parameter in inspect.signature(module.forward).parameters.items()
            if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        ]
    except (TypeError, ValueError):
        return []
