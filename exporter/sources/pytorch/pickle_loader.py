"""Loads a pickled module, which runs code that the pickle carries."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import torch

from exporter.errors import ValidationFailedError, first_line

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["load_module"]


def load_module(path: Path) -> torch.nn.Module:
    """Return the module of a logged model as MLflow loads it: on the CPU, in eval mode.

    Whoever calls this has been allowed to, and is in a process of its own.

    Args:
        path: The logged model's folder.

    Raises:
        ValidationFailedError: It cannot be loaded here, or is no module.
    """
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow.pytorch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = mlflow.pytorch.load_model(str(path), map_location=torch.device("cpu"))
        except ModuleNotFoundError as error:
            raise ValidationFailedError(
                f"model.pth cannot be loaded: it needs the module '{error.name}'",
                hint="Install it beside stlab, log the model with code_paths=[...], or log it "
                "with serialization_format='pt2'.",
                kind="artifact",
            ) from error
        except Exception as error:
            raise ValidationFailedError(
                f"model.pth cannot be loaded: {first_line(error)}",
                hint="Load it where it was logged, and log it again with "
                "serialization_format='pt2'.",
                kind="artifact",
            ) from error
    if not isinstance(module, torch.nn.Module):
        raise ValidationFailedError(
            f"model.pth holds a {type(module).__name__}, not a torch.nn.Module",
            hint="Log the module itself with mlflow.pytorch.log_model.",
            kind="artifact",
        )
    return module
