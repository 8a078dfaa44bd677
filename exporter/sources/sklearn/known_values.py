"""What a fitted estimator knows of each column: categories, words, missing values, thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from exporter.sources.known_values import (
    CATEGORIES,
    LIMITS,
    MISSING,
    SPLITS,
    UNKNOWN,
    WORDS,
)
from exporter.sources.sklearn.known_texts import texts_of
from exporter.sources.sklearn.numeric_converters import SCALERS, is_nothing
from exporter.sources.tabular.booster_values import booster_of, splits_of
from exporter.sources.tabular.column_values import ColumnValues

__all__ = ["known_of_columns", "sklearn_trees"]

_MOST_SPLITS = 64
_SEARCHED = ("best_estimator_", "regressor_", "estimator_")


def known_of_columns(estimator: Any, width: int) -> list[ColumnValues]:
    """Return what a fitted estimator, or any step of it, knows of its input's columns."""
    walk = _Walk([])
    walk.step(estimator, [_Column(number, list) for number in range(width)])
    return walk.found


class _Column(NamedTuple):
    """A column of the input, and how a value of it after some steps is turned back."""

    number: int
    back: Callable[[list[Any]], list[Any]]


class _Walk(NamedTuple):
    """A walk through a pipeline; columns are those of the input, None where a step made them."""

    found: list[ColumnValues]

    def step(self, estimator: Any, columns: list[_Column | None]) -> list[_Column | None]:
        """Note what a step knows, and return the columns that it hands on."""
        if estimator is None or isinstance(estimator, str):
            return columns if estimator != "drop" else []
        if hasattr(estimator, "steps"):
            for _, part in estimator.steps:
                columns = self.step(part, columns)
            return columns
        if hasattr(estimator, "_transformer_to_input_indices"):
            return self._column_transformer(estimator, columns)
        if hasattr(estimator, "transformer_list"):
            return [c for _, part in estimator.transformer_list for c in self.step(part, columns)]
        for name in _SEARCHED:
            if hasattr(estimator, name):
                return self.step(getattr(estimator, name), columns)
        return self._values(estimator, columns)

    def _column_transformer(
        self, estimator: Any, columns: list[_Column | None]
    ) -> list[_Column | None]:
        handed: list[_Column | None] = []
        taken = estimator._transformer_to_input_indices  # noqa: SLF001 - names, masks and slices resolved
        for name, part, _ in estimator.transformers_:
            handed += self.step(part, [columns[index] for index in taken.get(name, ())])
        return handed

    def _values(self, estimator: Any, columns: list[_Column | None]) -> list[_Column | None]:
        if hasattr(estimator, "missing_values"):
            self._add(columns, MISSING, [estimator.missing_values])
            return columns
        if hasattr(estimator, "build_analyzer") and columns and columns[0] is not None:
            texts, counts, known = texts_of(estimator)
            self.found.append(ColumnValues(columns[0].number, WORDS, texts, counts, known))
        for column, categories in zip(columns, _each(estimator, "categories_"), strict=False):
            self._categories(column, list(categories))
        for column, edges in zip(columns, _each(estimator, "bin_edges_"), strict=False):
            self._add([column], LIMITS, _around(edges))
        quantiles = np.transpose(_each(estimator, "quantiles_"))
        for column, edges in zip(columns, quantiles, strict=False):
            self._add([column], LIMITS, _around([edges[0], edges[-1]]))
        if type(estimator).__name__ in SCALERS:
            return [
                column and _Column(column.number, partial(_unscaled, estimator, place, column.back))
                for place, column in enumerate(columns)
            ]
        booster = booster_of(estimator)
        splits = _splits(estimator) if booster is None else splits_of(booster)
        for number, thresholds in splits.items():
            if number < len(columns):
                self._add([columns[number]], SPLITS, _between(thresholds))
        return [None] * len(columns)

    def _categories(self, column: _Column | None, categories: list[Any]) -> None:
        known = [value for value in categories if not is_nothing(value)]
        self._add([column], CATEGORIES, known)
        if len(known) < len(categories):
            self._add([column], MISSING, [np.nan])
        if known and isinstance(known[0], str):
            longest = max(known, key=len)
            self._add([column], UNKNOWN, [f"{longest}~", longest.upper(), f" {longest}", ""])
        elif known and not isinstance(known[0], (bool, np.bool_)):
            self._add([column], UNKNOWN, [max(known) + 1, min(known) - 1])

    def _add(self, columns: Iterable[_Column | None], kind: str, values: Iterable[Any]) -> None:
        given = [value for value in values if value is not None]
        if given:
            self.found.extend(
                ColumnValues(column.number, kind, column.back(given))
                for column in columns
                if column is not None
            )


def _unscaled(
    estimator: Any, place: int, back: Callable[[list[Any]], list[Any]], values: list[Any]
) -> list[Any]:
    """Return what a scaler turns into some values of one of its columns."""
    rows = np.zeros((len(values), estimator.n_features_in_))
    rows[:, place] = values
    return back(estimator.inverse_transform(rows)[:, place].tolist())


def _each(estimator: Any, name: str) -> Any:
    return getattr(estimator, name, ())


def _around(edges: Iterable[float]) -> list[float]:
    """Return numbers, each with its neighbours."""
    return [
        float(value)
        for edge in edges
        for value in (np.nextafter(edge, -np.inf), edge, np.nextafter(edge, np.inf))
    ]


def _splits(estimator: Any) -> dict[int, set[float]]:
    """Return the thresholds of scikit-learn's trees, by column."""
    splits: dict[int, set[float]] = {}
    for feature, threshold in _nodes(estimator):
        if feature >= 0:
            splits.setdefault(int(feature), set()).add(float(threshold))
    return splits


def _nodes(estimator: Any) -> Iterator[tuple[int, float]]:
    """Yield the feature of every node and its threshold; leaves have a negative feature."""
    for tree in sklearn_trees(estimator):
        yield from zip(tree.feature, tree.threshold, strict=True)
    for rounds in getattr(estimator, "_predictors", ()):
        for tree in rounds:
            inner = tree.nodes[(tree.nodes["is_leaf"] == 0) & (tree.nodes["is_categorical"] == 0)]
            yield from zip(inner["feature_idx"], inner["num_threshold"], strict=True)


def _between(thresholds: Iterable[float]) -> list[float]:
    """Return values between thresholds, and beyond the first and the last one."""
    found = np.unique(np.asarray([t for t in thresholds if np.isfinite(t)], np.float64))
    if not len(found):
        return []
    reach = max(1.0, float(np.abs(found).max()))
    middle = (found[1:] + found[:-1]) / 2
    values = np.concatenate([[found[0] - reach], middle, [found[-1] + reach]])
    if len(values) > _MOST_SPLITS:
        values = values[np.linspace(0, len(values) - 1, _MOST_SPLITS).astype(int)]
    return [float(value) for value in values]


def sklearn_trees(estimator: Any) -> Iterator[Any]:
    """Yield the trees of an estimator of scikit-learn."""
    if hasattr(estimator, "tree_"):
        yield estimator.tree_
    for part in np.ravel(np.asarray(getattr(estimator, "estimators_", ()), dtype=object)):
        if hasattr(part, "tree_"):
            yield part.tree_
