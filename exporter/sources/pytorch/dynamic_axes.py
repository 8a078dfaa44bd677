"""Infers which sizes of a module's tensors vary, by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch

from exporter.interface import Axis, multiple_of

__all__ = ["infer_dynamic_axes"]

Places = list[tuple[int, int, int]]
"""Inputs by number, with an axis of each and how many times the symbol's size that axis has."""


def infer_dynamic_axes(
    run: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
    example: Sequence[torch.Tensor],
    varying: Sequence[Sequence[int]],
) -> tuple[list[tuple[Axis, ...]], list[tuple[Axis, ...]], list[torch.Tensor]]:
    """Return the axes of inputs and outputs, and an example without varying sizes of 1.

    A size is a symbol where it is declared to vary and the module takes another one. Sizes that are
    equal in the example share a symbol. Of two sizes that vary only together, in a whole ratio, the
    larger one is a multiple of the other one's symbol, such as ``5*rows``.

    Args:
        run: Runs the module; raises where it refuses.
        example: Its inputs.
        varying: The axes of every input that are declared to vary.
    """
    groups = _groups(example, varying)
    inputs, outputs, grown = _varied(run, example, groups)
    related = _related(run, example, groups, inputs)
    if related != groups:
        inputs, outputs, grown = _varied(run, example, related)
    return [tuple(axes) for axes in inputs], [tuple(axes) for axes in outputs], list(grown)


def _varied(
    run: Any, example: Sequence[torch.Tensor], groups: dict[str, Places]
) -> tuple[list[list[Axis]], list[list[Axis]], Sequence[torch.Tensor]]:
    """The axes of inputs and outputs, and the example that they were varied from."""
    example = _beyond_one(run, example, groups)
    inputs: list[list[Axis]] = [list(tensor.shape) for tensor in example]
    answer = run(example)
    outputs: list[list[Axis]] = [list(tensor.shape) for tensor in answer]
    for symbol, places in groups.items():
        changed: set[tuple[int, int]] = set()
        for other in _others(run, example, places):
            for tensor, axis, factor in places:
                inputs[tensor][axis] = multiple_of(symbol, factor)
            changed |= _changed(answer, other)
            if {index for index, _ in changed} == set(range(len(answer))):
                break
        for index, axis in sorted(changed):
            held = outputs[index][axis]
            outputs[index][axis] = symbol if isinstance(held, int) else f"{held}+{symbol}"
    return inputs, outputs, example


def _changed(answer: Any, other: Any) -> set[tuple[int, int]]:
    """The outputs with their axes that have another size in another answer."""
    return {
        (index, axis)
        for index, (before, after) in enumerate(zip(answer, other, strict=True))
        if before.dim() == after.dim()
        for axis in range(before.dim())
        if before.shape[axis] != after.shape[axis]
    }


def _groups(example: Sequence[torch.Tensor], varying: Sequence[Sequence[int]]) -> dict[str, Places]:
    """The places of each symbol: leading axes are rows, others share one where sizes are equal."""
    groups: dict[str, Places] = {}
    for number, (tensor, axes) in enumerate(zip(example, varying, strict=True)):
        for axis in axes:
            size = tensor.shape[axis]
            rows = axis == 0 and size == example[0].shape[0]
            symbol = "rows" if rows else f"size_{axis}_{size}"
            groups.setdefault(symbol, []).append((number, axis, 1))
    return groups


def _related(
    run: Any,
    example: Sequence[torch.Tensor],
    groups: dict[str, Places],
    inputs: Sequence[Sequence[Axis]],
) -> dict[str, Places]:
    """The groups, with those put together that vary only together; *inputs* has what varies."""

    def size(symbol: str) -> int:
        tensor, axis, _ = groups[symbol][0]
        return int(example[tensor].shape[axis])

    def leading(symbol: str) -> bool:
        return all(axis == 0 for _, axis, _ in groups[symbol])

    frozen = [s for s, ((tensor, axis, _), *_) in groups.items() if inputs[tensor][axis] != s]
    result = dict(groups)
    for small in sorted(frozen, key=size):
        for large in frozen:
            factor, rest = divmod(size(large), max(size(small), 1))
            if rest or factor < 2 or leading(small) != leading(large):
                continue
            if small not in result or large not in result:
                continue  # part of another group by now
            multiple = [(tensor, axis, factor) for tensor, axis, _ in groups[large]]
            together = [*result[small], *multiple]
            if any(True for _ in _others(run, example, together)):
                result[small] = together
                del result[large]
    return result


def _others(run: Any, example: Sequence[torch.Tensor], places: Places) -> Iterator[Any]:
    """The answers at other sizes that the module takes."""
    size = _size(example, places)
    for other in (size + 1, size * 2):
        answer = None
        with suppress(Exception):  # whatever a model raises at a size
            answer = run(_resized(example, places, other))
        if answer is not None:
            yield answer


def _beyond_one(
    run: Any, example: Sequence[torch.Tensor], groups: dict[str, Places]
) -> Sequence[torch.Tensor]:
    """Grow sizes of 1, which a tracer takes for constant."""
    for number, places in enumerate(groups.values()):
        if _size(example, places) > 1:
            continue
        larger = _resized(example, places, 2 + number)
        with suppress(Exception):  # whatever a model raises at a size
            run(larger)
            example = larger
    return example


def _size(example: Sequence[torch.Tensor], places: Places) -> int:
    tensor, axis, factor = places[0]
    return int(example[tensor].shape[axis]) // factor


def _resized(example: Sequence[torch.Tensor], places: Places, size: int) -> list[torch.Tensor]:
    """Give axes another size, with the example's own values repeated."""
    result = list(example)
    for tensor, axis, factor in places:
        chosen = torch.arange(factor * size) % result[tensor].shape[axis]
        result[tensor] = result[tensor].index_select(axis, chosen)
    return result
