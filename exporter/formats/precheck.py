"""Runs a converted model here, before a server does, to choose between ways to convert it.

It proves nothing: what it lets pass is proven on the wire, by the release that is to serve it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.arrays import as_bytes, as_text
from exporter.errors import first_line
from exporter.parity.compare import compare_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.interface import Tensor
    from exporter.parity.reference_set import ReferenceSet

__all__ = ["precheck"]


def precheck(path: Path, outputs: tuple[Tensor, ...], references: ReferenceSet) -> str:
    """Return how an ONNX file answers otherwise than the reference; empty where it does not.

    Args:
        path: The file.
        outputs: The reference's outputs.
        references: What it must answer.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        return ""  # the proof will tell
    options = ort.SessionOptions()
    options.log_severity_level = 4
    names = [tensor.name for tensor in outputs]
    answers = [*references.cases, *([references.batch] if references.batch else [])]
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for answer in answers:
            given = {name: as_text(array) for name, array in answer.case.inputs.items()}
            found = dict(zip(names, map(as_bytes, session.run(names, given)), strict=True))
            for difference in compare_outputs(
                outputs, answer.outputs, found, references.tolerances, answer.float64
            ):
                if difference.problem:
                    return f"{answer.case.name}: {difference.output} has {difference.problem}"
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors derive from Exception
        return first_line(error)
    return ""
