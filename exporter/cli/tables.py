"""The tables of results on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.commands.export.result import ExportResult
from exporter.commands.status.result import AliasState, StatusResult
from exporter.text.redaction import redact
from exporter.text.terminal import one_line

if TYPE_CHECKING:
    from exporter.commands.doctor.command import DoctorResult
    from exporter.commands.infer.result import InferResult
    from exporter.commands.prune import PruneResult
    from exporter.commands.verify import VerifyResult

__all__ = [
    "plain",
    "print_answer",
    "print_checks",
    "print_pruned",
    "print_result",
    "print_status",
    "print_verified",
]

_COLOURS = {
    "promoted": "green", "rolled_back": "green", "pulled": "green", "unchanged": "green",
    "ok": "green", "planned": "yellow", "missing": "yellow", "warning": "yellow", "failed": "red",
}  # fmt: skip


def plain(text: object, style: str = "") -> Text:
    """Return untrusted text for rich: on one line, without secrets or markup."""
    return Text(one_line(redact(str(text))), style)


def _console() -> Console:
    """Return a console for stdout that interprets no markup, emoji or highlighting."""
    return Console(highlight=False, markup=False, emoji=False)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_result(result: ExportResult) -> None:
    """Print the result of an export, a rollback or a pull."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("status", plain(result.status, _COLOURS[result.status]))
    table.add_row("model", plain(f"{result.model} version {result.version or '?'}"))
    table.add_row("alias", plain(f"{result.alias} (before: {result.previous or 'none'})"))
    if bundle := result.bundle:
        size = f"{bundle['bytes']:,} bytes{', reused' if bundle['reused'] else ''}"
        table.add_row("bundle", plain(f"{bundle['sha256'][:12]} ({bundle['format']}, {size})"))
    if (parity := result.parity) and parity.get("passed"):
        worst = f"worst error is {100 * parity['margin']:.2g} % of the budget"
        table.add_row("parity", f"{worst}, {parity['cases']} comparisons")
        table.add_row("evidence", _evidence(parity))
        reason = f" ({parity['batching_reason']})" if parity.get("batching_reason") else ""
        table.add_row("batching", plain(f"{parity['batching']}{reason}"))
        for warning in parity["warnings"]:
            table.add_row("warning", plain(warning, "yellow"))
    for number, step in enumerate(result.plan):
        table.add_row("plan" if number == 0 else "", plain(step))
    table.add_row("repository", plain(result.repository))
    if result.report:
        table.add_row("report", plain(result.report))
    table.add_row("seconds", f"{result.seconds.get('total', 0.0):.1f}")
    _console().print(table)


def _evidence(parity: Mapping[str, Any]) -> Text:
    counts = (
        f"{count['seen']} of {count['known']} {kind}" for kind, count in parity["coverage"].items()
    )
    covered = ", ".join(counts)
    strength = str(parity["strength"])
    return plain(
        f"{strength}: {covered}" if covered else strength,
        "yellow" if strength == "weak" else "green",
    )


def print_answer(result: InferResult) -> None:
    """Print a row for every output of an inference."""
    if result.error is not None:
        return
    from exporter.commands.infer.result import described

    table = _table("output", "type", "shape", "first values")
    for heading in ("min", "mean", "max"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, array in result.outputs.items():
        table.add_row(*map(plain, described(name, array)))
    output = _console()
    output.print(table)
    version = "" if result.version is None else f" version {result.version}"
    milliseconds = (result.seconds or 0.0) * 1e3
    output.print(plain(f"{result.model}{version} answered in {milliseconds:.1f} ms"))


def print_status(result: StatusResult) -> None:
    """Print a row for every alias, and below the table all drift with its fix."""
    output = _console()
    headings = "model", "alias", "version", "bundle", "evidence", "repository", "served"
    table = _table(*headings, "since, by")
    for model in result.models:
        for state in model.aliases:
            style = "red" if state.drift else None
            table.add_row(plain(model.model), *map(plain, _row(state)), style=style)
    if result.models:
        output.print(table)
    elif result.error is None:
        output.print("no exported models")
    for model in result.models:
        for drift in model.drifts:
            output.print(plain(f"{model.model}: {drift.message}", "red"))
            output.print(Text("  "), plain(drift.fix), sep="", soft_wrap=True)
    if result.models and result.status == "ok":
        output.print(Text("no drift", "green"))


def _row(state: AliasState) -> tuple[str, ...]:
    record, published = state.record, state.published
    margin = "" if state.margin is None else f", margin {state.margin:.3g}"
    if state.elsewhere:
        repository = "another one"
    elif published is None:
        repository = "missing"
    elif published.damage:
        repository = "damaged"
    else:
        repository = "intact" if published.files_intact else "published"
    served = ["config" if state.in_config else "-"]
    served += [
        f"{url}: {'no answer' if ready is None else 'yes' if ready else 'no'}"
        for url, ready in state.servers.items()
    ]
    return (
        state.alias,
        str(state.version),
        "-" if record is None else record.bundle[:12],
        f"{'passed' if state.passed else 'none'}{margin}{', weak' * (state.strength == 'weak')}",
        repository,
        ", ".join(served),
        "-" if record is None else f"{record.at}, {record.by}",
    )


def print_verified(result: VerifyResult) -> None:
    """Print a row for every server."""
    output = _console()
    digest = "-" if result.bundle is None else str(result.bundle["sha256"])[:12]
    version = result.version or "?"
    output.print(plain(f"{result.model} version {version}, '{result.alias}', bundle {digest}"))
    table = _table("server", "verdict", "margin", "max abs error", "cases", "worst output")
    for server in result.servers:
        verdict = Text("passed", "green") if server.passed else Text("failed", "red")
        table.add_row(
            plain(server.url),
            verdict,
            *("-" if v is None else f"{v:.3g}" for v in (server.margin, server.max_abs_error)),
            str(server.cases),
            plain(server.worst_output or server.reason),
        )
    if result.servers:
        output.print(table)


def print_pruned(result: PruneResult) -> None:
    """Print a row for every version."""
    table = _table("version", "", "reason")
    action = "to be removed" if result.status == "planned" else "removed"
    rows = dict.fromkeys(result.removed, (action, "no alias, server or rollback needs it"))
    rows |= {version: ("kept", reason) for version, reason in result.kept.items()}
    for version, (action, reason) in sorted(rows.items()):
        table.add_row(str(version), action, plain(reason))
    _console().print(table)


def print_checks(result: DoctorResult) -> None:
    """Print a row for every check."""
    table = _table("check", "status", "found", "fix")
    for check in result.checks:
        colour = "red" if check.exit_code else _COLOURS[check.status]
        status = Text(check.status, colour)
        table.add_row(plain(check.name), status, plain(check.found or "-"), plain(check.hint))
    _console().print(table)
