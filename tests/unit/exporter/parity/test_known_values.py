"""Rows of known values: all that a model takes are compared, and what it refuses is named."""

from __future__ import annotations

import numpy as np

from exporter.arrays import Arrays
from exporter.parity.known_values import KnownRows
from exporter.sources.base import InputRejectedError
from exporter.sources.known_values import CATEGORIES, MISSING, UNKNOWN, WORDS, KnownValues


def test_what_is_refused_does_not_hide_the_rest() -> None:
    typical = {"word": np.array([[b"x"], [b"y"]], dtype=object), "number": np.ones((2, 2))}
    known = [
        KnownValues("word", 0, CATEGORIES, [b"x", b"y", b"z"]),
        KnownValues("word", 0, UNKNOWN, [b"bad", b"good", b""]),
        KnownValues("number", 1, MISSING, [np.nan]),
        KnownValues("number", 0, WORDS, [1.0, 2.0], counts=[8, 2], known=12),
    ]
    taken: list[Arrays] = []

    def run(_name: str, rows: Arrays) -> None:
        if (rows["word"] == b"bad").any() or np.isnan(rows["number"]).any():
            raise InputRejectedError("no")
        assert len(rows["word"]) <= 3
        taken.append(rows)

    found = KnownRows(typical, known, most=3)
    found.run(run)
    assert found.shown == {CATEGORIES: (3, 3), WORDS: (10, 12)}
    assert dict(found.rejected) == {UNKNOWN: ["word"], MISSING: ["number"]}
    words = {word for rows in taken for word in rows["word"].ravel()}
    assert words == {b"x", b"y", b"z", b"good", b""}
    pairs = {(w, n) for rows in taken for w, (n, _) in zip(rows["word"].ravel(), rows["number"])}  # noqa: B905
    assert {(b"z", 2.0), (b"good", 1.0), (b"", 2.0)} <= pairs, "values of both inputs are combined"
    assert typical["word"].tolist() == [[b"x"], [b"y"]]
