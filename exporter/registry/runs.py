"""Keeps exports as MLflow runs, with their bundles as artifacts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from exporter.bundle import MANIFEST, Bundle
from exporter.errors import NotFoundError, ValidationFailed
from exporter.processes import Holder
from exporter.registry.adapter import quiet_progress, translated
from exporter.registry.artifacts import copy_artifact
from exporter.untrusted import UNFIT, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.registry.connection import Registry

__all__ = ["EXPERIMENT", "ExportRun", "close_abandoned", "fetch_bundle"]

EXPERIMENT = "stlab-export"
BUNDLE_FOLDER = "bundle"
_PROCESS = "stlab.process"


class ExportRun:
    """One export in the experiment ``stlab-export``."""

    def __init__(self, registry: Registry, run_id: str) -> None:
        self._registry = registry
        self.run_id = run_id

    @classmethod
    def begin(cls, registry: Registry, name: str, parameters: Mapping[str, object]) -> Self:
        """Open a run.

        Args:
            registry: Where.
            name: The run's name.
            parameters: What was asked for.
        """
        from mlflow.entities import Param

        client = registry.client
        with translated(registry.uri):
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                experiment_id = _create_experiment(registry)
            else:
                experiment_id = experiment.experiment_id
            tags = {_PROCESS: json.dumps(Holder.this_process().as_dict())}
            run = client.create_run(experiment_id, run_name=name, tags=tags)
            client.log_batch(
                run.info.run_id,
                params=[Param(key, str(value)) for key, value in parameters.items()],
            )
        return cls(registry, run.info.run_id)

    @property
    def bundle_uri(self) -> str:
        """Where the run's bundle lies."""
        return f"runs:/{self.run_id}/{BUNDLE_FOLDER}"

    def keep_bundle(self, bundle: Bundle) -> None:
        """Log a bundle's folder as artifact."""
        with translated(self._registry.uri), quiet_progress():
            self._registry.client.log_artifacts(self.run_id, str(bundle.path), BUNDLE_FOLDER)

    def keep_file(self, path: Path) -> None:
        """Log one file as artifact."""
        with translated(self._registry.uri), quiet_progress():
            self._registry.client.log_artifact(self.run_id, str(path))

    def finish(self, metrics: Mapping[str, float], *, succeeded: bool) -> None:
        """Log the metrics and close the run."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        client = self._registry.client
        with translated(self._registry.uri):
            client.log_batch(
                self.run_id,
                metrics=[Metric(key, float(value), now, 0) for key, value in metrics.items()],
            )
            client.set_terminated(self.run_id, status="FINISHED" if succeeded else "FAILED")


def close_abandoned(registry: Registry, model: str) -> None:
    """Close the runs of exports of a model that were killed on this machine.

    Raises:
        UnavailableError: The registry went away.
    """
    client = registry.client
    with translated(registry.uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return
        running = f"attributes.status = 'RUNNING' and params.model = '{model}'"
        for run in client.search_runs([experiment.experiment_id], running):
            if _has_died(run.data.tags.get(_PROCESS, "")):
                client.set_terminated(run.info.run_id, status="KILLED")


def _has_died(mark: str) -> bool:
    try:
        return Holder.read(parse_json(mark)).has_died()
    except UNFIT:
        return False


def fetch_bundle(
    registry: Registry, model: str, version: int, *, uri: str, sha256: str, folder: Path
) -> Bundle:
    """Download a version's bundle and check every one of its files.

    Args:
        registry: Where the run lies.
        model: The registered model. Tags are copied between models; what they name is checked.
        version: Its version.
        uri: The ``stlab.bundle.uri`` of the version.
        sha256: The ``stlab.bundle.sha256`` of the version.
        folder: Where to put it.

    Raises:
        NotFoundError: It is gone.
        ValidationFailed: The bundle there is another one, or a file is missing or differs.
        UnavailableError: The registry or the artifact store went away, or the disk is full.
    """
    with translated(registry.uri), quiet_progress():
        try:
            path = copy_artifact(registry.client, uri, folder)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"the bundle at {uri} is gone",
                hint="Export the version to 'staging' again, which converts it anew.",
            ) from error
    bundle = Bundle.open(path, model, version)
    if bundle.sha256 != sha256:
        raise ValidationFailed(
            f"{MANIFEST} in {uri} is not the one that was proven: it makes the bundle "
            f"{bundle.sha256[:12]}, and the evidence is for {sha256[:12]}",
            hint="Export the version to 'staging' again, which converts it anew.",
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
