"""Torch modules, of which the logged example has no values on which exporters go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.zoo import blind_layers as blind
from tests.zoo import layers

from .comparing import Array, Near, RefusedError
from .modules import Module, normal, x

__all__ = ["MODULES", "BlindModule"]

_EXACT = Near(1e-4, 0.0)
_NAN, _INFINITE = np.nan, np.inf


@dataclass(frozen=True)
class BlindModule(Module):
    """One torch module.

    Attributes:
        hidden: Makes as many rows of what the example does not show.
        limit: The longest series that its program takes, as torch guards it; 0 for any.
    """

    hidden: Callable[[int], Mapping[str, Array]] = dict
    limit: int = 0

    def rows(self, count: int) -> dict[str, Array]:
        """Return hidden rows."""
        return dict(self.hidden(count))

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return what it says; see `Module.answers`.

        Raises:
            RefusedError: A series is too long.
        """
        if self.limit and next(iter(inputs.values())).shape[1] > self.limit:
            raise RefusedError(f"{self.name} takes series of up to {self.limit} steps")
        return super().answers(inputs)


def _cycled(*rows: Any, name: str = "x", kind: Any = np.float32) -> Callable[[int], dict[str, Any]]:
    """Return what makes any number of rows of these, again and again."""
    table = np.array(rows, dtype=kind)
    return lambda count: {name: table[np.arange(count) % len(table)]}


def _drawn(*shape: int, low: float = -3, high: float = 3) -> Callable[[int], dict[str, Array]]:
    def rows(count: int) -> dict[str, Array]:
        drawn = np.random.default_rng(count).uniform(low, high, (count, *shape))
        return {"x": drawn.astype(np.float32)}

    return rows


def _applied(
    name: str,
    function: Callable[[torch.Tensor], torch.Tensor],
    example: Array,
    hidden: Callable[[int], Mapping[str, Array]],
    **more: Any,
) -> BlindModule:
    """One function of a tensor, as a pt2 archive: a function in a pickle is found by its name."""
    more.setdefault("form", "pt2")
    return BlindModule(name, lambda: blind.Applied(function), {"x": example}, hidden=hidden, **more)


def _rated(count: int) -> dict[str, Array]:
    random = np.random.default_rng(count)
    return {
        "users": random.normal(size=(count, 4)).astype(np.float32),
        "items": random.normal(size=(count * 5, 3)).astype(np.float32),
    }


def _masked(count: int) -> dict[str, Array]:
    mask = np.ones((count, 5), bool)
    mask[0::2] = False
    mask[1::2, 3:] = False
    return {**_drawn(5, 3)(count), "mask": mask}


_POSITIVE = np.abs(normal(4, 4)) + 0.5
_WHOLE = np.array([[1, 2, 4, 5], [7, 8, 10, 11], [3, 6, 9, 12]])
_NEGATIVE = _cycled([-1, -2, -3, -4], [-7, 7, -8, 0], [-9, -10, 5, -11], kind=np.int64)
_TENTHS = _cycled([0.3, 0.6, 0.7, 0.9], [-0.3, -0.7, 1.1, -1.0], [2.3, -0.1, 0.0, 4.1])
_MISSING = _cycled(
    [1, _NAN, 3, 2], [_NAN, 1, 2, 3], [_NAN, _NAN, 1, 0], [4, 3, 2, _NAN], [_NAN] * 4
)
_ENDLESS = _cycled([_INFINITE, 1, 2, 3], [-_INFINITE, 0, _NAN, 1], [_INFINITE, -_INFINITE, 0, 0])
_TIES = _cycled([-1, 0, 0.5, 2], [2, 0.5, 0.5, -1], [-0.0, 3, -2, 0.5])
_HALVES = _cycled([0.5, 1.5, 2.5, -0.5], [-1.5, -2.5, 3.5, 4.5])
_SMALL = _cycled([1e-9, -1e-9, 3e-8, -2e-12], [5e-7, 1e-6, -3e-7, 0], [1e-4, -1e-5, 2e-10, 1e-20])
_MASK = np.arange(5)[None] < np.array([[5], [3], [4]])

