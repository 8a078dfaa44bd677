"""Log exports as MLflow runs with their bundles as artifacts, and download bundles."""

from __future__ import annotations

import json
import time
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
from exporter.registry.errors import translate_errors
from exporter.registry.locations import check_location
from exporter.registry.promote import close_records
from exporter.system.processes import ProcessId

__all__ = ["ExportRun", "clean_up", "fetch_bundle"]

_EXPERIMENT = "stlab-export"
_BUNDLE_FOLDER = "bundle"
_PROCESS = "stlab.process"


class ExportRun:
    """One export in the experiment ``stlab-export``."""

    def __init__(self, registry: Registry, run_id: str, location: str) -> None:
        self._registry = registry
        self._location = location
        self.run_id = run_id

    @classmethod
    def begin(cls, registry: Registry, name: str, parameters: Mapping[str, object]) -> Self:
        """Open a run with the settings of the export, which are free of secrets.

        Raises:
            ConflictError: The address of the experiment's artifacts is not followed.
            UnavailableError: The registry does not answer.
        """
        from mlflow.entities import Param

        client = registry.client
        with translate_errors(registry.uri):
            tags = {_PROCESS: json.dumps(ProcessId.this_process().as_dict())}
            run = client.create_run(_experiment_id(client), run_name=name, tags=tags)
            params = [Param(key, str(value)) for key, value in parameters.items()]
            client.log_batch(run.info.run_id, params=params)
            try:
                what = f"the experiment '{_EXPERIMENT}'"
                location = check_location(registry, run.info.artifact_uri, what)
            except ConflictError:
                client.set_terminated(run.info.run_id, status="FAILED")
                raise
        return cls(registry, run.info.run_id, location)

    @property
    def bundle_uri(self) -> str:
        """The address of the run's bundle."""
        return f"runs:/{self.run_id}/{_BUNDLE_FOLDER}"

    def log_bundle(self, bundle: Bundle) -> None:
        """Log a bundle's folder as artifact."""
        with self._store() as store:
            store.log_artifacts(str(bundle.path), _BUNDLE_FOLDER)

    def log_file(self, path: Path) -> None:
        """Log one file as artifact."""
        with self._store() as store:
            store.log_artifact(str(path))

    @contextmanager
    def _store(self) -> Iterator[Any]:
        """Open the store of the run's artifacts, at the address that was checked."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = self._registry.uri
        with translate_errors(uri), exchange(uri, transfer=True):
            yield get_artifact_repository(self._location, tracking_uri=uri)

    def finish(self, metrics: Mapping[str, float], *, succeeded: bool) -> None:
        """Log the metrics and close the run."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        client = self._registry.client
        with translate_errors(self._registry.uri):
            logged = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
            client.log_batch(self.run_id, metrics=logged)
            client.set_terminated(self.run_id, status="FINISHED" if succeeded else "FAILED")


def clean_up(registry: Registry, model: str) -> None:
    """Close what interrupted commands left of a model: stale records, and runs of this machine.

    Raises:
        UnavailableError: The registry does not answer.
    """
    client = registry.client
    aliases, versions = registry.get_model(model)
    with translate_errors(registry.uri):
        close_records(registry, model, versions, aliases)
        experiment = client.get_experiment_by_name(_EXPERIMENT)
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

    A bundle of another model, as of a copied tag, is rejected.

    Raises:
        NotFoundError: The bundle is gone.
        ConflictError: The address is not followed.
        ValidationFailedError: The address holds another bundle, or a file is missing or differs.
        UnavailableError: The registry, the artifact store or the disk fails.
    """
    hint = "Export the version to 'staging' again, which converts it again."
    what = f"the bundle of '{model}' version {version}"
    bundle = Bundle.open(download(registry, uri, folder, what, hint), model, version)
    if bundle.sha256 != sha256:
        raise ValidationFailedError(
            f"{MANIFEST} in {uri} is not the one that was proven: its bundle is "
            f"{bundle.sha256[:12]}, and the evidence is for {sha256[:12]}",
            hint=hint,
            kind="bundle",
        )
    bundle.verify()
    return bundle


def _experiment_id(client: Any) -> str:
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    if experiment is None:
        try:
            return str(client.create_experiment(_EXPERIMENT))
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(_EXPERIMENT)
    return str(experiment.experiment_id)
