"""Decomposes operators for which ONNX Runtime has no float64 kernel.

The error function follows W. J. Cody, "Rational Chebyshev approximations for the error function",
Mathematics of Computation 23 (1969): good to some units in the last place up to 4, where what is
left of 1 is below 2e-8.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decompositions

__all__ = ["DECOMPOSITIONS", "projects"]

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
    def polynomial(coefficients: Sequence[float]) -> torch.Tensor:
        result = torch.full_like(x, coefficients[0])
        for coefficient in coefficients[1:]:
            result = result * x + coefficient
        return result

    return polynomial(above) / polynomial(below)


def _convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Any:
    """A product of matrices for every place of the kernel."""
    axes = weight.dim() - 2
    if x.dtype is not torch.float64 or x.dim() != weight.dim():
        return NotImplemented
    stride, padding, dilation = (
        tuple(given) * axes if len(given) == 1 else tuple(given)
        for given in (stride, padding, dilation)
    )
    x = torch.nn.functional.pad(x, [side for size in reversed(padding) for side in (size, size)])
    x = x.movedim(1, -1).unflatten(-1, (groups, -1)).unsqueeze(-2)
    total: Any = 0.0
    for place in itertools.product(*(range(size) for size in weight.shape[2:])):
        piece = x
        for axis, (at, skip, step) in enumerate(zip(place, dilation, stride, strict=True), start=1):
            left = skip * (weight.shape[axis + 1] - 1 - at)
            piece = piece.narrow(axis, at * skip, x.shape[axis] - at * skip - left)
            piece = piece[(slice(None),) * axis + (slice(None, None, step),)] if step > 1 else piece
        kernel = weight[(slice(None), slice(None), *place)].unflatten(0, (groups, -1))
        total = total + piece @ kernel.transpose(1, 2)
    total = total.flatten(-3).movedim(-1, 1)
    return total if bias is None else total + bias.reshape(-1, *(1,) * axes)


def projects(node: Any) -> bool:
    """Whether a node is a recurrent layer whose state is projected, as no layer of ONNX does."""
    return node.target is _ATEN.lstm.input and _projected([s.meta["val"] for s in node.args[1]])


def _projected(state: Any) -> bool:
    return isinstance(state, list | tuple) and state[0].shape[2] != state[1].shape[2]


def _unrolled(layer: Callable[..., Any]) -> Callable[..., Any]:
    def form(x: torch.Tensor, state: Any, weights: Any, *options: Any) -> Any:
        steps = x.shape[1 if options[-1] else 0]
        narrow = weights[0].dtype is not torch.float64 and not _projected(state)
        if x.dim() != 3 or not isinstance(steps, int) or narrow:
            return NotImplemented
        return layer(x, state, weights, *options)

    return form


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _ATEN.erf.default: _erf,
    _ATEN.gelu.default: _gelu,
    _ATEN.conv1d.default: _convolution,
    _ATEN.conv2d.default: _convolution,
    _ATEN.conv3d.default: _convolution,
    _ATEN.lstm.input: _unrolled(decompositions.lstm_impl),
    _ATEN.gru.input: _unrolled(decompositions.gru_impl),
    _ATEN.rnn_tanh.input: _unrolled(decompositions.rnn_tanh_input),
    _ATEN.rnn_relu.input: _unrolled(decompositions.rnn_relu_input),
}
"""Decompositions by operator; each returns NotImplemented where the operator can stay."""