MODULES: tuple[BlindModule, ...] = (
    # Lengths.
    BlindModule("beyond-64", layers.LongBranch, x(4, 6, 2), free={"x": (1,)},
                hidden=_drawn(80, 2)),
    BlindModule("beyond-64-pt2", layers.LongBranch, x(4, 6, 2), "pt2", free={"x": (1,)},
                hidden=_drawn(80, 2), limit=64),
    BlindModule("flipped-lstm", blind.BothWays, x(4, 7, 3), free={"x": (1,)}, refused="output",
                hidden=_drawn(31, 3)),
    BlindModule("flipped-lstm-of-one-step", blind.BothWays, x(4, 7, 3), free={"x": (1,)},
                hidden=_drawn(1, 3)),
    BlindModule("items-of-users", blind.Rated,
                {"users": normal(3, 4), "items": normal(15, 3)}, refused="items", batched=False,
                hidden=_rated),
    # Large and small numbers.
    _applied("logsumexp-beyond-88", lambda t: t.logsumexp(1), normal(4, 4),
             _drawn(4, low=89, high=300)),
    _applied("log1p-near-0", torch.log1p, _POSITIVE, _SMALL, near=_EXACT),
    _applied("expm1-near-0", torch.expm1, _POSITIVE, _SMALL, near=_EXACT),
    _applied("softplus-of-large", nn.functional.softplus, normal(4, 4),
             _drawn(4, low=80, high=300)),
    _applied("infinite", lambda t: torch.nan_to_num(t, 7.0, 9.0, -9.0), normal(4, 4), _ENDLESS),
    # Angles.
    _applied("atan2-negative-axis", lambda t: torch.atan2(t[:, 0], t[:, 1]), _POSITIVE,
             _cycled([0, -1, 0, 0], [-0.0, -1, 0, 0], [0, 0, 0, 0], [-1, 0, 0, 0], [0, -3, 0, 0],
                     [-2, -2, 0, 0])),
    _applied("angle-of-negative", torch.angle, _POSITIVE,
             _cycled([-1, 1, -2, 0], [-0.0, -3, 2, 1], [-1, -1, -1, -1])),
    # Division.
    _applied("floor-of-tenths", lambda t: torch.div(t, 0.1, rounding_mode="floor"), _POSITIVE,
             _TENTHS, near=_EXACT),
    _applied("remainder-of-tenths", lambda t: t % 0.1, _POSITIVE, _TENTHS),
    _applied("fmod-of-negative", lambda t: torch.fmod(t, 0.7), _POSITIVE, _TENTHS),
    _applied("floor-of-negative-codes", lambda t: t // 3, _WHOLE, _NEGATIVE),
    _applied("remainder-of-negative-codes", lambda t: t % 3, _WHOLE, _NEGATIVE),
    _applied("rounded-halves", torch.round, normal(4, 4), _HALVES),
    # What is no number.
    _applied("argmax-missing", lambda t: t.argmax(1), normal(4, 4), _MISSING),
    _applied("median-missing", lambda t: t.median(1).values, normal(4, 4), _MISSING),
    _applied("amax-missing", lambda t: t.amax(1), normal(4, 4), _MISSING),
    _applied("clamp-missing", lambda t: t.clamp(-1, 1), normal(4, 4), _MISSING),
    _applied("relu-missing", torch.relu, normal(4, 4), _MISSING),
    _applied("sorted-missing", lambda t: t.sort(1).values, normal(4, 4), _MISSING),
    # Ties and ends.
    BlindModule("searched-left", lambda: blind.Searched(right=False), x(4, 4), hidden=_TIES),
    BlindModule("searched-right", lambda: blind.Searched(right=True), x(4, 4), hidden=_TIES),
    BlindModule("last-token", blind.Tokens, {"tokens": np.arange(1, 13).reshape(3, 4)},
                hidden=_cycled([39, 39, 0, 1], [0, 0, 0, 0], [38, 39, 1, 2], name="tokens",
                               kind=np.int64)),
    # Masks that keep nothing.
    BlindModule("mean-of-nothing", blind.MaskedMean, {"x": normal(3, 5, 3), "mask": _MASK},
                hidden=_masked),
    BlindModule("attention-to-nothing", blind.MaskedAttention,
                {"x": normal(3, 5, 3), "mask": _MASK}, hidden=_masked),
)  # fmt: skip
