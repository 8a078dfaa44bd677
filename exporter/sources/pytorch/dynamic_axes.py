"""Infers which sizes of a module's tensors vary, by running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from exporter.interface import Axis

__all__ = ["infer_dynamic_axes"]

Places = list[tuple[int, int]]
"""Inputs by number, with an axis of each."""


def infer_dynamic_axes(
    run: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
    example: Sequence[torch.Tensor],
    varying: Sequence[Sequence[int]],
) -> tuple[list[tuple[Axis, ...]], list[tuple[Axis, ...]], list[torch.Tensor]]:
    """Return the axes of inputs and outputs, and an example without varying sizes of 1.

    A size is a symbol where it is declared to vary and the module takes another one. Sizes that are
    equal in the example share a symbol.

    Args:
        run: Runs the module; raises where it refuses.
        example: Its inputs.
        varying: The axes of every input that are declared to vary.
    """
    groups = _groups(example, varying)
    example = _beyond_one(run, example, groups)
    inputs: list[list[Axis]] = [list(tensor.shape) for tensor in example]
    answer = run(example)
    outputs: list[list[Axis]] = [list(tensor.shape) for tensor in answer]
    for symbol, places in groups.items():
        changed = _another(run, example, places)
        if changed is None:
            continue
        for tensor, axis in places:
            inputs[tensor][axis] = symbol
        for index, (before, after) in enumerate(zip(answer, changed, strict=True)):
            if before.dim() != after.dim():
                continue
            for axis, (size, other) in enumerate(zip(before.shape, after.shape, strict=True)):
                if size != other:
                    held = outputs[index][axis]
                    outputs[index][axis] = symbol if isinstance(held, int) else f"{held}+{symbol}"
    return [tuple(axes) for axes in inputs], [tuple(axes) for axes in outputs], list(example)


def _groups(example: Sequence[torch.Tensor], varying: Sequence[Sequence[int]]) -> dict[str, Places]:
    """The places of each symbol: leading axes are rows, others share one where sizes are equal."""
    groups: dict[str, Places] = {}
    for number, (tensor, axes) in enumerate(zip(example, varying, strict=True)):
        for axis in axes:
            size = tensor.shape[axis]
            rows = axis == 0 and size == example[0].shape[0]
            groups.setdefault("rows" if rows else f"size_{axis}_{size}", []).append((number, axis))
    return groups


def _another(run: Any, example: Sequence[torch.Tensor], places: Places) -> Any:
    tensor, axis = places[0]
    size = example[tensor].shape[axis]
    for other in (size + 1, size * 2):
        with suppress(Exception):  # whatever a model raises at a size
            return run(_resized(example, places, other))
    return None


def _beyond_one(
    run: Any, example: Sequence[torch.Tensor], groups: dict[str, Places]
) -> Sequence[torch.Tensor]:
    """Grow sizes of 1, which a tracer takes for constant."""
    for number, places in enumerate(groups.values()):
        tensor, axis = places[0]
        if example[tensor].shape[axis] > 1:
            continue
        larger = _resized(example, places, 2 + number)
        with suppress(Exception):  # whatever a model raises at a size
            run(larger)
            example = larger
    return example


def _resized(example: Sequence[torch.Tensor], places: Places, size: int) -> list[torch.Tensor]:
    """Give axes another size, with the example's own values repeated."""
    result = list(example)
    for tensor, axis in places:
        chosen = torch.arange(size) % result[tensor].shape[axis]
        result[tensor] = result[tensor].index_select(axis, chosen)
    return result
