"""How a module takes its inputs: by position, by keyword, or as one dict."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PositionalModule", "bind_inputs"]


class PositionalModule(torch.nn.Module):  # type: ignore[misc]
    """A module that takes tensors by position and returns its tensors flat.

    Attributes:
        module: The module, as it is.
        names: What it calls its inputs, in order.
        way: ``position``, ``keyword`` or ``dict``.
    """

    def __init__(self, module: torch.nn.Module, names: Sequence[str], way: str) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.way = way
        self.training = module.training

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return every tensor of the module's answer."""
        return tuple(leaf for leaf in pytree.tree_leaves(self.answer(*tensors)) if leaf is not None)

    def answer(self, *tensors: torch.Tensor) -> Any:
        """Return the module's answer as it gives it."""
        if self.way == "position":
            return self.module(*tensors)
        named = dict(zip(self.names, tensors, strict=True))
        return self.module(**named) if self.way == "keyword" else self.module(named)


def bind_inputs(
    module: torch.nn.Module, names: Sequence[str], example: Sequence[torch.Tensor]
) -> PositionalModule:
    """Find out how a module takes its inputs.

    Args:
        module: The module.
        names: The names of its inputs; empty where the signature gives none.
        example: What it can answer.

    Raises:
        Exception: Whatever the module raises where it takes them in no way.
    """
    first: Exception | None = None
    for way in _ways(module, names):
        found = PositionalModule(module, names, way)
        try:
            with torch.no_grad():
                found(*(tensor.clone() for tensor in example))
        except Exception as error:  # noqa: BLE001 - whatever a model raises
            first = first or error
        else:
            return found
    raise first or ValueError("no way to call it")


def _ways(module: torch.nn.Module, names: Sequence[str]) -> Iterator[str]:
    parameters = _parameters(module)
    named = bool(names) and all(names)
    if named and list(names) == parameters[: len(names)]:
        yield "position"
    if named and set(names) <= set(parameters):
        yield "keyword"
    if named and len(names) > len(parameters) > 0:
        yield "dict"
        yield "position"
        return
    yield "position"
    if named:
        yield "dict"


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
