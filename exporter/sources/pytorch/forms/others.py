"""Forms of operators that have none in ONNX, or not of every size."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FORMS"]

_ATEN = torch.ops.aten


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
    if not all(isinstance(size, int) for size in sizes):
        return NotImplemented
    values, places = [], []
    for cell in itertools.product(*(range(size) for size in output_size)):
        cuts = [
            (place * size // wanted, -(-(place + 1) * size // wanted))
            for place, size, wanted in zip(cell, sizes, output_size, strict=True)
        ]
        window = x
        for axis, (begin, end) in enumerate(cuts):
            window = window.narrow(kept + axis, begin, end - begin)
        value, place = window.flatten(kept).max(-1)
        at, step = torch.zeros_like(place), 1
        for (begin, end), size in zip(reversed(cuts), reversed(sizes), strict=True):
            at = at + (place % (end - begin) + begin) * step
            place, step = place // (end - begin), step * size
        values.append(value)
        places.append(at)
    shape = (*x.shape[:kept], *output_size)
    return torch.stack(values, -1).reshape(shape), torch.stack(places, -1).reshape(shape)


FORMS: dict[Any, Callable[..., Any]] = {
    _ATEN.hypot.default: _hypot,
    _ATEN.rrelu.default: _rrelu,
    _ATEN.cdist.default: _cdist,
    _ATEN.scatter_reduce.two: _scatter_reduce,
    _ATEN.adaptive_max_pool1d.default: _adaptive_max,
    _ATEN.adaptive_max_pool2d.default: _adaptive_max,
    _ATEN.adaptive_max_pool3d.default: _adaptive_max,
}
"""Forms by operator; each returns NotImplemented where the operator's own is right."""
