"""The commands. Everything heavy is imported when a command runs, so that ``--help`` is quick."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from exporter.errors import StlabError, UsageError, resource_error
from exporter.system.environment import exit_now, raise_gc_thresholds
from exporter.system.standard_streams import secure_standard_streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.commands.doctor.command import DoctorResult
    from exporter.commands.export.result import ExportResult
    from exporter.commands.prune import PruneResult
    from exporter.commands.status.result import StatusResult
    from exporter.commands.verify import VerifyResult

    _Result = DoctorResult | ExportResult | PruneResult | StatusResult | VerifyResult

__all__ = ["app", "export_main", "main"]

app = typer.Typer(
    name="stlab",
    help="From an MLflow model version to a proven, served Triton model.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _commands(context: typer.Context) -> None:
    """From an MLflow model version to a proven, served Triton model."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_Model = Annotated[str, typer.Argument(envvar="MLFLOW_MODEL_NAME", help="The registered model.")]
_Repository = Annotated[
    str, typer.Option(envvar="STLAB_MODEL_REPOSITORY", help="The Triton model repository.")
]
_TritonUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--triton-url", envvar="STLAB_TRITON_URL", help="HOST:PORT (gRPC) of a server; repeatable."
    ),
]
_ExpectCurrent = Annotated[
    int | None, typer.Option(help="Refuse unless the alias names this version now; 0: none.")
]
_AllowManual = Annotated[bool, typer.Option(help="Move prod outside CI, on record.")]
# What --allow-pickle=unconfined is for Typer, whose flags take no values.
_UNCONFINED = "--unconfined"
_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def export(
    model: _Model,
    alias: Annotated[
        str,
        typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias to move: dev, staging or prod."),
    ],
    version: Annotated[
        int | None, typer.Option(help="The version. dev: newest; staging: what dev names.")
    ] = None,
    target_format: Annotated[
        str, typer.Option("--format", help="onnx, torchscript or tensorrt.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    accelerator: Annotated[
        str, typer.Option(help="tensorrt: let Triton's TensorRT accelerator run an onnx model.")
    ] = "",
    repository: _Repository = "model_repository",
    triton_url: _TritonUrls = None,
    triton_release: Annotated[
        str, typer.Option(envvar="STLAB_TRITON_RELEASE", help="The release that is to serve it.")
    ] = "",
    prove_on: Annotated[
        str, typer.Option(help="HOST:PORT (gRPC) of a server to prove on, in explicit mode.")
    ] = "",
    batching: Annotated[
        str, typer.Option(help="auto: batch if rows are independent; require: or refuse; off.")
    ] = "auto",
    max_batch_size: Annotated[int, typer.Option(help="The most rows in one request.")] = 32,
    max_queue_size: Annotated[
        int, typer.Option(help="Requests that may wait before more are refused; 0: any number.")
    ] = 0,
    samples: Annotated[
        Path | None, typer.Option(help="A .npz with further inputs: 'input' or 'case/input'.")
    ] = None,
    expect_current: _ExpectCurrent = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            help="Load pickled content, confined; =unconfined: with network and all files."
        ),
    ] = False,
    unconfined: Annotated[bool, typer.Option(_UNCONFINED, hidden=True)] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that loading, running and converting may take.")
    ] = 3600.0,
    model_memory: Annotated[
        str, typer.Option(help="Memory for the model's process, such as 8G. [default: all]")
    ] = "",
    allow_manual: _AllowManual = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Export a version, prove it on a Triton server, publish it, and move the alias."""
    from exporter.cli.output import Progress
    from exporter.commands.export.pipeline import export as run
    from exporter.commands.export.request import ExportRequest, byte_size

    request = ExportRequest(
        model=model,
        alias=alias,
        version=version,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_servers(triton_url),
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
    with Progress() as progress:
        result = run(request, progress)
    _end(result, as_json=as_json)


@app.command()
def rollback(
    model: _Model,
    alias: Annotated[str, typer.Option(help="The alias to take back.")] = "prod",
    to: Annotated[
        int | None, typer.Option(help="The version; prod: what archived names, else the last one.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    repository: _Repository = "model_repository",
    triton_url: _TritonUrls = None,
    expect_current: _ExpectCurrent = None,
    allow_manual: _AllowManual = False,
    as_json: _AsJson = False,
) -> None:
    """Let an alias name the version before again, once that one is served and answers."""
    from exporter.cli.output import Progress
    from exporter.commands.rollback import RollbackRequest
    from exporter.commands.rollback import rollback as run

    request = RollbackRequest(
        model=model,
        alias=alias,
        to=to,
        reason=reason,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_servers(triton_url),
        expect_current=expect_current,
        allow_manual=allow_manual,
    )
    with Progress() as progress:
        result = run(request, progress)
    _end(result, as_json=as_json)


@app.command()
def status(
    model: Annotated[
        str | None, typer.Argument(envvar="MLFLOW_MODEL_NAME", help="All by default.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="An alias to look at, all by default; repeatable.")
    ] = None,
    repository: _Repository = "model_repository",
    triton_url: _TritonUrls = None,
    check: Annotated[bool, typer.Option("--check", help="Exit 5 where anything drifts.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the models' files.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Say what every alias names, and whether evidence, repository and servers agree."""
    from exporter.commands.status.command import StatusRequest
    from exporter.commands.status.command import status as run

    result = run(
        StatusRequest(
            model=model,
            aliases=tuple(alias or ()),
            repository=repository,
            tracking_uri=_tracking_uri(),
            triton_urls=_servers(triton_url),
            check=check,
            quick=quick,
        )
    )
    if not as_json:
        from exporter.cli.tables import print_status

        print_status(result)
    _leave(result, as_json=as_json)


