"""Runs models here, to see what a lower precision costs before a server does."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.arrays import as_bytes, as_text
from exporter.errors import UsageError, first_line
from exporter.formats.precision.onnx_io import write
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Evidence
from exporter.parity.input_generator import rows_of, take_rows
from exporter.parity.reference_set import ReferenceCase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnx import ModelProto

    from exporter.arrays import Array, Arrays
    from exporter.interface import Tensor
    from exporter.parity.reference_set import ReferenceSet

__all__ = ["Evaluator", "Verdict"]

# What is looked at inside of a model is held in memory at once, for so many rows.
ROWS_LOOKED_AT = 4
# Of so many runs the median is told, unless they would take longer than this together.
RUNS, MOST_SECONDS = 7, 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a model answers beside the reference.

    Attributes:
        problem: The first case that is out of budget, or why it cannot be run; else empty.
        margin: The worst error ÷ budget that was seen.
        max_abs_error: The largest abs(candidate - reference) that was seen.
    """

    problem: str
    margin: float
    max_abs_error: float


class Evaluator:
    """Asks models what the reference was asked.

    Args:
        outputs: The reference's outputs.
        references: What it answered, and the budgets.
        folder: A folder for files that are loaded once.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """

    def __init__(self, outputs: tuple[Tensor, ...], references: ReferenceSet, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError(
                "a lower precision is tried out with onnxruntime, which is not installed",
                hint="pip install 'stlab[cpu]' (or 'stlab[gpu]').",
            ) from error
        self.versions = {"onnxruntime": str(onnxruntime.__version__)}
        self.folder = folder
        self._ort = onnxruntime
        self._outputs = outputs
        self._references = references
        self._answers = [*references.cases, *([references.batch] if references.batch else [])]

    def inputs(self) -> Iterator[dict[str, Array]]:
        """Yield everything that the reference was asked, as ONNX Runtime takes it."""
        for answer in self._answers:
            yield _as_text(answer.case.inputs)

    def pieces(self) -> Iterator[dict[str, Array]]:
        """Yield the same, the large batch in pieces of some rows."""
        for answer in self._references.cases:
            yield _as_text(answer.case.inputs)
        if self._references.batch is not None:
            inputs = self._references.batch.case.inputs
            for start in range(0, rows_of(inputs), ROWS_LOOKED_AT):
                yield _as_text(take_rows(inputs, slice(start, start + ROWS_LOOKED_AT)))

    def open(self, path: Path, *, threads: int = 0) -> Any:
        """Return a session of a file; ONNX Runtime's errors derive from Exception.

        Args:
            path: The file.
            threads: How many it computes with; 0 for as many as there are cores.
        """
        options = self._ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        return self._ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def load(self, model: ModelProto) -> Any:
        """Return a session of a model, which is used up."""
        path = self.folder / "tried.onnx"
        write(model, path)
        return self.open(path)

    def evaluate(self, model: ModelProto) -> Verdict:
        """Return how a model answers, which is used up."""
        try:
            session = self.load(model)
        except Exception as error:  # noqa: BLE001 - see `open`
            return Verdict(f"ONNX Runtime cannot load it: {first_line(error)}", np.inf, np.inf)
        return self.evaluate_session(session)

    def evaluate_session(self, session: Any) -> Verdict:
        """Return how a session answers; it is asked until it is out of budget."""
        evidence = Evidence(self._outputs)
        names = [tensor.name for tensor in self._outputs]
        for answer in self._answers:
            try:
                found = session.run(names, _as_text(answer.case.inputs))
            except Exception as error:  # noqa: BLE001 - see `open`
                return Verdict(f"{answer.case.name}: {first_line(error)}", np.inf, np.inf)
            given = dict(zip(names, map(as_bytes, found), strict=True))
            for part, candidate in self._parts(answer, given):
                problem = evidence.record(
                    part.case.name,
                    compare_outputs(
                        self._outputs,
                        part.outputs,
                        candidate,
                        self._references.tolerances,
                        part.float64,
                    ),
                )
                if problem:
                    return Verdict(problem, evidence.margin, evidence.max_abs_error)
        return Verdict("", evidence.margin, evidence.max_abs_error)

    def _parts(
        self, answer: ReferenceCase, given: Arrays
    ) -> Iterator[tuple[ReferenceCase, Arrays]]:
        """Yield what is compared: of the large batch each row, as the batcher may hand it out."""
        fits = all(array.shape == answer.outputs[name].shape for name, array in given.items())
        if answer is not self._references.batch or not fits:
            yield answer, given
            return
        for row in range(rows_of(answer.case.inputs)):
            one = slice(row, row + 1)
            exact = None if answer.float64 is None else take_rows(answer.float64, one)
            case = replace(answer.case, name=f"row {row} of {answer.case.name}")
            yield ReferenceCase(case, take_rows(answer.outputs, one), exact), take_rows(given, one)

    def milliseconds(self, sessions: Sequence[Any]) -> list[float]:
        """Return what one full batch takes in every session: medians, asked in turn."""
        rows = self._references.batching.max_batch_size
        inputs = self._answers[-1].case.inputs
        if rows:
            inputs = take_rows(inputs, np.arange(rows) % rows_of(inputs))
        question = _as_text(inputs)
        for session in sessions:
            session.run(None, question)
        taken: list[list[float]] = [[] for _ in sessions]
        begin = time.perf_counter()
        for _ in range(RUNS):
            for session, times in zip(sessions, taken, strict=True):
                start = time.perf_counter()
                session.run(None, question)
                times.append(1e3 * (time.perf_counter() - start))
            if time.perf_counter() - begin > MOST_SECONDS:
                break
        return [median(times) for times in taken]


def _as_text(inputs: Arrays) -> dict[str, Array]:
    return {name: as_text(array) for name, array in inputs.items()}
