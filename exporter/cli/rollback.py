"""``stlab rollback``: roll an alias back to its previous version."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli.options import (
    AllowManual,
    AsJson,
    ExpectCurrent,
    Model,
    Repository,
    TritonUrls,
    run_with_progress,
    server_addresses,
    tracking_uri,
)
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["rollback"]


def rollback(
    model: Model,
    alias: Annotated[str, typer.Option(help="The alias to roll back.")] = "prod",
    to: Annotated[
        int | None,
        typer.Option(help="The version. prod: what archived points to; else the last one."),
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason, for the record.")] = "",
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    expect_current: ExpectCurrent = None,
    allow_manual: AllowManual = False,
    as_json: AsJson = False,
) -> None:
    """Roll an alias back to its previous version."""
    from exporter.cli.tables import print_result
    from exporter.commands import RollbackRequest
    from exporter.commands import rollback as run

    request = RollbackRequest(
        model=model,
        alias=alias,
        to=to,
        reason=reason,
        repository=repository,
        tracking_uri=tracking_uri(),
        triton_urls=server_addresses(triton_url),
        expect_current=expect_current,
        allow_manual=allow_manual,
    )
    run_with_progress(run, request, print_result, as_json=as_json)
