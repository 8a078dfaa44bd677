"""Runs models here, to measure what a lower precision costs before a server does.

It compares outputs with the reference, and finds how large tensors get and which nodes add errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from exporter.arrays import Array, Arrays, as_text
from exporter.errors import first_line
from exporter.formats.precision.onnx_io import types_of, write
from exporter.interface import Tensor
from exporter.parity.evidence import Evidence
from exporter.parity.input_generator import rows_of, take_rows
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.sources.onnx.sessions import load_session, run_session
from exporter.sources.optional_libraries import require

__all__ = ["Evaluator", "Verdict", "activation_ranges", "node_errors"]

# All activations of so many rows are held in memory at once.
PIECE_ROWS = 4
# Runs to take the median of, unless they take longer than this together.
RUNS, MOST_SECONDS = 7, 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first case that is out of budget, or why a model cannot be run, and the worst errors."""

    problem: str
    margin: float
    max_abs_error: float


class Evaluator:
    """Runs models on the reference's cases.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """

    def __init__(self, outputs: tuple[Tensor, ...], references: ReferenceSet, folder: Path) -> None:
        onnxruntime = require("onnxruntime", "a lower precision is evaluated with", "cpu")
        self.versions = {"onnxruntime": str(onnxruntime.__version__)}
        self.folder = folder
        self._outputs = outputs
        self._references = references

    def inputs(self) -> Iterator[dict[str, Array]]:
        """Yield the inputs of all cases, as ONNX Runtime takes them."""
        yield from (_as_text(case.inputs) for case in self._references.all_cases)

    def pieces(self) -> Iterator[dict[str, Array]]:
        """Yield the same, the large batch in pieces of some rows."""
        for case in self._references.cases:
            yield _as_text(case.inputs)
        if self._references.batch is not None:
            inputs = self._references.batch.inputs
            for start in range(0, rows_of(inputs), PIECE_ROWS):
                yield _as_text(take_rows(inputs, slice(start, start + PIECE_ROWS)))

    def load(self, model: ModelProto) -> Any:
        """Return a session of a model; the model is consumed."""
        path = self.folder / "candidate.onnx"
        write(model, path)
        return load_session(path)

    def evaluate(self, model: ModelProto) -> Verdict:
        """Compare a model with the reference; the model is consumed."""
        try:
            session = self.load(model)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors derive from Exception
            return Verdict(f"ONNX Runtime cannot load it: {first_line(error)}", np.inf, np.inf)
        return self.evaluate_session(session)

    def evaluate_session(self, session: Any) -> Verdict:
        """Compare a session with the reference, up to the first output that is out of budget."""
        evidence = Evidence(self._outputs)
        names = [tensor.name for tensor in self._outputs]
        for case in self._references.all_cases:
            try:
                outputs = run_session(session, names, case.inputs)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors derive from Exception
                return Verdict(f"{case.name}: {first_line(error)}", np.inf, np.inf)
            for part, found in self._parts(case, outputs):
                differences = self._references.compare(part, found, self._outputs)
                if problem := evidence.record(part.name, differences):
                    return Verdict(problem, evidence.margin, evidence.max_abs_error)
        return Verdict("", evidence.margin, evidence.max_abs_error)

    def _parts(self, case: ReferenceCase, found: Arrays) -> Iterator[tuple[ReferenceCase, Arrays]]:
        """Yield what is compared: each row of the large batch, since the batcher may split it."""
        fits = all(array.shape == case.outputs[name].shape for name, array in found.items())
        if case is not self._references.batch or not fits:
            yield case, found
            return
        for row in range(rows_of(case.inputs)):
            one = slice(row, row + 1)
            yield case.take(one, f"row {row} of {case.name}"), take_rows(found, one)

    def milliseconds(self, sessions: Sequence[Any]) -> list[float]:
        """Return the median time of one full batch in every session, run alternately."""
        rows = self._references.batching.max_batch_size
        inputs = self._references.all_cases[-1].inputs
        if rows:
            inputs = take_rows(inputs, np.arange(rows) % rows_of(inputs))
        given = _as_text(inputs)
        for session in sessions:
            session.run(None, given)
        taken: list[list[float]] = [[] for _ in sessions]
        begin = time.perf_counter()
        for _ in range(RUNS):
            for session, times in zip(sessions, taken, strict=True):
                start = time.perf_counter()
                session.run(None, given)
                times.append(1e3 * (time.perf_counter() - start))
            if time.perf_counter() - begin > MOST_SECONDS:
                break
        return [median(times) for times in taken]


def _as_text(inputs: Arrays) -> dict[str, Array]:
    return {name: as_text(array) for name, array in inputs.items()}


def activation_ranges(plain: ModelProto, evaluator: Evaluator) -> dict[str, float]:
    """Return the largest finite magnitude of every float32 tensor of a model's graph."""
    names = _given(plain)
    session = _showing(plain, names, evaluator)
    found: dict[str, float] = {}
    for inputs in evaluator.pieces():
        arrays = {name: a for name, a in inputs.items() if a.dtype == np.float32}
        arrays |= dict(zip(names, session.run(names, inputs), strict=True))
        for name, array in arrays.items():
            found[name] = max(found.get(name, 0.0), _magnitude(array))
    return found


def node_errors(
    plain: ModelProto, reduced: ModelProto, seen: Mapping[str, str], evaluator: Evaluator
) -> dict[str, float]:
    """Return the error that every node of a reduced model adds to that of its inputs.

    Errors are relative to a tensor's magnitude; infinite where a number became NaN or infinite.
    *seen* has the name in the reduced model of every tensor that is left.
    """
    names = [name for name in _given(plain) if name in seen]
    others = [seen[name] for name in names]
    left, right = _showing(plain, names, evaluator), _showing(reduced, others, evaluator)
    errors = dict.fromkeys(names, 0.0)
    for inputs in evaluator.pieces():
        before, after = left.run(names, inputs), right.run(others, inputs)
        for name, one, other in zip(names, before, after, strict=True):
            errors[name] = max(errors[name], _error(one, other))
    return {node.name: _own(node, errors) for node in plain.graph.node}


def _own(node: NodeProto, errors: Mapping[str, float]) -> float:
    handed = max((errors.get(name, 0.0) for name in node.input), default=0.0)
    given = max((errors.get(name, 0.0) for name in node.output), default=0.0)
    return 0.0 if math.isinf(handed) else max(given - handed, 0.0)


def _given(model: ModelProto) -> list[str]:
    """Every float32 output of the graph's nodes."""
    types = types_of(model.graph)
    outputs = (name for node in model.graph.node for name in node.output)
    return [name for name in outputs if types.get(name) == TensorProto.FLOAT]


def _showing(model: ModelProto, names: Sequence[str], evaluator: Evaluator) -> Any:
    """Return a session of a model with more outputs."""
    copy = deepcopy(model)
    shown = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in shown
    )
    return evaluator.load(copy)


def _magnitude(array: Array) -> float:
    finite = np.abs(array, where=np.isfinite(array), out=np.zeros(array.shape, array.dtype))
    return float(np.max(finite, initial=0.0))


def _error(reference: Array, candidate: Any) -> float:
    if reference.shape != candidate.shape:
        return math.inf
    finite = np.isfinite(reference)
    if (finite != np.isfinite(candidate)).any():
        return math.inf
    gap = np.subtract(candidate, reference, where=finite, out=np.zeros(reference.shape, np.float64))
    return float(np.max(np.abs(gap), initial=0.0)) / (_magnitude(reference) or 1.0)
