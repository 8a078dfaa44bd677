"""Writes operators that have no ONNX form, or no kernel, for a dtype by others that have."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from exporter.sources.pytorch.forms import along, complexes, others, wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.export import ExportedProgram

__all__ = ["with_known_forms"]

_REAL = frozenset({torch.float16, torch.float32, torch.float64, torch.int32, torch.int64})
_FORMS: tuple[tuple[frozenset[torch.dtype], dict[Any, Callable[..., Any]]], ...] = (
    (_REAL, along.FORMS),
    (_REAL, others.FORMS),
    (frozenset({torch.float64}), wide.FORMS),
    (frozenset({torch.complex64, torch.complex128}), complexes.FORMS),
)


def with_known_forms(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which no operator is left that has no kernel for its dtype."""
    wanted = any(
        node.target in forms and _has(node, dtypes)
        for node in program.graph.nodes
        for dtypes, forms in _FORMS
    )
    if not wanted:
        return program
    table = torch.export.default_decompositions()
    for _, forms in _FORMS:
        table.update(forms)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _has(node: Any, dtypes: frozenset[torch.dtype]) -> bool:
    values = [node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]
    return any(isinstance(value, torch.Tensor) and value.dtype in dtypes for value in values)
