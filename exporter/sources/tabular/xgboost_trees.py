"""Converts XGBoost's boosters: trees or factors, and the objective's function of their sums.

Source: XGBoost ``doc/model.schema`` (the JSON form), ``src/tree/tree_model.h`` (decisions, missing
values), ``src/objective`` (what a sum becomes, and how a base score becomes a sum).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.arrays import Array
from exporter.sources.tabular.tree_ensemble import (
    Ensemble,
    GraphBuilder,
    Tree,
    binary,
    cast,
    no_onnx_form,
    scores,
)

__all__ = ["prediction", "probabilities", "rounds_of", "without_missing"]

_FLOAT = 1
_LOGISTIC = frozenset({"binary:logistic", "reg:logistic"})
_EXPONENTIAL = frozenset(
    {"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"}
)
_AS_IT_IS = frozenset(
    {"reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
     "reg:quantileerror", "reg:expectileerror", "reg:linear", "rank:pairwise", "rank:ndcg",
     "rank:map", "binary:logitraw"}
)  # fmt: skip


def prediction(graph: GraphBuilder, features: str, booster: Any, rounds: int | None = None) -> str:
    """Add a booster's ``predict`` in so many rounds (None for all), float32 [rows, classes or 1].

    Raises:
        ValidationFailedError: Its trees or its objective have no such form.
    """
    objective, sums = _sums(graph, features, booster, rounds)
    if objective == "multi:softmax":
        return cast(graph, graph.node("ArgMax", sums, axis=1, keepdims=1), _FLOAT)
    return _linked(graph, objective, sums)


def probabilities(
    graph: GraphBuilder, features: str, booster: Any, rounds: int | None = None
) -> str:
    """Add a classifier's ``predict_proba``, float32 [rows, classes]; see `prediction`."""
    objective, sums = _sums(graph, features, booster, rounds)
    # A classifier gives probabilities whichever of the two it was trained for.
    given = _linked(graph, objective.replace("multi:softmax", "multi:softprob"), sums)
    return given if objective.startswith("multi:") else binary(graph, given, np.float32)


def rounds_of(estimator: Any) -> int | None:
    """Return the rounds that an estimator predicts with; None for all."""
    try:
        return int(estimator.best_iteration) + 1
    except AttributeError:  # it was not stopped early
        return None


def without_missing(graph: GraphBuilder, features: str, estimator: Any) -> str:
    """Replace by NaN the number that an estimator takes for missing."""
    missing = float(estimator.missing if estimator.missing is not None else np.nan)
    if np.isnan(missing):
        return features
    narrow = cast(graph, features, _FLOAT)
    equal = graph.node("Equal", narrow, graph.constant(_number(missing)))
    return graph.node("Where", equal, graph.constant(_number(np.nan)), narrow)


def _linked(graph: GraphBuilder, objective: str, sums: str) -> str:
    if objective in _AS_IT_IS:
        return sums
    if objective in _LOGISTIC:
        return graph.node("Sigmoid", sums)
    if objective in _EXPONENTIAL:
        return graph.node("Exp", sums)
    if objective == "multi:softprob":
        return graph.node("Softmax", sums, axis=1)
    if objective == "binary:hinge":
        return cast(graph, graph.node("Greater", sums, graph.constant(_number(0))), _FLOAT)
    raise no_onnx_form("XGBoost", f"the objective '{objective}'")


def _sums(graph: GraphBuilder, features: str, booster: Any, rounds: int | None) -> tuple[str, str]:
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = str(learner["objective"]["name"])
    given = learner["learner_model_param"]
    labels = int(given["num_target"])
    targets = max(int(given["num_class"]), labels, 1)
    if labels > 1 and objective in _LOGISTIC:
        raise no_onnx_form("XGBoost", "several labels")
    base = _base(objective, np.atleast_1d(np.array(json.loads(given["base_score"]), np.float64)))
    boosted = learner["gradient_booster"]
    if boosted["name"] == "gblinear":
        if len(set(base.tolist())) > 1:  # of which XGBoost 3 adds the first to all
            raise no_onnx_form("XGBoost", "linear models (gblinear) of several classes")
        sums = _linear(graph, features, boosted["model"]["weights"], targets)
    else:
        sums = _of_trees(graph, features, boosted, targets, rounds)
    return objective, graph.node("Add", sums, graph.constant(base.astype(np.float32)))


def _linear(graph: GraphBuilder, features: str, weights: Sequence[float], targets: int) -> str:
    """Add the sums of a linear booster; missing values count as zero."""
    factors = np.array(weights, np.float32).reshape(-1, targets)
    narrow = cast(graph, features, _FLOAT)
    there = graph.node("Where", graph.node("IsNaN", narrow), graph.constant(_number(0)), narrow)
    products = graph.node("MatMul", there, graph.constant(factors[:-1]))
    return graph.node("Add", products, graph.constant(factors[-1]))


def _of_trees(
    graph: GraphBuilder, features: str, boosted: Mapping[str, Any], targets: int, rounds: int | None
) -> str:
    model = boosted.get("gbtree", boosted)["model"]
    count = len(model["trees"])
    if rounds is not None:
        count = int(model["iteration_indptr"][rounds])
    factors = boosted.get("weight_drop") or [1.0] * count
    trees = [
        _tree(tree, int(group), factor)
        for tree, group, factor in zip(
            model["trees"][:count], model["tree_info"], factors, strict=False
        )
    ]
    if not trees:
        raise no_onnx_form("XGBoost", "no trees")
    return scores(graph, features, Ensemble(trees, targets, strict=True, wide=False))


def _base(objective: str, score: Array) -> Array:
    """What a base score, which is a prediction, adds to a sum."""
    if objective in _LOGISTIC:
        logit: Array = -np.log(1 / score - 1)
        return logit
    return np.log(score) if objective in _EXPONENTIAL else score


def _tree(tree: Mapping[str, Any], group: int, factor: float) -> Tree:
    if any(tree["split_type"]):
        raise no_onnx_form("XGBoost", "a categorical feature")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise no_onnx_form("XGBoost", "several values in one leaf")
    # A leaf's value is in the array of thresholds.
    values = np.array(tree["split_conditions"], np.float32)
    return Tree(
        np.array(tree["split_indices"]),
        values.astype(np.float64),
        np.array(tree["left_children"]),
        np.array(tree["right_children"]),
        np.array(tree["default_left"], dtype=bool),
        (values * np.float32(factor))[:, None].astype(np.float64),
        group,
    )


def _number(value: float) -> Array:
    return np.array([value], np.float32)
