"""Decomposes operators whose ONNX form is wrong at some values: large ones, tiny ones, NaN.

What each is wrong at is in `exporter.parity.hard_values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS", "is_wrong"]

_ATEN = torch.ops.aten
_FLOATS = frozenset({torch.float32, torch.float64})


def is_wrong(node: Any) -> bool:
    """Whether a node of a graph is one of these operators, on numbers that are not whole."""
    values = (argument.meta.get("val") for argument in node.all_input_nodes)
    return node.target in DECOMPOSITIONS and any(
        isinstance(value, torch.Tensor) and value.dtype in _FLOATS for value in values
    )


def _on_floats(form: Callable[..., Any]) -> Callable[..., Any]:
    """Leave numbers of other dtypes, and of two dtypes, to the converter."""

    def checked(*args: Any, **kwargs: Any) -> Any:
        dtypes = {value.dtype for value in args if isinstance(value, torch.Tensor)}
        return form(*args, **kwargs) if len(dtypes) == 1 and dtypes <= _FLOATS else NotImplemented

    return checked


def _log1p(x: torch.Tensor) -> torch.Tensor:
    """By W. Kahan: the rounding of 1 + x cancels in the quotient."""
    above = 1.0 + x
    step = above - 1.0
    # For infinity the quotient is none.
    return torch.where((step == 0.0) | (x == math.inf), x, torch.log(above) * (x / step))


def _expm1(x: torch.Tensor) -> torch.Tensor:
    half = torch.tanh(x * 0.5)
    return torch.where(x.abs() < 1.0, 2.0 * half / (1.0 - half), torch.exp(x) - 1.0)


def _log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.minimum(x, torch.zeros_like(x)) - _log1p(torch.exp(-x.abs()))


def _log_sigmoid_forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _log_sigmoid(x), x.new_zeros(0)


def _logaddexp(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Equal infinities have no difference.
    gap = torch.where(a == b, torch.zeros_like(a), (a - b).abs())
    return torch.maximum(a, b) + _log1p(torch.exp(-gap))


def _logaddexp2(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    gap = torch.where(a == b, torch.zeros_like(a), (a - b).abs())
    return torch.maximum(a, b) + _log1p(torch.exp2(-gap)) / math.log(2.0)


def _atan2(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    tall, wide = y.abs(), x.abs()
    low, high = torch.minimum(tall, wide), torch.maximum(tall, wide)
    # Two zeros are at the angle 0 or pi, two infinities at a quarter of it.
    slope = torch.where(
        low == high, torch.where(high == 0.0, low, torch.ones_like(low)), low / high
    )
    angle = torch.atan(slope)
    angle = torch.where(tall > wide, math.pi / 2 - angle, angle)
    angle = torch.where(_is_negative(x), math.pi - angle, angle)
    return torch.where(_is_negative(y), -angle, angle)


def _is_negative(x: torch.Tensor) -> torch.Tensor:
    """Whether the sign is negative, that of zero as well."""
    return (x < 0.0) | ((x == 0.0) & (1.0 / x < 0.0))


def _angle(x: torch.Tensor) -> torch.Tensor:
    return torch.where(
        x < 0.0, torch.full_like(x, math.pi), torch.where(x.isnan(), x, torch.zeros_like(x))
    )


def _remainder(a: Any, b: Any) -> Any:
    a, b = _as_tensors(a, b)
    rest = torch.fmod(a, b)
    return torch.where((rest != 0.0) & ((rest < 0.0) != (b < 0.0)), rest + b, rest)


def _floor_divide(a: Any, b: Any) -> Any:
    """By the rest of the division, as torch does it: a quotient may be rounded up to the next."""
    a, b = _as_tensors(a, b)
    rest = torch.fmod(a, b)
    steps = (a - rest) / b
    steps = torch.where((rest != 0.0) & ((rest < 0.0) != (b < 0.0)), steps - 1.0, steps)
    whole = torch.floor(steps)
    whole = torch.where(steps - whole > 0.5, whole + 1.0, whole)
    return torch.where(b == 0.0, a / b, whole)


def _divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    return _floor_divide(a, b) if rounding_mode == "floor" else NotImplemented


def _as_tensors(a: Any, b: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(a, torch.Tensor):
        a = torch.full_like(b, a)
    return a, b if isinstance(b, torch.Tensor) else torch.full((), b, dtype=a.dtype)


def _sign(x: torch.Tensor) -> torch.Tensor:
    one = torch.ones_like(x)
    return torch.where(x > 0.0, one, torch.where(x < 0.0, -one, torch.zeros_like(x)))


def _heaviside(x: torch.Tensor, at_zero: torch.Tensor) -> torch.Tensor:
    return torch.where(x == 0.0, at_zero, torch.where(x > 0.0, 1.0, 0.0).to(x.dtype))


def _extreme(x: torch.Tensor, dim: Any, keepdim: bool, *, largest: bool) -> torch.Tensor:
    axes = [dim] if isinstance(dim, int) else list(dim) or list(range(x.dim()))
    known = torch.where(x.isnan(), torch.zeros_like(x), x)
    found = known.amax(axes, keepdim) if largest else known.amin(axes, keepdim)
    missing = x.isnan().to(x.dtype).amax(axes, keepdim) > 0.0
    return torch.where(missing, torch.full_like(found, math.nan), found)


def _place(x: torch.Tensor, dim: int | None, keepdim: bool, *, largest: bool) -> Any:
    if dim is None:
        return NotImplemented
    known = torch.where(x.isnan(), torch.zeros_like(x), x)
    found = known.argmax(dim, keepdim) if largest else known.argmin(dim, keepdim)
    missing = x.isnan().to(x.dtype)
    return torch.where(missing.amax(dim, keepdim) > 0.0, missing.argmax(dim, keepdim), found)


def _amax(x: torch.Tensor, dim: Any = (), keepdim: bool = False) -> Any:
    return _extreme(x, dim, keepdim, largest=True)


def _amin(x: torch.Tensor, dim: Any = (), keepdim: bool = False) -> Any:
    return _extreme(x, dim, keepdim, largest=False)


def _argmax(x: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _place(x, dim, keepdim, largest=True)


def _argmin(x: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _place(x, dim, keepdim, largest=False)


def _max(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return _amax(x, dim, keepdim), _argmax(x, dim, keepdim)


def _min(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    return _amin(x, dim, keepdim), _argmin(x, dim, keepdim)


_extremes_are_plain = False


def _once(form: Callable[..., Any]) -> Callable[..., Any]:
    """Let a form use the operators that the forms here replace, which stay as they are in it."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        global _extremes_are_plain  # noqa: PLW0603 - the table is looked up again inside a form
        if _extremes_are_plain:
            return NotImplemented
        _extremes_are_plain = True
        try:
            return form(*args, **kwargs)
        finally:
            _extremes_are_plain = False

    return guarded


