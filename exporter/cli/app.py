"""The programs ``stlab`` and ``stlab-export``: commands, exit codes, errors, interrupts.

A command's code is imported when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.exceptions import TyperException

from exporter.cli import doctor, export, infer, prune, pull, rollback, serve, status, verify
from exporter.commands import CommandResult
from exporter.errors import StlabError, UsageError, resource_error
from exporter.system.environment import exit_now, raise_gc_thresholds
from exporter.system.standard_streams import secure_standard_streams

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


app.command()(export.export)
app.command()(rollback.rollback)
app.command()(status.status)
app.command()(pull.pull)
app.command()(verify.verify)
app.command()(prune.prune)
app.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Arguments after -- are passed to tritonserver.",
)(serve.serve)
app.command()(infer.infer)
app.command()(doctor.doctor)

# Commands with a result type of their own; the others return an ExportResult.
_RESULTS = {
    "doctor": "DoctorResult",
    "infer": "InferResult",
    "prune": "PruneResult",
    "status": "StatusResult",
    "verify": "VerifyResult",
}


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
    except Exception as error:  # noqa: BLE001 - a bug in stlab, printed without secrets
        if lacking := "memory" if isinstance(error, MemoryError) else shortage(error):
            return _fail(resource_error(lacking), arguments)
        if "--json" not in arguments:
            print_traceback(error)
            return StlabError.exit_code
        known = StlabError(
            f"{type(error).__name__}: {error}",
            hint="This is a bug in stlab; run it without --json, and report the output.",
        )
    return _fail(known, arguments)


def _spelled_out(arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "--allow-pickle=unconfined":
            yield from ("--allow-pickle", export.UNCONFINED)
        else:
            yield argument


def _fail(error: StlabError, arguments: list[str]) -> int:
    from exporter.cli.output import print_error, print_json

    if "--json" in arguments:
        print_json(_failed(error, arguments[0]))
    print_error(error)
    return error.exit_code


def _failed(error: StlabError, command: str) -> dict[str, Any]:
    from exporter import commands

    result: CommandResult = getattr(commands, _RESULTS.get(command, "ExportResult"))()
    return result.failed(error).as_dict()


def _interrupt_once() -> None:
    """Interrupt on the first SIGINT or SIGTERM, and ignore further ones while undoing."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
