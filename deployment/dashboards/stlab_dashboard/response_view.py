"""Draws one response: its latency, the comparison with the registered model, its values."""

from __future__ import annotations

import json

from exporter.commands.infer.result import InferResult, described, plain
from exporter.commands.status.result import AliasState
from stlab_dashboard.elements import cell, element, row, state, table, text
from stlab_dashboard.inference import Comparison

__all__ = ["draw_response"]

_COLUMNS = ("Output", "Type", "Shape", "First values", "Min", "Mean", "Max")
_NUMERIC = ("Min", "Mean", "Max")
_MAX_VALUES = 2000


def draw_response(
    result: InferResult, server: str, alias: AliasState, comparison: Comparison | None
) -> None:
    """Draw the response of a server such as ``Triton (gRPC)`` to a request for an alias."""
    text("h2", "Response")
    version = "" if result.version is None else f", version {result.version}"
    with element("p"):
        text("strong", f"{1000 * (result.seconds or 0.0):.1f} ms")
        text("span", f" round trip, {server}{version}.")
    if comparison is not None:
        _draw_comparison(comparison)
    elif result.version not in {None, alias.version}:
        state(
            "warn",
            f"Not compared: {server} serves version {result.version}, and '{alias.alias}' points "
            f"to version {alias.version}",
        )
    with table("Outputs", _COLUMNS):
        for name, array in result.outputs.items():
            with row():
                for header, content in zip(_COLUMNS, described(name, array), strict=True):
                    number = "number" if header in _NUMERIC else ""
                    cell(header, content, number, first=header == _COLUMNS[0])
    with element("details"):
        text("summary", "All values")
        for name, array in result.outputs.items():
            text("h3", name)
            cut = array.size > _MAX_VALUES
            values = json.dumps(plain(array.reshape(-1)[:_MAX_VALUES] if cut else array))
            note = f" (the first {_MAX_VALUES} of {array.size})" if cut else ""
            text("pre", values + note, tabindex="0")


def _draw_comparison(comparison: Comparison) -> None:
    with element("p", "comparison"):
        if comparison.mismatch:
            state("bad", f"differs from the registered model: {comparison.mismatch}")
            return
        state("good", "equals the registered model's outputs")
        text(
            "span",
            f" Largest difference {comparison.max_abs_error:.3g}, which is "
            f"{comparison.margin:.3g} of the tolerance.",
        )
