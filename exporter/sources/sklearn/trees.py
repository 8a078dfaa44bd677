"""scikit-learn's fitted trees as ensembles.

Histogram boosting compares in float64, all others round features to float32 before they compare.
Source: scikit-learn ``sklearn/tree/_tree.pyx``, ``sklearn/ensemble/_gb.py``,
``sklearn/ensemble/_hist_gradient_boosting``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from exporter.arrays import Array
from exporter.errors import ValidationFailedError
from exporter.sources.tabular.tree_ensemble import Ensemble, GraphBuilder, Tree, cast

__all__ = ["FAMILIES", "Fitted", "fitted_trees", "has_thresholds", "known_features", "loss_of"]

FAMILIES = (
    "DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees", "GradientBoosting",
    "HistGradientBoosting",
)  # fmt: skip
"""The tree estimators that are converted here, by the beginning of their names."""
_KINDS = ("Classifier", "Regressor")
_TREES = {f"{family}{kind}" for family in (*FAMILIES, "LGBM", "XGB") for kind in _KINDS}
_EXACT = {f"{family}{kind}" for family in ("Voting", "Bagging") for kind in _KINDS} | {
    "Pipeline", "ColumnTransformer", "FeatureUnion", "SimpleImputer", "StandardScaler",
    "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "OneHotEncoder", "OrdinalEncoder",
    "KBinsDiscretizer", "Binarizer", "TransformedTargetRegressor",
}  # fmt: skip

Fitted = tuple[Ensemble, "Array | None", int]
"""Trees, what to add to their sums (None where they are a mean), and the number of trees."""


def has_thresholds(estimator: Any) -> bool:
    """Whether an estimator is trees, with only exactly converted steps before them."""
    found = [estimator, *estimator.get_params(deep=True).values()]
    parts = {type(part).__name__ for part in found if hasattr(part, "get_params")}
    return bool(parts & _TREES) and parts <= _TREES | _EXACT


def loss_of(estimator: Any) -> str:
    """Return the name of the loss that boosted trees were fitted for."""
    return type(vars(estimator)["_loss"]).__name__


def fitted_trees(estimator: Any) -> Fitted | None:
    """Return an estimator's trees, or None where they are not of a kind known here.

    Raises:
        ValidationFailedError: They have no such form.
    """
    if int(getattr(estimator, "n_outputs_", 1)) > 1:
        return None
    if hasattr(estimator, "_predictors"):
        return _histogram_boosting(estimator)
    if hasattr(estimator, "tree_"):
        trees = [_tree(estimator.tree_)]
        return _of_leaves(trees), None, 1
    if hasattr(estimator, "init_"):
        return _boosting(estimator)
    if hasattr(estimator, "estimators_"):
        trees = [_tree(part.tree_) for part in estimator.estimators_]
        return _of_leaves(trees), None, len(trees)
    return None


def _of_leaves(trees: list[Tree]) -> Ensemble:
    return Ensemble(trees, trees[0].values.shape[1], rounds=True)


def _boosting(estimator: Any) -> Fitted | None:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    rounds, targets = estimator.estimators_.shape
    first = estimator.init_
    constant = isinstance(first, DummyRegressor) or (
        isinstance(first, DummyClassifier) and first.strategy == "prior"
    )
    if not constant and first != "zero":
        return None
    row = np.zeros((1, estimator.n_features_in_), np.float32)
    start = estimator._raw_predict_init(row)  # noqa: SLF001 - it depends on the loss
    base = np.asarray(start, np.float64).reshape(-1)
    factor = estimator.learning_rate
    trees = [
        _tree(estimator.estimators_[step, target].tree_, target, factor)
        for step in range(rounds)
        for target in range(targets)
    ]
    return Ensemble(trees, targets, rounds=True), base, len(trees)


def _tree(tree: Any, first: int = 0, factor: float = 1.0) -> Tree:
    nodes = tree.__getstate__()["nodes"]
    return Tree(
        tree.feature,
        tree.threshold,
        np.where(tree.children_left < 0, -1, tree.children_left),
        tree.children_right,
        nodes["missing_go_to_left"].astype(bool),
        factor * tree.value[:, 0, :],
        first,
    )


def _histogram_boosting(estimator: Any) -> Fitted:
    categories = _categories(estimator)
    # After its own encoder the categorical features come first.
    order = np.array([*categories, *(f for f in range(_width(estimator)) if f not in categories)])
    steps = vars(estimator)["_predictors"]
    trees = [
        _histogram_tree(predictor, target, order, categories)
        for step in steps
        for target, predictor in enumerate(step)
    ]
    base = np.asarray(vars(estimator)["_baseline_prediction"], np.float64).reshape(-1)
    return Ensemble(trees, len(steps[0])), base, len(trees)


def _histogram_tree(
    predictor: Any, target: int, order: Array, categories: Mapping[int, Array]
) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    feature, threshold = order[nodes["feature_idx"]], nodes["num_threshold"].copy()
    yes, no = np.where(leaf, -1, nodes["left"].astype(np.int64)), nodes["right"].astype(np.int64)
    equal = nodes["is_categorical"].astype(bool) & ~leaf
    missing = nodes["missing_go_to_left"].astype(bool)
    # A node that tests several categories becomes one node for each.
    more: list[tuple[int, float, int, int]] = []
    for node in np.flatnonzero(equal).tolist():
        known = categories[feature[node]]
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        held = [code for code in range(len(known)) if bits[code // 32] >> code % 32 & 1]
        left = [known[code] for code in held if not np.isnan(known[code])]
        # Where only missing values go left, it tests a category that does not exist.
        threshold[node], *rest = left or [np.nanmax(known, initial=0.0) + 1]
        for category in rest:
            more.append((node, category, yes[node], no[node]))
            no[node] = len(nodes) + len(more) - 1
    of = np.array([node for node, *_ in more], np.int64)
    return Tree(
        np.concatenate([feature, feature[of]]),
        np.concatenate([threshold, [category for _, category, *_ in more]]),
        np.concatenate([yes, np.array([place for *_, place, _ in more], np.int64)]),
        np.concatenate([no, np.array([place for *_, place in more], np.int64)]),
        np.concatenate([missing, missing[of]]),
        np.concatenate([nodes["value"], np.zeros(len(more))])[:, None],
        target,
        np.concatenate([equal, equal[of]]),
    )


def _categories(estimator: Any) -> dict[int, Array]:
    """Return the categories of every feature that has some, in the order of their codes."""
    encoder = getattr(estimator, "_preprocessor", None)
    if encoder is None:
        if any(p.nodes["is_categorical"].any() for step in estimator._predictors for p in step):  # noqa: SLF001
            raise _without_form(estimator)
        return {}
    found = np.flatnonzero(estimator.is_categorical_).tolist()
    lists = encoder.named_transformers_["encoder"].categories_
    if any(values.dtype.kind not in "biuf" for values in lists):
        raise _without_form(estimator)
    return {
        feature: values.astype(np.float64) for feature, values in zip(found, lists, strict=True)
    }


def _width(estimator: Any) -> int:
    return int(estimator.n_features_in_)


def _without_form(estimator: Any) -> ValidationFailedError:
    return ValidationFailedError(
        f"{type(estimator).__name__} with categories that are no numbers has no ONNX form",
        hint="Encode them by an OrdinalEncoder or OneHotEncoder in a pipeline.",
        kind="convert",
    )


def known_features(graph: GraphBuilder, features: str, estimator: Any) -> str:
    """Replace unknown categories by NaN: scikit-learn treats them as missing."""
    categories = _categories(estimator) if hasattr(estimator, "_predictors") else {}
    if not categories:
        return features
    known = np.full((_width(estimator), max(map(len, categories.values()))), np.nan)
    for feature, values in categories.items():
        known[feature, : len(values)] = values
    number = np.array([feature not in categories for feature in range(len(known))])
    wide = cast(graph, features, TensorProto.DOUBLE)
    last = graph.constant(np.array([2], np.int64))
    found = graph.node("Equal", graph.node("Unsqueeze", wide, last), graph.constant(known))
    some = graph.node("ReduceMax", cast(graph, found, TensorProto.INT32), last, keepdims=0)
    kept = graph.node("Or", cast(graph, some, TensorProto.BOOL), graph.constant(number))
    return graph.node("Where", kept, wide, graph.constant(np.array([np.nan])))
