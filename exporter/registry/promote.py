"""Move an alias, the last step of an export: record it, move it, read it back, undo on failure.

MLflow has no compare-and-set, and promoting ``prod`` moves two aliases. The writes are ordered so
that the same command can finish from any prefix of them: the record first, then ``archived``, which
takes the displaced version, then the alias; the displaced version's record is closed last.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

from exporter.errors import ConflictError, OutcomeUnknownError
from exporter.names import ARCHIVED
from exporter.registry.client import Registry, Selection
from exporter.registry.errors import translate_errors
from exporter.registry.promotion_record import (
    PromotionRecord,
    now,
    open_records,
    promoted_tag,
    promotion,
)
from exporter.text.redaction import redact

__all__ = ["close_records", "is_current", "promote"]


def promote(registry: Registry, selection: Selection, alias: str, record: PromotionRecord) -> None:
    """Move an alias to the selected version; ``archived`` takes the version that ``prod`` leaves.

    Raises:
        ConflictError: The alias was moved concurrently; all changes are undone.
        OutcomeUnknownError: The registry failed before it confirmed whether the alias was moved.
        UnavailableError: The registry failed before the alias was moved.
    """
    with translate_errors(registry.uri):
        _promote(registry, selection, alias, record)


def _promote(registry: Registry, selection: Selection, alias: str, record: PromotionRecord) -> None:
    model, version = selection.model, selection.version
    aliases = registry.aliases(model)
    if aliases.get(alias) != selection.previous:
        raise ConflictError(
            f"'{alias}' was moved from {_version(selection.previous)} to "
            f"{_version(aliases.get(alias))} by another command while version {version} was proven",
            hint="Check that promotion, then run the command again.",
        )
    changes = _Changes(registry, selection)
    try:
        changes.write_record(version, alias, _merged_record(selection, alias, record))
        displaced = selection.previous if alias == "prod" else None
        # Of a version that the registry has no more, nothing is kept.
        if displaced is not None and displaced != version and displaced in selection.versions:
            before = promotion(selection.versions[displaced], alias)
            if before is not None:
                previous = aliases.get(ARCHIVED)
                archived = replace(before, at=record.at, by=record.by, previous=previous, until="")
                changes.write_record(displaced, ARCHIVED, archived)
            changes.move_alias(ARCHIVED, displaced, aliases.get(ARCHIVED))
        changes.move_alias(alias, version, selection.previous)
    except BaseException as error:
        try:
            changes.undo()
        except Exception:  # noqa: BLE001 - whatever MLflow raises on a dead connection
            if alias in changes.moved:
                raise OutcomeUnknownError(
                    f"the registry at {redact(registry.uri)} failed while '{alias}' was moved; "
                    f"whether it points to version {version} now is unknown, and that version "
                    "stays served",
                    hint="Run the same command again once the registry answers; it finishes the "
                    "move.",
                ) from error
        raise
    try:
        current = registry.aliases(model).get(alias)
    except Exception:  # noqa: BLE001 - whatever MLflow raises on a dead connection
        return  # every write was confirmed: the alias was moved
    if current != version:
        raise ConflictError(
            f"'{alias}' points to {_version(current)} after it was moved to version {version}",
            hint="Another promotion is running; check the aliases and run the command again.",
        )
    with suppress(Exception):  # the alias was moved; the next run closes them
        close_records(registry, model, selection.versions, changes.moved)


def is_current(selection: Selection, alias: str, bundle: str) -> bool:
    """Whether an alias points to the selected version, with an open record of this bundle.

    An alias that was moved without stlab has no open record.
    """
    record, stays = promotion(selection.tags, alias), selection.previous == selection.version
    return stays and record is not None and record.bundle == bundle and not record.until


def close_records(
    registry: Registry,
    model: str,
    versions: Mapping[int, Mapping[str, str]],
    aliases: Mapping[str, int],
) -> None:
    """Close the open records of aliases on versions that the aliases do not point to."""
    for alias, current in aliases.items():
        for version, record in open_records(versions, alias).items():
            if version != current:
                closed = replace(record, until=now()).as_tag()
                registry.tag(model, version, {promoted_tag(alias): closed})


class _Changes:
    """The aliases and records that were written, to undo them.

    Attributes:
        moved: The aliases that were moved, or may have been, with their new version.
    """

    def __init__(self, registry: Registry, selection: Selection) -> None:
        self._registry = registry
        self._selection = selection
        self._model = selection.model
        self._done = ExitStack()
        self.moved: dict[str, int] = {}

    def write_record(self, version: int, alias: str, record: PromotionRecord) -> None:
        """Write a record."""
        name = promoted_tag(alias)
        before = self._selection.versions[version].get(name)
        self._done.callback(self._put_tag, version, name, before)
        self._put_tag(version, name, record.as_tag())

    def move_alias(self, alias: str, version: int, before: int | None) -> None:
        """Move an alias to a version."""
        self.moved[alias] = version
        self._done.callback(self._restore_alias, alias, version, before)
        self._registry.client.set_registered_model_alias(self._model, alias, str(version))

    def undo(self) -> None:
        """Restore the previous state, the last change first."""
        self._done.close()

    def _put_tag(self, version: int, name: str, value: str | None) -> None:
        client = self._registry.client
        if value is not None:
            client.set_model_version_tag(self._model, str(version), name, value)
        elif name in client.get_model_version(self._model, str(version)).tags:
            client.delete_model_version_tag(self._model, str(version), name)

    def _restore_alias(self, alias: str, version: int, before: int | None) -> None:
        """Move an alias back, unless another command has moved it since."""
        client = self._registry.client
        if self._registry.aliases(self._model).get(alias) != version:
            return
        if before is None:
            client.delete_registered_model_alias(self._model, alias)
        else:
            client.set_registered_model_alias(self._model, alias, str(before))


def _merged_record(selection: Selection, alias: str, record: PromotionRecord) -> PromotionRecord:
    """Return the record to write; of an alias that stays, it keeps the time and the origin."""
    if selection.previous != selection.version:
        return record
    earlier = promotion(selection.tags, alias)
    if earlier is None:
        return replace(record, previous=None)
    if earlier.bundle == record.bundle:
        return replace(earlier, uri=record.uri, repository=record.repository, until="")
    return replace(record, previous=earlier.previous)


def _version(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
