"""Adds nodes to the graph that skl2onnx writes, one operator at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from exporter.arrays import Array
from exporter.errors import ValidationFailedError
from exporter.sources.tabular.tree_ensemble import class_at

__all__ = ["FallbackConverter", "OperatorGraph"]


class FallbackConverter:
    """A converter with skl2onnx's own as fallback for what it does not know."""

    def __init__(
        self, convert: Callable[[OperatorGraph, Any], bool], original: Callable[..., None]
    ) -> None:
        self._convert = convert
        self._original = original

    def __call__(self, scope: Any, operator: Any, container: Any) -> None:
        """Convert an operator; skl2onnx calls this."""
        graph = OperatorGraph(scope, operator, container)
        if not self._convert(graph, operator.raw_operator):
            self._original(scope, operator, container)


class OperatorGraph:
    """The nodes of one scikit-learn operator; a `GraphBuilder`."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope = scope
        self._operator = operator
        self._container = container
        self.features: str = operator.inputs[0].full_name
        self.outputs: list[Any] = operator.outputs

    @property
    def options(self) -> dict[str, Any]:
        """The options that the operator is converted with."""
        found: dict[str, Any] | None = self._container.get_options(
            self._operator.raw_operator, fail=False
        )
        return found or {}

    def input_matrix(self, kind: int) -> str:
        """Return all inputs of the operator as one matrix of a type."""
        names = [self.node("Cast", given.full_name, to=kind) for given in self._operator.inputs]
        return self._side_by_side(names)

    def string_matrix(self) -> str:
        """Return all inputs of the operator as one matrix of strings; empty where some are not."""
        from skl2onnx.common.data_types import StringTensorType

        inputs = self._operator.inputs
        if not all(isinstance(given.type, StringTensorType) for given in inputs):
            return ""
        return self._side_by_side([given.full_name for given in inputs])

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; see `GraphBuilder`."""
        (name,) = self.nodes(kind, 1, *inputs, domain=domain, **attributes)
        return name

    def nodes(
        self, kind: str, count: int, *inputs: str, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs, and return their names."""
        names = [str(self._scope.get_unique_variable_name("tree")) for _ in range(count)]
        self._add(kind, list(inputs), names, domain=domain, **attributes)
        return names

    def constant(self, values: Array) -> str:
        """Add a constant; see `GraphBuilder`."""
        name: str = self._scope.get_unique_variable_name("constant")
        kind = int(TensorProto.STRING)
        if values.dtype.kind in "OUT":
            values = np.array([str(value).encode() for value in values], dtype=object)
        else:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        self._container.add_initializer(name, kind, values.shape, values)
        return name

    def kind(self, output: int = -1) -> int:
        """Return the declared element type of an output."""
        from skl2onnx.common.data_types import guess_proto_type

        return int(guess_proto_type(self._operator.outputs[output].type))

    def set_output(self, values: str, output: int = -1) -> None:
        """Cast numbers to the declared type of an output of the operator."""
        given = self._operator.outputs[output]
        self._add("Cast", [values], [given.full_name], to=self.kind(output))

    def set_strings(self, values: str) -> None:
        """Set the operator's only output to strings."""
        self._add("Identity", [values], [self._operator.outputs[0].full_name])

    def set_classes(self, index: str) -> None:
        """Set the operator's first output to the class of an index."""
        from skl2onnx.common.utils_classifier import get_label_classes

        classes = np.asarray(get_label_classes(self._scope, self._operator.raw_operator))
        if classes.dtype.kind in "fbiu":
            whole = classes.astype(np.int64)
            if not np.array_equal(whole, classes):
                raise ValidationFailedError(
                    "the classes of a classifier are numbers that are not whole",
                    hint="Train it with whole numbers or words as classes.",
                    kind="convert",
                )
            classes = whole
        self.set_strings(class_at(self, index, classes))

    def _side_by_side(self, names: list[str]) -> str:
        return self.node("Concat", *names, axis=1) if len(names) > 1 else names[0]

    def _add(
        self, kind: str, inputs: list[str], names: list[str], domain: str = "", **attributes: Any
    ) -> None:
        # Not through the container, which takes some operators only from functions of its own; with
        # a name, since it orders nodes by their names.
        node = helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes)
        self._container.nodes.append(node)
        version = self._container.target_opset_any_domain(domain)
        self._container.node_domain_version_pair_sets.add((domain, version))
