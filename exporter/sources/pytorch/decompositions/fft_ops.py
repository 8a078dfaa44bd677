"""Fourier transforms of any length in float64.

ONNX Runtime's own loses digits with every step of lengths that are no power of two: five at 336, of
the seven that float32 has. Transforms of powers of two are as good as torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS", "NARROW", "is_transform"]

_ATEN = torch.ops.aten
NARROW = frozenset({torch.float32, torch.complex64})


def is_transform(node: Any) -> bool:
    """Whether a node of a graph is a Fourier transform, or made of one."""
    return str(node.target).startswith(("aten.fft_", "aten._fft_"))


def _in_float64(transform: Any) -> Callable[..., Any]:
    def form(x: torch.Tensor, dim: Sequence[int], norm: int, last: Any) -> Any:
        sizes = [x.shape[axis] for axis in dim]
        if transform is _ATEN._fft_c2r.default:  # noqa: SLF001
            sizes[-1] = last
        exact = all(isinstance(size, int) and size & (size - 1) == 0 for size in sizes)
        if exact or x.dtype not in NARROW:
            return NotImplemented
        return _cast(transform(_cast(x, torch.float64), dim, norm, last), torch.float32)

    return form


def _cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.complex(x.real.to(dtype), x.imag.to(dtype)) if x.is_complex() else x.to(dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    transform: _in_float64(transform)
    for transform in (_ATEN._fft_r2c.default, _ATEN._fft_c2r.default, _ATEN._fft_c2c.default)  # noqa: SLF001
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
