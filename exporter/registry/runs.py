"""Log exports as MLflow runs with their bundles as artifacts, and download bundles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from exporter.bounded_text import UNFIT, parse_json
from exporter.bundle import MANIFEST, Bundle
from exporter.errors import ConflictError, ValidationFailedError
from exporter.registry.artifacts import download
from exporter.registry.bounds import exchange
from exporter.registry.client import Registry
from exporter.registry.errors import quiet_progress, translate_errors
from exporter.registry.locations import check_location
from exporter.system.processes import ProcessId

__all__ = ["EXPERIMENT", "ExportRun", "close_abandoned", "fetch_bundle"]

EXPERIMENT = "stlab-export"
BUNDLE_FOLDER = "bundle"
_PROCESS = "stlab.process"


class ExportRun:
    """One export in the experiment ``stlab-export``."""

    def __init__(self, registry: Registry, run_id: str, location: str) -> None:
        self._registry = registry
        self._location = location
        self.run_id = run_id

    @classmethod
    def begin(cls, registry: Registry, name: str, parameters: Mapping[str, object]) -> Self:
        """Open a run.

        Args:
            registry: The registry.
            name: The run's name.
            parameters: The settings of the export, free of secrets.

        Raises:
            ConflictError: The address of the experiment's artifacts is not followed.
            UnavailableError: The registry does not answer.
        """
        from mlflow.entities import Param

        client = registry.client
        with translate_errors(registry.uri):
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                experiment_id = _create_experiment(registry)
            else:
                experiment_id = experiment.experiment_id
            tags = {_PROCESS: json.dumps(ProcessId.this_process().as_dict())}
            run = client.create_run(experiment_id, run_name=name, tags=tags)
            client.log_batch(
                run.info.run_id,
                params=[Param(key, str(value)) for key, value in parameters.items()],
            )
            try:
                what = f"the experiment '{EXPERIMENT}'"
                location = check_location(registry, run.info.artifact_uri, what)
            except ConflictError:
                client.set_terminated(run.info.run_id, status="FAILED")
                raise
        return cls(registry, run.info.run_id, location)

    @property
    def bundle_uri(self) -> str:
        """The address of the run's bundle."""
        return f"runs:/{self.run_id}/{BUNDLE_FOLDER}"

    def log_bundle(self, bundle: Bundle) -> None:
        """Log a bundle's folder as artifact."""
        with self._store() as store:
            store.log_artifacts(str(bundle.path), BUNDLE_FOLDER)

    def log_file(self, path: Path) -> None:
        """Log one file as artifact."""
        with self._store() as store:
            store.log_artifact(str(path))

    @contextmanager
    def _store(self) -> Iterator[Any]:
        """Open the store of the run's artifacts, at the address that was checked."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = self._registry.uri
        with translate_errors(uri), quiet_progress(), exchange(uri, transfer=True):
            yield get_artifact_repository(self._location, tracking_uri=uri)

    def finish(self, metrics: Mapping[str, float], *, succeeded: bool) -> None:
        """Log the metrics and close the run."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        client = self._registry.client
        with translate_errors(self._registry.uri):
            client.log_batch(
                self.run_id,
                metrics=[Metric(key, float(value), now, 0) for key, value in metrics.items()],
            )
            client.set_terminated(self.run_id, status="FINISHED" if succeeded else "FAILED")


def close_abandoned(registry: Registry, model: str) -> None:
    """Close the runs of exports of a model that were killed on this machine.

    Raises:
        UnavailableError: The registry does not answer.
    """
    client = registry.client
    with translate_errors(registry.uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return
        running = f"attributes.status = 'RUNNING' and params.model = '{model}'"
        for run in client.search_runs([experiment.experiment_id], running):
            if _has_died(run.data.tags.get(_PROCESS, "")):
                client.set_terminated(run.info.run_id, status="KILLED")


def _has_died(tag: str) -> bool:
    try:
        return ProcessId.read(parse_json(tag)).has_died()
    except UNFIT:
        return False


def fetch_bundle(
    registry: Registry, model: str, version: int, *, uri: str, sha256: str, folder: Path
) -> Bundle:
    """Download a version's bundle and check every one of its files.

    Args:
        registry: The registry.
        model: The registered model; a bundle of another one, as of a copied tag, is rejected.
        version: Its version.
        uri: The ``stlab.bundle.uri`` of the version.
        sha256: The ``stlab.bundle.sha256`` of the version.
        folder: The target folder.

    Raises:
        NotFoundError: The bundle is gone.
        ConflictError: The address is not followed.
        ValidationFailedError: The address holds another bundle, or a file is missing or differs.
        UnavailableError: The registry, the artifact store or the disk fails.
    """
    path = download(
        registry,
        uri,
        folder,
        f"the bundle of '{model}' version {version}",
        "Export the version to 'staging' again, which converts it again.",
    )
    bundle = Bundle.open(path, model, version)
    if bundle.sha256 != sha256:
        raise ValidationFailedError(
            f"{MANIFEST} in {uri} is not the one that was proven: its bundle is "
            f"{bundle.sha256[:12]}, and the evidence is for {sha256[:12]}",
            hint="Export the version to 'staging' again, which converts it again.",
            kind="bundle",
        )
    bundle.verify()
    return bundle


def _create_experiment(registry: Registry) -> str:
    try:
        return str(registry.client.create_experiment(EXPERIMENT))
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(registry.client.get_experiment_by_name(EXPERIMENT).experiment_id)
