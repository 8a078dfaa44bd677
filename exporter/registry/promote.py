"""Moves an alias as the last step of all: recorded before, read back after, undone if it fails.

MLflow cannot compare and set, and `prod` means two aliases. So everything is in an order of which
each prefix is a state that the same command finishes: the record first, then ``archived``, which
names what is displaced, then the alias, and the displaced version's record is closed last.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from exporter.errors import ConflictError, OutcomeUnknownError
from exporter.names import ARCHIVED
from exporter.registry.errors import translate_errors
from exporter.registry.promotion_record import (
    PromotionRecord,
    open_records,
    promoted_tag,
    promotion,
)
from exporter.registry.runs import close_abandoned
from exporter.text.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.registry.client import Registry, Selection

__all__ = ["clean_up", "is_current", "promote"]


def promote(registry: Registry, selection: Selection, alias: str, record: PromotionRecord) -> None:
    """Let an alias name the selected version; ``prod`` leaves ``archived`` at what it displaces.

    Args:
        registry: The registry.
        selection: The version, and what the alias named when it was chosen.
        alias: The alias.
        record: Who moves it, and the bundle that it takes.

    Raises:
        ConflictError: Somebody else moved the alias meanwhile; what was changed is undone.
        OutcomeUnknownError: The registry went away before it said whether the alias was moved.
        UnavailableError: The registry went away before.
    """
    with translate_errors(registry.uri):
        _move(registry, selection, alias, record)


def clean_up(registry: Registry, model: str) -> None:
    """Finish what an interrupted command has left undone in records and runs of a model.

    Raises:
        UnavailableError: The registry went away.
    """
    aliases, versions = registry.get_model(model)
    with translate_errors(registry.uri):
        _close_claims(registry, model, versions, aliases)
        close_abandoned(registry, model)


def _move(registry: Registry, selection: Selection, alias: str, record: PromotionRecord) -> None:
    model, version = selection.model, selection.version
    aliases = registry.aliases(model)
    if aliases.get(alias) != selection.previous:
        raise ConflictError(
            f"'{alias}' was moved from {_version(selection.previous)} to "
            f"{_version(aliases.get(alias))} by somebody else while version {version} was proven",
            hint="Look at what they promoted, then run the command again.",
        )
    writing = _Writing(registry, selection)
    try:
        writing.record(version, alias, _renewed(selection, alias, record))
        displaced = _displaced(selection, alias)
        if displaced is not None:
            before = promotion(selection.versions[displaced], alias)
            if before is not None:
                previous = aliases.get(ARCHIVED)
                archived = replace(before, at=record.at, by=record.by, previous=previous, until="")
                writing.record(displaced, ARCHIVED, archived)
            writing.point(ARCHIVED, displaced, aliases.get(ARCHIVED))
        writing.point(alias, version, selection.previous)
    except BaseException as error:
        try:
            writing.undo()
        except Exception:  # noqa: BLE001 - whatever MLflow raises on a dead connection
            if alias in writing.pointed:
                raise _unknown(registry, selection, alias) from error
        raise
    try:
        current = registry.aliases(model).get(alias)
    except Exception:  # noqa: BLE001 - whatever MLflow raises on a dead connection
        return  # every call was answered: the alias was moved
    if current != version:
        raise ConflictError(
            f"'{alias}' names {_version(current)} after it was moved to version {version}",
            hint="Another promotion is under way; look at the aliases and run the command again.",
        )
    try:
        _close_claims(registry, model, selection.versions, writing.pointed)
    except Exception:  # noqa: BLE001 - the alias was moved; the next run closes them
        return


def is_current(selection: Selection, alias: str, bundle: str) -> bool:
    """Return whether an alias names the selected version, and its open record says this bundle.

    An alias that was moved by hand has no open record, whatever is served.
    """
    record = promotion(selection.tags, alias)
    if selection.previous != selection.version or record is None:
        return False
    return record.bundle == bundle and not record.until


def _close_claims(
    registry: Registry,
    model: str,
    versions: Mapping[int, Mapping[str, str]],
    named: Mapping[str, int],
) -> None:
    """Note on every other version that an alias does not name it any more.

    Args:
        registry: The registry.
        model: The registered model.
        versions: The tags of its versions.
        named: The aliases to look at, with what they name.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, current in named.items():
        for version, record in open_records(versions, name).items():
            if version != current:
                closed = replace(record, until=now).as_tag()
                registry.tag(model, version, {promoted_tag(name): closed})


class _Writing:
    """Aliases and records that were written, to undo them.

    Attributes:
        pointed: The aliases that were moved, or may have been, with what they name now.
    """

    def __init__(self, registry: Registry, selection: Selection) -> None:
        self._registry = registry
        self._selection = selection
        self._model = selection.model
        self._done = ExitStack()
        self.pointed: dict[str, int] = {}

    def record(self, version: int, alias: str, record: PromotionRecord) -> None:
        """Write a record."""
        name = promoted_tag(alias)
        before = self._selection.versions[version].get(name)
        self._done.callback(self._put_tag, version, name, before)
        self._put_tag(version, name, record.as_tag())

    def point(self, alias: str, version: int, before: int | None) -> None:
        """Let an alias name a version."""
        self.pointed[alias] = version
        self._done.callback(self._put_back, alias, version, before)
        self._registry.client.set_registered_model_alias(self._model, alias, str(version))

    def undo(self) -> None:
        """Put everything back as it was, the last thing first."""
        self._done.close()

    def _put_tag(self, version: int, name: str, value: str | None) -> None:
        client = self._registry.client
        if value is not None:
            client.set_model_version_tag(self._model, str(version), name, value)
        elif name in client.get_model_version(self._model, str(version)).tags:
            client.delete_model_version_tag(self._model, str(version), name)

    def _put_back(self, alias: str, version: int, before: int | None) -> None:
        """Let an alias name what it named, unless somebody else moved it on."""
        client = self._registry.client
        if self._registry.aliases(self._model).get(alias) != version:
            return
        if before is None:
            client.delete_registered_model_alias(self._model, alias)
        else:
            client.set_registered_model_alias(self._model, alias, str(before))


def _displaced(selection: Selection, alias: str) -> int | None:
    """Return what ``archived`` is to name; what the registry has lost cannot be gone back to."""
    before = selection.previous
    displaces = alias == "prod" and before != selection.version and before in selection.versions
    return before if displaces else None


def _renewed(selection: Selection, alias: str, record: PromotionRecord) -> PromotionRecord:
    """Return what to record: where the alias stays with the version, it came there when it did."""
    if selection.previous != selection.version:
        return record
    earlier = promotion(selection.tags, alias)
    if earlier is None:
        return replace(record, previous=None)
    if earlier.bundle == record.bundle:
        return replace(earlier, uri=record.uri, repository=record.repository, until="")
    return replace(record, previous=earlier.previous)


def _unknown(registry: Registry, selection: Selection, alias: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"the registry at {redact(registry.uri)} went away while '{alias}' was moved; whether it "
        f"names version {selection.version} now is unknown, and that version stays served",
        hint="Run the same command again once the registry answers; it finishes the move.",
    )


def _version(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"
