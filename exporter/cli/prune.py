"""``stlab prune``: delete old versions from a model repository."""

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

__all__ = ["prune"]


def prune(
    model: Model,
    keep: Annotated[int, typer.Option(help="Number of newest versions to keep.")] = 2,
    unaliased: Annotated[
        bool,
        typer.Option("--unaliased", "--nameless", help="Stop serving versions without an alias."),
    ] = False,
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete published versions that no alias, server or rollback needs."""
    from exporter.cli.tables import print_pruned
    from exporter.commands import PruneRequest
    from exporter.commands import prune as run

    request = PruneRequest(
        model=model,
        keep=keep,
        unaliased=unaliased,
        repository=repository,
        tracking_uri=tracking_uri(),
        triton_urls=server_addresses(triton_url),
        dry_run=dry_run,
    )
    run_with_progress(run, request, print_pruned, as_json=as_json)
