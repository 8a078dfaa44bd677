"""Decomposes operators that ONNX lacks, or has for some sizes only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS", "is_known"]

_ATEN = torch.ops.aten
_MOST_CELLS = 1024  # of a pooled output; each is some nodes


def _hypot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(a * a + b * b)


def _rrelu(
    x: torch.Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> Any:
    if training:
        return NotImplemented
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def _cdist(a: torch.Tensor, b: torch.Tensor, p: float = 2.0, *_: Any) -> Any:
    if p not in {1.0, 2.0}:
        return NotImplemented
    gap = a.unsqueeze(-2) - b.unsqueeze(-3)
    return gap.abs().sum(-1) if p == 1.0 else torch.sqrt((gap * gap).sum(-1))


def _scatter_reduce(
    x: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Any:
    if reduce != "mean" or not x.is_floating_point():
        return NotImplemented
    count = torch.zeros_like(x).scatter_add(dim, index, torch.ones_like(src))
    total = torch.zeros_like(x).scatter_add(dim, index, src)
    if include_self:
        return (x + total) / (1.0 + count)
    return torch.where(count > 0, total / torch.clamp(count, min=1.0), x)


def _adaptive_max(x: torch.Tensor, output_size: Sequence[int]) -> Any:
    kept = x.dim() - len(output_size)
    sizes = x.shape[kept:]
    values, places = [], []
    for window, cuts in _windows(x, output_size):
        value, place = window.flatten(kept).max(-1)
        at, step = torch.zeros_like(place), 1
        for (begin, end), size in zip(reversed(cuts), reversed(sizes), strict=True):
            at = at + (place % (end - begin) + begin) * step
            place, step = place // (end - begin), step * size
        values.append(value)
        places.append(at)
    shape = (*x.shape[:kept], *output_size)
    return torch.stack(values, -1).reshape(shape), torch.stack(places, -1).reshape(shape)


def _adaptive_mean(x: torch.Tensor, output_size: Sequence[int]) -> Any:
    kept = x.dim() - len(output_size)
    if not _varies(x, len(output_size)) or math.prod(output_size) > _MOST_CELLS:
        return NotImplemented
    axes = list(range(kept, x.dim()))
    means = [window.mean(axes) for window, _ in _windows(x, output_size)]
    return torch.stack(means, -1).reshape((*x.shape[:kept], *output_size))


def is_known(node: Any) -> bool:
    """Whether a node is a mean over fixed sizes, which ONNX computes faster itself."""
    axes = _MEANS.get(node.target)
    return axes is not None and not _varies(node.args[0].meta["val"], axes)


def _varies(x: torch.Tensor, axes: int) -> bool:
    """Whether one of the last sizes of a tensor is known at run time only."""
    return not all(isinstance(size, int) for size in x.shape[x.dim() - axes :])


def _windows(x: torch.Tensor, output_size: Sequence[int]) -> Iterator[tuple[torch.Tensor, Any]]:
    """Cut the window of every cell, with where it begins and ends along each axis."""
    kept = x.dim() - len(output_size)
    sizes = x.shape[kept:]
    for cell in itertools.product(*(range(size) for size in output_size)):
        cuts = [
            (place * size // wanted, ((place + 1) * size + wanted - 1) // wanted)
            for place, size, wanted in zip(cell, sizes, output_size, strict=True)
        ]
        window = x
        for axis, (begin, end) in enumerate(cuts):
            window = _ATEN.slice.Tensor(window, kept + axis, begin, end)
        yield window, cuts


_MEANS = {
    _ATEN.adaptive_avg_pool1d.default: 1,
    _ATEN.adaptive_avg_pool2d.default: 2,
    _ATEN.adaptive_avg_pool3d.default: 3,
}
"""Means by operator, with how many axes they are over."""

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _ATEN.hypot.default: _hypot,
    _ATEN.rrelu.default: _rrelu,
    _ATEN.cdist.default: _cdist,
    _ATEN.scatter_reduce.two: _scatter_reduce,
    _ATEN.adaptive_max_pool1d.default: _adaptive_max,
    _ATEN.adaptive_max_pool2d.default: _adaptive_max,
    _ATEN.adaptive_max_pool3d.default: _adaptive_max,
    **dict.fromkeys(_MEANS, _adaptive_mean),
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
