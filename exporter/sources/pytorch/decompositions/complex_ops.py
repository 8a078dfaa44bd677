"""Decomposes operators on complex numbers into operators on their real parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS"]

_ATEN = torch.ops.aten


def _complex_product(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], a: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """Return a product of complex tensors by four, or two, of real ones."""
    if not b.is_complex():
        return torch.complex(product(a.real, b), product(a.imag, b))
    if not a.is_complex():
        return torch.complex(product(a, b.real), product(a, b.imag))
    real = product(a.real, b.real) - product(a.imag, b.imag)
    return torch.complex(real, product(a.real, b.imag) + product(a.imag, b.real))


def _einsum(equation: str, operands: Sequence[torch.Tensor], **_: Any) -> Any:
    if len(operands) != 2 or not any(operand.is_complex() for operand in operands):
        return NotImplemented
    return _complex_product(lambda a, b: torch.einsum(equation, a, b), *operands)


def _matmul(a: torch.Tensor, b: torch.Tensor) -> Any:
    if not (a.is_complex() or b.is_complex()):
        return NotImplemented
    return _complex_product(torch.matmul, a, b)


def _pad(x: torch.Tensor, pad: Sequence[Any], value: float = 0) -> Any:
    if not x.is_complex():
        return NotImplemented
    padded = torch.constant_pad_nd
    return torch.complex(padded(x.real, pad, value), padded(x.imag, pad, 0))


def _slice_scatter(x: torch.Tensor, src: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if not x.is_complex():
        return NotImplemented
    real = torch.slice_scatter(x.real, src.real, *args, **kwargs)
    imag = src.imag if src.is_complex() else torch.zeros_like(src)
    return torch.complex(real, torch.slice_scatter(x.imag, imag, *args, **kwargs))


def _full(size: Sequence[Any], value: complex = 0, **options: Any) -> Any:
    wanted = options.get("dtype") or torch.get_default_dtype()
    if not wanted.is_complex:
        return NotImplemented
    real, number = wanted.to_real(), complex(value)
    return torch.complex(
        torch.full(size, number.real, dtype=real), torch.full(size, number.imag, dtype=real)
    )


def _copy(x: torch.Tensor, src: torch.Tensor, _non_blocking: bool = False) -> Any:
    if not (x.is_complex() and src.is_complex()):
        return NotImplemented
    return torch.complex(src.real.expand(x.shape), src.imag.expand(x.shape))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _ATEN.full.default: _full,
    _ATEN.zeros.default: _full,
    _ATEN.copy.default: _copy,
    _ATEN.slice_scatter.default: _slice_scatter,
    _ATEN.constant_pad_nd.default: _pad,
    _ATEN.einsum.default: _einsum,
    _ATEN.matmul.default: _matmul,
    _ATEN.mm.default: _matmul,
    _ATEN.bmm.default: _matmul,
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
