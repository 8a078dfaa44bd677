"""Writes operators that have no ONNX form, or no kernel, for a dtype by others that have.

The error function in float64 follows W. J. Cody, "Rational Chebyshev approximations for the error
function", Mathematics of Computation 23 (1969): good to some units in the last place up to 4, where
what is left of 1 is below 2e-8.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.export import ExportedProgram

__all__ = ["with_known_forms"]

_ATEN = torch.ops.aten
_SMALL = 0.46875
_P = (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
      3.77485237685302021e2, 3.20937758913846947e3)  # fmt: skip
_Q = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
      2.84423683343917062e3)  # fmt: skip
_R = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
      6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
      1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3)  # fmt: skip
_S = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
      1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
      3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip


def with_known_forms(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which no operator is left that has no kernel for its dtype."""
    wanted = any(
        node.target in _FORMS and _has(node, _FORMS[node.target][0]) for node in program.graph.nodes
    )
    if not wanted:
        return program
    table = torch.export.default_decompositions()
    for operator, (_, form) in _FORMS.items():
        table[operator] = form
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _has(node: Any, dtypes: frozenset[torch.dtype]) -> bool:
    values = [node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]
    return any(isinstance(value, torch.Tensor) and value.dtype in dtypes for value in values)


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


def _erf(x: torch.Tensor) -> Any:
    if x.dtype is not torch.float64:
        return NotImplemented
    size = x.abs()
    square = x * x
    near = x * _ratio(torch.clamp(square, max=_SMALL**2), _P, _Q)
    clipped = torch.clamp(size, min=_SMALL, max=6.0)
    far = 1.0 - torch.exp(-clipped * clipped) * _ratio(clipped, _R, _S)
    return torch.where(size <= _SMALL, near, torch.where(x < 0, -far, far))


def _gelu(x: torch.Tensor, approximate: str = "none") -> Any:
    if x.dtype is not torch.float64 or approximate != "none":
        return NotImplemented
    return 0.5 * x * (1.0 + _erf(x * 0.5**0.5))


def _ratio(x: torch.Tensor, above: Sequence[float], below: Sequence[float]) -> torch.Tensor:
    return _polynomial(x, above) / _polynomial(x, below)


def _polynomial(x: torch.Tensor, coefficients: Sequence[float]) -> torch.Tensor:
    result = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result


def _cumprod(x: torch.Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    if dtype is not None or not isinstance(x.shape[dim], int):
        return NotImplemented
    steps = [x.select(dim, 0)]
    for index in range(1, x.shape[dim]):
        steps.append(steps[-1] * x.select(dim, index))
    return torch.stack(steps, dim)


def _kthvalue(x: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    values, places = torch.sort(x, dim=dim)
    found = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return found if keepdim else tuple(tensor.squeeze(dim) for tensor in found)


def _median(x: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    if not isinstance(x.shape[dim], int):
        return NotImplemented
    return _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _searchsorted(edges: torch.Tensor, x: torch.Tensor, **options: Any) -> Any:
    if edges.dim() != 1 or options.get("sorter") is not None:
        return NotImplemented
    right = options.get("right") or options.get("side") == "right"
    below = edges <= x.unsqueeze(-1) if right else edges < x.unsqueeze(-1)
    return below.sum(-1).to(torch.int32 if options.get("out_int32") else torch.int64)


_WIDE = frozenset({torch.float64})
_COMPLEX = frozenset({torch.complex64, torch.complex128})
_ANY = frozenset({torch.float16, torch.float32, torch.float64, torch.int32, torch.int64})
_FORMS: dict[Any, tuple[frozenset[torch.dtype], Callable[..., Any]]] = {
    _ATEN.cumprod.default: (_ANY, _cumprod),
    _ATEN.kthvalue.default: (_ANY, _kthvalue),
    _ATEN.median.dim: (_ANY, _median),
    _ATEN.searchsorted.Tensor: (_ANY, _searchsorted),
    _ATEN.erf.default: (_WIDE, _erf),
    _ATEN.gelu.default: (_WIDE, _gelu),
    _ATEN.constant_pad_nd.default: (_COMPLEX, _pad),
    _ATEN.einsum.default: (_COMPLEX, _einsum),
    _ATEN.matmul.default: (_COMPLEX, _matmul),
    _ATEN.mm.default: (_COMPLEX, _matmul),
    _ATEN.bmm.default: (_COMPLEX, _matmul),
}
