"""Decomposes operators that have no ONNX form, or no kernel for a dtype, into others."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.export import ExportedProgram

from exporter.sources.pytorch.decompositions import (
    complex_ops,
    fft_ops,
    float64_ops,
    missing_ops,
    value_ops,
)

__all__ = ["decompose"]

_REAL = {torch.float16, torch.float32, torch.float64, torch.int32, torch.int64}


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which every operator has a kernel for its dtype, right at any value."""
    if any(map(_is_needed, program.graph.nodes)):
        table: Any = torch.export.default_decompositions()
        for module in (missing_ops, float64_ops, complex_ops, fft_ops, value_ops):
            table.update(module.DECOMPOSITIONS)
    elif any(map(value_ops.is_wrong, program.graph.nodes)):
        table = dict(value_ops.DECOMPOSITIONS)  # all other operators stay
    else:
        return program
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _is_needed(node: Any) -> bool:
    """Whether a node has to be decomposed for the dtypes that it takes and gives."""
    values = [node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    if node.target in missing_ops.DECOMPOSITIONS and dtypes & _REAL:
        return not missing_ops.is_known(node)
    return bool(
        (node.target in float64_ops.DECOMPOSITIONS and torch.float64 in dtypes)
        or float64_ops.projects(node)
        or (node.target in complex_ops.DECOMPOSITIONS and any(d.is_complex for d in dtypes))
        or (fft_ops.is_transform(node) and dtypes & fft_ops.NARROW)
    )
