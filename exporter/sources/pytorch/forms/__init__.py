"""Writes operators that have no ONNX form, or no kernel, for a dtype by others that have."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from exporter.sources.pytorch.forms import along, complexes, others, spectra, wide

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
    (frozenset({torch.float32, torch.complex64}), spectra.FORMS),
)
# Of every size but those that vary they have a form of ONNX, which is faster.
_ATEN = torch.ops.aten
_MEANS = {
    _ATEN.adaptive_avg_pool1d.default: 1,
    _ATEN.adaptive_avg_pool2d.default: 2,
    _ATEN.adaptive_avg_pool3d.default: 3,
}


def with_known_forms(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which no operator is left that has no kernel for its dtype."""
    if not any(_is_wanted(node) for node in program.graph.nodes):
        return program
    table = torch.export.default_decompositions()
    for _, forms in _FORMS:
        table.update(forms)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _is_wanted(node: Any) -> bool:
    if node.target in _MEANS:
        return others.varies(node.args[0].meta["val"], _MEANS[node.target])
    if node.target is _ATEN.lstm.input and wide.projects([s.meta["val"] for s in node.args[1]]):
        return True
    if spectra.loses_digits(node):
        return True
    return any(node.target in forms and _has(node, dtypes) for dtypes, forms in _FORMS)


def _has(node: Any, dtypes: frozenset[torch.dtype]) -> bool:
    values = [node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]
    return any(isinstance(value, torch.Tensor) and value.dtype in dtypes for value in values)
