"""``stlab pull``: download an alias's bundle into a model repository."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli.options import AsJson, Model, Repository, run_with_progress, tracking_uri
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["pull"]


def pull(
    model: Model,
    alias: Annotated[
        str, typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias whose bundle to download.")
    ],
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Download an alias's bundle into a model repository."""
    from exporter.cli.tables import print_result
    from exporter.commands import PullRequest
    from exporter.commands import pull as run

    request = PullRequest(
        model=model, alias=alias, repository=repository, tracking_uri=tracking_uri()
    )
    run_with_progress(run, request, print_result, as_json=as_json)
