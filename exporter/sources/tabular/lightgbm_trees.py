"""Converts LightGBM's boosters: trees, and the objective's function of their sums.

Source: LightGBM ``include/LightGBM/tree.h`` (decisions, missing values), ``src/objective``
(what a sum becomes), ``src/boosting/gbdt_prediction.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from exporter.arrays import Array
from exporter.sources.tabular.tree_ensemble import (
    Ensemble,
    GraphBuilder,
    Tree,
    binary,
    divided,
    no_onnx_form,
    scores,
    whole,
)

__all__ = ["prediction", "probabilities"]

# The largest number that LightGBM takes for zero where zeros are missing values.
_ZERO = 1.0000000180025095e-35
_AS_IT_IS = frozenset(
    {"", "custom", "regression", "regression_l1", "huber", "fair", "quantile", "mape",
     "lambdarank", "rank_xendcg"}
)  # fmt: skip
_OPERATORS = {
    "poisson": "Exp",
    "gamma": "Exp",
    "tweedie": "Exp",
    "cross_entropy": "Sigmoid",
    "multiclass": "Softmax",
}


def prediction(graph: GraphBuilder, features: str, booster: Any) -> str:
    """Add a booster's ``predict``, float64 [rows, classes or 1].

    Raises:
        ValidationFailedError: Its trees or its objective have no such form.
    """
    model = booster.dump_model()
    name, words = _objective(model)
    sums = _sums(graph, features, model)
    if "sqrt" in words:
        return graph.node("Mul", graph.node("Abs", sums), sums)
    if name in _AS_IT_IS:
        return sums
    if name in {"binary", "multiclassova"}:
        slope = np.array([float(words.get("sigmoid", 1))])
        return graph.node("Sigmoid", graph.node("Mul", sums, graph.constant(slope)))
    if name == "cross_entropy_lambda":  # no Softplus of float64 in earlier ONNX Runtimes
        more = graph.node("Add", graph.node("Exp", sums), graph.constant(np.array([1.0])))
        return graph.node("Log", more)
    if name not in _OPERATORS:
        raise no_onnx_form("LightGBM", f"the objective '{name}'")
    return graph.node(_OPERATORS[name], sums)


def probabilities(graph: GraphBuilder, features: str, booster: Any) -> str:
    """Add a classifier's ``predict_proba``, float64 [rows, classes]; see `prediction`."""
    given = prediction(graph, features, booster)
    return binary(graph, given) if booster.dump_model()["num_class"] == 1 else given


def _objective(model: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    name, *words = str(model.get("objective", "")).split() or [""]
    return name, {key: value for key, _, value in (word.partition(":") for word in words)}


def _sums(graph: GraphBuilder, features: str, model: Mapping[str, Any]) -> str:
    targets = int(model["num_tree_per_iteration"])
    parts = model["tree_info"]
    width = int(model["max_feature_idx"]) + 1
    seen = _Seen(set(), set(), set())
    trees = [
        _tree(part["tree_structure"], number % targets, seen) for number, part in enumerate(parts)
    ]
    if seen.zeros & seen.others:
        raise no_onnx_form(
            "LightGBM", "a feature whose zeros are missing values in some trees only"
        )
    if seen.zeros:
        features = _without_zeros(graph, features, seen.zeros, width)
    if seen.categories:
        features = whole(graph, features, sorted(seen.categories), width)
    sums = scores(graph, features, Ensemble(trees, targets))
    if model.get("average_output"):
        return divided(graph, sums, len(trees) // targets)
    return sums


class _Seen(NamedTuple):
    """Features by how trees read them.

    Attributes:
        zeros: Those whose zeros are missing values.
        others: Other numbers.
        categories: Categories.
    """

    zeros: set[int]
    others: set[int]
    categories: set[int]


def _tree(root: Mapping[str, Any], target: int, seen: _Seen) -> Tree:
    nodes = [root]
    rows: list[tuple[int, float, int, int, bool, float, bool]] = []
    for node in nodes:  # grows as it goes
        if "leaf_value" in node:
            if node.get("leaf_coeff"):
                raise no_onnx_form("LightGBM", "linear models in its leaves")
            rows.append((0, 0.0, -1, -1, False, float(node["leaf_value"]), False))
            continue
        feature = int(node["split_feature"])
        yes, no = node.get("yes", len(nodes)), node.get("no", len(nodes) + 1)
        nodes += [] if "yes" in node else [node["left_child"], node["right_child"]]
        if node["decision_type"] == "==":
            # One node for each. Missing and unknown categories are none of them.
            first, _, rest = node["threshold"].partition("||")
            rows.append((feature, float(first), yes, len(nodes) if rest else no, False, 0.0, True))
            nodes += [{**node, "threshold": rest, "yes": yes, "no": no}] if rest else []
            seen.categories.add(feature)
            continue
        threshold = float(node["threshold"])
        # Where nothing was missing in training, NaN is taken for zero.
        missing = threshold >= 0 if node["missing_type"] == "None" else bool(node["default_left"])
        (seen.zeros if node["missing_type"] == "Zero" else seen.others).add(feature)
        rows.append((feature, threshold, yes, no, missing, 0.0, False))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    feature_, threshold_, yes_, no_, missing_, values, equal = columns
    return Tree(feature_, threshold_, yes_, no_, missing_, values[:, None], target, equal)


def _without_zeros(graph: GraphBuilder, features: str, zeros: set[int], width: int) -> str:
    """Replace by NaN the zeros that LightGBM takes for missing."""
    mask: Array = np.isin(np.arange(width), sorted(zeros))
    wide = graph.node("Cast", features, to=11)
    small = graph.node("LessOrEqual", graph.node("Abs", wide), graph.constant(np.array([_ZERO])))
    missing = graph.node("And", small, graph.constant(mask))
    return graph.node("Where", missing, graph.constant(np.array([np.nan])), wide)
