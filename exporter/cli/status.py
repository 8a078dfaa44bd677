"""``stlab status``: compare aliases, evidence, repository and servers."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli.options import (
    AsJson,
    Repository,
    TritonUrls,
    finish,
    server_addresses,
    tracking_uri,
)
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["status"]


def status(
    model: Annotated[
        str | None, typer.Argument(envvar="MLFLOW_MODEL_NAME", help="All by default.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="An alias to show, all by default; repeatable.")
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 5 if anything drifts.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Skip reading the models' files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every alias, and whether evidence, repository and servers match it."""
    from exporter.cli.tables import print_status
    from exporter.commands import StatusRequest
    from exporter.commands import status as run

    result = run(
        StatusRequest(
            model=model,
            aliases=tuple(alias or ()),
            repository=repository,
            tracking_uri=tracking_uri(),
            triton_urls=server_addresses(triton_url),
            check=check,
            quick=quick,
        )
    )
    finish(result, print_status, as_json=as_json)
