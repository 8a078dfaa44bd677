"""One module per MLflow flavor; each turns a logged model into a `Source`.

A new flavor is one new module with ``open_source(model, *, allow_pickle)`` and one line below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import MLModel
from exporter.untrusted import reading

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.sources.base import Source

__all__ = ["FLAVORS", "open_source"]

FLAVORS = {
    "pytorch": "exporter.sources.pytorch",
    "onnx": "exporter.sources.onnx",
    "transformers": "exporter.sources.transformers",
    "sklearn": "exporter.sources.sklearn",
    "xgboost": "exporter.sources.xgboost",
    "lightgbm": "exporter.sources.lightgbm",
}
"""Flavors by preference, with the module that reads them (imported when needed)."""

_HINT = "Load it where it was logged, and log it again; if that works, please report this."


def open_source(path: Path, *, allow_pickle: bool = False) -> Source:
    """Open a logged model's folder as the reference.

    Args:
        path: A private copy of the model's artifact folder.
        allow_pickle: Whether pickled content may be loaded.

    Raises:
        ValidationFailedError: The artifact is damaged, unsafe, or of a flavor not known here.
    """
    model = MLModel.read(path)
    for flavor, module in FLAVORS.items():
        if flavor in model.flavors:
            opened = import_module(module).open_source
            with reading(f"the version's {flavor} model", hint=_HINT, kind="artifact"):
                return cast("Source", opened(model, allow_pickle=allow_pickle))
    raise ValidationFailedError(
        f"the version has the flavors {', '.join(model.flavors) or 'none'}; "
        f"this release exports {', '.join(FLAVORS)}",
        hint="Log the model with one of these flavors.",
        kind="flavor",
    )
