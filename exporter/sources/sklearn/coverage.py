"""How much of a fitted estimator inputs exercised: the leaves of its trees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from exporter.arrays import Array
from exporter.sources.known_values import Counts
from exporter.sources.sklearn.known_values import sklearn_trees
from exporter.sources.tabular.booster_values import booster_of, leaf_count, leaves_reached

__all__ = ["leaves_of"]


def leaves_of(estimator: Any, given: Iterable[Any]) -> Counts:
    """Return how many leaves of an estimator's trees some inputs reached; nothing for others.

    Args:
        estimator: A fitted estimator of scikit-learn, XGBoost or LightGBM, or a pipeline of some.
        given: Inputs as the estimator takes them.
    """
    before, last = None, estimator
    while hasattr(last, "steps"):
        before, last = (last[:-1] if len(last.steps) > 1 else None), last.steps[-1][1]
    count = _number_of_leaves(last)
    if not count:
        return {}
    reached = [_reached(last, one if before is None else before.transform(one)) for one in given]
    columns = np.concatenate([array.reshape(len(array), -1) for array in reached])
    seen = sum(len(np.unique(column)) for column in columns.T)
    return {"leaves": (min(seen, count), count)}


def _number_of_leaves(estimator: Any) -> int:
    if (booster := booster_of(estimator)) is not None:
        return leaf_count(booster)
    # Without apply() it is unknown which leaf a row ends in.
    trees = sklearn_trees(estimator) if hasattr(estimator, "apply") else ()
    return sum(int(tree.n_leaves) for tree in trees)


def _reached(estimator: Any, given: Any) -> Array:
    if (booster := booster_of(estimator)) is not None:
        return leaves_reached(booster, given)
    return np.asarray(estimator.apply(given))