@app.command()
def pull(
    model: _Model,
    alias: Annotated[
        str, typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias whose bundle is wanted.")
    ],
    repository: _Repository = "model_repository",
    as_json: _AsJson = False,
) -> None:
    """Bring what an alias took into a repository that a server reads; moves no alias."""
    from exporter.cli.output import Progress
    from exporter.commands.pull import PullRequest
    from exporter.commands.pull import pull as run

    request = PullRequest(
        model=model, alias=alias, repository=repository, tracking_uri=_tracking_uri()
    )
    with Progress() as progress:
        result = run(request, progress)
    _end(result, as_json=as_json)


@app.command()
def verify(
    model: _Model,
    alias: Annotated[
        str, typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias whose samples are asked.")
    ],
    repository: _Repository = "model_repository",
    triton_url: _TritonUrls = None,
    as_json: _AsJson = False,
) -> None:
    """Ask live servers whether they still answer as an alias was proven; changes nothing."""
    from exporter.cli.output import Progress
    from exporter.commands.verify import VerifyRequest
    from exporter.commands.verify import verify as run

    request = VerifyRequest(
        model=model,
        alias=alias,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_servers(triton_url),
    )
    with Progress() as progress:
        result = run(request, progress)
    if not as_json:
        from exporter.cli.tables import print_verified

        print_verified(result)
    _leave(result, as_json=as_json)


