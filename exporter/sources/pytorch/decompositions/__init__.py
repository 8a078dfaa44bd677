"""Decomposes operators that have no ONNX form, or no kernel for a dtype, into others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.export import ExportedProgram

from exporter.sources.pytorch.decompositions import (
    complex_ops,
    fft_ops,
    float64_ops,
    misc_ops,
    scan_ops,
)
from exporter.sources.pytorch.decompositions.nodes import has_dtype

__all__ = ["decompose"]

_REAL = frozenset({torch.float16, torch.float32, torch.float64, torch.int32, torch.int64})


def _of(module: ModuleType, *dtypes: torch.dtype) -> Callable[[Any], bool]:
    """Return a predicate: whether a node has a decomposition, and one of these dtypes."""
    return lambda node: node.target in module.DECOMPOSITIONS and has_dtype(node, frozenset(dtypes))


# Modules of decompositions, each with a predicate for nodes that need them.
_NEEDED: tuple[tuple[ModuleType, Callable[[Any], bool]], ...] = (
    (scan_ops, _of(scan_ops, *_REAL)),
    (misc_ops, lambda node: _of(misc_ops, *_REAL)(node) and not misc_ops.is_known(node)),
    (float64_ops, lambda n: _of(float64_ops, torch.float64)(n) or float64_ops.projects(n)),
    (complex_ops, _of(complex_ops, torch.complex64, torch.complex128)),
    (fft_ops, fft_ops.loses_digits),
)


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which every operator has a kernel for its dtype."""
    nodes = program.graph.nodes
    if not any(is_needed(node) for node in nodes for _, is_needed in _NEEDED):
        return program
    table = torch.export.default_decompositions()
    for module, _ in _NEEDED:
        table.update(module.DECOMPOSITIONS)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed
