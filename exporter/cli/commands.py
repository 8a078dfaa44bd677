"""The commands of ``stlab``: their options, and the call of `exporter.commands` that each makes.

The code of a command is imported when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from exporter import commands
from exporter.commands.result import CommandResult
from exporter.errors import StlabError
from exporter.names import DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI
from exporter.progress import Listener

__all__ = ["UNCONFINED", "app"]

# The internal form of --allow-pickle=unconfined: Typer's flags take no values.
UNCONFINED = "--unconfined"

Request = TypeVar("Request")
Result = TypeVar("Result", bound=CommandResult)

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

app = typer.Typer(
    name="stlab",
    help="From an MLflow model version to a proven, served Triton model.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def export(
    model: Model,
    alias: Annotated[
        str,
        typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias to move: dev, staging or prod."),
    ],
    version: Annotated[
        int | None, typer.Option(help="The version. dev: newest; staging: what dev points to.")
    ] = None,
    target_format: Annotated[
        str, typer.Option("--format", help="onnx, torchscript or tensorrt.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    accelerator: Annotated[
        str, typer.Option(help="tensorrt: run an onnx model by Triton's TensorRT accelerator.")
    ] = "",
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    triton_release: TritonRelease = "",
    prove_on: Annotated[
        str, typer.Option(help="HOST:PORT (gRPC) of a server to prove on, in explicit mode.")
    ] = "",
    batching: Annotated[
        str, typer.Option(help="auto: batch if rows are independent; require: or fail; off.")
    ] = "auto",
    max_batch_size: Annotated[int, typer.Option(help="The most rows in one request.")] = 32,
    max_queue_size: Annotated[
        int, typer.Option(help="Requests that may wait before more are rejected; 0: any number.")
    ] = 0,
    samples: Annotated[
        Path | None, typer.Option(help="A .npz with further inputs: 'input' or 'case/input'.")
    ] = None,
    expect_current: ExpectCurrent = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            help="Load pickled content, confined; =unconfined: with network and all files."
        ),
    ] = False,
    unconfined: Annotated[bool, typer.Option(UNCONFINED, hidden=True)] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that loading, running and converting may take.")
    ] = 3600.0,
    model_memory: Annotated[
        str, typer.Option(help="Memory for the model's process, such as 8G. [default: all]")
    ] = "",
    allow_manual: AllowManual = False,
    dry_run: Annotated[bool, typer.Option(help="Print the plan only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a version, prove it on a Triton server, publish it, and move the alias."""
    from exporter.cli.tables import print_result
    from exporter.commands.export.request import byte_size

    request = commands.ExportRequest(
        model=model,
        alias=alias,
        version=version,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_server_addresses(triton_url),
        triton_release=triton_release,
        prove_on=prove_on,
        format=target_format,
        precision=precision,
        accelerator=accelerator,
        batching=batching,
        max_batch_size=max_batch_size,
        max_queue_size=max_queue_size,
        samples=samples,
        expect_current=expect_current,
        allow_pickle=allow_pickle,
        unconfined=unconfined,
        timeout=timeout,
        model_memory=byte_size(model_memory) if model_memory else 0,
        allow_manual=allow_manual,
        dry_run=dry_run,
    )
    _run_steps(commands.export, request, print_result, as_json=as_json)


@app.command()
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

    request = commands.RollbackRequest(
        model=model,
        alias=alias,
        to=to,
        reason=reason,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_server_addresses(triton_url),
        expect_current=expect_current,
        allow_manual=allow_manual,
    )
    _run_steps(commands.rollback, request, print_result, as_json=as_json)


@app.command()
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

    request = commands.StatusRequest(
        model=model,
        aliases=tuple(alias or ()),
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_server_addresses(triton_url),
        check=check,
        quick=quick,
    )
    _finish(commands.status(request), print_status, as_json=as_json)


@app.command()
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

    request = commands.PullRequest(
        model=model, alias=alias, repository=repository, tracking_uri=_tracking_uri()
    )
    _run_steps(commands.pull, request, print_result, as_json=as_json)


@app.command()
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

    request = commands.VerifyRequest(
        model=model,
        alias=alias,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_server_addresses(triton_url),
    )
    _run_steps(commands.verify, request, print_verified, as_json=as_json)


@app.command()
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

    request = commands.PruneRequest(
        model=model,
        keep=keep,
        unaliased=unaliased,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_server_addresses(triton_url),
        dry_run=dry_run,
    )
    _run_steps(commands.prune, request, print_pruned, as_json=as_json)


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Arguments after -- are passed to tritonserver.",
)
def serve(
    flags: Annotated[list[str] | None, typer.Argument(help="Further tritonserver flags.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus port.")] = 8002,
    triton_release: TritonRelease = "",
) -> None:
    """Run a Triton server on a repository, on the loopback interface, in the foreground."""
    request = commands.ServeRequest(
        repository=repository,
        triton_release=triton_release,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        flags=tuple(flags or ()),
    )
    raise typer.Exit(commands.serve(request))


@app.command()
def infer(
    model: Annotated[str, typer.Argument(help="The served model.")],
    inputs: Annotated[
        Path, typer.Option("--input", help="The inputs: a .npz with an array each, or a .json.")
    ],
    url: Annotated[
        str, typer.Option(envvar="STLAB_TRITON_URL", help="HOST:PORT (gRPC) of the server.")
    ] = "localhost:8001",
    version: Annotated[int | None, typer.Option(min=1, help="The version.")] = None,
    outputs: Annotated[
        list[str] | None, typer.Option(help="An output to return, all by default; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .npz to write the outputs to.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that the inference may take.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Send inputs to a served model, and print its outputs."""
    from exporter.cli.tables import print_answer

    request = commands.InferRequest(
        model=model,
        inputs=inputs,
        url=url,
        version=version,
        outputs=tuple(outputs or ()),
        output=output,
        deadline=deadline,
    )
    _finish(commands.infer(request), print_answer, as_json=as_json, redacted=False)


@app.command()
def doctor(
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    triton_release: TritonRelease = "",
    as_json: AsJson = False,
) -> None:
    """Check what an export needs, and say how to install what is missing."""
    from exporter.cli.tables import print_checks

    request = commands.DoctorRequest(
        repository=repository,
        tracking_uri=_tracking_uri(),
        registry_named=bool(os.environ.get("MLFLOW_TRACKING_URI")),
        triton_urls=_server_addresses(triton_url),
        triton_release=triton_release,
    )
    _finish(commands.doctor(request), print_checks, as_json=as_json)


def _tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def _server_addresses(urls: list[str] | None) -> tuple[str, ...]:
    """Return the address of every server; one value may hold several."""
    from exporter.triton.addresses import expand_addresses

    return expand_addresses(urls or ())


def _run_steps(
    command: Callable[[Request, Listener], Result],
    request: Request,
    show: Callable[[Result], None],
    *,
    as_json: bool,
) -> NoReturn:
    """Run a command that goes through steps, show its progress, and `_finish`."""
    from exporter.cli.output import Progress

    with Progress() as progress:
        result = command(request, progress)
    _finish(result, show, as_json=as_json)


def _finish(
    result: Result, show: Callable[[Result], None], *, as_json: bool, redacted: bool = True
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
