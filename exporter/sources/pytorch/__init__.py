"""The MLflow ``pytorch`` flavor: a pt2 archive, or a pickled module where that is allowed."""

from __future__ import annotations

from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import MLModel
from exporter.sources.pytorch.determinism import check_deterministic
from exporter.sources.pytorch.module_source import ModuleSource
from exporter.sources.pytorch.pickle_loader import load_module
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
    return ModuleSource.of_signature(model, load_module(model.path))
