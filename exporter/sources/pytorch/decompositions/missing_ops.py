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


def _cumprod(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    if dtype is not None or not isinstance(x.shape[dim], int):
        return NotImplemented
    steps = [x.select(dim, 0)]
    for index in range(1, x.shape[dim]):
        steps.append(steps[-1] * x.select(dim, index))
    return torch.stack(steps, dim)


def _prod(
    x: torch.Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    steps = _cumprod(x, dim, dtype=dtype)
    if steps is NotImplemented:
        return NotImplemented
    last = steps.narrow(dim, x.shape[dim] - 1, 1)
    return last if keepdim else last.squeeze(dim)


def _extreme(better: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    def form(x: torch.Tensor, dim: int) -> Any:
        if not isinstance(x.shape[dim], int) or x.shape[dim] == 0:
            return NotImplemented
        values = [x.select(dim, 0)]
        places = [torch.zeros_like(values[0], dtype=torch.int64)]
        for index in range(1, x.shape[dim]):
            step = x.select(dim, index)
            # The last of equal values, as torch has it; NaN stays.
            taken = better(step, values[-1])
            if x.is_floating_point():
                taken = taken | step.isnan()
            values.append(torch.where(taken, step, values[-1]))
            places.append(torch.where(taken, torch.full_like(places[0], index), places[-1]))
        return torch.stack(values, dim), torch.stack(places, dim)

    return form


def _sort(x: torch.Tensor, *, dim: int = -1, descending: bool = False, **_: Any) -> Any:
    return torch.sort(x, dim, descending)  # ONNX sorts stably


def _kthvalue(x: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    values, places = torch.sort(x, dim=dim)
    found = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return found if keepdim else tuple(tensor.squeeze(dim) for tensor in found)


def _median(x: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    if not isinstance(x.shape[dim], int):
        return NotImplemented
    value, place = _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)
    if not x.is_floating_point():
        return value, place
    missing = x.isnan().to(x.dtype)
    some = missing.sum(dim, keepdim) > 0.0
    value = torch.where(some, torch.full_like(value, math.nan), value)
    return value, torch.where(some, missing.argmax(dim, keepdim), place)


def _searchsorted(edges: torch.Tensor, x: torch.Tensor, **options: Any) -> Any:
    if options.get("sorter") is not None:
        return NotImplemented
    right = options.get("right") or options.get("side") == "right"
    edges = edges.unsqueeze(-2) if edges.dim() > 1 else edges
    # NaN is above every edge.
    above = edges > x.unsqueeze(-1) if right else edges >= x.unsqueeze(-1)
    return (
        torch.logical_not(above)
        .sum(-1)
        .to(torch.int32 if options.get("out_int32") else torch.int64)
    )


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
    _ATEN.cumprod.default: _cumprod,
    _ATEN.kthvalue.default: _kthvalue,
    _ATEN.median.dim: _median,
    _ATEN.searchsorted.Tensor: _searchsorted,
    _ATEN.cummax.default: _extreme(torch.ge),
    _ATEN.cummin.default: _extreme(torch.le),
    _ATEN.prod.dim_int: _prod,
    _ATEN.sort.stable: _sort,
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
