"""Asks the reference: its example, batches of every size, edge values, the user's samples."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.errors import ValidationFailedError
from exporter.parity.evidence import Batching, Evidence
from exporter.parity.input_generator import Case, Drawing, equal_rows, mixed_in, rows_of, take_rows
from exporter.parity.reference_set import Answer
from exporter.parity.thresholds import on_thresholds
from exporter.parity.ties import hangs_on_a_hair
from exporter.parity.value_generators import VARIETIES
from exporter.sources.base import CannotRun, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporter.arrays import Arrays

__all__ = ["CUTS", "Questions"]

# A reference that would need longer than this for one full batch is asked for a part of it: what
# is only ever looked at (the large batch, its permutations) shrinks, what goes into the bundle not.
PATIENCE_SECONDS = 0.5
PATIENT_ROWS = 8
EDGE_ROWS = 2
THRESHOLDS = 32
# Row counts as (first row, number) of the large batch; float64 is asked for the last of them.
CUTS = ((0, 1), (1, 2), (3, 3))


class Questions:
    """What the reference was asked so far, with its answers.

    Attributes:
        answers: The cases that are kept.
        pool: A large batch of distinct rows; None where the leading axis is not one of rows.
        cuts: Parts of the pool, asked by themselves.
        slow: Whether the reference is expensive to ask.
    """

    def __init__(self, source: Source, evidence: Evidence, drawing: Drawing) -> None:
        self.source = source
        self.evidence = evidence
        self.drawing = drawing
        self.answers: list[Answer] = []
        self.pool: Answer | None = None
        self.cuts: list[tuple[Answer, slice]] = []
        self.slow = False
        self.skipped: list[str] = []

    def ask(self, case: Case, *, exactly: bool = False) -> Answer:
        """Ask one case.

        Args:
            case: What to ask.
            exactly: Whether to ask in float64 as well, where the reference can.

        Raises:
            CannotRun: The reference refuses it.
        """
        outputs = self.source.run(case.inputs)
        self._check_shapes(case, outputs)
        exact = self.source.run_float64(case.inputs) if exactly else None
        answer = Answer(case, outputs, exact)
        if case.kept:
            self.answers.append(answer)
        return answer

    def _check_shapes(self, case: Case, outputs: Arrays) -> None:
        """Refuse a reference whose answers have other shapes than it declares.

        Raises:
            ValidationFailedError: They have.
        """
        for tensor in self.source.interface.outputs:
            shape = outputs[tensor.name].shape
            if len(shape) != len(tensor.axes) or any(
                isinstance(axis, int) and axis != size
                for axis, size in zip(tensor.axes, shape, strict=True)
            ):
                raise ValidationFailedError(
                    f"the registered model answers {case.name} with '{tensor.name}' of shape "
                    f"{list(shape)}, where it is {list(tensor.shape)} otherwise: its size depends "
                    "on values",
                    hint="Return tensors whose sizes follow from the sizes of the inputs alone, "
                    "such as padded ones with a mask.",
                    kind="interface",
                )

    def ask_example(self) -> None:
        """Ask the logged example.

        Raises:
            ValidationFailedError: The reference cannot run it.
        """
        example = self.source.example
        if example is None:
            self.evidence.notes.append(
                "The version has no input example; inputs are drawn blindly."
            )
            return
        try:
            self.ask(Case("example", example))
        except CannotRun as error:
            raise ValidationFailedError(
                f"the registered model cannot run its own example: {error}",
                hint="Log the model again with an example that it can answer.",
                kind="signature",
            ) from error

    def ask_rows(self, max_batch_size: int, samples: Sequence[Case]) -> Batching:
        """Ask for batches of every size, and say whether the leading axis can be one of rows."""
        interface, drawing = self.source.interface, self.drawing
        rows = drawing.example_rows
        inputs_vary = all(t.axes and isinstance(t.axes[0], str) for t in interface.inputs)
        if not inputs_vary or rows is None:
            self._ask_random(None)
            reason = interface.fixed_leading_axis or "its inputs have different numbers of rows"
            return Batching(0, reason)
        answered = len(self.answers)
        try:
            equal = self._ask_batches(max(max_batch_size, 3), samples)
        except CannotRun as error:
            # What is fixed at the example's rows answers no others that it may have taken.
            del self.answers[answered:]
            self.cuts.clear()
            self._ask_random(rows)
            return Batching(0, f"it takes {rows} rows and no other number ({error})", rows)
        if reason := interface.fixed_leading_axis or self._lost_rows():
            return Batching(0, reason)
        if equal:
            return Batching(
                0,
                f"no two rows of '{equal[0]}' that differ could be made from the example; "
                "give some with --samples FILE.npz",
            )
        return Batching(max_batch_size)

    def _ask_batches(self, most: int, samples: Sequence[Case]) -> list[str]:
        """Ask for batches, if possible of rows that differ; return the inputs where none do."""
        real = [case.inputs for case in samples]
        real += [self.source.example] if self.source.example is not None else []

        def draw(variety: int) -> Arrays:
            return mixed_in(self.drawing.random("rows", rows=most, variety=variety), real)

        for variety in range(VARIETIES):
            rows = draw(variety)
            if equal_rows(rows):
                continue
            answered = len(self.answers)
            try:
                self._ask_cuts(rows, most)
            except CannotRun:
                if variety == 0:
                    raise
                # Values that nobody logged need not make sense to the model.
                del self.answers[answered:]
                self.cuts.clear()
            else:
                return []
        rows = draw(0)
        self._ask_cuts(rows, most)
        return equal_rows(rows)

    def _ask_cuts(self, rows: Arrays, most: int) -> None:
        for start, count in CUTS:
            cut = slice(start, start + count) if start + count <= most else slice(0, count)
            label = "1 random row" if count == 1 else f"{count} random rows"
            begin = time.perf_counter()
            answer = self.ask(Case(label, take_rows(rows, cut)), exactly=(start, count) == CUTS[-1])
            if count == 1:
                self.slow = (time.perf_counter() - begin) * most > PATIENCE_SECONDS
            self.cuts.append((answer, cut))
        largest = min(most, PATIENT_ROWS) if self.slow else most
        pool = take_rows(rows, slice(0, largest))
        self.pool = self.ask(Case(f"{largest} random rows", pool, kept=False))

    def keep_pool(self) -> None:
        """Let the candidate answer the large batch as it is, where no batcher cuts it."""
        if self.pool is not None:
            case = replace(self.pool.case, kept=True)
            exact = self.source.run_float64(case.inputs)
            self.answers.append(Answer(case, self.pool.outputs, exact))

    def _ask_random(self, rows: int | None) -> None:
        for number in range(1, 4):
            case = Case(f"random {number}", self.drawing.random(f"random {number}", rows=rows))
            try:
                self.ask(case, exactly=number == 1)
            except CannotRun as error:
                raise ValidationFailedError(
                    f"the registered model refuses inputs drawn from its example's range: {error}",
                    hint="Log an input example with typical values, or give --samples FILE.npz.",
                    kind="samples",
                ) from error

    def _lost_rows(self) -> str:
        pool = self.pool
        if pool is None:
            return "no batch was asked for"
        expected = rows_of(pool.case.inputs)
        for name, output in pool.outputs.items():
            if output.ndim == 0 or output.shape[0] != expected:
                return f"{expected} rows in gave output '{name}' of shape {list(output.shape)}"
        return ""

    def ask_others(self, samples: Sequence[Case], rows: int | None) -> None:
        """Ask for edge values, other sizes of other axes, and the user's own samples."""
        for case in samples:
            try:
                self.ask(case)
            except CannotRun as error:
                raise ValidationFailedError(
                    f"the registered model cannot run {case.name}: {error}",
                    hint="Correct the samples file.",
                    kind="samples",
                ) from error
        tied: list[str] = []
        edge_rows = rows if self.pool is None else EDGE_ROWS
        for case in (*self.drawing.edges(rows=edge_rows), *self._sized(edge_rows)):
            try:
                self.ask(case)
            except CannotRun as error:
                self.skipped.append(f"{case.name} ({error})")
                continue
            if hangs_on_a_hair(self.source, self.answers[-1]):
                del self.answers[-1]
                tied.append(case.name)
        if tied:
            self.evidence.notes.append(
                "The registered model's own whole numbers or truth values change with the last "
                f"digit of its input, and are not compared there: {', '.join(tied)}."
            )
        if self.skipped:
            self.evidence.notes.append(
                "The registered model itself refuses: " + "; ".join(self.skipped)
            )

    def ask_thresholds(self) -> None:
        """Ask on the thresholds of a reference that has some, in batches that can be served."""
        if not self.source.splits or self.pool is None:
            return
        rows = self.pool.case.inputs
        try:
            found = on_thresholds(self.source, rows, PATIENT_ROWS if self.slow else THRESHOLDS)
            if found is None:
                return
            most = rows_of(rows)
            for number, start in enumerate(range(0, rows_of(found), most), start=1):
                case = take_rows(found, slice(start, start + most))
                self.ask(Case(f"thresholds {number}", case, usual=False))
        except CannotRun as error:
            self.skipped.append(f"values on thresholds ({error})")

    def _sized(self, rows: int | None) -> Iterator[Case]:
        for name, sizes in self.drawing.other_sizes():
            yield Case(f"{name} axes", self.drawing.random(name, rows=rows, **sizes))
