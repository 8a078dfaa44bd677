"""Values at which implementations of an operator are known to differ, by the operator's name.

A program and its conversion agree on an example and on what is drawn from its range, and may still
compute another function: a naive formula overflows, a quotient is rounded up to the next whole
number, a comparison with NaN takes the other branch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping

__all__ = ["LARGE", "are_paired", "drops_nan", "hard_values", "hard_whole_numbers", "sorts"]

LARGE = 1e3
"""Above this magnitude a value is kept apart from others, whose budgets it would widen."""

_NAN, _INF = math.nan, math.inf

# exp() of IEEE 754 binary32 overflows at 88.73 and is 0 below -103.97; exp2() overflows at 128.
_EXPONENTS = (-104.5, -89.0, 89.0, 104.5, 200.0, -200.0)
# Half an ulp of 1 is 6e-8 in binary32: 1 + x is 1, and log(1 + x) or exp(x) - 1 is 0.
_TINY = (1e-8, -1e-8, 1e-5, -1e-5)
# IEEE 754 has two zeros: 1/-0 is -inf, and atan2 and sqrt keep the sign (C99 Annex F.9).
_ZEROS = (0.0, -0.0)
# Multiples of 0.1, which binary32 has none of: 0.7/0.1 is rounded up to 7, and the remainder of 0.7
# is nearly 0.1. torch documents remainder() and floor division by fmod, ONNX Mod by fmod=1 alone.
_DECIMALS = (0.1, 0.3, 0.6, 0.7, -0.3, -0.7, 1.0, -1.0, 2.5, -2.5, 7.0, -7.0)
# IEEE 754 rounds halves to even, C's round() away from zero; torch and ONNX Round document even.
_HALVES = (0.5, -0.5, 1.5, -1.5, 2.5, -2.5)
# The least normal number of binary32 is 1.2e-38; some libraries flush smaller ones to zero.
_DENORMAL = (1e-40,)

_LOGARITHM = (*_ZEROS, -1.0, _INF, _NAN, *_DENORMAL)  # C99 F.9.3.7: -inf at 0, NaN below it
_ANGLE = (*_ZEROS, 1.0, -1.0, 200.0, -200.0, _INF, -_INF, _NAN)  # C99 F.9.1.4: atan2 at every axis
_DIVISION = (*_DECIMALS, *_ZEROS, _INF, _NAN)
# torch: a NaN is the largest and the smallest of all. ONNX leaves it open; ONNX Runtime skips it.
_EXTREME = (_NAN, _INF, -_INF)
# IEEE 754: every comparison with NaN is false, but for !=.
_COMPARISON = (_NAN, _INF, -_INF)
# C99 6.3.1.4: a cast to a whole number cuts towards zero.
_CAST = (-0.5, -1.5, 1.5, 2.5, 255.5)

_VALUES: Mapping[str, tuple[float, ...]] = {
    # log(sum(exp(x))) overflows where its result does not (torch docs: "numerically stabilized").
    "logsumexp": (*_EXPONENTS, 1000.0, -1000.0),
    "logcumsumexp": _EXPONENTS,
    "logaddexp": (*_EXPONENTS, 1000.0, -1000.0, -_INF),
    "logaddexp2": (130.0, -150.0, 1000.0, -1000.0),
    # log(sigmoid(x)) is -inf below -104, where the result is x.
    "log_sigmoid": (*_EXPONENTS, 1000.0, -1000.0, _NAN),
    # torch docs: linear above threshold=20; ONNX Softplus has no threshold.
    "softplus": (19.0, 20.0, 21.0, -21.0, *_EXPONENTS, _NAN),
    "mish": (21.0, -21.0, 89.0, 104.5, _NAN),
    "log1p": (*_TINY, *_ZEROS, -1.0, -2.0, _INF, _NAN),
    "expm1": (*_TINY, *_ZEROS, -104.5, 80.0, -_INF, _NAN),
    "atan2": _ANGLE,
    "angle": _ANGLE,
    "floor_divide": _DIVISION,
    "remainder": _DIVISION,
    "fmod": _DIVISION,
    # torch docs: NaN is sorted behind all numbers, and above every boundary.
    "searchsorted": (_NAN, _INF, -_INF, *_ZEROS),
    "bucketize": (_NAN, _INF, -_INF, *_ZEROS),
    "median": _EXTREME,
    "max": _EXTREME,
    "min": _EXTREME,
    "argmax": _EXTREME,
    "argmin": _EXTREME,
    "maximum": _EXTREME,
    "minimum": _EXTREME,
    "round": _HALVES,
    "floor": (*_HALVES, -1.0, *_ZEROS),
    "ceil": (*_HALVES, -1.0, *_ZEROS),
    "trunc": (*_HALVES, -1.0, *_ZEROS),
    # C99 F.9.4.4: NaN for a negative base but with whole exponents; 1 for an exponent of 0.
    "pow": (*_ZEROS, -1.0, -2.0, -2.5, 0.5, 2.0, 3.0, _NAN),
    "sqrt": (*_ZEROS, -1.0, _INF, _NAN, *_DENORMAL),
    "rsqrt": (*_ZEROS, -1.0, _INF, _NAN),
    "log": _LOGARITHM,
    "log2": _LOGARITHM,
    "log10": _LOGARITHM,
    "reciprocal": (*_ZEROS, _INF, -_INF, _NAN),
    # torch: sign(NaN) is 0; ONNX Runtime's Sign keeps it.
    "sign": (*_ZEROS, _NAN),
    "heaviside": (*_ZEROS, _NAN),
    "signbit": (*_ZEROS, 1.0, -1.0),
    **dict.fromkeys(
        ("gt", "ge", "lt", "le", "eq", "ne", "isnan", "isinf", "isfinite"), _COMPARISON
    ),
    "where": _COMPARISON,
    "nan_to_num": (_NAN, _INF, -_INF),
    # torch docs: NaN stays NaN; C's fmin and fmax drop it.
    "clamp": (_NAN, 200.0, -200.0),
    "cast": _CAST,
}

# The same under the names of torch and of ONNX.
_ALIASES: Mapping[str, str] = {
    "amax": "max", "amin": "min", "aminmax": "max", "cummax": "max",
    "cummin": "min", "clamp_min": "clamp", "clamp_max": "clamp",
    "special_log1p": "log1p", "special_expm1": "expm1", "special_logsumexp": "logsumexp",
    "log_sigmoid_forward": "log_sigmoid", "arctan2": "atan2", "to": "cast", "_to_copy": "cast",
    "type_as": "cast", "__floordiv__": "floor_divide",
    "ReduceLogSumExp": "logsumexp",
    "Softplus": "softplus", "Mish": "mish", "Mod": "remainder", "Round": "round",
    "Floor": "floor", "Ceil": "ceil", "Pow": "pow", "Sqrt": "sqrt", "Log": "log",
    "Reciprocal": "reciprocal", "Sign": "sign", "Clip": "clamp", "Max": "maximum",
    "Min": "minimum", "ReduceMax": "max", "ReduceMin": "min", "ArgMax": "argmax",
    "ArgMin": "argmin", "Where": "where", "IsNaN": "isnan", "IsInf": "isinf",
    "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Equal": "eq",
}  # fmt: skip

# On whole numbers: C cuts quotients towards zero, Python and torch's // floor them (ONNX Mod has
# the divisor's sign, ONNX Div cuts).
_WHOLE = frozenset({"floor_divide", "remainder", "fmod", "Div"})
_SORTING = ("sort", "topk", "kthvalue")
_DROPPING = ("max_pool", "lstm", "gru", "rnn_tanh", "rnn_relu", *_SORTING)
# They combine two values, of which each may be the hard one.
_PAIRED = frozenset(
    {"logaddexp", "logaddexp2", "atan2", "floor_divide", "remainder", "fmod", "pow", "maximum",
     "minimum", "heaviside", "where", "gt", "ge", "lt", "le", "eq", "ne"}
)  # fmt: skip
_WHOLE_NUMBERS = (-7, -3, -2, -1, 1, 2, 3, 7)


def hard_values(operators: Iterable[str]) -> tuple[float, ...]:
    """Return the values at which some of these operators are known to be computed wrongly.

    *operators* are names of torch (``aten.log1p``) or of ONNX (``Mod``). Every value comes once,
    those of the two zeros included.
    """
    found = {
        struct.pack("d", value): value
        for operator in operators
        for value in _VALUES.get(_plain(operator), ())
    }
    return tuple(sorted(found.values(), key=lambda v: (math.isnan(v), abs(v), math.copysign(1, v))))


def hard_whole_numbers(operators: Iterable[str]) -> tuple[int, ...]:
    """Return the whole numbers, negative ones included, at which these operators may differ."""
    return _WHOLE_NUMBERS if _WHOLE & set(map(_plain, operators)) else ()


def are_paired(operators: Iterable[str]) -> bool:
    """Whether one of these operators combines two values of which both count."""
    return bool(_PAIRED & set(map(_plain, operators)))


def drops_nan(operators: Iterable[str]) -> bool:
    """Whether ONNX Runtime leaves NaN out in one of these operators of torch, which keeps it.

    Max pooling and recurrent layers do, sorting puts NaN anywhere; to add it there would take as
    long as the operator itself.
    """
    return _of_torch(operators, _DROPPING)


def sorts(operators: Iterable[str]) -> bool:
    """Whether one of these operators of torch sorts numbers."""
    return _of_torch(operators, _SORTING)


def _of_torch(operators: Iterable[str], parts: Iterable[str]) -> bool:
    return any(
        operator.startswith("aten.") and part in operator
        for operator in operators
        for part in parts
    )


def _plain(operator: str) -> str:
    name = operator.removeprefix("aten.").rstrip("_")
    return _ALIASES.get(name, name)
