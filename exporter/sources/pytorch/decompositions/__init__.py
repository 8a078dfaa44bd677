"""Writes operators that have no ONNX form, or no kernel, for a dtype by others that have."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from exporter.sources.pytorch.decompositions import complex_ops as complexes
from exporter.sources.pytorch.decompositions import fft_ops as spectra
from exporter.sources.pytorch.decompositions import float64_ops as wide
from exporter.sources.pytorch.decompositions import misc_ops as others
from exporter.sources.pytorch.decompositions import scan_ops as along
from exporter.sources.pytorch.decompositions.nodes import has_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.export import ExportedProgram

__all__ = ["decompose"]

_REAL = frozenset({torch.float16, torch.float32, torch.float64, torch.int32, torch.int64})


def _of(forms: Mapping[Any, Any], *dtypes: torch.dtype) -> Callable[[Any], bool]:
    """Return a question about a node: whether it has a form, and to do with these dtypes."""
    return lambda node: node.target in forms and has_dtype(node, frozenset(dtypes))


# Forms, and whether a node wants one; where none does, a program stays as it is.
_FORMS: tuple[tuple[dict[Any, Callable[..., Any]], Callable[[Any], bool]], ...] = (
    (along.DECOMPOSITIONS, _of(along.DECOMPOSITIONS, *_REAL)),
    (
        others.DECOMPOSITIONS,
        lambda node: _of(others.DECOMPOSITIONS, *_REAL)(node) and not others.is_known(node),
    ),
    (
        wide.DECOMPOSITIONS,
        lambda node: _of(wide.DECOMPOSITIONS, torch.float64)(node) or wide.projects(node),
    ),
    (complexes.DECOMPOSITIONS, _of(complexes.DECOMPOSITIONS, torch.complex64, torch.complex128)),
    (spectra.DECOMPOSITIONS, spectra.loses_digits),
)


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which no operator is left that has no kernel for its dtype."""
    nodes = program.graph.nodes
    if not any(is_wanted(node) for node in nodes for _, is_wanted in _FORMS):
        return program
    table = torch.export.default_decompositions()
    for forms, _ in _FORMS:
        table.update(forms)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed
