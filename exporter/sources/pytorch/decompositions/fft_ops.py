"""Fourier transforms of any length in float64.

ONNX Runtime's own loses digits with every step of lengths that are no power of two: five at 336, of
the seven that float32 has. Transforms of powers of two are as good as torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from exporter.sources.pytorch.decompositions.nodes import has_dtype

__all__ = ["DECOMPOSITIONS", "loses_digits"]

_ATEN = torch.ops.aten
_NARROW = frozenset({torch.float32, torch.complex64})


def loses_digits(node: Any) -> bool:
    """Whether a node of a graph is a transform that float32 is too narrow for, or may be."""
    return str(node.target).startswith(("aten.fft_", "aten._fft_")) and has_dtype(node, _NARROW)


def _real_to_complex(x: torch.Tensor, dim: Sequence[int], *options: Any) -> Any:
    if x.dtype is not torch.float32 or _are_powers_of_two(x.shape[axis] for axis in dim):
        return NotImplemented
    return _narrow(_ATEN._fft_r2c(x.double(), dim, *options))  # noqa: SLF001


def _complex_to_real(x: torch.Tensor, dim: Sequence[int], how: int, size: Any) -> Any:
    sizes = [*(x.shape[axis] for axis in dim[:-1]), size]
    if x.dtype is not torch.complex64 or _are_powers_of_two(sizes):
        return NotImplemented
    return _ATEN._fft_c2r(_wide(x), dim, how, size).float()  # noqa: SLF001


def _complex_to_complex(x: torch.Tensor, dim: Sequence[int], *options: Any) -> Any:
    if x.dtype is not torch.complex64 or _are_powers_of_two(x.shape[axis] for axis in dim):
        return NotImplemented
    return _narrow(_ATEN._fft_c2c(_wide(x), dim, *options))  # noqa: SLF001


def _are_powers_of_two(sizes: Any) -> bool:
    return all(isinstance(size, int) and size & (size - 1) == 0 for size in sizes)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return torch.complex(x.real.double(), x.imag.double())


def _narrow(x: torch.Tensor) -> torch.Tensor:
    return torch.complex(x.real.float(), x.imag.float())


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _ATEN._fft_r2c.default: _real_to_complex,  # noqa: SLF001
    _ATEN._fft_c2r.default: _complex_to_real,  # noqa: SLF001
    _ATEN._fft_c2c.default: _complex_to_complex,  # noqa: SLF001
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
