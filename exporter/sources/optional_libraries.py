"""Imports the libraries that flavors and formats need only when a model needs them."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

from exporter.errors import UsageError, ValidationFailedError, first_line

__all__ = ["cannot_load", "cannot_run_example", "load_with_mlflow", "require"]


def require(module: str, purpose: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        module: Its name.
        purpose: What it is for, as the beginning of a sentence that ends with its name.
        extra: The extra of ``stlab`` that installs it.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{purpose} {module}, which is not installed",
            hint=f"pip install 'stlab[{extra}]'.",
        ) from error


def load_with_mlflow(flavor: str, path: Path, **options: Any) -> Any:
    """Load a pickled model as MLflow does; its code runs, which the caller must have allowed.

    Raises:
        Exception: Whatever the pickle, its code or MLflow raises.
    """
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    loader = importlib.import_module(f"mlflow.{flavor}")
    with warnings.catch_warnings(action="ignore"):
        return loader.load_model(str(path), **options)


def cannot_load(what: str, error: Exception) -> ValidationFailedError:
    """Return the error for an artifact that its own library cannot load."""
    return ValidationFailedError(
        f"{what} cannot be loaded: {first_line(error)}",
        hint="Load it where it was logged, and log it again.",
        kind="artifact",
    )


def cannot_run_example(error: Exception, *, logged: bool = True) -> ValidationFailedError:
    """Return the error for a model that fails on its example, or on zeros if it has none."""
    what = "its example" if logged else "inputs of zeros, and has no example"
    return ValidationFailedError(
        f"the registered model cannot run {what}: {first_line(error)}",
        hint="Log the model again with an example and a signature that it can answer.",
        kind="signature",
    )
