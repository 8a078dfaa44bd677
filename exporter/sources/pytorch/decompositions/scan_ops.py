"""Decomposes operators along one axis: step by step, or by sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_ATEN = torch.ops.aten


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
            taken = (
                better(step, values[-1]) | step.isnan()
                if x.is_floating_point()
                else better(step, values[-1])
            )
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
    return _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _searchsorted(edges: torch.Tensor, x: torch.Tensor, **options: Any) -> Any:
    if options.get("sorter") is not None:
        return NotImplemented
    right = options.get("right") or options.get("side") == "right"
    edges = edges.unsqueeze(-2) if edges.dim() > 1 else edges
    below = edges <= x.unsqueeze(-1) if right else edges < x.unsqueeze(-1)
    return below.sum(-1).to(torch.int32 if options.get("out_int32") else torch.int64)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _ATEN.cumprod.default: _cumprod,
    _ATEN.kthvalue.default: _kthvalue,
    _ATEN.median.dim: _median,
    _ATEN.searchsorted.Tensor: _searchsorted,
    _ATEN.cummax.default: _extreme(torch.ge),
    _ATEN.cummin.default: _extreme(torch.le),
    _ATEN.prod.dim_int: _prod,
    _ATEN.sort.stable: _sort,
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
