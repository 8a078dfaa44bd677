"""The colours of texts and lines have the contrast of WCAG 2.2 AA, light and dark."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

SHEET = files("stlab_dashboard").joinpath("static", "dashboard.css").read_text()
TEXT, SHAPE = 4.5, 3.0
TEXTS = ("ink", "quiet", "link", "good", "bad", "warn")
SHAPES = ("edge", "focus", "series-1", "series-2")


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", SHEET, re.DOTALL)
    return {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name, block in {"light": light, "dark": dark}.items()
    }


def luminance(colour: str) -> float:
    """Relative luminance; https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_have_enough_contrast() -> None:
    limits = {**dict.fromkeys(TEXTS, TEXT), **dict.fromkeys(SHAPES, SHAPE)}
    for palette, colours in palettes().items():
        for name, limit in limits.items():
            for ground in ("ground", "raised"):
                found = contrast(colours[name], colours[ground])
                assert found >= limit, f"--{name} on --{ground}, {palette}: {found:.2f}"
        assert contrast(colours["button"], colours["on-button"]) >= TEXT


def test_colours_are_in_the_palettes_only() -> None:
    rules = re.sub(r":root \{.*?\}", "", SHEET, flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", rules)


def test_nothing_is_loaded_from_other_hosts() -> None:
    assert "url(" not in SHEET
    assert "@import" not in SHEET
