"""scikit-learn's fitted trees as ensembles.

Histogram boosting compares in float64, all others round features to float32 before they compare.
Source: scikit-learn ``sklearn/tree/_tree.pyx``, ``sklearn/ensemble/_gb.py``,
``sklearn/ensemble/_hist_gradient_boosting``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ValidationFailed
from exporter.sources.tabular.ensembles import Ensemble, Tree

if TYPE_CHECKING:
    from exporter.sources.base import Array

__all__ = ["FAMILIES", "Fitted", "fitted_trees", "loss_of", "splits"]

FAMILIES = (
    "DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees", "GradientBoosting",
    "HistGradientBoosting",
)  # fmt: skip
"""The estimators that are written here, by what their names begin with."""
_KINDS = ("Classifier", "Regressor")
_TREES = {f"{family}{kind}" for family in (*FAMILIES, "LGBM", "XGB") for kind in _KINDS}
_EXACT = {f"{family}{kind}" for family in ("Voting", "Bagging") for kind in _KINDS} | {
    "Pipeline", "ColumnTransformer", "FeatureUnion", "SimpleImputer", "StandardScaler",
    "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "OneHotEncoder", "OrdinalEncoder",
    "KBinsDiscretizer", "Binarizer",
}  # fmt: skip

Fitted = tuple[Ensemble, "Array | None", int]
"""Trees, what to add to their sums (None where they are a mean), and the number of trees."""


def splits(estimator: Any) -> bool:
    """Whether an estimator is trees with nothing before them but what is written exactly."""
    found = [estimator, *estimator.get_params(deep=True).values()]
    parts = {type(part).__name__ for part in found if hasattr(part, "get_params")}
    return bool(parts & _TREES) and parts <= _TREES | _EXACT


def loss_of(estimator: Any) -> str:
    """Return the name of the loss that boosted trees were fitted for."""
    return type(vars(estimator)["_loss"]).__name__


def fitted_trees(estimator: Any) -> Fitted | None:
    """Return an estimator's trees, or None where they are not of a kind known here.

    Raises:
        ValidationFailed: They have no such form.
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
    trees = []
    steps = vars(estimator)["_predictors"]
    for step in steps:
        for target, predictor in enumerate(step):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise ValidationFailed(
                    f"{type(estimator).__name__} with categorical features has no ONNX form",
                    hint="Encode them by an OrdinalEncoder or OneHotEncoder in a pipeline.",
                    kind="convert",
                )
            leaf = nodes["is_leaf"].astype(bool)
            trees.append(
                Tree(
                    nodes["feature_idx"],
                    nodes["num_threshold"],
                    np.where(leaf, -1, nodes["left"].astype(np.int64)),
                    nodes["right"],
                    nodes["missing_go_to_left"].astype(bool),
                    nodes["value"][:, None],
                    target,
                )
            )
    base = np.asarray(vars(estimator)["_baseline_prediction"], np.float64).reshape(-1)
    return Ensemble(trees, len(steps[0])), base, len(trees)
