"""Runs the reference: its example, batches of every size, edge values, the user's samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError
from exporter.interface import Tensor
from exporter.parity.evidence import Batching, Evidence
from exporter.parity.input_generator import (
    SIZE,
    Case,
    InputGenerator,
    equal_rows,
    interleave_real_rows,
    rows_of,
    take_rows,
)
from exporter.parity.reference_set import ReferenceCase
from exporter.parity.value_generators import DIVERSITY_LEVELS
from exporter.sources.base import InputRejectedError, Source

__all__ = ["EDGE_ROWS", "SLOW_ROWS", "SUB_BATCHES", "ReferenceRun", "is_tie"]

# A reference that needs longer than this for one full batch is slow: the large batch and its
# variants shrink; the cases that go into the bundle do not.
SLOW_SECONDS = 0.5
SLOW_ROWS = 8
EDGE_ROWS = 2
# First row and number of rows, of the large batch; the last one is run in float64 as well.
SUB_BATCHES = ((0, 1), (1, 2), (3, 3))


class ReferenceRun:
    """The reference's outputs so far.

    Attributes:
        cases: The cases that are kept.
        batch: A large batch of distinct rows; None where the leading axis is not one of rows.
        sub_batches: Parts of the batch, run by themselves.
        slow: Whether the reference is expensive to run.
        rejected: What the reference refuses, each with its reason.
        weaknesses: Why inputs that count could not be compared.
        refused: Some of the inputs that it refuses, of which each has a reason of its own.
    """

    def __init__(self, source: Source, evidence: Evidence, generator: InputGenerator) -> None:
        self.source = source
        self.evidence = evidence
        self.generator = generator
        self.cases: list[ReferenceCase] = []
        self.batch: ReferenceCase | None = None
        self.sub_batches: list[tuple[ReferenceCase, slice]] = []
        self.slow = False
        self.refused: list[Case] = []
        self.weaknesses: list[str] = []
        self.rejected: list[str] = []

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The reference's outputs."""
        return self.source.interface.outputs

    def run_case(self, case: Case, *, in_float64: bool = False) -> ReferenceCase:
        """Run one case, in float64 as well where that is wanted and possible.

        Raises:
            InputRejectedError: The reference refuses it.
        """
        outputs = self.source.run(case.inputs)
        self._check_shapes(case, outputs)
        exact = self.source.run_float64(case.inputs) if in_float64 else None
        result = ReferenceCase(case, outputs, exact)
        if case.kept:
            self.cases.append(result)
        return result

    def _check_shapes(self, case: Case, outputs: Arrays) -> None:
        for tensor in self.outputs:
            shape = outputs[tensor.name].shape
            if not tensor.fits(shape):
                raise ValidationFailedError(
                    f"the registered model answers {case.name} with '{tensor.name}' of shape "
                    f"{list(shape)}, where it is {list(tensor.shape)} otherwise: its size depends "
                    "on values",
                    hint="Return tensors whose sizes follow from the sizes of the inputs alone, "
                    "such as padded ones with a mask.",
                    kind="interface",
                )

    def _run_required(
        self, case: Case, refused: str, hint: str, *, kind: str = "samples", exact: bool = False
    ) -> None:
        try:
            self.run_case(case, in_float64=exact)
        except InputRejectedError as error:
            raise ValidationFailedError(
                f"the registered model {refused}: {error}", hint=hint, kind=kind
            ) from error

    def run_example(self) -> None:
        """Run the logged example.

        Raises:
            ValidationFailedError: The reference cannot run it.
        """
        if self.source.example is None:
            self.evidence.notes.append(
                "The version has no input example; inputs are drawn blindly."
            )
            return
        self._run_required(
            Case("example", self.source.example),
            "cannot run its own example",
            "Log the model again with an example that it can answer.",
            kind="signature",
        )

    def run_batches(self, max_batch_size: int, samples: Sequence[Case]) -> Batching:
        """Run batches of every size; return whether the leading axis can be one of rows."""
        interface = self.source.interface
        rows = self.generator.example_rows
        inputs_vary = all(t.axes and isinstance(t.axes[0], str) for t in interface.inputs)
        if not inputs_vary or rows is None:
            self._run_random(None)
            reason = interface.fixed_leading_axis or "its inputs have different numbers of rows"
            return Batching(0, reason)
        before = len(self.cases)
        try:
            equal = self._run_distinct_rows(max(max_batch_size, 3), samples)
        except InputRejectedError as error:
            # A model that is fixed at the example's rows may still have taken some other number.
            self._forget(before)
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
        """Run batches, if possible of rows that differ; return the inputs whose rows do not."""
        real = [case.inputs for case in samples]
        real += [self.source.example] if self.source.example is not None else []

        def rows_at(level: int) -> Arrays:
            random = self.generator.random("rows", rows=most, diversity_level=level)
            return interleave_real_rows(random, real)

        for level in range(DIVERSITY_LEVELS):
            rows = rows_at(level)
            if equal_rows(rows):
                continue
            before = len(self.cases)
            try:
                self._run_sub_batches(rows, most)
            except InputRejectedError:
                if level == 0:
                    raise
                # Values beyond the example's need not make sense to the model.
                self._forget(before)
            else:
                return []
        rows = rows_at(0)
        self._run_sub_batches(rows, most)
        return equal_rows(rows)

    def _forget(self, before: int) -> None:
        del self.cases[before:]
        self.sub_batches.clear()

    def _run_sub_batches(self, rows: Arrays, most: int) -> None:
        for start, count in SUB_BATCHES:
            part = slice(start, start + count) if start + count <= most else slice(0, count)
            case = Case(
                "1 random row" if count == 1 else f"{count} random rows", take_rows(rows, part)
            )
            begin = time.perf_counter()
            result = self.run_case(case, in_float64=(start, count) == SUB_BATCHES[-1])
            if count == 1:
                self.slow = (time.perf_counter() - begin) * most > SLOW_SECONDS
            self.sub_batches.append((result, part))
        largest = min(most, SLOW_ROWS) if self.slow else most
        batch = take_rows(rows, slice(0, largest))
        self.batch = self.run_case(Case(f"{largest} random rows", batch, kept=False))

    def keep_batch(self) -> None:
        """Compare the candidate on the large batch as it is, where no batcher splits it."""
        if self.batch is not None:
            case = replace(self.batch.case, kept=True)
            exact = self.source.run_float64(case.inputs)
            self.cases.append(ReferenceCase(case, self.batch.outputs, exact))

    def _run_random(self, rows: int | None) -> None:
        refused = (
            "refuses inputs that were generated without an example"
            if self.generator.example is None
            else "refuses inputs drawn from its example's range"
        )
        for number in range(1, 4):
            self._run_required(
                Case(f"random {number}", self.generator.random(f"random {number}", rows=rows)),
                refused,
                "Log an input example with typical values, or give --samples FILE.npz.",
                exact=number == 1,
            )

    def _lost_rows(self) -> str:
        if self.batch is None:
            return "no batch was run"
        expected = rows_of(self.batch.inputs)
        for name, output in self.batch.outputs.items():
            if output.ndim == 0 or output.shape[0] != expected:
                return f"{expected} rows in gave output '{name}' of shape {list(output.shape)}"
        return ""

    def run_edge_cases(self, samples: Sequence[Case], rows: int | None) -> None:
        """Run edge values, other sizes of other axes, and the user's own samples."""
        for case in samples:
            self._run_required(case, f"cannot run {case.name}", "Correct the samples file.")
        ties: list[str] = []
        edge_rows = rows if self.batch is None else EDGE_ROWS
        # Leading axes that no batch has varied.
        leading = edge_rows is None
        others = (
            Case(f"{name} axes", self.generator.random(name, sizes, rows=edge_rows))
            for name, sizes in self.generator.other_sizes(self.source.sizes_beyond, leading=leading)
        )
        for case in (*self.generator.edges(rows=edge_rows), *others):
            try:
                self.run_case(case)
            except InputRejectedError as error:
                self.rejected.append(f"{case.name} ({error})")
                if case.name.startswith(SIZE):
                    self.refused.append(case)
                continue
            if is_tie(self.source, self.cases[-1]):
                del self.cases[-1]
                ties.append(case.name)
        if ties:
            self.evidence.notes.append(
                "The registered model's own whole numbers or truth values change with the last "
                f"digit of its input, and are not compared there: {', '.join(ties)}."
            )

    def note_rejected(self) -> None:
        """Say in the report what the reference refuses."""
        if self.rejected:
            self.evidence.notes.append(
                "The registered model itself refuses: " + "; ".join(self.rejected)
            )


def is_tie(source: Source, case: ReferenceCase) -> bool:
    """Whether a whole number or truth value of the outputs changes with the inputs' last digit.

    Which of several equal values is the largest depends on the order of a loop.
    """
    discrete = [t.name for t in source.interface.outputs if not t.datatype.startswith(("FP", "BF"))]
    if not discrete or not any(a.dtype.kind == "f" for a in case.inputs.values()):
        return False
    random = np.random.default_rng(1)
    try:
        moved = source.run({n: _moved(a, random) for n, a in case.inputs.items()})
    except InputRejectedError:
        return True
    return any(not np.array_equal(case.outputs[name], moved[name]) for name in discrete)


def _moved(array: Array, random: np.random.Generator) -> Array:
    """Move every number by some units in the last place of the largest one."""
    if array.dtype.kind != "f":
        return array
    finite = np.abs(array[np.isfinite(array)])
    step = 4 * np.finfo(array.dtype).eps * max(float(np.max(finite, initial=0.0)), 1e-3)
    moved: Array = (array + random.normal(size=array.shape) * step).astype(array.dtype)
    return moved
