"""Registers models the way their authors do, in a real MLflow registry."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlflow
import numpy as np
import onnx
import torch
from mlflow import MlflowClient
from mlflow.models import ModelSignature, infer_signature
from mlflow.tracking import fluent

from exporter.commands.export.pipeline import export
from exporter.commands.export.request import ExportRequest
from exporter.commands.export.result import ExportResult
from tests.support.empty_registry import copy_empty_registry

logging.getLogger("mlflow").setLevel(logging.ERROR)


@dataclass(frozen=True)
class RegistryFixture:
    """A registry in SQLite, and a repository in the same folder."""

    folder: Path

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """Make an empty registry; its folder is the working directory until the block ends."""
        before = Path.cwd()
        os.chdir(folder)  # MLflow puts the artifacts of a SQLite registry there
        # What another registry's experiment was, which MLflow keeps for the whole process.
        fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        try:
            copy_empty_registry(folder)
            yield cls(folder)
        finally:
            os.chdir(before)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def register_torch(
        self,
        name: str,
        module: torch.nn.Module,
        *example: np.ndarray[Any, Any],
        signature: ModelSignature | None = None,
    ) -> int:
        """Log a module as pt2 with an example of one or several inputs."""
        given: Any = example[0] if len(example) == 1 else tuple(example)
        if signature is None:
            with torch.no_grad():
                answer = module(*(torch.from_numpy(array.copy()) for array in example))
            if isinstance(answer, dict):
                outputs: Any = {key: value.numpy() for key, value in answer.items()}
            elif isinstance(answer, tuple):
                outputs = {f"output_{i}": value.numpy() for i, value in enumerate(answer)}
            else:
                outputs = answer.numpy()
            inputs = given if len(example) == 1 else {f"in{i}": a for i, a in enumerate(example)}
            signature = infer_signature(inputs, outputs)
        with self._logging():
            info = mlflow.pytorch.log_model(
                module,
                name="model",
                input_example=given,
                signature=signature,
                serialization_format="pt2",
                registered_model_name=name,
                pip_requirements=["torch"],
            )
        return int(info.registered_model_version)

    def register_onnx(
        self,
        name: str,
        model: onnx.ModelProto,
        *,
        example: Any = None,
        signature: ModelSignature | None = None,
    ) -> int:
        """Log an ONNX model."""
        with self._logging():
            info = mlflow.onnx.log_model(
                model,
                name="model",
                input_example=example,
                signature=signature,
                registered_model_name=name,
                pip_requirements=["onnx"],
                save_as_external_data=False,
            )
        return int(info.registered_model_version)

    def artifact(self, name: str, version: int = 1) -> Path:
        """The folder in which the registry keeps a version's artifact."""
        return Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=self.client.get_model_version_download_uri(name, str(version))
            )
        )

    def export(self, name: str, alias: str = "staging", **options: Any) -> ExportResult:
        """Export as the command does."""
        options.setdefault("repository", str(self.folder / "repository"))
        request = ExportRequest(name, alias, tracking_uri=self.uri, **options)
        # In this process: what the tests are about is the same, and torch is imported once.
        return export(request, isolated=False)

    def alias(self, name: str, alias: str = "staging") -> int | None:
        """The version that an alias names."""
        named = self.client.get_registered_model(name).aliases.get(alias)
        return None if named is None else int(named)

    def repository_bytes(self) -> Mapping[str, bytes]:
        """Every file of the repository."""
        root = self.folder / "repository"
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    def _logging(self) -> Any:
        mlflow.set_tracking_uri(self.uri)
        context = warnings.catch_warnings()
        context.__enter__()
        warnings.simplefilter("ignore")

        class Leaving:
            def __enter__(self) -> None: ...
            def __exit__(self, *error: object) -> None:
                context.__exit__(None, None, None)

        return Leaving()
