"""Rewrites the operator for binary tree ensembles, which versions of ONNX Runtime disagree about.

A ``TreeEnsembleClassifier`` of two classes that has weights for one of them alone gives 1 - p for
the other one in some versions, and -p in others (1.27 among them). The regressor of the same trees
gives p in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

__all__ = ["without_binary_trees"]

_ONE = "binary_one"
_DOMAIN = "ai.onnx.ml"
_LABELS = ("classlabels_strings", "classlabels_int64s")


def without_binary_trees(proto: onnx.ModelProto) -> bool:
    """Replace binary tree classifiers by regressors where only their probabilities are used.

    Returns:
        Whether there were any.
    """
    nodes = list(proto.graph.node)
    found: set[str] = set()
    for place, node in enumerate(nodes):
        if node.op_type != "TreeEnsembleClassifier":
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        transform = attributes.pop("post_transform", b"NONE")
        if len(set(attributes["class_ids"])) != 1 or transform not in {b"NONE", b"LOGISTIC"}:
            continue
        found.add(node.output[1])
        nodes[place : place + 1] = _regressor(node, attributes, logistic=transform == b"LOGISTIC")
    if found:
        one = numpy_helper.from_array(np.ones((1, 1), np.float32), _ONE)
        proto.graph.initializer.append(one)
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        _drop_labels(proto.graph)
        for value in proto.graph.output:
            if value.name in found:  # as the regressor has it, whatever the classifier had
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    return bool(found)


def _regressor(
    node: onnx.NodeProto, attributes: dict[str, Any], *, logistic: bool
) -> Iterator[onnx.NodeProto]:
    label, scores = node.output
    renamed = {
        name.replace("class_ids", "target_ids")
        .replace("class_nodeids", "target_nodeids")
        .replace("class_treeids", "target_treeids")
        .replace("class_weights", "target_weights"): value
        for name, value in attributes.items()
        if name not in _LABELS
    }
    renamed["target_ids"] = [0] * len(renamed["target_ids"])
    raw, second, first = f"{scores}_raw", f"{scores}_second", f"{scores}_first"
    yield helper.make_node(
        "TreeEnsembleRegressor",
        list(node.input),
        [raw],
        domain=_DOMAIN,
        n_targets=1,
        **renamed,
    )
    yield helper.make_node("Sigmoid" if logistic else "Identity", [raw], [second])
    yield helper.make_node("Sub", [_ONE, second], [first])
    yield helper.make_node("Concat", [first, second], [scores], axis=1)
    # Who reads the label gets none: it is chosen from the probabilities.
    yield helper.make_node("ArgMax", [scores], [label], axis=1, keepdims=0)


def _drop_labels(graph: onnx.GraphProto) -> None:
    """Remove the first output, whose words are gone, and what makes it alone."""
    del graph.output[0]
    while True:
        used = {name for node in graph.node for name in node.input}
        used |= {value.name for value in graph.output}
        idle = [node for node in graph.node if not used & set(node.output)]
        if not idle:
            return
        for node in idle:
            graph.node.remove(node)
