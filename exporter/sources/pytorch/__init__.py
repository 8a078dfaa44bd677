"""The MLflow ``pytorch`` flavor: a pt2 archive, or a pickled module where that is allowed."""

from __future__ import annotations

from pathlib import Path

import torch

from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import MLModel, check_signature
from exporter.sources.optional_libraries import cannot_load, load_with_mlflow
from exporter.sources.pytorch.determinism import check_deterministic
from exporter.sources.pytorch.input_example import logged_example
from exporter.sources.pytorch.module_source import ModuleSource
from exporter.sources.pytorch.program_source import ExportedProgramSource
from exporter.sources.pytorch.pt2_archive import load_program
from exporter.sources.safe_loading import check_pickle_allowed

__all__ = ["ExportedProgramSource", "ModuleSource", "open_source"]


def open_source(model: MLModel, *, allow_pickle: bool) -> ExportedProgramSource | ModuleSource:
    """Open a logged pytorch model.

    Raises:
        ValidationFailedError: It is pickled and that is not allowed, damaged, unsafe, in training
            mode, keeps state, or does not fit its signature.
    """
    folder = model.file(str(model.flavors["pytorch"].get("model_data", "data")))
    if (folder / "model.pt2").is_file():
        program = load_program(folder / "model.pt2")
        check_deterministic(program, model.logged)
        return ExportedProgramSource(model, program)
    if not (folder / "model.pth").is_file():
        files = sorted(path.name for path in folder.glob("*"))
        raise ValidationFailedError(
            f"the artifact holds no model.pt2 (it holds: {', '.join(files) or 'nothing'})",
            hint="Log the model again; the version's artifact is damaged.",
            kind="artifact",
        )
    check_pickle_allowed("model.pth", "serialization_format='pt2'", allow_pickle=allow_pickle)
    module = _load_module(model.path)
    example, varying, given = logged_example(model)
    source = ModuleSource(module, example, varying, promised=model.outputs, given=given)
    check_signature(model, source.interface.inputs, source.interface.outputs)
    source.note_frozen_axes(model, "forward() takes no other size with this example")
    return source


def _load_module(path: Path) -> torch.nn.Module:
    """Load a pickled module as MLflow does, on the CPU in eval mode; its own code runs."""
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