_FORMS: dict[Any, Callable[..., Any]] = {
    _ATEN.log1p.default: _log1p,
    _ATEN.special_log1p.default: _log1p,
    _ATEN.expm1.default: _expm1,
    _ATEN.special_expm1.default: _expm1,
    _ATEN.log_sigmoid.default: _log_sigmoid,
    _ATEN.log_sigmoid_forward.default: _log_sigmoid_forward,
    _ATEN.logaddexp.default: _logaddexp,
    _ATEN.logaddexp2.default: _logaddexp2,
    _ATEN.atan2.default: _atan2,
    _ATEN.arctan2.default: _atan2,
    _ATEN.angle.default: _angle,
    _ATEN.remainder.Tensor: _remainder,
    _ATEN.remainder.Scalar: _remainder,
    _ATEN.remainder.Scalar_Tensor: _remainder,
    _ATEN.floor_divide.default: _floor_divide,
    _ATEN.floor_divide.Scalar: _floor_divide,
    _ATEN.div.Tensor_mode: _divide,
    _ATEN.div.Scalar_mode: _divide,
    _ATEN.sign.default: _sign,
    _ATEN.heaviside.default: _heaviside,
    _ATEN.amax.default: _once(_amax),
    _ATEN.amin.default: _once(_amin),
    _ATEN.argmax.default: _once(_argmax),
    _ATEN.argmin.default: _once(_argmin),
    _ATEN.max.dim: _once(_max),
    _ATEN.min.dim: _once(_min),
}
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    operator: _on_floats(form) for operator, form in _FORMS.items()
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
