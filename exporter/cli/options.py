"""Options that several commands share, and the end of every command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from exporter.commands.result import CommandResult
from exporter.errors import StlabError
from exporter.names import DEFAULT_TRACKING_URI
from exporter.progress import Listener

if TYPE_CHECKING:
    Request = TypeVar("Request")
    R = TypeVar("R", bound=CommandResult)

__all__ = [
    "AllowManual",
    "AsJson",
    "ExpectCurrent",
    "Model",
    "Repository",
    "TritonRelease",
    "TritonUrls",
    "finish",
    "run_with_progress",
    "server_addresses",
    "tracking_uri",
]

Model = Annotated[str, typer.Argument(envvar="MLFLOW_MODEL_NAME", help="The registered model.")]
Repository = Annotated[
    str, typer.Option(envvar="STLAB_MODEL_REPOSITORY", help="The Triton model repository.")
]
TritonUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--triton-url", envvar="STLAB_TRITON_URL", help="HOST:PORT (gRPC) of a server; repeatable."
    ),
]
TritonRelease = Annotated[
    str, typer.Option(envvar="STLAB_TRITON_RELEASE", help="The Triton release to serve with.")
]
ExpectCurrent = Annotated[
    int | None, typer.Option(help="Fail unless the alias points to this version now; 0: none.")
]
AllowManual = Annotated[bool, typer.Option(help="Move prod outside CI, on record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def tracking_uri() -> str:
    """Return the URI of the MLflow registry."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def server_addresses(urls: list[str] | None) -> tuple[str, ...]:
    """Return the address of every server; one value may hold several."""
    from exporter.triton.addresses import expand_addresses

    return expand_addresses(urls or ())


def run_with_progress(
    command: Callable[[Request, Listener], R],
    request: Request,
    show: Callable[[R], None],
    *,
    as_json: bool,
) -> NoReturn:
    """Run a command that goes through steps, show its progress, and `finish`."""
    from exporter.cli.output import Progress

    with Progress() as progress:
        result = command(request, progress)
    finish(result, show, as_json=as_json)


def finish(
    result: R, show: Callable[[R], None], *, as_json: bool, redacted: bool = True
) -> NoReturn:
    """Print a result as a table or as JSON, print its error, and end with its exit code."""
    from exporter.cli.output import print_error, print_json
    from exporter.text.redaction import redact_all

    if as_json:
        content = result.as_dict()
        print_json(redact_all(content) if redacted else content)
    else:
        show(result)
    if result.error is not None:
        print_error(StlabError(**result.error))
    raise typer.Exit(result.exit_code)
