"""Model sources: each module here opens the logged models of one MLflow flavor.

To add a flavor, add a module with an `open_source` function (see `FlavorModule`) and a line to
`FLAVORS`. CONTRIBUTING.md has the whole recipe.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.bounded_text import reading
from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import MLModel

if TYPE_CHECKING:
    from exporter.sources.base import FlavorModule, Source

__all__ = ["FLAVORS", "open_source"]

FLAVORS = {
    "pytorch": "exporter.sources.pytorch",
    "onnx": "exporter.sources.onnx",
    "transformers": "exporter.sources.transformers",
    "sklearn": "exporter.sources.sklearn",
    "xgboost": "exporter.sources.xgboost",
    "lightgbm": "exporter.sources.lightgbm",
}
"""MLflow flavors with their modules, the preferred first; a module is imported when needed."""

_HINT = "Load it where it was logged, and log it again; if that works, please report this."


def open_source(path: Path, *, allow_pickle: bool = False) -> Source:
    """Open a logged model's folder as the reference.

    Raises:
        ValidationFailedError: The artifact is damaged, unsafe, or of an unknown flavor.
    """
    model = MLModel.read(path)
    for flavor, name in FLAVORS.items():
        if flavor in model.flavors:
            module = cast("FlavorModule", import_module(name))
            with reading(f"the version's {flavor} model", hint=_HINT, kind="artifact"):
                return module.open_source(model, allow_pickle=allow_pickle)
    raise ValidationFailedError(
        f"the version has the flavors {', '.join(model.flavors) or 'none'}; "
        f"this release exports {', '.join(FLAVORS)}",
        hint="Log the model with one of these flavors.",
        kind="flavor",
    )