@app.command()
def prune(
    model: _Model,
    keep: Annotated[int, typer.Option(help="So many of the newest versions stay.")] = 2,
    nameless: Annotated[
        bool, typer.Option("--nameless", help="Stop serving versions that no alias names.")
    ] = False,
    repository: _Repository = "model_repository",
    triton_url: _TritonUrls = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Delete published versions that nothing names, serves or goes back to."""
    from exporter.cli.output import Progress
    from exporter.commands.prune import PruneRequest
    from exporter.commands.prune import prune as run

    request = PruneRequest(
        model=model,
        keep=keep,
        nameless=nameless,
        repository=repository,
        tracking_uri=_tracking_uri(),
        triton_urls=_servers(triton_url),
        dry_run=dry_run,
    )
    with Progress() as progress:
        result = run(request, progress)
    if not as_json:
        from exporter.cli.tables import print_pruned

        print_pruned(result)
    _leave(result, as_json=as_json)


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Whatever follows -- is passed on to tritonserver.",
)
def serve(
    flags: Annotated[list[str] | None, typer.Argument(help="Further tritonserver flags.")] = None,
    repository: _Repository = "model_repository",
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus port.")] = 8002,
    triton_release: Annotated[
        str, typer.Option(envvar="STLAB_TRITON_RELEASE", help="Serve as this release would.")
    ] = "",
) -> None:
    """Run a Triton server on a repository, on the loopback interface, in the foreground."""
    from exporter.commands.serve import serve as run
    from exporter.triton.releases import DEFAULT_RELEASE, release

    raise typer.Exit(
        run(
            repository,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            release=release(triton_release or DEFAULT_RELEASE),
            extra=flags or (),
        )
    )


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
        list[str] | None, typer.Option(help="An output wanted, all by default; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .npz to write the answer to.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that the inference may take.")] = 60.0,
    as_json: _AsJson = False,
) -> None:
    """Ask a served model, and print its answer."""
    from exporter.cli.output import print_answer, print_error, print_json
    from exporter.commands.infer.command import InferRequest
    from exporter.commands.infer.command import infer as run

    result = run(
        InferRequest(
            model=model,
            inputs=inputs,
            url=url,
            version=version,
            outputs=tuple(outputs or ()),
            output=output,
            deadline=deadline,
        )
    )
    if as_json:
        print_json(result.as_dict())
    elif result.error is None:
        print_answer(result)
    if result.error is not None:
        print_error(StlabError(**result.error))
    raise typer.Exit(result.exit_code)


@app.command()
def doctor(
    repository: _Repository = "model_repository",
    triton_url: _TritonUrls = None,
    triton_release: Annotated[
        str, typer.Option(envvar="STLAB_TRITON_RELEASE", help="The release that is to serve.")
    ] = "",
    as_json: _AsJson = False,
) -> None:
    """Say what is here, what is missing, and what to do about it; changes nothing."""
    from exporter.commands.doctor.command import DoctorRequest
    from exporter.commands.doctor.command import doctor as run

    result = run(
        DoctorRequest(
            repository=repository,
            tracking_uri=_tracking_uri(),
            registry_named=bool(os.environ.get("MLFLOW_TRACKING_URI")),
            triton_urls=_servers(triton_url),
            triton_release=triton_release,
        )
    )
    if not as_json:
        from exporter.cli.tables import print_checks

        print_checks(result)
    _leave(result, as_json=as_json)


def _servers(urls: list[str] | None) -> tuple[str, ...]:
    from exporter.triton.addresses import expand_addresses

    return expand_addresses(urls or ())


def _tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def _end(result: ExportResult, *, as_json: bool) -> NoReturn:
    if not as_json:
        from exporter.cli.output import print_result

        print_result(result)
    _leave(result, as_json=as_json)


def _leave(result: _Result, *, as_json: bool) -> NoReturn:
    from exporter.cli.output import print_error, print_json

    if as_json:
        from exporter.text.redaction import redact_all

        print_json(redact_all(result.as_dict()))
    if result.error is not None:
        print_error(StlabError(**result.error))
    raise typer.Exit(result.exit_code)


def main(arguments: list[str] | None = None) -> None:
    """Run ``stlab``, and end the process."""
    from exporter.cli.output import redact_stderr

    secure_standard_streams()
    redact_stderr()
    raise_gc_thresholds()
    exit_now(_run(sys.argv[1:] if arguments is None else arguments))


def export_main() -> None:
    """Run ``stlab-export``, which is ``stlab export``."""
    main(["export", *sys.argv[1:]])


def _run(arguments: list[str]) -> int:
    from exporter.cli.output import print_traceback, set_up_logging
    from exporter.system.environment import load_dotenv
    from exporter.system.limits import shortage

    try:
        load_dotenv()
        set_up_logging()
        _interrupt_once()
        result = app(args=[*_spelled_out(arguments)], prog_name="stlab", standalone_mode=False)
        return int(result) if isinstance(result, int) else 0
    except StlabError as error:
        known = error
    except TyperException as error:
        known = UsageError(error.format_message(), hint="See stlab --help.")
    except KeyboardInterrupt:
        known = StlabError("interrupted", hint="Run the same command again.", kind="interrupted")
    except Exception as error:  # noqa: BLE001 - a fault of our own, printed without secrets
        if lacking := "memory" if isinstance(error, MemoryError) else shortage(error):
            return _fail(resource_error(lacking), arguments)
        if "--json" not in arguments:
            print_traceback(error)
            return StlabError.exit_code
        known = StlabError(
            f"{type(error).__name__}: {error}",
            hint="This is a fault of stlab; run it without --json, and report what it prints.",
        )
    return _fail(known, arguments)


def _spelled_out(arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "--allow-pickle=unconfined":
            yield from ("--allow-pickle", _UNCONFINED)
        else:
            yield argument


def _fail(error: StlabError, arguments: list[str]) -> int:
    from exporter.cli.output import print_error, print_json

    if "--json" in arguments:
        print_json(_failed(error, arguments[0]))
    print_error(error)
    return error.exit_code


def _failed(error: StlabError, command: str) -> dict[str, Any]:
    if command == "doctor":
        from exporter.commands.doctor.command import DoctorResult

        return DoctorResult().failed(error).as_dict()
    if command == "infer":
        from exporter.commands.infer.result import InferResult

        return InferResult("").failed(error).as_dict()
    if command == "status":
        from exporter.commands.status.result import StatusResult

        return StatusResult().failed(error).as_dict()
    if command == "verify":
        from exporter.commands.verify import VerifyResult

        return VerifyResult("", "").failed(error).as_dict()
    if command == "prune":
        from exporter.commands.prune import PruneResult

        return PruneResult("failed", "").failed(error).as_dict()
    from exporter.commands.export.result import ExportResult

    return ExportResult("failed", "", "").failed(error).as_dict()


def _interrupt_once() -> None:
    """Let SIGINT and SIGTERM interrupt, but not what is undone because of the first of them."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
