"""A tabular estimator as reference: its own prediction, and its graph by a converter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from exporter.arrays import Array, Arrays, as_bytes
from exporter.errors import ValidationFailedError, first_line
from exporter.interface import Axis, Interface, Tensor
from exporter.sources.base import InputRejectedError, OnnxExporter, OnnxTarget
from exporter.sources.known_values import Counts, Knowledge
from exporter.sources.mlmodel import MLModel
from exporter.sources.optional_libraries import cannot_run_example
from exporter.sources.tabular.column_values import ColumnValues, known_values
from exporter.sources.tabular.graph_io import Result, element_type, wrap_graph
from exporter.sources.tabular.tables import ROWS, Table
from triton_client.types import numpy_dtype, wire_datatype

__all__ = ["Converter", "Predictor", "TabularSource"]

_FLOAT, _DOUBLE = 1, 11

Predictor = "Callable[[Any], dict[str, Any]]"
"""Takes a matrix or a data frame and returns every output by name."""


class Converter(Protocol):
    """Writes an estimator as a graph."""

    def __call__(
        self, taken: Sequence[tuple[str, int, int]], target: OnnxTarget
    ) -> onnx.ModelProto:
        """Return the graph that takes these inputs: name, element type, columns."""


class TabularSource:
    """An estimator, called as MLflow calls it.

    Args:
        model: The logged model.
        flavor: Its flavor, with its serialization.
        predict: The estimator's own prediction, by output.
        convert: Its converter.
        width: Its number of features, where known.
        versions: The libraries that took part.
        by_column: Whether it takes columns by name; else they are concatenated to a matrix.
        classes: A classifier's classes, where its label is the most probable one.
        labels: The values that the first output may have, where they are known.
        has_thresholds: See `Source`.
        known: Returns what the estimator knows of its columns, of which there are so many.
        exercised: Returns how much of it inputs exercise, as it takes them.
        kinds: The element types to compute in, the best one first.

    Raises:
        ValidationFailedError: It cannot run its example, or returns no table.
    """

    frozen_axes: Sequence[str] = ()
    batching_blocker = ""

    def __init__(
        self,
        model: MLModel,
        flavor: str,
        predict: Callable[[Any], Mapping[str, Any]],
        convert: Converter,
        *,
        width: int | None,
        versions: Mapping[str, str],
        by_column: bool = False,
        classes: Array | None = None,
        labels: Array | None = None,
        has_thresholds: bool = False,
        known: Callable[[int], Sequence[ColumnValues]] = lambda _: (),
        exercised: Callable[[Iterable[Any]], Counts] = lambda _: {},
        kinds: Sequence[int] = (_DOUBLE, _FLOAT),
    ) -> None:
        self.flavor = flavor
        self.versions = versions
        self.notes: list[str] = []
        self._table = Table.of(model, width)
        self._predict = predict
        self._convert = convert
        self._by_column = by_column
        self._classes = None if classes is None else _plain(classes)
        self._labels = classes if labels is None else labels
        self._kinds = kinds
        self.has_thresholds = has_thresholds
        self.operators: frozenset[str] = frozenset()
        self.sizes_beyond: Mapping[str, Sequence[int]] = {}
        self._known = known
        self._exercised = exercised
        self.example = self._table.example(model)
        first = self.example or {t.name: _blank(t) for t in self._table.inputs}
        try:
            answer = self._predict_all(first)
        except Exception as error:
            raise cannot_run_example(error, logged=self.example is not None) from error
        rows = len(next(iter(first.values())))
        outputs = tuple(_declared(name, array, rows) for name, array in answer.items())
        self.interface = Interface(self._table.inputs, outputs)

    @cached_property
    def knowledge(self) -> Knowledge:
        """What the estimator knows, and what a column of its type may hold; see `Source`."""
        inputs = self._table.inputs
        width = sum(int(tensor.axes[1]) for tensor in inputs)
        return Knowledge(
            known_values(inputs, self.example, self._known(width)),
            {} if self._labels is None else {self.interface.outputs[0].name: _plain(self._labels)},
            self._exercised_by,
        )

    def _exercised_by(self, inputs: Sequence[Arrays]) -> Counts:
        with warnings.catch_warnings(action="ignore"):
            return self._exercised(self._table.given(given) for given in inputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the estimator's outputs; see `Source.run`."""
        try:
            return self._predict_all(inputs)
        except Exception as error:
            raise InputRejectedError(first_line(error)) from error

    def run_float64(self, inputs: Arrays) -> None:
        """Return None: an estimator computes in its own precision alone."""

    def onnx_exporters(self, target: OnnxTarget) -> Sequence[OnnxExporter]:
        """Return graphs in float64 and float32, and with whole numbers kept; see `Source`."""
        whole = any(t.datatype.startswith(("INT", "UINT")) for t in self._table.inputs)
        variants = [(kind, False) for kind in self._kinds]
        if self._by_column and whole:
            variants += [(kind, True) for kind in self._kinds]
        write = partial(self._write, target=target)
        plain = [partial(write, kind=kind, keep=keep) for kind, keep in variants]
        if self._classes is None:
            return plain
        # Where two classes are equally likely, a converter may choose the other one.
        return [*(partial(export, choose=True) for export in plain), *plain]

    def _write(
        self, path: Path, *, kind: int, keep: bool, target: OnnxTarget, choose: bool = False
    ) -> str:
        import onnx

        inputs = self._table.inputs
        if self._by_column or len(inputs) == 1:
            names = self._table.columns or ("taken",)
            taken = [
                (name, _graph_type(t.datatype, kind, keep=keep), int(t.axes[1]))
                for name, t in zip(names, inputs, strict=True)
            ]
        else:
            words = all(tensor.datatype == "BYTES" for tensor in inputs)
            taken = [("taken", element_type("BYTES") if words else kind, len(inputs))]
        with warnings.catch_warnings(action="ignore"):
            proto = self._convert(taken, target)
        proto.ir_version = min(proto.ir_version, target.ir)
        given = [value.name for value in proto.graph.output]
        served = self.interface.outputs
        results = [
            Result(name, tensor) for name, tensor in zip(given[: len(served)], served, strict=True)
        ]
        if choose and self._classes is not None:
            results[0] = Result(given[1], served[0], classes=self._classes)
        # A converter may rename inputs.
        named = [value.name for value in proto.graph.input]
        if len(named) != len(taken):
            named = [name for name, *_ in taken]
        kinds = [kind for _, kind, _ in taken]
        onnx.save(wrap_graph(proto, inputs, list(zip(named, kinds, strict=True)), results), path)
        return "double" if kind == onnx.TensorProto.DOUBLE else "float"

    def _predict_all(self, inputs: Arrays) -> dict[str, Array]:
        with warnings.catch_warnings(action="ignore"):
            answer = self._predict(self._table.given(inputs))
        return {name: _plain(values) for name, values in answer.items()}


