"""Charts: round axes, lines at the values, and a label for screen readers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from stlab_dashboard.charts import Line, chart


def drawn(*points: tuple[float, float], label: str = "", **options: bool) -> ET.Element:
    text = chart(
        [Line("series-1", points)], label, x_text=lambda x: f"{x:g}", y_text=lambda y: f"{y:g}",
        **options,
    )  # fmt: skip
    return ET.fromstring(text)


def marks(svg: ET.Element) -> list[float]:
    return [float(t.text or "") for t in svg.iter("text") if t.get("class") == "end"][:-1]


def test_the_axis_holds_every_point() -> None:
    for low, high in ((0, 1), (21.3, 48.7), (0, 0.004), (999, 1001), (-3, 5), (7, 7)):
        svg = drawn((0, low), (1, high))
        found = marks(svg)
        assert 2 <= len(found) <= 7
        assert found[0] <= low
        assert found[-1] >= high
        (line,) = svg.iter("polyline")
        heights = [float(y) for _, y in re.findall(r"([\d.]+),([\d.]+)", line.get("points") or "")]
        assert all(0 <= height <= 190 for height in heights)


def test_an_axis_from_zero_of_nothing() -> None:
    found = marks(drawn((0, 0.0), (1, 0.0), from_zero=True))
    assert found[0] == 0
    assert found[-1] == 1


def test_words_are_escaped() -> None:
    svg = drawn((0, 1), (1, 2), label='<script>"&')
    assert svg.get("aria-label") == '<script>"&'
    assert svg.get("role") == "img"


def test_no_points_no_chart() -> None:
    assert chart([], "", x_text=str, y_text=str) == ""
