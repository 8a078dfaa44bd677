"""``stlab verify``: replay an alias's samples on live servers."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli.options import (
    AsJson,
    Model,
    Repository,
    TritonUrls,
    run_with_progress,
    server_addresses,
    tracking_uri,
)
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["verify"]


def verify(
    model: Model,
    alias: Annotated[
        str, typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias whose samples to replay.")
    ],
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    as_json: AsJson = False,
) -> None:
    """Replay an alias's samples on live servers."""
    from exporter.cli.tables import print_verified
    from exporter.commands import VerifyRequest
    from exporter.commands import verify as run

    request = VerifyRequest(
        model=model,
        alias=alias,
        repository=repository,
        tracking_uri=tracking_uri(),
        triton_urls=server_addresses(triton_url),
    )
    run_with_progress(run, request, print_verified, as_json=as_json)
