"""The page *Registry*: the aliases of every model, their evidence and their problems."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from nicegui import ui

from exporter.commands.status.result import AliasState, ModelState, StatusResult
from exporter.errors import StlabError
from exporter.names import ALIAS_ORDER
from stlab_dashboard.elements import button, cell, command, element, link, row, state, table, text
from stlab_dashboard.layout import notice
from stlab_dashboard.registry_reader import RegistryReader

__all__ = ["registry_page", "report_page"]

_COLUMNS = ("Alias", "Version", "Bundle", "Margin", "When", "By", "Served", "State", "Evidence")
_REFRESH_SECONDS = 30.0


async def registry_page(registry: RegistryReader) -> None:
    """Draw the page; it refreshes every half minute, and draws again what has changed."""
    with element("div", "bar"):
        updated = text("p", "Loading …", "quiet", role="status")
        button("Refresh", lambda: update(refresh=True))
    content = element("div")
    drawn: StatusResult | None = None

    async def update(*, refresh: bool = False) -> None:
        nonlocal drawn
        result = await registry.status(refresh=refresh)
        updated.text = f"Updated at {datetime.now(UTC):%H:%M:%S} UTC."
        if result != drawn:
            drawn = result
            content.clear()
            with content:
                _draw(result)

    await update()
    ui.timer(_REFRESH_SECONDS, update, immediate=False)


async def report_page(registry: RegistryReader, model: str, alias: str) -> None:
    """Draw the parity report of the version that an alias points to."""
    try:
        named = await registry.alias(model, alias)
        await registry.report(model, named)
    except StlabError as error:
        notice(error.as_dict(), "The report is missing")
        link("Back to the registry", "/")
        return
    with element("p", "links"):
        link("Back to the registry", "/")
        link("Try this version", _try(model, alias))
        link("Only the report", _report(model, alias) + ".html")
    element(
        "iframe",
        "report",
        src=_report(model, alias) + ".html",
        title=f"Parity report of {model}, version {named.version}",
        sandbox="allow-same-origin",  # no script, no form
    )


def _draw(result: StatusResult) -> None:
    if result.error is not None:
        notice(result.error, "The registry's state cannot be read")
    for model in result.models:
        _draw_model(model)
    if not result.models and result.error is None:
        text("p", "No model is exported yet. Export one: stlab-export MODEL --alias dev")


def _draw_model(model: ModelState) -> None:
    problems = tuple(dict.fromkeys(model.drifts))
    with element("section", "model", aria_label=f"Model {model.model}"):
        with element("div", "bar"):
            text("h2", model.model)
            if problems:
                state("bad", f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}")
            else:
                state("good", "no problems")
        aliases = {entry.alias: entry for entry in model.aliases}
        with table(f"Aliases of {model.model}", _COLUMNS, hidden=True):
            for alias in ALIAS_ORDER:
                _draw_alias(model.model, alias, aliases.get(alias))
        if problems:
            text("h3", "How to fix it")
            with element("ul", "drift"):
                for drift in problems:
                    with element("li"):
                        text("p", f"✗ {drift.message[:1].upper()}{drift.message[1:]}.", "bad")
                        command(drift.fix)


def _draw_alias(model: str, alias: str, named: AliasState | None) -> None:
    if named is None:
        with row("empty"):
            cell("Alias", alias, first=True)
            with cell("Version", classes="rest").props(f"colspan={len(_COLUMNS) - 1}"):
                text("span", "not set")
        return
    record = named.record
    with row("drifted" if named.drift else ""):
        cell("Alias", alias, first=True)
        cell("Version", str(named.version))
        with cell("Bundle"):
            if record is None:
                text("span", "—")
            else:
                text("code", record.bundle[:12], title=record.bundle)
        cell("Margin", "—" if named.margin is None else f"{named.margin:.3g}", "number")
        with cell("When"):
            _draw_time(record.at if record else "")
        with cell("By"):
            _draw_triggered_by(record.by if record else "")
        cell("Served", _served(named))
        with cell("State"):
            if named.drift:
                state("bad", "drift")
            else:
                state("good", "ok")
        with cell("Evidence", classes="links"):
            if record is not None:
                about = f"{model}, {alias}, version {named.version}"
                if named.strength == "weak":
                    state("warn", "weak")
                link("Report", _report(model, alias), aria_label=f"Report of {about}")
                link("Try it", _try(model, alias), aria_label=f"Try {about}")
            else:
                text("span", "none")


def _draw_time(at: str) -> None:
    try:
        when = datetime.fromisoformat(at).astimezone(UTC)
    except ValueError:
        text("span", at or "—")
        return
    text("time", f"{when:%Y-%m-%d %H:%M} UTC", datetime=at)


def _draw_triggered_by(by: str) -> None:
    """Draw what moved an alias; a pipeline's address is a link."""
    if by.startswith(("https://", "http://")):
        link("pipeline", by, rel="noopener noreferrer", title=by)
    else:
        text("span", by or "—")


def _served(named: AliasState) -> str:
    """Return in a few words where a version is served."""
    if named.elsewhere:
        return "in another repository"
    ready = list(named.servers.values())
    if all(state is None for state in ready):  # no server, or none that answers
        return "in the config" if named.in_config else "no"
    if len(ready) == 1:
        return "yes" if ready[0] else "no"
    return f"on {ready.count(True)} of {len(ready)} servers"


def _report(model: str, alias: str) -> str:
    return f"/report/{quote(model, safe='')}/{quote(alias, safe='')}"


def _try(model: str, alias: str) -> str:
    return f"/try?{urlencode({'model': model, 'alias': alias})}"