def _graph_type(datatype: str, kind: int, *, keep: bool) -> int:
    if datatype == "BYTES":
        return element_type(datatype)
    if keep and datatype.startswith(("INT", "UINT")):
        return element_type("INT64")
    return kind


def _plain(values: Any) -> Array:
    """Return an output as it is served: strings as bytes, whole numbers as int64."""
    array = np.asarray(values)
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        # Not as numpy's strings, which cut zero bytes off.
        array = np.asarray(values, dtype=object)
    if array.dtype.kind in "OU" or array.dtype.kind == "T":
        return as_bytes(array.astype(object))
    return array.astype(np.int64) if array.dtype.kind in "iub" else array


def _declared(name: str, array: Array, rows: int) -> Tensor:
    if array.ndim not in {1, 2} or len(array) != rows:
        raise ValidationFailedError(
            f"the registered model answers {rows} rows with '{name}' of shape "
            f"{list(array.shape)}, which is no table",
            hint="Log an estimator that answers each row by itself.",
            kind="interface",
        )
    axes: tuple[Axis, ...] = (ROWS, *array.shape[1:])
    return Tensor(name, wire_datatype(array.dtype), axes)


def _blank(tensor: Tensor) -> Array:
    shape = (2, int(tensor.axes[1]))
    if tensor.datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype=numpy_dtype(tensor.datatype))
