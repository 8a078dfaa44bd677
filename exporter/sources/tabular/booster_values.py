"""The thresholds and leaves of boosters of XGBoost and LightGBM."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.arrays import Array

__all__ = ["booster_of", "leaf_count", "leaves_reached", "splits_of"]


def booster_of(estimator: Any) -> Any:
    """Return the booster of an estimator, or itself where it is one; None where it has no trees."""
    booster = getattr(estimator, "booster_", estimator)
    if hasattr(estimator, "get_booster"):
        booster = estimator.get_booster()
    if not hasattr(booster, "trees_to_dataframe"):
        return None
    return None if _is_xgboost(booster) and "gblinear" in booster.save_config() else booster


def splits_of(booster: Any) -> dict[int, set[float]]:
    """Return the thresholds, or categories, of a booster's splits by column."""
    found: dict[int, set[float]] = {}
    for column, thresholds in _splits(booster):
        found.setdefault(column, set()).update(thresholds)
    return found


def _splits(booster: Any) -> Any:
    if _is_xgboost(booster):
        names = list(booster.feature_names or ())
        nodes = booster.trees_to_dataframe()
        for name, split in zip(nodes["Feature"], nodes["Split"], strict=True):
            if name != "Leaf":
                yield names.index(name) if name in names else int(name[1:]), [float(split)]
        return
    stack = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while stack:
        node = stack.pop()
        if "split_feature" in node:
            stack += [node["left_child"], node["right_child"]]
            # Categories stand as "1||4||7".
            yield (
                int(node["split_feature"]),
                [float(part) for part in str(node["threshold"]).split("||")],
            )


def leaf_count(booster: Any) -> int:
    """Return the number of leaves of a booster's trees."""
    if _is_xgboost(booster):
        return int((booster.trees_to_dataframe()["Feature"] == "Leaf").sum())
    return sum(int(tree["num_leaves"]) for tree in booster.dump_model()["tree_info"])


def leaves_reached(booster: Any, given: Any) -> Array:
    """Return the leaf of every row in every tree, [rows, trees]."""
    if _is_xgboost(booster):
        import xgboost

        return np.asarray(booster.predict(xgboost.DMatrix(given), pred_leaf=True))
    return np.asarray(booster.predict(given, pred_leaf=True))


def _is_xgboost(booster: Any) -> bool:
    return type(booster).__module__.startswith("xgboost")
