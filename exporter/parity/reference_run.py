"""Asks the reference: its example, batches of every size, edge values, the user's samples."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.errors import ValidationFailedError
from exporter.parity.evidence import Batching, Evidence
from exporter.parity.input_generator import (
    Case,
    InputGenerator,
    equal_rows,
    interleave_real_rows,
    rows_of,
    take_rows,
)
from exporter.parity.reference_set import ReferenceCase
from exporter.parity.thresholds import threshold_inputs
from exporter.parity.ties import is_tie
from exporter.parity.value_generators import DIVERSITY_LEVELS
from exporter.sources.base import InputRejectedError, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporter.arrays import Arrays

__all__ = ["CUTS", "ReferenceRun"]

# A reference that would need longer than this for one full batch is asked for a part of it: what
# is only ever looked at (the large batch, its permutations) shrinks, what goes into the bundle not.
SLOW_SECONDS = 0.5
SLOW_ROWS = 8
EDGE_ROWS = 2
THRESHOLDS = 32
# Row counts as (first row, number) of the large batch; float64 is asked for the last of them.
CUTS = ((0, 1), (1, 2), (3, 3))


class ReferenceRun:
    """What the reference was asked so far, with its answers.

    Attributes:
        cases: The cases that are kept.
        batch: A large batch of distinct rows; None where the leading axis is not one of rows.
        sub_batches: Parts of the batch, asked by themselves.
        slow: Whether the reference is expensive to ask.
    """

    def __init__(self, source: Source, evidence: Evidence, generator: InputGenerator) -> None:
        self.source = source
        self.evidence = evidence
        self.generator = generator
        self.cases: list[ReferenceCase] = []
        self.batch: ReferenceCase | None = None
        self.sub_batches: list[tuple[ReferenceCase, slice]] = []
        self.slow = False
        self.skipped: list[str] = []

    def run_case(self, case: Case, *, exactly: bool = False) -> ReferenceCase:
        """Ask one case.

        Args:
            case: What to ask.
            exactly: Whether to ask in float64 as well, where the reference can.

        Raises:
            InputRejectedError: The reference refuses it.
        """
        outputs = self.source.run(case.inputs)
        self._check_shapes(case, outputs)
        exact = self.source.run_float64(case.inputs) if exactly else None
        answer = ReferenceCase(case, outputs, exact)
        if case.kept:
            self.cases.append(answer)
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

    def run_example(self) -> None:
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
            self.run_case(Case("example", example))
        except InputRejectedError as error:
            raise ValidationFailedError(
                f"the registered model cannot run its own example: {error}",
                hint="Log the model again with an example that it can answer.",
                kind="signature",
            ) from error

    def run_batches(self, max_batch_size: int, samples: Sequence[Case]) -> Batching:
        """Ask for batches of every size, and say whether the leading axis can be one of rows."""
        interface, generator = self.source.interface, self.generator
        rows = generator.example_rows
        inputs_vary = all(t.axes and isinstance(t.axes[0], str) for t in interface.inputs)
        if not inputs_vary or rows is None:
            self._run_random(None)
            reason = interface.fixed_leading_axis or "its inputs have different numbers of rows"
            return Batching(0, reason)
        answered = len(self.cases)
        try:
            equal = self._run_distinct_rows(max(max_batch_size, 3), samples)
        except InputRejectedError as error:
            # What is fixed at the example's rows answers no others that it may have taken.
            del self.cases[answered:]
            self.sub_batches.clear()
            self._run_random(rows)
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

    def _run_distinct_rows(self, most: int, samples: Sequence[Case]) -> list[str]:
        """Ask for batches, if possible of rows that differ; return the inputs where none do."""
        real = [case.inputs for case in samples]
        real += [self.source.example] if self.source.example is not None else []

        def random_values(diversity_level: int) -> Arrays:
            return interleave_real_rows(
                self.generator.random("rows", rows=most, diversity_level=diversity_level), real
            )

        for diversity_level in range(DIVERSITY_LEVELS):
            rows = random_values(diversity_level)
            if equal_rows(rows):
                continue
            answered = len(self.cases)
            try:
                self._run_sub_batches(rows, most)
            except InputRejectedError:
                if diversity_level == 0:
                    raise
                # Values that nobody logged need not make sense to the model.
                del self.cases[answered:]
                self.sub_batches.clear()
            else:
                return []
        rows = random_values(0)
        self._run_sub_batches(rows, most)
        return equal_rows(rows)

    def _run_sub_batches(self, rows: Arrays, most: int) -> None:
        for start, count in CUTS:
            cut = slice(start, start + count) if start + count <= most else slice(0, count)
            label = "1 random row" if count == 1 else f"{count} random rows"
            begin = time.perf_counter()
            answer = self.run_case(
                Case(label, take_rows(rows, cut)), exactly=(start, count) == CUTS[-1]
            )
            if count == 1:
                self.slow = (time.perf_counter() - begin) * most > SLOW_SECONDS
            self.sub_batches.append((answer, cut))
        largest = min(most, SLOW_ROWS) if self.slow else most
        batch = take_rows(rows, slice(0, largest))
        self.batch = self.run_case(Case(f"{largest} random rows", batch, kept=False))

    def keep_batch(self) -> None:
        """Let the candidate answer the large batch as it is, where no batcher cuts it."""
        if self.batch is not None:
            case = replace(self.batch.case, kept=True)
            exact = self.source.run_float64(case.inputs)
            self.cases.append(ReferenceCase(case, self.batch.outputs, exact))

    def _run_random(self, rows: int | None) -> None:
        for number in range(1, 4):
            case = Case(f"random {number}", self.generator.random(f"random {number}", rows=rows))
            try:
                self.run_case(case, exactly=number == 1)
            except InputRejectedError as error:
                raise ValidationFailedError(
                    f"the registered model refuses inputs drawn from its example's range: {error}",
                    hint="Log an input example with typical values, or give --samples FILE.npz.",
                    kind="samples",
                ) from error

    def _lost_rows(self) -> str:
        batch = self.batch
        if batch is None:
            return "no batch was asked for"
        expected = rows_of(batch.case.inputs)
        for name, output in batch.outputs.items():
            if output.ndim == 0 or output.shape[0] != expected:
                return f"{expected} rows in gave output '{name}' of shape {list(output.shape)}"
        return ""

    def run_edge_cases(self, samples: Sequence[Case], rows: int | None) -> None:
        """Ask for edge values, other sizes of other axes, and the user's own samples."""
        for case in samples:
            try:
                self.run_case(case)
            except InputRejectedError as error:
                raise ValidationFailedError(
                    f"the registered model cannot run {case.name}: {error}",
                    hint="Correct the samples file.",
                    kind="samples",
                ) from error
        tied: list[str] = []
        edge_rows = rows if self.batch is None else EDGE_ROWS
        for case in (*self.generator.edges(rows=edge_rows), *self._sized(edge_rows)):
            try:
                self.run_case(case)
            except InputRejectedError as error:
                self.skipped.append(f"{case.name} ({error})")
                continue
            if is_tie(self.source, self.cases[-1]):
                del self.cases[-1]
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

    def run_thresholds(self) -> None:
        """Ask on the thresholds of a reference that has some, in batches that can be served."""
        if not self.source.has_thresholds or self.batch is None:
            return
        rows = self.batch.case.inputs
        try:
            found = threshold_inputs(self.source, rows, SLOW_ROWS if self.slow else THRESHOLDS)
            if found is None:
                return
            most = rows_of(rows)
            for number, start in enumerate(range(0, rows_of(found), most), start=1):
                case = take_rows(found, slice(start, start + most))
                self.run_case(Case(f"thresholds {number}", case, usual=False))
        except InputRejectedError as error:
            self.skipped.append(f"values on thresholds ({error})")

    def _sized(self, rows: int | None) -> Iterator[Case]:
        for name, sizes in self.generator.other_sizes():
            yield Case(f"{name} axes", self.generator.random(name, rows=rows, **sizes))
