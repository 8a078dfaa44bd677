"""The ladder of every model: what each alias names, since when, how proven, and what drifts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from nicegui import ui

from exporter.errors import StlabError
from exporter.names import ALIAS_ORDER
from stlab_dashboard.elements import button, cell, command, element, link, row, state, table, text
from stlab_dashboard.layout import frame, notice

if TYPE_CHECKING:
    from exporter.commands.status.drift import Drift
    from exporter.commands.status.result import AliasState, ModelState, StatusResult
    from stlab_dashboard.settings import Settings
    from stlab_dashboard.sources import Sources

__all__ = ["registry_page", "report_page"]

_COLUMNS = ("Alias", "Version", "Bundle", "Margin", "When", "By", "Served", "State", "Evidence")
_REFRESH_SECONDS = 30.0


async def registry_page(settings: Settings, sources: Sources) -> None:
    """Show the page; it looks again every half minute, and draws what has changed."""
    with frame(settings, "Registry", "/"):
        with element("div", "bar"):
            said = text("p", "Looking …", "quiet", role="status")
            button("Look again", lambda: look(anew=True))
        shown = element("div")
    drawn: StatusResult | None = None

    async def look(*, anew: bool = False) -> None:
        nonlocal drawn
        found = await sources.status(anew=anew)
        said.text = f"Looked at {datetime.now(UTC):%H:%M:%S} UTC."
        if found != drawn:
            drawn = found
            shown.clear()
            with shown:
                _draw(found)

    await look()
    ui.timer(_REFRESH_SECONDS, look, immediate=False)


async def report_page(settings: Settings, sources: Sources, model: str, alias: str) -> None:
    """Show the parity report of what an alias names."""
    with frame(settings, f"Report of {model}, {alias}", "/"):
        try:
            named = await sources.alias(model, alias)
            await sources.report(model, named)
        except StlabError as error:
            notice(error.as_dict(), "There is no report to show")
            link("Back to the registry", "/")
            return
        with element("p", "links"):
            link("Back to the registry", "/")
            link("Try this version", _try(model, alias))
            link("The report alone", _report(model, alias) + ".html")
        element(
            "iframe",
            "report",
            src=_report(model, alias) + ".html",
            title=f"Parity report of {model}, version {named.version}",
            sandbox="allow-same-origin",  # no script, no form
        )


def _draw(found: StatusResult) -> None:
    if found.error is not None:
        notice(found.error)
    for model in found.models:
        _draw_model(model)
    if not found.models and found.error is None:
        text("p", "No model was exported yet. The first one: stlab-export MODEL --alias dev")


def _draw_model(model: ModelState) -> None:
    number = len(model.drifts)
    with element("section", "model", aria_label=f"Model {model.model}"):
        with element("div", "bar"):
            text("h2", model.model)
            if number:
                state("bad", f"{number} {'thing' if number == 1 else 'things'} to mend")
            else:
                state("good", "as it should be")
        named = {entry.alias: entry for entry in model.aliases}
        with table(f"What the aliases of {model.model} name", _COLUMNS, hidden=True):
            for alias in ALIAS_ORDER:
                _draw_alias(model.model, alias, named.get(alias))
        if number:
            text("h3", "To mend")
            with element("ul", "drift"):
                for drift in _once(model.drifts):
                    with element("li"):
                        text("p", f"✗ {drift.message[:1].upper()}{drift.message[1:]}.", "bad")
                        command(drift.fix)


def _draw_alias(model: str, alias: str, named: AliasState | None) -> None:
    if named is None:
        with row("empty"):
            cell("Alias", alias, first=True)
            with cell("Version", classes="rest").props(f"colspan={len(_COLUMNS) - 1}"):
                text("span", "names nothing")
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
            _draw_mover(record.by if record else "")
        cell("Served", _served(named))
        with cell("State"):
            if named.drift:
                state("bad", "drift")
            else:
                state("good", "in order")
        with cell("Evidence", classes="links"):
            if record is not None:
                about = f"{model}, {alias}, version {named.version}"
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


def _draw_mover(by: str) -> None:
    """Show who moved an alias; a pipeline's address is a link."""
    if by.startswith(("https://", "http://")):
        link("pipeline", by, rel="noopener noreferrer", title=by)
    else:
        text("span", {"manual": "by hand"}.get(by, by) or "—")


def _served(named: AliasState) -> str:
    """Say where a version is served, in a few words."""
    if named.elsewhere:
        return "in another repository"
    ready = list(named.servers.values())
    silent = ready.count(None)
    if ready and silent == len(ready):
        return "in the config" if named.in_config else "no"
    if not ready:
        return "in the config" if named.in_config else "no"
    yes = ready.count(True)
    if len(ready) == 1:
        return "yes" if yes else "no"
    return f"on {yes} of {len(ready)} servers"


def _once(drifts: tuple[Drift, ...]) -> tuple[Drift, ...]:
    return tuple(dict.fromkeys(drifts))


def _report(model: str, alias: str) -> str:
    return f"/report/{quote(model, safe='')}/{quote(alias, safe='')}"


def _try(model: str, alias: str) -> str:
    return f"/try?{urlencode({'model': model, 'alias': alias})}"
