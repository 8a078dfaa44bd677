"""Loads a pickled module, which runs code that the pickle carries."""

from __future__ import annotations

from pathlib import Path

import torch

from exporter.errors import ValidationFailedError
from exporter.sources.optional_libraries import cannot_load, load_with_mlflow

__all__ = ["load_module"]


def load_module(path: Path) -> torch.nn.Module:
    """Return the module of a logged model as MLflow loads it: on the CPU, in eval mode.

    The caller must have the user's permission, and be in a process of its own.

    Raises:
        ValidationFailedError: It cannot be loaded here, or is no module.
    """
    try:
        module = load_with_mlflow("pytorch", path, map_location=torch.device("cpu"))
    except ModuleNotFoundError as error:
        raise ValidationFailedError(
            f"model.pth cannot be loaded: it needs the module '{error.name}'",
            hint="Install it next to stlab, log the model with code_paths=[...], or log it "
            "with serialization_format='pt2'.",
            kind="artifact",
        ) from error
    except Exception as error:
        raise cannot_load("model.pth", error) from error
    if not isinstance(module, torch.nn.Module):
        raise ValidationFailedError(
            f"model.pth holds a {type(module).__name__}, not a torch.nn.Module",
            hint="Log the module itself with mlflow.pytorch.log_model.",
            kind="artifact",
        )
    return module
