"""The table of releases."""

from __future__ import annotations

from itertools import pairwise

import pytest

from exporter.errors import UsageError
from exporter.triton.releases import DEFAULT_RELEASE, RELEASES, release


def test_every_month_of_the_range_is_known() -> None:
    years = {23: range(5, 13), 24: range(1, 13), 25: range(1, 13), 26: range(1, 8)}
    expected = [f"{year}.{month:02}" for year, months in years.items() for month in months]
    assert list(RELEASES) == expected
    assert DEFAULT_RELEASE in RELEASES


@pytest.mark.parametrize(
    ("name", "core", "onnxruntime", "opset", "ir"),
    [
        ("23.05", "2.34.0", "1.15.0", 19, 8),
        ("24.03", "2.44.0", "1.17.2", 20, 9),
        ("24.10", "2.51.0", "1.19.2", 21, 10),
        ("26.03", "2.67.0", "1.24.2", 25, 13),
        ("26.07", "2.71.0", "1.27.0", 26, 13),
    ],
)
def test_release(name: str, core: str, onnxruntime: str, opset: int, ir: int) -> None:
    found = release(name)
    assert (found.name, found.core, found.onnxruntime) == (name, core, onnxruntime)
    assert (found.max_opset, found.max_ir, found.assumed) == (opset, ir, False)


def test_nothing_ever_gets_older() -> None:
    rows = list(RELEASES.values())
    for older, newer in pairwise(rows):
        assert older.max_opset <= newer.max_opset
        assert older.max_ir <= newer.max_ir
        for field in ("core", "onnxruntime"):
            numbers = [
                tuple(int(part) for part in getattr(row, field).split("."))
                for row in (older, newer)
            ]
            assert numbers[0] <= numbers[1]


def test_a_newer_release_is_assumed_to_be_like_the_newest() -> None:
    newest = list(RELEASES.values())[-1]
    found = release("27.01")
    assert found.name == "27.01"
    assert found.assumed
    assert found.max_opset == newest.max_opset


@pytest.mark.parametrize("name", ["", "26", "26.7", "26.13", "26.00", "2026.07", "26.07-py3", "x"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"YY\.MM"):
        release(name)


def test_an_older_release_is_refused_with_the_range() -> None:
    with pytest.raises(UsageError) as caught:
        release("23.04")
    assert "23.05 to 26.07" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "found", "matches"),
    [
        ("25.03", "10.9.0.34", True),
        ("25.03", "10.9.1", True),
        ("25.03", "10.10.0.31", False),
        ("25.03", "11.9.0", False),
        ("25.05", "10.10.0.31", True),
        ("25.05", "10.1.0", False),
        ("24.02", "8.6.1", True),
        # Of some releases the major version is all that is known, of others nothing.
        ("26.07", "11.4.0.106", True),
        ("26.07", "10.16.1.11", False),
        ("26.01", "10.14.1", True),
        ("27.01", "11.0.0.114", True),
    ],
)
def test_which_tensorrt_builds_plans_for_it(name: str, found: str, matches: bool) -> None:
    assert release(name).tensorrt_matches(found) is matches
