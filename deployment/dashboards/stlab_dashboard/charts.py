"""Line charts as SVG, in the colours of the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

__all__ = ["Line", "chart"]

_HEIGHT = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 26


@dataclass(frozen=True, slots=True)
class Line:
    """Points as (x, y), and a class of the style sheet: ``series-1``, or ``series-2``, dashed."""

    kind: str
    points: Sequence[tuple[float, float]]


def chart(
    lines: Sequence[Line],
    label: str,
    *,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    from_zero: bool = False,
    width: int = 340,
) -> str:
    """Return a chart as SVG, the topmost line last; its label is for screen readers.

    The y axis may begin at zero, and then reaches at least one. Text has its nominal size at the
    width.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right = min(xs), max(xs)
    low, high, step = _axis(*((0.0, max(*ys, 1.0)) if from_zero else (min(ys), max(ys))))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / ((right - left) or 1.0)
        up = (y - low) / (high - low)
        return (
            round(_LEFT + across * (width - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [f'<svg viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    for part in range(round((high - low) / step) + 1):
        value = low + part * step
        _, y = at(left, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y}" y2="{y}"/>')
        words = escape(y_text(value))
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" class="end">{words}</text>')
    ticks = [(left, "start"), ((left + right) / 2, "middle"), (right, "end")]
    for value, anchor in ticks if right > left else ticks[:1]:
        x, _ = at(value, low)
        words = escape(x_text(value))
        parts.append(f'<text x="{x}" y="{_HEIGHT - 8}" class="{anchor}">{words}</text>')
    for line in lines:
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line.points))
        parts.append(f'<polyline class="{line.kind}" points="{path}"/>')
    return "".join([*parts, "</svg>"])


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Return round ends of an axis, and the round step between its two to six marks."""
    raw = max((high - low) / 4, abs(high) * 1e-6, 1e-9)
    unit = 10.0 ** floor(log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    start = floor(low / step) * step
    return start, max(ceil(high / step) * step, start + step), step
