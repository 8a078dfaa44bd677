"""Rewrites an ONNX model in float32 for a lower precision: ``fp16`` or ``int8``.

The loss is measured on all cases of the reference, against the budgets of the precision
(`exporter.parity.tolerances`). Nodes that lose too much keep float32: they are ranked by the errors
that they add, and as few as possible are kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import ModelProto

from exporter.errors import ValidationFailedError, first_line
from exporter.formats.base import Conversion, Target
from exporter.formats.onnx import size_of
from exporter.formats.precision.evaluator import Evaluator
from exporter.formats.precision.fp16 import to_float16
from exporter.formats.precision.int8 import to_int8
from exporter.formats.precision.onnx_io import read, write
from exporter.parity.reference_set import ReferenceSet
from exporter.sources.onnx.sessions import load_session

if TYPE_CHECKING:
    from exporter.formats.precision.evaluator import Verdict
    from exporter.formats.precision.result import ReducedModel

__all__ = ["reduce_precision"]

# Above this share of the float32 size, a note says so.
WORTHWHILE = 0.9


def reduce_precision(
    path: Path,
    conversion: Conversion,
    target: Target,
    references: ReferenceSet,
    *,
    symmetric: bool = False,
) -> Conversion:
    """Rewrite an ONNX file in place in the target's precision; its inputs and outputs stay.

    Args:
        path: The file, in float32, in a folder of its own with its external data.
        conversion: Describes it.
        target: What it is for.
        references: What it is compared with.
        symmetric: Whether int8 is centred around zero, as TensorRT needs it; always so where the
            target has an accelerator.

    Returns:
        The conversion with the nodes kept in float32 among its facts, and with measurements.

    Raises:
        ValidationFailedError: The precision exceeds its budget, whatever is kept in float32; or the
            file differs from the reference in float32 already.
        UsageError: ONNX Runtime is not installed.
    """
    precision = target.precision
    if precision == "fp32":
        return conversion
    outputs = conversion.interface.outputs
    with tempfile.TemporaryDirectory(prefix="precision-", dir=path.parent.parent) as scratch:
        evaluator = Evaluator(outputs, references.renamed(conversion.names), Path(scratch))
        before = load_session(path, threads=1)
        verdict = evaluator.evaluate_session(before)
        if verdict.problem:
            raise ValidationFailedError(
                f"the ONNX model differs from the reference in float32 already: {verdict.problem}",
                hint="Export it with --precision fp32 first; its report says more.",
                kind="parity",
            )
        plain = _read(path)
        if precision == "fp16":
            reduced = to_float16(plain, evaluator, target.release)
        else:
            centred = symmetric or bool(target.accelerator)
            reduced = to_int8(plain, evaluator, symmetric=centred)
        del plain
        write(reduced.model, path)
        after = load_session(path, threads=1)
        final = evaluator.evaluate_session(after)
        if final.problem:  # pragma: no cover - it was just evaluated
            raise ValidationFailedError(
                f"in {precision} the model differs from the reference: {final.problem}",
                hint="Use --precision fp32.",
                kind="precision",
            )
        milliseconds = evaluator.milliseconds([before, after])
    size = size_of(path.parent)
    sizes = {"fp32": conversion.bytes, precision: size}
    return replace(
        conversion,
        bytes=size,
        versions={**conversion.versions, **evaluator.versions},
        facts={
            **conversion.facts,
            "reduced": {"kept_float32": list(reduced.kept), "bytes": sizes},
        },
        notes=(*conversion.notes, *reduced.notes, *_size_note(sizes)),
        measured={
            "name": precision,
            "kept_float32": list(reduced.kept),
            "bytes": sizes,
            "milliseconds": dict(zip(sizes, milliseconds, strict=True)),
            "max_abs_error": dict(zip(sizes, _errors(verdict, final, reduced), strict=True)),
        },
    )


def _errors(before: Verdict, after: Verdict, reduced: ReducedModel) -> tuple[float, float]:
    return before.max_abs_error, max(after.max_abs_error, reduced.verdict.max_abs_error)


def _read(path: Path) -> ModelProto:
    try:
        return read(path)
    except Exception as error:
        raise ValidationFailedError(
            f"the ONNX model cannot be rewritten: {first_line(error)}",
            hint="Use --precision fp32.",
            kind="precision",
        ) from error


def _size_note(sizes: Mapping[str, int]) -> tuple[str, ...]:
    before, after = sizes.values()
    if after < WORTHWHILE * before:
        return ()
    return (f"Its files are {after / before:.0%} of their size in float32: little is gained.",)
