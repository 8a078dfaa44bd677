"""``stlab serve``: a Triton server in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from exporter.cli.options import Repository, TritonRelease
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["serve"]


def serve(
    flags: Annotated[list[str] | None, typer.Argument(help="Further tritonserver flags.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus port.")] = 8002,
    triton_release: TritonRelease = "",
) -> None:
    """Run a Triton server on a repository, on the loopback interface, in the foreground."""
    from exporter.commands import ServeRequest
    from exporter.commands import serve as run

    request = ServeRequest(
        repository=repository,
        triton_release=triton_release,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        flags=tuple(flags or ()),
    )
    raise typer.Exit(run(request))
